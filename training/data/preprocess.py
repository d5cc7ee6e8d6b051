"""One slice as it comes -> 128 x 128, the head centred and filling the same share of every frame.

Two methods. "head" (default) finds the head by its brightness against the background. "paper" is
the paper's: edges, bounding box, 50 pixels of margin. Knows nothing of files, labels or data sets.
"""

from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from training.data.dataset import DataError

SIDE = 128
METHODS = ("head", "paper")
HEAD_SHARE = 0.9  # of the frame's side, taken by the head's longer edge
WORKING_SIDE = 256  # the head is looked for at this size, whatever the image's
FLAT = 0.15  # of the image's standard deviation: a row or column that varies less is margin
PAPER_MARGIN = 50  # pixels of the original, paper section on pre-processing


class Box(NamedTuple):
    """Where the head lies in an image, and how much of the frame its longer edge shall take."""

    left: int
    top: int
    width: int
    height: int
    share: float  # of the frame's side


class Framed(NamedTuple):
    """A pre-processed slice and the box it was cut from: `place(mask, box)` goes the same way."""

    image: np.ndarray  # uint8 (128, 128)
    box: Box


def preprocess(image: Image.Image | np.ndarray, method: str = "head") -> np.ndarray:
    """One image of any size, mode and depth -> uint8 (128, 128)."""
    return frame(to_gray(image), method).image


def to_gray(image: Image.Image | np.ndarray) -> np.ndarray:
    """Any PIL image, or array (h, w) or (h, w, channels) -> uint8 (h, w), upright.

    Transparent pixels become black. What is not 8 bits deep is scaled by its own range.
    """
    if isinstance(image, Image.Image):
        image = ImageOps.exif_transpose(image)
        if image.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
        elif image.mode not in ("L", "RGB", "RGBA", "F") and not image.mode.startswith("I"):
            image = image.convert("RGB")
        image = np.asarray(image)
    image = _to_uint8(image)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim == 3 and image.shape[2] == 4:
        image = (image[..., :3] * (image[..., 3:] / 255)).astype(np.uint8)
    if image.ndim == 3 and image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if image.ndim != 2 or min(image.shape) < 2:
        raise DataError(f"An image must be (h, w) or (h, w, 1, 3 or 4), got shape {image.shape}.")
    return image


def _to_uint8(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8 or image.size == 0:
        return image
    values = image.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError("An image must hold finite numbers, got NaN or infinity.")
    low, high = values.min(), values.max()
    return ((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)


def frame(gray: np.ndarray, method: str = "head") -> Framed:
    """Cut the head out of a gray slice and centre it on a square, as the method does."""
    if method not in METHODS:
        raise DataError(f"PREPROCESS must be one of {', '.join(METHODS)}, got {method!r}.")
    if gray.min() == gray.max():
        raise DataError(f"the image holds one grey value ({gray.min()}) and shows no head")
    return _frame_head(gray) if method == "head" else _frame_paper(gray)


def crop(image: np.ndarray, box: Box) -> np.ndarray:
    """Cut the box out of an image of the original's size."""
    return image[box.top : box.top + box.height, box.left : box.left + box.width]


def place(image: np.ndarray, box: Box) -> np.ndarray:
    """Cut the box out of an image of the original's size and centre it on zeros (128, 128)."""
    scale = box.share * SIDE / max(box.width, box.height)
    size = max(1, round(box.width * scale)), max(1, round(box.height * scale))
    shrinks = scale < 1
    resized = cv2.resize(
        crop(image, box), size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    left, top = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
    framed = np.zeros((SIDE, SIDE), dtype=image.dtype)
    framed[top : top + size[1], left : left + size[0]] = resized
    return framed


def _frame_head(gray: np.ndarray) -> Framed:
    """The head on black: what lies outside its hull is zero, its brightest 0.5 % are 255.

    Backgrounds, frames and text differ from source to source and sources differ by class, so
    nothing of them may stay; nor may the gain, which is the scanner's.
    """
    hull, background = find_head(gray)
    box = Box(*cv2.boundingRect(hull), HEAD_SHARE)
    inside = cv2.fillConvexPoly(np.zeros_like(gray), hull, 255)
    head = place(cv2.bitwise_and(_remove(background, gray), inside), box).astype(np.float32)
    brightest = np.percentile(head[place(inside, box) > 0], 99.5)
    return Framed(np.clip(head * (255 / max(brightest, 1)), 0, 255).astype(np.uint8), box)


def find_head(gray: np.ndarray) -> tuple[np.ndarray, int]:
    """The convex hull of the head, int32 (k, 1, 2) as OpenCV has it, and the background's level.

    The head is what differs from the background by more than Otsu's threshold of the differences'
    square roots: the root keeps a bright lesion or scalp from hiding a dark brain. Thin lines and
    letters are opened away; of the rest, the largest piece and what lies with it count.
    """
    scale = min(1.0, WORKING_SIDE / max(gray.shape))
    size = max(1, round(gray.shape[1] * scale)), max(1, round(gray.shape[0] * scale))
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    rows, columns = _flat_margin(small)
    inner = cv2.GaussianBlur(small[rows, columns], (5, 5), 0)
    background = _background(inner)
    contrast = np.sqrt(_remove(background, inner) * 255.0).astype(np.uint8)
    otsu, _ = cv2.threshold(contrast, 0, 255, cv2.THRESH_OTSU)
    bright = (contrast > otsu).astype(np.uint8)
    pieces = _main_pieces(_morph(bright, cv2.MORPH_OPEN, 3))
    hull = _hull(_without_spikes(pieces)) + np.array([columns.start, rows.start])
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
    """The grey level of the background: the lowest tenth of a band around the edge."""
    band = max(1, round(0.06 * min(image.shape)))
    middle = np.zeros(image.shape, dtype=bool)
    middle[band:-band, band:-band] = True
    return int(np.percentile(image[~middle], 10))


def _remove(background: int, image: np.ndarray) -> np.ndarray:
    """How far each pixel is above the background; on a bright one (a page, a negative), off it."""
    if background > 127:
        return cv2.absdiff(image, background)
    return cv2.subtract(image, background)


def _main_pieces(mask: np.ndarray) -> np.ndarray:
    """The largest piece of a mask and those in or just around its hull (skull, scalp)."""
    n_pieces, pieces = cv2.connectedComponents(mask)
    sizes = np.bincount(pieces.ravel(), minlength=n_pieces)
    sizes[0] = 0
    largest = np.argmax(sizes)
    hull = _hull((pieces == largest).astype(np.uint8))
    center = hull.mean(axis=0)
    wider = np.round(center + 1.3 * (hull - center)).astype(np.int32)
    around = cv2.fillConvexPoly(np.zeros_like(mask), wider, 1)
    inside = np.bincount(pieces[around > 0], minlength=n_pieces)
    belongs = (inside >= 0.95 * sizes) & (sizes >= 0.003 * sizes[largest])
    return belongs[pieces].astype(np.uint8)


def _without_spikes(mask: np.ndarray) -> np.ndarray:
    """Points of the mask, filled, without what sticks out of it (letters, lines that touch it)."""
    closed = _morph(mask, cv2.MORPH_CLOSE, 15)
    contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = cv2.drawContours(np.zeros_like(mask), contours, -1, 1, cv2.FILLED)
    radius = min(cv2.boundingRect(filled)[2:]) / 8
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


def _frame_paper(gray: np.ndarray) -> Framed:
    """The paper's way: the box around the outer contours of dilated Canny edges, and 50 px."""
    edges = cv2.dilate(cv2.Canny(cv2.GaussianBlur(gray, (5, 5), 0), 50, 150), None, iterations=2)
    contours, _ = cv2.findContours(edges, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        raise DataError("the image shows no edges, so the paper's pre-processing finds no head")
    left, top, width, height = cv2.boundingRect(np.concatenate(contours))
    longer = max(width, height)
    box = Box(left, top, width, height, longer / (longer + PAPER_MARGIN))
    lowest = gray.min()
    return Framed(place(gray - lowest, box) + lowest, box)
