"""Every detector under every head: which cells of the table are left, and their studies run.

A cell is an ordinary study under `DETECTOR=<name>`: `make study` goes on with it as with its own.
Owns which cells there are and in which order. Knows nothing of how a cell is run, nor of what the
table looks like.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from optuna.storages import BaseStorage

from models.heads import HEADS
from studies.cells import Cell, look, plan, run_cells, seconds_left
from studies.finish import score_floors
from studies.progress import show_markdown
from studies.session import Session, open_session
from studies.settings import DEFAULT_DETECTOR, Settings, full_name, slug
from studies.storage import open_storage
from studies.study import Study, StudyError, known_studies
from studies.table_report import Entry, Table, as_markdown, write_files
from training.data.splits import PROTOCOLS
from training.detector import detector_module, detectors
from training.floors import Scored


class Selection(NamedTuple):
    """The cells to run; None stands for all."""

    split: str | None = None
    detector: str | None = None
    head: str | None = None

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is among them."""
        own = cell.settings.split, cell.settings.detector, cell.study.name
        return all(chosen in (None, name) for chosen, name in zip(self, own, strict=True))


@dataclass
class Board:
    """The table while it is being filled."""

    splits: dict[str, Session]
    storage: BaseStorage
    stem: Path  # of the files that it is written to
    floors: dict[str, list[Scored]] = field(init=False)
    sessions: dict[str, Session] = field(init=False)  # by the name of their study, as are cells
    cells: dict[str, Cell] = field(init=False)

    def __post_init__(self) -> None:
        self.floors = {split: score_floors(session) for split, session in self.splits.items()}
        self.sessions = {session.name: session for session in cell_sessions(self.splits)}
        self.cells = {name: self.look(as_cell(session)) for name, session in self.sessions.items()}

    @property
    def log(self) -> Path:
        """What the studies say."""
        return self.stem.with_suffix(".log")

    def look(self, cell: Cell) -> Cell:
        """The cell with what its study has by now."""
        return look(cell, self.sessions[cell.name], self.storage)

    def keep(self, cell: Cell) -> None:
        """Show this in place of what was known of the cell, and write the table."""
        self.cells[cell.name] = cell
        self.write()

    def prepare(self, cell: Cell) -> None:
        """Real images are there already."""

    def seconds_left(self, left: list[Cell]) -> float | None:
        """Roughly how long these cells take."""
        return seconds_left(left, list(self.cells.values()))

    def tables(self) -> list[Table]:
        """What is known, a table a split."""
        return [
            Table(
                split=split,
                entries=[
                    as_entry(cell) for cell in self.cells.values() if cell.settings.split == split
                ],
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
    stem = settings.root / "reports" / table_name(splits[PROTOCOLS[0]])
    board = Board(splits, open_storage(settings.storage_url), stem)
    cells = list(board.cells.values())
    left = [cell for cell in cells if selection.holds(cell) and not cell.is_done]
    print(plan(left, cells, board.seconds_left(left)), flush=True)
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
    tell = {PROTOCOLS[0]: print}
    return {
        split: open_session(
            study, replace(settings, split=split), say=tell.get(split, lambda _: None)
        )
        for split in PROTOCOLS
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


def as_cell(session: Session) -> Cell:
    """A session's study as a cell of which nothing is known yet."""
    detector, split = session.lab.detector, session.settings.split
    title = f"{detector} with {session.study.name}, {split} split"
    return Cell(session.name, title, session.study, session.settings)


def as_entry(cell: Cell) -> Entry:
    """A cell as the table shows it."""
    return Entry(
        cell.settings.detector,
        cell.study.name,
        cell.n_finished,
        cell.scored,
        cell.state,
        cell.note,
    )
