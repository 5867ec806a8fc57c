"""Where a session's candles come from: the store, refreshed from the exchange, or a replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from research.candles import CandleSet
from research.exchange import MarketData
from research.fetching import top_up
from research.history import History, Series

__all__ = ["ExchangeFeed", "Feed", "ReplayFeed"]


class Feed(Protocol):
    """What a session asks of the market. All times are UTC milliseconds."""

    def closed(self, now: int) -> CandleSet:
        """Every candle from the artefact's first bar on that had closed at ``now``."""
        ...

    def forming(self, now: int) -> dict[str, tuple[int, float]]:
        """By symbol the (open time, open price) of the candle forming at ``now``, where it has
        shown a trade. Nothing else of a forming candle is ever asked for."""
        ...


@dataclass(frozen=True)
class ReplayFeed:
    """Stored candles shown one by one, as if they were happening now."""

    candles: CandleSet

    def closed(self, now: int) -> CandleSet:
        return self.candles.closed_by(now)

    def forming(self, now: int) -> dict[str, tuple[int, float]]:
        opens = {}
        for one in self.candles:
            i = int(np.searchsorted(one.ts, now, side="right")) - 1
            if i >= 0 and one.ts[i] + one.bar_ms > now:
                opens[one.symbol] = (int(one.ts[i]), float(one.open[i]))
        return opens


@dataclass(frozen=True)
class ExchangeFeed:
    """The store, topped up from the exchange at every call."""

    history: History
    market: MarketData
    exchange: str
    symbols: tuple[str, ...]
    timeframe: str
    start: int

    def closed(self, now: int) -> CandleSet:
        for symbol in self.symbols:
            series = Series(self.exchange, symbol, self.timeframe)
            for _ in top_up(self.history, self.market, series, (self.start, now), now):
                pass  # each page is stored as it comes
        stored = self.history.load(self.symbols, self.timeframe, self.start, exchange=self.exchange)
        return stored.closed_by(now)

    def forming(self, now: int) -> dict[str, tuple[int, float]]:
        opens = {}
        for symbol in self.symbols:
            seen = self.market.forming_open(symbol, self.timeframe)
            if seen is not None and seen[0] <= now:
                opens[symbol] = seen
        return opens
