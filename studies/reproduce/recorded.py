"""What MLflow has of a trial: found by its run, its parent's run or a registered model.

Owns what RUN may be, which runs can be reproduced, and what is said of the others. Needs nothing
but the record: parameters are read by the space that the parent run describes.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
    json_to_distribution,
)

from mlflow_server import KnownRun, Tracking
from mlflow_server.registry import version_tags
from studies.record import HOLDER
from studies.reproduce.conditions import REQUIREMENTS, SETTINGS
from studies.space import Params
from studies.study import StudyError

RUN_ID = re.compile(r"[0-9a-f]{6,32}")
COMPLETE, PRUNED, FAIL = "COMPLETE", "PRUNED", "FAIL"
PARENT = "mlflow.parentRunId"


@dataclass(frozen=True)
class Recorded:
    """A trial that has ended, and under what it ran."""

    run: KnownRun
    params: Params
    settings: dict[str, Any]  # of its study, as `conditions` writes them
    requirements: str | None  # every package it ran with; None where that was not recorded
    holders: list[KnownRun]  # the runs that trained its networks, where it did not

    @property
    def tags(self) -> dict[str, str]:
        """The run's tags."""
        return self.run.tags

    @property
    def title(self) -> str:
        """`trial 3 of giaem (phantom)`."""
        return f"trial {self.tags['trial']} of {self.tags['study']}"

    @property
    def state(self) -> str:
        """COMPLETE, PRUNED or FAIL."""
        return self.tags["state"]

    @property
    def error(self) -> str | None:
        """What it failed of."""
        return self.tags["reason"] if self.state == FAIL else None

    def series(self, epochs: Collection[str]) -> dict[str, list[float]]:
        """Every metric's values by step; these names of epochs also from the run that trained the
        trial's network, where it found that trained."""
        trained = self.holders[0].series if len(self.holders) == 1 else {}
        return {name: trained[name] for name in trained if name in epochs} | self.run.series


def read_recorded(tracking: Tracking, run_id: str) -> Recorded:
    """A trial's record; StudyError with the cure where it cannot be run again."""
    run = tracking.read_run(run_id)
    check_ended(run)
    parent = tracking.read_run(run.tags[PARENT])
    with TemporaryDirectory() as scratch:
        settings, requirements = read_conditions(tracking, run, parent, Path(scratch))
    holders = {id_: tracking.read_run(id_) for id_ in holder_ids(run)}
    params = read_params(run.params, parent.params)
    return Recorded(run, params, settings, requirements, list(holders.values()))


def find_trial(tracking: Tracking, asked: str) -> tuple[str, str]:
    """The id of the trial's run that RUN means, and a sentence where it is not RUN itself."""
    if asked.startswith("models:/"):
        tags = version_tags(tracking.uri, asked)
        if "run_id" not in tags:
            raise StudyError(f"{asked} does not say which run made it. Give RUN that run's id.")
        return tags["run_id"], f"{asked} comes from run {tags['run_id']}."
    run = tracking.read_run(find_run(tracking, asked))
    if "trial" in run.tags:
        return run.run_id, ""
    if "best_run" in run.tags:
        best = run.tags["best_run"]
        number = run.tags["best_trial"]
        return best, f"{run.name} is a whole study: its best trial is {number}, run {best}."
    if "study" in run.tags and SETTINGS in tracking.files(run.run_id):
        raise StudyError(
            f"The study {run.name} has no best trial. Give RUN the id of one of its trials' runs."
        )
    raise StudyError(
        f"Run {run.run_id} ({run.name}) is no trial: it sums up or compares others. Give RUN the "
        "id of a trial's run, or of its study's; `make ui` shows them."
    )


def find_run(tracking: Tracking, asked: str) -> str:
    """The run whose id begins as RUN does."""
    if not RUN_ID.fullmatch(asked):
        raise StudyError(
            "RUN must be a run's id, or its first 6 characters or more, or "
            f"models:/<name>@<alias>, got '{asked}'."
        )
    found = tracking.runs_beginning(asked)
    if not found:
        raise StudyError(f"There is no run {asked}. `make ui` shows the runs there are.")
    if len(found) > 1:
        raise StudyError(f"{len(found)} runs begin with {asked}. Give RUN more of the id.")
    return found[0]


def check_ended(run: KnownRun) -> None:
    """Refuse a trial that came to no end of its own."""
    if run.status == "RUNNING":
        raise StudyError(f"Run {run.run_id} has not ended. Wait for it, or resume its study.")
    if run.status == "KILLED" and run.tags.get("state") != PRUNED:
        why = run.tags.get("reason") or run.tags.get("closed", "its process died")
        raise StudyError(
            f"Run {run.run_id} has no outcome to compare with ({why}). Give RUN a trial that is "
            "complete, pruned or failed."
        )


def read_conditions(
    tracking: Tracking, run: KnownRun, parent: KnownRun, scratch: Path
) -> tuple[dict[str, Any], str | None]:
    """The study's settings, and the packages of this trial's session."""
    if SETTINGS not in tracking.files(parent.run_id):
        raise StudyError(
            f"Run {run.run_id} was made before settings were recorded. Add one trial to its study "
            f"'{parent.name}' (`make study` with the same variables and TRIALS=1): that records "
            "them for all of its trials."
        )
    settings = json.loads(tracking.download(parent.run_id, SETTINGS, scratch).read_text())
    if "requirements" not in run.tags:
        return settings, None
    file = REQUIREMENTS.format(run.tags["requirements"])
    return settings, tracking.download(parent.run_id, file, scratch).read_text()


def holder_ids(run: KnownRun) -> list[str]:
    """The runs that hold the weights of this run's networks."""
    holder = re.compile(HOLDER.format(r"\w+"))
    return [value for name, value in run.tags.items() if holder.fullmatch(name)]


def read_params(texts: dict[str, str], spaces: dict[str, str]) -> Params:
    """Parameters from their texts, in the order of the space; a float's text is exact."""
    distributions = {name: read_distribution(spaces[name]) for name in spaces if name in texts}
    return {name: read_value(texts[name], one) for name, one in distributions.items()}


def read_distribution(described: str) -> BaseDistribution:
    """A parameter's range as `studies.space.describe` wrote it."""
    plain = {key: value for key, value in json.loads(described).items() if key != "when"}
    return json_to_distribution(json.dumps(plain))


def read_value(text: str, distribution: BaseDistribution) -> Any:
    """The value that was written so."""
    if isinstance(distribution, CategoricalDistribution):
        return next(choice for choice in distribution.choices if str(choice) == text)
    return int(text) if isinstance(distribution, IntDistribution) else float(text)
