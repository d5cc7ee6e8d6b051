"""Error maps that many heads are asked about: checked once, and what is made of them kept.

A study asks hundreds of heads about the same maps. What does not change from head to head (the
sorted errors, a clustering at the same settings) is made by the first that needs it. Knows no head.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_array

KEPT = 6  # results, the most recent: a hundred maps of 128 x 128 sorted take 6 MB


class KeptMaps:
    """Maps, float (n, height, width) in [0, 1]; who changes them asks about another `KeptMaps`.

    With a device a copy lies there, and heads compute with torch where it lies; without one they
    do so on the processor, with numba. The answers are the same.
    """

    def __init__(self, error_maps: np.ndarray, *, device: torch.device | None = None):
        self.values = check_error_maps(error_maps)
        self.on_device = None if device is None else torch.tensor(self.values, device=device)
        self._made: OrderedDict[Hashable, Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, int]:
        """Of one map."""
        return self.values.shape[1:]

    def once(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` made when it was last asked for under this name; arrays are read-only."""
        if name not in self._made:
            made = make()
            if isinstance(made, np.ndarray):
                made.flags.writeable = False
            self._made[name] = made
            if len(self._made) > KEPT:
                self._made.popitem(last=False)
        self._made.move_to_end(name)
        return self._made[name]


def as_kept(error_maps: "np.ndarray | KeptMaps") -> KeptMaps:
    """The maps themselves, or an array's, which are forgotten after the call that they are for."""
    return error_maps if isinstance(error_maps, KeptMaps) else KeptMaps(error_maps)


def check_error_maps(error_maps: np.ndarray) -> np.ndarray:
    """The maps as a C-ordered float32 or float64 array (n, h, w); ValueError if they are none."""
    error_maps = check_array(
        error_maps,
        dtype=[np.float64, np.float32],
        order="C",
        ensure_2d=False,
        allow_nd=True,
        ensure_all_finite=False,
        input_name="error_maps",
    )
    if error_maps.ndim != 3:
        cure = ": add an axis with error_maps[np.newaxis]" if error_maps.ndim == 2 else ""
        raise ValueError(f"error_maps must be (n, h, w), got shape {error_maps.shape}{cure}.")
    low, high = error_maps.min(), error_maps.max()
    if not (low >= 0 and high <= 1):  # so that NaN fails too
        raise ValueError(f"error_maps must be numbers in [0, 1], got from {low:g} to {high:g}.")
    return error_maps
