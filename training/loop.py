"""The one training loop: epochs, early stopping, and what a failed training looks like.

Owns batches, seeds, mixed precision and the choice of the best epoch. Knows nothing of the
network's losses or optimizer (the module steps itself), of files or of what is tracked.
"""

import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from training.resumption import Course, Resumption

COLLAPSED_STD = 1e-4  # untrained networks have at least 2.7e-4, collapsed ones at most 1.5e-5


class TrainingError(RuntimeError):
    """Training cannot start or has failed; the message names the cure."""


class Trainable(Protocol):
    """An `nn.Module` with its optimizer. x is float (b, 1, h, w) in [0, 1].

    One that is trained with labels takes them too: int64 (b,). Where it has `begin_epoch(epoch,
    n_epochs)` (from 1) or `end_epoch(metrics)`, they are called: schedules live there. One that has
    `reconstruct(x) -> x_hat` is refused when its reconstructions have collapsed.
    """

    def train_step(self, x: Tensor) -> dict[str, Tensor]: ...

    def eval_step(self, x: Tensor) -> dict[str, Tensor]: ...


class Training(NamedTuple):
    """What a training did; the module itself holds the weights of the best epoch."""

    best_epoch: int  # from 1
    history: list[dict[str, float]]  # one dict of metrics an epoch
    seconds: float


def fit(
    module: Trainable,
    train_images: np.ndarray,
    val_images: np.ndarray,
    *,
    n_epochs: int,
    batch_size: int,
    patience: int,
    seed: int,
    device: torch.device,
    precision: str,
    train_labels: np.ndarray | None = None,
    val_labels: np.ndarray | None = None,
    watched: str = "val_loss",
    monitor: Callable[[Trainable], dict[str, float]] | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    resumption: Resumption | None = None,
) -> Training:
    """Train on uint8 images (n, h, w) until `watched` has not fallen for `patience` epochs.

    The same seed gives the same weights, bit for bit, on the same machine and thread count.
    `monitor` adds metrics to an epoch, of which `watched` may be one; `on_epoch` hears of them and
    may end the training by raising. Where `resumption` holds an equal training that was cut short,
    it goes on from there, and `on_epoch` hears of the epochs before.
    """
    _check_counts(n_epochs=n_epochs, batch_size=batch_size, patience=patience)
    started = time.perf_counter()
    module.to(device, memory_format=torch.channels_last)
    train = _on_device(train_images, train_labels, device)
    val = _on_device(val_images, val_labels, device)
    order = torch.Generator().manual_seed(seed)
    resumption = resumption or Resumption(None)
    with seeded(seed, device), resumption.written_if_stopped():
        course = resumption.restore(module, order) or Course([], 0, {})
        history, best_epoch, best_weights = course
        before = sum(metrics["seconds"] for metrics in history)
        for epoch, metrics in enumerate(history, start=1):
            if on_epoch:
                on_epoch(epoch, metrics)
        for epoch in range(len(history) + 1, n_epochs + 1):
            if epoch - 1 - best_epoch >= patience:
                break
            epoch_started = time.perf_counter()
            if hasattr(module, "begin_epoch"):
                module.begin_epoch(epoch, n_epochs)
            metrics = _one_epoch(module, train, val, order, batch_size, precision)
            _check_finite(metrics, epoch)
            if monitor:
                metrics |= monitor(module)
            if hasattr(module, "end_epoch"):
                module.end_epoch(metrics)
            metrics["seconds"] = time.perf_counter() - epoch_started
            history.append(metrics)
            if on_epoch:
                on_epoch(epoch, metrics)
            if not best_epoch or metrics[watched] < history[best_epoch - 1][watched]:
                best_epoch, best_weights = epoch, copy.deepcopy(module.state_dict())
            resumption.keep(module, order, Course(history, best_epoch, best_weights))
    module.load_state_dict(best_weights)
    if hasattr(module, "reconstruct"):
        _check_collapse(module, val[0])
    return Training(best_epoch, history, before + time.perf_counter() - started)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch within, deterministic kernels included, and leave the generators as they were."""
    forked = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(forked), torch.backends.cudnn.flags(deterministic=True):
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        yield


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a network of this precision, "fp32" or "bf16", is asked."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def as_input(images: Tensor) -> Tensor:
    """Images uint8 (b, h, w) as a network takes them: float (b, 1, h, w) in [0, 1]."""
    return images.unsqueeze(1).float().div_(255)


def _on_device(
    images: np.ndarray, labels: np.ndarray | None, device: torch.device
) -> tuple[Tensor, ...]:
    """Images, and labels where there are any: what a step takes."""
    arrays = (images,) if labels is None else (images, labels)
    return tuple(torch.from_numpy(array).to(device) for array in arrays)


def _one_epoch(module, train, val, order, batch_size, precision) -> dict[str, float]:
    shuffled = torch.randperm(len(train[0]), generator=order).to(train[0].device)
    module.train()
    trained = _mean_losses(module.train_step, train, shuffled.split(batch_size), precision)
    module.eval()
    in_order = torch.arange(len(val[0]), device=val[0].device)
    validated = _mean_losses(module.eval_step, val, in_order.split(batch_size), precision)
    return {f"train_{name}": value for name, value in trained.items()} | {
        f"val_{name}": value for name, value in validated.items()
    }


def _mean_losses(
    step: Callable[..., dict[str, Tensor]],
    data: tuple[Tensor, ...],
    batches: Iterable[Tensor],
    precision: str,
) -> dict[str, float]:
    sums = defaultdict(float)  # stay on the device until the epoch ends
    images, *labels = data
    for batch in batches:
        # one context a step: autocast remembers the weights that it has cast until it is left
        with autocast(images.device, precision):
            losses = step(as_input(images[batch]), *(known[batch] for known in labels))
        for name, value in losses.items():
            sums[name] += value * len(batch)
    return {name: float(total) / len(images) for name, total in sums.items()}


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise TrainingError(f"{name} must be at least 1, got {value}.")


def _check_finite(metrics: dict[str, float], epoch: int) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise TrainingError(f"Training diverged: {name} is {value} in epoch {epoch}. Lower lr.")


def _check_collapse(module: Trainable, val: Tensor) -> None:
    x_hat = torch.cat([module.reconstruct(as_input(batch)) for batch in val.split(256)])
    if x_hat.std(dim=(1, 2, 3)).mean() < COLLAPSED_STD:
        raise TrainingError("Training collapsed: reconstructions are of one gray value. Lower lr.")
    if len(x_hat) > 1 and x_hat.std(dim=0).mean() < COLLAPSED_STD:
        raise TrainingError(
            "Training collapsed: every image has the same reconstruction. "
            "Lower kl_weight, or train for more epochs."
        )
