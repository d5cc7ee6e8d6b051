"""Error maps: where, and by how much, a slice is not as a detector knows healthy ones.

Owns the way of images through a detector in batches, in full precision unless it is told otherwise,
so that a map does not depend on how the detector was trained. How an error becomes a map is
`models.error_mapper`'s.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.error_mapper import ErrorMapper, Flip
from training import intensity
from training.loop import as_input, autocast

BATCH_SIZE = 128


@dataclass(frozen=True)
class ErrorMaps:
    """Maps float32 (n, h, w) in [0, 1], with the labels of their images."""

    values: np.ndarray
    labels: np.ndarray  # int64 (n,)
    groups: np.ndarray  # int64 (n,), near-copies share a number


def map_images(
    mapper: ErrorMapper,
    images: np.ndarray,
    *,
    device: torch.device,
    precision: str = "fp32",
    features: Callable[[Flip], Tensor] | None = None,
) -> np.ndarray:
    """The maps float32 (n, h, w) in [0, 1] of uint8 images (n, h, w).

    `features` gives what the network extracts of all of them under a flip, where that is known.
    """
    maps = [
        mapper.scale(mapper.errors_by(measure, x)).squeeze(1).cpu()
        for measure, x in _measured(mapper, images, device, features, precision)
    ]
    return torch.cat(maps).numpy()


def raw_errors(
    mapper: ErrorMapper,
    images: np.ndarray,
    *,
    device: torch.device,
    features: Callable[[Flip], Tensor] | None = None,
) -> Tensor:
    """What the network itself measures (n, 1, h, w): no flip, not smoothed, not scaled."""
    with torch.no_grad():
        parts = [measure(()) for measure, _ in _measured(mapper, images, device, features)]
    return torch.cat(parts)


def reconstruct(mapper: ErrorMapper, images: np.ndarray, *, device: torch.device) -> np.ndarray:
    """x_hat float32 (n, h, w) in [0, 1] of uint8 images; for detectors that reconstruct."""
    batches = as_batches(prepared(mapper, images), device)
    return torch.cat([mapper.network.reconstruct(x).squeeze(1).cpu() for x in batches]).numpy()


def prepared(mapper: ErrorMapper, images: np.ndarray) -> np.ndarray:
    """The images with grey values as the detector was given them, uint8 (n, h, w)."""
    return intensity.standardize(images, mapper.intensity, mapper.template.cpu().numpy())


def as_batches(images: np.ndarray, device: torch.device) -> Iterator[Tensor]:
    """Images uint8 (n, h, w) as inputs (b, 1, h, w) on the device, in order."""
    for start in range(0, len(images), BATCH_SIZE):
        batch = np.ascontiguousarray(images[start : start + BATCH_SIZE])
        yield as_input(torch.from_numpy(batch).to(device))


def _measured(
    mapper: ErrorMapper,
    images: np.ndarray,
    device: torch.device,
    features: Callable[[Flip], Tensor] | None,
    precision: str = "fp32",
) -> Iterator[tuple[Callable[[Flip], Tensor], Tensor]]:
    """For each batch how its errors under a flip are had, and the batch."""
    network, start = mapper.network, 0
    for x in as_batches(prepared(mapper, images), device):
        part, start = slice(start, start + len(x)), start + len(x)

        def measure(flip: Flip, x=x, part=part) -> Tensor:
            if features is None:
                with autocast(device, precision):
                    return network.error_map(x.flip(flip)).float()
            return network.compare(features(flip)[part].to(device).float(), x.shape[-2:])

        yield measure, x
