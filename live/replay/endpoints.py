"""The replay exchange's endpoints: what each answers to a query at a moment, in Binance's words.

``PUBLIC`` asks the market, ``SIGNED`` the account. Times are UTC milliseconds. Whatever is wrong
with a query raises ApiError.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

from live.replay.market import KLINES_DEFAULT, KLINES_MOST, ApiError, Market
from live.replay.orders import API_KEY, API_SECRET, Book

__all__ = ["ENDPOINTS", "PUBLIC", "SIGNED", "Query", "require_signature", "weight_of"]

RECV_WINDOW_MS = 5_000

Query = Mapping[str, str]


def _klines(market: Market, query: Query, now: int) -> Any:
    symbol = market.require(query.get("symbol"))
    interval = query.get("interval")
    if interval is None:
        raise ApiError(
            -1102, "Mandatory parameter 'interval' was not sent, was empty/null, or malformed."
        )
    start, end = _whole(query, "startTime"), _whole(query, "endTime")
    limit = _whole(query, "limit")
    wanted = KLINES_DEFAULT if limit is None else limit
    if wanted < 1:
        raise ApiError(
            -1100, "Illegal characters found in parameter 'limit'; legal range is '^[1-9][0-9]*$'."
        )
    most = min(wanted, KLINES_MOST)
    return market.klines(symbol, interval, now, start, end, most)


def _whole(query: Query, name: str) -> int | None:
    value = query.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 20):
        raise ApiError(
            -1100,
            f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.",
        )
    return int(value)


def _exchange_info(market: Market, query: Query, now: int) -> Any:
    symbols = _symbols(market, query) or list(market.series)
    return market.exchange_info(symbols, now)


def _symbols(market: Market, query: Query) -> list[str] | None:
    """The symbols that a request names; None where it names none."""
    if "symbol" in query and "symbols" in query:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    if "symbols" in query:
        try:
            named = json.loads(query["symbols"])
        except ValueError:
            named = None
        if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
            raise ApiError(-1100, "Illegal characters found in parameter 'symbols'.")
        return [market.require(one) for one in named]
    return [market.require(query["symbol"])] if "symbol" in query else None


def _ticker(show: Callable[[Market, str, int], Any]) -> Callable[..., Any]:
    def answer(market: Market, query: Query, now: int) -> Any:
        named = _symbols(market, query)
        if "symbol" in query and named:
            return show(market, named[0], now)
        return [show(market, one, now) for one in named or market.series]

    return answer


PUBLIC: dict[str, Callable[[Market, Query, int], Any]] = {
    "ping": lambda _market, _query, _now: {},
    "time": lambda _market, _query, now: {"serverTime": now},
    "exchangeInfo": _exchange_info,
    "klines": _klines,
    "ticker/price": _ticker(Market.ticker_price),
    "ticker/24hr": _ticker(Market.day),
    "ticker/bookTicker": _ticker(Market.book_ticker),
    # What ccxt asks where it has a key, before it sets its clock: coins and margin. There are none.
    **dict.fromkeys(
        (
            "/sapi/v1/capital/config/getall",
            "/sapi/v1/margin/allPairs",
            "/sapi/v1/margin/isolated/allPairs",
        ),
        lambda _market, _query, _now: [],
    ),
}
SIGNED: dict[tuple[str, str], Callable[[Book, Query, int], Any]] = {
    ("POST", "order"): Book.place,
    ("GET", "order"): Book.find,
    ("DELETE", "order"): Book.cancel,
    ("GET", "openOrders"): lambda book, query, now: book.open_orders(query.get("symbol"), now),
    ("GET", "account"): lambda book, _, now: book.account(now),
    ("GET", "myTrades"): Book.fills,
}
ENDPOINTS = frozenset(PUBLIC) | {name for _, name in SIGNED}
# A request's weight where it names a symbol, and where it is about all of them.
_WEIGHTS = {
    **{"klines": (2, 2), "exchangeInfo": (20, 20), "account": (20, 20), "myTrades": (20, 20)},
    **{"ticker/price": (2, 4), "ticker/bookTicker": (2, 4), "ticker/24hr": (2, 80)},
    "openOrders": (6, 80),
}


def weight_of(method: str, endpoint: str, query: Query) -> int:
    """What a request counts."""
    if (method, endpoint) == ("GET", "order"):
        return 4
    named, others = _WEIGHTS.get(endpoint, (1, 1))
    about_one = "symbol" in query or (endpoint == "ticker/24hr" and "symbols" in query)
    return named if about_one else others


def require_signature(query: Query, headers: Query, now: int) -> None:
    """Key, time and HMAC of a signed request; ``headers`` holds the ``payload`` that was signed."""
    if headers.get("X-MBX-APIKEY") != API_KEY:
        raise ApiError(-2015, "Invalid API-key, IP, or permissions for action.", 401)
    stamp, window = _whole(query, "timestamp"), _whole(query, "recvWindow")
    if stamp is None:
        raise ApiError(
            -1102, "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed."
        )
    if (window or 0) > 60_000:
        raise ApiError(-1131, "recvWindow must be less than 60000.")
    if stamp >= now + 1000:
        raise ApiError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now - stamp > (RECV_WINDOW_MS if window is None else window):
        raise ApiError(-1021, "Timestamp for this request is outside of the recvWindow.")
    payload, _, signature = headers["payload"].rpartition("signature=")
    signed = hmac.new(API_SECRET.encode(), payload.rstrip("&").encode(), hashlib.sha256)
    if not hmac.compare_digest(signed.hexdigest(), signature):
        raise ApiError(-1022, "Signature for this request is not valid.")
