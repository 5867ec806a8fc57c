"""Trend following by two simple moving averages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from research.candles import Candles, Floats
from research.indicators import sma
from research.signals import above, crossover, require_less
from research.strategy import Strategy, Targets, param


@dataclass(frozen=True)
class SmaCrossover(Strategy):
    """Long while the fast average of the close is above the slow one, else out.

    Confidence is d / (d + 1 %) of 100, where d is the distance between the averages as a share of
    the slow one: 50 at one percent apart, 0 where they touch.
    """

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = (
        "averages not ready",
        "fast average above slow",
        "fast average not above slow",
    )

    fast: int = param(20, low=2, high=1000)
    slow: int = param(50, low=3, high=5000)

    def check(self) -> None:
        require_less(self, "fast", "slow")

    @property
    def warmup(self) -> int:
        return self.slow - 1

    def target(self, candles: Candles) -> Floats:
        return above(sma(candles.close, self.fast), sma(candles.close, self.slow))

    def targets(self, candles: Candles) -> Targets:
        return crossover(sma(candles.close, self.fast), sma(candles.close, self.slow))
