"""One method over several splits: its mean, its spread, and an interval that counts groups once.

The test sets of several splits share images, so their numbers are not independent. The interval
draws groups of near-copies once a resample for all splits at a time, and takes the mean of the
splits in each. It says what other patients would have changed, the detectors being what they are;
what other training sets change is in the spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from training.floors import Scored
from training.metrics import COUNTS, weighted_metrics

N_RESAMPLES = 1000
LEVEL = 0.95


class Draws(NamedTuple):
    """How often each group was drawn in each resample."""

    names: np.ndarray  # (n_groups,), sorted
    counts: np.ndarray  # (n, n_groups)

    def of(self, groups: np.ndarray) -> np.ndarray:
        """How often each of these images was drawn, (n, n_images)."""
        return self.counts[:, np.searchsorted(self.names, groups)]


@dataclass(frozen=True)
class Repeated:
    """One method's answers in several splits; every dict is keyed by the metrics of `evaluate`."""

    name: str
    answers: list[Scored]  # one a split
    resamples: dict[str, np.ndarray]  # the mean of the splits in each resample, (n,)

    def values(self, metric: str) -> np.ndarray:
        """The metric in each split."""
        return np.array([scored.metrics[metric] for scored in self.answers])

    def mean(self, metric: str) -> float:
        """The mean of the splits."""
        return float(self.values(metric).mean())

    def spread(self, metric: str) -> float:
        """The standard deviation over the splits (n - 1); not a standard error: splits overlap."""
        values = self.values(metric)
        return float(values.std(ddof=1)) if len(values) > 1 else float("nan")

    def interval(self, metric: str) -> tuple[float, float]:
        """The 95 % interval of the mean."""
        return _interval(self.resamples[metric])

    def lead(self, other: "Repeated", metric: str) -> tuple[float, float]:
        """The 95 % interval of how far this method's mean lies above another's.

        Paired: both are resampled with the same groups, so it is narrower than two intervals tell.
        """
        return _interval(self.resamples[metric] - other.resamples[metric])


def draw_groups(
    groups: np.ndarray, labels: np.ndarray, *, n: int = N_RESAMPLES, seed: int = 0
) -> Draws:
    """Draw whole groups of a data set with replacement, each class as many as it has."""
    names, first = np.unique(groups, return_index=True)
    classes = labels[first]
    counts = np.zeros((n, len(names)))
    rng = np.random.default_rng(seed)
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        shares = np.full(len(members), 1 / len(members))
        counts[:, members] = rng.multinomial(len(members), shares, size=n)
    return Draws(names, counts)


def repeat(name: str, answers: Sequence[Scored], draws: Draws) -> Repeated:
    """A method's answers, one `Scored` a split, with the resamples of their mean.

    A resample in which a split loses a class is the mean of the other splits.
    """
    by_split = [_resampled(scored, draws) for scored in answers]
    resamples = {
        metric: _mean_of_defined(np.stack([split[metric] for split in by_split]))
        for metric in by_split[0]
    }
    return Repeated(name, list(answers), resamples)


def _resampled(scored: Scored, draws: Draws) -> dict[str, np.ndarray]:
    """Every metric but the counts in each resample; NaN where a class was not drawn."""
    weights = draws.of(scored.groups)
    tumor = scored.labels == 1
    lost = (weights[:, tumor].sum(axis=1) == 0) | (weights[:, ~tumor].sum(axis=1) == 0)
    weights[lost] = 1
    metrics = weighted_metrics(weights, tumor, scored.predicted == 1, scored.scores)
    return {
        name: np.where(lost, np.nan, values)
        for name, values in metrics.items()
        if name not in COUNTS
    }


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """(n_splits, n) -> (n,), over the splits that have a value; NaN where none has."""
    defined = ~np.isnan(values)
    total, n = np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0)
    return np.divide(total, n, out=np.full(len(total), np.nan), where=n > 0)


def _interval(resamples: np.ndarray) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(resamples, (tail, 1 - tail))
    return float(low), float(high)
