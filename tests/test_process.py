"""A server as a process: it ends when it is asked to, and only then without a word."""

import os
import signal
import sys

import psutil
import pytest

from mlflow_server import TrackingError
from mlflow_server.process import server_process

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]
ENDS = [sys.executable, "-c", "print('no such option')"]


class Asks:
    """Sends a signal when it is thrown away: what a handler raises then, Python drops."""

    def __init__(self, number: int):
        self.number = number

    def __del__(self):
        os.kill(os.getpid(), self.number)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_even_where_python_drops_what_it_raises(tmp_path, number):
    with server_process(SLEEPS, "It", tmp_path / "log", settings={}) as server:
        asks = Asks(number)
        del asks
        assert psutil.pid_exists(server.pid)
        server.wait_for_ctrl_c()
        raise AssertionError("it went on")
    assert not psutil.pid_exists(server.pid)


def test_a_signal_that_was_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with server_process(SLEEPS, "It", tmp_path / "log", settings={}) as server:
            os.kill(os.getpid(), signal.SIGHUP)
            server.wait_until_ready(lambda: True)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_one_that_does_not_start_says_its_last_words(tmp_path):
    with (
        pytest.raises(TrackingError, match=r"It did not start \(no such option\): its log is"),
        server_process(ENDS, "It", tmp_path / "log", settings={}) as server,
    ):
        server.wait_until_ready(lambda: False)


def test_one_that_ends_by_itself_is_an_error(tmp_path):
    with (
        pytest.raises(TrackingError, match="It has ended by itself: its log is"),
        server_process(ENDS, "It", tmp_path / "log", settings={}) as server,
    ):
        server.wait_for_ctrl_c()
