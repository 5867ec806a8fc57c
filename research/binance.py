"""Market data in Binance's own REST, read strictly: raw ``klines``, which keep the close time.

``ccxt.fetch_ohlcv`` lets NaN, HTML and forming candles pass, so it is not used here. Symbols as the
exchange writes them (BTCUSDT), times UTC milliseconds, ranges ``[start, stop)``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from research.answers import (
    DayStatistics,
    Listing,
    parse_day,
    parse_listings,
    parse_price,
    parse_time,
)
from research.candles import Candles
from research.klines import parse_klines
from research.transport import Transport

__all__ = ["Binance"]


class Binance:
    """What ``research.exchange.MarketData`` asks, in Binance's words."""

    page = 1000

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def server_time(self) -> int:
        return parse_time(self._transport.ask(lambda ccxt: ccxt.publicGetTime()))

    def probe(self, timeout_s: float) -> None:
        """Ask for the time once. Raises ExchangeError."""
        parse_time(self._transport.probe(lambda ccxt: ccxt.publicGetTime(), timeout_s))

    def candles(self, symbol: str, timeframe: str, start: int, stop: int, now: int) -> Candles:
        """At most ``page`` candles from ``start`` on, oldest first, the forming one included."""
        query = {"symbol": symbol, "interval": timeframe, "limit": self.page}
        query |= {"startTime": start, "endTime": stop - 1}
        answer = self._transport.ask(lambda ccxt: ccxt.publicGetKlines(dict(query)))
        return parse_klines(answer, symbol, timeframe, now).candles

    def price(self, symbol: str) -> float:
        query = {"symbol": symbol}
        answer = self._transport.ask(lambda ccxt: ccxt.publicGetTickerPrice(dict(query)))
        return parse_price(answer, symbol)

    def day(self, symbol: str) -> DayStatistics:
        query = {"symbol": symbol}
        answer = self._transport.ask(lambda ccxt: ccxt.publicGetTicker24hr(dict(query)))
        return parse_day(answer, symbol)

    def listings(self, symbols: Sequence[str]) -> dict[str, Listing]:
        query = {"symbols": json.dumps(list(symbols), separators=(",", ":"))}
        answer = self._transport.ask(lambda ccxt: ccxt.publicGetExchangeInfo(dict(query)))
        return parse_listings(answer, symbols)
