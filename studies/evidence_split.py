"""Every method's answers on the test split of one concluded study.

Owns which methods stand beside the study's own, and that each is asked once for each split. How
the study came to its best trial is the runner's; what the answers are worth over several splits is
not known here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from studies.control_runs import CONTROLS
from studies.finish import answers_path, as_answers, locate, read_answers, score_floors, test_looks
from studies.record import FAILED
from studies.runner import open_search, trials_in
from studies.session import Session
from studies.storage import best_feasible, open_storage
from studies.study import Decider, News, StudyError
from training import controls
from training.cache import code_digest
from training.controls import file_geometry
from training.floors import Scored, evaluate_scored
from training.localization import Localization
from training.metrics import recall_threshold, two_class_f1_threshold
from training.supervised import has_frozen_features, supervised_reference

RECALL_FLOOR = 0.90  # of the lower bound; our choice: what about 50 groups of tumours can show
HIGHER_RECALL_FLOOR = 0.95
RECALL_THRESHOLD = "recall_threshold"  # the name of the method under that threshold
F1_THRESHOLD = "f1_threshold"  # and under the one with the best two-class F1 on validation


@dataclass(frozen=True)
class Split:
    """What one split gave: the answers by name, and how they came to be."""

    seed: int
    n_trials: int
    params: dict[str, object]  # of the best trial
    looks: int  # how often a trial of this study was scored on test
    answers: dict[str, Scored]  # by row
    localization: Localization | None
    threshold_note: str  # what a recall floor took on validation


def ask_file_geometry(session: Session) -> Scored:
    """What the files' sizes give away on this split."""
    lab = session.lab
    return file_geometry(lab.dataset, lab.splits, seed=lab.seed)


def ask_supervised(session: Session) -> Scored:
    """What labels would add: on the test split that a classifier of this seed has."""
    lab = session.lab
    return supervised_reference(lab.store, seed=lab.seed, protocol=session.settings.split)


# Further rows, asked once for each split; a reference may have a test set of its own.
CONFOUNDS: dict[str, Callable[[Session], Scored]] = {"file_geometry": ask_file_geometry}
REFERENCES: dict[str, Callable[[Session], Scored]] = {"logistic_regression": ask_supervised}


def score_split(session: Session) -> Split:
    """Every method's answers on the test split of a concluded study."""
    search = open_search(session, open_storage(session.settings.storage_url))
    best = best_feasible(search)
    if best is None:
        raise StudyError(
            f"No trial of '{session.name}' keeps the constraints on validation, so its test split "
            "has no answer and there is nothing to average. Ask for more TRIALS."
        )
    method = read_answers(session.study.name, answers_path(session, best))
    candidate = session.study.fit(best.params, session.lab.of(best), News())
    operating, note = operating_point(session, candidate, method)
    asked = CONFOUNDS | (REFERENCES if has_frozen_features() else {})
    others = {name: once(session, name, ask) for name, ask in asked.items()}
    return Split(
        seed=session.lab.seed,
        n_trials=n_ended(search),
        params=best.params,
        looks=len(test_looks(search)),
        answers={
            method.name: method,
            **({operating.name: operating} if operating else {}),
            F1_THRESHOLD: under_f1_threshold(session, candidate, method),
            **{floor.name: floor for floor in score_floors(session)},
            **others,
            **score_controls(session, best),
        },
        localization=locate(session, best, candidate),
        threshold_note=note,
    )


def operating_point(
    session: Session, candidate: Decider, method: Scored
) -> tuple[Scored | None, str]:
    """The method under a threshold at which validation shows a recall, and what more would take.

    Not the recall but its lower bound over groups of near-copies keeps the floor. None where
    validation has too few tumours to show it.
    """
    known = candidate.answers(session.lab, "val")

    def under(floor: float) -> Scored:
        threshold = recall_threshold(known.labels, known.scores, floor=floor, groups=known.groups)
        predicted = (method.scores >= threshold).astype(np.int64)
        return evaluate_scored(
            RECALL_THRESHOLD, method.labels, method.groups, method.scores, predicted
        )

    point = None
    try:
        point = under(RECALL_FLOOR)
        higher = under(HIGHER_RECALL_FLOOR).metrics
    except ValueError as too_few:
        return point, str(too_few)
    return point, f"recall {higher['recall']:.3f}, specificity {higher['specificity']:.3f}"


def under_f1_threshold(session: Session, candidate: Decider, method: Scored) -> Scored:
    """The method where validation has the best two-class F1, the paper's measure."""
    known = candidate.answers(session.lab, "val")
    threshold = two_class_f1_threshold(known.labels, known.scores)
    predicted = (method.scores >= threshold).astype(np.int64)
    return evaluate_scored(F1_THRESHOLD, method.labels, method.groups, method.scores, predicted)


def score_controls(session: Session, best: FrozenTrial) -> dict[str, Scored]:
    """The chosen configuration, fitted anew where there is nothing to learn."""
    code = code_digest(controls)[:8]
    return {
        name: replace(
            once(
                session,
                f"{name}-{best.number}-{code}",
                lambda session, ask=ask: ask(session, best.params),
            ),
            name=name,
        )
        for name, ask in CONTROLS.items()
    }


def once(session: Session, name: str, ask: Callable[[Session], Scored]) -> Scored:
    """A method's answers on this study's split: read where they are kept, else asked for."""
    path = session.folder / "evidence_answers" / f"{name}.csv"
    if not path.exists():
        print(f"{session.name}: {name} ...", flush=True)
        answers = as_answers(ask(session))
        path.parent.mkdir(parents=True, exist_ok=True)
        answers.to_csv(path, index=False)
    return read_answers(name, path)


def n_ended(search: optuna.Study) -> int:
    """How many trials came to an end of their own: not those that were interrupted."""
    failed = [trial for trial in trials_in(search, TrialState.FAIL) if FAILED in trial.user_attrs]
    return len(trials_in(search, TrialState.COMPLETE, TrialState.PRUNED)) + len(failed)
