"""A study whose trials others run: begun here, watched here, and concluded by whoever called.

What happens is read from Optuna's storage alone, so that it does not matter where workers are, who
has started them, and whether all of them live.
"""

from math import ceil
from typing import Protocol

import optuna
from optuna.trial import FrozenTrial

from studies.outbox import Outbox
from studies.progress import Display, show_progress
from studies.retries import put_back
from studies.runner import FINISHED, Ending, interrupts, trials_in
from studies.session import Session
from studies.settings import Settings
from studies.storage import (
    best_feasible,
    fail_dead_trials,
    give_budget,
    is_met,
    n_ended,
    withdraw_budget,
)
from studies.study import StudyError
from studies.trials import AfterTrial, as_line
from studies.workers.elsewhere import Elsewhere
from studies.workers.here import Here
from studies.workers.on_ray import OnRay
from training.device import own_gpus

LOOKS_EVERY = 0.5  # seconds
ENGINES = {"local": Here, "ray": OnRay, "elsewhere": Elsewhere}
A_FEW = 8  # our choice: SQLite lets one of them write at a time


class Crew(Protocol):
    """Workers that are at it."""

    def n_working(self) -> int:
        """How many have not left."""

    def news(self) -> list[str]:
        """What they have said of epochs since the last time."""

    def stop(self) -> None:
        """Have them end as by Ctrl-C, and return when they have."""

    def complaints(self) -> list[str]:
        """A sentence for each that ended otherwise than it should."""


def has_crew(settings: Settings) -> bool:
    """Whether other processes run the trials."""
    return settings.workers > 1 or settings.engine != "local"


def check_crew(settings: Settings) -> None:
    """Refuse workers that could not share what they need."""
    is_file = settings.storage_url.startswith("sqlite")
    if settings.engine not in ENGINES:
        raise StudyError(f"ENGINE must be one of {', '.join(ENGINES)}, got '{settings.engine}'.")
    is_far = settings.engine == "ray" and settings.ray_address
    if is_file and (settings.workers > A_FEW or is_far):
        what = f"WORKERS={settings.workers}" if settings.workers > A_FEW else "other machines"
        raise StudyError(
            f"SQLite is for one machine and at most {A_FEW} workers, and not for {what}: set "
            "OPTUNA_STORAGE=postgresql://<user>:<password>@<host>/<database> (`docker compose up` "
            "starts one)."
        )
    gpus = own_gpus() if settings.engine == "local" and settings.gpu_share else []
    if gpus and (asked := ceil(settings.workers / len(gpus)) * settings.gpu_share) > 1:
        raise StudyError(
            f"WORKERS={settings.workers} on {len(gpus)} GPUs with GPU_SHARE="
            f"{settings.gpu_share:g} each would take {asked:g} of one: take fewer, or a smaller "
            "share."
        )


def run_with_workers(session: Session, search: optuna.Study, record: Outbox) -> Ending:
    """Have workers run the trials that were asked for, and show how they get on."""
    settings = session.settings
    asked_for = session.study.n_trials if settings.trials is None else settings.trials
    ended = n_ended(search)
    total = give_budget(search, asked_for) - ended
    if total < asked_for:
        print(f"The study was begun with {total + ended} trials and has {ended}: it goes on.")
    best = best_feasible(search)
    with show_progress(session.study.metric, total) as display, interrupts() as asked:
        asked.held = True  # it is looked at between two looks
        display.best = as_line(best, is_best=True) if best else None
        watch = Watch(session, search, display)
        crew = ENGINES[settings.engine](session, search)
        try:
            while crew.n_working() and not (asked.wait(LOOKS_EVERY) or watch.is_stopped):
                watch.look(crew)
        finally:
            if asked.is_set() or watch.is_stopped:
                withdraw_budget(search)
            crew.stop()
            fail_dead_trials(search)
            put_back(search)
        watch.look(crew)
        if asked.is_set():
            display.say("Stopped. The same command goes on from here; what there is is written.")
    record.refresh()
    complaints = crew.complaints()
    if asked.is_set() or watch.is_stopped or is_met(search):
        for complaint in complaints:
            print(complaint)
        return Ending(interrupted=asked.is_set(), error=watch.same_error())
    return Ending(error=unmet(session, complaints))


def unmet(session: Session, complaints: list[str]) -> str | None:
    """Why the workers have left before the budget was met; None where time was up."""
    if not complaints and (session.settings.timeout or session.study.timeout):
        return None
    return "\n".join(complaints) or "The workers have left before the budget was met."


class Watch:
    """Shows trials as they end, and stops once every one dies of the same error."""

    def __init__(self, session: Session, search: optuna.Study, display: Display):
        self._search, self._display = search, display
        self._after_trial = AfterTrial(session.study, display, None)  # workers publish
        self._seen = {trial.number for trial in trials_in(search, *FINISHED)}

    def look(self, crew: Crew) -> None:
        """Show what has happened since the last time."""
        for line in crew.news():
            self._display.say(line)
        new = [one for one in trials_in(self._search, *FINISHED) if one.number not in self._seen]
        for trial in sorted(new, key=_ended_at):
            self._seen.add(trial.number)
            self._after_trial.look(self._search, trial)

    @property
    def is_stopped(self) -> bool:
        """Whether there is a reason to stop."""
        return self.same_error() is not None

    def same_error(self) -> str | None:
        """A sentence, once the last trials have failed with nothing but one error."""
        return self._after_trial.same_error()


def _ended_at(trial: FrozenTrial) -> float:
    return trial.datetime_complete.timestamp()
