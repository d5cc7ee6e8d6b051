"""A picture of what an answer rests on, in the coordinates of the image as it came.

Owns how a frame's map and mask find their way back to the original, and how that is drawn. Knows no
model.
"""

import cv2
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from studies.summary import DISCLAIMER
from studies.use.answers import WORDS, Answer, Region
from studies.use.slices import Slice
from training.data.preprocess import SIDE, restore

SMALLEST, LARGEST = 384, 1024  # px: the longer side of an image as it is drawn
GAP, BAND = 12, 64
INK, MUTED, TUMOR, HEALTHY, LINE = "#1f2933", "#66727f", "#d1373f", "#2f9e6e", "#ffd43b"
CROSS = "#7dff8a"
STRONGEST = 0.8  # how much of the image the largest value covers


def find_region(slice_: Slice, map_: np.ndarray, mask: np.ndarray) -> Region | None:
    """Where the mask lies in the original; None where it is empty."""
    inside = _back(mask.astype(np.float32), slice_) > 0.5
    if not inside.any():
        return None
    left, top, width, height = cv2.boundingRect(inside.astype(np.uint8))
    errors = np.where(inside, _back(map_, slice_), -1)
    y, x = np.unravel_index(np.argmax(errors), errors.shape)
    return Region(left, top, width, height, peak=(int(x), int(y)))


def draw_overlay(
    slice_: Slice, map_: np.ndarray, mask: np.ndarray, answer: Answer, *, map_name: str, said: str
) -> Image.Image:
    """The original with the region's outline, and beside it with the map; `said` stands below.

    Only where a tumour is called is a region outlined: a head's mask has pixels in others too.
    """
    place = answer.region if answer.label else None
    scale = _scale(slice_.gray.shape)
    gray = _scaled(slice_.gray, scale)
    original = np.repeat(gray[..., None], 3, axis=2)
    heat = _warmed(original, _scaled(_back(map_, slice_), scale))
    titles = ["no region is suspected", map_name]
    if place is not None:
        inside = _smooth(_scaled(_back(mask.astype(np.float32), slice_), scale), slice_, scale)
        original, heat = _outlined(original, inside), _outlined(heat, inside)
        heat = _crossed(heat, [round((at + 0.5) * scale) for at in place.peak])
        titles = ["suspected region", f"{map_name} (a cross on its largest value)"]
    return _page([original, heat], titles, answer, said)


def _back(values: np.ndarray, slice_: Slice) -> np.ndarray:
    return restore(values, slice_.box, slice_.gray.shape)


def _scale(shape: tuple[int, int]) -> float:
    """Small images are enlarged by a whole number, very large ones made smaller."""
    longer = max(shape)
    return -(-SMALLEST // longer) if longer < SMALLEST else min(1.0, LARGEST / longer)


def _scaled(values: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return values
    size = max(1, round(values.shape[1] * scale)), max(1, round(values.shape[0] * scale))
    interpolation = cv2.INTER_CUBIC if scale > 1 and values.dtype == np.uint8 else cv2.INTER_LINEAR
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA if scale < 1 else interpolation)


def _warmed(picture: np.ndarray, map_: np.ndarray) -> np.ndarray:
    """The map in colours over the picture: of each value, and the more so the larger it is beside
    the others. What half of the head's pixels reach is not drawn."""
    shown = np.rint(np.clip(map_, 0, 1) * 255).astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(shown, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    inside = map_[map_ > 0]
    usual, largest = (np.median(inside), inside.max()) if inside.size else (0.0, 0.0)
    above = np.clip((map_ - usual) / max(largest - usual, 1e-6), 0, 1)
    share = STRONGEST * above[..., None]
    return np.rint(picture * (1 - share) + colors * share).astype(np.uint8)


def _smooth(mask: np.ndarray, slice_: Slice, scale: float) -> np.ndarray:
    """The mask without the steps that the frame's pixels leave; none of these is lost."""
    pixel = scale * max(slice_.box.width, slice_.box.height) / (slice_.box.share * SIDE)
    return cv2.GaussianBlur(mask, (0, 0), max(0.4 * pixel, 0.1)) > 0.5


def _crossed(picture: np.ndarray, place: list[int]) -> np.ndarray:
    drawn = picture.copy()
    for color, width in (("black", 5), (CROSS, 2)):
        cv2.drawMarker(drawn, place, ImageColor.getrgb(color), cv2.MARKER_CROSS, 17, width)
    return drawn


def _outlined(picture: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The picture with the region's border as a line that is seen on bright and dark."""
    borders, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = picture.copy()
    for color, width in (("black", 4), (LINE, 2)):
        cv2.polylines(drawn, borders, True, ImageColor.getrgb(color), width, cv2.LINE_AA)
    return drawn


def _page(pictures: list[np.ndarray], titles: list[str], answer: Answer, said: str) -> Image.Image:
    """The pictures side by side under their titles, over the answer in words."""
    height, width = pictures[0].shape[:2]
    column = max(width, 330)
    page = Image.new("RGB", (2 * column + 3 * GAP, height + 30 + BAND), "white")
    draw = ImageDraw.Draw(page)
    for i, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        left = GAP + i * (column + GAP)
        draw.text((left + column // 2, 20), title, fill=MUTED, font=_font(15), anchor="ms")
        page.paste(Image.fromarray(picture), (left + (column - width) // 2, 30))
    color = TUMOR if answer.label else HEALTHY
    top = height + 30
    draw.text((GAP, top + 26), WORDS[answer.label], fill=color, font=_font(20), anchor="ls")
    end = GAP + draw.textlength(WORDS[answer.label], _font(20)) + 14
    draw.text((end, top + 26), said, fill=INK, font=_font(15), anchor="ls")
    draw.text((GAP, top + 50), _shortened(answer.name), fill=MUTED, font=_font(13), anchor="ls")
    right = page.width - GAP
    draw.text((right, top + 50), DISCLAIMER, fill=MUTED, font=_font(13), anchor="rs")
    return page


def _shortened(name: str) -> str:
    return name if len(name) <= 48 else f"...{name[-45:]}"


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
