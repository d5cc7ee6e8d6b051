"""How a worker is called: the same command on every engine, and its share of the machine."""

import sys
from collections.abc import Sequence

from studies.reproduce.conditions import as_written
from studies.session import Session

THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def worker_command(session: Session) -> list[str]:
    """The command that joins a session's study."""
    return [sys.executable, "-m", "studies", *worker_arguments(session)]


def worker_arguments(session: Session) -> list[str]:
    """What a worker of a session's study is called with."""
    settings = session.settings
    said = as_written(settings) | {
        "train_on": settings.train_on,
        "timeout": settings.timeout and str(round(settings.timeout)),
        "gpu_share": settings.gpu_share,
    }
    options = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in said.items()
        if value not in ("", None)
    ]
    return ["worker", session.study.name, *options]


def places(session: Session) -> dict[str, str]:
    """The environment by which a worker finds what the session found."""
    settings = session.settings
    return {
        "VAR_DIR": str(settings.root),
        "OPTUNA_STORAGE": settings.storage_url,
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "CACHE_GB": str(settings.cache_gb),
    }


def threads(n: int) -> dict[str, str]:
    """The environment of a process that calculates on n threads."""
    return dict.fromkeys(THREADS, str(max(1, n)))


def shares_of_gpus(n_workers: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """The environment of each worker: one GPU after another, and again from the first."""
    if not gpus:
        return [{}] * n_workers
    return [{"CUDA_VISIBLE_DEVICES": gpus[one % len(gpus)]} for one in range(n_workers)]
