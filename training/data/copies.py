"""Groups of near-copies: the same slice flipped, rotated by 180 degrees, sharpened, re-encoded.

Knows thumbnails and labels only. Two slices are copies when some flip of one correlates with the
other at 0.96 or more on 32 x 32 pixels of the head's box; groups are the connected components. On
Br35H, 0.95 begins to join different patients and perceptual hashes chain (measured).
"""

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

THUMBNAIL = 32
MIN_CORRELATION = 0.96
CHUNK = 1024  # rows compared at a time, which bounds the memory


def thumbnail(head: np.ndarray) -> np.ndarray:
    """A slice cut to the head's box, uint8 (h, w), stretched to (32, 32)."""
    return cv2.resize(head, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def find_groups(thumbnails: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Number the groups of near-copies: uint8 (n, 32, 32), (n,) -> int64 (n,).

    Links across classes are not followed, so no group mixes labels: a copy under the other label
    cannot flatter a test, and joining it would keep a class's groups from being split by class.
    """
    groups = np.empty(len(labels), dtype=np.int64)
    n_groups = 0
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        links = _links(thumbnails[members])
        n_found, groups_here = connected_components(links, directed=False)
        groups[members] = n_groups + groups_here
        n_groups += n_found
    return groups


def _links(thumbnails: np.ndarray) -> coo_array:
    """Which pairs are copies under some flip: (n, n)."""
    n = len(thumbnails)
    flips = [thumbnails[:, ::y, ::x] for y in (1, -1) for x in (1, -1)]
    flips = [_standardize(flip.reshape(n, -1)) for flip in flips]
    rows, columns = [], []
    for start in range(0, n, CHUNK):
        chunk = flips[0][start : start + CHUNK]
        alike = np.logical_or.reduce([chunk @ flip.T >= MIN_CORRELATION for flip in flips])
        row, column = np.nonzero(alike)
        rows.append(start + row)
        columns.append(column)
    links = np.concatenate(rows), np.concatenate(columns)
    return coo_array((np.ones(len(links[0]), dtype=bool), links), shape=(n, n))


def _standardize(rows: np.ndarray) -> np.ndarray:
    """Mean 0 and length 1 for each row, so that a dot product is a correlation."""
    rows = rows.astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
