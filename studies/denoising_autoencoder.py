"""Which noise teaches the most, and how large a U-Net removes it (denoising autoencoder).

Each trial trains a network, and its epochs report to a median pruner: a network that is behind
half of those before it at the same epoch is stopped.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner

from studies.detection import detector_study

STUDY = detector_study(
    "denoising_autoencoder",
    space={
        "noise_level": FloatDistribution(0.1, 0.6, log=True),
        "noise_resolution": CategoricalDistribution([4, 8, 16, 32]),
        "base_channels": CategoricalDistribution([4, 8, 16]),
        "depth": IntDistribution(2, 4),
        "lr": FloatDistribution(2e-4, 3e-3, log=True),
        "n_epochs": IntDistribution(5, 40),
        "residual": CategoricalDistribution(["positive", "absolute"]),
    },
    doc=__doc__,
    n_trials=20,
    pruner=MedianPruner(n_startup_trials=5, n_warmup_steps=3),
)
