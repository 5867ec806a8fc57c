"""Performance figures from sequential accumulators, shared by backtest and sweep.

A ``Tally`` is updated once a bar from the engine's log. Backtest and sweep add the same numbers in
the same order, and a flat bar adds exactly nothing, so that their figures are equal to the bit.

Returns are per bar, equity over previous equity minus one, from the initial cash on. A year has
365 days, since crypto does not close. Ratios and shares are fractions: 0.12 is 12 %.

Deviations come from sums of squares, which cost one pass and no memory but are uncertain in their
last digits. A deviation that is no larger than that uncertainty (bar returns that are all the same,
nearly) is none: the ratio over it is undefined, NaN, instead of a huge number made of rounding.
"""

from __future__ import annotations

import math
import sys
from functools import cache
from typing import Any, Final, NamedTuple

from research.candles import DAY
from research.compiled import compile_kernel
from research.engine import INTERPRETED_BARS, KERNEL_MODULES
from research.risk import Rules, quantity_of
from research.state import Log, as_arrays

__all__ = [
    "METRICS",
    "Metrics",
    "Tally",
    "finite",
    "metrics_of",
    "opening_tally",
    "tally_bar",
    "tally_log",
]

YEAR_DAYS: Final = 365
EPSILON: Final = sys.float_info.epsilon


class Tally(NamedTuple):
    """Running sums of one run. The last two hold one value a symbol: the open trade's cash flow
    (what it paid and received so far, fees included) and the lots it holds."""

    bars: int
    equity: float
    peak: float
    max_drawdown: float
    sum_return: float
    sum_square: float
    sum_downside: float
    exposure: float
    bars_in_market: int
    turnover: float
    fees: float
    trades: int
    wins: int
    gross_profit: float
    gross_loss: float
    flow: Any
    held: Any


class Metrics(NamedTuple):
    """The figures of one run; ``METRICS`` says what each means."""

    total_return: float
    cagr: float
    sharpe: float
    sortino: float
    max_drawdown: float
    trades: int
    win_rate: float
    profit_factor: float
    exposure: float
    time_in_market: float
    turnover: float
    fees_paid: float
    final_equity: float


METRICS: Final[dict[str, tuple[str, str]]] = {
    "total_return": ("Total return", "final equity over initial cash, minus one"),
    "cagr": ("CAGR", "the yearly growth that compounds to the total return"),
    "sharpe": (
        "Sharpe ratio",
        "mean over standard deviation (n - 1) of bar returns, a year of 365 days; Sharpe (1994)",
    ),
    "sortino": (
        "Sortino ratio",
        "mean over root mean square of negative bar returns, a year; Sortino and Price (1994)",
    ),
    "max_drawdown": ("Max drawdown", "largest fall of equity from its highest close before"),
    "trades": ("Trades", "round trips from flat to flat that have ended"),
    "win_rate": ("Win rate", "share of trades that ended with a profit after fees"),
    "profit_factor": ("Profit factor", "profit of winning trades over loss of the others"),
    "exposure": ("Exposure", "mean share of equity held in positions at the close"),
    "time_in_market": ("Time in market", "share of bars that closed with a position"),
    "turnover": ("Turnover", "traded value over equity, a year"),
    "fees_paid": ("Fees paid", "in quote currency"),
    "final_equity": ("Final equity", "in quote currency, positions at the last close"),
}


def opening_tally(cash: float, symbols: int) -> Tally:
    """The tally of a run that has not begun: every sum is zero."""
    return Tally(
        bars=0,
        equity=cash,
        peak=cash,
        max_drawdown=0.0,
        sum_return=0.0,
        sum_square=0.0,
        sum_downside=0.0,
        exposure=0.0,
        bars_in_market=0,
        turnover=0.0,
        fees=0.0,
        trades=0,
        wins=0,
        gross_profit=0.0,
        gross_loss=0.0,
        flow=[0.0] * symbols,
        held=[0] * symbols,
    )


def tally_bar(tally: Tally, log: Log, row: int, rules: Rules) -> Tally:
    """The tally after one more bar; its two sequences are changed in place."""
    turnover, fees = tally.turnover, tally.fees
    trades, wins = tally.trades, tally.wins
    profit, loss = tally.gross_profit, tally.gross_loss
    for s in range(len(tally.held)):
        for is_stop in (False, True):
            lots = log.stop_lots[row][s] if is_stop else log.fill_lots[row][s]
            if lots == 0:
                continue
            price = log.stop_price[row][s] if is_stop else log.fill_price[row][s]
            fee = log.stop_fee[row][s] if is_stop else log.fill_fee[row][s]
            signed = quantity_of(lots, rules, s) * price
            turnover = turnover + abs(signed) / tally.equity
            fees = fees + fee
            tally.flow[s] = tally.flow[s] - signed - fee
            tally.held[s] = tally.held[s] + lots
            if tally.held[s] == 0:
                trades = trades + 1
                if tally.flow[s] > 0.0:
                    wins = wins + 1
                    profit = profit + tally.flow[s]
                else:
                    loss = loss - tally.flow[s]
                tally.flow[s] = 0.0

    equity, invested = log.equity[row], log.equity[row] - log.cash[row]
    change = equity / tally.equity - 1.0
    downside = min(change, 0.0)
    peak = max(tally.peak, equity)
    return Tally(
        tally.bars + 1,
        equity,
        peak,
        max(tally.max_drawdown, 1.0 - equity / peak),
        tally.sum_return + change,
        tally.sum_square + change * change,
        tally.sum_downside + downside * downside,
        tally.exposure + invested / equity,
        tally.bars_in_market + (1 if invested > 0.0 else 0),
        turnover,
        fees,
        trades,
        wins,
        profit,
        loss,
        tally.flow,
        tally.held,
    )


def metrics_of(tally: Tally, initial_cash: float, bar_ms: int) -> Metrics:
    """The figures of a finished tally. What cannot be said (no bar, no trade, no deviation beyond
    rounding) is NaN."""
    n = tally.bars
    bars_a_year = YEAR_DAYS * DAY / bar_ms
    years = n / bars_a_year
    growth = tally.equity / initial_cash
    mean = tally.sum_return / n if n else math.nan
    squares = tally.sum_square - n * mean * mean if n else 0.0
    # A return is rounded to EPSILON, a sum of n terms to n EPSILON of itself.
    noise = n * EPSILON * EPSILON
    variance = squares / (n - 1) if squares > noise + n * EPSILON * tally.sum_square else math.nan
    downside = tally.sum_downside / n if tally.sum_downside > noise else math.nan
    return Metrics(
        total_return=growth - 1.0,
        cagr=_power(growth, years),
        sharpe=_ratio(mean, variance) * math.sqrt(bars_a_year),
        sortino=_ratio(mean, downside) * math.sqrt(bars_a_year),
        max_drawdown=tally.max_drawdown,
        trades=int(tally.trades),
        win_rate=tally.wins / tally.trades if tally.trades else math.nan,
        profit_factor=_profit_factor(tally.gross_profit, tally.gross_loss),
        exposure=tally.exposure / n if n else math.nan,
        time_in_market=tally.bars_in_market / n if n else math.nan,
        turnover=tally.turnover / years if n else math.nan,
        fees_paid=float(tally.fees),
        final_equity=float(tally.equity),
    )


def _power(growth: float, years: float) -> float:
    try:
        return growth ** (1.0 / years) - 1.0 if growth > 0.0 and years > 0.0 else math.nan
    except OverflowError:  # a few bars of gain, compounded over a year, can pass every float
        return math.inf


def _ratio(mean: float, variance: float) -> float:
    return mean / math.sqrt(variance) if variance > 0.0 else math.nan


def _profit_factor(profit: float, loss: float) -> float:
    if loss > 0.0:
        return profit / loss
    return math.inf if profit > 0.0 else math.nan


def finite(value: float) -> float | None:
    """A figure as a file keeps it: None where it is undefined or infinite."""
    return float(value) if math.isfinite(value) else None


def tally_log(log: Log, rules: Rules, initial_cash: float) -> Tally:
    """The tally of a whole log (numpy arrays); compiled where that is sooner done."""
    bars, symbols = log.fill_lots.shape
    tally = opening_tally(initial_cash, symbols)
    if bars <= INTERPRETED_BARS:
        return _tally_all(tally, Log._make(column.tolist() for column in log), rules)
    counted: Tally = _compiled_tally()(as_arrays(tally), log, as_arrays(rules))
    return counted


def _tally_all(tally: Tally, log: Log, rules: Rules) -> Tally:
    for row in range(len(log.equity)):
        tally = tally_bar(tally, log, row, rules)
    return tally


@cache
def _compiled_tally() -> Any:
    return compile_kernel(_tally_all, (*KERNEL_MODULES, sys.modules[__name__]))
