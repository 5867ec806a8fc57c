"""Mean reversion between Bollinger bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from research.candles import Candles, Floats
from research.indicators import bollinger
from research.signals import kept_between, reach
from research.strategy import Strategy, Targets, param


@dataclass(frozen=True)
class BollingerReversion(Strategy):
    """Buys a close below the lower band, sells one above the middle; between the two it keeps.

    Confidence is d / (d + 1) of 100, where d is the distance from the band that was crossed in half
    band widths: 0 at the band, 50 half a width beyond it; 0 while keeping.
    """

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = (
        "bands not ready",
        "close below the lower band",
        "close above the middle band",
        "close between the bands",
    )

    window: int = param(20, low=2, high=1000)
    width: float = param(2.0, low=0.5, high=10.0)

    @property
    def warmup(self) -> int:
        return self.window - 1

    def target(self, candles: Candles) -> Floats:
        _, middle, lower = bollinger(candles.close, self.window, self.width)
        return kept_between(candles.close < lower, candles.close > middle)

    def targets(self, candles: Candles) -> Targets:
        _, middle, lower = bollinger(candles.close, self.window, self.width)
        close, half = candles.close, np.maximum(middle - lower, np.finfo(np.float64).tiny)
        low, high = close < lower, close > middle
        beyond = np.where(low, lower - close, np.where(high, close - middle, 0.0)) / half
        return Targets(
            target=kept_between(low, high),
            confidence=reach(beyond, 1.0),
            reason=np.where(np.isnan(middle), 0, np.where(low, 1, np.where(high, 2, 3))),
        )
