"""Search spaces as data: what may be suggested, in which order, and how it is written down.

It knows Optuna's distributions and nothing of detectors.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna import Trial
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

Params = dict[str, Any]


@dataclass(frozen=True)
class Capped:
    """An integer whose upper end depends on what was suggested before it.

    `widest` holds every value that any choice allows; it is what plots and the written space show.
    """

    widest: IntDistribution
    high: Callable[[Params], int]


Space = Mapping[str, BaseDistribution | Capped]


def suggest(trial: Trial, space: Space) -> Params:
    """One point of the space, parameters in the order of the mapping."""
    params: Params = {}
    for name, distribution in space.items():
        params[name] = _suggest_one(trial, name, distribution, params)
    return params


def _suggest_one(
    trial: Trial, name: str, distribution: BaseDistribution | Capped, chosen: Params
) -> Any:
    match distribution:
        case Capped(widest=widest, high=high):
            top = min(widest.high, high(chosen))
            return trial.suggest_int(name, widest.low, top, log=widest.log)
        case FloatDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_float(name, low, high, step=step, log=log)
        case IntDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_int(name, low, high, step=step, log=log)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
    raise TypeError(f"{name} has a distribution that cannot be suggested: {distribution!r}.")


def widest(space: Space) -> dict[str, BaseDistribution]:
    """The space as a box: each parameter with the widest range it can have."""
    return {
        name: distribution.widest if isinstance(distribution, Capped) else distribution
        for name, distribution in space.items()
    }


def describe(space: Space) -> dict[str, dict[str, Any]]:
    """The space as plain data, for the specification that a resumed study is held against."""
    return {name: json.loads(distribution_to_json(box)) for name, box in widest(space).items()}
