"""One worker: it joins a study where its trials are stored, runs trials until its budget is met,
and leaves.

The same on every engine. It begins no study and concludes none.
"""

import time

import optuna

from studies.outbox import Outbox, publishable
from studies.progress import Display, show_progress
from studies.retries import put_back
from studies.runner import (
    FINISHED,
    Ending,
    Interruption,
    interrupts,
    open_record,
    trial_runner,
    trials_in,
)
from studies.session import Session, open_session
from studies.settings import Settings
from studies.storage import (
    best_feasible,
    budget_of,
    fail_dead_trials,
    is_met,
    join_study,
    n_ended,
    open_storage,
)
from studies.study import Study, StudyError
from studies.trial_storage import BudgetTaken
from studies.trials import TrialFailed

ASKS_EVERY = 1.0  # seconds between two looks at whether the last trials of others have ended


def work(study: Study, settings: Settings) -> bool:
    """Join, run trials, leave; False when it was interrupted."""
    with interrupts() as asked:  # also while it is joined: a signal must not leave a trial behind
        session = open_session(study, settings, say=print)
        search = join_search(session)
        record = open_record(session, search)
        with show_progress(session.study.metric, budget_of(search)) as display:
            ending = run_until_met(session, search, record, display, asked)
        asked.held = True  # what has ended is published, however often it is interrupted
        leave(search, record)
    if ending.error:
        raise StudyError(ending.error)
    return not ending.interrupted


def join_search(session: Session) -> optuna.Study:
    """The session's study, which must have been begun, held to its budget."""
    return join_study(
        open_storage(session.settings.storage_url),
        session.name,
        session.specification(),
        space=session.study.space,
        pruner=session.study.pruner,
        seed=session.settings.seed,
    )


def run_until_met(
    session: Session,
    search: optuna.Study,
    record: Outbox,
    display: Display,
    asked: Interruption,
) -> Ending:
    """Run trials while the budget has room, and wait for those of others, which may yet die."""
    runner, after_trial = trial_runner(session, search, display, record)

    def look_around(search: optuna.Study, _: object) -> None:
        """What others have done meanwhile."""
        best = best_feasible(search)
        runner.best = best.value if best else None
        display.done = n_ended(search) - 1  # the display counts this one itself
        if asked.is_set():
            search.stop()

    limit = session.settings.timeout or session.study.timeout
    ends = time.monotonic() + limit if limit else None
    try:
        while not (asked.is_set() or is_met(search) or (ends and time.monotonic() >= ends)):
            try:
                search.optimize(
                    asked.during(runner),
                    timeout=ends and ends - time.monotonic(),
                    catch=(TrialFailed,),
                    callbacks=[look_around, after_trial],
                )
                break
            except BudgetTaken:
                fail_dead_trials(search)
                asked.wait(ASKS_EVERY)
    except KeyboardInterrupt:
        asked.set()
    if asked.is_set():
        return Ending(interrupted=True)
    return Ending(error=after_trial.error())


def leave(search: optuna.Study, record: Outbox) -> None:
    """Publish what this worker still owes: of its own trials, and of those of workers that died."""
    put_back(search)
    record.refresh()
    if owed := record.settle(publishable(trials_in(search, *FINISHED))):
        print(f"{len(owed)} trials wait for MLflow ({record.away}). The next run publishes them.")
