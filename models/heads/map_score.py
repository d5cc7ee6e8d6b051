"""Map score: a tumour is a map whose mean, 99th percentile or maximum of error is high enough.

Owns the three statistics. Knows nothing of how the maps were made.
"""

from collections.abc import Callable

import numpy as np

from models.heads.head import Head, at_least, check_unit
from models.heads.kept_maps import KeptMaps


class MapScore(Head):
    """Tumour iff the `statistic` ("mean", "p99" or "max") of a map's pixels is >= `threshold`.

    The mask is the pixels with error >= `threshold`, whatever the statistic: under "max" a map is
    a tumour exactly where its mask holds a pixel, under "p99" where it holds enough of them, and
    under "mean" the mask shows the pixels that lie above where the mean would have to.

    Where each map is scaled to its own least and largest error, "max" is 1 for all of them.
    """

    def __init__(self, statistic: str = "p99", threshold: float = 0.5):
        self.statistic = statistic
        self.threshold = threshold

    def _check_parameters(self) -> None:
        if self.statistic not in tuple(STATISTICS):
            known = ", ".join(map(repr, STATISTICS))
            raise ValueError(f"statistic must be one of {known}, got {self.statistic!r}.")
        check_unit("threshold", self.threshold)

    @property
    def border(self) -> float:
        """An error."""
        return self.threshold

    def _scores(self, maps: KeptMaps) -> np.ndarray:
        values = maps.once(("map score", self.statistic), lambda: self._measure(maps.values))
        return values - np.float64(maps.values.dtype.type(self.threshold))

    def _measure(self, error_maps: np.ndarray) -> np.ndarray:
        statistic = STATISTICS[self.statistic]
        return np.array([statistic(error_map) for error_map in error_maps], dtype=np.float64)

    def _masks(self, maps: KeptMaps) -> np.ndarray:
        return at_least(maps, self.threshold)


def _mean(error_map: np.ndarray) -> np.float64:
    # A mean in float32, or one that casts as it sums, depends on how the pixels are summed.
    return error_map.astype(np.float64).mean()


def _p99(error_map: np.ndarray) -> np.floating:
    """The least error that at least 99 % of the other pixels do not exceed.

    `np.percentile(error_map, 99, method="higher")`: always an error of the map, so it is reached
    by a threshold of its own value. In 128 x 128 pixels it is the 164th largest.
    """
    rank = -(-99 * (error_map.size - 1) // 100)
    return np.partition(error_map, rank, axis=None)[rank]


STATISTICS: dict[str, Callable[[np.ndarray], np.floating]] = {
    "mean": _mean,
    "p99": _p99,
    "max": np.max,
}
