"""The paper's Table 1 from our runs, beside the paper's: Markdown, CSV and metrics.

It computes means and spreads over seeds and nothing else; its page is paper_page's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from studies.paper_rows import BINARY, COLUMNS, TWO_CLASS, Numbers, Row
from studies.summary import DISCLAIMER, as_rows
from training.floors import Scored

TITLE = "The paper's Table 1, from our runs"
METRICS = {"classifier": BINARY, "detector": TWO_CLASS}  # by the scheme that images are split by
TASKS = {"classifier": "the CNN's", "detector": "the CVAE's"}
SEVERAL = 2  # seeds, from which on there is a spread


@dataclass(frozen=True)
class Measured:
    """One method's answers on test, a seed each, as far as there are any."""

    answers: Sequence[Scored]

    def mean(self, metric: str) -> float:
        """The mean over the seeds."""
        return float(np.mean([scored.metrics[metric] for scored in self.answers]))

    def spread(self, metric: str) -> float:
        """The standard deviation over the seeds (n - 1)."""
        return float(np.std([scored.metrics[metric] for scored in self.answers], ddof=1))

    def percent(self, metric: str) -> str:
        """`92.1 ± 1.4`; of one seed `92.1`."""
        mean = f"{100 * self.mean(metric):.1f}"
        return f"{mean} ± {100 * self.spread(metric):.1f}" if self.is_repeated else mean

    def share(self, metric: str) -> str:
        """`0.921 ± 0.014`; of one seed `0.921`."""
        mean = f"{self.mean(metric):.3f}"
        return f"{mean} ± {self.spread(metric):.3f}" if self.is_repeated else mean

    def interval(self, metric: str) -> str:
        """Of one seed the 95 % interval in percent; nothing where there is a spread."""
        if self.is_repeated or not self.answers:
            return ""
        low, high = self.answers[0].intervals[metric]
        return f"{100 * low:.1f} to {100 * high:.1f}"

    @property
    def is_repeated(self) -> bool:
        """Whether there are several seeds."""
        return len(self.answers) >= SEVERAL


@dataclass(frozen=True)
class Line:
    """A row of the table as far as it is known."""

    row: Row
    measured: Measured
    state: str = "-"  # a word in place of the answers
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The row in words."""
        return f"{self.row.model.title}, {self.row.source.title}"

    @property
    def key(self) -> str:
        """The row in a metric's name: `giaem_real_vae`."""
        source = {"real": "real", "synthetic": "", "mixed": "real_"}[self.row.source.train_on]
        made = "" if self.row.source.is_real else self.row.source.generator
        return f"{self.row.model.study}_{source}{made}"


Floors = dict[str, dict[str, Measured]]  # methods without a network, by scheme and name


@dataclass(frozen=True)
class Paper:
    """All that the table shows."""

    name: str
    protocol: str
    seeds: list[int]
    lines: list[Line]
    floors: Floors  # on the test images of the lines
    paper_floors: Floors  # on images that are framed and split as the paper's
    leak: float  # the largest share of a class's test images with a copy outside the test split
    facts: dict[str, str]
    figures: dict[str, Image.Image]

    def behind(self, line: Line) -> Measured | None:
        """The method without a network that explains the paper's number of a row."""
        if not line.row.floor:
            return None
        return self.paper_floors[line.row.model.scheme][line.row.floor]

    @property
    def reasons(self) -> dict[str, list[Line]]:
        """The paper's rows by what explains them."""
        reasons: dict[str, list[Line]] = {}
        for line in self.lines:
            if line.row.why:
                reasons.setdefault(line.row.why, []).append(line)
        return reasons

    @property
    def notes(self) -> list[str]:
        """Why rows lack answers, a line each reason."""
        rows: dict[str, list[str]] = {}
        for line in self.lines:
            for note in line.notes:
                rows.setdefault(note, []).append(line.name)
        return [f"{'; '.join(names)}: {note}" for note, names in rows.items()]


def as_markdown(paper: Paper) -> str:
    """The table with the paper's beside it, and what explains the paper's."""
    parts = [
        f"## {TITLE}: {paper.name}",
        about(paper),
        leak(paper),
        _table(paper),
        "### What explains the paper's numbers",
        "\n".join(f"- {sentence}" for sentence in explanations(paper)),
        "\n".join(f"- {note}" for note in paper.notes),
        as_rows(paper.facts),
    ]
    return "\n\n".join(part for part in [*parts, f"*{DISCLAIMER}*"] if part) + "\n"


def about(paper: Paper) -> str:
    """How the table is read."""
    n = len(paper.seeds)
    spread = (
        f"Mean ± standard deviation over {n} seeds"
        if n >= SEVERAL
        else "One seed, with 95 % intervals from a bootstrap over groups of near-copies"
    )
    return (
        f"Percent on the test split. {spread}. Parameters were chosen on validation images, by F2 "
        "at a specificity of at least 0.5; test images were asked once. Validation and test are "
        "always real. As in the paper, the CNN has the metrics of tumours, the others the means of "
        "the two classes. In italics: methods without any network; the paper's conditions are its "
        "random split and its pre-processing."
    )


def leak(paper: Paper) -> str:
    """Whether the split can be trusted, in a sentence."""
    if paper.leak == 0:
        return (
            "**This split leaks nothing**: no test image has a near-copy in training or validation."
        )
    return (
        f"**This split leaks**: up to {paper.leak:.0%} of a class's test images have a near-copy "
        "in training or validation. It is drawn as the paper's, to compare with it; its numbers "
        "say little about new patients."
    )


def _table(paper: Paper) -> str:
    lines = [
        f"| model | trained on | {' | '.join(COLUMNS)} | AUROC | the paper | "
        "no network, the paper's conditions |",
        "| --- | --- |" + " ---: |" * (len(COLUMNS) + 1) + " --- | --- |",
    ]
    for line in paper.lines:
        model, source = line.row.model.title, line.row.source.title
        cells = [*_values(line, line.row.model.metrics), _numbers(line.row.paper)]
        lines.append(f"| {model} | {source} | {' | '.join(cells)} | {_behind(paper, line)} |")
    for scheme, floors in paper.floors.items():
        for name, measured in floors.items():
            cells = " | ".join([*_answered(measured, METRICS[scheme]), "-", "-"])
            lines.append(f"| *{name}* | *{TASKS[scheme]} test images* | {cells} |")
    return "\n".join(lines)


def _values(line: Line, metrics: tuple[str, ...]) -> list[str]:
    if not line.measured.answers:
        return [line.state, *["-"] * len(metrics)]
    return _answered(line.measured, metrics)


def _answered(measured: Measured, metrics: tuple[str, ...]) -> list[str]:
    accuracy, *others = (measured.percent(metric) for metric in metrics)
    interval = measured.interval("accuracy")
    accuracy = f"{accuracy} ({interval})" if interval else accuracy
    return [accuracy, *others, measured.share("auroc")]


def _numbers(numbers: Numbers | None) -> str:
    return "-" if numbers is None else " / ".join(f"{number:.2f}" for number in numbers)


def _behind(paper: Paper, line: Line) -> str:
    measured = paper.behind(line)
    return "-" if measured is None else f"{line.row.floor}: {floor_numbers(line, measured)}"


def floor_numbers(line: Line, measured: Measured) -> str:
    """A method without a network, in the order of the paper's numbers: `80.1 / 69.8 / ...`."""
    return " / ".join(f"{100 * measured.mean(metric):.1f}" for metric in line.row.model.metrics)


def explanations(paper: Paper) -> list[str]:
    """A few sentences for each of the paper's mistakes, with what needs no network beside it."""
    sentences = []
    for why, lines in paper.reasons.items():
        first = lines[0]
        sentences.append(
            f"{_rows_in_words(lines)}. {why} Under the paper's conditions `{first.row.floor}` has "
            f"{floor_numbers(first, paper.behind(first))}."
        )
    return sentences


def _rows_in_words(lines: list[Line]) -> str:
    """`**CVAE + GIAEM** trained on real, on VAE-made images`, model after model."""
    models: dict[str, list[str]] = {}
    for line in lines:
        models.setdefault(line.row.model.title, []).append(line.row.source.title)
    return "; ".join(
        f"**{model}** trained on {', on '.join(sources)} images"
        for model, sources in models.items()
    )


def as_table(paper: Paper) -> pd.DataFrame:
    """A row a line and floor: means, spreads, each seed's accuracy, and the paper's numbers."""
    rows = []
    for line in paper.lines:
        model = line.row.model
        row = {"model": model.title, "trained_on": line.row.source.title, "split": paper.protocol}
        row |= _measures(line.measured, model.metrics)
        if line.row.paper:
            row |= {f"paper_{name}": value for name, value in line.row.paper._asdict().items()}
        if measured := paper.behind(line):
            row["explained_by"] = line.row.floor
            row |= {
                f"explained_{column.lower()}": 100 * measured.mean(metric)
                for column, metric in zip(COLUMNS, model.metrics, strict=True)
            }
        rows.append({**row, "note": " ".join(line.notes)})
    known = {paper.protocol: paper.floors, "as the paper's": paper.paper_floors}
    for protocol, floors in known.items():
        for scheme, named in floors.items():
            for name, measured in named.items():
                row = {"model": name, "trained_on": "no network", "split": protocol}
                rows.append({**row, "scheme": scheme, **_measures(measured, METRICS[scheme])})
    return pd.DataFrame(rows)


def _measures(measured: Measured, metrics: tuple[str, ...]) -> dict[str, float]:
    """In percent, but the AUROC; named as the table's columns."""
    measures: dict[str, float] = {"seeds": len(measured.answers)}
    if not measured.answers:
        return measures
    for column, metric in zip(COLUMNS, metrics, strict=True):
        measures[column.lower()] = 100 * measured.mean(metric)
        if measured.is_repeated:
            measures[f"{column.lower()}_sd"] = 100 * measured.spread(metric)
    low, high = measured.answers[0].intervals["accuracy"]
    if not measured.is_repeated:
        measures |= {"accuracy_low": 100 * low, "accuracy_high": 100 * high}
    measures["auroc"] = measured.mean("auroc")
    if measured.is_repeated:
        measures["auroc_sd"] = measured.spread("auroc")
    return measures


def as_metrics(paper: Paper) -> dict[str, float]:
    """Each row's measures and floors, as a run logs them: shares of one."""
    methods = {line.key: (line.measured, line.row.model.metrics) for line in paper.lines}
    for scheme, floors in paper.floors.items():
        methods |= {
            f"{name}_{scheme}": (measured, METRICS[scheme]) for name, measured in floors.items()
        }
    return {
        f"{key}_{name.removeprefix('macro_')}": measured.mean(name)
        for key, (measured, metrics) in methods.items()
        if measured.answers
        for name in (*metrics, "auroc")
    }
