"""Error maps: where, and by how much, a slice is not as a detector knows healthy ones.

Owns the way of images through a detector in batches, in full precision unless it is told otherwise,
so that a map does not depend on how the detector was trained. How an error becomes a map is
`models.error_mapper`'s.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from models.error_mapper import FLIPS, ErrorMapper, Flip
from models.streams import in_streams
from training import intensity
from training.loop import as_input, autocast

BATCH_SIZE = 128  # images at a time on an accelerator
IN_CACHE = 16  # and on a core: what a network makes of them stays near; 128 took twice as long
AS_IT_IS: Flip = ()


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
    known = features and {flip: features(flip) for flip in FLIPS[mapper.flips]}

    def maps(x: Tensor, part: slice) -> Tensor:
        measure = partial(_measure, mapper, x, part, known, precision)
        return mapper.scale(mapper.errors_by(measure, x)).squeeze(1).cpu()

    return _by_parts(maps, prepared(mapper, images), device).numpy()


@torch.no_grad()
def raw_errors(
    mapper: ErrorMapper,
    images: np.ndarray,
    *,
    device: torch.device,
    features: Callable[[Flip], Tensor] | None = None,
) -> Tensor:
    """What the network itself measures (n, 1, h, w): no flip, not smoothed, not scaled."""
    known = features and {AS_IT_IS: features(AS_IT_IS)}

    def errors(x: Tensor, part: slice) -> Tensor:
        return _measure(mapper, x, part, known, "fp32", AS_IT_IS)

    return _by_parts(errors, prepared(mapper, images), device)


def reconstruct(mapper: ErrorMapper, images: np.ndarray, *, device: torch.device) -> np.ndarray:
    """x_hat float32 (n, h, w) in [0, 1] of uint8 images; for detectors that reconstruct."""

    def reconstructed(x: Tensor) -> Tensor:
        return mapper.network.reconstruct(x).squeeze(1).cpu()

    return by_batches(reconstructed, prepared(mapper, images), device).numpy()


def prepared(mapper: ErrorMapper, images: np.ndarray) -> np.ndarray:
    """The images with grey values as the detector was given them, uint8 (n, h, w)."""
    return intensity.standardize(images, mapper.intensity, mapper.template.cpu().numpy())


def by_batches(
    work: Callable[[Tensor], Tensor], images: np.ndarray, device: torch.device
) -> Tensor:
    """What `work` makes of inputs (b, 1, h, w) on the device, joined over all uint8 images
    (n, h, w), in order."""
    return _by_parts(lambda x, _: work(x), images, device)


def _by_parts(
    work: Callable[[Tensor, slice], Tensor], images: np.ndarray, device: torch.device
) -> Tensor:
    """The same, where `work` is also told which of the images it has."""

    def on_device(part: slice) -> Tensor:
        batch = torch.from_numpy(np.ascontiguousarray(images[part]))
        return work(as_input(batch.to(device)), part)

    size = IN_CACHE if device.type == "cpu" else BATCH_SIZE
    parts = [slice(start, start + size) for start in range(0, len(images), size)]
    if device.type != "cpu":
        return torch.cat([on_device(part) for part in parts])
    # The first alone: networks keep what they fold and turn over when they are first asked.
    return torch.cat([on_device(parts[0]), *in_streams(on_device, parts[1:])])


def _measure(
    mapper: ErrorMapper,
    x: Tensor,
    part: slice,
    known: Mapping[Flip, Tensor] | None,
    precision: str,
    flip: Flip,
) -> Tensor:
    """The network's errors of a batch under a flip, of features that are known or from its
    images."""
    if known is not None:
        return mapper.network.compare(known[flip][part].to(x.device).float(), x.shape[-2:])
    with autocast(x.device, precision):
        return mapper.network.error_map(x.flip(flip)).float()
