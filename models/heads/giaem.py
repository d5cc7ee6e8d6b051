"""GIAEM: a tumour is a map with enough pixels of enough error.

Owns the rule, the exact share of pixels over any threshold, and the exact optimum of the
class-balanced F-beta over both parameters. Knows nothing of how the maps were made.
"""

from typing import NamedTuple

import numpy as np

from models.heads.head import Head, check_error_maps, check_unit


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

    def _scores(self, error_maps: np.ndarray) -> np.ndarray:
        threshold = error_maps.dtype.type(self.anomaly_threshold)
        counts = np.array([np.count_nonzero(error_map >= threshold) for error_map in error_maps])
        return counts / error_maps[0].size - self.tumor_index

    def _masks(self, error_maps: np.ndarray) -> np.ndarray:
        return error_maps >= error_maps.dtype.type(self.anomaly_threshold)


def sort_maps(error_maps: np.ndarray) -> np.ndarray:
    """Each map's errors in rising order, (n, h * w): sort once, then ask for any threshold."""
    error_maps = check_error_maps(error_maps)
    return np.sort(error_maps.reshape(len(error_maps), -1), axis=1)


def sorted_shares(sorted_maps: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """`shares` of maps that `sort_maps` has sorted: a binary search for a map and threshold."""
    thresholds = np.asarray(thresholds).astype(sorted_maps.dtype)
    below = np.stack([np.searchsorted(row, thresholds) for row in sorted_maps])
    pixels = sorted_maps.shape[1]
    return (pixels - below) / pixels


def shares(error_maps: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The share of each map's pixels with error >= each threshold: float64 (n, T)."""
    return sorted_shares(sort_maps(error_maps), thresholds)


class _Cuts(NamedTuple):
    """Every way to cut the maps at one threshold, from flagging all of them to flagging none."""

    tumor_indices: np.ndarray
    recalls: np.ndarray
    specificities: np.ndarray


def best_giaem(
    error_maps: np.ndarray,
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
    best, best_rank = None, (-np.inf, -np.inf)
    for threshold, share in zip(thresholds, shares(error_maps, thresholds).T, strict=True):
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
    return best.fit(error_maps)


def objective_surface(
    error_maps: np.ndarray,
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
