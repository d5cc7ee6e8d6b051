"""Global KMeans: a tumour is a map that lies between the two kinds of map.

Owns 2-means over binarised maps, with the labels of `sklearn.cluster.KMeans`: its seeding, its
iterations, its tolerance. Of rows of 0 and 1 every sum is a whole number: distances are exact and
do not depend on the order of summing. Knows nothing of the maps' use.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg.blas import dgemm
from sklearn.cluster import kmeans_plusplus
from sklearn.utils.extmath import row_norms

from models.heads.binary_rows import BitRows, Rows
from models.heads.head import Head, at_least, check_integer, check_unit
from models.heads.kept_maps import KeptMaps
from models.heads.on_device.rows import DeviceRows

MAX_ITER, TOL = 300, 1e-4  # scikit-learn's defaults
CHUNK_SIZE = 256  # the rows that scikit-learn multiplies at a time


class GlobalKMeans(Head):
    """Tumour iff `abs(d0 - d1) < alpha * max abs(d0 - d1)`, d0 and d1 a binarised map's distances
    to the two centroids of the maps in `fit`; the maximum is taken over those maps and kept.

    Pixels are 1 where the error is >= `anomaly_threshold`. When all binarised maps are alike there
    is one centroid twice, the maximum is 0 and nothing is flagged.

    Learned: `counts_` int32 (2, h, w), in how many maps of each cluster a pixel is 1; `sizes_`
    int64 (2,), the maps in each; `scale_`, the maximum. `centroids_` is counts_ / sizes_.
    """

    def __init__(self, anomaly_threshold: float = 0.5, alpha: float = 0.1, seed: int = 0):
        self.anomaly_threshold = anomaly_threshold
        self.alpha = alpha
        self.seed = seed

    @property
    def centroids_(self) -> np.ndarray:
        """The two centroids, float64 (2, h, w) in [0, 1]."""
        return self.counts_ / self.sizes_[:, None, None]

    def _check_parameters(self) -> None:
        check_unit("anomaly_threshold", self.anomaly_threshold)
        check_unit("alpha", self.alpha)
        check_integer("seed", self.seed, at_least=0)

    @property
    def border(self) -> float:
        """A difference of two distances, below which a map is a tumour."""
        return self.alpha * self.scale_

    def _learn(self, maps: KeptMaps) -> None:
        clusters = two_means(self._rows(maps), seed=self.seed)
        self.counts_ = clusters.counts.reshape(2, *maps.shape)
        self.sizes_ = clusters.sizes
        self.scale_ = float(self._gaps(maps).max())

    def _scores(self, maps: KeptMaps) -> np.ndarray:
        margins = self.border - self._gaps(maps)
        return np.nextafter(margins, -np.inf)  # the rule is strict: a tie is below 0

    def _masks(self, maps: KeptMaps) -> np.ndarray:
        return at_least(maps, self.anomaly_threshold)

    def _rows(self, maps: KeptMaps) -> Rows:
        threshold = maps.values.dtype.type(self.anomaly_threshold)
        if maps.on_device is None:
            return maps.once(("bits", threshold), lambda: BitRows(self._masks(maps)))
        there = maps.on_device
        return maps.once(("rows", threshold), lambda: DeviceRows(there >= float(threshold)))

    def _gaps(self, maps: KeptMaps) -> np.ndarray:
        """abs(d0 - d1) of each binarised map."""
        squared = _squared_distances(self._rows(maps), self.counts_.reshape(2, -1), self.sizes_)
        return np.abs(np.subtract(*np.sqrt(squared)))


class Clusters(NamedTuple):
    """2-means of rows of 0 and 1; a centroid is counts / sizes."""

    labels: np.ndarray  # int64 (n,)
    counts: np.ndarray  # int32 (2, d)
    sizes: np.ndarray  # int64 (2,)


def two_means(rows: Rows, *, seed: int = 0) -> Clusters:
    """`KMeans(2, n_init=1, random_state=seed)` of rows of 0 and 1.

    Rows that are all alike get the label 0 and the same centroid twice.
    """
    n = len(rows)
    if n < 2:
        raise ValueError(f"2-means needs at least 2 error maps, got {n}.")
    everyone = rows.add(np.ones(n, dtype=np.int64), np.zeros(rows.n_columns, np.int32))
    if (everyone % n == 0).all():
        return Clusters(np.zeros(n, np.int64), np.stack([everyone] * 2), np.array([n, n]))
    mean = everyone / n
    tolerance = TOL * np.mean(mean * (1 - mean))
    counts, sizes = rows.take(_seed(rows, seed)).astype(np.int32), np.array([1, 1])
    *dots, of_everyone = rows.dots(np.stack([*counts, everyone]))
    labels, inside = np.zeros(n, np.int64), np.zeros_like(everyone)
    for _ in range(MAX_ITER):
        before, centroids = labels, counts / sizes[:, None]
        labels = _nearest(rows, np.stack(dots), counts, sizes, mean)
        inside = rows.add(labels - before, inside)
        of_inside = rows.dots(inside[None])[0]
        counts, sizes = np.stack([everyone - inside, inside]), np.bincount(labels, minlength=2)
        dots = of_everyone - of_inside, of_inside
        if np.sum((counts / sizes[:, None] - centroids) ** 2) <= tolerance:
            break
    return Clusters(_nearest(rows, np.stack(dots), counts, sizes, mean), counts, sizes)


def _seed(rows: Rows, seed: int) -> list[int]:
    """k-means++: a first row at random, then the better of two drawn by squared distance.

    Where two rows are equally good, scikit-learn's rounding decides.
    """

    def squared_to(chosen: np.ndarray) -> np.ndarray:
        return _squared_distances(rows, rows.take(chosen), np.ones(len(chosen)))

    random = np.random.RandomState(seed)  # scikit-learn's generator
    first = random.choice(len(rows), p=np.full(len(rows), 1 / len(rows)))
    squared = squared_to([first])
    reached = np.searchsorted(np.cumsum(squared), random.uniform(size=2) * squared.sum())
    candidates = np.minimum(reached, len(rows) - 1)
    remaining = np.minimum(squared, squared_to(candidates)).sum(axis=1)
    if remaining[0] == remaining[1] and np.any(np.diff(rows.take(candidates), axis=0)):
        return _rounded_seed(rows, seed)
    return [first, candidates[remaining.argmin()]]


def _rounded_seed(rows: Rows, seed: int) -> list[int]:
    """scikit-learn's own choice, of rows less their mean as `KMeans` has them."""
    centered = rows.take(np.arange(len(rows))).astype(np.float64)
    centered -= centered.mean(axis=0)
    return list(kmeans_plusplus(centered, 2, random_state=np.random.RandomState(seed))[1])


def _nearest(
    rows: Rows, dots: np.ndarray, counts: np.ndarray, sizes: np.ndarray, mean: np.ndarray
) -> np.ndarray:
    """The number of the nearer centroid, 0 or 1, of each row; its dots are at hand.

    A row is often as near to one row as to another: then scikit-learn's rounding decides.
    """
    first, second = _distances(rows.norms, dots, counts, sizes)
    tied = np.flatnonzero(first == second)
    if len(tied):
        centroids = counts / sizes[:, None] - mean
        first[tied], second[tied] = _rounded_distances(rows, tied, centroids, mean)
    return (second < first).astype(np.int64)


def _rounded_distances(
    rows: Rows, chosen: np.ndarray, centroids: np.ndarray, mean: np.ndarray
) -> np.ndarray:
    """Squared distances of rows less the mean, without the rows' own squares: (2, k).

    To the last bit as in scikit-learn, which multiplies so many rows at a time: their number and a
    row's place among them decide how it is rounded, the other rows do not.
    """
    distances = []
    for start in range(0, len(rows), CHUNK_SIZE):
        some = chosen[(chosen >= start) & (chosen < start + CHUNK_SIZE)]
        if len(some):
            centered = np.zeros((min(CHUNK_SIZE, len(rows) - start), rows.n_columns))
            centered[some - start] = rows.take(some) - mean
            distances.append(_multiplied(centered, centroids)[:, some - start])
    return np.concatenate(distances, axis=1)


def _multiplied(centered: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """scikit-learn's product of BLAS: centroids' squares less twice the dot products, (2, n)."""
    squares = np.repeat(row_norms(centroids, squared=True)[:, None], len(centered), axis=1)
    return dgemm(-2, centroids.T, centered.T, beta=1, c=np.asfortranarray(squares), trans_a=True)


def _squared_distances(rows: Rows, counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Squared distances of rows to the centroids counts / sizes: float64 (k, n)."""
    return _distances(rows.norms, rows.dots(counts), counts, sizes)


def _distances(
    norms: np.ndarray, dots: np.ndarray, counts: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """The same from the rows' norms (n,) and their dot products with the counts (k, n)."""
    squares = np.sum(counts.astype(np.float64) ** 2, axis=1) / sizes**2
    return np.maximum(norms - 2 * (dots / sizes[:, None]) + squares[:, None], 0)
