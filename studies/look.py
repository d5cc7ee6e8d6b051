"""How every figure of a report looks: its colours, its type, its margins."""

import plotly.graph_objects as go

INK, MUTED, GRID = "#1f2933", "#66727f", "#e6eaee"
ACCENT, BEST, INFEASIBLE = "#1f6fb2", "#d9480f", "#b4bec8"
SCALE = ["#d6e6f4", "#9fc5e3", "#5a9fd0", "#1f6fb2", "#0b3c6f"]  # dark is good
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def styled(figure: go.Figure, *, height: int, margin: dict[str, int] | None = None) -> go.Figure:
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
