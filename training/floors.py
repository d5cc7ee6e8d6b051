"""What a detector must beat: four methods that need no network, scored as the detector is.

Each chooses what it has to choose on the validation images and answers the test images once; what
the detector itself answers is held in the same `Scored`. Knows nothing of networks and searches.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_curve

from models.heads.giaem import balanced_f_beta, best_giaem
from training.data import Dataset, Splits
from training.metrics import bootstrap_intervals, evaluate

CHUNK = 256  # images a matrix product: 16 MiB of float32 at 128 x 128


@dataclass(frozen=True)
class Scored:
    """One method's answers on the test images, and what they are worth."""

    name: str
    labels: np.ndarray  # (n,)
    groups: np.ndarray  # (n,)
    scores: np.ndarray  # float64 (n,), high means tumour
    predicted: np.ndarray  # int64 (n,)
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def floors(
    dataset: Dataset, splits: Splits, *, seed: int = 0, specificity_floor: float = 0.5
) -> list[Scored]:
    """Every floor on the test images; `seed` is that of the intervals."""
    labels, groups = dataset.labels[splits.test], dataset.groups[splits.test]
    scored = []
    for name, answer in FLOORS.items():
        scores = answer(dataset, splits, specificity_floor)
        predicted = (scores >= 0).astype(np.int64)
        scored.append(evaluate_scored(name, labels, groups, scores, predicted, seed=seed))
    return scored


def evaluate_scored(name: str, labels, groups, scores, predicted, *, seed: int = 0) -> Scored:
    """A method's answers with their metrics and 95 % intervals."""
    return Scored(
        name=name,
        labels=labels,
        groups=groups,
        scores=scores,
        predicted=predicted,
        metrics=evaluate(labels, predicted, scores),
        intervals=bootstrap_intervals(labels, predicted, scores, groups, seed=seed),
    )


def _always_tumor(dataset: Dataset, splits: Splits, specificity_floor: float) -> np.ndarray:
    return np.zeros(len(splits.test))


def _mean_intensity(dataset: Dataset, splits: Splits, specificity_floor: float) -> np.ndarray:
    """The mean grey value, or its negative, over the threshold that is best on validation."""
    labels = dataset.labels[splits.val]
    intensity = dataset.images.mean(axis=(1, 2))
    cuts = {
        sign: best_threshold(
            labels, sign * intensity[splits.val], specificity_floor=specificity_floor
        )
        for sign in (1, -1)
    }
    sign = max(cuts, key=lambda sign: cuts[sign][1])
    return sign * intensity[splits.test] - cuts[sign][0]


def _giaem_on_images(dataset: Dataset, splits: Splits, specificity_floor: float) -> np.ndarray:
    """The GIAEM head where the error map is the image itself."""
    head = best_giaem(
        _unit_range(dataset.images[splits.val]),
        dataset.labels[splits.val],
        specificity_floor=specificity_floor,
    )
    return head.decision_function(_unit_range(dataset.images[splits.test]))


def _nearest_neighbor(dataset: Dataset, splits: Splits, specificity_floor: float) -> np.ndarray:
    """1-nearest neighbour on raw pixels among all labelled train and validation images."""
    references = np.concatenate([splits.train, splits.val])
    tumor = dataset.labels[references] == 1
    images = dataset.images[splits.test]
    to_healthy = distance_to_nearest(images, dataset.images[references[~tumor]])
    return to_healthy - distance_to_nearest(images, dataset.images[references[tumor]])


FLOORS = {
    "always_tumor": _always_tumor,
    "mean_intensity": _mean_intensity,
    "giaem_on_images": _giaem_on_images,
    "nearest_neighbor": _nearest_neighbor,
}


def best_threshold(labels, scores, *, specificity_floor: float) -> tuple[float, float]:
    """The feasible threshold with the best F2 for `scores >= threshold`, and that F2."""
    false_alarms, recall, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    thresholds[0] = np.nextafter(thresholds[1], np.inf)  # nobody flagged; scikit-learn says inf
    f2 = np.where(
        1 - false_alarms >= specificity_floor,
        balanced_f_beta(recall, 1 - false_alarms, beta=2.0),
        -1,
    )
    best = np.argmax(f2)
    return float(thresholds[best]), float(f2[best])


def distance_to_nearest(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Euclidean distance in [0, 1] pixels from each image to its nearest reference, (n,).

    |a - b|² = |a|² + |b|² - 2 ab, so that the work is a matrix product.
    """
    references = _unit_range(references).reshape(len(references), -1)  # (m, h * w)
    lengths = np.einsum("ij,ij->i", references, references)
    nearest = []
    for start in range(0, len(images), CHUNK):
        chunk = _unit_range(images[start : start + CHUNK])
        chunk = chunk.reshape(len(chunk), -1)
        squared = lengths - 2 * chunk @ references.T  # (chunk, m), still short of |a|²
        nearest.append(squared.min(axis=1) + np.einsum("ij,ij->i", chunk, chunk))
    return np.sqrt(np.maximum(np.concatenate(nearest), 0)).astype(np.float64)


def _unit_range(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255
