"""The one vocabulary of charts and pages: colours, plotly template, thinning, number formats.

Colours are Okabe and Ito's (2008), told apart by colour-blind readers too, and no meaning hangs on
colour alone; backgrounds are transparent, so that a figure sits on a light page or a dark one.
Long series are thinned for the eye only: every bucket keeps its lowest and its highest point.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from html import unescape
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio

from research.candles import Floats, Ints

__all__ = [
    "NIGHT",
    "PERCENTS",
    "TEMPLATE",
    "THEME",
    "Chart",
    "Theme",
    "format_metric",
    "thinned",
]


@dataclass(frozen=True, slots=True)
class Theme:
    """Every colour that a chart or a page uses, by what it means."""

    ink: str = "#6F7A86"  # 4.4 : 1 on white, 4.3 : 1 on the darkest page: reads on both
    grid: str = "rgba(128,138,148,0.22)"
    strategy: str = "#0072B2"
    benchmark: str = "#98A1AA"
    gain: str = "#009E73"
    loss: str = "#D55E00"
    loss_fill: str = "rgba(213,94,0,0.18)"
    hover: str = "rgba(255,255,255,0.94)"
    hover_ink: str = "#1F2933"
    symbols: tuple[str, ...] = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#F0E442", "#D55E00")


THEME: Final = Theme()

# What a page that knows it is dark draws in place of each colour.
NIGHT: Final[dict[str, str]] = {
    THEME.ink: "#9AA5B1",
    THEME.strategy: "#56B4E9",
    THEME.benchmark: "#7B8794",
    THEME.gain: "#2FC79B",
    THEME.loss: "#F08A3C",
    THEME.hover: "rgba(30,36,44,0.95)",
    THEME.hover_ink: "#E4E7EB",
}

_AXIS: Final = {
    "gridcolor": THEME.grid,
    "linecolor": THEME.grid,
    "zerolinecolor": THEME.grid,
    "ticks": "",
    "automargin": True,
}
TEMPLATE: Final = go.layout.Template(
    layout={
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": THEME.symbols,
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": THEME.ink},
        "hoverlabel": {
            "bgcolor": THEME.hover,
            "bordercolor": THEME.grid,
            "font": {"color": THEME.hover_ink, "size": 12},
        },
        "xaxis": {
            **_AXIS,
            "spikecolor": THEME.benchmark,
            "spikethickness": -1,  # negative: without the white edge that glares on a dark page
            "spikedash": "dot",
        },
        "yaxis": _AXIS,
        "margin": {"l": 8, "r": 8, "t": 40, "b": 8},
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        "modebar": {
            "bgcolor": "rgba(0,0,0,0)",
            "color": THEME.benchmark,
            "activecolor": THEME.strategy,
        },
    }
)
pio.templates["candlebook"] = TEMPLATE


_CONFIG: Final = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],  # none that uploads
}


class Chart(go.Figure):  # type: ignore[misc]
    """A plotly figure that a notebook stores as plotly's JSON, which JupyterLab draws offline.

    Left to itself plotly puts 4.8 MB of script into the notebook, and asking it for its renderers
    takes a second or more of imports. ``show()`` is still plotly's own, with whatever renderer.
    """

    _ipython_display_ = None
    _repr_html_ = None

    def drawing(self) -> dict[str, Any]:
        """What plotly.js draws: data, layout and config, ready for JSON."""
        return {**json.loads(self.to_json()), "config": _CONFIG}

    def __repr__(self) -> str:
        """What it shows, in words, for whoever cannot see it drawn."""
        titles = [self.layout.title.text or ""] + [one.text for one in self.layout.annotations]
        named = [text for text in titles if text] or [one.name or one.type for one in self.data]
        words = re.sub(r"<[^>]+>|&nbsp;", " ", "; ".join(named))
        return (
            f"Chart of {unescape(' '.join(words.split()))}. JupyterLab draws it; so does .show()."
        )

    def _repr_mimebundle_(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {"application/vnd.plotly.v1+json": self.drawing(), "text/plain": repr(self)}


PERCENTS: Final = {
    "total_return",
    "cagr",
    "max_drawdown",
    "win_rate",
    "exposure",
    "time_in_market",
}


def format_metric(name: str, value: float) -> str:
    """A figure of ``Metrics`` as people read it: fractions as percents, NaN as a dash."""
    if np.isnan(value):
        return "–"
    if np.isinf(value):
        return "∞" if value > 0 else "-∞"
    if name in PERCENTS:
        return f"{value:+.2%}" if name in ("total_return", "cagr") else f"{value:.2%}"
    if name in ("trades",):
        return f"{value:,.0f}"
    return f"{value:,.1f}x" if name == "turnover" else f"{value:,.2f}"


def thinned(values: Floats, points: int) -> Ints:
    """Positions to draw so that a line through them looks like one through all ``values``.

    At most ``points`` (at least 4) positions, ascending: first, last, and each bucket's lowest and
    highest. NaN is never an extreme.
    """
    n = len(values)
    if n <= points:
        return np.arange(n)
    low = np.where(np.isnan(values), np.inf, values)
    high = np.where(np.isnan(values), -np.inf, values)
    kept = {0, n - 1}
    edges = np.linspace(0, n, max(2, points // 2), dtype=np.int64)
    for start, end in itertools.pairwise(edges):
        kept.add(int(start + np.argmin(low[start:end])))
        kept.add(int(start + np.argmax(high[start:end])))
    return np.array(sorted(kept), dtype=np.int64)
