"""Pixels as a lattice: which can lie within `eps` of one another, whatever their errors are.

Owns the steps to them, the squared lengths of these as scikit-learn computes them, and how far
apart errors must be for a step to settle whether two pixels are near. Knows nothing of clusters.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from models.heads.points import coordinates

N_LEVELS = 32768  # errors as whole numbers below this: two bytes a pixel
BLOCK = 64  # pixels that are compared with others at a time
FAR = 65535  # in place of a level: further from each than levels are apart


class Lattice(NamedTuple):
    """Which pixels can be neighbours at one `eps`, in an image of one shape.

    Images lie in a frame that no step leaves, row behind row: a step is the same way along the
    frame from every pixel.
    """

    most_neighbors: int
    eps_squared: float
    height: int
    width: int
    reach_y: int  # rows above and below: the furthest step
    reach_x: int
    steps: np.ndarray  # int64 (k, 2): (dy, dx), the nearest first, (0, 0) left out
    shifts: np.ndarray  # int64 (k,): the same along the frame
    touching: np.ndarray  # int64: which of them lead to the pixels above and to the left
    sure: np.ndarray  # uint16 (k,): with fewer levels between them, pixels so far apart are near
    possible: np.ndarray  # uint16 (k,): with so many or more they are not
    squared_y: np.ndarray  # float64 (2 * reach_y + 1, h): the squared way from y to y + dy
    squared_x: np.ndarray  # float64 (2 * reach_x + 1, w)


@lru_cache(maxsize=8)
def lattice(eps: float, shape: tuple[int, int]) -> Lattice:
    """The lattice of images of this shape at `eps`."""
    height, width = shape
    eps_squared = float(eps) * float(eps)
    most = np.count_nonzero(np.add.outer(*map(nearest_steps, shape)) <= eps_squared)
    squared_y, squared_x = (_squared_steps(length, eps_squared) for length in shape)
    reach_y, reach_x = len(squared_y) // 2, len(squared_x) // 2
    nearest = np.add.outer(squared_y.min(axis=1), squared_x.min(axis=1))
    furthest = np.add.outer(*(_longest_inside(squared) for squared in (squared_y, squared_x)))
    steps = np.argwhere(nearest <= eps_squared)
    steps = steps[np.argsort(nearest[tuple(steps.T)], kind="stable")][1:]
    sure, possible = (_levels(eps_squared - way[tuple(steps.T)]) for way in (furthest, nearest))
    steps -= [reach_y, reach_x]
    shifts = steps @ [width + 2 * reach_x, 1]
    return Lattice(
        int(most),
        eps_squared,
        height,
        width,
        reach_y,
        reach_x,
        steps,
        shifts,
        np.flatnonzero((np.abs(steps).max(axis=1, initial=0) == 1) & (shifts < 0)),
        # errors d levels apart are d - 1 to d + 1 whole levels apart; the rest is for rounding
        np.maximum(np.floor(sure - 0.01), 0).astype(np.uint16),
        np.minimum(np.floor(possible + 2.01), N_LEVELS).astype(np.uint16),
        squared_y,
        squared_x,
    )


def nearest_steps(length: int) -> np.ndarray:
    """The squared way from a middle pixel to each of a row, rounding in the neighbour's favour."""
    squared = _squared_steps(length, np.inf).min(axis=1)
    middle = length // 2
    return squared[length - 1 - middle : 2 * length - 1 - middle]


def _levels(squared: np.ndarray) -> np.ndarray:
    """How many levels errors are apart whose difference has this square."""
    return np.sqrt(np.maximum(squared, 0)) * (N_LEVELS - 1)


def _longest_inside(squared: np.ndarray) -> np.ndarray:
    """The longest squared way of each step, where it stays inside the image."""
    return np.where(np.isfinite(squared), squared, 0).max(axis=1)


def _squared_steps(length: int, limit: float) -> np.ndarray:
    """The squared way from each pixel of a row to the one d steps on; inf where there is none.

    Row d + reach, for d in -reach ... reach, the furthest step within the limit.
    """
    squared = _all_squared_steps(length)
    reach = np.count_nonzero(squared.min(axis=1) <= limit) // 2
    return squared[length - 1 - reach : length + reach]


@lru_cache(maxsize=4)
def _all_squared_steps(length: int) -> np.ndarray:
    """The same without a limit. Differences of the coordinates themselves: one step's length varies
    in its last bit along the row."""
    place = coordinates(length)
    squared = np.full((2 * length - 1, length), np.inf)
    for d in range(1 - length, length):
        here = slice(max(0, -d), min(length, length - d))
        there = slice(here.start + d, here.stop + d)
        squared[d + length - 1, here] = (place[there] - place[here]) ** 2
    return squared
