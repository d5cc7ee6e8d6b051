"""The DBSCAN head: a tumour is a large enough cluster of pixels alike in error and place.

Owns DBSCAN on the pixel lattice, with the labels of `sklearn.cluster.DBSCAN`: only pixels within
`eps` on the lattice can be neighbours, so that each is compared with those alone. The distance
test is scikit-learn's, the squares summed in float64 in its order. Knows nothing of the maps' use.
"""

from numbers import Real
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from models.heads.head import Head, check_integer, check_unit
from models.heads.points import coordinates


class DBSCANHead(Head):
    """Tumour iff the largest DBSCAN cluster of the points (error, x/2, y/2), noise left out,
    holds >= `tumor_index` of the image's pixels.

    Of equally large clusters the mask shows scikit-learn's first.
    """

    def __init__(self, eps: float = 0.02, min_samples: int = 60, tumor_index: float = 0.1):
        self.eps = eps
        self.min_samples = min_samples
        self.tumor_index = tumor_index

    def _check_parameters(self) -> None:
        _check_eps(self.eps)
        check_integer("min_samples", self.min_samples, at_least=1)
        check_unit("tumor_index", self.tumor_index)

    @property
    def border(self) -> float:
        """A share of the pixels."""
        return self.tumor_index

    def _scores(self, error_maps: np.ndarray) -> np.ndarray:
        counts = np.array([np.count_nonzero(mask) for mask in self._masks(error_maps)])
        return counts / error_maps[0].size - self.tumor_index

    def _masks(self, error_maps: np.ndarray) -> np.ndarray:
        masks = np.zeros(error_maps.shape, dtype=bool)
        lattice = _lattice(self.eps, error_maps.shape[1:])
        if self.min_samples <= lattice.most_neighbors:
            _largest_clusters(error_maps, self.min_samples, *lattice[1:], masks)
        return masks


class Clusters(NamedTuple):
    """What DBSCAN finds in one map: `labels` int64 (h, w) with noise -1, `core` bool (h, w)."""

    labels: np.ndarray
    core: np.ndarray


def clusters(error_map: np.ndarray, *, eps: float, min_samples: int) -> Clusters:
    """One map's clusters, numbered as `sklearn.cluster.DBSCAN` numbers them."""
    _check_eps(eps)
    lattice = _lattice(eps, error_map.shape)
    roots, core = _cluster(error_map, min_samples, *lattice[1:])
    # a root is the cluster's first core pixel, and scikit-learn numbers clusters in that order
    found, labels = np.unique(roots, return_inverse=True)
    return Clusters(labels.reshape(roots.shape) - int(found[0] == -1), core)


def max_neighbors(eps: float, shape: tuple[int, int] = (128, 128)) -> int:
    """How many pixels can lie within `eps` of one, itself included, whatever the errors are.

    With `min_samples` above it no map has a cluster.
    """
    _check_eps(eps)
    return _lattice(eps, shape).most_neighbors


def min_feasible_eps(min_samples: int, shape: tuple[int, int] = (128, 128)) -> float:
    """The smallest `eps` with which `min_samples` pixels can be neighbours of one."""
    check_integer("min_samples", min_samples, at_least=1)
    height, width = shape
    if min_samples > height * width:
        raise ValueError(f"min_samples must be at most {height * width}, got {min_samples}.")
    from_center = np.add.outer(_nearest_steps(height), _nearest_steps(width))
    squared = np.partition(from_center.ravel(), min_samples - 1)[min_samples - 1]
    eps = np.sqrt(squared)
    while eps * eps < squared or eps == 0:
        eps = np.nextafter(eps, 1)
    return float(eps)


class _Lattice(NamedTuple):
    """Which pixels can be neighbours at one `eps`, in an image of one shape."""

    most_neighbors: int
    eps_squared: float
    offsets: np.ndarray  # int64 (k, 2): steps (dy, dx), the nearest first, (0, 0) left out
    squared_y: np.ndarray  # float64 (2 * reach_y + 1, h): the squared way from y to y + dy
    squared_x: np.ndarray  # float64 (2 * reach_x + 1, w)


def _lattice(eps: float, shape: tuple[int, int]) -> _Lattice:
    height, width = shape
    eps_squared = float(eps) * float(eps)
    near_y, near_x = _nearest_steps(height), _nearest_steps(width)
    most = np.count_nonzero(np.add.outer(near_y, near_x) <= eps_squared)
    squared_y, squared_x = _squared_steps(height, eps_squared), _squared_steps(width, eps_squared)
    nearest = np.add.outer(squared_y.min(axis=1), squared_x.min(axis=1))
    steps = np.argwhere(nearest <= eps_squared)
    steps = steps[np.argsort(nearest[tuple(steps.T)], kind="stable")][1:]
    reach = np.array([len(squared_y) // 2, len(squared_x) // 2])
    return _Lattice(int(most), eps_squared, steps - reach, squared_y, squared_x)


def _nearest_steps(length: int) -> np.ndarray:
    """The squared way from a middle pixel to each of a row, rounding in the neighbour's favour."""
    squared = _squared_steps(length, np.inf).min(axis=1)
    middle = length // 2
    return squared[length - 1 - middle : 2 * length - 1 - middle]


def _squared_steps(length: int, limit: float) -> np.ndarray:
    """The squared way from each pixel of a row to the one d steps on; inf where there is none.

    Row d + reach, for d in -reach ... reach, the furthest step within the limit. Differences of
    the coordinates themselves: one step's length varies in its last bit along the row.
    """
    place = coordinates(length)
    squared = np.full((2 * length - 1, length), np.inf)
    for d in range(1 - length, length):
        here = slice(max(0, -d), min(length, length - d))
        there = slice(here.start + d, here.stop + d)
        squared[d + length - 1, here] = (place[there] - place[here]) ** 2
    reach = np.count_nonzero(squared.min(axis=1) <= limit) // 2
    return squared[length - 1 - reach : length + reach]


@njit(cache=True, nogil=True, inline="always")
def _near(a, b, squared_x, squared_y, eps_squared):
    # scikit-learn's order of summing: error, x, y
    return (a - b) * (a - b) + squared_x + squared_y <= eps_squared


@njit(cache=True, nogil=True)
def _pad(error_map, reach_y, reach_x):
    """The map in a frame of inf: nothing is near to what is outside."""
    height, width = error_map.shape
    padded = np.full((height + 2 * reach_y, width + 2 * reach_x), np.inf)
    padded[reach_y : reach_y + height, reach_x : reach_x + width] = error_map
    return padded


@njit(cache=True, nogil=True)
def _count_near(here, there, squared_x, squared_y, eps_squared, counts):
    for x in range(len(here)):
        counts[x] += _near(here[x], there[x], squared_x[x], squared_y, eps_squared)


@njit(cache=True, nogil=True)
def _any_unlinked(here, there, squared_x, squared_y, eps_squared, roots_here, roots_there):
    found = False
    for x in range(len(here)):
        near = _near(here[x], there[x], squared_x[x], squared_y, eps_squared)
        found |= near & (roots_here[x] != roots_there[x])
    return found


@njit(cache=True, nogil=True)
def _lower_roots(here, cores, squared_x, squared_y, eps_squared, roots, lowest):
    for x in range(len(here)):
        near = _near(here[x], cores[x], squared_x[x], squared_y, eps_squared)
        root = roots[x]  # read always: a load on a condition is not vectorised
        lowest[x] = root if near & (root < lowest[x]) else lowest[x]


@njit(cache=True, nogil=True)
def _find(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _keep_cores(padded, min_samples, eps_squared, offsets, squared_y, squared_x):
    """The padded map with inf in place of each pixel of fewer than min_samples neighbours."""
    height, width = squared_y.shape[1], squared_x.shape[1]
    reach_y, reach_x = len(squared_y) // 2, len(squared_x) // 2
    cores = np.full_like(padded, np.inf)
    for y in range(height):
        here = padded[y + reach_y, reach_x : reach_x + width]
        counts = np.ones(width, dtype=np.int64)  # each pixel is its own neighbour
        for k in range(len(offsets)):
            dy, dx = offsets[k]
            there = padded[y + reach_y + dy, reach_x + dx : reach_x + dx + width]
            step_x, step_y = squared_x[reach_x + dx], squared_y[reach_y + dy, y]
            _count_near(here, there, step_x, step_y, eps_squared, counts)
        for x in range(width):
            if counts[x] >= min_samples:
                cores[y + reach_y, x + reach_x] = here[x]
    return cores


@njit(cache=True, nogil=True)
def _link_cores(cores, eps_squared, offsets, squared_y, squared_x):
    """The first pixel of each core pixel's cluster, as an index into the padded map."""
    height, width = squared_y.shape[1], squared_x.shape[1]
    reach_y, reach_x = len(squared_y) // 2, len(squared_x) // 2
    parent = np.arange(cores.size)
    roots = parent.reshape(cores.shape)
    for k in range(len(offsets)):
        dy, dx = offsets[k]
        if dy < 0 or (dy == 0 and dx < 0):
            continue  # each pair once
        linked = False
        for y in range(reach_y, reach_y + height - dy):
            here, there = cores[y, reach_x : reach_x + width], cores[y + dy, reach_x + dx :]
            roots_here, roots_there = roots[y, reach_x:], roots[y + dy, reach_x + dx :]
            step_x, step_y = squared_x[reach_x + dx], squared_y[reach_y + dy, y - reach_y]
            if not _any_unlinked(here, there, step_x, step_y, eps_squared, roots_here, roots_there):
                continue
            linked = True
            for x in range(width):
                if _near(here[x], there[x], step_x[x], step_y, eps_squared):
                    a, b = _find(parent, roots_here[x]), _find(parent, roots_there[x])
                    parent[max(a, b)] = min(a, b)
        if linked:
            for i in range(len(parent)):  # parents come first: one pass makes each a root
                parent[i] = parent[parent[i]]
    return roots


@njit(cache=True, nogil=True)
def _cluster(error_map, min_samples, eps_squared, offsets, squared_y, squared_x):
    """The root of each pixel's cluster, -1 for noise, and which pixels are core."""
    height, width = error_map.shape
    reach_y, reach_x = len(squared_y) // 2, len(squared_x) // 2
    padded = _pad(error_map, reach_y, reach_x)
    cores = _keep_cores(padded, min_samples, eps_squared, offsets, squared_y, squared_x)
    roots = _link_cores(cores, eps_squared, offsets, squared_y, squared_x)
    labels = np.empty((height, width), dtype=np.int64)
    core = np.empty((height, width), dtype=np.bool_)
    for y in range(height):
        core[y] = np.isfinite(cores[y + reach_y, reach_x : reach_x + width])
        labels[y] = roots[y + reach_y, reach_x : reach_x + width]
        if core[y].all():
            continue
        # a border pixel goes to the first cluster that reaches it
        here = padded[y + reach_y, reach_x : reach_x + width]
        lowest = np.full(width, roots.size)
        for k in range(len(offsets)):
            dy, dx = offsets[k]
            there = cores[y + reach_y + dy, reach_x + dx : reach_x + dx + width]
            step_x, step_y = squared_x[reach_x + dx], squared_y[reach_y + dy, y]
            roots_there = roots[y + reach_y + dy, reach_x + dx :]
            _lower_roots(here, there, step_x, step_y, eps_squared, roots_there, lowest)
        for x in range(width):
            if not core[y, x]:
                labels[y, x] = lowest[x] if lowest[x] < roots.size else -1
    return labels, core


@njit(cache=True, nogil=True)
def _largest_cluster(error_map, min_samples, eps_squared, offsets, squared_y, squared_x, mask):
    """Write the largest cluster; of equals, the one whose core comes first."""
    roots, _ = _cluster(error_map, min_samples, eps_squared, offsets, squared_y, squared_x)
    sizes = np.zeros(roots.max() + 2, dtype=np.int64)
    for root in roots.flat:
        if root >= 0:
            sizes[root] += 1
    largest = sizes.argmax()
    if sizes[largest] > 0:
        mask[:] = roots == largest


@njit(cache=True, nogil=True, parallel=True)
def _largest_clusters(error_maps, min_samples, eps_squared, offsets, squared_y, squared_x, masks):
    for i in prange(len(error_maps)):
        _largest_cluster(
            error_maps[i], min_samples, eps_squared, offsets, squared_y, squared_x, masks[i]
        )


def _check_eps(eps: float) -> None:
    if not isinstance(eps, Real) or not 0 < eps < np.inf:
        raise ValueError(f"eps must be a number above 0, got {eps!r}.")
