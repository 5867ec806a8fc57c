"""How much of a run's figures is chance: stationary bootstrap intervals and redrawn trades.

The bootstrap is that of Politis and Romano (1994): blocks of days that begin anywhere, go round at
the end, and have geometric lengths; their mean is chosen by Politis and White (2004) as corrected
by Patton, Politis and White (2009). Whole days are drawn, with all their bars, so that each figure
keeps its definition. Intervals are those of percentiles (Efron 1979): the plain shares of draws
below and above, not corrected for bias; a drawdown, which order makes, may lie outside its own.
Returns and shares are fractions. The same seed gives the same result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from research.backtesting import Backtest
from research.candles import Floats, Ints
from research.errors import InputError
from research.evidence.day_sums import DaySums, day_sums_of, figures_of_days
from research.metrics import METRICS, Metrics

__all__ = [
    "RESAMPLED",
    "TradeDraws",
    "arch_bootstrap",
    "automatic_length",
    "day_draws",
    "intervals",
    "stationary_indices",
    "trade_monte_carlo",
    "trade_returns",
]

RESAMPLED: Final = dict.fromkeys(METRICS, "days") | {
    "win_rate": "trades",
    "profit_factor": "trades",
}
FEWEST_DAYS: Final = 16  # with less, the autocorrelations of the automatic length cannot be had
CELLS: Final = 1_000_000  # draws x days worked on at once: 8 MB an array
QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def arch_bootstrap() -> Any:
    """The module ``arch.bootstrap``. Raises InputError where arch is not installed."""
    try:
        import arch.bootstrap
    except ImportError as err:
        raise InputError(
            "arch is not installed",
            field="evidence",
            remedy="Install the extra: pip install 'candlebook[evidence]', or make install.",
        ) from err
    return arch.bootstrap


def automatic_length(returns: Floats) -> float:
    """The mean length of blocks, in periods, that suits ``returns``, one series; at least 1.

    1 as well where nothing can be said: less than 16 periods, or returns that are all the same.
    Raises InputError where arch is not installed.
    """
    returns = np.asarray(returns, np.float64)
    if len(returns) < FEWEST_DAYS or np.ptp(returns) == 0.0:
        return 1.0
    with np.errstate(divide="ignore", invalid="ignore"):  # series that stop moving
        found = float(arch_bootstrap().optimal_block_length(returns)["stationary"].iloc[0])
    return max(1.0, found) if math.isfinite(found) else 1.0


def stationary_indices(
    n: int, length: float, draws: int, rng: np.random.Generator, *, size: int | None = None
) -> Ints:
    """Positions of ``n`` drawn by the stationary bootstrap, with blocks of mean ``length``.

    ``draws`` rows of ``size`` positions each, as many as there are unless given.

    Politis and Romano (1994), section 2: each position follows the one before, round the end, but
    with probability 1 / length a new block begins anywhere.
    """
    shape = (draws, n if size is None else size)
    begins = rng.random(shape) < 1.0 / length
    anywhere = rng.integers(0, n, shape)
    at = np.arange(shape[1])  # the first begins a block in any case: nothing is before it
    begun = np.maximum.accumulate(np.where(begins, at, 0), axis=1)
    drawn = (np.take_along_axis(anywhere, begun, axis=1) + at - begun) % n
    return np.asarray(drawn, np.int64)


def intervals(
    run: Backtest, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """An interval at ``level`` for every figure: index as METRICS, columns value, low, high.

    ``value`` is that of ``run.metrics``. ``RESAMPLED`` says what each interval comes from: whole
    days in blocks, or trades one by one for win rate and profit factor. Figures that come from days
    are those of runs of as many days: trades, fees and final equity too. ``low`` and ``high`` are
    NaN where the value is, and where there are less than two days or trades to draw from; draws
    whose figure cannot be said are left out. Raises InputError for a level outside 0 to 1, for less
    than one draw, and where arch is not installed.
    """
    _require_draws(draws)
    if not 0.0 < level < 1.0:
        raise InputError(field="level", value=level, expected="between 0 and 1, such as 0.95")
    for_days, for_trades = np.random.default_rng(seed).spawn(2)
    days, pnl = day_sums_of(run), np.array([trade.pnl for trade in run.trade_list])
    drawn: dict[str, Floats] = {}
    if len(days) > 1:
        length = automatic_length(run.daily_returns.to_numpy())
        figures = np.array(day_draws(days, length, draws, for_days), np.float64)
        drawn |= dict(zip(Metrics._fields, figures.T, strict=True))
    rate, factor = _trade_figures(pnl, draws, for_trades)
    drawn |= {"win_rate": rate, "profit_factor": factor}
    rows = [
        (float(value), *_middle(drawn.get(name, np.empty(0)), float(value), level))
        for name, value in run.metrics._asdict().items()
    ]
    index = pd.Index(Metrics._fields, name="metric")
    return pd.DataFrame(rows, index, columns=["value", "low", "high"])


def _require_draws(draws: int) -> None:
    if draws < 1:
        raise InputError(field="draws", value=draws, expected="at least 1; 2000 are usual")


def day_draws(days: DaySums, length: float, draws: int, rng: np.random.Generator) -> list[Metrics]:
    """The figures of ``draws`` runs made of as many days, drawn in blocks of mean ``length``.

    Win rate and profit factor are NaN: they do not come from days.
    """
    found: list[Metrics] = []
    for size in _pieces(draws, len(days)):
        found += figures_of_days(days, stationary_indices(len(days), length, size, rng))
    return found


def _pieces(draws: int, n: int) -> Iterator[int]:
    size = max(1, CELLS // n)
    for start in range(0, draws, size):
        yield min(size, draws - start)


def _trade_figures(pnl: Floats, draws: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Win rate and profit factor of as many trades, drawn one by one with replacement."""
    if len(pnl) < 2:
        return np.empty(0), np.empty(0)
    wins, profits, losses = [], [], []
    for size in _pieces(draws, len(pnl)):
        drawn = pnl[rng.integers(0, len(pnl), (size, len(pnl)))]
        wins.append(np.count_nonzero(drawn > 0.0, axis=1))
        profits.append(np.maximum(drawn, 0.0).sum(axis=1))
        losses.append(np.maximum(-drawn, 0.0).sum(axis=1))
    profit, loss = np.concatenate(profits), np.concatenate(losses)
    with np.errstate(divide="ignore", invalid="ignore"):  # no loss: inf; neither: NaN
        return np.concatenate(wins) / len(pnl), profit / loss


def _middle(drawn: Floats, value: float, level: float) -> tuple[float, float]:
    """The ends of the middle ``level`` of the draws; each is a draw, since some are infinite."""
    known = drawn[~np.isnan(drawn)]
    if math.isnan(value) or not len(known):
        return math.nan, math.nan
    outside = (1.0 - level) / 2.0
    low = np.quantile(known, outside, method="lower")
    return float(low), float(np.quantile(known, 1.0 - outside, method="higher"))


@dataclass(frozen=True, eq=False, repr=False)
class TradeDraws:
    """What as many trades as a run had, drawn with replacement, would have come to.

    ``final_return`` and ``max_drawdown`` (from trade to trade, nothing between) hold one value a
    draw; ``loss_probability`` is the share of draws that ended below where they began. All NaN for
    a run without a trade.
    """

    trades: int
    final_return: Floats
    max_drawdown: Floats
    loss_probability: float

    def quantiles(self, levels: Sequence[float] = QUANTILES) -> pd.DataFrame:
        """Quantiles of both, indexed by level."""
        columns = {"final_return": self.final_return, "max_drawdown": self.max_drawdown}
        return pd.DataFrame(
            {name: np.quantile(values, levels) for name, values in columns.items()},
            pd.Index(levels, name="quantile"),
        )

    def __repr__(self) -> str:
        if not self.trades:
            return "No trade to draw from."
        low, middle, high = np.quantile(self.final_return, (0.05, 0.5, 0.95))
        deep = np.quantile(self.max_drawdown, 0.95)
        return (
            f"{self.trades} trades drawn {len(self.final_return):,} times: return {middle:.1%} "
            f"({low:.1%} to {high:.1%} in nine of ten), a loss in {self.loss_probability:.0%}; "
            f"one drawdown in twenty is above {deep:.1%}."
        )


def trade_returns(run: Backtest) -> Floats:
    """The return on equity of each trade that ended, in order of its end.

    Its profit after fees over the account's equity at the last close before it was opened.
    """
    opened = np.array([trade.opened_at for trade in run.trade_list], np.int64)
    pnl = np.array([trade.pnl for trade in run.trade_list], np.float64)
    before = np.append(run.account.initial_cash, run.log.equity)
    return np.asarray(pnl / before[np.searchsorted(run.tape.close_time, opened, side="right")])


def trade_monte_carlo(run: Backtest, *, draws: int = 2000, seed: int = 0) -> TradeDraws:
    """Redraw the trades of ``run`` with replacement, one after the other on growing equity.

    Each brings its return on equity (``trade_returns``). Trades that overlapped in the run follow
    each other here, and what is still open at its end does not count. Raises InputError for less
    than one draw.
    """
    _require_draws(draws)
    returns = trade_returns(run)
    if not len(returns):
        nothing = np.full(draws, np.nan)
        return TradeDraws(0, nothing, nothing, math.nan)
    final, fall = _redrawn(1.0 + returns, draws, np.random.default_rng(seed))
    return TradeDraws(len(returns), final, fall, float(np.mean(final < 0.0)))


def _redrawn(factors: Floats, draws: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Final return and largest fall of each draw of as many factors of equity."""
    finals, falls = [], []
    for size in _pieces(draws, len(factors)):
        path = np.cumprod(factors[rng.integers(0, len(factors), (size, len(factors)))], axis=1)
        peak = np.maximum(1.0, np.maximum.accumulate(path, axis=1))
        finals.append(path[:, -1] - 1.0)
        falls.append((1.0 - path / peak).max(axis=1))
    return np.concatenate(finals), np.concatenate(falls)
