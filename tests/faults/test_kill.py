"""Workers that are killed at random moments: nothing is lost, doubled, or left running."""

import os
import random
import signal
import time
import uuid
from dataclasses import replace

import pytest
from houses import assert_agree, wait_for
from optuna.trial import TrialState

from studies.retries import BY_SIGNAL, point_of

pytestmark = pytest.mark.slow
ROUNDS = int(os.environ.get("KILL_ROUNDS", "6"))  # 20 where there is time
A_ROUND, SLEEP = 15, 0.5  # trials of the budget, seconds of each
MANY = 100_000  # trials: they run until they are stopped


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, house):
    """A place with its databases on each engine."""
    if request.param == "sqlite":
        return house
    new_database = request.getfixturevalue("postgres")
    name = f"k{uuid.uuid4().hex[:8]}"
    return replace(
        house, storage=new_database(f"optuna_{name}"), tracking=new_database(f"mlflow_{name}")
    )


def stop(processes):
    """End workers as a scheduler does; their exit statuses."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    return [process.wait(timeout=240) for process in processes]


def test_every_trial_of_killed_workers_is_once_in_both_records(place):
    dice = random.Random(7)
    assert place.start(1, 0.0).wait(timeout=240) == 0, place.heard()
    workers = [place.start(MANY, 0.05) for _ in range(3)]
    try:
        for _ in range(ROUNDS):
            n_before = len(place.trials())
            wait_for(lambda n=n_before: len(place.trials()) > n + 3, 120)
            time.sleep(dice.random())
            victim = dice.choice(workers)
            victim.kill()
            victim.wait()
            workers[workers.index(victim)] = place.start(MANY, 0.05)
        time.sleep(15)
        ends = stop(workers)  # one that has not begun ends as any program does
        assert set(ends) <= {130, -signal.SIGTERM} and 130 in ends, place.heard()
    finally:
        for worker in workers:
            worker.kill()
    assert place.studies("sync").wait(timeout=120) == 0, place.heard()
    assert not place.trials(TrialState.RUNNING)
    n_waiting = len(place.trials(TrialState.WAITING))
    assert place.start(max(1, n_waiting), 0.0).wait(timeout=240) == 0, place.heard()
    assert_agree(place)
    trials = place.trials()
    died = [one for one in trials if one.state == TrialState.FAIL]
    assert {one.user_attrs["interrupted"] for one in died} <= {"its process died", BY_SIGNAL}
    again = [one.user_attrs["retry_of"] for one in trials if "retry_of" in one.user_attrs]
    assert len(set(again)) == len(again)
    assert set(again) == {one.number for one in died if point_of(one)}
    assert not place.trials(TrialState.WAITING)
    by_number = {one.number: one for one in trials}
    for one in trials:
        if "retry_of" in one.user_attrs:
            assert one.params == point_of(by_number[one.user_attrs["retry_of"]])


def test_the_budget_is_met_exactly_however_often_workers_are_killed(place):
    dice, n_trials = random.Random(11), A_ROUND * ROUNDS
    beginner = place.start(n_trials, SLEEP, "begin")
    wait_for(lambda: "Workers join with" in place.heard() or beginner.poll() is not None)
    workers = [place.start(0, SLEEP, "work") for _ in range(3)]
    try:
        for _ in range(ROUNDS):
            n_before = len(place.trials())
            wait_for(lambda n=n_before: len(place.trials()) > n + 3, 120)
            time.sleep(dice.random())
            number = dice.randrange(3)
            workers[number].kill()
            workers[number].wait()
            workers[number] = place.start(0, SLEEP, "work")
        assert beginner.wait(timeout=300) == 0, place.heard()
        assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0], place.heard()
    finally:
        for process in (beginner, *workers):
            process.kill()
    trials = place.trials()
    answered = [one for one in trials if "interrupted" not in one.user_attrs]
    assert {one.state for one in answered} <= {TrialState.COMPLETE, TrialState.WAITING}
    assert len([one for one in answered if one.state == TrialState.COMPLETE]) == n_trials
    assert len(trials) > len(answered)  # some were killed in the middle of a trial
    assert_agree(place)


def test_a_trial_that_sigterm_stops_is_tried_again_and_so_is_its_training(place):
    process = place.studies(
        *("run", "brain_cvae", "--trials", "50", "--data", str(place.images), "--device", "cpu")
    )
    name = "brain_cvae (slices)"
    wait_for(lambda: "epoch 2" in place.heard() or process.poll() is not None, 240)
    assert stop([process]) == [130], place.heard()
    (stopped,) = place.trials(TrialState.FAIL, name=name)
    assert stopped.user_attrs["interrupted"] == "stopped by a signal"
    (waiting,) = place.trials(TrialState.WAITING, name=name)
    assert waiting.user_attrs["retry_of"] == stopped.number
    kept = list((place.root / "cache").glob("*.interrupted/rest.json"))
    assert len(kept) == 1
