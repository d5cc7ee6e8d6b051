"""Ratios and growth as text, Markdown, CSV and JSON; measures nothing."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from studies.bench.growth import Growth
from studies.bench.ratio import Ratio
from studies.bench.record import Limit
from studies.study import StudyError

BEGIN, END = "<!-- make bench: from here", "<!-- make bench: to here -->"


class Bench(NamedTuple):
    """All that was measured, and on what."""

    machine: str
    ratios: list[Ratio]
    limits: list[Limit]
    growth: list[Growth]

    @property
    def rows(self) -> list[dict[str, object]]:
        """The ratios, and whether each is kept."""
        return [{**asdict(ratio), "kept": ratio.kept} for ratio in self.ratios]

    @property
    def missed(self) -> list[Ratio | Limit]:
        """What is stated and not reached, or not alike."""
        return [one for one in (*self.ratios, *self.limits) if not one.kept]


def write(bench: Bench, folder: Path) -> Path:
    """bench.md, bench.csv and bench.json; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(bench.rows).to_csv(folder / "bench.csv", index=False)
    (folder / "bench.json").write_text(as_json(bench))
    (folder / "bench.md").write_text(as_markdown(bench) + "\n")
    return folder / "bench.md"


def as_json(bench: Bench) -> str:
    """Everything."""
    limits, growth = ([one._asdict() for one in some] for some in (bench.limits, bench.growth))
    found = {"machine": bench.machine, "ratios": bench.rows, "limits": limits, "growth": growth}
    return json.dumps(found, indent=1)


def as_markdown(bench: Bench) -> str:
    """The tables with a sentence on the machine above them."""
    loads = [ratio.load for ratio in bench.ratios]
    load = f"; load {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    tables = [f"{bench.machine}{load}."]
    if bench.ratios:
        tables.append(ratio_table(bench.ratios))
    if bench.limits:
        tables.append(limit_table(bench.limits))
    if bench.growth:
        tables.append(growth_table(bench.growth))
    return "\n\n".join(tables)


def ratio_table(ratios: list[Ratio]) -> str:
    """A line a ratio."""
    lines = ["| | written plainly | here | times | stated |", "| --- | ---: | ---: | ---: | ---: |"]
    for ratio in ratios:
        times = f"{ratio.ratio:.1f}" if ratio.ratio < 20 else f"{ratio.ratio:.0f}"
        stated = "" if ratio.at_least is None else f"≥ {ratio.at_least:g}"
        times = times if ratio.kept else f"{times}, **missed**"
        lines.append(
            f"| {ratio.what}; against {ratio.against} | {amount(ratio.peer, ratio.unit)} | "
            f"{amount(ratio.ours, ratio.unit)} | {times} | {stated} |"
        )
    return "\n".join(lines)


def limit_table(limits: list[Limit]) -> str:
    """A line a limit."""
    lines = ["| | here | stated |", "| --- | ---: | ---: |"]
    for limit in limits:
        missed = "" if limit.kept else ", **missed**"
        cells = f"{limit.value:.3g} {limit.unit}{missed} | ≤ {limit.at_most:g} {limit.unit}"
        lines.append(f"| {limit.what} | {cells} |")
    return "\n".join(lines)


def growth_table(growth: list[Growth]) -> str:
    """A line a cost, three sizes each."""
    lines = ["| cost of | at three sizes |  |  |", "| --- | ---: | ---: | ---: |"]
    for one in growth:
        sizes = zip(one.sizes, one.seconds, strict=True)
        cells = " | ".join(f"{size} {one.of}: {amount(cost, 's')}" for size, cost in sizes)
        lines.append(f"| {one.what} | {cells} |")
    return "\n".join(lines)


def amount(value: float, unit: str) -> str:
    """A number of three digits with its unit: `12.3 ms`, `0.91 s`, `120 images/s`."""
    if unit == "s" and value < 0.5:
        value, unit = 1000 * value, "ms"
    digits = 2 if value < 1 else 1 if value < 100 else 0
    return f"{value:.{digits}f} {unit}"


def write_between_marks(bench: Bench, file: Path) -> None:
    """Put the tables between the two marks of a file, in place of what is there."""
    text = file.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise StudyError(
            f"INTO={file} has no place for the tables: a line that begins with "
            f"`{BEGIN}` and a line `{END}` after it."
        )
    before, _, rest = text.partition(BEGIN)
    rest_of_mark, _, rest = rest.partition("\n")
    _, _, after = rest.partition(END)
    file.write_text(f"{before}{BEGIN}{rest_of_mark}\n{as_markdown(bench)}\n{END}{after}")
