"""DBSCAN on the pixel lattice, with the labels and core samples of `sklearn.cluster.DBSCAN`.

Errors are compared as levels of two bytes, a block of a row at a time; only where levels leave a
doubt is a pair compared as scikit-learn does it, the squares summed in float64 in its order. Blocks
are left as soon as nothing in them is open. All of it is one file: numba, which keeps what it has
compiled, does not see changes of functions in others. Knows nothing of the maps' use.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numba import get_num_threads, njit, uintp

from models.heads.lattice import BLOCK, FAR, N_LEVELS, Lattice

AT_ONCE = 16  # maps that a thread labels before it takes others
BATCH = 32  # steps between two looks at whether a block is done
FEW = 6  # pixels of a block: so many are looked at one by one
CELL = 4  # pixels: the sides of a cell
BIN = N_LEVELS // 64  # levels for each bit of a word


class LabelledMaps(NamedTuple):
    """The clusters of maps, numbered from 0 on as scikit-learn numbers them."""

    labels: np.ndarray  # whole numbers (n, h, w), the dtype's largest for noise
    core: np.ndarray  # bool (n, h, w)


def label_maps(error_maps: np.ndarray, lattice: Lattice, min_samples: int) -> LabelledMaps:
    """The clusters of each map, float (n, h, w)."""
    labels = np.empty(error_maps.shape, dtype=_label_type(error_maps))
    core = np.empty(error_maps.shape, dtype=bool)
    _side_by_side(
        lambda some: _label_maps(error_maps[some], min_samples, lattice, labels[some], core[some]),
        len(error_maps),
    )
    return LabelledMaps(labels, core)


def largest_clusters(error_maps: np.ndarray, lattice: Lattice, min_samples: int) -> np.ndarray:
    """The pixels of each map's largest cluster, bool (n, h, w); of equals, the first one's."""
    masks = np.empty(error_maps.shape, dtype=bool)
    none = np.array(-1).astype(_label_type(error_maps))[()]
    _side_by_side(
        lambda some: _mark_largest(error_maps[some], min_samples, lattice, none, masks[some]),
        len(error_maps),
    )
    return masks


def _side_by_side(label: Callable[[slice], None], n: int) -> None:
    """Have numba's number of threads label n maps, a few at a time.

    Python's threads, since numba takes ten seconds longer to compile for its own.
    """
    parts = [slice(start, start + AT_ONCE) for start in range(0, n, AT_ONCE)]
    n_threads = min(get_num_threads(), len(parts))
    if n_threads < 2:
        label(slice(n))
        return
    with ThreadPoolExecutor(n_threads) as threads:
        list(threads.map(label, parts))  # raises what one of them raised


def _label_type(error_maps: np.ndarray) -> type[np.unsignedinteger]:
    """Short numbers where there are enough for the pixels and for noise: compared faster."""
    return np.uint16 if error_maps[0].size < FAR else np.uint32


@njit(cache=True, nogil=True)
def _label_maps(error_maps, min_samples, lattice, labels, core):
    for i in range(len(error_maps)):
        _label_map(error_maps[i], min_samples, lattice, labels[i], core[i])


@njit(cache=True, nogil=True)
def _mark_largest(error_maps, min_samples, lattice, none, masks):
    for i in range(len(error_maps)):
        _mark_largest_of(error_maps[i], min_samples, lattice, none, masks[i])


@njit(cache=True, nogil=True)
def _mark_largest_of(error_map, min_samples, lattice, none, mask):
    """Write which of a map's pixels are of its largest cluster; none has the label `none`."""
    labels, sizes = np.full(mask.shape, none), np.zeros(mask.size, np.int64)
    _label_map(error_map, min_samples, lattice, labels, mask)  # its core pixels are overwritten
    for label in labels.flat:
        if label != none:
            sizes[label] += 1
    largest = sizes.argmax()
    for y in range(lattice.height):
        for x in range(lattice.width):
            mask[y, x] = labels[y, x] == largest and sizes[largest] > 0


@njit(cache=True, nogil=True)
def _label_map(error_map, min_samples, lattice, labels, core):
    """Write one map's labels and core pixels."""
    error_map = error_map.astype(np.float64)
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
    levels = np.full(size + BLOCK, np.uint16(FAR))  # a row's last block may go beyond it
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
    least, most = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32)
    for y in range(lattice.height):
        for begin in range(0, lattice.width, BLOCK):
            n = min(BLOCK, lattice.width - begin)
            at = _at(lattice, y, begin)
            _bound_counts(levels, at, n, min_samples, lattice, least, most)
            for i in range(n):
                if least[i] >= min_samples or (
                    most[i] >= min_samples
                    and _is_core(error_map, y, begin + i, min_samples, lattice)
                ):
                    cores[at + i] = levels[at + i]
    return cores


@njit(cache=True, nogil=True)
def _bound_counts(levels, at, n, min_samples, lattice, least, most):
    """Write how many neighbours the first n pixels of a block have at least and at most, or enough
    of it to tell whether that is min_samples."""
    n_steps = len(lattice.shifts)
    counts = np.empty(BLOCK, np.uint16)
    least[:], most[:] = 1, 1 + n_steps  # each pixel is its own neighbour
    for first in range(0, n_steps, BATCH):
        last = min(first + BATCH, n_steps)
        counts[:] = 0
        _count(levels, at, first, last, lattice, counts)
        for i in range(BLOCK):
            least[i] += np.int32(counts[i] >> 8)
            most[i] += np.int32(counts[i] & 255) - np.int32(last - first)
        n_open = 0
        for i in range(n):
            n_open += (least[i] < min_samples) & (most[i] >= min_samples)
        if n_open == 0:
            return


@njit(cache=True, nogil=True)
def _count(levels, at, first, last, lattice, counts):
    """Add for some steps, fewer than 256, how many lead to a near pixel: those that surely do in
    the upper byte of the counts, those that possibly do in the lower."""
    shifts, sure, possible = lattice.shifts, lattice.sure, lattice.possible
    here, k = uintp(at), first
    while k + 3 < last:  # four at a time: the counts are read and written once for them
        a, b = uintp(at + shifts[k]), uintp(at + shifts[k + 1])
        c, d = uintp(at + shifts[k + 2]), uintp(at + shifts[k + 3])
        sure_a, sure_b, sure_c, sure_d = sure[k], sure[k + 1], sure[k + 2], sure[k + 3]
        possible_a, possible_b = possible[k], possible[k + 1]
        possible_c, possible_d = possible[k + 2], possible[k + 3]
        for j in range(BLOCK):
            i = uintp(j)
            level = levels[here + i]
            counts[i] = np.uint16(
                counts[i]
                + _is_near(level, levels[a + i], sure_a, possible_a)
                + _is_near(level, levels[b + i], sure_b, possible_b)
                + _is_near(level, levels[c + i], sure_c, possible_c)
                + _is_near(level, levels[d + i], sure_d, possible_d)
            )
        k += 4
    while k < last:
        a, sure_a, possible_a = uintp(at + shifts[k]), sure[k], possible[k]
        for j in range(BLOCK):
            i = uintp(j)
            near = _is_near(levels[here + i], levels[a + i], sure_a, possible_a)
            counts[i] = np.uint16(counts[i] + near)
        k += 1


@njit(cache=True, nogil=True, inline="always")
def _is_near(a, b, sure_below, possible_below):
    """1 where two levels are possibly near, 256 more where they surely are."""
    apart = _apart(a, b)
    surely = np.uint16(np.uint16(apart < sure_below) << np.uint16(8))
    return np.uint16(surely + np.uint16(apart < possible_below))


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
    n_left, meets = _renumber(clusters, parent), np.empty(BLOCK, np.bool_)
    for k in range(len(lattice.shifts)):
        if n_left < 2:
            break
        if lattice.shifts[k] < 0:
            continue  # each pair once
        n_stale = 0
        for y in range(lattice.height):
            for x in range(0, lattice.width, BLOCK):
                if _mark_meeting(cores, clusters, _at(lattice, y, x), k, lattice, meets):
                    n_stale += _join_block(
                        error_map, cores, y, x, k, lattice, meets, clusters, parent
                    )
        if n_stale > lattice.width:
            n_left = _renumber(clusters, parent)
    _renumber(clusters, parent)
    return _rank(clusters, parent)


@njit(cache=True, nogil=True)
def _mark_meeting(cores, clusters, at, k, lattice, meets):
    """Write where pixels of different groups are possibly near; whether there are any."""
    here, there, possible_below = uintp(at), uintp(at + lattice.shifts[k]), lattice.possible[k]
    found = False
    for j in range(BLOCK):
        i = uintp(j)
        near = _apart(cores[here + i], cores[there + i]) < possible_below
        meets[i] = near & (clusters[here + i] != clusters[there + i])
        found |= meets[i]
    return found


@njit(cache=True, nogil=True)
def _join_block(error_map, cores, y, begin, k, lattice, meets, clusters, parent):
    """Join the groups that meet in a block; how many pixels have another number now."""
    n_renumbered = 0
    for x in range(begin, min(begin + BLOCK, lattice.width)):
        if not meets[x - begin]:
            continue
        i = _at(lattice, y, x)
        j = i + lattice.shifts[k]
        a, b = _find(parent, clusters[i]), _find(parent, clusters[j])
        if a != b:
            sure = _apart(cores[i], cores[j]) < lattice.sure[k]
            if sure or _near(error_map, y, x, k, lattice):
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
    around = _bins_in_reach(cores, lattice)
    furthest = np.int64(lattice.possible.max()) if len(lattice.possible) else 0
    is_open = np.empty(BLOCK, np.bool_)
    sure, possible = np.empty(BLOCK, labels.dtype), np.empty(BLOCK, labels.dtype)
    for y in range(lattice.height):
        lowest = _lowest_in_reach(clusters, y, lattice)
        for begin in range(0, lattice.width, BLOCK):
            n_open = _mark_open(levels, cores, y, begin, around, furthest, lattice, is_open)
            at = _at(lattice, y, begin)
            sure[:], possible[:] = none, lowest
            if n_open > FEW:
                possible[:] = none
                _bound_clusters(
                    levels, cores, at, lattice, clusters, lowest, is_open, sure, possible
                )
            for i in range(BLOCK):
                if is_open[i]:
                    found = sure[i]
                    if possible[i] < found:
                        found = _first_cluster(
                            error_map, cores, levels, y, begin + i, lattice, clusters, found, lowest
                        )
                    labels[y, begin + i] = found


@njit(cache=True, nogil=True)
def _bins_in_reach(cores, lattice):
    """The bins that core pixels around each cell have levels of, a word a cell, bit b for bin b.

    What is around ends with the last cell that a step from any of its pixels can lead to.
    """
    n_y, n_x = (lattice.height - 1) // CELL + 1, (lattice.width - 1) // CELL + 1
    bins = np.zeros((n_y, n_x), np.uint64)
    for y in range(lattice.height):
        start = _at(lattice, y, 0)
        for x in range(lattice.width):
            if cores[start + x] != FAR:
                bins[y // CELL, x // CELL] |= np.uint64(1) << np.uint64(cores[start + x] // BIN)
    reach_y, reach_x = (lattice.reach_y - 1) // CELL + 1, (lattice.reach_x - 1) // CELL + 1
    wide, around = np.zeros_like(bins), np.zeros_like(bins)
    for y in range(n_y):
        for x in range(n_x):
            for other in range(max(0, x - reach_x), min(n_x, x + reach_x + 1)):
                wide[y, x] |= bins[y, other]
    for y in range(n_y):
        for other in range(max(0, y - reach_y), min(n_y, y + reach_y + 1)):
            for x in range(n_x):
                around[y, x] |= wide[other, x]
    return around


@njit(cache=True, nogil=True)
def _lowest_in_reach(clusters, y, lattice):
    """The first cluster in the rows that a row's steps lead to."""
    start = _at(lattice, y - lattice.reach_y, 0)
    stop = _at(lattice, y + lattice.reach_y, lattice.width)
    return clusters[start:stop].min()


@njit(cache=True, nogil=True)
def _mark_open(levels, cores, y, begin, around, furthest, lattice, is_open):
    """Write which pixels of a block are of no cluster that one may reach; how many.

    `around` as of `_bins_in_reach`; `furthest` has all levels that near pixels can be apart.
    """
    is_open[:] = False
    n_open, at = 0, _at(lattice, y, begin)
    for i in range(min(BLOCK, lattice.width - begin)):
        if cores[at + i] != FAR:
            continue
        level = np.int64(levels[at + i])
        low = max(level - furthest, 0) // BIN
        high = min(level + furthest, N_LEVELS - 1) // BIN
        bins = (np.uint64(2) << np.uint64(high - low)) - np.uint64(1)
        found = (around[y // CELL, (begin + i) // CELL] >> np.uint64(low)) & bins
        is_open[i] = found != 0
        n_open += is_open[i]
    return n_open


@njit(cache=True, nogil=True)
def _bound_clusters(levels, cores, at, lattice, clusters, lowest, is_open, sure, possible):
    """Write the first cluster that surely, and that possibly, reaches each pixel of a block."""
    n_steps = len(lattice.shifts)
    for first in range(0, n_steps, BATCH):
        last = min(first + BATCH, n_steps)
        for k in range(first, last - 1, 2):
            _lower(levels, cores, at, k, k + 1, lattice, clusters, sure, possible)
        if (last - first) % 2:
            _lower(levels, cores, at, last - 1, last - 1, lattice, clusters, sure, possible)
        n_open = 0
        for i in range(BLOCK):
            n_open += is_open[i] & (sure[i] != lowest)
        if n_open == 0:
            return


@njit(cache=True, nogil=True)
def _lower(levels, cores, at, k, other, lattice, clusters, sure, possible):
    """Let two steps lower the clusters; two at a time: these are read and written once for both."""
    none = sure.dtype.type(-1)
    here = uintp(at)
    a, b = uintp(at + lattice.shifts[k]), uintp(at + lattice.shifts[other])
    sure_a, sure_b = lattice.sure[k], lattice.sure[other]
    possible_a, possible_b = lattice.possible[k], lattice.possible[other]
    for j in range(BLOCK):
        i = uintp(j)
        level = levels[here + i]
        apart_a, apart_b = _apart(level, cores[a + i]), _apart(level, cores[b + i])
        cluster_a, cluster_b = clusters[a + i], clusters[b + i]  # loads on no condition: vectorised
        of_sure = min(
            cluster_a if apart_a < sure_a else none, cluster_b if apart_b < sure_b else none
        )
        of_possible = min(
            cluster_a if apart_a < possible_a else none, cluster_b if apart_b < possible_b else none
        )
        sure[i], possible[i] = min(sure[i], of_sure), min(possible[i], of_possible)


@njit(cache=True, nogil=True)
def _first_cluster(error_map, cores, levels, y, x, lattice, clusters, none, lowest):
    """The first cluster that reaches a pixel; none before `none`, nor one before `lowest`."""
    here, found = _at(lattice, y, x), none
    for k in range(len(lattice.steps)):
        there = here + lattice.shifts[k]
        if clusters[there] >= found:
            continue
        apart = _apart(levels[here], cores[there])
        if apart < lattice.sure[k] or (
            apart < lattice.possible[k] and _near(error_map, y, x, k, lattice)
        ):
            found = clusters[there]
            if found == lowest:
                break
    return found
