"""A study's end made public: the report on disk, and what its parent run holds and links to."""

import copy
import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna

from mlflow_server.experiments import view_key
from mlflow_server.files import link
from mlflow_server.server import artifact_url, run_url, runs_url
from studies.finish import ANSWERS, FLOOR_ANSWERS
from studies.provenance import installed_packages
from studies.record import Record
from studies.session import Session
from studies.space import widest
from studies.storage import begun
from studies.study import Conclusion
from training.data.splits import manifest_with_splits

TEST_SPLIT = "test_split"  # tag: which test images a run or version was scored on
TEST_FOLDER = "test"  # below a trial's artifacts: its answers and the floors' on test


def draw_report(session: Session, search: optuna.Study, conclusion: Conclusion) -> Path:
    """Write the study's report below `reports/`, and return where it is."""
    path = session.settings.root / "reports" / f"{session.slug}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")  # two may have run the study together
    unfinished.write_text(conclusion.page(as_plotted(session, search)), encoding="utf-8")
    return unfinished.replace(path)


def as_plotted(session: Session, search: optuna.Study) -> optuna.Study:
    """The trials in memory, each parameter with its widest range: plots need one range for all.

    What a trial left for MLflow is not among it: the timeline would have it all as text to hover.
    """
    box = widest(session.study.space)
    plotted = optuna.create_study(study_name=session.name, direction=session.study.direction)
    for trial in map(copy.copy, begun(search)):
        trial.distributions = {name: box[name] for name in trial.params}
        trial.user_attrs = {}
        plotted.add_trial(trial)
    return plotted


def write_evidence(session: Session, conclusion: Conclusion, report: Path, folder: Path) -> None:
    """Everything that the parent run keeps as files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    dataset, splits = session.lab.dataset, session.lab.splits
    link(report, folder / "report.html")
    (folder / "summary.md").write_text(conclusion.summary())
    specification = json.dumps(session.specification(), indent=1, sort_keys=True)
    (folder / "study.json").write_text(specification)
    (folder / "requirements.txt").write_text(installed_packages())
    if session.commit.is_dirty:
        (folder / "changes.diff").write_text(session.commit.diff)
    manifest_with_splits(dataset, splits).to_csv(folder / "manifest.csv", index=False)
    dataset.left_out.to_csv(folder / "left_out.csv", index=False)
    conclusion.write(folder)


def shortcuts(record: Record, best: int | None) -> str:
    """A line of links, for the UI, to what is looked for first; `best` is a trial's number."""
    experiment, parent = record.experiment_id, record.parent_id
    pages = {
        "summary": run_url("", experiment, parent),
        "report": artifact_url("", experiment, parent, "report.html"),
        "trials, best first": runs_url("", experiment, view_key(record.study)),
    }
    if best is not None:
        run_id = record.published[best]
        pages = {
            f"best trial ({best})": run_url("", experiment, run_id),
            "its pictures": artifact_url("", experiment, run_id, ""),
            **pages,
        }
    return "**Open**: " + " · ".join(f"[{name}]({url})" for name, url in pages.items())


def keep_answers(record: Record, trial: int, evidence: Path) -> None:
    """Log the answers on test with their trial too: the parent run holds the last winner's."""
    with TemporaryDirectory() as scratch:
        found = [evidence / name for name in (ANSWERS, FLOOR_ANSWERS)]
        for path in filter(Path.exists, found):
            shutil.copy(path, scratch)
        record.tracking.log_artifacts(record.published[trial], Path(scratch), TEST_FOLDER)
