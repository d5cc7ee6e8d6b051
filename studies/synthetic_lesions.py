"""How a network is taught to outline painted lesions: its size, its pace and the lesions.

Each trial trains a network, and its epochs report to a median pruner: a network that is behind
half of those before it at the same epoch is stopped.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner

from studies.detection import detector_study

STUDY = detector_study(
    "synthetic_lesions",
    space={
        "lr": FloatDistribution(5e-4, 5e-3, log=True),
        "width": CategoricalDistribution([8, 16, 24]),
        "image_size": CategoricalDistribution([64, 96]),
        "lesion_rate": FloatDistribution(0.3, 0.9),
        "max_radius": FloatDistribution(0.1, 0.35),
        "lr_half_life": IntDistribution(50, 500, log=True),
        "n_epochs": IntDistribution(8, 30),
        "batch_size": CategoricalDistribution([16, 32, 64]),
    },
    doc=__doc__,
    n_trials=15,
    pruner=MedianPruner(n_startup_trials=4, n_warmup_steps=5),
)
