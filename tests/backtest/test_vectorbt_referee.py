"""vectorbt as referee of a run's own Portfolio: its equity and its figures.

Whole simulations by vectorbt are in test_vectorbt_simulations.py. No other test module imports it,
since that takes seconds.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from research.account import Account, Limits, Stops
from research.backtesting import Backtest, backtest
from research.candles import COLUMNS, Candles, CandleSet, Floats, utc_ms
from research.errors import InputError
from research.metrics import METRICS
from research.state import Log
from research.strategies.rsi_reversal import RsiReversal
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Action, Strategy
from research.synthetic import synthetic_candles
from research.vectorbt_adapter import portfolio_of
from tests.backtest.referee import (
    AGREED,
    accepting_gaps,
    account_of,
    real_hours,
    worst_difference,
)

SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]

ALL_STOPS = Stops(stop_loss_pct=3, take_profit_pct=5, trailing_stop_pct=2)
LIMITED = Limits(max_position_pct=30, max_drawdown_pct=100, max_daily_loss_pct=100)


@pytest.fixture(scope="module")
def real(shared: Path) -> CandleSet:
    return real_hours(shared, tuple(SYMBOLS))


@pytest.fixture(scope="module")
def made_up() -> CandleSet:
    return synthetic_candles(SYMBOLS, "1h", "2022", 3000)


@pytest.fixture(params=["made_up", "real"])
def candles(request: pytest.FixtureRequest) -> CandleSet:
    chosen: CandleSet = request.getfixturevalue(request.param)
    return chosen


@pytest.mark.parametrize(
    ("strategy", "stops", "limits"),
    [
        (SmaCrossover(), Stops(), None),
        (SmaCrossover(), ALL_STOPS, LIMITED),
        (RsiReversal(), ALL_STOPS, None),
        (RsiReversal(), Stops(), Limits()),
    ],
    ids=["sma all in", "sma with stops", "rsi all in with stops", "rsi with default limits"],
)
def test_equity_agrees_with_vectorbt_s_account_of_the_fills(
    candles: CandleSet, strategy: Strategy, stops: Stops, limits: Limits | None
) -> None:
    run = backtest(strategy, candles, account_of(SYMBOLS, limits, stops))
    assert len(run.fill_list) > 20
    assert worst_difference(run, run.portfolio.value()) < AGREED


def in_part(candles: CandleSet) -> CandleSet:
    """One symbol comes late, one leaves early, one is absent for every seventh bar."""
    btc, eth, sol = candles
    some = np.arange(len(btc)) % 7 > 0
    holed = Candles(btc.symbol, btc.timeframe, *(getattr(btc, c)[some] for c in ("ts", *COLUMNS)))
    third = len(eth) // 3
    return accepting_gaps([holed, eth.rows(third, len(eth)), sol.rows(0, 2 * third)], "part")


def test_it_agrees_where_symbols_come_late_leave_early_or_have_holes(candles: CandleSet) -> None:
    part = in_part(candles)
    run = backtest(SmaCrossover(), part, account_of(SYMBOLS, LIMITED, ALL_STOPS))
    assert {fill.symbol for fill in run.fill_list} == set(SYMBOLS)
    assert not run.tape.present.all(axis=0).any()
    assert worst_difference(run, run.portfolio.value()) < AGREED


def test_it_agrees_where_trading_starts_later(candles: CandleSet) -> None:
    start = int(candles.clock()[1000])
    run = backtest(SmaCrossover(), candles, account_of(SYMBOLS, LIMITED, Stops()), trade_from=start)
    assert len(run.portfolio.value()) == len(run.equity) < len(candles.clock())
    assert worst_difference(run, run.portfolio.value()) < AGREED


def test_the_portfolio_has_the_run_s_symbols_times_cash_and_orders(made_up: CandleSet) -> None:
    run = backtest(SmaCrossover(), made_up, account_of(SYMBOLS, LIMITED, ALL_STOPS))
    portfolio = run.portfolio
    assert list(portfolio.wrapper.columns) == SYMBOLS
    assert portfolio.wrapper.index.equals(run.close_time)
    assert portfolio.wrapper.freq == pd.Timedelta("1h")
    assert float(portfolio.init_cash) == run.account.initial_cash
    np.testing.assert_allclose(portfolio.cash().to_numpy(), run.log.cash, rtol=0, atol=1e-6)
    records = portfolio.orders.records.sort_values("id")
    assert records["size"].tolist() == [fill.quantity for fill in run.fill_list]
    assert records["price"].tolist() == [fill.price for fill in run.fill_list]
    assert records["fees"].tolist() == [fill.fee for fill in run.fill_list]
    assert run.portfolio is portfolio  # built once


def test_a_run_without_a_fill_is_a_portfolio_of_cash(made_up: CandleSet) -> None:
    run = backtest(
        SmaCrossover(998, 999), made_up.between(None, int(made_up.clock()[500])), Account()
    )
    assert run.fill_list == []
    assert set(run.portfolio.value()) == {run.account.initial_cash}


def forgetful_cash(run: Backtest) -> Floats:
    """Cash at each close if what is left of it counts for nothing below a billionth.

    The rule of vectorbt's ``add_nb``: a sum of two numbers that nearly cancel is zero.
    """
    flow = np.zeros(len(run.close_time))
    bar_of = {int(close): t for t, close in enumerate(run.tape.close_time)}
    for fill in run.fill_list:
        sign = -1.0 if fill.side is Action.BUY else 1.0
        flow[bar_of[fill.at + run.candles.bar_ms]] += sign * fill.notional - fill.fee
    cash, at_close = run.account.initial_cash, np.empty(len(flow))
    for t, change in enumerate(flow.tolist()):
        nothing = math.isclose(cash, -change, rel_tol=1e-9, abs_tol=1e-12)
        cash = 0.0 if nothing else cash + change
        at_close[t] = cash
    return at_close


def test_of_an_all_in_account_vectorbt_forgets_a_billionth_of_cash_and_nothing_else(
    real: CandleSet,
) -> None:
    """With lots of 1e-8 an all-in buy leaves less than vectorbt can see: 6e-9 after 850 trades."""
    run = backtest(SmaCrossover(), real, Account(limits=None))
    assert AGREED < worst_difference(run, run.portfolio.value()) < 1e-7
    forgotten = run.log.cash - forgetful_cash(run)
    corrected = run.portfolio.value().to_numpy() + forgotten
    assert np.max(np.abs(corrected / run.log.equity - 1.0)) < 1e-13


# The same comparison must notice a simulator that is wrong.


def with_log(run: Backtest, **columns: Any) -> Backtest:
    """The run with another log; equity stays as it was, so that the referee sees the difference."""
    return dataclasses.replace(run, log=run.log._replace(**columns))


def late(run: Backtest) -> Backtest:
    """Every fill one bar later."""
    names = [name for name in Log._fields if name.startswith("fill_")]
    return with_log(run, **{name: np.roll(getattr(run.log, name), 1, axis=0) for name in names})


def one_fee_dropped(run: Backtest) -> Backtest:
    fees = run.log.fill_fee.copy()
    fees[np.unravel_index(np.flatnonzero(fees)[10], fees.shape)] = 0.0
    return with_log(run, fill_fee=fees)


def one_lot_less(run: Backtest) -> Backtest:
    lots = run.log.fill_lots.copy()
    lots[np.unravel_index(np.flatnonzero(lots > 0)[10], lots.shape)] -= 1
    return with_log(run, fill_lots=lots)


def one_basis_point(run: Backtest) -> Backtest:
    prices = run.log.fill_price.copy()
    prices[np.unravel_index(np.flatnonzero(prices)[10], prices.shape)] *= 1.0001
    return with_log(run, fill_price=prices)


def one_stop_missed(run: Backtest) -> Backtest:
    lots = run.log.stop_lots.copy()
    lots[np.unravel_index(np.flatnonzero(lots)[10], lots.shape)] = 0
    return with_log(run, stop_lots=lots)


@pytest.mark.parametrize(
    "broken", [late, one_fee_dropped, one_lot_less, one_basis_point, one_stop_missed]
)
def test_a_broken_simulator_is_caught(
    made_up: CandleSet, broken: Callable[[Backtest], Backtest]
) -> None:
    run = backtest(SmaCrossover(), made_up, account_of(SYMBOLS, LIMITED, ALL_STOPS))
    assert worst_difference(run, portfolio_of(run).value()) < AGREED
    bad = broken(run)
    assert worst_difference(bad, portfolio_of(bad).value()) > AGREED


def figures_by_vectorbt(portfolio: Any) -> dict[str, float]:
    closed = portfolio.positions.closed
    return {
        "total_return": portfolio.total_return(),
        "cagr": portfolio.annualized_return(),
        "sharpe": portfolio.sharpe_ratio(),
        "sortino": portfolio.sortino_ratio(),
        "max_drawdown": -portfolio.max_drawdown(),
        "trades": closed.count(),
        "win_rate": closed.win_rate(),
        "profit_factor": closed.profit_factor(),
        "final_equity": portfolio.final_value(),
        "fees_paid": portfolio.orders.fees.sum(),
    }


@pytest.mark.parametrize(
    ("strategy", "stops"),
    [(SmaCrossover(), Stops()), (RsiReversal(), ALL_STOPS)],
    ids=["sma", "rsi with stops"],
)
def test_figures_equal_vectorbt_s(candles: CandleSet, strategy: Strategy, stops: Stops) -> None:
    run = backtest(strategy, candles, account_of(SYMBOLS, LIMITED, stops))
    theirs = figures_by_vectorbt(run.portfolio)
    assert run.metrics.trades > 5
    for name, value in theirs.items():
        assert getattr(run.metrics, name) == pytest.approx(float(value), rel=1e-9), name
    # What vectorbt has no such figure for is compared with numpy in tests/unit/test_metrics.py.
    assert METRICS.keys() - theirs.keys() == {"exposure", "time_in_market", "turnover"}


def test_without_vectorbt_the_error_says_how_to_get_it(
    made_up: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = backtest(SmaCrossover(), made_up, Account())
    monkeypatch.setitem(sys.modules, "vectorbt", None)
    with pytest.raises(InputError, match="vectorbt is not installed") as caught:
        _ = run.portfolio
    assert "candlebook[notebooks]" in str(caught.value.remedy)


def test_the_outage_is_in_the_real_candles(real: CandleSet) -> None:
    """So that the comparisons above are known to have met an absent bar."""
    missing = utc_ms("2023-03-24T13:00")
    assert {(gap.start, gap.symbol) for gap in real.gaps} == {(missing, s) for s in SYMBOLS}
