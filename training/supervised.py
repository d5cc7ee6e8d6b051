"""The supervised reference: what labels would add, on the same frozen features.

A logistic regression over what `patch_features` has: pooled features, and the distances of a
slice's patches to those of healthy slices. It is trained on labelled images of both classes under
the classifier's split; its test images are others than a detector's: a reference, not a rival.
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from models.backbones import GRID, LITE, is_installed
from models.error_mapper import FLIPS
from training.data import Dataset, split
from training.detector import DetectorSpec, features_of
from training.features import FeatureStore
from training.floors import Scored, evaluate_scored

STRENGTHS = (1e-3, 1e-2, 1e-1)  # of scikit-learn's C, chosen by log-loss on validation
RANKS = [0, 1, 2, 4, 8, 16, 32]  # which of a slice's 64 distances, the largest first; our choice
N_FOLDS = 5  # a healthy training image is compared with those of the other folds
DETECTOR = DetectorSpec("patch_features")


def has_frozen_features() -> bool:
    """Whether the pretrained network that the reference stands on is installed."""
    return is_installed(LITE)


def supervised_reference(store: FeatureStore, *, seed: int, protocol: str = "grouped") -> Scored:
    """The answers on the classifier's test split of this seed, asked once a call.

    The regularisation is chosen on validation images, which then join the training. Each image is
    seen under all four flips: in training as four images, else as their mean score. A group of
    near-copies counts as the square root of its size.
    """
    dataset = store.dataset
    splits = split(
        dataset.labels, dataset.groups, protocol=protocol, scheme="classifier", seed=seed
    )
    features = _features(store)
    rows = _rows(dataset, features, splits.train)
    models = [_fit(dataset, rows, splits.train, strength) for strength in STRENGTHS]
    labels = dataset.labels[splits.val]
    losses = [_log_loss(labels, _scores(model, rows, splits.val)) for model in models]
    known = np.sort(np.concatenate([splits.train, splits.val]))
    rows = _rows(dataset, features, known)
    model = _fit(dataset, rows, known, STRENGTHS[int(np.argmin(losses))])
    scores = _scores(model, rows, splits.test)
    return evaluate_scored(
        "logistic_regression",
        dataset.labels[splits.test],
        dataset.groups[splits.test],
        scores,
        (scores >= 0).astype(np.int64),
        seed=seed,
    )


def _features(store: FeatureStore) -> list[torch.Tensor]:
    """Features (n, channels, 8, 8) of every image under each flip."""
    of = features_of(DETECTOR, store, np.arange(len(store.dataset.labels)))
    return [of(flip).float() for flip in FLIPS["all"]]


def _rows(dataset: Dataset, features: list[torch.Tensor], known: np.ndarray) -> list[np.ndarray]:
    """What the regression sees of every image, (n, d) for each flip; no label but `known`'s."""
    healthy = known[dataset.labels[known] == 0]
    distances = _distances(dataset, features, healthy)
    return [np.hstack([_pooled(f), d]) for f, d in zip(features, distances, strict=True)]


def _pooled(features: torch.Tensor) -> np.ndarray:
    """Mean, maximum and spread of each channel over the grid."""
    grid = features.flatten(2).numpy()
    return np.concatenate([grid.mean(2), grid.max(2), grid.std(2)], axis=1)


def _distances(
    dataset: Dataset, features: list[torch.Tensor], healthy: np.ndarray
) -> list[np.ndarray]:
    """Logarithms of a slice's largest distances to healthy ones, never to its own near-copies."""
    found = [np.empty((len(f), len(RANKS))) for f in features]
    everyone = np.arange(len(dataset.labels))
    folds = GroupKFold(N_FOLDS).split(healthy, groups=dataset.groups[healthy])
    rounds = [(healthy, np.setdiff1d(everyone, healthy))]
    rounds += [(healthy[learned], healthy[asked]) for learned, asked in folds]
    for learned, asked in rounds:
        network = DETECTOR.build().network
        network.learn(features[0][learned], torch.from_numpy(dataset.groups[learned]))
        for of_flip, f in zip(found, features, strict=True):
            grid = network.compare(f[asked], torch.Size([GRID, GRID])).flatten(1).numpy()
            of_flip[asked] = np.log(-np.sort(-grid, axis=1)[:, RANKS] + 1e-6)
    return found


def _fit(
    dataset: Dataset, rows: list[np.ndarray], indices: np.ndarray, strength: float
) -> Pipeline:
    weights = 1 / np.sqrt(np.bincount(dataset.groups)[dataset.groups[indices]])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
    return model.fit(
        np.concatenate([of_flip[indices] for of_flip in rows]),
        np.tile(dataset.labels[indices], len(rows)),
        logisticregression__sample_weight=np.tile(weights / weights.mean(), len(rows)),
    )


def _scores(model: Pipeline, rows: list[np.ndarray], indices: np.ndarray) -> np.ndarray:
    """The mean decision over the flips, float64 (k,)."""
    return np.mean([model.decision_function(of_flip[indices]) for of_flip in rows], axis=0)


def _log_loss(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean negative log-likelihood of the labels."""
    return float(np.logaddexp(0, np.where(labels == 1, -scores, scores)).mean())
