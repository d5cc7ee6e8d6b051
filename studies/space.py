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


@dataclass(frozen=True)
class When:
    """A parameter that is there only where an earlier one has one of `values`.

    Where the earlier one is left out, so is this.
    """

    distribution: BaseDistribution | Capped
    parameter: str
    values: tuple[Any, ...]

    def holds(self, chosen: Params) -> bool:
        """Whether a point with these parameters has this one too."""
        return self.parameter in chosen and chosen[self.parameter] in self.values


Space = Mapping[str, BaseDistribution | Capped | When]


def suggest(trial: Trial, space: Space) -> Params:
    """One point of the space, parameters in the order of the mapping.

    Raises ValueError where the condition of a parameter could never hold.
    """
    _check_conditions(space)
    params: Params = {}
    for name, distribution in space.items():
        if isinstance(distribution, When) and not distribution.holds(params):
            continue
        params[name] = _suggest_one(trial, name, _unconditional(distribution), params)
    return params


def is_conditional(space: Space) -> bool:
    """Whether points of the space can have different parameters."""
    return any(isinstance(distribution, When) for distribution in space.values())


def capped(space: Space) -> set[str]:
    """The parameters whose range depends on what was suggested before them."""
    return {name for name in space if isinstance(_unconditional(space[name]), Capped)}


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
    """The space as a box: each parameter with the widest range it can have, conditions aside."""
    return {name: _widest_one(distribution) for name, distribution in space.items()}


def describe(space: Space) -> dict[str, dict[str, Any]]:
    """The space as plain data, for the specification that a resumed study is held against."""
    return {
        name: json.loads(distribution_to_json(_widest_one(distribution))) | _condition(distribution)
        for name, distribution in space.items()
    }


def _unconditional(
    distribution: BaseDistribution | Capped | When,
) -> BaseDistribution | Capped:
    return distribution.distribution if isinstance(distribution, When) else distribution


def _widest_one(distribution: BaseDistribution | Capped | When) -> BaseDistribution:
    plain = _unconditional(distribution)
    return plain.widest if isinstance(plain, Capped) else plain


def _condition(distribution: BaseDistribution | Capped | When) -> dict[str, Any]:
    """The condition as plain data; empty where there is none, so that older studies resume."""
    if not isinstance(distribution, When):
        return {}
    return {"when": {distribution.parameter: list(distribution.values)}}


def _check_conditions(space: Space) -> None:
    earlier: dict[str, BaseDistribution] = {}
    for name, distribution in space.items():
        if isinstance(distribution, When):
            _check_condition(name, distribution, earlier)
        earlier[name] = _widest_one(distribution)


def _check_condition(name: str, when: When, earlier: dict[str, BaseDistribution]) -> None:
    if when.parameter not in earlier:
        raise ValueError(
            f"{name} waits for {when.parameter!r}, which must stand before it in the space; "
            f"before it stand {list(earlier)}."
        )
    other = earlier[when.parameter]
    if not isinstance(other, CategoricalDistribution):
        return
    strange = [value for value in when.values if value not in other.choices]
    if strange:
        raise ValueError(
            f"{name} waits for {when.parameter} to be one of {strange}, "
            f"which must be among its choices {list(other.choices)}."
        )
