"""Made-up markets of which the truth is known, with an edge in them or none: a test of judges.

The log price moves by volatility times a shock. Volatility wanders (its logarithm is an
autoregression of first order), shocks are Student's with five degrees of freedom and unit variance,
as hours of crypto are, roughly; the price is a martingale: holding it earns nothing on average, and
nothing that looks back can tell what comes. On top of that

- a *rising* market drifts upwards all the time: who is long earns, whenever that is;
- a market with a *planted edge* drifts up or down in turns, for 1,500 hours on average, by the same
  amount and as often: holding it earns nothing, following the trend does.

Candles say ``synthetic`` as their source; prices begin at 30,000 in quote currency, the volume of
every hour is 1,000.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from research.candles import Candles, CandleSet, Floats, utc_ms
from research.combinations import require_whole

__all__ = ["BARS", "Market", "candles_of"]

BARS = 35_064  # four years of hours
HOURS_A_YEAR = 24 * 365
VOLATILITY = 0.6  # a year
PERSISTENCE, UNREST = 0.98, 0.10  # of the logarithm of volatility, a bar
DEGREES = 5
TREND_BARS = 1_500
FIRST = 30_000.0
LARGEST = 0.2


@dataclass(frozen=True)
class Market:
    """A kind of market; ``rise`` and ``trend`` are drifts as multiples of volatility, a year.

    They are Sharpe ratios: what always being long, or always on the right side of the trend, has.
    """

    name: str
    rise: float = 0.0
    trend: float = 0.0


def candles_of(market: Market, seed: int, bars: int = BARS, symbol: str = "BTCUSDT") -> CandleSet:
    """One symbol's hours from 2022 on, four years of them; the same seed gives the same candles.

    The symbol is a name, no more. Raises ParameterError for less than one bar and a negative seed.
    """
    require_whole("bars", bars, 1)
    require_whole("seed", seed, 0)
    rng = np.random.default_rng(seed)
    sigma = VOLATILITY / np.sqrt(HOURS_A_YEAR) * np.exp(_unrest(rng, bars))
    shock = rng.standard_t(DEGREES, bars) * np.sqrt((DEGREES - 2) / DEGREES)
    turns = np.cumsum(rng.random(bars) < 1 / TREND_BARS) + rng.integers(2)
    drift = market.rise + market.trend * (turns % 2 * 2 - 1)
    # Half the variance, without which the mean of a simple return would be above zero.
    moves = drift * VOLATILITY / HOURS_A_YEAR - sigma * sigma / 2 + sigma * shock
    close = np.round(FIRST * np.exp(np.cumsum(np.clip(moves, -LARGEST, LARGEST))), 8)
    opened = np.append(FIRST, close[:-1])
    reach = 0.3 * sigma * np.abs(rng.standard_normal((2, bars)))
    high = np.maximum(opened, close) * (1 + reach[0])
    low = np.minimum(opened, close) * (1 - reach[1])
    ts = utc_ms("2022-01-01") + 3_600_000 * np.arange(bars, dtype=np.int64)
    series = Candles(symbol, "1h", ts, opened, high, low, close, np.full(bars, 1_000.0))
    return CandleSet((series,), source="synthetic")


def _unrest(rng: np.random.Generator, bars: int) -> Floats:
    """The logarithm of volatility over its mean: an AR(1), less half its variance."""
    steps = rng.normal(0.0, UNREST, bars)
    values, last = np.empty(bars), 0.0
    for i, step in enumerate(steps.tolist()):
        last = PERSISTENCE * last + step
        values[i] = last
    return values - UNREST**2 / (1 - PERSISTENCE**2) / 2
