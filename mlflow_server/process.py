"""A server as a process: started, waited for, and gone with all that it has started.

Owns the process group, the log and the signals. Does not know what is served.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from mlflow_server.connection import TrackingError

STARTS_WITHIN = 120.0  # seconds; MLflow's servers take 10 to 20 on two cores
STOPS_WITHIN = 10.0
LOOKS_EVERY = 0.2
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


class ServerProcess:
    """A server that was started."""

    def __init__(self, process: subprocess.Popen, name: str, log: Path, asked: Event):
        self._process, self._name, self._log, self._asked = process, name, log, asked

    @property
    def pid(self) -> int:
        """Of the process and of its group."""
        return self._process.pid

    def wait_until_ready(self, is_ready: Callable[[], bool]) -> None:
        """Return once it answers; TrackingError where it ends before that, or takes too long."""
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline:
            if not self._lives():
                last = (self._log.read_text().strip().splitlines() or ["nothing in its log"])[-1]
                raise TrackingError(f"{self._name} did not start ({last}): its log is {self._log}.")
            if is_ready():
                return
            time.sleep(LOOKS_EVERY)
        raise TrackingError(
            f"{self._name} is not ready after {STARTS_WITHIN:.0f} s: see {self._log}."
        )

    def wait_for_ctrl_c(self) -> None:
        """KeyboardInterrupt once it is to end; TrackingError where it ends by itself."""
        while self._lives():
            time.sleep(LOOKS_EVERY)
        raise TrackingError(f"{self._name} has ended by itself: its log is {self._log}.")

    def _lives(self) -> bool:
        """Python drops an exception that a signal raises in a finalizer; the event stays set."""
        if self._asked.is_set():
            raise KeyboardInterrupt
        return self._process.poll() is None


@contextmanager
def server_process(
    command: Sequence[str], name: str, log: Path, *, settings: Mapping[str, str]
) -> Iterator[ServerProcess]:
    """The server in a process group of its own, which ends with this block, however it is left.

    `settings` join the environment. Ctrl-C ends the block without an error.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output, signals_as_ctrl_c() as asked:
        process = subprocess.Popen(
            list(command),
            env=os.environ | dict(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield ServerProcess(process, name, log, asked)
        except KeyboardInterrupt:
            pass
        finally:
            for number in SIGNALS:  # asked twice, it stops once
                signal.signal(number, signal.SIG_IGN)
            _stop_group(process)


def is_taken(host: str, port: int) -> bool:
    """Whether another program has the port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _stop_group(process: subprocess.Popen) -> None:
    """Ask the server and its worker to end, and do not leave before they have."""
    for wish in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, wish)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + STOPS_WITHIN
        while _group_lives(process) and time.monotonic() < deadline:
            time.sleep(0.05)
    process.wait()


def _group_lives(process: subprocess.Popen) -> bool:
    process.poll()  # a child that has ended counts until it is asked after
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def signals_as_ctrl_c() -> Iterator[Event]:
    """A closed terminal or a plain `kill` must stop the server too; a signal that this process was
    started to ignore stays ignored."""
    asked = Event()

    def interrupt(signum, frame):
        asked.set()
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
