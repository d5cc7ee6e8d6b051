"""How the detector is trained: its size, its loss and its pace (BrainCVAE).

Each trial trains a network, and its epochs report to a median pruner: a network that is behind
half of those before it at the same epoch is stopped.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner

from studies.detection import detector_study

STUDY = detector_study(
    "brain_cvae",
    space={
        "latent_dim": IntDistribution(8, 256, log=True),
        "lr": FloatDistribution(1e-4, 3e-3, log=True),
        "kl_weight": FloatDistribution(1e-3, 10.0, log=True),
        "n_epochs": IntDistribution(5, 30),
        "batch_size": CategoricalDistribution([32, 64, 128]),
        "image_size": CategoricalDistribution([64, 128]),
        "loss": CategoricalDistribution(["mse", "l1", "bce"]),
    },
    doc=__doc__,
    n_trials=25,
    pruner=MedianPruner(n_startup_trials=5, n_warmup_steps=3),
)
