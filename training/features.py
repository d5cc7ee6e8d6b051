"""Features of images, extracted once: what a frozen network says of them does not change.

Owns which extractions are equal, and where they are kept: those of a frozen network on disk for the
whole data set (they see no label and learn nothing), those of a network trained here in memory, for
the images that are asked for. Knows nothing of what features are compared with.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.error_mapper import ErrorMapper, Flip
from training import checkpoint, intensity
from training.cache import Cache, code_digest, make_key
from training.data import Dataset
from training.error_maps import by_batches

FEATURES = "features.safetensors"
MOST_KEPT = 8  # extractions in memory: two sets of four flips, 60 MB each


@dataclass(frozen=True)
class FeatureStore:
    """The features of one data set; `say` is told before what takes long."""

    dataset: Dataset = field(repr=False)
    cache: Cache = field(repr=False)
    device: torch.device
    say: Callable[[str], None] = print
    _kept: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def of(self, mapper: ErrorMapper, extraction: str, indices: np.ndarray, flip: Flip) -> Tensor:
        """Features (k, ...) of these images under a flip, by a network that `mapper` holds.

        `extraction` names all that they depend on besides: equal names, equal features.
        """
        if len(mapper.network.members):
            return self._in_memory(mapper, extraction, indices, flip)
        key = make_key(
            extraction=extraction, data=self.dataset.digest, flip=list(flip), code=_code(mapper)
        )
        if key not in self._kept:
            folder = self.cache.get_or_make(key, lambda folder: self._make(mapper, flip, folder))
            self._keep(key, checkpoint.load_arrays(folder / FEATURES)["features"])
        return torch.from_numpy(self._kept[key][indices])

    def _in_memory(self, mapper, extraction: str, indices: np.ndarray, flip: Flip) -> Tensor:
        key = make_key(extraction=extraction, indices=indices.tolist(), flip=list(flip))
        if key not in self._kept:
            self._keep(key, self._extract(mapper, indices, flip))
        return torch.from_numpy(self._kept[key])

    def _keep(self, key: str, features: np.ndarray) -> None:
        while len(self._kept) >= MOST_KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = features

    def _make(self, mapper: ErrorMapper, flip: Flip, folder: Path) -> None:
        n = len(self.dataset.images)
        turned = f" turned over {len(flip)} of its axes" if flip else ""
        self.say(f"Extracting features of {n} images{turned}, once for all trials ...")
        features = self._extract(mapper, np.arange(n), flip)
        checkpoint.save_arrays({"features": features}, folder / FEATURES)

    def _extract(self, mapper: ErrorMapper, indices: np.ndarray, flip: Flip) -> np.ndarray:
        template = mapper.template.cpu().numpy()
        images = intensity.standardize(self.dataset.images[indices], mapper.intensity, template)
        mapper.eval()

        def extract(x: Tensor) -> Tensor:
            return mapper.network.extract(x.flip(flip)).half().cpu()

        with torch.no_grad():
            return by_batches(extract, images, self.device).numpy()


def _code(mapper: ErrorMapper) -> str:
    modules = [inspect.getmodule(type(part)) for part in (mapper, mapper.network)]
    return code_digest(*modules, intensity)
