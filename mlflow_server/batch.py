"""Runs that have ended, written into MLflow's own database many at a time.

The client takes nine transactions and a hundred statements for what is four rows here. The rows are
those that it would have written: a test holds them to it. Only new runs are written, each under an
id that its trial alone can have, so that whoever writes a trial first has written it for all.
"""

import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mlflow.entities import Experiment, LifecycleStage, Metric, RunStatus, SourceType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.dbmodels.models import (
    SqlLatestMetric,
    SqlMetric,
    SqlParam,
    SqlRun,
    SqlTag,
)
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME, MLFLOW_USER
from mlflow.utils.uri import append_to_uri_path
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from mlflow_server.files import local_folder, place

LARGEST = 1.7976931348623157e308  # for infinity, which databases do not have


class NewRun(NamedTuple):
    """A run as rows: everything that the client would have said of it one by one."""

    trial: int
    name: str
    status: str
    start_ms: int
    end_ms: int
    params: dict[str, str]
    metrics: list[Metric]
    tags: dict[str, str]
    artifacts: Path | None


def run_id_of(parent_run_id: str, trial: int) -> str:
    """The id of a trial's run, which no other can have."""
    return uuid.uuid5(uuid.UUID(parent_run_id), str(trial)).hex


def insert_runs(
    store: SqlAlchemyStore, experiment: Experiment, parent_run_id: str, runs: Iterable[NewRun]
) -> dict[int, str]:
    """Write what is not written yet; the id of each run by its trial.

    Files come into place first: a run that is there has them. A process that dies in between leaves
    them where the next one puts them.
    """
    ids = {run_id_of(parent_run_id, run.trial): run for run in runs}
    for run_id, run in ids.items():
        if run.artifacts is not None:
            place(run.artifacts, local_folder(_artifacts(experiment, run_id)))
    with store.ManagedSessionMaker(read_only=False) as session:
        _lock(session, experiment, parent_run_id)
        known = set(session.scalars(select(SqlRun.run_uuid).where(SqlRun.run_uuid.in_(ids))))
        _insert(session, experiment, {one: run for one, run in ids.items() if one not in known})
    return {run.trial: run_id for run_id, run in ids.items()}


def _artifacts(experiment: Experiment, run_id: str) -> str:
    folder = SqlAlchemyStore.ARTIFACTS_FOLDER_NAME
    return append_to_uri_path(experiment.artifact_location, run_id, folder)


def _lock(session: Session, experiment: Experiment, parent_run_id: str) -> None:
    """Have others who write runs of this parent wait; a deleted experiment takes no runs."""
    parent = update(SqlRun).where(SqlRun.run_uuid == parent_run_id)
    if session.execute(parent.values(status=SqlRun.status)).rowcount != 1:
        raise MlflowException(f"There is no run {parent_run_id} to be a parent.")
    if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        raise MlflowException(f"The experiment {experiment.name!r} was deleted.")


def _insert(session: Session, experiment: Experiment, runs: dict[str, NewRun]) -> None:
    tables = {
        SqlRun: [_run_row(experiment, one, run) for one, run in runs.items()],
        SqlTag: [
            {"run_uuid": one, "key": key, "value": value}
            for one, run in runs.items()
            for key, value in {**run.tags, MLFLOW_RUN_NAME: run.name}.items()
        ],
        SqlParam: [
            {"run_uuid": one, "key": key, "value": value}
            for one, run in runs.items()
            for key, value in run.params.items()
        ],
        SqlMetric: [row for one, run in runs.items() for row in _metric_rows(one, run.metrics)],
    }
    latest = {(row["run_uuid"], row["key"]): row for row in sorted(tables[SqlMetric], key=_age)}
    tables[SqlLatestMetric] = list(latest.values())
    for table, rows in tables.items():
        if rows:
            session.execute(insert(table), rows)


def _run_row(experiment: Experiment, run_id: str, run: NewRun) -> dict[str, Any]:
    return {
        "run_uuid": run_id,
        "name": run.name,
        "source_type": SourceType.to_string(SourceType.UNKNOWN),
        "source_name": "",
        "entry_point_name": "",
        "user_id": run.tags.get(MLFLOW_USER, "unknown"),
        "status": RunStatus.to_string(RunStatus.from_string(run.status)),
        "start_time": run.start_ms,
        "end_time": run.end_ms,
        "source_version": "",
        "lifecycle_stage": LifecycleStage.ACTIVE,
        "artifact_uri": _artifacts(experiment, run_id),
        "experiment_id": int(experiment.experiment_id),
    }


def _metric_rows(run_id: str, metrics: list[Metric]) -> Iterator[dict[str, Any]]:
    for key, value, timestamp, step in dict.fromkeys(
        (one.key, max(-LARGEST, min(LARGEST, one.value)), one.timestamp, one.step)
        for one in metrics
    ):
        yield {
            "run_uuid": run_id,
            "key": key,
            "value": value,
            "timestamp": timestamp,
            "step": step,
            "is_nan": False,
        }


def _age(row: dict[str, Any]) -> tuple[int, int, float]:
    return row["step"], row["timestamp"], row["value"]
