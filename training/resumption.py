"""A training that was cut short, kept where an equal one goes on from its last whole epoch.

Owns what there is to keep (weights, optimizers, schedules, random generators, what was measured)
and its files; going on gives the weights, bit for bit, that an uninterrupted training gives. Knows
nothing of why it was cut short.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

TENSORS, REST = "tensors.safetensors", "rest.json"
WRITTEN_EVERY = 60.0  # seconds of training that a process which is killed may lose
SUFFIX = ".interrupted"
ALONG = "companion"


class Course(NamedTuple):
    """How far a training has come."""

    history: list[dict[str, float]]
    best_epoch: int  # from 1; 0 before the first
    best_weights: dict[str, Tensor]


class Companion(Protocol):
    """What goes along with a training, and with what is kept of it."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name, and the rest as JSON has it."""

    def set_state(self, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
        """Be as when `state` gave these."""


class Resumption:
    """One training's place, the folder; without one nothing is kept."""

    def __init__(self, folder: Path | None, companion: Companion | None = None):
        self.folder, self._companion = folder, companion
        self._kept: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self._written = time.monotonic()

    def keep(self, module: nn.Module, order: torch.Generator, course: Course) -> None:
        """An epoch is over: from here it goes on. On the disk once a minute."""
        if self.folder is None:
            return
        tensors, rest = _state(module, order)
        best = {f"best.{name}": value for name, value in course.best_weights.items()}
        rest |= {"history": list(course.history), "best_epoch": course.best_epoch}
        if self._companion:
            own, rest[ALONG] = self._companion.state()
            best |= {f"{ALONG}.{name}": value for name, value in own.items()}
        self._kept = {name: _copy(value) for name, value in (tensors | best).items()}, rest
        if time.monotonic() - self._written >= WRITTEN_EVERY:
            self._write()

    @contextmanager
    def written_if_stopped(self) -> Iterator[None]:
        """Write down the last epoch when a signal ends what is within; errors are no such end."""
        try:
            yield
        except KeyboardInterrupt:
            self._write()
            raise

    def restore(self, module: nn.Module, order: torch.Generator) -> Course | None:
        """Bring a new module to where the last one was; None where nothing was kept.

        What cannot be read, as after a full disk, is left aside.
        """
        if self.folder is None:
            return None
        try:
            tensors = safetensors.torch.load_file(self.folder / TENSORS)
            rest = json.loads((self.folder / REST).read_text())
        except (OSError, ValueError, safetensors.SafetensorError):
            return None
        _set_state(module, order, tensors, rest)
        if self._companion:
            self._companion.set_state(_below(ALONG, tensors), rest[ALONG])
        return Course(rest["history"], rest["best_epoch"], _below("best", tensors))

    def clear(self) -> None:
        """Nothing is left to go on with."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self) -> None:
        self._written = time.monotonic()
        if self._kept is None or self.folder is None:
            return
        unfinished = self.folder.with_name(f"{self.folder.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        tensors, rest = self._kept
        (unfinished / TENSORS).write_bytes(safetensors.torch.save(tensors))
        (unfinished / REST).write_text(json.dumps(rest))
        shutil.rmtree(self.folder, ignore_errors=True)
        unfinished.rename(self.folder)


def beside(entry: Path, companion: Companion | None = None) -> Resumption:
    """Where a training is kept whose result would be this entry of a cache."""
    return Resumption(entry.with_suffix(SUFFIX), companion)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with the prefix and a dot, without it."""
    n = len(prefix) + 1
    return {name[n:]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def _state(module: nn.Module, order: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that a training's next epoch depends on: tensors by name, and the rest as JSON."""
    tensors = {f"weights.{name}": value for name, value in module.state_dict().items()}
    tensors |= {"random.order": order.get_state(), "random.cpu": torch.get_rng_state()}
    device = next(module.parameters()).device
    if device.type != "cpu":
        tensors["random.device"] = torch.get_device_module(device).get_rng_state()
    rest: dict[str, Any] = {"optimizers": {}, "schedules": {}}
    for name, optimizer in _parts(module, Optimizer):
        state = optimizer.state_dict()
        rest["optimizers"][name] = state["param_groups"]
        for index, values in state["state"].items():
            tensors |= {f"{name}.{index}.{key}": value for key, value in values.items()}
    for name, schedule in _parts(module, LRScheduler):
        rest["schedules"][name] = schedule.state_dict()
    return tensors, rest


def _set_state(
    module: nn.Module, order: torch.Generator, tensors: dict[str, Tensor], rest: dict[str, Any]
) -> None:
    module.load_state_dict(_below("weights", tensors))
    for name, optimizer in _parts(module, Optimizer):
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"{name}."):
                index, part = key[len(name) + 1 :].split(".")
                state.setdefault(int(index), {})[part] = value
        optimizer.load_state_dict({"state": state, "param_groups": rest["optimizers"][name]})
        _lay_out(optimizer)
    for name, schedule in _parts(module, LRScheduler):
        schedule.load_state_dict(rest["schedules"][name])
    order.set_state(tensors["random.order"])
    torch.set_rng_state(tensors["random.cpu"])
    if "random.device" in tensors:
        device = next(module.parameters()).device
        torch.get_device_module(device).set_rng_state(tensors["random.device"])


def _lay_out(optimizer: Optimizer) -> None:
    """Have averages lie in memory as their weights do: fused optimizers go by that order."""
    for weights, state in optimizer.state.items():
        for key, value in state.items():
            if value.shape == weights.shape:
                state[key] = torch.empty_like(weights).copy_(value)


def _parts(module: nn.Module, kind: type) -> Iterator[tuple[str, Any]]:
    """The optimizers or schedules that a module holds, by where it does."""
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, kind):
                yield f"part.{path}/{name}".replace(".", ":"), value


def _copy(value: Tensor) -> Tensor:
    """On the processor and alone, as it is now."""
    return value.detach().to("cpu", copy=True).contiguous()
