"""Studies and trials as MLflow runs: a parent run for a study, a child run for each trial.

Optuna's database is the truth and this is the record, so everything here may be called again:
a run is found by its tags `study` and `trial` and completed, not doubled. Knows nothing of what
a study searches.
"""

import math
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mlflow.entities import Experiment, LifecycleStage, Metric, Run, ViewType
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking.context.default_context import DefaultRunContext
from mlflow.utils.time import get_current_time_millis

from mlflow_server.batch import NewRun, insert_runs
from mlflow_server.connection import TrackingError, connect, in_pages, is_server, tracking_errors
from mlflow_server.entities import (
    DatasetUse,
    Status,
    TrialRun,
    as_dataset_input,
    as_metrics,
    as_note,
    as_params,
    as_tags,
    published_tags,
    quoted,
    trial_metrics,
    trial_tags,
)
from mlflow_server.experiments import Experiments
from mlflow_server.files import fetch_run_files, local_folder, place

RUNS_A_PAGE = 1000
SYSTEM_METRICS_INTERVAL = 2  # seconds
SYSTEM_METRICS = "system/"  # how their names begin
CLOSED_TAG = "closed"  # why a run was ended that its own process left RUNNING
DOUBLE_TAG = "double_of"  # of a run that was deleted: the one that its trial has
CLEANED_TAG = "cleaned"  # when a run's files were removed; its parameters and metrics stay


class TaggedRun(NamedTuple):
    """A run by what is searched for."""

    run_id: str
    status: str
    tags: dict[str, str]


@dataclass(frozen=True)
class KnownRun:
    """What a run says of itself. `series` has each metric's values by step; what the machine was
    busy with is left out."""

    run_id: str
    name: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    series: dict[str, list[float]]


class Tracking:
    """The record at one address: an MLflow server, or a database with files beside it."""

    def __init__(self, uri: str, artifact_root: Path):
        """Connect, or raise TrackingError."""
        self.uri = uri
        self._client = connect(uri)
        self.experiments = Experiments(self._client, uri, artifact_root)
        self._who = DefaultRunContext().tags()  # user and source, as the UI's columns expect them
        self._monitors: dict[str, SystemMetricsMonitor] = {}

    def close(self) -> None:
        """Stop what still samples. The runs themselves are left as they are."""
        for run_id in list(self._monitors):
            self._stop_monitor(run_id)

    # The parent run

    def open_study(
        self,
        experiment_id: str,
        study: str,
        *,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        datasets: Iterable[DatasetUse],
    ) -> str:
        """The study's parent run, RUNNING (again)."""
        with tracking_errors(f"Opening the parent run of {study}"):
            run_id = self.find_study(experiment_id, study)
            if run_id is None:
                made = self._create_run(experiment_id, study, tags={"study": study})
                run_id = self.find_study(experiment_id, study)
                if made != run_id:  # another process was faster
                    self._client.delete_run(made)
            else:
                self._client.update_run(run_id, status="RUNNING")
            self._client.log_batch(run_id, params=as_params(params), tags=as_tags(tags))
            self._client.log_inputs(run_id, datasets=[as_dataset_input(use) for use in datasets])
            return run_id

    def find_study(self, experiment_id: str, study: str) -> str | None:
        """The study's parent run, if it has one."""
        query = f"tags.study = {quoted(study)} AND tags.trial IS NULL"
        with tracking_errors(f"Looking for the parent run of {study}"):
            found = list(self._search([experiment_id], query))
            oldest = min(
                found, key=lambda run: (run.info.start_time, run.info.run_id), default=None
            )
            return oldest.info.run_id if oldest else None

    def close_study(
        self,
        run_id: str,
        *,
        status: Status,
        metrics: Mapping[str, float | None],
        tags: Mapping[str, str],
        note: str | None,
    ) -> None:
        """End the parent run with its summary as the note that the UI shows; None leaves that."""
        now = get_current_time_millis()
        with tracking_errors(f"Closing the parent run {run_id}"):
            self._client.log_batch(
                run_id,
                metrics=as_metrics(metrics, timestamp=now, step=0),
                tags=as_tags({**tags, **as_note(note or "")}),
            )
            self._client.set_terminated(run_id, status=status, end_time=now)

    # Child runs

    def open_trial(
        self,
        experiment_id: str,
        parent_run_id: str,
        study: str,
        trial: int,
        name: str,
        start_ms: int,
    ) -> str:
        """A RUNNING run for a trial that trains: its epochs and system metrics come in live."""
        with tracking_errors(f"Opening the run of trial {trial}"):
            found = self._find_trial(experiment_id, study, trial)
            run_id = (
                found.info.run_id
                if found
                else self._create_run(
                    experiment_id,
                    name,
                    tags=trial_tags(study, trial, parent_run_id),
                    start_ms=start_ms,
                )
            )
            monitor = SystemMetricsMonitor(
                run_id, sampling_interval=SYSTEM_METRICS_INTERVAL, tracking_uri=self.uri
            )
            monitor.start()
            self._monitors[run_id] = monitor
            return run_id

    def log_epoch(self, run_id: str, step: int, metrics: Mapping[str, float | None]) -> None:
        """One epoch of a trial that trains; `step` counts from 1, as in `TrialRun.history`."""
        with tracking_errors(f"Logging epoch {step}"):
            now = get_current_time_millis()
            self._client.log_batch(run_id, metrics=as_metrics(metrics, timestamp=now, step=step))

    def publish_trials(
        self, experiment_id: str, parent_run_id: str, runs: Sequence[TrialRun]
    ) -> dict[int, str]:
        """Write trials that have ended and have no run yet; the id of each one's run.

        Into a database they go together, and a trial that another process writes meanwhile is
        written once.
        """
        with tracking_errors(f"Publishing {len(runs)} trials of {runs[0].study}"):
            experiment = self._experiment_in_rows(experiment_id)
            if experiment is not None:
                return self._insert(experiment, parent_run_id, runs)
        return {run.trial: self.publish_trial(experiment_id, parent_run_id, run) for run in runs}

    def _insert(
        self, experiment: Experiment, parent_run_id: str, runs: Sequence[TrialRun]
    ) -> dict[int, str]:
        return insert_runs(
            self._client._tracking_client.store,
            experiment,
            parent_run_id,
            [self._as_new(run, parent_run_id) for run in runs],
        )

    def _experiment_in_rows(self, experiment_id: str) -> Experiment | None:
        """The experiment, where the record is a database with its files on this machine."""
        if is_server(self.uri):
            return None
        experiment = self._client.get_experiment(experiment_id)
        return None if local_folder(experiment.artifact_location) is None else experiment

    def _as_new(self, run: TrialRun, parent_run_id: str) -> NewRun:
        tags = {**self._who, **published_tags(run, parent_run_id)}
        return NewRun(
            trial=run.trial,
            name=run.name,
            status=run.status,
            start_ms=run.start_ms,
            end_ms=run.end_ms,
            params={param.key: param.value for param in as_params(run.params)},
            metrics=trial_metrics(run, epochs_logged=0),
            tags={tag.key: tag.value for tag in as_tags(tags)},
            artifacts=run.artifacts,
        )

    def publish_trial(self, experiment_id: str, parent_run_id: str, run: TrialRun) -> str:
        """Write a trial that has ended. A run that is there already, whole or in part, is kept."""
        tags = published_tags(run, parent_run_id)
        with tracking_errors(f"Publishing trial {run.trial} of {run.study}"):
            found = self._find_trial(experiment_id, run.study, run.trial)
            if found is None and (experiment := self._experiment_in_rows(experiment_id)):
                return self._insert(experiment, parent_run_id, [run])[run.trial]
            if found is None:
                own = trial_tags(run.study, run.trial, parent_run_id)
                run_id = self._create_run(experiment_id, run.name, tags=own, start_ms=run.start_ms)
                self._complete(run_id, run, tags, epochs_logged=0)
                return run_id
            run_id = found.info.run_id
            self._stop_monitor(run_id)
            if found.info.status != run.status or not _is_whole(found):
                logged = self._epochs_logged(run_id, run.history)
                self._complete(run_id, run, tags, epochs_logged=logged)
                if CLOSED_TAG in found.data.tags:  # last: until then not all of it is told
                    self._client.delete_tag(run_id, CLOSED_TAG)
            return run_id

    def _complete(
        self, run_id: str, run: TrialRun, tags: Mapping[str, str], *, epochs_logged: int
    ) -> None:
        """Files, values, end, in this order: wherever it breaks off, the run is not whole yet, and
        none that says that it holds something is without it."""
        if run.artifacts is not None:
            self._link_folder(run_id, run.artifacts)
        self._client.log_batch(
            run_id,
            metrics=trial_metrics(run, epochs_logged=epochs_logged),
            params=as_params(run.params),
            tags=as_tags(tags),
        )
        self._client.set_terminated(run_id, status=run.status, end_time=run.end_ms)

    def published_trials(self, experiment_id: str, study: str) -> dict[int, tuple[str, str]]:
        """Run id and status of every trial, with those that the user has deleted in the UI.

        What was closed before all of it was told counts as RUNNING.
        """
        found: dict[int, tuple[str, str]] = {}
        with tracking_errors(f"Listing the published trials of {study}"):
            for run in self._trial_runs(experiment_id, study, ViewType.ALL):
                trial, tags = int(run.data.tags["trial"]), run.data.tags
                is_there = run.info.lifecycle_stage == LifecycleStage.ACTIVE
                if DOUBLE_TAG in tags or (trial in found and not is_there):
                    continue
                closed = CLOSED_TAG in tags and not _is_whole(run)
                found[trial] = (run.info.run_id, "RUNNING" if closed else run.info.status)
        return found

    def drop_doubles(self, experiment_id: str, study: str) -> list[str]:
        """Delete all but one run of each trial; the ids of those that went.

        A server that answers too late may have made a run that nobody heard of.
        """
        runs: dict[str, list[Run]] = {}
        with tracking_errors(f"Looking for runs of {study} that are there twice"):
            for run in self._trial_runs(experiment_id, study, ViewType.ACTIVE_ONLY):
                runs.setdefault(run.data.tags["trial"], []).append(run)
            return [run_id for same in runs.values() for run_id in self._keep_one(same)[1]]

    def doubles(self, experiment_id: str, study: str) -> list[int]:
        """The trials that have more than one run."""
        with tracking_errors(f"Looking for runs of {study} that are there twice"):
            trials = Counter(
                int(run.data.tags["trial"])
                for run in self._trial_runs(experiment_id, study, ViewType.ACTIVE_ONLY)
            )
        return sorted(trial for trial, n in trials.items() if n > 1)

    def _trial_runs(self, experiment_id: str, study: str, view: int) -> Iterator[Run]:
        query = f"tags.study = {quoted(study)} AND tags.trial IS NOT NULL"
        return self._search([experiment_id], query, view=view)

    def _keep_one(self, same: list[Run]) -> tuple[Run, list[str]]:
        """Of the runs of one trial the one that stays, whoever asks, and the others, which go."""
        keep, *others = sorted(same, key=lambda run: (not _is_whole(run), run.info.run_id))
        for other in others:
            self._client.set_tag(other.info.run_id, DOUBLE_TAG, keep.info.run_id)
            self._client.delete_run(other.info.run_id)
        return keep, [other.info.run_id for other in others]

    def close_running(
        self,
        experiment_id: str,
        study: str,
        *,
        except_run: str,
        reason: str,
        running_trials: Collection[int] = (),
        before: float = math.inf,
    ) -> list[str]:
        """End what killed processes left RUNNING of the trials `before` this one;
        `running_trials` are alive in other workers."""
        query = f"tags.study = {quoted(study)} AND attributes.status = 'RUNNING'"
        closed = []
        with tracking_errors(f"Closing what is left running of {study}"):
            for run in self._search([experiment_id], query):
                run_id = run.info.run_id
                trial = run.data.tags.get("trial")
                if run_id == except_run or (trial and int(trial) in running_trials):
                    continue
                if trial and int(trial) >= before:
                    continue
                self._client.set_tag(run_id, CLOSED_TAG, reason)
                self._client.set_terminated(run_id, status="KILLED")
                closed.append(run_id)
        return closed

    # Runs of any kind

    def find_run(self, tag: str, value: str) -> str | None:
        """The newest run with this tag that has its files, in any experiment."""
        with tracking_errors(f"Looking for a run with {tag} = {value}"):
            query = f"tags.`{tag}` = {quoted(value)} AND tags.{CLEANED_TAG} IS NULL"
            newest = self._client.search_runs(
                list(self.experiments.ids().values()),
                query,
                max_results=1,
                order_by=["attributes.start_time DESC"],
            )
            return newest[0].info.run_id if newest else None

    def tagged_runs(self, experiment_ids: Sequence[str], tag: str) -> list[TaggedRun]:
        """All runs of these experiments that have a tag, deleted ones left out."""
        with tracking_errors(f"Looking for runs with {tag}"):
            return [
                TaggedRun(run.info.run_id, run.info.status, dict(run.data.tags))
                for run in self._search(experiment_ids, f"tags.`{tag}` LIKE '%'")
            ]

    def add_run(self, experiment_id: str, name: str, *, tags: Mapping[str, str]) -> str:
        """A new RUNNING run; `close_study` ends it."""
        with tracking_errors(f"Opening the run {name}"):
            return self._create_run(experiment_id, name, tags=tags)

    def runs_beginning(self, prefix: str) -> list[str]:
        """The ids that begin so, of runs in any experiment."""
        with tracking_errors(f"Looking for runs {prefix}"):
            query = f"attributes.run_id LIKE {quoted(f'{prefix}%')}"
            return [run.info.run_id for run in self._search(self.experiments.ids().values(), query)]

    def read_run(self, run_id: str) -> KnownRun:
        """All that a run says of itself but its files."""
        with tracking_errors(f"Reading run {run_id}"):
            run = self._client.get_run(run_id)
            names = [name for name in run.data.metrics if not name.startswith(SYSTEM_METRICS)]
            return KnownRun(
                run_id=run_id,
                name=run.info.run_name,
                status=run.info.status,
                tags=dict(run.data.tags),
                params=dict(run.data.params),
                series={name: self._series(run_id, name) for name in names},
            )

    def _series(self, run_id: str, metric: str) -> list[float]:
        """A metric's values by step; the last where a step was logged again."""
        points = self._client.get_metric_history(run_id, metric)
        by_step = {point.step: point.value for point in sorted(points, key=_when)}
        return [by_step[step] for step in sorted(by_step)]

    def tags(self, run_id: str) -> dict[str, str]:
        """A run's tags."""
        with tracking_errors(f"Reading the tags of run {run_id}"):
            return dict(self._client.get_run(run_id).data.tags)

    def status(self, run_id: str) -> str:
        """A run's state."""
        with tracking_errors(f"Reading the state of run {run_id}"):
            return self._client.get_run(run_id).info.status

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Give a run these tags."""
        with tracking_errors(f"Tagging run {run_id}"):
            self._client.log_batch(run_id, tags=as_tags(tags))

    def metrics(self, run_id: str) -> dict[str, float]:
        """A run's metrics, the last value of each."""
        with tracking_errors(f"Reading the metrics of run {run_id}"):
            return dict(self._client.get_run(run_id).data.metrics)

    def files(self, run_id: str) -> list[str]:
        """The files and folders at a run's root."""
        with tracking_errors(f"Listing the files of run {run_id}"):
            return [found.path for found in self._client.list_artifacts(run_id)]

    def log_artifacts(self, run_id: str, folder: Path, path: str | None = None) -> None:
        """Log a folder whole, at the run's root or below `path`."""
        with tracking_errors(f"Logging {folder} to run {run_id}"):
            self._log_folder(run_id, folder, path)

    def hand_over(self, run_id: str, folder: Path) -> None:
        """Give a run a folder whole: its files are the run's from now on, and it is gone."""
        with tracking_errors(f"Handing {folder} over to run {run_id}"):
            self._link_folder(run_id, folder)
            shutil.rmtree(folder)

    def download(self, run_id: str, path: str, to: Path) -> Path:
        """Copy a run's file or folder to below `to`; the path of the copy."""
        to.mkdir(parents=True, exist_ok=True)
        with tracking_errors(f"Downloading {path} of run {run_id}"):
            return fetch_run_files(self._client, run_id, path, to)

    def _link_folder(self, run_id: str, folder: Path) -> None:
        """Log a folder whose files do not change any more: one disk holds them once."""
        location = local_folder(self._client.get_run(run_id).info.artifact_uri)
        if is_server(self.uri) or location is None or not folder.is_dir():
            self._log_folder(run_id, folder)
        else:
            place(folder, location)

    def _log_folder(self, run_id: str, folder: Path, path: str | None = None) -> None:
        if not folder.is_dir():  # MLflow would log nothing and say nothing
            raise TrackingError(f"There is no folder {folder} to log to run {run_id}.")
        self._client.log_artifacts(run_id, str(folder), artifact_path=path)

    def _create_run(
        self, experiment_id: str, name: str, *, tags: Mapping[str, str], start_ms: int | None = None
    ) -> str:
        cut = {tag.key: tag.value for tag in as_tags({**self._who, **tags})}
        run = self._client.create_run(experiment_id, start_time=start_ms, tags=cut, run_name=name)
        return run.info.run_id

    def _find_trial(self, experiment_id: str, study: str, trial: int) -> Run | None:
        query = f"tags.study = {quoted(study)} AND tags.trial = '{trial}'"
        found = list(self._search([experiment_id], query))
        return self._keep_one(found)[0] if found else None

    def _search(
        self, experiments: Iterable[str], query: str, view: int = ViewType.ACTIVE_ONLY
    ) -> Iterator[Run]:
        return in_pages(
            self._client.search_runs, list(experiments), query, view, max_results=RUNS_A_PAGE
        )

    def _epochs_logged(self, run_id: str, history: Sequence[Mapping[str, float | None]]) -> int:
        """How many epochs came in live: they are in the run under the time they took place."""
        if not history:
            return 0
        metric = next(iter(history[0]))
        logged = self._client.get_metric_history(run_id, metric)
        return max((point.step for point in logged), default=0)

    def _stop_monitor(self, run_id: str) -> None:
        monitor = self._monitors.pop(run_id, None)
        if monitor is not None:
            monitor.finish()


def _is_whole(run: Run) -> bool:
    """Whether all of a trial has been told: a run that ended, and not because it was closed."""
    return run.info.status != "RUNNING" and CLOSED_TAG not in run.data.tags


def _when(point: Metric) -> tuple[int, int]:
    return point.timestamp, point.step
