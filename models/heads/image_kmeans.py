"""The per-image KMeans head: a tumour is a large enough half of the brighter kind.

Owns 2-means over the points of one map, with the labels of `sklearn.cluster.KMeans`: its seeding,
its iterations, its tolerance, its tie. Knows nothing of the maps' use.
"""

import numpy as np
from numba import njit, prange

from models.heads.head import Head, check_integer, check_unit, mask_shares
from models.heads.kept_maps import KeptMaps
from models.heads.on_device import image_kmeans as on_device
from models.heads.points import coordinates

MAX_ITER, TOL = 300, 1e-4  # scikit-learn's defaults


class ImageKMeans(Head):
    """Tumour iff the cluster with the larger mean error, of 2-means over the points
    (error, x/2, y/2) of one image, holds >= `tumor_index` of the pixels.

    A map of one error has no such cluster: its mask is empty and its share 0.
    """

    def __init__(self, tumor_index: float = 0.1, seed: int = 0):
        self.tumor_index = tumor_index
        self.seed = seed

    def _check_parameters(self) -> None:
        check_unit("tumor_index", self.tumor_index)
        check_integer("seed", self.seed, at_least=0)

    @property
    def border(self) -> float:
        """A share of the pixels."""
        return self.tumor_index

    def _scores(self, maps: KeptMaps) -> np.ndarray:
        return mask_shares(self._masks(maps)) - self.tumor_index

    def _masks(self, maps: KeptMaps) -> np.ndarray:
        return maps.once(("image kmeans", self.seed), lambda: self._cluster(maps))

    def _cluster(self, maps: KeptMaps) -> np.ndarray:
        y, x = map(coordinates, maps.shape)
        draws = _draws(self.seed, x.size * y.size)
        if maps.on_device is not None:
            return on_device.brighter_clusters(maps.on_device, *draws)
        masks = np.zeros(maps.values.shape, dtype=bool)
        _brighter_clusters(maps.values, x, y, *draws, masks)
        return masks


def two_means(maps: KeptMaps, *, seed: int = 0) -> np.ndarray:
    """Labels, int64 (n, h, w): `KMeans(2, n_init=1, random_state=seed)` on each map's points."""
    y, x = map(coordinates, maps.shape)
    draws = _draws(seed, x.size * y.size)
    if maps.on_device is not None:
        return on_device.two_means(maps.on_device.double(), *draws).cpu().numpy().astype(np.int64)
    errors = maps.values.astype(np.float64)
    return np.stack([_two_means(one, x, y, *draws) for one in errors]).astype(np.int64)


def _draws(seed: int, n_points: int) -> tuple[int, np.ndarray]:
    """What k-means++ draws, the same for every map: the first centre, and where in the sum of
    squared distances to look for the two candidates of the second."""
    random = np.random.RandomState(seed)
    first = random.choice(n_points, p=np.full(n_points, 1 / n_points))
    return first, random.uniform(size=2)


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _distances(errors, x, y, center, squared):
    """Write each pixel's squared distance to the pixel number `center`; return their sum."""
    row, column = divmod(center, len(x))
    total = 0.0
    for i in range(len(y)):
        for j in range(len(x)):
            error = errors[i, j] - errors[row, column]
            squared[i, j] = error**2 + (x[j] - x[column]) ** 2 + (y[i] - y[row]) ** 2
            total += squared[i, j]
    return total


@njit(cache=True, nogil=True)
def _reach(squared, target):
    """The first pixel at which the running sum reaches the target, or the last pixel."""
    total = 0.0
    for i, value in enumerate(squared.flat):
        total += value
        if total >= target:
            return i
    return squared.size - 1


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _remaining(squared, candidate):
    """The sum of squared distances once the candidate is a centre too."""
    total = 0.0
    for i in range(squared.shape[0]):
        for j in range(squared.shape[1]):
            total += min(squared[i, j], candidate[i, j])
    return total


@njit(cache=True, nogil=True)
def _second_center(errors, x, y, first, draws):
    """The better of k-means++'s two candidates for the second centre."""
    squared, candidate = np.empty(errors.shape), np.empty(errors.shape)
    total = _distances(errors, x, y, first, squared)
    best, least = -1, np.inf
    for draw in draws:
        center = _reach(squared, draw * total)
        _distances(errors, x, y, center, candidate)
        remaining = _remaining(squared, candidate)
        if remaining < least:
            best, least = center, remaining
    return best


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _sum_above(errors, slope, steps, bound, x):
    """Over the pixels of a row on the second centre's side: their number, sum of errors, of x."""
    n, sum_error, sum_x = 0, 0.0, 0.0
    for j in range(len(x)):
        above = errors[j] * slope + steps[j] > bound
        n += above
        sum_error += errors[j] if above else 0.0
        sum_x += x[j] if above else 0.0
    return n, sum_error, sum_x


@njit(cache=True, nogil=True)
def _half_space(centers):
    """(normal, bound) of the points nearer to the second centre: point . normal > bound."""
    normal = centers[1] - centers[0]
    return normal, (np.sum(centers[1] ** 2) - np.sum(centers[0] ** 2)) / 2


@njit(cache=True, nogil=True)
def _new_centers(errors, x, y, centers, total):
    normal, bound = _half_space(centers)
    n, sums, steps = 0, np.zeros(3), normal[1] * x
    for i in range(len(y)):
        row_n, sum_error, sum_x = _sum_above(
            errors[i], normal[0], steps, bound - normal[2] * y[i], x
        )
        n += row_n
        sums += np.array([sum_error, sum_x, row_n * y[i]])
    moved = np.empty((2, 3))
    moved[0], moved[1] = (total - sums) / (errors.size - n), sums / n
    return moved


@njit(cache=True, nogil=True)
def _two_means(errors, x, y, first, draws):
    """Which pixels belong to the second centre, bool (h, w)."""
    height, width = errors.shape
    second = _second_center(errors, x, y, first, draws)
    centers = np.empty((2, 3))
    for k, pixel in enumerate((first, second)):
        i, j = divmod(pixel, width)
        centers[k] = np.array([errors[i, j], x[j], y[i]])
    total = np.array([errors.sum(), x.sum() * height, y.sum() * width])
    tolerance = TOL * (errors.var() + x.var() + y.var()) / 3
    for _ in range(MAX_ITER):
        moved = _new_centers(errors, x, y, centers, total)
        shift = np.sum((moved - centers) ** 2)
        centers = moved
        if shift <= tolerance:
            break
    normal, bound = _half_space(centers)
    labels = np.empty(errors.shape, dtype=np.bool_)
    for i in range(height):
        labels[i] = errors[i] * normal[0] + normal[1] * x > bound - normal[2] * y[i]
    return labels


@njit(cache=True, nogil=True)
def _brighter_cluster(errors, x, y, first, draws, mask):
    """Write the cluster with the larger mean error, if the map has more than one error."""
    if errors.min() == errors.max():
        return
    labels = _two_means(errors, x, y, first, draws)
    n = labels.sum()
    inside = (errors * labels).sum()
    outside = errors.sum() - inside
    mask[:] = labels == (inside / n > outside / (labels.size - n))


@njit(cache=True, nogil=True, parallel=True)
def _brighter_clusters(error_maps, x, y, first, draws, masks):
    for i in prange(len(error_maps)):
        _brighter_cluster(error_maps[i].astype(np.float64), x, y, first, draws, masks[i])
