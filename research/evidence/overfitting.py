"""The probability of backtest overfitting, by combinatorially symmetric cross-validation (CSCV).

Bailey, Borwein, Lopez de Prado and Zhu (2015), The Probability of Backtest Overfitting. The days
are cut into an even number of equal blocks; every choice of half of the blocks is a sample to
choose the best row in, the other half the sample to see what became of it. Sharpe ratios are per
day, with n - 1 below.

- Days that fill no whole block are left out, the oldest ones.
- A row without deviation in a sample (it never traded there) has the Sharpe ratio 0 in it.
- Ratios within 1e-9 of each other are equal. Of equal ones the first row is the best in sample;
  out of sample they share the mean of their ranks.
- A logit of exactly zero, rank in the middle, counts as overfit, as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from research.candles import Floats, Ints
from research.errors import InputError
from research.metrics import EPSILON

__all__ = ["Overfitting", "probability_of_overfitting"]

TIE: Final = 1e-9
MOST_BLOCKS: Final = 20  # 184,756 splits; more take minutes and say nothing else
CELLS: Final = 500_000  # rows x splits worked on at once: 4 MB an array


@dataclass(frozen=True, eq=False, repr=False)
class Overfitting:
    """What became, out of sample, of the best row in sample; arrays hold one value a split.

    ``pbo`` is the share of splits whose best row ended in the lower half of all out of sample.
    ``logits`` are ln(w / (1 - w)) of its relative rank w there, ``chosen`` its position,
    ``in_sample`` and ``out_of_sample`` its Sharpe ratios per day. ``loss_probability`` is the share
    of splits in which it lost. ``slope`` and ``intercept`` are those of the straight line through
    the ratios, out of sample on in sample: NaN where all ratios in sample are equal.
    ``days_left_out`` of the oldest filled no block of ``block_days``.
    """

    pbo: float
    loss_probability: float
    slope: float
    intercept: float
    logits: Floats
    chosen: Ints
    in_sample: Floats
    out_of_sample: Floats
    rows: int
    blocks: int
    block_days: int
    days_left_out: int

    def __repr__(self) -> str:
        return (
            f"Probability of overfitting {self.pbo:.3f}: in {self.pbo:.0%} of {len(self.logits):,} "
            f"splits the best of {self.rows:,} rows was in the lower half on unseen days; "
            f"it lost in {self.loss_probability:.0%}."
        )


def probability_of_overfitting(returns: Floats, blocks: int = 16) -> Overfitting:
    """CSCV over ``returns``, rows x days: every row a strategy that was tried.

    The work is products of sums by block, in pieces: memory does not grow with rows x splits.
    Raises InputError for less than two rows, for values that are not finite, for a number of blocks
    that is odd or not from 2 to 20, and for less than two days a block.
    """
    returns = _checked(returns, blocks)
    rows, days = returns.shape
    length = days // blocks
    used = returns[:, days - length * blocks :].reshape(rows, blocks, length)
    sums, squares = used.sum(axis=2), (used * used).sum(axis=2)
    splits = _half_of(blocks)
    count = len(splits)
    chosen = np.empty(count, np.int64)
    inside, outside, ranks = np.empty(count), np.empty(count), np.empty(count)
    for piece in _pieces(count // 2, max(1, CELLS // rows)):
        # Split k and split -1 - k are each other's complement: two splits from one pair of ratios.
        half = splits[piece].astype(np.float64)
        one = _ratios(sums @ half.T, squares @ half.T, length * blocks // 2)
        other = _ratios(sums @ (1.0 - half).T, squares @ (1.0 - half).T, length * blocks // 2)
        for at, ours, theirs in ((piece, one, other), (count - 1 - piece, other, one)):
            chosen[at], inside[at], outside[at], ranks[at] = _followed(ours, theirs)
    logits = np.log(ranks / (rows + 1 - ranks))
    slope, intercept = _line(inside, outside)
    return Overfitting(
        pbo=float(np.mean(logits <= 0.0)),
        loss_probability=float(np.mean(outside < -TIE)),
        slope=slope,
        intercept=intercept,
        logits=logits,
        chosen=chosen,
        in_sample=inside,
        out_of_sample=outside,
        rows=rows,
        blocks=blocks,
        block_days=length,
        days_left_out=days - length * blocks,
    )


def _checked(returns: Floats, blocks: int) -> Floats:
    returns = np.asarray(returns, np.float64)
    if returns.ndim != 2 or len(returns) < 2:
        raise InputError(
            field="returns",
            value=returns.shape,
            expected="a matrix of rows x days with at least two rows",
            remedy="One strategy alone was not chosen among others: nothing to overfit.",
        )
    if not np.isfinite(returns).all():
        raise InputError(field="returns", expected="finite numbers")
    if blocks % 2 or not 2 <= blocks <= MOST_BLOCKS:
        raise InputError(
            field="blocks", value=blocks, expected=f"an even number from 2 to {MOST_BLOCKS}"
        )
    if returns.shape[1] < 2 * blocks:
        raise InputError(
            field="returns",
            value=f"{returns.shape[1]} days",
            expected=f"at least {2 * blocks}, two for each of {blocks} blocks",
            remedy="Fewer blocks do with fewer days.",
        )
    return returns


def _half_of(blocks: int) -> npt.NDArray[np.bool_]:
    """Every choice of half of the blocks, in lexicographic order: splits x blocks."""
    members = np.array(list(combinations(range(blocks), blocks // 2)))
    splits = np.zeros((len(members), blocks), np.bool_)
    np.put_along_axis(splits, members, True, axis=1)
    return splits


def _pieces(count: int, size: int) -> Iterator[Ints]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count), dtype=np.int64)


def _ratios(total: Floats, square: Floats, n: int) -> Floats:
    """Sharpe ratios from sums over ``n`` days; 0 where the deviation is none beyond rounding."""
    mean = total / n
    spread = square - n * mean * mean
    noise = n * EPSILON * (EPSILON + square)
    none = spread <= noise
    return np.where(none, 0.0, mean / np.sqrt(np.where(none, 1.0, spread) / (n - 1)))


def _followed(ours: Floats, theirs: Floats) -> tuple[Ints, Floats, Floats, Floats]:
    """The best rows of ``ours`` (rows x splits): position, ratio, its ratio and rank in theirs."""
    best = np.argmax(ours >= ours.max(axis=0) - TIE, axis=0)
    at = np.arange(ours.shape[1])
    outside = theirs[best, at]
    below = np.count_nonzero(theirs < outside - TIE, axis=0)
    not_above = np.count_nonzero(theirs <= outside + TIE, axis=0)
    return best, ours[best, at], outside, (below + 1 + not_above) / 2.0


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Slope and intercept of the least squares line of ``y`` on ``x``."""
    away = x - x.mean()
    spread = float(away @ away)
    if spread <= len(x) * TIE * TIE:
        return math.nan, math.nan
    slope = float(away @ y) / spread
    return slope, float(y.mean() - slope * x.mean())
