"""The strict reader of Binance's other answers: time, what is listed, the price, the last 24 hours.

Units: UTC milliseconds, prices in quote currency, volumes in base currency. Pure: decoded JSON in,
values out. Invariant: an answer is taken whole or refused with the field's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from research.account import Filters
from research.errors import ExchangeRefused, ParameterError, UnknownNameError
from research.klines import DECIMAL, FIRST_MS, LAST_MS

__all__ = [
    "TRADING",
    "DayStatistics",
    "Listing",
    "parse_day",
    "parse_listings",
    "parse_price",
    "parse_time",
]

TRADING = "TRADING"
PORTAL = "Something on the way answers instead of the exchange; check the network."


@dataclass(frozen=True)
class Listing:
    """How the exchange lists a symbol: its filters, and ``TRADING`` or why it does not trade."""

    symbol: str
    status: str
    filters: Filters


@dataclass(frozen=True)
class DayStatistics:
    """The last 24 hours of a symbol, ``open_time`` to ``close_time``; ``last`` is the last price.

    ``quote_volume`` is what liquidity is judged by. Where nothing was traded, ``trades`` and the
    volumes are 0, and high and low may be 0 too. The times are None where the exchange gives none.
    """

    symbol: str
    open_time: int | None
    close_time: int | None
    high: float
    low: float
    last: float
    volume: float
    quote_volume: float
    trades: int

    def bears_out(self, low: float, high: float) -> bool:
        """Whether prices from ``low`` to ``high`` were traded in these hours."""
        return self.low <= low and high <= self.high


def parse_time(answer: object) -> int:
    """The server's clock from a decoded ``time`` body, milliseconds; raises ExchangeRefused."""
    stamp = answer.get("serverTime") if isinstance(answer, dict) else None
    if not _is_moment(stamp):
        raise ExchangeRefused(
            field="server time", value=answer, expected="milliseconds since 1970", remedy=PORTAL
        )
    return int(stamp)  # type: ignore[arg-type]


def parse_price(answer: object, symbol: str) -> float:
    """The last price from a decoded ``ticker/price`` body. Raises ExchangeRefused."""
    body = _body(answer, symbol, "ticker/price")
    price = _decimal(body, "price", "ticker/price")
    if price <= 0:
        raise _refused("ticker/price price", body["price"], "a positive price")
    return price


def parse_day(answer: object, symbol: str) -> DayStatistics:
    """The last 24 hours from a decoded ``ticker/24hr`` body. Raises ExchangeRefused."""
    where = "ticker/24hr"
    body = _body(answer, symbol, where)
    for name in ("openTime", "closeTime"):
        if not _is_moment(body.get(name)):
            raise _refused(f"{where} {name}", body.get(name), "milliseconds since 1970")
    if body["openTime"] >= body["closeTime"]:
        raise _refused(f"{where} closeTime", body["closeTime"], "a time after openTime")
    trades = body.get("count")
    if type(trades) is not int or not 0 <= trades < 2**53:
        raise _refused(f"{where} count", trades, "a whole number")
    found = DayStatistics(
        symbol=symbol,
        open_time=body["openTime"],
        close_time=body["closeTime"],
        high=_decimal(body, "highPrice", where),
        low=_decimal(body, "lowPrice", where),
        last=_decimal(body, "lastPrice", where),
        volume=_decimal(body, "volume", where),
        quote_volume=_decimal(body, "quoteVolume", where),
        trades=trades,
    )
    if trades and not 0 < found.low <= found.last <= found.high:
        prices = f"{found.low} / {found.last} / {found.high}"
        raise _refused(f"{where} low / last / high", prices, "positive prices in this order")
    return found


def parse_listings(answer: object, symbols: Sequence[str]) -> dict[str, Listing]:
    """Listings by symbol from a decoded ``exchangeInfo`` body, in the order asked for.

    ``MARKET_LOT_SIZE`` is left out: its maximum follows the last days' volume, so that a frozen
    snapshot would differ from the live one every day. Raises UnknownNameError for a symbol that
    the answer lacks, ExchangeRefused for an answer of another shape.
    """
    try:
        listed = {one["symbol"]: one for one in answer["symbols"]}  # type: ignore[index]
    except (TypeError, KeyError):
        raise ExchangeRefused(
            field="exchangeInfo",
            value=answer,
            expected="symbols with their filters",
            remedy="Ask again later; use the stored filters until then.",
        ) from None
    found = {}
    for symbol in symbols:
        if symbol not in listed:
            raise UnknownNameError(
                field="symbol", value=symbol, expected="a symbol that the exchange lists"
            )
        found[symbol] = _listing(symbol, listed[symbol])
    return found


def _listing(symbol: str, listed: Any) -> Listing:
    try:
        by_type = {one["filterType"]: one for one in listed["filters"]}
        notional = by_type.get("NOTIONAL") or by_type["MIN_NOTIONAL"]
        texts = {
            "lot_step": by_type["LOT_SIZE"]["stepSize"],
            "min_quantity": by_type["LOT_SIZE"]["minQty"],
            "max_quantity": by_type["LOT_SIZE"]["maxQty"],
            "tick": by_type["PRICE_FILTER"]["tickSize"],
            "min_notional": notional["minNotional"],
        }
        for name, text in texts.items():
            if not DECIMAL.fullmatch(text):
                raise ParameterError(field=name, value=text, expected="a plain decimal in quotes")
        status = listed["status"]
        if type(status) is not str or not status.isascii() or not 0 < len(status) <= 40:
            raise ParameterError(field="status", value=status, expected="a word such as TRADING")
        return Listing(symbol, status, Filters(**texts))
    except (TypeError, KeyError, ParameterError) as err:
        raise ExchangeRefused(
            f"unusable ({type(err).__name__}: {err})",
            field=f"exchangeInfo filters of {symbol}",
            remedy="Leave the symbol out, or write its filters by hand into params/filters/.",
        ) from err


def _body(answer: object, symbol: str, where: str) -> dict[str, Any]:
    if not isinstance(answer, dict) or answer.get("symbol") != symbol:
        raise _refused(where, answer, f"one object about {symbol}")
    return answer


def _decimal(body: dict[str, Any], name: str, where: str) -> float:
    text = body.get(name)
    if type(text) is not str or not DECIMAL.fullmatch(text):
        raise _refused(f"{where} {name}", text, "a plain decimal in quotes")
    return float(text)


def _is_moment(stamp: object) -> bool:
    return type(stamp) is int and FIRST_MS <= stamp < LAST_MS


def _refused(field: str, value: object, expected: str) -> ExchangeRefused:
    return ExchangeRefused(field=field, value=value, expected=expected, remedy=PORTAL)
