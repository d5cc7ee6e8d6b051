"""Workers as tasks of Ray, on the machines of a cluster or on this one.

A foreman owns the tasks (foreman.py); the program that began the study finds it by its name. Ray is
imported only where it is asked for.
"""

import os
import socket
import time
from types import ModuleType
from typing import Any

import optuna

from studies.session import Session
from studies.settings import Settings
from studies.storage import is_met
from studies.study import StudyError, first_line
from studies.workers.call import places, threads, worker_arguments
from studies.workers.foreman import Foreman
from training.cache import make_key

NAMESPACE = "studies"
ANSWERS_WITHIN, LEAVES_WITHIN = 5.0, 30.0  # seconds
RETRIES = 3  # our choice: of a worker that dies; another machine may be kinder
PASSED_ON = (
    "BR35H_DIR",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION",
    "PYTHONPATH",
)


class OnRay:
    """The workers of one study on a Ray cluster: those that there are, or new ones."""

    def __init__(self, session: Session, search: optuna.Study):
        self._ray, self._search = import_ray(), search
        connect(self._ray, session.settings)
        name = make_key(storage=session.settings.storage_url, study=session.name)
        self._foreman = self._find(name) or self._hire(name, session)
        self._is_over = False
        self._complaints: list[str] = []

    def _find(self, name: str) -> Any | None:
        """The foreman of workers that are still at it."""
        try:
            foreman = self._ray.get_actor(name, namespace=NAMESPACE)
            if self._ray.get(foreman.n_working.remote()):
                print("The workers that were started before are still at it: joined.")
                return foreman
            foreman.go.remote()  # of an earlier study that nobody has concluded
            deadline = time.monotonic() + LEAVES_WITHIN
            while time.monotonic() < deadline:
                self._ray.get_actor(name, namespace=NAMESPACE)
                time.sleep(0.1)
        except (ValueError, self._ray.exceptions.RayError):
            pass  # there is none, or none any more
        return None

    def _hire(self, name: str, session: Session) -> Any:
        settings = session.settings
        n_cpus = cpus_for(settings.workers, cpus_of_nodes(self._ray))
        passed_on = {one: os.environ[one] for one in PASSED_ON if one in os.environ}
        environment = passed_on | places(session) | threads(n_cpus)
        task = {
            "num_cpus": n_cpus,
            "num_gpus": gpus_for(settings),
            "max_retries": RETRIES,
            "max_calls": 1,  # the process ends with its worker, and its trials with it
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": environment},
        }
        actor = self._ray.remote(Foreman).options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            runtime_env={"env_vars": environment},
        )
        return actor.remote(worker_arguments(session), settings.workers, task)

    def n_working(self) -> int:
        """How many tasks have not ended; those that have not begun when all is done never do."""
        if not self._is_over and is_met(self._search):
            self._is_over = True
            self._ray.get(self._foreman.cancel.remote())
        return self._ray.get(self._foreman.n_working.remote())

    def news(self) -> list[str]:
        """Epochs stay in Ray's logs."""
        return []

    def stop(self) -> None:
        """Have them end as by Ctrl-C, and let the foreman go."""
        try:
            self._ray.get(self._foreman.cancel.remote())
            self._complaints = self._ray.get(self._foreman.complaints.remote())
            self._ray.get(self._foreman.go.remote())
        except self._ray.exceptions.RayError:
            pass  # the foreman has gone: an actor that leaves answers no more
        self._ray.shutdown()

    def complaints(self) -> list[str]:
        """A sentence for each that ended otherwise than it should."""
        return list(dict.fromkeys(self._complaints))


def import_ray() -> ModuleType:
    """Ray, or a sentence with the cure."""
    try:
        import ray
    except ImportError as error:
        raise StudyError(
            "ENGINE=ray needs Ray, which is not installed: `.venv/bin/pip install -c "
            "constraints.txt -e '.[cluster]'`."
        ) from error
    return ray


def connect(ray: ModuleType, settings: Settings) -> None:
    """Join the cluster that RAY_ADDRESS names; without one there is a cluster of this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    local = {} if settings.ray_address else {"include_dashboard": False}
    try:
        knock(settings.ray_address)
        ray.init(
            address=settings.ray_address or "local",
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level="ERROR",
            **local,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise StudyError(
            f"There is no Ray cluster at RAY_ADDRESS={settings.ray_address} "
            f"({first_line(str(error))}). Start one with `ray start --head`, set "
            "RAY_AUTH_MODE=token if it asks for a token, or leave RAY_ADDRESS out to have one of "
            "this machine."
        ) from error


def knock(address: str | None) -> None:
    """Raise OSError where nothing listens at host:port: Ray itself would try for five minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=ANSWERS_WITHIN).close()


def cpus_of_nodes(ray: ModuleType) -> list[int]:
    """The processors of each machine that is there now."""
    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def cpus_for(n_workers: int, nodes: list[int]) -> int:
    """The most processors that each worker can have if all are to work at once; at least one."""
    fits = [n for n in range(1, max(nodes, default=1) + 1) if _room(nodes, n) >= n_workers]
    return max(fits, default=1)


def _room(nodes: list[int], n_cpus: int) -> int:
    return sum(node // n_cpus for node in nodes)


def gpus_for(settings: Settings) -> float:
    """The share of a GPU that a worker asks for: the driver's machine may have none itself."""
    if settings.device == "cpu":
        return 0
    return settings.gpu_share or (1 if settings.device == "cuda" else 0)
