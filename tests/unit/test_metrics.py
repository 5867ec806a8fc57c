"""Figures against pencil and paper, numpy, and the promise that a flat bar adds exactly nothing."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.account import Account, Filters, Limits, Stops
from research.backtesting import Backtest, backtest
from research.candles import DAY
from research.metrics import (
    METRICS,
    Metrics,
    Tally,
    metrics_of,
    opening_tally,
    tally_bar,
    tally_log,
)
from research.risk import Rules, rules_for
from research.state import Log, as_arrays, new_log
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles

HOUR = 3_600_000
SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]


def run_of(seed: int, bars: int, symbols: list[str] = SYMBOLS) -> Backtest:
    account = Account(
        limits=Limits(max_position_pct=30, max_drawdown_pct=100, max_daily_loss_pct=100),
        stops=Stops(stop_loss_pct=2, take_profit_pct=4, trailing_stop_pct=3),
    )
    candles = synthetic_candles(symbols, "1h", "2024", bars, seed)
    return backtest(SmaCrossover(fast=5, slow=20), candles, account)


@pytest.fixture(scope="module")
def run() -> Backtest:
    return run_of(seed=1, bars=3000)


def whole_lots(*symbols: str) -> Rules:
    one = Filters(lot_step=Decimal(1), max_quantity=Decimal(1000))
    return rules_for(Account(filters=dict.fromkeys(symbols, one)), symbols)


def by_hand() -> Log:
    """Two round trips of one symbol from 1,000; lots are whole units.

    bar  what happens                             cash   held  close  equity
    0    -                                        1000     0     -     1000
    1    buy 5 at 100, fee 2                       498     5    104    1018
    2    -                                         498     5     96     978
    3    sell 5 at 110, fee 3                     1045     0     -     1045
    4    buy 4 at 50, fee 1; stop 4 at 45, fee 1  1023     0     -     1023
    """
    log = new_log(5, 1)
    log.cash[:] = [1000, 498, 498, 1045, 1023]
    log.equity[:] = [1000, 1018, 978, 1045, 1023]
    for bar, lots, price, fee in [(1, 5, 100, 2), (3, -5, 110, 3), (4, 4, 50, 1)]:
        log.fill_lots[bar, 0], log.fill_price[bar, 0], log.fill_fee[bar, 0] = lots, price, fee
    log.stop_lots[4, 0], log.stop_price[4, 0], log.stop_fee[4, 0] = -4, 45, 1
    return log


def test_two_round_trips_give_the_figures_of_pencil_and_paper() -> None:
    figures = metrics_of(tally_log(by_hand(), whole_lots("A"), 1000.0), 1000.0, DAY)
    returns = [0.0, 18 / 1000, 978 / 1018 - 1, 1045 / 978 - 1, 1023 / 1045 - 1]
    mean = sum(returns) / 5
    deviation = math.sqrt(sum((one - mean) ** 2 for one in returns) / 4)
    downside = math.sqrt((returns[2] ** 2 + returns[4] ** 2) / 5)
    by_pencil = Metrics(
        total_return=0.023,
        cagr=1.023 ** (365 / 5) - 1,
        sharpe=mean / deviation * math.sqrt(365),
        sortino=mean / downside * math.sqrt(365),
        max_drawdown=1 - 978 / 1018,
        trades=2,
        win_rate=0.5,
        profit_factor=45 / 22,  # 550 - 500 - 2 - 3; 200 - 180 + 1 + 1
        exposure=(520 / 1018 + 480 / 978) / 5,
        time_in_market=0.4,
        turnover=(500 / 1000 + 550 / 978 + 200 / 1045 + 180 / 1045) / 5 * 365,
        fees_paid=7.0,
        final_equity=1023.0,
    )
    for name, value in by_pencil._asdict().items():
        assert getattr(figures, name) == pytest.approx(value, rel=1e-12), name


def test_every_figure_is_explained_once_and_in_order() -> None:
    assert tuple(METRICS) == Metrics._fields
    names = [name for name, _ in METRICS.values()]
    assert len(set(names)) == len(names)


def pieces(log: Log, *parts: slice | int) -> Log:
    """The log put together from slices of itself; a number stands for so many flat bars.

    On a flat bar nothing happens and the account stays as it was (at first: 1,000).
    """
    grown = []
    for name, column in zip(Log._fields, log, strict=True):
        rows = [np.full((1, *column.shape[1:]), 1000.0)]
        for part in parts:
            if isinstance(part, slice):
                rows.append(column[part])
            elif name in ("cash", "equity", "peak"):
                rows.append(np.full(part, rows[-1][-1]))
            else:
                rows.append(np.zeros((part, *column.shape[1:]), column.dtype))
        grown.append(np.concatenate(rows[1:]))
    return Log._make(grown)


def sums(tally: Tally) -> bytes:
    """Every running sum but the count of bars, as bits."""
    return b"".join(np.asarray(part).tobytes() for part in tally[1:])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 500), bars=st.integers(30, 300), still=st.integers(1, 200))
def test_flat_bars_before_between_and_after_add_exactly_nothing(
    seed: int, bars: int, still: int
) -> None:
    run = run_of(seed, bars)
    log, rules, cash = run.log, run.rules, run.account.initial_cash
    idle = [t + 1 for t in range(bars) if log.equity[t] == log.cash[t]]
    plain = tally_log(pieces(log, slice(0, idle[-1])), rules, cash)
    middle = idle[len(idle) // 2]
    assert log.cash[0] == cash
    for grown in (
        pieces(log, slice(0, 1), still, slice(1, idle[-1])),
        pieces(log, slice(0, middle), still, slice(middle, idle[-1])),
        pieces(log, slice(0, idle[-1]), still),
    ):
        tally = tally_log(grown, rules, cash)
        assert tally.bars == plain.bars + still
        assert sums(tally) == sums(plain)


def test_the_same_check_notices_a_bar_that_is_not_flat(run: Backtest) -> None:
    plain = tally_log(run.log, run.rules, 10_000.0)
    moved = pieces(run.log, slice(None), 1)
    moved.equity[-1] = math.nextafter(moved.equity[-1], math.inf)
    assert sums(tally_log(moved, run.rules, 10_000.0)) != sums(plain)


def test_a_run_cut_in_two_tallies_like_the_whole(run: Backtest) -> None:
    rules, log = run.rules, Log._make(column.tolist() for column in run.log)
    tally = opening_tally(10_000.0, 3)
    for row in range(len(log.equity)):
        if row == 1234:  # a checkpoint on the way: nothing but the tally is handed on
            tally = tally._replace(flow=list(tally.flow), held=list(tally.held))
        tally = tally_bar(tally, log, row, rules)
    assert sums(as_arrays(tally)) == sums(as_arrays(tally_log(run.log, rules, 10_000.0)))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_figures_equal_their_definitions_in_numpy(seed: int) -> None:
    run = run_of(seed, bars=3000)
    figures, cash = run.metrics, run.account.initial_cash
    equity = np.append(cash, run.log.equity)
    returns = equity[1:] / equity[:-1] - 1
    years = 3000 / (365 * 24)
    hours = math.sqrt(365 * 24)
    invested = np.zeros(3000)
    traded = 0.0
    for s, one in enumerate(run.candles):
        lots = run.log.fill_lots[:, s] + run.log.stop_lots[:, s]
        invested += np.cumsum(lots) * 1e-8 * one.close
        for kind in ("fill", "stop"):
            value = np.abs(getattr(run.log, f"{kind}_lots")[:, s]) * 1e-8
            value = value * getattr(run.log, f"{kind}_price")[:, s]
            traded += float((value / equity[:-1]).sum())
    expected = {
        "total_return": equity[-1] / cash - 1,
        "cagr": (equity[-1] / cash) ** (1 / years) - 1,
        "sharpe": returns.mean() / returns.std(ddof=1) * hours,
        "sortino": returns.mean() / np.sqrt(np.mean(np.minimum(returns, 0) ** 2)) * hours,
        "max_drawdown": np.max(1 - equity / np.maximum.accumulate(equity)),
        "exposure": np.mean(invested / equity[1:]),
        "time_in_market": np.mean(invested > 1e-9),
        "turnover": traded / years,
        "fees_paid": run.log.fill_fee.sum() + run.log.stop_fee.sum(),
        "final_equity": equity[-1],
    }
    for name, value in expected.items():
        assert getattr(figures, name) == pytest.approx(value, rel=1e-9), name
    assert figures.trades > 50
    profits = [one.pnl for one in run.trade_list]
    won, lost = [p for p in profits if p > 0], [p for p in profits if p <= 0]
    assert figures.trades == len(profits)
    assert figures.win_rate == len(won) / len(profits)
    assert figures.profit_factor == pytest.approx(sum(won) / -sum(lost), rel=1e-9)


NOTHING_TRADED = {"sharpe", "sortino", "win_rate", "profit_factor"}


@pytest.mark.parametrize(
    ("bars", "undefined"),
    [
        (0, NOTHING_TRADED | {"cagr", "exposure", "time_in_market", "turnover"}),
        (1, NOTHING_TRADED),
        (50, NOTHING_TRADED),
    ],
)
def test_what_cannot_be_said_is_nan_and_nothing_else_is(bars: int, undefined: set[str]) -> None:
    log = new_log(bars, 1)
    log.cash[:] = log.equity[:] = 1000.0
    figures = metrics_of(tally_log(log, whole_lots("A"), 1000.0), 1000.0, HOUR)
    assert {name for name, value in figures._asdict().items() if math.isnan(value)} == undefined
    assert figures.total_return == figures.max_drawdown == figures.fees_paid == 0.0
    assert figures.final_equity == 1000.0
    assert figures.trades == 0


def test_one_bar_has_no_deviation_and_a_gain_no_downside() -> None:
    log = by_hand()
    one = metrics_of(tally_log(pieces(log, slice(0, 2)), whole_lots("A"), 1000.0), 1000.0, DAY)
    assert math.isfinite(one.sharpe)
    assert math.isnan(one.sortino)  # no bar lost
    assert math.isnan(one.win_rate)  # the trade is still open
    first = metrics_of(tally_log(pieces(log, slice(1, 2)), whole_lots("A"), 1000.0), 1000.0, DAY)
    assert math.isnan(first.sharpe)
    assert first.total_return == pytest.approx(0.018)


def figures_of_equity(equity: np.ndarray) -> Metrics:
    log = new_log(len(equity), 1)
    log.cash[:] = log.equity[:] = equity
    return metrics_of(tally_log(log, whole_lots("A"), 1000.0), 1000.0, HOUR)


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(-0.01, 0.01) | st.floats(-1e-9, 1e-9) | st.floats(-1e-14, 1e-14),
    bars=st.integers(2, 3000),
)
def test_returns_that_are_all_the_same_have_no_sharpe_ratio(rate: float, bars: int) -> None:
    equity = 1000.0 * np.cumprod(np.full(bars, 1.0 + rate))
    assert math.isnan(figures_of_equity(equity).sharpe)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), bars=st.integers(2, 3000))
def test_an_equity_that_only_trembles_in_its_last_digit_has_no_ratios(seed: int, bars: int) -> None:
    steps = np.random.default_rng(seed).integers(-1, 2, bars)
    figures = figures_of_equity(1000.0 * (1.0 + steps * np.finfo(float).eps / 4))
    assert math.isnan(figures.sharpe)
    assert math.isnan(figures.sortino)


@pytest.mark.parametrize("deviation", [1e-2, 1e-4, 1e-6, 1e-8])
def test_a_small_deviation_is_not_taken_for_rounding(deviation: float) -> None:
    returns = 1e-4 + deviation * np.where(np.arange(2000) % 2, 1.0, -1.0)
    equity = 1000.0 * np.cumprod(1.0 + returns)
    sharpe = 1e-4 / np.std(returns, ddof=1) * math.sqrt(365 * 24)
    assert figures_of_equity(equity).sharpe == pytest.approx(sharpe, rel=1e-3)


def test_without_a_losing_trade_the_profit_factor_is_infinite() -> None:
    log = pieces(by_hand(), slice(0, 4))
    figures = metrics_of(tally_log(log, whole_lots("A"), 1000.0), 1000.0, DAY)
    assert (figures.trades, figures.win_rate, figures.profit_factor) == (1, 1.0, math.inf)


def test_a_trade_that_ends_with_nothing_is_not_a_win() -> None:
    log = new_log(2, 1)
    log.cash[:], log.equity[:] = [900, 1000], [1000, 1000]
    log.fill_lots[:, 0], log.fill_price[:, 0] = [1, -1], 100
    figures = metrics_of(tally_log(log, whole_lots("A"), 1000.0), 1000.0, DAY)
    assert (figures.trades, figures.win_rate) == (1, 0.0)
    assert math.isnan(figures.profit_factor)  # 0 / 0


def test_a_gain_that_no_year_can_hold_is_infinite_and_ruin_has_no_growth() -> None:
    tally = opening_tally(1000.0, 1)._replace(bars=1)
    assert metrics_of(tally._replace(equity=5000.0), 1000.0, 60_000).cagr == math.inf
    assert math.isnan(metrics_of(tally._replace(equity=0.0), 1000.0, 60_000).cagr)


@pytest.mark.parametrize(
    ("timeframe_ms", "bars_a_year"), [(DAY, 365), (HOUR, 8760), (60_000, 525_600)]
)
def test_a_year_has_365_days_of_bars(timeframe_ms: int, bars_a_year: int) -> None:
    tally = opening_tally(1000.0, 1)._replace(bars=bars_a_year, equity=1100.0, turnover=3.0)
    figures = metrics_of(tally, 1000.0, timeframe_ms)
    assert figures.cagr == pytest.approx(0.1, rel=1e-12)
    assert figures.turnover == pytest.approx(3.0, rel=1e-12)
