"""Pixels as points (error, x/2, y/2), x and y in [0, 1]: what DBSCAN and 2-means cluster.

Halving the coordinates lets the error weigh more than the place (the paper's choice).
"""

import numpy as np


def coordinates(length: int) -> np.ndarray:
    """The halved coordinate of each column (or row): float64 (length,) from 0 to 1/2."""
    return np.linspace(0, 1, length) / 2


def points(error_map: np.ndarray) -> np.ndarray:
    """One map's pixels, row by row, as float64 (height * width, 3) points."""
    height, width = error_map.shape
    y, x = np.meshgrid(coordinates(height), coordinates(width), indexing="ij")
    return np.stack([error_map, x, y], axis=-1).reshape(-1, 3).astype(np.float64)
