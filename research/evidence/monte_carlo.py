"""What else might have come: the strategy run on candles made of blocks of the real ones.

A stationary bootstrap (D. N. Politis, J. P. Romano, Journal of the American Statistical Association
89, 1994) of whole bars: of each bar its open, high, low and close as log-moves from the close
before, and its volume. Blocks are of random length, geometric with mean ``block_bars``, and the
same for all symbols, which keeps what they have in common at each bar. Drift and volatility stay
on average, and whatever is shorter than a block: short momentum, clusters of volatility. What is
longer is broken, first of all long trends. A run that lives off them lies high in the distribution;
so does one whose parameters fit the order in which things happened. It tells that the result hangs
on that order, not whether the order will come again.

Timestamps and gaps are the run's own. Candles before its first bar stay as they are: they only warm
the indicators. Blocks come from the bars of the run's window at which every symbol has a candle,
and one before it.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd

from research.backtesting import Backtest
from research.candles import COLUMNS, DAY, Candles, CandleSet, Floats, Ints
from research.combinations import require_whole
from research.errors import InputError, ParameterError
from research.evidence.bootstrap import automatic_length, stationary_indices
from research.evidence.reruns import course_again
from research.indicators import Bank
from research.metrics import Metrics
from research.rows import figures_of_rows
from research.search import BANK_BYTES
from research.tape import candle_positions

__all__ = ["CandleMonteCarlo", "candle_monte_carlo", "mean_block", "resampled"]

FEWEST_BARS: Final = 30
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
FIGURES: Final = ("sharpe", "total_return", "max_drawdown")


@dataclass(frozen=True, eq=False, repr=False)
class CandleMonteCarlo:
    """The run's figures among those of ``draws`` markets made of its own bars.

    ``draws`` has a row a market and the columns of ``research.metrics.METRICS`` plus ``halted``;
    ``real`` are the run's own. ``block_bars`` is the mean length of a block.
    """

    draws: pd.DataFrame
    real: Metrics
    block_bars: float
    seed: int

    def rank(self, figure: str) -> float:
        """The share of draws whose ``figure`` lies below the real one, equal ones by half.

        NaN counts as 0: a run that never traded has earned nothing. Raises ParameterError for an
        unknown figure.
        """
        if figure not in Metrics._fields:
            raise ParameterError(
                field="figure", value=figure, expected=f"one of {', '.join(Metrics._fields)}"
            )
        real = float(getattr(self.real, figure))
        real = 0.0 if math.isnan(real) else real
        drawn = self.draws[figure].fillna(0.0)
        return float((drawn < real).mean() + (drawn == real).mean() / 2.0)

    @property
    def table(self) -> pd.DataFrame:
        """Sharpe ratio, total return and max drawdown, a row each: the real one, its ``rank``, and
        the draws' 5, 25, 50, 75 and 95 % quantiles."""
        rows = {
            name: {
                "real": float(getattr(self.real, name)),
                "rank": self.rank(name),
                **self.draws[name].fillna(0.0).quantile(list(QUANTILES)).to_dict(),
            }
            for name in FIGURES
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    def __repr__(self) -> str:
        median = self.draws["sharpe"].fillna(0.0).median()
        return (
            f"CandleMonteCarlo(Sharpe ratio {self.real.sharpe:.2f} against a median of "
            f"{median:.2f} in {len(self.draws)} markets of blocks of {self.block_bars:.0f} bars: "
            f"above {self.rank('sharpe'):.0%} of them; "
            f"{(self.draws['total_return'] > 0).mean():.0%} gained)"
        )


def candle_monte_carlo(
    run: Backtest, draws: int = 100, seed: int = 0, block_days: float | None = None
) -> CandleMonteCarlo:
    """Run the strategy on ``draws`` resampled markets, under the run's account and events.

    Draw ``i`` depends on ``seed`` and ``i`` alone. ``block_days`` is the mean length of a block
    (None: chosen from the candles, ``mean_block``). Raises ParameterError for a wrong number of
    draws, seed or length (from one bar up to a third of the bars there are), InputError for a
    window in which fewer than 30 bars are shared by all symbols.
    """
    require_whole("draws", draws, 1)
    require_whole("seed", seed, 0)
    pool = _pool(run)
    block = mean_block(run) if block_days is None else _block_bars(run, block_days, len(pool))

    def figures(draw: int) -> list[float]:
        rng = np.random.default_rng([seed, draw])
        rows = pool[stationary_indices(len(pool), block, 1, rng, size=len(run.tape.close_time))[0]]
        candles = resampled(run, rows)
        course = course_again(run, candles)
        (row,) = figures_of_rows([run.strategy], course, run.account, Bank(BANK_BYTES))
        return [*row.figures, row.halted]

    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="monte carlo") as threads:
        rows = list(threads.map(figures, range(draws)))
    frame = pd.DataFrame(rows, columns=[*Metrics._fields, "halted"]).rename_axis("draw")
    return CandleMonteCarlo(frame, run.metrics, block, int(seed))


def mean_block(run: Backtest) -> float:
    """The mean block length, in bars, that suits the candles of the run's window.

    D. N. Politis, H. White, Econometric Reviews 23 (2004), as corrected by A. Patton, D. N. Politis
    and H. White, ibid. 28 (2009), of the market's bar returns and of their squares, whichever is
    longer: returns hardly depend on each other, but their size does. At least one bar, at most a
    third of those there are. Raises InputError for too few shared bars, and where ``arch``, which
    computes it, is not installed.
    """
    pool = _pool(run)
    moves = np.mean([_moves(run, s, pool)["close"] for s in range(len(run.candles))], axis=0)
    longest = max(automatic_length(moves), automatic_length(moves * moves))
    return min(longest, len(pool) / 3.0)


def _block_bars(run: Backtest, block_days: float, pool: int) -> float:
    number = isinstance(block_days, (int, float, np.number)) and not isinstance(block_days, bool)
    block = float(block_days) * DAY / run.candles.bar_ms if number else math.nan
    if not 1.0 <= block <= pool / 3.0:
        bar = run.candles.bar_ms / DAY
        raise ParameterError(
            field="block_days",
            value=block_days,
            expected=f"a number of days from {bar:.4g} (one bar) to {pool / 3.0 * bar:.4g} "
            "(a third of the bars that all symbols share)",
        )
    return block


def _pool(run: Backtest) -> Ints:
    """Bars of the run at which every symbol has a candle, and one before it."""
    shared = np.flatnonzero((candle_positions(run.candles, run.tape) >= 1).all(axis=1))
    if len(shared) < FEWEST_BARS:
        raise InputError(
            f"its symbols share {len(shared)} bars",
            field="run",
            value=f"{run.strategy!r} on {', '.join(run.symbols)}",
            expected=f"at least {FEWEST_BARS} bars at which every symbol has a candle",
            remedy="Take a longer history, or leave out the symbol that was listed last.",
        )
    return shared


def resampled(run: Backtest, rows: Ints) -> CandleSet:
    """The run's candles with bar ``t`` of its window moving as its bar ``rows[t]`` did.

    ``rows`` are bars at which every symbol has a candle and one before it. A symbol's very first
    candle, from which the others move on, stays; so do all before the window. Sound candles at the
    same timestamps.
    """
    at = candle_positions(run.candles, run.tape)
    series = []
    for s, one in enumerate(run.candles):
        places = np.flatnonzero(at[:, s] >= 1)
        if not len(places):
            series.append(one)
            continue
        first = int(at[places[0], s])
        columns = _walked(_moves(run, s, rows[places]), float(one.close[first - 1]))
        joined = (np.concatenate([getattr(one, name)[:first], columns[name]]) for name in COLUMNS)
        series.append(_sound(Candles(one.symbol, one.timeframe, one.ts, *joined), first))
    return replace(run.candles, series=tuple(series))


def _moves(run: Backtest, s: int, bars: Ints) -> dict[str, Floats]:
    """Log-moves of symbol ``s`` from the close before, and volume, at each of these bars."""
    one = run.candles.series[s]
    at = np.searchsorted(one.ts, run.tape.close_time[bars] - one.bar_ms)
    base = np.log(one.close[at - 1])
    moves = {name: np.log(getattr(one, name)[at]) - base for name in COLUMNS if name != "volume"}
    return moves | {"volume": one.volume[at]}


def _walked(moves: dict[str, Floats], start: float) -> dict[str, Floats]:
    """Prices that move so from ``start`` on, bar after bar."""
    ends = math.log(start) + np.cumsum(moves["close"])
    base = np.append(math.log(start), ends[:-1])
    prices = {name: np.exp(base + moves[name]) for name in ("open", "high", "low")}
    return {**prices, "close": np.exp(ends), "volume": moves["volume"]}


def _sound(one: Candles, first: int) -> Candles:
    """The same candles, whose highs and lows from ``first`` on no rounding has crossed."""
    high, low = one.high.copy(), one.low.copy()
    high[first:] = np.maximum.reduce([one.high, one.open, one.close])[first:]
    low[first:] = np.minimum.reduce([one.low, one.open, one.close])[first:]
    return replace(one, high=high, low=low)
