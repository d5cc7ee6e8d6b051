"""Global KMeans: a tumour is a map that lies between the two kinds of map.

Owns 2-means over binarised maps, with the labels of `sklearn.cluster.KMeans`: its seeding, its
iterations, its tolerance. Of rows of 0 and 1 every sum is a whole number: distances are exact, do
not depend on the order of summing, and are counted 64 pixels at a time. Knows nothing of the maps'
use.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.linalg.blas import dgemm
from sklearn.utils.extmath import row_norms

from models.heads.head import Head, at_least, check_integer, check_unit
from models.heads.kept_maps import KeptMaps

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
        clusters = cluster(_rows(self._masks(maps)), self._bits(maps), seed=self.seed)
        self.counts_ = clusters.counts.reshape(2, *maps.shape)
        self.sizes_ = clusters.sizes
        self.scale_ = float(self._gaps(maps).max())

    def _scores(self, maps: KeptMaps) -> np.ndarray:
        margins = self.border - self._gaps(maps)
        return np.nextafter(margins, -np.inf)  # the rule is strict: a tie is below 0

    def _masks(self, maps: KeptMaps) -> np.ndarray:
        return at_least(maps, self.anomaly_threshold)

    def _bits(self, maps: KeptMaps) -> np.ndarray:
        name = "bits", maps.values.dtype.type(self.anomaly_threshold)
        return maps.once(name, lambda: _pack(_rows(self._masks(maps))))

    def _gaps(self, maps: KeptMaps) -> np.ndarray:
        """abs(d0 - d1) of each binarised map."""
        bits = self._bits(maps)
        first, second = _squared_distances(bits, self.counts_.reshape(2, -1), self.sizes_)
        return np.abs(np.sqrt(first) - np.sqrt(second))


class Clusters(NamedTuple):
    """2-means of rows of 0 and 1; a centroid is counts / sizes."""

    labels: np.ndarray  # int64 (n,)
    counts: np.ndarray  # int32 (2, d)
    sizes: np.ndarray  # int64 (2,)


def two_means(rows: np.ndarray, *, seed: int = 0) -> Clusters:
    """`KMeans(2, n_init=1, random_state=seed)` of rows of 0 and 1, uint8 (n, d).

    Rows that are all alike get the label 0 and the same centroid twice.
    """
    return cluster(rows, _pack(rows), seed=seed)


def cluster(rows: np.ndarray, bits: np.ndarray, *, seed: int) -> Clusters:
    """The same where the rows are at hand as bits too, uint64 (n, words)."""
    n = len(rows)
    if n < 2:
        raise ValueError(f"2-means needs at least 2 error maps, got {n}.")
    everyone = _move_rows(rows, np.ones(n, dtype=np.int64), np.zeros(rows.shape[1], np.int32))
    if (everyone % n == 0).all():
        return Clusters(np.zeros(n, np.int64), np.stack([everyone] * 2), np.array([n, n]))
    mean = everyone / n
    tolerance = TOL * np.mean(mean * (1 - mean))
    counts, sizes = rows[_seed(rows, bits, seed)].astype(np.int32), np.array([1, 1])
    dots = np.stack([_dots(bits, _planes(each)) for each in counts])
    norms, of_everyone = _dots(bits, _pack(np.ones_like(rows[:1]))), _dots(bits, _planes(everyone))
    labels, inside = np.zeros(n, np.int64), np.zeros_like(everyone)
    for _ in range(MAX_ITER):
        before, centroids = labels, counts / sizes[:, None]
        labels = _nearest(rows, norms, dots, counts, sizes, mean)
        inside = _move_rows(rows, labels - before, inside)
        of_inside = _dots(bits, _planes(inside))
        counts, sizes = np.stack([everyone - inside, inside]), np.bincount(labels, minlength=2)
        dots = np.stack([of_everyone - of_inside, of_inside])
        if np.sum((counts / sizes[:, None] - centroids) ** 2) <= tolerance:
            break
    return Clusters(_nearest(rows, norms, dots, counts, sizes, mean), counts, sizes)


def _seed(rows: np.ndarray, bits: np.ndarray, seed: int) -> list[int]:
    """k-means++: a first row at random, then the better of two drawn by squared distance."""

    def squared_to(chosen: np.ndarray) -> np.ndarray:
        return _squared_distances(bits, rows[chosen].astype(np.int32), np.ones(len(chosen)))

    random = np.random.RandomState(seed)  # scikit-learn's generator
    first = random.choice(len(rows), p=np.full(len(rows), 1 / len(rows)))
    squared = squared_to([first])
    reached = np.searchsorted(np.cumsum(squared), random.uniform(size=2) * squared.sum())
    candidates = np.minimum(reached, len(rows) - 1)
    remaining = np.minimum(squared, squared_to(candidates)).sum(axis=1)
    return [first, candidates[remaining.argmin()]]


def _nearest(
    rows: np.ndarray,
    norms: np.ndarray,
    dots: np.ndarray,
    counts: np.ndarray,
    sizes: np.ndarray,
    mean: np.ndarray,
) -> np.ndarray:
    """The number of the nearer centroid, 0 or 1, of each row; its norms and dots are at hand.

    A row is often as near to one row as to another: then scikit-learn's rounding decides.
    """
    first, second = _distances(norms, dots, counts, sizes)
    tied = np.flatnonzero(first == second)
    if len(tied):
        centroids = counts / sizes[:, None] - mean
        product_rows = max(len(tied), min(CHUNK_SIZE, len(rows)))
        centered = np.zeros((product_rows, rows.shape[1]))
        centered[: len(tied)] = rows[tied] - mean
        first[tied], second[tied] = _rounded_distances(centered, centroids)[:, : len(tied)]
    return (second < first).astype(np.int64)


def _rounded_distances(centered: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Squared distances less the rows' own squares, (2, n), to the last bit as in scikit-learn.

    That is its one product of BLAS, of as many rows at a time: other shapes round otherwise.
    """
    squares = np.repeat(row_norms(centroids, squared=True)[:, None], len(centered), axis=1)
    return dgemm(-2, centroids.T, centered.T, beta=1, c=np.asfortranarray(squares), trans_a=True)


def _squared_distances(bits: np.ndarray, counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Squared distances of packed rows to the centroids counts / sizes: float64 (k, n)."""
    norms = _dots(bits, _pack(np.ones_like(counts[:1])))
    dots = np.stack([_dots(bits, _planes(each)) for each in counts])
    return _distances(norms, dots, counts, sizes)


def _distances(
    norms: np.ndarray, dots: np.ndarray, counts: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """The same from the rows' norms (n,) and their dot products with the counts (k, n)."""
    squares = np.sum(counts.astype(np.float64) ** 2, axis=1) / sizes**2
    return np.maximum(norms - 2 * (dots / sizes[:, None]) + squares[:, None], 0)


def _rows(masks: np.ndarray) -> np.ndarray:
    """Masks, bool (n, h, w), as rows of 0 and 1: uint8 (n, h * w)."""
    return masks.reshape(len(masks), -1).view(np.uint8)


def _pack(rows: np.ndarray) -> np.ndarray:
    """Rows of 0 and 1, 64 to a word: uint64 (n, words), filled up with 0."""
    bytes_of_rows = np.packbits(rows, axis=1)
    n_bytes = bytes_of_rows.shape[1]
    packed = np.zeros((len(rows), n_bytes + -n_bytes % 8), dtype=np.uint8)
    packed[:, :n_bytes] = bytes_of_rows
    return packed.view(np.uint64)


def _planes(weights: np.ndarray) -> np.ndarray:
    """Whole numbers (d,) as packed binary digits, the ones first: uint64 (digits, words)."""
    digits = np.arange(max(1, int(weights.max()).bit_length()))
    return _pack((weights >> digits[:, None] & 1).astype(np.uint8))


@njit(cache=True, nogil=True)
def _popcount(word):
    """How many bits are 1, in the form that the compiler knows as one instruction."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    pairs = np.uint64(0x3333333333333333)
    word = (word & pairs) + ((word >> np.uint64(2)) & pairs)
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit(cache=True, nogil=True)
def _dots(bits, planes):
    """The dot products of packed rows with the whole numbers in the planes: int64 (n,).

    On one thread: a third of a millisecond is less than threads may wait for one another.
    """
    dots = np.zeros(len(bits), dtype=np.int64)
    for i in range(len(bits)):
        for digit in range(len(planes)):
            ones = np.uint64(0)
            for word in range(bits.shape[1]):
                ones += _popcount(bits[i, word] & planes[digit, word])
            dots[i] += np.int64(ones) << digit
    return dots


@njit(cache=True, nogil=True)
def _move_rows(rows, moves, total):
    """The total with each row added (1), taken away (-1) or left out (0): int32 (d,)."""
    moved = total.copy()
    for i in range(len(rows)):
        move = np.int32(moves[i])
        if move != 0:
            for j in range(len(moved)):
                moved[j] += move * np.int32(rows[i, j])
    return moved
