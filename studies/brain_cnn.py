"""How a classifier is trained on labelled slices, and from which probability on it calls a tumour.

The paper's BrainCNN, a small modern one or one that begins with the weights of EfficientNet-lite0;
each trial trains a network, and its epochs report to Hyperband.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import HyperbandPruner

from models.brain_cnn import PAPER
from studies.classification import classifier_study
from studies.space import When
from training.classifier import PRETRAINED, ClassifierSpec

MOST_EPOCHS = 40
# What the paper's network needs whatever is searched: its size, and no average of its weights.
SHAPE = ("image_size", "label_smoothing", "weight_average")

SPACE = {
    "variant": CategoricalDistribution(["small", "pretrained", "paper"]),
    "image_size": When(CategoricalDistribution([32, 64, 96]), "variant", ("small", "pretrained")),
    "lr": FloatDistribution(3e-4, 1e-2, log=True),
    "dropout": FloatDistribution(0.0, 0.6),
    "weight_decay": FloatDistribution(1e-5, 0.3, log=True),
    "augmentation": FloatDistribution(0.0, 1.5),
    "n_epochs": IntDistribution(6, MOST_EPOCHS),
    "threshold": FloatDistribution(0.05, 0.95),
}
DEFAULTS = ClassifierSpec().complete().hyperparameters | {"threshold": 0.5}
SMALL = {name: DEFAULTS[name] for name in SPACE}
FIRST = (
    {**SMALL, **PRETRAINED},
    SMALL,
    {**SMALL, "image_size": 32},  # where generated images are blurred
)

STUDY = classifier_study(
    "brain_cnn",
    space=SPACE,
    fixed={"small": {}, "pretrained": {}, "paper": {name: PAPER[name] for name in SHAPE}},
    doc=__doc__,
    n_trials=20,
    pruner=HyperbandPruner(min_resource=4, max_resource=MOST_EPOCHS, reduction_factor=3),
    first=FIRST,
)
