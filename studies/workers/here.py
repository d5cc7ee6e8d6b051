"""Workers as processes of this machine, which share its cores and its GPUs.

They outlive a parent that is killed: the same command joins them again.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import optuna

from studies.commands import INTERRUPTED
from studies.session import Session
from studies.workers.call import places, shares_of_gpus, threads, worker_command
from training.device import own_cores, own_gpus

STOPS_WITHIN = 120.0  # seconds: what has ended is still published
EPOCHS = "  trial "  # how the lines of workers begin that the parent shows


class Here:
    """As many processes as there are to be workers, each with a log of its own."""

    def __init__(self, session: Session, search: optuna.Study):
        settings = session.settings
        cores = own_cores() // settings.workers
        gpus = own_gpus() if session.lab.device.type == "cuda" else []
        folder = session.folder / "workers"
        folder.mkdir(parents=True, exist_ok=True)
        self._logs = [folder / f"{number}.log" for number in range(settings.workers)]
        self._read = [0] * settings.workers
        self._processes = [
            start(worker_command(session), log, {**places(session), **threads(cores), **gpu})
            for log, gpu in zip(self._logs, shares_of_gpus(settings.workers, gpus), strict=True)
        ]

    def n_working(self) -> int:
        """How many processes there still are."""
        return sum(process.poll() is None for process in self._processes)

    def news(self) -> list[str]:
        """What they have said of epochs since the last time."""
        return [line for number in range(len(self._logs)) for line in self._said(number)]

    def _said(self, number: int) -> list[str]:
        if not self._logs[number].exists():
            return []
        whole, _, _ = self._logs[number].read_text()[self._read[number] :].rpartition("\n")
        self._read[number] += len(whole) + 1 if whole else 0
        return [line for line in whole.splitlines() if line.startswith(EPOCHS)]

    def stop(self) -> None:
        """Have them end as by Ctrl-C; those that do not are killed."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOPS_WITHIN
        for process in self._processes:
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def complaints(self) -> list[str]:
        """A sentence for each that ended otherwise than it should; the logs of others go."""
        found = {}
        for process, log in zip(self._processes, self._logs, strict=True):
            if process.returncode in (0, INTERRUPTED):
                log.unlink(missing_ok=True)
            elif process.returncode < 0:
                name = signal.Signals(-process.returncode).name
                found[f"A worker was ended by {name}: its log is {log}."] = None
            else:
                last = (log.read_text().strip().splitlines() or ["nothing in its log"])[-1]
                found[last] = None  # once, where all say the same
        if not any(log.exists() for log in self._logs):
            self._logs[0].parent.rmdir()
        return list(found)


def start(command: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen:
    """A worker in a process group of its own: Ctrl-C in the terminal is the parent's to pass on."""
    with log.open("w") as output:
        return subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
