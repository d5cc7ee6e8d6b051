"""A team's server as tests start it: `python -m studies server --auth 1`, with two users."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import requests

ADMIN, RESEARCHER, READER = "admin", "ana", "ben"
PASSWORDS = {
    ADMIN: "correct-horse-battery",
    RESEARCHER: "ana-has-a-long-one",
    READER: "ben-has-a-long-one",
}
CREDENTIALS = (
    "MLFLOW_AUTH_ADMIN_USERNAME",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_USER_PASSWORD",
)


class TeamServer:
    """One server over a folder of its own; it may be stopped and started again."""

    def __init__(self, root: Path):
        self.root = root
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.said = []

    def start(self, **environment: str) -> None:
        """Return once it is ready; `environment` holds what only it is told."""
        ours = {key: text for key, text in os.environ.items() if key not in CREDENTIALS}
        ours |= {"VAR_DIR": str(self.root), "PYTHONUNBUFFERED": "1", **environment}
        ours.pop("MLFLOW_TRACKING_URI", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "studies", "server", "--auth", "1", "--port", str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ours,
            cwd=Path(__file__).parent.parent,
        )
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("MLflow is ready"):
                return
        raise AssertionError(f"The server ended: {''.join(self.said)}")

    def processes(self) -> list[psutil.Process]:
        """The command and all that it has started."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def stop(self) -> None:
        """As a scheduler does it."""
        self.process.terminate()
        self.process.wait(timeout=30)

    def ask(self, method: str, path: str, user: str | None = None, **more) -> requests.Response:
        """A request as the user, or as a stranger."""
        auth = (user, PASSWORDS[user]) if user else None
        return requests.request(method, self.uri + path, auth=auth, timeout=30, **more)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
