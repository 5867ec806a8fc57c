"""Rotation against a plain-Python oracle, and that no ranking sees the future or the window.

The sets are random and small: symbols that begin late or stop early, bars that are absent, prices
that are powers of two, so that momenta tie to the last bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from research.candles import Candles, CandleSet, Floats, utc_ms
from research.errors import ParameterError
from research.strategies.momentum_rotation import MomentumRotation, Ranked
from research.strategy import Strategy, Targets, compute_targets, raw_targets

HOUR = 3_600_000
START = utc_ms("2024-03-01T05:00")  # on no multiple of four or more hours
NAMES = ("CCCUSDT", "AAAUSDT", "DDDUSDT", "BBBUSDT")  # ties are by place, not by name


def candles_of(symbol: str, ts: Floats, close: Floats) -> Candles:
    return Candles(symbol, "1h", ts, close, close, close, close, np.ones(len(ts)))


def table(*columns: list[float]) -> CandleSet:
    """Closes of hours from 2024-03-01T00:00 on, by symbol; NaN is no candle."""
    series = []
    for symbol, closes in zip(NAMES, columns, strict=False):
        close = np.array(closes)
        ts = utc_ms("2024-03-01") + HOUR * np.arange(len(close))
        series.append(candles_of(symbol, ts[~np.isnan(close)], close[~np.isnan(close)]))
    return CandleSet(tuple(series))


def random_set(seed: int, bars: int, symbols: int) -> CandleSet:
    """Hours of ``symbols`` symbols; some absent, some late, some that stop, some with none."""
    rng = np.random.default_rng(seed)
    coarse, absent = rng.random() < 0.5, rng.choice([0.0, 0.1, 0.4])
    series = []
    for symbol in NAMES[:symbols]:
        steps = rng.integers(-1, 2, bars) if coarse else rng.normal(0.0, 0.05, bars)
        close = 2.0 ** np.cumsum(steps)
        here = rng.random(bars) >= absent
        if rng.random() < 0.3:
            here[: rng.integers(0, bars)] = False
        if rng.random() < 0.2:
            here[rng.integers(0, bars) :] = False
        ts = START + HOUR * np.arange(bars)
        series.append(candles_of(symbol, ts[here], close[here]))
    return CandleSet(tuple(series))


@st.composite
def rotations(draw: st.DrawFn) -> MomentumRotation:
    lookback = draw(st.integers(1, 8))
    return MomentumRotation(
        lookback=lookback,
        top=draw(st.integers(1, 4)),
        rebalance_every=draw(st.integers(1, lookback)),
        floor=draw(st.sampled_from([-100.0, -100.0, 0.0, 0.0, 3.0, 100.0])),
    )


sets = st.builds(random_set, st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 4))


class Said(NamedTuple):
    """What the oracle says of one candle."""

    target: float
    confidence: float
    reason: int


def oracle(strategy: MomentumRotation, candles: CandleSet) -> dict[tuple[str, int], Said]:
    """Bar by bar and symbol by symbol, with a memory of who holds a place; no arrays."""
    bars = {
        one.symbol: dict(zip(one.ts.tolist(), one.close.tolist(), strict=True)) for one in candles
    }
    seen: dict[str, list[float]] = {symbol: [] for symbol in candles.symbols}
    holds = dict.fromkeys(candles.symbols, False)
    answers: dict[tuple[str, int], Said] = {}
    for ts in sorted({ts for one in bars.values() for ts in one}):
        present = [symbol for symbol in candles.symbols if ts in bars[symbol]]
        rises: dict[str, float] = {}
        for symbol in present:
            seen[symbol].append(bars[symbol][ts])
            ready = len(seen[symbol]) > strategy.lookback
            answers[symbol, ts] = Said(math.nan, 0.0, 4 if ready else 0)
            if ready:
                before = seen[symbol][-1 - strategy.lookback]
                rises[symbol] = (seen[symbol][-1] - before) / before
        if (ts + HOUR) % (strategy.rebalance_every * HOUR) == 0:
            _rebalance(strategy, rises, holds, answers, ts)
    return answers


def _rebalance(
    strategy: MomentumRotation,
    rises: dict[str, float],
    holds: dict[str, bool],
    answers: dict[tuple[str, int], Said],
    ts: int,
) -> None:
    floor = strategy.floor / 100
    free = strategy.top - sum(held for symbol, held in holds.items() if symbol not in rises)
    order = sorted(rises, key=lambda symbol: -rises[symbol])  # a stable sort
    winners = [symbol for symbol in order[:free] if rises[symbol] > floor]
    losers = [symbol for symbol in order if symbol not in winners]
    for symbol, rise in rises.items():
        holds[symbol] = symbol in winners
        if holds[symbol]:
            reason, margin = 1, rise - max([floor, *(rises[one] for one in losers)])
        elif rise <= floor:
            reason, margin = 3, floor - rise
        else:
            reason, margin = 2, min((rises[one] for one in winners), default=rise) - rise
        target = 1 / strategy.top if holds[symbol] else 0.0
        answers[symbol, ts] = Said(target, 100 * margin / (margin + 0.01), reason)


@settings(max_examples=400, deadline=None)
@given(rotations(), sets)
def test_targets_confidences_and_reasons_are_those_of_a_plain_loop(
    strategy: MomentumRotation, candles: CandleSet
) -> None:
    expected = oracle(strategy, candles)
    for one, made in zip(candles, compute_targets(strategy, candles), strict=True):
        said = [expected[one.symbol, ts] for ts in one.ts.tolist()]
        np.testing.assert_array_equal(made.target, [row.target for row in said])
        np.testing.assert_array_equal(made.reason, [row.reason for row in said])
        np.testing.assert_allclose(made.confidence, [row.confidence for row in said], rtol=1e-9)


def test_the_random_sets_have_ties_absent_winners_and_every_reason() -> None:
    """What the properties are worth depends on what they meet."""
    met: set[object] = set()
    for seed in range(60):
        candles = random_set(seed, 60, 4)
        strategy = MomentumRotation(lookback=3, top=2, rebalance_every=2)
        ranked = strategy._ranked(candles)
        for row in ranked.strength:
            known = row[~np.isnan(row)]
            met |= {"tie"} if len(set(known)) < len(known) else set()
        for made in compute_targets(strategy, candles):
            met |= set(made.reason.tolist())
        alone = ranked.strength > 0.0
        alone &= np.argsort(np.argsort(-ranked.strength, axis=1), axis=1) < strategy.top
        met |= {"place kept"} if (alone & ~strategy._held(ranked.strength)).any() else set()
    assert met == {"tie", "place kept", 0, 1, 2, 3, 4}


@settings(max_examples=200, deadline=None)
@given(rotations(), sets)
def test_never_more_than_top_symbols_are_wanted_at_once_and_only_rebalances_decide(
    strategy: MomentumRotation, candles: CandleSet
) -> None:
    clock = candles.clock()
    wanted = np.zeros((len(clock), len(candles)))
    for s, (one, made) in enumerate(zip(candles, compute_targets(strategy, candles), strict=True)):
        decided = ~np.isnan(made.target)
        assert not ((one.ts[decided] + HOUR) % (strategy.rebalance_every * HOUR)).any()
        assert set(made.target[decided]) <= {0.0, 1.0 / strategy.top}
        last = 0.0
        now = dict(zip(one.ts[decided].tolist(), made.target[decided].tolist(), strict=True))
        for t, ts in enumerate(clock.tolist()):
            last = wanted[t, s] = now.get(ts, last)
    assert ((wanted > 0).sum(axis=1) <= strategy.top).all()


@settings(max_examples=100, deadline=None)
@given(rotations(), sets)
def test_the_quick_targets_of_a_sweep_are_the_targets(
    strategy: MomentumRotation, candles: CandleSet
) -> None:
    for quick, made in zip(
        raw_targets(strategy, candles), compute_targets(strategy, candles), strict=True
    ):
        assert quick.tobytes() == made.target.tobytes()


# What depends on bars that it must not depend on


def bits(targets: tuple[Targets, ...], keep: Callable[[int], slice]) -> list[bytes]:
    return [
        column[keep(s)].tobytes()
        for s, one in enumerate(targets)
        for column in (one.target, one.confidence, one.reason)
    ]


def first_looks_ahead(strategy: Strategy, candles: CandleSet) -> int | None:
    """A close whose answers depend on later candles, or None; every close of the set is tried.

    Two questions: are all answers up to there the same where the history ends, and where it goes
    on otherwise?
    """
    whole = compute_targets(strategy, candles)
    for close in (candles.clock() + HOUR).tolist():
        ended = candles.closed_by(close)
        lengths = [len(one) for one in ended]

        def until(s: int, lengths: list[int] = lengths) -> slice:
            return slice(lengths[s])

        known = bits(whole, until)
        if bits(compute_targets(strategy, ended), until) != known:
            return int(close)
        other = CandleSet(tuple(_bent(one, n) for one, n in zip(candles, lengths, strict=True)))
        if bits(compute_targets(strategy, other), until) != known:
            return int(close)
    return None


def _bent(one: Candles, known: int) -> Candles:
    """The same candles up to ``known``; after that other prices, and every third is absent."""
    close = one.close.copy()
    close[known:] = 2.0 ** (np.arange(len(one) - known)[::-1] % 5)
    here = (np.arange(len(one)) < known) | (np.arange(len(one)) % 3 != 0)
    return candles_of(one.symbol, one.ts[here], close[here])


@settings(max_examples=60, deadline=None)
@given(rotations(), sets)
def test_no_answer_depends_on_a_candle_that_had_not_closed(
    strategy: MomentumRotation, candles: CandleSet
) -> None:
    assert first_looks_ahead(strategy, candles) is None


@dataclass(frozen=True)
class Peeking(MomentumRotation):
    """Wrong: ranks by the momentum of the next bar."""

    def _ranked(self, candles: CandleSet) -> Ranked:
        ahead = (
            candles_of(one.symbol, one.ts, np.append(one.close[1:], one.close[-1:]))
            for one in candles
        )
        return super()._ranked(CandleSet(tuple(ahead)))


@dataclass(frozen=True)
class Knowing(MomentumRotation):
    """Wrong in a quieter way: a symbol that will stop is ranked below all others."""

    def _ranked(self, candles: CandleSet) -> Ranked:
        ranked = super()._ranked(candles)
        last = candles.clock()[-1]
        ends = [len(one) > 0 and int(one.ts[-1]) < last for one in candles]
        strength = np.where(np.array(ends), ranked.strength - 9.0, ranked.strength)
        return ranked._replace(strength=strength)


@dataclass(frozen=True)
class Drifting(MomentumRotation):
    """Causal, but its rebalances are counted from the first candle of the window."""

    def _ranked(self, candles: CandleSet) -> Ranked:
        shift = int(candles.clock()[0]) + HOUR
        moved = (candles_of(one.symbol, one.ts - shift, one.close) for one in candles)
        return super()._ranked(CandleSet(tuple(moved)))


@pytest.mark.parametrize("wrong", [Peeking, Knowing])
def test_the_same_check_catches_a_rotation_that_looks_ahead(wrong: type[MomentumRotation]) -> None:
    strategy = wrong(lookback=3, top=1, rebalance_every=1)
    caught = [first_looks_ahead(strategy, random_set(seed, 60, 4)) for seed in range(12)]
    assert sum(close is not None for close in caught) > 6
    honest = MomentumRotation(lookback=3, top=1, rebalance_every=1)
    assert [first_looks_ahead(honest, random_set(seed, 60, 4)) for seed in range(12)] == [None] * 12


def depends_on_the_window(
    strategy: MomentumRotation, candles: CandleSet, start: int
) -> bool | None:
    """Whether the answers differ where the window begins at ``start``; None: nothing to compare.

    They are compared from the first rebalance on at which every symbol that has been seen takes
    its decision in both: what was held before it matters no more.
    """
    part = candles.between(start)
    settled = _settled(strategy, candles, part)
    if settled is None:
        return None
    rows = [int(np.searchsorted(one.ts, settled - HOUR)) for one in candles]
    dropped = [len(one) - len(rest) for one, rest in zip(candles, part, strict=True)]
    ready = [max(row, gone + strategy.warmup) for row, gone in zip(rows, dropped, strict=True)]
    whole = bits(compute_targets(strategy, candles), lambda s: slice(ready[s], None))
    cut = bits(compute_targets(strategy, part), lambda s: slice(ready[s] - dropped[s], None))
    return whole != cut


def _settled(strategy: MomentumRotation, candles: CandleSet, part: CandleSet) -> int | None:
    for close in (part.clock() + HOUR).tolist() if any(len(one) for one in part) else ():
        if close % (strategy.rebalance_every * HOUR) == 0 and all(
            len(rest.closed_by(close)) > strategy.lookback and close - HOUR in rest.ts
            for one, rest in zip(candles, part, strict=True)
            if len(one.closed_by(close))
        ):
            return int(close)
    return None


@settings(max_examples=200, deadline=None)
@given(rotations(), sets, st.integers(0, 40))
def test_beyond_the_warm_up_nothing_depends_on_where_the_window_begins(
    strategy: MomentumRotation, candles: CandleSet, skipped: int
) -> None:
    differs = depends_on_the_window(strategy, candles, START + HOUR * skipped)
    assume(differs is not None)
    assert differs is False


def test_the_same_check_catches_rebalances_counted_from_the_first_candle() -> None:
    strategies = MomentumRotation(4, 2, 4, -100.0), Drifting(4, 2, 4, -100.0)
    differs: dict[str, list[bool | None]] = {"MomentumRotation": [], "Drifting": []}
    for seed in range(20):
        for one in strategies:
            found = depends_on_the_window(one, random_set(seed, 60, 3), START + 5 * HOUR)
            differs[one.name].append(found)
    assert True not in differs["MomentumRotation"]
    assert False in differs["MomentumRotation"]
    assert True in differs["Drifting"]


# Tables for pencil and paper


def targets_of(strategy: Strategy, candles: CandleSet) -> list[list[float]]:
    return [made.target.tolist() for made in compute_targets(strategy, candles)]


def same(found: list[list[float]], *expected: list[float]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


NONE = math.nan


def test_the_stronger_of_two_is_held_and_the_floor_keeps_both_out() -> None:
    candles = table([10, 11, 12, 12, 6], [10, 10, 14, 21, 7])
    # momentum over two bars:  -   -  .2  .09  -.5   against   -   -  .4  1.1  -.5
    strategy = MomentumRotation(lookback=2, top=1, rebalance_every=1)
    same(targets_of(strategy, candles), [NONE, NONE, 0, 0, 0], [NONE, NONE, 1, 1, 0])
    ranked = dataclasses.replace(strategy, floor=-100.0)
    same(targets_of(ranked, candles), [NONE, NONE, 0, 0, 1], [NONE, NONE, 1, 1, 0])
    # The last bar is a tie, and the first symbol of the set comes first.
    turned = CandleSet(candles.series[::-1])
    same(targets_of(ranked, turned), [NONE, NONE, 1, 1, 1], [NONE, NONE, 0, 0, 0])
    both = dataclasses.replace(strategy, top=2)
    same(targets_of(both, candles), [NONE, NONE, 0.5, 0.5, 0], [NONE, NONE, 0.5, 0.5, 0])
    first, second = compute_targets(strategy, candles)
    assert (first.reason.tolist(), second.reason.tolist()) == ([0, 0, 2, 2, 3], [0, 0, 1, 1, 3])
    # At the third close: 0.4 - 0.2 apart, each way.
    np.testing.assert_allclose([first.confidence[2], second.confidence[2]], 100 * 0.2 / 0.21)
    # At the last: 0.5 below the floor of 0.
    np.testing.assert_allclose([first.confidence[4], second.confidence[4]], 100 * 0.5 / 0.51)


def test_of_many_equals_the_first_of_the_set_are_held() -> None:
    rises = np.arange(60) * 7 % 3  # 0, 1 or 2, each twenty times
    series = [
        candles_of(f"{s:02}USDT", START + HOUR * np.arange(2), np.array([1.0, 1.0 + rises[s]]))
        for s in range(len(rises))
    ]
    strategy = MomentumRotation(lookback=1, top=30, rebalance_every=1)
    made = compute_targets(strategy, CandleSet(tuple(series)))
    twos, ones = np.flatnonzero(rises == 2), np.flatnonzero(rises == 1)
    held = [s for s, one in enumerate(made) if one.target[-1] > 0.0]
    assert held == sorted([*twos, *ones[:10]])


def test_it_decides_at_closes_that_are_multiples_of_its_interval_and_keeps_between() -> None:
    close = [8.0, 9, 10, 11, 12, 13, 14]  # opens 00:00 .. 06:00, closes 01:00 .. 07:00
    strategy = MomentumRotation(lookback=3, rebalance_every=3)
    same(targets_of(strategy, table(close)), [NONE] * 5 + [1, NONE])
    (made,) = compute_targets(strategy, table(close))
    assert made.reason.tolist() == [0, 0, 0, 4, 4, 1, 4]
    assert made.confidence[3] == 0.0


def test_an_absent_symbol_that_is_held_keeps_its_place_until_it_can_be_sold() -> None:
    strong, weak = [1, 2, 4, NONE, NONE, 4, 4], [1, 1, 2, 3, 4, 5, 6.0]
    strategy = MomentumRotation(lookback=1, rebalance_every=1)
    # At the third close a tie at 100 %; at the sixth the first has stood still since its last.
    same(targets_of(strategy, table(strong, weak)), [NONE, 1, 1, 0, 0], [NONE, 0, 0, 0, 0, 1, 1])
    second = compute_targets(strategy, table(strong, weak))[1]
    assert second.reason.tolist() == [0, 3, 2, 2, 2, 1, 1]
    assert second.confidence[3] == 0.0  # nothing to measure against
    # With two places there is one left for it.
    two = dataclasses.replace(strategy, top=2)
    same(
        targets_of(two, table(strong, weak)),
        [NONE, 0.5, 0.5, 0, 0],
        [NONE, 0, 0.5, 0.5, 0.5, 0.5, 0.5],
    )


def test_a_symbol_that_begins_late_competes_once_its_own_warm_up_is_over() -> None:
    old, new = [1, 1.5, 2, 2.5, 3.0], [NONE, NONE, 1, 5, 25.0]
    strategy = MomentumRotation(lookback=2, rebalance_every=1)
    same(targets_of(strategy, table(old, new)), [NONE, NONE, 1, 1, 0], [NONE, NONE, 1])


def test_alone_a_symbol_is_held_while_it_has_risen_and_without_the_floor_for_good() -> None:
    candles = table([4, 5, 6, 5, 3, 4, 5.0])
    rising = MomentumRotation(lookback=2, rebalance_every=1)
    same(targets_of(rising, candles), [NONE, NONE, 1, 0, 0, 0, 1])
    always = dataclasses.replace(rising, floor=-100.0, top=2)
    same(targets_of(always, candles), [NONE, NONE, *[0.5] * 5])
    alone = rising.targets(candles.series[0])
    assert alone.target.tobytes() == compute_targets(rising, candles)[0].target.tobytes()


def test_a_rebalance_less_often_than_the_lookback_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"rebalance_every: expected at most lookback \(24\)"):
        MomentumRotation(lookback=24, rebalance_every=25)
    assert MomentumRotation(lookback=24, rebalance_every=24).warmup == 24


# The contract for strategies that look at all symbols


@dataclass(frozen=True)
class Odd(Strategy):
    """Long in the symbols at odd places of the set; has no quicker way."""

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = ("so it is",)
    answers: ClassVar[int | None] = None

    @property
    def warmup(self) -> int:
        return 0

    def targets(self, candles: Candles) -> Targets:
        raise AssertionError("asked for one symbol alone")

    def joint_targets(self, candles: CandleSet) -> tuple[Targets, ...]:
        return tuple(
            Targets(np.full(len(one), s % 2.0), np.zeros(len(one)), np.zeros(len(one), int))
            for s, one in enumerate(candles)
        )[: self.answers]


@dataclass(frozen=True)
class Short(Odd):
    """Wrong: says nothing of the last symbol."""

    answers: ClassVar[int | None] = -1


def test_the_quick_targets_are_those_of_the_joint_method_where_no_others_are_given() -> None:
    candles = table([1.0, 2], [1.0], [3.0, 4])
    assert [one.tolist() for one in raw_targets(Odd(), candles)] == [[0, 0], [1], [0, 0]]
    assert targets_of(Odd(), candles) == [[0, 0], [1], [0, 0]]


@pytest.mark.parametrize(
    ("asked", "method"), [(compute_targets, "joint_targets"), (raw_targets, "joint_target")]
)
def test_an_answer_that_leaves_a_symbol_out_is_refused(
    asked: Callable[[Strategy, CandleSet], object], method: str
) -> None:
    with pytest.raises(ParameterError, match=rf"Short\.{method}: expected one answer a symbol, 2"):
        asked(Short(), table([1.0], [2.0]))
