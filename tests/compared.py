"""Studies for tests of comparisons: trials in a real storage, answers on disk or in MLflow, without
anything having been searched or trained.
"""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    distribution_to_json,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlflow_server import Tracking
from studies.settings import Settings, slug
from studies.storage import SPECIFICATION, open_storage

STARTED = datetime(2030, 1, 1)
SPACES = {
    "giaem": {"anomaly_threshold": FloatDistribution(0, 1), "tumor_index": FloatDistribution(0, 1)},
    "dbscan": {
        "eps": FloatDistribution(1e-3, 0.1, log=True),
        "tumor_index": FloatDistribution(0, 1),
    },
    "image_kmeans": {"tumor_index": CategoricalDistribution(["few", "many"])},
    "map_score": {"statistic": CategoricalDistribution(["mean", "p99", "max"])},
}


@dataclass(frozen=True)
class Made:
    """A study that is to be there. A trial is its value, its specificity and its seconds."""

    study: str = "giaem"
    marks: str = ""
    trials: tuple[tuple[float, float, float], ...] = ((0.2, 0.9, 2), (0.6, 0.8, 1), (0.9, 0.1, 3))
    states: tuple[TrialState, ...] = ()  # of trials that were not completed, after those
    data: dict = field(default_factory=dict)
    metric: str = "f2"
    direction: str = "maximize"

    @property
    def name(self) -> str:
        return f"{self.study} ({self.marks})" if self.marks else self.study

    @property
    def slug(self) -> str:
        return slug(self.name)

    def specification(self) -> dict:
        known = {"name": "slices", "digest": "d" * 32, "preprocess": "head", "split": "grouped"}
        return {
            "study": self.study,
            "space": {name: told(range_) for name, range_ in SPACES[self.study].items()},
            "objective": {"metric": self.metric, "direction": self.direction},
            "constraints": {"specificity": ">= 0.5"},
            "data": known | {"seed": 0} | self.data,
            "detector": {"name": "brain_cvae"},
        }


def told(distribution: BaseDistribution) -> dict:
    return json.loads(distribution_to_json(distribution))


def settings_of(root: Path) -> Settings:
    return Settings(
        root, f"sqlite:///{root / 'optuna.db'}", f"sqlite:///{root / 'mlflow' / 'mlflow.db'}"
    )


def add_study(made: Made, settings: Settings) -> optuna.Study:
    """Put the study into the storage."""
    search = optuna.create_study(
        storage=open_storage(settings.storage_url), study_name=made.name, direction=made.direction
    )
    search.set_user_attr(SPECIFICATION, made.specification())
    search.set_user_attr("test_looks", [0])
    at = STARTED
    for number, (value, specificity, seconds) in enumerate(made.trials):
        trial = completed(made, number, value, specificity)
        trial.datetime_start, trial.datetime_complete = at, at + timedelta(seconds=seconds)
        at = trial.datetime_complete
        search.add_trial(trial)
    for state in made.states:
        search.add_trial(create_trial(state=state))
    return search


def completed(made: Made, number: int, value: float, specificity: float) -> FrozenTrial:
    rng = np.random.default_rng(number)
    space = SPACES[made.study]
    params = {
        name: rng.choice(range_.choices).item()
        if isinstance(range_, CategoricalDistribution)
        else float(rng.uniform(range_.low, range_.high))
        for name, range_ in space.items()
    }
    return create_trial(
        params=params,
        distributions=space,
        value=value,
        constraints={"specificity": 0.5 - specificity},
    )


def answers(files: list[str], scores: np.ndarray) -> pd.DataFrame:
    """Answers to files of `yes/` and `no/`; two files in a row are near-copies."""
    labels = np.array([int(file.startswith("yes")) for file in files])
    groups = np.arange(len(files)) // 2
    predicted = (scores >= 0).astype(int)
    columns = {"file": files, "label": labels, "group": groups}
    return pd.DataFrame(columns | {"score": scores, "predicted": predicted})


def keep_on_disk(made: Made, trial: int, table: pd.DataFrame, settings: Settings) -> None:
    path = settings.root / "studies" / made.slug / "test" / f"trial_{trial}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def publish_study(
    made: Made,
    trial: int,
    table: pd.DataFrame,
    settings: Settings,
    *,
    scratch: Path,
    floors: pd.DataFrame | None = None,
) -> str:
    """A parent run as a concluded study leaves it; its id."""
    tracking = Tracking(settings.tracking_uri, settings.artifact_root)
    experiment = tracking.experiments.open(made.name, note="", tags={})
    run_id = tracking.open_study(experiment, made.name, params={}, tags={}, datasets=[])
    scratch.mkdir(parents=True)
    table.to_csv(scratch / "test_answers.csv", index=False)
    if floors is not None:
        floors.to_csv(scratch / "floor_answers.csv", index=False)
    tracking.log_artifacts(run_id, scratch)
    tags = {"best_trial": str(trial), "best_run": f"run of {made.slug}"}
    tracking.close_study(run_id, status="FINISHED", metrics={}, tags=tags, note="")
    return run_id
