"""A comparison as words, Markdown and rows; it reads no storage and computes nothing new."""

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from studies.compare.contestants import Contestant
from studies.compare.differences import Pair, in_words, is_clear, verdict
from studies.compare.disagreements import Disagreements
from studies.compare.names import common_marks, shortened
from studies.compare.same_images import TestSet
from studies.progress import format_params, format_seconds
from studies.storage import flatten
from studies.study import SHOWN
from studies.summary import DISCLAIMER
from training.floors import Scored

NOTHING_ASKED = (
    "Nothing was asked of a test split for this page: it reads the answers that each winner gave "
    "once, when its study was concluded."
)
ABOUT_DIFFERENCES = (
    "Paired: both winners are resampled with the same groups of near-copies, so that images that "
    "are hard for both do not count. Clear is a difference whose 95 % interval leaves out 0."
)
TOLD = ("f2", "recall", "specificity", "auroc")  # of a difference, in Markdown
FEW, MANY = 3, 6  # pairs: up to which chance needs no word, and above which each has none


@dataclass(frozen=True)
class Tested:
    """A set of test images: who answered it, how the winners differ, and on which images."""

    tests: TestSet
    pairs: list[Pair]
    disagreements: Disagreements | None  # of two winners or more


@dataclass(frozen=True)
class Comparison:
    """All that is said of several studies."""

    contestants: list[Contestant]
    tested: list[Tested]
    unpaired: list[str]  # a sentence for each pair that did not answer the same images
    link: str | None  # MLflow's own comparison of the winners

    @property
    def names(self) -> dict[str, str]:
        """What the studies are called here, by full name."""
        return shortened([contestant.name for contestant in self.contestants])

    @property
    def title(self) -> str:
        """All names where they fit."""
        names = list(self.names.values())
        if len(names) > 4:
            return f"Comparison of {len(names)} studies"
        return f"{', '.join(names[:-1])} and {names[-1]} compared"

    @property
    def what_all_are(self) -> str:
        """What stands in the brackets of all names."""
        return ", ".join(common_marks([contestant.name for contestant in self.contestants]))


def claims(comparison: Comparison) -> list[str]:
    """What may be said, a Markdown sentence each: of every pair, or of every study where there are
    many; then what is not paired.
    """
    pairs = [pair for tested in comparison.tested for pair in tested.pairs]
    said = verdicts(comparison) if len(pairs) <= MANY else _standings(comparison, pairs)
    return [*said, *comparison.unpaired]


def verdicts(comparison: Comparison) -> list[str]:
    """What may be said of every pair."""
    broken = {one.name: text for one in comparison.contestants if (text := misses(one))}
    return [
        verdict(pair, comparison.names, broken)
        for tested in comparison.tested
        for pair in tested.pairs
    ]


def _standings(comparison: Comparison, pairs: list[Pair]) -> list[str]:
    """Whom each winner is clearly ahead of in F2, and behind."""
    names, said = comparison.names, []
    for contestant in comparison.contestants:
        own = [pair for pair in pairs if contestant.name in (pair.one.name, pair.other.name)]
        sides: dict[str, list[str]] = {"ahead of": [], "behind": []}
        for pair in own:
            is_first = pair.one.name == contestant.name
            is_ahead = pair.differences["f2"].is_better == is_first
            if is_clear(pair, "f2"):
                other = names[(pair.other if is_first else pair.one).name]
                sides["ahead of" if is_ahead else "behind"].append(other)
        parts = [f"clearly {word} {', '.join(side)}" for word, side in sides.items() if side]
        if left := len(own) - sum(map(len, sides.values())):
            parts.append(f"no difference shown to {left} {'other' if left == 1 else 'others'}")
        caution = " (which misses a constraint)" if misses(contestant) else ""
        if own:
            said.append(f"**{names[contestant.name]}**{caution} in F2: {'; '.join(parts)}.")
    return said


def cautions(comparison: Comparison) -> list[str]:
    """What a reader must know beside the numbers, a Markdown sentence each."""
    said = []
    leaking = [c for c in comparison.contestants if c.kept.tags.get("leaks") == "true"]
    if leaking:
        named = ", ".join(comparison.names[contestant.name] for contestant in leaking)
        said.append(
            f"**Split that leaks** ({named}): test images have near-copies in training or "
            "validation, so these numbers say little about new patients."
        )
    for contestant in comparison.contestants:
        if text := misses(contestant):
            said.append(f"**{comparison.names[contestant.name]}**: {text}.")
    for tested in comparison.tested:
        said += _unbeaten(tested.tests, comparison.names)
    n_pairs = sum(len(tested.pairs) for tested in comparison.tested)
    if n_pairs > FEW:
        said.append(
            f"There are {n_pairs} pairs: of intervals around no difference at all, one in twenty "
            "leaves out 0 by chance."
        )
    return said


def misses(contestant: Contestant) -> str:
    """The constraints that a winner misses on test: a sentence without its stop."""
    if contestant.answered is None:
        return ""
    scored = contestant.answered.scored
    return ", ".join(
        f"its {name} on test, {scored.metrics[name]:.3f}, is below the {floor:g} that it kept on "
        "validation"
        for name, floor in contestant.floors.items()
        if is_below(scored, name, floor)
    )


def _unbeaten(tests: TestSet, names: dict[str, str]) -> list[str]:
    """The methods without a network that winners do not beat, a sentence each."""
    said = []
    for floor in tests.floors:
        behind = [names[one.name] for one in tests.contestants if not beats(one, floor)]
        if behind:
            all_ = len(behind) == len(tests.contestants)
            whom = "any of the winners" if all_ else ", ".join(f"**{name}**" for name in behind)
            said.append(f"`{floor.name}`, which needs no network, is not beaten on F2 by {whom}.")
    return said


def beats(contestant: Contestant, floor: Scored) -> bool:
    """Whether a winner is better than a method without a network: as in a study's own report,
    answers that keep the constraints are better than others, and of two alike the higher F2 is.
    """

    def rank(scored: Scored) -> tuple[bool, float]:
        broken = (is_below(scored, name, least) for name, least in contestant.floors.items())
        return not any(broken), scored.metrics["f2"]

    return rank(contestant.answered.scored) > rank(floor)


def is_below(scored: Scored, metric: str, floor: float) -> bool:
    """Whether answers break a constraint."""
    return metric in scored.metrics and scored.metrics[metric] < floor


def test_line(tests: TestSet) -> str:
    """Which images were answered."""
    scored, data = tests.scored[0], tests.contestants[0].data
    n_groups = len(set(scored.groups.tolist()))
    tumors = int(scored.labels.sum())
    return (
        f"{len(scored.labels)} test images of {data['name']} ({data['split']} split, seed "
        f"{data['seed']}; {tumors} with a tumour) in {n_groups} groups of near-copies"
    )


def best_words(contestant: Contestant) -> str:
    """The winner on validation."""
    if contestant.best is None:
        return "-"
    return f"{contestant.best.value:.4f} (trial {contestant.best.number})"


def trial_words(contestant: Contestant) -> str:
    """How many trials there were, and how they ended."""
    outcomes = contestant.outcomes()
    return f"{len(contestant.trials)}: " + ", ".join(f"{n} {name}" for name, n in outcomes.items())


def chosen_words(contestant: Contestant) -> str:
    """The winner's parameters."""
    return format_params(contestant.best.params) if contestant.best else ""


def apart(contestants: list[Contestant]) -> dict[str, list[str]]:
    """What the studies were begun with where they are not alike, but for their search spaces."""
    flat = [flatten(_without_space(contestant.specification)) for contestant in contestants]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = {key: [_as_word(one.get(key)) for one in flat] for key in keys}
    return {key: row for key, row in rows.items() if len(set(row)) > 1}


def _without_space(specification: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in specification.items() if key not in ("space", "study")}


def _as_word(value: str | None) -> str:
    """A JSON value as it is read."""
    return "-" if value is None else value.strip('"')


def as_markdown(comparison: Comparison) -> str:
    """The comparison in words and tables that stand alone."""
    names = comparison.names
    common = f"In common: {comparison.what_all_are}." if comparison.what_all_are else ""
    parts = [
        f"## {comparison.title}",
        common,
        "\n".join(f"- {sentence}" for sentence in claims(comparison)),
        "\n".join(f"- {sentence}" for sentence in cautions(comparison)),
        _studies_table(comparison),
        *(_tested_words(tested, names) for tested in comparison.tested),
        _apart_table(comparison),
        NOTHING_ASKED,
        f"The winners in MLflow: {comparison.link}" if comparison.link else "",
        f"*{DISCLAIMER}*",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _studies_table(comparison: Comparison) -> str:
    rows = [
        [
            comparison.names[one.name],
            trial_words(one),
            f"{one.metric} {best_words(one)}",
            f"`{chosen_words(one)}`" if one.best else "-",
            format_seconds(one.seconds),
            str(one.looks),
            one.note(),
        ]
        for one in comparison.contestants
    ]
    head = ["study", "trials", "best on validation", "its parameters", "run time", "looks", "note"]
    return _markdown_table(head, rows)


def _tested_words(tested: Tested, names: dict[str, str]) -> str:
    tests = tested.tests
    head = ["winner", *SHOWN]
    rows = [[f"**{names[one.name]}**", *_cells(one)] for one in tests.scored]
    rows += [[f"*{floor.name}*", *_cells(floor)] for floor in tests.floors]
    parts = [f"{test_line(tests)}; 95 % intervals over groups:", _markdown_table(head, rows)]
    if tested.pairs:
        parts += [f"Differences. {ABOUT_DIFFERENCES}", _differences_table(tested.pairs, names)]
    if tested.disagreements is not None:
        parts.append(disagreement_line(tested.disagreements, len(tests.files)))
    return "\n\n".join(parts)


def _differences_table(pairs: list[Pair], names: dict[str, str]) -> str:
    head = ["first minus second", *TOLD, "both right", "only first", "only second", "both wrong"]
    rows = [
        [
            f"{names[pair.one.name]} - {names[pair.other.name]}",
            *(in_words(pair.differences[name]) for name in TOLD),
            *(str(count) for count in pair.agreement),
        ]
        for pair in pairs
    ]
    return _markdown_table(head, rows)


def disagreement_line(found: Disagreements, n_images: int) -> str:
    """On how many images the winners differ."""
    n, n_groups = len(found.table), found.table["group"].nunique()
    if not n:
        return "The winners answer every test image alike."
    return (
        f"The winners do not all answer alike on {n} of {n_images} test images, in {n_groups} "
        "groups of near-copies."
    )


def _apart_table(comparison: Comparison) -> str:
    rows = [[f"`{key}`", *values] for key, values in apart(comparison.contestants).items()]
    return _markdown_table(["begun with", *comparison.names.values()], rows) if rows else ""


def _markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cells(scored: Scored) -> list[str]:
    return [
        "{:.3f} ({:.3f} to {:.3f})".format(scored.metrics[name], *scored.intervals[name])
        for name in SHOWN
    ]


def as_rows(comparison: Comparison) -> pd.DataFrame:
    """A row a number: what it is of, the metric, its value and the bounds of its interval."""
    slugs = {contestant.name: contestant.slug for contestant in comparison.contestants}
    rows = []
    for tested in comparison.tested:
        tests = tested.tests
        for kind, group in (("winner", tests.scored), ("floor", tests.floors)):
            rows += [
                {"is": kind, "of": slugs.get(one.name, one.name), "minus": "", "metric": name}
                | {"value": one.metrics[name], "low": low, "high": high}
                for one in group
                for name, (low, high) in one.intervals.items()
            ]
        rows += [
            {"is": "difference", "of": slugs[pair.one.name], "minus": slugs[pair.other.name]}
            | {"metric": name, **each._asdict()}
            for pair in tested.pairs
            for name, each in pair.differences.items()
        ]
    return pd.DataFrame(rows, columns=["is", "of", "minus", "metric", "value", "low", "high"])


def as_metrics(comparison: Comparison) -> dict[str, float]:
    """The shown metrics of the winners and their differences, as MLflow names them."""
    rows = as_rows(comparison)
    rows = rows[(rows["is"] != "floor") & rows["metric"].isin(SHOWN)]
    metrics = {}
    for row in rows.itertuples():
        whose = f"{row.of} - {row.minus}" if row.minus else row.of
        metrics |= {f"{row.metric}/{whose}": row.value}
        metrics |= {f"{row.metric}_{end}/{whose}": getattr(row, end) for end in ("low", "high")}
    return metrics


def begun_with(comparison: Comparison) -> str:
    """The names of the studies as JSON, for a tag."""
    return json.dumps([contestant.slug for contestant in comparison.contestants])
