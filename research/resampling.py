"""Bars of a longer timeframe out of shorter ones, as the exchange itself would have drawn them.

A longer bar lies on the UTC grid: the open of its first candle, the highest high, the lowest low,
the close of its last candle, and the volume, which is the float nearest to the exact decimal sum,
since an exchange adds decimals. Times are opens in UTC milliseconds.

No bar is invented: one of which no candle is left stays missing, one in which some are missing is
made of those that are there, and the first and last bar are left out unless the candles reach from
their first to their last moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, localcontext
from itertools import pairwise

import numpy as np

from research.candles import (
    COLUMNS,
    Candles,
    Floats,
    Gap,
    iso,
    require_sound,
    timeframe_ms,
)
from research.errors import HistoryMissing, InputError, ParameterError
from research.history import AppendReport, History, Series

__all__ = [
    "Difference",
    "Resampled",
    "compare_resampled",
    "find_differences",
    "resample",
    "store_resampled",
]

# Digits enough for any sum of floats (the largest is 1.8e308, the smallest 4.9e-324), and a trap
# that would tell if they were not. What is not needed costs nothing.
_EXACT = Context(prec=2000, traps=[Inexact])


def resample(candles: Candles, timeframe: str) -> Candles:
    """The bars of ``timeframe`` that sound, sorted ``candles`` make up; possibly none.

    Raises ParameterError for a timeframe that is not a longer, whole multiple of theirs,
    UnknownNameError for one that does not exist, CandlesRejected for candles that are not sound.
    """
    bar = timeframe_ms(timeframe)
    if bar <= candles.bar_ms or bar % candles.bar_ms:
        raise ParameterError(
            field="timeframe",
            value=timeframe,
            expected=f"a longer, whole multiple of {candles.timeframe}",
        )
    require_sound(candles)
    whole = _covered(candles, bar)
    if not len(whole):
        return Candles(candles.symbol, timeframe, whole.ts, *(whole.open for _ in COLUMNS))
    buckets = whole.ts // bar * bar
    firsts = np.flatnonzero(np.diff(buckets, prepend=-1))
    stops = np.append(firsts[1:], len(whole))
    return Candles(
        candles.symbol,
        timeframe,
        buckets[firsts],
        open=whole.open[firsts],
        high=np.maximum.reduceat(whole.high, firsts),
        low=np.minimum.reduceat(whole.low, firsts),
        close=whole.close[stops - 1],
        volume=_exact_sums(whole.volume, [*firsts.tolist(), len(whole)]),
    )


def _covered(candles: Candles, bar: int) -> Candles:
    """The candles without those of a first or last bar that they do not reach the ends of."""
    if not len(candles):
        return candles
    start = -(-int(candles.ts[0]) // bar) * bar
    end = (int(candles.ts[-1]) + candles.bar_ms) // bar * bar
    return candles.between(start, end)


def _exact_sums(values: Floats, cuts: list[int]) -> Floats:
    """For each pair of neighbouring cuts the float nearest to the sum of what the values *read*.

    Adding floats in any order, even without loss, adds their binary rounding as well, and
    differs from the exchange in the last bits.
    """
    decimals = [Decimal(repr(value)) for value in values.tolist()]
    with localcontext(_EXACT):
        return np.array([float(sum(decimals[a:b])) for a, b in pairwise(cuts)])


# Against the exchange's own


@dataclass(frozen=True, slots=True)
class Difference:
    """One value of the bar that opens at ``ts`` on which two series disagree."""

    ts: int
    column: str
    ours: float
    theirs: float

    def __str__(self) -> str:
        return f"{iso(self.ts)} {self.column}: ours {self.ours!r}, theirs {self.theirs!r}"


def compare_resampled(finer: Candles, longer: Candles) -> tuple[Difference, ...]:
    """Where ``finer``, resampled, is not bit for bit ``longer``, over the bars that both have.

    In order of time, then of column. Raises what ``resample`` and ``find_differences`` raise.
    """
    return find_differences(resample(finer, longer.timeframe), longer)


def find_differences(ours: Candles, theirs: Candles) -> tuple[Difference, ...]:
    """The values that differ, over the bars that both series have; sorted, unique opens.

    In order of time, then of column. Raises InputError for series of two symbols or timeframes.
    """
    mine, others = ((one.symbol, one.timeframe) for one in (ours, theirs))
    if mine != others:
        raise InputError(field="candles", value=" ".join(others), expected=" ".join(mine))
    common, left, right = np.intersect1d(
        ours.ts, theirs.ts, assume_unique=True, return_indices=True
    )
    a = np.stack([getattr(ours, name)[left] for name in COLUMNS], axis=1)
    b = np.stack([getattr(theirs, name)[right] for name in COLUMNS], axis=1)
    return tuple(
        Difference(int(common[row]), COLUMNS[column], float(a[row, column]), float(b[row, column]))
        for row, column in np.argwhere(a != b).tolist()
    )


# In the store


@dataclass(frozen=True, slots=True)
class Resampled:
    """What was stored of a resampled series, and the gaps that were accepted along with it."""

    report: AppendReport
    accepted: tuple[Gap, ...]


def store_resampled(
    history: History, series: Series, timeframe: str, at: int | None = None
) -> Resampled:
    """Resample a stored series and append the result; what is stored already stays as it is.

    The source is recorded as ``resampled from 1m``. A gap that was accepted in the finer series is
    accepted, under the same name and for the same reason, where bars of the longer one are missing
    within it; ``at`` is when, by the wall clock unless given. Raises GapNotAccepted for missing
    bars in the finer series, HistoryMissing where it makes up no bar, and what ``resample``,
    ``History.load`` and ``History.append`` raise; nothing is written then.
    """
    exchange, symbol, finer = series.exchange, series.symbol, series.timeframe
    stored = history.load([symbol], finer, exchange=exchange)
    stored.require_gaps_accepted()
    made = resample(stored[symbol], timeframe)
    if not len(made):
        raise HistoryMissing(
            f"its candles make up no whole bar of {timeframe}",
            field=str(series),
            remedy=f"Store more of it: {series.fetch_command}",
        )
    report = history.append(exchange, made, f"resampled from {finer}")
    known = history.manifest(exchange, symbol, finer).accepted
    accepted = []
    for gap in history.manifest(exchange, symbol, timeframe).open_gaps():
        for one in known:
            if one.start <= gap.start and gap.end <= one.end:
                address, span = (exchange, symbol, timeframe), (gap.start, gap.end)
                words = (one.name, one.who, one.why)
                accepted.append(history.accept_gap(*address, *span, *words, at))
                break
    return Resampled(report, tuple(accepted))
