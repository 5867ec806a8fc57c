"""What the replay exchange shows of stored candles at a moment, in the shapes of Binance's REST.

Pure: candles, filters and a time in, JSON-ready values out. Times are UTC milliseconds. Nothing
that lies after the moment shows. Trade counts, quote volumes and the sizes in the book are made up,
since the store keeps none; prices and volumes are strings that parse back to the floats stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from live.replay.story import Story
from live.replay.walk import Bar, bar_at
from research.account import Filters
from research.candles import DAY, TIMEFRAMES, Candles, CandleSet
from research.errors import InputError, UnknownNameError
from research.resampling import resample

__all__ = [
    "KLINES_DEFAULT",
    "KLINES_MOST",
    "WEIGHT_LIMIT",
    "ApiError",
    "Market",
    "market_of",
    "text",
]

KLINES_DEFAULT, KLINES_MOST = 500, 1000
# What a minute's requests may weigh.
WEIGHT_LIMIT = 6_000
QUOTES = ("USDT", "USDC", "FDUSD", "TUSD", "BUSD", "DAI", "EUR", "TRY", "BRL", "BTC", "ETH", "BNB")


class ApiError(Exception):
    """An error as Binance answers it: an HTTP status, a code and a message."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def text(number: float | Decimal, places: int = 8) -> str:
    """``number`` in plain digits that parse back to it, with at least ``places`` decimals."""
    exact = number if isinstance(number, Decimal) else Decimal(repr(number))
    plain = f"{exact:f}"
    whole, _, decimals = plain.partition(".")
    return f"{whole}.{decimals.ljust(places, '0')}"


@dataclass(frozen=True)
class Market:
    """Every served symbol's candles by timeframe, its filters, and its base and quote asset.

    ``weight_limit`` is what a real minute's requests may weigh.
    """

    series: Mapping[str, Mapping[str, Candles]]
    filters: Mapping[str, Filters]
    assets: Mapping[str, tuple[str, str]]
    weight_limit: int = WEIGHT_LIMIT
    _longer: dict[tuple[str, str], Candles] = field(
        init=False, default_factory=dict, compare=False, repr=False
    )
    stories: Mapping[str, Story] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        stories = {
            symbol: Story(list(frames.values()), self.filters[symbol].tick)
            for symbol, frames in self.series.items()
        }
        object.__setattr__(self, "stories", stories)

    def require(self, symbol: str | None) -> str:
        """A served symbol. Raises ApiError as Binance does."""
        if symbol is None:
            raise ApiError(
                -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
            )
        if not symbol.isascii() or not symbol.isalnum() or symbol != symbol.upper():
            raise ApiError(
                -1100,
                "Illegal characters found in parameter 'symbol'; legal range is "
                "'^[A-Z0-9-_.]{1,20}$'.",
            )
        if symbol not in self.series:
            raise ApiError(-1121, "Invalid symbol.")
        return symbol

    # Candles

    def klines(
        self,
        symbol: str,
        interval: str,
        now: int,
        start: int | None = None,
        end: int | None = None,
        limit: int = KLINES_DEFAULT,
    ) -> list[list[Any]]:
        """Rows whose open lies in ``[start, end]``, the forming one included, oldest first.

        With ``start`` the first ``limit`` of them, without it the last. Raises ApiError for an
        interval that is neither stored nor made up of stored candles.
        """
        candles = self._candles(symbol, interval)
        if candles is None:
            raise ApiError(-1120, "Invalid interval.")
        bar_ms = candles.bar_ms
        closed = int(np.searchsorted(candles.ts, now - bar_ms, side="right"))
        first = 0 if start is None else int(np.searchsorted(candles.ts, start, side="left"))
        stop = closed if end is None else int(np.searchsorted(candles.ts, end, side="right"))
        forming = self.stories[symbol].forming(candles, now)
        shown = forming is not None and (start or 0) <= forming.ts <= (now if end is None else end)
        stop = min(stop, closed)
        bars = [bar_at(candles, i) for i in range(*_window(first, stop, start, limit))]
        if forming is not None and shown:
            bars.append(forming)
        cut = bars[:limit] if start is not None else bars[-limit:]
        return [_row(one, bar_ms) for one in cut]

    def _candles(self, symbol: str, interval: str) -> Candles | None:
        """Stored candles, or longer ones that the longest fitting stored ones make up."""
        stored = self.series[symbol]
        if interval in stored or interval not in TIMEFRAMES:
            return stored.get(interval)
        bar_ms = TIMEFRAMES[interval]
        shorter = [
            one for one in stored.values() if bar_ms > one.bar_ms and not bar_ms % one.bar_ms
        ]
        if not shorter:
            return None
        if (symbol, interval) not in self._longer:
            longest = max(shorter, key=lambda one: one.bar_ms)
            self._longer[symbol, interval] = resample(longest, interval)
        return self._longer[symbol, interval]

    # Prices

    def price(self, symbol: str, now: int) -> float | None:
        """The last traded price; None before the first candle."""
        return self.stories[symbol].price(now)

    def book(self, symbol: str, now: int) -> tuple[Decimal, Decimal] | None:
        """Best bid and ask: the last price, and one tick above it."""
        price = self.price(symbol, now)
        if price is None:
            return None
        bid = Decimal(repr(price))
        return bid, bid + self.filters[symbol].tick

    # Tickers

    def ticker_price(self, symbol: str, now: int) -> dict[str, Any]:
        return {"symbol": symbol, "price": text(self.price(symbol, now) or 0.0)}

    def book_ticker(self, symbol: str, now: int) -> dict[str, Any]:
        bid, ask = self.book(symbol, now) or (Decimal(0), Decimal(0))
        size = text(self.filters[symbol].min_quantity * 1000)
        return {
            **{"symbol": symbol, "bidPrice": text(bid), "bidQty": size},
            **{"askPrice": text(ask), "askQty": size},
        }

    def day(self, symbol: str, now: int) -> dict[str, Any]:
        """The last 24 hours; the bar that their beginning falls into counts whole."""
        told = self.stories[symbol].bars(now - DAY, now)
        bars = [one for one in told if one.volume > 0]
        last = self.price(symbol, now) or 0.0
        volume = sum((Decimal(repr(one.volume)) for one in bars), Decimal(0))
        quote = sum((Decimal(repr(one.quote_volume)) for one in bars), Decimal(0))
        opened = bars[0].open if bars else last
        bid, ask = self.book(symbol, now) or (Decimal(0), Decimal(0))
        trades = sum(one.trades for one in bars)
        change = Decimal(repr(last)) - Decimal(repr(opened))
        percent = change / Decimal(repr(opened)) * 100 if opened else Decimal(0)
        mean = quote / volume if volume else Decimal(repr(last))
        return {
            "symbol": symbol,
            "priceChange": text(change),
            "priceChangePercent": f"{percent:.3f}",
            "weightedAvgPrice": f"{mean:.8f}",
            "prevClosePrice": text(opened),
            "lastPrice": text(last),
            "lastQty": text(self.filters[symbol].min_quantity),
            "bidPrice": text(bid),
            "askPrice": text(ask),
            "openPrice": text(opened),
            "highPrice": text(max((one.high for one in bars), default=last)),
            "lowPrice": text(min((one.low for one in bars), default=last)),
            "volume": text(volume),
            "quoteVolume": text(quote),
            "openTime": now - DAY,
            "closeTime": now,
            "firstId": 1 if trades else -1,
            "lastId": trades if trades else -1,
            "count": trades,
        }

    # What is listed

    def exchange_info(self, symbols: Sequence[str], now: int) -> dict[str, Any]:
        limits = (
            *(("REQUEST_WEIGHT", "MINUTE", 1, self.weight_limit), ("ORDERS", "SECOND", 10, 100)),
            *(("ORDERS", "DAY", 1, 200_000), ("RAW_REQUESTS", "MINUTE", 5, 61_000)),
        )
        return {
            "timezone": "UTC",
            "serverTime": now,
            "rateLimits": [
                {"rateLimitType": kind, "interval": unit, "intervalNum": count, "limit": most}
                for kind, unit, count, most in limits
            ],
            "exchangeFilters": [],
            "symbols": [self._listing(one) for one in symbols],
        }

    def _listing(self, symbol: str) -> dict[str, Any]:
        base, quote = self.assets[symbol]
        precisions = {"baseAssetPrecision": 8, "quotePrecision": 8, "quoteAssetPrecision": 8}
        precisions |= {"baseCommissionPrecision": 8, "quoteCommissionPrecision": 8}
        allowed = {"icebergAllowed": False, "ocoAllowed": False}
        allowed |= {"quoteOrderQtyMarketAllowed": True, "isSpotTradingAllowed": True}
        return {
            **{"symbol": symbol, "status": "TRADING", "baseAsset": base, "quoteAsset": quote},
            **precisions,
            "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT"],
            **allowed,
            "isMarginTradingAllowed": False,
            "filters": _filters(self.filters[symbol]),
            "permissions": ["SPOT"],
        }


def market_of(
    candles: Sequence[CandleSet], filters: Mapping[str, Filters], weight_limit: int = WEIGHT_LIMIT
) -> Market:
    """A market of several sets, one a timeframe; symbols may differ between them.

    Raises UnknownNameError for a symbol without filters or whose quote asset is unknown, InputError
    for a timeframe that comes twice.
    """
    series: dict[str, dict[str, Candles]] = {}
    for one in (one for each in candles for one in each):
        known = series.setdefault(one.symbol, {})
        if one.timeframe in known:
            raise InputError(
                field="candles", value=f"{one.symbol} {one.timeframe} twice", expected="each once"
            )
        known[one.timeframe] = one
    for symbol in series:
        if symbol not in filters:
            raise UnknownNameError(
                field="filters", value=symbol, expected=f"one of {', '.join(filters) or 'none'}"
            )
    assets = {symbol: _assets(symbol) for symbol in series}
    return Market(series, {name: filters[name] for name in series}, assets, weight_limit)


def _assets(symbol: str) -> tuple[str, str]:
    for quote in QUOTES:
        if symbol.endswith(quote) and symbol != quote:
            return symbol.removesuffix(quote), quote
    raise UnknownNameError(
        field="symbol", value=symbol, expected=f"a symbol that ends in one of {', '.join(QUOTES)}"
    )


def _window(first: int, stop: int, start: int | None, limit: int) -> tuple[int, int]:
    if start is not None:
        return first, min(stop, first + limit)
    return max(first, stop - limit), stop


def _row(bar: Bar, bar_ms: int) -> list[Any]:
    prices = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    half, quote = round(bar.volume / 2, 8), bar.quote_volume
    return [
        bar.ts,
        *map(text, prices),
        bar.ts + bar_ms - 1,
        text(quote),
        bar.trades,
        text(half),
        text(round(quote / 2, 8)),
        "0",
    ]


def _filters(filters: Filters) -> list[dict[str, Any]]:
    notional = text(filters.min_notional)
    return [
        {
            **{"filterType": "PRICE_FILTER", "minPrice": text(filters.tick)},
            **{"maxPrice": "1000000.00000000", "tickSize": text(filters.tick)},
        },
        {
            **{"filterType": "LOT_SIZE", "minQty": text(filters.min_quantity)},
            **{"maxQty": text(filters.max_quantity), "stepSize": text(filters.lot_step)},
        },
        {
            **{"filterType": "MIN_NOTIONAL", "minNotional": notional},
            **{"applyToMarket": True, "avgPriceMins": 5},
        },
        {
            **{"filterType": "NOTIONAL", "minNotional": notional, "applyMinToMarket": True},
            **{"maxNotional": "9000000.00000000", "applyMaxToMarket": False, "avgPriceMins": 5},
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
    ]
