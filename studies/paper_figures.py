"""The paper's figures 2 to 5, redrawn from our own images, generators and detector.

Pictures for the page alone: they are of single images and show no measure.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from studies.detection import Detection
from studies.study import Lab
from training.data import Dataset
from training.data.preprocess import to_gray
from training.data.synthetic import SyntheticSet
from training.generator_grids import rows_sheet
from training.grids import CLASSES, GAP, INK, MUTED, TILE

STEPS = ("as it comes", "where the head is", "cut out", "framed, 128 x 128")
BOX = "#ffd43b"
N_SAMPLES = 8
N_PAIR = 2
HEADER, ROW_LABEL = 44, 120  # px above and left of the pictures


def draw_preprocessing(dataset: Dataset, folder: Path, *, seed: int = 0) -> Image.Image:
    """Figure 2: an image of each class from its file to what networks see, a row each.

    `folder` holds the files of the dataset's manifest.
    """
    rng = np.random.default_rng(seed)
    width = ROW_LABEL + len(STEPS) * (TILE + GAP)
    page = Image.new("RGB", (width, HEADER + len(CLASSES) * (TILE + GAP)), "white")
    draw = ImageDraw.Draw(page)
    for column, step in enumerate(STEPS):
        center = ROW_LABEL + column * (TILE + GAP) + TILE // 2
        draw.text((center, HEADER - 12), step, fill=MUTED, font=_font(19), anchor="ms")
    for label, name in enumerate(CLASSES):
        top = HEADER + label * (TILE + GAP)
        draw.text((0, top + TILE // 2), name, fill=INK, font=_font(19), anchor="lm")
        chosen = rng.choice(np.flatnonzero(dataset.labels == label))
        for column, picture in enumerate(_steps(dataset, folder, chosen)):
            page.paste(picture, (ROW_LABEL + column * (TILE + GAP), top))
    return page


def _steps(dataset: Dataset, folder: Path, index: int) -> list[Image.Image]:
    row = dataset.manifest.iloc[index]
    with Image.open(folder / row["file"]) as file:
        original = Image.fromarray(to_gray(file)).convert("RGB")
    left, top = row["box_left"], row["box_top"]
    box = (left, top, left + row["box_width"], top + row["box_height"])
    boxed = original.copy()
    line = max(2, round(max(original.size) / TILE * 3))
    ImageDraw.Draw(boxed).rectangle(box, outline=BOX, width=line)
    framed = Image.fromarray(dataset.images[index]).convert("RGB")
    return [_tile(picture) for picture in (original, boxed, original.crop(box), framed)]


def _tile(picture: Image.Image) -> Image.Image:
    """A picture of any shape in the middle of a grey square."""
    return ImageOps.pad(picture, (TILE, TILE), Image.Resampling.BICUBIC, color="#eef1f4")


def draw_samples(
    dataset: Dataset, train: np.ndarray, made: Mapping[str, SyntheticSet], *, seed: int = 0
) -> dict[str, Image.Image]:
    """Figure 3: made slices below real ones of the training split, a sheet a class."""
    sheets = {}
    for label, name in enumerate(CLASSES):
        members = train[dataset.labels[train] == label]
        rows = {"real": dataset.images[_of_other_groups(members, dataset.groups, seed)]}
        rows |= {title: one.images[one.labels == label][:N_SAMPLES] for title, one in made.items()}
        caption = f"Figure 3. Real and made slices, {name}"
        sheets[caption] = rows_sheet(rows, f"{name[0].upper()}{name[1:]}")
    return sheets


def _of_other_groups(members: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """A few of these images, no two of them near-copies."""
    shuffled = np.random.default_rng(seed).permutation(members)
    _, first = np.unique(groups[shuffled], return_index=True)
    return shuffled[np.sort(first)][:N_SAMPLES]


def draw_pair(candidate: Detection, lab: Lab) -> Image.Image:
    """Figures 4 and 5: a test image of each class with reconstruction and error map."""
    return candidate.draw(lab, "test", n=N_PAIR)


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
