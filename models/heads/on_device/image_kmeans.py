"""2-means over the points of each map on a device: all maps of a batch, until the last has settled.

Knows nothing of the maps' use.
"""

import numpy as np
import torch
from torch import Tensor

from models.heads.points import coordinates

MAX_ITER, TOL = 300, 1e-4  # scikit-learn's defaults
IMAGES = 64  # at a time: 8 MB for each array of 128 x 128 pixels


def brighter_clusters(error_maps: Tensor, first: int, draws: np.ndarray) -> np.ndarray:
    """Each map's cluster with the larger mean error, bool (n, h, w); none in a constant one."""
    return np.concatenate(
        [_brighter(some.double(), first, draws).cpu().numpy() for some in error_maps.split(IMAGES)]
    )


def _brighter(errors: Tensor, first: int, draws: np.ndarray) -> Tensor:
    inside = two_means(errors, first, draws)
    n = inside.sum(dim=(1, 2))
    error = (errors * inside).sum(dim=(1, 2))
    rest, n_rest = errors.sum(dim=(1, 2)) - error, inside[0].numel() - n
    constant = errors.amin(dim=(1, 2)) == errors.amax(dim=(1, 2))
    brighter = error / n > rest / n_rest
    return (inside == brighter[:, None, None]) & ~constant[:, None, None]


def two_means(errors: Tensor, first: int, draws: np.ndarray) -> Tensor:
    """Which pixels of maps, float64 (n, h, w), belong to the second centre: bool (n, h, w)."""
    points = _points(errors)
    firsts = torch.full((len(errors),), first, device=errors.device)
    seconds = _second_centers(points, firsts, torch.tensor(draws, device=errors.device))
    centers = torch.stack([_at(points, firsts), _at(points, seconds)], dim=1)
    tolerance = TOL * points.var(dim=1, correction=0).mean(dim=1)
    total, n_points = points.sum(dim=1), points.shape[1]
    unsettled = torch.ones(len(errors), dtype=torch.bool, device=errors.device)
    for _ in range(MAX_ITER):
        inside = _nearer_to_second(points, centers)
        sums, n = torch.einsum("npc,np->nc", points, inside.double()), inside.sum(1, keepdim=True)
        moved = torch.stack([(total - sums) / (n_points - n), sums / n], dim=1)
        shift = (moved - centers).square().sum(dim=(1, 2))
        centers = torch.where(unsettled[:, None, None], moved, centers)
        unsettled &= shift > tolerance
        if not unsettled.any():
            break
    return _nearer_to_second(points, centers).reshape(errors.shape)


def _points(errors: Tensor) -> Tensor:
    """Points (error, x/2, y/2), float64 (n, h * w, 3)."""
    n, height, width = errors.shape
    y, x = (torch.tensor(coordinates(length), device=errors.device) for length in (height, width))
    y, x = torch.meshgrid(y, x, indexing="ij")
    places = torch.stack([x, y], dim=-1).expand(n, height, width, 2)
    return torch.cat([errors[..., None], places], dim=-1).reshape(n, -1, 3)


def _at(points: Tensor, chosen: Tensor) -> Tensor:
    """One point of each map, (n, 3)."""
    return points[torch.arange(len(points), device=points.device), chosen]


def _second_centers(points: Tensor, firsts: Tensor, draws: Tensor) -> Tensor:
    """The better of k-means++'s two candidates in each map."""
    squared = _squared_to(points, firsts)
    sums = squared.cumsum(dim=1)
    candidates = torch.searchsorted(sums, draws * squared.sum(dim=1, keepdim=True))
    candidates.clamp_(max=points.shape[1] - 1)
    one, other = (
        torch.minimum(squared, _squared_to(points, candidate)).sum(dim=1)
        for candidate in candidates.T
    )
    return torch.where(other < one, candidates[:, 1], candidates[:, 0])


def _squared_to(points: Tensor, chosen: Tensor) -> Tensor:
    error, x, y = (points - _at(points, chosen)[:, None]).square().unbind(dim=-1)
    return error + x + y


def _nearer_to_second(points: Tensor, centers: Tensor) -> Tensor:
    """bool (n, h * w); the terms in the order of image_kmeans.py."""
    normal = centers[:, 1] - centers[:, 0]
    squares = centers.square().sum(dim=2)
    bound = (squares[:, 1] - squares[:, 0]) / 2
    error, x, y = (points * normal[:, None]).unbind(dim=-1)
    return error + x > bound[:, None] - y
