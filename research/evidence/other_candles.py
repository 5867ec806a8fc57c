"""Other sound candles for those that are given: what might have come instead, to see who notices.

``ts`` and prices as in ``research.candles``. Known candles are never changed: what is before the
moment asked about has the same bits. Everything is a function of its arguments; nothing is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from research.candles import COLUMNS, Candles, CandleSet, Floats, Ints

__all__ = ["Future", "Moved", "contrary_candles", "moved", "only", "scaled_candles", "with_future"]

Flags = npt.NDArray[np.bool_]


class Future(StrEnum):
    """How the candles after a moment may go on."""

    CONTRARY = "contrary"  # each move the other way and three times as far, quiet bars made busy
    VIOLENT = "violent"  # a crash where the next candle rose, else a surge
    SURGE = "surge"  # a quarter up at once, then on
    CRASH = "crash"  # a quarter down at once, then on
    STILL = "still"  # one price, and nobody trades


@dataclass(frozen=True)
class Moved:
    """Another candle for every candle of one symbol: open, high, low, close, volume."""

    columns: tuple[Floats, ...]


def with_future(
    candles: CandleSet,
    known: Sequence[int],
    future: Future,
    bars: int | None = None,
    absent: int | None = None,
) -> CandleSet:
    """The first ``known[s]`` candles of each symbol, then another future of ``bars`` candles.

    ``bars=None`` gives as many as there were, at the same times. A longer future goes on on the
    timeframe's grid. With ``absent`` every third new candle is missing, and of several symbols
    number ``absent`` has no future at all.
    """
    clock_end = max(int(one.ts[n - 1]) if n else -1 for one, n in zip(candles, known, strict=True))
    series = []
    for s, (one, n) in enumerate(zip(candles, known, strict=True)):
        count = len(one) - n if bars is None else bars
        if absent is not None and len(candles) > 1 and s == absent:
            count = 0
        series.append(_continued(one, n, count, future, clock_end, absent is not None))
    return replace(candles, series=tuple(series))


def _continued(
    one: Candles, known: int, count: int, future: Future, clock_end: int, holes: bool
) -> Candles:
    there = min(count, len(one) - known)
    ts = one.ts[known : known + there]
    if there < count:
        last = max(int(one.ts[-1]) if len(one) else clock_end, clock_end)
        more = last + one.bar_ms * np.arange(1, count - there + 1, dtype=np.int64)
        ts = np.concatenate([ts, more])
    columns = _future(one, known, count, future)
    if holes:
        here = np.arange(count) % 3 != 1
        ts, columns = ts[here], tuple(column[here] for column in columns)
    kept = (getattr(one, name)[:known] for name in COLUMNS)
    joined = (np.concatenate(pair) for pair in zip(kept, columns, strict=True))
    return Candles(one.symbol, one.timeframe, np.concatenate([one.ts[:known], ts]), *joined)


def _future(one: Candles, known: int, count: int, future: Future) -> tuple[Floats, ...]:
    base = float(one.close[known - 1]) if known else float(one.open[0]) if len(one) else 1.0
    if future is Future.CONTRARY and known < len(one):
        return _contrary_path(one, known, count, base)
    if future is Future.VIOLENT:
        rose = known < len(one) and float(one.close[known]) > base
        future = Future.CRASH if rose else Future.SURGE
    step = np.arange(count)
    if future is Future.STILL:
        return (*(np.full(count, base) for _ in range(4)), np.zeros(count))
    rise = 1.25 + 0.002 * step
    close = np.asarray(base / rise if future is Future.CRASH else base * rise, dtype=np.float64)
    opens: Floats = np.concatenate([[base], close[:-1]])[:count]
    top: Floats = np.maximum(opens, close) * 1.01
    bottom: Floats = np.minimum(opens, close) * 0.99
    traded = float(one.volume[known - 1]) if known else 1.0
    volume = np.asarray(20.0 * (traded + 1.0) + step, dtype=np.float64)
    return opens, top, bottom, close, volume


def _contrary_path(one: Candles, known: int, count: int, base: float) -> tuple[Floats, ...]:
    """The path mirrored at the last known close, on a log scale, three times as far."""
    rows = np.minimum(np.arange(known, known + count), len(one) - 1)
    # One percent more, the other way: what moved little or not at all is to be seen as well.
    nudge = 0.99 if float(one.close[known]) > base else 1.01
    # A mirror turns high into low.
    opens, low, high, close = (
        base * np.clip((base / getattr(one, name)[rows]) ** 3, 0.02, 50.0) * nudge
        for name in ("open", "high", "low", "close")
    )
    return opens, high, low, close, _contrary_volume(one, rows)


def _contrary_volume(one: Candles, rows: Ints) -> Floats:
    usual = float(np.median(one.volume)) + 1.0
    volume: Floats = np.where(one.volume[rows] > usual, 0.01 * usual, 100.0 * usual)
    return volume


def contrary_candles(one: Candles, stretch: float) -> Moved:
    """For every candle one that moves from the close before: -3 mirrors and trebles, 5 exaggerates.

    Each by itself: the candle before it is the one that is there.
    """
    if not len(one):
        return Moved(tuple(np.empty(0) for _ in COLUMNS))
    before = np.concatenate([one.open[:1], one.close[:-1]])
    nudge = np.where((one.close > before) == (stretch > 0), 1.01, 0.99)
    bent = [
        before * np.clip((getattr(one, name) / before) ** stretch, 0.2, 5.0) * nudge
        for name in COLUMNS[:4]
    ]
    opens, high, low, close = bent if stretch > 0 else (bent[0], bent[2], bent[1], bent[3])
    return Moved((opens, high, low, close, _contrary_volume(one, np.arange(len(one)))))


def scaled_candles(one: Candles, factor: float) -> Moved:
    """For every candle one whose prices and volume are ``factor`` times as large."""
    return Moved(tuple(getattr(one, name) * factor for name in COLUMNS))


def moved(candles: CandleSet, others: Sequence[Moved], flags: Sequence[Flags]) -> CandleSet:
    """The same set with those candles of ``others`` whose flag is set; flags as long as symbols."""
    series = []
    for one, other, flag in zip(candles, others, flags, strict=True):
        pairs = zip(COLUMNS, other.columns, strict=True)
        columns = (np.where(flag, column, getattr(one, name)) for name, column in pairs)
        series.append(Candles(one.symbol, one.timeframe, one.ts, *columns))
    return replace(candles, series=tuple(series))


def only(candles: CandleSet, other: CandleSet, symbol: str, columns: Sequence[str]) -> CandleSet:
    """``candles`` with these columns of one symbol taken from ``other``; its ts are the same.

    A candle so made need not be sound: its close may lie above its high.
    """
    series = tuple(
        replace(one, **{name: getattr(other[symbol], name) for name in columns})
        if one.symbol == symbol
        else one
        for one in candles
    )
    return replace(candles, series=series)
