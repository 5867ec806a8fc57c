"""Where to ask whether a strategy looks ahead: the bars at which a rare look would show.

Points are positions in the candles' clock: the last bar that is known. Most leaks show at any
point; one that acts at one bar in a thousand, and sees one bar ahead, shows at that bar alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from research.candles import COLUMNS, DAY, CandleSet, Floats, Ints
from research.evidence.bare_answers import answers, changed
from research.evidence.other_candles import contrary_candles, moved
from research.strategy import Strategy, Targets

__all__ = ["choose_points", "suspects"]

SPACING = 64  # bars between two moved candles of one run
REACH = 24  # bars before a moved candle that must not notice it
CONTRARY, EXAGGERATED = -3.0, 5.0


def suspects(strategy: Strategy, candles: CandleSet, whole: Sequence[Targets]) -> Ints:
    """Clock positions whose answers seem to notice the next bars, the most suspicious first.

    Every 64th candle is moved, each candle once against its move and once along it: 128 runs. What
    answers before a moved candle notices either it or one that is 40 bars or more back; ranked by
    how much it changes and how near it is. No proof, but a place to ask.
    """
    clock = candles.clock()
    score = np.zeros(len(clock))
    at = [np.searchsorted(clock, one.ts) for one in candles]
    for stretch in (CONTRARY, EXAGGERATED):
        others = [contrary_candles(one, stretch) for one in candles]
        for phase in range(min(SPACING, len(clock))):
            flags = [rows % SPACING == phase for rows in at]
            try:
                told = answers(strategy, moved(candles, others, flags))
            except Exception:  # noqa: BLE001, S112 - no answer, no suspicion; the points still ask
                continue
            for rows, one, two in zip(at, whole, told, strict=True):
                before = (phase - rows) % SPACING  # bars until the next moved candle
                seen = (before >= 1) & (before <= REACH) & changed(one, two, 0.0)
                i = np.flatnonzero(seen)
                last_known = rows[i] + before[i] - 1
                inside = last_known < len(clock) - 1
                # The nearer, the longer ago the moved candle before it, which may be remembered.
                size = _size(one, two, i[inside]) / before[i[inside]]
                np.maximum.at(score, last_known[inside], size)
    order = np.argsort(-score, kind="stable")
    return order[score[order] > 0]


def _size(one: Targets, two: Targets, rows: Ints) -> Floats:
    """How much two answers differ: 2 for a target, 1 for a reason, the share of a confidence."""
    target = np.nan_to_num(one.target[rows], nan=-1.0) != np.nan_to_num(two.target[rows], nan=-1.0)
    surer = np.abs(one.confidence[rows] - two.confidence[rows]) / 100.0
    size: Floats = 2.0 * target + (one.reason[rows] != two.reason[rows]) + surer
    return size


def choose_points(
    candles: CandleSet,
    whole: Sequence[Targets],
    suspected: Ints,
    first: int,
    points: int,
    seed: int,
) -> Ints:
    """``points`` clock positions or more from ``first`` on, ascending; all, where there are fewer.

    A quarter suspects, a quarter evenly spread; the first and last bars, bars before changes of the
    target, before extremes of each column, before ends of days and months; the rest at random.
    """
    rng = np.random.default_rng(seed)
    clock = candles.clock()
    last = len(clock) - 1
    if last - first + 1 <= points:
        return np.arange(first, last + 1)
    few = max(points // 16, 1)
    chosen = [
        suspected[: points // 4],
        np.linspace(first, last, points // 4).astype(np.int64),
        np.arange(first, first + few // 2 + 1),
        np.arange(last - few // 2, last + 1),
        _sample(_changes(candles, whole, clock), 2 * few, rng),
        *(_extremes(candles, clock, few // 4 + 1)),
        _sample(_ends(clock, DAY), few, rng),
        _sample(_month_ends(clock), few // 2 + 1, rng),
    ]
    picked = np.unique(np.concatenate(chosen))
    picked = picked[(picked >= first) & (picked <= last)]
    rest = np.setdiff1d(np.arange(first, last + 1), picked)
    more = _sample(rest, max(points - len(picked), 0), rng)
    return np.union1d(picked, more)


def _sample(positions: Ints, count: int, rng: np.random.Generator) -> Ints:
    if len(positions) <= count:
        return positions
    return rng.choice(positions, count, replace=False)


def _changes(candles: CandleSet, whole: Sequence[Targets], clock: Ints) -> Ints:
    """The bars before and at each change of a target."""
    found = []
    for one, said in zip(candles, whole, strict=True):
        target = np.nan_to_num(said.target, nan=-1.0)
        rows = np.flatnonzero(np.diff(target)) + 1
        at = np.searchsorted(clock, one.ts[rows])
        found += [at, at - 1]
    return np.unique(np.concatenate(found))


def _extremes(candles: CandleSet, clock: Ints, count: int) -> Iterator[Ints]:
    """The bars before the largest and smallest of each column, and before the largest moves."""
    for one in candles:
        for name in COLUMNS:
            order = np.argsort(getattr(one, name), kind="stable")
            for rows in (order[:count], order[-count:]):
                yield np.searchsorted(clock, one.ts[rows]) - 1
        moves = np.abs(np.diff(np.log(np.maximum(one.close, 1e-300)), prepend=np.nan))
        rows = np.argsort(-np.nan_to_num(moves), kind="stable")[:count]
        at = np.searchsorted(clock, one.ts[rows])
        yield from (at, at - 1)


def _ends(clock: Ints, length: int) -> Ints:
    return np.flatnonzero(np.diff(clock // length))


def _month_ends(clock: Ints) -> Ints:
    return np.flatnonzero(
        np.diff(clock.astype("datetime64[ms]").astype("datetime64[M]").astype(int))
    )
