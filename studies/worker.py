"""Which process runs a trial, and whether it still lives."""

import os
import socket
from typing import Any

import psutil

WORKER = "worker"  # a trial's user attribute


def this_worker() -> dict[str, Any]:
    """What tells this process from every other one, a later one with the same number included."""
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": process.create_time()}


def is_alive(worker: dict[str, Any]) -> bool:
    """Whether a worker's process still runs; those of other machines are taken to."""
    if worker["host"] != socket.gethostname():
        return True
    try:
        return abs(psutil.Process(worker["pid"]).create_time() - worker["started"]) < 1
    except psutil.NoSuchProcess:
        return False
