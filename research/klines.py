"""The strict reader of Binance's answers: ``klines``, ``exchangeInfo`` and the server's time.

Units: UTC milliseconds, prices in quote currency, volumes in base currency. Pure: decoded JSON in,
values out. Invariant: an answer is taken whole or refused with row and column; nothing is mended.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from research.account import Filters
from research.candles import MINUTE, Candles, Floats, Ints, timeframe_ms
from research.errors import CandlesRejected, ExchangeRefused, ParameterError, UnknownNameError

__all__ = ["KLINE_COLUMNS", "REJECTED", "Klines", "parse_filters", "parse_klines", "parse_time"]

KLINE_COLUMNS = (
    "open time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close time",
    "quote volume",
    "trades",
    "taker base volume",
    "taker quote volume",
    "ignored",
)
_WHOLE = frozenset({"open time", "close time", "trades"})
# No sign, exponent, NaN or digits of other scripts, and too short to overflow: float() takes all.
_DECIMAL = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?")
# 2001 to 2286: milliseconds have 13 digits there; seconds have 10, microseconds 16.
_FIRST_MS, _LAST_MS = 10**12, 10**13
REJECTED = "Nothing was kept of this answer. Ask again; if it comes back, start after this candle."


@dataclass(frozen=True, eq=False)
class Klines:
    """One answer of ``klines``: the candles and, row by row, what ``Candles`` has no place for.

    ``close_ts`` is the last millisecond of each candle, ``quote_volume`` in quote currency,
    ``trades`` a count; all as long as the candles.
    """

    candles: Candles
    close_ts: Ints
    quote_volume: Floats
    trades: Ints


def parse_klines(rows: object, symbol: str, timeframe: str, now: int | None = None) -> Klines:
    """Klines of a decoded ``klines`` body; raises CandlesRejected that names row and column.

    A close time must be the open + timeframe - 1 ms. ``now`` (the server's time) admits what
    Binance serves for hours cut short by an outage (2023-03-24 12:00 ends at 12:39:41.646): an
    earlier close, off the minute, of a candle that is two bars old. On the minute it would be the
    answer to another timeframe.
    """
    bar = timeframe_ms(timeframe)
    where = f"{symbol} {timeframe}"
    if type(rows) is not list:
        raise CandlesRejected(
            field=f"{where} answer", value=rows, expected="a list of rows", remedy=REJECTED
        )
    table: list[list[Any]] = []
    previous = -1
    for number, row in enumerate(rows):
        values = _row_values(row, f"{where} row {number}")
        fault = _row_fault(values, bar, previous, now)
        if fault is not None:
            column, expected = fault
            raise CandlesRejected(
                field=f"{where} row {number}, {column}",
                value=values[KLINE_COLUMNS.index(column)],
                expected=expected,
                remedy=REJECTED,
            )
        previous = values[0]
        table.append(values)
    columns = list(zip(*table, strict=True)) if table else [()] * len(KLINE_COLUMNS)
    return Klines(
        Candles(symbol, timeframe, *(np.array(column) for column in columns[:6])),
        close_ts=np.array(columns[6], np.int64),
        quote_volume=np.array(columns[7], np.float64),
        trades=np.array(columns[8], np.int64),
    )


def _row_values(row: object, where: str) -> list[Any]:
    """The twelve values as int or float; raises CandlesRejected for any other type or text."""
    if type(row) is not list or len(row) != len(KLINE_COLUMNS):
        size = f"{len(row)} columns" if isinstance(row, list) else row
        raise CandlesRejected(
            field=where, value=size, expected=f"a row of {len(KLINE_COLUMNS)}", remedy=REJECTED
        )
    values: list[Any] = []
    for name, value in zip(KLINE_COLUMNS, row, strict=True):
        if name in _WHOLE:
            good, expected = type(value) is int and 0 <= value < 2**53, "a whole number"
        else:
            good = type(value) is str and _DECIMAL.fullmatch(value) is not None
            expected = "a plain decimal in quotes"
        if not good:
            raise CandlesRejected(
                field=f"{where}, {name}", value=value, expected=expected, remedy=REJECTED
            )
        values.append(value if name in _WHOLE else float(value))
    return values


def _row_fault(
    values: Sequence[Any], bar: int, previous: int, now: int | None
) -> tuple[str, str] | None:
    """The first column that breaks an invariant and what it should hold; None for a sound row."""
    ts, open_, high, low, close, _, close_ts = values[:7]
    if not _FIRST_MS <= ts < _LAST_MS:
        return "open time", "milliseconds since 1970"
    if ts % bar:
        return "open time", f"a multiple of the timeframe ({bar} ms)"
    if ts <= previous:
        return "open time", f"a time after the row before ({previous})"
    for name, price in (("open", open_), ("high", high), ("low", low), ("close", close)):
        if price <= 0:
            return name, "a positive price"
    if high < low:
        return "high", f"at least the low ({low})"
    for name, price in (("open", open_), ("close", close)):
        if not low <= price <= high:
            return name, f"a price between low and high ({low} to {high})"
    cut_short = ts < close_ts < ts + bar - 1 and (close_ts + 1) % MINUTE != 0
    settled = now is not None and ts + 2 * bar <= now
    if close_ts != ts + bar - 1 and not (cut_short and settled):
        return "close time", f"open time + timeframe - 1 ({ts + bar - 1})"
    return None


def parse_filters(answer: object, symbols: Sequence[str]) -> dict[str, Filters]:
    """Filters by symbol from a decoded ``exchangeInfo`` body, in the order asked for.

    ``MARKET_LOT_SIZE`` is left out: its maximum follows the last days' volume, so that a frozen
    snapshot would differ from the live one every day. Raises UnknownNameError for a symbol that
    the answer lacks, ExchangeRefused for an answer of another shape.
    """
    try:
        listed = {one["symbol"]: one["filters"] for one in answer["symbols"]}  # type: ignore[index]
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
        found[symbol] = _symbol_filters(symbol, listed[symbol])
    return found


def _symbol_filters(symbol: str, filters: Any) -> Filters:
    try:
        by_type = {one["filterType"]: one for one in filters}
        notional = by_type.get("NOTIONAL") or by_type["MIN_NOTIONAL"]
        texts = {
            "lot_step": by_type["LOT_SIZE"]["stepSize"],
            "min_quantity": by_type["LOT_SIZE"]["minQty"],
            "max_quantity": by_type["LOT_SIZE"]["maxQty"],
            "tick": by_type["PRICE_FILTER"]["tickSize"],
            "min_notional": notional["minNotional"],
        }
        for name, text in texts.items():
            if not _DECIMAL.fullmatch(text):
                raise ParameterError(field=name, value=text, expected="a plain decimal in quotes")
        return Filters(**texts)
    except (TypeError, KeyError, ParameterError) as err:
        raise ExchangeRefused(
            f"unusable ({type(err).__name__}: {err})",
            field=f"exchangeInfo filters of {symbol}",
            remedy="Leave the symbol out, or write its filters by hand into params/filters/.",
        ) from err


def parse_time(answer: object) -> int:
    """The server's clock from a decoded ``time`` body, milliseconds; raises ExchangeRefused."""
    stamp = answer.get("serverTime") if isinstance(answer, dict) else None
    if type(stamp) is not int or not _FIRST_MS <= stamp < _LAST_MS:
        raise ExchangeRefused(
            field="server time",
            value=answer,
            expected="milliseconds since 1970",
            remedy="Something on the way answers instead of the exchange; check the network.",
        )
    return stamp
