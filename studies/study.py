"""What a study is: a search space, how a point of it is fitted and scored, and what decides.

It knows detectors and heads, and nothing of how trials are run, stored or published.
"""

import importlib
import pkgutil
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import optuna
import torch
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import FrozenTrial
from PIL import Image

from models.heads import KeptMaps
from studies.space import Params, Space
from training.cache import Cache
from training.data import Dataset, Splits
from training.detector import DetectorSpec, FittedDetector, fit_detector
from training.error_maps import ErrorMaps
from training.features import FeatureStore
from training.localization import Localization, Outlines, score_maps
from training.stored_maps import stored_maps

if TYPE_CHECKING:
    from studies.session import Session


# What tells how well tumours are told, in the order in which it is shown.
SHOWN = (
    "f2",
    "recall",
    "specificity",
    "auroc",
    "specificity_at_95_recall",
    "accuracy",
    "macro_f1",
)


BATCHES = "batches"  # a trial's user attribute and a run's tag: that it trained with HALF of them
HALF = "half, after the device's memory was full"


class StudyError(ValueError):
    """A study that cannot be found, resumed or run as asked; the message says the cure."""


class AtLeast(NamedTuple):
    """A constraint on a metric: trials below the floor are infeasible and are never the best."""

    metric: str
    floor: float

    def violation(self, metrics: dict[str, float]) -> float:
        """At most 0 when the floor is kept, as Optuna wants it."""
        return self.floor - metrics[self.metric]


class Answers(NamedTuple):
    """What a candidate says of images; a row each."""

    labels: np.ndarray  # int64 (n,)
    groups: np.ndarray  # int64 (n,)
    scores: np.ndarray  # float64 (n,), high means tumour
    predicted: np.ndarray  # int64 (n,)


class TrainingSpec(Protocol):
    """What is trained: a frozen dataclass with its hyperparameters."""

    hyperparameters: dict[str, object]

    def complete(self) -> "TrainingSpec":
        """The same with every hyperparameter written out."""


Spec = TypeVar("Spec", bound=TrainingSpec)


class Savable(Protocol):
    """What a registered model is made of."""

    def save(self, folder: Path) -> None:
        """Write all of it."""

    def save_own(self, folder: Path) -> None:
        """Write all but the weights, which are kept elsewhere."""


class Candidate(Protocol):
    """What a trial makes: something fitted that can be kept, shown and scored."""

    @property
    def weights(self) -> dict[str, str]:
        """The cache's keys of the networks that it stands on, by what they are."""

    def predictor(self, lab: "Lab") -> Savable:
        """Everything from the input to the answer."""

    def pictures(self, lab: "Lab") -> dict[str, Image.Image]:
        """What it does, by the names that the pictures are kept under; test images are not seen."""


class Decider(Candidate, Protocol):
    """A candidate that tells tumours."""

    def answers(self, lab: "Lab", part: str) -> Answers:
        """What it says of a part ("val" or "test") of the split."""

    def draw(self, lab: "Lab", part: str) -> Image.Image:
        """Examples of a part ("val" or "test") of the split."""

    def localize(self, lab: "Lab") -> Localization | None:
        """Where it sees the outlined tumours of the test split; None where nothing is outlined."""


class Conclusion(Protocol):
    """What a study ends with."""

    best: FrozenTrial | None
    candidate: Candidate | None

    def words(self) -> str:
        """What was searched, what won, and whether to believe it: Markdown without tables."""

    def summary(self) -> str:
        """The words with the numbers below them: Markdown that stands alone."""

    def metrics(self) -> dict[str, float]:
        """What is told beside the objective's best value."""

    def page(self, trials: optuna.Study) -> str:
        """The report as HTML."""

    def write(self, folder: Path) -> None:
        """Files that are worth keeping beside the report."""


@dataclass(frozen=True)
class News:
    """Where a trial says that training begins, how each epoch went, and what is to be seen."""

    on_train: Callable[[], None] = lambda: None
    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, metrics: None
    on_picture: Callable[[str, Image.Image], None] = lambda name, picture: None


@dataclass(frozen=True)
class Lab:
    """What every trial of a study has at hand; the same for all of them.

    Trials see the training and validation splits through it; test maps are asked for when a study
    ends.
    """

    store: FeatureStore
    splits: Splits
    precision: str
    seed: int
    detector: str = "brain_cvae"
    batches: float = 1.0  # trainings take batches of this share of what they are given
    _detectors: dict[str, FittedDetector] = field(default_factory=dict, repr=False)
    _maps: dict[str, ErrorMaps] = field(default_factory=dict, repr=False)
    _kept_maps: dict[str, KeptMaps] = field(default_factory=dict, repr=False)
    _places: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)
    _kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def dataset(self) -> Dataset:
        """The images."""
        return self.store.dataset

    @property
    def cache(self) -> Cache:
        """Where what is made once is kept."""
        return self.store.cache

    @property
    def device(self) -> torch.device:
        """Where networks run."""
        return self.store.device

    def fit_detector(self, hyperparameters: Params, news: News) -> FittedDetector:
        """The detector with these hyperparameters: from memory, from the cache, or trained now."""
        spec = self.in_batches(DetectorSpec(self.detector, hyperparameters, self.seed))
        known = repr(spec)
        if known not in self._detectors:
            fitted = fit_detector(
                spec,
                self.splits,
                self.store,
                precision=self.precision,
                on_epoch=news.on_epoch,
                on_train=news.on_train,
            )
            self._detectors.clear()  # one at a time: weights and maps are tens of megabytes
            self._detectors[known] = fitted
        return self._detectors[known]

    def in_batches(self, spec: Spec) -> Spec:
        """What is to be trained, in batches that the device has memory for."""
        hyperparameters = spec.complete().hyperparameters
        if self.batches == 1 or "batch_size" not in hyperparameters:
            return spec
        batch_size = max(1, round(hyperparameters["batch_size"] * self.batches))
        return replace(spec, hyperparameters={**spec.hyperparameters, "batch_size": batch_size})

    def with_half_batches(self) -> "Lab":
        """The same with batches of half the size, and nothing in the device's memory yet."""
        for kept in (self._detectors, self._maps, self._kept_maps):
            kept.clear()
        return replace(self, batches=self.batches / 2)

    def of(self, trial: FrozenTrial) -> "Lab":
        """What a trial that has ended had at hand."""
        return self.with_half_batches() if BATCHES in trial.user_attrs else self

    def validation_maps(self, detector: FittedDetector) -> ErrorMaps:
        """Error maps of the validation split."""
        return self.maps(detector, "val")

    def maps(self, detector: FittedDetector, part: str) -> ErrorMaps:
        """Error maps of a part of the split; "test" is for the end of a study alone."""
        key = f"{part} {detector.map_key}"
        if key not in self._maps:
            for other in [other for other in self._maps if other.startswith(part)]:
                del self._maps[other]  # one detector's at a time: tens of megabytes
                self._kept_maps.pop(other, None)
            self._maps[key] = self._make_maps(detector, self.indices(part))
        return self._maps[key]

    def _make_maps(self, detector: FittedDetector, indices: np.ndarray) -> ErrorMaps:
        """With the detector's defaults from the cache: every study of a head asks for these.

        Not with others, of which a search makes as many as it has trials.
        """
        if detector.spec == DetectorSpec(self.detector, {}, self.seed).complete():
            return stored_maps(detector, indices)
        return detector.error_maps(indices)

    def kept_maps(self, detector: FittedDetector, part: str) -> KeptMaps:
        """The values of the same, for heads: what one makes of them the next one finds."""
        values, key = self.maps(detector, part).values, f"{part} {detector.map_key}"
        if key not in self._kept_maps:
            there = self.device if self.device.type == "cuda" else None
            self._kept_maps[key] = KeptMaps(values, device=there)
        return self._kept_maps[key]

    def once(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """What is made by the first trial that needs it, for all of them."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def indices(self, part: str) -> np.ndarray:
        """The images of "train", "val" or "test"."""
        return getattr(self.splits, part)

    def outlines(self, part: str) -> Outlines:
        """The published outlines of a part of the split."""
        masks, indices = self.dataset.masks, self.indices(part)
        name = "outlines", self.dataset.digest, indices.tobytes()
        return self.once(name, lambda: Outlines(masks[indices]))

    def validation_places(self, detector: FittedDetector) -> dict[str, float]:
        """How well the validation maps agree with the outlines; {} where nothing is outlined."""
        if detector.map_key not in self._places:
            maps = self.validation_maps(detector).values
            self._places[detector.map_key] = score_maps(maps, self.outlines("val"))
        return self._places[detector.map_key]


@dataclass(frozen=True)
class Study:
    """A search: `fit` and `score` turn a point of `space` into metrics, of which one decides."""

    name: str
    doc: str
    space: Space
    fit: Callable[[Params, Lab, News], Candidate]
    score: Callable[[Candidate, Lab], dict[str, float]]
    conclude: Callable[["Session", optuna.Study], Conclusion]
    kind: str = "detector"  # or "classifier", or "generator": what is registered
    metric: str = "f2"
    direction: str = "maximize"
    constraints: tuple[AtLeast, ...] = (AtLeast("specificity", 0.5),)
    n_trials: int = 100
    timeout: float | None = None  # seconds after which no trial begins, unless asked otherwise
    first: tuple[Params, ...] = ()  # points that are tried before any is suggested
    pruner: BasePruner = field(default_factory=NopPruner)
    reported: str | None = None  # the epochs' metric that the pruner sees
    shown: tuple[str, ...] = SHOWN  # metrics beside the objective where runs are listed

    @property
    def scheme(self) -> str:
        """How its data is split: a detector learns from healthy images alone."""
        return "detector" if self.kind == "detector" else "classifier"

    def is_feasible(self, metrics: dict[str, float]) -> bool:
        """Whether every constraint is kept."""
        return all(constraint.violation(metrics) <= 0 for constraint in self.constraints)

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether an objective value beats another; anything beats none."""
        if than is None:
            return True
        return value > than if self.direction == "maximize" else value < than

    def searching(self, detector_study: "Study") -> "Study":
        """This study with a detector's hyperparameters searched jointly with its own."""
        return replace(self, space={**detector_study.space, **self.space})


def first_line(doc: str) -> str:
    """The first line of a docstring."""
    return doc.strip().splitlines()[0]


def known_studies() -> dict[str, Study]:
    """Every study by name: each is a module of this package with a `STUDY`."""
    package = importlib.import_module("studies")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    modules = [importlib.import_module(f"studies.{name}") for name in names if name != "__main__"]
    studies = [module.STUDY for module in modules if hasattr(module, "STUDY")]
    return {study.name: study for study in studies}


def find_study(name: str) -> Study:
    """The study of that name; an unknown one lists those there are."""
    studies = known_studies()
    if name not in studies:
        lines = "\n".join(f"  {line}" for line in describe_studies())
        raise StudyError(f"There is no study '{name}'. The studies are:\n{lines}")
    return studies[name]


def describe_studies() -> list[str]:
    """A line a study: its name, and the first line of its docstring."""
    studies = known_studies().values()
    width = max(len(study.name) for study in studies)
    return [f"{study.name:<{width}}  {study.doc}" for study in studies]
