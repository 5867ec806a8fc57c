"""What a Sharpe ratio is worth after so many tries: the deflated Sharpe ratio, in annual figures.

The best of many tries looks good by luck alone. How good is known: ``expected_max_sharpe`` of as
many tries as they were effectively, whose ratios vary as those of a strategy without an edge do,
by 1 / (days - 1) a day. Bailey and Lopez de Prado (2014) take the variance that was seen across
tries; where some tries have an edge and others none that variance holds the edge itself, and the
better the good ones were the more they would be deflated. Both figures are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from research.candles import Floats
from research.evidence.sharpe import (
    expected_max_sharpe,
    min_track_record_length,
    moments_of,
    probabilistic_sharpe,
)
from research.metrics import YEAR_DAYS

__all__ = ["Luck", "luck_of"]


@dataclass(frozen=True)
class Luck:
    """Ratios a year, from daily returns; confidences from 0 to 1; NaN where nothing varies.

    ``sharpe`` is the run's, ``best_by_luck`` what the best of ``effective`` tries shows without an
    edge, ``probability`` (the deflated Sharpe ratio) the confidence that the true one is above
    that, ``above_zero`` (the probabilistic one) that it is above zero. ``by_spread`` is the
    deflated ratio where the variance is that across tries; NaN for a single one. ``days_needed`` is
    the shortest record that could say with 95 % that it is above ``best_by_luck``.
    """

    sharpe: float
    days: int
    tries: int
    effective: int
    best_by_luck: float
    probability: float
    above_zero: float
    by_spread: float
    days_needed: float


def luck_of(daily: Floats, tries: int, effective: int, spread: float = math.nan) -> Luck:
    """The luck in a run with these daily returns, chosen from ``tries``.

    ``effective`` is how many independent tries those are worth, ``spread`` the variance of their
    annual Sharpe ratios. Raises InputError for fewer than one.
    """
    found = moments_of(daily)
    sharpe, skew, kurtosis = float(found.sharpe), float(found.skew), float(found.kurtosis)
    year = math.sqrt(YEAR_DAYS)
    by_luck = expected_max_sharpe(effective, 1.0 / max(1, found.n - 1))
    known = math.isfinite(spread) and tries > 1
    seen = expected_max_sharpe(effective, spread / YEAR_DAYS) if known else math.nan

    def above(benchmark: float) -> float:
        return probabilistic_sharpe(sharpe, benchmark, found.n, skew, kurtosis)

    return Luck(
        sharpe=sharpe * year,
        days=found.n,
        tries=tries,
        effective=effective,
        best_by_luck=by_luck * year,
        probability=above(by_luck),
        above_zero=above(0.0),
        by_spread=above(seen) if known else math.nan,
        days_needed=min_track_record_length(sharpe, by_luck, skew, kurtosis),
    )
