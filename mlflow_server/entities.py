"""What is told of runs, and how MLflow takes it: cut to its limits, without what is undefined.

Asks no server anything.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

from mlflow_server.connection import TrackingError

Status = Literal["FINISHED", "KILLED", "FAILED"]


class DatasetUse(NamedTuple):
    """One split as a study uses it: what MLflow shows as data lineage."""

    name: str
    digest: str  # at most 36 characters
    source: str  # where the images came from, shown as given
    context: Literal["training", "validation", "test"]
    n_images: int


@dataclass(frozen=True)
class TrialRun:
    """All that is published of one trial. `history[0]` is epoch 1; None and NaN are left out."""

    study: str
    trial: int
    name: str
    status: Status
    start_ms: int
    end_ms: int
    params: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    history: Sequence[Mapping[str, float | None]] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    artifacts: Path | None = None  # a folder, logged whole; its files do not change any more


def quoted(value: str) -> str:
    """A value in MLflow's search language, which has two kinds of quotes and no escapes."""
    for quote in "'\"":
        if quote not in value:
            return f"{quote}{value}{quote}"
    raise TrackingError(f"MLflow cannot search for a name with both kinds of quotes, got {value}.")


def trial_tags(study: str, trial: int, parent_run_id: str) -> dict[str, str]:
    """By which a trial's run is found, and shown below its study's."""
    return {"study": study, "trial": str(trial), MLFLOW_PARENT_RUN_ID: parent_run_id}


def published_tags(run: TrialRun, parent_run_id: str) -> dict[str, str]:
    """All tags of a trial's run."""
    return {**trial_tags(run.study, run.trial, parent_run_id), **run.tags, **as_note(run.note)}


def as_note(note: str) -> dict[str, str]:
    """The tag of a note, as Markdown; an empty one is none."""
    return {MLFLOW_RUN_NOTE: note} if note else {}


def as_params(params: Mapping[str, object]) -> list[Param]:
    """Parameters, as long as MLflow takes them."""
    return [Param(name, _cut(value, MAX_PARAM_VAL_LENGTH)) for name, value in params.items()]


def as_tags(tags: Mapping[str, str]) -> list[RunTag]:
    """Tags, as long as MLflow takes them."""
    return [RunTag(name, _cut(value, MAX_TAG_VAL_LENGTH)) for name, value in tags.items()]


def _cut(value: object, limit: int) -> str:
    """MLflow cuts too, but not everywhere, and with a warning across the progress display."""
    text = str(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def as_metrics(metrics: Mapping[str, float | None], *, timestamp: int, step: int) -> list[Metric]:
    """What is undefined stays out: MLflow has no None, and stores NaN as a zero with a flag."""
    return [
        Metric(name, float(value), timestamp, step)
        for name, value in metrics.items()
        if value is not None and not math.isnan(value)
    ]


def trial_metrics(run: TrialRun, *, epochs_logged: int) -> list[Metric]:
    """Epochs at their steps, spread evenly over the trial's time, and the results after them."""
    n = len(run.history)
    metrics = as_metrics(run.metrics, timestamp=run.end_ms, step=n)
    for step in range(epochs_logged + 1, n + 1):
        at = run.start_ms + (run.end_ms - run.start_ms) * step // (n + 1)
        metrics += as_metrics(run.history[step - 1], timestamp=at, step=step)
    return metrics


def as_dataset_input(use: DatasetUse) -> DatasetInput:
    """A split as what a run has read."""
    dataset = Dataset(
        name=f"{use.name} {use.context}",  # a run keeps one input for each name and digest
        digest=use.digest,
        source_type="local",
        source=json.dumps({"uri": use.source}),
        profile=json.dumps({"num_rows": use.n_images}),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, use.context)])
