"""What a detector's answers are worth: the objective, its constraint, and every number beside it.

Labels and answers are 0 (no tumour) and 1 (tumour); a higher score means tumour. Knows nothing of
where the answers come from.

One set of formulas serves the point estimate and its resamples: images carry weights, one row of
weights a resample, and a point estimate is the row of ones. The values are scikit-learn's.
"""

import numpy as np

from models.heads.giaem import balanced_f_beta

COUNTS = ("tp", "fp", "tn", "fn")


def evaluate(labels, predicted, scores, *, beta: float = 2.0) -> dict[str, float]:
    """All metrics of one method's answers; `f2` is the objective of every study.

    `f2` is the F-beta over class-balanced weights, so that the share of tumours does not reward
    flagging everyone. Where a ratio has no denominator (nobody flagged: precision) it is 0.
    `macro_*` are the means of the two classes' values, as in the paper's Table 1.

    Raises ValueError when a class is missing or a score is not a number.
    """
    labels, predicted, scores = _checked(labels, predicted, scores)
    weights = np.ones((1, len(labels)))
    metrics = _weighted_metrics(weights, labels, predicted, scores, beta=beta)
    return {name: float(values[0]) for name, values in metrics.items()}


def bootstrap_intervals(
    labels, predicted, scores, groups, *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of every metric but the counts, over resampled groups.

    Near-copies are one observation, so whole groups are drawn, with replacement and separately
    in each class: no resample loses a class.
    """
    labels, predicted, scores = _checked(labels, predicted, scores)
    weights = _group_weights(labels, np.asarray(groups), n=n, seed=seed)
    metrics = _weighted_metrics(weights, labels, predicted, scores, beta=2.0)
    tail = (1 - level) / 2
    return {
        name: tuple(float(bound) for bound in np.quantile(values, (tail, 1 - tail)))
        for name, values in metrics.items()
        if name not in COUNTS
    }


def _checked(labels, predicted, scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, predicted = np.asarray(labels) == 1, np.asarray(predicted) == 1
    scores = np.asarray(scores, dtype=np.float64)
    if not len(labels) == len(predicted) == len(scores):
        raise ValueError(
            "labels, predicted and scores must have the same length, "
            f"got {len(labels)}, {len(predicted)} and {len(scores)}."
        )
    if labels.all() or not labels.any():
        raise ValueError(f"labels must hold both classes, got {np.unique(labels * 1).tolist()}.")
    if np.isnan(scores).any():
        raise ValueError(f"scores must be numbers, got {np.isnan(scores).sum()} NaN.")
    return labels, predicted, scores


def _group_weights(labels, groups, *, n: int, seed: int) -> np.ndarray:
    """How often each image was drawn in each resample, (n, n_images)."""
    rng = np.random.default_rng(seed)
    weights = np.empty((n, len(labels)))
    for in_class in (~labels, labels):
        names, group = np.unique(groups[in_class], return_inverse=True)
        draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n)
        weights[:, in_class] = draws[:, group]
    return weights


def _weighted_metrics(weights, labels, predicted, scores, *, beta: float) -> dict[str, np.ndarray]:
    """Every metric, one value a row of `weights`."""
    tp, fp = weights @ (labels & predicted), weights @ (~labels & predicted)
    tn, fn = weights @ (~labels & ~predicted), weights @ (labels & ~predicted)
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    precision, healthy_precision = _ratio(tp, tp + fp), _ratio(tn, tn + fn)
    f1, healthy_f1 = _ratio(2 * tp, 2 * tp + fp + fn), _ratio(2 * tn, 2 * tn + fp + fn)
    balanced_accuracy = (recall + specificity) / 2
    margins = np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn)
    auroc, auprc = _areas(weights, labels, scores)
    return {
        "f2": balanced_f_beta(recall, specificity, beta=beta),
        "recall": recall,
        "specificity": specificity,
        "precision": precision,
        "f1": f1,
        "accuracy": (tp + tn) / (tp + fp + tn + fn),
        "balanced_accuracy": balanced_accuracy,
        "mcc": _ratio(tp * tn - fp * fn, margins),
        "auroc": auroc,
        "auprc": auprc,
        "macro_precision": (precision + healthy_precision) / 2,
        "macro_recall": balanced_accuracy,
        "macro_f1": (f1 + healthy_f1) / 2,
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
    }


def _areas(weights, labels, scores) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision, one value a row of `weights`; the scores are sorted once."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    weights, labels = weights[:, order], labels[order]
    tp = np.cumsum(weights * labels, axis=1)[:, last_of_tie]
    fp = np.cumsum(weights * ~labels, axis=1)[:, last_of_tie]
    recall, false_alarms = tp / tp[:, -1:], fp / fp[:, -1:]
    gained = np.diff(recall, axis=1, prepend=0)
    auroc = (np.diff(false_alarms, axis=1, prepend=0) * (recall - gained / 2)).sum(axis=1)
    auprc = (gained * _ratio(tp, tp + fp)).sum(axis=1)
    return auroc, auprc


def _ratio(part, whole) -> np.ndarray:
    """part / whole, and 0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
