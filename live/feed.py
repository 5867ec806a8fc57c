"""Where a session's candles come from: the store, refreshed from the exchange, or a replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from research.account import Filters
from research.answers import TRADING, Listing
from research.candles import CandleSet, Gap, iso
from research.errors import ExchangeRefused, MarketChanged
from research.exchange import MarketData
from research.fetching import top_up
from research.history import History, Series
from research.history_manifest import Revision

__all__ = ["ExchangeFeed", "Feed", "ReplayFeed", "require_same_market"]

# Our clock and the exchange's may differ by this much before nothing is decided.
CLOCK_TOLERANCE_MS = 30_000


class Feed(Protocol):
    """What a session asks of the market. All times are UTC milliseconds."""

    def closed(self, now: int) -> CandleSet:
        """Every candle from the artefact's first bar on that had closed at ``now``."""
        ...

    def require_tradable(self, filters: Mapping[str, Filters]) -> None:
        """Each symbol trades, by these very filters, else MarketChanged."""
        ...

    def restated(self) -> list[tuple[str, Revision]]:
        """By symbol the candles that came again with other values; the first-seen ones stand."""
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

    def require_tradable(self, filters: Mapping[str, Filters]) -> None:
        """Stored candles trade as they did."""

    def restated(self) -> list[tuple[str, Revision]]:
        return []

    def forming(self, now: int) -> dict[str, tuple[int, float]]:
        opens = {}
        for one in self.candles:
            i = int(np.searchsorted(one.ts, now, side="right")) - 1
            if i >= 0 and one.ts[i] + one.bar_ms > now:
                opens[one.symbol] = (int(one.ts[i]), float(one.open[i]))
        return opens


@dataclass(frozen=True)
class ExchangeFeed:
    """The store, topped up from the exchange at every call.

    ``gaps`` are accepted elsewhere, beside those that the store has accepted.
    """

    history: History
    market: MarketData
    exchange: str
    symbols: tuple[str, ...]
    timeframe: str
    start: int
    gaps: tuple[Gap, ...] = ()

    def closed(self, now: int) -> CandleSet:
        theirs = self.market.server_time()
        _require_one_clock(theirs, now)
        moment = min(theirs, now)
        for symbol in self.symbols:
            series = Series(self.exchange, symbol, self.timeframe)
            for _ in top_up(self.history, self.market, series, (self.start, moment), moment):
                pass  # each page is stored as it comes
        stored = self.history.load(self.symbols, self.timeframe, self.start, exchange=self.exchange)
        known = replace(stored, gaps=tuple(dict.fromkeys((*stored.gaps, *self.gaps))))
        return known.closed_by(now)

    def restated(self) -> list[tuple[str, Revision]]:
        found = []
        for symbol in self.symbols:
            manifest = self.history.manifest(self.exchange, symbol, self.timeframe)
            found += [(symbol, one) for one in manifest.revisions if one.ts >= self.start]
        return found

    def require_tradable(self, filters: Mapping[str, Filters]) -> None:
        require_same_market(filters, self.market.listings(tuple(filters)))

    def forming(self, now: int) -> dict[str, tuple[int, float]]:
        opens = {}
        for symbol in self.symbols:
            seen = self.market.forming_open(symbol, self.timeframe, now)
            if seen is not None:
                opens[symbol] = seen
        return opens


def _require_one_clock(theirs: int, ours: int) -> None:
    if abs(theirs - ours) > CLOCK_TOLERANCE_MS:
        raise ExchangeRefused(
            f"the exchange's clock and ours are {abs(theirs - ours) / 1000:.0f} s apart",
            field="clock",
            value=iso(theirs),
            expected=f"about {iso(ours)}",
            remedy="Set this machine's clock (NTP). Nothing is decided until they agree.",
        )


def require_same_market(filters: Mapping[str, Filters], listings: Mapping[str, Listing]) -> None:
    """Each symbol trades, and by the filters that were promoted. Raises MarketChanged.

    ``min_trade_size`` is our own and not the exchange's.
    """
    for symbol, frozen in filters.items():
        listing = listings[symbol]
        if listing.status != TRADING:
            raise MarketChanged(
                field=f"{symbol} status",
                value=listing.status,
                expected=TRADING,
                remedy="Nothing is decided until it trades again.",
            )
        for name, value in frozen:
            live = getattr(listing.filters, name)
            if name != "min_trade_size" and live != value:
                raise MarketChanged(
                    field=f"{symbol} filter {name}",
                    value=f"{live:f}",
                    expected=f"{value:f}, as promoted",
                    remedy="Promote again by today's filters (candlebook filters fetch) under a "
                    "new name. To let this account's exits go on, trip the kill switch: "
                    "candlebook kill.",
                )
