"""The plots of a result: what the best trial did on test, and GIAEM's exact surface.

Each takes data and gives a plotly figure. Knows nothing of studies and of the page.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from sklearn.metrics import precision_recall_curve, roc_curve

from studies.look import ACCENT, BEST, INK, MUTED, SCALE, styled
from training.floors import Scored

FLOOR_COLORS = {
    "always_tumor": "#868e96",
    "mean_intensity": "#e8a33d",
    "giaem_on_images": "#2f9e6e",
    "nearest_neighbor": "#9c5fb5",
}


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
    return styled(figure, height=360, margin={"l": 90, "t": 50, "b": 20})


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
    return _with_inner_legend(styled(figure, height=460), title="method (AUROC)", x=0.98)


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
    return _with_inner_legend(styled(figure, height=460), title="method (AUPRC)", x=0.5)


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
    return styled(figure, height=360, margin={"t": 60})


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
    return styled(figure, height=520)


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
