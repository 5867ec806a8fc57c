"""The charts of a sweep: one figure of every combination, over two parameters or over one.

Shares are fractions shown as percents. A combination whose run was halted by the kill switch is
marked with a cross: its figure is mostly about the days before.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from research.candles import Floats
from research.chart_theme import PERCENTS, TEMPLATE, THEME, Chart, format_metric
from research.errors import InputError, UnknownNameError
from research.metrics import METRICS

__all__ = ["sweep_heatmap", "sweep_line"]

_LESS_IS_BETTER: Final = {"max_drawdown", "turnover", "fees_paid"}
# Where a metric changes from bad to good: there its heatmap is pale.
_PIVOTS: Final = {"total_return": 0.0, "cagr": 0.0, "sharpe": 0.0, "sortino": 0.0} | {
    "profit_factor": 1.0
}
_DIVERGING: Final = [[0.0, THEME.loss], [0.5, "#F4F1EC"], [1.0, THEME.strategy]]
# More cells than these have no room for their figures.
_TEXTS: Final = 150


def sweep_heatmap(frame: pd.DataFrame, x: str, y: str, metric: str) -> Chart:
    """A metric over two parameters of a sweep; the best cell is framed.

    ``frame`` has the parameters as levels of its index and metrics as columns; where it has a
    column ``halted``, cells in which some run was halted are crossed. Over any further parameter
    the median is shown. Raises UnknownNameError for a name that the frame lacks and InputError
    where ``x`` and ``y`` are the same.
    """
    levels = [str(name) for name in frame.index.names]
    _require_metric(frame, metric)
    _require_known("x", x, levels)
    _require_known("y", y, levels)
    if x == y:
        raise InputError(field="y", value=y, expected=f"a parameter other than x ({x})")
    grid = frame[metric].groupby(level=[y, x]).median().unstack(x)
    values = grid.to_numpy(float)
    halted = _halted(frame).groupby(level=[y, x]).max().unstack(x).to_numpy(float) > 0
    across, down = [str(one) for one in grid.columns], [str(one) for one in grid.index]
    texts = [
        [f"{format_metric(metric, value)}{' ×' if crossed else ''}" for value, crossed in cells]
        for cells in map(zip, values, halted)
    ]
    figure = Chart(_heat(values, across, down, texts, metric, x, y))
    if halted.any() and values.size > _TEXTS:
        rows, columns = np.nonzero(halted)
        figure.add_trace(_crosses([across[i] for i in columns], [down[i] for i in rows]))
    title = _title(metric, halted)
    others = [name for name in levels if name not in (x, y)]
    if others:
        title[0] += f", median over {escape(', '.join(others))}"
    best = _best(values, metric)
    if best is not None:
        row, column = divmod(best, len(across))
        where = f"{escape(x)} {across[column]}, {escape(y)} {down[row]}"
        title.insert(1, f"best {format_metric(metric, values[row, column])} at {where}")
        figure.add_shape(
            type="rect", x0=column - 0.5, x1=column + 0.5, y0=row - 0.5, y1=row + 0.5,
            line={"color": "#000000", "width": 2},
        )  # fmt: skip
    figure.update_layout(
        **_layout(title),
        height=max(320, min(760, 150 + 26 * len(down))),
        xaxis={"type": "category", "title": escape(x), "showgrid": False},
        yaxis={"type": "category", "title": escape(y), "showgrid": False},
    )
    return figure


def sweep_line(frame: pd.DataFrame, metric: str) -> Chart:
    """A metric over the one parameter of a sweep, as a line; the best point is larger.

    ``frame`` as for ``sweep_heatmap``, with one level. Raises UnknownNameError for the metric.
    """
    _require_metric(frame, metric)
    ordered = frame.sort_index()
    name = escape(str(ordered.index.names[0]))
    at = [float(value) for value in ordered.index.get_level_values(0)]
    values, halted = ordered[metric].to_numpy(float), _halted(ordered).to_numpy(float) > 0
    title, best = _title(metric, halted), _best(values, metric)
    if best is not None:
        title.insert(1, f"best {format_metric(metric, values[best])} at {name} {at[best]:g}")
    finite = np.where(np.isfinite(values), values, np.nan)
    figure = Chart(
        go.Scatter(
            x=at, y=finite, mode="lines+markers", line={"color": THEME.strategy, "width": 1.6},
            marker={
                "symbol": np.where(halted, "x", "circle").tolist(),
                "size": [11 if i == best else 7 for i in range(len(at))],
                "color": np.where(halted, THEME.loss, THEME.strategy).tolist(),
            },
            text=[format_metric(metric, value) for value in values],
            hovertemplate=f"{name} %{{x}}<br>%{{text}}<extra></extra>",
        )
    )  # fmt: skip
    if metric in _PIVOTS:
        figure.add_hline(_PIVOTS[metric], line={"color": THEME.benchmark, "width": 1})
    figure.update_layout(
        **_layout(title),
        height=360,
        xaxis={"title": name, "showgrid": False},
        yaxis={"tickformat": ".0%" if metric in PERCENTS else ",~r"},
    )
    return figure


def _heat(
    values: Floats,
    across: Sequence[str],
    down: Sequence[str],
    texts: Sequence[Sequence[str]],
    metric: str,
    *names: str,
) -> go.Heatmap:
    pivot = _PIVOTS.get(metric)
    shades: dict[str, Any] = (
        {"colorscale": "Cividis", "reversescale": metric in _LESS_IS_BETTER}
        if pivot is None
        else {"colorscale": _DIVERGING}
    )
    x, y = map(escape, names)
    return go.Heatmap(
        x=across, y=down, z=values, zmid=pivot, text=texts, xgap=1, ygap=1, **shades,
        texttemplate="%{text}" if values.size <= _TEXTS else None,
        colorbar={"tickformat": ".0%" if metric in PERCENTS else ",~r", "thickness": 12},
        hovertemplate=f"{x} %{{x}}<br>{y} %{{y}}<br>%{{text}}<extra></extra>",
    )  # fmt: skip


def _crosses(x: Sequence[str], y: Sequence[str]) -> go.Scatter:
    return go.Scatter(
        x=x, y=y, mode="markers", name="halted", showlegend=False, hoverinfo="skip",
        marker={"symbol": "x-thin", "size": 7, "line": {"color": "#000000", "width": 1}},
    )  # fmt: skip


def _title(metric: str, halted: Any) -> list[str]:
    """The lines of a title: the metric's name, and what a cross means where there is one."""
    lines = [escape(METRICS[metric][0] if metric in METRICS else metric)]
    return [*lines, "× halted: the kill switch tripped during the run"] if halted.any() else lines


def _layout(title: Sequence[str]) -> dict[str, Any]:
    below = f"<br><sup>{'; '.join(title[1:])}</sup>" if title[1:] else ""
    return {
        "template": TEMPLATE,
        "title": {"text": f"{title[0]}{below}", "font": {"size": 15}, "x": 0.01},
        "margin": {"t": 70},
    }


def _halted(frame: pd.DataFrame) -> pd.Series:
    if "halted" in frame.columns:
        return frame["halted"].astype(float)
    return pd.Series(0.0, frame.index)


def _best(values: Floats, metric: str) -> int | None:
    """Position of the best of all values, counted row by row; None where none is finite."""
    if not np.isfinite(values).any():
        return None
    judged = -values if metric in _LESS_IS_BETTER else values
    return int(np.argmax(np.where(np.isfinite(judged), judged, -np.inf)))


def _require_metric(frame: pd.DataFrame, metric: str) -> None:
    _require_known("metric", metric, [str(name) for name in frame.columns if name != "halted"])


def _require_known(field: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UnknownNameError(field=field, value=name, expected=f"one of {', '.join(known)}")
