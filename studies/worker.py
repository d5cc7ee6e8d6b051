"""Which process runs a trial, and whether it still lives."""

import os
import socket
from pathlib import Path
from typing import Any

import psutil

WORKER = "worker"  # a trial's user attribute
BOOT = Path("/proc/sys/kernel/random/boot_id")
SINCE_BOOT = 19  # of the fields of /proc/<pid>/stat after its name: when it started, in ticks


def this_worker() -> dict[str, Any]:
    """What tells this process from every other one, a later one with the same number included."""
    return {"host": socket.gethostname(), "pid": os.getpid(), **_birth(os.getpid())}


def is_here(worker: dict[str, Any]) -> bool:
    """Whether a worker runs, or ran, on this machine."""
    return worker["host"] == socket.gethostname()


def is_alive(worker: dict[str, Any]) -> bool:
    """Whether a worker's process still runs; those of other machines are taken to."""
    if not is_here(worker):
        return True
    now = _birth(worker["pid"])
    if not now or now.get("boot") != worker.get("boot"):
        return False
    return abs(now["started"] - worker["started"]) < (0.001 if "boot" in now else 1)


def _birth(pid: int) -> dict[str, Any]:
    """When a process started, {} where it has ended; since boot where the system says, which a
    clock that jumps does not move."""
    try:
        if not BOOT.exists():
            return {"started": psutil.Process(pid).create_time()}
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, psutil.NoSuchProcess):
        return {}
    if fields[0] in "ZX":  # it waits for its parent to hear of its end
        return {}
    ticks = int(fields[SINCE_BOOT]) / os.sysconf("SC_CLK_TCK")
    return {"started": ticks, "boot": BOOT.read_text().strip()}
