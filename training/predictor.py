"""A predictor: pre-processing, detector and head in one, from an image as it comes to an answer.

Owns the folder that a registered model is made of. Knows nothing of where it is registered.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator

from models.error_mapper import ErrorMapper
from models.heads import HEADS
from training import checkpoint
from training.data import preprocess
from training.data.preprocess import SIDE
from training.detector import DetectorSpec
from training.error_maps import map_images

PREDICTOR, WEIGHTS, HEAD = "predictor.json", "weights.safetensors", "head.safetensors"
NO_ANSWERS = pd.DataFrame({"label": np.empty(0, np.int64), "score": np.empty(0)})
VERSIONED = ("torch", "numpy", "scikit-learn", "opencv-python-headless")


@dataclass(frozen=True)
class Predictor:
    """All that turns images into answers, fitted."""

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
        frames = framed(images, self.preprocess)
        if len(frames) == 0:
            return NO_ANSWERS.copy()
        errors = map_images(self.mapper, frames, device=self.device)
        labels, scores = self.head.predict(errors), self.head.decision_function(errors)
        return pd.DataFrame({"label": labels, "score": scores})

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


def framed(images: np.ndarray | Sequence[np.ndarray], method: str) -> np.ndarray:
    """Images as they come, pre-processed: uint8 (n, 128, 128)."""
    if isinstance(images, np.ndarray) and images.ndim < 3:
        raise ValueError(
            f"images must be an array (n, h, w[, c]) or a list, got shape {images.shape}. "
            "Put a single image in a list."
        )
    frames = [preprocess(image, method) for image in images]
    return np.stack(frames) if frames else np.empty((0, SIDE, SIDE), np.uint8)


def versions() -> dict[str, str]:
    """The packages that an answer depends on."""
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
