"""Mean reversion by the relative strength index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from research.candles import Candles, Floats
from research.indicators import rsi
from research.signals import kept_between, require_less
from research.strategy import Strategy, Targets, param


@dataclass(frozen=True)
class RsiReversal(Strategy):
    """Buy when the RSI falls below ``oversold``, sell when it rises above ``overbought``.

    Between the two it keeps what is held. Confidence grows linearly from 0 at the threshold to 100
    at the end of the scale (RSI 0 for a buy, RSI 100 for a sell); 0 while keeping.
    """

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = (
        "RSI not ready",
        "RSI below oversold",
        "RSI above overbought",
        "RSI between the thresholds",
    )

    window: int = param(14, low=2, high=1000)
    oversold: float = param(30.0, low=1.0, high=99.0)
    overbought: float = param(70.0, low=1.0, high=99.0)

    def check(self) -> None:
        require_less(self, "oversold", "overbought")

    @property
    def warmup(self) -> int:
        return self.window

    def target(self, candles: Candles) -> Floats:
        strength = rsi(candles.close, self.window)
        return kept_between(strength < self.oversold, strength > self.overbought)

    def targets(self, candles: Candles) -> Targets:
        strength = rsi(candles.close, self.window)
        ready = ~np.isnan(strength)
        low, high = strength < self.oversold, strength > self.overbought
        buying = 100.0 * ((self.oversold - strength) / self.oversold)
        selling = 100.0 * ((strength - self.overbought) / (100.0 - self.overbought))
        return Targets(
            target=kept_between(low, high),
            confidence=np.clip(np.where(low, buying, np.where(high, selling, 0.0)), 0.0, 100.0),
            reason=np.where(ready, np.where(low, 1, np.where(high, 2, 3)), 0),
        )
