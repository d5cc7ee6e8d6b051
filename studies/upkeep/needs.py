"""What of the record must stay, by rule: nothing here is removed, and no disk is looked at.

A version with an alias needs its model, its run, and the runs that hold its networks' weights. The
best trials of a study need the same. What is no trial of a known study needs all that it has.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from mlflow_server.upkeep import (
    DELETED,
    HeldExperiment,
    HeldModel,
    HeldRun,
    HeldVersion,
    Holdings,
)
from studies.record import HOLDER, WEIGHTS_OF, reported
from studies.settings import CHAMPIONS, slug
from studies.storage import ranked, running_trials, searches

KEEP = 20  # trials of each study; as many as `make ui` compares
A_DAY = 24 * 60 * 60 * 1000  # ms; nothing takes longer to be logged
RUN_ID = re.compile(r"\b[0-9a-f]{32}\b")
MADE_BY = "fact.trained on"  # tag of a parent run: which generator's run made its images


@dataclass(frozen=True)
class Search:
    """What Optuna says of a study."""

    best: list[int]  # the numbers of its complete trials, the best first
    is_running: bool
    weights: dict[int, list[str]]  # trial -> the keys of the networks that it stands on
    finished: set[int]


@dataclass(frozen=True)
class Needs:
    """What stays of the record, and what may go; runs and models by id."""

    runs: set[str]  # their files stay
    models: set[str]
    weights: set[str]  # keys of networks that stay in the cache
    known_weights: set[str]  # keys that some trial names, needed or not
    running: list[str]  # names of studies, which are left alone
    unknown: list[str]  # names of studies whose trials are in no storage that was asked
    runs_to_clean: list[HeldRun] = field(default_factory=list)  # holders of weights last
    models_to_remove: list[HeldModel] = field(default_factory=list)
    versions_to_remove: list[HeldVersion] = field(default_factory=list)


def read_search(study: optuna.Study) -> Search:
    """A study as far as it matters here."""
    trials = study.get_trials(deepcopy=False)
    ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return Search(
        best=[trial.number for trial in ranked(study)],
        is_running=bool(running_trials(study)),
        weights={trial.number: _keys(trial) for trial in trials},
        finished={trial.number for trial in trials if trial.state in ended},
    )


def _keys(trial: FrozenTrial) -> list[str]:
    return list(reported(trial).get("weights", {}).values())


def weights_to_keep(storage_url: str, root: Path, keep: int = KEEP) -> set[str]:
    """Keys of the networks that must stay in the cache while studies run: those of each study's
    best trials, and of trials that MLflow has not heard of, which still have a folder."""
    keys = set()
    for study in searches(storage_url):
        search, folder = read_search(study), root / "studies" / slug(study.study_name) / "trials"
        unpublished = {int(path.name) for path in folder.glob("*") if path.name.isdecimal()}
        for trial in unpublished.union(search.best[:keep]):
            keys |= set(search.weights.get(trial, ()))
    return keys


def find_needs(
    holdings: Holdings,
    searches: Mapping[str, Search],
    *,
    keep: int,
    mentioned: Iterable[str],
    now: int,
) -> Needs:
    """What stays when each study keeps its best `keep` trials; `mentioned` runs stay whole.

    `now` is in ms.
    """
    rule = _Rule(holdings, searches, keep, now)
    whole = rule.whole_runs() | (set(mentioned) & set(holdings.runs))
    protected = [one for one in holdings.versions if rule.is_protected(one)]
    named = {model.id for one in protected if (model := holdings.model_of(one))}
    whole |= rule.runs_of(protected, named)
    runs = rule.with_holders(whole)
    models = {
        model.id
        for model in holdings.models.values()
        if model.id in named or rule.is_kept(model, whole)
    }
    kept = [holdings.runs[identity] for identity in runs]
    trials = [run for run in holdings.runs.values() if rule.is_trial(run)]
    to_clean = [run for run in trials if run.id not in runs]
    gone = [model for model in holdings.models.values() if model.id not in models]
    return Needs(
        runs=runs,
        models=models,
        weights={key for run in kept for key in weights_in(run).values()} | rule.weights(),
        known_weights={key for run in holdings.runs.values() for key in weights_in(run).values()}
        | {key for one in searches.values() for keys in one.weights.values() for key in keys},
        running=sorted(rule.running),
        unknown=sorted(rule.unknown),
        runs_to_clean=sorted(to_clean, key=lambda run: bool(weights_in(run))),
        models_to_remove=gone,
        versions_to_remove=[
            one
            for one in holdings.versions
            if one not in protected and holdings.model_of(one) in gone
        ],
    )


class _Rule:
    """The rules, each as a question."""

    def __init__(
        self, holdings: Holdings, searches: Mapping[str, Search], keep: int, now: int
    ) -> None:
        self._holdings, self._searches, self._keep, self._now = holdings, searches, keep, now
        active = {run.experiment for run in holdings.runs.values() if self._is_active(run)}
        studies = [one for one in holdings.experiments.values() if self._is_study(one)]
        self.running = {one.name for one in studies if one.id in active} | {
            name for name, search in searches.items() if search.is_running
        }
        self.unknown = {
            one.name for one in studies if one.name not in searches and not one.is_deleted
        }
        self._cleared = {  # experiments whose trials may lose their files
            one.id for one in studies if one.name not in self.running | self.unknown
        }

    def _is_active(self, run: HeldRun) -> bool:
        return run.status == "RUNNING" and not run.is_deleted

    def _is_study(self, experiment: HeldExperiment) -> bool:
        return experiment.name in self._searches or "study" in experiment.tags

    def is_trial(self, run: HeldRun) -> bool:
        """Whether a run is a trial whose files may go at all; while any study runs it may look for
        weights, so that runs which hold some stay."""
        if run.experiment not in self._cleared or not run.tags.get("trial", "").isdecimal():
            return False
        return not (self.running and weights_in(run))

    def whole_runs(self) -> set[str]:
        """The runs that stay with all they have, whoever needs them."""
        return {
            run.id
            for run in self._holdings.runs.values()
            if not self.is_trial(run) or self._is_among_the_best(run)
        }

    def _is_among_the_best(self, run: HeldRun) -> bool:
        search = self._searches.get(self._holdings.experiments[run.experiment].name)
        if run.is_deleted or search is None:
            return False
        return int(run.tags["trial"]) in search.best[: self._keep]

    def is_protected(self, version: HeldVersion) -> bool:
        """Whether a version stays whatever its trial was worth: past champions, for a rollback, and
        what is of no model in this record, too."""
        model = self._holdings.model_of(version)
        return bool(version.aliases) or version.name == CHAMPIONS or model is None

    def runs_of(self, versions: list[HeldVersion], models: set[str]) -> set[str]:
        """The runs of versions and models."""
        named = {version.run for version in versions}
        named |= {self._holdings.models[identity].run for identity in models}
        inside = {
            run.id
            for run in self._holdings.runs.values()
            for one in versions
            if run.id in one.source
        }
        return (named & set(self._holdings.runs)) | inside

    def with_holders(self, runs: set[str]) -> set[str]:
        """These and all runs that they link to, by the tags that name the holders of weights."""
        found, new = set(runs), set(runs)
        while new:
            new = {
                target
                for identity in new
                if not self._is_parent(self._holdings.runs[identity])
                for target in links_of(self._holdings.runs[identity]).values()
                if target in self._holdings.runs
            } - found
            found |= new
        return found

    def _is_parent(self, run: HeldRun) -> bool:
        """Parents name their best run for the reader: that is no need of its weights."""
        return self._is_study(self._holdings.experiments[run.experiment]) and (
            "trial" not in run.tags
        )

    def is_kept(self, model: HeldModel, whole: set[str]) -> bool:
        """Whether a logged model that no version needs stays."""
        if self._holdings.experiments[model.experiment].id not in self._cleared:
            return True
        if model.status in ("FAILED", DELETED):
            return False
        if model.status == "PENDING":
            return self._now - model.made < A_DAY
        return model.run in whole

    def weights(self) -> set[str]:
        """Keys that the best trials stand on, and those that MLflow has not heard of yet."""
        trials = {
            (self._holdings.experiments[run.experiment].name, int(run.tags["trial"]))
            for run in self._holdings.runs.values()
            if run.tags.get("trial", "").isdecimal()
        }
        return {
            key
            for name, search in self._searches.items()
            for number, keys in search.weights.items()
            if number in search.best[: self._keep] or (name, number) not in trials
            for key in keys
        }


def weights_in(run: HeldRun) -> dict[str, str]:
    """The weights that a run holds: network -> key."""
    return _by_network(run, WEIGHTS_OF)


def links_of(run: HeldRun) -> dict[str, str]:
    """The runs that hold a run's weights: network -> run."""
    return _by_network(run, HOLDER)


def _by_network(run: HeldRun, pattern: str) -> dict[str, str]:
    ending = pattern.format("")
    return {
        tag.removesuffix(ending): value for tag, value in run.tags.items() if tag.endswith(ending)
    }


def mentioned_in(texts: Iterable[str]) -> set[str]:
    """The ids of runs in words, as in a synthetic set's manifest: `..., run 0123…`."""
    return {identity for text in texts for identity in RUN_ID.findall(text)}
