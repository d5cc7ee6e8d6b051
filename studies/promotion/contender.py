"""What is up for a promotion: a registered version, and what is kept of how it was tested.

Owns how a study's candidate is found by name, and what is read of it. Knows no rules.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from mlflow_server import Tracking, TrackingError
from mlflow_server.registry import Version, aliased
from studies.finish import ANSWERS, FLOOR_ANSWERS, TEST_LOOKS
from studies.promotion.decision import Decision
from studies.promotion.gate import KeptAnswers, Limits, as_scored
from studies.publish import TEST_FOLDER, TEST_SPLIT
from studies.settings import slug
from studies.study import SHOWN, StudyError


def find_candidate(tracking_uri: str, study: str) -> str:
    """The address of the best model of the study of that name.

    The name is the full one (`giaem (phantom)`), as a word (`giaem-phantom`), or the study's alone
    where only one of its kind has a candidate.
    """
    names, wanted = aliased(tracking_uri, "candidate"), slug(study)
    found = [name for name in names if name == wanted] or [
        name for name in names if name.startswith(f"{wanted}-")
    ]
    if len(found) == 1:
        return f"models:/{found[0]}@candidate"
    if found:
        raise StudyError(
            f"STUDY={study} may be any of {', '.join(found)}: name one of them as it stands here."
        )
    known = f"There are {', '.join(names)}." if names else "There is none yet."
    raise StudyError(
        f"No study '{study}' has a candidate to promote. {known} `make study STUDY={study}` makes "
        "one."
    )


def read_kept(tracking: Tracking, version: Version) -> KeptAnswers | None:
    """A version's kept answers on test and those of the floors; None where there are none."""
    with TemporaryDirectory() as scratch:
        try:
            folder = tracking.download(version.run_id, TEST_FOLDER, Path(scratch))
            answers = pd.read_csv(folder / ANSWERS)
        except (TrackingError, FileNotFoundError):
            return None
        path = folder / FLOOR_ANSWERS
        beside = pd.read_csv(path) if path.exists() else pd.DataFrame({"floor": []})
    floors = {name: table.reset_index(drop=True) for name, table in beside.groupby("floor")}
    return KeptAnswers(version.uri, version.tags.get("data_digest", ""), answers, floors)


def metrics_of(tested: KeptAnswers) -> dict[str, tuple[float, float, float]]:
    """What is shown of a model everywhere, with 95 % intervals."""
    scored = as_scored(tested.name, tested.answers)
    return {name: (scored.metrics[name], *scored.intervals[name]) for name in SHOWN}


def facts_of(
    tracking: Tracking, version: Version, limits: Limits, decided: Sequence[Decision]
) -> dict[str, str]:
    """What a reader needs to judge the decision."""
    return {
        **data_facts(version),
        "test split": told_looks(tracking, version.tags.get(TEST_SPLIT), decided),
        "limits": f"recall {limits.recall_floor:g}, specificity {limits.specificity_floor:g}, "
        f"recall margin {limits.recall_margin:g}",
    }


def data_facts(version: Version) -> dict[str, str]:
    """Which model, on which data."""
    tags = version.tags
    named = {"study": "study", "trial": "trial", "data": "data", "data_digest": "data digest"}
    named |= {"split": "split", "seed": "seed", "mlflow.source.git.commit": "trained at commit"}
    return {words: tags[tag] for tag, words in named.items() if tag in tags}


def told_looks(tracking: Tracking, test_split: str | None, decided: Sequence[Decision]) -> str:
    """How often these test images were asked, and how often something was decided by them."""
    if test_split is None:
        return "unknown: the study was concluded before test splits had names"
    runs = tracking.tagged_runs(list(tracking.experiments.ids().values()), TEST_SPLIT)
    same = [run for run in runs if run.tags[TEST_SPLIT] == test_split]
    looks = sum(int(run.tags.get(TEST_LOOKS, "0")) for run in same)
    before = sum(one.facts.get("test split", "").startswith(test_split) for one in decided)
    return (
        f"{test_split}: looked at {looks} times by {len(same)} studies, and {before} decisions "
        "were made by it before"
    )
