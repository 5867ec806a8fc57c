"""Charts of robustness: the ground that a choice stands on, and what its result hangs on.

Sharpe ratios are annual, times UTC; no meaning hangs on colour alone. They draw what an
``Evidence`` holds; where a question could not be asked, the chart says so in words.
"""

from __future__ import annotations

import math
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
    if not varied:
        return in_words("Only one combination was tried: it has no neighbours.")
    chosen = near.chosen.parameters()
    fixed = [one for one in levels if one not in varied[:2]]
    if near.steps and fixed:
        frame, rest = (_slice(one, fixed, chosen) for one in (frame, rest))
    if len(varied) == 1:
        frame = frame.droplevel([one for one in frame.index.names if one != varied[0]])
        figure = sweep_line(frame, near.metric)
    else:
        figure = sweep_heatmap(frame, varied[0], varied[1], near.metric)
    for trace in _marked(varied[:2], rest, chosen, found):
        figure.add_trace(trace)
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


def _marked(
    names: Sequence[str], beside: pd.DataFrame, chosen: dict[str, Any], found: Evidence
) -> Iterable[go.Scatter]:
    near = found.neighbours
    value = math.nan if near is None else near.value
    cells = [beside.index.get_level_values(name).tolist() for name in names]
    places = dict.fromkeys(zip(*cells, strict=True))  # several rows of a search may share a cell
    own = tuple(chosen[name] for name in names)
    for label, at, shape, size in (
        ("Neighbours", [one for one in places if one != own], "circle-open", 9),
        ("Chosen", [own], "star", 12),
    ):
        columns = [[one[i] for one in at] for i in range(len(names))]
        if len(names) == 1:
            rows = beside["sharpe"].groupby(level=names[0]).median()
            heights = [value] if label == "Chosen" else rows.reindex(columns[0]).tolist()
            columns = [columns[0], heights]
        else:
            columns = [[str(one) for one in column] for column in columns]
        yield go.Scatter(
            x=columns[0], y=columns[1], name=label, mode="markers", hoverinfo="skip",
            marker={
                "symbol": shape, "size": size, "color": "#000000",
                "line": {"color": "#000000" if label == "Neighbours" else "#FFFFFF", "width": 1.3},
            },
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
        x=[f"{one:g}" for one in frame.index], y=values, text=texts, textposition="auto",
        cliponaxis=False,
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
