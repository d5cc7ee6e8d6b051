"""The table of detectors and heads as Markdown, CSV and a page; it runs and scores nothing."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd
from markdown_it import MarkdownIt
from plotly.colors import sample_colorscale

from studies.look import INK, SCALE
from studies.report import fill_page
from studies.summary import DISCLAIMER
from training.floors import Scored

TITLE = "Every detector under every head"
NO_HEAD = "no head"
MATRICES = {"auroc": "AUROC", "macro_f1": "Two-class F1"}
LIGHT, DARK = 0.5, 1.0  # the values at the ends of the colours; an AUROC of 0.5 is chance
WHITE_FROM = 0.55  # of the way to dark, from where dark letters cannot be read


@dataclass(frozen=True)
class Entry:
    """One detector under one head: the best trial's answers on test, or why there are none."""

    detector: str
    head: str
    n_trials: int = 0
    scored: Scored | None = None
    state: str = "-"  # a word in place of the answers
    note: str = ""  # the sentence to that word


@dataclass(frozen=True)
class Table:
    """All entries of one split, the floors on the same test images, and how far to trust both."""

    split: str
    entries: list[Entry]
    floors: list[Scored]
    leak: float  # the largest share of a class's test images with a copy outside the test split
    facts: dict[str, str]

    @property
    def detectors(self) -> list[str]:
        """The rows."""
        return list(dict.fromkeys(entry.detector for entry in self.entries))

    @property
    def heads(self) -> list[str]:
        """The columns."""
        return list(dict.fromkeys(entry.head for entry in self.entries))

    def row(self, detector: str) -> list[Entry]:
        """A detector's entries, in the order of the columns."""
        return [entry for entry in self.entries if entry.detector == detector]

    @property
    def notes(self) -> list[str]:
        """Why cells have no answer, a line each."""
        return [f"{one.detector} with {one.head}: {one.note}" for one in self.entries if one.note]


def write_files(tables: list[Table], stem: Path) -> Path:
    """The table as `stem` with .md, .csv and .html; returns the last."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".md").write_text(as_markdown(tables), encoding="utf-8")
    as_rows(tables).to_csv(stem.with_suffix(".csv"), index=False)
    page = stem.with_suffix(".html")
    page.write_text(as_page(tables), encoding="utf-8")
    return page


def best_of(entries: list[Entry], metric: str) -> Entry | None:
    """The entry that is highest in a metric; none where nothing has been answered."""
    scored = [entry for entry in entries if entry.scored]
    return max(scored, key=lambda entry: entry.scored.metrics[metric], default=None)


def as_markdown(tables: list[Table]) -> str:
    """A table a split: `AUROC / two-class F1` on test, the highest AUROC of each row bold."""
    parts = [f"## {TITLE}", _about()]
    for table in tables:
        parts += [f"### {_split_title(table)}", _leak(table), _markdown_table(table)]
        parts += ["\n".join(f"- {note}" for note in table.notes)]
    return "\n\n".join(part for part in [*parts, f"*{DISCLAIMER}*"] if part) + "\n"


def _about() -> str:
    return (
        "AUROC / two-class F1 on the test split, of the trial that is best on validation; bold: "
        "the highest AUROC of its row. In italics the floors, which need neither network nor head."
    )


def _split_title(table: Table) -> str:
    return f"{table.split.capitalize()} split"


def _leak(table: Table) -> str:
    if table.leak == 0:
        return "Leaks nothing: no test image has a near-copy in training or validation."
    return (
        f"**This split leaks**: up to {table.leak:.0%} of a class's test images have a near-copy "
        "in training or validation. Its numbers say little about new patients."
    )


def _markdown_table(table: Table) -> str:
    heads = table.heads
    lines = [
        "| detector | " + " | ".join([*heads, NO_HEAD]) + " |",
        "| --- |" + " ---: |" * (len(heads) + 1),
    ]
    for detector in table.detectors:
        row = table.row(detector)
        best = best_of(row, "auroc")
        cells = [f"**{_pair(one)}**" if one is best else _pair(one) for one in row]
        lines.append(f"| {detector} | " + " | ".join(cells) + " | |")
    for floor in table.floors:
        lines.append(f"| *{floor.name}* |" + " |" * len(heads) + f" {_values(floor)} |")
    return "\n".join(lines)


def _pair(entry: Entry) -> str:
    return _values(entry.scored) if entry.scored else entry.state


def _values(scored: Scored) -> str:
    return " / ".join(f"{scored.metrics[metric]:.3f}" for metric in MATRICES)


def as_rows(tables: list[Table]) -> pd.DataFrame:
    """A row a cell or floor, a column a metric, each with the bounds of its 95 % interval."""
    rows = []
    for table in tables:
        for one in table.entries:
            cell = {"detector": one.detector, "head": one.head, "trials": one.n_trials}
            rows.append({"split": table.split, **cell, "note": one.note, **_numbers(one.scored)})
        for floor in table.floors:
            rows.append({"split": table.split, "detector": floor.name, **_numbers(floor)})
    return pd.DataFrame(rows)


def _numbers(scored: Scored | None) -> dict[str, float]:
    if scored is None:
        return {}
    numbers = {}
    for name, (low, high) in scored.intervals.items():
        numbers |= {name: scored.metrics[name], f"{name}_low": low, f"{name}_high": high}
    return numbers


def as_page(tables: list[Table]) -> str:
    """One HTML file in the look of the reports, a matrix a metric and split."""
    links = "".join(f'<a href="#{table.split}">{_split_title(table)}</a>' for table in tables)
    body = "".join(_section(table) for table in tables)
    about = (
        "The test split's numbers of the trial that is best on validation, with 95 % intervals "
        "from a bootstrap over groups of near-copies. Bold: the highest of its row. Light to dark: "
        f"{LIGHT:g} to {DARK:g}. The floors, below, need neither network nor head."
    )
    note = f'<section><p class="note">{about} {DISCLAIMER}</p></section>'
    return fill_page(TITLE, links=links, body=note + body)


def _section(table: Table) -> str:
    words = MarkdownIt("js-default").render(_leak(table))
    matrices = "".join(
        f'<figure class="wide"><h3>{title}</h3>{_matrix(table, metric)}</figure>'
        for metric, title in MATRICES.items()
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    facts = "; ".join(f"{name}: {text}" for name, text in table.facts.items())
    return (
        f'<section id="{table.split}"><h2>{_split_title(table)}</h2>{words}'
        f'<div class="plots">{matrices}</div>'
        + (f"<ul>{notes}</ul>" if notes else "")
        + f'<p class="note">{escape(facts)}</p></section>'
    )


def _matrix(table: Table, metric: str) -> str:
    heads = "".join(f"<th>{escape(head)}</th>" for head in [*table.heads, NO_HEAD])
    rows = []
    for detector in table.detectors:
        row = table.row(detector)
        best = best_of(row, metric)
        cells = "".join(_heat(one.scored, metric, one.state, is_best=one is best) for one in row)
        rows.append(f"<tr><td>{escape(detector)}</td>{cells}<td></td></tr>")
    for floor in table.floors:
        empty = "<td></td>" * len(table.heads)
        cell = _heat(floor, metric, "", is_best=False)
        rows.append(f"<tr><td><i>{escape(floor.name)}</i></td>{empty}{cell}</tr>")
    return (
        '<div class="scroll"><table class="methods" style="table-layout:fixed;min-width:760px">'
        f"<thead><tr><th style='width:190px'>detector</th>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody>"
        "</table></div>"
    )


def _heat(scored: Scored | None, metric: str, state: str, *, is_best: bool) -> str:
    if scored is None:
        return f"<td>{escape(state)}</td>"
    low, high = scored.intervals[metric]
    value = f"{scored.metrics[metric]:.3f}"
    value = f"<b>{value}</b>" if is_best else value
    background, ink = heat(scored.metrics[metric])
    return (
        f'<td style="background:{background};color:{ink}">{value}'
        f'<small style="color:inherit">{low:.2f} &ndash; {high:.2f}</small></td>'
    )


def heat(value: float) -> tuple[str, str]:
    """The background for a value, and the letters that can be read on it."""
    share = min(max((value - LIGHT) / (DARK - LIGHT), 0.0), 1.0)
    return sample_colorscale(SCALE, share)[0], "white" if share >= WHITE_FROM else INK
