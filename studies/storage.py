"""Optuna's storage: the one place that opens it, and the truth about trials.

It owns the rules of resuming: a study's specification must not change, and trials whose process
died are failed before new ones start. It knows nothing of MLflow.
"""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from studies.retries import INTERRUPTED, end_dead
from studies.sampler import sampler_of
from studies.space import Space
from studies.study import StudyError
from studies.trial_storage import BUDGET, TrialStorage
from studies.worker import WORKER, is_alive, this_worker

SPECIFICATION = "specification"
PROCESS_DIED = "its process died"
MACHINE_SILENT = "its machine has not been heard of"


class DashboardStorage(RDBStorage):
    """Shows constraints where Optuna Dashboard looks for them, which is where Optuna kept them
    before version 5: it would take trials that break one for the best.
    """

    def get_all_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        """The trials, their constraints also as a list."""
        trials = super().get_all_trials(*args, **kwargs)
        for trial in trials:
            trial.system_attrs["constraints"] = list(trial.constraints.values())
        return trials


def open_storage(url: str, kind: type[RDBStorage] = TrialStorage) -> RDBStorage:
    """The storage at a database URL, made when it is new."""
    try:
        return kind(url, engine_kwargs=engine_arguments(url))
    except (RuntimeError, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(
            f"Optuna cannot use {url} ({reason}). It may come from another version: run "
            f"`optuna storage upgrade --storage {url}`, or move it away to start anew."
        ) from error


def engine_arguments(url: str) -> dict[str, Any]:
    """How a database is spoken to: SQLite is waited for while others write; of a server's
    connections, which all workers share, each takes few, and asks whether they still live."""
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": 60}}
    return {"pool_pre_ping": True, "pool_size": 2, "max_overflow": 2}


def open_study(
    storage: RDBStorage,
    name: str,
    specification: dict[str, Any],
    *,
    space: Space,
    direction: str,
    pruner: BasePruner,
    seed: int,
) -> optuna.Study:
    """The study of that name, new or resumed; refused when its specification has changed."""
    study = optuna.create_study(
        storage=storage, study_name=name, direction=direction, pruner=pruner, load_if_exists=True
    )
    # The same seed on resume would replay the same draws.
    drawn = len(study.get_trials(deepcopy=False))
    study.sampler = sampler_of(space, seed=seed + drawn)
    if SPECIFICATION in study.user_attrs:
        refuse_changes(name, old=study.user_attrs[SPECIFICATION], new=specification)
    else:
        study.set_user_attr(SPECIFICATION, specification)
    return study


def join_study(
    storage: RDBStorage,
    name: str,
    specification: dict[str, Any],
    *,
    space: Space,
    pruner: BasePruner,
    seed: int,
) -> optuna.Study:
    """A study that was begun elsewhere, as one of its workers has it: held to its budget."""
    try:
        study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
    except KeyError as error:
        raise StudyError(
            f"There is no study '{name}' in {place_of(storage)} to join. Begin it with `make "
            "study` and WORKERS= (ENGINE=elsewhere starts none), with the same variables and the "
            "same OPTUNA_STORAGE."
        ) from error
    if budget_of(study) is None:
        raise StudyError(
            f"The study '{name}' does not say how many trials it is to have. Begin it with `make "
            "study` and WORKERS= (ENGINE=elsewhere starts none)."
        )
    refuse_changes(name, old=study.user_attrs.get(SPECIFICATION, {}), new=specification)
    drawn = len(study.get_trials(deepcopy=False))
    own = [seed, drawn, *json.dumps(this_worker()).encode()]  # two workers must not draw the same
    study.sampler = sampler_of(space, seed=int(np.random.SeedSequence(own).generate_state(1)[0]))
    backend_of(study).hold_to_budget(study._study_id)
    return study


def place_of(storage: RDBStorage) -> str:
    """A storage's address without its password."""
    return storage.engine.url.render_as_string(hide_password=True)


def backend_of(study: optuna.Study) -> TrialStorage:
    """The database behind what Optuna remembers of it."""
    return study._storage._backend


def budget_of(study: optuna.Study) -> int | None:
    """How many ended trials the study is to have; None where nobody has said so."""
    return study.user_attrs.get(BUDGET)


def n_ended(study: optuna.Study) -> int:
    """How many trials count for the budget: complete, pruned, or failed of their own error."""
    return backend_of(study).n_ended(study._study_id)


def is_met(study: optuna.Study) -> bool:
    """Whether all trials that the study is to have have ended."""
    return n_ended(study) >= (budget_of(study) or 0)


def give_budget(study: optuna.Study, n_trials: int) -> int:
    """Have the study's workers run this many trials more; how many it is to have then.

    A budget that is not met is finished first: whoever gave it has died, and its workers may live.
    """
    if is_met(study):
        study.set_user_attr(BUDGET, n_ended(study) + n_trials)
    return budget_of(study)


def withdraw_budget(study: optuna.Study) -> None:
    """Have no worker begin another trial, wherever it is; those that run may still end."""
    study.set_user_attr(BUDGET, min(budget_of(study) or 0, n_ended(study)))


def write_down(trial: Trial, *, wait: bool = False) -> None:
    """Have the database hold all that a running trial has said; `wait` until the disk does."""
    storage = getattr(trial.storage, "_backend", None)
    if isinstance(storage, TrialStorage):
        storage.write(trial._trial_id, wait=wait)


def begun(search: optuna.Study) -> list[FrozenTrial]:
    """The trials that have begun, in order: not those that wait for their turn."""
    trials = search.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state != TrialState.WAITING]


def refuse_changes(name: str, *, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise when a resumed study would mix trials of two specifications."""
    before, after = flatten(old), flatten(new)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if not keys:
        return
    lines = [f"  {key}: {before.get(key, '-')} -> {after.get(key, '-')}" for key in keys]
    raise StudyError(
        f"The study '{name}' was begun with another specification:\n"
        + "\n".join(lines)
        + "\nIts trials cannot be compared with new ones. Undo the change, or begin a study "
        "beside it with LABEL=<any word>."
    )


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested dictionaries as one, keys joined by dots and values as JSON."""
    flat: dict[str, str] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = json.dumps(value)
    return flat


def fail_dead_trials(study: optuna.Study) -> list[int]:
    """Fail the running trials whose process is gone and put their points back; the numbers of those
    that no other worker failed meanwhile.

    A running trial repels the sampler from its place, so a dead one must not stay.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    silent = silent_trials(study) if running else set()
    failed = []
    for trial in running:
        if not _may_be_alive(trial):
            reason = PROCESS_DIED
        elif trial._trial_id in silent:
            reason = MACHINE_SILENT
        else:
            continue
        if end_dead(study, trial, reason):
            failed.append(trial.number)
    return failed


def silent_trials(study: optuna.Study) -> set[int]:
    """The ids of running trials whose worker has not been heard of for longer than it may be."""
    backend = getattr(study._storage, "_backend", None)
    return backend.silent(study._study_id) if isinstance(backend, TrialStorage) else set()


def _may_be_alive(trial: FrozenTrial) -> bool:
    if WORKER in trial.user_attrs:
        return is_alive(trial.user_attrs[WORKER])
    # Between its start and its name a trial of a living worker is nobody's for milliseconds.
    return datetime.now() - trial.datetime_start < timedelta(minutes=1)


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a trial keeps every constraint."""
    return all(violation <= 0 for violation in trial.constraints.values())


def best_feasible(study: optuna.Study) -> FrozenTrial | None:
    """The best complete trial that keeps every constraint, or none."""
    try:
        return study.best_trial
    except ValueError:
        return None


def running_trials(study: optuna.Study) -> list[int]:
    """The trials that run now; those whose process is gone do not."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [trial.number for trial in running if _may_be_alive(trial)]


def specifications(url: str) -> dict[str, dict[str, Any]]:
    """What each study of a storage was begun with, by its name; other programs' are left out."""
    found = optuna.get_all_study_summaries(open_storage(url), include_best_trial=False)
    return {
        study.study_name: study.user_attrs[SPECIFICATION]
        for study in found
        if SPECIFICATION in study.user_attrs
    }


def stored_studies(url: str, names: list[str]) -> list[optuna.Study]:
    """Studies of a storage as they are, to be read."""
    storage = open_storage(url)
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def searches(url: str) -> Iterator[optuna.Study]:
    """Every study in a storage."""
    storage = open_storage(url)
    for name in optuna.get_all_study_names(storage):
        yield optuna.load_study(study_name=name, storage=storage)


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """The complete trials, the best first, and all that break a constraint after those that do not.

    Of equal ones the earlier is the better, as for Optuna's own best trial.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    return sorted(complete, key=lambda trial: (not is_feasible(trial), sign * trial.value))


def fail_all_running(url: str, reason: str) -> int:
    """Fail the running trials of every study, which have no process any more; how many it were."""
    failed = 0
    for study in searches(url):
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study._storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, reason)
            study.tell(trial.number, state=TrialState.FAIL)
            failed += 1
    return failed


def best_trials(url: str, n: int) -> dict[str, list[int]]:
    """The n best feasible trials of every study in a storage, the best first."""
    return {
        study.study_name: [trial.number for trial in ranked(study) if is_feasible(trial)][:n]
        for study in searches(url)
    }
