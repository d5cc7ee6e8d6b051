"""What tests of faults share: processes that are stopped and killed, and a look at both records."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import optuna
import requests
from agreement import assert_records_agree, runs_of
from mlflow.entities import Run
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import NullPool

ROOT = Path(__file__).parent.parent.parent
CHEAP = Path(__file__).parent / "cheap.py"


class Server:
    """A tracking server that can be held, killed and started again over the same files."""

    def __init__(self, root: Path):
        self.root, self.process = root, None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self, seconds: float = 120) -> None:
        """Return once it answers."""
        self.root.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.root / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self.root / "artifacts")]
        command += ["--port", str(self.port)]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.root / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self.answers, seconds)

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.uri}/health", timeout=2).ok
        except requests.RequestException:
            return False

    def signal(self, number: int) -> None:
        """To all of its processes."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """`kill -9`, and nothing is left."""
        self.signal(signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True)
class House:
    """A place for studies: images, databases, and the environment that names them."""

    images: Path
    root: Path
    storage: str
    tracking: str
    said: list[Path] = field(default_factory=list)

    def start(self, n_trials: int, seconds: float, *role: str) -> subprocess.Popen:
        """A process of the cheap study: one that runs it, or is to `begin` or to `work`."""
        return self._popen(str(CHEAP), str(self.images), str(n_trials), str(seconds), *role)

    def studies(self, *arguments: str) -> subprocess.Popen:
        """`python -m studies ...`."""
        return self._popen("-m", "studies", *arguments)

    def _popen(self, *arguments: str) -> subprocess.Popen:
        self.root.mkdir(parents=True, exist_ok=True)
        log = self.root / f"process-{len(self.said)}.log"
        self.said.append(log)
        places = {
            "VAR_DIR": str(self.root),
            "OPTUNA_STORAGE": self.storage,
            "MLFLOW_TRACKING_URI": self.tracking,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        with log.open("w") as output:
            return subprocess.Popen(
                [sys.executable, *arguments],
                env=os.environ | places,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def heard(self) -> str:
        """All that its processes said."""
        return "\n".join(path.read_text() for path in self.said)

    def search(self, name: str = "cheap (slices)") -> optuna.Study:
        return optuna.load_study(study_name=name, storage=storage_of(self.storage))

    def trials(self, *states: TrialState, name: str = "cheap (slices)") -> list:
        """Trials so far; none before there is a study."""
        try:
            return self.search(name).get_trials(states=states or None)
        except (KeyError, optuna.exceptions.StorageInternalError):
            return []

    def runs(self, name: str = "cheap (slices)") -> list[Run]:
        """All runs of the study but deleted ones."""
        return runs_of(self.tracking, name)


@cache
def storage_of(url: str) -> RDBStorage:
    """One for all that is asked; it keeps no connection, of which PostgreSQL has a hundred."""
    return RDBStorage(url, engine_kwargs={"poolclass": NullPool})


def assert_agree(house: House, name: str = "cheap (slices)") -> None:
    """Both records of a house say the same."""
    assert_records_agree(house.storage, house.tracking, house.root, name)


def wait_for(condition, seconds: float = 120) -> None:
    """Wait until something is so; fails after this long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
