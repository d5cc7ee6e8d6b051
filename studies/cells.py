"""The cells of a table: a study each, run one after another, and what makes one done.

A cell that fails leaves the others. Knows nothing of which cells a table has, nor of what it looks
like.
"""

import re
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from mlflow_server import TrackingError
from studies.finish import answers_path, read_answers
from studies.progress import format_seconds
from studies.record import FAILED
from studies.runner import Ending, interrupts, open_search, run, trials_in
from studies.session import Session
from studies.settings import Settings
from studies.storage import best_feasible
from studies.study import Study, StudyError
from training.cache import CacheError
from training.floors import Scored

EVERY_CELL_FAILS = (CacheError, TrackingError, StorageInternalError)  # of these alike
CLOSING = 10.0  # seconds to conclude, draw and register a study: 7 to 11 measured on one core
OUT_OF_TIME = "out_of_time"  # a study's user attribute: how many trials its time was too short for


@dataclass(frozen=True)
class Cell:
    """A study under settings that say how many trials it shall have, and what is known of it."""

    name: str  # the study's full name
    title: str  # what a line of the table's progress calls it
    study: Study
    settings: Settings
    n_finished: int = 0
    seconds: float = 0.0  # of the finished trials
    scored: Scored | None = None  # the best trial on test
    is_concluded: bool = False
    is_out_of_time: bool = False  # `settings.timeout` has passed before it had its trials
    state: str = "-"
    note: str = ""

    @property
    def n_left(self) -> int:
        """How many trials it is short of."""
        return 0 if self.is_out_of_time else max(self.settings.trials - self.n_finished, 0)

    @property
    def is_done(self) -> bool:
        """Whether it has its trials and the best of them its answers on test."""
        return self.n_left == 0 and self.is_concluded


class Board(Protocol):
    """The table while it is being filled."""

    storage: BaseStorage
    log: Path  # what the studies say

    def look(self, cell: Cell) -> Cell:
        """The cell with what its study has by now."""

    def keep(self, cell: Cell) -> None:
        """Show this in place of what was known of the cell, and write the table."""

    def prepare(self, cell: Cell) -> None:
        """Make what a cell's study needs before it can be run."""

    def seconds_left(self, left: list[Cell]) -> float | None:
        """Roughly how long these cells take; None where nobody can say yet."""


def look(cell: Cell, session: Session, storage: BaseStorage) -> Cell:
    """A cell with what its study has so far."""
    if session.name not in optuna.get_all_study_names(storage):
        return cell
    try:
        search = open_search(session, storage)
    except StudyError as error:
        return replace(cell, state="failed", note=sentence(error))
    finished = trials_in(search, TrialState.COMPLETE, TrialState.PRUNED)
    best = best_feasible(search)
    scored = kept_answers(session, best)
    state, note = ("", "") if scored or best else why_nothing(search)
    return replace(
        cell,
        n_finished=len(finished),
        seconds=sum(trial.duration.total_seconds() for trial in finished),
        scored=scored,
        is_concluded=best is None or scored is not None,
        is_out_of_time=search.user_attrs.get(OUT_OF_TIME, 0) >= cell.settings.trials,
        state=state or "-",
        note=note,
    )


def kept_answers(session: Session, best: FrozenTrial | None) -> Scored | None:
    """What the best trial said of the test split, where it was asked."""
    if best is None:
        return None
    path = answers_path(session, best)
    return read_answers(session.study.name, path) if path.exists() else None


def why_nothing(search: optuna.Study) -> tuple[str, str]:
    """A word and a sentence for a study without a feasible trial."""
    errors = [
        trial.user_attrs[FAILED]
        for trial in trials_in(search, TrialState.FAIL)
        if FAILED in trial.user_attrs
    ]
    if trials_in(search, TrialState.COMPLETE):
        return "infeasible", "No trial kept the constraints, so the test split was not asked."
    return ("failed", errors[-1]) if errors else ("-", "")


def plan(left: list[Cell], cells: list[Cell], seconds: float | None) -> str:
    """How much is left, and roughly how long it takes."""
    if not left:
        return "Every cell is done."
    time = f"about {format_seconds(seconds)}" if seconds else "the first will show how long each is"
    return f"Cells left: {len(left)} of {len(cells)} ({time}). Ctrl-C stops; nothing done is lost."


def seconds_left(
    left: list[Cell], cells: list[Cell], expected: Mapping[str, float] | None = None
) -> float | None:
    """What these cells take at the mean pace of the trials that each study has had so far.

    A study without any takes what is `expected` of its name, else it has the slowest pace of the
    others'; None where nothing is known of any.
    """
    expected = expected or {}
    paces = {name: _pace(cells, name) for name in {cell.study.name for cell in cells}}
    known = [pace for pace in paces.values() if pace is not None]
    total = 0.0
    for cell in left:
        pace = paces[cell.study.name]
        if pace is None and cell.study.name in expected:
            total += CLOSING + expected[cell.study.name]
        elif known:
            total += CLOSING + cell.n_left * (max(known) if pace is None else pace)
        else:
            return None
    return total


def _pace(cells: list[Cell], study: str) -> float | None:
    same = [cell for cell in cells if cell.study.name == study and cell.n_finished]
    n_finished = sum(cell.n_finished for cell in same)
    return sum(cell.seconds for cell in same) / n_finished if same else None


def run_cells(left: list[Cell], board: Board) -> bool:
    """Run these cells, with a line and the written table after each; False when interrupted."""
    with interrupts() as asked, suppress(KeyboardInterrupt):
        for number, cell in enumerate(left, start=1):
            ending = run_cell(cell, board)
            seen = board.look(cell)
            if ending.error:
                seen = replace(seen, state="failed", note=ending.error)
            board.keep(seen)
            if asked.is_set() or ending.interrupted:
                return False
            rest = board.seconds_left(left[number:])
            time_left = "" if not rest else f" (about {format_seconds(rest)} left)"
            print(f"[{number}/{len(left)}] {outcome(seen)}{time_left}", flush=True)
        return True
    return False


def run_cell(cell: Cell, board: Board) -> Ending:
    """Run a cell's study; what it says goes to the log."""
    board.log.parent.mkdir(parents=True, exist_ok=True)
    with (
        board.log.open("a", buffering=1, encoding="utf-8") as lines,
        Console(file=sys.stdout).status(f"{cell.title}: {cell.n_left} trials, told in {board.log}"),
        redirect_stdout(lines),
    ):
        try:
            board.prepare(cell)
            return run_study(cell, board.storage)
        except EVERY_CELL_FAILS:
            raise
        except Exception as error:  # of this cell alone: the table tells it
            traceback.print_exc(file=lines)
            return Ending(error=sentence(error))


def run_study(cell: Cell, storage: BaseStorage) -> Ending:
    """Run the trials that a cell is short of, within what is left of its time."""
    settings = replace(cell.settings, trials=cell.n_left)
    if settings.timeout:
        settings = replace(settings, timeout=max(settings.timeout - cell.seconds, 1.0))
    started = time.monotonic()
    if not run(cell.study, settings):
        return Ending(interrupted=True)
    if settings.timeout and time.monotonic() - started >= settings.timeout:
        number = storage.get_study_id_from_name(cell.name)
        storage.set_study_user_attr(number, OUT_OF_TIME, cell.settings.trials)
    return Ending()


def outcome(cell: Cell) -> str:
    """A finished cell in a line."""
    if cell.scored is None:
        return f"{cell.title}: {cell.note or 'nothing yet'}"
    metrics = cell.scored.metrics
    text = f"AUROC {metrics['auroc']:.3f}, two-class F1 {metrics['macro_f1']:.3f}"
    return f"{cell.title}: {text}" + (f"; {cell.note}" if cell.note else "")


def sentence(error: Exception) -> str:
    """An error in one line, with its kind where it is none of ours."""
    words = re.sub(r"(?<=[.:])\s*\n\s*", " ", str(error).strip())
    words = re.sub(r"\s*\n\s*", "; ", words)
    return words if isinstance(error, StudyError) else f"{type(error).__name__}: {words}"
