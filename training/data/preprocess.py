"""One slice as it comes -> 128 x 128, the head centred and filling the same share of every frame.

Two methods. "head" (default) takes the head that head.py finds, and nothing else. "paper" is the
paper's: edges, bounding box, 50 pixels of margin. Knows nothing of files, labels or data sets.
"""

from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from training.data.dataset import DataError
from training.data.head import above_background, find_head

SIDE = 128
METHODS = ("head", "paper")
HEAD_SHARE = 0.9  # of the frame's side, taken by the head's longer edge
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
    rows, columns = _inside_frame(box)
    framed = np.zeros((SIDE, SIDE), dtype=image.dtype)
    inside = framed[rows, columns]
    interpolation = cv2.INTER_AREA if _scale(box) < 1 else cv2.INTER_LINEAR
    inside[:] = cv2.resize(crop(image, box), inside.shape[::-1], interpolation=interpolation)
    return framed


def restore(framed: np.ndarray, box: Box, shape: tuple[int, int]) -> np.ndarray:
    """Undo `place`: what a frame (128, 128) holds of the box, on zeros of the original's shape."""
    image = np.zeros(shape, dtype=framed.dtype)
    inside = crop(image, box)
    interpolation = cv2.INTER_LINEAR if _scale(box) < 1 else cv2.INTER_AREA
    cut = framed[_inside_frame(box)]
    inside[:] = cv2.resize(cut, inside.shape[::-1], interpolation=interpolation)
    return image


def _inside_frame(box: Box) -> tuple[slice, slice]:
    """The rows and columns of the frame that the box fills."""
    scale = _scale(box)
    width, height = max(1, round(box.width * scale)), max(1, round(box.height * scale))
    left, top = (SIDE - width) // 2, (SIDE - height) // 2
    return slice(top, top + height), slice(left, left + width)


def _scale(box: Box) -> float:
    """Pixels of the frame for a pixel of the original."""
    return box.share * SIDE / max(box.width, box.height)


def _frame_head(gray: np.ndarray) -> Framed:
    """The head on black: what lies outside its hull is zero, its brightest 0.5 % are 255.

    Backgrounds, frames and text differ from source to source and sources differ by class, so
    nothing of them may stay; nor may the gain, which is the scanner's.
    """
    hull, background = find_head(gray)
    box = Box(*cv2.boundingRect(hull), HEAD_SHARE)
    inside = cv2.fillConvexPoly(np.zeros_like(gray), hull, 255)
    head = cv2.bitwise_and(above_background(gray, background), inside)
    head = place(head, box).astype(np.float32)
    brightest = np.percentile(head[place(inside, box) > 0], 99.5)
    return Framed(np.clip(head * (255 / max(brightest, 1)), 0, 255).astype(np.uint8), box)


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
