"""Trials in a real SQLite file: three transactions each, and what is read is what is there."""

import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import ThresholdPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import event

from studies.sampler import sampler_of
from studies.space import When, suggest
from studies.storage import fail_dead_trials, open_storage, write_down
from studies.worker import WORKER, is_alive, this_worker

BRANCHES = {
    "kind": CategoricalDistribution(["a", "b"]),
    "rate": FloatDistribution(1e-4, 1e-1, log=True),
    "a_x": When(FloatDistribution(0, 1), "kind", ("a",)),
    "b_x": When(FloatDistribution(0, 1), "kind", ("b",)),
}
PROCESS = """
import os, signal, sys, optuna
from studies.storage import open_storage, write_down
search = optuna.load_study(study_name="s", storage=open_storage(sys.argv[1]))

def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    write_down(trial)
    trial.set_user_attr("record", {"x": x})
    if trial.number == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return x

search.optimize(objective, n_trials=int(sys.argv[2]))
"""


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'optuna.db'}"


def new_study(storage, **options):
    return optuna.create_study(study_name="s", storage=storage, direction="maximize", **options)


def read(url):
    """The study as Optuna's own storage finds it."""
    return optuna.load_study(study_name="s", storage=RDBStorage(url))


def started(url, n_trials, killed_at=-1):
    command = [sys.executable, "-c", PROCESS, url, str(n_trials), str(killed_at)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def everything(trial):
    """Reports, a constraint, attributes, every kind of parameter and every kind of end."""
    x = trial.suggest_float("x", 0, 1)
    trial.suggest_float("rate", 1e-4, 1e-1, log=True)
    trial.suggest_int("n", 1, 9)
    trial.suggest_categorical("kind", ["a", "b", None])
    write_down(trial)
    trial.set_constraint("specificity", 0.4 - x)
    trial.set_user_attr("record", {"tags": {"a": "b"}, "history": [x, float("inf")]})
    trial.set_user_attr("record", {"said": "again"})
    trial.report(x, 1)
    if trial.number % 7 == 3:
        raise optuna.TrialPruned
    if trial.number % 7 == 5:
        raise ValueError("odd")
    return float("inf") if trial.number == 4 else x


@pytest.fixture(autouse=True)
def quiet():
    """As the program is: Optuna looks for the best trial after each, to tell of it."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


@contextmanager
def statements(storage):
    """Counts, by its first word, what a storage says to its database."""
    counts = Counter()

    def count(connection, cursor, statement, *_):
        counts[statement.split()[0]] += 1

    def commit(connection):
        counts["COMMIT"] += 1

    event.listen(storage.engine, "before_cursor_execute", count)
    event.listen(storage.engine, "commit", commit)
    yield counts
    event.remove(storage.engine, "before_cursor_execute", count)
    event.remove(storage.engine, "commit", commit)


def test_a_trial_is_three_transactions_however_many_there_were_before(url):
    storage = open_storage(url)
    search = new_study(storage, sampler=sampler_of({}, seed=0))

    def objective(trial):
        x, y = (trial.suggest_float(name, 0, 1) for name in "xy")
        write_down(trial)
        trial.set_constraint("specificity", 0.3 - x)
        trial.set_user_attr("record", {"x": x})
        return x - y

    search.optimize(objective, n_trials=20)
    costs = []
    for _ in range(2):
        with statements(storage) as counts:
            search.optimize(objective, n_trials=10)
        costs.append(counts)
        search.optimize(objective, n_trials=60)
    assert costs[0] == costs[1]
    assert costs[0]["COMMIT"] <= 31  # and one to read, now and then
    assert costs[0].total() <= 270


def test_a_process_knows_of_its_trials_what_the_database_says(url):
    search = new_study(open_storage(url), pruner=ThresholdPruner(lower=0.0))
    search.enqueue_trial({"x": 0.5})
    search.optimize(everything, n_trials=24, catch=(ValueError,))
    assert search.trials == read(url).trials
    states = Counter(trial.state.name for trial in search.trials)
    assert states == {"COMPLETE": 18, "PRUNED": 3, "FAIL": 3}
    assert all(trial.user_attrs[WORKER] == this_worker() for trial in search.trials)
    assert all(trial.user_attrs["record"] == {"said": "again"} for trial in search.trials)


def test_points_are_those_of_optunas_own_storage_and_sampler(url):
    ours = new_study(open_storage(url), sampler=sampler_of({}, seed=3))
    theirs = new_study(None, sampler=TPESampler(seed=3))
    for search in (ours, theirs):
        search.optimize(everything, n_trials=60, catch=(ValueError,))
    assert [trial.params for trial in ours.trials] == [trial.params for trial in theirs.trials]


def test_points_of_branches_are_those_of_optunas_groups(url):
    ours = new_study(open_storage(url), sampler=sampler_of(BRANCHES, seed=1))
    theirs = new_study(None, sampler=TPESampler(seed=1, group=True))

    def objective(trial):
        params = suggest(trial, BRANCHES)
        return params[f"{params['kind']}_x"] - params["rate"]

    for search in (ours, theirs):
        search.optimize(objective, n_trials=50)
    assert [trial.params for trial in ours.trials] == [trial.params for trial in theirs.trials]


def test_points_keep_away_from_those_that_other_processes_try(url):
    ours = new_study(open_storage(url), sampler=sampler_of({}, seed=0))
    theirs = new_study(None, sampler=TPESampler(seed=0))
    points = []
    for search in (ours, theirs):
        search.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=15)
        other = search
        if search is ours:
            other = optuna.load_study(study_name="s", storage=open_storage(url), sampler=None)
            other.sampler = TPESampler(seed=5)
        else:
            search.sampler, kept = TPESampler(seed=5), search.sampler
        running = other.ask()
        running.suggest_float("x", 0, 1)
        write_down(running)
        if search is theirs:
            search.sampler = kept
        search.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
        points.append([trial.params for trial in search.trials])
    assert points[0] == points[1]


def test_an_ended_trial_is_looked_at_once(url):
    search = new_study(None, sampler=sampler_of({}, seed=0))
    objective = lambda trial: trial.suggest_float("x", 0, 1)  # noqa: E731
    looks = Counter()

    def count(frame, what, _):
        if what == "call":
            looks[frame.f_code.co_name] += 1

    for _ in range(3):
        search.optimize(objective, n_trials=60)
        looks.clear()
        sys.setprofile(count)
        search.optimize(objective, n_trials=1)
        sys.setprofile(None)
        assert looks["_rank_of"] == 1 and looks["_get_params"] <= 2


def test_a_point_is_written_before_it_is_tried_and_the_rest_with_its_end(url):
    search = new_study(open_storage(url))
    search.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    trial = search.ask()
    x = trial.suggest_float("x", 0, 1)
    assert read(url).trials[1].params == {}
    write_down(trial)
    trial.set_user_attr("record", "later")
    (running,) = read(url).get_trials(states=(TrialState.RUNNING,))
    assert running.params == {"x": x} and is_alive(running.user_attrs[WORKER])
    assert "record" not in running.user_attrs
    search.tell(trial, x)
    assert read(url).trials[1].user_attrs["record"] == "later"


def test_what_was_written_is_changed_at_once(url):
    trial = new_study(open_storage(url)).ask()
    trial.set_user_attr(WORKER, {"host": "elsewhere"})
    assert read(url).trials[0].user_attrs[WORKER] == {"host": "elsewhere"}


@pytest.mark.slow
def test_a_killed_process_loses_nothing_but_its_last_trial(url):
    search = new_study(open_storage(url))
    assert started(url, 20, killed_at=12).wait(timeout=60) == -signal.SIGKILL
    trials = search.trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 12 + ["RUNNING"]
    assert all(trial.user_attrs["record"] == trial.params for trial in trials[:12])
    assert "x" in trials[12].params and not is_alive(trials[12].user_attrs[WORKER])
    assert fail_dead_trials(search) == [12]
    search.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert [trial.number for trial in search.trials] == list(range(14))


@pytest.mark.slow
def test_processes_number_their_trials_without_gaps_and_see_each_others(url):
    search = new_study(open_storage(url))
    process = started(url, 15)
    while not search.trials:
        assert process.poll() is None
    search.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=10)
    assert process.wait(timeout=60) == 0
    assert [trial.number for trial in search.trials] == list(range(25))
    assert len({trial.user_attrs[WORKER]["pid"] for trial in search.trials}) == 2
    assert search.trials == read(url).trials


def test_a_trial_that_another_process_ended_is_not_ended_again(url):
    search = new_study(open_storage(url))
    trial = search.ask()
    read(url).tell(trial.number, state=TrialState.FAIL)
    trial.set_user_attr("record", "late")
    with pytest.raises(UpdateFinishedTrialError, match="ended by another process"):
        write_down(trial)
    search.tell(trial, 1.0)
    (failed,) = read(url).trials
    assert failed.state == TrialState.FAIL and failed.values is None
    assert "record" not in failed.user_attrs


@pytest.mark.slow
def test_a_database_on_postgresql_is_written_the_same_way(postgres):
    url = postgres("trials")
    search = new_study(open_storage(url), pruner=ThresholdPruner(lower=0.0))
    search.optimize(everything, n_trials=12, catch=(ValueError,))
    assert search.trials == read(url).trials
