"""What the heads share: checked parameters, checked error maps, `predict` as a sign.

Knows no rule: each head's own file holds its decision. Errors are compared with thresholds in
the maps' own precision, so that a float32 error of 0.7 reaches a threshold of 0.7.
"""

from abc import ABC, abstractmethod
from numbers import Integral, Real
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_array, check_is_fitted


class Head(ClassifierMixin, BaseEstimator, ABC):
    """A decision over error maps, float (n, height, width) in [0, 1].

    A head writes `_check_parameters`, `border`, `_scores` and `_masks` over checked maps, and
    `_learn` if it learns. What is learned ends in `_` and is an array or a number.
    """

    def fit(self, error_maps: np.ndarray, y: np.ndarray | None = None) -> Self:
        """Check the parameters and learn from the maps; labels are not used.

        Raises ValueError for a parameter out of its range and for maps that are none.
        """
        self._check_parameters()
        error_maps = check_error_maps(error_maps)
        self.classes_ = np.array([0, 1])
        self.shape_ = np.array(error_maps.shape[1:])
        self._learn(error_maps)
        return self

    def decision_function(self, error_maps: np.ndarray) -> np.ndarray:
        """The margin of each map, float64 (n,): 0 or more exactly where `predict` says tumour."""
        return self._scores(self._check_maps(error_maps))

    def predict(self, error_maps: np.ndarray) -> np.ndarray:
        """1 for each map with a tumour, else 0: int64 (n,)."""
        return (self.decision_function(error_maps) >= 0).astype(np.int64)

    def mask(self, error_maps: np.ndarray) -> np.ndarray:
        """The pixels that the head would call tumour, before any rule of size: bool, (n, h, w)."""
        return self._masks(self._check_maps(error_maps))

    @property
    @abstractmethod
    def border(self) -> float:
        """What a map is measured against, in the unit of the scores: a score is how far away a map
        is. The one divided by the other says how clear an answer is, whatever a head counts in."""

    def _check_maps(self, error_maps: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        error_maps = check_error_maps(error_maps)
        if error_maps.shape[1:] != tuple(self.shape_):
            raise ValueError(
                f"error maps must have the shape {tuple(map(int, self.shape_))} of those in fit, "
                f"got {error_maps.shape[1:]}."
            )
        return error_maps

    @abstractmethod
    def _check_parameters(self) -> None: ...

    def _learn(self, error_maps: np.ndarray) -> None:
        """Nothing, unless the head overrides it."""

    @abstractmethod
    def _scores(self, error_maps: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _masks(self, error_maps: np.ndarray) -> np.ndarray: ...


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


def check_unit(name: str, value: float) -> None:
    """ValueError unless the parameter is a number in [0, 1]."""
    if not isinstance(value, Real) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}.")


def check_integer(name: str, value: int, *, at_least: int) -> None:
    """ValueError unless the parameter is a whole number of at least so much."""
    if not isinstance(value, Integral) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}.")
