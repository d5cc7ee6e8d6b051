"""Global KMeans: a tumour is a map that lies between the two kinds of map.

Owns 2-means over binarised maps, with the labels of `sklearn.cluster.KMeans`: its seeding, its
iterations, its tolerance. Maps of 0 and 1 make every sum a whole number, so that distances do not
depend on the order of summing. Knows nothing of the maps' use.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from models.heads.head import Head, check_integer, check_unit

MAX_ITER, TOL = 300, 1e-4  # scikit-learn's defaults


class GlobalKMeans(Head):
    """Tumour iff `abs(d0 - d1) < alpha * max abs(d0 - d1)`, d0 and d1 a binarised map's distances
    to the two centroids of the maps in `fit`; the maximum is taken over those maps and kept.

    Pixels are 1 where the error is >= `anomaly_threshold`. When all binarised maps are alike there
    is one centroid twice, the maximum is 0 and nothing is flagged.

    Learned: `sizes_` int64 (2,), the maps of each cluster; `counts_` int32 (2, h, w), in how many
    of them each pixel is 1; `scale_`, the maximum. `centroids_` is counts_ / sizes_.
    """

    def __init__(self, anomaly_threshold: float = 0.5, alpha: float = 0.1, seed: int = 0):
        self.anomaly_threshold = anomaly_threshold
        self.alpha = alpha
        self.seed = seed

    def _check_parameters(self) -> None:
        check_unit("anomaly_threshold", self.anomaly_threshold)
        check_unit("alpha", self.alpha)
        check_integer("seed", self.seed, at_least=0)

    @property
    def centroids_(self) -> np.ndarray:
        """The two centroids, float64 (2, h, w) in [0, 1]."""
        return self.counts_ / self.sizes_[:, None, None]

    def _learn(self, error_maps: np.ndarray) -> None:
        rows = self._rows(error_maps)
        clusters = two_means(rows, seed=self.seed)
        self.sizes_ = clusters.sizes
        self.counts_ = clusters.counts.reshape(2, *error_maps.shape[1:])
        self.scale_ = float(self._gaps(rows).max())

    def _scores(self, error_maps: np.ndarray) -> np.ndarray:
        margin = self.alpha * self.scale_ - self._gaps(self._rows(error_maps))
        return np.nextafter(margin, -np.inf)  # the rule is strict: a tie is below 0

    def _masks(self, error_maps: np.ndarray) -> np.ndarray:
        return error_maps >= error_maps.dtype.type(self.anomaly_threshold)

    def _rows(self, error_maps: np.ndarray) -> np.ndarray:
        return self._masks(error_maps).reshape(len(error_maps), -1).view(np.uint8)

    def _gaps(self, rows: np.ndarray) -> np.ndarray:
        """abs(d0 - d1) of each row."""
        counts = self.counts_.reshape(2, -1)
        norms = rows.sum(axis=1, dtype=np.int64)
        first, second = np.sqrt(_squared_distances(rows, norms, counts, self.sizes_))
        return np.abs(first - second)


class Clusters(NamedTuple):
    """2-means of rows of 0 and 1; a centroid is counts / sizes."""

    labels: np.ndarray  # int64 (n,)
    sizes: np.ndarray  # int64 (2,)
    counts: np.ndarray  # int32 (2, d)


def two_means(rows: np.ndarray, *, seed: int = 0) -> Clusters:
    """`KMeans(2, n_init=1, random_state=seed)` of rows of 0 and 1, uint8 (n, d).

    Rows that are all alike get the label 0 and the same centroid twice.
    """
    n = len(rows)
    if n < 2:
        raise ValueError(f"2-means needs at least 2 maps, got {n}.")
    everyone = _sum_rows(rows, np.ones(n, dtype=bool))
    if (everyone % n == 0).all():
        return Clusters(np.zeros(n, np.int64), np.array([n, n]), np.stack([everyone, everyone]))
    norms = rows.sum(axis=1, dtype=np.int64)
    tolerance = TOL * np.mean(everyone / n * (1 - everyone / n))
    counts, sizes = rows[_seed(rows, norms, seed)].astype(np.int32), np.array([1, 1])
    for _ in range(MAX_ITER):
        labels = _nearest(rows, norms, counts, sizes)
        before = counts / sizes[:, None]
        inside = _sum_rows(rows, labels == 1)
        counts, sizes = np.stack([everyone - inside, inside]), np.bincount(labels, minlength=2)
        if np.sum((counts / sizes[:, None] - before) ** 2) <= tolerance:
            break
    return Clusters(_nearest(rows, norms, counts, sizes), sizes, counts)


def _seed(rows: np.ndarray, norms: np.ndarray, seed: int) -> list[int]:
    """k-means++: a first row at random, then the better of two drawn by squared distance."""
    random = np.random.RandomState(seed)
    first = random.choice(len(rows), p=np.full(len(rows), 1 / len(rows)))
    squared = _squared_to_rows(rows, norms, [first])[0]
    reached = np.searchsorted(np.cumsum(squared), random.uniform(size=2) * squared.sum())
    candidates = np.minimum(reached, len(rows) - 1)
    remaining = np.minimum(squared, _squared_to_rows(rows, norms, candidates)).sum(axis=1)
    return [first, candidates[remaining.argmin()]]


def _squared_to_rows(rows: np.ndarray, norms: np.ndarray, chosen: list[int]) -> np.ndarray:
    """Squared distances of all rows to the chosen ones: float64 (len(chosen), n)."""
    return _squared_distances(rows, norms, rows[chosen].astype(np.int32), np.ones(len(chosen)))


def _nearest(
    rows: np.ndarray, norms: np.ndarray, counts: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    first, second = _squared_distances(rows, norms, counts, sizes)
    return (second < first).astype(np.int64)  # a tie goes to the first, as in scikit-learn


def _squared_distances(
    rows: np.ndarray, norms: np.ndarray, counts: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """Squared distances of rows to the centroids counts / sizes: float64 (k, n)."""
    squares = np.sum(counts.astype(np.float64) ** 2, axis=1)
    squared = norms - 2 * _dots(rows, counts) / sizes[:, None] + (squares / sizes**2)[:, None]
    return np.maximum(squared, 0)


@njit(cache=True, nogil=True, parallel=True)
def _dots(rows, weights):
    """The dot product of each row with each of the weights: int64 (k, n)."""
    dots = np.empty((len(weights), len(rows)), dtype=np.int64)
    for i in prange(len(rows)):
        for k in range(len(weights)):
            total = np.int32(0)  # below 2**31 for up to 131072 rows of 128 * 128
            for j in range(rows.shape[1]):
                total += np.int32(rows[i, j]) * weights[k, j]
            dots[k, i] = total
    return dots


@njit(cache=True, nogil=True)
def _sum_rows(rows, chosen):
    """The sum of the chosen rows: int32 (d,)."""
    total = np.zeros(rows.shape[1], dtype=np.int32)
    for i in range(len(rows)):
        if chosen[i]:
            total += rows[i]
    return total
