"""Trials that were cut short: ended with a reason, and put back to be tried again, each once.

A trial that a signal stopped, or whose process or machine died, says nothing of its point. Whoever
notices first ends it and puts its point back in one transaction, under a lock of the study, so that
several workers, and one that dies while it does so, leave one retry.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, delete, func, insert, select, update

INTERRUPTED = "interrupted"  # a trial's user attribute: why it was cut short
BY_SIGNAL = "stopped by a signal"
FIXED = "fixed_params"  # a trial's system attribute, of Optuna's enqueue_trial
RETRY_OF = "retry_of"  # a trial's user attribute: the trial that it tries again
MOST_RETRIES = 3  # our choice: a point that ends its process each time is left alone then
TRIALS, USER = models.TrialModel, models.TrialUserAttributeModel


def end_dead(search: optuna.Study, trial: FrozenTrial, reason: str) -> bool:
    """Fail a running trial whose process is gone; False where another worker did.

    Its point is put back, unless it was tried too often or never known.
    """
    is_worth_it = _is_worth_it(trial, search.get_trials(deepcopy=False))
    with _study_alone(search) as connection:
        running = (TRIALS.trial_id == trial._trial_id) & (TRIALS.state == TrialState.RUNNING)
        ended = {"state": TrialState.FAIL, "datetime_complete": datetime.now()}
        if connection.execute(update(TRIALS).where(running).values(ended)).rowcount != 1:
            return False
        said = (USER.trial_id == trial._trial_id) & (USER.key == INTERRUPTED)
        connection.execute(delete(USER).where(said))
        connection.execute(insert(USER), _attributes(trial._trial_id, {INTERRUPTED: reason}))
        if is_worth_it:
            _put_back(connection, search._study_id, trial)
    search._storage._backend.forget(trial._trial_id)
    return True


def put_back(search: optuna.Study) -> list[int]:
    """Put back every trial that was cut short and is not tried again yet; their numbers."""
    trials = search.get_trials(deepcopy=False)
    again = {trial.user_attrs[RETRY_OF] for trial in trials if RETRY_OF in trial.user_attrs}
    lost = [
        trial
        for trial in trials
        if is_cut_short(trial) and trial.number not in again and _is_worth_it(trial, trials)
    ]
    put = []
    for trial in lost:
        with _study_alone(search) as connection:
            if _put_back(connection, search._study_id, trial):
                put.append(trial.number)
    return put


def point_of(trial: FrozenTrial) -> dict[str, Any]:
    """What a trial tries, or was to try, where that is known."""
    return trial.params or trial.system_attrs.get(FIXED, {})


def is_cut_short(trial: FrozenTrial) -> bool:
    """Whether a trial ended without an answer that is its own: it counts for nothing."""
    return trial.state == TrialState.FAIL and INTERRUPTED in trial.user_attrs


def _is_worth_it(trial: FrozenTrial, trials: Iterable[FrozenTrial]) -> bool:
    before = {one.number: one.user_attrs.get(RETRY_OF) for one in trials}
    n_tried, number = 0, trial.user_attrs.get(RETRY_OF)
    while number is not None:
        n_tried, number = n_tried + 1, before.get(number)
    return bool(point_of(trial)) and n_tried < MOST_RETRIES


def _put_back(connection: Connection, study_id: int, trial: FrozenTrial) -> bool:
    """Have the point wait for a worker; False where it does, or did, already."""
    of_study = select(TRIALS.trial_id).where(TRIALS.study_id == study_id)
    known = select(USER.trial_id).where(
        USER.key == RETRY_OF,
        USER.value_json == json.dumps(trial.number),
        USER.trial_id.in_(of_study),
    )
    if connection.execute(known).first():
        return False
    number = select(func.count()).select_from(TRIALS).where(TRIALS.study_id == study_id)
    row = {
        "study_id": study_id,
        "number": connection.execute(number).scalar_one(),
        "state": TrialState.WAITING,
    }
    trial_id = connection.execute(insert(TRIALS).values(row)).inserted_primary_key[0]
    connection.execute(insert(USER), _attributes(trial_id, {RETRY_OF: trial.number}))
    fixed = {FIXED: point_of(trial)}
    connection.execute(insert(models.TrialSystemAttributeModel), _attributes(trial_id, fixed))
    return True


def _attributes(trial_id: int, values: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in values.items()
    ]


@contextmanager
def _study_alone(search: optuna.Study) -> Iterator[Connection]:
    """A transaction beside which no other makes trials of this study."""
    storage: RDBStorage = search._storage._backend
    with storage.engine.connect() as connection:
        if storage.engine.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            study = models.StudyModel.study_id == search._study_id
            connection.execute(select(models.StudyModel).where(study).with_for_update())
        yield connection
        connection.commit()
