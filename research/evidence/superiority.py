"""Is the best of many rows better than a benchmark? White's reality check and Hansen's SPA test.

The null hypothesis is that no row has a higher mean return than the benchmark; a small p value says
that one has, however many were tried. Daily returns in, rows x days. The draws are those of
``arch.bootstrap``: the stationary bootstrap of Politis and Romano (1994).

- Reality check: White (2000). The largest mean difference itself, every row recentred at its mean:
  wild or hopeless rows weaken it.
- SPA, superior predictive ability: Hansen (2005). The largest t statistic; ``consistent`` leaves
  out of the recentring what is hopeless, ``lower`` and ``upper`` bound it (liberal, conservative).
  ``arch`` takes the deviations to tell hopeless rows only and leaves the statistic in units of
  return, so differences are divided by their deviations before they go in. Where no row is ahead
  of the benchmark it does not raise the statistic to zero: p values are then a half or more.
- Rows that never differ from the benchmark but by a constant (one that never traded) are left out:
  they have no deviation, and cannot be superior by trading.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from research.candles import Floats
from research.errors import InputError
from research.evidence.bootstrap import arch_bootstrap, automatic_length
from research.metrics import EPSILON

__all__ = ["Superiority", "bootstrap_deviation", "superior_ability"]

FEWEST_DAYS: Final = 16
LENGTHS: Final = 200  # rows whose own block lengths are looked at; a median needs no more


@dataclass(frozen=True, repr=False)
class Superiority:
    """p values, 0 to 1: of Hansen's test ``lower``, ``consistent`` (the one to read), ``upper``,
    and of White's ``reality_check``.

    ``best`` is the row with the largest t statistic ``statistic``, None where no row could be
    tested: p values are then 1. ``rows`` counts those that were. ``block_length`` is in days.
    """

    lower: float
    consistent: float
    upper: float
    reality_check: float
    best: int | None
    statistic: float
    rows: int
    block_length: float

    def __repr__(self) -> str:
        if self.best is None:
            return "No row differs from the benchmark: nothing to test."
        return (
            f"Superior ability: p = {self.consistent:.3f} ({self.lower:.3f} to {self.upper:.3f}) "
            f"for the best of {self.rows:,} rows, by the reality check {self.reality_check:.3f}."
        )


def superior_ability(
    returns: Floats,
    benchmark: float | Floats = 0.0,
    *,
    seed: int = 0,
    reps: int = 1000,
    block_length: float | None = None,
) -> Superiority:
    """Both tests on ``returns``, rows x days, against a constant or a series of as many days.

    ``block_length`` is the mean length of blocks in days; None takes the median of what suits each
    row (of 200 rows spread evenly, if there are more). The same ``seed`` gives the same result.
    Raises InputError for shapes that do not fit, values that are not finite, less than 16 days,
    reps below 1, a block below one day or above all of them, and where arch is not installed.
    """
    ahead = _ahead(returns, benchmark)
    days = ahead.shape[1]
    if reps < 1:
        raise InputError(field="reps", value=reps, expected="at least 1; 1000 are usual")
    if block_length is not None and not 1.0 <= block_length <= days:
        raise InputError(field="block_length", value=block_length, expected=f"1 to {days} days")
    tested = _that_move(ahead)
    if not len(tested):
        return Superiority(1.0, 1.0, 1.0, 1.0, None, math.nan, 0, math.nan)
    moving = ahead[tested]
    length = _typical_length(moving) if block_length is None else float(block_length)
    scaled = moving / bootstrap_deviation(moving, length)[:, None]
    statistics = math.sqrt(days) * scaled.mean(axis=1)
    best = int(np.argmax(statistics))

    arch, nothing = arch_bootstrap(), np.zeros(days)
    # arch compares losses: what is ahead of the benchmark goes in with its sign turned.
    spa = arch.SPA(nothing, -scaled.T, block_size=length, reps=reps, seed=seed)
    check = arch.RealityCheck(nothing, -moving.T, block_size=length, reps=reps, seed=seed)
    for test in (spa, check):
        test.compute()
    return Superiority(
        lower=float(spa.pvalues["lower"]),
        consistent=float(spa.pvalues["consistent"]),
        upper=float(spa.pvalues["upper"]),
        reality_check=float(check.pvalues["upper"]),
        best=int(tested[best]),
        statistic=float(statistics[best]),
        rows=len(tested),
        block_length=length,
    )


def _ahead(returns: Floats, benchmark: float | Floats) -> Floats:
    """What each row was ahead of the benchmark each day."""
    returns, base = np.asarray(returns, np.float64), np.asarray(benchmark, np.float64)
    if returns.ndim != 2 or not len(returns) or returns.shape[1] < FEWEST_DAYS:
        raise InputError(
            field="returns",
            value=returns.shape,
            expected=f"a matrix of rows x days with at least {FEWEST_DAYS} days",
        )
    if base.shape not in ((), returns.shape[1:]):
        raise InputError(
            field="benchmark",
            value=base.shape,
            expected=f"a number or a series of {returns.shape[1]} days",
        )
    if not (np.isfinite(returns).all() and np.isfinite(base).all()):
        raise InputError(field="returns", expected="finite numbers, also in the benchmark")
    return np.asarray(returns - base, np.float64)


def _that_move(ahead: Floats) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Positions of rows that deviate from their mean beyond rounding."""
    rounding = 4 * EPSILON * (1.0 + np.abs(ahead).max(axis=1))
    return np.flatnonzero(ahead.std(axis=1) > rounding)


def _typical_length(moving: Floats) -> float:
    spread = np.unique(np.linspace(0, len(moving) - 1, min(len(moving), LENGTHS)).astype(int))
    return float(np.median([automatic_length(moving[row]) for row in spread]))


def bootstrap_deviation(ahead: Floats, length: float) -> Floats:
    """The root of days times the variance of each row's mean under the stationary bootstrap.

    Politis and Romano (1994), lemma 1: all autocovariances, taken round the end, the one at lag i
    weighted (1 - i / n) (1 - 1 / length)^i; Hansen (2005), section 3.1, takes it for his statistic.
    """
    days = ahead.shape[1]
    away = ahead - ahead.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(away, axis=1)) ** 2
    covariance = np.fft.irfft(power, days, axis=1) / days
    lag = np.arange(days)
    weight = 2.0 * (1.0 - lag / days) * (1.0 - 1.0 / length) ** lag
    weight[0] = 1.0
    variance = covariance @ weight
    # A row that only swings back and forth can come to nothing but rounding here.
    least = 4 * EPSILON * covariance[:, 0]
    return np.asarray(np.sqrt(np.maximum(variance, least)), np.float64)
