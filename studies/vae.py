"""How a variational autoencoder that makes slices is trained, one a class (VAE generator).

Pruned are trials whose samples are farther from real ones than those of half the trials before.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner

from models.vae import GOOD
from studies.generation import generator_study
from training.generator import GeneratorSpec

SPACE = {
    "latent_dim": IntDistribution(16, 256, log=True),
    "lr": FloatDistribution(1e-4, 3e-3, log=True),
    "kl_weight": FloatDistribution(1e-3, 1.0, log=True),
    "kl_warmup": IntDistribution(0, 10),
    "base_channels": CategoricalDistribution([16, 32, 64]),
    "batch_size": CategoricalDistribution([32, 64, 128]),
}
DEFAULTS = GeneratorSpec("vae", GOOD).complete().hyperparameters

STUDY = generator_study(
    "vae",
    space=SPACE,
    fixed={name: value for name, value in GOOD.items() if name not in SPACE},
    doc=__doc__,
    first=({name: DEFAULTS[name] for name in SPACE},),
    n_trials=15,
    pruner=MedianPruner(n_startup_trials=4, n_warmup_steps=4),
)
