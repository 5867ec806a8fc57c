"""Candles of which everything is known: a random walk with a drift and a memory of one bar."""

from __future__ import annotations

import numpy as np

from research.candles import COLUMNS, Candles, CandleSet, find_gaps, utc_ms

HOUR = 3_600_000


def noise(
    seed: int, bars: int, *, symbols: int = 1, drift: float = 0.0, memory: float = 0.0
) -> CandleSet:
    """Hourly candles whose log returns are ``drift`` a bar plus shocks of 1 %.

    ``memory`` is the autocorrelation of the shocks; those of several symbols correlate by 0.64.
    """
    rng = np.random.default_rng(seed)
    market = rng.standard_normal(bars)
    series = []
    for s in range(symbols):
        shock = market if symbols == 1 else 0.8 * market + 0.6 * rng.standard_normal(bars)
        for t in range(1, bars):
            shock[t] += memory * shock[t - 1]
        close = 100.0 * np.exp(np.cumsum(drift + 0.01 * shock))
        opened = np.append(100.0, close[:-1])
        wick = 1.0 + 0.003 * np.abs(rng.standard_normal((2, bars)))
        high, low = np.maximum(opened, close) * wick[0], np.minimum(opened, close) / wick[1]
        ts = utc_ms("2024") + HOUR * np.arange(bars)
        volume = rng.uniform(1.0, 9.0, bars)
        series.append(Candles("ABC"[s] * 3, "1h", ts, opened, high, low, close, volume))
    return CandleSet(tuple(series))


def ragged(bars: int) -> CandleSet:
    """Two symbols, the second listed 100 bars later and absent at bar 400; the gap is accepted."""
    first, second = noise(4, bars, symbols=2).series
    there = np.flatnonzero(np.arange(bars) != 400)[100:]
    columns = (getattr(second, name)[there] for name in COLUMNS)
    cut = Candles(second.symbol, second.timeframe, second.ts[there], *columns)
    return CandleSet((first, cut), gaps=tuple(find_gaps(cut)))
