"""What is owed to MLflow, and the thread that hands it over: beside the search, never in its way.

The server may be slow, away, or come back as another process: what could not be handed over is
tried again after a while that doubles. What is still owed at the end waits in Optuna's storage and
in the trials' folders for the next run of the study, or for `make sync`.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import cache
from queue import Empty, SimpleQueue

from optuna.trial import FrozenTrial

from mlflow_server import Tracking, TrackingError, TrackingRefused
from studies.record import Record
from studies.worker import WORKER, is_alive, is_here, this_worker

GATHERED = 1.0  # seconds in which ended trials are gathered, to be published together
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds until it is tried again
OPENS_WITHIN = 1.5  # seconds that a search waits for a server before its first trial
OTHERS_PUBLISH_WITHIN = timedelta(minutes=10)
DUE = "due"

Job = Callable[[Record], None]


def publishable(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The ended trials that are this process's to publish: its own, and those of dead ones."""
    return [trial for trial in trials if not is_told_by_others(trial)]


def is_told_by_others(trial: FrozenTrial) -> bool:
    """Whether another process that lives has a trial, or is to publish it.

    One of another machine has its files there; it is given time.
    """
    worker = trial.user_attrs.get(WORKER)
    if worker is None or worker == _worker(os.getpid()):
        return worker is None and not trial.state.is_finished()
    if trial.state.is_finished() and not is_here(worker):
        return datetime.now() - trial.datetime_complete < OTHERS_PUBLISH_WITHIN
    return is_alive(worker)


@cache
def _worker(pid: int) -> dict:
    return this_worker()


class Outbox:
    """Takes what MLflow is to hear and returns at once; `away` says why it does not hear."""

    def __init__(self, connect: Callable[[], Record]):
        """`connect` opens the record; it is called by the thread until it answers."""
        self._connect = connect
        self._queue: SimpleQueue[Job | FrozenTrial | None] = SimpleQueue()
        self._owed: dict[int, FrozenTrial] = {}
        self._wait = FIRST_WAIT
        self._due: float | None = None  # when to hand over
        self._was_away = False
        self._tried = threading.Event()
        self.away: str | None = None
        self.first_error: Exception | None = None  # that kept the record from being opened at once
        self.refused: TrackingRefused | None = None
        self.record: Record | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    # What the search says

    def wait_until_open(self, seconds: float | None) -> bool:
        """Whether the record was opened within this time; raises what a server refuses."""
        self._tried.wait(seconds)
        if self.refused:
            raise self.refused
        return self.record is not None

    def begin_training(self, trial: int, started_ms: int) -> None:
        """A trial trains: its run is opened now, so that its epochs can be watched."""
        self._queue.put(lambda record: record.open_run(trial, started_ms))

    def on_epoch(self, trial: int, epoch: int, metrics: dict[str, float]) -> None:
        """An epoch of a trial that trains."""
        self._queue.put(lambda record: record.log_epoch(trial, epoch, metrics))

    def publish(self, trial: FrozenTrial) -> None:
        """Publish a finished trial soon."""
        self._queue.put(trial)

    def refresh(self) -> None:
        """Learn what other processes have published, before it is asked what is owed."""
        self._queue.put(lambda record: record.refresh())

    def settle(self, finished: Iterable[FrozenTrial]) -> list[int]:
        """Wait until all is published, try once more what is not, and return what is owed."""
        for trial in finished:
            self._queue.put(trial)
        self._queue.put(None)
        self._thread.join()
        return sorted(self._owed)

    # The record, once it is open

    @property
    def tracking(self) -> Tracking:
        """The connection."""
        return self.record.tracking

    @property
    def published(self) -> dict[int, str]:
        """The run of each trial that has one."""
        return self.record.published if self.record else {}

    # The thread

    def _work(self) -> None:
        self._open()
        while (job := self._take()) is not None:
            if job is DUE:
                self._open()
                self._hand_over()
            elif callable(job):
                self._tell_live(job)
            else:
                self._owe(job)
        self._open()
        self._hand_over()
        self._drop_doubles()

    def _take(self) -> Job | FrozenTrial | str | None:
        """What is to be done next; DUE once it is time to hand over."""
        wait = None if self._due is None else self._due - time.monotonic()
        if wait is not None and wait <= 0:
            return DUE
        try:
            return self._queue.get(timeout=wait)
        except Empty:
            return DUE

    def _owe(self, trial: FrozenTrial) -> None:
        self._owed[trial.number] = trial
        if self._due is None:
            self._due = time.monotonic() + GATHERED

    def _tell_live(self, job: Job) -> None:
        """What is worth hearing now alone: the trial's end tells all of it again."""
        if self.record is None or self.away:
            return
        try:
            job(self.record)
        except (TrackingError, OSError) as error:
            self._failed(error)

    def _open(self) -> None:
        if self.record or self.refused:
            return
        try:
            self.record = self._connect()
            self._heard()
        except TrackingRefused as error:
            self.refused, self.away = error, str(error)
        except (TrackingError, OSError) as error:
            self.first_error = self.first_error or error
            self._failed(error)
        finally:
            self._tried.set()

    def _hand_over(self) -> None:
        self._due = None
        if self.record is None:
            return
        try:
            self.record.write([one for one in self._owed.values() if self.record.is_owed(one)])
            self._heard()
        except (TrackingError, OSError) as error:
            self._failed(error)
        self._owed = {n: trial for n, trial in self._owed.items() if self.record.is_owed(trial)}

    def _drop_doubles(self) -> None:
        """A server that answers too late may have made a run of which nobody heard."""
        if self.record and self._was_away:
            try:
                self.record.drop_doubles()
            except TrackingError as error:
                self.away = str(error)

    def _heard(self) -> None:
        self.away, self._wait = None, FIRST_WAIT

    def _failed(self, error: Exception) -> None:
        self.away, self._was_away = str(error), True
        self._due = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT)
