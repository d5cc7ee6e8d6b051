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

from mlflow_server.connection import TrackingError

STARTS_WITHIN = 120.0  # seconds; MLflow's servers take 10 to 20 on two cores
STOPS_WITHIN = 10.0


@contextmanager
def server_process(
    command: Sequence[str], log: Path, *, settings: Mapping[str, str]
) -> Iterator[subprocess.Popen]:
    """The server in a process group of its own, which ends with this block, however it is left.

    `settings` join the environment. Ctrl-C ends the block without an error.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output, _signals_as_ctrl_c():
        process = subprocess.Popen(
            list(command),
            env=os.environ | dict(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        except KeyboardInterrupt:
            pass
        finally:
            _stop_group(process)


def wait_until_ready(
    process: subprocess.Popen, is_ready: Callable[[], bool], name: str, log: Path
) -> None:
    """Return once it answers; TrackingError where it ends before that, or takes too long."""
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = (log.read_text().strip().splitlines() or ["nothing in its log"])[-1]
            raise TrackingError(f"{name} did not start ({last}): its log is {log}.")
        if is_ready():
            return
        time.sleep(0.2)
    raise TrackingError(f"{name} is not ready after {STARTS_WITHIN:.0f} s: see {log}.")


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
def _signals_as_ctrl_c() -> Iterator[None]:
    """A closed terminal or a plain `kill` must stop the server too."""
    before = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
