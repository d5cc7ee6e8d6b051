"""The gate: what a model's answers on test must show before it becomes the champion.

Each rule is a function from kept answers to a `Check` that says in words what was found. Nothing is
asked of the test images anew. Knows nothing of registries and of what follows from a check.
"""

from typing import NamedTuple

import pandas as pd

from training.floors import Scored, evaluate_scored
from training.metrics import groups_needed, recall_bound, wilson_lower
from training.paired import Difference, pair

OBJECTIVE = "f2"
ANSWER = ["file", "label", "group", "score", "predicted"]


class Limits(NamedTuple):
    """What must be reached; all of them shares in [0, 1]."""

    recall_floor: float = 0.90  # by the lower 95 % bound
    specificity_floor: float = 0.50  # that of the studies' constraint
    recall_margin: float = 0.02  # our choice: how much worse than the champion's a recall may be


class KeptAnswers(NamedTuple):
    """A model's kept answers to its test images; one row an image, columns as in `ANSWER`."""

    name: str  # how it is called in words: models:/giaem/2
    data_digest: str
    answers: pd.DataFrame
    floors: dict[str, pd.DataFrame]  # the floors' answers to the same images


class Check(NamedTuple):
    """One rule, whether it is kept, and what was found."""

    rule: str
    passed: bool
    found: str


def judge(contender: KeptAnswers, champion: KeptAnswers | None, limits: Limits) -> list[Check]:
    """Every rule of the gate, in the order in which they are read."""
    scored = as_scored(contender.name, contender.answers)
    checks = [
        check_recall(scored, limits),
        check_specificity(scored, limits),
        *check_floors(scored, contender.floors, limits),
    ]
    return checks + (check_champion(contender, champion, limits) if champion else [])


def as_scored(name: str, answers: pd.DataFrame) -> Scored:
    """A table of answers with its metrics and intervals."""
    columns = (answers[column].to_numpy() for column in ANSWER[1:])
    return evaluate_scored(name, *columns)


def check_recall(scored: Scored, limits: Limits) -> Check:
    """The recall's lower 95 % bound over groups of near-copies reaches the floor."""
    floor = limits.recall_floor
    bound, n = recall_bound(scored.labels, scored.predicted, scored.groups)
    found = (
        f"recall {scored.metrics['recall']:.3f}; over {n} groups of tumours its lower 95 % bound "
        f"is {bound:.3f}"
    )
    if bound < floor:
        found += f", {floor - bound:.3f} below the floor"
        if wilson_lower(n, n) < floor:
            found += (
                f". No model can pass here: with every tumour found {n} groups show "
                f"{wilson_lower(n, n):.3f}. Lower RECALL_FLOOR, or test on "
                f"{groups_needed(floor)} groups"
            )
    return Check(f"recall is shown to be at least {floor:g}", bound >= floor, found)


def check_specificity(scored: Scored, limits: Limits) -> Check:
    """The specificity reaches its floor, as a point value: it keeps the search's constraint."""
    value = scored.metrics["specificity"]
    low, high = scored.intervals["specificity"]
    floor = limits.specificity_floor
    found = f"specificity {value:.3f} ({low:.3f} to {high:.3f})"
    return Check(f"specificity is at least {floor:g}", value >= floor, found)


def check_floors(scored: Scored, floors: dict[str, pd.DataFrame], limits: Limits) -> list[Check]:
    """Every method without a network is beaten, as far as it keeps the specificity floor itself."""
    if not floors:
        found = "their answers to these images were not kept: conclude the study once more"
        return [Check("every floor is beaten", False, found)]
    checks = []
    for name, answers in floors.items():
        floor, rule = as_scored(name, answers), f"the floor {name} is beaten"
        if floor.metrics["specificity"] < limits.specificity_floor:
            found = f"its specificity is {floor.metrics['specificity']:.3f}: it cannot win"
            passed = scored.metrics["specificity"] >= limits.specificity_floor
            checks.append(Check(rule, passed, found))
            continue
        gap = pair(scored, floor)[OBJECTIVE]
        values = f"F2 {scored.metrics[OBJECTIVE]:.3f} beside {floor.metrics[OBJECTIVE]:.3f}"
        found = f"{values}: {told(gap)}"
        checks.append(Check(rule, gap.is_better, found))
    return checks


def check_champion(contender: KeptAnswers, champion: KeptAnswers, limits: Limits) -> list[Check]:
    """On test images that neither has trained on: not worse on recall, better on the objective."""
    margin = limits.recall_margin
    rules = (
        f"its recall is not worse than the champion's by more than {margin:g}",
        "its F2 is better than the champion's",
    )
    shared = shared_answers(contender, champion)
    if shared is None:
        found = (
            f"{contender.name} and {champion.name} share no test images of both classes: they "
            "cannot be compared. Search on the champion's data, split and seed"
        )
        return [Check(rule, False, found) for rule in rules]
    one, other = shared
    gaps = pair(one, other)
    recall, objective = gaps["recall"], gaps[OBJECTIVE]
    on = f"on {len(one.labels)} shared test images of {len(set(one.groups.tolist()))} groups"
    return [
        Check(rules[0], recall.low >= -margin, f"{told(recall)} {on}"),
        Check(rules[1], objective.is_better, f"{told(objective)} {on}"),
    ]


def shared_answers(one: KeptAnswers, other: KeptAnswers) -> tuple[Scored, Scored] | None:
    """Both models' answers to the images that are test images of both; None without such."""
    if one.data_digest != other.data_digest:
        return None
    both = one.answers.merge(other.answers[["file", "score", "predicted"]], on="file")
    if both["label"].nunique() < 2:
        return None
    first = both.rename(columns={"score_x": "score", "predicted_x": "predicted"})
    second = both.rename(columns={"score_y": "score", "predicted_y": "predicted"})
    return as_scored(one.name, first), as_scored(other.name, second)


def told(gap: Difference) -> str:
    """A difference in words: `0.031 higher (0.004 to 0.060)`; all values have the same sign."""
    if gap.value < 0:
        return f"{-gap.value:.3f} lower ({-gap.high:.3f} to {-gap.low:.3f})"
    return f"{gap.value:.3f} higher ({gap.low:.3f} to {gap.high:.3f})"
