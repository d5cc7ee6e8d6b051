"""Pictures of what a detector saw, and what its head made of it. Knows no detector and no head."""

from itertools import zip_longest

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import draw_segmentation_masks, make_grid

TILE = 192  # px; half as large again as the 128 px that the detector sees
GAP, FRAME, CAPTION, HEADER = 18, 5, 30, 78
CAPTIONS = ("original", "reconstruction", "error map", "called tumour")
CLASSES = ("no tumour", "tumour")
INK, MUTED, RIGHT, WRONG, MASK = "#1f2933", "#66727f", "#2f9e6e", "#d1373f", "#00c2ff"


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
    reconstructions: np.ndarray,
    error_maps: np.ndarray,
    masks: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    *,
    scores: np.ndarray,
) -> Image.Image:
    """One card an image: original, reconstruction, error map, and the pixels called tumour.

    Images without a tumour stand on the left, those with one on the right, in the order given;
    the frame is green where the head is right and red where it is wrong.

    images uint8, reconstructions and error_maps float in [0, 1], masks bool, all (n, h, w).
    """
    halves = ([], [])
    for label, answer, score, *maps in zip(
        labels, predicted, scores, images, reconstructions, error_maps, masks, strict=True
    ):
        halves[int(label)].append(_card(_tiles(*maps), label, answer, score))
    blank = torch.full_like(next(card for half in halves for card in half), 255)
    cards = [card for row in zip_longest(*halves, fillvalue=blank) for card in row]
    return _with_header(make_grid(cards, nrow=2, padding=GAP, pad_value=255))


def _tiles(image, reconstruction, error_map, mask) -> list[torch.Tensor]:
    """The four pictures of a card, uint8 (3, TILE, TILE) each."""
    original = _grey(image)
    heat = cv2.applyColorMap(_to_uint8(error_map), cv2.COLORMAP_INFERNO)
    heat = cv2.cvtColor(heat, cv2.COLOR_BGR2RGB)
    size = (TILE, TILE)
    mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) == 1
    original, x_hat, heat = (
        torch.from_numpy(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)).permute(2, 0, 1)
        for picture in (original, _grey(_to_uint8(reconstruction)), heat)
    )
    overlay = draw_segmentation_masks(original, torch.from_numpy(mask), alpha=0.55, colors=MASK)
    return [original, x_hat, heat, overlay]


def _card(tiles, label, answer, score) -> torch.Tensor:
    """Four tiles in a frame over a line of text, uint8 (3, h, w)."""
    strip = to_pil_image(make_grid(tiles, nrow=len(tiles), padding=FRAME, pad_value=255))
    color, word = (RIGHT, "right") if label == answer else (WRONG, "wrong")
    card = Image.new("RGB", (strip.width, strip.height + CAPTION), "white")
    card.paste(strip)
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, strip.width - 1, strip.height - 1), outline=color, width=FRAME)
    baseline = strip.height + CAPTION - 8
    verdict = f"{word}: called {CLASSES[int(answer)]}"
    draw.text((2, baseline), verdict, fill=color, font=_font(19), anchor="ls")
    number = f"score {score:+.3f}"
    draw.text((strip.width - 2, baseline), number, fill=MUTED, font=_font(19), anchor="rs")
    return pil_to_tensor(card)


def _with_header(grid: torch.Tensor) -> Image.Image:
    """The grid below its class names and column captions."""
    cards = to_pil_image(grid)
    page = Image.new("RGB", (cards.width, cards.height + HEADER), "white")
    page.paste(cards, (0, HEADER))
    draw = ImageDraw.Draw(page)
    card_width = (cards.width - 3 * GAP) // 2
    for column, name in enumerate(CLASSES):
        left = GAP + column * (card_width + GAP)
        draw.text((left, 44), name, fill=INK, font=_font(30), anchor="ls")
        for position, caption in enumerate(CAPTIONS):
            center = left + FRAME + TILE // 2 + position * (TILE + FRAME)
            draw.text((center, HEADER + 8), caption, fill=MUTED, font=_font(19), anchor="ms")
    return page


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, axis=2)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
