"""Error maps that one process after another asks for: made once, then read from the cache.

Owns what makes two sets of maps equal to a bit, and their file. Knows nothing of who asks.
"""

import inspect
import json
from pathlib import Path

import numpy as np
import torch

from models import error_mapper
from training import error_maps, intensity
from training.cache import CHECKSUMS, code_digest, make_key
from training.detector import FittedDetector
from training.error_maps import ErrorMaps
from training.kept_fit import WEIGHTS

MAPS = "maps.npy"  # float32 (n, h, w): 49 MB for 750 images of 128 x 128


def stored_maps(detector: FittedDetector, indices: np.ndarray) -> ErrorMaps:
    """The detector's error maps of these images, made now where the cache has none."""
    store = detector.store

    def make(folder: Path) -> None:
        np.save(folder / MAPS, detector.error_maps(indices).values)

    folder = store.cache.get_or_make(_key(detector, indices), make)
    labels, groups = store.dataset.labels[indices], store.dataset.groups[indices]
    return ErrorMaps(np.load(folder / MAPS), labels, groups)


def _key(detector: FittedDetector, indices: np.ndarray) -> str:
    """Of all that the maps depend on, threads included: they round sums in another order."""
    network = inspect.getmodule(type(detector.mapper.network))
    return make_key(
        maps=detector.map_key,
        weights=json.loads((detector.folder / CHECKSUMS).read_text())[WEIGHTS],
        data=detector.store.dataset.digest,
        indices=indices.tolist(),
        device=detector.store.device.type,
        threads=torch.get_num_threads(),
        code=code_digest(network, error_mapper, error_maps, intensity),
    )
