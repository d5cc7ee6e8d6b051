"""How small a bottleneck is, how it is trained and how its error is measured (autoencoder).

Each trial trains a network, and its epochs report to a median pruner: a network that is behind
half of those before it at the same epoch is stopped.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner

from studies.detection import detector_study

STUDY = detector_study(
    "autoencoder",
    space={
        "latent_dim": IntDistribution(8, 256, log=True),
        "base_channels": CategoricalDistribution([8, 16, 32]),
        "lr": FloatDistribution(2e-4, 3e-3, log=True),
        "n_epochs": IntDistribution(10, 60),
        "image_size": CategoricalDistribution([64, 128]),
        "loss": CategoricalDistribution(["ssim", "l1"]),
        "residual": CategoricalDistribution(["positive", "absolute", "ssim"]),
    },
    doc=__doc__,
    n_trials=20,
    pruner=MedianPruner(n_startup_trials=5, n_warmup_steps=5),
)
