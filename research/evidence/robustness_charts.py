"""Charts of robustness: the ground that a choice stands on, and what its result hangs on.

Sharpe ratios are annual, times UTC; no meaning hangs on colour alone. They draw what an
``Evidence`` holds; where a question could not be asked, the chart says so in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from research.candles import Floats
from research.chart_theme import TEMPLATE, THEME, Chart
from research.evidence.charts import in_words, shown_ratio, times_of
from research.sweep_charts import sweep_heatmap, sweep_line

if TYPE_CHECKING:
    from research.evidence.judge import Evidence

__all__ = ["sensitivity_figure", "surface_figure"]


def surface_figure(found: Evidence) -> Chart:
    """The Sharpe ratio over the parameters of the sweep: the chosen cell and those beside it.

    Over the first two parameters of which several values were tried; further ones stay as they were
    chosen where all combinations were tried, else their median is shown. A lone run has none.
    """
    sweep, near = found.sweep, found.neighbours
    if sweep is None or near is None:
        return in_words("A lone run stands on no surface. Sweep its parameters to see one.")
    frame, rest = sweep.frame, near.neighbours
    levels = [str(name) for name in frame.index.names]
    varied = [one for one in levels if frame.index.get_level_values(one).nunique() > 1]
    chosen = near.chosen.parameters()
    fixed = [one for one in levels if one not in varied[:2]]
    if near.steps and fixed:
        frame, rest = (_slice(one, fixed, chosen) for one in (frame, rest))
    if len(varied) == 1:
        others = [one for one in frame.index.names if one != varied[0]]
        frame, rest = frame.droplevel(others), rest.droplevel(others)
        figure = sweep_line(frame, near.metric)
        figure.update_traces(showlegend=False)
    else:
        figure = sweep_heatmap(frame, varied[0], varied[1], near.metric)
    if len(varied) == 1:
        figure.add_traces(list(_points(rest, chosen[varied[0]], near.value)))
    else:
        for shape in _frames(frame, varied[:2], rest, chosen):
            figure.add_shape(shape)
    kept = [f"{escape(one)} {chosen[one]:g}" for one in fixed if one in varied and near.steps]
    if kept:
        figure.layout.title.text += f"<sup>; {', '.join(kept)}</sup>"
    figure.update_layout(
        showlegend=True, margin={"t": 96},
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
    )  # fmt: skip
    return figure


def _slice(frame: pd.DataFrame, fixed: Sequence[str], chosen: dict[str, Any]) -> pd.DataFrame:
    """The rows whose ``fixed`` parameters are those that were chosen, without these levels."""
    here = np.ones(len(frame), np.bool_)
    for name in fixed:
        here &= frame.index.get_level_values(name) == chosen[name]
    return frame[here].droplevel(list(fixed))


def _frames(
    frame: pd.DataFrame, names: Sequence[str], beside: pd.DataFrame, chosen: dict[str, Any]
) -> list[dict[str, Any]]:
    """Frames of cells: a dotted one each neighbour, a heavy one the chosen."""
    places = [
        {value: i for i, value in enumerate(np.unique(frame.index.get_level_values(name)))}
        for name in names
    ]
    own = tuple(chosen[name] for name in names)
    cells = [beside.index.get_level_values(name) for name in names]
    near = dict.fromkeys(zip(*cells, strict=True))  # rows of a search may share a cell
    near.pop(own, None)
    looks = [*((cell, "Neighbours", "dot", 1.5) for cell in near), (own, "Chosen", "solid", 3.0)]
    shapes = []
    for i, (cell, name, dash, width) in enumerate(looks):
        column, row = (place[value] for place, value in zip(places, cell, strict=True))
        shapes.append(
            {
                "type": "rect", "x0": column - 0.46, "x1": column + 0.46, "y0": row - 0.42,
                "y1": row + 0.42, "line": {"color": "#000000", "width": width, "dash": dash},
                "name": name, "showlegend": i in (0, len(looks) - 1),
            }
        )  # fmt: skip
    return shapes


def _points(beside: pd.DataFrame, chosen: float, value: float) -> Iterable[go.Scatter]:
    """Rings around the points of a line: those beside the chosen one, and the chosen one."""
    near = beside["sharpe"].fillna(0.0)
    for name, x, y, size, colour in (
        ("Neighbours", near.index.tolist(), near.tolist(), 13, THEME.ink),
        ("Chosen", [chosen], [value], 18, THEME.strategy),
    ):
        yield go.Scatter(
            x=x, y=y, name=name, mode="markers", hoverinfo="skip",
            marker={"symbol": "circle-open", "size": size, "color": colour, "line": {"width": 2}},
        )  # fmt: skip


def sensitivity_figure(found: Evidence) -> Chart:
    """The Sharpe ratio at other costs, acting later, and begun later: three panes, one scale."""
    figure = Chart()
    panes = (
        ("Costs, times", found.costs),
        ("Bars late", found.delays),
        ("Begun", found.starts),
    )
    domains = ((0.0, 0.27), (0.37, 0.58), (0.68, 1.0))
    for i, (title, frame) in enumerate(panes):
        axis = "" if i == 0 else str(i + 1)
        trace = _begun(frame) if i == 2 else _bars(frame)
        figure.add_trace(trace.update(xaxis=f"x{axis}", yaxis=f"y{axis}"))
        figure.update_layout(
            {
                f"xaxis{axis}": {
                    "domain": domains[i], "anchor": f"y{axis}", "showgrid": False,
                    "type": "date" if i == 2 else "category", "nticks": 4,
                },
                f"yaxis{axis}": {
                    "anchor": f"x{axis}", "nticks": 5, "zerolinecolor": THEME.benchmark,
                    **({"matches": "y", "showticklabels": False} if i else {}),
                },
            }
        )  # fmt: skip
        figure.add_annotation(
            text=f"<b>{title}</b>", x=domains[i][0], y=1.0, xref="paper", yref="paper",
            showarrow=False, xanchor="left", yanchor="bottom", yshift=8,
        )  # fmt: skip
    figure.update_layout(template=TEMPLATE, height=330, showlegend=False)
    return figure


def _bars(frame: pd.DataFrame) -> go.Bar:
    values = frame["sharpe"].to_numpy(np.float64)
    texts = [
        f"{shown_ratio(value)}{' ×' if halted else ''}"
        for value, halted in zip(values, frame["halted"], strict=True)
    ]
    return go.Bar(
        x=[f"{one:g}" for one in frame.index], y=values, text=texts, textangle=0,
        textposition="auto", cliponaxis=False,
        marker={"color": _tones(values)}, hovertext=_told(frame), hoverinfo="text",
    )  # fmt: skip


def _begun(frame: pd.DataFrame) -> go.Scatter:
    values = frame["sharpe"].to_numpy(np.float64)
    return go.Scatter(
        x=times_of(frame.index), y=values, mode="lines+markers",
        line={"color": THEME.benchmark, "width": 1},
        marker={
            "color": _tones(values), "size": 9,
            "symbol": np.where(frame["halted"], "x", "circle").tolist(),
        },
        hovertext=_told(frame), hoverinfo="text+x",
    )  # fmt: skip


def _told(frame: pd.DataFrame) -> list[str]:
    return [
        f"Sharpe ratio {shown_ratio(sharpe)}, total return {total:+.1%}"
        f"{', halted' if halted else ''}"
        for sharpe, total, halted in zip(
            frame["sharpe"], frame["total_return"], frame["halted"], strict=True
        )
    ]


def _tones(values: Floats) -> list[str]:
    return [THEME.loss if value < 0.0 else THEME.strategy for value in values]
