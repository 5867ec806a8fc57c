"""Ten real symbols by two simulators: vectorbt is given our orders, and then the signals alone.

Equity agrees to 1e-9, orders and trades one by one. Where there are no real candles, three made-up
symbols stand in for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.account import Account, Filters, Limits, Stops
from research.backtesting import Backtest, backtest
from research.candles import Candles, CandleSet
from research.state import Log
from research.strategies.rsi_reversal import RsiReversal
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Strategy
from research.synthetic import synthetic_candles
from tests.backtest.referee import (
    AGREED,
    EVERY_LIMIT,
    EVERY_STOP,
    TEN,
    accepting_gaps,
    account_of,
    by_orders,
    by_signals,
    disagreements,
    lot_of,
    real_hours,
    whole_lots,
    worst_difference,
)

MADE_UP = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
ALL_STOPS = Stops(stop_loss_pct=3, take_profit_pct=5, trailing_stop_pct=2)
ROOMY = Limits(max_position_pct=30, max_drawdown_pct=100, max_daily_loss_pct=100, max_positions=6)


@pytest.fixture(scope="module")
def real(shared: Path) -> CandleSet:
    return real_hours(shared, TEN)


@pytest.fixture(scope="module")
def made_up() -> CandleSet:
    return synthetic_candles(MADE_UP, "1h", "2022", 3_000)


@pytest.fixture(params=["made_up", "real"])
def candles(request: pytest.FixtureRequest) -> CandleSet:
    chosen: CandleSet = request.getfixturevalue(request.param)
    return chosen


# --- our orders, by from_orders


@pytest.mark.parametrize(
    ("strategy", "limits", "stops"),
    [
        (SmaCrossover(), None, Stops()),
        (SmaCrossover(), ROOMY, ALL_STOPS),
        (SmaCrossover(), Limits(), Stops()),
        (SmaCrossover(), EVERY_LIMIT, EVERY_STOP),
        (RsiReversal(), None, ALL_STOPS),
        (RsiReversal(), Limits(), ALL_STOPS),
    ],
    ids=[
        "sma all in",
        "sma with stops",
        "sma default limits",
        "sma every limit",
        "rsi all in",
        "rsi default limits",
    ],
)
def test_one_account_of_all_symbols_is_what_vectorbt_makes_of_its_orders(
    candles: CandleSet, strategy: Strategy, limits: Limits | None, stops: Stops
) -> None:
    run = backtest(strategy, candles, account_of(TEN, limits, stops))
    assert len(run.fill_list) > 50
    assert bool(run.log.stop_lots.any()) == (stops != Stops())
    assert disagreements(run, by_orders(run)) == []


@pytest.mark.parametrize("symbol", TEN)
def test_each_symbol_all_in_is_what_vectorbt_makes_of_its_orders(
    real: CandleSet, symbol: str
) -> None:
    for stops in (Stops(), ALL_STOPS):
        alone = accepting_gaps([real[symbol]], "one")
        run = backtest(SmaCrossover(), alone, account_of(TEN, None, stops))
        assert run.metrics.trades > 300
        assert disagreements(run, by_orders(run)) == []


def with_log(run: Backtest, **columns: Any) -> Backtest:
    """The run with another log, but the figures and the equity that it had."""
    return dataclasses.replace(run, log=run.log._replace(**columns))


def late(run: Backtest) -> Backtest:
    names = [name for name in Log._fields if name.startswith("fill_")]
    return with_log(run, **{name: np.roll(getattr(run.log, name), 1, axis=0) for name in names})


def nudged(run: Backtest, name: str, nudge: Callable[[Any], Any]) -> Backtest:
    """One cell of a column changed, the eleventh that says something."""
    column = getattr(run.log, name).copy()
    where = np.unravel_index(np.flatnonzero(column)[10], column.shape)
    column[where] = nudge(column[where])
    return with_log(run, **{name: column})


@pytest.mark.parametrize(
    ("broken", "noticed"),
    [
        (late, "equity"),
        (lambda run: nudged(run, "fill_lots", lambda lots: lots + 1), "equity"),
        (lambda run: nudged(run, "stop_lots", lambda lots: 0 * lots), "equity"),
        (lambda run: nudged(run, "stop_price", lambda price: price * 1.0001), "equity"),
        (lambda run: nudged(run, "equity", lambda equity: equity * (1 + 2e-9)), "equity"),
        (lambda run: nudged(run, "fill_price", lambda price: price * 1.0001), "price"),
        (lambda run: nudged(run, "fill_fee", lambda fee: 0 * fee), "fees"),
        (lambda run: nudged(run, "stop_fee", lambda fee: fee * 1.0001), "fees"),
    ],
    ids=["late", "a lot", "no stop", "stop price", "equity", "fill price", "no fee", "stop fee"],
)
def test_a_broken_simulator_is_caught_by_what_it_broke(
    made_up: CandleSet, broken: Callable[[Backtest], Backtest], noticed: str
) -> None:
    run = backtest(SmaCrossover(), made_up, account_of(TEN, ROOMY, ALL_STOPS))
    assert disagreements(run, by_orders(run)) == []
    bad = broken(run)
    assert noticed in disagreements(bad, by_orders(bad))


@pytest.mark.parametrize("changes", [{"fees": 0.0}, {"slippage": 0.0}, {"init_cash": 10_000.01}])
def test_another_account_is_another_account(made_up: CandleSet, changes: dict[str, Any]) -> None:
    run = backtest(SmaCrossover(), made_up, account_of(TEN, ROOMY, ALL_STOPS))
    assert "equity" in disagreements(run, by_orders(run, **changes))


def test_vectorbt_s_default_min_size_drops_every_order_of_a_tiny_account(
    made_up: CandleSet,
) -> None:
    filters = {"BTCUSDT": Filters(lot_step=Decimal("1e-12"), max_quantity=Decimal(9_000))}
    tiny = Account(limits=None, initial_cash=1e-4, filters=filters)
    run = backtest(SmaCrossover(), accepting_gaps([made_up["BTCUSDT"]], "one"), tiny)
    assert by_orders(run).orders.count() == len(run.fill_list) > 20
    assert by_orders(run, min_size=None).orders.count() == 0, "None is vectorbt's own default"


def test_vectorbt_s_rounding_to_a_decimal_step_loses_lots_that_the_engine_keeps(
    made_up: CandleSet,
) -> None:
    """So it is given whole sizes, or steps that are powers of two, and never asked to round."""
    run = backtest(SmaCrossover(), made_up, account_of(TEN, ROOMY, ALL_STOPS))
    steps = [float(run.account.filters_for(symbol).lot_step) for symbol in run.symbols]
    rounded = by_orders(run, size_granularity=np.array([steps]))
    assert "size" in disagreements(run, rounded) or "orders" in disagreements(run, rounded)


# --- the signals, by from_signals

# With a fee of 10 basis points more than the deepest fall from a close to the next open in these
# candles, 22 of them: every buy is then bound by cash, as vectorbt's is, before it is by what the
# equity at the close was worth.
SLIPPAGE_BPS = 30.0


def all_in(one: Candles, account: Account) -> Backtest:
    """SMA 20/50 without the gate."""
    bound = one.open[1:] * (1 + SLIPPAGE_BPS / 10_000) * (1 + account.fee_rate) > one.close[:-1]
    assert bound.all(), "otherwise there is nothing to compare"
    return backtest(SmaCrossover(20, 50), accepting_gaps([one], "one"), account)


def assert_same_simulation(run: Backtest, theirs: Any) -> None:
    assert worst_difference(run, theirs.value()) < AGREED
    assert theirs.orders.count() == len(run.fill_list)
    assert theirs.positions.closed.count() == run.metrics.trades
    sizes = [fill.quantity for fill in run.fill_list]
    np.testing.assert_allclose(theirs.orders.records["size"], sizes, rtol=AGREED)


@pytest.mark.parametrize("symbol", TEN)
def test_the_engine_equals_a_simulation_of_real_signals_in_whole_lots(
    real: CandleSet, symbol: str
) -> None:
    one = real[symbol]
    run = all_in(one, whole_lots(one, SLIPPAGE_BPS))
    assert run.metrics.trades > 300
    assert_same_simulation(run, by_signals(one, SLIPPAGE_BPS, size_granularity=lot_of(one)))


@pytest.mark.parametrize("symbol", MADE_UP)
def test_the_engine_equals_a_simulation_of_made_up_signals_in_whole_lots(
    made_up: CandleSet, symbol: str
) -> None:
    one = made_up[symbol]
    run = all_in(one, whole_lots(one, SLIPPAGE_BPS))
    assert run.metrics.trades > 20
    assert_same_simulation(run, by_signals(one, SLIPPAGE_BPS, size_granularity=lot_of(one)))


def fine_lots(symbol: str) -> Account:
    """No gate, and lots so fine that an all-in buy leaves nothing that counts."""
    filters = Filters(lot_step=Decimal("1e-12"), max_quantity=Decimal(9000))
    return Account(limits=None, filters={symbol: filters}, slippage_bps=SLIPPAGE_BPS)


@pytest.mark.parametrize("symbol", MADE_UP)
def test_the_engine_equals_a_simulation_that_knows_no_lots(candles: CandleSet, symbol: str) -> None:
    one = candles[symbol]
    run = all_in(one, fine_lots(symbol))
    assert run.metrics.trades > 20
    assert_same_simulation(run, by_signals(one, SLIPPAGE_BPS))


@pytest.mark.parametrize("symbol", MADE_UP)
@pytest.mark.parametrize(
    "changes", [{"shift": 0}, {"shift": 2}, {"fees": 0.0}, {"slippage_bps": 29.0}]
)
def test_a_simulation_that_sees_its_own_bar_or_pays_less_does_not_agree(
    made_up: CandleSet, symbol: str, changes: dict[str, Any]
) -> None:
    one = made_up[symbol]
    run = all_in(one, whole_lots(one, SLIPPAGE_BPS))
    asked = {"slippage_bps": SLIPPAGE_BPS, "size_granularity": lot_of(one), **changes}
    assert worst_difference(run, by_signals(one, **asked).value()) > 1e-4


def test_lots_of_another_size_do_not_agree(made_up: CandleSet) -> None:
    """Else the agreement above would say nothing of whole lots."""
    one = made_up["BTCUSDT"]
    run = all_in(one, whole_lots(one, SLIPPAGE_BPS))
    for granularity in (np.nan, lot_of(one) / 2, 2 * lot_of(one)):
        theirs = by_signals(one, SLIPPAGE_BPS, size_granularity=granularity)
        assert worst_difference(run, theirs.value()) > 1e-6
