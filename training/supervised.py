"""The supervised reference: what labels would add, on the same frozen features.

A logistic regression over pooled features, trained on labelled images of both classes under the
classifier's split. Its test images are others than a detector's; it is a reference, not a rival.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from models.backbones import LITE, is_installed
from models.error_mapper import FLIPS
from training.data import split
from training.detector import DetectorSpec, features_of
from training.features import FeatureStore
from training.floors import Scored, evaluate_scored

STRENGTHS = (1e-3, 1e-2, 1e-1)  # of scikit-learn's C, chosen by log-loss on validation
DETECTOR = DetectorSpec("patch_features")


def has_frozen_features() -> bool:
    """Whether the pretrained network that the reference stands on is installed."""
    return is_installed(LITE)


def supervised_reference(store: FeatureStore, *, seed: int, protocol: str = "grouped") -> Scored:
    """The answers on the classifier's test split of this seed, asked once a call.

    Each image is seen under all four flips: in training as four images, else as their mean score.
    A group of near-copies counts as the square root of its size.
    """
    dataset = store.dataset
    splits = split(
        dataset.labels, dataset.groups, protocol=protocol, scheme="classifier", seed=seed
    )
    pooled = _pooled(store)
    weights = 1 / np.sqrt(np.bincount(dataset.groups)[dataset.groups[splits.train]])
    train = np.concatenate([flip[splits.train] for flip in pooled])
    labels = np.tile(dataset.labels[splits.train], len(pooled))
    models = [_fit(train, labels, np.tile(weights, len(pooled)), c) for c in STRENGTHS]
    val_labels = dataset.labels[splits.val]
    losses = [_log_loss(val_labels, _scores(model, pooled, splits.val)) for model in models]
    scores = _scores(models[int(np.argmin(losses))], pooled, splits.test)
    return evaluate_scored(
        "logistic_regression",
        dataset.labels[splits.test],
        dataset.groups[splits.test],
        scores,
        (scores >= 0).astype(np.int64),
        seed=seed,
    )


def _pooled(store: FeatureStore) -> list[np.ndarray]:
    """Mean, maximum and spread of each channel over the grid: (n, 3 channels) for each flip."""
    everyone = np.arange(len(store.dataset.labels))
    features = features_of(DETECTOR, store, everyone)
    grids = [features(flip).float().flatten(2).numpy() for flip in FLIPS["all"]]
    return [np.concatenate([g.mean(2), g.max(2), g.std(2)], axis=1) for g in grids]


def _fit(rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, strength: float) -> Pipeline:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
    return model.fit(rows, labels, logisticregression__sample_weight=weights / weights.mean())


def _scores(model: Pipeline, pooled: list[np.ndarray], indices: np.ndarray) -> np.ndarray:
    """The mean decision over the flips, float64 (k,)."""
    return np.mean([model.decision_function(flip[indices]) for flip in pooled], axis=0)


def _log_loss(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean negative log-likelihood of the labels."""
    return float(np.logaddexp(0, np.where(labels == 1, -scores, scores)).mean())
