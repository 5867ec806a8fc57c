"""The look-ahead check on a corpus: every leaky strategy is caught, no clean one is accused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from research.candles import CandleSet, find_defects, utc_ms
from research.errors import InputError, LookAheadFound
from research.evidence import lookahead
from research.evidence.look_points import suspects
from research.evidence.lookahead import LookAhead, find_lookahead, require_causal
from research.evidence.other_candles import Future, contrary_candles, moved, with_future
from research.history import History
from research.strategies.bollinger_reversion import BollingerReversion
from research.strategies.buy_and_hold import BuyAndHold
from research.strategies.calm_trend import CalmTrend
from research.strategies.donchian_breakout import DonchianBreakout
from research.strategies.ema_crossover import EmaCrossover
from research.strategies.macd_trend import MacdTrend
from research.strategies.momentum_rotation import MomentumRotation
from research.strategies.rsi_reversal import RsiReversal
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Strategy, registry
from research.synthetic import synthetic_candles
from tests.backtest import lookahead_leaky as leaky
from tests.backtest.lookahead_clean import CLEAN
from tests.backtest.lookahead_leaky import LEAKY, RARE
from tests.backtest.lookahead_rule import Rule

BARS = 1_000
SHIPPED = (
    BuyAndHold(),
    SmaCrossover(),
    SmaCrossover(fast=2, slow=3),
    SmaCrossover(fast=50, slow=200),
    EmaCrossover(),
    EmaCrossover(fast=3, slow=120),
    MacdTrend(),
    MacdTrend(fast=2, slow=5, signal=1),
    RsiReversal(),
    RsiReversal(window=2, oversold=5.0, overbought=95.0),
    RsiReversal(window=40, oversold=49.0, overbought=51.0),
    BollingerReversion(),
    BollingerReversion(window=100, width=3.0),
    DonchianBreakout(),
    DonchianBreakout(entry=5, exit=60),
    CalmTrend(),
    CalmTrend(fast=5, slow=20, window=60, most_range=0.8),
    MomentumRotation(),
    MomentumRotation(lookback=30, top=2, rebalance_every=6, floor=-100.0),
    MomentumRotation(lookback=1, rebalance_every=1),
)


@pytest.fixture(scope="module")
def candles() -> CandleSet:
    return synthetic_candles(("AAAUSDT",), "1h", utc_ms("2024"), BARS)


@pytest.fixture(scope="module")
def several() -> CandleSet:
    return synthetic_candles(("AAAUSDT", "BTCUSDT", "ETHUSDT"), "1h", utc_ms("2024"), BARS)


@pytest.fixture(scope="module")
def long() -> CandleSet:
    return synthetic_candles(("AAAUSDT",), "1h", utc_ms("2022"), 20_000)


def set_for(family: str, candles: CandleSet, several: CandleSet) -> CandleSet:
    return several if family == "another symbol" else candles


def test_the_corpus_is_large_enough() -> None:
    assert len(LEAKY) >= 40
    assert len(CLEAN) >= 40


@pytest.mark.parametrize("leak", LEAKY, ids=lambda cls: cls.__name__)
def test_a_leaky_strategy_is_caught_and_its_column_named(
    leak: Callable[[], Strategy], candles: CandleSet, several: CandleSet
) -> None:
    family, column = LEAKY[leak]
    asked = 1000 if family == RARE else 100
    found = find_lookahead(leak(), set_for(family, candles, several), points=asked)
    assert not found.is_clean
    assert found.faults[0].kind != "warm-up", found.message
    assert column in found.faults[0].leak, found.message
    assert found.faults[0].symbol in found.message


@pytest.mark.parametrize("clean", CLEAN, ids=lambda cls: cls.__name__)
def test_a_clean_strategy_is_not_accused(
    clean: Callable[[], Strategy], candles: CandleSet, several: CandleSet
) -> None:
    found = find_lookahead(clean(), set_for(CLEAN[clean], candles, several), points=150)
    assert found.is_clean, found.message
    assert found.points >= 150


@pytest.mark.parametrize("strategy", SHIPPED, ids=repr)
def test_no_shipped_strategy_looks_ahead(strategy: Strategy, several: CandleSet) -> None:
    if not isinstance(strategy, MomentumRotation):
        several = CandleSet(several.series[:1])
    found = find_lookahead(strategy, several, points=BARS)
    assert found.is_clean, found.message
    assert found.points == BARS - strategy.warmup


def test_every_shipped_strategy_is_asked() -> None:
    assert {cls.__module__ for cls in registry().values()} >= {
        type(one).__module__ for one in SHIPPED
    }
    assert len({type(one) for one in SHIPPED}) == 9


@pytest.mark.parametrize("cls", [SmaCrossover, RsiReversal, BollingerReversion, CalmTrend])
def test_none_looks_ahead_on_twenty_thousand_bars(cls: type[Strategy], long: CandleSet) -> None:
    found = find_lookahead(cls(), long)
    assert found.is_clean, found.message
    assert found.points >= 1000


def test_none_looks_ahead_on_real_candles_with_an_outage(shared_history: History) -> None:
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    read = tuple(
        shared_history.read("binance", one, "1h", utc_ms("2023-03-01"), utc_ms("2023-06-01"))
        for one in symbols
    )
    for strategy in (MomentumRotation(), DonchianBreakout(), EmaCrossover()):
        found = find_lookahead(strategy, CandleSet(read), points=200)
        assert found.is_clean, found.message


def peeking_bars(candles: CandleSet) -> set[int]:
    """The bars at which OnOneBarInAThousand peeks and has a next bar to peek at."""
    (one,) = candles
    rows = np.flatnonzero(np.asarray(one.ts) // 3_600_000 * 7_919 % 1_009 == 0)
    return set(rows[(rows >= 19) & (rows < len(one) - 1)].tolist())


def test_nearly_every_one_of_few_leaky_bars_among_twenty_thousand_is_found(
    long: CandleSet,
) -> None:
    found = find_lookahead(leaky.OnOneBarInAThousand(), long)
    peeking, named = peeking_bars(long), {fault.bar for fault in found.faults}
    assert named <= peeking
    assert len(named) >= 0.9 * len(peeking)
    assert len(peeking) == 20
    assert found.faults[0].leak == "AAAUSDT close"


# Negative controls: each part of the check is needed.


def with_points_only(monkeypatch: pytest.MonkeyPatch) -> None:
    none = np.empty(0, np.int64)
    monkeypatch.setattr(lookahead, "suspects", lambda *_: none)


def test_without_suspects_as_many_points_miss_a_rare_leak(
    long: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = leaky.OnOneBarInAThousand()
    few = CandleSet((long.series[0].rows(0, 8_000),))
    assert not find_lookahead(rare, few, points=60).is_clean
    with_points_only(monkeypatch)
    missed = [find_lookahead(rare, few, points=60, seed=seed).is_clean for seed in range(3)]
    assert all(missed)


def test_suspects_are_the_bars_that_really_peek(candles: CandleSet) -> None:
    rare = leaky.OnOneBarInAThousand()
    whole = lookahead.answers(rare, candles)
    assert peeking_bars(candles) <= set(suspects(rare, candles, whole)[:20].tolist())


class _PeeksUnlessCut(Rule):
    """Looks at the next bar where that is not the last one: no cut history shows it."""

    bars: ClassVar[int] = 1

    def long(self, candles: Any) -> Any:
        close = np.asarray(candles.close)
        n = len(close)
        rose = np.diff(close, prepend=close[:1]) > 0
        flags = rose.copy()
        at = np.flatnonzero(np.asarray(candles.ts) // 3_600_000 % 4 == 0)
        at = at[at < n - 1]
        # Only a surge of a fifth within one bar is noticed: none is in the candles.
        flags[at] |= close[at + 1] > 1.2 * close[at]
        return flags


PeeksUnlessCut = dataclass(frozen=True)(_PeeksUnlessCut)


def test_cutting_alone_would_miss_a_leak_that_another_future_shows(
    candles: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_lookahead(PeeksUnlessCut(), candles, points=400)
    assert {fault.kind for fault in found.faults} == {"perturbed"}
    assert found.faults[0].leak == "AAAUSDT close"
    monkeypatch.setattr(lookahead, "with_future", lambda candles, *_: candles)
    assert find_lookahead(PeeksUnlessCut(), candles, points=400).is_clean


def test_other_futures_alone_would_miss_what_only_a_cut_shows(candles: CandleSet) -> None:
    @dataclass(frozen=True)
    class NeverOnTheLastBar(Rule):
        """Long wherever a bar follows, whatever it is."""

        def long(self, candles: Any) -> Any:
            return np.arange(len(candles)) < len(candles) - 1

    found = find_lookahead(NeverOnTheLastBar(), candles, points=50)
    assert {fault.kind for fault in found.faults if fault.bar < BARS - 1} == {"truncated"}
    assert found.faults[0].leak == "the number or times of candles"


def test_without_copies_that_remember_nothing_a_mean_of_the_first_call_is_missed(
    candles: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not find_lookahead(leaky.MeanOfTheFirstCall(), candles, points=50).is_clean
    monkeypatch.setattr(lookahead, "anew", lambda strategy: strategy)
    assert find_lookahead(leaky.MeanOfTheFirstCall(), candles, points=50).is_clean


# The warm-up.


def hurried(cls: type[Strategy], bars: int, **parameters: float) -> Strategy:
    """A copy that declares a warm-up shorter by so many bars."""

    class Hurried(cls):  # type: ignore[misc, valid-type]
        @property
        def warmup(self) -> int:
            return int(super().warmup) - bars

    Hurried.__name__ = f"Hurried{cls.__name__}"
    made: Strategy = dataclass(frozen=True)(Hurried)(**parameters)
    return made


HURRIED = [
    (SmaCrossover, 10, {}),
    (SmaCrossover, 1, {"fast": 2, "slow": 30}),
    (EmaCrossover, 10, {}),
    (EmaCrossover, 1, {}),
    (MacdTrend, 5, {}),
    (RsiReversal, 1, {}),
    (BollingerReversion, 4, {}),
    (DonchianBreakout, 1, {}),
    (CalmTrend, 20, {}),
    (MomentumRotation, 5, {"lookback": 30, "rebalance_every": 1}),
]


@pytest.mark.parametrize(("cls", "bars", "parameters"), HURRIED)
def test_a_shipped_strategy_that_declares_less_than_it_needs_is_refused(
    cls: type[Strategy], bars: int, parameters: dict[str, float], several: CandleSet
) -> None:
    honest = cls(**parameters)
    asked = several if cls is MomentumRotation else CandleSet(several.series[:1])
    found = find_lookahead(hurried(cls, bars, **parameters), asked, points=50)
    assert [fault.kind for fault in found.faults] == ["warm-up"]
    assert found.warmup_needed == honest.warmup
    assert f"needs {honest.warmup}" in found.message


@dataclass(frozen=True)
class FromOneBarOn(Rule):
    """rolling(min_periods=1): says something from its first bar on, and of less than it claims."""

    bars: ClassVar[int] = 10

    def long(self, candles: Any) -> Any:
        close = candles.frame()["close"]
        return close > close.rolling(50, min_periods=1).mean()


def test_a_window_with_min_periods_is_refused_until_its_warm_up_is_declared(
    candles: CandleSet,
) -> None:
    found = find_lookahead(FromOneBarOn(), candles, points=50)
    assert (found.warmup_declared, found.warmup_needed) == (10, 49)
    assert [fault.kind for fault in found.faults] == ["warm-up"]
    assert found.faults[0].bar == 10

    @dataclass(frozen=True)
    class Patient(FromOneBarOn):
        bars: ClassVar[int] = 49

    assert find_lookahead(Patient(), candles, points=50).is_clean


# What is said, and what is refused.


def test_the_message_names_the_first_bar_and_what_leaks(candles: CandleSet) -> None:
    found = find_lookahead(leaky.VolumeOfTheNextBar(), candles, points=200)
    first = found.faults[0]
    assert first.ts == candles.series[0].ts[first.bar]
    assert first.ts == min(fault.ts for fault in found.faults)
    assert first.column in ("target", "reason")
    assert first.known == first.ts  # it sees one bar ahead
    assert first.leak == "AAAUSDT volume"
    for part in ("VolumeOfTheNextBar() looks ahead", f"bar {first.bar:,}", "AAAUSDT volume"):
        assert part in str(found)


def test_require_causal_raises_what_find_lookahead_says(candles: CandleSet) -> None:
    assert require_causal(SmaCrossover(), candles.series[0], points=50).is_clean
    with pytest.raises(LookAheadFound, match=r"ShiftMinusOne\(\) looks ahead. First, AAAUSDT bar"):
        require_causal(leaky.ShiftMinusOne(), candles, points=50)


def test_the_same_seed_says_the_same(candles: CandleSet) -> None:
    def once() -> LookAhead:
        return find_lookahead(leaky.OnlyTheNextLow(), candles, points=90, seed=5)

    assert once() == once()


def test_an_exception_on_a_cut_history_is_a_fault_and_says_what_was_raised(
    candles: CandleSet,
) -> None:
    found = find_lookahead(leaky.RaisesOnAnEvenNumberOfBars(), candles, points=100)
    assert "raised ValueError: an even number of bars" in {fault.other for fault in found.faults}


@pytest.mark.parametrize("points", [0, -1, True, 2.5])
def test_points_are_a_positive_whole_number(points: Any, candles: CandleSet) -> None:
    with pytest.raises(InputError, match="points"):
        find_lookahead(SmaCrossover(), candles, points=points)


def test_candles_that_end_within_the_warm_up_are_refused(candles: CandleSet) -> None:
    short = candles.series[0].rows(0, 50)
    with pytest.raises(InputError, match="at least 51 bars"):
        find_lookahead(SmaCrossover(), short)
    assert find_lookahead(SmaCrossover(), candles.series[0].rows(0, 51)).points == 2


# The other candles are sound, so no strategy may call them impossible.


@pytest.mark.parametrize("future", list(Future))
@pytest.mark.parametrize("known", [0, 1, 500, 999, 1000])
@pytest.mark.parametrize("bars", [2, 40, None])
@pytest.mark.parametrize("absent", [None, 1])
def test_other_futures_are_sound_and_leave_what_is_known(
    future: Future, known: int, bars: int | None, absent: int | None, several: CandleSet
) -> None:
    other = with_future(several, [known] * 3, future, bars, absent)
    for one, new in zip(several, other, strict=True):
        assert new.rows(0, known).digest() == one.rows(0, known).digest()
        bad = {defect.kind.value for defect in find_defects(new)}
        assert bad <= {"zero_volume", "gap"} if absent is not None else bad <= {"zero_volume"}
        if bars is None and absent is None:
            assert np.array_equal(new.ts, one.ts)


def test_moved_candles_are_sound(candles: CandleSet) -> None:
    (one,) = candles
    for stretch in (-3.0, 5.0):
        for phase in range(5):
            flags = np.arange(BARS) % 5 == phase
            (other,) = moved(candles, [contrary_candles(one, stretch)], [flags])
            assert not find_defects(other)
            assert np.array_equal(other.close[~flags], one.close[~flags])
            assert (other.close[flags] != one.close[flags]).all()


def test_a_symbol_that_begins_late_and_one_that_ends_early_are_asked_too(
    several: CandleSet,
) -> None:
    first, second, third = several
    uneven = replace(several, series=(first, second.rows(300, BARS), third.rows(0, 700)))
    found = find_lookahead(MomentumRotation(lookback=24, rebalance_every=4), uneven, points=200)
    assert found.is_clean, found.message
