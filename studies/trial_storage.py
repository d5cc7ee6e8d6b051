"""Optuna's database as a worker writes it: three transactions a trial, one of them onto the disk.

A trial is written when it begins, with its worker's name; when its point is known, so that other
workers keep away from it; and when it ends. What is said in between is kept here and goes with the
next of these, as Optuna's storages may: before a trial's state changes, all of it is written.
A worker reads from the database what others wrote, and never what it wrote itself.
Where a study is held to its budget, a trial begins in the transaction that counts those that there
are: of several workers none begins one too many, and none too few.
Knows nothing of studies but that they have trials, and how many they are to have.
"""

import json
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
)
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import OperationalError

from studies.patience import patient
from studies.worker import WORKER, this_worker

TRIALS = models.TrialModel
LATER = select(TRIALS.trial_id).where(
    TRIALS.study_id == bindparam("study"), TRIALS.trial_id > bindparam("after")
)
OF_STUDY = TRIALS.study_id == bindparam("study")
COUNT = select(func.count()).select_from(TRIALS).where(OF_STUDY)
USER, SYSTEM = models.TrialUserAttributeModel, models.TrialSystemAttributeModel
FAILED = "error"  # a trial's user attribute: what it raised
HEARTBEAT, SILENCE = 60, 300  # seconds: how often a worker is heard, and when it is given up
BUDGET = "budget"  # a study's user attribute: how many ended trials it is to have
# A trial that was interrupted, or whose process died, has not ended: it failed without an error.
RAISED = (TRIALS.state == TrialState.FAIL) & (
    select(USER.trial_id).where(USER.trial_id == TRIALS.trial_id, USER.key == FAILED).exists()
)
ENDED = COUNT.where(or_(TRIALS.state.in_((TrialState.COMPLETE, TrialState.PRUNED)), RAISED))
TAKEN = COUNT.where(
    or_(
        TRIALS.state.in_((TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)),
        RAISED,
    )
)
BUDGETED = select(models.StudyUserAttributeModel.value_json).where(
    models.StudyUserAttributeModel.study_id == bindparam("study"),
    models.StudyUserAttributeModel.key == BUDGET,
)
# Not the lock that those wait for who add trials by Optuna's own means: they take it themselves.
STUDY_ROW = (
    select(models.StudyModel.study_id)
    .where(models.StudyModel.study_id == bindparam("study"))
    .with_for_update(key_share=True)
)


class BudgetTaken(Exception):
    """Every trial that a study is to have has ended or is running."""


@dataclass
class Draft:
    """A trial of this process: as it is, and what of it is not in the database yet."""

    trial: FrozenTrial
    attributes: set[tuple[type, str]] = field(default_factory=set)  # that are in the database
    params: list[dict[str, Any]] = field(default_factory=list)  # rows
    waiting: dict[tuple[type, str], str] = field(default_factory=dict)  # attribute -> JSON

    def is_written(self) -> None:
        """All of it is in the database: a transaction that fails leaves it waiting."""
        self.attributes |= self.waiting.keys()
        self.params, self.waiting = [], {}


class TrialStorage(RDBStorage):
    """RDBStorage that writes its own trials in one go each time, and reads only others'."""

    def __init__(self, url: str, **arguments: Any):
        super().__init__(url, **arguments)
        if self.engine.name != "sqlite":  # whose workers are all of one machine: see worker.py
            self.heartbeat_interval, self.grace_period = HEARTBEAT, SILENCE
        self._own: dict[int, Draft] = {}  # by id; ended ones until they have been read
        self._held: set[int] = set()  # studies of which no trial begins beyond the budget
        self._is_unsure = False  # whether a commit was made that was not answered
        self._is_sqlite = self.engine.name == "sqlite"
        if self._is_sqlite:
            self._log_ahead()

    def _log_ahead(self) -> None:
        """Have SQLite write one file and wait once at a commit, and readers not wait for writers.

        A file system that cannot share memory, or a database that is in use, stays as it is.
        """
        with suppress(OperationalError), self.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")

    # How many trials there are to be

    def hold_to_budget(self, study_id: int) -> None:
        """From now on a trial of this study raises BudgetTaken instead of beginning where the
        budget leaves no room for it."""
        self._held.add(study_id)

    def n_ended(self, study_id: int) -> int:
        """How many trials count for the budget: those that came to an end of their own."""
        with self.engine.connect() as connection:
            return connection.execute(ENDED, {"study": study_id}).scalar_one()

    def _claim(self, connection: Connection, study_id: int) -> Sequence[Any] | None:
        """Have others wait until this transaction's trial has begun, if it may begin at all.

        Where a commit was not answered, and was made after all, the row of the trial that this
        process has begun without hearing so.
        """
        if self._is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(STUDY_ROW, {"study": study_id})
        if self._is_unsure and (unheard := self._unheard(connection, study_id)):
            return unheard
        self._check_budget(connection, study_id)
        return None

    def _unheard(self, connection: Connection, study_id: int) -> Sequence[Any] | None:
        """Id, number and begin of a running trial that is this process's, which does not know."""
        mine = (USER.key == WORKER) & (USER.value_json == json.dumps(this_worker()))
        runs = (TRIALS.study_id == study_id) & (TRIALS.state == TrialState.RUNNING)
        columns = TRIALS.__table__.c
        begun = select(columns.trial_id, columns.number, columns.datetime_start)
        begun = begun.join(USER, USER.trial_id == TRIALS.trial_id).where(runs, mine)
        rows = connection.execute(begun).all()
        return next((row for row in rows if row.trial_id not in self._own), None)

    def _check_budget(self, connection: Connection, study_id: int) -> None:
        if study_id not in self._held:
            return
        budget = connection.execute(BUDGETED, {"study": study_id}).scalar()
        taken = connection.execute(TAKEN, {"study": study_id}).scalar_one()
        if budget is None or taken >= json.loads(budget):
            raise BudgetTaken

    # A trial's way

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        if template_trial is not None:
            return super()._create_new_trial(study_id, template_trial)
        new = create_trial(state=TrialState.RUNNING, user_attrs={WORKER: this_worker()})
        new = self._insert(study_id, new)
        self._own[new._trial_id] = Draft(new, {(USER, WORKER)})
        return _copied(new)

    def _insert(self, study_id: int, new: FrozenTrial) -> FrozenTrial:
        """A new trial; who holds the study's row, or SQLite's only pen, finds the number free."""
        with self._transaction("NORMAL") as connection:
            if unheard := self._claim(connection, study_id):
                new._trial_id, new.number, new.datetime_start = unheard
                return new
            new.number = connection.execute(COUNT, {"study": study_id}).scalar_one()
            row = {
                "study_id": study_id,
                "number": new.number,
                "state": new.state,
                "datetime_start": new.datetime_start,
            }
            new._trial_id = connection.execute(insert(TRIALS).values(row)).inserted_primary_key[0]
            rows = [
                {"trial_id": new._trial_id, "key": key, "value_json": json.dumps(value)}
                for key, value in new.user_attrs.items()
            ]
            connection.execute(insert(USER), rows)
        return new

    def write(self, trial_id: int, *, wait: bool = False) -> None:
        """Write what is kept of a trial of this process; `wait` until the disk has it.

        Without waiting, a loss of power may take it back; the end of a process never does.
        """
        if draft := self._running(trial_id):
            with self._transaction("FULL" if wait else "NORMAL") as connection:
                self._write(connection, draft, {"state": TrialState.RUNNING})
            draft.is_written()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        draft = self._running(trial_id)
        if draft is None and state == TrialState.RUNNING:
            return self._take(trial_id)
        if draft is None:
            return super().set_trial_state_values(trial_id, state, values)
        now = datetime.now()
        rows = [
            dict(zip(("value", "value_type"), _stored(value), strict=True))
            | {"trial_id": trial_id, "objective": objective}
            for objective, value in enumerate(values or ())
        ]
        try:
            with self._transaction("FULL") as connection:
                self._write(connection, draft, {"state": state, "datetime_complete": now})
                if rows:
                    connection.execute(insert(models.TrialValueModel), rows)
        except UpdateFinishedTrialError:  # others took this process for dead, and try it again
            del self._own[trial_id]
            return False
        draft.is_written()
        draft.trial.state, draft.trial.datetime_complete = state, now
        draft.trial.values = None if values is None else list(values)
        return True

    def _take(self, trial_id: int) -> bool:
        """A trial that waits is this process's from now on; False where another was faster."""
        of_trial = select(TRIALS.study_id).where(TRIALS.trial_id == trial_id)
        waits = (TRIALS.trial_id == trial_id) & (TRIALS.state == TrialState.WAITING)
        begins = {"state": TrialState.RUNNING, "datetime_start": datetime.now()}
        named = (USER.trial_id == trial_id) & (USER.key == WORKER)
        name = {"trial_id": trial_id, "key": WORKER, "value_json": json.dumps(this_worker())}
        with self._transaction("NORMAL") as connection:
            unheard = self._claim(connection, connection.execute(of_trial).scalar_one())
            if unheard is None or unheard.trial_id != trial_id:
                if connection.execute(update(TRIALS).where(waits).values(begins)).rowcount != 1:
                    return False
                connection.execute(delete(USER).where(named))  # of who had it before
                connection.execute(insert(USER).values(name))
        trial = super().get_trial(trial_id)
        kept = {(USER, key) for key in trial.user_attrs}
        kept |= {(SYSTEM, key) for key in trial.system_attrs}
        self._own[trial_id] = Draft(trial, kept)
        return True

    def _write(self, connection: Connection, draft: Draft, change: dict[str, Any]) -> None:
        """Write what is kept, and a change of a trial that must still run."""
        trial_id = draft.trial._trial_id
        mine = (TRIALS.trial_id == trial_id) & (TRIALS.state == TrialState.RUNNING)
        if connection.execute(update(TRIALS).where(mine).values(change)).rowcount != 1:
            raise UpdateFinishedTrialError(
                f"Trial {draft.trial.number} was ended by another process while this one ran it."
            )
        if draft.params:
            connection.execute(insert(models.TrialParamModel), draft.params)
        for model in (USER, SYSTEM):
            rows = [
                {"trial_id": trial_id, "key": key, "value_json": value}
                for (kind, key), value in draft.waiting.items()
                if kind is model
            ]
            if rows:
                connection.execute(insert(model), rows)

    def forget(self, trial_id: int) -> None:
        """Read a trial from the database again, although it was this process's."""
        self._own.pop(trial_id, None)

    # Workers of other machines

    def record_heartbeat(self, trial_id: int) -> None:
        with suppress(StorageInternalError):  # the next one is heard again
            super().record_heartbeat(trial_id)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        return []  # `fail_dead_trials` ends them, with a reason

    def silent(self, study_id: int) -> set[int]:
        """The running trials whose heart has not beaten for too long, by the database's clock."""
        if self.heartbeat_interval is None:
            return set()
        return set(super()._get_stale_trial_ids(study_id))

    # What is said of a trial

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        arguments = (trial_id, param_name, param_value_internal, distribution)
        draft = self._running(trial_id)
        if draft is None:
            super()._set_trial_param(*arguments, previous_distribution)
            return
        if previous_distribution is None:  # it must be looked for: the first trial of this process
            self.write(trial_id)
            super()._set_trial_param(*arguments, None)
        else:
            check_distribution_compatibility(previous_distribution, distribution)
            row = {
                "trial_id": trial_id,
                "param_name": param_name,
                "param_value": param_value_internal,
                "distribution_json": distribution_to_json(distribution),
            }
            draft.params.append(row)
        draft.trial.distributions[param_name] = distribution
        draft.trial.params[param_name] = distribution.to_external_repr(param_value_internal)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if not self._keep(USER, trial_id, key, value):
            super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if not self._keep(SYSTEM, trial_id, key, value):
            super().set_trial_system_attr(trial_id, key, value)

    def _keep(self, model: type, trial_id: int, key: str, value: Any) -> bool:
        """Keep an attribute for the next transaction; False where it must be changed at once."""
        draft = self._running(trial_id)
        if draft is None:
            return False
        written = json.dumps(value)
        attributes = draft.trial.user_attrs if model is USER else draft.trial.system_attrs
        attributes[key] = json.loads(written)
        if (model, key) in draft.attributes:
            return False
        draft.waiting[model, key] = written
        return True

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        self.write(trial_id)  # the pruners of other workers read this
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        if draft := self._running(trial_id):
            draft.trial.intermediate_values[step] = intermediate_value

    # What is read

    def get_trial(self, trial_id: int) -> FrozenTrial:
        draft = self._own.get(trial_id)
        return _copied(draft.trial) if draft else super().get_trial(trial_id)

    def get_trial_param(self, trial_id: int, param_name: str) -> float:
        self.write(trial_id)
        return super().get_trial_param(trial_id, param_name)

    def get_trial_user_attrs(self, trial_id: int) -> dict[str, Any]:
        return self.get_trial(trial_id).user_attrs

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        return self.get_trial(trial_id).system_attrs

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        asked = (included_trial_ids, trial_id_greater_than)
        ids = self._ids(study_id, *asked)
        own = {number: _copied(self._own[number].trial) for number in ids & self._own.keys()}
        if len(own) == len(ids):
            trials = [own[number] for number in sorted(own)]
        else:
            found = super()._get_trials(study_id, None, *asked)
            trials = [own.get(trial._trial_id, trial) for trial in found]
        for trial in trials:
            if trial.state.is_finished():
                self._own.pop(trial._trial_id, None)
        return [trial for trial in trials if states is None or trial.state in states]

    def _ids(self, study_id: int, included: set[int], greater_than: int) -> set[int]:
        """Which trials are asked for."""
        before = {number for number in included if number <= greater_than}
        with self.engine.connect() as connection:
            later = connection.execute(LATER, {"study": study_id, "after": greater_than})
            return before | set(later.scalars())

    def _running(self, trial_id: int) -> Draft | None:
        """A trial that this process runs."""
        draft = self._own.get(trial_id)
        return draft if draft and not draft.trial.state.is_finished() else None

    @contextmanager
    def _transaction(self, synchronous: str) -> Iterator[Connection]:
        """One transaction; in SQLite `NORMAL` leaves it to the system when the disk has it."""
        with self.engine.connect() as connection:
            if self._is_sqlite:
                connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
            try:
                yield connection
                self._commit(connection)
            finally:
                connection.rollback()
                if self._is_sqlite:
                    connection.exec_driver_sql("PRAGMA synchronous = FULL")

    def _commit(self, connection: Connection) -> None:
        try:
            connection.commit()
        except OperationalError:
            self._is_unsure = True
            raise


for name in (
    "_create_new_trial",
    "_get_trials",
    "_set_trial_param",
    "get_trial",
    "set_trial_intermediate_value",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
    "get_study_directions",
    "get_study_user_attrs",
    "set_study_user_attr",
    "write",
):  # what a trial's way asks of the database
    setattr(TrialStorage, name, patient(getattr(TrialStorage, name)))


def _copied(trial: FrozenTrial) -> FrozenTrial:
    """A trial that can be changed without changing this one."""
    copied = copy(trial)
    copied.params, copied.distributions = dict(trial.params), dict(trial.distributions)
    copied.user_attrs, copied.system_attrs = dict(trial.user_attrs), dict(trial.system_attrs)
    copied.intermediate_values = dict(trial.intermediate_values)
    return copied


def _stored(value: float) -> tuple[float | None, Any]:
    """A value as the database keeps it, infinite ones too."""
    return models.TrialValueModel.value_to_stored_repr(value)
