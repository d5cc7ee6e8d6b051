"""The DBSCAN head: a tumour is a large enough cluster of pixels alike in error and place.

Owns the rule, and which `eps` and `min_samples` can form a cluster at all. How pixels are
clustered is lattice_clusters.py's.
"""

from numbers import Real
from typing import NamedTuple

import numpy as np

from models.heads.head import Head, check_integer, check_unit, mask_shares
from models.heads.kept_maps import KeptMaps
from models.heads.lattice import lattice, nearest_steps
from models.heads.lattice_clusters import label_maps, largest_clusters
from models.heads.on_device import dbscan as on_device


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

    def _scores(self, maps: KeptMaps) -> np.ndarray:
        return mask_shares(self._masks(maps)) - self.tumor_index

    def _masks(self, maps: KeptMaps) -> np.ndarray:
        return maps.once(("dbscan", self.eps, self.min_samples), lambda: self._cluster(maps))

    def _cluster(self, maps: KeptMaps) -> np.ndarray:
        here = lattice(self.eps, maps.shape)
        if self.min_samples > here.most_neighbors:
            return np.zeros(maps.values.shape, dtype=bool)
        if maps.on_device is None:
            return largest_clusters(maps.values, here, self.min_samples)
        return on_device.largest_clusters(maps.on_device, here, self.min_samples)


class Clusters(NamedTuple):
    """What DBSCAN finds in one map: `labels` int64 (h, w) with noise -1, `core` bool (h, w)."""

    labels: np.ndarray
    core: np.ndarray


def clusters(maps: KeptMaps, *, eps: float, min_samples: int) -> list[Clusters]:
    """Each map's clusters, numbered as `sklearn.cluster.DBSCAN` numbers them."""
    _check_eps(eps)
    here = lattice(eps, maps.shape)
    if maps.on_device is None:
        found = label_maps(maps.values, here, min_samples)
    else:
        found = on_device.label_maps(maps.on_device, here, min_samples)
    noise = found.labels == np.iinfo(found.labels.dtype).max
    labels = np.where(noise, -1, found.labels.astype(np.int64))
    return [Clusters(*one) for one in zip(labels, found.core, strict=True)]


def max_neighbors(eps: float, shape: tuple[int, int] = (128, 128)) -> int:
    """How many pixels can lie within `eps` of one, itself included, whatever the errors are.

    With `min_samples` above it no map has a cluster.
    """
    _check_eps(eps)
    return lattice(eps, shape).most_neighbors


def min_feasible_eps(min_samples: int, shape: tuple[int, int] = (128, 128)) -> float:
    """The smallest `eps` with which `min_samples` pixels can be neighbours of one."""
    check_integer("min_samples", min_samples, at_least=1)
    height, width = shape
    if min_samples > height * width:
        raise ValueError(f"min_samples must be at most {height * width}, got {min_samples}.")
    from_center = np.add.outer(nearest_steps(height), nearest_steps(width))
    squared = np.partition(from_center.ravel(), min_samples - 1)[min_samples - 1]
    eps = np.sqrt(squared)
    while eps * eps < squared or eps == 0:
        eps = np.nextafter(eps, 1)
    return float(eps)


def _check_eps(eps: float) -> None:
    if not isinstance(eps, Real) or not 0 < eps < np.inf:
        raise ValueError(f"eps must be a number above 0, got {eps!r}.")
