"""Trend following that stands aside while the market is wild."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from research.candles import Candles, Floats
from research.indicators import atr, sma
from research.signals import above, crossover, require_less
from research.strategy import Strategy, Targets, param


@dataclass(frozen=True)
class CalmTrend(Strategy):
    """Long while the fast average is above the slow one *and* the average true range is small.

    Small is at most ``most_range`` percent of the close. Confidence is that of the crossover, d /
    (d + 1 %) of 100 for averages d apart.
    """

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = (
        "averages or range not ready",
        "uptrend in a calm market",
        "no uptrend",
        "uptrend, but the market is wild",
    )

    fast: int = param(20, low=2, high=1000)
    slow: int = param(100, low=3, high=5000)
    window: int = param(14, low=1, high=1000)
    most_range: float = param(1.5, low=0.01, high=100.0)

    def check(self) -> None:
        require_less(self, "fast", "slow")

    @property
    def warmup(self) -> int:
        return max(self.slow - 1, self.window)

    def target(self, candles: Candles) -> Floats:
        trend = above(sma(candles.close, self.fast), sma(candles.close, self.slow))
        return trend * self._is_calm(candles)

    def targets(self, candles: Candles) -> Targets:
        trend = crossover(sma(candles.close, self.fast), sma(candles.close, self.slow))
        calm = self._is_calm(candles)
        ready = ~np.isnan(trend.target) & ~np.isnan(
            atr(candles.high, candles.low, candles.close, self.window)
        )
        wild = ready & (trend.target > 0.0) & ~calm
        return Targets(
            target=np.where(ready, trend.target * calm, np.nan),
            confidence=np.where(ready, trend.confidence, 0.0),
            reason=np.where(ready, np.where(wild, 3, trend.reason), 0),
        )

    def _is_calm(self, candles: Candles) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        moved = atr(candles.high, candles.low, candles.close, self.window)
        calm: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
            100.0 * moved <= self.most_range * candles.close
        )
        return calm
