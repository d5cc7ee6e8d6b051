"""How a generative adversarial network that makes slices is trained, one a class (GAN generator).

Pruned are trials whose samples are farther from real ones than those of half the trials before.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner

from models.gan import GOOD
from studies.generation import generator_study
from training.generator import GeneratorSpec

SPACE = {
    "lr_generator": FloatDistribution(5e-5, 1e-3, log=True),
    "lr_discriminator": FloatDistribution(5e-5, 1e-3, log=True),
    "beta1": FloatDistribution(0.0, 0.9),
    "latent_dim": IntDistribution(32, 256, log=True),
    "label_smoothing": FloatDistribution(0.0, 0.3),
    "n_discriminator_steps": IntDistribution(1, 3),
    "spectral_norm": CategoricalDistribution([False, True]),
    "weight_average": CategoricalDistribution([0.0, 0.99, 0.999]),
    "augmentation": CategoricalDistribution(["none", "light"]),
}
DEFAULTS = GeneratorSpec("gan", GOOD).complete().hyperparameters

STUDY = generator_study(
    "gan",
    space=SPACE,
    fixed={name: value for name, value in GOOD.items() if name not in SPACE},
    doc=__doc__,
    first=({name: DEFAULTS[name] for name in SPACE},),
    n_trials=15,
    pruner=MedianPruner(n_startup_trials=4, n_warmup_steps=8),
)
