"""How many bars a strategy needs before its answers mean something, measured on what it answers.

Two measures, both in bars, each None where nothing could be proved:

- *ready*: histories that begin anywhere open with equally many bars without a target and with one
  reason that never comes back. That reason says "not ready", so the first answer comes after them.
- *memory*: one candle is made 4 or 64 times as large or small, and the last bar that still notices
  is looked for. A window forgets at once, at the same bar whatever the size (its length less one);
  an exponential average fades, later for the larger candle, and is none of our business: it never
  had all its bars. A declared warm-up below the window lets answers out that lack some of theirs,
  such as pandas' ``rolling(50, min_periods=1)`` at bar 10.

A window whose answers are too rare to show its edge is not proved, and so not refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from research.candles import CandleSet, Ints
from research.evidence.bare_answers import answers, changed
from research.evidence.other_candles import moved, scaled_candles
from research.strategy import Strategy, Targets

__all__ = ["WarmUp", "measure_warm_up"]

SMALL, LARGE = 4.0, 64.0
# What running sums keep of a candle 64 times as large is far below it, what a window loses above.
NOISE, EDGE = 1e-4, 1e-2
STARTS = 12
IMPULSES = 200


@dataclass(frozen=True)
class WarmUp:
    """Bars: what is declared, and the two measures; ``needed`` is the larger of what was proved."""

    declared: int
    ready: int | None
    memory: int | None

    @property
    def needed(self) -> int:
        return max(self.ready or 0, self.memory or 0)


def measure_warm_up(strategy: Strategy, candles: CandleSet, seed: int = 0) -> WarmUp:
    """What ``strategy`` declares, and what it needs on these candles. Same seed, same answer."""
    rng = np.random.default_rng(seed)
    return WarmUp(strategy.warmup, _ready(strategy, candles, rng), _memory(strategy, candles, rng))


def _ready(strategy: Strategy, candles: CandleSet, rng: np.random.Generator) -> int | None:
    clock = candles.clock()
    bars = min(4 * strategy.warmup + 400, len(clock))
    starts = rng.integers(0, len(clock) - bars + 1, STARTS)
    runs: set[int | None] = set()
    for start in np.unique(starts).tolist():
        part = candles.between(int(clock[start]), int(clock[start + bars - 1]) + 1)
        try:
            made = strategy.joint_targets(part)  # as it comes: not masked by what is declared
        except Exception:  # noqa: BLE001 - reported where the history is cut off at its end
            return None
        runs |= {_opening(one) for one in made if len(one.target) == bars}
    # One start, or starts that differ: what they wait for is in the candles.
    return runs.pop() if len(runs) == 1 and len(np.unique(starts)) > 1 else None


def _opening(made: Targets) -> int | None:
    """Bars at the start with the first bar's reason and no target; None if they do come back."""
    reason = np.asarray(made.reason)
    waiting = np.isnan(np.asarray(made.target, dtype=np.float64)) & (reason == reason[0])
    if not waiting[0]:
        return 0
    if waiting.all():
        return None
    run = int(np.argmin(waiting))
    return None if waiting[run:].any() else run


def _or_none(strategy: Strategy, candles: CandleSet) -> tuple[Targets, ...] | None:
    try:
        return answers(strategy, candles)
    except Exception:  # noqa: BLE001 - of invented candles a strategy may say that it will not
        return None


def _memory(strategy: Strategy, candles: CandleSet, rng: np.random.Generator) -> int | None:
    """The last bar after a candle that notices it, where that does not depend on its size."""
    bars = max(len(one) for one in candles)
    horizon = 4 * (strategy.warmup + 1) + 96
    while horizon <= bars // 3:
        flags = _impulses(candles, horizon, rng)
        small = _noticed(strategy, candles, flags, SMALL, horizon)
        large = _noticed(strategy, candles, flags, LARGE, horizon)
        if small is None or large is None:
            return None
        last = [int(np.flatnonzero(one[0]).max(initial=-1)) for one in (small, large)]
        if max(last) < 0.75 * horizon:
            return last[1] if last[0] == last[1] and _has_an_edge(large, last[1]) else None
        horizon *= 2
    return None


def _has_an_edge(noticed: npt.NDArray[np.int64], last: int) -> bool:
    """Whether notice breaks off at ``last`` rather than becoming rare or small."""
    if last < 0:
        return False
    clearly = noticed[1]
    return bool(clearly[last] >= max(3.0, 0.25 * clearly[: last + 1].mean()))


def _impulses(
    candles: CandleSet, horizon: int, rng: np.random.Generator
) -> list[tuple[npt.NDArray[np.int64], list[npt.NDArray[np.bool_]]]]:
    """Clock positions at least ``horizon`` apart, several rounds; each with flags a symbol."""
    clock = candles.clock()
    rounds = int(np.clip(-(-IMPULSES * horizon // len(clock)), 1, 8))
    made = []
    for _ in range(rounds):
        steps = horizon + rng.integers(0, 24, len(clock) // horizon)
        at = int(rng.integers(0, horizon)) + np.cumsum(steps) - horizon
        at = at[at < len(clock)]
        made.append((at, [np.isin(one.ts, clock[at]) for one in candles]))
    return made


def _noticed(
    strategy: Strategy,
    candles: CandleSet,
    rounds: Sequence[tuple[Ints, list[npt.NDArray[np.bool_]]]],
    size: float,
    horizon: int,
) -> npt.NDArray[np.int64] | None:
    """How often answers changed so many bars after such a candle: at all, and clearly."""
    whole = answers(strategy, candles)
    counts = np.zeros((2, horizon), np.int64)
    for factor in (size, 1.0 / size):
        others = [scaled_candles(one, factor) for one in candles]
        for at, flags in rounds:
            told = _or_none(strategy, moved(candles, others, flags))
            if told is None:
                return None
            for since, pair in _aligned(candles, at, whole, told):
                near = (since >= 0) & (since < horizon)
                for row, tolerance in enumerate((NOISE, EDGE)):
                    off = near & changed(*pair, tolerance)
                    counts[row] += np.bincount(since[off], minlength=horizon)
    return counts


def _aligned(
    candles: CandleSet, at: Ints, whole: Sequence[Targets], told: Sequence[Targets]
) -> Iterator[tuple[Ints, tuple[Targets, Targets]]]:
    """A symbol: how many of its own bars ago the last impulse was, -1 before the first."""
    clock = candles.clock()
    for one, mine, theirs in zip(candles, whole, told, strict=True):
        rows = np.searchsorted(one.ts, clock[at])
        last = np.searchsorted(rows, np.arange(len(one)), side="right") - 1
        since = np.where(last >= 0, np.arange(len(one)) - rows[np.maximum(last, 0)], -1)
        yield since, (mine, theirs)
