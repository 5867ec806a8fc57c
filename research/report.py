"""How a run shows itself: as text in a terminal, as HTML in a notebook, as a page on disk.

The charts come from research/charts.py and sweep_charts.py, the page from report_page.py; this is
their door. Nothing here computes a figure. Fractions are shown as percents, times are UTC, money is
in quote currency.
"""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from research.chart_theme import THEME, format_metric, thinned
from research.charts import candles_figure, run_figure
from research.html_page import write_html
from research.metrics import METRICS
from research.report_page import render_page
from research.report_tables import (
    buy_and_hold,
    costs_of,
    figures_of,
    held_return,
    refusals,
    window_of,
)
from research.sweep_charts import sweep_heatmap, sweep_line
from research.synthetic import SYNTHETIC_NOTICE

if TYPE_CHECKING:
    from research.backtesting import Backtest

__all__ = [
    "buy_and_hold",
    "candles_figure",
    "run_figure",
    "run_html",
    "run_text",
    "sweep_heatmap",
    "sweep_line",
    "write_report",
]

_WIDTH = 26
_SPARK = (560, 90)
_CARDS = ("total_return", "cagr", "sharpe", "max_drawdown", "trades", "win_rate", "profit_factor")


def run_text(run: Backtest) -> str:
    """The run as a table for a terminal: what was run, the figures, and what was refused."""
    rows = [(label, value) for label, value, _ in figures_of(run)]
    rows.insert(1, ("Buy and hold", format_metric("total_return", held_return(run))))
    lines = [
        f"{run.strategy!r} on {', '.join(run.symbols)}, {run.candles.timeframe}",
        window_of(run),
        f"{costs_of(run)}; candles from {run.candles.source}",
        "",
        *(f"{label:<{_WIDTH}}{value:>14}" for label, value in rows),
    ]
    refused = refusals(run)
    if not refused.empty:
        # A decision that was refused, and an order that was filled for less or not at all.
        named = (("Refused", refused["decision"]), ("Cut short", refused["fill"]))
        counts = [(f"{what}: {code}", n) for what, col in named for code, n in col.items() if n]
        lines += ["", *(f"{label:<{_WIDTH}}{count:>14,}" for label, count in counts)]
    if run.halted_at is not None:
        lines += ["", f"Halted at {run.halted_at:%Y-%m-%d %H:%M} UTC: the kill switch tripped."]
    if run.candles.source == "synthetic":
        lines = [SYNTHETIC_NOTICE, "", *lines]
    return "\n".join(lines)


def run_html(run: Backtest) -> str:
    """The run as a small card for a notebook: equity in miniature and the main figures.

    Styles are inline and colours follow the notebook's own, so that nothing leaks out or clashes.
    """
    values = run.metrics._asdict()
    cells = "".join(
        f'<div title="{escape(METRICS[name][1])}" style="min-width:88px">'
        f'<div style="opacity:.65;font-size:12px">{escape(METRICS[name][0])}</div>'
        f'<div style="font-size:17px;font-weight:600">{format_metric(name, values[name])}</div>'
        "</div>"
        for name in _CARDS
    )
    notices = "".join(
        f'<div style="border-left:4px solid {colour};padding:2px 10px;margin:0 0 8px">'
        f"{escape(text)}</div>"
        for text, colour in _notices(run)
    )
    return (
        '<div style="max-width:820px;font-family:system-ui,sans-serif;line-height:1.45;'
        'font-variant-numeric:tabular-nums">'
        f"{notices}<div><b>{escape(repr(run.strategy))}</b> on {escape(', '.join(run.symbols))}, "
        f'{escape(run.candles.timeframe)}</div><div style="opacity:.65;font-size:13px">'
        f"{escape(window_of(run))}; {escape(costs_of(run))}</div>{_sparkline(run)}"
        f'<div style="display:flex;flex-wrap:wrap;gap:6px 22px">{cells}</div></div>'
    )


def _notices(run: Backtest) -> list[tuple[str, str]]:
    notices = []
    if run.candles.source == "synthetic":
        notices.append((SYNTHETIC_NOTICE, THEME.symbols[0]))
    if run.halted_at is not None:
        halted = f"Halted at {run.halted_at:%Y-%m-%d %H:%M} UTC: the kill switch tripped."
        notices.append((halted, THEME.loss))
    return notices


def _sparkline(run: Backtest) -> str:
    if not len(run.equity):
        return ""
    width, height = _SPARK
    lines = ((buy_and_hold(run), THEME.benchmark, 1), (run.equity, THEME.strategy, 1.6))
    low = min(float(series.min()) for series, _, _ in lines)
    high = max(float(series.max()) for series, _, _ in lines)
    scale = (height - 4) / (high - low) if high > low else 0.0
    drawn = "".join(
        f'<polyline fill="none" stroke="{colour}" stroke-width="{stroke}" points="'
        f'{_points(series, width, height - 2, low, scale)}"/>'
        for series, colour, stroke in lines
    )
    source = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'preserveAspectRatio="none">{drawn}</svg>'
    )
    # An image, since JupyterLab strips drawings out of a notebook that it does not trust yet.
    encoded = base64.b64encode(source.encode()).decode()
    return (
        f'<img alt="Equity (blue) and buying and holding (grey)" style="display:block;width:100%;'
        f'max-width:{width}px;height:{height}px;margin:6px 0" '
        f'src="data:image/svg+xml;base64,{encoded}">'
    )


def _points(series: pd.Series, width: int, bottom: int, low: float, scale: float) -> str:
    values = series.to_numpy(float)
    step = width / max(1, len(values) - 1)
    kept = thinned(values, 400).tolist()
    return " ".join(f"{i * step:.1f},{bottom - (values[i] - low) * scale:.1f}" for i in kept)


def write_report(run: Backtest, path: Path) -> Path:
    """Write the run as one HTML page that needs no network, and return its path.

    The page appears whole or not at all; missing folders are made. Raises InputError where
    ``path`` is a folder.
    """
    return write_html(path, lambda: render_page(run))
