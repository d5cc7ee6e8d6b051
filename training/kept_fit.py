"""A fit that is made once: its network's weights and the course of its training, in the cache.

Owns the folder's files and what is read back. Knows no network, no data and nothing of what makes
two fits equal.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from training import checkpoint
from training.cache import Cache
from training.loop import Training
from training.resumption import beside

WEIGHTS, TRAINING = "weights.safetensors", "training.json"


class KeptFit(NamedTuple):
    """What the cache has of a fit."""

    folder: Path
    network: nn.Module  # on the device, ready to be asked
    history: list[dict[str, float]]
    best_epoch: int  # 0 where nothing is trained by gradient
    seconds: float  # of the fit, whenever it was
    trained: bool  # now; False when it was found


def keep_fit(
    cache: Cache,
    key: str,
    *,
    build: Callable[[], nn.Module],
    fit: Callable[[Path], tuple[nn.Module, Training]],
    about: Mapping[str, object],
    device: torch.device,
    on_train: Callable[[], None] | None,
) -> KeptFit:
    """What a fit under this key left, made now where there is none.

    `fit` may put further files into the folder that it is given, and keep a training that is cut
    short `beside` it. `about` is written beside the course of the training, and `build` gives the
    network that the weights are read into. What `on_train`, called before a fit, and `fit` raise
    goes through, and nothing is kept but for that.
    """
    trained = False

    def make(folder: Path) -> None:
        nonlocal trained
        trained = True
        if on_train:
            on_train()
        try:
            network, training = fit(folder)
        except Exception:  # it would end so again
            beside(folder).clear()
            raise
        beside(folder).clear()
        checkpoint.save_weights(network, folder / WEIGHTS)
        (folder / TRAINING).write_text(json.dumps({**about, **training._asdict()}, indent=1))

    folder = cache.get_or_make(key, make)
    network = build()
    checkpoint.load_weights(network, folder / WEIGHTS)
    record = json.loads((folder / TRAINING).read_text())
    told = {name: record[name] for name in ("history", "best_epoch", "seconds")}
    return KeptFit(folder, network.to(device).eval(), **told, trained=trained)
