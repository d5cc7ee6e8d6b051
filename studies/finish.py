"""How a study ends: the best trial on test, once; the floors beside it; what both are worth.

The only code that touches the test split. A trial's answers on it are kept, so that ending the
same study again asks nothing new of it, and every trial that was ever looked at is counted.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState
from PIL import Image
from sklearn.base import ClassifierMixin

from models.heads import KeptMaps
from models.heads.giaem import best_giaem, objective_surface
from studies.report import ReportInput, build_report
from studies.result_figures import Surface, SurfacePoint
from studies.session import Session
from studies.storage import begun, best_feasible, is_feasible
from studies.study import SHOWN, Decider, News
from studies.summary import Findings, write_summary, write_words
from training import floors as floors_module
from training.cache import code_digest, make_key
from training.floors import FLOORS, Scored, evaluate_scored, floors
from training.grids import save_picture
from training.localization import Localization
from training.metrics import evaluate

ANSWERS, FLOOR_ANSWERS = "test_answers.csv", "floor_answers.csv"  # files of the parent run
TEST_LOOKS = "test_looks"  # a study's user attribute: the trials that were scored on test
GRID = np.linspace(0, 1, 100)  # the paper's grid of both GIAEM parameters


@dataclass(frozen=True)
class Decision:
    """What a study that tells tumours ends with; without a feasible trial there is no winner."""

    findings: Findings
    best: FrozenTrial | None
    candidate: Decider | None
    winner: Scored | None
    floors: list[Scored]
    grids: dict[str, Image.Image]
    surface: Surface | None
    localization: Localization | None  # of the winner, where tumours are outlined
    params: list[str]  # that were searched, in the order of the space
    answers: Path | None  # the file of the winner's answers

    def words(self) -> str:
        """What was searched, what won, and whether to believe it: Markdown without tables."""
        return write_words(self.findings)

    def summary(self) -> str:
        """The words with the numbers on test and the facts below them."""
        return write_summary(self.findings)

    def metrics(self) -> dict[str, float]:
        """The winner's metrics on test with the bounds of their intervals, named `test_*`."""
        if self.winner is None:
            return {}
        bounds = {
            f"test_{name}_{end}": bound
            for name in SHOWN
            for end, bound in zip(("low", "high"), self.winner.intervals[name], strict=True)
        }
        places = self.localization.metrics if self.localization else {}
        measured = self.winner.metrics | places
        return {f"test_{name}": value for name, value in measured.items()} | bounds

    def page(self, trials: optuna.Study) -> str:
        """The report as HTML."""
        findings = self.findings
        content = ReportInput(
            title=findings.name,
            summary=self.words(),
            trials=trials,
            params=self.params,
            metric=findings.metric,
            specificity_floor=findings.constraints[0].floor,
            winner=self.winner,
            floors=self.floors,
            surface=self.surface,
            grids=self.grids,
            localization=self.localization,
            facts=findings.facts,
        )
        return build_report(content)

    def write(self, folder: Path) -> None:
        """The pictures, and the winner's answers on test."""
        for caption, grid in self.grids.items():
            save_picture(grid, folder / caption.lower().replace(" ", "_"))
        if self.answers:
            (folder / ANSWERS).write_bytes(self.answers.read_bytes())
            floor_table(self.answers, self.floors).to_csv(folder / FLOOR_ANSWERS, index=False)


def conclude(session: Session, search: optuna.Study) -> Decision:
    """Score the best feasible trial and the floors on the test split."""
    best = best_feasible(search)
    candidate = session.study.fit(best.params, session.lab.of(best), News()) if best else None
    winner = score_on_test(session, search, best, candidate) if best else None
    beside = score_floors(session)
    places = locate(session, best, candidate) if best else None
    return Decision(
        findings=replace(_findings(session, search, best, winner, beside), localization=places),
        best=best,
        candidate=candidate,
        winner=winner,
        floors=beside,
        grids=_grids(session, candidate) if candidate else {},
        surface=_surface(session, search, candidate) if candidate else None,
        localization=places,
        params=list(session.study.space),
        answers=answers_path(session, best) if best else None,
    )


def score_on_test(
    session: Session, search: optuna.Study, best: FrozenTrial, candidate: Decider
) -> Scored:
    """The best trial's answers on the test split: read where it has given them, else asked for."""
    path = answers_path(session, best)
    if path.exists():
        return read_answers(session.study.name, path)
    count_look(search, best)
    scored = evaluate_scored(session.study.name, *candidate.answers(session.lab, "test"))
    write_answers(scored, path, session=session)
    return scored


def answers_path(session: Session, trial: FrozenTrial) -> Path:
    """Where a trial's answers on the test split are kept."""
    return session.folder / "test" / f"trial_{trial.number}.csv"


def locate(session: Session, best: FrozenTrial, candidate: Decider) -> Localization | None:
    """Where the best trial sees the outlined tumours of the test split; kept as its answers are."""
    path = session.folder / "test" / f"places_{best.number}.json"
    if not path.exists():
        found = candidate.localize(session.lab)
        path.write_text(json.dumps(asdict(found) if found else None))
    kept = json.loads(path.read_text())
    return Localization(**kept) if kept else None


def score_floors(session: Session) -> list[Scored]:
    """The floors on the test split of the real images; computed once for each split."""
    lab, real, splits = session.lab, session.real, session.real_splits

    def make(folder: Path) -> None:
        for scored in floors(real, splits, seed=lab.seed):
            write_answers(scored, folder / f"{scored.name}.csv", session=session)

    key = make_key(
        code=code_digest(floors_module),
        data=real.digest,
        splits=[part.tolist() for part in splits],
    )
    folder = lab.cache.get_or_make(key, make)
    return [read_answers(name, folder / f"{name}.csv") for name in FLOORS]


def write_answers(scored: Scored, path: Path, *, session: Session) -> None:
    """One row a test image: file, label, group, score and answer."""
    table = as_answers(scored)
    files = session.lab.dataset.manifest["file"].to_numpy()[session.lab.splits.test]
    table.insert(0, "file", files)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def as_answers(scored: Scored) -> pd.DataFrame:
    """One row an image: what `read_answers` needs."""
    return pd.DataFrame(
        {
            "label": scored.labels,
            "group": scored.groups,
            "score": scored.scores,
            "predicted": scored.predicted,
        }
    )


def read_answers(name: str, path: Path) -> Scored:
    """What `write_answers` wrote, with its metrics and intervals."""
    table = pd.read_csv(path)
    columns = (table[column].to_numpy() for column in ("label", "group", "score", "predicted"))
    return evaluate_scored(name, *columns)


def floor_table(answers: Path, beside: list[Scored]) -> pd.DataFrame:
    """The floors' answers to the images of a file of answers: columns `floor` and as there."""
    files = pd.read_csv(answers, usecols=["file"])
    tables = [
        pd.concat([files, as_answers(scored)], axis=1).assign(floor=scored.name)
        for scored in beside
    ]
    return pd.concat(tables, ignore_index=True)


def count_look(search: optuna.Study, trial: FrozenTrial) -> None:
    """Write down that a trial is scored on the test split."""
    search.set_user_attr(TEST_LOOKS, [*test_looks(search), trial.number])


def test_looks(search: optuna.Study) -> list[int]:
    """The trials that were scored on the test split, in order."""
    return search.user_attrs.get(TEST_LOOKS, [])


def _findings(
    session: Session,
    search: optuna.Study,
    best: FrozenTrial | None,
    winner: Scored | None,
    beside: list[Scored],
) -> Findings:
    trials = begun(search)
    seconds = sum(trial.duration.total_seconds() for trial in trials if trial.duration)
    return Findings(
        name=session.name,
        doc=session.study.doc,
        metric=session.study.metric,
        constraints=session.study.constraints,
        facts={
            **session.facts(),
            "cost": f"{seconds:.0f} s in {len(trials)} trials",
            "test split": f"looked at {len(test_looks(search))} times in this study",
        },
        counts=dict(Counter(trial.state for trial in trials)),
        n_infeasible=sum(not is_feasible(trial) for trial in trials),
        best=best,
        winner=winner,
        floors=beside,
        leaks=session.leaks,
    )


def _grids(session: Session, candidate: Decider) -> dict[str, Image.Image]:
    return {
        "Test images": candidate.draw(session.lab, "test"),
        "Validation images": candidate.draw(session.lab, "val"),
    }


def _surface(session: Session, search: optuna.Study, candidate: Decider) -> Surface | None:
    """The exact objective over both GIAEM parameters, where those and only those are searched."""
    names = ["anomaly_threshold", "tumor_index"]
    if sorted(session.study.space) != names:
        return None
    maps = session.lab.kept_maps(candidate.detector, "val")
    labels = session.lab.validation_maps(candidate.detector).labels
    f2, specificity = objective_surface(maps, labels, GRID, GRID)
    optimum = best_giaem(maps, labels, thresholds=GRID)
    done = search.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = best_feasible(search)
    return Surface(
        thresholds=GRID,
        indices=GRID,
        f2=f2,
        specificity=specificity,
        optimum=SurfacePoint(
            optimum.anomaly_threshold,
            optimum.tumor_index,
            _f2(optimum, maps, labels),
        ),
        found=SurfacePoint(*(best.params[name] for name in names), best.value),
        tried=np.array([[trial.params[name] for name in names] for trial in done]),
    )


def _f2(head: ClassifierMixin, maps: KeptMaps, labels: np.ndarray) -> float:
    scores = head.decision_function(maps)
    return evaluate(labels, scores >= 0, scores)["f2"]
