"""How far two winners differ on the same test images, in numbers and in a sentence.

The numbers come from `training.paired`; here is which pairs there are and what may be said of one.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from studies.compare.same_images import TestSet
from training.floors import Scored
from training.paired import Difference, pair

DECIDING = {"f2": "F2", "auroc": "AUROC"}  # what a sentence is about: the decision, the ranking


class Agreement(NamedTuple):
    """How many test images both, one or none of a pair called right."""

    both: int
    only_one: int
    only_other: int
    none: int


class Pair(NamedTuple):
    """Two winners on the same images: every metric of `one` minus that of `other`."""

    one: Scored
    other: Scored
    differences: dict[str, Difference]
    agreement: Agreement


def find_pairs(tests: TestSet) -> list[Pair]:
    """Every two winners of a set of test images."""
    return [
        Pair(one, other, pair(one, other), agree(one, other))
        for one, other in combinations(tests.scored, 2)
    ]


def agree(one: Scored, other: Scored) -> Agreement:
    """Whom to believe on how many images."""
    right, also = (scored.predicted == scored.labels for scored in (one, other))
    counts = (right & also, right & ~also, ~right & also, ~right & ~also)
    return Agreement(*(int(np.sum(which)) for which in counts))


def verdict(found: Pair, names: dict[str, str], broken: dict[str, str]) -> str:
    """What may be said of a pair: Markdown, one sentence.

    `names` is how studies are called, `broken` what winners miss on test of what they had to keep:
    a higher F2 is no better answer there, since flagging everyone has a high one.
    """
    one, other = f"**{names[found.one.name]}**", f"**{names[found.other.name]}**"
    clear = {name: found.differences[name] for name in DECIDING if is_clear(found, name)}
    open_ = {name: found.differences[name] for name in DECIDING if name not in clear}
    if not clear:
        return f"No difference shown between {one} and {other} in {_differs(open_)}."
    if len({each.is_better for each in clear.values()}) == 2:
        sides = [
            f"{one if each.is_better else other} in {_by(name, each)}"
            for name, each in clear.items()
        ]
        return f"Each is clearly ahead in one respect: {', '.join(sides)}."
    is_one = next(iter(clear.values())).is_better
    ahead, behind = (one, other) if is_one else (other, one)
    measures = " and in ".join(_by(name, each) for name, each in clear.items())
    rest = f"; no difference shown in {_differs(open_)}" if open_ else ""
    misses = broken.get((found.one if is_one else found.other).name)
    if misses and "f2" in clear and (found.other if is_one else found.one).name not in broken:
        return (
            f"{ahead} is ahead of {behind} in {measures}, but cannot be called better: {misses}"
            f"{rest}."
        )
    return f"{ahead} is clearly better than {behind} in {measures}{rest}."


def is_clear(found: Pair, metric: str) -> bool:
    """Whether one of a pair is shown to be above the other."""
    return found.differences[metric].is_better or found.differences[metric].is_worse


def _by(metric: str, each: Difference) -> str:
    """`F2, by 0.120 (0.041 to 0.199)`, whichever of the two it favours."""
    low, high = sorted((abs(each.low), abs(each.high)))
    return f"{DECIDING[metric]}, by {abs(each.value):.3f} ({low:.3f} to {high:.3f})"


def _differs(differences: dict[str, Difference]) -> str:
    """`F2: +0.010 (-0.040 to +0.060), AUROC: ...`"""
    return ", ".join(f"{DECIDING[name]}: {in_words(each)}" for name, each in differences.items())


def in_words(each: Difference) -> str:
    """`+0.010 (-0.040 to +0.060)`."""
    return f"{each.value:+.3f} ({each.low:+.3f} to {each.high:+.3f})"
