"""Control experiments: data from which a detector must learn nothing, and what the files give away.

A detector whose answers come from the brain is at chance under permuted labels and on silhouettes;
one that is not has learned copies, framing or outlines. Knows data sets, no detector and no study.
"""

from dataclasses import replace

import cv2
import numpy as np
from sklearn.ensemble import RandomForestClassifier

from training.data import Dataset, Splits
from training.data.dataset import digest
from training.data.head import find_head
from training.floors import Scored, evaluate_scored


def permuted_labels(dataset: Dataset, seed: int) -> Dataset:
    """The same images with labels that say nothing of them; a group of near-copies keeps one.

    Groups are shuffled and the first of them are healthy, up to where the number of healthy images
    is nearest to what it was: off by at most half the size of the group that lies there.
    """
    names, group, sizes = np.unique(dataset.groups, return_inverse=True, return_counts=True)
    rng = np.random.default_rng([seed, 1])  # not the stream that the seed's splits are drawn from
    shuffled = rng.permutation(len(names))
    n_healthy = np.cumsum(sizes[shuffled])
    last = np.argmin(np.abs(n_healthy - (dataset.labels == 0).sum()))
    tumor = np.ones(len(names), dtype=np.int64)
    tumor[shuffled[: last + 1]] = 0
    return _changed(dataset, f"{dataset.name} (permuted labels)", labels=tumor[group])


def silhouettes(dataset: Dataset) -> Dataset:
    """Every image replaced by its head's convex hull, 255 on 0: framing and outline are left.

    The head is found as pre-processing finds it; what is pre-processed keeps no more than the
    hull's inside.
    """
    images = np.zeros_like(dataset.images)
    for image, silhouette in zip(dataset.images, images, strict=True):
        hull, _ = find_head(image)
        cv2.fillConvexPoly(silhouette, hull, 255)
    return _changed(dataset, f"{dataset.name} (silhouettes)", images=images)


def file_geometry(dataset: Dataset, splits: Splits, *, seed: int = 0) -> Scored:
    """What the files alone give away: a forest on width, height, their ratio and their product.

    It learns from the labels of the training and validation images, with equal weight to the
    classes, and answers the test images.
    """
    width, height = (dataset.manifest[side].to_numpy(float) for side in ("width", "height"))
    shape = np.stack([width, height, width / height, width * height], axis=1)  # (n, 4)
    known = np.concatenate([splits.train, splits.val])
    forest = RandomForestClassifier(
        200, min_samples_leaf=5, class_weight="balanced", random_state=seed
    )
    forest.fit(shape[known], dataset.labels[known])
    scores = forest.predict_proba(shape[splits.test])[:, 1] - 0.5
    return evaluate_scored(
        "file_geometry",
        dataset.labels[splits.test],
        dataset.groups[splits.test],
        scores,
        (scores >= 0).astype(np.int64),
    )


def _changed(dataset: Dataset, name: str, **arrays: np.ndarray) -> Dataset:
    """The data set with other images or labels, under a digest of its own."""
    changed = replace(dataset, name=name, **arrays)
    return replace(
        changed,
        manifest=changed.manifest.assign(label=changed.labels),
        digest=digest(
            changed.images, changed.labels, changed.groups, preprocess=changed.preprocess
        ),
    )
