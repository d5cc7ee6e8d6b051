"""A tracking server that hangs, dies and comes back: each trial is told once, and none waits."""

import signal
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from houses import assert_agree, wait_for

pytestmark = pytest.mark.slow
N_TRIALS = 200
WAITS = 2.0  # seconds that the search may wait for MLflow


def pauses(trials):
    """Seconds between the end of a trial and the begin of the next."""
    return [
        (later.datetime_start - earlier.datetime_complete).total_seconds()
        for earlier, later in pairwise(trials)
    ]


def test_a_server_that_hangs_and_is_killed_is_told_everything_once(house, server):
    house = replace(house, tracking=server.uri)
    process = house.start(N_TRIALS, 0.3)
    wait_for(lambda: len(house.trials()) > 30)
    server.signal(signal.SIGSTOP)
    time.sleep(30)
    n_meanwhile = len(house.trials())
    server.signal(signal.SIGCONT)
    wait_for(lambda: len(house.trials()) > max(n_meanwhile, 140), 240)
    server.kill()
    time.sleep(5)
    server.start()
    assert process.wait(timeout=300) == 0
    sync = house.studies("sync")
    assert sync.wait(timeout=120) == 0, house.heard()
    trials = house.trials()
    assert len(trials) == N_TRIALS
    assert n_meanwhile > 60
    assert max(pauses(trials)) < WAITS
    assert_agree(house)


def test_a_server_that_is_away_from_begin_to_end_is_told_by_sync(house, server):
    house = replace(house, tracking=server.uri)
    server.kill()
    assert house.start(8, 0.0).wait(timeout=200) == 0
    assert "The search goes on without it" in house.heard()
    assert "make sync" in house.heard()
    server.start()
    assert house.studies("sync").wait(timeout=120) == 0, house.heard()
    assert_agree(house)
    (parent,) = [run for run in house.runs() if "trial" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    assert house.studies("sync").wait(timeout=120) == 0
    assert "Nothing is owed" in house.said[-1].read_text()
    assert len(house.runs()) == 9
