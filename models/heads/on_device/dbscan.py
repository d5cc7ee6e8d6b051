"""DBSCAN on the pixel lattice, on a device: a step at a time, over many images at once.

Each pair is compared as scikit-learn does it, the squares summed in float64 in its order. Groups
are put together until no two that are near are apart. Knows nothing of the maps' use.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.heads.lattice import Lattice
from models.heads.lattice_clusters import LabelledMaps

IMAGES = 64  # at a time: 8 MB for each array of 128 x 128 pixels
NOISE = torch.iinfo(torch.int32).max


def label_maps(error_maps: Tensor, lattice: Lattice, min_samples: int) -> LabelledMaps:
    """The clusters of each map, float (n, h, w)."""
    found = [_label(Pairs(some, lattice), min_samples) for some in error_maps.split(IMAGES)]
    labels, core = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    return LabelledMaps(labels, core)


def largest_clusters(error_maps: Tensor, lattice: Lattice, min_samples: int) -> np.ndarray:
    """The pixels of each map's largest cluster, bool (n, h, w); of equals, the first one's."""
    found = (_label(Pairs(some, lattice), min_samples)[0] for some in error_maps.split(IMAGES))
    return np.concatenate([_largest(labels).cpu().numpy() for labels in found])


class Pairs:
    """Pixels and those a step on, in a frame that no step leaves."""

    def __init__(self, error_maps: Tensor, lattice: Lattice):
        self.shape, self.device = error_maps.shape, error_maps.device
        self.steps = [tuple(step) for step in lattice.steps.tolist()]
        self._reach = lattice.reach_y, lattice.reach_x
        self._eps_squared = lattice.eps_squared
        self._squared_y = torch.tensor(lattice.squared_y, device=self.device)[:, :, None]
        self._squared_x = torch.tensor(lattice.squared_x, device=self.device)
        self._errors = error_maps.double()
        self._framed = self.framed(self._errors, torch.inf)

    def framed(self, pixels: Tensor, outside: float) -> Tensor:
        """The pixels (n, h, w) with a frame of one number around them."""
        y, x = self._reach
        return F.pad(pixels, (x, x, y, y), value=outside)

    def there(self, framed: Tensor, step: tuple[int, int]) -> Tensor:
        """For each pixel, what lies a step on."""
        _, height, width = self.shape
        y, x = self._reach[0] + step[0], self._reach[1] + step[1]
        return framed[:, y : y + height, x : x + width]

    def near(self, step: tuple[int, int]) -> Tensor:
        """Whether the pixel a step on is within eps."""
        apart = self._errors - self.there(self._framed, step)
        squared_y = self._squared_y[step[0] + self._reach[0]]
        squared_x = self._squared_x[step[1] + self._reach[1]]
        # scikit-learn's order of summing: error, x, y
        return apart * apart + squared_x + squared_y <= self._eps_squared


def _label(pairs: Pairs, min_samples: int) -> tuple[Tensor, Tensor]:
    """Labels int32 (n, h, w), and which pixels are core pixels."""
    counts = torch.ones(pairs.shape, dtype=torch.int32, device=pairs.device)
    for step in pairs.steps:
        counts += pairs.near(step)
    core = counts >= min_samples
    labels = _number(_join(pairs, core), core)
    return _label_borders(pairs, labels), core


def _join(pairs: Pairs, core: Tensor) -> Tensor:
    """The first pixel of each core pixel's cluster, int64 (n, h, w): a number among all pixels."""
    pixels = torch.arange(core.numel(), device=core.device)
    groups = pixels.reshape(core.shape)
    onward = [step for step in pairs.steps if step > (0, 0)]  # each pair once
    while True:
        framed = pairs.framed(torch.where(core, groups, -1), -1)
        parents = pixels.clone()
        for step in onward:
            there = pairs.there(framed, step)
            meet = (groups != there) & core & (there >= 0) & pairs.near(step)
            one, other = groups[meet], there[meet]
            low, high = torch.minimum(one, other), torch.maximum(one, other)
            # of several lower groups the lowest; the others are found the next time
            parents.scatter_reduce_(0, high, low, "amin")
        if torch.equal(parents, pixels):
            return groups
        groups = _roots(parents)[groups]


def _roots(parents: Tensor) -> Tensor:
    """For each number, the one at the end of its parents."""
    while not torch.equal(higher := parents[parents], parents):
        parents = higher
    return parents


def _number(groups: Tensor, core: Tensor) -> Tensor:
    """Core pixels' groups numbered from 0 on in each map, by their first pixels."""
    pixels = torch.arange(core.numel(), device=core.device).reshape(core.shape)
    firsts = core & (groups == pixels)
    ranks = firsts.flatten(1).cumsum(dim=1).flatten() - 1
    return torch.where(core, ranks[groups], NOISE).int()


def _label_borders(pairs: Pairs, labels: Tensor) -> Tensor:
    """Each pixel that is near to a core pixel gets the first cluster that reaches it."""
    framed, lowest = pairs.framed(labels, NOISE), labels.clone()
    for step in pairs.steps:
        there = torch.where(pairs.near(step), pairs.there(framed, step), NOISE)
        torch.minimum(lowest, there, out=lowest)
    return torch.where(labels == NOISE, lowest, labels)


def _largest(labels: Tensor) -> Tensor:
    n, n_pixels = len(labels), labels[0].numel()
    among_all = labels + n_pixels * torch.arange(n, device=labels.device)[:, None, None]
    sizes = torch.bincount(among_all[labels != NOISE], minlength=n * n_pixels)
    largest = sizes.reshape(n, n_pixels).argmax(dim=1)  # of equals, the first
    return labels == largest[:, None, None]
