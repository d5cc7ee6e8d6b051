"""What the heads share: checked parameters, checked error maps, `predict` as a sign.

Knows no rule: each head's own file holds its decision. Errors are compared with thresholds in
the maps' own precision, so that a float32 error of 0.7 reaches a threshold of 0.7.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from models.heads.kept_maps import KeptMaps, as_kept


class Head(ClassifierMixin, BaseEstimator, ABC):
    """A decision over error maps: an array (n, height, width) in [0, 1], or `KeptMaps`.

    A head writes `_check_parameters`, `border`, `_scores` and `_masks` over checked maps, and
    `_learn` if it learns. What is learned ends in `_` and is an array or a number.
    """

    def fit(self, error_maps: np.ndarray | KeptMaps, y: np.ndarray | None = None) -> Self:
        """Check the parameters and learn from the maps; labels are not used.

        Raises ValueError for a parameter out of its range and for maps that are none.
        """
        self._check_parameters()
        maps = as_kept(error_maps)
        self.classes_ = np.array([0, 1])
        self.shape_ = np.array(maps.shape)
        self._learn(maps)
        return self

    def decision_function(self, error_maps: np.ndarray | KeptMaps) -> np.ndarray:
        """The margin of each map, float64 (n,): 0 or more exactly where `predict` says tumour."""
        return self._scores(self._check_maps(error_maps))

    def predict(self, error_maps: np.ndarray | KeptMaps) -> np.ndarray:
        """1 for each map with a tumour, else 0: int64 (n,)."""
        return (self.decision_function(error_maps) >= 0).astype(np.int64)

    def mask(self, error_maps: np.ndarray | KeptMaps) -> np.ndarray:
        """The pixels that the head would call tumour, before any rule of size: bool, (n, h, w).

        Read-only: it may be kept for the next head.
        """
        return self._masks(self._check_maps(error_maps))

    @property
    @abstractmethod
    def border(self) -> float:
        """What a map is measured against, in the unit of the scores: a score is how far away a map
        is. The one divided by the other says how clear an answer is, whatever a head counts in."""

    def _check_maps(self, error_maps: np.ndarray | KeptMaps) -> KeptMaps:
        check_is_fitted(self)
        maps = as_kept(error_maps)
        if maps.shape != tuple(self.shape_):
            raise ValueError(
                f"error maps must have the shape {tuple(map(int, self.shape_))} of those in fit, "
                f"got {maps.shape}."
            )
        return maps

    @abstractmethod
    def _check_parameters(self) -> None: ...

    def _learn(self, maps: KeptMaps) -> None:
        """Nothing, unless the head overrides it."""

    @abstractmethod
    def _scores(self, maps: KeptMaps) -> np.ndarray: ...

    @abstractmethod
    def _masks(self, maps: KeptMaps) -> np.ndarray: ...


def at_least(maps: KeptMaps, threshold: float) -> np.ndarray:
    """Where errors are >= the threshold, bool (n, h, w)."""
    threshold = maps.values.dtype.type(threshold)
    return maps.once(("at least", threshold), lambda: maps.values >= threshold)


def mask_shares(masks: np.ndarray) -> np.ndarray:
    """The share of each mask's pixels that is set, float64 (n,)."""
    return mask_areas(masks) / masks[0].size


def mask_areas(masks: Iterable[np.ndarray]) -> np.ndarray:
    """How many pixels of each of n masks, bool (h, w), are set: int64 (n,)."""
    return np.array([np.count_nonzero(mask) for mask in masks], dtype=np.int64)


def check_unit(name: str, value: float) -> None:
    """ValueError unless the parameter is a number in [0, 1]."""
    if not isinstance(value, Real) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}.")


def check_integer(name: str, value: int, *, at_least: int) -> None:
    """ValueError unless the parameter is a whole number of at least so much."""
    if not isinstance(value, Integral) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}.")
