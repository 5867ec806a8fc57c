"""Look-ahead: does a strategy know at a bar's close what only later candles say?

The definition, bit for bit: what a strategy answers (target, confidence, reason) of the bars up to
a point is the same whether the history ends there, goes on otherwise, or goes on as it did. It is
asked at a thousand points and more, over all bars before each. Numbers that are only nearly equal
are not equal: paper trading must decide what the backtest decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from research.backtesting import as_candle_set, require_instance
from research.candles import COLUMNS, Candles, CandleSet, Ints, iso
from research.errors import InputError, LookAheadFound
from research.evidence.bare_answers import Difference, anew, answers, first_differences
from research.evidence.look_points import choose_points, suspects
from research.evidence.other_candles import Future, only, with_future
from research.evidence.warm_up import measure_warm_up
from research.strategy import Strategy, Targets, compute_targets, raw_targets

__all__ = ["LookAhead", "LookAheadFault", "find_lookahead", "require_causal"]

Kind = Literal["truncated", "perturbed", "unstable", "quick target", "warm-up"]

# How many candles the other futures have, in turn; None is as many as there were.
LENGTHS = (2, 24, 2, 200, 24, 2, 24, 2, 24, 2, 24, 2, None)
ENOUGH = 100  # points with a fault, after which no more are asked
# Of what has no fixed answer a leak cannot be told, and beside a leak a warm-up is no matter.
RANKS = {"unstable": 0, "warm-up": 2}
FUTURES = (*(Future.CONTRARY, Future.VIOLENT) * 3, Future.CONTRARY, Future.STILL)


@dataclass(frozen=True)
class LookAheadFault:
    """One answer that differs: of bar ``bar`` of ``symbol``, whose candle opened at ``ts``, UTC ms.

    ``whole`` is what was said on the whole history, ``other`` what was said otherwise: a reason in
    words, or ``raised ...``. ``known`` is the open of the last candle that was left as it is, UTC
    ms. ``leak`` names what later candles gave away (``BTCUSDT close``), "the number or times of
    candles", or is empty where it was not asked (it is for the first fault).
    """

    kind: Kind
    symbol: str
    bar: int
    ts: int
    column: str
    whole: float | str
    other: float | str
    known: int
    leak: str = ""

    def __str__(self) -> str:
        where = f"{self.symbol} bar {self.bar:,} ({iso(self.ts)}): {self.column} {self.whole}"
        otherwise = {
            "truncated": f"{self.other} where the history ends at {iso(self.known)}",
            "perturbed": f"{self.other} where it goes on otherwise after {iso(self.known)}",
            "unstable": f"{self.other} when asked again on the same candles",
            "quick target": f"{self.other} by the quick way that a sweep takes",
            "warm-up": f"{self.other}",
        }[self.kind]
        leak = f"; what leaks: {self.leak}" if self.leak else ""
        return f"{where} on the whole history, but {otherwise}{leak}"


@dataclass(frozen=True)
class LookAhead:
    """What the check found; ``faults`` are sorted by the time of their bar.

    Unstable answers come before them all, a short warm-up after them all.

    ``points`` is how many bars were taken for the last known one: fewer than asked for where a
    hundred of them had a fault, which is enough. Warm-ups are in bars; the needed one is the
    largest that could be proved (0: none).
    """

    strategy: str
    bars: int
    points: int
    faults: tuple[LookAheadFault, ...]
    warmup_declared: int
    warmup_needed: int

    @property
    def is_clean(self) -> bool:
        return not self.faults

    @property
    def message(self) -> str:
        """One sentence or two: clean, or the first bar and what leaks."""
        if self.is_clean:
            return (
                f"{self.strategy} does not look ahead: at {self.points:,} points of {self.bars:,} "
                f"bars it says the same, to the bit, with the history cut off or going on otherwise"
                f". Warm-up: {self.warmup_declared} bars declared, {self.warmup_needed} proved."
            )
        first = self.faults[0]
        if first.kind == "warm-up":
            return (
                f"{self.strategy} declares a warm-up of {self.warmup_declared} bars and needs "
                f"{self.warmup_needed}: what it says at {first.symbol} bar {first.bar:,} "
                f"({iso(first.ts)}) lacks bars."
            )
        verb = {
            "unstable": "does not always say the same",
            "quick target": "has two targets",
        }.get(first.kind, "looks ahead")
        return f"{self.strategy} {verb}. First, {first}."

    def __str__(self) -> str:
        return self.message


def find_lookahead(
    strategy: Strategy, candles: CandleSet | Candles, *, points: int = 1000, seed: int = 0
) -> LookAhead:
    """Ask ``strategy`` at ``points`` bars (all, where there are fewer) what it would say otherwise.

    Each point is asked twice: with the history cut off after it, and with other sound candles after
    it. Beside that, copies that remember nothing are asked, and the same once more at the end. Same
    seed, same answer. An exception on a changed history is a fault; one on the candles as they are
    is raised. Raises InputError for what is no strategy or candles, for candles that end within the
    warm-up, or points below 1.
    """
    require_instance(strategy)
    given = as_candle_set(candles)
    _require_bars(strategy, given, points)
    clock = given.clock()
    half = len(clock) // 2
    early = _told(strategy, given.between(None, int(clock[half]) + 1))  # before the whole is seen
    compute_targets(strategy, given)
    asked = _Asked(strategy, given, clock, answers(strategy, given))
    faults = [*_unstable(asked, strategy), *asked.faults("truncated", half, early)]
    faults += _of_fresh_copies(asked, half)
    warm_up = measure_warm_up(strategy, given, seed)
    count = 0
    if not any(fault.kind == "unstable" for fault in faults):
        begin = min(int(one.ts[strategy.warmup]) for one in given if len(one) > strategy.warmup)
        suspected = suspects(strategy, given, asked.whole)
        first = int(np.searchsorted(clock, begin))
        at = choose_points(given, asked.whole, suspected, first, points, seed)
        more, count = _at_points(asked, at)
        faults += more
        faults += _unstable(asked, strategy)
    if warm_up.needed > warm_up.declared:
        faults.append(_too_short(asked, warm_up.needed))
    faults += _quick_target(asked, max(warm_up.declared, warm_up.needed))
    faults.sort(key=lambda fault: (RANKS.get(fault.kind, 1), fault.ts, fault.known))
    if faults and faults[0].kind in ("truncated", "perturbed"):
        faults[0] = replace(faults[0], leak=_leak(asked, faults[0]))
    return LookAhead(
        repr(strategy), len(clock), count, tuple(faults), warm_up.declared, warm_up.needed
    )


def require_causal(
    strategy: Strategy, candles: CandleSet | Candles, *, points: int = 1000, seed: int = 0
) -> LookAhead:
    """``find_lookahead``, which must find nothing: raises LookAheadFound with its message."""
    found = find_lookahead(strategy, candles, points=points, seed=seed)
    if not found.is_clean:
        raise LookAheadFound(
            found.message,
            field=strategy.name,
            remedy="Let each bar's answer come from that bar and those before it alone.",
        )
    return found


def _require_bars(strategy: Strategy, candles: CandleSet, points: int) -> None:
    if isinstance(points, bool) or not isinstance(points, int) or points < 1:
        raise InputError(field="points", value=points, expected="a whole number of at least 1")
    longest = max(len(one) for one in candles)
    if longest < strategy.warmup + 2:
        raise InputError(
            field="candles",
            value=longest,
            expected=f"at least {strategy.warmup + 2} bars, two more than the declared warm-up",
        )


Told = tuple[Targets, ...] | str


def _told(strategy: Strategy, candles: CandleSet) -> Told:
    """The strategy's answers, or in words what it raised."""
    try:
        return answers(strategy, candles)
    except Exception as err:  # noqa: BLE001 - whatever a strategy raises there is a finding
        return f"raised {type(err).__name__}: {err}"


@dataclass(frozen=True, eq=False)
class _Asked:
    """A strategy, the candles and what it says of them as a whole."""

    strategy: Strategy
    candles: CandleSet
    clock: Ints
    whole: tuple[Targets, ...]

    def known(self, point: int) -> list[int]:
        """How many candles each symbol has up to that position of the clock."""
        ts = self.clock[point]
        return [int(np.searchsorted(one.ts, ts, side="right")) for one in self.candles]

    def faults(self, kind: Kind, point: int, told: Told) -> Iterator[LookAheadFault]:
        """What differs up to ``point``: the first bar of each column of each symbol."""
        known = self.known(point)
        if isinstance(told, str):
            symbol = next(s for s, rows in enumerate(known) if rows)
            yield self.fault(kind, Difference(symbol, known[symbol] - 1, "target"), told, point)
            return
        for found in first_differences(self.whole, told, known):
            other = self.said(told, found)
            yield self.fault(kind, found, other, point)

    def fault(self, kind: Kind, at: Difference, other: float | str, point: int) -> LookAheadFault:
        one = self.candles.series[at.symbol]
        ts, whole = int(one.ts[at.row]), self.said(self.whole, at)
        known = int(self.clock[point])
        return LookAheadFault(kind, one.symbol, at.row, ts, at.column, whole, other, known)

    def said(self, told: Sequence[Targets], at: Difference) -> float | str:
        value = getattr(told[at.symbol], at.column)[at.row]
        if at.column != "reason":
            return float(value)
        words = self.strategy.reasons
        return words[value] if 0 <= value < len(words) else f"reason {value}"


def _unstable(asked: _Asked, strategy: Strategy) -> list[LookAheadFault]:
    last = len(asked.clock) - 1
    return list(asked.faults("unstable", last, _told(strategy, asked.candles)))


def _of_fresh_copies(asked: _Asked, half: int) -> list[LookAheadFault]:
    """What copies say that were never asked before: what was remembered cannot hide a leak."""
    found = _unstable(asked, anew(asked.strategy))
    for point in (half, len(asked.clock) - 2):
        cut = asked.candles.between(None, int(asked.clock[point]) + 1)
        found += asked.faults("truncated", point, _told(anew(asked.strategy), cut))
    return found


def _at_points(asked: _Asked, at: Ints) -> tuple[list[LookAheadFault], int]:
    """The faults at those points, the earliest first, and how many points were asked."""
    faults: list[LookAheadFault] = []
    faulty = 0
    for turn, point in enumerate(at.tolist()):
        found = list(_at_point(asked, point, turn))
        faults += found
        faulty += bool(found)
        if faulty == ENOUGH:
            return faults, turn + 1
    return faults, len(at)


def _at_point(asked: _Asked, point: int, turn: int) -> Iterator[LookAheadFault]:
    """Both questions at one point; ``turn`` chooses the other future."""
    if point < len(asked.clock) - 1:
        cut = asked.candles.between(None, int(asked.clock[point]) + 1)
        yield from asked.faults("truncated", point, _told(asked.strategy, cut))
    future, bars = FUTURES[turn % len(FUTURES)], LENGTHS[turn % len(LENGTHS)]
    if bars is None and point == len(asked.clock) - 1:
        bars = LENGTHS[0]  # after the last bar there was nothing
    absent = turn // 8 % len(asked.candles) if turn % 8 == 5 else None
    other = with_future(asked.candles, asked.known(point), future, bars, absent)
    yield from asked.faults("perturbed", point, _told(asked.strategy, other))


def _too_short(asked: _Asked, needed: int) -> LookAheadFault:
    declared = asked.strategy.warmup
    s = next(s for s, one in enumerate(asked.candles) if len(one) > declared)
    point = int(np.searchsorted(asked.clock, asked.candles.series[s].ts[declared]))
    other = f"it needs {needed} bars before it"
    return asked.fault("warm-up", Difference(s, declared, "target"), other, point)


def _quick_target(asked: _Asked, ready: int) -> Iterator[LookAheadFault]:
    """Where ``joint_target``, which a sweep reads, is not the target of ``joint_targets``."""
    quick = raw_targets(asked.strategy, asked.candles)
    for s, (mine, theirs) in enumerate(zip(asked.whole, quick, strict=True)):
        differs = ~((mine.target == theirs) | (np.isnan(mine.target) & np.isnan(theirs)))
        differs[:ready] = False
        if differs.any():
            row = int(np.argmax(differs))
            last = len(asked.clock) - 1
            at = Difference(s, row, "target")
            yield asked.fault("quick target", at, float(theirs[row]), last)


def _leak(asked: _Asked, fault: LookAheadFault) -> str:
    """Which column of later candles the answers up to the fault's point notice.

    Each column alone is taken from another future of the same times. Where several do, all are
    named; where none does alone, those without which nothing is noticed. Where the strategy notices
    nothing, copies that remember nothing are asked.
    """
    point = int(np.searchsorted(asked.clock, fault.known))
    known = asked.known(point)
    for fresh in (False, True):
        for future in Future:
            other = with_future(asked.candles, known, future)
            if _notices(asked, point, other, fresh):
                return _columns(asked, point, other, fresh)
    return "the number or times of candles"


def _columns(asked: _Asked, point: int, other: CandleSet, fresh: bool) -> str:
    candles = asked.candles
    named = [(one.symbol, name) for one in candles for name in COLUMNS]

    def notices(mine: CandleSet, theirs: CandleSet, at: tuple[str, str]) -> bool:
        return _notices(asked, point, only(mine, theirs, at[0], [at[1]]), fresh)

    alone = [at for at in named if notices(candles, other, at)]
    together = alone or [at for at in named if not notices(other, candles, at)]
    return ", ".join(f"{symbol} {name}" for symbol, name in together) or "several columns together"


def _notices(asked: _Asked, point: int, other: CandleSet, fresh: bool) -> bool:
    strategy = anew(asked.strategy) if fresh else asked.strategy
    return next(asked.faults("perturbed", point, _told(strategy, other)), None) is not None
