"""Evidence as one HTML page with the looks of a study's report; nothing is computed here."""

from html import escape

import plotly.graph_objects as go
from markdown_it import MarkdownIt

from studies.evidence_report import (
    ABOUT_INTERVALS,
    COLUMNS,
    CONFOUND,
    CONTROL,
    FLOOR,
    METHOD,
    OPERATING,
    REFERENCE,
    Evidence,
    claims,
    f1_words,
    operating_words,
    places_table,
    splits_table,
)
from studies.look import ACCENT, INFEASIBLE, MUTED, styled
from studies.report import PLOTLY, Section, as_page
from training.over_splits import Repeated

COLORS = {
    METHOD: ACCENT,
    OPERATING: ACCENT,
    FLOOR: MUTED,
    CONFOUND: "#e8a33d",
    REFERENCE: "#2f9e6e",
    CONTROL: "#9c5fb5",
}
PLOTS = {
    "auroc": "AUROC",
    "macro_f1": "Mean of the two classes' F1",
    "specificity_at_95_recall": "Specificity at 95 % recall",
}


def dots(evidence: Evidence, metric: str) -> go.Figure:
    """A line a method: a dot a split, and the mean with its interval."""
    rows = [row for row in evidence.rows if row.kind != OPERATING]
    figure = go.Figure()
    for row in rows:
        color, repeated = COLORS[row.kind], row.repeated
        low, high = repeated.interval(metric)
        mean, values = repeated.mean(metric), repeated.values(metric)
        figure.add_scatter(
            x=values,
            y=[row.name] * len(values),
            mode="markers",
            marker={"color": color, "size": 8, "opacity": 0.45},
            customdata=[split.seed for split in evidence.splits],
            hovertemplate="seed %{customdata}: %{x:.3f}<extra></extra>",
        )
        figure.add_scatter(
            x=[mean],
            y=[row.name],
            mode="markers",
            marker={"color": color, "size": 13, "symbol": "diamond"},
            error_x={"array": [high - mean], "arrayminus": [mean - low], "color": color},
            hovertemplate=f"{mean:.3f} ({low:.3f} to {high:.3f})<extra></extra>",
        )
    if metric == "auroc":
        figure.add_vline(x=0.5, line={"color": INFEASIBLE, "dash": "dot"})
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(showlegend=False)
    return styled(figure, height=120 + 38 * len(rows), margin={"l": 160})


def write_page(evidence: Evidence) -> str:
    """The HTML page, with the looks of a study's report."""
    words = MarkdownIt("js-default").enable("table")
    claimed = "".join(words.render(sentence) for sentence in claims(evidence))
    below = [operating_words(evidence), f1_words(evidence), places_table(evidence)]
    chapters = {
        "Result": f'<div class="tiles">{_tiles(evidence)}</div>{claimed}',
        "Beside the others": _html_table(evidence) + f"<p class='note'>{ABOUT_INTERVALS}</p>",
        "Every split": _plots(evidence) + words.render(splits_table(evidence)),
        "Details": "".join(words.render(text) for text in below if text),
        "Facts": _facts(evidence),
    }
    sections = [Section(_anchor(title), title, body) for title, body in chapters.items()]
    return as_page(f"Evidence: {evidence.name}", sections)


def _tiles(evidence: Evidence) -> str:
    shown = ("auroc", "macro_f1", "specificity_at_95_recall", "recall")
    return "".join(
        f"<div><b>{evidence.method.mean(name):.3f}</b><span>mean test {name}</span>"
        f"<small>{_interval(evidence.method, name)}</small></div>"
        for name in shown
    )


def _html_table(evidence: Evidence) -> str:
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    body = ""
    for row in evidence.rows:
        cells = "".join(
            f"<td>{row.repeated.mean(name):.3f}<small>{_interval(row.repeated, name)}</small>"
            f"<small>{_spread(row.repeated, name)}</small></td>"
            for name in COLUMNS
        )
        style = "winner" if row.kind == METHOD else ""
        kind = "" if row.kind == METHOD else f"<small>{row.kind}</small>"
        body += f'<tr class="{style}"><td>{escape(row.name)}{kind}</td>{cells}</tr>'
    return (
        f'<div class="scroll"><table class="methods"><thead><tr><th>method</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _interval(repeated: Repeated, metric: str) -> str:
    low, high = repeated.interval(metric)
    return f"{low:.2f} &ndash; {high:.2f}"


def _spread(repeated: Repeated, metric: str) -> str:
    return f"&plusmn; {repeated.spread(metric):.3f}" if len(repeated.answers) > 1 else ""


def _plots(evidence: Evidence) -> str:
    drawn = []
    for number, (metric, title) in enumerate(PLOTS.items()):
        picture = dots(evidence, metric).to_html(
            full_html=False, include_plotlyjs=False, div_id=f"dots-{number}", config=PLOTLY
        )
        width = "half" if number else "wide"
        about = "A dot a split; the diamond is their mean with its 95 % interval."
        drawn.append(
            f'<figure class="{width}"><h3>{title}</h3>{picture}'
            f"<figcaption>{about}</figcaption></figure>"
        )
    return f'<div class="plots">{"".join(drawn)}</div>'


def _facts(evidence: Evidence) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in evidence.facts.items()
    )
    return f'<table class="facts">{rows}</table>'


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
