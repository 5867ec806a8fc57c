"""Market data of any exchange that ccxt has, through its unified interface, with the same checks.

``fetch_ohlcv`` gives no close time: a candle is taken to close one timeframe after its open, by the
exchange's clock. What ccxt hands on unchecked (rows of None, of text, of NaN) is refused here.
Symbols are written as everywhere in Candlebook, base and quote in one word (BTCUSDT); ccxt's
``BTC/USDT`` is looked up among the exchange's spot markets. Times are UTC milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from research.account import Filters
from research.answers import TRADING, DayStatistics, Listing, parse_time
from research.candles import Candles
from research.errors import ExchangeRefused, ParameterError, UnknownNameError
from research.klines import parse_ohlcv
from research.transport import Transport

__all__ = ["Unified"]

# ccxt's own numbers for how an exchange states its precision.
DECIMAL_PLACES, TICK_SIZE = 2, 4


class Unified:
    """What ``research.exchange.MarketData`` asks, in ccxt's words."""

    page = 500

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._markets: dict[str, Any] = {}

    def server_time(self) -> int:
        """The exchange's clock; where it has no such endpoint, the date of its last answer."""
        if self._transport.open().has["fetchTime"]:
            answer = self._transport.ask(lambda ccxt: ccxt.fetch_time())
            return parse_time({"serverTime": answer})
        if self._transport.date_ms is None:
            self._load()
        return parse_time({"serverTime": self._transport.date_ms})

    def probe(self, timeout_s: float) -> None:
        """Ask for the markets once. Raises ExchangeError."""
        self._transport.probe(lambda ccxt: ccxt.load_markets(True), timeout_s)

    def candles(self, symbol: str, timeframe: str, start: int, stop: int, now: int) -> Candles:
        """At most ``page`` candles from ``start`` on, oldest first, the forming one included."""
        known = self._transport.open().timeframes or {}
        if timeframe not in known:
            raise UnknownNameError(
                field=f"timeframe of {self._transport.exchange}",
                value=timeframe,
                expected=f"one of {', '.join(known)}",
            )
        name = self._market(symbol)["symbol"]
        rows = self._transport.ask(lambda ccxt: ccxt.fetch_ohlcv(name, timeframe, start, self.page))
        # There is no unified end: what lies behind it was not asked for.
        return parse_ohlcv(rows, symbol, timeframe).between(None, min(stop, now + 1))

    def price(self, symbol: str) -> float:
        return self.day(symbol).last

    def day(self, symbol: str) -> DayStatistics:
        """The last 24 hours; where an exchange leaves a figure out, it is 0 (NaN for a price)."""
        name = self._market(symbol)["symbol"]
        ticker = self._transport.ask(lambda ccxt: ccxt.fetch_ticker(name))
        if not isinstance(ticker, dict):
            raise self._refused("ticker", ticker, "an object")
        last = _number(ticker.get("last"))
        if not last > 0:
            raise self._refused("ticker last", ticker.get("last"), "a positive price")
        volumes = (_number(ticker.get(name)) for name in ("baseVolume", "quoteVolume"))
        base, quote = (0.0 if math.isnan(one) else one for one in volumes)
        return DayStatistics(
            symbol=symbol,
            open_time=None,
            close_time=None,
            high=_number(ticker.get("high")),
            low=_number(ticker.get("low")),
            last=last,
            volume=base,
            quote_volume=quote,
            trades=0,
        )

    def listings(self, symbols: Sequence[str]) -> dict[str, Listing]:
        self._load(afresh=True)
        found = {}
        for symbol in symbols:
            market = self._market(symbol)
            trading = market.get("active") is not False
            try:
                filters = self._filters(market)
            except (TypeError, KeyError, ArithmeticError, ValueError, ParameterError) as err:
                raise ExchangeRefused(
                    f"unusable ({type(err).__name__}: {err})",
                    field=f"{self._transport.exchange} filters of {symbol}",
                    remedy="Write its filters by hand into params/filters/.",
                ) from err
            found[symbol] = Listing(symbol, TRADING if trading else "INACTIVE", filters)
        return found

    def _load(self, afresh: bool = False) -> None:
        if not self._markets or afresh:
            markets = self._transport.ask(lambda ccxt: ccxt.load_markets(afresh))
            if not isinstance(markets, dict):
                raise self._refused("markets", markets, "an object")
            self._markets = markets

    def _market(self, symbol: str) -> dict[str, Any]:
        self._load()
        named = [
            one
            for one in self._markets.values()
            if one.get("spot") and f"{one.get('base')}{one.get('quote')}" == symbol
        ]
        if len(named) != 1:
            several = " and ".join(str(one["symbol"]) for one in named)
            raise UnknownNameError(
                several and f"it could be {several}",
                field=f"symbol of {self._transport.exchange}",
                value=symbol,
                expected="base and quote of one of its spot markets, in one word",
            )
        market: dict[str, Any] = named[0]
        return market

    def _filters(self, market: dict[str, Any]) -> Filters:
        """ccxt's precision and limits; what an exchange does not tell keeps the default."""
        mode = self._transport.open().precisionMode
        if mode not in (TICK_SIZE, DECIMAL_PLACES):
            raise ValueError("precision in significant digits has no step")

        def step(value: Any) -> Decimal:
            exact = Decimal(str(value))
            return exact if mode == TICK_SIZE else Decimal(1).scaleb(-int(exact))

        amount, cost = market["limits"]["amount"], market["limits"]["cost"]
        values = {
            "lot_step": step(market["precision"]["amount"]),
            "tick": step(market["precision"]["price"]),
            "min_quantity": amount.get("min"),
            "max_quantity": amount.get("max"),
            "min_notional": cost.get("min"),
        }
        told = {name: Decimal(str(one)) for name, one in values.items() if one is not None}
        return Filters.model_validate({name: f"{one:f}" for name, one in told.items()})

    def _refused(self, field: str, value: object, expected: str) -> ExchangeRefused:
        return ExchangeRefused(
            field=f"{self._transport.host} {field}",
            value=value,
            expected=expected,
            remedy="Ask again later.",
        )


def _number(value: Any) -> float:
    return float(value) if type(value) in (int, float) and 0 <= value < 1e20 else math.nan
