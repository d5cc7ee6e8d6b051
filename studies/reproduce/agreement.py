"""How near a trial came to its record: metric by metric, within what the devices allow.

Owns tolerances, verdicts and the word for the whole. Knows neither runs nor networks.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from studies.reproduce.again import Again
from training.metrics import COUNTS

EQUAL, WITHIN, DIFFERS, GONE, NEW = "equal", "within", "differs", "gone", "new"
BIT_EQUAL, IN_TOLERANCE, SAME_ERROR = "bit-equal", "within tolerance", "same error"
CLOCK = "seconds"  # how the names of metrics end that a clock measured
UNIT = 1.0  # what shares and areas are measured against: most metrics are between 0 and 1
LARGEST = sys.float_info.max  # what MLflow stores for infinity


class Tolerance(NamedTuple):
    """How far a metric may lie from its record, and why. 0 means not by a single bit."""

    metric: float  # of the larger value, or of 1 where both are below; of all images for counts
    epoch: float  # of the largest value that the metric had in any epoch
    reason: str


class Row(NamedTuple):
    """One metric then and now; an epochs' metric where it differs most."""

    name: str
    then: float | str | None
    now: float | str | None
    verdict: str
    n_epochs: int = 0  # 0: the trial's result

    @property
    def difference(self) -> float | None:
        """Now minus then, where both are numbers."""
        numbers = isinstance(self.then, float) and isinstance(self.now, float)
        return self.now - self.then if numbers else None


class Agreement(NamedTuple):
    """A trial's rows, and the word for all of them."""

    rows: list[Row]
    tolerance: Tolerance

    @property
    def word(self) -> str:
        """What the run is tagged with."""
        verdicts = {row.verdict for row in self.rows}
        if verdicts & {DIFFERS, GONE}:
            return DIFFERS
        if WITHIN in verdicts:
            return IN_TOLERANCE
        return SAME_ERROR if any(row.name == "error" for row in self.rows) else BIT_EQUAL

    @property
    def agrees(self) -> bool:
        """Whether the record holds."""
        return self.word != DIFFERS


def compare(
    then: Mapping[str, Sequence[float]], error: str | None, again: Again, tolerance: Tolerance
) -> Agreement:
    """Every metric of a record, each a series by step, and of what was measured now.

    A metric that only one of them has is `gone` or `new`; a new one says nothing against the
    record. What a clock measured is left out.
    """
    recorded = {name: list(series) for name, series in then.items() if not is_clock(name)}
    results = {name: value for name, value in again.metrics.items() if is_stored(value)}
    epochs = by_metric(those_recorded(again.history, recorded))
    n_images = sum(results.get(name, 0.0) for name in COUNTS)
    rows = [_error_row(error, again.error)] if error or again.error else []
    for name, value in results.items():
        measured = recorded[name][-1] if name in recorded else None
        allowed = _allowed(name, measured, value, n_images, tolerance)
        rows.append(Row(name, measured, value, _verdict(measured, value, allowed)))
    rows += [
        _epochs_row(name, recorded.get(name), epochs[name], tolerance)
        for name in epochs
        if name not in results
    ]
    seen = {row.name for row in rows}
    rows += [Row(name, recorded[name][-1], None, GONE) for name in recorded if name not in seen]
    return Agreement(rows, tolerance)


def those_recorded(
    history: Sequence[Mapping[str, float]], recorded: Mapping[str, Sequence[float]]
) -> list[Mapping[str, float]]:
    """The epochs without those of a network that the trial had found trained.

    A generator's epochs name their class; a record without a class has none of its epochs.
    """
    everywhere = set.intersection(*map(set, history)) if history else set()
    own = [
        {name for name in set(metrics) - everywhere if not is_clock(name)} for metrics in history
    ]
    return [
        metrics
        for metrics, names in zip(history, own, strict=True)
        if not names or names & set(recorded)
    ]


def by_metric(history: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """A history of epochs as a series for each metric, as MLflow keeps it."""
    series: dict[str, list[float]] = {}
    for metrics in history:
        for name, value in metrics.items():
            if is_stored(value) and not is_clock(name):
                series.setdefault(name, []).append(float(value))
    return series


def is_clock(metric: str) -> bool:
    """Whether a clock measured it."""
    return metric.endswith(CLOCK)


def is_stored(value: float | None) -> bool:
    """Whether MLflow keeps it: what is undefined is left out."""
    return value is not None and not math.isnan(value)


def _error_row(then: str | None, now: str | None) -> Row:
    return Row("error", then, now, EQUAL if then == now else DIFFERS)


def _epochs_row(name: str, then: list[float] | None, now: list[float], tolerance: Tolerance) -> Row:
    """The epoch of the largest difference; another number of epochs is one too."""
    if then is None:
        return Row(name, None, now[-1], NEW, len(now))
    if len(then) != len(now):
        return Row(name, f"{len(then)} epochs", f"{len(now)} epochs", DIFFERS, len(now))
    allowed = tolerance.epoch * max(abs(value) for value in (*then, *now))
    verdicts = [_verdict(*one, allowed) for one in zip(then, now, strict=True)]
    worst = max(range(len(now)), key=lambda i: (abs(now[i] - then[i]), i))
    verdict = next((one for one in (DIFFERS, WITHIN) if one in verdicts), EQUAL)
    return Row(name, then[worst], now[worst], verdict, len(now))


def _verdict(then: float | None, now: float, allowed: float) -> str:
    if then is None:
        return NEW
    now = max(-LARGEST, min(LARGEST, now))
    if then == now:
        return EQUAL
    return WITHIN if abs(now - then) <= allowed else DIFFERS


def _allowed(
    name: str, then: float | None, now: float, n_images: float, tolerance: Tolerance
) -> float:
    if name in COUNTS:
        return tolerance.metric * n_images
    return tolerance.metric * max(abs(then or 0.0), abs(now), UNIT)
