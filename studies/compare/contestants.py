"""What is known of a study that is compared: its trials, and what its winner answered on test.

Trials come from Optuna's storage. Answers are those that were kept when the study was concluded: in
MLflow, else below `studies/`. No model is asked anything here.
"""

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from mlflow_server import Tracking
from studies.finish import ANSWERS, FLOOR_ANSWERS, test_looks
from studies.settings import Settings, slug
from studies.storage import (
    SPECIFICATION,
    begun,
    best_feasible,
    is_feasible,
    running_trials,
    stored_studies,
)
from studies.study import known_studies
from training.floors import Scored, evaluate_scored

COLUMNS = ["file", "label", "group", "score", "predicted"]


@dataclass(frozen=True)
class Answered:
    """A winner's answers to the test images, and what they are worth."""

    trial: int
    files: tuple[str, ...]  # sorted, as is everything in `scored`
    scored: Scored


@dataclass(frozen=True)
class Kept:
    """What MLflow holds of a study that was concluded; empty where it holds nothing."""

    tags: dict[str, str] = field(default_factory=dict)
    experiment: str = ""
    answers: pd.DataFrame | None = None
    floors: pd.DataFrame | None = None


@dataclass(frozen=True)
class Contestant:
    """One study as the comparison sees it."""

    name: str
    specification: dict[str, Any]
    trials: list[FrozenTrial]  # that have begun
    running: int  # how many trials run at this moment
    best: FrozenTrial | None
    looks: int  # how often the study has looked at the test split
    kept: Kept
    answered: Answered | None

    @property
    def slug(self) -> str:
        """The name as users write it."""
        return slug(self.name)

    @property
    def metric(self) -> str:
        """What its search ranks trials by."""
        return self.specification["objective"]["metric"]

    @property
    def is_maximized(self) -> bool:
        """Whether a higher objective is better."""
        return self.specification["objective"]["direction"] == "maximize"

    @property
    def floors(self) -> dict[str, float]:
        """The lowest value that its winner must have of each constrained metric."""
        bounds = self.specification["constraints"].items()
        return {name: float(bound.removeprefix(">= ")) for name, bound in bounds}

    @property
    def data(self) -> dict[str, Any]:
        """Name, digest and split of its images."""
        return self.specification["data"]

    @property
    def ended(self) -> list[FrozenTrial]:
        """The trials that have ended, in the order in which they did."""
        ended = [trial for trial in self.trials if trial.datetime_complete]
        return sorted(ended, key=lambda trial: trial.datetime_complete)

    @property
    def seconds(self) -> float:
        """How long all of its trials took."""
        return sum(trial.duration.total_seconds() for trial in self.ended)

    def outcomes(self) -> dict[str, int]:
        """How its trials ended, the most telling first; only what there is."""
        counted = pd.Series([outcome(trial) for trial in self.trials]).value_counts()
        return {name: int(counted[name]) for name in OUTCOMES if name in counted}

    def note(self) -> str:
        """What a reader must know of this row: why there is no answer, or what is unfinished."""
        return " ".join(part for part in (self._unfinished(), self._unanswered()) if part)

    def _unfinished(self) -> str:
        if not self.running:
            return ""
        trials = "A trial runs" if self.running == 1 else f"{self.running} trials run"
        return f"{trials} at this moment: this is what there is so far."

    def _unanswered(self) -> str:
        if self.best is None:
            return "No trial keeps the constraints, so none has answered the test images."
        if self.answered is None and self.is_generator:
            return "A generator: it makes images and answers none; its own report has its measures."
        if self.answered is None:
            return (
                "Its winner's answers to the test images are neither in MLflow nor on this disk: "
                "the study's own `make study`, run to its end, keeps them."
            )
        if self.answered.trial != self.best.number:
            return (
                f"The answers are those of trial {self.answered.trial}; trial {self.best.number} "
                "has become the best since and has not answered: conclude it with `make study`."
            )
        return ""

    @property
    def is_generator(self) -> bool:
        """Whether it searches for what makes images."""
        study = known_studies().get(self.specification["study"])
        return study is not None and study.kind == "generator"

    @property
    def scheme(self) -> str:
        """How its images are split: a detector learns from healthy ones alone."""
        return "detector" if "detector" in self.specification else "classifier"


OUTCOMES = ("feasible", "infeasible", "pruned", "failed", "running")


def outcome(trial: FrozenTrial) -> str:
    """How a trial ended, in a word."""
    if trial.state == TrialState.COMPLETE:
        return "feasible" if is_feasible(trial) else "infeasible"
    return {TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}.get(trial.state, "running")


def read_contestants(
    names: list[str], settings: Settings, tracking: Tracking | None
) -> list[Contestant]:
    """The studies of these full names; without a record, from this disk alone."""
    experiments = tracking.experiments.ids() if tracking else {}
    return [
        read_contestant(search, settings, look_up(search.study_name, tracking, experiments))
        for search in stored_studies(settings.storage_url, names)
    ]


def look_up(name: str, tracking: Tracking | None, experiments: dict[str, str]) -> Kept:
    """What the record holds of a study."""
    parent = tracking.find_study(experiments[name], name) if name in experiments else None
    if parent is None:
        return Kept()
    there = tracking.files(parent)
    with TemporaryDirectory() as folder:
        answers, floors = (
            pd.read_csv(tracking.download(parent, file, Path(folder))) if file in there else None
            for file in (ANSWERS, FLOOR_ANSWERS)
        )
    return Kept(tracking.tags(parent), experiments[name], answers, floors)


def read_contestant(search: optuna.Study, settings: Settings, kept: Kept) -> Contestant:
    """A study of the storage with what the record holds of it."""
    best = best_feasible(search)
    return Contestant(
        name=search.study_name,
        specification=search.user_attrs[SPECIFICATION],
        trials=begun(search),
        running=len(running_trials(search)),
        best=best,
        looks=len(test_looks(search)),
        kept=kept,
        answered=find_answers(search.study_name, best, settings.root, kept),
    )


def find_answers(name: str, best: FrozenTrial | None, root: Path, kept: Kept) -> Answered | None:
    """The answers of the best trial: the record's, else those on this disk; where the best has
    not answered yet, those of the trial before it that has.
    """
    if best is None:
        return None
    recorded = kept.tags.get("best_trial")
    on_disk = root / "studies" / slug(name) / "test" / f"trial_{best.number}.csv"
    if on_disk.exists() and (kept.answers is None or recorded != str(best.number)):
        return as_answered(name, best.number, pd.read_csv(on_disk))
    if kept.answers is not None and recorded is not None:
        return as_answered(name, int(recorded), kept.answers)
    return None


def as_answered(name: str, trial: int, table: pd.DataFrame) -> Answered:
    """A file of answers, sorted by the images' names so that those of two studies can be paired."""
    table = table[COLUMNS].sort_values("file", ignore_index=True)
    return Answered(trial, tuple(table["file"]), as_scored(name, table))


def as_scored(name: str, table: pd.DataFrame) -> Scored:
    """Answers with their metrics and intervals."""
    columns = (table[column].to_numpy() for column in ("label", "group", "score", "predicted"))
    return evaluate_scored(name, *columns)


def read_floors(kept: Kept) -> list[Scored]:
    """What needs no network, on the same images; none where the record has no such file."""
    if kept.floors is None:
        return []
    by_floor = kept.floors.groupby("floor", sort=False)
    return [as_scored(name, table.sort_values("file")) for name, table in by_floor]
