"""A classifier's predictor: pre-processing, network, calibration and threshold in one.

Owns the folder that a registered classifier is made of. Knows nothing of where it is registered.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from models.brain_cnn import BrainCNN
from training import checkpoint
from training.classifier import ClassifierSpec, attribution_maps, score_images
from training.predictor import (
    NO_ANSWERS,
    PREDICTOR,
    WEIGHTS,
    Explained,
    answers_of,
    framed,
    versions,
)

SMALLEST_SLOPE = 1e-3
HALF = 0.5  # of a map's maximum: what is shown, and measured, as the place


class Calibration(NamedTuple):
    """A network's log-odds as those of probabilities: slope * log-odds + intercept."""

    slope: float
    intercept: float


@dataclass(frozen=True)
class ClassifierPredictor:
    """All that turns images into answers, trained."""

    map_name: ClassVar[str] = "relative attribution"  # its brightest is 1 in every image
    margin_unit: ClassVar[str] = "percentage points of probability"

    preprocess: str  # "head" or "paper"
    spec: ClassifierSpec
    network: BrainCNN
    calibration: Calibration
    threshold: float  # the probability of a tumour from which on it is called one
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
        log_odds = score_images(self.network, frames, device=self.device, flips=self._flips)
        return answers_of(decide(log_odds, self.calibration, self.threshold))

    def explain(self, frames: np.ndarray) -> Explained:
        """Answers to one or more such slices with where the network sees a tumour.

        The masks are the upper halves of the maps, each of which reaches from 0 to 1.
        """
        maps = attribution_maps(self.network, frames, device=self.device, flips=self._flips)
        return Explained(self.answer(frames), maps, maps >= HALF)

    def margins(self, scores: np.ndarray) -> np.ndarray:
        """How far probabilities of a tumour are beyond the threshold, in percentage points."""
        border = math.log(self.threshold / (1 - self.threshold))
        return 100 * (expit(np.asarray(scores) + border) - self.threshold)

    @property
    def _flips(self) -> str:
        return self.spec.complete().hyperparameters["flips"]

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""
        self.save_own(folder)
        checkpoint.save_weights(self.network, folder / WEIGHTS)

    def save_own(self, folder: Path) -> None:
        """The same without the weights, for a predictor whose network is kept elsewhere."""
        folder.mkdir(parents=True, exist_ok=True)
        description = {
            "preprocess": self.preprocess,
            "classifier": asdict(self.spec.complete()),
            "calibration": self.calibration._asdict(),
            "threshold": self.threshold,
            "versions": versions(),
        }
        (folder / PREDICTOR).write_text(json.dumps(description, indent=1))

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "ClassifierPredictor":
        """Read a saved predictor."""
        folder = Path(folder)
        description = json.loads((folder / PREDICTOR).read_text())
        spec = ClassifierSpec(**description["classifier"])
        network = spec.build()
        checkpoint.load_weights(network, folder / WEIGHTS)
        return cls(
            preprocess=description["preprocess"],
            spec=spec,
            network=network.to(device).eval(),
            calibration=Calibration(**description["calibration"]),
            threshold=description["threshold"],
            device=torch.device(device),
        )


def calibrate(log_odds: np.ndarray, labels: np.ndarray) -> Calibration:
    """How log-odds (n,) are to be read, learned from images that the network was not trained on.

    Platt 1999, both classes weighing alike. A network that ranks worse than chance is not turned
    round: its slope is the smallest there is.
    """
    model = LogisticRegression(class_weight="balanced").fit(log_odds[:, None], labels)
    slope = max(float(model.coef_[0, 0]), SMALLEST_SLOPE)
    return Calibration(slope, float(model.intercept_[0]))


def decide(log_odds: np.ndarray, calibration: Calibration, threshold: float) -> np.ndarray:
    """Scores (n,) that are 0 or more where the calibrated probability reaches `threshold`."""
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be in (0, 1), got {threshold}.")
    calibrated = calibration.slope * log_odds + calibration.intercept
    return calibrated - math.log(threshold / (1 - threshold))


def load(folder: Path) -> ClassifierPredictor:
    """The entry point that a registered model names."""
    return ClassifierPredictor.load(folder)
