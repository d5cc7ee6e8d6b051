"""GIAEM: a tumour is a map with enough pixels of enough error.

Owns the rule, the exact share of pixels over any threshold, and the exact optimum of the
class-balanced F-beta over both parameters. Knows nothing of how the maps were made.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from models.heads.head import Head, at_least, check_unit
from models.heads.kept_maps import KeptMaps, as_kept
from models.heads.on_device import shares as on_device

DIGITS = 1024  # of ten bits
UNSIGNED = 0x7FFFFFFF


class GIAEM(Head):
    """Tumour iff the share of pixels with error >= `anomaly_threshold` is >= `tumor_index`."""

    def __init__(self, anomaly_threshold: float = 0.5, tumor_index: float = 0.1):
        self.anomaly_threshold = anomaly_threshold
        self.tumor_index = tumor_index

    def _check_parameters(self) -> None:
        check_unit("anomaly_threshold", self.anomaly_threshold)
        check_unit("tumor_index", self.tumor_index)

    @property
    def border(self) -> float:
        """A share of the pixels."""
        return self.tumor_index

    def _scores(self, maps: KeptMaps) -> np.ndarray:
        return shares(maps, [self.anomaly_threshold])[:, 0] - self.tumor_index

    def _masks(self, maps: KeptMaps) -> np.ndarray:
        return at_least(maps, self.anomaly_threshold)


def shares(error_maps: np.ndarray | KeptMaps, thresholds: np.ndarray) -> np.ndarray:
    """The share of each map's pixels with error >= each threshold: float64 (n, T).

    Each map is sorted once; a threshold is a binary search.
    """
    maps = as_kept(error_maps)
    thresholds = np.asarray(thresholds).astype(maps.values.dtype)
    if maps.on_device is None:
        below = _count_below(maps.once("in order", lambda: sort_maps(maps.values)), thresholds)
    else:
        in_order = maps.once("in order", lambda: on_device.sort_maps(maps.on_device))
        below = on_device.count_below(in_order, thresholds)
    n_pixels = maps.values[0].size
    return (n_pixels - below) / n_pixels


def sort_maps(error_maps: np.ndarray) -> np.ndarray:
    """Each map's errors in rising order, (n, h * w)."""
    rows = error_maps.reshape(len(error_maps), -1)
    if rows.dtype != np.float32:
        return np.sort(rows, axis=1)
    in_order = np.empty_like(rows)
    _sort_rows(rows.view(np.uint32), in_order.view(np.uint32))
    return in_order


@njit(cache=True, nogil=True)
def _count_below(in_order, thresholds):
    """How many of each row's errors are below each threshold: int64 (n, T)."""
    below = np.empty((len(in_order), len(thresholds)), np.int64)
    for i in range(len(in_order)):
        below[i] = np.searchsorted(in_order[i], thresholds)
    return below


@njit(cache=True, nogil=True, parallel=True)
def _sort_rows(rows, in_order):
    """Sort the bits of float32 from 0 to 1: thirty, in the order of the floats, ten at a time."""
    for i in prange(len(rows)):
        half_sorted = np.empty_like(in_order[i])
        _sort_by(rows[i], 0, in_order[i])
        _sort_by(in_order[i], 10, half_sorted)
        _sort_by(half_sorted, 20, in_order[i])


@njit(cache=True, nogil=True)
def _sort_by(row, shift, in_order):
    """Sort by ten bits from `shift` on; what is equal in them keeps its order."""
    place = np.zeros(DIGITS + 1, np.int64)
    for bits in row:
        place[1 + ((bits >> np.uint32(shift)) & np.uint32(DIGITS - 1))] += 1
    for digit in range(DIGITS):
        place[digit + 1] += place[digit]
    for bits in row:
        digit = (bits >> np.uint32(shift)) & np.uint32(DIGITS - 1)
        in_order[place[digit]] = bits & np.uint32(UNSIGNED)  # -0.0 is 0
        place[digit] += 1


class _Cuts(NamedTuple):
    """Every way to cut the maps at one threshold, from flagging all of them to flagging none."""

    tumor_indices: np.ndarray
    recalls: np.ndarray
    specificities: np.ndarray


def best_giaem(
    error_maps: np.ndarray | KeptMaps,
    labels: np.ndarray,
    *,
    specificity_floor: float = 0.5,
    thresholds: np.ndarray | None = None,
    beta: float = 2.0,
) -> GIAEM:
    """The GIAEM with the highest class-balanced F-beta of those that reach the specificity floor.

    Exact over every `tumor_index` and the given thresholds (default: 0, 0.01, ..., 1). Of equal
    heads the more specific one is taken, then the lower threshold. `tumor_index` lies midway
    between two neighbouring shares, so that it holds for maps that were not seen.
    """
    check_unit("specificity_floor", specificity_floor)
    labels = _check_labels(labels)
    thresholds = np.linspace(0, 1, 101) if thresholds is None else np.asarray(thresholds)
    maps = as_kept(error_maps)
    best, best_rank = None, (-np.inf, -np.inf)
    for threshold, share in zip(thresholds, shares(maps, thresholds).T, strict=True):
        cuts = _cuts(share, labels)
        f_beta = balanced_f_beta(cuts.recalls, cuts.specificities, beta=beta)
        f_beta[cuts.specificities < specificity_floor] = -np.inf
        i = np.lexsort((cuts.specificities, f_beta))[-1]
        rank = (f_beta[i], cuts.specificities[i])
        if rank > best_rank:
            best, best_rank = GIAEM(float(threshold), float(cuts.tumor_indices[i])), rank
    if best is None or best_rank[0] == -np.inf:
        raise ValueError(
            f"no GIAEM reaches a specificity of {specificity_floor} at these thresholds: every map "
            "is full of errors over them; give higher thresholds."
        )
    return best.fit(maps)


def objective_surface(
    error_maps: np.ndarray | KeptMaps,
    labels: np.ndarray,
    anomaly_thresholds: np.ndarray,
    tumor_indices: np.ndarray,
    *,
    beta: float = 2.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Class-balanced F-beta and specificity, (T, K) each, of every pair of parameters."""
    labels = _check_labels(labels)
    share = shares(error_maps, anomaly_thresholds)
    recall = _flagged(share[labels == 1], tumor_indices)
    specificity = 1 - _flagged(share[labels == 0], tumor_indices)
    return balanced_f_beta(recall, specificity, beta=beta), specificity


def balanced_f_beta(recall: np.ndarray, specificity: np.ndarray, *, beta: float) -> np.ndarray:
    """F-beta when both classes weigh the same, whatever their numbers."""
    weighted = (1 + beta**2) * recall
    return weighted / (weighted + beta**2 * (1 - recall) + (1 - specificity))


def _cuts(share: np.ndarray, labels: np.ndarray) -> _Cuts:
    """The cuts between distinct shares; none that needs a `tumor_index` over 1."""
    values, at = np.unique(share, return_inverse=True)
    tumors = np.bincount(at, weights=labels == 1)
    healthy = np.bincount(at, weights=labels == 0)
    # cut j flags values[j:]; the last cut flags nothing
    missed = np.concatenate([[0], np.cumsum(tumors)])
    passed = np.concatenate([[0], np.cumsum(healthy)])
    edges = np.concatenate([[0], values, [1]])
    cuts = _Cuts((edges[:-1] + edges[1:]) / 2, 1 - missed / missed[-1], passed / passed[-1])
    return cuts if values[-1] < 1 else _Cuts(*(column[:-1] for column in cuts))


def _flagged(share: np.ndarray, tumor_indices: np.ndarray) -> np.ndarray:
    """The share of maps, (T, K), whose share of pixels reaches each `tumor_index`."""
    below = np.stack(
        [np.searchsorted(column, tumor_indices) for column in np.sort(share, axis=0).T]
    )
    return (len(share) - below) / len(share)


def _check_labels(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if set(np.unique(labels)) != {0, 1}:
        raise ValueError(f"labels must hold both 0 and 1, got {np.unique(labels).tolist()}.")
    return labels
