"""How many errors of each map are below a threshold, on a device."""

import numpy as np
import torch
from torch import Tensor


def sort_maps(error_maps: Tensor) -> Tensor:
    """Each map's errors in rising order, (n, h * w)."""
    return error_maps.flatten(1).sort(dim=1).values


def count_below(in_order: Tensor, thresholds: np.ndarray) -> np.ndarray:
    """How many of each row's errors are below each threshold: int64 (n, T)."""
    asked = torch.tensor(thresholds, device=in_order.device, dtype=in_order.dtype)
    return torch.searchsorted(in_order, asked.repeat(len(in_order), 1)).cpu().numpy()
