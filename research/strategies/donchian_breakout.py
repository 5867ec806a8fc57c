"""Breakouts from a Donchian channel, as the Turtles traded them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from research.candles import Candles, Floats
from research.indicators import highest, lowest
from research.signals import kept_between, reach
from research.strategy import Strategy, Targets, param


@dataclass(frozen=True)
class DonchianBreakout(Strategy):
    """Long above the highest high of ``entry`` bars before, out below the lowest low of ``exit``.

    Between the two it keeps. Confidence is d / (d + 1 %) of 100, where d is the distance beyond the
    channel as a share of the close: 0 at the edge, 50 one percent beyond; 0 while keeping.
    """

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = (
        "channel not ready",
        "close above the channel",
        "close below the channel",
        "close within the channel",
    )

    entry: int = param(20, low=2, high=5000)
    exit: int = param(10, low=2, high=5000)

    @property
    def warmup(self) -> int:
        return max(self.entry, self.exit)

    def target(self, candles: Candles) -> Floats:
        top, bottom = self._channel(candles)
        return kept_between(candles.close > top, candles.close < bottom)

    def targets(self, candles: Candles) -> Targets:
        top, bottom = self._channel(candles)
        close = candles.close
        ready = ~(np.isnan(top) | np.isnan(bottom))
        up, down = ready & (close > top), ready & (close < bottom)
        beyond = np.where(up, close - top, np.where(down, bottom - close, 0.0))
        return Targets(
            target=kept_between(up, down),
            confidence=reach(beyond, 0.01 * close),
            reason=np.where(ready, np.where(up, 1, np.where(down, 2, 3)), 0),
        )

    def _channel(self, candles: Candles) -> tuple[Floats, Floats]:
        """Highest high and lowest low of the bars before each one."""
        top = _before(highest(candles.high, self.entry))
        return top, _before(lowest(candles.low, self.exit))


def _before(values: Floats) -> Floats:
    """Each bar's value of the bar before it."""
    shifted = np.full(len(values), np.nan)
    shifted[1:] = values[:-1]
    return shifted
