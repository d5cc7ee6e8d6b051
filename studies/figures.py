"""The plots of a search: each takes a study and gives a plotly figure, or says why there is none.

Optuna gives the importances and the timeline. Parallel coordinates, slices and contour are drawn
here: Optuna's have a trace a trial and nothing to brush, one row for all parameters, and a matrix
of all trials by all trials. Trials may lack parameters: those of a branch they did not take.
Knows nothing of the test split, nor of the page.
"""

import warnings
from itertools import combinations
from typing import NamedTuple

import numpy as np
import optuna
import pandas as pd
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from plotly.subplots import make_subplots
from sklearn.neighbors import KNeighborsRegressor

from studies.look import ACCENT, BEST, GRID, INFEASIBLE, INK, MUTED, SCALE, styled

STATE_COLORS = {
    "COMPLETE": ACCENT,
    "INFEASIBLE": INFEASIBLE,
    "PRUNED": "#e8a33d",
    "FAIL": "#c92a2a",
    "RUNNING": "#2f9e6e",
    "WAITING": GRID,
}
CONTOUR_CELLS = 60
NEIGHBORS = 5  # feasible trials that a cell of a contour averages
MOST_CONTOURED = 4  # parameters; more panels are unreadable
MOST_AXES = 10  # of parallel coordinates; more are unreadable
MOST_BARS = 12  # of importances
MOST_LEVEL = 7  # names side by side over parallel coordinates; more of them overlap
NOT_USED = "not used"  # by a trial of another branch


class NotPlottable(ValueError):
    """There is no such plot of this study; the message says why, as a sentence for the reader."""


class Axis(NamedTuple):
    """A parameter as positions on a line: log10 where it is searched in logs, codes of choices."""

    name: str
    positions: np.ndarray  # (n,), NaN for a trial that lacks the parameter
    range: list[float]  # has a width even where all positions are the same
    ticks: dict[str, list]  # plotly's tickvals and ticktext; empty where its own will do


def trial_table(study: optuna.Study, params: list[str]) -> pd.DataFrame:
    """The complete trials: number, value, feasible, and a column each of `params`, NaN or None
    for a trial that lacks one.
    """
    trials = [
        {"number": trial.number, "value": trial.value, "feasible": is_feasible(trial)}
        | {name: trial.params.get(name) for name in params}
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ]
    return pd.DataFrame(trials, columns=["number", "value", "feasible", *params])


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a complete trial keeps every constraint."""
    return all(violation <= 0 for violation in trial.constraints.values())


def axis(study: optuna.Study, name: str, values: pd.Series) -> Axis:
    """Where a parameter's values lie on an axis; at least one trial must have it."""
    distribution = next(
        trial.distributions[name]
        for trial in study.get_trials(deepcopy=False)
        if name in trial.distributions
    )
    return axis_of(distribution, name, values)


def axis_of(distribution: BaseDistribution, name: str, values: pd.Series) -> Axis:
    """Where values of this distribution lie on an axis; at least one must be there."""
    if isinstance(distribution, CategoricalDistribution):
        names = [str(choice) for choice in distribution.choices]
        codes = np.full(len(values), np.nan)
        there = values.notna().to_numpy()
        codes[there] = [names.index(str(value)) for value in values[there]]
        ticks = {"tickvals": list(range(len(names))), "ticktext": names}
        return Axis(name, codes, [-0.1, len(names) - 0.9], ticks)
    positions = values.to_numpy(dtype=float)
    if not distribution.log:
        return Axis(name, positions, _wide_range(positions), {})
    positions = np.log10(positions)
    tickvals = np.linspace(*_wide_range(positions), 4).tolist()
    ticktext = [f"{10**x:.2g}" if x < 1 else f"{10**x:.0f}" for x in tickvals]
    ticks = {"tickvals": tickvals, "ticktext": ticktext}
    return Axis(name, positions, _wide_range(positions), ticks)


def parallel_coordinates(study: optuna.Study, params: list[str], *, metric: str) -> go.Figure:
    """The feasible trials as lines through their parameters to the objective, to be brushed."""
    table = _complete(study, params)
    table = table[table.feasible].sort_values("value", ascending=_is_maximized(study))
    if table.empty:
        raise NotPlottable("No completed trial keeps the constraints.")
    names = _most_used(table, params)
    dimensions = [dimension(axis(study, name, table[name])) for name in names]
    crowded = len(dimensions) > MOST_LEVEL
    lines = go.Parcoords(
        dimensions=[*dimensions, {"label": metric, "values": table.value}],
        line={"color": table.value, "colorscale": _good_is_dark(study), "showscale": True},
        labelfont={"size": 12 if crowded else 14, "color": INK},
        labelangle=-25 if crowded else 0,
        tickfont={"size": 12, "color": INK},
        rangefont={"size": 11, "color": MUTED},
        unselected={"line": {"color": GRID, "opacity": 0.25}},
    )
    lines.line.colorbar = {"title": metric, "thickness": 12}
    margin = {"l": 150 if crowded else 70, "r": 40, "t": 100 if crowded else 60, "b": 30}
    return styled(go.Figure(lines), height=430, margin=margin)


def _most_used(table: pd.DataFrame, params: list[str]) -> list[str]:
    """The parameters that most of the trials have, as many as fit side by side, in their order."""
    counts = table[_used(table, params)].notna().sum().sort_values(ascending=False, kind="stable")
    return [name for name in params if name in counts.index[:MOST_AXES]]


def dimension(where: Axis, absent: str = NOT_USED) -> dict:
    """An axis of parallel coordinates; trials that lack the parameter pass below, at `absent`."""
    missing = np.isnan(where.positions)
    if not missing.any():
        values = {"values": where.positions, "range": where.range}
        return {"label": where.name, **values, **where.ticks}
    low, high = where.range
    below = low - 0.2 * (high - low)
    tickvals = where.ticks.get("tickvals") or np.linspace(low, high, 4).tolist()
    ticktext = where.ticks.get("ticktext") or [f"{value:.3g}" for value in tickvals]
    return {
        "label": where.name,
        "values": np.where(missing, below, where.positions),
        "range": [below, high],
        "tickvals": [below, *tickvals],
        "ticktext": [absent, *ticktext],
    }


def history(study: optuna.Study, *, metric: str) -> go.Figure:
    """The objective of each trial in turn, and the best feasible one so far."""
    table = _complete(study, [])
    feasible = table[table.feasible]
    best = feasible.value.cummax() if _is_maximized(study) else feasible.value.cummin()
    figure = go.Figure(
        [
            *_trial_markers(table.number, table.value, table),
            go.Scatter(
                x=feasible.number,
                y=best,
                name="best so far",
                mode="lines",
                line={"shape": "hv", "color": BEST, "width": 2},
            ),
        ]
    )
    figure.update_xaxes(title="trial")
    figure.update_yaxes(title=metric)
    return styled(figure, height=380)


def importances(study: optuna.Study, params: list[str]) -> go.Figure:
    """How much each parameter matters for being among the best tenth of the trials."""
    shares = importance_shares(study, params)
    names = sorted(shares, key=shares.get)[-MOST_BARS:]
    bars = go.Bar(
        x=[shares[name] for name in names],
        y=names,
        orientation="h",
        marker={"color": ACCENT},
        text=[f"{shares[name]:.2f}" for name in names],
        textposition="outside",
        cliponaxis=False,
    )
    figure = go.Figure(bars)
    figure.update_xaxes(title="share of importance (PED-ANOVA)", range=[0, 1])
    return styled(figure, height=max(340, 130 + 38 * len(names)))


def importance_shares(study: optuna.Study, params: list[str]) -> dict[str, float]:
    """Each parameter's share of the importance, by Optuna's default evaluator.

    It knows parameters that only some trials have; those that none has are left out.
    """
    table = _complete(study, params)
    if len(table) < 4 or table.value.nunique() < 2:
        raise NotPlottable("Importances need at least four completed trials that differ in value.")
    with warnings.catch_warnings():
        # A branch of a single trial is left out of the sum: one line of it on the terminal for
        # each of its parameters tells nobody anything.
        warnings.filterwarnings("ignore", message="Some regimes for parameter")
        return optuna.importance.get_param_importances(study, params=_used(table, params))


def slices(study: optuna.Study, params: list[str], *, metric: str) -> go.Figure:
    """The objective over each parameter alone, of the trials that have it; three panels a row."""
    table = _complete(study, params)
    params = _used(table, params)
    columns = min(3, len(params))
    rows = -(-len(params) // columns)
    figure = make_subplots(
        rows,
        columns,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.45 / rows if rows > 1 else None,  # room for long names of choices
    )
    for position, name in enumerate(params):
        place = {"row": position // columns + 1, "col": position % columns + 1}
        having = table[table[name].notna()]
        where = axis(study, name, having[name])
        for markers in _trial_markers(where.positions, having.value, having):
            figure.add_trace(markers, **place)
        figure.update_xaxes(title=name, **where.ticks, **place)
    figure.update_yaxes(title=metric, col=1)
    return styled(_named_once(figure), height=80 + 300 * rows)


def contour(study: optuna.Study, params: list[str], *, metric: str) -> go.Figure:
    """The objective over pairs of parameters, smoothed over the nearest feasible trials."""
    table = _complete(study, params)
    axes = [axis(study, name, table[name]) for name in _contoured(study, table, params)]
    if len(axes) < 2:
        raise NotPlottable("A contour needs five feasible trials and two parameters that vary.")
    n = len(axes) - 1  # panels a side, below the diagonal
    figure = make_subplots(
        n, n, shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.03, vertical_spacing=0.03
    )
    for row in range(n):
        for column in range(row + 1):
            place = {"row": row + 1, "col": column + 1}
            x, y = axes[column], axes[row + 1]
            for trace in _panel(x, y, table, marker={"color": INK, "size": 6 if n == 1 else 4}):
                figure.add_trace(trace, **place)
            figure.update_xaxes(title=x.name if row == n - 1 else None, **x.ticks, **place)
            figure.update_yaxes(title=y.name if column == 0 else None, **y.ticks, **place)
    colorbar = {"title": metric, "thickness": 12}
    figure.update_layout(coloraxis={"colorscale": _good_is_dark(study), "colorbar": colorbar})
    return styled(_named_once(figure), height=140 + 300 * n)


def distribution(study: optuna.Study, *, metric: str) -> go.Figure:
    """The share of completed trials with at most each objective value (EDF)."""
    values = _complete(study, []).value.sort_values()
    shares = np.arange(1, len(values) + 1) / len(values)
    line = {"shape": "hv", "color": ACCENT, "width": 2}
    steps = go.Scatter(x=values, y=shares, mode="lines+markers", line=line, marker={"size": 4})
    figure = go.Figure(steps)
    figure.update_xaxes(title=metric)
    figure.update_yaxes(title="share of trials", range=[0, 1.03])
    return styled(figure, height=340)


def epochs(study: optuna.Study) -> go.Figure:
    """What the trials reported as their epochs ended, coloured by how they ended."""
    reporting = [t for t in study.get_trials(deepcopy=False) if t.intermediate_values]
    if not reporting:
        raise NotPlottable("No trial reported values while it ran.")
    figure = go.Figure()
    for outcome, color in STATE_COLORS.items():
        lines = [trial for trial in reporting if _outcome(trial) == outcome]
        if not lines:
            continue
        steps, values = _joined(lines)
        figure.add_trace(
            go.Scatter(
                x=steps,
                y=values,
                name=outcome,
                mode="lines+markers",
                line={"color": color, "width": 1.2},
                marker={"size": 3},
                opacity=0.55,
            )
        )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title="reported value")
    return styled(figure, height=380)


def timeline(study: optuna.Study) -> go.Figure:
    """When each trial ran, and how it ended."""
    if not study.get_trials(deepcopy=False):
        raise NotPlottable("The study has no trials.")
    figure = optuna.visualization.plot_timeline(study)
    figure.for_each_trace(lambda bars: bars.update(marker={"color": STATE_COLORS[bars.name]}))
    figure.update_xaxes(title=None)
    figure.update_yaxes(title="trial")
    return styled(figure, height=420).update_layout(barmode="overlay", bargap=0.1)


def _complete(study: optuna.Study, params: list[str]) -> pd.DataFrame:
    table = trial_table(study, params)
    if table.empty:
        raise NotPlottable("No trial was completed.")
    return table


def _wide_range(positions: np.ndarray) -> list[float]:
    """From the lowest to the highest position, or a unit about the only one."""
    low, high = float(np.nanmin(positions)), float(np.nanmax(positions))
    return [low, high] if low < high else [low - 0.5, high + 0.5]


def _outcome(trial: FrozenTrial) -> str:
    """How a trial ended, in the timeline's words."""
    if trial.state == TrialState.COMPLETE and not is_feasible(trial):
        return "INFEASIBLE"
    return trial.state.name


def _joined(trials: list[FrozenTrial]) -> tuple[list, list]:
    """Steps and values of many trials for one trace: a gap ends each trial's line."""
    steps, values = [], []
    for trial in trials:
        for step, value in sorted(trial.intermediate_values.items()):
            steps.append(step)
            values.append(value)
        steps.append(None)
        values.append(None)
    return steps, values


def _is_maximized(study: optuna.Study) -> bool:
    return study.direction == optuna.study.StudyDirection.MAXIMIZE


def _good_is_dark(study: optuna.Study) -> list[str]:
    return SCALE if _is_maximized(study) else SCALE[::-1]


def _used(table: pd.DataFrame, params: list[str]) -> list[str]:
    """The parameters that some trial of the table has."""
    used = [name for name in params if table[name].notna().any()]
    if not used:
        raise NotPlottable("No completed trial has a parameter.")
    return used


def _contoured(study: optuna.Study, table: pd.DataFrame, params: list[str]) -> list[str]:
    """Parameters of which each pair has a panel: all if a contour can show so many, else those
    that matter most.

    Two branches of a space have no trial in common: of parameters that do not go together the
    more important one is taken.
    """
    params = [name for name in params if _varies(table[name])]
    together = all(_makes_a_panel(table, *pair) for pair in combinations(params, 2))
    if together and len(params) <= MOST_CONTOURED:
        return params
    taken: list[str] = []
    for name in _by_importance(study, params):
        goes = all(_makes_a_panel(table, name, other) for other in taken)
        if goes and len(taken) < MOST_CONTOURED:
            taken.append(name)
    return [name for name in params if name in taken]


def _makes_a_panel(table: pd.DataFrame, a: str, b: str) -> bool:
    """Whether enough feasible trials have both parameters, and both vary."""
    both = table[table[a].notna() & table[b].notna()]
    return _varies(both[a]) and _varies(both[b]) and both.feasible.sum() >= NEIGHBORS


def _varies(values: pd.Series) -> bool:
    return len(set(values.dropna())) > 1


def _by_importance(study: optuna.Study, params: list[str]) -> list[str]:
    shares = importance_shares(study, params)
    return sorted(params, key=shares.get, reverse=True)


def _panel(x: Axis, y: Axis, table: pd.DataFrame, *, marker: dict) -> list:
    """A contour and its trials: those that have both parameters."""
    both = ~(np.isnan(x.positions) | np.isnan(y.positions))
    x, y = (where._replace(positions=where.positions[both]) for where in (x, y))
    dots = _trial_markers(x.positions, y.positions, table[both])
    return [_smoothed(x, y, table[both]), *(trace.update(marker=marker) for trace in dots)]


def _named_once(figure: go.Figure) -> go.Figure:
    """Every kind of trial once in the legend, from whichever panel has it first."""
    named = set()
    for trace in figure.data:
        if trace.name:
            trace.update(showlegend=trace.name not in named, legendgroup=trace.name)
            named.add(trace.name)
    return figure


def _trial_markers(x, y, table: pd.DataFrame) -> list[go.Scatter]:
    """Feasible trials as dots, infeasible ones as grey crosses, numbers in the hover."""
    hover = "trial %{customdata}<br>%{x:.4g}, %{y:.4g}<extra></extra>"
    cross = {"color": INFEASIBLE, "size": 6, "symbol": "x-thin-open", "line": {"width": 1.5}}
    looks = {
        "infeasible": (~table.feasible, cross),
        "trials": (table.feasible, {"color": ACCENT, "size": 6, "opacity": 0.75}),
    }
    return [
        go.Scatter(
            x=np.asarray(x)[rows],
            y=np.asarray(y)[rows],
            customdata=table.number[rows],
            name=name,
            mode="markers",
            marker=marker,
            hovertemplate=hover,
        )
        for name, (rows, marker) in looks.items()
        if rows.any()
    ]


def _smoothed(x: Axis, y: Axis, table: pd.DataFrame) -> go.Contour:
    """The mean of the nearest feasible trials, weighted by nearness, on a grid of cells."""
    points = np.column_stack([x.positions, y.positions])  # (n, 2)
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    lines = np.linspace(low, low + span, CONTOUR_CELLS)  # (CONTOUR_CELLS, 2)
    grid = np.stack(np.meshgrid(*lines.T), axis=-1)  # (CONTOUR_CELLS, CONTOUR_CELLS, 2)
    feasible = table.feasible.to_numpy(dtype=bool)
    nearest = KNeighborsRegressor(n_neighbors=NEIGHBORS, weights="distance")
    nearest.fit(points[feasible] / span, table.value[feasible])
    z = nearest.predict(grid.reshape(-1, 2) / span).reshape(grid.shape[:2])
    return go.Contour(
        x=lines[:, 0],
        y=lines[:, 1],
        z=np.round(z, 4),
        coloraxis="coloraxis",
        contours_coloring="heatmap",
        line={"width": 0.5, "color": "white"},
        hoverinfo="skip",
    )
