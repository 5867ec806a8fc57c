"""The one story that a symbol's stored candles tell: which series says what happened, and when.

Of several timeframes the finest that reaches over a moment tells of it. A longer candle is told by
its own walk until a finer series sets in, and again where that ends. Prices, forming candles, the
last day and the settling of orders are all read from here. Times are UTC milliseconds. A gap of the
teller stays a gap: the price stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from live.replay.walk import FIRST_TRADE_MS, Bar, bar_at, price_at, reached, seen
from research.candles import Candles

__all__ = ["Story"]


class _Chapter(NamedTuple):
    """``candles`` tell what happened in ``[start, end)``, perhaps from within one of them on."""

    start: int
    end: int
    candles: Candles

    def bars(self, begin: int, end: int) -> Candles:
        """Those that end after ``begin`` and open by ``end``, as far as they are told here."""
        ts, bar_ms = self.candles.ts, self.candles.bar_ms
        bounds = max(begin, self.start) - bar_ms + 1, min(end + 1, self.end)
        first, stop = (int(one) for one in np.searchsorted(ts, bounds))
        if self.end <= begin or end < self.start:
            stop = first
        return self.candles.rows(first, max(first, stop))


class Story:
    """What happened to one symbol, told by its series; ``tick`` is the step of its prices."""

    def __init__(self, series: Sequence[Candles], tick: Decimal) -> None:
        self._tick = tick
        self._chapters = _chapters([one for one in series if len(one)])

    def price(self, now: int) -> float | None:
        """The last traded price; None before the first trade."""
        for chapter in reversed(self._chapters):
            told = chapter.bars(0, now)
            # The last bar may not have traded yet; the one before it has.
            for i in range(len(told) - 1, max(len(told) - 3, -1), -1):
                elapsed = min(min(now, chapter.end) - int(told.ts[i]), told.bar_ms)
                if elapsed == told.bar_ms:
                    return float(told.close[i])
                if elapsed >= FIRST_TRADE_MS and told.volume[i] > 0:
                    return price_at(bar_at(told, i), elapsed / told.bar_ms, self._tick)
        return None

    def forming(self, candles: Candles, now: int) -> Bar | None:
        """The candle of one series that forms at ``now``; None where none is stored there."""
        begin = now // candles.bar_ms * candles.bar_ms
        i = int(np.searchsorted(candles.ts, begin))
        if i == len(candles) or candles.ts[i] != begin:
            return None  # a stored gap stays a gap
        price = self.price(now)
        traded = [one for one in self.bars(begin, now) if one.volume > 0]
        if not traded or price is None:
            flat = float(candles.open[i]) if price is None else price
            return Bar(begin, flat, flat, flat, flat, 0.0)
        return Bar(
            begin,
            traded[0].open,
            max(price, *(one.high for one in traded)),
            min(price, *(one.low for one in traded)),
            price,
            float(sum(Decimal(repr(one.volume)) for one in traded)),
        )

    def bars(self, begin: int, now: int) -> list[Bar]:
        """The tellers' bars that end after ``begin``, each as far as it has been walked."""
        bars = []
        for chapter in self._chapters:
            told = chapter.bars(begin, now)
            for i in range(len(told)):
                bar = bar_at(told, i)
                since = max(chapter.start - bar.ts, 0)
                until = min(min(now, chapter.end) - bar.ts, told.bar_ms)
                if until >= FIRST_TRADE_MS and until > since:
                    parts = until / told.bar_ms, since / told.bar_ms
                    bars.append(seen(bar, parts[0], self._tick, parts[1]))
        return bars

    def crossing(self, begin: int, end: int, level: float, rising: bool) -> int | None:
        """When in ``(begin, end]`` it first traded at ``level`` or above (below, if not rising)."""
        for chapter in self._chapters:
            first, last = max(begin, chapter.start), min(end, chapter.end)
            found = reached(chapter.bars(begin, end), first, last, level, rising)
            if found is not None:
                return found
        return None


def _chapters(series: Sequence[Candles]) -> tuple[_Chapter, ...]:
    """Who tells what, in order of time; none of ``series`` is empty."""
    spans = [(one, int(one.ts[0]), int(one.ts[-1]) + one.bar_ms) for one in series]
    edges = sorted({edge for _, *span in spans for edge in span})
    chapters = []
    for start, end in pairwise(edges):
        there = [one for one, first, last in spans if first <= start and end <= last]
        if there:
            chapters.append(_Chapter(start, end, min(there, key=lambda one: one.bar_ms)))
    return tuple(chapters)
