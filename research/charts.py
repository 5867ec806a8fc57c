"""The charts: plotly figures of a run and of candles.

Times on axes are UTC milliseconds, shares are fractions shown as percents, money is in quote
currency. Nothing here computes what a run did; it only draws it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from research.blotter import Fill, Trade
from research.candles import Candles, Floats, Ints
from research.chart_theme import TEMPLATE, THEME, Chart, thinned
from research.report_tables import buy_and_hold
from research.strategy import Action

if TYPE_CHECKING:
    from research.backtesting import Backtest

__all__ = ["candles_figure", "run_figure"]

_POINTS: Final = 4_000
_CANDLESTICKS: Final = 400
_MARKS: Final = 1_000
_EXPOSURES: Final = 240


def run_figure(run: Backtest) -> Chart:
    """Equity against buying and holding, drawdown, trades and exposure over one time axis."""
    figure = Chart(
        [
            *_equity_traces(run),
            _drawdown_trace(run),
            *_trade_traces(run),
            *_exposure_traces(run),
        ]
    )
    won = sum(trade.pnl > 0 for trade in run.trade_list)
    scale = "log" if _is_wide(run) else "linear"
    panes = (
        (f"Equity, quote currency, {scale} scale", (0.48, 1.0)),
        ("Drawdown", (0.31, 0.42)),
        (f"Result of each trade: {won:,} won, {len(run.trade_list) - won:,} lost", (0.155, 0.26)),
        ("Share of equity held", (0.0, 0.105)),
    )
    domains = [domain for _, domain in panes]
    figure.update_layout(
        template=TEMPLATE,
        height=800,
        margin={"t": 64},
        hovermode="x unified",
        hoversubplots="axis",
        xaxis={**_span(run.tape.close_time, run.candles.bar_ms), "anchor": "y4"},
        yaxis={"domain": domains[0], "tickformat": ",~s", "nticks": 8, "type": scale},
        yaxis2={"domain": domains[1], "tickformat": ".0%", "nticks": 5},
        yaxis3={"domain": domains[2], "ticksuffix": "%", "zerolinecolor": THEME.benchmark},
        yaxis4={"domain": domains[3], "tickformat": ".0%", "nticks": 4, "rangemode": "tozero"},
        legend={"traceorder": "reversed"},
        legend2={"orientation": "h", "x": 0, "y": -0.04, "yanchor": "top", "traceorder": "normal"},
    )
    for title, (_, top) in panes:
        figure.add_annotation(
            text=f"<b>{title}</b>", x=0, y=top, xref="paper", yref="paper", showarrow=False,
            xanchor="left", yanchor="bottom", yshift=24 if top == 1.0 else 2,
        )  # fmt: skip
    if run.halted_at is not None:
        _mark_halt(figure, run.halted_at.timestamp() * 1000)
    return figure


def _mark_halt(figure: Chart, at: float) -> None:
    figure.add_shape(
        type="line", x0=at, x1=at, y0=0, y1=1, yref="paper",
        line={"color": THEME.loss, "width": 1.5, "dash": "dash"},
    )  # fmt: skip
    figure.add_annotation(
        text="&nbsp;kill switch", x=at, y=1, yref="paper", showarrow=False, xanchor="left",
        yanchor="top", font={"color": THEME.loss},
    )  # fmt: skip


def candles_figure(
    candles: Candles, run: Backtest | None = None, *, points: int = _POINTS
) -> Chart:
    """One symbol's price: candlesticks, or a line of closes past 400 candles.

    Without a run its volume stands below; with one, what the run bought, sold and won or lost.
    At most ``points`` points a line, and half as many marks. Raises UnknownNameError where the run
    lacks the symbol.
    """
    figure = Chart(_price_trace(candles, points))
    if run is None:
        figure.add_trace(_volume_trace(candles, points))
        lower = {"domain": (0.0, 0.2), "nticks": 4, "tickformat": "~s", "rangemode": "tozero"}
        figure.update_layout(yaxis={"domain": (0.27, 1.0)}, yaxis2=lower)
    else:
        symbol = run.candles[candles.symbol].symbol
        fills = [one for one in run.fill_list if one.symbol == symbol]
        trades = [one for one in run.trade_list if one.symbol == symbol]
        for trace in (*_holding_traces(trades, points // 4), *_fill_traces(fills, points // 4)):
            figure.add_trace(trace)
    figure.update_layout(
        template=TEMPLATE,
        height=420,
        hovermode="x unified" if run is None else "closest",
        hoversubplots="axis",
        xaxis={
            **_span(candles.ts + candles.bar_ms, candles.bar_ms),
            "anchor": "y2" if run is None else "y",
            "rangeslider": {"visible": False},
        },
        yaxis={"tickformat": ",~r"},
    )
    return figure


def _is_wide(run: Backtest) -> bool:
    both = np.concatenate([run.equity.to_numpy(), buy_and_hold(run).to_numpy()])
    return len(both) > 0 and bool(both.min() > 0 and both.max() > 6 * both.min())


def _times(ts: Any) -> Floats:
    # Numbers, not texts: a tenth of the bytes, and plotly reads them as UTC milliseconds.
    return np.asarray(ts, np.float64)


def _span(close_time: Ints, bar_ms: int) -> dict[str, Any]:
    """A time axis from the first open to the last close."""
    ends = {"range": [int(close_time[0]) - bar_ms, int(close_time[-1])]} if len(close_time) else {}
    return {"type": "date", "showgrid": False, "hoverformat": "%Y-%m-%d %H:%M", **ends}


def _floats(values: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    # Half the bytes, and seven digits are more than a screen shows.
    return np.asarray(values, np.float32)


def _equity_traces(run: Backtest) -> Iterable[go.Scatter]:
    cash = run.account.initial_cash
    lines = (
        ("Buy and hold", buy_and_hold(run), THEME.benchmark, 1.3),
        (run.strategy.name, run.equity, THEME.strategy, 1.9),
    )
    for name, series, colour, width in lines:
        values = series.to_numpy()
        kept = thinned(values, _POINTS)
        change = values[-1] / cash - 1 if len(values) else 0.0
        yield go.Scatter(
            x=_times(run.tape.close_time[kept]), y=_floats(values[kept]),
            name=f"{escape(name)} {change:+.1%}".replace("-", "−"), mode="lines",
            line={"color": colour, "width": width},
            hovertemplate=f"%{{y:,.2f}}<extra>{escape(name)}</extra>",
        )  # fmt: skip


def _drawdown_trace(run: Backtest) -> go.Scatter:
    values = -run.drawdown.to_numpy()
    kept = thinned(values, _POINTS)
    return go.Scatter(
        x=_times(run.tape.close_time[kept]), y=_floats(values[kept]), yaxis="y2",
        name="Drawdown", showlegend=False, mode="lines", fill="tozeroy",
        fillcolor=THEME.loss_fill, line={"color": THEME.loss, "width": 1},
        hovertemplate="%{y:.1%}",
    )  # fmt: skip


def _trade_traces(run: Backtest) -> Iterable[go.Scatter]:
    for won, name, colour, shape in (
        (True, "Won", THEME.gain, "triangle-up"),
        (False, "Lost", THEME.loss, "triangle-down"),
    ):
        trades = [one for one in run.trade_list if (one.pnl > 0) is won]
        results = np.array([one.pnl_pct for one in trades])
        kept = thinned(results, _MARKS).tolist()
        yield go.Scatter(
            x=_times([trades[i].closed_at for i in kept]), y=_floats(results[kept]),
            yaxis="y3", name=name, showlegend=False, mode="markers",
            text=[f"{escape(trades[i].symbol)} {trades[i].pnl:+,.2f}" for i in kept],
            marker={"color": colour, "symbol": shape, "size": 6, "opacity": 0.7},
            hovertemplate="%{y:+.2f}% %{text}",
        )  # fmt: skip


def _exposure_traces(run: Backtest) -> Iterable[go.Scatter]:
    shares = _shares_held(run)
    if not len(shares):
        return
    starts = np.unique(np.linspace(0, len(shares), _EXPOSURES, endpoint=False, dtype=np.int64))
    lengths = np.diff(np.append(starts, len(shares)))[:, None]
    means = np.add.reduceat(shares, starts, axis=0) / lengths
    for s, symbol in enumerate(run.symbols):
        yield go.Scatter(
            x=_times(run.tape.close_time[starts]), y=_floats(means[:, s]), yaxis="y4",
            name=escape(symbol), legend="legend2", stackgroup="held", mode="lines",
            line={"width": 0, "shape": "hv", "color": THEME.symbols[s % len(THEME.symbols)]},
            hovertemplate="%{y:.0%}",
        )  # fmt: skip


def _shares_held(run: Backtest) -> Floats:
    """Value held of each symbol over equity, ``[bar][symbol]``, at closes."""
    lots = np.cumsum(run.log.fill_lots + run.log.stop_lots, axis=0)
    lot = np.divide(run.rules.lot_numerator, run.rules.lot_denominator)
    close = pd.DataFrame(run.tape.close).ffill().fillna(0.0).to_numpy()
    shares: Floats = lots * lot * close / run.log.equity[:, None]
    return shares


def _price_trace(candles: Candles, points: int) -> go.Scatter | go.Candlestick:
    if len(candles) <= _CANDLESTICKS:
        return go.Candlestick(
            x=_times(candles.ts), open=candles.open, high=candles.high, low=candles.low,
            close=candles.close, name=escape(candles.symbol), showlegend=False,
            increasing={"line": {"color": THEME.gain, "width": 1}},
            decreasing={"line": {"color": THEME.loss, "width": 1}},
        )  # fmt: skip
    kept = thinned(candles.close, points)
    return go.Scatter(
        x=_times(candles.ts[kept] + candles.bar_ms), y=_floats(candles.close[kept]),
        name=f"{escape(candles.symbol)} close", mode="lines",
        line={"color": THEME.benchmark, "width": 1.1}, hovertemplate="%{y:,.8~g}",
    )  # fmt: skip


def _volume_trace(candles: Candles, points: int) -> go.Bar:
    parts = min(len(candles), max(1, points // 8))
    starts = np.unique(np.linspace(0, len(candles), parts, endpoint=False, dtype=np.int64))
    sums = np.add.reduceat(candles.volume, starts) if len(candles) else candles.volume
    return go.Bar(
        x=_times(candles.ts[starts]), y=_floats(sums), yaxis="y2", name="Volume, base asset",
        marker={"color": THEME.benchmark, "line": {"width": 0}}, hovertemplate="%{y:,.4~s}",
    )  # fmt: skip


def _holding_traces(trades: Sequence[Trade], most: int) -> Iterable[go.Scatter]:
    """A line from entry to exit of each trade, won ones apart from lost ones."""
    kept = thinned(np.array([one.pnl_pct for one in trades]), most).tolist()
    for won, name, colour in ((True, "won", THEME.gain), (False, "lost", THEME.loss)):
        mine = [trades[i] for i in kept if (trades[i].pnl > 0) is won]
        spans = [(one.opened_at, one.closed_at, np.nan) for one in mine]
        prices = [(one.entry_price, one.exit_price, np.nan) for one in mine]
        yield go.Scatter(
            x=_times(spans).ravel(), y=_floats(prices).ravel(), name=f"Held, {name}",
            mode="lines", line={"color": colour, "width": 2}, hoverinfo="skip",
        )  # fmt: skip


def _fill_traces(fills: Sequence[Fill], most: int) -> Iterable[go.Scatter]:
    for side, name, colour, shape in (
        (Action.BUY, "Buys", THEME.gain, "triangle-up"),
        (Action.SELL, "Sells", THEME.loss, "triangle-down"),
    ):
        mine = [one for one in fills if one.side is side]
        kept = thinned(np.array([one.price for one in mine]), most).tolist()
        drawn = f"{len(mine):,}" if len(kept) == len(mine) else f"{len(kept):,} of {len(mine):,}"
        yield go.Scatter(
            x=_times([mine[i].at for i in kept]), y=_floats([mine[i].price for i in kept]),
            name=f"{name}: {drawn}", mode="markers",
            text=[f"{mine[i].quantity:,.8g}" for i in kept],
            marker={"color": colour, "symbol": shape, "size": 9 if len(mine) < 60 else 6},
            hovertemplate=f"{side} %{{text}} at %{{y:,.8~g}}<extra></extra>",
        )  # fmt: skip
