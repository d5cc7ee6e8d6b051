"""One trial: suggest, fit, score, and leave behind what MLflow is to be told.

It owns how a trial ends: complete, pruned, failed or interrupted. It knows nothing of the trials
before it but the best value.
"""

import time
import traceback
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

import optuna
from optuna import Trial, TrialPruned
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from PIL import Image
from sqlalchemy.exc import OperationalError

from studies.outbox import Outbox
from studies.progress import Display, TrialLine
from studies.record import ARTIFACTS, FAILED, MODEL, OWN_FOLDER, REPORTED, TRAINED
from studies.retries import INTERRUPTED, is_cut_short
from studies.space import Params, suggest
from studies.storage import fail_dead_trials, is_feasible, write_down
from studies.study import BATCHES, HALF, Candidate, Lab, News, Study
from training.cache import DISK_FULL, CacheError
from training.grids import save_picture
from training.memory import give_back, is_out_of_memory

LOOKED_EVERY = 10.0  # seconds between looks for workers that have died
SAME_ERRORS_END = 5  # our choice: by then the parameters are not the cause


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is a disk that takes nothing more."""
    while error is not None:
        if getattr(error, "errno", None) in DISK_FULL:
            return True
        error = error.__cause__
    return False


def disk_full(folder: Path, error: Exception) -> CacheError:
    """The sentence for it."""
    if isinstance(error, CacheError):
        return CacheError(str(error))
    return CacheError(
        f"The disk is full: what a trial made could not be kept below {folder}. Free some space "
        "(`make gc`); the same command goes on from here, with this trial."
    )


class TrialFailed(RuntimeError):
    """A trial's own error; the study goes on."""


@dataclass
class TrialRunner:
    """The objective that Optuna calls; `best` is the best feasible value so far."""

    study: Study
    lab: Lab
    folder: Path
    display: Display
    record: Outbox | None
    best: float | None
    tags: dict[str, str] = field(default_factory=dict)

    def __call__(self, trial: Trial) -> float:
        """The objective's value; raises TrialPruned, TrialFailed, or what ends the study."""
        report = {"tags": dict(self.tags), "history": []}
        try:
            return self._run(trial, report)
        except TrialPruned:
            raise
        except Exception as error:
            if isinstance(error, CacheError) or is_disk_full(error):
                # No trial would do better: this one is tried again.
                trial.set_user_attr(INTERRUPTED, "the disk was full")
                raise disk_full(self.folder, error) from error
            trial.set_user_attr(FAILED, self._sentence(error))
            self._write(trial, "traceback.txt", traceback.format_exc())
            raise TrialFailed(str(error)) from error
        finally:
            trial.set_user_attr(REPORTED, report)

    def _sentence(self, error: Exception) -> str:
        """The same for the same error: how many bytes were missing differs each time."""
        if is_out_of_memory(error):
            return f"{type(error).__name__}: too little memory on {self.lab.device}, twice"
        return f"{type(error).__name__}: {error}"

    def _run(self, trial: Trial, report: dict) -> float:
        params = suggest(trial, self.study.space)
        write_down(trial)  # other workers keep away from this point
        news = self._news(trial, report)
        try:
            candidate, metrics = self._fit(params, self.lab, news)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            candidate = None
        if candidate is None:  # out of the error's reach, which holds what filled the memory
            candidate, metrics = self._fit(params, self._with_half_batches(trial, report), news)
        for constraint in self.study.constraints:
            trial.set_constraint(constraint.metric, constraint.violation(metrics))
        report["metrics"] = metrics
        report["weights"] = candidate.weights
        value = metrics[self.study.metric]
        feasible = self.study.is_feasible(metrics)
        is_best = feasible and self.study.is_better(value, self.best)
        if is_best:
            self.best = value
        report["tags"] |= {"feasible": str(feasible).lower()}
        is_new = is_best or TRAINED in report["tags"]
        self._keep(trial, candidate, draw=is_new, model=is_best)
        return value

    def _fit(self, params: Params, lab: Lab, news: News) -> tuple[Candidate, dict[str, float]]:
        candidate = self.study.fit(params, lab, news)
        return candidate, self.study.score(candidate, lab)

    def _with_half_batches(self, trial: Trial, report: dict) -> Lab:
        """Begin a trial again that has filled the device's memory, and write that down."""
        self.display.say(f"  trial {trial.number}: out of memory, once more with half the batch")
        trial.set_user_attr(BATCHES, HALF)
        report["tags"][BATCHES] = HALF
        report["history"].clear()
        lab = self.lab.with_half_batches()
        give_back(lab.device)
        return lab

    def _news(self, trial: Trial, report: dict) -> News:
        started_ms = round(time.time() * 1000)

        def on_train() -> None:
            report["tags"][TRAINED] = "true"
            write_down(trial, wait=True)  # MLflow is about to hear of it
            if self.record:
                self.record.begin_training(trial.number, started_ms)

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            report["history"].append(metrics)
            self.display.on_epoch(trial.number, epoch, metrics)
            if self.record:
                self.record.on_epoch(trial.number, epoch, metrics)
            if self.study.reported:
                trial.report(metrics[self.study.reported], epoch)
                if trial.should_prune():
                    raise TrialPruned(f"behind the others at epoch {epoch}")

        return News(on_train, on_epoch, partial(self._draw, trial))

    def _keep(self, trial: Trial, candidate: Candidate, *, draw: bool, model: bool) -> None:
        """Its own part always; samples where there is something new; a model of the best."""
        folder = self.folder / str(trial.number)
        predictor = candidate.predictor(self.lab)
        predictor.save_own(folder / ARTIFACTS / OWN_FOLDER)
        if draw:
            for name, picture in candidate.pictures(self.lab).items():
                self._draw(trial, name, picture)
        if model:
            predictor.save(folder / MODEL)

    def _draw(self, trial: Trial, name: str, picture: Image.Image) -> None:
        save_picture(picture, self.folder / str(trial.number) / ARTIFACTS / name)

    def _write(self, trial: Trial, name: str, text: str) -> None:
        folder = self.folder / str(trial.number) / ARTIFACTS
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


class AfterTrial:
    """What happens when a trial has ended: a line for the reader, a run for MLflow, a look at
    whether every trial dies of the same error."""

    def __init__(self, study: Study, display: Display, record: Outbox | None):
        self._study, self._display, self._record = study, display, record
        self._since: datetime | None = None  # when the first trial began
        self._errors: list[str | None] = []  # of the study's last trials, other workers' too
        self._looked = time.monotonic()

    def __call__(self, search: optuna.Study, trial: FrozenTrial) -> None:
        """Optuna's callback."""
        self.look(search, trial)
        if self.error():
            search.stop()

    def look(self, search: optuna.Study, trial: FrozenTrial) -> None:
        """All but the end of the search."""
        self._display.on_trial(as_line(trial, is_best=self._is_best(trial)))
        if self._record:
            self._record.publish(trial)
        self._since = self._since or trial.datetime_start
        self._errors = self._last_errors(search) if FAILED in trial.user_attrs else []
        self._bury(search)

    def _last_errors(self, search: optuna.Study) -> list[str | None]:
        """What the last trials failed of, None where they did not; since this process began."""
        ended = [
            one
            for one in search.get_trials(deepcopy=False)
            if one.state.is_finished()
            and one.datetime_complete >= self._since
            and not is_cut_short(one)
        ]
        last = sorted(ended, key=lambda one: one.datetime_complete)[-SAME_ERRORS_END:]
        return [one.user_attrs.get(FAILED) for one in last]

    def _bury(self, search: optuna.Study) -> None:
        """End, now and then, the trials of workers that have died meanwhile."""
        if time.monotonic() - self._looked < LOOKED_EVERY:
            return
        self._looked = time.monotonic()
        try:
            dead = fail_dead_trials(search)
        except (StorageInternalError, OperationalError):
            return  # the database is away: the next look is soon
        for trial in search.get_trials(deepcopy=False) if dead else []:
            if trial.number in dead and self._record:
                self._record.publish(trial)

    def _is_best(self, trial: FrozenTrial) -> bool:
        if trial.state != TrialState.COMPLETE or not is_feasible(trial):
            return False
        best = self._display.best
        return self._study.is_better(trial.value, best.value if best else None)

    def error(self) -> str | None:
        """A sentence, once there is a reason to stop."""
        refused = self._record.refused if self._record else None
        return str(refused) if refused else self.same_error()

    def same_error(self) -> str | None:
        """A sentence, once the last trials have failed with nothing but one error."""
        last = self._errors[-SAME_ERRORS_END:]
        if len(last) < SAME_ERRORS_END or len(set(last)) > 1 or last[-1] is None:
            return None
        return f"The last {SAME_ERRORS_END} trials failed with the same error: {last[-1]}"


def as_line(trial: FrozenTrial, *, is_best: bool) -> TrialLine:
    """A trial as it is shown."""
    return TrialLine(
        number=trial.number,
        state=trial.user_attrs.get(FAILED, trial.state.name.lower()),
        params=trial.params,
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        is_feasible=is_feasible(trial),
        is_best=is_best,
    )
