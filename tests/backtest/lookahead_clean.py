"""Strategies that do not look ahead, among them those that a hasty detector would accuse.

Each declares the warm-up that it needs. Sums and products are taken in one fixed order, so that a
longer history leaves the bits of earlier bars as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy import signal

from research.candles import Candles, CandleSet
from research.indicators import atr, bollinger, ema, highest, lowest, macd, momentum, rsi, sma
from research.strategy import Strategy, Targets
from tests.backtest.lookahead_rule import DAY, Rule, days_of

CLEAN: dict[type[Strategy], str] = {}  # the family


def clean(family: str, bars: int = 0) -> Callable[[type[Rule]], type[Rule]]:
    def add(cls: type[Rule]) -> type[Rule]:
        cls.bars = bars
        made = dataclass(frozen=True)(cls)
        CLEAN[made] = family
        return made

    return add


WINDOW = "a window"


@clean(WINDOW, 19)
class CloseAboveItsAverage(Rule):
    """The default rule, with its declared warm-up."""


@clean(WINDOW, 49)
class TwoAverages(Rule):
    def long(self, candles: Candles) -> Any:
        return sma(candles.close, 10) > sma(candles.close, 50)


@clean(WINDOW, 1)
class HigherThanTheBarBefore(Rule):
    def long(self, candles: Candles) -> Any:
        return pd.Series(candles.close).diff() > 0


@clean(WINDOW, 20)
class BreakoutOfEarlierHighs(Rule):
    def long(self, candles: Candles) -> Any:
        return pd.Series(candles.high) > pd.Series(candles.high).rolling(20).max().shift(1)


@clean(WINDOW, 30)
class RollingZScore(Rule):
    def long(self, candles: Candles) -> Any:
        moves = pd.Series(candles.close).pct_change()
        return (moves - moves.rolling(30).mean()) / moves.rolling(30).std() > 1.0


@clean(WINDOW, 49)
class RollingQuantile(Rule):
    def long(self, candles: Candles) -> Any:
        close = pd.Series(candles.close)
        return close <= close.rolling(50).quantile(0.2)


@clean(WINDOW, 49)
class RollingRank(Rule):
    def long(self, candles: Candles) -> Any:
        return pd.Series(candles.close).rolling(50).rank(pct=True) < 0.3


@clean(WINDOW, 20)
class RegressionOfEachWindow(Rule):
    """The slope over 20 bars, from running sums: the same bits for every length."""

    def long(self, candles: Candles) -> Any:
        weights = np.arange(20) - 9.5
        windows = np.lib.stride_tricks.sliding_window_view(candles.close, 20)
        slope = sum(weights[i] * windows[:, i] for i in range(20))
        return np.concatenate([np.zeros(19), slope]) > 0


@clean(WINDOW, 9)
class WeightedByHand(Rule):
    def long(self, candles: Candles) -> Any:
        total = np.zeros(len(candles))
        for lag in range(10):
            total[lag:] += (10 - lag) * candles.close[: len(candles) - lag]
        return candles.close > total / 55.0


@clean(WINDOW, 20)
class BusierThanUsual(Rule):
    def long(self, candles: Candles) -> Any:
        volume = pd.Series(candles.volume)
        return volume > 1.5 * volume.rolling(20).median().shift(1)


@clean(WINDOW, 14)
class Aroon(Rule):
    def long(self, candles: Candles) -> Any:
        windows = np.lib.stride_tricks.sliding_window_view(candles.high, 15)
        return np.append(np.zeros(14), windows.argmax(axis=1)) > 7


@clean(WINDOW, 29)
class VolumeWeightedPrice(Rule):
    def long(self, candles: Candles) -> Any:
        volume = pd.Series(candles.volume)
        paid = (volume * pd.Series(candles.close)).rolling(30).sum() / volume.rolling(30).sum()
        return pd.Series(candles.close) > paid


@clean(WINDOW, 19)
class BollingerBreak(Rule):
    def long(self, candles: Candles) -> Any:
        return candles.close < bollinger(candles.close, 20)[2]


@clean(WINDOW, 28)
class StochasticOverItsAverage(Rule):
    def long(self, candles: Candles) -> Any:
        low, high = lowest(candles.low, 14), highest(candles.high, 14)
        share = pd.Series((candles.close - low) / (high - low + 1e-12))
        return share > share.rolling(15).mean()


RECURSIVE = "a recursion"


@clean(RECURSIVE, 49)
class TwoExponentialAverages(Rule):
    def long(self, candles: Candles) -> Any:
        return ema(candles.close, 10) > ema(candles.close, 50)


@clean(RECURSIVE, 20)
class PandasEwmAdjusted(Rule):
    def long(self, candles: Candles) -> Any:
        close = pd.Series(candles.close)
        return close > close.ewm(span=20, adjust=True).mean()


@clean(RECURSIVE, 20)
class PandasEwmOfSigns(Rule):
    """How far one candle is remembered does not depend on its size, and yet it fades."""

    def long(self, candles: Candles) -> Any:
        return self._mood(candles) > 0

    def sure(self, candles: Candles) -> Any:
        return 50.0 + 50.0 * self._mood(candles)

    def _mood(self, candles: Candles) -> Any:
        signs = np.sign(pd.Series(candles.close).diff().fillna(0.0))
        return signs.ewm(span=20, adjust=False).mean()


@clean(RECURSIVE, 14)
class RelativeStrength(Rule):
    def long(self, candles: Candles) -> Any:
        return rsi(candles.close, 14) < 40.0

    def sure(self, candles: Candles) -> Any:
        return rsi(candles.close, 14)


@clean(RECURSIVE, 33)
class MacdAboveItsLine(Rule):
    def long(self, candles: Candles) -> Any:
        line, trigger, _ = macd(candles.close)
        return line > trigger


@clean(RECURSIVE, 14)
class CalmByTrueRange(Rule):
    def long(self, candles: Candles) -> Any:
        return atr(candles.high, candles.low, candles.close, 14) < 0.01 * candles.close


@clean(RECURSIVE, 30)
class FilteredForwardOnly(Rule):
    def long(self, candles: Candles) -> Any:
        b, a = signal.butter(2, 0.1)
        return candles.close > signal.lfilter(b, a, candles.close)


@clean(RECURSIVE)
class OnBalanceVolume(Rule):
    def long(self, candles: Candles) -> Any:
        flow = np.sign(np.diff(candles.close, prepend=candles.close[:1])) * candles.volume
        return np.cumsum(flow) > 0


@clean(RECURSIVE, 1)
class RatchetLoop(Rule):
    """A trailing level in a plain loop: it rises with the close and never falls while held."""

    def long(self, candles: Candles) -> Any:
        flags, level = np.zeros(len(candles)), 0.0
        for i, close in enumerate(candles.close.tolist()):
            held = close > level
            level = max(level, 0.97 * close) if held else 0.97 * close
            flags[i] = held
        return flags


@clean(RECURSIVE, 20)
class HeldFromCrossToCross(Rule):
    """Enters above the upper band, leaves below the middle one, and keeps what it had between."""

    def long(self, candles: Candles) -> Any:
        upper, middle, _ = bollinger(candles.close, 20)
        wanted = np.where(candles.close > upper, 1.0, np.where(candles.close < middle, 0.0, np.nan))
        return pd.Series(wanted).ffill().fillna(0.0)


GROWING = "everything so far"


@clean(GROWING)
class DrawdownFromTheTop(Rule):
    def long(self, candles: Candles) -> Any:
        return candles.close > 0.9 * np.maximum.accumulate(candles.high)


@clean(GROWING, 50)
class ExpandingZScore(Rule):
    def long(self, candles: Candles) -> Any:
        close = pd.Series(candles.close)
        return (close - close.expanding(50).mean()) / close.expanding(50).std() < 0.0


@clean(GROWING, 100)
class ExpandingQuantile(Rule):
    def long(self, candles: Candles) -> Any:
        volume = pd.Series(candles.volume)
        return volume > volume.expanding(100).quantile(0.9)


@clean(GROWING, 10)
class ExpandingRank(Rule):
    def long(self, candles: Candles) -> Any:
        return pd.Series(candles.close).expanding(10).rank(pct=True) < 0.5


@clean(GROWING, 2)
class MeanFromCumulatedSums(Rule):
    def long(self, candles: Candles) -> Any:
        return candles.close > np.cumsum(candles.close) / np.arange(1, len(candles) + 1)


@clean(GROWING)
class BarsSinceTheTop(Rule):
    def long(self, candles: Candles) -> Any:
        top = candles.high >= np.maximum.accumulate(candles.high)
        bar = np.arange(len(candles))
        return bar - np.maximum.accumulate(np.where(top, bar, 0)) < 48


CALENDAR = "the calendar"


@clean(CALENDAR)
class LondonHours(Rule):
    def long(self, candles: Candles) -> Any:
        hour = candles.ts % DAY // 3_600_000
        return (hour >= 8) & (hour < 16)


@clean(CALENDAR)
class NotAtWeekends(Rule):
    def long(self, candles: Candles) -> Any:
        return candles.frame().index.day_of_week < 5


@clean(CALENDAR)
class LastDaysOfTheMonth(Rule):
    """The calendar is known beforehand; the candles are not."""

    def long(self, candles: Candles) -> Any:
        index = candles.frame().index
        return index.days_in_month - index.day < 3


@clean(CALENDAR, 23)
class HighOfTheDaySoFar(Rule):
    def long(self, candles: Candles) -> Any:
        high = pd.Series(candles.high).groupby(days_of(candles)).cummax()
        return pd.Series(candles.close) > 0.99 * high


@clean(CALENDAR, 48)
class CloseOfYesterday(Rule):
    """Daily bars joined a day late: what a resampling has to do."""

    def long(self, candles: Candles) -> Any:
        close = candles.frame()["close"]
        daily = close.resample("1D").last().shift(1)
        return candles.close > daily.reindex(close.index, method="ffill").to_numpy()


@clean(CALENDAR, 8)
class FourHoursThatHaveClosed(Rule):
    """Labelled where they end, and joined from the bar that ends them on."""

    def long(self, candles: Candles) -> Any:
        close = candles.frame()["close"]
        close.index += pd.Timedelta("1h")  # a bar is known at its close
        high = close.resample("4h", label="right", closed="right").max()
        ended = high[high.index <= close.index[-1]]
        return candles.close > ended.reindex(close.index, method="ffill").to_numpy()


JOINED = "joined, filled and seeded rightly"


@clean(JOINED, 1)
class MergedBackward(Rule):
    def long(self, candles: Candles) -> Any:
        left = pd.DataFrame({"ts": np.asarray(candles.ts), "now": candles.close})
        right = pd.DataFrame({"ts": np.asarray(candles.ts) + 3_600_000, "then": candles.close})
        both = pd.merge_asof(left, right, on="ts", direction="backward")
        return both["now"] > both["then"]


@clean(JOINED, 6)
class FilledForward(Rule):
    def long(self, candles: Candles) -> Any:
        close = pd.Series(candles.close)
        known = close.where(np.asarray(candles.ts) // 3_600_000 % 6 == 0)
        return close > known.ffill()


@clean(JOINED, 4)
class DroppedAndAligned(Rule):
    def long(self, candles: Candles) -> Any:
        close = pd.Series(candles.close)
        return close > close.rolling(5).mean().dropna().reindex(close.index)


@clean(JOINED)
class SeededByTheBar(Rule):
    """Random numbers of a fixed seed, one a bar in order: a longer history only adds some."""

    def long(self, candles: Candles) -> Any:
        return np.random.default_rng(7).random(len(candles)) < 0.5


_KEPT: dict[str, np.ndarray] = {}


@clean(JOINED, 9)
class CachedByItsCandles(Rule):
    """Remembers its average, but for the very candles that it was computed from."""

    def long(self, candles: Candles) -> Any:
        _KEPT.setdefault(candles.digest(), sma(candles.close, 10))
        return candles.close > _KEPT.pop(candles.digest())


@clean(JOINED, 200)
class WarmUpLongerThanNeeded(Rule):
    """Declares more than it needs, which is cautious and no fault."""


@clean(JOINED, 20)
class KeepsBetweenSignals(Rule):
    """NaN keeps: most bars have no target, and that is not a lack of readiness."""

    reasons: ClassVar[tuple[str, ...]] = ("keep", "in", "out")

    def long(self, candles: Candles) -> Any:
        move = momentum(candles.close, 20)
        return np.where(move > 0.04, 1.0, np.where(move < -0.04, 0.0, np.nan))

    def why(self, candles: Candles) -> Any:
        long = self.long(candles)
        return np.where(np.isnan(long), 0, np.where(long > 0.0, 1, 2))


@clean("another symbol", 10)
class FollowsTheFirstSymbol(Rule):
    """Every symbol does what the first one's last ten closed bars did."""

    def joint_targets(self, candles: CandleSet) -> tuple[Targets, ...]:
        first = candles.series[0]
        rose = np.nan_to_num(momentum(first.close, 10)) > 0.0
        made = []
        for one in candles:
            row = np.searchsorted(first.ts, one.ts, side="right") - 1
            long = (row >= 0) & rose[np.maximum(row, 0)] if len(first) else np.zeros(len(one), bool)
            sure = np.full(len(one), 50.0)
            made.append(Targets(long.astype(float), sure, long.astype(np.int64)))
        return tuple(made)
