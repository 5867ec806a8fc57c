"""Every figure of an ``Evidence`` under one name, as artefacts, commands and pages show it.

Sharpe ratios are annual, probabilities and shares from 0 to 1. What could not be found out is left
out, what is undefined is NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from research.evidence import checks
from research.evidence.benchmarks import AlphaBeta
from research.evidence.cross_validation import CrossValidation
from research.evidence.monte_carlo import CandleMonteCarlo
from research.evidence.overfitting import Overfitting
from research.evidence.random_entries import RandomEntries
from research.evidence.superiority import Superiority
from research.evidence.walk_forward import WalkForward

if TYPE_CHECKING:
    from research.evidence.judge import Evidence

__all__ = ["figures_of"]


def figures_of(found: Evidence) -> dict[str, float]:
    """The figures of ``found`` by name; computes what was not asked for yet."""
    luck, timing = found.luck, found.timing
    named = {
        "sharpe_daily": luck.sharpe,
        "deflated_sharpe": luck.probability,
        "deflated_sharpe_by_spread": luck.by_spread,
        "probabilistic_sharpe": luck.above_zero,
        "best_by_luck": luck.best_by_luck,
        "min_track_record_days": luck.days_needed,
        "breakeven_cost": found.breakeven,
        "delayed_share": found.delayed_share,
        "start_share": found.start_share,
    }
    if isinstance(timing, RandomEntries):
        named |= {
            "random_entry_p": timing.p_value,
            "random_entry_p_after_tries": checks.after_tries(timing.p_value, luck.effective),
        }
    if isinstance(found.walk, WalkForward):
        named |= {
            "walk_forward_sharpe": found.walk.sharpe,
            "walk_forward_efficiency": found.walk.efficiency,
        }
    if found.neighbours is not None:
        named["plateau"] = found.neighbours.score
    if isinstance(found.overfitting, Overfitting):
        named |= {
            "overfitting": found.overfitting.pbo,
            "overfitting_loss": found.overfitting.loss_probability,
        }
    if isinstance(found.superiority, Superiority):
        named |= {
            "spa_p": found.superiority.consistent,
            "reality_check_p": found.superiority.reality_check,
        }
    if isinstance(found.cross_validation, CrossValidation):
        named |= {
            "cross_validation_sharpe": found.cross_validation.median,
            "cross_validation_negative": found.cross_validation.negative,
        }
    named |= {
        "holding_sharpe": found.holding.full.sharpe,
        "loss_probability_of_redrawn_trades": found.other_trades.loss_probability,
    }
    if isinstance(found.market, AlphaBeta):
        named |= {"alpha": found.market.alpha, "alpha_t": found.market.alpha_t}
        named |= {"beta": found.market.beta}
    if isinstance(found.other_markets, CandleMonteCarlo):
        named["rank_among_redrawn_candles"] = found.other_markets.rank("sharpe")
    for name in ("total_return", "sharpe", "max_drawdown"):
        for end in ("low", "high"):
            named[f"{name}_{end}"] = float(found.intervals[end].loc[name])
    return named
