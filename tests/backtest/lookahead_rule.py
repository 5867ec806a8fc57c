"""What the corpus of leaky and clean strategies is made of: a rule that says when to be long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from research.candles import Candles
from research.strategy import Strategy, Targets

DAY = 86_400_000


@dataclass(frozen=True)
class Rule(Strategy):
    """Long where ``long`` says so, else out; confidence and reason may be told otherwise."""

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = ("out", "long")
    bars: ClassVar[int] = 0  # the declared warm-up

    @property
    def warmup(self) -> int:
        return self.bars

    def long(self, candles: Candles) -> Any:
        """A flag a bar; by default a close above its average over 20 bars."""
        close = pd.Series(candles.close)
        return close > close.rolling(20).mean()

    def sure(self, candles: Candles) -> Any:
        """A confidence a bar, 0 to 100."""
        return np.full(len(candles), 50.0)

    def why(self, candles: Candles) -> Any:
        """A reason a bar; by default the flag."""
        return self.long(candles)

    def targets(self, candles: Candles) -> Targets:
        return Targets(
            np.asarray(self.long(candles), dtype=np.float64),
            np.asarray(self.sure(candles), dtype=np.float64),
            np.asarray(self.why(candles), dtype=np.int64),
        )


def days_of(candles: Candles) -> np.ndarray:
    """The UTC day of each bar's open, counted since 1970."""
    return np.asarray(candles.ts) // DAY
