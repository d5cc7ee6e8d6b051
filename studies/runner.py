"""How a study is run: the order of things from its first line to its last.

Each thing is left to its owner.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import NamedTuple

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from mlflow_server import TrackingError, TrackingRefused
from mlflow_server.connection import is_server
from studies.closing import hand_over_closing, write_closing
from studies.opening import open_runs, opening_of
from studies.outbox import OPENS_WITHIN, Outbox, is_told_by_others, publishable
from studies.progress import Display, show_markdown, show_progress
from studies.publish import draw_report
from studies.reproduce.conditions import write_conditions
from studies.retries import BY_SIGNAL, INTERRUPTED, put_back
from studies.session import Session, open_session
from studies.settings import Settings
from studies.storage import begun, best_feasible, fail_dead_trials, open_storage, open_study
from studies.study import Conclusion, Study, StudyError
from studies.trials import AfterTrial, TrialFailed, TrialRunner, as_line

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def run(study: Study, settings: Settings, with_trials: "RunsTrials | None" = None) -> bool:
    """Search, conclude and publish; False when it was interrupted (the study can be resumed).

    `with_trials` has other processes run the trials; without it they run here.
    """
    session = open_session(study, settings, say=print)
    settings.root.mkdir(parents=True, exist_ok=True)
    search = open_search(session, open_storage(settings.storage_url))
    fail_dead_trials(search)
    put_back(search)
    enqueue_first(session.study, search)
    record = open_record(session, search)
    ending = (with_trials or run_trials)(session, search, record)
    finish(session, search, record, interrupted=ending.interrupted)
    if ending.error:
        raise StudyError(ending.error)
    return not ending.interrupted


def open_search(session: Session, storage: BaseStorage) -> optuna.Study:
    """The session's study in a storage, new or resumed; refused when its specification changed."""
    return open_study(
        storage,
        session.name,
        session.specification(),
        space=session.study.space,
        direction=session.study.direction,
        pruner=session.study.pruner,
        seed=session.settings.seed,
    )


def enqueue_first(study: Study, search: optuna.Study) -> None:
    """Have a new search begin with the points that the study knows."""
    if not search.get_trials(deepcopy=False):
        for params in study.first:
            search.enqueue_trial(params)


class Ending(NamedTuple):
    """How the trials ended: `interrupted` by a signal, stopped by an `error`, or neither."""

    interrupted: bool = False
    error: str | None = None


RunsTrials = Callable[[Session, optuna.Study, Outbox], Ending]


def run_trials(session: Session, search: optuna.Study, record: Outbox | None) -> Ending:
    """Run the trials that were asked for; none where 0 were, so that a study is only concluded."""
    asked_for = session.settings.trials
    n_trials = session.study.n_trials if asked_for is None else asked_for
    with show_progress(session.study.metric, n_trials) as display:
        runner, after_trial = trial_runner(session, search, display, record)
        with interrupts() as asked, suppress(KeyboardInterrupt):
            search.optimize(
                asked.during(runner),
                n_trials=n_trials,
                timeout=session.settings.timeout or session.study.timeout,
                catch=(TrialFailed,),
                callbacks=[after_trial, lambda search, _: asked.is_set() and search.stop()],
            )
        put_back(search)
        if asked.is_set():
            display.say("Stopped. The same command goes on from here; what there is is written.")
            return Ending(interrupted=True)
    return Ending(error=after_trial.error())


def trial_runner(
    session: Session, search: optuna.Study, display: Display, record: Outbox | None
) -> tuple[TrialRunner, AfterTrial]:
    """What runs a trial here and what follows on it, beginning from the best that there is."""
    best = best_feasible(search)
    display.best = as_line(best, is_best=True) if best else None
    runner = TrialRunner(
        session.study,
        session.lab,
        session.folder / "trials",
        display,
        record,
        best=best.value if best else None,
        tags=session.tags(),
    )
    return runner, AfterTrial(session.study, display, record)


def finish(
    session: Session, search: optuna.Study, record: Outbox | None, *, interrupted: bool
) -> None:
    """Conclude, report, publish what is owed, register the winner, and say where all is."""
    conclusion = session.study.conclude(session, search)
    report = draw_report(session, search, conclusion)
    show_markdown(conclusion.summary())
    print(f"Report: {report}")
    closing = write_closing(session, search, conclusion, report, interrupted=interrupted)
    version = publish_all(session, search, record, conclusion, closing)
    if version:
        print(f"Registered: models:/{session.slug}@candidate (version {version})")
    print("Browse: make ui")


def publish_all(
    session: Session,
    search: optuna.Study,
    outbox: Outbox,
    conclusion: Conclusion,
    closing: Path,
) -> str | None:
    """Hand over what is owed, the study's end last; the registered version, if there is one."""
    later = "`make sync`, or the next run, publishes"
    owed = outbox.settle(publishable(trials_in(search, *FINISHED)))
    if outbox.record is None:
        print(f"Nothing was published ({outbox.away}): {later} it.")
        return None
    if owed:
        print(f"{len(owed)} trials wait for MLflow ({outbox.away}): {later} them.")
        return None
    try:
        outbox.record.ensure(conclusion.best)
        return hand_over_closing(outbox.record, closing)
    except TrackingRefused:
        raise
    except TrackingError as error:
        if not is_server(session.settings.tracking_uri):
            raise
        print(f"The end of the study waits for MLflow ({error}): {later} it.")
        return None


def open_record(session: Session, search: optuna.Study) -> Outbox:
    """The MLflow side, with what earlier runs owe already on its way; it may be away.

    A database that cannot be opened is an error, and a server that refuses is one too: neither
    would come to another answer by itself.
    """
    settings = session.settings
    write_conditions(session)
    opening = opening_of(session)
    opening.write(session.folder)
    trials = begun(search)
    before = trials[-1].number + 1 if trials else 0
    living = [trial.number for trial in trials if is_told_by_others(trial)]
    outbox = Outbox(lambda: open_runs(opening, settings, living=living, before=before))
    for trial in publishable(trials_in(search, *FINISHED)):
        outbox.publish(trial)
    is_away = not outbox.wait_until_open(OPENS_WITHIN if is_server(settings.tracking_uri) else None)
    if is_away and not is_server(settings.tracking_uri):
        raise outbox.first_error
    if is_away:
        print(f"{outbox.away or 'MLflow is slow to answer.'} The search goes on without it.")
    return outbox


def trials_in(search: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """The trials in these states, in order."""
    return search.get_trials(deepcopy=False, states=states)


class Interruption(Event):
    """Set once Ctrl-C was pressed; while it is `held`, that raises nothing."""

    held = False

    def during(self, trial: Callable[[Trial], float]) -> Callable[[Trial], float]:
        """The objective, in which alone an interrupt raises: one that comes while Optuna writes
        down a trial would leave it half-written."""

        def heard(asked_for: Trial) -> float:
            self.held = False
            try:
                if self.is_set():
                    raise KeyboardInterrupt
                return trial(asked_for)
            except KeyboardInterrupt:
                self.held = True
                asked_for.set_user_attr(INTERRUPTED, BY_SIGNAL)  # else its point would be lost
                raise
            finally:
                self.held = True

        self.held = True
        return heard


@contextmanager
def interrupts() -> Iterator[Interruption]:
    """Ctrl-C, and a scheduler's SIGTERM like it: KeyboardInterrupt, and an event that stays set.

    Python drops an exception that a signal raises in a finalizer; the event is not dropped.
    A signal that this process was started to ignore stays ignored.
    """
    asked = Interruption()

    def interrupt(signum, frame):
        asked.set()
        if not asked.held:
            raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
