"""A study's end as it waits for MLflow: evidence, winner and words, handed over as one.

It is written before MLflow is told of it, so that a server that is away then hears of it from the
next run of the study or from `make sync`; handed over twice, it is there once.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import optuna
from filelock import FileLock

from mlflow_server.registry import register
from studies.finish import TEST_LOOKS, test_looks
from studies.publish import TEST_SPLIT, keep_answers, shortcuts, write_evidence
from studies.record import Record, needed_weights
from studies.session import Session
from studies.study import Conclusion

CLOSING = "closing"  # in a study's folder
CLOSING_LOCK = ".closing.lock"
EVIDENCE, WINNER, WORDS = "evidence", "winner", "closing.json"


@dataclass(frozen=True)
class Closing:
    """What the parent run and the registered version say; `best` is the winner's number, `weights`
    the cache's keys of its networks."""

    slug: str
    note: str
    status: str
    best: int | None
    weights: list[str]
    metrics: dict[str, float]
    tags: dict[str, str]
    version_tags: dict[str, str]
    summary: str


def write_closing(
    session: Session,
    search: optuna.Study,
    conclusion: Conclusion,
    report: Path,
    *,
    interrupted: bool,
) -> Path:
    """Write a study's end over an earlier one that still waits; the folder."""
    folder, best = session.folder / CLOSING, conclusion.best
    unfinished = folder.with_suffix(".tmp")
    words = _closing_of(session, search, conclusion, interrupted=interrupted)
    with FileLock(session.folder / CLOSING_LOCK):  # of two who ran the study together, one writes
        shutil.rmtree(unfinished, ignore_errors=True)
        write_evidence(session, conclusion, report, unfinished / EVIDENCE)
        if best:
            conclusion.candidate.predictor(session.lab).save(unfinished / WINNER)
        (unfinished / WORDS).write_text(json.dumps(asdict(words), indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    return folder


def _closing_of(
    session: Session, search: optuna.Study, conclusion: Conclusion, *, interrupted: bool
) -> Closing:
    best = conclusion.best
    value = {session.study.metric: best.value} if best else {}
    return Closing(
        slug=session.slug,
        note=session.study.doc,
        status="KILLED" if interrupted else "FINISHED",
        best=best.number if best else None,
        weights=needed_weights(best) if best else [],
        metrics=value | conclusion.metrics(),
        tags={TEST_SPLIT: session.test_split, TEST_LOOKS: str(len(test_looks(search)))},
        version_tags={
            **session.tags(),
            TEST_SPLIT: session.test_split,
            "kind": session.study.kind,
            "study": session.name,
        },
        summary=conclusion.summary(),
    )


def hand_over_closing(record: Record, folder: Path) -> str | None:
    """End the parent run and register the winner, whose trial has its run; the version's number.

    None where there is no winner, or nothing waits any more.
    """
    with FileLock(folder.parent / CLOSING_LOCK):
        if not (folder / WORDS).exists():
            return None
        closing = read_closing(folder)
        version = _register(record, closing, folder / WINNER)
        _close(record, closing, folder / EVIDENCE)
        shutil.rmtree(folder)
        return version


def read_closing(folder: Path) -> Closing:
    """What `write_closing` wrote."""
    return Closing(**json.loads((folder / WORDS).read_text(encoding="utf-8")))


def _register(record: Record, closing: Closing, winner: Path) -> str | None:
    """The winner's model as a version of the study's name, alias `candidate`."""
    if closing.best is None:
        return None
    return register(
        record.tracking.uri,
        record.log_model(closing.best, winner, closing.weights),
        closing.slug,
        alias="candidate",
        tags={
            **closing.version_tags,
            "trial": str(closing.best),
            "run_id": record.published[closing.best],
        },
        description=closing.summary,
    )


def _close(record: Record, closing: Closing, evidence: Path) -> None:
    """End the parent run with its files, metrics and note."""
    tracking, best = record.tracking, closing.best
    winner = {} if best is None else {"best_trial": str(best), "best_run": record.published[best]}
    links = shortcuts(record, best)
    if evidence.exists():  # else it was handed over already
        if best is not None:
            keep_answers(record, best, evidence)
        tracking.hand_over(record.parent_id, evidence)
    tracking.experiments.describe(record.experiment_id, f"{links}\n\n{closing.note}")
    tracking.close_study(
        record.parent_id,
        status=closing.status,
        metrics=closing.metrics,
        tags={**closing.tags, **winner},
        note=f"{links}\n\n{closing.summary}",
    )
