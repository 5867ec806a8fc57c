"""Technical indicators on TA-Lib: arrays in, arrays of the same length out.

Every function takes float64 arrays of bars, oldest first, and returns float64 arrays of the same
length whose first values are NaN until the window is full. All are causal: value ``t`` depends on
bars ``0..t`` alone, and adding bars never changes an earlier value (tested, bit for bit, against
the whole series and against TA-Lib's own streaming functions).

Two things to know. Recursive indicators (EMA, RSI, ATR, MACD) never quite forget their first bar,
so live runs compute them from the same first bar as the backtest. And one NaN in the input makes
every later value NaN: gaps and non-finite candles are refused before they get here.
"""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import talib

from research.candles import Floats
from research.errors import ParameterError

__all__ = [
    "Bank",
    "atr",
    "bollinger",
    "ema",
    "highest",
    "lowest",
    "macd",
    "momentum",
    "rsi",
    "sharing",
    "sma",
]

_LONGEST = 100_000  # TA-Lib's own bound on every window


def sma(values: Floats, window: int) -> Floats:
    """Simple moving average; NaN for the first ``window - 1`` bars."""
    return _single(talib.SMA, _window("sma.window", window, 1), values)


def ema(values: Floats, window: int) -> Floats:
    """Exponential moving average, alpha = 2 / (window + 1), seeded with the first window's mean.

    NaN for the first ``window - 1`` bars.
    """
    return _single(talib.EMA, _window("ema.window", window, 1), values)


def rsi(close: Floats, window: int = 14) -> Floats:
    """Relative strength index, 0 to 100, Wilder's smoothing; NaN for the first ``window`` bars.

    Where nothing has moved TA-Lib says 0, not the undefined 0 / 0 of the formula.
    J. W. Wilder, New Concepts in Technical Trading Systems (1978), section VI.
    """
    return _single(talib.RSI, _window("rsi.window", window, 2), close)


def atr(high: Floats, low: Floats, close: Floats, window: int = 14) -> Floats:
    """Average true range in price units, Wilder's smoothing; NaN for the first ``window`` bars.

    J. W. Wilder, New Concepts in Technical Trading Systems (1978), section III.
    """
    return _single(talib.ATR, _window("atr.window", window, 1), high, low, close)


def momentum(close: Floats, window: int) -> Floats:
    """Return over the last ``window`` bars, as a fraction: c[t] / c[t - window] - 1.

    NaN for the first ``window`` bars. It has no memory beyond its window.
    """
    return _single(talib.ROCP, _window("momentum.window", window, 1), close)


def highest(values: Floats, window: int) -> Floats:
    """Highest of the last ``window`` values, this one among them; NaN for the first ones."""
    return _single(talib.MAX, _window("highest.window", window, 2), values)


def lowest(values: Floats, window: int) -> Floats:
    """Lowest of the last ``window`` values, this one among them; NaN for the first ones."""
    return _single(talib.MIN, _window("lowest.window", window, 2), values)


def macd(
    close: Floats, fast: int = 12, slow: int = 26, signal: int = 9
) -> tuple[Floats, Floats, Floats]:
    """MACD line, its signal line and their difference, in price units.

    NaN for the first ``slow + signal - 2`` bars. G. Appel, Technical Analysis (2005), chapter 8.
    """
    fast, slow = _window("macd.fast", fast, 2), _window("macd.slow", slow, 2)
    signal = _window("macd.signal", signal, 1)
    if fast >= slow:
        raise ParameterError(field="macd.fast", value=fast, expected=f"less than slow ({slow})")
    line, trigger, histogram = _call(talib.MACD, 3, (close,), fast, slow, signal)
    return line, trigger, histogram


def bollinger(close: Floats, window: int = 20, width: float = 2.0) -> tuple[Floats, Floats, Floats]:
    """Upper, middle and lower band: mean plus and minus ``width`` population deviations.

    NaN for the first ``window - 1`` bars. J. Bollinger, Bollinger on Bollinger Bands (2001).
    """
    window = _window("bollinger.window", window, 2)
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width <= 1000:
        raise ParameterError(
            field="bollinger.width", value=width, expected="a number above 0, at most 1000"
        )
    upper, middle, lower = _call(talib.BBANDS, 3, (close,), window, width, width)
    return upper, middle, lower


def _window(name: str, value: int, low: int) -> int:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not low <= value <= _LONGEST:
        raise ParameterError(
            field=name, value=value, expected=f"a whole number of bars from {low} to {_LONGEST}"
        )
    return int(value)


def _single(function: Callable[..., Any], window: int, *columns: Floats) -> Floats:
    result: Floats = _call(function, 1, columns, window)[0]
    return result


def _call(
    function: Callable[..., Any], outputs: int, columns: tuple[Floats, ...], *arguments: float
) -> Any:
    if not len(columns[0]):  # TA-Lib takes an empty series for one that is all NaN, and raises
        return tuple(np.empty(0) for _ in range(outputs))
    bank = _BANK.get()
    if bank is None:
        return _computed(function, outputs, columns, arguments)
    key = (function.__name__, *map(id, columns), *arguments)
    return bank.lookup(key, columns, lambda: _computed(function, outputs, columns, arguments))


def _computed(
    function: Callable[..., Any],
    outputs: int,
    columns: tuple[Floats, ...],
    arguments: tuple[float, ...],
) -> tuple[Floats, ...]:
    result = function(*(np.ascontiguousarray(c, dtype=np.float64) for c in columns), *arguments)
    return result if outputs > 1 else (result,)


# Sharing indicators between the rows of a sweep


class Bank:
    """Indicators that were computed once, for every row that asks again; for several threads.

    It keeps the ``budget`` bytes that were asked for last. What it hands out is read-only, and
    holds for the very arrays that it was computed from.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._lock = threading.Lock()
        self._kept: OrderedDict[Any, tuple[tuple[Floats, ...], tuple[Floats, ...]]] = OrderedDict()
        self._size = 0

    def lookup(
        self, key: Any, columns: tuple[Floats, ...], compute: Callable[[], tuple[Floats, ...]]
    ) -> tuple[Floats, ...]:
        """The kept result of ``key``, else that of ``compute``."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][1]
        result = tuple(map(_apart, compute()))
        with self._lock:
            if key not in self._kept:
                # The columns are kept along: another array must not get their identity.
                self._kept[key] = (columns, result)
                self._size += sum(one.nbytes for one in result)
            while self._size > self.budget and len(self._kept) > 1:
                _, (_, dropped) = self._kept.popitem(last=False)
                self._size -= sum(one.nbytes for one in dropped)
        return result


def _apart(values: Floats) -> Floats:
    """The same values read-only, outside the heap where they are many.

    Each thread has a heap of its own, and what one thread keeps there and another lets go leaves
    holes: over 10,000 rows of 525,600 bars they had come to 90 MB.
    """
    if values.nbytes >= 2**20:
        kept = np.frombuffer(mmap.mmap(-1, values.nbytes), np.float64)
        kept[:] = values
        values = kept
    values.flags.writeable = False
    return values


_BANK: ContextVar[Bank | None] = ContextVar("indicators of a sweep", default=None)


@contextmanager
def sharing(bank: Bank) -> Iterator[None]:
    """Take every indicator of this thread from ``bank`` where it has it."""
    token = _BANK.set(bank)
    try:
        yield
    finally:
        _BANK.reset(token)
