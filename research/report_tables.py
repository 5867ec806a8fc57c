"""The tables of a report: frames and sentences derived from a run, nothing drawn.

Shares are fractions unless a column ends in ``_pct``; times are UTC; money is in quote currency.
A month is that of the moment just before a bar's close, so that the close at 00:00 on the first
belongs to the month that it ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from research.candles import DAY, iso
from research.chart_theme import format_metric
from research.metrics import METRICS
from research.risk import CODES, OK

if TYPE_CHECKING:
    from research.backtesting import Backtest

__all__ = [
    "buy_and_hold",
    "costs_of",
    "figures_of",
    "held_return",
    "monthly_returns",
    "refusals",
    "settings_of",
    "trade_totals",
    "verdict_of",
    "window_of",
    "worst_drawdowns",
]


def buy_and_hold(run: Backtest) -> pd.Series:
    """Equity at each close of the same cash put into the run's symbols in equal parts and left.

    Each part buys at its symbol's first close in the run, in fractions and without costs.
    """
    close = pd.DataFrame(run.tape.close).ffill()
    if close.empty:
        return pd.Series([], run.close_time, np.float64, name="hold")
    growth = (close / close.bfill().iloc[0]).fillna(1.0)
    return pd.Series(
        growth.mean(axis=1).to_numpy() * run.account.initial_cash, run.close_time, name="hold"
    )


def held_return(run: Backtest) -> float:
    """What ``buy_and_hold`` made, as a fraction; NaN for a run without a bar."""
    held = buy_and_hold(run)
    return float(held.iloc[-1]) / run.account.initial_cash - 1 if len(held) else math.nan


def window_of(run: Backtest) -> str:
    """First open, last close and length of the run, in words."""
    closes = run.tape.close_time
    if not len(closes):
        return "no bar yet"
    start, end = int(closes[0]) - run.candles.bar_ms, int(closes[-1])
    days = (end - start) / DAY
    length = f"{days:,.0f} days" if days >= 2 else f"{days * 24:,.1f} hours"
    bars = f"{len(closes):,} bar{'s' if len(closes) != 1 else ''}"
    return f"{_day(start)} .. {_day(end)} UTC, {length}, {bars}"


def _day(ts: int) -> str:
    return iso(ts).removesuffix("Z").removesuffix("T00:00").replace("T", " ")


def costs_of(run: Backtest) -> str:
    """What a fill costs, in words."""
    account = run.account
    return f"fee {account.fee_rate * 100:g}% a fill, slippage {account.slippage_bps:g} bps"


def verdict_of(run: Backtest) -> str:
    """One or two sentences: what the money became, against buying and holding, and how rough."""
    m = run.metrics
    held = held_return(run)
    if math.isnan(held):
        return "No bar has closed in it yet: there is nothing to judge."
    cash = f"{run.account.initial_cash:,.0f} became {m.final_equity:,.0f}"
    if not m.trades and not run.fill_list:
        return f"No trade: nothing was bought. Buying and holding made {held:+.1%}."
    better = "more" if m.total_return > held else "less"
    return (
        f"{cash}: {abs(m.total_return - held) * 100:,.1f} points {better} "
        f"than buying and holding the same ({held:+.1%}, before costs). On the way it fell by "
        f"{m.max_drawdown:.1%} from its highest close. Fees took {m.fees_paid:,.0f}."
    )


def figures_of(run: Backtest) -> list[tuple[str, str, str]]:
    """Name, value and meaning of every figure, in the order of ``METRICS``."""
    values = run.metrics._asdict()
    return [
        (label, format_metric(name, values[name]), meaning)
        for name, (label, meaning) in METRICS.items()
    ]


def monthly_returns(run: Backtest) -> pd.DataFrame:
    """One row a year, columns 1 to 12 and ``year``; NaN where the run has no bar."""
    moments = run.close_time.tz_localize(None) - pd.Timedelta(milliseconds=1)
    months = range(1, 13)
    if not len(run.equity):
        return pd.DataFrame(columns=[*months, "year"], index=pd.Index([], name="year"), dtype=float)
    last = run.equity.groupby([moments.year, moments.month]).last()
    before = last.shift(fill_value=run.account.initial_cash)
    table = (last / before - 1).unstack().reindex(columns=months)
    table.index.name, table.columns.name = "year", None
    ends = last.groupby(level=0).last()
    table["year"] = ends / ends.shift(fill_value=run.account.initial_cash) - 1
    return table


def worst_drawdowns(run: Backtest, count: int = 5) -> pd.DataFrame:
    """The deepest falls, deepest first: ``depth``, ``peak``, ``bottom``, ``recovered``, ``days``.

    ``peak`` is the close before the fall (the run's first open where it began there),
    ``recovered`` the first close at the old height, NaT where there was none; ``days`` run to it,
    or to the end.
    """
    depth = run.drawdown.to_numpy()
    below = np.concatenate([[False], depth > 0, [False]])
    starts = np.flatnonzero(~below[:-1] & below[1:])
    ends = np.flatnonzero(below[:-1] & ~below[1:])
    bar = pd.Timedelta(milliseconds=run.candles.bar_ms)
    rows = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        bottom = start + int(np.argmax(depth[start:end]))
        peak = run.close_time[start - 1] if start else run.close_time[0] - bar
        recovered = run.close_time[end] if end < len(depth) else pd.NaT
        until = run.close_time[-1] if pd.isna(recovered) else recovered
        days = (until - peak).total_seconds() / 86_400
        rows.append((depth[bottom], peak, run.close_time[bottom], recovered, days))
    columns = ["depth", "peak", "bottom", "recovered", "days"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.sort_values("depth", ascending=False, ignore_index=True).head(count)


def trade_totals(run: Backtest, by: str) -> pd.DataFrame:
    """Totals of the trades by ``symbol`` or ``exit_intent``, the run's order first.

    Columns: ``trades``, ``win_rate``, ``pnl``, ``fees``, ``mean_pct``, ``best_pct``,
    ``worst_pct``, ``days`` (mean time held).
    """
    trades = run.trades.reset_index()
    trades["won"] = trades["pnl"] > 0
    held = trades["closed_at"] - trades["opened_at"]
    trades["days"] = held.dt.total_seconds() / 86_400 if len(trades) else 0.0
    totals = trades.groupby(by, sort=False).agg(
        trades=("pnl", "size"),
        win_rate=("won", "mean"),
        pnl=("pnl", "sum"),
        fees=("fees", "sum"),
        mean_pct=("pnl_pct", "mean"),
        best_pct=("pnl_pct", "max"),
        worst_pct=("pnl_pct", "min"),
        days=("days", "mean"),
    )
    if by == "symbol":
        return totals.reindex([symbol for symbol in run.symbols if symbol in totals.index])
    return totals.sort_values("trades", ascending=False)


def refusals(run: Backtest) -> pd.DataFrame:
    """Why orders came to nothing or to less, by code: ``decision``, ``fill``, ``meaning``.

    ``decision`` counts the bars at which a decision was refused (an exit is asked for anew at
    every bar), ``fill`` how often an order was cut, rejected or cancelled while it waited.
    """
    log = run.log
    decided = np.bincount(log.code.ravel(), minlength=len(CODES))
    filled = np.bincount(log.fill_code.ravel(), minlength=len(CODES))
    filled += np.bincount(log.cancel_code[log.cancel_lots != 0], minlength=len(CODES))
    rows = {
        name: (int(decided[number]), int(filled[number]), meaning)
        for number, (name, meaning) in CODES.items()
        if number != OK and decided[number] + filled[number]
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["decision", "fill", "meaning"])


def settings_of(run: Backtest) -> Iterable[tuple[str, list[tuple[str, str]]]]:
    """Everything that the run depended on, in groups of name and value, to run it again."""
    strategy, account = run.strategy, run.account
    parameters = [(name, str(value)) for name, value in strategy.parameters().items()]
    yield "Strategy", [("name", strategy.name), ("version", str(strategy.version)), *parameters]
    yield (
        "Account",
        [
            ("initial_cash", f"{account.initial_cash:,.2f}"),
            ("fee_rate", f"{account.fee_rate:g}"),
            ("slippage_bps", f"{account.slippage_bps:g}"),
            *_shown(account.model_dump(include={"volume_share_pct", "unfilled"})),
            *_shown(account.stops.model_dump()),
        ],
    )
    limits = account.limits
    yield "Limits", [("gate", "off")] if limits is None else _shown(limits.model_dump())
    filters = {} if account.filters is None else account.filters
    yield (
        "Exchange filters",
        [
            (symbol, f"lot {filters[symbol].lot_step}, minimum {filters[symbol].min_notional}")
            for symbol in run.symbols
            if symbol in filters
        ]
        or [("all symbols", "an ideal exchange: steps of 1e-8, no minimum")],
    )
    gaps = [("accepted gap", str(gap)) for gap in run.candles.gaps if gap.symbol in run.symbols]
    yield (
        "Data",
        [
            ("source", run.candles.source),
            ("window", window_of(run)),
            ("candles, SHA-256", run.candles.digest()),
            ("orders and fills, SHA-256", run.digest()),
            *gaps,
        ],
    )


def _shown(values: dict[str, object]) -> list[tuple[str, str]]:
    shown = []
    for name, value in values.items():
        if isinstance(value, dict):  # trading hours
            text = f"{value['start']} to {value['end']} UTC, {' '.join(value['days'])}"
        else:
            text = {None: "none", True: "yes", False: "no"}.get(value, str(value))  # type: ignore[call-overload]
        shown.append((name, text))
    return shown
