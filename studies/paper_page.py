"""The paper's Table 1 as one HTML page in the look of the reports; nothing is computed here."""

from html import escape
from itertools import groupby
from pathlib import Path

import plotly.graph_objects as go

from studies.look import ACCENT, BEST, GRID, MUTED, styled
from studies.paper_report import (
    METRICS,
    TASKS,
    TITLE,
    Line,
    Measured,
    Paper,
    about,
    as_markdown,
    as_table,
    explanations,
    floor_numbers,
    leak,
)
from studies.paper_rows import COLUMNS
from studies.report import PLOTLY, Section, as_page, examples, facts_table, markdown
from studies.summary import DISCLAIMER

PAPER_COLOR, FLOOR_COLOR = BEST, "#2f9e6e"


def write_files(paper: Paper, stem: Path) -> Path:
    """The table as `stem` with .md, .csv and .html; returns the last."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".md").write_text(as_markdown(paper), encoding="utf-8")
    as_table(paper).to_csv(stem.with_suffix(".csv"), index=False)
    page = stem.with_suffix(".html")
    page.write_text(write_page(paper), encoding="utf-8")
    return page


def write_page(paper: Paper) -> str:
    """The page as HTML that needs nothing beside it."""
    words = markdown("\n\n".join([leak(paper), about(paper)]))
    reasons = "".join(f"<li>{_inline(sentence)}</li>" for sentence in explanations(paper))
    notes = "".join(f"<li>{escape(note)}</li>" for note in paper.notes)
    sections = [
        Section("result", "Result", _tiles(paper) + words),
        Section("table", "Table 1", _table(paper)),
        Section("reasons", "What explains the paper's numbers", f"<ul>{reasons}</ul>"),
        Section("beside", "Ours, the paper's, and no network at all", _plot(paper)),
        Section("figures", "Figures 2 to 5", examples(paper.figures)),
        Section("missing", "Not answered", f"<ul>{notes}</ul>" if notes else ""),
        Section("facts", "Facts", facts_table(paper.facts) + _disclaimer()),
    ]
    return as_page(f"{TITLE}: {paper.name}", sections)


def _disclaimer() -> str:
    return f'<p class="note">{DISCLAIMER}</p>'


def _inline(text: str) -> str:
    """A sentence in Markdown without its paragraph."""
    return markdown(text).removeprefix("<p>").removesuffix("</p>\n")


def _tiles(paper: Paper) -> str:
    """What the table comes to, in four numbers."""
    by_key = {line.key: line.measured for line in paper.lines}
    nearest = paper.paper_floors["classifier"]["nearest_neighbor"]
    tiles = [
        (by_key.get("brain_cnn_real"), "accuracy", "CNN on real images, accuracy"),
        (by_key.get("brain_cnn_vae"), "accuracy", "CNN on VAE-made images, accuracy"),
        (by_key.get("giaem_real"), "macro_f1", "CVAE + GIAEM on real images, F1"),
        (nearest, "accuracy", "nearest pixels, no network, the paper's split, accuracy"),
    ]
    return f'<div class="tiles">{"".join(_tile(*tile) for tile in tiles)}</div>'


def _tile(measured: Measured | None, metric: str, title: str) -> str:
    if measured is None or not measured.answers:
        return f"<div><b>-</b><span>{title}</span></div>"
    below = f"&plusmn; {100 * measured.spread(metric):.1f}" if measured.is_repeated else ""
    below = below or measured.interval(metric)
    value = f"{100 * measured.mean(metric):.1f} %"
    return f"<div><b>{value}</b><span>{title}</span><small>{below}</small></div>"


def _table(paper: Paper) -> str:
    head = "".join(f"<th>{column}</th>" for column in (*COLUMNS, "AUROC"))
    rows = ""
    for model, group in groupby(paper.lines, key=lambda line: line.row.model):
        lines = list(group)
        for number, line in enumerate(lines):
            name = f'<td rowspan="{len(lines)}"><b>{model.title}</b></td>' if not number else ""
            rows += f"<tr>{name}{_row(paper, line)}</tr>"
    for scheme, floors in paper.floors.items():
        for number, (name, measured) in enumerate(floors.items()):
            title = f'<td rowspan="{len(floors)}">no network, {TASKS[scheme]} test images</td>'
            cells = f'<td class="left"><i>{escape(name)}</i></td>'
            cells += _answers(measured, METRICS[scheme])
            rows += (
                f'<tr class="floor">{title if not number else ""}{cells}'
                '<td class="paper"></td><td class="paper"></td></tr>'
            )
    return (
        f'{STYLE}<div class="scroll"><table class="methods one"><thead><tr><th>model</th>'
        f'<th class="left">trained on</th>{head}<th class="paper">the paper</th>'
        f'<th class="paper why">no network, its conditions</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        '<p class="note">The two columns on the right: accuracy / precision / recall / F1. '
        "Green: a method without any network under the paper's conditions, its random split and "
        "its pre-processing; it explains the paper's number.</p>"
    )


STYLE = f"""<style>
.one th, .one td {{ padding: 7px 9px; }}
.one th.left, .one td.left, .one .paper {{ text-align: left !important; }}
.one td.left {{ white-space: nowrap; }}
.one tr:has(> td[rowspan]) td {{ border-top: 2px solid #d3dae1; }}
.one td[rowspan] {{ text-align: left !important; max-width: 118px; }}
.one .paper {{ color: {PAPER_COLOR}; border-left: 1px solid {GRID}; }}
.one td.paper {{ font-size: 12.5px; white-space: nowrap; line-height: 1.45; }}
.one .why {{ color: {FLOOR_COLOR}; }}
.one .floor td {{ color: {MUTED}; }}
.one td.state {{ color: {MUTED}; font-style: italic; text-align: center !important; }}
#reasons li {{ max-width: 92ch; margin-bottom: 10px; }}
</style>"""


def _row(paper: Paper, line: Line) -> str:
    model = line.row.model
    cells = f'<td class="left">{line.row.source.title}</td>'
    if line.measured.answers:
        cells += _answers(line.measured, model.metrics)
    else:
        cells += f'<td class="state" colspan="{len(COLUMNS) + 1}">{escape(line.state)}</td>'
    measured = paper.behind(line)
    if line.row.paper is None or measured is None:
        return cells + '<td class="paper"></td><td class="paper"></td>'
    numbers = " / ".join(f"{number:.1f}" for number in line.row.paper)
    behind = f"{escape(line.row.floor)}<br>{floor_numbers(line, measured)}"
    return f'{cells}<td class="paper">{numbers}</td><td class="paper why">{behind}</td>'


def _answers(measured: Measured, metrics: tuple[str, ...]) -> str:
    cells = "".join(_cell(measured, metric, 100, 1) for metric in metrics)
    return cells + _cell(measured, "auroc", 1, 3)


def _cell(measured: Measured, metric: str, scale: int, digits: int) -> str:
    """A mean, and below it the spread or, of one seed, the interval."""
    low, high = (scale * bound for bound in measured.answers[0].intervals[metric])
    below = (
        f"&plusmn; {scale * measured.spread(metric):.{digits}f}"
        if measured.is_repeated
        else f"{low:.{digits}f} &ndash; {high:.{digits}f}"
    )
    return f"<td>{scale * measured.mean(metric):.{digits}f}<small>{below}</small></td>"


def _plot(paper: Paper) -> str:
    picture = f1_dots(paper).to_html(
        full_html=False, include_plotlyjs=False, div_id="f1-dots", config=PLOTLY
    )
    about = (
        "F1 of every row in percent: the CNN's of tumours, the others' mean of the two classes. "
        "Lines join the paper's number and the method without a network that explains it, both "
        f"under the paper's conditions; ours are on the {paper.protocol} split."
    )
    return (
        f'<div class="plots"><figure class="wide"><h3>F1</h3>{picture}'
        f"<figcaption>{about}</figcaption></figure></div>"
    )


def f1_dots(paper: Paper) -> go.Figure:
    """A line a row: our F1, the paper's, and that of the method that explains it."""
    names = [line.name for line in paper.lines]
    figure = go.Figure()
    explained = [line for line in paper.lines if paper.behind(line) and line.row.paper]
    for line in explained:
        ends = [line.row.paper.f1, _behind_f1(paper, line)]
        figure.add_scatter(
            x=ends,
            y=[line.name] * len(ends),
            mode="lines",
            line={"color": GRID, "width": 6},
            showlegend=False,
            hoverinfo="skip",
        )
    _add_dots(
        figure,
        "no network, the paper's conditions",
        {line.name: _behind_f1(paper, line) for line in explained},
        {"color": FLOOR_COLOR, "size": 13, "symbol": "line-ns-open", "line": {"width": 3}},
    )
    _add_dots(
        figure,
        "the paper",
        {line.name: line.row.paper.f1 for line in paper.lines if line.row.paper},
        {"color": PAPER_COLOR, "size": 11, "symbol": "diamond-open", "line": {"width": 2}},
    )
    answered = [line for line in paper.lines if line.measured.answers]
    _add_dots(
        figure,
        "ours",
        {line.name: _f1(line.measured, line) for line in answered},
        {"color": ACCENT, "size": 11},
        spreads=[
            100 * line.measured.spread(line.row.model.metrics[-1])
            if line.measured.is_repeated
            else 0
            for line in answered
        ],
    )
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], range=[-1, len(names)])
    figure.update_xaxes(range=[0, 101], ticksuffix=" %")
    return styled(figure, height=110 + 26 * len(names), margin={"l": 220})


def _add_dots(
    figure: go.Figure,
    title: str,
    values: dict[str, float],
    marker: dict,
    *,
    spreads: list[float] | None = None,
) -> None:
    figure.add_scatter(
        x=list(values.values()),
        y=list(values),
        name=title,
        mode="markers",
        marker=marker,
        error_x={"array": spreads, "thickness": 1.5} if spreads else None,
        hovertemplate=f"{title}, %{{y}}: %{{x:.1f}} %<extra></extra>",
    )


def _f1(measured: Measured, line: Line) -> float:
    return 100 * measured.mean(line.row.model.metrics[-1])


def _behind_f1(paper: Paper, line: Line) -> float:
    return _f1(paper.behind(line), line)
