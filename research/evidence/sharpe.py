"""What a Sharpe ratio is worth: probabilistic and deflated Sharpe ratios, and the record needed.

Everything is per period of the returns given (a day's for daily returns), never annual: an annual
ratio is divided by sqrt(365) before it comes in, its variance by 365. Deviations have n - 1 below,
skewness and kurtosis are the plain moments of the sample, and kurtosis is not in excess: 3 for the
normal law. Returns may be one series or a matrix, a row a strategy; figures are then by row.
What cannot be said (fewer than two returns, no deviation beyond rounding) is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from research.candles import Floats
from research.errors import InputError
from research.metrics import EPSILON

__all__ = [
    "Moments",
    "deflated_sharpe",
    "deflated_sharpe_of",
    "expected_max_sharpe",
    "min_track_record_length",
    "moments_of",
    "probabilistic_sharpe",
    "probabilistic_sharpe_of",
    "sharpe_ratio",
]

NORMAL: Final = NormalDist()
EULER_GAMMA: Final = float(np.euler_gamma)


@dataclass(frozen=True)
class Moments:
    """Of each row of returns: Sharpe ratio, skewness and (not excess) kurtosis, over ``n`` periods.

    The arrays have the shape of the returns without their last axis.
    """

    n: int
    sharpe: Floats
    skew: Floats
    kurtosis: Floats


def moments_of(returns: Floats) -> Moments:
    """The moments of ``returns``, whose last axis is time. Raises InputError unless finite."""
    returns = np.asarray(returns, np.float64)
    if returns.ndim < 1 or not np.isfinite(returns).all():
        raise InputError(
            field="returns",
            expected="finite numbers, time along the last axis",
            remedy="Drop or fill the periods without a return first.",
        )
    n = returns.shape[-1]
    if n < 2:
        nothing = np.full(returns.shape[:-1], np.nan)
        return Moments(n, nothing, nothing, nothing)
    mean = returns.mean(axis=-1, keepdims=True)
    away = returns - mean
    square = np.mean(away * away, axis=-1)
    # A return is a quotient minus one: it, and the mean, are rounded to EPSILON of one.
    rounding = 4 * EPSILON * (1.0 + np.abs(returns).max(axis=-1))
    square = np.where(square > rounding * rounding, square, np.nan)
    return Moments(
        n,
        mean[..., 0] / np.sqrt(square * n / (n - 1)),
        np.mean(away**3, axis=-1) / square**1.5,
        np.mean(away**4, axis=-1) / square**2,
    )


def sharpe_ratio(returns: Floats) -> Floats:
    """Mean over standard deviation (n - 1) per period; Sharpe (1994). Time is the last axis."""
    return moments_of(returns).sharpe


def probabilistic_sharpe(
    sharpe: float, benchmark: float, n: int, skew: float = 0.0, kurtosis: float = 3.0
) -> float:
    """The confidence that the true ratio is above ``benchmark``, from ``n`` returns, 0 to 1.

    Bailey and Lopez de Prado (2012), The Sharpe Ratio Efficient Frontier, section on the
    probabilistic Sharpe ratio. Raises InputError for moments that no law has (kurtosis below one
    plus the square of skewness).
    """
    if n < 2 or math.isnan(sharpe):
        return math.nan
    spread = _spread(sharpe, skew, kurtosis)
    if spread == 0.0:
        return float(sharpe > benchmark)
    return NORMAL.cdf((sharpe - benchmark) * math.sqrt(n - 1) / math.sqrt(spread))


def _spread(sharpe: float, skew: float, kurtosis: float) -> float:
    """(n - 1) times the variance of an estimated ratio: 1 - skew SR + (kurtosis - 1) / 4 SR^2."""
    # Every sample keeps this bound; two-point ones meet it up to rounding.
    if kurtosis < (1.0 + skew * skew) * (1.0 - 1e-6):
        raise InputError(
            field="kurtosis",
            value=kurtosis,
            expected=f"at least 1 + skew², {1.0 + skew * skew:.6g}",
            remedy="It is not in excess: the normal law has 3.",
        )
    return max(0.0, 1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe * sharpe)


def expected_max_sharpe(trials: float, variance: float) -> float:
    """The ratio that the best of ``trials`` reaches by luck, where all true ratios are zero.

    ``trials``, at least 1, is how many independent ones there were, and need not be whole;
    ``variance`` is that of the ratios across trials. Bailey and Lopez de Prado (2014), The Deflated
    Sharpe Ratio, which is an approximation for many trials: where it falls below zero (less
    than about 1.28 trials) the answer is zero, as it is for one. Raises InputError out of bounds.
    """
    if not (trials >= 1.0 and math.isfinite(trials)):
        raise InputError(field="trials", value=trials, expected="a number of at least 1")
    if not (variance >= 0.0 and math.isfinite(variance)):
        raise InputError(field="variance", value=variance, expected="a number of at least 0")
    if trials == 1.0:
        return 0.0
    # Upper tails by symmetry: 1 - 1 / trials has lost its digits long before 1 / trials has.
    deviations = -(1.0 - EULER_GAMMA) * NORMAL.inv_cdf(1.0 / trials)
    deviations -= EULER_GAMMA * NORMAL.inv_cdf(1.0 / (trials * math.e))
    return math.sqrt(variance) * max(0.0, deviations)


def deflated_sharpe(
    sharpe: float,
    trials: float,
    variance: float,
    n: int,
    skew: float = 0.0,
    kurtosis: float = 3.0,
) -> float:
    """The confidence that the true ratio is above zero, ``sharpe`` being the best of ``trials``.

    The probabilistic Sharpe ratio against ``expected_max_sharpe``: Bailey and Lopez de Prado
    (2014). Raises InputError as both do.
    """
    return probabilistic_sharpe(sharpe, expected_max_sharpe(trials, variance), n, skew, kurtosis)


def min_track_record_length(
    sharpe: float,
    benchmark: float = 0.0,
    skew: float = 0.0,
    kurtosis: float = 3.0,
    confidence: float = 0.95,
) -> float:
    """How many returns it takes to say with ``confidence`` that the true ratio is above.

    Infinite where the ratio is not above ``benchmark``. Bailey and Lopez de Prado (2012), section
    on the minimum track record length. Raises InputError for a confidence outside 0.5 to 1 and for
    moments that no law has.
    """
    if not 0.5 < confidence < 1.0:
        raise InputError(field="confidence", value=confidence, expected="between 0.5 and 1")
    if math.isnan(sharpe):
        return math.nan
    if sharpe <= benchmark:
        return math.inf
    deviations = NORMAL.inv_cdf(confidence) / (sharpe - benchmark)
    return 1.0 + _spread(sharpe, skew, kurtosis) * deviations * deviations


def probabilistic_sharpe_of(returns: Floats, benchmark: float = 0.0) -> Floats:
    """``probabilistic_sharpe`` of each row of ``returns``; time is the last axis."""
    found = moments_of(returns)
    rows = zip(found.sharpe.flat, found.skew.flat, found.kurtosis.flat, strict=True)
    values = [
        probabilistic_sharpe(float(sharpe), benchmark, found.n, float(skew), float(kurtosis))
        for sharpe, skew, kurtosis in rows
    ]
    return np.asarray(values, np.float64).reshape(found.sharpe.shape)


def deflated_sharpe_of(returns: Floats, trials: float, variance: float) -> Floats:
    """``deflated_sharpe`` of each row of ``returns``; time is the last axis."""
    return probabilistic_sharpe_of(returns, expected_max_sharpe(trials, variance))
