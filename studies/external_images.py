"""Labelled images from elsewhere, and what of them a model's training has seen already.

Owns how such a folder is read (one class is enough), how near-copies are found across two sets,
and how grey values are compared. Knows nothing of models and of how results are told.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.stats import ks_2samp

from training.data import DataError, Dataset, preprocess
from training.data.copies import find_groups, thumbnail
from training.data.folder import CLASS_FOLDERS, SUFFIXES

SHIFTED = 0.5  # standardised difference; our choice: what Cohen (1988) calls a medium effect


@dataclass(frozen=True)
class ExternalImages:
    """What a folder holds; row i of every member is the same image."""

    folder: Path
    files: np.ndarray  # "yes/a.png", relative to the folder
    labels: np.ndarray  # int64 (n,)
    frames: np.ndarray  # uint8 (n, 128, 128), pre-processed as the model does it
    unreadable: list[str]  # "yes/b.png: reason"

    def only(self, kept: np.ndarray) -> "ExternalImages":
        """The images where `kept` says so."""
        return ExternalImages(
            self.folder, self.files[kept], self.labels[kept], self.frames[kept], self.unreadable
        )


class Seen(NamedTuple):
    """Which images are near-copies of a model's own, and groups of copies among all of them."""

    in_training: np.ndarray  # bool (n,): of an image that was trained or tuned on
    in_test: np.ndarray  # bool (n,): of an image of the study's test split
    groups: np.ndarray  # int64 (n,)


class Shift(NamedTuple):
    """The mean grey value of an image's foreground, here and there: how far the two lie apart."""

    known: tuple[float, float]  # mean and standard deviation over images
    external: tuple[float, float]
    difference: float  # of the means, in standard deviations
    error: float  # the difference's standard error, a group of near-copies counted once
    distance: float  # Kolmogorov's and Smirnov's, in [0, 1]

    @property
    def is_large(self) -> bool:
        """Whether the difference is too large to be passed over."""
        return abs(self.difference) >= SHIFTED

    @property
    def is_certain(self) -> bool:
        """Whether so many groups seldom differ as much by chance."""
        return abs(self.difference) > 2 * self.error


def read_folder(folder: Path, method: str) -> ExternalImages:
    """Read `yes/` and `no/`, or the one of them that there is; `method` is the pre-processing."""
    found = [
        (f"{name}/{path.name}", label)
        for name, label in CLASS_FOLDERS.items()
        for path in sorted((folder / name).glob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]
    files, labels, frames, unreadable = [], [], [], []
    for file, label in found:
        try:
            with Image.open(folder / file) as image:
                frame = preprocess(image, method)
        except (DataError, OSError, SyntaxError, ValueError) as error:
            unreadable.append(f"{file}: {error}")
            continue
        files.append(file)
        labels.append(label)
        frames.append(frame)
    if not files:
        raise DataError(
            f"{folder} holds no images that can be read. Put slices with a tumour into yes/ and "
            "those without into no/; one of the two is enough."
        )
    return ExternalImages(
        folder, np.array(files), np.array(labels, np.int64), np.stack(frames), unreadable
    )


def find_seen(
    external: ExternalImages, dataset: Dataset, trained: np.ndarray, test: np.ndarray
) -> Seen:
    """Compare with the images of a data set that a model was trained and tuned, or tested, on.

    Thumbnails are cut from pre-processed images, which is what is kept of the data set: on Br35H
    they give the groups that the originals give (adjusted Rand index 0.993), and join a few more.
    A copy counts whatever its label, and so does a copy of a copy.
    """
    frames = [*dataset.images, *external.frames]
    thumbnails = np.stack([thumbnail(_head(frame)) for frame in frames])
    groups = find_groups(thumbnails, np.zeros(len(frames), np.int64))
    n = len(dataset.images)
    known, own = groups[:n], groups[n:]
    in_training = np.isin(own, known[trained])
    return Seen(in_training, np.isin(own, known[test]) & ~in_training, own)


def compare_intensities(
    known: np.ndarray, external: np.ndarray, *, n_groups: tuple[int, int]
) -> Shift:
    """Compare pre-processed images, uint8 (n, 128, 128), by their foreground's mean grey value.

    `n_groups`: how many groups of near-copies there are in the one and in the other.
    """
    here, there = _brightness(known), _brightness(external)
    pooled = np.sqrt((here.var() + there.var()) / 2)
    gap = there.mean() - here.mean()
    return Shift(
        known=(here.mean(), here.std()),
        external=(there.mean(), there.std()),
        difference=gap / pooled if pooled > 0 else np.sign(gap) * np.inf if gap else 0.0,
        error=float(np.sqrt(sum(1 / n for n in n_groups))),
        distance=ks_2samp(here, there).statistic,
    )


def _brightness(frames: np.ndarray) -> np.ndarray:
    foreground = frames > 0
    n_pixels = np.maximum(foreground.sum(axis=(1, 2)), 1)
    return frames.sum(axis=(1, 2), dtype=np.float64) / n_pixels


def _head(frame: np.ndarray) -> np.ndarray:
    """What is not black border."""
    rows, columns = (np.flatnonzero(frame.any(axis=axis)) for axis in (1, 0))
    return frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
