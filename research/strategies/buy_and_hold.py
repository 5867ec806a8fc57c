"""The baseline: in from the first bar on, and never out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from research.candles import Candles
from research.strategy import Strategy, Targets


@dataclass(frozen=True)
class BuyAndHold(Strategy):
    """Wants the whole position at every bar. Confidence is 100: there is nothing to weigh."""

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = ("not ready", "always in")

    @property
    def warmup(self) -> int:
        return 0

    def targets(self, candles: Candles) -> Targets:
        bars = len(candles)
        return Targets(np.ones(bars), np.full(bars, 100.0), np.ones(bars, np.int64))
