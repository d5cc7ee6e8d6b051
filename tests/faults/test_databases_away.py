"""A database that does not answer for a while, a clock that jumps, a signal: nothing is lost or
doubled."""

import sqlite3
import threading
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import OperationalError

from studies import patience
from studies.record import as_run
from studies.retries import RETRY_OF, put_back
from studies.runner import Interruption
from studies.storage import fail_dead_trials
from studies.trial_storage import BUDGET, TrialStorage
from studies.worker import WORKER, is_alive, this_worker


@pytest.fixture
def search(tmp_path):
    """A study in SQLite that waits a tenth of a second for a lock."""
    engine = {"connect_args": {"timeout": 0.1}}
    storage = TrialStorage(f"sqlite:///{tmp_path / 'optuna.db'}", engine_kwargs=engine)
    return optuna.create_study(storage=storage, study_name="s")


@pytest.fixture
def locked(tmp_path):
    """Locks the database in a thread of its own, for this long; returns once it is locked."""
    threads = []

    def lock(seconds):
        has_it = threading.Event()

        def hold():
            with closing(sqlite3.connect(tmp_path / "optuna.db", isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                has_it.set()
                time.sleep(seconds)

        threads.append(threading.Thread(target=hold))
        threads[-1].start()
        assert has_it.wait(5)

    yield lock
    for thread in threads:
        thread.join()


def test_a_trial_outlives_a_database_that_is_away_at_its_begin_and_its_end(search, locked):
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        trial.set_user_attr("said", "kept")
        locked(1.5)
        return x

    locked(1.5)
    search.optimize(objective, n_trials=2)
    stored = optuna.load_study(study_name="s", storage=search._storage._backend.url).trials
    assert [trial.state for trial in stored] == [TrialState.COMPLETE] * 2
    assert [trial.user_attrs["said"] for trial in stored] == ["kept"] * 2
    assert [trial.value for trial in stored] == [trial.params["x"] for trial in stored]


@pytest.mark.parametrize("is_enqueued", [False, True])
def test_a_trial_whose_begin_was_written_and_not_answered_is_begun_once(
    search, is_enqueued, monkeypatch
):
    monkeypatch.setattr(patience, "AGAIN", 0.0)
    storage = search._storage._backend
    if is_enqueued:
        search.enqueue_trial({"x": 0.25})
    storage.hold_to_budget(search._study_id)
    search.set_user_attr(BUDGET, 1)
    commit, lost = storage._commit, [True]

    def commit_and_lose(connection):
        commit(connection)
        if lost:
            lost.clear()
            storage._is_unsure = True
            raise OperationalError("commit", {}, sqlite3.OperationalError("connection lost"))

    monkeypatch.setattr(storage, "_commit", commit_and_lose)
    trial = search.ask()
    x = trial.suggest_float("x", 0, 1)
    search.tell(trial, x)
    (stored,) = optuna.load_study(study_name="s", storage=storage.url).trials
    assert stored.state == TrialState.COMPLETE and stored.value == stored.params["x"] == x
    assert x == 0.25 or not is_enqueued


def test_patience_ends(search, locked, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE", 0.5)
    monkeypatch.setattr(patience, "AGAIN", 0.1)
    locked(3)
    with pytest.raises((StorageInternalError, OperationalError), match="locked"):
        search.ask()


def test_a_full_database_is_not_waited_for():
    full = OperationalError("insert", {}, sqlite3.OperationalError("database or disk is full"))
    away = OperationalError("select", {}, sqlite3.OperationalError("database is locked"))
    assert not patience.may_pass(full) and patience.may_pass(away)


def test_a_clock_that_jumps_kills_no_worker(monkeypatch):
    worker = this_worker()
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert is_alive(worker)
    if not Path("/proc").exists():
        pytest.skip("needs /proc")
    assert "boot" in worker and worker["started"] < 1e9  # since the machine started: no date


def test_a_run_whose_clock_was_put_back_ends_when_it_began():
    trial = create_trial(state=TrialState.COMPLETE, value=0.5)
    trial.datetime_complete = trial.datetime_start - timedelta(hours=1)
    run = as_run("giaem", trial)
    assert run.end_ms == run.start_ms


def test_a_dead_trial_is_put_back_once_and_not_for_ever(search):
    dead = {**this_worker(), "started": 0.0}
    tried = []
    for _ in range(6):
        trial = search.ask()
        trial.suggest_float("x", 0, 1)
        tried.append(trial.params["x"])
        trial.set_user_attr(WORKER, dead)
        search._storage._backend.write(trial._trial_id)
        assert fail_dead_trials(search) == [trial.number]
        assert put_back(search) == []
    assert len(set(tried[:4])) == 1 and len(set(tried)) == 2
    retries = [one.user_attrs[RETRY_OF] for one in search.trials if RETRY_OF in one.user_attrs]
    assert retries == [0, 1, 2, 4, 5]


def test_a_point_that_a_signal_stopped_before_it_was_tried_waits_again(search):
    search.enqueue_trial({"x": 0.25})
    asked = Interruption()
    asked.set()
    with pytest.raises(KeyboardInterrupt):
        search.optimize(asked.during(lambda trial: trial.suggest_float("x", 0, 1)), n_trials=1)
    (stopped,) = search.trials
    assert stopped.user_attrs["interrupted"] == "stopped by a signal"
    assert put_back(search) == [0]
    search.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert search.trials[1].params == {"x": 0.25}
    assert search.trials[1].user_attrs[RETRY_OF] == 0
