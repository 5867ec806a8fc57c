"""Walk-forward analysis: what the combination chosen on one window earns on the window after it.

The bars are cut, at UTC midnights, into ``folds`` + 3 parts of nearly as many days. A fold chooses
on three parts (all earlier ones where it is anchored) and trades the next: the test window is a
third of the training window. The test windows join up and cover the last ``folds`` parts.

Every window is a run of its own. It starts flat and with the account's initial cash, ends with what
is held marked at the last close, and knows no candle after its end; earlier candles only warm the
indicators. Since no position crosses from one window into the next there is nothing to embargo.
Times are closes of bars, UTC; Sharpe ratios are annual, with 365 days; returns are fractions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from research.account import Account
from research.backtesting import Backtest, rerun
from research.candles import DAY, CandleSet, Ints
from research.daily import day_ends
from research.errors import InputError
from research.evidence.daily_matrix import annual_sharpe
from research.indicators import Bank
from research.metrics import YEAR_DAYS, Metrics
from research.rows import course_of, figures_of_rows
from research.search import BANK_BYTES, Sweep, best_first
from research.strategy import Strategy
from research.tape import first_bar

__all__ = ["WalkForward", "Window", "out_of_sample", "walk_forward", "windows_of"]

TRAIN_PARTS: Final = 3
# A figure of fewer bars is noise; training windows are at least as long as the longest warm-up too.
SHORTEST_TRAIN: Final = 100
SHORTEST_TEST: Final = 30


class Window(NamedTuple):
    """One fold, as positions of bars: it trains on ``train_start`` up to ``test_start`` and trades
    from there up to ``test_end``, both exclusive."""

    train_start: int
    test_start: int
    test_end: int


@dataclass(frozen=True, eq=False, repr=False)
class WalkForward:
    """How choosing again and again has done on bars that the choice had not seen.

    ``folds`` has a row a fold: ``train_start``, ``train_end``, ``test_start``, ``test_end`` (closes
    of the first and last bar), the parameters chosen, ``train_sharpe``, ``test_sharpe`` (of bar
    returns; NaN for a window that never traded), ``train_return``, ``test_return`` (totals) and
    ``test_trades`` (round trips that ended). ``chosen`` are the strategies.

    ``returns`` (a UTC day) and ``equity`` (a close, from 1.0 before the first) are those of the
    test windows, one after the other; ``sharpe`` is that of ``returns``.

    ``efficiency`` is the mean test Sharpe ratio over the mean training one, ``return_efficiency``
    the same of annual returns: walk-forward efficiency as R. Pardo, The Evaluation and Optimization
    of Trading Strategies (2008), chapter 11, has it. Either is NaN where training earned nothing.
    ``profitable`` is the share of folds whose test window gained.
    """

    folds: pd.DataFrame
    chosen: tuple[Strategy, ...]
    returns: pd.Series
    equity: pd.Series
    sharpe: float
    efficiency: float
    return_efficiency: float
    profitable: float
    metric: str
    anchored: bool

    def __repr__(self) -> str:
        kind = "anchored" if self.anchored else "rolling"
        gained = int((self.folds["test_return"] > 0).sum())
        return (
            f"WalkForward({len(self.folds)} {kind} folds by {self.metric}: Sharpe ratio "
            f"{self.sharpe:.2f} out of sample, efficiency {self.efficiency:.2f}, "
            f"{gained} of {len(self.folds)} folds gained)"
        )


def walk_forward(
    sweep: Sweep, *, folds: int = 6, anchored: bool = False, metric: str = "sharpe"
) -> WalkForward:
    """Choose the best of the sweep's combinations on each training window, trade the next window.

    The windows begin where the longest warm-up of the grid is over, so that no combination is
    judged on bars on which it could not trade. ``anchored`` training windows all begin there;
    rolling ones have the same length. ``metric`` chooses as ``Sweep.ranked`` does; where no
    combination has a value for it on a window, the first one is taken. No trial is counted.

    Raises InputError for what is no sweep and for windows that would be too short, ParameterError
    as ``Sweep.ranked``.
    """
    if not isinstance(sweep, Sweep):
        raise InputError(
            field="sweep",
            value=sweep,
            expected="what sweep(...) returned",
            remedy="out_of_sample(run) looks at the same windows of a lone backtest.",
        )
    sweep.ranked(metric)
    names = [str(name) for name in sweep.frame.index.names]
    choice = _Choice(sweep.strategies, names, sweep.candles, sweep.account, metric)
    return _walk(choice, sweep.trade_from, folds, anchored)


def out_of_sample(run: Backtest, folds: int = 6) -> WalkForward:
    """The same windows for one strategy, of which nothing is chosen: its figures part by part.

    ``train_...`` are its figures on the three parts before, ``test_...`` on the part itself, so
    that ``efficiency`` tells whether it has faded. Moves of the kill switch by people, which the
    run may have had, are not made again. Raises InputError for windows that would be too short.
    """
    names = list(run.strategy.parameters())
    choice = _Choice((run.strategy,), names, run.candles, run.account, "sharpe")
    return _walk(choice, int(run.tape.close_time[0]), folds, anchored=False)


def windows_of(close_time: Ints, folds: int, anchored: bool = False) -> tuple[Window, ...]:
    """The windows of ``folds`` folds over bars with these closes (UTC milliseconds, sorted).

    Each begins with the first bar of a UTC day and ends with the last of one, so that stitched
    daily returns are whole days. Empty where there are fewer days than parts.
    """
    after = day_ends(close_time) + 1
    parts, days = folds + TRAIN_PARTS, len(after)
    if days < parts:
        return ()
    edges = [0, *(int(after[i * days // parts - 1]) for i in range(1, parts + 1))]
    return tuple(
        Window(0 if anchored else edges[i], edges[i + TRAIN_PARTS], edges[i + TRAIN_PARTS + 1])
        for i in range(folds)
    )


@dataclass(frozen=True)
class _Choice:
    """What there is to choose from, on which candles and by which figure."""

    strategies: Sequence[Strategy]
    names: Sequence[str]
    candles: CandleSet
    account: Account
    metric: str


class _Fold(NamedTuple):
    """One fold that is done: the strategy chosen, its figures in sample, and its run out of it."""

    strategy: Strategy
    train: Metrics
    test: Backtest


def _walk(choice: _Choice, start: int | None, folds: int, anchored: bool) -> WalkForward:
    if isinstance(folds, bool) or not isinstance(folds, (int, np.integer)) or folds < 1:
        raise InputError(field="folds", value=folds, expected="a whole number from 1 on")
    warmup = max(one.warmup for one in choice.strategies)
    closes = _closes(choice.candles, start, warmup)
    windows = _long_enough(closes, int(folds), anchored, warmup)
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="walk forward") as pool:
        done = list(pool.map(lambda window: _fold(choice, closes, window), windows))
    return _joined(choice, closes, windows, done, anchored)


def _closes(candles: CandleSet, start: int | None, warmup: int) -> Ints:
    """Closes of the bars from ``start`` on at which the warm-up of some symbol is over."""
    opens, bar_ms = candles.clock(), candles.bar_ms
    ready = [int(one.ts[warmup]) for one in candles if len(one) > warmup]
    first = int(np.searchsorted(opens, min(ready))) if ready else len(opens)
    closes: Ints = opens[max(first, first_bar(opens, bar_ms, start)) :] + bar_ms
    return closes


def _long_enough(closes: Ints, folds: int, anchored: bool, warmup: int) -> tuple[Window, ...]:
    """The windows. Raises InputError where one is too short, saying how many folds are possible."""
    shortest = max(SHORTEST_TRAIN, warmup)

    def fitting(count: int) -> tuple[Window, ...]:
        windows = windows_of(closes, count, anchored)
        fits = all(
            one.test_start - one.train_start >= shortest
            and one.test_end - one.test_start >= SHORTEST_TEST
            for one in windows
        )
        return windows if fits else ()

    if found := fitting(folds):
        return found
    most = next((count for count in range(min(folds - 1, 100), 0, -1) if fitting(count)), 0)
    raise InputError(
        f"{len(closes):,} bars after the warm-up are too few",
        field="folds",
        value=folds,
        expected=f"training windows of at least {shortest} bars (100, and the longest warm-up) and "
        f"test windows of at least {SHORTEST_TEST}, of whole days",
        remedy=f"{most} folds fit." if most else "Take a longer history or a finer timeframe.",
    )


def _fold(choice: _Choice, closes: Ints, window: Window) -> _Fold:
    account, bar_ms = choice.account, choice.candles.bar_ms
    train_from, test_from = int(closes[window.train_start]), int(closes[window.test_start])
    known = _before(choice.candles, test_from - bar_ms)
    course = course_of(known, train_from, account)
    rows = figures_of_rows(choice.strategies, course, account, Bank(BANK_BYTES))
    scores = np.array([getattr(row.figures, choice.metric) for row in rows], np.float64)
    best = int(best_first(scores, choice.metric)[0])
    seen = _before(choice.candles, int(closes[window.test_end - 1]))
    test = rerun(choice.strategies[best], seen, account, trade_from=test_from)
    return _Fold(choice.strategies[best], rows[best].figures, test)


def _before(candles: CandleSet, end: int) -> CandleSet:
    """The candles that open before ``end``, without symbols that were not listed by then."""
    cut = candles.between(None, end)
    return replace(cut, series=tuple(one for one in cut if len(one)))


def _joined(
    choice: _Choice,
    closes: Ints,
    windows: Sequence[Window],
    done: Sequence[_Fold],
    anchored: bool,
) -> WalkForward:
    folds = _frame(choice, closes, windows, done)
    cash = choice.account.initial_cash
    levels = np.cumprod([1.0, *(one.test.metrics.final_equity / cash for one in done)])
    parts = [one.test.equity / cash * level for one, level in zip(done, levels[:-1], strict=True)]
    returns = pd.concat([one.test.daily_returns for one in done])
    spans = [(one.test_start - one.train_start, one.test_end - one.test_start) for one in windows]
    train_years, test_years = (
        sum(bars) * choice.candles.bar_ms / (YEAR_DAYS * DAY) for bars in zip(*spans, strict=True)
    )
    return WalkForward(
        folds=folds,
        chosen=tuple(one.strategy for one in done),
        returns=returns,
        equity=pd.concat(parts),
        sharpe=float(annual_sharpe(returns)),
        # A window without a trade has no ratio, and has earned nothing.
        efficiency=_ratio(
            folds["test_sharpe"].fillna(0.0).mean(), folds["train_sharpe"].fillna(0.0).mean()
        ),
        return_efficiency=_ratio(
            folds["test_return"].sum() / test_years, folds["train_return"].sum() / train_years
        ),
        profitable=float((folds["test_return"] > 0).mean()),
        metric=choice.metric,
        anchored=anchored,
    )


def _frame(
    choice: _Choice, closes: Ints, windows: Sequence[Window], done: Sequence[_Fold]
) -> pd.DataFrame:
    edges = np.array(
        [(w.train_start, w.test_start - 1, w.test_start, w.test_end - 1) for w in windows]
    )
    moments = closes[edges].astype("datetime64[ms]")
    names = ("train_start", "train_end", "test_start", "test_end")
    times = {
        name: pd.DatetimeIndex(column).tz_localize("UTC")
        for name, column in zip(names, moments.T, strict=True)
    }
    chosen = [one.strategy.parameters() for one in done]
    figures = {
        "train_sharpe": [one.train.sharpe for one in done],
        "test_sharpe": [one.test.metrics.sharpe for one in done],
        "train_return": [one.train.total_return for one in done],
        "test_return": [one.test.metrics.total_return for one in done],
        "test_trades": [one.test.metrics.trades for one in done],
    }
    parameters = pd.DataFrame(chosen, index=range(len(done)))[list(choice.names)]
    parts = [pd.DataFrame(times), parameters, pd.DataFrame(figures)]
    return pd.concat(parts, axis=1).rename_axis("fold")


def _ratio(test: float, train: float) -> float:
    return float(test / train) if train > 0.0 else float("nan")
