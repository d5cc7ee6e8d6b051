"""Error maps: where, and by how much, a detector fails to reconstruct an image.

Owns the scaling of a map and the way through a detector in batches, always in full precision so
that a map does not depend on how the detector was trained. Knows nothing of heads or files.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.loop import as_input

BATCH_SIZE = 256


@dataclass(frozen=True)
class ErrorMaps:
    """Maps float32 (n, h, w), each min-max scaled to [0, 1], with the labels of their images."""

    values: np.ndarray
    labels: np.ndarray  # int64 (n,)
    groups: np.ndarray  # int64 (n,), near-copies share a number


def scale_per_image(errors: np.ndarray) -> np.ndarray:
    """Min-max scale each of (n, h, w) errors to [0, 1] (paper); a constant map becomes zeros."""
    low = errors.min(axis=(1, 2), keepdims=True)
    width = errors.max(axis=(1, 2), keepdims=True) - low
    return (errors - low) / np.where(width > 0, width, 1)


def make_error_maps(
    module: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    device: torch.device,
) -> ErrorMaps:
    """The scaled error maps of uint8 images (n, h, w); the same for validation and test."""
    return ErrorMaps(scaled_errors(module, images, device=device), labels, groups)


def scaled_errors(module: nn.Module, images: np.ndarray, *, device: torch.device) -> np.ndarray:
    """The `values` of these images' error maps."""
    return scale_per_image(_in_batches(module.error_map, module, images, device))


def reconstruct(module: nn.Module, images: np.ndarray, *, device: torch.device) -> np.ndarray:
    """x_hat float32 (n, h, w) in [0, 1] of uint8 images (n, h, w)."""
    return _in_batches(module.reconstruct, module, images, device)


@torch.no_grad()
def _in_batches(
    function: Callable[[Tensor], Tensor],
    module: nn.Module,
    images: np.ndarray,
    device: torch.device,
) -> np.ndarray:
    module.eval()
    results = np.empty(images.shape, np.float32)
    for start in range(0, len(images), BATCH_SIZE):
        batch = torch.from_numpy(images[start : start + BATCH_SIZE]).to(device)
        results[start : start + len(batch)] = function(as_input(batch)).squeeze(1).cpu().numpy()
    return results
