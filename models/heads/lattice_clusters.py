"""DBSCAN on the pixel lattice, with the labels and core samples of `sklearn.cluster.DBSCAN`.

Errors are compared as levels of two bytes, some rows at a time; only where levels leave a doubt
is a pair compared as scikit-learn does it, the squares summed in float64 in its order. Rows are
left as soon as nothing in them is open. Knows nothing of the maps' use.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from models.heads.lattice import FAR, N_LEVELS, Lattice

ROWS = 4  # that are compared with others at a time
BATCH = 32  # steps between two looks at whether rows are done
FEW = 1 / 8  # of the pixels of some rows: fewer are looked at one by one


class LabelledMaps(NamedTuple):
    """The clusters of maps, numbered from 0 on as scikit-learn numbers them."""

    labels: np.ndarray  # whole numbers (n, h, w), the dtype's largest for noise
    core: np.ndarray  # bool (n, h, w)


def label_maps(error_maps: np.ndarray, lattice: Lattice, min_samples: int) -> LabelledMaps:
    """The clusters of each map, float (n, h, w)."""
    labels = np.empty(error_maps.shape, dtype=_label_type(error_maps))
    core = np.empty(error_maps.shape, dtype=bool)
    _label_maps(error_maps, min_samples, lattice, labels, core)
    return LabelledMaps(labels, core)


def largest_clusters(error_maps: np.ndarray, lattice: Lattice, min_samples: int) -> np.ndarray:
    """The pixels of each map's largest cluster, bool (n, h, w); of equals, the first one's."""
    masks = np.zeros(error_maps.shape, dtype=bool)
    _mark_largest(label_maps(error_maps, lattice, min_samples).labels, masks)
    return masks


def _label_type(error_maps: np.ndarray) -> type[np.unsignedinteger]:
    """Short numbers where there are enough for the pixels and for noise: compared faster."""
    return np.uint16 if error_maps[0].size < FAR else np.uint32


@njit(cache=True, nogil=True, parallel=True)
def _label_maps(error_maps, min_samples, lattice, labels, core):
    for i in prange(len(error_maps)):
        errors = error_maps[i].astype(np.float64)
        _label_map(errors, min_samples, lattice, labels[i], core[i])


@njit(cache=True, nogil=True)
def _mark_largest(labels, masks):
    none = labels.dtype.type(-1)
    for i in range(len(labels)):
        sizes = np.zeros(labels[i].size, np.int64)
        for label in labels[i].flat:
            if label != none:
                sizes[label] += 1
        largest = sizes.argmax()
        if sizes[largest] > 0:
            masks[i] = labels[i] == largest


@njit(cache=True, nogil=True)
def _label_map(error_map, min_samples, lattice, labels, core):
    """Write one map's labels and core pixels."""
    levels = _as_levels(error_map, lattice)
    cores = _find_cores(error_map, levels, min_samples, lattice)
    clusters = np.full(len(levels), labels.dtype.type(-1))
    parent = _number_groups(error_map, cores, lattice, clusters)
    n = _join_groups(error_map, cores, lattice, clusters, parent)
    for y in range(lattice.height):
        i = _at(lattice, y, 0)
        core[y] = cores[i : i + lattice.width] != FAR
        labels[y] = clusters[i : i + lattice.width]
    if n > 0:
        _label_borders(error_map, levels, cores, lattice, clusters, labels)


@njit(cache=True, nogil=True)
def _at(lattice, y, x):
    """Where a pixel lies along the frame."""
    return (y + lattice.reach_y) * (lattice.width + 2 * lattice.reach_x) + lattice.reach_x + x


@njit(cache=True, nogil=True)
def _as_levels(error_map, lattice):
    """The errors as levels, in a frame of FAR: nothing is near to what is outside."""
    size = (lattice.height + 2 * lattice.reach_y) * (lattice.width + 2 * lattice.reach_x)
    levels = np.full(size, np.uint16(FAR))
    for y in range(lattice.height):
        start = _at(lattice, y, 0)
        for x in range(lattice.width):
            levels[start + x] = np.uint16(error_map[y, x] * (N_LEVELS - 1))
    return levels


@njit(cache=True, nogil=True, inline="always")
def _apart(a, b):
    return np.uint16(max(a, b) - min(a, b))


@njit(cache=True, nogil=True)
def _near(error_map, y, x, k, lattice):
    """Whether the pixel at step k from (y, x), if it is one of the map, is within eps of it."""
    dy, dx = lattice.steps[k]
    if not (0 <= y + dy < lattice.height and 0 <= x + dx < lattice.width):
        return False
    apart = error_map[y, x] - error_map[y + dy, x + dx]
    squared_y = lattice.squared_y[dy + lattice.reach_y, y]
    squared_x = lattice.squared_x[dx + lattice.reach_x, x]
    # scikit-learn's order of summing: error, x, y
    return apart * apart + squared_x + squared_y <= lattice.eps_squared


@njit(cache=True, nogil=True)
def _find_cores(error_map, levels, min_samples, lattice):
    """The levels of the pixels with min_samples neighbours, themselves included; others FAR."""
    cores = np.full_like(levels, np.uint16(FAR))
    size = _at(lattice, ROWS, 0) - _at(lattice, 0, 0)
    sure, possible = np.empty(size, np.uint16), np.empty(size, np.uint16)
    least, most = np.empty(size, np.int64), np.empty(size, np.int64)
    for y in range(0, lattice.height, ROWS):
        n_rows = min(ROWS, lattice.height - y)
        _bound_counts(levels, y, n_rows, min_samples, lattice, sure, possible, least, most)
        for row in range(y, y + n_rows):
            for x in range(lattice.width):
                i = _at(lattice, row, x)
                j = i - _at(lattice, y, 0)
                if least[j] >= min_samples or (
                    most[j] >= min_samples and _is_core(error_map, row, x, min_samples, lattice)
                ):
                    cores[i] = levels[i]
    return cores


@njit(cache=True, nogil=True)
def _bound_counts(levels, y, n_rows, min_samples, lattice, sure, possible, least, most):
    """Write how many neighbours pixels of some rows have at least and at most, or enough of it to
    tell whether that is min_samples."""
    start, stop = _at(lattice, y, 0), _at(lattice, y + n_rows - 1, lattice.width)
    here, n = levels[start:stop], len(lattice.shifts)
    least[:], most[:] = 1, 1 + n  # each pixel is its own neighbour
    for first in range(0, n, BATCH):
        last = min(first + BATCH, n)
        sure[:], possible[:] = 0, 0
        for k in range(first, last):
            there = levels[start + lattice.shifts[k] : stop + lattice.shifts[k]]
            _count(here, there, lattice.sure[k], lattice.possible[k], sure, possible)
        n_open = 0
        for row in range(n_rows):
            begin = _at(lattice, row, 0) - _at(lattice, 0, 0)
            for i in range(begin, begin + lattice.width):
                least[i] += sure[i]
                most[i] += np.int64(possible[i]) - (last - first)
                n_open += (least[i] < min_samples) & (most[i] >= min_samples)
        if n_open == 0:
            return


@njit(cache=True, nogil=True)
def _count(here, there, sure_below, possible_below, sure, possible):
    for i in range(len(here)):
        apart = _apart(here[i], there[i])
        sure[i] = np.uint16(sure[i] + np.uint16(apart < sure_below))
        possible[i] = np.uint16(possible[i] + np.uint16(apart < possible_below))


@njit(cache=True, nogil=True)
def _is_core(error_map, y, x, min_samples, lattice):
    """Whether a pixel has min_samples neighbours, by the errors themselves."""
    count = 1
    for k in range(len(lattice.steps)):
        if count >= min_samples:
            break
        count += _near(error_map, y, x, k, lattice)
    return count >= min_samples


@njit(cache=True, nogil=True)
def _number_groups(error_map, cores, lattice, clusters):
    """Number core pixels in order, touching near ones alike; return which numbers are one group's.

    A number's parent is a lower one of its group, or itself where that is the group's first.
    """
    parent = np.empty(np.count_nonzero(cores != FAR), np.int64)
    n = 0
    for y in range(lattice.height):
        start = _at(lattice, y, 0)
        for x in range(lattice.width):
            i, number = start + x, n
            if cores[i] == FAR:
                continue
            for k in lattice.touching:
                j = i + lattice.shifts[k]
                apart = _apart(cores[i], cores[j])
                if apart >= lattice.possible[k]:
                    continue
                if apart >= lattice.sure[k] and not _near(error_map, y, x, k, lattice):
                    continue
                if number == n:
                    number = np.int64(clusters[j])
                elif number != clusters[j]:
                    number = _union(parent, number, clusters[j])
            clusters[i] = number
            if number == n:
                parent[n] = n
                n += 1
    return parent[:n]


@njit(cache=True, nogil=True)
def _find(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _union(parent, i, j):
    """Put the groups of two numbers together; return the first of all their numbers."""
    a, b = _find(parent, i), _find(parent, j)
    parent[max(a, b)] = min(a, b)
    return min(a, b)


@njit(cache=True, nogil=True)
def _join_groups(error_map, cores, lattice, clusters, parent):
    """Number clusters, groups with near core pixels, by their first pixels; how many."""
    n_left = _renumber(clusters, parent)
    meets = np.empty(_at(lattice, ROWS, 0) - _at(lattice, 0, 0), np.bool_)
    for k in range(len(lattice.shifts)):
        shift = lattice.shifts[k]
        if n_left < 2:
            break
        if shift < 0:
            continue  # each pair once
        n_stale = 0
        for y in range(0, lattice.height, ROWS):
            n_rows = min(ROWS, lattice.height - y)
            start, stop = _at(lattice, y, 0), _at(lattice, y + n_rows - 1, lattice.width)
            here, there = slice(start, stop), slice(start + shift, stop + shift)
            possible, of_here, of_there = lattice.possible[k], clusters[here], clusters[there]
            if _mark_meeting(cores[here], cores[there], possible, of_here, of_there, meets):
                n_stale += _join_rows(
                    error_map, cores, y, n_rows, k, lattice, meets, clusters, parent
                )
        if n_stale > lattice.width:
            n_left = _renumber(clusters, parent)
    _renumber(clusters, parent)
    return _rank(clusters, parent)


@njit(cache=True, nogil=True)
def _mark_meeting(here, there, possible_below, clusters_here, clusters_there, meets):
    """Write where pixels of different groups are possibly near; whether there are any."""
    found = False
    for i in range(len(here)):
        near = _apart(here[i], there[i]) < possible_below
        meets[i] = near & (clusters_here[i] != clusters_there[i])
        found |= meets[i]
    return found


@njit(cache=True, nogil=True)
def _join_rows(error_map, cores, y, n_rows, k, lattice, meets, clusters, parent):
    """Join the groups that meet in some rows; how many pixels have another number now."""
    n_renumbered = 0
    for row in range(y, y + n_rows):
        for x in range(lattice.width):
            i = _at(lattice, row, x)
            if not meets[i - _at(lattice, y, 0)]:
                continue
            j = i + lattice.shifts[k]
            a, b = _find(parent, clusters[i]), _find(parent, clusters[j])
            if a != b:
                sure = _apart(cores[i], cores[j]) < lattice.sure[k]
                if sure or _near(error_map, row, x, k, lattice):
                    a = b = _union(parent, a, b)
            n_renumbered += (clusters[i] != a) + (clusters[j] != b)
            clusters[i], clusters[j] = a, b
    return n_renumbered


@njit(cache=True, nogil=True)
def _renumber(clusters, parent):
    """Give each core pixel the first number of its group; how many groups there are."""
    n = 0
    for i in range(len(parent)):  # parents come first: one pass makes each a root
        parent[i] = parent[parent[i]]
        n += parent[i] == i
    _replace(clusters, parent)
    return n


@njit(cache=True, nogil=True)
def _rank(clusters, parent):
    """Number the groups that are left without gaps; how many."""
    rank, n = np.empty_like(parent), 0
    for i in range(len(parent)):
        rank[i] = n
        n += parent[i] == i
    _replace(clusters, rank)
    return n


@njit(cache=True, nogil=True)
def _replace(clusters, by):
    """Give each core pixel the number that `by` has for its own."""
    for i in range(len(clusters)):
        if clusters[i] < len(by):
            clusters[i] = by[clusters[i]]


@njit(cache=True, nogil=True)
def _label_borders(error_map, levels, cores, lattice, clusters, labels):
    """Give each border pixel the first cluster that reaches it."""
    none = labels.dtype.type(-1)
    size = _at(lattice, ROWS, 0) - _at(lattice, 0, 0)
    sure, possible = np.empty(size, labels.dtype), np.empty(size, labels.dtype)
    for y in range(0, lattice.height, ROWS):
        n_rows = min(ROWS, lattice.height - y)
        in_reach = clusters[
            _at(lattice, y - lattice.reach_y, 0) : _at(
                lattice, y + n_rows - 1 + lattice.reach_y, lattice.width
            )
        ]
        lowest = in_reach.min()
        n_open = np.count_nonzero(labels[y : y + n_rows] == none)
        if n_open == 0 or lowest == none:
            continue
        sure[:], possible[:] = none, lowest
        if n_open > FEW * n_rows * lattice.width:
            possible[:] = none
            _bound_clusters(levels, cores, y, n_rows, lattice, clusters, lowest, sure, possible)
        for row in range(y, y + n_rows):
            begin = _at(lattice, row, 0) - _at(lattice, y, 0)
            for x in range(lattice.width):
                i = begin + x
                if labels[row, x] == none:
                    labels[row, x] = sure[i]
                    if possible[i] < sure[i]:
                        labels[row, x] = _first_cluster(
                            error_map, row, x, lattice, clusters, sure[i]
                        )


@njit(cache=True, nogil=True)
def _bound_clusters(levels, cores, y, n_rows, lattice, clusters, lowest, sure, possible):
    """Write the first cluster that surely, and that possibly, reaches each pixel of some rows."""
    start, stop = _at(lattice, y, 0), _at(lattice, y + n_rows - 1, lattice.width)
    for k in range(len(lattice.shifts)):
        there = slice(start + lattice.shifts[k], stop + lattice.shifts[k])
        _lower(
            levels[start:stop],
            cores[there],
            lattice.sure[k],
            lattice.possible[k],
            clusters[there],
            sure,
            possible,
        )
        if k % BATCH != BATCH - 1:
            continue
        n_open = 0
        for row in range(n_rows):
            begin = _at(lattice, row, 0) - _at(lattice, 0, 0)
            for i in range(begin, begin + lattice.width):
                n_open += (sure[i] != lowest) & (cores[start + i] == FAR)
        if n_open == 0:
            return


@njit(cache=True, nogil=True)
def _lower(here, there, sure_below, possible_below, clusters, sure, possible):
    for i in range(len(here)):
        apart = _apart(here[i], there[i])
        cluster = clusters[i]  # read always: a load on a condition is not vectorised
        sure[i] = cluster if (apart < sure_below) & (cluster < sure[i]) else sure[i]
        possible[i] = cluster if (apart < possible_below) & (cluster < possible[i]) else possible[i]


@njit(cache=True, nogil=True)
def _first_cluster(error_map, y, x, lattice, clusters, none):
    """The first cluster that reaches a pixel, by the errors themselves; none before `none`."""
    lowest = none
    for k in range(len(lattice.steps)):
        cluster = clusters[_at(lattice, y, x) + lattice.shifts[k]]
        if cluster < lowest and _near(error_map, y, x, k, lattice):
            lowest = cluster
    return lowest
