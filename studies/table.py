"""Every detector under every head: which cells of the table are left, and their studies run.

A cell is an ordinary study under `DETECTOR=<name>`: `make study` goes on with it as with its own.
Owns the order, what makes a cell done, and that one that fails leaves the others. Knows nothing
of how a study is run, nor of what the table looks like.
"""

import re
import sys
import traceback
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from mlflow_server import TrackingError
from models.heads import HEADS
from studies.finish import answers_path, read_answers, score_floors
from studies.progress import format_seconds, show_markdown
from studies.record import FAILED
from studies.runner import Ending, interrupts, open_search, run, trials_in
from studies.session import Session, open_session
from studies.settings import DEFAULT_DETECTOR, Settings, full_name, slug
from studies.storage import best_feasible, open_storage
from studies.study import Study, StudyError, known_studies
from studies.table_report import Entry, Table, as_markdown, write_files
from training.cache import CacheError
from training.detector import detector_module, detectors
from training.floors import Scored

SPLITS = ("grouped", "paper")
EVERY_CELL_FAILS = (CacheError, TrackingError, StorageInternalError)  # of these alike
CLOSING = 10.0  # seconds to conclude, draw and register a study: 7 to 11 measured on one core


class Selection(NamedTuple):
    """The cells to run; None stands for all."""

    split: str | None = None
    detector: str | None = None
    head: str | None = None

    def holds(self, cell: "Cell") -> bool:
        """Whether a cell is among them."""
        return all(
            chosen in (None, own)
            for chosen, own in zip(self, (cell.split, cell.detector, cell.head), strict=True)
        )


@dataclass(frozen=True)
class Cell:
    """One detector under one head on one split, and what is known of it."""

    session: Session  # its settings say how many trials the cell shall have
    n_finished: int = 0
    seconds: float = 0.0  # of the finished trials
    scored: Scored | None = None  # the best trial on test
    is_concluded: bool = False
    state: str = "-"
    note: str = ""

    @property
    def split(self) -> str:
        """The protocol of its split."""
        return self.session.settings.split

    @property
    def detector(self) -> str:
        """The row of the table."""
        return self.session.lab.detector

    @property
    def head(self) -> str:
        """The column of the table."""
        return self.session.study.name

    @property
    def n_left(self) -> int:
        """How many trials it is short of."""
        return max(self.session.settings.trials - self.n_finished, 0)

    @property
    def is_done(self) -> bool:
        """Whether it has its trials and the best of them its answers on test."""
        return self.n_left == 0 and self.is_concluded

    def __str__(self) -> str:
        return f"{self.detector} with {self.head}, {self.split} split"


@dataclass
class Board:
    """The table while it is being filled."""

    splits: dict[str, Session]
    storage: BaseStorage
    stem: Path  # of the files that it is written to
    floors: dict[str, list[Scored]] = field(init=False)
    cells: dict[str, Cell] = field(init=False)  # by the name of their study

    def __post_init__(self) -> None:
        self.floors = {split: score_floors(session) for split, session in self.splits.items()}
        sessions = cell_sessions(self.splits)
        self.cells = {session.name: look(session, self.storage) for session in sessions}

    def tables(self) -> list[Table]:
        """What is known, a table a split."""
        return [
            Table(
                split=split,
                entries=[as_entry(cell) for cell in self.cells.values() if cell.split == split],
                floors=self.floors[split],
                leak=max(session.leaks.values()),
                facts=session.facts(),
            )
            for split, session in self.splits.items()
        ]

    def write(self) -> Path:
        """Write what is known; returns the page."""
        return write_files(self.tables(), self.stem)


def make_table(settings: Settings, selection: Selection) -> bool:
    """Run what is left of the selected cells, and write the table of all that are known.

    `settings.trials` is what each cell shall have in the end. False when it was interrupted: the
    same call goes on.
    """
    check_selection(selection)
    splits = open_splits(settings)
    stem = settings.root / "reports" / table_name(splits[SPLITS[0]])
    board = Board(splits, open_storage(settings.storage_url), stem)
    cells = list(board.cells.values())
    left = [cell for cell in cells if selection.holds(cell) and not cell.is_done]
    print(plan(left, cells), flush=True)
    is_finished = run_cells(left, board)
    page = board.write()
    show_markdown(as_markdown(board.tables()))
    print(f"Table: {page}")
    if not is_finished:
        print("Stopped. The same command goes on from here.")
    return is_finished


def open_splits(settings: Settings) -> dict[str, Session]:
    """A session a split; the data is told of once."""
    settings = replace(settings, detector=DEFAULT_DETECTOR)
    study = head_studies()[0]
    tell = {SPLITS[0]: print}
    return {
        split: open_session(
            study, replace(settings, split=split), say=tell.get(split, lambda _: None)
        )
        for split in SPLITS
    }


def head_studies() -> list[Study]:
    """The columns: the studies that are named after a head, in the heads' order."""
    known = known_studies()
    return [known[name] for name in HEADS if name in known]


def check_selection(selection: Selection) -> None:
    """Refuse a row or a column that there is not."""
    if selection.detector is not None:
        detector_module(selection.detector)
    columns = [study.name for study in head_studies()]
    if selection.head not in (None, *columns):
        raise StudyError(
            f"STUDY={selection.head} is no column of the table. Its columns are the studies of "
            f"heads: {', '.join(columns)}."
        )


def cell_sessions(splits: dict[str, Session]) -> list[Session]:
    """A session a cell, all heads of a detector in a row: it is trained once, its maps are kept."""
    return [
        cell_session(session, detector, study)
        for session in splits.values()
        for detector in detectors()
        for study in head_studies()
    ]


def cell_session(session: Session, detector: str, study: Study) -> Session:
    """A cell's session, on the data and the split of another."""
    settings = replace(session.settings, detector=detector)
    return replace(
        session,
        study=study,
        settings=settings,
        lab=replace(session.lab, detector=detector),
        name=full_name(study, session.lab.dataset, settings),
    )


def table_name(session: Session) -> str:
    """`table`, with whatever sets these studies apart from others: `table-phantom-seed-1`."""
    column = replace(session.study, name="table")
    return slug(full_name(column, session.lab.dataset, session.settings))


def look(session: Session, storage: BaseStorage) -> Cell:
    """A cell with what its study has so far."""
    if session.name not in optuna.get_all_study_names(storage):
        return Cell(session)
    try:
        search = open_search(session, storage)
    except StudyError as error:
        return Cell(session, state="failed", note=sentence(error))
    finished = trials_in(search, TrialState.COMPLETE, TrialState.PRUNED)
    best = best_feasible(search)
    scored = kept_answers(session, best)
    state, note = ("", "") if scored or best else why_nothing(search)
    return Cell(
        session,
        n_finished=len(finished),
        seconds=sum(trial.duration.total_seconds() for trial in finished),
        scored=scored,
        is_concluded=best is None or scored is not None,
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


def plan(left: list[Cell], cells: list[Cell]) -> str:
    """How much is left, and roughly how long it takes."""
    if not left:
        return "Every cell is done."
    seconds = seconds_left(left, cells)
    time = f"about {format_seconds(seconds)}" if seconds else "the first will show how long each is"
    return f"Cells left: {len(left)} of {len(cells)} ({time}). Ctrl-C stops; nothing done is lost."


def seconds_left(left: list[Cell], cells: list[Cell]) -> float | None:
    """What these cells take at the mean pace of the trials that each head has had so far.

    A head without any has the slowest of the others'; None where no head has.
    """
    paces = {head: _pace(cells, head) for head in {cell.head for cell in cells}}
    known = [pace for pace in paces.values() if pace is not None]
    if not known:
        return None
    return sum(
        CLOSING + cell.n_left * (max(known) if paces[cell.head] is None else paces[cell.head])
        for cell in left
    )


def _pace(cells: list[Cell], head: str) -> float | None:
    same = [cell for cell in cells if cell.head == head and cell.n_finished]
    n_finished = sum(cell.n_finished for cell in same)
    return sum(cell.seconds for cell in same) / n_finished if same else None


def run_cells(left: list[Cell], board: Board) -> bool:
    """Run these cells, with a line and the written table after each; False when interrupted."""
    with interrupts() as asked, suppress(KeyboardInterrupt):
        for number, cell in enumerate(left, start=1):
            ending = run_cell(cell, board.stem.with_suffix(".log"))
            seen = look(cell.session, board.storage)
            if ending.error:
                seen = replace(seen, state="failed", note=ending.error)
            board.cells[cell.session.name] = seen
            board.write()
            if asked.is_set() or ending.interrupted:
                return False
            rest = seconds_left(left[number:], list(board.cells.values()))
            time = "" if rest is None else f" (about {format_seconds(rest)} left)"
            print(f"[{number}/{len(left)}] {outcome(seen)}{time}", flush=True)
        return True
    return False


def run_cell(cell: Cell, log: Path) -> Ending:
    """Run a cell's study; what it says goes to a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    settings = replace(cell.session.settings, trials=cell.n_left)
    with (
        log.open("a", buffering=1, encoding="utf-8") as lines,
        Console(file=sys.stdout).status(f"{cell}: {cell.n_left} trials, told in {log}"),
        redirect_stdout(lines),
    ):
        try:
            return Ending(interrupted=not run(cell.session.study, settings))
        except EVERY_CELL_FAILS:
            raise
        except Exception as error:  # of this cell alone: the table tells it
            traceback.print_exc(file=lines)
            return Ending(error=sentence(error))


def outcome(cell: Cell) -> str:
    """A finished cell in a line."""
    if cell.scored is None:
        return f"{cell}: {cell.note or 'nothing yet'}"
    metrics = cell.scored.metrics
    text = f"AUROC {metrics['auroc']:.3f}, two-class F1 {metrics['macro_f1']:.3f}"
    return f"{cell}: {text}" + (f"; {cell.note}" if cell.note else "")


def sentence(error: Exception) -> str:
    """An error in one line, with its kind where it is none of ours."""
    words = re.sub(r"(?<=[.:])\s*\n\s*", " ", str(error).strip())
    words = re.sub(r"\s*\n\s*", "; ", words)
    return words if isinstance(error, StudyError) else f"{type(error).__name__}: {words}"


def as_entry(cell: Cell) -> Entry:
    """A cell as the table shows it."""
    return Entry(cell.detector, cell.head, cell.n_finished, cell.scored, cell.state, cell.note)
