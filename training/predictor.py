"""A predictor: pre-processing, detector and head in one, from an image as it comes to an answer.

Owns the folder that a registered model is made of, and what an answer rests on: a map of the image,
and how far it is from the border between the answers. Knows nothing of where it is registered.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.base import BaseEstimator

from models.error_mapper import ErrorMapper
from models.heads import HEADS
from training import checkpoint
from training.data.dataset import DataError
from training.data.preprocess import SIDE, frame, to_gray
from training.detector import DetectorSpec
from training.error_maps import map_images

PREDICTOR, WEIGHTS, HEAD = "predictor.json", "weights.safetensors", "head.safetensors"
NO_ANSWERS = pd.DataFrame({"label": np.empty(0, np.int64), "score": np.empty(0)})
VERSIONED = ("torch", "numpy", "scikit-learn", "opencv-python-headless")


class Explained(NamedTuple):
    """Answers, and where in each frame they come from; row i of every member is the same image."""

    answers: pd.DataFrame  # `label` and `score`, as `predict` gives them
    maps: np.ndarray  # float32 (n, 128, 128) in [0, 1]
    masks: np.ndarray  # bool (n, 128, 128): the suspected region


@dataclass(frozen=True)
class Predictor:
    """All that turns images into answers, fitted."""

    margin_unit: ClassVar[str] = "% of the threshold"

    preprocess: str  # "head" or "paper"
    spec: DetectorSpec
    mapper: ErrorMapper
    head: BaseEstimator
    device: torch.device

    def predict(self, images: np.ndarray | Sequence[np.ndarray]) -> pd.DataFrame:
        """A row an image: `label` (0 no tumour, 1 tumour) and `score` (tumour where >= 0).

        Images are uint8 of any size, grey or colour: a list of them, or one array
        (n, h, w) or (n, h, w, c).
        """
        return self.answer(framed(images, self.preprocess))

    def answer(self, frames: np.ndarray) -> pd.DataFrame:
        """The same of slices that are pre-processed, uint8 (n, 128, 128)."""
        if len(frames) == 0:
            return NO_ANSWERS.copy()
        return self._answers(map_images(self.mapper, frames, device=self.device))

    def explain(self, frames: np.ndarray) -> Explained:
        """Answers to one or more such slices with their error maps and the head's masks."""
        errors = map_images(self.mapper, frames, device=self.device)
        return Explained(self._answers(errors), errors, self.head.mask(errors))

    @property
    def map_name(self) -> str:
        """What the maps are; a relative one reaches from 0 to 1 in every image."""
        return "relative error map" if self.mapper.scaling == "image" else "error map"

    def margins(self, scores: np.ndarray) -> np.ndarray:
        """How far scores are beyond the head's threshold (below 0: short of it), in % of it.

        NaN where the threshold is 0, of which nothing is a part.
        """
        border = self.head.border
        return 100 * np.asarray(scores) / border if border else np.full(len(scores), np.nan)

    def _answers(self, errors: np.ndarray) -> pd.DataFrame:
        return answers_of(self.head.decision_function(errors))

    def save(self, folder: Path) -> None:
        """Write what `load` reads: two files of arrays and one of text."""
        self.save_own(folder)
        checkpoint.save_weights(self.mapper, folder / WEIGHTS)

    def save_own(self, folder: Path) -> None:
        """The same without the weights, for a predictor whose network is kept elsewhere."""
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.save_arrays(_learned(self.head), folder / HEAD)
        names = {kind: name for name, kind in HEADS.items()}
        description = {
            "preprocess": self.preprocess,
            "detector": asdict(self.spec.complete()),
            "head": {"name": names[type(self.head)], "params": self.head.get_params()},
            "versions": versions(),
        }
        (folder / PREDICTOR).write_text(json.dumps(description, indent=1))

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "Predictor":
        """Read a saved predictor."""
        folder = Path(folder)
        description = json.loads((folder / PREDICTOR).read_text())
        spec = DetectorSpec(**description["detector"])
        mapper = spec.build()
        checkpoint.load_weights(mapper, folder / WEIGHTS)
        head = HEADS[description["head"]["name"]](**description["head"]["params"])
        for name, value in checkpoint.load_arrays(folder / HEAD).items():
            setattr(head, name, value if value.ndim else value.item())
        return cls(
            preprocess=description["preprocess"],
            spec=spec,
            mapper=mapper.to(device).eval(),
            head=head,
            device=torch.device(device),
        )


def framed(images: np.ndarray | Sequence[np.ndarray | Image.Image], method: str) -> np.ndarray:
    """Images as they come, pre-processed: uint8 (n, 128, 128).

    DataError, with the number of the image counted from 1, where one shows no head.
    """
    if isinstance(images, np.ndarray) and images.ndim < 3:
        raise ValueError(
            f"images must be an array (n, h, w[, c]) or a list, got shape {images.shape}. "
            "Put a single image in a list."
        )
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        frames = list(pool.map(partial(_frame, method=method), images, range(1, len(images) + 1)))
    return np.stack(frames) if frames else np.empty((0, SIDE, SIDE), np.uint8)


def _frame(image: np.ndarray | Image.Image, number: int, *, method: str) -> np.ndarray:
    try:
        return frame(to_gray(image), method).image
    except DataError as error:
        raise DataError(f"Image {number}: {error}") from error


def answers_of(scores: np.ndarray) -> pd.DataFrame:
    """A row a score: a tumour where it is 0 or more."""
    return pd.DataFrame({"label": (scores >= 0).astype(np.int64), "score": scores})


@cache
def versions() -> dict[str, str]:
    """The packages that an answer depends on; looked up once, since every trial writes them."""
    return {package: version(package) for package in VERSIONED}


def load(folder: Path) -> Predictor:
    """The entry point that a registered model names."""
    return Predictor.load(folder)


def _learned(head: BaseEstimator) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(value)
        for name, value in vars(head).items()
        if name.endswith("_") and not name.startswith("_")
    }
