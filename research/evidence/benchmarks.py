"""What a run is measured against: holding the same symbols, and the market's share in its returns.

Equity is in quote currency at each close of the run's own window (a warm-up within it included,
during which a holder is in and the run is not). Returns are fractions, a year has 365 days.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from research.backtesting import Backtest
from research.candles import Floats
from research.daily import day_ends
from research.metrics import EPSILON, YEAR_DAYS, Metrics, metrics_of, opening_tally

__all__ = ["AlphaBeta", "Benchmark", "Holding", "alpha_beta", "buy_and_hold", "market_returns"]


@dataclass(frozen=True, eq=False, repr=False)
class Holding:
    """One way to hold the symbols: ``equity`` at each close and its figures, as a run's are."""

    equity: pd.Series
    exposure: float
    total_return: float
    sharpe: float
    max_drawdown: float

    def __repr__(self) -> str:
        return (
            f"Holding({self.exposure:.0%} invested: total return {self.total_return:.1%}, Sharpe "
            f"ratio {self.sharpe:.2f}, max drawdown {self.max_drawdown:.1%})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Benchmark:
    """Holding the symbols: all in (``full``), and as much as the run did on average (``even``).

    ``excess_sharpe`` is the run's Sharpe ratio less that of ``full``, ``excess_return`` the run's
    total return less that of ``even``, which bore the same exposure. NaN where there is no ratio.
    """

    full: Holding
    even: Holding
    excess_sharpe: float
    excess_return: float

    def __repr__(self) -> str:
        return (
            f"Benchmark({self.full!r}, {self.even!r}; the run's Sharpe ratio exceeds it by "
            f"{self.excess_sharpe:.2f}, its return that of the same exposure by "
            f"{self.excess_return:.1%})"
        )


def buy_and_hold(run: Backtest) -> Benchmark:
    """Holding the symbols of ``run`` over its window.

    ``full``: equal shares of the initial cash, each bought at the open of its symbol's second bar
    (the first that a run can buy at, having decided at the close before) with the account's fee and
    slippage, never sold and marked at the last close; what cannot be bought yet waits in cash, and
    lots are not rounded. ``even``: the run's mean exposure in ``full`` and the rest in cash, put
    right at every bar at no cost, which flatters it. Its Sharpe ratio is that of ``full``, but
    for what compounding does to nothing: a ratio does not know leverage.
    """
    cash = run.account.initial_cash
    equity = _held(run)
    exposure = run.metrics.exposure
    moves = equity / np.append(cash, equity[:-1]) - 1.0
    full = _holding(run, equity, 1.0)
    even = _holding(run, cash * np.cumprod(1.0 + exposure * moves), exposure)
    return Benchmark(
        full=full,
        even=even,
        excess_sharpe=run.metrics.sharpe - full.sharpe,
        excess_return=run.metrics.total_return - even.total_return,
    )


def _held(run: Backtest) -> Floats:
    """Equity at each close of equal shares bought at each symbol's second bar."""
    tape, account = run.tape, run.account
    bars, symbols = tape.present.shape
    share = account.initial_cash / symbols
    cost = (1.0 + account.slippage_bps / 10_000.0) * (1.0 + account.fee_rate)
    equity = np.zeros(bars)
    for s, closes in enumerate(_last_closes(run).T):
        worth, here = np.full(bars, share), np.flatnonzero(tape.present[:, s])
        if len(here) > 1:
            bought = here[1]
            worth[bought:] = share / (tape.open[bought, s] * cost) * closes[bought:]
        equity += worth
    return equity


def _last_closes(run: Backtest) -> Floats:
    """Each symbol's last close at each bar, bars x symbols; NaN before its first."""
    closes: Floats = pd.DataFrame(run.tape.close).ffill().to_numpy(np.float64)
    return closes


def _holding(run: Backtest, equity: Floats, exposure: float) -> Holding:
    figures = _figures(equity, run.account.initial_cash, run.candles.bar_ms)
    return Holding(
        equity=pd.Series(equity, run.close_time, name="equity"),
        exposure=exposure,
        total_return=figures.total_return,
        sharpe=figures.sharpe,
        max_drawdown=figures.max_drawdown,
    )


def _figures(equity: Floats, cash: float, bar_ms: int) -> Metrics:
    """The figures that a curve alone can give, by the definitions of ``research.metrics``."""
    change = equity / np.append(cash, equity[:-1]) - 1.0
    peak = np.maximum.accumulate(np.append(cash, equity))[1:]
    tally = opening_tally(cash, 0)._replace(
        bars=len(equity),
        equity=float(equity[-1]),
        peak=float(peak[-1]),
        max_drawdown=float(np.max(1.0 - equity / peak)),
        sum_return=float(change.sum()),
        sum_square=float((change * change).sum()),
    )
    return metrics_of(tally, cash, bar_ms)


@dataclass(frozen=True, repr=False)
class AlphaBeta:
    """Daily returns of a run regressed on the market's: r = alpha + beta m + e.

    ``alpha`` is a year's (daily times 365), ``alpha_t`` and ``beta_t`` are t statistics with
    Newey-West standard errors over ``lags`` days, ``r_squared`` the share of variance explained,
    over ``days``. NaN where nothing can be said: fewer than three days, a market or a run that did
    not move.
    """

    alpha: float
    alpha_t: float
    beta: float
    beta_t: float
    r_squared: float
    days: int
    lags: int

    def __repr__(self) -> str:
        return (
            f"AlphaBeta(alpha {self.alpha:.1%} a year, t = {self.alpha_t:.2f}; beta "
            f"{self.beta:.2f}, R2 {self.r_squared:.2f}; {self.days} days)"
        )


def alpha_beta(run: Backtest) -> AlphaBeta:
    """The run's daily returns against ``market_returns``, by ordinary least squares.

    Standard errors are those of W. K. Newey, K. D. West, Econometrica 55 (1987), eq. 5, which hold
    under changing volatility and autocorrelation; lags floor(4 (n / 100)^(2/9)), the rule of their
    1994 paper for the Bartlett kernel.
    """
    returns, market = run.daily_returns.to_numpy(), market_returns(run).to_numpy()
    days = len(returns)
    lags = min(max(days - 1, 0), int(4.0 * (days / 100.0) ** (2.0 / 9.0)))
    if days < 3 or np.ptp(market) <= EPSILON or np.ptp(returns) <= EPSILON:
        nothing = math.nan
        return AlphaBeta(nothing, nothing, nothing, nothing, nothing, days, lags)
    fit = _newey_west(np.column_stack([np.ones(days), market]), returns, lags)
    left = returns - returns.mean()
    return AlphaBeta(
        alpha=float(fit.coefficients[0]) * YEAR_DAYS,
        alpha_t=float(fit.coefficients[0] / fit.errors[0]),
        beta=float(fit.coefficients[1]),
        beta_t=float(fit.coefficients[1] / fit.errors[1]),
        r_squared=float(1.0 - (fit.residuals @ fit.residuals) / (left @ left)),
        days=days,
        lags=lags,
    )


def market_returns(run: Backtest) -> pd.Series:
    """The equal-weight market's return on each day of the run, by its UTC midnight.

    The mean over the symbols of last close of the day over that of the day before, minus one: equal
    shares, put right every day at no cost. The first day counts from the first close, at which a
    run can first decide; a symbol counts from the day after its first close on.
    """
    closes = _last_closes(run)
    ends = closes[day_ends(run.tape.close_time)]
    before = np.vstack([closes[:1], ends[:-1]])
    return pd.Series(
        np.nanmean(ends / before - 1.0, axis=1), run.daily_returns.index, name="market"
    )


class _Fit(NamedTuple):
    coefficients: Floats
    errors: Floats
    residuals: Floats


def _newey_west(x: Floats, y: Floats, lags: int) -> _Fit:
    """Least squares of ``y`` (n,) on ``x`` (n, k), standard errors with Bartlett weights."""
    inverse = np.linalg.inv(x.T @ x)
    coefficients = inverse @ (x.T @ y)
    residuals = y - x @ coefficients
    score = x * residuals[:, None]
    middle = score.T @ score
    for lag in range(1, lags + 1):
        gamma = score[lag:].T @ score[:-lag]
        middle += (1.0 - lag / (lags + 1.0)) * (gamma + gamma.T)
    errors = np.sqrt(np.diag(inverse @ middle @ inverse))
    return _Fit(coefficients, errors, residuals)
