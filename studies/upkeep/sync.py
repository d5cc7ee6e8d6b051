"""`make sync`: what studies owe to MLflow, handed over without running them.

Trials that ended while the tracking server was away, ends of studies, and trials and runs that dead
processes left RUNNING. Handed over twice, each is there once.
"""

from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from mlflow_server import Tracking, TrackingError
from mlflow_server.connection import database_file
from studies.closing import CLOSING, hand_over_closing, read_closing
from studies.opening import OPENING, Opening, open_runs, read_opening
from studies.outbox import is_told_by_others, publishable
from studies.record import Record
from studies.settings import Settings
from studies.storage import begun, fail_dead_trials, searches
from studies.study import StudyError


def sync(settings: Settings) -> bool:
    """Hand over what every study owes, a line each; whether nothing is owed any more."""
    refuse_no_trials(settings)
    folders = {read_opening(path.parent).study: path.parent for path in openings(settings.root)}
    owed = 0
    for search in searches(settings.storage_url):
        if search.study_name not in folders:
            continue
        fail_dead_trials(search)
        folder = folders[search.study_name]
        tracking = Tracking(settings.tracking_uri, settings.artifact_root)
        before = Debt.of(tracking, search, folder)
        if before.is_paid:
            continue
        left = pay(search, folder, settings)
        owed += left
        print(f"{search.study_name}: {before.words()}" + (f"; {left} still wait" if left else ""))
    print("Nothing is owed to MLflow." if not owed else f"{owed} trials still wait for MLflow.")
    return not owed


def refuse_no_trials(settings: Settings) -> None:
    """Refuse a VAR_DIR without trials: a database would be made there."""
    database = database_file(settings.storage_url)
    if not settings.root.is_dir() or (database is not None and not database.exists()):
        raise StudyError(
            f"There are no trials below {settings.root}: set VAR_DIR to the folder with them."
        )


def openings(root: Path) -> list[Path]:
    """The files that say what MLflow is told of a study."""
    return sorted((root / "studies").glob(f"*/{OPENING}"))


class Debt:
    """What one study owes."""

    def __init__(self, trials: list[FrozenTrial], zombies: list[int], *, end: bool):
        self.trials, self.zombies, self.end = trials, zombies, end

    @classmethod
    def of(cls, tracking: Tracking, search: optuna.Study, folder: Path) -> "Debt":
        """What is not in the record; the record is only read."""
        name = search.study_name
        experiment = tracking.experiments.ids().get(name)
        runs = tracking.published_trials(experiment, name) if experiment else {}
        ended = publishable(trial for trial in begun(search) if trial.state.is_finished())
        waits = {path.name for path in (folder / "trials").glob("*")}
        trials = [
            trial
            for trial in ended
            if runs.get(trial.number, ("", "RUNNING"))[1] == "RUNNING" or str(trial.number) in waits
        ]
        known = {trial.number: trial for trial in begun(search)}
        zombies = [
            number
            for number, (_, status) in runs.items()
            if status == "RUNNING" and (number not in known or known[number] in ended)
        ]
        return cls(trials, zombies, end=(folder / CLOSING).exists())

    @property
    def is_paid(self) -> bool:
        """Whether nothing is owed."""
        return not (self.trials or self.zombies or self.end)

    def words(self) -> str:
        """What it is."""
        parts = [f"trials: {len(self.trials)}"] if self.trials else []
        parts += [f"runs that a dead process left: {len(self.zombies)}"] if self.zombies else []
        parts += ["the end of the study"] if self.end else []
        return ", ".join(parts)


def pay(search: optuna.Study, folder: Path, settings: Settings) -> int:
    """Hand over what a study owes; the number of trials that it still does."""
    opening = read_opening(folder)
    trials = begun(search)
    status = status_of(settings, opening)
    record = open_runs(
        opening,
        settings,
        living=[trial.number for trial in trials if is_told_by_others(trial)],
        before=trials[-1].number + 1 if trials else 0,
    )
    owed = [
        trial
        for trial in publishable(trial for trial in trials if trial.state.is_finished())
        if record.is_owed(trial)
    ]
    try:
        record.write(owed)
    except (TrackingError, OSError) as error:
        print(error)
    record.drop_doubles()
    left = [trial for trial in owed if record.is_owed(trial)]
    if (folder / CLOSING).exists() and not left:
        best = read_closing(folder / CLOSING).best
        record.ensure(next((one for one in trials if one.number == best), None))
        hand_over_closing(record, folder / CLOSING)
    elif not search.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        rest(record, status)
    return len(left)


def status_of(settings: Settings, opening: Opening) -> str:
    """What the parent run's state was; KILLED where it had no end."""
    tracking = Tracking(settings.tracking_uri, settings.artifact_root)
    experiment = tracking.experiments.ids().get(opening.study)
    parent = tracking.find_study(experiment, opening.study) if experiment else None
    status = tracking.status(parent) if parent else "RUNNING"
    return "KILLED" if status == "RUNNING" else status


def rest(record: Record, status: str) -> None:
    """Leave no parent run RUNNING that nothing runs below."""
    record.tracking.close_study(record.parent_id, status=status, metrics={}, tags={}, note=None)
