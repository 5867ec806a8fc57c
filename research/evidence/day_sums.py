"""A run cut into its UTC days, so that days put together anew give the figures of such a run.

Of each day only sums are kept, and the shape of its equity relative to where the day began. Sums
add up and equity multiplies, so that the figures of any sequence of days are, to rounding, those
that ``research.metrics`` gives for a run that had lived its bars in that sequence. A close belongs
to the UTC date of its time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from research.backtesting import Backtest
from research.candles import Floats, Ints
from research.daily import day_ends
from research.metrics import Metrics, Tally, metrics_of
from research.state import Log

__all__ = ["DaySums", "day_sums_of", "figures_of_days"]


@dataclass(frozen=True, eq=False)
class DaySums:
    """What each day of a run adds to its figures; arrays hold one value a day.

    ``growth`` is equity at the day's end over that at its beginning, ``highest`` and ``lowest`` the
    extremes of equity at its closes, the beginning among them, in the same measure; ``drawdown`` is
    the largest fall within the day. ``sums``, days x 8, holds bars, sum of bar returns, of their
    squares, of the squares of negative ones, of exposure, bars in the market, turnover (traded
    value over equity) and trades ended. ``fees`` are over equity at the beginning.
    """

    growth: Floats
    highest: Floats
    lowest: Floats
    drawdown: Floats
    sums: Floats
    fees: Floats
    initial_cash: float
    bar_ms: int

    def __len__(self) -> int:
        return len(self.growth)


def day_sums_of(run: Backtest) -> DaySums:
    """The days of ``run``, in order; only days with a close are there."""
    log, ends = run.log, day_ends(run.tape.close_time)
    begins = np.append(0, ends + 1)[:-1]
    before = np.append(run.account.initial_cash, log.equity)[:-1]
    change = log.equity / before - 1.0
    invested = log.equity - log.cash
    traded, ended = _traded(run), _ended(log)
    columns = (
        np.ones(len(before)),
        change,
        change * change,
        np.minimum(change, 0.0) ** 2,
        invested / log.equity,
        invested > 0.0,
        traded / before,
        ended,
    )
    at_begin = before[begins]
    day = np.repeat(np.arange(len(ends)), ends - begins + 1)
    shape = log.equity / at_begin[day]
    fees = (log.fill_fee + log.stop_fee).sum(axis=1)
    return DaySums(
        growth=shape[ends],
        highest=np.maximum(1.0, np.maximum.reduceat(shape, begins)),
        lowest=np.minimum(1.0, np.minimum.reduceat(shape, begins)),
        drawdown=_falls_within(shape, begins, ends),
        sums=np.add.reduceat(np.column_stack(columns).astype(np.float64), begins, axis=0),
        fees=np.add.reduceat(fees, begins) / at_begin,
        initial_cash=run.account.initial_cash,
        bar_ms=run.candles.bar_ms,
    )


def _traded(run: Backtest) -> Floats:
    """The traded value of each bar, in quote currency."""
    log, rules = run.log, run.rules
    value = np.abs(log.fill_lots) * log.fill_price + np.abs(log.stop_lots) * log.stop_price
    a_lot = np.asarray(rules.lot_numerator, float) / np.asarray(rules.lot_denominator, float)
    return np.asarray((value * a_lot).sum(axis=1), np.float64)


def _ended(log: Log) -> Ints:
    """How many round trips ended in each bar; within a bar a fill comes before a stop."""
    moved = np.cumsum(log.fill_lots + log.stop_lots, axis=0)
    by_stop = (log.stop_lots != 0) & (moved == 0)
    by_fill = (log.fill_lots != 0) & (moved - log.stop_lots == 0)
    return np.asarray(by_stop.sum(axis=1) + by_fill.sum(axis=1), np.int64)


def _falls_within(shape: Floats, begins: Ints, ends: Ints) -> Floats:
    """The largest fall of ``shape`` (1 before each day) from its highest before, day by day."""
    found = np.empty(len(begins))
    for day, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        path = np.append(1.0, shape[begin : end + 1])
        found[day] = np.max(1.0 - path / np.maximum.accumulate(path))
    return found


def figures_of_days(days: DaySums, indices: Ints) -> list[Metrics]:
    """The figures of runs that lived the days ``indices``, draws x n, each row a run in its order.

    Trades are those that ended on these days; of how they ended nothing is known here: win rate and
    profit factor are NaN.
    """
    growth = days.growth[indices]
    after = np.cumprod(growth, axis=1)
    before = np.hstack([np.ones((len(after), 1)), after[:, :-1]])
    peak = np.maximum.accumulate(before * days.highest[indices], axis=1)
    peak_before = np.hstack([np.ones((len(after), 1)), peak[:, :-1]])
    # The fall to a day's lowest from a peak of earlier days, or one that the day holds itself.
    across = 1.0 - before * days.lowest[indices] / peak_before
    falls = np.maximum(across, days.drawdown[indices]).max(axis=1)
    fees = days.initial_cash * (before * days.fees[indices]).sum(axis=1)
    sums = _counts(indices, len(days)) @ days.sums
    rows = zip(after[:, -1].tolist(), falls.tolist(), fees.tolist(), sums.tolist(), strict=True)
    return [_figures(days, *row) for row in rows]


def _counts(indices: Ints, days: int) -> Floats:
    """How often each row drew each day: draws x days."""
    draws = len(indices)
    flat = (indices + np.arange(draws)[:, None] * days).ravel()
    return np.bincount(flat, minlength=draws * days).reshape(draws, days).astype(np.float64)


def _figures(days: DaySums, grown: float, fall: float, fees: float, sums: list[float]) -> Metrics:
    bars, change, square, downside, exposure, in_market, turnover, ended = sums
    cash = days.initial_cash
    tally = Tally(
        bars=round(bars),
        equity=cash * grown,
        peak=cash,
        max_drawdown=fall,
        sum_return=change,
        sum_square=square,
        sum_downside=downside,
        exposure=exposure,
        bars_in_market=round(in_market),
        turnover=turnover,
        fees=fees,
        trades=0,
        wins=0,
        gross_profit=0.0,
        gross_loss=0.0,
        flow=(),
        held=(),
    )
    return metrics_of(tally, cash, days.bar_ms)._replace(trades=round(ended))
