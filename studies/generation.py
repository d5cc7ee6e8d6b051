"""Studies of generators: a network a class is trained, and its images are held against real ones.

The objective is a kernel distance to real validation images in the features of a classifier that
was trained on the real training split; a generator that gives its training images away, or that
makes one image alone, is infeasible.
"""

import numpy as np
from optuna.pruners import BasePruner

from studies.generation_end import SHOWN, conclude
from studies.generation_measures import (
    OBJECTIVE,
    TITLES,
    Generation,
    real_of,
    score_generator,
)
from studies.space import Params, Space
from studies.study import AtLeast, Lab, News, Study, StudyError, first_line
from training.generator import FittedGenerator, GeneratorSpec, fit_generator
from training.generator_bundle import CLASSES
from training.generator_grids import sample_sheet
from training.memorization import PRIVACY_FLOOR

# Our choice: a kernel distance likes one sharp image repeated better than blurred ones.
SPREAD_FLOOR = 0.3
NOT_OWN = ("epochs_left", "val_kid")  # what the pruner sees has one name in both classes


def generator_study(
    name: str,
    *,
    space: Space,
    fixed: Params,
    doc: str,
    n_trials: int,
    pruner: BasePruner,
    first: tuple[Params, ...] = (),
) -> Study:
    """A study of how the generator of this name is trained; `fixed` is what is not searched."""

    def fit(params: Params, lab: Lab, news: News) -> Generation:
        check_groups(lab)
        spec = lab.in_batches(GeneratorSpec(name, fixed | params, lab.seed))
        fitted = {label: fit_class(spec, label, lab, news) for label in CLASSES}
        return Generation(spec.complete(), fitted)

    return Study(
        name=name,
        doc=first_line(doc),
        space=space,
        fit=fit,
        score=score_generator,
        conclude=conclude,
        kind="generator",
        metric=OBJECTIVE,
        direction="minimize",
        constraints=(AtLeast("privacy", PRIVACY_FLOOR), AtLeast("feature_spread", SPREAD_FLOOR)),
        n_trials=n_trials,
        pruner=pruner,
        reported="val_kid",
        shown=SHOWN,
        first=first,
    )


def check_groups(lab: Lab) -> None:
    """Refuse a split on which nobody can see whether images are copied."""
    train, val = (lab.dataset.groups[lab.indices(part)] for part in ("train", "val"))
    if len(np.intersect1d(train, val)):
        raise StudyError(
            "On the paper's split near-copies of training images are in validation, so nobody can "
            "see whether a generator copies. Take SPLIT=grouped for studies of generators."
        )


def fit_class(spec: GeneratorSpec, label: int, lab: Lab, news: News) -> FittedGenerator:
    """The generator of one class; its epochs are told after those of the class before it."""
    name, real = CLASSES[label], real_of(lab).val[label]
    before = label * spec.complete().hyperparameters["n_epochs"]

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        own = {f"{name}_{key}": value for key, value in metrics.items() if key not in NOT_OWN}
        news.on_epoch(before + epoch, own | {"val_kid": metrics["val_kid"]})

    def on_samples(epoch: int, samples: np.ndarray) -> None:
        title = f"{spec.name}, slices {TITLES[name]}, epoch {epoch}"
        news.on_picture(f"epochs/{name}_{epoch:03}", sample_sheet(samples, title))

    return fit_generator(
        spec,
        real.train,
        real.held_out,
        label=label,
        cache=lab.cache,
        device=lab.device,
        precision=lab.precision,
        judge=real.comparisons[0],
        on_epoch=on_epoch,
        on_train=news.on_train,
        on_samples=on_samples,
    )
