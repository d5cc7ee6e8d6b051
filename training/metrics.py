"""What a detector's answers are worth: the objective, its constraint, and every number beside it.

Labels and answers are 0 (no tumour) and 1 (tumour); a higher score means tumour. Knows nothing of
where the answers come from.

One set of formulas serves the point estimate and its resamples: images carry weights, one row of
weights a resample, and a point estimate is the row of ones. The values are scikit-learn's.

It also finds the threshold that keeps a floor of recall, as far as so many tumours can show it.
"""

import math
from statistics import NormalDist

import numpy as np

from models.heads.giaem import balanced_f_beta

COUNTS = ("tp", "fp", "tn", "fn")
CLINICAL_RECALL = 0.95  # our choice: where specificities are compared


def evaluate(labels, predicted, scores, *, beta: float = 2.0) -> dict[str, float]:
    """All metrics of one method's answers; `f2` is the objective of every study.

    `f2` is the F-beta over class-balanced weights, so that the share of tumours does not reward
    flagging everyone. Where a ratio has no denominator (nobody flagged: precision) it is 0.
    `macro_*` are the means of the two classes' values, as in the paper's Table 1.
    `specificity_at_95_recall` is the highest among the thresholds on the scores whose recall is
    0.95 or more; like the areas it looks at the scores alone, so it flatters a threshold that has
    to be chosen beforehand.

    Raises ValueError when a class is missing or a score is not a number.
    """
    labels, predicted, scores = _checked(labels, predicted, scores)
    weights = np.ones((1, len(labels)))
    metrics = weighted_metrics(weights, labels, predicted, scores, beta=beta)
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
    metrics = weighted_metrics(weights, labels, predicted, scores)
    tail = (1 - level) / 2
    return {
        name: tuple(float(bound) for bound in np.quantile(values, (tail, 1 - tail)))
        for name, values in metrics.items()
        if name not in COUNTS
    }


def weighted_metrics(
    weights, labels, predicted, scores, *, beta: float = 2.0
) -> dict[str, np.ndarray]:
    """Every metric of `evaluate`, one value a row of `weights` (n, n_images).

    Labels and answers are bool, and each row gives weight to both classes.
    """
    tp, fp = weights @ (labels & predicted), weights @ (~labels & predicted)
    tn, fn = weights @ (~labels & ~predicted), weights @ (labels & ~predicted)
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    precision, healthy_precision = _ratio(tp, tp + fp), _ratio(tn, tn + fn)
    f1, healthy_f1 = _ratio(2 * tp, 2 * tp + fp + fn), _ratio(2 * tn, 2 * tn + fp + fn)
    balanced_accuracy = (recall + specificity) / 2
    margins = np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn)
    return {
        "f2": balanced_f_beta(recall, specificity, beta=beta),
        "recall": recall,
        "specificity": specificity,
        "precision": precision,
        "f1": f1,
        "accuracy": (tp + tn) / (tp + fp + tn + fn),
        "balanced_accuracy": balanced_accuracy,
        "mcc": _ratio(tp * tn - fp * fn, margins),
        **_ranking_metrics(weights, labels, scores),
        "macro_precision": (precision + healthy_precision) / 2,
        "macro_recall": balanced_accuracy,
        "macro_f1": (f1 + healthy_f1) / 2,
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
    }


def wilson_lower(successes: float, n: int, *, confidence: float = 0.95) -> float:
    """The lower end of the two-sided Wilson score interval of a proportion (Wilson 1927).

    The proportion is at least this with a probability of (1 + confidence) / 2. `successes` need
    not be whole: see `recall_threshold`.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes must be in [0, n] and n at least 1, got {successes} of {n}.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    spread = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return max(0.0, (share + z**2 / (2 * n) - spread) / (1 + z**2 / n))


def recall_threshold(labels, scores, *, floor: float, groups=None) -> float:
    """The highest threshold whose recall can be trusted to reach `floor` (score >= threshold).

    Not the recall but its Wilson lower bound (`wilson_lower`, 95 %) reaches the floor, so that
    the recall on unseen images is not below it by luck with the threshold.

    Near-copies are one observation. With `groups`, recall is the mean over the groups that hold
    tumours of the share of each group's tumours found, and n is the number of these groups. This
    errs to the safe side: no variable in [0, 1] of mean p varies more than p (1 - p), the variance
    that Wilson's interval takes; shares between 0 and 1 vary less.

    Raises ValueError when even flagging every tumour does not show such a recall.
    """
    labels, _, scores = _checked(labels, labels, scores)
    if not 0 <= floor < 1:
        raise ValueError(f"floor must be in [0, 1), got {floor!r}.")
    names = np.arange(len(labels)) if groups is None else np.asarray(groups)
    thresholds, found, n = _found_at(scores[labels], names[labels])
    for threshold, successes in zip(thresholds, found, strict=True):
        if wilson_lower(successes, n) >= floor:
            return float(threshold)
    raise ValueError(_too_few(n, floor, counted="tumours" if groups is None else "tumour groups"))


def recall_bound(labels, predicted, groups) -> tuple[float, int]:
    """The lower 95 % bound of the recall over groups of near-copies, and how many groups it is of.

    The bound of `recall_threshold`: Wilson's, of the mean over groups of the share found in each.
    """
    labels, predicted = np.asarray(labels) == 1, np.asarray(predicted) == 1
    _, group, sizes = np.unique(np.asarray(groups)[labels], return_inverse=True, return_counts=True)
    found = np.bincount(group, weights=predicted[labels]) / sizes
    return wilson_lower(round(float(found.sum()), 9), len(sizes)), len(sizes)


def groups_needed(floor: float) -> int:
    """How many groups of tumours can show such a recall, if all of them are found."""
    z = NormalDist().inv_cdf(0.975)
    return math.ceil(z**2 * floor / (1 - floor))  # n / (n + z^2) is the bound when all are found


def two_class_f1_threshold(labels, scores) -> float:
    """The threshold with the highest two-class F1 (`macro_f1`), midway between two scores.

    Flag where score >= threshold. Of equally good ones the highest.
    """
    labels, _, scores = _checked(labels, labels, scores)
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    tp = np.cumsum(labels[order])[last_of_tie]
    fp = last_of_tie + 1 - tp
    fn, tn = labels.sum() - tp, (~labels).sum() - fp
    f1 = tp / (2 * tp + fp + fn) + tn / (2 * tn + fp + fn)
    best, levels = np.argmax(f1), scores[order][last_of_tie]
    return float(levels[best : best + 2].mean())


def _found_at(scores, groups) -> tuple[np.ndarray, np.ndarray, int]:
    """Each distinct score, the highest first, how many groups it finds, and of how many."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    found = np.cumsum(1 / sizes[group[order]])[last_of_tie]
    # thirds do not quite sum to whole groups
    return scores[order][last_of_tie], found.round(9), len(sizes)


def _too_few(n: int, floor: float, *, counted: str) -> str:
    most = wilson_lower(n, n)
    return (
        f"{n} {counted} cannot show a recall of {floor:g}: with all of them found its lower bound "
        f"is {most:.3f}. Lower the floor to that, or validate on at least {groups_needed(floor)} "
        f"{counted}."
    )


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


def _ranking_metrics(weights, labels, scores) -> dict[str, np.ndarray]:
    """What the scores alone are worth, one value a row of `weights`; they are sorted once."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    weights, labels = weights[:, order], labels[order]
    tp = np.cumsum(weights * labels, axis=1)[:, last_of_tie]
    fp = np.cumsum(weights * ~labels, axis=1)[:, last_of_tie]
    recall, false_alarms = tp / tp[:, -1:], fp / fp[:, -1:]
    gained = np.diff(recall, axis=1, prepend=0)
    auroc = (np.diff(false_alarms, axis=1, prepend=0) * (recall - gained / 2)).sum(axis=1)
    auprc = (gained * _ratio(tp, tp + fp)).sum(axis=1)
    # both rates only rise: the first threshold with that recall is the most specific one
    reached = np.argmax(recall >= CLINICAL_RECALL, axis=1)
    specificity = 1 - false_alarms[np.arange(len(weights)), reached]
    return {"auroc": auroc, "auprc": auprc, "specificity_at_95_recall": specificity}


def _ratio(part, whole) -> np.ndarray:
    """part / whole, and 0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
