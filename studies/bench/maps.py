"""The maps that heads are timed on: a detector's validation maps, as they are and smoothed."""

from dataclasses import dataclass

import numpy as np

from studies.session import Session
from studies.study import News
from training.detector import FittedDetector

SMOOTHING = 4.0  # px; detectors of frozen features have it, and DBSCAN finds whole heads dense then


@dataclass(frozen=True)
class MapSet:
    """Error maps float32 (n, h, w) with the labels of their images, and of which kind they are."""

    kind: str
    values: np.ndarray
    labels: np.ndarray


def validation_maps(session: Session) -> list[MapSet]:
    """Rough maps and smooth ones, of one fit."""
    return [_maps(session, "rough", {}), _maps(session, "smooth", {"smoothing": SMOOTHING})]


def _maps(session: Session, kind: str, hyperparameters: dict[str, object]) -> MapSet:
    detector: FittedDetector = session.lab.fit_detector(hyperparameters, News())
    maps = session.lab.validation_maps(detector)
    return MapSet(kind, maps.values, maps.labels)
