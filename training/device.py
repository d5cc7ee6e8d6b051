"""Which device trains, and in which precision.

Owns the names of devices, the number of threads and the probe that decides on bfloat16. Knows
nothing of networks.
"""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits
from torch import nn

from training.cache import Cache, make_key

DEVICES = ("auto", "cpu", "cuda", "mps")
PROBES = 8  # the first only warms up
WORTHWHILE = 1.15  # our choice: a smaller gain is within the noise of the probe


class DeviceError(ValueError):
    """The device is unknown or not there; the message names the cure."""


def resolve_device(name: str) -> torch.device:
    """The device of this name; "auto" takes cuda, then mps, then cpu."""
    if name not in DEVICES:
        raise DeviceError(f"Unknown device {name!r}. Known: {', '.join(DEVICES)}.")
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        raise DeviceError(f"The device {name!r} is not available here. Take 'auto' or 'cpu'.")
    return torch.device(name)


def resolve_precision(device: torch.device, *, root: Path) -> str:
    """The faster of "fp32" and "bf16" for training, by a short probe.

    Asked once a machine and torch version, and kept below `root`: timings vary, and the answer
    is part of what a trained detector is kept under.
    """
    machine = {"device": _device_name(device), "torch": torch.__version__}

    def make(folder: Path) -> None:
        answer = machine | {"precision": _faster_precision(device)}
        (folder / "precision.json").write_text(json.dumps(answer, indent=1))

    folder = Cache(root / "precision").get_or_make(make_key(**machine), make)
    return json.loads((folder / "precision.json").read_text())["precision"]


def own_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors that this process has: those it may run on, as far as its container's quota goes.

    A quota is read from version 2 or 1 of cgroups; of one and a half processors it leaves one.
    """
    there = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    return max(1, min(allowed, int(_quota(cgroup) or allowed)))


def use_own_cores() -> None:
    """Calculate on no more threads than this process has cores.

    Threads that wait for one another without a core each take many times as long. What
    OMP_NUM_THREADS says holds.
    """
    n = own_cores()
    if "OMP_NUM_THREADS" not in os.environ and n < torch.get_num_threads():
        torch.set_num_threads(n)
        threadpool_limits(n)  # NumPy's own


def own_gpus() -> list[str]:
    """The names of the CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    n = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(one) for one in range(n)] if named is None else named.split(",")
    return [name.strip() for name in names][:n]


def cap_memory(device: torch.device, share: float | None) -> None:
    """Have this process take no more than this share of its GPU's memory."""
    if share is not None and device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(share)


@contextmanager
def on_threads(n: int | None) -> Iterator[None]:
    """Calculate on n threads within, as far as there are as many processors: sums over another
    number of threads are rounded otherwise. None leaves them as they are."""
    before = torch.get_num_threads()
    if n in (None, before) or n > (os.cpu_count() or 1):
        yield
        return
    torch.set_num_threads(n)
    try:
        with threadpool_limits(n):  # NumPy's own
            yield
    finally:
        torch.set_num_threads(before)


def device_summary(device: torch.device) -> dict[str, str]:
    """What a run says of the machine that it ran on."""
    return {
        "device": device.type,
        "device_name": _device_name(device),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }


def _quota(cgroup: Path) -> float | None:
    """Processors' worth of time that a container gets; None where there is no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = ((cgroup / "cpu" / name).read_text().strip() for name in names)
        except OSError:
            return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def _faster_precision(device: torch.device) -> str:
    if device.type == "mps":  # our choice: autocast there is young, and nothing was measured
        return "fp32"
    # In turn, and the best of each: what else the machine does then slows neither alone.
    rounds = [{p: _probe(device, p) for p in ("fp32", "bf16")} for _ in range(PROBES)]
    seconds = {p: min(one[p] for one in rounds[1:]) for p in ("fp32", "bf16")}
    return "bf16" if seconds["fp32"] > WORTHWHILE * seconds["bf16"] else "fp32"


def _probe(device: torch.device, precision: str) -> float:
    """Seconds of a training step of a small convolution."""
    with torch.random.fork_rng([]):
        network = nn.Sequential(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 32, 3))
    network.to(device, memory_format=torch.channels_last)
    x = torch.zeros(16, 32, 48, 48, device=device).to(memory_format=torch.channels_last)
    started = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        network(x).float().sum().backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
