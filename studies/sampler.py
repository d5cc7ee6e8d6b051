"""What is tried next: Optuna's TPE, which suggests what it always does and looks at a trial once.

Optuna's own sorts all trials and reads every parameter anew for each suggestion. Here both are kept
from one suggestion to the next, so that the thousandth costs little more than the hundredth.
"""

import warnings
from bisect import insort
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import (
    _get_infeasible_trial_score,
    _get_pruned_trial_score,
    default_gamma,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from studies.space import Space, capped, is_conditional

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


def sampler_of(space: Space, *, seed: int) -> TPESampler:
    """TPE that draws all parameters together, and in a conditional space each branch's."""
    return BranchTPE(space, seed=seed) if is_conditional(space) else SteadyTPE(seed=seed)


class SteadyTPE(TPESampler):
    """TPE for one study with one objective, with what it knows of ended trials kept in order."""

    def __init__(self, *, seed: int, **options: Any):
        super().__init__(seed=seed, **options)
        self._ranking: list[tuple[tuple[float, ...], int]] = []  # the best first, and number
        self._ranked: set[int] = set()
        self._columns: dict[str, Column] = {}

    def _sample(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As TPESampler's, but for how trials are divided into good ones and others."""
        states = [*ENDED, TrialState.RUNNING]
        trials = study._get_trials(deepcopy=False, states=states, use_cache=False)
        numbered = [(one.number, one) for one in trials]
        self._rank(study, numbered)
        good = {number for _, number in self._ranking[: default_gamma(len(self._ranking))]}
        below = [one for number, one in numbered if number in good]
        others = good | {trial.number}
        above = [one for number, one in numbered if number not in others]
        estimators = [
            self._build_parzen_estimator(study, search_space, below, handle_below=True),
            self._build_parzen_estimator(study, search_space, above, handle_below=False),
        ]
        samples = estimators[0].sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(samples, self._compute_acquisition_func(samples, *estimators))
        return {name: search_space[name].to_external_repr(best[name]) for name in search_space}

    def _rank(self, study: optuna.Study, numbered: list[tuple[int, FrozenTrial]]) -> None:
        """Put the trials that have ended since the last time into their places."""
        for number, trial in numbered:
            if number not in self._ranked and trial.state in ENDED:
                self._ranked.add(number)
                insort(self._ranking, (_rank_of(trial, study), number))

    def _get_internal_repr(
        self,
        trials: list[FrozenTrial],
        search_space: dict[str, BaseDistribution],
        study: optuna.Study,
    ) -> dict[str, np.ndarray]:
        numbers = np.array([trial.number for trial in trials], dtype=int)
        values = {}
        for name, distribution in search_space.items():
            column = self._columns.setdefault(name, Column())
            for i in column.unknown(numbers):
                params = self._get_params(trials[i], study)
                has = name in params
                column.put(
                    trials[i], distribution.to_internal_repr(params[name]) if has else np.nan
                )
            values[name] = column.values[numbers]
        whole = ~np.any([np.isnan(one) for one in values.values()], axis=0)
        return {name: one[whole] for name, one in values.items()}


class Column:
    """A parameter of every trial by its number, NaN where a trial lacks it."""

    def __init__(self):
        self.values, self._is_known = np.full(64, np.nan), np.zeros(64, dtype=bool)

    def unknown(self, numbers: np.ndarray) -> np.ndarray:
        """Which of these trials, by their place among them, have to be read."""
        while numbers.size and numbers.max() >= len(self.values):
            self.values = np.append(self.values, np.full_like(self.values, np.nan))
            self._is_known = np.append(self._is_known, np.zeros_like(self._is_known))
        return np.flatnonzero(~self._is_known[numbers])

    def put(self, trial: FrozenTrial, value: float) -> None:
        """What a trial has; one that runs is read again the next time."""
        self.values[trial.number] = value
        self._is_known[trial.number] = trial.state.is_finished()


class BranchTPE(SteadyTPE):
    """TPE over the parameters that stand together: the common ones, and each branch's own.

    Plain TPE draws together what every trial has, and each parameter of a branch on its own.
    Optuna's groups take a parameter's range from the first trial that has it, and would hold a
    capped one there for ever: those are left out of the groups and drawn each on its own.
    """

    def __init__(self, space: Space, *, seed: int):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(seed=seed, group=True)
        self._capped = capped(space)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What is drawn together before a trial begins."""
        together = super().infer_relative_search_space(study, trial)
        return {name: together[name] for name in together if name not in self._capped}


def _rank_of(trial: FrozenTrial, study: optuna.Study) -> tuple[float, ...]:
    """Where TPE puts an ended trial: complete ones by value, pruned ones by how far they came, and
    those that break constraints by how much."""
    violation = _get_infeasible_trial_score(trial)
    if violation > 0:
        return (2, violation)
    if trial.state == TrialState.PRUNED:
        return (1, *_get_pruned_trial_score(trial, study))
    return (0, trial.value if study.direction == StudyDirection.MINIMIZE else -trial.value)
