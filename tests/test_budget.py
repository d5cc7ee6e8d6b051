"""How many trials a study is to have: met exactly, whoever runs them, on real databases."""

import multiprocessing
from contextlib import suppress
from itertools import count

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.pruners import NopPruner
from optuna.trial import TrialState

from studies.storage import (
    budget_of,
    give_budget,
    is_met,
    join_study,
    n_ended,
    open_storage,
    open_study,
    withdraw_budget,
)
from studies.study import StudyError
from studies.trial_storage import FAILED, BudgetTaken
from studies.worker import WORKER, this_worker

SPACE = {"x": FloatDistribution(0, 1)}
ABOUT = {"space": SPACE, "direction": "maximize", "pruner": NopPruner()}
NUMBERS = count()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request, tmp_path):
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'optuna.db'}"
    return request.getfixturevalue("postgres")(f"budget_{next(NUMBERS)}")


def begun(url, n_trials):
    search = open_study(open_storage(url), "s", {}, seed=0, **ABOUT)
    give_budget(search, n_trials)
    return search


def joined(url, specification=None):
    about = {name: ABOUT[name] for name in ("space", "pruner")}
    return join_study(open_storage(url), "s", specification or {}, seed=0, **about)


def test_no_trial_begins_beyond_the_budget_and_what_ends_unfinished_makes_room(url):
    search, worker = begun(url, 4), joined(url)
    complete, pruned, raised, interrupted = [worker.ask() for _ in range(4)]
    with pytest.raises(BudgetTaken):
        worker.ask()
    worker.tell(complete, 1.0)
    worker.tell(pruned, state=TrialState.PRUNED)
    raised.set_user_attr(FAILED, "ValueError: odd")
    worker.tell(raised, state=TrialState.FAIL)
    with pytest.raises(BudgetTaken):
        joined(url).ask()
    worker.tell(interrupted, state=TrialState.FAIL)
    assert n_ended(search) == 3 and not is_met(search)
    worker.tell(joined(url).ask().number, 2.0)
    assert n_ended(search) == 4 and is_met(search)
    with pytest.raises(BudgetTaken):
        worker.ask()
    assert [trial.number for trial in search.trials] == [0, 1, 2, 3, 4]


def test_a_trial_that_waits_is_taken_once_and_within_the_budget(url):
    search, one, other = begun(url, 1), joined(url), joined(url)
    search.enqueue_trial({"x": 0.25}, user_attrs={WORKER: {"host": "gone", "pid": 1}})
    search.enqueue_trial({"x": 0.75})
    waiting = other.get_trials(states=(TrialState.WAITING,))
    trial = one.ask()
    assert trial.suggest_float("x", 0, 1) == 0.25
    assert search.trials[0].user_attrs == {WORKER: this_worker()}
    taken = other._storage._backend.set_trial_state_values
    search.set_user_attr("budget", 2)
    assert taken(waiting[0]._trial_id, TrialState.RUNNING) is False
    search.set_user_attr("budget", 1)
    with pytest.raises(BudgetTaken):
        other.ask()
    one.tell(trial, 1.0)
    assert [trial.state.name for trial in search.trials] == ["COMPLETE", "WAITING"]


def test_who_is_not_held_to_the_budget_runs_what_was_asked_for(url):
    search = begun(url, 1)
    search.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert n_ended(search) == 2


def test_a_budget_that_is_not_met_is_finished_before_more_is_added(url):
    search = begun(url, 10)
    assert give_budget(search, 5) == 10  # whoever gave the first has died
    search.tell(search.ask(), 1.0)
    withdraw_budget(search)
    assert budget_of(search) == 1 and is_met(search)
    assert give_budget(search, 5) == 6


def test_a_study_that_nobody_has_begun_or_given_a_budget_is_not_joined(url):
    with pytest.raises(StudyError, match=r"no study 's' in .* Begin it with `make study`"):
        joined(url)
    open_study(open_storage(url), "s", {"data": 1}, seed=0, **ABOUT)
    with pytest.raises(StudyError, match="does not say how many trials"):
        joined(url)
    give_budget(open_study(open_storage(url), "s", {"data": 1}, seed=0, **ABOUT), 1)
    with pytest.raises(StudyError, match="data: 1 -> 2"):
        joined(url, {"data": 2})


def run_until_taken(url, start):
    """A worker's process: it joins, waits for the others, and runs trials while there is room."""
    search = joined(url)
    start.wait()
    with suppress(BudgetTaken):
        search.optimize(lambda trial: trial.suggest_float("x", 0, 1))


@pytest.mark.slow
def test_workers_meet_the_budget_exactly_and_draw_points_of_their_own(url):
    begun(url, 40)
    forked = multiprocessing.get_context("fork")  # they have imported what this process has
    start = forked.Barrier(4)
    workers = [forked.Process(target=run_until_taken, args=(url, start)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    trials = optuna.load_study(study_name="s", storage=open_storage(url)).trials
    assert [trial.number for trial in trials] == list(range(40))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len({trial.user_attrs[WORKER]["pid"] for trial in trials}) > 1
    assert len({trial.params["x"] for trial in trials}) == 40
