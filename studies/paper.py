"""`make paper`: the whole of the paper's Table 1 on real, synthetic and mixed training images.

Every row is an ordinary study under a label of its own: it can be resumed, it is published, and its
test split is asked once. Owns which studies those are, the synthetic sets that they need, and the
order of things. What a row is, is paper_rows'; how much work it is given, paper_effort's; what the
table looks like, paper_report's.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from optuna.storages import BaseStorage
from PIL import Image

from mlflow_server import Tracking
from studies import generate
from studies.cells import Cell, look, plan, run_cells, seconds_left, sentence
from studies.finish import score_floors
from studies.paper_effort import Effort
from studies.paper_figures import draw_pair, draw_preprocessing, draw_samples
from studies.paper_page import write_files
from studies.paper_report import Floors, Line, Measured, Paper, as_markdown, as_metrics
from studies.paper_rows import GIAEM, MODELS, REAL_IMAGES, ROWS, Row
from studies.progress import format_params, format_seconds, show_markdown
from studies.runner import open_search
from studies.session import Session, open_session
from studies.settings import DEFAULT_GENERATOR, Settings, full_name, slug
from studies.storage import best_feasible, open_storage
from studies.study import News, StudyError, find_study
from training.data import DataError, split
from training.data.sources import source_folder
from training.data.synthetic import is_synthetic, read_synthetic
from training.loop import TrainingError

EXPERIMENT = "paper"
AS_IN_PAPER = {"split": "paper", "preprocess": "paper"}  # settings that its numbers come from
KEPT_TAGS = ("data", "data_digest", "split", "leaks", "seed", "device", "git_dirty")
SET_FAILS = (StudyError, DataError, TrainingError)  # one set's: rows on others go on
GENERATORS = {"vae": "VAE", "gan": "GAN"}  # as figures name them


@dataclass(frozen=True)
class Place:
    """A row of the table under a seed."""

    row: Row
    seed: int


@dataclass
class Board:
    """The table while it is being filled."""

    settings: Settings
    effort: Effort
    rows: tuple[Row, ...]
    real: dict[tuple[str, int], Session]  # the real images, by scheme and seed
    name: str
    storage: BaseStorage
    places: dict[str, Place]  # by their studies' names, as are the cells
    cells: dict[str, Cell]
    floors: Floors
    paper_floors: Floors  # on images that are framed and split as the paper's
    figures: dict[str, Image.Image] = field(default_factory=dict)
    slowness: float = 1.0  # of this machine, beside the one that the effort was measured on
    _failed: dict[str, str] = field(default_factory=dict)  # sets' folders, and what went wrong
    _opened: dict[tuple, Session] = field(default_factory=dict)  # the last one

    @property
    def stem(self) -> Path:
        """Of the files that it is written to."""
        return self.settings.root / "reports" / slug(self.name)

    @property
    def log(self) -> Path:
        """What the studies say."""
        return self.stem.with_suffix(".log")

    @property
    def seeds(self) -> list[int]:
        """The splits' seeds."""
        return sorted({place.seed for place in self.places.values()})

    @property
    def first(self) -> Session:
        """Detectors' real images under the first seed."""
        return self.real["detector", self.settings.seed]

    def look(self, cell: Cell) -> Cell:
        """The cell with what its study has by now; nothing where its set is yet to be made."""
        try:
            session = self.session(cell)
        except SET_FAILS:
            return cell
        return look(cell, session, self.storage)

    def session(self, cell: Cell) -> Session:
        """A cell's session; cells of the same images share what is loaded, one set at a time."""
        place = self.places[cell.name]
        images = place.row.source, place.row.model.scheme, place.seed
        if images not in self._opened:
            self._opened = {images: open_session(cell.study, cell.settings, say=_silent)}
        return replace(
            self._opened[images], study=cell.study, settings=cell.settings, name=cell.name
        )

    def prepare(self, cell: Cell) -> None:
        """Make the synthetic set that a cell trains on, or find it made."""
        place, folder = self.places[cell.name], cell.settings.generator
        if place.row.source.is_real:
            return
        if folder in self._failed:
            raise StudyError(self._failed[folder])
        try:
            is_new = make_set(self, place, Path(folder))
        except SET_FAILS as error:
            self._failed[folder] = sentence(error)
            raise
        if is_new:
            self._opened = {}
            self.figures |= sample_figures(self)

    def keep(self, cell: Cell) -> None:
        """Show this in place of what was known of the cell, and write the table."""
        self.cells[cell.name] = cell
        self.figures |= pair_figure(self)
        self.write()

    def write(self) -> Path:
        """Write what is known; returns the page."""
        return write_files(as_paper(self), self.stem)

    def seconds_left(self, left: list[Cell]) -> float | None:
        """Roughly how long these cells take, with the synthetic sets that they need."""
        expected = {name: self.slowness * seconds for name, seconds in self.effort.seconds.items()}
        missing = {
            cell.settings.generator: self.places[cell.name].row
            for cell in left
            if self.needs_set(cell)
        }
        sets = sum(
            expected[row.source.generator] * (2 if row.model.scheme == "classifier" else 1)
            for row in missing.values()
        )
        return sets + (seconds_left(left, list(self.cells.values()), expected) or 0.0)

    def needs_set(self, cell: Cell) -> bool:
        """Whether the synthetic set of a cell is still to be made."""
        is_real = self.places[cell.name].row.source.is_real
        return not is_real and not is_synthetic(Path(cell.settings.generator))


def make_paper(
    settings: Settings, effort: Effort, n_seeds: int | None = None, rows: tuple[Row, ...] = ROWS
) -> bool:
    """Run what is left of the table under the seeds from `settings.seed` on, write and publish it.

    False when it was interrupted: the same call goes on.
    """
    seeds = [settings.seed + done for done in range(n_seeds or effort.n_seeds)]
    board = open_board(settings, effort, seeds, rows)
    cells = list(board.cells.values())
    left = [cell for cell in cells if not cell.is_done]
    if left:
        board.slowness = probe(board)
    board.write()
    print(plan(left, cells, board.seconds_left(left)), flush=True)
    is_finished = run_cells(left, board)
    page = board.write()
    show_markdown(as_markdown(as_paper(board)))
    print(f"Table: {page}")
    if not is_finished:
        print("Stopped. The same command goes on from here.")
        return False
    publish(board)
    print("Browse: make ui")
    return True


def open_board(
    settings: Settings, effort: Effort, seeds: list[int], rows: tuple[Row, ...]
) -> Board:
    """The table with what is known of it so far; refuses images that are not real."""
    if is_synthetic(source_folder(settings.data, settings.root)):
        raise StudyError(
            f"DATA={settings.data} holds generated images, and the table needs real ones to learn "
            "from and to test on: say DATA=br35h, or name a folder of real slices."
        )
    real = open_real(settings, seeds, say=print)
    alike = open_real(replace(settings, **AS_IN_PAPER), seeds, say=_silent)
    session = real["detector", settings.seed]
    cells, places = {}, {}
    for seed in seeds:
        for row in sorted(rows, key=lambda row: [one.source for one in rows].index(row.source)):
            cell = as_cell(row, replace(settings, seed=seed), effort, session)
            cells[cell.name], places[cell.name] = cell, Place(row, seed)
    board = Board(
        settings=settings,
        effort=effort,
        rows=rows,
        real=real,
        name=table_name(session, settings, effort),
        storage=open_storage(settings.storage_url),
        places=places,
        cells=cells,
        floors=measure_floors(real),
        paper_floors=measure_floors(alike),
    )
    board.cells = {name: board.look(cell) for name, cell in cells.items()}
    board.figures |= preprocessing_figure(board) | sample_figures(board) | pair_figure(board)
    return board


def open_real(
    settings: Settings, seeds: list[int], say: Callable[[str], None]
) -> dict[tuple[str, int], Session]:
    """The real images, loaded once and split by each scheme and seed."""
    session = open_session(find_study(GIAEM.study), settings, say=say)
    schemes = dict.fromkeys(model.scheme for model in MODELS)
    return {(scheme, seed): resplit(session, scheme, seed) for scheme in schemes for seed in seeds}


def resplit(session: Session, scheme: str, seed: int) -> Session:
    """The same images split by another scheme and seed."""
    dataset, settings = session.lab.dataset, replace(session.settings, seed=seed)
    splits = split(
        dataset.labels, dataset.groups, protocol=settings.split, scheme=scheme, seed=seed
    )
    return replace(session, settings=settings, lab=replace(session.lab, splits=splits, seed=seed))


def measure_floors(real: dict[tuple[str, int], Session]) -> Floors:
    """The methods without a network, a seed each."""
    floors: Floors = {}
    for (scheme, _), session in real.items():
        for scored in score_floors(session):
            known = floors.setdefault(scheme, {}).get(scored.name, Measured(()))
            floors[scheme][scored.name] = Measured((*known.answers, scored))
    return floors


def as_cell(row: Row, settings: Settings, effort: Effort, session: Session) -> Cell:
    """A row under the seed of `settings`, of which nothing is known yet."""
    search = effort.searches[row.model.study]
    study = search.narrowed(find_study(row.model.study))
    folder = set_folder(row, settings, effort, session)
    own = replace(
        settings,
        trials=search.n_trials,
        timeout=search.timeout,
        label=effort.label,
        train_on=row.source.train_on,
        generator=DEFAULT_GENERATOR if row.source.is_real else str(folder),
    )
    name = full_name(study, session.lab.dataset, own)
    title = f"{row.model.title} on {row.source.title}, seed {settings.seed}"
    return Cell(name, title, study, own)


def table_name(session: Session, settings: Settings, effort: Effort) -> str:
    """What sets this table apart from others: `paper-quick (phantom, paper split)`."""
    column = replace(session.study, name=effort.label)
    return full_name(column, session.lab.dataset, replace(settings, label=""))


def set_folder(row: Row, settings: Settings, effort: Effort, session: Session) -> Path:
    """Where the synthetic set of a row lies: apart from those of `make generate`."""
    name = slug(table_name(session, settings, effort))
    return settings.root / "synthetic" / name / row.model.scheme / row.source.generator


def make_set(board: Board, place: Place, folder: Path) -> bool:
    """Make a row's synthetic set, and whether that was needed: it may be there and whole."""
    name, effort = place.row.source.generator, board.effort
    settings = replace(board.settings, seed=place.seed, generator=name)
    workshop = generate.open_workshop(settings, place.row.model.scheme)
    recipe = generate.Recipe(
        effort.generator(name, place.seed), f"the values of the table `{effort.label}`"
    )
    origin = generate.describe(recipe, workshop)
    if generate.find_made(folder, origin, effort.n_images):
        return False
    print(generate.plan(recipe, workshop, effort.n_images, folder), flush=True)
    generate.make_set(folder, recipe, workshop, origin, effort.n_images)
    return True


def probe(board: Board) -> float:
    """How slow this machine is: an epoch of the effort's VAE, by a training step."""
    workshop = generate.Workshop(board.first.lab, board.settings.split, "detector")
    spec = board.effort.generator("vae", board.settings.seed)
    return generate.seconds_an_epoch(spec, workshop, label=0) / board.effort.probe


def preprocessing_figure(board: Board) -> dict[str, Image.Image]:
    """Figure 2: what becomes of a slice before any network sees it."""
    folder = source_folder(board.settings.data, board.settings.root)
    caption = "Figure 2. Pre-processing"
    return {caption: draw_preprocessing(board.first.lab.dataset, folder)}


def sample_figures(board: Board) -> dict[str, Image.Image]:
    """Figure 3: made slices of the first seed beside real ones, as far as sets are made."""
    made = {}
    for name, place in board.places.items():
        row, folder = place.row, Path(board.cells[name].settings.generator)
        is_first = place.seed == board.settings.seed and row.model.scheme == "classifier"
        if is_first and not row.source.is_real and GENERATORS[row.source.generator] not in made:
            with suppress(DataError):  # not made yet, or to be made again
                made[GENERATORS[row.source.generator]] = read_synthetic(folder)
    if not made:
        return {}
    session = board.real["classifier", board.settings.seed]
    return draw_samples(session.lab.dataset, session.lab.splits.train, made)


def pair_figure(board: Board) -> dict[str, Image.Image]:
    """Figures 4 and 5: two test slices, their reconstructions and their errors."""
    caption = "Figures 4 and 5. Reconstruction and error"
    if caption in board.figures:
        return {}
    for name, place in board.places.items():
        cell, row = board.cells[name], place.row
        is_first = place.seed == board.settings.seed and cell.scored
        if is_first and (row.model, row.source) == (GIAEM, REAL_IMAGES):
            session = board.session(cell)
            best = best_feasible(open_search(session, board.storage))
            candidate = session.study.fit(best.params, session.lab.of(best), News())
            return {caption: draw_pair(candidate, session.lab)}
    return {}


def as_paper(board: Board) -> Paper:
    """What is known, as the table is written."""
    shares = [share for session in board.real.values() for share in session.leaks.values()]
    return Paper(
        name=board.name,
        protocol=board.settings.split,
        seeds=board.seeds,
        lines=[as_line(row, board) for row in board.rows],
        floors=board.floors,
        paper_floors=board.paper_floors,
        leak=max(shares),
        facts=facts(board),
        figures=dict(sorted(board.figures.items())),
    )


def as_line(row: Row, board: Board) -> Line:
    """A row with the answers of the seeds that have any."""
    cells = [board.cells[name] for name, place in board.places.items() if place.row == row]
    notes = tuple(dict.fromkeys(cell.note for cell in cells if cell.note))
    states = [cell.state for cell in cells if cell.state != "-"]
    answers = [cell.scored for cell in cells if cell.scored]
    return Line(row, Measured(answers), states[0] if states else "-", notes)


def facts(board: Board) -> dict[str, str]:
    """What a reader needs to judge the numbers."""
    effort, cells = board.effort, board.cells.values()
    trials = {cell.study.name: cell.settings.trials for cell in cells}
    return {
        **board.first.facts(),
        "split": f"{board.settings.split}, seeds {', '.join(map(str, board.seeds))}",
        "synthetic images": f"{effort.n_images} of each class and generator; generators saw "
        "training images of the same split alone",
        **{name: format_params(effort.generators[name]) for name in effort.generators},
        "trials": ", ".join(f"{name} {n}" for name, n in trials.items()),
        "cost": f"{format_seconds(sum(cell.seconds for cell in cells))} in trials",
    }


def publish(board: Board) -> None:
    """A run for each table in an experiment of its own; a second call completes the first's."""
    settings, paper = board.settings, as_paper(board)
    tracking = Tracking(settings.tracking_uri, settings.artifact_root)
    experiment = tracking.experiments.open(
        EXPERIMENT, note="The paper's Table 1 on real, synthetic and mixed images.", tags={}
    )
    tags = {name: board.first.tags()[name] for name in KEPT_TAGS}
    noted = {f"fact.{name}": text for name, text in paper.facts.items()}
    run_id = tracking.open_study(
        experiment,
        board.name,
        params={},
        tags={**tags, **noted, "effort": board.effort.label},
        datasets=board.first.lineage(),
    )
    with TemporaryDirectory() as folder:
        write_files(paper, Path(folder) / slug(board.name))
        tracking.log_artifacts(run_id, Path(folder))
    tracking.close_study(
        run_id,
        status="FINISHED",
        metrics=as_metrics(paper),
        tags={},
        note=as_markdown(paper),
    )


def _silent(text: str) -> None:
    """What is said of the same data once more."""
