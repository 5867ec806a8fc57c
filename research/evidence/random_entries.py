"""Timing or drift: a run against its own targets at random times, a permutation test by rotation.

A long-only run in a rising market gains without any skill. Here its targets are shifted in a
circle, all symbols by the same number of bars, and lived through by the very engine: the same
account, costs, stops and limits. How much is held, how long, how often and together with what
stays; only *when* is random. A run whose gain comes from drift gains as much at other times.

What is rotated. Targets are carried forward over NaN ("keep") first, and are 0 before the first
decision: for the engine that is the same run, but for an exit that the exchange refused, which
is now tried at every bar. Bars before every symbol's warm-up is over stay as they are, in the run
and in all draws: nothing was decided there, or not by all. A symbol never ready takes no part.

How far. Later by any number of bars is a delayed run, which knows nothing that it should not. But a
shift to the end of the circle is one to *earlier* times, and by less than the strategy's window it
trades on prices that had not been seen: on noise, such draws beat every trend follower and lose to
every contrarian. So the last ``warmup`` shifts are left out. With them an SMA of 150 bars on 1,200
bars of noise had p <= 5 % in none of 200 runs; without them in 3 %, and without those as near on
the other side, which are no worse than others, in 5 to 10 %.

How exact. Whoever holds while prices fall and is out when they rise has a large share in markets
that fell, and the draws bear that share there too. So on a short history the test is kind to
contrarians and hard on trend followers, by about the root of memory over bars: on noise p <= 5 % in
9 % of runs of RsiReversal (19 to 30 trades on 10,000 bars, 150 runs) and 3 to 7 % of SmaCrossover.

The kill switch acts in the draws as in the run. A draw that it halts is flat from then on, which
lowers its exposure; the test stays valid, since run and draws go through one procedure, but means
of exposure are reported so that one sees whether like was compared with like.

Shifts are drawn without replacement. p = (1 + draws at least as good) / (1 + draws), A. C. Davison,
D. V. Hinkley, Bootstrap Methods and their Application (1997), section 4.2.5, p. 148; never 0, see
B. Phipson, G. K. Smyth, Permutation P-values Should Never Be Zero (2010). A run without Sharpe
ratio (it never traded) counts as 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from research.backtesting import Backtest
from research.candles import Floats, Ints
from research.combinations import require_whole
from research.errors import InputError
from research.evidence.reruns import PreparedTargets, figures_again
from research.tape import candle_positions

__all__ = ["RandomEntries", "Turning", "random_entries", "rotated", "turning_of"]

# With half as many shifts, a p value could not fall below 5 %.
FEWEST_BARS: Final = 40


@dataclass(frozen=True, eq=False, repr=False)
class RandomEntries:
    """The run's annual Sharpe ratio among those of the same targets at random times.

    ``sharpe`` is the run's, ``sharpes`` those of the draws (NaN as 0) and ``shifts`` by how many
    bars each is later, in the same order. ``exposure`` is the run's mean share of equity held,
    ``mean_exposure`` that of the draws on average; ``halted`` the share of draws that the kill
    switch stopped. ``bars`` turn, and every shift is short of a whole turn by more than ``window``.
    ``p_value``: how often random timing does at least as well. Small is skill in timing; a run that
    only rides a drift has no small one, however much it gains.
    """

    sharpe: float
    sharpes: Floats
    shifts: Ints
    p_value: float
    exposure: float
    mean_exposure: float
    halted: float
    bars: int
    window: int
    seed: int

    def __repr__(self) -> str:
        return (
            f"RandomEntries(Sharpe ratio {self.sharpe:.2f} against a median of "
            f"{float(np.median(self.sharpes)):.2f} in {len(self.sharpes)} random timings: "
            f"p = {self.p_value:.3f}; exposure {self.exposure:.1%} against "
            f"{self.mean_exposure:.1%}, {self.halted:.0%} of them halted)"
        )


def random_entries(run: Backtest, draws: int = 500, seed: int = 0) -> RandomEntries:
    """Test ``run`` against ``draws`` rotations of its targets; the same seed draws the same.

    Where there are fewer different shifts than draws, each is taken once. Raises ParameterError for
    a wrong number of draws or seed, InputError for a run with fewer than 40 bars to turn by.
    """
    require_whole("draws", draws, 1)
    require_whole("seed", seed, 0)
    turning = turning_of(run)
    rng = np.random.default_rng(seed)
    shifts = rng.choice(turning.shifts, min(draws, len(turning.shifts)), replace=False)
    rows = figures_again(run, [_turned(run, turning, int(k)) for k in (0, *shifts)])
    (own, _), drawn = rows[0], rows[1:]
    sharpe, sharpes = _known(own.sharpe), np.array([_known(one.figures.sharpe) for one in drawn])
    return RandomEntries(
        sharpe=sharpe,
        sharpes=sharpes,
        shifts=shifts,
        p_value=float((1 + np.count_nonzero(sharpes >= sharpe)) / (1 + len(sharpes))),
        exposure=own.exposure,
        mean_exposure=float(np.mean([one.figures.exposure for one in drawn])),
        halted=float(np.mean([one.halted for one in drawn])),
        bars=turning.bars,
        window=turning.window,
        seed=int(seed),
    )


@dataclass(frozen=True, eq=False)
class Turning:
    """What is rotated: ``levels``, bars x symbols, from bar ``first`` of the run on.

    Levels are the targets carried forward, NaN only before a symbol's warm-up is over. ``shifts``
    are those allowed: from one bar on, and short of a whole turn by more than ``window`` bars.
    """

    levels: Floats
    first: int
    window: int

    @property
    def bars(self) -> int:
        """How many bars turn."""
        return len(self.levels) - self.first

    @property
    def shifts(self) -> Ints:
        return np.arange(1, self.bars - self.window)


def turning_of(run: Backtest) -> Turning:
    """The levels of the run's targets and where they may turn. Raises InputError: too few bars."""
    ready = candle_positions(run.candles, run.tape) >= run.strategy.warmup
    begins = np.where(ready.any(axis=0), ready.argmax(axis=0), len(ready))
    taking_part = begins[begins < len(ready)]
    first = int(taking_part.max()) if len(taking_part) else len(ready)
    window = int(run.strategy.warmup)
    left = len(ready) - first - window
    if left < FEWEST_BARS:
        raise InputError(
            f"{max(0, left)} bars are left beside all warm-ups and one window",
            field="run",
            value=f"{run.strategy!r} on {', '.join(run.symbols)}",
            expected=f"at least {FEWEST_BARS}",
            remedy="Take a longer history, or leave out the symbol that was listed last.",
        )
    levels = np.column_stack(
        [_carried(run.tape.target[:, s], int(begin)) for s, begin in enumerate(begins)]
    )
    return Turning(levels, first, window)


def _carried(target: Floats, begin: int) -> Floats:
    """The target in force at each bar from ``begin`` on, 0 until one is given; NaN before."""
    known = ~np.isnan(target)
    known[:begin] = False
    latest = np.maximum.accumulate(np.where(known, np.arange(len(target)), -1))
    levels = np.where(latest >= 0, target[latest], 0.0)
    levels[:begin] = np.nan
    return levels


def rotated(turning: Turning, shift: int) -> Floats:
    """The levels ``shift`` bars later; what runs over the end comes in again at ``first``."""
    part = np.roll(turning.levels[turning.first :], shift, axis=0)
    return np.concatenate([turning.levels[: turning.first], part])


def _turned(run: Backtest, turning: Turning, shift: int) -> PreparedTargets:
    return PreparedTargets(run.symbols, partial(_columns, run, turning, shift))


def _columns(run: Backtest, turning: Turning, shift: int) -> tuple[Floats, ...]:
    """The rotated levels, each symbol's on its own candles; made when a row is lived through, since
    those of all draws together would not fit into memory."""
    levels = rotated(turning, shift)
    columns = []
    opens = run.tape.close_time - run.candles.bar_ms
    for s, one in enumerate(run.candles):
        column = np.full(len(one), np.nan)
        first = int(np.searchsorted(one.ts, opens[0]))
        column[first:] = levels[np.searchsorted(opens, one.ts[first:]), s]
        columns.append(column)
    return tuple(columns)


def _known(sharpe: float) -> float:
    return 0.0 if np.isnan(sharpe) else float(sharpe)
