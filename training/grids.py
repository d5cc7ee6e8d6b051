"""Pictures of what a detector saw, and what its head made of it. Knows no detector and no head."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

TILE = 192  # px; half as large again as the 128 px that the detector sees
GAP, FRAME, CAPTION, HEADER = 18, 5, 30, 78
CLASSES = ("no tumour", "tumour")
INK, MUTED, RIGHT, WRONG, MASK = "#1f2933", "#66727f", "#2f9e6e", "#d1373f", "#00c2ff"
OUTLINE, CROSS = "#ffd43b", "#7dff8a"
OPACITY = 0.55  # of what is called tumour


class Words(NamedTuple):
    """What the columns of a card, and its cross, are called."""

    map: str
    mask: str
    peak: str


ERROR = Words("error map", "called tumour", "largest error")
ATTRIBUTION = Words("attribution", "its upper half", "largest attribution")


def choose_examples(labels, scores, *, seed: int = 0, n: int = 8) -> np.ndarray:
    """Indices of n images that stand for all: half of each class, no tumour first.

    In each class one image is drawn from each of n / 2 equal slices of the sorted scores, so that
    right and wrong answers come in about their true shares. The same seed gives the same images.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    rng = np.random.default_rng(seed)
    chosen = []
    for label in (0, 1):
        of_class = np.flatnonzero(labels == label)
        ranked = of_class[np.argsort(scores[of_class], kind="stable")]
        chosen += [rng.choice(part) for part in np.array_split(ranked, n // 2) if len(part)]
    return np.array(chosen, dtype=np.int64)


def sample_grid(
    images: np.ndarray,
    reconstructions: np.ndarray | None,
    error_maps: np.ndarray,
    masks: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    *,
    scores: np.ndarray,
    outlines: np.ndarray | None = None,
    words: Words = ERROR,
) -> Image.Image:
    """One card an image: original, reconstruction, error map, and the pixels called tumour.

    Images without a tumour stand on the left, those with one on the right, in the order given;
    the frame is green where the head is right and red where it is wrong. The published outline is
    a yellow line on the original and on the pixels called tumour, and a cross marks the first of
    the error map's largest values; a constant map has none.

    images uint8, reconstructions and error_maps float in [0, 1], masks and outlines bool, all
    (n, h, w). Without reconstructions a card has three tiles; an outline that is not known is
    all False. Maps of another kind than errors have their own `words`.
    """
    n = len(images)
    outlines = np.zeros(masks.shape, dtype=bool) if outlines is None else outlines
    reconstructions = [None] * n if reconstructions is None else reconstructions
    halves, captions = ([], []), ()
    for label, answer, score, *maps in zip(
        labels, predicted, scores, images, reconstructions, error_maps, masks, outlines, strict=True
    ):
        tiles = _tiles(*maps, words)
        captions = tuple(tiles)
        halves[int(label)].append(_card(list(tiles.values()), label, answer, score))
    return _page(halves, captions, words.peak, has_outlines=bool(np.any(outlines)))


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture as JPEG, whose ending is added; its folder is made where there is none.

    A PNG of error maps takes twenty times as long and three times the room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.convert("RGB").save(f"{path}.jpg", quality=88)


def _tiles(image, reconstruction, error_map, mask, outline, words: Words) -> dict[str, np.ndarray]:
    """The pictures of a card under their captions, uint8 (TILE, TILE, 3) each."""
    original = _enlarged(_grey(image))
    inside = cv2.resize(mask.astype(np.uint8), (TILE, TILE), interpolation=cv2.INTER_NEAREST) == 1
    painted = np.full_like(original, ImageColor.getrgb(MASK))
    painted = cv2.addWeighted(painted, OPACITY, original, 1 - OPACITY, 0)
    called = np.where(inside[..., None], painted, original)
    tiles = {"original": _outlined(original, outline)}
    if reconstruction is not None:
        tiles["reconstruction"] = _enlarged(_grey(_to_uint8(reconstruction)))
    tiles[words.map] = _heat(error_map)
    tiles[words.mask] = _outlined(called, outline)
    return tiles


def _heat(error_map: np.ndarray) -> np.ndarray:
    """The error map in colours, a cross on its largest value: uint8 (TILE, TILE, 3)."""
    heat = cv2.applyColorMap(_to_uint8(error_map), cv2.COLORMAP_INFERNO)
    heat = _enlarged(cv2.cvtColor(heat, cv2.COLOR_BGR2RGB))
    if error_map.max() == error_map.min():
        return heat
    row, column = np.unravel_index(np.argmax(error_map), error_map.shape)
    scale = TILE / len(error_map)
    center = round((column + 0.5) * scale), round((row + 0.5) * scale)
    for color, width in (("black", 5), (CROSS, 2)):
        cv2.drawMarker(heat, center, ImageColor.getrgb(color), cv2.MARKER_CROSS, 17, width)
    return heat


def _outlined(picture: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """The picture with the border of `outline` as a thin line: uint8 (TILE, TILE, 3)."""
    smooth = cv2.resize(outline.astype(np.float32), (TILE, TILE), interpolation=cv2.INTER_LINEAR)
    borders, _ = cv2.findContours(
        (smooth > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    color = ImageColor.getrgb(OUTLINE)
    return cv2.polylines(picture.copy(), borders, True, color, 2, cv2.LINE_AA)


def _card(tiles: list[np.ndarray], label: int, answer: int, score: float) -> Image.Image:
    """The tiles in a frame over a line of text."""
    width, height = FRAME + len(tiles) * (TILE + FRAME), TILE + 2 * FRAME
    card = Image.new("RGB", (width, height + CAPTION), "white")
    for position, tile in enumerate(tiles):
        card.paste(Image.fromarray(tile), (FRAME + position * (TILE + FRAME), FRAME))
    color, word = (RIGHT, "right") if label == answer else (WRONG, "wrong")
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, width - 1, height - 1), outline=color, width=FRAME)
    baseline = height + CAPTION - 8
    verdict = f"{word}: called {CLASSES[int(answer)]}"
    draw.text((2, baseline), verdict, fill=color, font=_font(19), anchor="ls")
    number = f"score {score:+.3f}"
    draw.text((width - 2, baseline), number, fill=MUTED, font=_font(19), anchor="rs")
    return card


def _page(
    halves: tuple[list[Image.Image], ...],
    captions: tuple[str, ...],
    peak: str,
    *,
    has_outlines: bool,
) -> Image.Image:
    """The cards of each class below its name, the key to their marks, and column captions."""
    card = next(card for half in halves for card in half)
    n_rows, (step_x, step_y) = max(map(len, halves)), (card.width + GAP, card.height + GAP)
    page = Image.new("RGB", (GAP + 2 * step_x, HEADER + GAP + n_rows * step_y), "white")
    draw = ImageDraw.Draw(page)
    for column, (name, cards) in enumerate(zip(CLASSES, halves, strict=True)):
        left = GAP + column * step_x
        draw.text((left, 44), name, fill=INK, font=_font(30), anchor="ls")
        for position, caption in enumerate(captions):
            center = left + FRAME + TILE // 2 + position * (TILE + FRAME)
            draw.text((center, HEADER + 8), caption, fill=MUTED, font=_font(19), anchor="ms")
        for row, card in enumerate(cards):
            page.paste(card, (left, HEADER + GAP + row * step_y))
    _draw_key(draw, page.width - GAP, peak, has_outlines=has_outlines)
    return page


def _draw_key(draw: ImageDraw.ImageDraw, right: int, peak: str, *, has_outlines: bool) -> None:
    """What the cross and the line mean, written leftwards from `right`."""
    font, middle = _font(19), 36
    left = right - draw.textlength(peak, font)
    draw.text((left, middle), peak, fill=MUTED, font=font, anchor="lm")
    center = left - 16
    for color, reach, width in (("black", 9, 5), (CROSS, 8, 2)):
        draw.line((center - reach, middle, center + reach, middle), fill=color, width=width)
        draw.line((center, middle - reach, center, middle + reach), fill=color, width=width)
    if not has_outlines:
        return
    words = "published outline"
    left = center - 40 - draw.textlength(words, font)
    draw.text((left, middle), words, fill=MUTED, font=font, anchor="lm")
    draw.line((left - 34, middle, left - 8, middle), fill=OUTLINE, width=4)


@cache  # it is read anew each time
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _enlarged(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_CUBIC)


def _grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, axis=2)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
