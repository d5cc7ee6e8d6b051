"""The report's plots: each takes data and gives a plotly figure, or says why there is none.

Where Optuna's own plot serves, it is used and restyled. Parallel coordinates, slices and contour
are drawn here: Optuna's have a trace a trial (nothing to brush), one row for all parameters, and
a matrix of all trials by all trials. Knows nothing of the page that the figures stand on.
"""

from typing import NamedTuple

import numpy as np
import optuna
import pandas as pd
import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from plotly.subplots import make_subplots
from sklearn.metrics import precision_recall_curve, roc_curve
from sklearn.neighbors import KNeighborsRegressor

from training.floors import Scored

INK, MUTED, GRID = "#1f2933", "#66727f", "#e6eaee"
ACCENT, BEST, INFEASIBLE = "#1f6fb2", "#d9480f", "#b4bec8"
SCALE = ["#d6e6f4", "#9fc5e3", "#5a9fd0", "#1f6fb2", "#0b3c6f"]  # dark is good
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
STATE_COLORS = {
    "COMPLETE": ACCENT,
    "INFEASIBLE": INFEASIBLE,
    "PRUNED": "#e8a33d",
    "FAIL": "#c92a2a",
    "RUNNING": "#2f9e6e",
    "WAITING": GRID,
}
FLOOR_COLORS = {
    "always_tumor": "#868e96",
    "mean_intensity": "#e8a33d",
    "giaem_on_images": "#2f9e6e",
    "nearest_neighbor": "#9c5fb5",
}
CONTOUR_CELLS = 60
NEIGHBORS = 5  # feasible trials that a cell of a contour averages
MOST_CONTOURED = 4  # parameters; more panels are unreadable


class NotPlottable(ValueError):
    """There is no such plot of this study; the message says why, as a sentence for the reader."""


class SurfacePoint(NamedTuple):
    """A pair of GIAEM parameters and its F2."""

    anomaly_threshold: float
    tumor_index: float
    f2: float


class Surface(NamedTuple):
    """The exact validation objective of GIAEM over both parameters, and what a search found."""

    thresholds: np.ndarray  # (T,)
    indices: np.ndarray  # (K,)
    f2: np.ndarray  # (T, K)
    specificity: np.ndarray  # (T, K)
    optimum: SurfacePoint
    found: SurfacePoint | None  # the best feasible trial's
    tried: np.ndarray  # (n_trials, 2), anomaly_threshold and tumor_index of every trial


class Axis(NamedTuple):
    """A parameter as positions on a line: log10 where it is searched in logs, codes of choices."""

    name: str
    positions: np.ndarray  # (n,)
    ticks: dict[str, list]  # plotly's tickvals and ticktext; empty where its own will do


def trial_table(study: optuna.Study, params: list[str]) -> pd.DataFrame:
    """The complete trials that have all of `params`: number, value, feasible, and a column each."""
    trials = [
        {"number": trial.number, "value": trial.value, "feasible": is_feasible(trial)}
        | {name: trial.params[name] for name in params}
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if set(params) <= set(trial.params)
    ]
    return pd.DataFrame(trials, columns=["number", "value", "feasible", *params])


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a complete trial keeps every constraint."""
    return all(violation <= 0 for violation in trial.constraints.values())


def axis(study: optuna.Study, name: str, values: pd.Series) -> Axis:
    """Where a parameter's values lie on an axis."""
    distribution = next(
        trial.distributions[name]
        for trial in study.get_trials(deepcopy=False)
        if name in trial.distributions
    )
    if isinstance(distribution, CategoricalDistribution):
        names = [str(choice) for choice in distribution.choices]
        codes = np.array([names.index(str(value)) for value in values], dtype=float)
        return Axis(name, codes, {"tickvals": list(range(len(names))), "ticktext": names})
    positions = values.to_numpy(dtype=float)
    if not distribution.log:
        return Axis(name, positions, {})
    positions = np.log10(positions)
    tickvals = np.linspace(positions.min(), positions.max(), 5).tolist()
    return Axis(
        name, positions, {"tickvals": tickvals, "ticktext": [f"{10**x:.2g}" for x in tickvals]}
    )


def parallel_coordinates(study: optuna.Study, params: list[str], *, metric: str) -> go.Figure:
    """The feasible trials as lines through their parameters to the objective, to be brushed."""
    table = _complete(study, params)
    table = table[table.feasible].sort_values("value", ascending=_is_maximized(study))
    if table.empty:
        raise NotPlottable("No completed trial keeps the constraints.")
    axes = [axis(study, name, table[name]) for name in params]
    dimensions = [{"label": a.name, "values": a.positions, **a.ticks} for a in axes]
    lines = go.Parcoords(
        dimensions=[*dimensions, {"label": metric, "values": table.value}],
        line={"color": table.value, "colorscale": _good_is_dark(study), "showscale": True},
        labelfont={"size": 14, "color": INK},
        tickfont={"size": 12, "color": INK},
        rangefont={"size": 11, "color": MUTED},
        unselected={"line": {"color": GRID, "opacity": 0.25}},
    )
    lines.line.colorbar = {"title": metric, "thickness": 12}
    return _styled(go.Figure(lines), height=430, margin={"l": 70, "r": 40, "t": 60, "b": 30})


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
    return _styled(figure, height=380)


def importances(study: optuna.Study, params: list[str]) -> go.Figure:
    """How much each parameter matters for being among the best tenth of the trials."""
    shares = importance_shares(study, params)
    names = sorted(shares, key=shares.get)
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
    return _styled(figure, height=max(340, 130 + 38 * len(names)))


def importance_shares(study: optuna.Study, params: list[str]) -> dict[str, float]:
    """Each parameter's share of the importance, by Optuna's default evaluator."""
    table = _complete(study, params)
    if len(table) < 4 or table.value.nunique() < 2:
        raise NotPlottable("Importances need at least four completed trials that differ in value.")
    return optuna.importance.get_param_importances(study, params=params)


def slices(study: optuna.Study, params: list[str], *, metric: str) -> go.Figure:
    """The objective over each parameter alone, at most three panels a row."""
    table = _complete(study, params)
    columns = min(3, len(params))
    rows = -(-len(params) // columns)
    figure = make_subplots(rows, columns, shared_yaxes=True, horizontal_spacing=0.04)
    for position, name in enumerate(params):
        place = {"row": position // columns + 1, "col": position % columns + 1}
        where = axis(study, name, table[name])
        for markers in _trial_markers(where.positions, table.value, table):
            figure.add_trace(markers.update(showlegend=position == 0), **place)
        figure.update_xaxes(title=name, **where.ticks, **place)
    figure.update_yaxes(title=metric, col=1)
    return _styled(figure, height=80 + 300 * rows)


def contour(study: optuna.Study, params: list[str], *, metric: str) -> go.Figure:
    """The objective over pairs of parameters, smoothed over the nearest feasible trials."""
    table = _complete(study, params)
    chosen = [name for name in _most_important(study, params) if len(set(table[name])) > 1]
    if len(chosen) < 2 or table.feasible.sum() < NEIGHBORS:
        raise NotPlottable("A contour needs five feasible trials and two parameters that vary.")
    axes = [axis(study, name, table[name]) for name in chosen]
    n = len(axes) - 1  # panels a side, below the diagonal
    figure = make_subplots(
        n, n, shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.03, vertical_spacing=0.03
    )
    for row in range(n):
        for column in range(row + 1):
            place = {"row": row + 1, "col": column + 1}
            x, y = axes[column], axes[row + 1]
            figure.add_trace(_smoothed(x, y, table), **place)
            for markers in _trial_markers(x.positions, y.positions, table):
                markers.update(showlegend=row == column == 0, marker={"color": INK})
                figure.add_trace(markers, **place)
            figure.update_xaxes(title=x.name if row == n - 1 else None, **x.ticks, **place)
            figure.update_yaxes(title=y.name if column == 0 else None, **y.ticks, **place)
    colorbar = {"title": metric, "thickness": 12}
    figure.update_layout(coloraxis={"colorscale": _good_is_dark(study), "colorbar": colorbar})
    return _styled(figure, height=140 + 300 * n)


def distribution(study: optuna.Study, *, metric: str) -> go.Figure:
    """The share of completed trials with at most each objective value (EDF)."""
    _complete(study, [])
    figure = optuna.visualization.plot_edf(study, target_name=metric)
    figure.update_traces(line={"color": ACCENT, "width": 2})
    figure.update_yaxes(title="share of trials")
    return _styled(figure, height=340).update_layout(showlegend=False)


def intermediate_values(study: optuna.Study) -> go.Figure:
    """What the trials reported as their epochs ended."""
    if not any(trial.intermediate_values for trial in study.get_trials(deepcopy=False)):
        raise NotPlottable("No trial reported values while it ran.")
    figure = optuna.visualization.plot_intermediate_values(study)
    figure.update_traces(line={"width": 1.2}, marker={"size": 4}, opacity=0.7)
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title="reported value")
    return _styled(figure, height=380)


def timeline(study: optuna.Study) -> go.Figure:
    """When each trial ran, and how it ended."""
    if not study.get_trials(deepcopy=False):
        raise NotPlottable("The study has no trials.")
    figure = optuna.visualization.plot_timeline(study)
    figure.for_each_trace(lambda bars: bars.update(marker={"color": STATE_COLORS[bars.name]}))
    figure.update_xaxes(title=None)
    figure.update_yaxes(title="trial")
    return _styled(figure, height=420).update_layout(barmode="overlay", bargap=0.1)


def confusion(scored: Scored) -> go.Figure:
    """Counts and shares of the true class, the two right answers on the falling diagonal."""
    counts = np.array(
        [[scored.metrics[name] for name in row] for row in (("fn", "tp"), ("tn", "fp"))]
    )
    shares = counts / counts.sum(axis=1, keepdims=True)
    text = [
        [f"<b>{count:.0f}</b><br>{share:.1%}" for count, share in zip(*row, strict=True)]
        for row in zip(counts, shares, strict=True)
    ]
    cells = go.Heatmap(
        x=["called no tumour", "called tumour"],
        y=["tumour", "no tumour"],
        z=shares,
        text=text,
        texttemplate="%{text}",
        textfont={"size": 18, "color": INK},
        colorscale=SCALE[:3],
        zmin=0,
        zmax=1,
        showscale=False,
        hoverinfo="skip",
        xgap=4,
        ygap=4,
    )
    figure = go.Figure(cells)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(side="top", showgrid=False)
    return _styled(figure, height=360, margin={"l": 90, "t": 50, "b": 20})


def roc(scored: Scored, floors: list[Scored]) -> go.Figure:
    """Recall over the false alarms; the dot is where the decision lies."""
    figure = go.Figure()
    for method in (*floors, scored):
        false_alarms, recall, _ = roc_curve(method.labels, method.scores)
        name = f"{method.name} ({method.metrics['auroc']:.3f})"
        figure.add_trace(_curve(method, scored, x=false_alarms, y=recall, name=name))
    point = 1 - scored.metrics["specificity"], scored.metrics["recall"]
    figure.add_trace(_operating_point(*point))
    figure.update_xaxes(title="false alarms (1 - specificity)", range=[-0.02, 1.02])
    figure.update_yaxes(title="recall", range=[-0.02, 1.02])
    return _with_inner_legend(_styled(figure, height=460), title="method (AUROC)", x=0.98)


def precision_recall(scored: Scored, floors: list[Scored]) -> go.Figure:
    """Precision over recall; the dot is where the decision lies."""
    figure = go.Figure()
    for method in (*floors, scored):
        precision, recall, _ = precision_recall_curve(method.labels, method.scores)
        name = f"{method.name} ({method.metrics['auprc']:.3f})"
        figure.add_trace(_curve(method, scored, x=recall, y=precision, name=name))
    figure.add_trace(_operating_point(scored.metrics["recall"], scored.metrics["precision"]))
    figure.update_xaxes(title="recall", range=[-0.02, 1.02])
    figure.update_yaxes(title="precision", range=[-0.02, 1.02])
    return _with_inner_legend(_styled(figure, height=460), title="method (AUPRC)", x=0.5)


def scores(scored: Scored) -> go.Figure:
    """How the scores of the two classes lie about the decision."""
    edges = np.histogram_bin_edges(scored.scores, bins=40)
    figure = go.Figure()
    for label, name, color in ((0, "no tumour", MUTED), (1, "tumour", ACCENT)):
        counts, _ = np.histogram(scored.scores[scored.labels == label], bins=edges)
        figure.add_trace(
            go.Bar(
                x=(edges[:-1] + edges[1:]) / 2,
                y=counts / counts.sum(),
                width=np.diff(edges),
                name=name,
                marker={"color": color, "line": {"width": 0}},
                opacity=0.6,
            )
        )
    figure.add_vline(x=0, line={"color": BEST, "width": 2})
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(title="score")
    figure.update_yaxes(title="share of the class")
    return _styled(figure, height=360)


def giaem_surface(surface: Surface, *, specificity_floor: float) -> go.Figure:
    """F2 where the specificity floor is kept, with the exact optimum and what the trials tried."""
    feasible = np.where(surface.specificity >= specificity_floor, surface.f2, np.nan)
    heat = go.Heatmap(
        x=surface.thresholds,
        y=surface.indices,
        z=np.round(feasible, 4).T,
        colorscale=SCALE,
        colorbar={"title": "F2", "thickness": 12},
        hovertemplate="threshold %{x:.3f}, index %{y:.3f}: F2 %{z:.4f}<extra></extra>",
    )
    tried = go.Scatter(
        x=surface.tried[:, 0],
        y=surface.tried[:, 1],
        name="trials",
        mode="markers",
        marker={"size": 5, "color": INK, "opacity": 0.6},
    )
    figure = go.Figure([heat, tried, _point("exact optimum", surface.optimum, symbol="star")])
    if surface.found is not None:
        figure.add_trace(_point("best trial", surface.found, symbol="diamond"))
    figure.update_xaxes(title="anomaly_threshold")
    figure.update_yaxes(title="tumor_index")
    return _styled(figure, height=520)


def _complete(study: optuna.Study, params: list[str]) -> pd.DataFrame:
    table = trial_table(study, params)
    if table.empty:
        raise NotPlottable("No trial was completed.")
    return table


def _is_maximized(study: optuna.Study) -> bool:
    return study.direction == optuna.study.StudyDirection.MAXIMIZE


def _good_is_dark(study: optuna.Study) -> list[str]:
    return SCALE if _is_maximized(study) else SCALE[::-1]


def _most_important(study: optuna.Study, params: list[str]) -> list[str]:
    """The parameters that matter most, as many as a contour can show."""
    if len(params) <= MOST_CONTOURED:
        return params
    shares = importance_shares(study, params)
    return sorted(params, key=shares.get, reverse=True)[:MOST_CONTOURED]


def _trial_markers(x, y, table: pd.DataFrame) -> list[go.Scatter]:
    """Feasible trials as dots, infeasible ones as grey crosses, numbers in the hover."""
    hover = "trial %{customdata}<br>%{x:.4g}, %{y:.4g}<extra></extra>"
    looks = {
        "trials": (table.feasible, {"color": ACCENT, "size": 6, "opacity": 0.75}),
        "infeasible": (
            ~table.feasible,
            {"color": INFEASIBLE, "size": 6, "symbol": "x-thin-open", "line": {"width": 1.5}},
        ),
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


def _curve(method: Scored, winner: Scored, *, x, y, name: str) -> go.Scatter:
    """A method's curve: the winner's stands out."""
    line = {"color": FLOOR_COLORS.get(method.name, MUTED), "width": 1.5, "dash": "dot"}
    if method is winner:
        line = {"color": ACCENT, "width": 3}
    return go.Scatter(x=x, y=y, name=name, mode="lines", line=line)


def _operating_point(x: float, y: float) -> go.Scatter:
    marker = {"size": 13, "color": BEST, "line": {"color": "white", "width": 2}}
    return go.Scatter(x=[x], y=[y], name="operating point", mode="markers", marker=marker)


def _point(name: str, point: SurfacePoint, *, symbol: str) -> go.Scatter:
    marker = {"symbol": symbol, "size": 16, "color": BEST, "line": {"color": "white", "width": 1.5}}
    return go.Scatter(
        x=[point.anomaly_threshold],
        y=[point.tumor_index],
        name=f"{name}, F2 {point.f2:.4f}",
        mode="markers",
        marker=marker,
    )


def _with_inner_legend(figure: go.Figure, *, title: str, x: float) -> go.Figure:
    """The legend as a list in the lower part of the plot, centred or to the right at `x`."""
    return figure.update_layout(
        legend={
            "title": title,
            "orientation": "v",
            "x": x,
            "xanchor": "right" if x > 0.5 else "center",
            "y": 0.03,
            "yanchor": "bottom",
            "font": {"size": 11},
            "bgcolor": "rgba(255, 255, 255, 0.8)",
        }
    )


def _styled(figure: go.Figure, *, height: int, margin: dict[str, int] | None = None) -> go.Figure:
    """The report's look, whatever the figure came with."""
    axes = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "automargin": True}
    axes["title"] = {"standoff": 10}
    look = go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": INK},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "colorway": [ACCENT, BEST, "#2f9e6e", "#9c5fb5", "#e8a33d", MUTED],
            "xaxis": axes,
            "yaxis": axes,
            "hoverlabel": {"font": {"family": FONT}},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        }
    )
    margin = {"l": 70, "r": 30, "t": 40, "b": 50} | (margin or {})
    return figure.update_layout(template=look, title=None, width=None, height=height, margin=margin)
