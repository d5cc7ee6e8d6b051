"""What a study is: a search space, how a point of it is fitted and scored, and what decides.

It knows detectors and heads, and nothing of how trials are run, stored or published.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from optuna.pruners import BasePruner, NopPruner
from sklearn.base import ClassifierMixin

from models.heads.giaem import best_giaem
from studies.space import Params, Space
from training.cache import Cache
from training.data import Dataset, Splits
from training.detector import DetectorSpec, FittedDetector, fit_detector, map_auroc
from training.error_maps import ErrorMaps
from training.features import FeatureStore
from training.localization import score_maps, score_masks
from training.metrics import evaluate


class StudyError(ValueError):
    """A study that cannot be found, resumed or run as asked; the message says the cure."""


class AtLeast(NamedTuple):
    """A constraint on a metric: trials below the floor are infeasible and are never the best."""

    metric: str
    floor: float

    def violation(self, metrics: dict[str, float]) -> float:
        """At most 0 when the floor is kept, as Optuna wants it."""
        return self.floor - metrics[self.metric]


class Candidate(NamedTuple):
    """What a trial makes: a detector and a head fitted on its validation error maps."""

    detector: FittedDetector
    head: ClassifierMixin

    def answer(self, maps: ErrorMaps) -> tuple[np.ndarray, np.ndarray]:
        """The head's scores, float64 (n,), and answers, int64 (n,): `predict` without its cost."""
        scores = self.head.decision_function(maps.values)
        return scores, (scores >= 0).astype(np.int64)

    def places(self, maps: ErrorMaps, outlines: np.ndarray, outlined: np.ndarray) -> dict:
        """How well the head's masks agree with the outlines of the images that have one."""
        if not len(outlined):
            return {}
        return score_masks(self.head.mask(maps.values[outlined]), outlines[outlined])


@dataclass(frozen=True)
class News:
    """Where a trial says that training begins and how each epoch went."""

    on_train: Callable[[], None] = lambda: None
    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, metrics: None


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
    _detectors: dict[str, FittedDetector] = field(default_factory=dict, repr=False)
    _maps: dict[str, ErrorMaps] = field(default_factory=dict, repr=False)
    _places: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)

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
        spec = DetectorSpec(self.detector, hyperparameters, self.seed)
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

    def validation_maps(self, detector: FittedDetector) -> ErrorMaps:
        """Error maps of the validation split."""
        return self._split_maps(detector, "val")

    def test_maps(self, detector: FittedDetector) -> ErrorMaps:
        """Error maps of the test split, for the end of a study alone."""
        return self._split_maps(detector, "test")

    def validation_places(self, detector: FittedDetector) -> dict[str, float]:
        """How well the validation maps agree with the outlines; {} where nothing is outlined."""
        if detector.map_key not in self._places:
            maps = self.validation_maps(detector).values
            self._places[detector.map_key] = score_maps(maps, self.dataset.masks[self.splits.val])
        return self._places[detector.map_key]

    def _split_maps(self, detector: FittedDetector, part: str) -> ErrorMaps:
        key = f"{part} {detector.map_key}"
        if key not in self._maps:
            for other in [other for other in self._maps if other.startswith(part)]:
                del self._maps[other]  # one detector's at a time: tens of megabytes
            self._maps[key] = detector.error_maps(getattr(self.splits, part))
        return self._maps[key]


@dataclass(frozen=True)
class Study:
    """A search: `fit` and `score` turn a point of `space` into metrics, of which one decides."""

    name: str
    doc: str
    space: Space
    fit: Callable[[Params, Lab, News], Candidate]
    score: Callable[[Candidate, Lab], dict[str, float]]
    metric: str = "f2"
    direction: str = "maximize"
    constraints: tuple[AtLeast, ...] = (AtLeast("specificity", 0.5),)
    n_trials: int = 100
    timeout: float | None = None  # seconds after which no trial begins, unless asked otherwise
    first: tuple[Params, ...] = ()  # points that are tried before any is suggested
    pruner: BasePruner = field(default_factory=NopPruner)
    reported: str | None = None  # the epochs' metric that the pruner sees

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


def head_study(
    name: str,
    head: type[ClassifierMixin],
    *,
    space: Space,
    doc: str,
    first: tuple[Params, ...] = (),
) -> Study:
    """A study of a head's parameters over one detector's error maps.

    Parameters that are not the head's are the detector's hyperparameters; without any, the
    detector has its defaults and a whole study trains one network.
    """
    names = set(head().get_params())

    def fit(params: Params, lab: Lab, news: News) -> Candidate:
        own = {key: value for key, value in params.items() if key in names}
        rest = {key: value for key, value in params.items() if key not in names}
        detector = lab.fit_detector(rest, news)
        seeded = {"seed": lab.seed} if "seed" in names else {}
        return Candidate(detector, head(**own, **seeded).fit(lab.validation_maps(detector).values))

    return Study(name, first_line(doc), space, fit, score_head, first=first)


def detector_study(
    name: str, *, space: Space, doc: str, n_trials: int, pruner: BasePruner
) -> Study:
    """A study of a detector's training: AUROC of its error maps, and the best GIAEM head on them.

    The objective needs no threshold, so that it ranks networks and not luck with a threshold; the
    exact best GIAEM head gives the decision metrics beside it.
    """

    def fit(params: Params, lab: Lab, news: News) -> Candidate:
        detector = replace(lab, detector=name).fit_detector(params, news)
        maps = lab.validation_maps(detector)
        return Candidate(detector, best_giaem(maps.values, maps.labels))

    return Study(
        name=name,
        doc=first_line(doc),
        space=space,
        fit=fit,
        score=score_detector,
        metric="map_auroc",
        n_trials=n_trials,
        pruner=pruner,
        reported="val_auroc",
    )


def score_head(candidate: Candidate, lab: Lab) -> dict[str, float]:
    """Every metric of the fitted head on the validation split, and how well it finds the place."""
    maps = lab.validation_maps(candidate.detector)
    scores, predicted = candidate.answer(maps)
    outlined = np.flatnonzero(lab.dataset.has_mask[lab.splits.val])
    return {
        **evaluate(maps.labels, predicted, scores),
        **lab.validation_places(candidate.detector),
        **candidate.places(maps, lab.dataset.masks[lab.splits.val], outlined),
    }


def score_detector(candidate: Candidate, lab: Lab) -> dict[str, float]:
    """`map_auroc`, what the maps are worth without a head, beside the best GIAEM head's metrics."""
    maps = lab.validation_maps(candidate.detector)
    return {"map_auroc": map_auroc(maps.values, maps.labels), **score_head(candidate, lab)}


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
