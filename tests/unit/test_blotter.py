"""The blotter: ids that anyone can recompute, and books that balance to the bit."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from decimal import Decimal
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.account import Account, Filters, Limits, Stops
from research.backtesting import Backtest, backtest
from research.blotter import (
    Ending,
    Fill,
    Order,
    OrderStatus,
    Rows,
    Trade,
    order_id,
    round_trips,
    settled,
)
from research.candles import COLUMNS, Candles, CandleSet, find_gaps, utc_ms
from research.metrics import tally_log
from research.risk import CODES
from research.state import INTENTS, STOPS
from research.strategies.rsi_reversal import RsiReversal
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Action, Strategy
from research.synthetic import synthetic_candles
from research.tape import Intervention, Move

BARS, HOUR = 1510, 3_600_000
SYMBOLS = ["ETHUSDT", "BTCUSDT", "SOLUSDT"]
CLIENT_ORDER_ID = re.compile(r"^[.A-Z:/a-z0-9_-]{1,36}$")  # newClientOrderId, Binance spot API
WIDE = Limits(max_position_pct=40, max_drawdown_pct=100, max_daily_loss_pct=100)


def candles_with_holes(seed: int, symbols: list[str] = SYMBOLS) -> CandleSet:
    """Made-up candles in which each symbol is absent for three bars in every twenty-one."""
    whole = synthetic_candles(symbols, "1h", "2024", BARS, seed)
    series = []
    for s, one in enumerate(whole):
        kept = (np.arange(BARS) // 3 + 2 * s) % 7 > 0
        columns = (getattr(one, name)[kept] for name in ("ts", *COLUMNS))
        series.append(Candles(one.symbol, "1h", *columns))
    gaps = tuple(gap for one in series for gap in find_gaps(one))
    return CandleSet(tuple(series), gaps, "synthetic")


def small_cash() -> Account:
    """All-in buys on coarse lots with minima: some fill partly, some for nothing."""
    coarse = Filters(
        lot_step=Decimal("0.001"), min_notional=Decimal(10), max_quantity=Decimal(9000)
    )
    return Account(
        initial_cash=500.0,
        limits=None,
        stops=Stops(trailing_stop_pct=2),
        filters=dict.fromkeys(SYMBOLS, coarse),
    )


def people() -> tuple[Intervention, ...]:
    """A kill every 40 bars, and a reset 10 bars later."""
    start = utc_ms("2024")
    return tuple(
        Intervention(start + (t + later) * HOUR, move)
        for t in range(40, BARS, 40)
        for later, move in ((0, Move.KILL), (10, Move.RESET))
    )


RUNS: dict[str, tuple[Strategy, Account, tuple[Intervention, ...]]] = {
    "plain": (SmaCrossover(5, 20), Account(limits=WIDE), ()),
    "stops": (
        SmaCrossover(5, 20),
        Account(limits=WIDE, stops=Stops(stop_loss_pct=1, take_profit_pct=2, trailing_stop_pct=3)),
        (),
    ),
    "short of cash": (RsiReversal(5, 40, 60), small_cash(), ()),
    "flattened by people": (
        SmaCrossover(3, 10),
        Account(limits=WIDE.model_copy(update={"on_trip": "flatten"})),
        people(),
    ),
    "out of time": (
        SmaCrossover(5, 20),
        Account(limits=WIDE, stops=Stops(time_stop_minutes=300)),
        (),
    ),
}


@cache
def run_named(name: str) -> Backtest:
    strategy, account, interventions = RUNS[name]
    candles = candles_with_holes(3)
    return backtest(strategy, candles, account, interventions=interventions, name="test")


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest) -> Backtest:
    return run_named(request.param)


def test_the_runs_show_everything_that_an_order_can_meet() -> None:
    """What the properties below stand on: none of them may hold for lack of a case."""
    orders = [order for name in RUNS for order in run_named(name).order_list]
    assert {order.intent for order in orders} == set(INTENTS.values())
    assert {order.code for order in orders} == {"OK", "CASH", "KILL_SWITCH"}
    assert {order.status.value for order in orders} == {
        *("FILLED", "REJECTED", "CANCELLED", "PENDING")
    }


def test_an_order_id_is_a_hash_that_anyone_can_recompute() -> None:
    text = "btc_trend|BTCUSDT|1704067200000|entry"
    made = order_id("btc_trend", "BTCUSDT", 1_704_067_200_000, "entry")
    assert made == "cb-" + hashlib.sha256(text.encode()).hexdigest()[:28]
    # Pinned: an id in a ledger must be found again by every later version.
    assert made == "cb-4910bd134fc03a7d2a9e722a4f9e"


@settings(deadline=None)
@given(
    account=st.from_regex(r"^[a-z][a-z0-9_]{0,40}$", fullmatch=True),
    symbol=st.from_regex(r"^[A-Z0-9]{2,20}$", fullmatch=True),
    at=st.integers(0, 2**43),
    intent=st.sampled_from(sorted(INTENTS.values())),
)
def test_an_order_id_fits_the_exchanges_alphabet(
    account: str, symbol: str, at: int, intent: str
) -> None:
    made = order_id(account, symbol, at, intent)
    assert CLIENT_ORDER_ID.match(made)
    assert made == order_id(account, symbol, at, intent)


@settings(deadline=None)
@given(
    st.sets(
        st.tuples(
            st.sampled_from(["a", "b", "ab"]),
            st.sampled_from(["A", "B", "AB"]),
            st.integers(0, 200),
            st.sampled_from(sorted(INTENTS.values())),
        ),
        min_size=2,
    )
)
def test_different_decisions_have_different_ids(keys: set[tuple[str, str, int, str]]) -> None:
    assert len({order_id(*key) for key in keys}) == len(keys)


def test_every_order_of_a_run_has_its_own_id(run: Backtest) -> None:
    ids = [order.order_id for order in run.order_list]
    assert len(ids) > 100
    assert len(set(ids)) == len(ids)
    for order in run.order_list:
        assert order.order_id == order_id("test", order.symbol, order.decided_at, order.intent)


def test_another_account_has_other_ids_and_the_same_trades(run: Backtest) -> None:
    one, two = (
        backtest(run.strategy, run.candles, run.account, name=name) for name in ("one", "two")
    )
    assert not {o.order_id for o in one.order_list} & {o.order_id for o in two.order_list}
    assert one.trade_list == two.trade_list


def test_every_fill_belongs_to_one_order_and_agrees_with_it(run: Backtest) -> None:
    orders = {order.order_id: order for order in run.order_list}
    counted = Counter(fill.order_id for fill in run.fill_list)
    assert set(counted.values()) == {1}
    for fill in run.fill_list:
        order = orders[fill.order_id]
        assert (fill.symbol, fill.side) == (order.symbol, order.side)
        assert (fill.quantity, fill.price, fill.fee) == (
            order.filled_quantity,
            order.price,
            order.fee,
        )
        assert fill.at == order.ended_at
        assert fill.notional == fill.quantity * fill.price
        assert fill.lots > 0
    filled = {o.order_id for o in run.order_list if o.status is OrderStatus.FILLED}
    assert filled == counted.keys()


def test_no_order_is_filled_beyond_what_was_ordered_or_before_it_was(run: Backtest) -> None:
    last_close = int(run.tape.close_time[-1])
    for order in run.order_list:
        assert 0 <= order.filled_quantity <= order.quantity
        assert order.code in {name for name, _ in CODES.values()}
        if order.status is OrderStatus.FILLED:
            # A stop ends at the close that it is decided at; every other order at a later open.
            assert order.ended_at >= order.decided_at
            assert (order.intent in STOPS) <= (order.ended_at == order.decided_at)
            assert (order.code == "OK") == (order.filled_quantity == order.quantity)
        elif order.status is OrderStatus.PENDING:
            assert order.ended_at == 0
            symbol = run.candles[order.symbol]
            absent_since = int(symbol.ts[-1]) + HOUR
            assert order.decided_at in (last_close, absent_since)
        else:
            assert (order.filled_quantity, order.price, order.fee) == (0.0, 0.0, 0.0)
            assert order.code == ("CASH" if order.status is OrderStatus.REJECTED else "KILL_SWITCH")


def test_an_order_waits_for_the_next_open_of_its_own_symbol(run: Backtest) -> None:
    waited = 0
    for order in run.order_list:
        if order.status is OrderStatus.FILLED and order.intent not in STOPS:
            opens = run.candles[order.symbol].ts
            assert order.ended_at == opens[opens.searchsorted(order.decided_at)]
            waited += order.ended_at > order.decided_at
    assert waited > 10  # over holes in that symbol's candles


def cash_from(run: Backtest, fills: list[Fill]) -> list[float]:
    """Cash at each close, from the fills alone and in the engine's own order.

    At an open sells come before buys; the stops within the bar come after both.
    """
    here: dict[int, tuple[list[Fill], list[Fill], list[Fill]]] = {
        close: ([], [], []) for close in run.tape.close_time.tolist()
    }
    for fill in fills:
        if run.intents[fill.order_id] in STOPS:
            here[fill.at][2].append(fill)
        else:
            here[fill.at + HOUR][fill.side is Action.BUY].append(fill)
    cash, at_close = run.account.initial_cash, []
    for sells, buys, stops in here.values():
        for fill in (*sells, *buys, *stops):
            if fill.side is Action.BUY:
                cash = cash - (fill.notional + fill.fee)
            else:
                cash = cash + (fill.notional - fill.fee)
        at_close.append(cash)
    return at_close


def test_cash_is_the_sum_of_the_fills_to_the_bit(run: Backtest) -> None:
    cash = cash_from(run, run.fill_list)
    assert cash == run.log.cash.tolist()
    assert min(cash) >= 0.0


def test_books_with_one_fee_or_one_fill_left_out_do_not_balance(run: Backtest) -> None:
    fills = list(run.fill_list)
    free = dataclasses.replace(fills[40], fee=0.0)
    assert cash_from(run, [*fills[:40], free, *fills[41:]]) != run.log.cash.tolist()
    assert cash_from(run, [*fills[:40], *fills[41:]]) != run.log.cash.tolist()


def test_equity_is_cash_and_every_position_at_its_last_close_to_the_bit(run: Backtest) -> None:
    lots = dict.fromkeys(run.symbols, 0)
    last = dict.fromkeys(run.symbols, 0.0)
    ratio = {symbol: run.account.filters_for(symbol).lot_ratio() for symbol in run.symbols}
    fills = {close: [] for close in run.tape.close_time.tolist()}
    for fill in run.fill_list:
        stop = run.intents[fill.order_id] in STOPS
        fills[fill.at if stop else fill.at + HOUR].append(fill)
    closes = {
        one.symbol: dict(zip(one.ts.tolist(), one.close.tolist(), strict=True))
        for one in run.candles
    }
    for t, close in enumerate(run.tape.close_time.tolist()):
        for fill in fills[close]:
            lots[fill.symbol] += fill.lots if fill.side is Action.BUY else -fill.lots
        equity = run.log.cash[t]
        for symbol in run.symbols:
            last[symbol] = closes[symbol].get(close - HOUR, last[symbol])
            up, down = ratio[symbol]
            equity = equity + lots[symbol] * up / down * last[symbol]
        assert equity == run.log.equity[t]
        assert min(lots.values()) >= 0


def test_the_trades_add_up_to_the_metrics_profit_and_loss(run: Backtest) -> None:
    tally = tally_log(run.log, run.rules, run.account.initial_cash)
    profits = [trade.pnl for trade in run.trade_list]
    assert len(profits) == tally.trades == run.metrics.trades > 20
    assert sum(p > 0 for p in profits) == tally.wins
    assert sum(profits) == pytest.approx(tally.gross_profit - tally.gross_loss, rel=1e-9)


def test_of_one_symbol_they_add_up_to_the_bit() -> None:
    strategy, account, _ = RUNS["stops"]
    run = backtest(strategy, candles_with_holes(5, ["BTCUSDT"]), account)
    tally = tally_log(run.log, run.rules, run.account.initial_cash)
    profit = loss = 0.0
    for trade in run.trade_list:
        profit, loss = profit + max(trade.pnl, 0.0), loss - min(trade.pnl, 0.0)
    assert (profit, loss) == (tally.gross_profit, tally.gross_loss)


def test_what_trades_won_and_what_is_still_open_is_what_equity_gained(run: Backtest) -> None:
    closed = {(trade.symbol, trade.closed_at) for trade in run.trade_list}
    open_flow = 0.0
    for symbol in run.symbols:
        ends = [at for name, at in closed if name == symbol]
        for fill in run.fill_list:
            if fill.symbol == symbol and (not ends or fill.at > max(ends)):
                sign = -1 if fill.side is Action.BUY else 1
                open_flow += sign * fill.notional - fill.fee
    held = run.log.equity[-1] - run.log.cash[-1]
    gained = sum(trade.pnl for trade in run.trade_list) + open_flow + held
    assert gained == pytest.approx(run.log.equity[-1] - run.account.initial_cash, rel=1e-9)


def a_fill(side: Action, at: int, lots: int, price: float, symbol: str = "A") -> Fill:
    return Fill(f"{symbol}{at}", symbol, side, at, lots, price, lots / 10, lots / 10 * price, 1.0)


def test_a_round_trip_of_several_legs_on_a_table() -> None:
    buy, sell = Action.BUY, Action.SELL
    fills = [
        a_fill(buy, 1, 20, 100.0),  # pays 2 x 100 and 1
        a_fill(buy, 2, 10, 130.0),  # pays 130 and 1: 3 held at 110 on average
        a_fill(buy, 2, 5, 50.0, "B"),
        a_fill(sell, 3, 10, 140.0),  # receives 140 less 1
        a_fill(sell, 4, 20, 110.0),  # receives 220 less 1: flat
        a_fill(buy, 5, 10, 100.0),  # the next one, still open
    ]
    intents = {fill.order_id: f"intent {fill.at}" for fill in fills}
    (trade,) = round_trips(fills, intents)
    assert trade == Trade(
        symbol="A",
        opened_at=1,
        closed_at=4,
        quantity=3.0,
        entry_price=110.0,
        exit_price=120.0,
        fees=4.0,
        pnl=26.0,
        pnl_pct=26.0 / 332.0 * 100,
        exit_intent="intent 4",
    )


def test_an_order_takes_its_ending_from_whatever_phase_brings_it() -> None:
    order = Order("id", "A", Action.BUY, "entry", 2.0, 10, "up")
    waiting = Order("other", "A", Action.BUY, "entry", 2.0, 30, "up")
    ending = Ending("id", OrderStatus.FILLED, 20, 1.5, 100.0, 0.15, "CASH")
    done, open_one = settled(
        [Rows(orders=(order,)), Rows(endings=(ending,)), Rows(orders=(waiting,))]
    )
    assert open_one == waiting
    assert (done.status, done.ended_at, done.code) == (OrderStatus.FILLED, 20, "CASH")
    assert (done.filled_quantity, done.price, done.fee) == (1.5, 100.0, 0.15)
    assert (done.order_id, done.quantity, done.decided_at) == ("id", 2.0, 10)


def test_a_decision_is_recorded_for_every_bar_that_is_there_and_no_other(run: Backtest) -> None:
    signals = run.signals
    for one in run.candles:
        mine = signals[signals.symbol == one.symbol]
        assert (mine.index.as_unit("ms").asi8 - HOUR).tolist() == one.ts.tolist()
    assert set(signals.action) <= {"BUY", "SELL", "HOLD"}
    assert signals.confidence.between(0, 100).all()


def test_an_order_is_explained_by_the_strategy_or_by_what_made_it(run: Backtest) -> None:
    for order in run.order_list:
        if order.intent in ("entry", "exit"):
            assert order.reason in run.strategy.reasons
        elif order.intent == "flatten":
            assert order.reason == "kill switch"
        else:
            assert order.reason == order.intent.replace("_", " ")
