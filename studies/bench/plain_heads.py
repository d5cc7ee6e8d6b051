"""The heads as a script of one's own has them: scikit-learn, one map or one threshold at a time.

As in the code of the paper; what it leaves open (seeds, `n_init`) is as in the heads here.
"""

import numpy as np
from sklearn.cluster import DBSCAN, KMeans
from sklearn.metrics import fbeta_score, recall_score

from models.heads.points import points


def giaem_grid(
    maps: np.ndarray, labels: np.ndarray, thresholds: np.ndarray, indices: np.ndarray
) -> np.ndarray:
    """F2 of every pair of parameters: the maps are gone over for each threshold."""
    weights = len(labels) / (2 * np.bincount(labels))[labels]
    f2 = np.empty((len(thresholds), len(indices)))
    for i, threshold in enumerate(thresholds):
        shares = np.array([np.mean(error_map >= np.float32(threshold)) for error_map in maps])
        for j, index in enumerate(indices):
            predicted = shares >= index
            f2[i, j] = fbeta_score(
                labels, predicted, beta=2, sample_weight=weights, zero_division=0
            )
    return f2


def global_kmeans(
    maps: np.ndarray, threshold: float, alpha: float, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of 2-means over the binarised maps, and the answer to each map."""
    rows = (maps >= np.float32(threshold)).reshape(len(maps), -1).astype(np.float64)
    fitted = KMeans(2, n_init=1, random_state=seed).fit(rows)
    gaps = np.abs(np.subtract(*fitted.transform(rows).T))
    return fitted.labels_, (gaps < alpha * gaps.max()).astype(np.int64)


def image_kmeans(maps: np.ndarray, *, seed: int) -> np.ndarray:
    """Labels of 2-means over the points of each image, (n, pixels)."""
    return np.stack(
        [KMeans(2, n_init=1, random_state=seed).fit(points(one)).labels_ for one in maps]
    )


def dbscan(maps: np.ndarray, eps: float, min_samples: int) -> list[DBSCAN]:
    """DBSCAN over the points of each image."""
    return [DBSCAN(eps=eps, min_samples=min_samples).fit(points(one)) for one in maps]


def f2_and_specificity(labels: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """The objective and its constraint, with scikit-learn."""
    weights = len(labels) / (2 * np.bincount(labels))[labels]
    f2 = fbeta_score(labels, predicted, beta=2, sample_weight=weights, zero_division=0)
    return float(f2), float(recall_score(labels, predicted, pos_label=0))
