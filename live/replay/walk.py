"""How the price walks within a stored bar: the exchange shows no more of it than has been walked.

The walk goes open, low, high, close where the bar closes up and open, high, low, close where it
closes down, each leg a third of the bar's time. That is made up, but true to the bar: at its end
exactly the stored open, high, low and close have been seen, and nothing of them before its time.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

from research.candles import Candles

__all__ = ["FIRST_TRADE_MS", "Bar", "bar_at", "extremes", "price_at", "seen"]

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


def seen(bar: Bar, elapsed: float, tick: Decimal) -> Bar:
    """The bar as it looks when ``elapsed`` (above 0, below 1) of it is over."""
    price = price_at(bar, elapsed, tick)
    reached = [bar.open, *_corners(bar)[1 : int(elapsed * 3) + 1], price]
    # A share of the volume, on eight decimals as exchanges count it.
    return Bar(
        *(bar.ts, bar.open, max(reached), min(reached), price, round(bar.volume * elapsed, 8))
    )


def extremes(bar: Bar, begin: float, end: float, tick: Decimal) -> tuple[float, float]:
    """Lowest and highest price walked from ``begin`` to ``end``, both parts of the bar."""
    between = [corner for leg, corner in enumerate(_corners(bar)) if begin <= leg / 3 <= end]
    prices = [price_at(bar, begin, tick), *between, price_at(bar, end, tick)]
    return min(prices), max(prices)


def _corners(bar: Bar) -> tuple[float, float, float, float]:
    first, second = (bar.low, bar.high) if bar.close >= bar.open else (bar.high, bar.low)
    return bar.open, first, second, bar.close
