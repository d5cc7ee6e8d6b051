"""A comparison as one HTML page with the looks of a study's report; nothing is computed here."""

from functools import partial
from html import escape

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from studies.compare.comparison_report import (
    ABOUT_DIFFERENCES,
    MANY,
    NOTHING_ASKED,
    Comparison,
    Tested,
    apart,
    best_words,
    cautions,
    chosen_words,
    claims,
    disagreement_line,
    misses,
    test_line,
    trial_words,
    verdicts,
)
from studies.compare.contestants import Contestant
from studies.compare.differences import DECIDING, Pair
from studies.compare.disagreements import Disagreements
from studies.compare.searches import (
    best_so_far,
    colors,
    distribution,
    objectives,
    parallel_coordinates,
    parameters,
    shown_parameters,
    width_of,
)
from studies.figures import NOT_USED
from studies.look import ACCENT, BEST, INFEASIBLE, MUTED, styled
from studies.progress import format_seconds
from studies.report import Plot, Section, as_page, data_uri, draw_plots, markdown
from studies.study import SHOWN
from studies.summary import DISCLAIMER
from training.floors import Scored
from training.paired import Difference

CLASSES = ("no tumour", "tumour")
ABOUT_TIME = (
    "Run times of the trials added up, those of parallel workers too. A network that was there "
    "already, trained by another study, costs a trial nothing: compare the slopes, and the starts "
    "with care."
)


def write_page(comparison: Comparison) -> str:
    """The whole page."""
    look = _Look(comparison)
    sections = [
        Section("result", "Result", look.result()),
        Section("winners", "Winners on test", look.winners()),
        Section("differences", "Differences", look.differences()),
        Section("search", "The searches", look.coordinates() + look.curves()),
        Section("images", "Where they disagree", look.disagreements()),
        Section("apart", "What sets them apart", look.apart()),
    ]
    return as_page(comparison.title, sections)


class _Look:
    """The parts of the page: every study has one short name and one colour in all of them."""

    def __init__(self, comparison: Comparison):
        self._comparison = comparison
        self._studies = comparison.contestants
        self._names = comparison.names
        palette = colors(len(self._studies))
        self._colors = dict(zip(self._names, palette, strict=True))

    def result(self) -> str:
        """What may be said, and a row a study."""
        comparison = self._comparison
        common = comparison.what_all_are
        about = f"<p>In common: {escape(common)}.</p>" if common else ""
        said = "".join(f"<li>{_inline(sentence)}</li>" for sentence in claims(comparison))
        limits = "".join(f"<li>{_inline(sentence)}</li>" for sentence in cautions(comparison))
        words = f"<ul>{said}</ul>" if said else ""
        words += f"<ul class='cautions'>{limits}</ul>" if limits else ""
        note = f"{NOTHING_ASKED} {DISCLAIMER}"
        return f"{about}{words}{self._study_rows()}<p class='note'>{note}</p>{self._link()}"

    def _link(self) -> str:
        if not self._comparison.link:
            return ""
        return (
            f'<p class="note"><a href="{escape(self._comparison.link)}">The winners in MLflow</a>, '
            "while its server runs (<code>make ui</code>).</p>"
        )

    def _study_rows(self) -> str:
        head = ("study", "trials", "best on validation", "run time", "looks at test")
        rows = "".join(self._study_row(contestant) for contestant in self._studies)
        return _table(head, rows, style="studies")

    def _study_row(self, one: Contestant) -> str:
        cells = [
            f"{self._chip(one.name)}<small>{escape(one.slug)}</small>",
            escape(trial_words(one)),
            f"{escape(one.metric)} {best_words(one)}<small>{escape(chosen_words(one))}</small>",
            format_seconds(one.seconds),
            str(one.looks),
        ]
        row = "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        note = escape(one.note())
        return row + (
            f'<tr class="remark"><td colspan="{len(cells)}">{note}</td></tr>' * bool(note)
        )

    def _chip(self, name: str) -> str:
        """A study's short name behind its colour."""
        chip = f'<i class="chip" style="background:{self._colors[name]}"></i>'
        short = escape(self._names[name])
        return f'<span title="{short}">{chip}{short}</span>'

    def winners(self) -> str:
        """Winners and floors, a table a set of test images."""
        return "".join(self._winners_of(tested) for tested in self._comparison.tested)

    def _winners_of(self, tested: Tested) -> str:
        tests = tested.tests
        missing = {one.name for one in tests.contestants if misses(one)}
        keeping = [one for one in tests.scored if one.name not in missing]
        highest = {
            name: max((round(one.metrics[name], 3) for one in keeping), default=None)
            for name in SHOWN
        }
        rows = "".join(
            f'<tr class="{"infeasible" * (one.name in missing)}"><td>{self._chip(one.name)}</td>'
            f"{_metric_cells(one, {} if one.name in missing else highest)}</tr>"
            for one in tests.scored
        )
        rows += "".join(
            f"<tr><td><em>{escape(floor.name)}</em></td>{_metric_cells(floor, {})}</tr>"
            for floor in tests.floors
        )
        floors = (
            " In italics the floors, which need no network: what does not beat them shows nothing."
            if tests.floors
            else " The floors were not kept with these studies."
        )
        about = (
            f"{test_line(tests)}. 95 % intervals from a bootstrap over groups; bold: the highest "
            "of the winners, whether or not the difference is shown. Grey: misses on test what it "
            f"had to keep on validation, and is not the highest in anything.{floors}"
        )
        return f'{_table(("winner", *SHOWN), rows)}<p class="note">{escape(about)}</p>'

    def differences(self) -> str:
        """Every pair on the same images: a picture of two metrics, and a table of all."""
        parts = [self._differences_of(tested) for tested in self._comparison.tested if tested.pairs]
        unpaired = "".join(f"<li>{_inline(text)}</li>" for text in self._comparison.unpaired)
        n_pairs = sum(len(tested.pairs) for tested in self._comparison.tested)
        said = "".join(f"<li>{_inline(text)}</li>" for text in verdicts(self._comparison))
        parts.append(f"<ul>{said * (n_pairs > MANY)}{unpaired}</ul>")
        return "".join(parts)

    def _differences_of(self, tested: Tested) -> str:
        names, pairs = self._names, tested.pairs
        anchor = f"differences-{len(tested.tests.files)}-{pairs[0].one.name}"
        plots = [
            Plot("half", title, "", partial(lead, pairs, names, metric))
            for metric, title in DECIDING.items()
        ]
        rows = "".join(self._pair_row(pair) for pair in pairs)
        head = ("first and second", *SHOWN, "right: only first, only second")
        about = f"First minus second. {ABOUT_DIFFERENCES} Coloured: clear differences."
        return (
            f'{draw_plots(escape(anchor), plots)}<p class="note">{about}</p>'
            f"{_table(head, rows, style='methods tight')}"
        )

    def _pair_row(self, pair: Pair) -> str:
        cells = "".join(_difference_cell(pair.differences[name]) for name in SHOWN)
        names = f"{self._chip(pair.one.name)}{self._chip(pair.other.name)}"
        counts = pair.agreement
        return (
            f'<tr><td class="pair">{names}</td>{cells}'
            f"<td>{counts.only_one}, {counts.only_other}</td></tr>"
        )

    def coordinates(self) -> str:
        """All trials as lines."""
        names = list(self._names.values())
        shown, searched = shown_parameters(self._studies), parameters(self._studies)
        left_out = ", ".join(
            sorted({each.name for each in searched} - {each.name for each in shown})
        )
        about = (
            "A line a trial, in its study's colour. Parameters of one name share an axis, those of "
            f"more studies first; at <b>{NOT_USED}</b>, below an axis, pass the trials that do not "
            "have it: their study does not search it, or they took another branch. Drag along an "
            "axis to light the trials that pass there, click on it to light all; drag a name to "
            "move its axis. At first the feasible trials are lit: others break a constraint, or "
            "never reached an objective, and cannot win. Where there are many axes, scroll to the "
            "right."
        )
        about += f" Without an axis: {escape(left_out)}." if left_out else ""
        plot = Plot(
            "wide",
            "All trials",
            f"{self._key()}{about}",
            partial(parallel_coordinates, self._studies, names),
        )
        drawn = draw_plots("coordinates", [plot])
        width = width_of(self._studies, names)
        return drawn.replace('class="wide"', f'class="wide scroll" style="--least:{width}px"', 1)

    def _key(self) -> str:
        """The colours of the studies."""
        return f'<span class="key">{"".join(self._chip(name) for name in self._names)}</span>'

    def curves(self) -> str:
        """Progress and distribution, apart for each objective."""
        by_metric = objectives(self._studies)
        several = (
            '<p class="note">The studies have different objectives, which cannot share a plot: '
            "one below the other.</p>"
            if len(by_metric) > 1
            else ""
        )
        return several + "".join(
            draw_plots(f"curves-{number}", self._curves_of(metric, studies))
            for number, (metric, studies) in enumerate(by_metric.items())
        )

    def _curves_of(self, metric: str, studies: list[Contestant]) -> list[Plot]:
        lines = {self._names[one.name]: (one, self._colors[one.name]) for one in studies}
        key = "".join(self._chip(one.name) for one in studies)
        key = f'<span class="key">{key}</span>'
        better = "Higher" if studies[0].is_maximized else "Lower"
        return [
            Plot(
                "half",
                f"Best {metric} so far, over trials",
                f"{key}{better} is better. Feasible trials alone; the dot is where a study stands.",
                partial(best_so_far, lines, "trials"),
            ),
            Plot(
                "half",
                f"Best {metric} so far, over seconds",
                f"{key}{ABOUT_TIME}",
                partial(best_so_far, lines, "seconds"),
            ),
            Plot(
                "wide",
                f"Distribution of {metric}",
                f"{key}The share of a study's feasible trials up to each value (EDF): the more of "
                f"a curve lies to the {'right' if studies[0].is_maximized else 'left'}, the more "
                "of its search space is good.",
                partial(distribution, lines),
            ),
        ]

    def disagreements(self) -> str:
        """The images that winners answer differently, a card each."""
        found = [t for t in self._comparison.tested if t.disagreements is not None]
        return "".join(self._cards(t.disagreements, len(t.tests.files)) for t in found)

    def _cards(self, found: Disagreements, n_images: int) -> str:
        words = disagreement_line(found, n_images)
        if found.shown.empty:
            return f"<p>{words}</p>"
        about = (
            f"{words} Here {len(found.shown)} of them, one of a group; of either class those first "
            "that split the winners most evenly, and on which two are surest of opposite answers. "
            "All are in the table beside this page."
        )
        cards = "".join(self._card(found, row) for _, row in found.shown.iterrows())
        missing = f'<p class="empty">{escape(found.missing)}</p>' if found.missing else ""
        return f'<p>{about}</p>{missing}<div class="cards">{cards}</div>'

    def _card(self, found: Disagreements, row) -> str:
        picture = _picture(found.images.get(row["file"]), row["file"])
        answers = "".join(self._answer(name, row) for name in found.names)
        truth = CLASSES[int(row["label"])]
        return (
            f"<figure>{picture}<b>truth: {truth}</b><small>{escape(row['file'])}</small>"
            f"<ul>{answers}</ul></figure>"
        )

    def _answer(self, name: str, row) -> str:
        is_right = row[name] == row["label"]
        mark = "\N{CHECK MARK}" if is_right else "\N{BALLOT X}"
        style = "right" if is_right else "wrong"
        return (
            f'<li>{self._chip(name)}<span class="{style}">{mark} {CLASSES[row[name]]}</span></li>'
        )

    def apart(self) -> str:
        """What the studies were begun with, as far as it differs."""
        rows = "".join(
            f"<tr><td><code>{escape(key)}</code></td>"
            + "".join(f"<td>{escape(value)}</td>" for value in values)
            + "</tr>"
            for key, values in apart(self._studies).items()
        )
        if not rows:
            return (
                "<p>Nothing but what they search: data, split, detector and objective are one.</p>"
            )
        head = "".join(f"<th>{self._chip(name)}</th>" for name in self._names)
        about = (
            "Settings that differ, beside what is searched; - where a study has no such setting."
        )
        return (
            f'<div class="scroll"><table><thead><tr><th>begun with</th>{head}</tr></thead>'
            f'<tbody>{rows}</tbody></table></div><p class="note">{about}</p>'
        )


def lead(pairs: list[Pair], names: dict[str, str], metric: str) -> go.Figure:
    """A line a pair: how far the first lies above the second, with its interval."""
    figure = go.Figure()
    for number, pair in enumerate(pairs):
        each = pair.differences[metric]
        color = ACCENT if each.is_better else BEST if each.is_worse else MUTED
        figure.add_scatter(
            x=[each.value],
            y=[number],
            mode="markers",
            marker={"color": color, "size": 11, "symbol": "diamond"},
            error_x={
                "array": [each.high - each.value],
                "arrayminus": [each.value - each.low],
                "color": color,
            },
            hovertemplate=f"{each.value:+.3f} ({each.low:+.3f} to {each.high:+.3f})<extra></extra>",
        )
    labels = [f"{names[pair.one.name]}<br>minus {names[pair.other.name]}" for pair in pairs]
    figure.add_vline(x=0, line={"color": INFEASIBLE, "dash": "dot"})
    figure.update_yaxes(
        tickvals=list(range(len(pairs))), ticktext=labels, range=[len(pairs) - 0.4, -0.6]
    )
    figure.update_xaxes(title="\N{LEFTWARDS ARROW} first is worse, better \N{RIGHTWARDS ARROW}")
    figure.update_layout(showlegend=False)
    return styled(figure, height=110 + 48 * len(pairs), margin={"l": 40, "t": 30})


def _inline(sentence: str) -> str:
    """A Markdown sentence without a paragraph about it."""
    return markdown(sentence).strip().removeprefix("<p>").removesuffix("</p>")


def _table(head: tuple[str, ...], rows: str, style: str = "methods") -> str:
    cells = "".join(f"<th>{name.replace('_', '_<wbr>')}</th>" for name in head)
    return (
        f'<div class="scroll"><table class="{style}"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _metric_cells(scored: Scored, highest: dict[str, float]) -> str:
    cells = ""
    for name in SHOWN:
        value = f"{scored.metrics[name]:.3f}"
        is_highest = round(scored.metrics[name], 3) == highest.get(name)
        low, high = scored.intervals[name]
        cells += (
            f"<td>{f'<b>{value}</b>' if is_highest else value}"
            f"<small>{low:.2f} &ndash; {high:.2f}</small></td>"
        )
    return cells


def _difference_cell(each: Difference) -> str:
    style = "better" if each.is_better else "worse" if each.is_worse else ""
    return (
        f'<td class="{style}">{each.value:+.3f}<small>{each.low:+.2f} to {each.high:+.2f}</small>'
        "</td>"
    )


def _picture(image: np.ndarray | None, name: str) -> str:
    if image is None:
        return ""
    return f'<img src="{data_uri(Image.fromarray(image))}" alt="{escape(name)}">'
