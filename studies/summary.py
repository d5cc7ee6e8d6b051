"""What a study found, in words and tables: the Markdown of its parent run and of its report.

It turns results into text and computes none.
"""

from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from studies.progress import format_params
from studies.study import SHOWN, AtLeast
from training.floors import Scored
from training.localization import Localization

DISCLAIMER = "A research tool, not a medical device."


@dataclass(frozen=True)
class Findings:
    """Everything that is said about a study."""

    name: str
    doc: str
    metric: str
    constraints: tuple[AtLeast, ...]
    facts: dict[str, str]
    counts: dict[TrialState, int]
    n_infeasible: int
    best: FrozenTrial | None
    winner: Scored | None
    floors: list[Scored]
    leaks: dict[int, float]  # class -> share of its test images with a copy outside the test set
    localization: Localization | None = None  # of the winner on outlined test images

    def unbeaten(self) -> list[Scored]:
        """The floors that the winner does not beat on test.

        As in the search, answers that keep the constraints beat answers that do not; of two that
        do, or two that do not, the higher F2 is better.
        """
        return [floor for floor in self.floors if self._rank(floor) >= self._rank(self.winner)]

    def _rank(self, scored: Scored) -> tuple[bool, float]:
        kept = all(one.violation(scored.metrics) <= 0 for one in self.constraints)
        return kept, scored.metrics["f2"]


def write_words(findings: Findings) -> str:
    """What was searched, what won, and whether to believe it: Markdown without tables."""
    parts = [
        findings.doc,
        count_line(findings.counts, findings.n_infeasible),
        best_line(findings.best, findings.metric),
        _verdict(findings),
        _where(findings.localization),
        _leak(findings),
    ]
    return "\n\n".join(part for part in [*parts, f"*{DISCLAIMER}*"] if part) + "\n"


def write_summary(findings: Findings) -> str:
    """The words with the numbers on test and the facts below them: Markdown that stands alone."""
    parts = [
        f"## {findings.name}",
        write_words(findings),
        _test_table(findings),
        _where_table(findings.localization),
        as_rows(findings.facts),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def count_line(counts: dict[TrialState, int], n_infeasible: int) -> str:
    """How many trials there were, and how they ended."""
    states = ", ".join(f"{count} {state.name.lower()}" for state, count in counts.items() if count)
    infeasible = f"; {n_infeasible} broke a constraint and cannot win" if n_infeasible else ""
    return f"**Trials**: {sum(counts.values())} ({states}{infeasible})."


def best_line(best: FrozenTrial | None, metric: str) -> str:
    """The best trial on validation."""
    if best is None:
        return (
            "**No trial can win**: none was completed within the constraints, so the test split "
            "was not touched. More trials, or a lower floor, may find one."
        )
    return (
        f"**Best on validation**: trial {best.number}, {metric} = {best.value:.4f}, "
        f"`{format_params(best.params)}`"
    )


def _verdict(findings: Findings) -> str:
    if findings.winner is None:
        return ""
    unbeaten = ", ".join(f"`{floor.name}`" for floor in findings.unbeaten())
    if not unbeaten:
        return (
            "**On test it beats every floor**: no method without a network keeps the constraints "
            "with as high an F2."
        )
    broken = [
        f" Its {one.metric} on test, {findings.winner.metrics[one.metric]:.3f}, misses the "
        f"{one.floor:g} that it kept on validation."
        for one in findings.constraints
        if one.violation(findings.winner.metrics) > 0
    ]
    return (
        f"**On test it does not beat** {unbeaten} on F2: "
        "what it adds over a method without a network is not shown." + "".join(broken)
    )


def _where(localization: Localization | None) -> str:
    """Whether the largest error lies in the tumour, in a sentence."""
    if localization is None:
        return ""
    rate, by_chance = (
        numbers["pointing_game"] for numbers in (localization.metrics, localization.chance)
    )
    low, high = localization.intervals["pointing_game"]
    return (
        f"**Where the tumour is**: on {localization.n_images} outlined test images the largest "
        f"value of the map lies inside the outline in {rate:.0%} ({low:.0%} to {high:.0%}; chance "
        f"{by_chance:.0%}); pixel AUROC {localization.metrics['pixel_auroc']:.3f}."
    )


def _where_table(localization: Localization | None) -> str:
    """The measures of place beside chance."""
    if localization is None:
        return ""
    names = list(localization.metrics)
    values = []
    for name in names:
        low, high = localization.intervals[name]
        values.append(f"{localization.metrics[name]:.3f} ({low:.3f} to {high:.3f})")
    lines = [
        f"{localization.n_images} outlined test images in {localization.n_groups} groups:",
        "",
        "| where the tumour is | " + " | ".join(names) + " |",
        "| --- |" + " ---: |" * len(names),
        "| **found** | " + " | ".join(values) + " |",
        "| chance | " + " | ".join(f"{localization.chance[name]:.3f}" for name in names) + " |",
    ]
    return "\n".join(lines)


def _test_table(findings: Findings) -> str:
    rows = ([findings.winner] if findings.winner else []) + findings.floors
    if not rows:
        return ""
    lines = [
        "Test split, 95 % intervals from a bootstrap over groups of near-copies:",
        "",
        "| method | " + " | ".join(SHOWN) + " |",
        "| --- |" + " ---: |" * len(SHOWN),
    ]
    for row in rows:
        name = f"**{row.name}**" if row is findings.winner else row.name
        lines.append(f"| {name} | " + " | ".join(_cell(row, metric) for metric in SHOWN) + " |")
    return "\n".join(lines)


def _cell(scored: Scored, metric: str) -> str:
    low, high = scored.intervals[metric]
    return f"{scored.metrics[metric]:.3f} ({low:.3f} to {high:.3f})"


def _leak(findings: Findings) -> str:
    shares = {label: share for label, share in findings.leaks.items() if share > 0}
    if not shares:
        return "**Leaks nothing**: no test image has a near-copy in training or validation."
    words = {0: "healthy", 1: "tumour"}
    text = " and ".join(f"{share:.0%} of the {words[label]}" for label, share in shares.items())
    return (
        f"**This split leaks**: {text} test images have a near-copy in training or validation. "
        "Its numbers say little about new patients."
    )


def as_rows(facts: dict[str, str]) -> str:
    """Facts as a table without a head."""
    lines = [f"| {name} | {value} |" for name, value in facts.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])
