"""The replay exchange's account: what comes of an order depends on the candles, not on who looks.

The oracle asks the market itself for its price, moment by moment.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live.replay.market import ApiError, Market, market_of
from live.replay.orders import FEE, OPENING, Book
from research.account import Filters
from research.candles import COLUMNS, Candles, CandleSet, utc_ms
from research.resampling import resample
from research.synthetic import synthetic_candles

MINUTE = 60_000
HOUR = 60 * MINUTE
START = utc_ms("2024-01-01")
FILTERS = {"BTCUSDT": Filters(lot_step="0.00001", tick="0.01", min_notional="5")}
MINUTES = synthetic_candles(["BTCUSDT"], "1m", START, 8 * 60)["BTCUSDT"]


def without(candles: Candles, first: int, stop: int) -> Candles:
    """The candles that do not open from minute ``first`` up to ``stop``."""
    here = (candles.ts < START + first * MINUTE) | (candles.ts >= START + stop * MINUTE)
    columns = {name: getattr(candles, name)[here] for name in ("ts", *COLUMNS)}
    return replace(candles, **columns)


# Minutes for a while, with a gap, and hours before, after and beside them.
MARKET = market_of(
    [
        CandleSet((without(MINUTES, 150, 200).between(START + 100 * MINUTE, START + 6 * HOUR),)),
        CandleSet((resample(MINUTES, "1h"),)),
    ],
    FILTERS,
)
PLACED = START + 110 * MINUTE
END = START + 8 * HOUR - MINUTE


def order(**parameters: Any) -> dict[str, str]:
    known = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "quantity": "0.01"}
    if parameters.get("type", "LIMIT") in ("LIMIT", "STOP_LOSS_LIMIT"):
        known["timeInForce"] = "GTC"
    return {name: str(value) for name, value in (known | parameters).items()}


def rich(market: Market = MARKET) -> Book:
    """A book with bitcoin to sell, bought at the beginning."""
    book = Book(market)
    book.place(order(type="MARKET", quantity="0.1"), PLACED)
    return book


def near(percent: float) -> str:
    """The price when orders are placed, and so much more, on the tick."""
    price = MARKET.price("BTCUSDT", PLACED)
    assert price is not None
    return f"{price * (1 + percent / 100):.2f}"


def outcome(book: Book, now: int) -> Any:
    mine = book.find({"symbol": "BTCUSDT", "orderId": "2"}, now)
    trades = book.fills({"symbol": "BTCUSDT", "orderId": "2"}, now)
    return mine, trades, book.account(now)["balances"]


percents = st.floats(-2.5, 2.5)
looks = st.lists(st.integers(PLACED, END), max_size=12)
FORCES = st.sampled_from(["GTC", "GTC", "IOC", "FOK"])


@given(st.sampled_from(["BUY", "SELL"]), st.booleans(), percents, percents, FORCES, looks)
def test_what_comes_of_an_order_does_not_depend_on_how_often_one_looks(
    side: str, stops: bool, limit: float, stop: float, force: str, moments: list[int]
) -> None:
    given = order(side=side, price=near(limit), timeInForce=force)
    if stops:
        given |= {"type": "STOP_LOSS_LIMIT", "stopPrice": near(stop)}
    once, often = rich(), rich()
    try:
        once.place(given, PLACED)
    except ApiError:
        with pytest.raises(ApiError, match="trigger immediately"):
            often.place(given, PLACED)
        return
    often.place(given, PLACED)
    for moment in sorted(moments):
        often.open_orders(None, moment)
    late, seen = outcome(once, END), outcome(often, END)
    assert late[0] == seen[0]
    assert late[1] == seen[1]
    assert late[2] == seen[2]


@cache
def shown() -> tuple[Any, Any]:
    """Moments five seconds apart, and what the market says its price is at each."""
    moments = np.arange(PLACED + 1, END, 5_000)
    return moments, np.array([MARKET.price("BTCUSDT", int(now)) for now in moments])


@settings(deadline=None)  # the first example asks for every price
@given(st.sampled_from(["BUY", "SELL"]), percents)
def test_a_limit_fills_when_the_market_s_price_has_met_it(side: str, limit: float) -> None:
    book, sign = rich(), -1 if side == "BUY" else 1
    placed = book.place(order(side=side, price=near(limit)), PLACED)
    if placed["status"] == "FILLED":
        return
    moments, prices = shown()
    # Further past the limit than the half tick by which a price shown may be off.
    past = moments[sign * (prices - float(placed["price"])) > 0.006]
    mine, trades, _ = outcome(book, END)
    if mine["status"] == "NEW":
        assert not len(past)
        return
    (trade,) = trades
    assert (trade["price"], trade["isMaker"]) == (placed["price"], True)
    assert trade["time"] == mine["updateTime"] > PLACED
    assert not (past < trade["time"]).any()
    # A bar's open has traded by the time that its first price shows.
    seen = MARKET.stories["BTCUSDT"].bars(trade["time"] - 1, trade["time"])[-1]
    best = seen.low if side == "BUY" else seen.high
    assert sign * (best - float(placed["price"])) >= -0.006


def test_a_clock_that_jumps_from_gap_to_gap_passes_no_order_by() -> None:
    gappy = without(without(MINUTES, 100, 120), 300, 320)
    market = market_of([CandleSet((gappy,))], FILTERS)
    book = Book(market)
    low = float(MINUTES.low[120:300].min())
    book.place(order(price=f"{low:.2f}"), PLACED)
    assert book.find(order(orderId=1), START + 310 * MINUTE)["status"] == "FILLED"


def test_a_stop_that_is_met_and_has_its_limit_at_once_fills_at_the_market_then() -> None:
    walk = [100.0, 100.0, 96.0, 96.0]
    times = [PLACED + i * MINUTE for i in range(4)]
    candles = _candles(times, opens=walk, closes=[100.0, 96.0, 96.0, 99.0])
    market = market_of([CandleSet((candles,))], FILTERS)
    book = Book(market)
    book.place(order(type="MARKET", quantity="0.1"), times[0] + 2_000)
    stop = order(side="SELL", type="STOP_LOSS_LIMIT", stopPrice="98.00", price="97.00")
    stop["quantity"] = "0.06"
    placed = book.place(stop, times[0] + 2_000)
    assert (placed["status"], placed["workingTime"], placed["fills"]) == ("NEW", -1, [])
    # Long afterwards the price is 99 and was 96 in between: the stop was met at 98.
    found = book.find(order(orderId=2), times[3] + MINUTE)
    (trade,) = book.fills(order(orderId=2), times[3] + MINUTE)
    assert found["status"] == "FILLED"
    assert Decimal(trade["price"]) == 98
    assert times[1] < trade["time"] < times[2]
    assert not trade["isMaker"]


def test_a_stop_whose_limit_is_jumped_over_rests_and_one_that_must_not_expires() -> None:
    times = [PLACED + i * MINUTE for i in range(3)]
    candles = _candles(times, opens=[100.0, 90.0, 90.0], closes=[100.0, 90.0, 96.0])
    market = market_of([CandleSet((candles,))], FILTERS)
    for force, first, last in (("GTC", "NEW", "FILLED"), ("IOC", "EXPIRED", "EXPIRED")):
        book = Book(market)
        book.place(order(type="MARKET", quantity="0.1"), times[0] + 2_000)
        stop = order(side="SELL", type="STOP_LOSS_LIMIT", stopPrice="98.00", price="95.00")
        stop |= {"quantity": "0.06", "timeInForce": force}
        assert book.place(stop, times[0] + 2_000)["status"] == "NEW"
        waiting = book.find(order(orderId=2), times[1] + 30_000)
        assert (waiting["status"], waiting["isWorking"]) == (first, True)
        assert waiting["workingTime"] == times[1] + 1_000, "the first trade after the jump"
        assert book.find(order(orderId=2), times[2] + MINUTE)["status"] == last
        book = Book(market)
        book.place(order(type="MARKET", quantity="0.1"), times[0] + 2_000)
        book.place(stop, times[0] + 2_000)
        assert book.find(order(orderId=2), times[2] + MINUTE)["status"] == last, "in one look"


def _candles(times: list[int], opens: list[float], closes: list[float]) -> Candles:
    pairs = list(zip(opens, closes, strict=True))
    highs, lows = [max(pair) for pair in pairs], [min(pair) for pair in pairs]
    columns = (opens, highs, lows, closes, [5.0] * len(times))
    return Candles("BTCUSDT", "1m", times, *columns)  # type: ignore[arg-type]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["BUY", "SELL"]),
            st.sampled_from(["MARKET", "LIMIT", "LIMIT_MAKER"]),
            percents,
            st.integers(10, 200),
            st.integers(PLACED, END),
            st.booleans(),
        ),
        max_size=10,
    )
)
def test_money_is_moved_and_only_fees_leave(orders: list[Any]) -> None:
    book = rich()
    for side, kind, limit, lots, now, cancels in sorted(orders, key=lambda one: one[4]):
        given = order(side=side, type=kind, quantity=f"{lots / 10_000:.5f}")
        if kind != "MARKET":
            given["price"] = near(limit)
        try:
            placed = book.place(given, now)
        except ApiError:
            continue
        if cancels and placed["status"] == "NEW":
            book.cancel(order(orderId=placed["orderId"]), now)
    held = {
        one["asset"]: (Decimal(one["free"]), Decimal(one["locked"]))
        for one in book.account(END)["balances"]
    }
    assert all(free >= 0 and locked >= 0 for free, locked in held.values())
    cash, coins = OPENING["USDT"], Decimal(0)
    for trade in book.fills({"symbol": "BTCUSDT"}, END):
        quantity, worth = Decimal(trade["qty"]), Decimal(trade["quoteQty"])
        fee, sign = Decimal(trade["commission"]), 1 if trade["isBuyer"] else -1
        assert fee == (quantity if trade["isBuyer"] else worth) * FEE
        cash -= sign * worth + (0 if trade["isBuyer"] else fee)
        coins += sign * quantity - (fee if trade["isBuyer"] else 0)
    assert sum(held["USDT"]) == cash
    assert sum(held["BTC"]) == coins


def test_a_market_order_may_be_an_amount_of_quote() -> None:
    book = rich()
    bid, ask = MARKET.book("BTCUSDT", PLACED) or (Decimal(0), Decimal(0))
    for side, price in (("BUY", ask), ("SELL", bid)):
        given = {"symbol": "BTCUSDT", "side": side, "type": "MARKET", "quoteOrderQty": "1000"}
        placed = book.place(given, PLACED)
        spent, quantity = Decimal(placed["cummulativeQuoteQty"]), Decimal(placed["executedQty"])
        assert spent <= 1000 < spent + price * Decimal("0.00001")
        assert quantity % Decimal("0.00001") == 0


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"type": "OCO"}, -1116, "orderType"),
        ({"side": "HOLD"}, -1117, "side"),
        ({"timeInForce": "GTX"}, -1115, "timeInForce"),
        ({"quantity": "0"}, -1013, "LOT_SIZE"),
        ({"quantity": "0.000015"}, -1013, "LOT_SIZE"),
        ({"price": "40000.001"}, -1013, "PRICE_FILTER"),
        ({"price": "0"}, -1013, "PRICE_FILTER"),
        ({"quantity": "0.0001"}, -1013, "NOTIONAL"),
        ({"quantity": "1e-3"}, -1100, "quantity"),
        ({"newClientOrderId": "a b"}, -1100, "newClientOrderId"),
        ({"price": ""}, -1102, "price"),
        ({"quantity": "10"}, -2010, "insufficient balance"),
        ({"symbol": "ETHUSDT"}, -1121, "symbol"),
    ],
)
def test_a_wrong_order_is_refused_in_the_exchange_s_words_and_changes_nothing(
    changes: dict[str, str], code: int, said: str
) -> None:
    book = rich()
    before = book.account(PLACED)
    with pytest.raises(ApiError, match=said) as caught:
        book.place(order(price="40000.00") | changes, PLACED)
    assert caught.value.code == code
    assert book.account(PLACED) == before
    assert book.open_orders(None, PLACED) == []


def test_trades_and_open_orders_are_of_a_served_symbol() -> None:
    book = rich()
    for asked in ({}, {"symbol": "NOPEUSDT"}):
        with pytest.raises(ApiError, match="symbol"):
            book.fills(asked, PLACED)
    with pytest.raises(ApiError, match="symbol"):
        book.open_orders("NOPEUSDT", PLACED)
    assert [one["orderId"] for one in book.fills({"symbol": "BTCUSDT"}, PLACED)] == [1]
    assert book.fills({"symbol": "BTCUSDT", "orderId": "2"}, PLACED) == []
