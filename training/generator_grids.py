"""Pictures of generated images: alone, as training goes on, in between, beside real neighbours.

Images are uint8 (n, h, w) throughout. Knows no generator, and not how neighbours are found.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from training.grids import CAPTION, FRAME, GAP, INK, MUTED, RIGHT, TILE, WRONG, _font

TITLE = 56  # px above the pictures of a sheet
SMALL = 128  # px: a picture where many stand in a row, as large as the images are
ROW_LABEL = 110  # px at the left of a row


def sample_sheet(samples: np.ndarray, title: str, *, columns: int = 8) -> Image.Image:
    """All samples in rows of `columns`, under a title."""
    _check(samples)
    columns = min(columns, len(samples))
    n_rows = -(-len(samples) // columns)
    page = _page(2 * GAP + _span(columns, SMALL), n_rows * (SMALL + FRAME) - FRAME + GAP, title)
    for number, sample in enumerate(samples):
        row, column = divmod(number, columns)
        place = GAP + column * (SMALL + FRAME), TITLE + row * (SMALL + FRAME)
        page.paste(_picture(sample, SMALL), place)
    return page


def training_sheet(samples: Mapping[int, np.ndarray], title: str) -> Image.Image:
    """What the same noise became as training went on: a row an epoch, in their order."""
    if not samples:
        raise ValueError("training_sheet needs the samples of at least one epoch, got none.")
    return rows_sheet({f"epoch {epoch}": samples[epoch] for epoch in sorted(samples)}, title)


def interpolation_strip(frames: np.ndarray, title: str) -> Image.Image:
    """A walk from one sample to another, from left to right."""
    _check(frames)
    page = _page(2 * GAP + _span(len(frames), SMALL), SMALL + CAPTION, title)
    draw = ImageDraw.Draw(page)
    for number, image in enumerate(frames):
        page.paste(_picture(image, SMALL), (GAP + number * (SMALL + FRAME), TITLE))
    captions = (("one sample", GAP, "ls"), ("another", page.width - GAP, "rs"))
    for caption, x, anchor in captions:
        _write(draw, (x, page.height - 10), caption, MUTED, anchor)
    return page


def neighbor_sheet(
    samples: np.ndarray,
    nearest_train: np.ndarray,
    nearest_held_out: np.ndarray,
    *,
    to_train: Sequence[float],
    to_held_out: Sequence[float],
    title: str,
    is_copy: Sequence[bool] | None = None,
    columns: int = 4,
) -> Image.Image:
    """Cards of a sample, its nearest training image and its nearest held-out one.

    The distances stand below the two. A card is framed in red where `is_copy` says so, in green
    else: the caller knows what is too near. Row i of every argument is about the same sample.
    """
    _check(samples)
    copies = [False] * len(samples) if is_copy is None else is_copy
    columns = min(columns, len(samples))
    width = 3 * SMALL + 4 * FRAME
    height = SMALL + 2 * FRAME + CAPTION
    n_rows = -(-len(samples) // columns)
    page = _page(2 * GAP + columns * (width + GAP) - GAP, CAPTION + n_rows * (height + GAP), title)
    draw = ImageDraw.Draw(page)
    for column in range(columns):
        left = GAP + column * (width + GAP)
        for number, caption in enumerate(("sample", "training", "held out")):
            center = left + FRAME + SMALL // 2 + number * (SMALL + FRAME)
            _write(draw, (center, TITLE + CAPTION - 10), caption, MUTED, "ms")
    cards = zip(
        samples, nearest_train, nearest_held_out, to_train, to_held_out, copies, strict=True
    )
    for number, (*images, train, held_out, copy) in enumerate(cards):
        row, column = divmod(number, columns)
        place = GAP + column * (width + GAP), TITLE + CAPTION + row * (height + GAP)
        page.paste(_card(images, (train, held_out), copy=copy), place)
    return page


def closest_pairs(
    samples: np.ndarray,
    nearest_train: np.ndarray,
    *,
    distances: Sequence[float],
    title: str,
    columns: int = 4,
) -> Image.Image:
    """Pairs, large: a sample and its nearest training image, in the order given."""
    _check(samples)
    columns = min(columns, len(samples))
    width, height = 2 * TILE + FRAME, TILE + CAPTION
    n_rows = -(-len(samples) // columns)
    page = _page(2 * GAP + columns * (width + GAP) - GAP, CAPTION + n_rows * (height + GAP), title)
    draw = ImageDraw.Draw(page)
    for column in range(columns):
        left = GAP + column * (width + GAP)
        for number, caption in enumerate(("sample", "training")):
            center = left + TILE // 2 + number * (TILE + FRAME)
            _write(draw, (center, TITLE + CAPTION - 10), caption, MUTED, "ms")
    for number, (sample, image, distance) in enumerate(
        zip(samples, nearest_train, distances, strict=True)
    ):
        row, column = divmod(number, columns)
        left = GAP + column * (width + GAP)
        top = TITLE + CAPTION + row * (height + GAP)
        page.paste(_picture(sample, TILE), (left, top))
        page.paste(_picture(image, TILE), (left + TILE + FRAME, top))
        middle = left + width // 2
        _write(draw, (middle, top + height - 8), f"distance {distance:.2f}", MUTED, "ms")
    return page


def rows_sheet(rows: Mapping[str, np.ndarray], title: str) -> Image.Image:
    """Rows of pictures, each with its name at the left."""
    most = max(len(images) for images in rows.values())
    page = _page(
        2 * GAP + ROW_LABEL + _span(most, SMALL), len(rows) * (SMALL + FRAME) - FRAME + GAP, title
    )
    draw = ImageDraw.Draw(page)
    for number, (name, images) in enumerate(rows.items()):
        _check(images)
        top = TITLE + number * (SMALL + FRAME)
        _write(draw, (GAP, top + SMALL // 2), name, MUTED, "lm")
        for column, image in enumerate(images):
            place = GAP + ROW_LABEL + column * (SMALL + FRAME), top
            page.paste(_picture(image, SMALL), place)
    return page


def _card(images: Sequence[np.ndarray], distances: Sequence[float], *, copy: bool) -> Image.Image:
    """Three pictures in a frame, the distances of the last two below them."""
    width = 3 * SMALL + 4 * FRAME
    card = Image.new("RGB", (width, SMALL + 2 * FRAME + CAPTION), "white")
    draw = ImageDraw.Draw(card)
    color = WRONG if copy else RIGHT
    draw.rectangle((0, 0, width - 1, SMALL + 2 * FRAME - 1), outline=color, width=FRAME)
    for number, image in enumerate(images):
        card.paste(_picture(image, SMALL), (FRAME + number * (SMALL + FRAME), FRAME))
    baseline = card.height - 8
    for number, distance in enumerate(distances, start=1):
        center = FRAME + SMALL // 2 + number * (SMALL + FRAME)
        _write(draw, (center, baseline), f"{distance:.2f}", MUTED, "ms")
    if copy:
        _write(draw, (FRAME + SMALL // 2, baseline), "too near", WRONG, "ms")
    return card


def _page(width: int, height: int, title: str) -> Image.Image:
    """A white page with its title, as wide as the title needs."""
    font = _font(26)
    words = int(font.getlength(title)) + 2 * GAP
    page = Image.new("RGB", (max(width, words), TITLE + height), "white")
    ImageDraw.Draw(page).text((GAP, 38), title, fill=INK, font=font, anchor="ls")
    return page


def _write(draw: ImageDraw.ImageDraw, place, words: str, color: str, anchor: str) -> None:
    draw.text(place, words, fill=color, font=_font(19), anchor=anchor)


def _picture(image: np.ndarray, side: int) -> Image.Image:
    return Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC).convert("RGB")


def _span(n: int, side: int) -> int:
    """The width of n pictures beside each other."""
    return n * (side + FRAME) - FRAME


def _check(images: np.ndarray) -> None:
    if images.ndim != 3 or images.dtype != np.uint8 or not len(images):
        raise ValueError(
            f"A sheet takes images as uint8 (n, h, w), n at least 1, "
            f"got {images.dtype} {images.shape}."
        )
