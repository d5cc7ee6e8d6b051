"""What MLflow is told of a study: beside the search, never in its way, and each trial once.

Everything that is published waits in Optuna's storage and in the trial's folder until MLflow has
it, so that a tracking server may be away: the next run of the study publishes what is owed.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from mlflow_server import Tracking, TrackingError, TrialRun
from mlflow_server.files import place, share
from mlflow_server.registry import Flavour, log_model
from mlflow_server.tracking import CLEANED_TAG

REPORTED = "record"  # a trial's user attribute with all that is published of it
INTERRUPTED = "interrupted"
FAILED = "error"
GATHERED = 1.0  # seconds in which ended trials are gathered, to be published together
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
    """The parent run of a study and the thread that publishes its trials."""

    tracking: Tracking
    study: str
    experiment_id: str
    parent_id: str
    trials_folder: Path
    weights_folder: Path
    model_format: ModelFormat
    away: str | None = None  # why MLflow does not hear, once it does not
    published: dict[int, str] = field(default_factory=dict)  # trial -> run id
    begun: set[int] = field(default_factory=set)  # trials that have a run before they have ended

    def __post_init__(self):
        self._queue: SimpleQueue[Callable[[], None] | FrozenTrial | None] = SimpleQueue()
        self._weights: dict[str, str] = {}  # key of a network's weights -> run id
        self._live: dict[int, str] = {}  # trial in training -> run id
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def begin_training(self, trial: int, started_ms: int) -> None:
        """A trial trains: its run is opened now, so that its epochs can be watched."""

        self.begun.add(trial)

        def open_run() -> None:
            self._live[trial] = self.tracking.open_trial(
                self.experiment_id,
                self.parent_id,
                self.study,
                trial,
                trial_name(self.study, trial),
                started_ms,
            )

        self._queue.put(open_run)

    def on_epoch(self, trial: int, epoch: int, metrics: dict[str, float]) -> None:
        """An epoch of a trial that trains."""

        def log_epoch() -> None:
            if trial in self._live:
                self.tracking.log_epoch(self._live[trial], epoch, metrics)

        self._queue.put(log_epoch)

    def publish(self, trial: FrozenTrial) -> None:
        """Publish a finished trial soon."""
        self._queue.put(trial)

    def settle(self, finished: Iterable[FrozenTrial]) -> list[int]:
        """Wait until all is published, try once more what is not, and return what is owed."""
        self._queue.put(None)
        self._thread.join()
        self.away = None
        owed = [trial for trial in finished if trial.number not in self.published]
        for trial in owed:
            if self.away is None:
                self._try(lambda trial=trial: self._publish_one(trial))
        return [trial.number for trial in owed if trial.number not in self.published]

    def log_model(self, trial: FrozenTrial, folder: Path) -> str:
        """The address of a published trial's model; logged now if it has none yet."""
        return self._log_model(self.published[trial.number], trial, folder)

    def _log_model(self, run_id: str, trial: FrozenTrial, folder: Path) -> str:
        for key in _needed(trial):  # what the cache has lies on the disk once
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
            metadata={"study": self.study, "trial": trial.number},
        )

    def _work(self) -> None:
        job = self._queue.get()
        while job is not None:
            if callable(job):
                self._try(job)
                job = self._queue.get()
            else:
                trials, job = self._gather(job)
                self._try(lambda trials=trials: self._publish(trials))

    def _gather(
        self, first: FrozenTrial
    ) -> tuple[list[FrozenTrial], Callable[[], None] | FrozenTrial | None]:
        """The trials that end within a second of this one, and what else there is to do then."""
        trials, until = [first], time.monotonic() + GATHERED
        while True:
            try:
                job = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                return trials, self._nothing
            if job is None or callable(job):
                return trials, job
            trials.append(job)

    @staticmethod
    def _nothing() -> None:
        """Nothing to do but to wait for the next trial."""

    def _try(self, job: Callable[[], None]) -> None:
        try:
            job()
        except (TrackingError, OSError) as error:
            self.away = str(error)

    def _publish(self, trials: list[FrozenTrial]) -> None:
        """Publish trials of this process, together but for those that have a run already, and
        those whose run will hold weights that others link to."""
        together = []
        for trial in trials:
            if trial.number in self.begun or set(_needed(trial)) - self._weights.keys():
                self._publish_one(trial)
            else:
                together.append(trial)
        for start in range(0, len(together), AT_ONCE):
            self._publish_together(together[start : start + AT_ONCE])

    def _publish_one(self, trial: FrozenTrial) -> None:
        run, held = self._as_run(trial)
        run_id = self.tracking.publish_trial(self.experiment_id, self.parent_id, run)
        self._weights |= dict.fromkeys(held, run_id)
        self._conclude([(trial, run, run_id)])

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
                self._log_model(run_id, trial, folder / MODEL)
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
    return TrialRun(
        study=study,
        trial=trial.number,
        name=trial_name(study, trial.number),
        status=run_status(trial),
        start_ms=round(trial.datetime_start.timestamp() * 1000),
        end_ms=round(trial.datetime_complete.timestamp() * 1000),
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


def _needed(trial: FrozenTrial) -> list[str]:
    return list(reported(trial).get("weights", {}).values())


def reported(trial: FrozenTrial) -> dict[str, Any]:
    """What a trial left to be published."""
    return trial.user_attrs.get(REPORTED, {})


def trial_name(study: str, trial: int) -> str:
    """`007 giaem (phantom)`: sorts as it counts, and is told apart where columns are narrow."""
    return f"{trial:03} {study}"
