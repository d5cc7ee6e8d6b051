"""Two methods on the same images: how far one lies above the other, and how sure that is.

Both are resampled with the same groups of near-copies, so that images that are hard for both do not
count as a difference; the interval is narrower than two separate ones tell.
"""

from typing import NamedTuple

import numpy as np

from training.floors import Scored
from training.metrics import COUNTS, weighted_metrics
from training.over_splits import draw_groups

TAIL = 0.025  # of either end: 95 % intervals


class Difference(NamedTuple):
    """One metric of a method minus that of another, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_better(self) -> bool:
        """Whether the one is shown to be above the other."""
        return self.low > 0

    @property
    def is_worse(self) -> bool:
        """Whether the one is shown to be below the other."""
        return self.high < 0


def pair(one: Scored, other: Scored, *, seed: int = 0) -> dict[str, Difference]:
    """Every metric but the counts, `one` minus `other`; row i of both is the same image.

    Raises ValueError where labels or groups show that the images differ.
    """
    if not (np.array_equal(one.labels, other.labels) and np.array_equal(one.groups, other.groups)):
        raise ValueError(f"{one.name} and {other.name} did not answer the same images.")
    weights = draw_groups(one.groups, one.labels, seed=seed).of(one.groups)
    resampled, against = _resampled(one, weights), _resampled(other, weights)
    differences = {}
    for name in resampled:
        low, high = np.quantile(resampled[name] - against[name], (TAIL, 1 - TAIL))
        value = one.metrics[name] - other.metrics[name]
        differences[name] = Difference(float(value), float(low), float(high))
    return differences


def _resampled(scored: Scored, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric but the counts in each resample, (n,)."""
    metrics = weighted_metrics(weights, scored.labels == 1, scored.predicted == 1, scored.scores)
    return {name: values for name, values in metrics.items() if name not in COUNTS}
