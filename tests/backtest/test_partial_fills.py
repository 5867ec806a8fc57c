"""Orders that a share of a candle's volume fills in parts: tables, and books that add up.

A tenth of the volume may be filled, and a lot is one unit: a volume of 70 has room for 7 lots.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.account import Account, Filters, Stops
from research.blotter import (
    Desk,
    Ending,
    Order,
    OrderStatus,
    Rows,
    close_rows,
    ended,
    open_rows,
    settled,
)
from research.candles import utc_ms
from research.engine import fold
from research.errors import ParameterError
from research.risk import OK, VOLUME, rules_for
from research.state import Log, opening_state
from research.strategy import Action
from research.tape import Move
from tests.backtest.tables import account, check, limits
from tests.backtest.test_compiled_equals_interpreted import SALE_REFUSED
from tests.backtest.worlds import world_of

START, HOUR = utc_ms("2024-01-01T00:00"), 3_600_000
MODES = ["wait", "cancel"]


def shared(unfilled: str = "wait", **changes: Any) -> Account:
    """An account whose orders fill a tenth of a candle's volume at most."""
    return account(volume_share_pct=10, unfilled=unfilled, **changes)


def orders_of(log: Log, one: Account) -> list[Order]:
    """The blotter's orders of a table's log, symbol A alone; a row is an hour."""
    desk = Desk("test", "test", ["A"], rules_for(one, ["A"]))
    rows = []
    for t in range(len(log.equity)):
        opened = START + t * HOUR
        rows += [
            open_rows(desk, log, t, opened),
            close_rows(desk, log, t, opened + HOUR, [None]),
        ]
    return settled(rows)


def told(order: Order) -> tuple[str, float, float, str]:
    return order.status.value, order.filled_quantity, order.price, order.code


# --- at an open


@pytest.mark.parametrize(
    ("volume", "first", "rest"),
    [
        (90, "A entry +9 @10 VOLUME left +1", "A entry +1 @10"),
        (99, "A entry +9 @10 VOLUME left +1", "A entry +1 @10"),
        (100, "A entry +10 @10", ""),
        (110, "A entry +10 @10", ""),
    ],
)
def test_an_entry_fills_a_share_of_the_last_candles_volume_and_the_rest_waits(
    volume: int, first: str, rest: str
) -> None:
    one = shared()
    log = check(
        one,
        f"""
        10 10 10 10 .1 {volume} => A orders entry +10
        10 10 10 10 .1 1000     => {first}
        10 10 10 10 .1 0        => {rest}
        10 10 10 10 .1 1000     =>
        """,
    )
    assert [told(order) for order in orders_of(log, one)] == [("FILLED", 10.0, 10.0, "OK")]


@pytest.mark.parametrize(
    ("volume", "first", "end"),
    [
        (99, "A entry +9 @10 VOLUME", ("CANCELLED", 9.0, 10.0, "VOLUME")),
        (100, "A entry +10 @10", ("FILLED", 10.0, 10.0, "OK")),
        (110, "A entry +10 @10", ("FILLED", 10.0, 10.0, "OK")),
        (9, "A entry +0 @10 VOLUME", ("CANCELLED", 0.0, 0.0, "VOLUME")),
    ],
)
def test_or_the_rest_is_cancelled(
    volume: int, first: str, end: tuple[str, float, float, str]
) -> None:
    one = shared("cancel")
    log = check(
        one,
        f"""
        10 10 10 10 .1 {volume} => A orders entry +10
        10 10 10 10 .1 1000     => {first}
        10 10 10 10 .1 1000     =>
        """,
    )
    assert [told(order) for order in orders_of(log, one)] == [end]


def test_an_exit_fills_in_parts_and_one_for_zero_is_not_asked_for_twice() -> None:
    check(
        shared(),
        """
        10 10 10 10 .1 100 => A orders entry +10
        10 10 10 10 0  40  => A entry +10 @10, A orders exit -10
        11 11 11 11 0  50  => A exit -4 @11 VOLUME left -6
        12 12 12 12 0  10  => A exit -5 @12 VOLUME left -1
        13 13 13 13 0  10  => A exit -1 @13
        """,
    )


def test_an_exit_whose_rest_was_cancelled_is_asked_for_again_while_the_target_is_zero() -> None:
    check(
        shared("cancel"),
        """
        10 10 10 10 .1 100 => A orders entry +10
        10 10 10 10 0  40  => A entry +10 @10, A orders exit -10
        11 11 11 11 0  60  => A exit -4 @11 VOLUME, A orders exit -6
        12 12 12 12 0  10  => A exit -6 @12
        """,
    )


def test_where_not_one_lot_has_room_nothing_happens_and_the_order_waits() -> None:
    check(
        shared(),
        """
        10 10 10 10 .1 9  => A orders entry +10
        11 11 11 11 .1 0  =>
        12 12 12 12 .1 10 =>
        13 13 13 13 .1 90 => A entry +1 @13 VOLUME left +9
        14 14 14 14 .1 0  => A entry +9 @14
        """,
    )


def test_an_absent_symbols_order_meets_the_volume_of_its_own_last_candle() -> None:
    check(
        shared(),
        """
        10 10 10 10 .1 70 | 10 10 10 10 0 => A orders entry +10
        -                 | 10 10 10 10 0 =>
        10 10 10 10 .1 0  | 10 10 10 10 0 => A entry +7 @10 VOLUME left +3
        """,
    )


def test_a_part_may_be_smaller_than_the_exchanges_smallest_order() -> None:
    coarse = Filters(lot_step=Decimal(1), min_quantity=Decimal(5), min_notional=Decimal(50))
    check(
        shared(filters=coarse),
        """
        10 10 10 10 .1 10 => A orders entry +10
        10 10 10 10 .1 80 => A entry +1 @10 VOLUME left +9
        10 10 10 10 .1 10 => A entry +8 @10 VOLUME left +1
        10 10 10 10 .1 10 => A entry +1 @10
        """,
    )


@pytest.mark.parametrize(
    ("open_", "first", "second"),
    [
        (16, "A entry +60 @16 VOLUME left +40", "A entry +2 @16 CASH"),
        (17, "A entry +58 @17 CASH", ""),
    ],
)
def test_cash_shrinks_what_the_volume_allows_and_ends_the_order(
    open_: int, first: str, second: str
) -> None:
    check(
        shared(),
        f"""
        10 10 10 10 1 600  => A orders entry +100
        {open_} 20 10 16 1 600 => {first}
        16 16 16 16 1 600  => {second}
        16 16 16 16 1 600  =>
        """,
    )


def test_the_collar_ends_the_rest_of_an_entry() -> None:
    one = shared(limits=limits(price_collar_pct=10))
    log = check(
        one,
        """
        10 10 10 10 .1 60  => A orders entry +10
        11 11 11 10 .1 60  => A entry +6 @11 VOLUME left +4
        12 12 12 12 .1 60  => A entry +0 @12 PRICE_COLLAR
        12 12 12 12 .1 60  =>
        """,
    )
    assert [told(order) for order in orders_of(log, one)] == [
        ("CANCELLED", 6.0, 11.0, "PRICE_COLLAR")
    ]


def test_an_orders_price_is_the_average_of_its_parts_over_quantity() -> None:
    one = shared(fee_rate=0.01)
    log = check(
        one,
        """
        10 10 10 10 .1 60 => A orders entry +10
        10 10 10 10 .1 90 => A entry +6 @10 fee 0.6 VOLUME left +4
        15 15 15 15 .1 90 => A entry +4 @15 fee 0.6
        """,
    )
    (order,) = orders_of(log, one)
    assert told(order) == ("FILLED", 10.0, 12.0, "OK")
    assert (order.fee, order.ended_at) == (pytest.approx(1.2), START + 2 * HOUR)


def test_while_a_rest_waits_the_order_is_partially_filled() -> None:
    one = shared()
    log = check(
        one,
        """
        10 10 10 10 .1 60 => A orders entry +10
        10 10 10 10 .1 0  => A entry +6 @10 VOLUME left +4
        """,
    )
    (order,) = orders_of(log, one)
    assert told(order) == ("PARTIALLY_FILLED", 6.0, 10.0, "VOLUME")
    assert order.ended_at == 0


# --- stops


@pytest.mark.parametrize("unfilled", MODES)
@pytest.mark.parametrize(
    ("volume", "first", "second"),
    [
        (9, "", "A stop_loss -10 @9"),
        (90, "A stop_loss -9 @9", "A stop_loss -1 @9"),
        (100, "A stop_loss -10 @9", ""),
        (110, "A stop_loss -10 @9", ""),
    ],
)
def test_a_stop_sells_a_share_of_its_own_bars_volume_and_acts_again_on_the_next(
    unfilled: str, volume: int, first: str, second: str
) -> None:
    check(
        shared(unfilled, stops=Stops(stop_loss_pct=10)),
        f"""
        10 10 10 10 .1 100      => A orders entry +10
        10 10 9  10 .1 {volume} => A entry +10 @10{", " * bool(first)}{first}
        10 10 9  10 .1 1000     => {second}
        """,
    )


def test_what_a_stop_left_is_held_under_the_same_stop_until_that_is_met_again() -> None:
    check(
        shared(stops=Stops(stop_loss_pct=10)),
        """
        10 10 10 10 .1 100 => A orders entry +10
        10 10 9  10 .1 60  => A entry +10 @10, A stop_loss -6 @9
        10 10 10 10 .1 100 =>
        8  8  8  8  .1 100 => A stop_loss -4 @8
        """,
    )


def test_a_stop_cancels_the_rest_of_an_entry() -> None:
    one = shared(stops=Stops(stop_loss_pct=10))
    log = check(
        one,
        """
        10 10 10 10 .1 60  => A orders entry +10
        10 10 9  10 .1 20  => A entry +6 @10 VOLUME left +4, A stop_loss -2 @9, A cancels +4
        10 10 10 10 .1 900 =>
        """,
    )
    assert [told(order) for order in orders_of(log, one)] == [
        ("CANCELLED", 6.0, 10.0, "VOLUME"),
        ("FILLED", 2.0, 9.0, "OK"),
    ]


def test_a_stop_cancels_the_rest_of_an_exit_and_nothing_is_sold_twice() -> None:
    log = check(
        shared(stops=Stops(stop_loss_pct=10)),
        """
        10 10 10 10 .1 100 => A orders entry +10
        10 10 10 10 0  40  => A entry +10 @10, A orders exit -10
        10 10 9  10 0  30  => A exit -4 @10 VOLUME left -6, A stop_loss -3 @9, A cancels -6,
                           => A orders exit -3
        10 10 9  10 0  900 => A exit -3 @10
        """,
    )
    assert log.fill_lots.sum() + log.stop_lots.sum() == 0


# --- a rest at a close


def test_a_target_that_falls_cancels_what_is_still_bought() -> None:
    one = shared()
    log = check(
        one,
        """
        10 10 10 10 .1  60  => A orders entry +10
        10 10 10 10 .05 100 => A entry +6 @10 VOLUME left +4, A cancels +4, A orders exit -1
        10 10 10 10 .05 100 => A exit -1 @10
        """,
    )
    assert orders_of(log, one)[0].status is OrderStatus.CANCELLED
    check(
        shared(),
        """
        10 10 10 10 .1  20  => A orders entry +10
        10 10 10 10 .05 100 => A entry +2 @10 VOLUME left +8, A cancels +8
        10 10 10 10 .05 100 =>
        """,
    )


def test_a_target_that_falls_again_orders_the_whole_sale_anew() -> None:
    check(
        shared(),
        """
        10 10 10 10 .1  100 => A orders entry +10
        10 10 10 10 .05 20  => A entry +10 @10, A orders exit -5
        10 10 10 10 .02 900 => A exit -2 @10 VOLUME left -3, A cancels -3, A orders exit -6
        10 10 10 10 .02 900 => A exit -6 @10
        """,
    )


def test_a_sale_that_the_exchange_would_not_take_leaves_the_one_that_waits() -> None:
    world, text = SALE_REFUSED
    check(world, text)


def test_a_target_that_rises_orders_what_is_missing_in_place_of_the_rest() -> None:
    check(
        shared(),
        """
        10 10 10 10 .1 60  => A orders entry +10
        10 10 10 10 .2 900 => A entry +6 @10 VOLUME left +4, A cancels +4, A orders entry +14
        10 10 10 10 .2 900 => A entry +14 @10
        """,
    )
    check(
        shared(),
        """
        10 10 10 10 .1 100 => A orders entry +10
        10 10 10 10 0  40  => A entry +10 @10, A orders exit -10
        10 10 10 10 .2 900 => A exit -4 @10 VOLUME left -6, A cancels -6, A orders entry +14
        10 10 10 10 .2 900 => A entry +14 @10
        """,
    )


def test_an_entry_that_is_refused_leaves_the_rest() -> None:
    check(
        shared(limits=limits(max_orders_per_day=1)),
        """
        10 10 10 10 .1 60  => A orders entry +10
        10 10 10 10 .2 900 => A entry +6 @10 VOLUME left +4, A ORDER_RATE
        10 10 10 10 .2 900 => A entry +4 @10
        """,
    )
    # Less is wanted than what is held: the sale under way goes on.
    check(
        shared(),
        """
        10 10 10 10 .1  100 => A orders entry +10
        10 10 10 10 0   40  => A entry +10 @10, A orders exit -10
        10 10 10 10 .05 900 => A exit -4 @10 VOLUME left -6, A MIN_QUANTITY
        10 10 10 10 .05 900 => A exit -6 @10
        """,
    )


def test_what_waits_counts_as_a_position_and_what_is_being_sold_does_not() -> None:
    check(
        shared(limits=limits(max_positions=1)),
        """
        10 10 10 10 .1 9   | 10 10 10 10 0  900 => A orders entry +10
        10 10 10 10 .2 900 | 10 10 10 10 .1 900 => A cancels +10, A orders entry +20,
                           => B POSITION_COUNT
        10 10 10 10 0  10  | 10 10 10 10 .1 900 => A entry +20 @10, A orders exit -20
        10 10 10 10 0  10  | 10 10 10 10 .2 900 => A exit -1 @10 VOLUME left -19,
                           => B orders entry +20
        10 10 10 10 .1 10  | 10 10 10 10 .2 900 => A exit -1 @10 VOLUME left -18,
                           => B entry +20 @10, A POSITION_COUNT
        """,
    )


@pytest.mark.parametrize("unfilled", MODES)
def test_a_time_stop_cancels_the_rest_of_the_entry_and_sells_until_all_is_sold(
    unfilled: str,
) -> None:
    waits = unfilled == "wait"
    first, cancelled = (" left +4", "A cancels +4, ") if waits else ("", "")
    second, again = (" left -4", "") if waits else ("", "A orders time_stop -4, ")
    check(
        shared(unfilled, stops=Stops(time_stop_minutes=60)),
        f"""
        10 10 10 10 .1 60 => A orders entry +10
        10 10 10 10 .1 20 => A entry +6 @10 VOLUME{first}, {cancelled}A orders time_stop -6
        10 10 10 10 .2 90 => A time_stop -2 @10 VOLUME{second}, {again}A TIME_STOP_DUE
        10 10 10 10 .2 90 => A time_stop -4 @10
        10 10 10 10 .3 90 => A orders entry +30
        """,
    )


# --- the kill switch


def test_a_kill_cancels_the_rest_of_an_entry() -> None:
    one = shared()
    log = check(
        one,
        """
        10 10 10 10 .1 60  => A orders entry +10
        10 10 10 10 .1 900 => A entry +6 @10 VOLUME left +4, A cancels +4
        10 10 10 10 .1 900 =>
        """,
        kill=[1],
    )
    assert [told(order) for order in orders_of(log, one)] == [
        ("CANCELLED", 6.0, 10.0, "KILL_SWITCH")
    ]


def test_a_flattened_account_sells_until_it_is_flat_in_either_mode() -> None:
    flatten = limits(on_trip="flatten")
    text = """
        10 10 10 10 .1 100 => A orders entry +10
        10 10 10 10 .1 40  => A entry +10 @10, A orders flatten -10
        10 10 10 10 .1 50  => {}
        10 10 10 10 .1 10  => {}
        10 10 10 10 .1 10  => A flatten -1 @10
        10 10 10 10 .1 10  =>
        """
    waits = text.format("A flatten -4 @10 VOLUME left -6", "A flatten -5 @10 VOLUME left -1")
    check(shared(limits=flatten), waits, kill=[1])
    anew = text.format(
        "A flatten -4 @10 VOLUME, A orders flatten -6",
        "A flatten -5 @10 VOLUME, A orders flatten -1",
    )
    check(shared("cancel", limits=flatten), anew, kill=[1])


def test_a_stop_does_not_end_a_flattening() -> None:
    check(
        shared(limits=limits(on_trip="flatten"), stops=Stops(stop_loss_pct=10)),
        """
        10 10 10 10 .1 100 => A orders entry +10
        10 10 10 10 .1 40  => A entry +10 @10, A orders flatten -10
        10 10 9  10 .1 20  => A flatten -4 @10 VOLUME left -6, A stop_loss -2 @9,
                           => A cancels -6, A orders flatten -4
        10 10 10 10 .1 90  => A flatten -2 @10 VOLUME left -2
        10 10 10 10 .1 90  => A flatten -2 @10
        """,
        kill=[1],
    )


def test_after_a_reset_a_target_that_rises_takes_the_place_of_the_flattening() -> None:
    check(
        shared(limits=limits(on_trip="flatten")),
        """
        10 10 10 10 .1 100 => A orders entry +10
        10 10 10 10 .1 40  => A entry +10 @10, A orders flatten -10
        10 10 10 10 .2 90  => A flatten -4 @10 VOLUME left -6, A cancels -6, A orders entry +14
        """,
        moves={1: Move.KILL, 2: Move.RESET},
    )


# --- the books add up


def test_a_share_is_a_percentage_and_a_rest_waits_or_is_cancelled() -> None:
    for wrong in ({"volume_share_pct": 0}, {"volume_share_pct": 101}, {"unfilled": "keep"}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            Account(**wrong)


@pytest.mark.parametrize("unfilled", MODES)
def test_where_there_is_volume_for_everything_a_share_changes_nothing(unfilled: str) -> None:
    compared = 0
    for seed in range(300):
        world = world_of(seed)
        free = world.account.model_copy(update={"volume_share_pct": None, "unfilled": "wait"})
        limited = free.limits
        if limited is not None and limited.on_trip == "flatten":
            continue  # with a share it is tried until the exchange takes it
        tape = world.tape()
        plenty = np.where(tape.present, 1e300, np.nan)
        start = opening_state(free.initial_cash, len(world.series))
        share = free.model_copy(update={"volume_share_pct": 1.0, "unfilled": unfilled})
        symbols = list(world.series)
        _, log = fold(start, tape, rules_for(free, symbols))
        _, same = fold(start, tape._replace(volume=plenty), rules_for(share, symbols))
        for name, a, b in zip(Log._fields, log, same, strict=True):
            assert np.array_equal(a, b), (seed, name)
        compared += int(np.count_nonzero(log.fill_lots))
    assert compared > 300


def test_no_order_fills_beyond_itself_no_position_is_short_and_fills_add_up_to_it() -> None:
    parts = 0
    for seed in range(1_000):
        world = world_of(seed)
        if world.account.volume_share_pct is None:
            continue
        symbols = list(world.series)
        start = opening_state(world.account.initial_cash, len(symbols))
        last, log = fold(start, world.tape(), world.rules())
        held = np.cumsum(log.fill_lots + log.stop_lots, axis=0)
        assert (held >= 0).all()
        assert (held - log.stop_lots >= 0).all()  # between the open and the stop
        assert (log.fill_lots + log.stop_lots).sum(axis=0).tolist() == last.lots
        assert all(waits >= -lots for waits, lots in zip(last.pending, last.lots, strict=True))
        waits = (log.fill_code == VOLUME) & (log.fill_left != 0)
        assert ((log.fill_left != 0) <= waits).all()
        assert (np.sign(log.fill_left[waits]) == np.sign(log.fill_lots[waits])).all()
        parts += _ordered_is_filled_or_cut(log)
    assert parts > 300


def _ordered_is_filled_or_cut(log: Log) -> int:
    """Each order's lots are its fills and its rest, which waits, was cancelled or was cut."""
    parts = 0
    for s in range(log.fill_lots.shape[1]):
        waiting = 0
        for t in range(len(log.equity)):
            if log.fill_since[t, s]:
                left, filled = int(log.fill_left[t, s]), int(log.fill_lots[t, s])
                assert abs(filled) <= abs(waiting)
                if log.fill_code[t, s] == OK or left:
                    assert filled + left == waiting
                parts += left != 0
                waiting = left
            if log.cancel_lots[t, s]:
                assert log.cancel_lots[t, s] == waiting
                waiting = 0
            if log.order_lots[t, s]:
                assert waiting == 0
                waiting = int(log.order_lots[t, s])
    return parts


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 9), st.floats(0.01, 1e6, allow_subnormal=False), st.floats(0, 100)
        ),
        min_size=1,
        max_size=9,
    )
)
def test_parts_of_a_tenth_add_up_to_the_order_and_never_beyond(
    parts: list[tuple[int, float, float]],
) -> None:
    lots = sum(part for part, _, _ in parts)
    order = Order("id", "A", Action.BUY, "entry", lots / 10, 1, "up")
    for i, (part, price, fee) in enumerate(parts):
        is_last = i == len(parts) - 1
        status = OrderStatus.FILLED if is_last else OrderStatus.PARTIALLY_FILLED
        code = "OK" if is_last else "VOLUME"
        order = ended(order, Ending("id", status, 2 + i, part / 10, price, fee, code))
        assert 0 < order.filled_quantity <= order.quantity
    assert order.filled_quantity == order.quantity
    prices = [price for _, price, _ in parts]
    assert min(prices) * (1 - 1e-9) <= order.price <= max(prices) * (1 + 1e-9)
    paid = sum(part / 10 * price for part, price, _ in parts)
    assert order.price * order.quantity == pytest.approx(paid)
    assert order.fee == pytest.approx(sum(fee for _, _, fee in parts))
    if len(parts) == 1:
        assert order.price == prices[0]


def test_an_order_of_which_a_part_was_filled_is_cancelled_and_not_rejected() -> None:
    order = Order("id", "A", Action.BUY, "entry", 2.0, 1, "up")
    part = Ending("id", OrderStatus.PARTIALLY_FILLED, 2, 0.5, 100.0, 0.25, "VOLUME")
    cash = Ending("id", OrderStatus.REJECTED, 3, code="CASH")
    (cut,) = settled([Rows(orders=(order,)), Rows(endings=(part,)), Rows(endings=(cash,))])
    assert told(cut) == ("CANCELLED", 0.5, 100.0, "CASH")
    assert (cut.fee, cut.ended_at) == (0.25, 3)
    (refused,) = settled([Rows(orders=(order,)), Rows(endings=(cash,))])
    assert told(refused) == ("REJECTED", 0.0, 0.0, "CASH")
