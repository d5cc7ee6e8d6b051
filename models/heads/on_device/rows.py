"""Rows of 0 and 1 on a device, as global_kmeans.py asks for them."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from models.heads.binary_rows import Rows


class DeviceRows(Rows):
    """As `BitRows`; in float64, in which the whole numbers that occur are exact."""

    def __init__(self, masks: Tensor):
        super().__init__(masks.flatten(1).double())

    @cached_property
    def norms(self) -> np.ndarray:
        """How many pixels of each row are 1: int64 (n,)."""
        return _whole(self._rows.sum(dim=1))

    def dots(self, weights: np.ndarray) -> np.ndarray:
        """The dot products of rows with whole numbers (k, d): int64 (k, n)."""
        return _whole(self._sent(weights) @ self._rows.T)

    def add(self, moves: np.ndarray, total: np.ndarray) -> np.ndarray:
        """The total with each row added (1), taken away (-1) or left out (0): int32 (d,)."""
        return total + _whole(self._sent(moves) @ self._rows).astype(np.int32)

    def take(self, chosen: np.ndarray) -> np.ndarray:
        """Some of the rows, uint8 (k, d)."""
        return self._rows[np.asarray(chosen)].to(torch.uint8).cpu().numpy()

    def _sent(self, numbers: np.ndarray) -> Tensor:
        return torch.tensor(numbers, device=self._rows.device, dtype=torch.float64)


def _whole(numbers: Tensor) -> np.ndarray:
    return numbers.to(torch.int64).cpu().numpy()
