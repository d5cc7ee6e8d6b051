"""Evidence as it is read: what it is made of, its words in Markdown, its numbers as a table.

It computes nothing but what a cell shows; its page is `evidence_page`'s.
"""

from dataclasses import dataclass

import pandas as pd

from studies.claims import Grounds, write_claims
from studies.evidence_split import (
    F1_THRESHOLD,
    HIGHER_RECALL_FLOOR,
    RECALL_FLOOR,
    RECALL_THRESHOLD,
    Split,
)
from training.data import Dataset
from training.localization import MEASURES
from training.metrics import COUNTS
from training.over_splits import Repeated

METHOD, OPERATING, FLOOR, CONFOUND, REFERENCE, CONTROL = (
    "method",
    "operating point",
    "floor",
    "confound",
    "reference",
    "control",
)
COLUMNS = (
    "auroc",
    "auprc",
    "macro_f1",
    "f2",
    "recall",
    "specificity",
    "specificity_at_95_recall",
)
ABOUT_INTERVALS = (
    "Mean of the splits with its 95 % interval, and ± the standard deviation over the splits. The "
    "interval is a bootstrap over groups of near-copies that are drawn once for all splits, each "
    "class on its own: groups recur in several splits' test sets. It takes the trained detectors "
    "as they are; what other training sets change is in the standard deviation. A reference learns "
    "from labels and has its own test split of each seed: it is there to compare levels."
)


@dataclass(frozen=True)
class Row:
    """A line of the table: a method over the splits, and what it is there for."""

    kind: str
    repeated: Repeated

    @property
    def name(self) -> str:
        """The method's name."""
        return self.repeated.name


@dataclass(frozen=True)
class Evidence:
    """All that is known after the last split."""

    name: str  # the study's
    slug: str
    doc: str
    protocol: str
    dataset: Dataset
    splits: list[Split]
    rows: list[Row]
    facts: dict[str, str]
    tags: dict[str, str]

    def of_kind(self, *kinds: str) -> list[Repeated]:
        """The rows of these kinds, in order."""
        return [row.repeated for row in self.rows if row.kind in kinds]

    @property
    def method(self) -> Repeated:
        """The study's own row."""
        return self.of_kind(METHOD)[0]


def claims(evidence: Evidence) -> list[str]:
    """The sentences that the numbers allow."""
    dataset = evidence.dataset
    healthy, tumor = (
        len(set(dataset.groups[dataset.labels == label].tolist())) for label in (0, 1)
    )
    return write_claims(
        Grounds(
            method=evidence.method,
            rivals=evidence.of_kind(FLOOR, CONFOUND),
            controls=evidence.of_kind(CONTROL),
            data=dataset.name,
            protocol=evidence.protocol,
            n_groups=(healthy, tumor),
            looks=[split.looks for split in evidence.splits],
        )
    )


def write_markdown(evidence: Evidence) -> str:
    """Everything in words and tables."""
    parts = [
        f"## Evidence: {evidence.name}",
        evidence.doc,
        "\n".join(f"- {sentence}" for sentence in claims(evidence)),
        methods_table(evidence),
        ABOUT_INTERVALS,
        splits_table(evidence),
        operating_words(evidence),
        f1_words(evidence),
        places_table(evidence),
        facts_table(evidence),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def methods_table(evidence: Evidence) -> str:
    """A row a method: the means over the splits."""
    lines = [
        "| method | is | " + " | ".join(COLUMNS) + " |",
        "| --- | --- |" + " ---: |" * len(COLUMNS),
    ]
    for row in evidence.rows:
        name = f"**{row.name}**" if row.kind == METHOD else row.name
        cells = " | ".join(cell(row.repeated, metric) for metric in COLUMNS)
        lines.append(f"| {name} | {row.kind} | {cells} |")
    return "\n".join(lines)


def cell(repeated: Repeated, metric: str) -> str:
    """`0.970 (0.951 to 0.985) ± 0.012`."""
    low, high = repeated.interval(metric)
    spread = f" ± {repeated.spread(metric):.3f}" if len(repeated.answers) > 1 else ""
    return f"{repeated.mean(metric):.3f} ({low:.3f} to {high:.3f}){spread}"


def splits_table(evidence: Evidence) -> str:
    """The method alone, a row a split."""
    lines = [
        "| seed | trials | " + " | ".join(COLUMNS) + " |",
        "| ---: | ---: |" + " ---: |" * len(COLUMNS),
    ]
    for number, split in enumerate(evidence.splits):
        metrics = evidence.method.answers[number].metrics
        cells = " | ".join(f"{metrics[name]:.3f}" for name in COLUMNS)
        lines.append(f"| {split.seed} | {split.n_trials} | {cells} |")
    return "\n".join(lines)


def operating_words(evidence: Evidence) -> str:
    """What the recall threshold keeps on test, and what a higher one would."""
    notes = "\n".join(f"- seed {split.seed}: {split.threshold_note}" for split in evidence.splits)
    points = [row.repeated for row in evidence.rows if row.name == RECALL_THRESHOLD]
    if not points:
        return f"**No recall of {RECALL_FLOOR:.2f} can be shown on validation:**\n\n{notes}"
    return (
        "**A recall that validation shows.** `recall_threshold` is the method under the highest "
        "threshold at which the lower Wilson bound of the recall over validation's groups is at "
        f"least {RECALL_FLOOR:.2f}. On test it has a recall of {cell(points[0], 'recall')} at a "
        f"specificity of {cell(points[0], 'specificity')}. With {HIGHER_RECALL_FLOOR:.2f}:\n\n"
        f"{notes}"
    )


def f1_words(evidence: Evidence) -> str:
    """What the threshold with the best two-class F1 on validation is worth on test."""
    [point] = [row.repeated for row in evidence.rows if row.name == F1_THRESHOLD]
    return (
        "**The paper's measure.** `f1_threshold` is the method under the threshold with the best "
        f"two-class F1 on validation: on test it has {cell(point, 'macro_f1')}, with a recall of "
        f"{cell(point, 'recall')} and a specificity of {cell(point, 'specificity')}."
    )


def places_table(evidence: Evidence) -> str:
    """How well the places agree with the outlines; nothing where none are known."""
    table = places(evidence)
    if table.empty:
        return ""
    lines = [
        "Where the outlined tumours of the test splits are (mean of the splits):",
        "",
        "| measure | mean | sd | lowest | chance | means |",
        "| --- |" + " ---: |" * 4 + " --- |",
    ]
    for row in table.itertuples():
        lines.append(
            f"| {row.measure} | {row.mean:.3f} | {row.sd:.3f} | {row.lowest:.3f} "
            f"| {row.chance:.3f} | {MEASURES[row.measure]} |"
        )
    return "\n".join(lines)


def places(evidence: Evidence) -> pd.DataFrame:
    """A row a measure of localization, over the splits that have outlines."""
    found = [split.localization for split in evidence.splits if split.localization]
    rows = []
    for measure in MEASURES if found else ():
        values = pd.Series([one.metrics[measure] for one in found])
        chance = pd.Series([one.chance.get(measure, float("nan")) for one in found])
        rows.append((measure, values.mean(), values.std(), values.min(), chance.mean()))
    return pd.DataFrame(rows, columns=["measure", "mean", "sd", "lowest", "chance"])


def facts_table(evidence: Evidence) -> str:
    """What a reader needs to judge the numbers."""
    lines = [f"| {name} | {value} |" for name, value in evidence.facts.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def as_table(evidence: Evidence) -> pd.DataFrame:
    """A row a method and metric: mean, sd, interval, and every split's value."""
    return pd.DataFrame(
        [
            _row(row, metric, evidence)
            for row in evidence.rows
            for metric in evidence.method.answers[0].metrics
            if metric not in COUNTS
        ]
    )


def _row(row: Row, metric: str, evidence: Evidence) -> dict[str, object]:
    low, high = row.repeated.interval(metric)
    seeds = [f"seed_{split.seed}" for split in evidence.splits]
    return {
        "method": row.name,
        "is": row.kind,
        "metric": metric,
        "mean": row.repeated.mean(metric),
        "sd": row.repeated.spread(metric),
        "low": low,
        "high": high,
        **dict(zip(seeds, row.repeated.values(metric), strict=True)),
    }
