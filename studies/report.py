"""The report of a study: one HTML file that needs nothing beside it, not even the internet.

Owns the page, its sections and its looks. Figures come from `figures` and `result_figures`, words
from the caller; it opens no storage and scores nothing.
"""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

import optuna
import plotly.graph_objects as go
from markdown_it import MarkdownIt
from PIL import Image
from plotly.offline import get_plotlyjs

from studies import figures, result_figures
from studies.figures import NotPlottable
from studies.result_figures import Surface
from training.floors import Scored
from training.localization import MEASURES, Localization

TILES = ("f2", "recall", "specificity", "auroc")
COLUMNS = (
    "f2",
    "recall",
    "specificity",
    "auroc",
    "specificity_at_95_recall",
    "auprc",
    "accuracy",
    "macro_f1",
)
# No button that sends a chart to a server: what is known of the images stays here.
PLOTLY = {"displaylogo": False, "responsive": True, "showSendToCloud": False}


@dataclass(frozen=True)
class ReportInput:
    """All that a report shows."""

    title: str
    summary: str  # Markdown: what was searched, what came out, whether it beats the floors
    trials: optuna.Study
    params: list[str]  # the parameters to plot
    metric: str
    specificity_floor: float
    winner: Scored | None  # the best feasible trial on test
    floors: list[Scored]
    surface: Surface | None  # of GIAEM alone
    grids: dict[str, Image.Image]  # by caption
    facts: dict[str, str]
    localization: Localization | None = None  # of the winner on outlined test images


class Plot(NamedTuple):
    """A figure still to be drawn, `wide` over the whole page or `half` of it."""

    width: str
    title: str
    about: str
    draw: Callable[[], go.Figure]


class Section(NamedTuple):
    """A chapter of the page; left out where its body is empty."""

    anchor: str
    title: str
    body: str


def build_report(report: ReportInput) -> str:
    """The whole page as HTML."""
    sections = [
        Section("result", "Result", _result(report)),
        Section("methods", "Beside the floors", _methods(report)),
        Section("search", "The search", search_plots(report.trials, report.params, report.metric)),
        Section("surface", "The exact surface", draw_plots("surface", _surface_plots(report))),
        Section("test", "On the test split", draw_plots("test", _test_plots(report))),
        Section("where", "Where the tumour is", _where(report.localization)),
        Section("examples", "Examples", examples(report.grids)),
        Section("facts", "Facts", facts_table(report.facts)),
    ]
    return as_page(report.title, sections)


def as_page(title: str, sections: list[Section]) -> str:
    """A page of chapters with plotly inside; those without a body are left out."""
    sections = [section for section in sections if section.body]
    links = "".join(f'<a href="#{s.anchor}">{s.title}</a>' for s in sections)
    body = "".join(
        f'<section id="{s.anchor}"><h2>{s.title}</h2>{s.body}</section>' for s in sections
    )
    return fill_page(title, links=links, body=body, plotly=get_plotlyjs())


def fill_page(title: str, *, links: str, body: str, plotly: str = "") -> str:
    """The HTML that all pages share, filled; `title` is text, the rest HTML and script."""
    page = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    return page.substitute(title=escape(title), plotly=plotly, links=links, body=body)


def markdown(text: str) -> str:
    """Markdown as HTML, in which markup stays text."""
    return MarkdownIt("js-default").render(text)


def _result(report: ReportInput) -> str:
    words = markdown(report.summary)
    if report.winner is None:
        return words
    tiles = "".join(
        f"<div><b>{report.winner.metrics[name]:.3f}</b><span>test {name}</span>"
        f"<small>{_interval(report.winner, name)}</small></div>"
        for name in TILES
    )
    return f'<div class="tiles">{tiles}</div>{words}'


def _methods(report: ReportInput) -> str:
    """The winner and the floors on test, a row each."""
    winner = [report.winner] if report.winner is not None else []
    if not winner and not report.floors:
        return ""
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    rows = "".join(_method_row(scored, report) for scored in (*winner, *report.floors))
    note = (
        "Test split; 95 % intervals from a bootstrap over groups of near-copies. A floor needs "
        "no network: what does not beat it shows nothing. Grey: a specificity below "
        f"{report.specificity_floor:g}, which no trial may have and win."
    )
    return (
        f'<div class="scroll"><table class="methods"><thead><tr><th>method</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div><p class='note'>{note}</p>"
    )


def _method_row(scored: Scored, report: ReportInput) -> str:
    cells = "".join(
        f"<td>{scored.metrics[name]:.3f}<small>{_interval(scored, name)}</small></td>"
        for name in COLUMNS
    )
    is_infeasible = scored.metrics["specificity"] < report.specificity_floor
    style = "winner" if scored is report.winner else "infeasible" if is_infeasible else ""
    return f'<tr class="{style}"><td>{escape(scored.name)}</td>{cells}</tr>'


def _interval(scored: Scored, metric: str) -> str:
    """A metric's 95 % interval as HTML."""
    return _bounds(scored.intervals[metric])


def _bounds(interval: tuple[float, float] | None) -> str:
    """An interval as HTML; nothing where there is none."""
    return "" if interval is None else "{:.2f} &ndash; {:.2f}".format(*interval)


def search_plots(study: optuna.Study, params: list[str], metric: str) -> str:
    """The plots of a search."""
    plots = [
        Plot(
            "wide",
            "Parallel coordinates",
            "Drag along an axis to keep the trials that pass there; drag a name to move its axis. "
            f"Of more than {figures.MOST_AXES} parameters, those that most trials have. "
            + _left_out(study),
            partial(figures.parallel_coordinates, study, params, metric=metric),
        ),
        Plot(
            "wide",
            "History",
            "Infeasible trials break a constraint and are never the best.",
            partial(figures.history, study, metric=metric),
        ),
        Plot(
            "half",
            "Importances",
            "What sets the best tenth of the trials apart from the others.",
            partial(figures.importances, study, params),
        ),
        Plot(
            "half",
            "Distribution",
            "The share of completed trials up to each value (EDF): steep on the side of good "
            "values is a search space that forgives.",
            partial(figures.distribution, study, metric=metric),
        ),
        Plot(
            "wide",
            "Slices",
            "The objective over each parameter alone.",
            partial(figures.slices, study, params, metric=metric),
        ),
        Plot(
            "wide",
            "Contour",
            "The objective of the feasible trials (dots), each point the mean of the five nearest; "
            f"crosses are infeasible trials. Of more than {figures.MOST_CONTOURED} parameters, the "
            "most important.",
            partial(figures.contour, study, params, metric=metric),
        ),
        Plot(
            "wide",
            "Timeline",
            "When each trial ran and how it ended.",
            partial(figures.timeline, study),
        ),
    ]
    if any(trial.intermediate_values for trial in study.get_trials(deepcopy=False)):
        about = "What each trial reported to the pruner as its epochs ended."
        plots.insert(2, Plot("wide", "Epochs", about, partial(figures.epochs, study)))
    return draw_plots("search", plots)


def _left_out(study: optuna.Study) -> str:
    """How many trials the parallel coordinates do not show."""
    table = figures.trial_table(study, [])
    infeasible = (~table.feasible.astype(bool)).sum()
    others = len(study.get_trials(deepcopy=False)) - len(table)
    return f"Left out: {infeasible} infeasible trials and {others} that were not completed."


def _surface_plots(report: ReportInput) -> list[Plot]:
    if report.surface is None:
        return []
    return [
        Plot(
            "wide",
            "F2 of every pair of parameters on validation",
            "Computed for every pair, not searched. White: the specificity is below "
            f"{report.specificity_floor:g}.",
            partial(
                result_figures.giaem_surface,
                report.surface,
                specificity_floor=report.specificity_floor,
            ),
        )
    ]


def _test_plots(report: ReportInput) -> list[Plot]:
    winner, floors = report.winner, report.floors
    if winner is None:
        return []
    return [
        Plot(
            "half",
            "ROC",
            "The dot is the decision of the best trial.",
            partial(result_figures.roc, winner, floors),
        ),
        Plot(
            "half",
            "Precision and recall",
            "The dot is the decision of the best trial.",
            partial(result_figures.precision_recall, winner, floors),
        ),
        Plot(
            "half",
            "Confusion",
            "Images, and the share of their true class.",
            partial(result_figures.confusion, winner),
        ),
        Plot(
            "half",
            "Scores",
            "How the two classes' scores are spread; from the line on it is called a tumour.",
            partial(result_figures.scores, winner),
        ),
    ]


def _where(localization: Localization | None) -> str:
    """How well the places agree with the published outlines, a row a measure."""
    if localization is None:
        return ""
    rows = "".join(
        f"<tr><td>{name}<small>{MEASURES[name]}</small></td>"
        f"<td>{value:.3f}<small>{_bounds(localization.intervals.get(name))}</small></td>"
        f"<td>{localization.chance[name]:.3f}</td></tr>"
        for name, value in localization.metrics.items()
    )
    note = (
        f"{localization.n_images} outlined tumour images of the test split, in "
        f"{localization.n_groups} groups of near-copies; 95 % intervals from a bootstrap over "
        "groups. Chance: a constant error map, and a mask of the whole frame."
    )
    return (
        '<div class="scroll"><table class="methods"><thead><tr><th>measure</th><th>value</th>'
        f"<th>chance</th></tr></thead><tbody>{rows}</tbody></table></div>"
        f"<p class='note'>{note}</p>"
    )


def draw_plots(anchor: str, plots: list[Plot]) -> str:
    """Figures side by side, and a sentence in place of each that cannot be drawn."""
    drawn = []
    for number, plot in enumerate(plots):
        try:
            picture = plot.draw().to_html(
                full_html=False,
                include_plotlyjs=False,
                div_id=f"{anchor}-plot-{number}",
                config=PLOTLY,
            )
        except NotPlottable as reason:
            picture = f'<p class="empty">{escape(str(reason))}</p>'
        drawn.append(
            f'<figure class="{plot.width}"><h3>{plot.title}</h3>{picture}'
            f"<figcaption>{plot.about}</figcaption></figure>"
        )
    return f'<div class="plots">{"".join(drawn)}</div>' if drawn else ""


def examples(grids: dict[str, Image.Image]) -> str:
    """Pictures below their captions."""
    return "".join(
        f'<figure class="grid"><h3>{escape(caption)}</h3>'
        f'<img src="{data_uri(grid)}" alt="{escape(caption)}"></figure>'
        for caption, grid in grids.items()
    )


def data_uri(image: Image.Image) -> str:
    """A picture as an address that holds it."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88, method=2)  # 4, the default, takes twice as long
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def facts_table(facts: dict[str, str]) -> str:
    """A row a fact."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f'<table class="facts">{rows}</table>' if rows else ""
