"""The searches of several studies in one picture each: coordinates, progress, distribution.

Each takes the studies and gives a plotly figure, or says why there is none. Only feasible trials
count as progress: what breaks a constraint can win nothing. Knows nothing of the test split.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    json_to_distribution,
)
from plotly.colors import sample_colorscale

from studies.compare.contestants import OUTCOMES, Contestant, outcome
from studies.figures import MOST_LEVEL, NotPlottable, axis_of, dimension
from studies.look import ACCENT, BEST, GRID, INK, MUTED, styled

NO_VALUE = "none"  # of an objective
MOST_AXES = 14  # parameters; the page scrolls beyond what fits its width
AXIS_WIDTH, RIGHT = 92, 60  # px: between two axes, and behind the last
LONGEST_TICK = 13  # letters
PALETTE = (
    *(ACCENT, BEST, "#2f9e6e", "#9c5fb5", "#e8a33d"),
    *("#0b8e9c", "#c2255c", "#795548", "#748ffc", "#66727f"),
)


def colors(n: int) -> list[str]:
    """A colour a study."""
    if n <= len(PALETTE):
        return list(PALETTE[:n])
    return sample_colorscale("Turbo", np.linspace(0.03, 0.97, n))


def objectives(contestants: Iterable[Contestant]) -> dict[str, list[Contestant]]:
    """The studies by what they rank trials by: only those of one objective share a plot of it."""
    by_metric: dict[str, list[Contestant]] = {}
    for contestant in contestants:
        by_metric.setdefault(contestant.metric, []).append(contestant)
    return by_metric


def trial_rows(contestants: list[Contestant]) -> pd.DataFrame:
    """Every trial that has ended: study (a position), outcome, its objective's value in a column of
    the objective's name, and a column a parameter; NaN or None where a trial has none.
    """
    rows = [
        {
            "study": position,
            "outcome": outcome(trial),
            f"value {contestant.metric}": trial.value if "feasible" in outcome(trial) else None,
            **{f"param {name}": value for name, value in trial.params.items()},
        }
        for position, contestant in enumerate(contestants)
        for trial in contestant.ended
    ]
    return pd.DataFrame(rows)


class Searched(NamedTuple):
    """A parameter, and its range in the studies that search it."""

    name: str
    distribution: BaseDistribution
    studies: list[int]  # positions


def parameters(contestants: list[Contestant]) -> list[Searched]:
    """The parameters, those of most studies first, then each study's own in the order of its space.

    Studies that search one name share its axis, but not where one draws numbers under it and
    another chooses among names.
    """
    found: dict[tuple[str, bool], Searched] = {}
    for position, contestant in enumerate(contestants):
        for name, told in contestant.specification["space"].items():
            distribution = json_to_distribution(json.dumps(told))
            key = name, isinstance(distribution, CategoricalDistribution)
            known = found.get(key, Searched(name, distribution, []))
            found[key] = Searched(
                name, _widest(known.distribution, distribution), [*known.studies, position]
            )
    return sorted(found.values(), key=lambda searched: -len(searched.studies))


def _widest(one: BaseDistribution, other: BaseDistribution) -> BaseDistribution:
    """Both ranges in one; in logs only where both are."""
    if isinstance(one, CategoricalDistribution):
        return CategoricalDistribution(list(dict.fromkeys([*one.choices, *other.choices])))
    low, high = min(one.low, other.low), max(one.high, other.high)
    return FloatDistribution(low, high, log=one.log and other.log)


def shown_parameters(contestants: list[Contestant]) -> list[Searched]:
    """Those that have an axis: where there are too many, the ones that most trials have."""
    rows, searched = trial_rows(contestants), parameters(contestants)
    counts = [_values(rows, each).notna().sum() for each in searched]
    order = sorted(range(len(searched)), key=lambda i: -counts[i])
    taken = {i for i in order[:MOST_AXES] if counts[i]}
    return [searched[i] for i in sorted(taken)]


def parallel_coordinates(contestants: list[Contestant], names: list[str]) -> go.Figure:
    """Every trial as a line in its study's colour, from its study through how it ended and its
    objective to the parameters; to be brushed. Only feasible trials are lit at first.
    """
    rows = trial_rows(contestants)
    if rows.empty:
        raise NotPlottable("No trial has ended.")
    rows = _best_on_top(rows, contestants)
    n = len(contestants)
    axes = [
        _study_axis(rows, names),
        _outcome_axis(rows),
        *(_objective_axis(rows, metric) for metric in objectives(contestants)),
        *(_parameter_axis(rows, each) for each in shown_parameters(contestants)),
    ]
    lines = go.Parcoords(
        dimensions=axes,
        line={
            "color": rows.study,
            "colorscale": _steps(colors(n)),
            "cmin": -0.5,
            "cmax": n - 0.5,
        },
        labelfont={"size": 12, "color": INK},
        labelangle=-25 if len(axes) > MOST_LEVEL else 0,
        tickfont={"size": 12, "color": INK},
        rangefont={"size": 11, "color": MUTED},
        unselected={"line": {"color": GRID, "opacity": 0.25}},
    )
    margin = {"l": _left(names), "r": RIGHT, "t": 100, "b": 24}
    return styled(go.Figure(lines), height=460, margin=margin)


def width_of(contestants: list[Contestant], names: list[str]) -> int:
    """How many pixels the coordinates need to be read."""
    n_axes = 2 + len(shown_parameters(contestants)) + len(objectives(contestants))
    return _left(names) + AXIS_WIDTH * (n_axes - 1) + RIGHT


def _left(names: list[str]) -> int:
    """Room for the studies' names."""
    return 24 + 7 * max(map(len, names))


def _best_on_top(rows: pd.DataFrame, contestants: list[Contestant]) -> pd.DataFrame:
    """Lines are drawn in this order: those of better trials over the others, study by no study."""
    rank = pd.Series(0.0, index=rows.index)
    for metric, studies in objectives(contestants).items():
        values = rows[f"value {metric}"]
        rank += values.rank(pct=True, ascending=studies[0].is_maximized).fillna(0)
    return rows.loc[rank.sort_values(kind="stable").index]


def _values(rows: pd.DataFrame, searched: Searched) -> pd.Series:
    """A parameter's values, None for the trials of studies that do not search it."""
    column = f"param {searched.name}"
    if column not in rows:  # no trial has ended that has it
        return pd.Series(None, index=rows.index, dtype=object)
    return rows[column].astype(object).where(rows.study.isin(searched.studies), None)


def _parameter_axis(rows: pd.DataFrame, searched: Searched) -> dict:
    axis = dimension(axis_of(searched.distribution, searched.name, _values(rows, searched)))
    if "ticktext" not in axis:
        return axis
    return axis | {"ticktext": [_cut(text) for text in axis["ticktext"]]}


def _cut(text: str) -> str:
    """A name that ends before the axis on its left."""
    return (
        text if len(text) <= LONGEST_TICK else f"{text[: LONGEST_TICK - 1]}\N{HORIZONTAL ELLIPSIS}"
    )


def _study_axis(rows: pd.DataFrame, names: list[str]) -> dict:
    """The first study on top."""
    n = len(names)
    return {
        "label": "study",
        "values": n - 1 - rows.study,
        "range": [-0.15, n - 0.85],
        "tickvals": list(range(n)),
        "ticktext": names[::-1],
    }


def _outcome_axis(rows: pd.DataFrame) -> dict:
    """Feasible on top, and brushed where others are there."""
    there = [name for name in reversed(OUTCOMES) if (rows.outcome == name).any()]
    top = len(there) - 1
    axis = {
        "label": "ended",
        "values": rows.outcome.map(there.index),
        "range": [-0.15, top + 0.15],
        "tickvals": list(range(len(there))),
        "ticktext": there,
    }
    lit = there[-1] == "feasible" and top > 0
    return axis | ({"constraintrange": [top - 0.1, top + 0.1]} if lit else {})


def _objective_axis(rows: pd.DataFrame, metric: str) -> dict:
    values = rows[f"value {metric}"]
    if values.isna().all():
        nowhere = {"values": np.zeros(len(rows)), "tickvals": [0], "ticktext": [NO_VALUE]}
        return {"label": metric, **nowhere}
    return dimension(axis_of(FloatDistribution(0, 1), metric, values), NO_VALUE)


def _steps(palette: list[str]) -> list[list]:
    """A colour scale that jumps from one study's colour to the next one's."""
    n = len(palette)
    return [[edge / n, color] for i, color in enumerate(palette) for edge in (i, i + 1)]


def progress(contestant: Contestant) -> pd.DataFrame:
    """The best feasible value once each trial has ended: trials, seconds, best.

    Trials count in the order in which they ended, and their run times are added up, those of
    parallel workers too.
    """
    ended = contestant.ended
    values = pd.Series(
        [t.value if outcome(t) == "feasible" else np.nan for t in ended], dtype=float
    )
    best = values.cummax() if contestant.is_maximized else values.cummin()
    seconds = np.cumsum([trial.duration.total_seconds() for trial in ended])
    trials = np.arange(1, len(ended) + 1)
    return pd.DataFrame({"trials": trials, "seconds": seconds, "best": best.ffill()})


def best_so_far(lines: dict[str, tuple[Contestant, str]], over: str) -> go.Figure:
    """The best feasible value of each study (by its name, with its colour) over `over`: "trials"
    or "seconds".
    """
    figure = go.Figure()
    for name, (contestant, color) in lines.items():
        table = progress(contestant).dropna()
        if table.empty:
            continue
        figure.add_scatter(
            x=table[over],
            y=table["best"],
            name=name,
            mode="lines+markers",
            line={"shape": "hv", "color": color, "width": 2.2},
            marker={"size": [0] * (len(table) - 1) + [8]},  # where the study stands
            hovertemplate=f"{name}<br>%{{x:.4g}} {over}: %{{y:.4f}}<extra></extra>",
        )
    if not figure.data:
        raise NotPlottable("No trial of these studies keeps the constraints.")
    (metric,) = {contestant.metric for contestant, _ in lines.values()}
    figure.update_xaxes(
        title="trials that have ended" if over == "trials" else "seconds of run time"
    )
    figure.update_yaxes(title=f"best {metric} so far")
    return styled(figure, height=390, margin={"t": 30}).update_layout(showlegend=False)


def distribution(lines: dict[str, tuple[Contestant, str]]) -> go.Figure:
    """The share of each study's feasible trials with at most each value of the objective (EDF)."""
    figure = go.Figure()
    for name, (contestant, color) in lines.items():
        values = sorted(t.value for t in contestant.ended if outcome(t) == "feasible")
        if not values:
            continue
        figure.add_scatter(
            x=values,
            y=np.arange(1, len(values) + 1) / len(values),
            name=name,
            mode="lines",
            line={"shape": "hv", "color": color, "width": 2.2},
            hovertemplate=f"{name}<br>%{{y:.0%}} of its trials up to %{{x:.4f}}<extra></extra>",
        )
    if not figure.data:
        raise NotPlottable("No trial of these studies keeps the constraints.")
    (metric,) = {contestant.metric for contestant, _ in lines.values()}
    figure.update_xaxes(title=metric)
    figure.update_yaxes(title="share of feasible trials", range=[0, 1.03])
    return styled(figure, height=390, margin={"t": 30}).update_layout(showlegend=False)
