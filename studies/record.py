"""What MLflow is told of a study, and how: each trial once, whoever tells it and however often.

Everything that is published waits in Optuna's storage and in the trial's folder until MLflow has
it. When it is told, and what happens while it does not listen, is the outbox's (outbox.py).
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from mlflow_server import Tracking, TrackingError, TrackingRefused, TrialRun
from mlflow_server.files import place, share
from mlflow_server.registry import Flavour, log_model
from mlflow_server.tracking import CLEANED_TAG
from studies.retries import INTERRUPTED, RETRY_OF
from studies.trial_storage import FAILED

REPORTED = "record"  # a trial's user attribute with all that is published of it
TRAINED = "trained"  # tag of a trial whose network was not there yet
LOCK = ".lock"  # in a trial's folder, of whoever publishes it
AT_ONCE = 100  # trials in a transaction: others wait for its end
ARTIFACTS, MODEL = "artifacts", "model"
OWN_FOLDER = "head"  # below a run's artifacts, beside a folder for the weights of each network
WEIGHTS_OF = "{}_weights"  # tag: the key of the network's weights that this run holds
HOLDER = "{}_run"  # tag: the run that holds the weights of this run's network


@dataclass(frozen=True)
class ModelFormat:
    """How a saved model becomes an MLflow model; the same for every trial of a study."""

    flavour: Flavour
    loader: str
    code_paths: list[Path]
    requirements: list[str]


@dataclass
class Record:
    """The runs of one study: its parent, and one of each trial, written here and now."""

    tracking: Tracking
    study: str
    experiment_id: str
    parent_id: str
    trials_folder: Path
    weights_folder: Path
    model_format: ModelFormat
    published: dict[int, str] = field(default_factory=dict)  # trial -> run id
    begun: set[int] = field(default_factory=set)  # trials whose run is there, and not whole
    _weights: dict[str, str] = field(default_factory=dict)  # key of a network's weights -> run id
    _live: dict[int, str] = field(default_factory=dict)  # trial in training -> run id

    def open_run(self, trial: int, started_ms: int) -> None:
        """A trial trains: its run is opened now, so that its epochs can be watched."""
        self._live[trial] = self.tracking.open_trial(
            self.experiment_id,
            self.parent_id,
            self.study,
            trial,
            trial_name(self.study, trial),
            started_ms,
        )

    def log_epoch(self, trial: int, epoch: int, metrics: dict[str, float]) -> None:
        """An epoch of a trial that trains."""
        if trial in self._live:
            self.tracking.log_epoch(self._live[trial], epoch, metrics)

    def is_owed(self, trial: FrozenTrial) -> bool:
        """Whether an ended trial has no run yet, or something of it still waits on the disk."""
        waits = (self.trials_folder / str(trial.number)).exists()
        return waits or trial.number not in self.published

    def write(self, trials: Iterable[FrozenTrial]) -> None:
        """Publish ended trials: together but for those that may have a run already, and those whose
        run will hold weights that others link to.

        What one of them fails of does not keep the others; where two fail, all would. Raises what
        the last one failed of.
        """
        together: list[FrozenTrial] = []
        failures = []
        for trial in trials:
            if trial.number in self.published:
                self._write(lambda trial=trial: self._finish_published(trial), failures)
            elif self._may_have_run(trial) or set(needed_weights(trial)) - self._weights.keys():
                self._write(lambda trial=trial: self._publish_one(trial), failures)
            else:
                together.append(trial)
            if len(failures) > 1:
                break
        for start in range(0, len(together), AT_ONCE):
            some = together[start : start + AT_ONCE]
            if len(failures) < 2:
                self._write(lambda some=some: self._publish_together(some), failures)
        if failures:
            raise failures[-1]

    @staticmethod
    def _write(job: Callable[[], None], failures: list[Exception]) -> None:
        try:
            job()
        except TrackingRefused:
            raise
        except (TrackingError, OSError) as error:
            failures.append(error)

    def drop_doubles(self) -> None:
        """Keep one run of each trial."""
        dropped = set(self.tracking.drop_doubles(self.experiment_id, self.study))
        if dropped:
            self.published = {n: run for n, run in self.published.items() if run not in dropped}
            self.refresh()

    def refresh(self) -> None:
        """Learn what other processes have published meanwhile."""
        found = self.tracking.published_trials(self.experiment_id, self.study)
        self.published |= {trial: run for trial, (run, status) in found.items() if ended(status)}

    def ensure(self, trial: FrozenTrial | None) -> None:
        """Have a trial's run there, whichever process was to publish it."""
        if trial is not None and trial.number not in self.published:
            self.refresh()
        if trial is not None and trial.number not in self.published:
            self.write([trial])

    def _may_have_run(self, trial: FrozenTrial) -> bool:
        """Whether a run may have been opened for a trial before it ended, by whichever process: it
        trained, or died before it said so."""
        report = trial.user_attrs.get(REPORTED)
        return trial.number in self.begun or report is None or TRAINED in report.get("tags", {})

    def log_model(self, trial: int, folder: Path, weights: Iterable[str]) -> str:
        """The address of a published trial's model; logged now if it has none yet."""
        return self._log_model(self.published[trial], trial, folder, weights)

    def _log_model(self, run_id: str, trial: int, folder: Path, weights: Iterable[str]) -> str:
        for key in weights:  # what the cache has lies on the disk once
            share(folder, self.weights_folder / key)
        return log_model(
            self.tracking.uri,
            run_id,
            folder,
            name="model",
            flavour=self.model_format.flavour,
            loader=self.model_format.loader,
            code_paths=self.model_format.code_paths,
            pip_requirements=self.model_format.requirements,
            metadata={"study": self.study, "trial": trial},
        )

    def _publish_one(self, trial: FrozenTrial) -> None:
        with self._alone(trial):
            run, held = self._as_run(trial)
            run_id = self.tracking.publish_trial(self.experiment_id, self.parent_id, run)
            self._weights |= dict.fromkeys(held, run_id)
            self._conclude([(trial, run, run_id)])

    @contextmanager
    def _alone(self, trial: FrozenTrial) -> Iterator[None]:
        """Processes of this machine that publish one trial do so one after the other."""
        folder = self.trials_folder / str(trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            yield

    def _finish_published(self, trial: FrozenTrial) -> None:
        """A trial with a run, of which something waits on the disk: its model, or nothing."""
        run, _ = self._as_run(trial)
        self._conclude([(trial, run, self.published[trial.number])])

    def _publish_together(self, trials: list[FrozenTrial]) -> None:
        runs = [self._as_run(trial)[0] for trial in trials]
        ids = self.tracking.publish_trials(self.experiment_id, self.parent_id, runs)
        self._conclude(
            [(trial, run, ids[trial.number]) for trial, run in zip(trials, runs, strict=True)]
        )

    def _as_run(self, trial: FrozenTrial) -> tuple[TrialRun, list[str]]:
        """A trial as its run, and the keys of the weights that it is to hold."""
        artifacts = self.trials_folder / str(trial.number) / ARTIFACTS
        run = as_run(self.study, trial)
        needed = reported(trial).get("weights", {})
        held = [
            key
            for network, key in needed.items()
            if self._place_weights(network, key, artifacts, run.tags)
        ]
        return replace(run, artifacts=artifacts if artifacts.exists() else None), held

    def _conclude(self, written: list[tuple[FrozenTrial, TrialRun, str]]) -> None:
        """What is left to do once runs are written: their models, and holders that were cleaned."""
        for trial, _, run_id in written:
            folder = self.trials_folder / str(trial.number)
            if (folder / MODEL).exists():
                self._log_model(run_id, trial.number, folder / MODEL, needed_weights(trial))
        self._hold_what_was_cleaned(written)
        for trial, _, run_id in written:
            self.published[trial.number] = run_id
            shutil.rmtree(self.trials_folder / str(trial.number), ignore_errors=True)

    def _place_weights(self, network: str, key: str, artifacts: Path, tags: dict[str, str]) -> bool:
        """Link a run to the one that holds its network's weights; True if it is to hold them."""
        tag = WEIGHTS_OF.format(network)
        holder = self._weights.get(key) or self.tracking.find_run(tag, key)
        weights = self.weights_folder / key
        if holder:
            self._weights[key] = holder
            tags[HOLDER.format(network)] = holder
            return False
        if not weights.exists():
            return False
        place(weights, artifacts / network)
        tags[tag] = key
        return True

    def _hold_what_was_cleaned(self, written: list[tuple[FrozenTrial, TrialRun, str]]) -> None:
        """Have a run hold weights itself whose holder lost its files while it was linked to.

        `make gc` first tags a run and then looks for links to it, here links are made and then the
        tag is looked for: one of both sees the other.
        """
        cleaned: dict[str, bool] = {}
        for trial, run, run_id in written:
            for network, key in reported(trial).get("weights", {}).items():
                holder, weights = run.tags.get(HOLDER.format(network)), self.weights_folder / key
                if holder is None or not weights.exists():
                    continue
                if holder not in cleaned:
                    cleaned[holder] = CLEANED_TAG in self.tracking.tags(holder)
                if cleaned[holder]:
                    self.tracking.log_artifacts(run_id, weights, network)
                    linked = {WEIGHTS_OF.format(network): key, HOLDER.format(network): run_id}
                    self.tracking.tag(run_id, linked)
                    self._weights[key] = run_id


def as_run(study: str, trial: FrozenTrial) -> TrialRun:
    """An Optuna trial as the run that stands for it; the states agree (see `run_status`)."""
    report = reported(trial)
    tags = {"state": trial.state.name, **report.get("tags", {})}
    if trial.state == TrialState.FAIL:
        attributes = trial.user_attrs
        tags["reason"] = attributes.get(FAILED) or attributes.get(INTERRUPTED, "its process died")
    if RETRY_OF in trial.user_attrs:
        tags[RETRY_OF] = str(trial.user_attrs[RETRY_OF])
    start_ms = round(trial.datetime_start.timestamp() * 1000)
    end_ms = round(trial.datetime_complete.timestamp() * 1000)
    return TrialRun(
        study=study,
        trial=trial.number,
        name=trial_name(study, trial.number),
        status=run_status(trial),
        start_ms=start_ms,
        end_ms=max(start_ms, end_ms),  # a clock may have been put back
        params=trial.params,
        metrics=report.get("metrics", {}),
        history=report.get("history", []),
        tags=tags,
        note="",
    )


def run_status(trial: FrozenTrial) -> str:
    """COMPLETE is FINISHED, PRUNED is KILLED; FAIL is FAILED after an error and KILLED when the
    trial was interrupted or its process died."""
    if trial.state == TrialState.COMPLETE:
        return "FINISHED"
    return "FAILED" if FAILED in trial.user_attrs else "KILLED"


def ended(status: str) -> bool:
    """Whether a run in this state is what its trial became."""
    return status != "RUNNING"


def needed_weights(trial: FrozenTrial) -> list[str]:
    """The cache's keys of the networks that a trial judges with."""
    return list(reported(trial).get("weights", {}).values())


def reported(trial: FrozenTrial) -> dict[str, Any]:
    """What a trial left to be published."""
    return trial.user_attrs.get(REPORTED, {})


def trial_name(study: str, trial: int) -> str:
    """`007 giaem (phantom)`: sorts as it counts, and is told apart where columns are narrow."""
    return f"{trial:03} {study}"
