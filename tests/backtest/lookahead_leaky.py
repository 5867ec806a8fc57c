"""Strategies that look ahead, each in one way that has been seen in earnest, by family.

None is meant to earn: what counts is that some answer of some bar depends on a later candle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy import signal

from research.candles import Candles, CandleSet
from research.indicators import sma
from research.strategy import Strategy, Targets
from tests.backtest.lookahead_rule import Rule, days_of

LEAKY: dict[type[Strategy], tuple[str, str]] = {}  # the family, and what leaks: a part of `leak`


def leaky(family: str, leak: str = "close") -> Callable[[type[Strategy]], type[Strategy]]:
    def add(cls: type[Strategy]) -> type[Strategy]:
        made = dataclass(frozen=True)(cls)
        LEAKY[made] = (family, leak)
        return made

    return add


SHIFTED = "shifted the wrong way"


@leaky(SHIFTED)
class ShiftMinusOne(Rule):
    def long(self, candles: Candles) -> Any:
        close = pd.Series(candles.close)
        return close.shift(-1) > close


@leaky(SHIFTED)
class ShiftMinusFive(Rule):
    def long(self, candles: Candles) -> Any:
        close = pd.Series(candles.close)
        return close.shift(-5).fillna(close) > close


@leaky(SHIFTED, "open")
class OpenOfTheNextBar(Rule):
    def long(self, candles: Candles) -> Any:
        return np.append(candles.open[1:], candles.close[-1:]) > candles.close


@leaky(SHIFTED, "low")
class OnlyTheNextLow(Rule):
    def long(self, candles: Candles) -> Any:
        return np.append(candles.low[1:], candles.low[-1:]) > 0.998 * candles.close


@leaky(SHIFTED, "volume")
class VolumeOfTheNextBar(Rule):
    def long(self, candles: Candles) -> Any:
        return np.append(candles.volume[1:], 0.0) > candles.volume


@leaky(SHIFTED, "high")
class HighOfTheNextTwelveBars(Rule):
    def long(self, candles: Candles) -> Any:
        high = pd.Series(candles.high)
        ahead = high[::-1].rolling(12, min_periods=1).max()[::-1].shift(-1)
        return ahead > 1.01 * pd.Series(candles.close)


@leaky(SHIFTED)
class RolledRound(Rule):
    """np.roll brings the end to the start: bar 0 sees the last close."""

    bars: ClassVar[int] = 1

    def long(self, candles: Candles) -> Any:
        return candles.close > np.roll(candles.close, 3)


@leaky(SHIFTED)
class Gradient(Rule):
    def long(self, candles: Candles) -> Any:
        return np.gradient(candles.close) > 0 if len(candles) > 1 else np.zeros(len(candles))


@leaky(SHIFTED)
class MergedForward(Rule):
    def long(self, candles: Candles) -> Any:
        left = pd.DataFrame({"ts": np.asarray(candles.ts) + 1, "now": candles.close})
        right = pd.DataFrame({"ts": np.asarray(candles.ts), "then": candles.close})
        both = pd.merge_asof(left, right, on="ts", direction="forward")
        return both["then"] > both["now"]


SMOOTHED = "smoothed from both sides"


@leaky(SMOOTHED)
class CentredAverage(Rule):
    def long(self, candles: Candles) -> Any:
        close = pd.Series(candles.close)
        return close < close.rolling(11, center=True, min_periods=1).mean()


@leaky(SMOOTHED)
class CentredBySame(Rule):
    """np.convolve's mode "same" centres its window."""

    def long(self, candles: Candles) -> Any:
        if len(candles) < 9:
            return np.zeros(len(candles))
        return candles.close < np.convolve(candles.close, np.ones(9) / 9, mode="same")


@leaky(SMOOTHED)
class FilteredForwardAndBack(Rule):
    bars: ClassVar[int] = 20

    def long(self, candles: Candles) -> Any:
        b, a = signal.butter(2, 0.1)
        return candles.close < signal.filtfilt(b, a, candles.close)


@leaky(SMOOTHED)
class FourierSmoothed(Rule):
    def long(self, candles: Candles) -> Any:
        wave = np.fft.rfft(candles.close)
        wave[len(wave) // 10 + 1 :] = 0.0
        return candles.close < np.fft.irfft(wave, len(candles)) if len(candles) > 1 else [0.0]


@leaky(SMOOTHED)
class SavitzkyGolay(Rule):
    bars: ClassVar[int] = 20

    def long(self, candles: Candles) -> Any:
        return candles.close < signal.savgol_filter(candles.close, 11, 2)


@leaky(SMOOTHED)
class PeaksConfirmedLater(Rule):
    """A bottom is one only once later lows are known."""

    def long(self, candles: Candles) -> Any:
        flags = np.zeros(len(candles))
        flags[signal.argrelmin(np.asarray(candles.close), order=5)[0]] = 1.0
        return flags


WHOLE = "statistics of the whole sample"


@leaky(WHOLE)
class WholeMean(Rule):
    def long(self, candles: Candles) -> Any:
        return candles.close < candles.close.mean()


@leaky(WHOLE)
class WholeZScore(Rule):
    def long(self, candles: Candles) -> Any:
        moves = pd.Series(candles.close).pct_change().fillna(0.0)
        return (moves - moves.mean()) / (moves.std() + 1e-12) > 1.0


@leaky(WHOLE)
class WholeQuantile(Rule):
    def long(self, candles: Candles) -> Any:
        return candles.close < np.quantile(candles.close, 0.2)


@leaky(WHOLE)
class WholeRank(Rule):
    def long(self, candles: Candles) -> Any:
        return pd.Series(candles.close).rank(pct=True) < 0.3


@leaky(WHOLE)
class ScaledToTheWholeRange(Rule):
    def long(self, candles: Candles) -> Any:
        low, high = candles.close.min(), candles.close.max()
        return (candles.close - low) / (high - low + 1e-12) < 0.4


@leaky(WHOLE)
class RegressionOverTheWhole(Rule):
    bars: ClassVar[int] = 2

    def long(self, candles: Candles) -> Any:
        x = np.arange(len(candles))
        return candles.close < np.polyval(np.polyfit(x, candles.close, 1), x)


@leaky(WHOLE)
class BestDayOfTheWeekInHindsight(Rule):
    def long(self, candles: Candles) -> Any:
        moves = pd.Series(candles.close).pct_change().fillna(0.0)
        day = pd.Series(days_of(candles) % 7)
        return day == moves.groupby(day).mean().idxmax()


@leaky(WHOLE)
class BottomOfTheWhole(Rule):
    def long(self, candles: Candles) -> Any:
        return np.arange(len(candles)) == np.argmin(candles.close)


@leaky(WHOLE)
class TheCheapestBarsSorted(Rule):
    def long(self, candles: Candles) -> Any:
        flags = np.zeros(len(candles))
        flags[np.argsort(candles.close, kind="stable")[: len(candles) // 4]] = 1.0
        return flags


@leaky(WHOLE, "volume")
class WholeVolumeMedian(Rule):
    def long(self, candles: Candles) -> Any:
        return candles.volume > np.median(candles.volume)


@leaky(WHOLE, "high")
class MaximumFromTheRight(Rule):
    def long(self, candles: Candles) -> Any:
        return np.maximum.accumulate(candles.high[::-1])[::-1] > 1.05 * candles.close


FILLED = "filled or joined from later rows"


@leaky(FILLED)
class Backfilled(Rule):
    def long(self, candles: Candles) -> Any:
        close = pd.Series(candles.close)
        known = close.where(np.arange(len(close)) % 6 == 0)
        return known.bfill() > close


@leaky(FILLED)
class Interpolated(Rule):
    def long(self, candles: Candles) -> Any:
        close = pd.Series(candles.close)
        known = close.where(np.asarray(candles.ts) // 3_600_000 % 6 == 0)
        return known.interpolate() > close


@leaky(FILLED)
class DailyCloseOfToday(Rule):
    """Daily bars are labelled at their start: joined without a shift, today knows its close."""

    def long(self, candles: Candles) -> Any:
        close = candles.frame()["close"]
        daily = close.resample("1D").last()
        return daily.reindex(close.index, method="ffill").to_numpy() > candles.close


@leaky(FILLED, "high")
class FourHourHighOfNow(Rule):
    def long(self, candles: Candles) -> Any:
        frame = candles.frame()
        high = frame["high"].resample("4h").max().reindex(frame.index, method="ffill")
        return high.to_numpy() > 1.005 * candles.close


@leaky(FILLED, "low")
class LowOfTheDayByGroup(Rule):
    def long(self, candles: Candles) -> Any:
        low = pd.Series(candles.low).groupby(days_of(candles)).transform("min")
        return pd.Series(candles.close) < 1.005 * low


@leaky(FILLED)
class DroppedAndMisaligned(Rule):
    """The first rows are dropped, the rest put back from bar 0 on."""

    def long(self, candles: Candles) -> Any:
        average = pd.Series(candles.close).rolling(5).mean().dropna().to_numpy()
        late = np.full(len(candles), np.nan)
        late[: len(average)] = average
        return late > candles.close


END = "knows where the history ends"


@leaky(END, "the number or times")
class OutBeforeTheEnd(Rule):
    def long(self, candles: Candles) -> Any:
        return np.arange(len(candles)) < len(candles) - 10


@leaky(END, "the number or times")
class TheLastDay(Rule):
    def long(self, candles: Candles) -> Any:
        days = days_of(candles)
        return days == days[-1:]


@leaky(END, "the number or times")
class RaisesOnAnEvenNumberOfBars(Rule):
    """Its answers are causal, but on some histories there are none."""

    bars: ClassVar[int] = 19

    def long(self, candles: Candles) -> Any:
        if len(candles) % 1000 and len(candles) % 2 == 0:
            raise ValueError("an even number of bars")
        return super().long(candles)


ELSEWHERE = "not in the target"


@leaky(ELSEWHERE)
class OnlyTheConfidence(Rule):
    bars: ClassVar[int] = 19

    def sure(self, candles: Candles) -> Any:
        return np.where(np.append(candles.close[1:], 0.0) > candles.close, 80.0, 20.0)


@leaky(ELSEWHERE)
class TheConfidenceByALittle(Rule):
    bars: ClassVar[int] = 19

    def sure(self, candles: Candles) -> Any:
        return 50.0 + 1e-9 * candles.close / candles.close.max()


@leaky(ELSEWHERE)
class OnlyTheReason(Rule):
    bars: ClassVar[int] = 19

    def why(self, candles: Candles) -> Any:
        return np.append(candles.close[1:], 0.0) > candles.close


RARE = "acts at few bars"


@leaky(RARE)
class OnTheBusiestBars(Rule):
    """One bar in two hundred, by volume so far, sees the next close."""

    bars: ClassVar[int] = 100

    def long(self, candles: Candles) -> Any:
        volume, close = pd.Series(candles.volume), pd.Series(candles.close)
        busy = volume >= volume.expanding(100).quantile(0.995)
        return np.where(busy, close.shift(-1) > close, super().long(candles))


@leaky(RARE)
class OnOneBarInAThousand(Rule):
    """Bars chosen by nothing that a point could be chosen by."""

    bars: ClassVar[int] = 19

    def long(self, candles: Candles) -> Any:
        close = pd.Series(candles.close)
        picked = np.asarray(candles.ts) // 3_600_000 * 7_919 % 1_009 == 0
        return np.where(picked, close.shift(-1) > close, super().long(candles))


@leaky(RARE)
class AtTheEndOfTheMonth(Rule):
    bars: ClassVar[int] = 19

    def long(self, candles: Candles) -> Any:
        close, month = pd.Series(candles.close), candles.frame().index.month
        later = (candles.frame().index + pd.Timedelta("1h")).month
        return np.where(month != later, close.shift(-1) > close, super().long(candles))


@leaky(RARE)
class BeforeACrash(Rule):
    """Out for the one bar before a fall of three deviations, else causal."""

    bars: ClassVar[int] = 19

    def long(self, candles: Candles) -> Any:
        move = pd.Series(candles.close).pct_change()
        crash = move.shift(-1) < -3.0 * move.rolling(100).std()
        return np.where(crash, 0.0, super().long(candles))


REMEMBERED = "remembered or random"
_SEEN: dict[str, float] = {}
_LONGEST: dict[str, np.ndarray] = {}


@leaky(REMEMBERED, "")
class MeanOfTheFirstCall(Rule):
    """A module's dictionary keeps the mean of whatever was asked first."""

    def long(self, candles: Candles) -> Any:
        return candles.close < _SEEN.setdefault(candles.symbol, float(candles.close.mean()))


@leaky(REMEMBERED, "")
class TheLongestHistorySeen(Rule):
    """A cut history is looked up in the longest one that was ever seen."""

    def long(self, candles: Candles) -> Any:
        known = _LONGEST.get(candles.symbol, np.empty(0))
        if len(known) < len(candles):
            known = _LONGEST[candles.symbol] = np.array(candles.close)
        ahead = np.append(known[1:], known[-1:])[: len(candles)]
        return ahead > candles.close


@leaky(REMEMBERED, "")
class MeanKeptInTheObject(Rule):
    def long(self, candles: Candles) -> Any:
        if "_mean" not in vars(self):
            object.__setattr__(self, "_mean", float(candles.close.mean()))
        return candles.close < vars(self)["_mean"]


@leaky(REMEMBERED, "")
class RandomWithoutASeed(Rule):
    def long(self, candles: Candles) -> Any:
        return np.random.default_rng().random(len(candles)) < 0.5


@leaky(REMEMBERED, "the number or times")
class SeededByTheLength(Rule):
    def long(self, candles: Candles) -> Any:
        return np.random.default_rng(len(candles)).random(len(candles)) < 0.5


@leaky("another symbol", "AAAUSDT close")
class TheOtherSymbolsNextClose(Rule):
    """Every symbol does what the first one will do; needs several."""

    def joint_targets(self, candles: CandleSet) -> tuple[Targets, ...]:
        first = candles.series[0]
        ahead = dict(
            zip(
                first.ts.tolist(),
                (np.append(first.close[1:], first.close[-1:]) > first.close).tolist(),
                strict=True,
            )
        )
        return tuple(self._following(one, ahead) for one in candles)

    def _following(self, one: Candles, ahead: dict[int, bool]) -> Targets:
        long = np.array([ahead.get(ts, False) for ts in one.ts.tolist()])
        return Targets(long.astype(float), np.full(len(one), 50.0), long.astype(np.int64))


@leaky("the last digit", "")
class ConvolvedByFourier(Rule):
    """Causal on paper; but how an FFT rounds depends on how many bars there are.

    Its confidence differs in the last bits, so paper trading cannot repeat the backtest: refused.
    """

    bars: ClassVar[int] = 20

    def sure(self, candles: Candles) -> Any:
        average = signal.fftconvolve(candles.close, np.ones(20) / 20)[: len(candles)]
        return np.clip(50.0 + 100.0 * (candles.close / average - 1.0), 0.0, 100.0)


@leaky("two targets", "")
class TheQuickTargetPeeks(Rule):
    """What a run reads is causal, what a sweep reads is not."""

    bars: ClassVar[int] = 19

    def target(self, candles: Candles) -> Any:
        return (np.append(candles.close[1:], 0.0) > sma(candles.close, 20)).astype(float)
