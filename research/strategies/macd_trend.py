"""Trend following by the MACD and its signal line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from research.candles import Candles, Floats
from research.indicators import macd
from research.signals import above, reach, require_less
from research.strategy import Strategy, Targets, param


@dataclass(frozen=True)
class MacdTrend(Strategy):
    """Long while the MACD line is above its signal line, else out.

    Confidence is d / (d + 0.1 %) of 100, where d is the distance of the two lines as a share of the
    close: 50 at a tenth of a percent.
    """

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = (
        "MACD not ready",
        "MACD above its signal line",
        "MACD not above its signal line",
    )

    fast: int = param(12, low=2, high=1000)
    slow: int = param(26, low=3, high=5000)
    signal: int = param(9, low=1, high=1000)

    def check(self) -> None:
        require_less(self, "fast", "slow")

    @property
    def warmup(self) -> int:
        return self.slow + self.signal - 2

    def target(self, candles: Candles) -> Floats:
        line, trigger, _ = macd(candles.close, self.fast, self.slow, self.signal)
        return above(line, trigger)

    def targets(self, candles: Candles) -> Targets:
        line, trigger, histogram = macd(candles.close, self.fast, self.slow, self.signal)
        ready, wanted = ~np.isnan(trigger), above(line, trigger)
        return Targets(
            target=np.where(ready, wanted, np.nan),
            confidence=reach(np.abs(histogram), 0.001 * candles.close),
            reason=np.where(ready, np.where(wanted > 0.0, 1, 2), 0),
        )
