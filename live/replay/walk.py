"""How the price walks within a stored bar: the exchange shows no more of it than has been walked.

The walk goes open, low, high, close where the bar closes up and open, high, low, close where it
closes down, each leg a third of the bar's time. That is made up, but true to the bar: at its end
exactly the stored open, high, low and close have been seen, and nothing of them before its time.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

import numpy as np

from research.candles import Candles

__all__ = ["FIRST_TRADE_MS", "Bar", "bar_at", "price_at", "reached", "seen"]

# Until then the forming candle shows the close before it, without trades, as on Binance.
FIRST_TRADE_MS = 1_000


class Bar(NamedTuple):
    """One candle as far as it has been walked; ``trades`` is 0 exactly where ``volume`` is."""

    ts: int
    open: float
    high: float
    low: float
    close: float
    volume: float

    @property
    def trades(self) -> int:
        """Made up: the store keeps no counts."""
        return max(1, int(self.volume)) if self.volume else 0

    @property
    def quote_volume(self) -> float:
        """Made up: volume at the mean of the four prices, to eight decimals."""
        return round(self.volume * (self.open + self.high + self.low + self.close) / 4, 8)


def bar_at(candles: Candles, i: int) -> Bar:
    """The whole stored candle ``i``."""
    columns = (candles.open, candles.high, candles.low, candles.close, candles.volume)
    return Bar(int(candles.ts[i]), *(float(column[i]) for column in columns))


def price_at(bar: Bar, elapsed: float, tick: Decimal) -> float:
    """The price when ``elapsed`` (0 to 1) of the bar is over, on the tick and within the bar."""
    corners = _corners(bar)
    leg = min(int(elapsed * 3), 2)
    part = elapsed * 3 - leg
    raw = corners[leg] + (corners[leg + 1] - corners[leg]) * part
    steps = (Decimal(repr(raw)) / tick).to_integral_value(ROUND_HALF_EVEN)
    return min(max(float(steps * tick), bar.low), bar.high)


def seen(bar: Bar, elapsed: float, tick: Decimal, since: float = 0.0) -> Bar:
    """The bar as it looks when ``elapsed`` (above 0, at most 1) of it is over.

    ``since`` leaves out what had been walked before.
    """
    if since == 0 and elapsed == 1:
        return bar
    opened = price_at(bar, since, tick) if since else bar.open
    price = price_at(bar, elapsed, tick) if elapsed < 1 else bar.close
    corners = [one for leg, one in enumerate(_corners(bar)) if since <= leg / 3 <= elapsed]
    passed = [opened, *corners, price]
    # A share of the volume, on eight decimals as exchanges count it; what trades is not nothing.
    volume = round(bar.volume * (elapsed - since), 8) or min(bar.volume, 1e-8)
    return Bar(bar.ts, opened, max(passed), min(passed), price, volume)


def reached(candles: Candles, begin: int, end: int, level: float, rising: bool) -> int | None:
    """When in ``(begin, end]`` the walk first was at ``level`` or beyond it; None for never.

    Milliseconds. ``rising`` asks for prices of at least the level, else of at most it. The walk
    before it is put on the tick counts; the open counts once it has traded.
    """
    sign = 1.0 if rising else -1.0
    up = candles.close >= candles.open
    corners = sign * np.stack(
        [
            candles.open,
            np.where(up, candles.low, candles.high),
            np.where(up, candles.high, candles.low),
            candles.close,
        ],
        axis=1,
    )
    here, there = corners[:, :3], corners[:, 1:]
    wanted = sign * level
    third = candles.bar_ms // 3
    starts = candles.ts[:, None] + third * np.arange(3)
    run = np.where(there == here, 1.0, there - here)
    part = np.clip((wanted - here) / run, 0.0, 1.0) * third
    is_in, goes_in = here >= wanted, there >= wanted
    since = np.where(is_in, starts, starts + np.ceil(part).astype(np.int64))
    until = np.where(goes_in, starts + third, starts + np.floor(part).astype(np.int64))
    traded = candles.ts[:, None] + FIRST_TRADE_MS
    # What the open reached has traded with it, be it left at once.
    until[:, 0] = np.where(is_in[:, 0], np.maximum(until[:, 0], traded[:, 0]), until[:, 0])
    since = np.maximum(since, np.maximum(traded, begin + 1))
    met = (is_in | goes_in) & (since <= np.minimum(until, end)) & (candles.volume[:, None] > 0)
    times = since[met]
    return int(times.min()) if len(times) else None


def _corners(bar: Bar) -> tuple[float, float, float, float]:
    first, second = (bar.low, bar.high) if bar.close >= bar.open else (bar.high, bar.low)
    return bar.open, first, second, bar.close
