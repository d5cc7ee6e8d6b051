"""Where the head lies in a gray slice, whatever stands around it.

Knows backgrounds, frames, text and dark skulls; not what the head is wanted for.
"""

import math

import cv2
import numpy as np

from training.data.dataset import DataError

WORKING_SIDE = 256  # pixels: the head is looked for at this size, whatever the image's
# Our choices, set by eye on Br35H and checked by how many of its copies get the same box.
FLAT = 0.15  # of the image's standard deviation: a row or column that varies less is margin
CORNER = 0.06  # of each side: where the background is looked at
AROUND = 1.3  # times its size: how far around the largest piece scalp and skull may lie
GAP = 15  # pixels of 256: what is closer is joined
ROOTS = np.sqrt(np.arange(256) * 255.0)  # of each grey level, again from 0 to 255
SPIKE = 1 / 8  # of the head's shorter side: the radius below which what sticks out is cut off


def find_head(gray: np.ndarray) -> tuple[np.ndarray, int]:
    """The convex hull of the head, int32 (k, 1, 2) as OpenCV has it, and the background's level.

    The head is what stands out from the background by more than Otsu's threshold. Thin lines and
    letters are opened away; of the rest, the largest piece and what lies with it count.
    """
    scale = min(1.0, WORKING_SIDE / max(gray.shape))
    size = max(1, round(gray.shape[1] * scale)), max(1, round(gray.shape[0] * scale))
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    rows, columns = _flat_margin(small)
    inner = cv2.GaussianBlur(small[rows, columns], (5, 5), 0)
    background = _background(inner)
    contrast = _compressed(above_background(inner, background))
    otsu, _ = cv2.threshold(contrast, 0, 255, cv2.THRESH_OTSU)
    bright = (contrast > otsu).astype(np.uint8)
    opened = _morph(bright, cv2.MORPH_OPEN, 3)
    if not opened.any():
        raise DataError("the image shows nothing that stands out from its background")
    hull = _hull(_without_spikes(_main_pieces(opened))) + np.array([columns.start, rows.start])
    return np.round(hull / scale).astype(np.int32), background


def _flat_margin(image: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that are left when those of one value are taken off from outside."""
    rows, columns = slice(0, image.shape[0]), slice(0, image.shape[1])
    flat = FLAT * image.std()
    while True:
        inner = image[rows, columns].astype(np.float32)
        varied = [np.flatnonzero(inner.std(axis=axis) >= flat) for axis in (1, 0)]
        if not len(varied[0]) or not len(varied[1]):
            return rows, columns
        trimmed = tuple(
            slice(int(old.start + kept[0]), int(old.start + kept[-1] + 1))
            for old, kept in zip((rows, columns), varied, strict=True)
        )
        if trimmed == (rows, columns):
            return trimmed
        rows, columns = trimmed


def _background(image: np.ndarray) -> int:
    """The background's grey level: the lowest of the four corners', which a round head leaves."""
    height, width = (max(1, round(CORNER * side)) for side in image.shape)
    corners = [
        image[y, x]
        for y in (slice(height), slice(-height, None))
        for x in (slice(width), slice(-width, None))
    ]
    return int(min(np.median(corner) for corner in corners))


def above_background(image: np.ndarray, background: int) -> np.ndarray:
    """How far each pixel is above the background; on a bright one (a page, a negative), off it."""
    if background > 127:
        return cv2.absdiff(image, background)
    return cv2.subtract(image, background)


def _compressed(contrast: np.ndarray) -> np.ndarray:
    """Contrast with its highlights pressed down, so that none takes Otsu's threshold too high.

    Else a bright lesion or scalp would stand for the whole head where the brain is dark. Square
    roots, cut at their 80th percentile: a head is at least a fifth of what is left of a slice, and
    a third of the maximum guards those that are not.
    """
    place = 0.8 * (contrast.size - 1)
    counted = np.bincount(contrast.ravel(), minlength=256).cumsum()
    below, above = ROOTS[np.searchsorted(counted, (math.floor(place), math.ceil(place)), "right")]
    percentile = below + (above - below) * (place % 1)
    ceiling = max(percentile, ROOTS[contrast.max()] / 3)
    return cv2.LUT(contrast, np.minimum(ROOTS, ceiling).astype(np.uint8))


def _main_pieces(mask: np.ndarray) -> np.ndarray:
    """The largest piece of a mask and those in or just around its hull (skull, scalp)."""
    n_pieces, pieces = cv2.connectedComponents(mask)
    sizes = np.bincount(pieces.ravel(), minlength=n_pieces)
    sizes[0] = 0
    largest = np.argmax(sizes)
    hull = _hull((pieces == largest).astype(np.uint8))
    center = hull.mean(axis=0)
    wider = np.round(center + AROUND * (hull - center)).astype(np.int32)
    around = cv2.fillConvexPoly(np.zeros_like(mask), wider, 1)
    inside = np.bincount(pieces[around > 0], minlength=n_pieces)
    belongs = (inside >= 0.95 * sizes) & (sizes >= 0.003 * sizes[largest])
    return belongs[pieces].astype(np.uint8)


def _without_spikes(mask: np.ndarray) -> np.ndarray:
    """Points of the mask, filled, without what sticks out of it (letters, lines that touch it)."""
    closed = _morph(mask, cv2.MORPH_CLOSE, GAP)
    contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = cv2.drawContours(np.zeros_like(mask), contours, -1, 1, cv2.FILLED)
    radius = SPIKE * min(cv2.boundingRect(filled)[2:])
    padded = cv2.copyMakeBorder(filled, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    core = cv2.distanceTransform(padded, cv2.DIST_L2, 3) > radius
    if not core.any():
        return filled
    from_core = cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, 3)
    return (from_core[1:-1, 1:-1] <= radius).astype(np.uint8) & filled


def _hull(mask: np.ndarray) -> np.ndarray:
    """The convex hull of what is in the mask: int32 (k, 1, 2), x and y."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return cv2.convexHull(np.concatenate(contours))


def _morph(mask: np.ndarray, operation: int, size: int) -> np.ndarray:
    """Open or close with an ellipse; outside of the mask there is nothing."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    padded = cv2.copyMakeBorder(mask, size, size, size, size, cv2.BORDER_CONSTANT)
    return cv2.morphologyEx(padded, operation, kernel)[size:-size, size:-size]
