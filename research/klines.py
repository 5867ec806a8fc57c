"""The strict reader of candles as exchanges answer them: Binance's ``klines``, ccxt's OHLCV.

Units: UTC milliseconds, prices in quote currency, volumes in base currency. Pure: decoded JSON in,
values out. Invariant: an answer is taken whole or refused with row and column; nothing is mended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from research.candles import MINUTE, Candles, Floats, Ints, timeframe_ms
from research.errors import CandlesRejected

__all__ = ["KLINE_COLUMNS", "OHLCV_COLUMNS", "REJECTED", "Klines", "parse_klines", "parse_ohlcv"]

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
OHLCV_COLUMNS = KLINE_COLUMNS[:6]
_WHOLE = frozenset({"open time", "close time", "trades"})
# No sign, exponent, NaN or digits of other scripts, and too short to overflow: float() takes all.
DECIMAL = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?")
# 2001 to 2286: milliseconds have 13 digits there; seconds have 10, microseconds 16.
FIRST_MS, LAST_MS = 10**12, 10**13
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

    def close_fault(values: Sequence[Any]) -> tuple[str, str] | None:
        ts, close_ts = values[0], values[6]
        cut_short = ts < close_ts < ts + bar - 1 and (close_ts + 1) % MINUTE != 0
        settled = now is not None and ts + 2 * bar <= now
        if close_ts != ts + bar - 1 and not (cut_short and settled):
            return "close time", f"open time + timeframe - 1 ({ts + bar - 1})"
        return None

    columns = _columns(rows, f"{symbol} {timeframe}", bar, KLINE_COLUMNS, close_fault)
    return Klines(
        Candles(symbol, timeframe, *(np.array(column) for column in columns[:6])),
        close_ts=np.array(columns[6], np.int64),
        quote_volume=np.array(columns[7], np.float64),
        trades=np.array(columns[8], np.int64),
    )


def parse_ohlcv(rows: object, symbol: str, timeframe: str) -> Candles:
    """Candles of what ccxt's unified ``fetch_ohlcv`` returned: six numbers a row, no close time.

    A candle is taken to close one timeframe after its open. Raises CandlesRejected that names row
    and column.
    """
    columns = _columns(rows, f"{symbol} {timeframe}", timeframe_ms(timeframe), OHLCV_COLUMNS, None)
    return Candles(symbol, timeframe, *(np.array(column) for column in columns))


_CloseFault = Callable[[Sequence[Any]], tuple[str, str] | None]


def _columns(
    rows: object, where: str, bar: int, names: tuple[str, ...], close_fault: _CloseFault | None
) -> list[Any]:
    """The columns of ``rows`` as int and float. Raises CandlesRejected at the first wrong value."""
    if type(rows) is not list:
        raise CandlesRejected(
            field=f"{where} answer", value=rows, expected="a list of rows", remedy=REJECTED
        )
    read = _kline_value if names is KLINE_COLUMNS else _ohlcv_value
    table: list[list[Any]] = []
    previous = -1
    for number, row in enumerate(rows):
        values = _row_values(row, f"{where} row {number}", names, read)
        fault = _row_fault(values, bar, previous)
        if fault is None and close_fault is not None:
            fault = close_fault(values)
        if fault is not None:
            column, expected = fault
            raise CandlesRejected(
                field=f"{where} row {number}, {column}",
                value=values[names.index(column)],
                expected=expected,
                remedy=REJECTED,
            )
        previous = values[0]
        table.append(values)
    return list(zip(*table, strict=True)) if table else [()] * len(names)


_Read = Callable[[str, Any], tuple[Any, str]]


def _row_values(row: object, where: str, names: tuple[str, ...], read: _Read) -> list[Any]:
    """The values as int or float; raises CandlesRejected for any other type or text."""
    if type(row) is not list or len(row) != len(names):
        size = f"{len(row)} columns" if isinstance(row, list) else row
        raise CandlesRejected(
            field=where, value=size, expected=f"a row of {len(names)}", remedy=REJECTED
        )
    values: list[Any] = []
    for name, value in zip(names, row, strict=True):
        number, expected = read(name, value)
        if number is None:
            raise CandlesRejected(
                field=f"{where}, {name}", value=value, expected=expected, remedy=REJECTED
            )
        values.append(number)
    return values


def _kline_value(name: str, value: Any) -> tuple[Any, str]:
    """``value`` as Binance writes it, as a number, else None; and what was expected."""
    if name in _WHOLE:
        return value if type(value) is int and 0 <= value < 2**53 else None, "a whole number"
    good = type(value) is str and DECIMAL.fullmatch(value) is not None
    return float(value) if good else None, "a plain decimal in quotes"


def _ohlcv_value(name: str, value: Any) -> tuple[Any, str]:
    """``value`` as ccxt hands it on, as a number, else None; and what was expected."""
    if name in _WHOLE:
        return value if type(value) is int and 0 <= value < 2**53 else None, "a whole number"
    good = type(value) in (int, float) and 0 <= value < 1e20  # which NaN is not
    return float(value) if good else None, "a number from 0 on"


def _row_fault(values: Sequence[Any], bar: int, previous: int) -> tuple[str, str] | None:
    """The first column that breaks an invariant and what it should hold; None for a sound row."""
    ts, open_, high, low, close = values[:5]
    if not FIRST_MS <= ts < LAST_MS:
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
    return None
