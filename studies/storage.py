"""Optuna's storage: the one place that opens it, and the truth about trials.

It owns the rules of resuming: a study's specification must not change, and trials whose process
died are failed before new ones start. It knows nothing of MLflow.
"""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from studies.retries import INTERRUPTED, end_dead
from studies.sampler import sampler_of
from studies.space import Space
from studies.study import StudyError
from studies.trial_storage import TrialStorage
from studies.worker import WORKER, is_alive

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
    arguments = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    try:
        return kind(url, engine_kwargs=arguments)
    except (RuntimeError, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(
            f"Optuna cannot use {url} ({reason}). It may come from another version: run "
            f"`optuna storage upgrade --storage {url}`, or move it away to start anew."
        ) from error


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
