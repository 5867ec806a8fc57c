"""The gate's thresholds to the unit, its order, and sizes in whole lots against exact fractions."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from research import risk
from research.account import WEEKDAYS, Account, Filters, Limits, Stops, TradingHours
from research.candles import utc_ms
from research.errors import UnknownNameError
from research.risk import (
    CODES,
    Rules,
    account_refusal,
    affordable_lots,
    daily_loss_reached,
    drawdown_reached,
    entry_refusal,
    exchange_refusal,
    floor_lots,
    quantity_of,
    rules_for,
    wanted_lots,
)

NOON = utc_ms("2024-01-01T12:00")  # a Monday


def rules(filters: Filters | None = None, **limits: Any) -> Rules:
    """Rules of one symbol X that lets everything pass but what the given limits refuse."""
    wide: dict[str, Any] = {
        "max_position_pct": 100,
        "max_daily_loss_pct": 100,
        "max_drawdown_pct": 100,
        "max_positions": 9,
    }
    one = Filters(lot_step=Decimal(1)) if filters is None else filters
    return rules_for(Account(limits=Limits(**wide | limits), filters={"X": one}), ["X"])


def code(number: int) -> str:
    return CODES[number][0]


# --- thresholds: one unit short, at the limit, one past it


@pytest.mark.parametrize(("equity", "reached"), [(901, False), (900, True), (899, True)])
def test_a_limit_of_ten_percent_is_reached_by_a_fall_of_exactly_ten_percent(
    equity: float, reached: bool
) -> None:
    assert drawdown_reached(equity, 1_000.0, rules(max_drawdown_pct=10)) is reached
    assert daily_loss_reached(equity, 1_000.0, rules(max_daily_loss_pct=10)) is reached
    assert daily_loss_reached(equity, 1_000.0, rules(max_daily_loss_usd=100)) is reached


@pytest.mark.parametrize(
    ("percent", "usd", "limit"), [(10, 50, 50), (10, 100, 100), (10, 200, 100), (3, None, 30)]
)
def test_of_a_percent_and_a_money_limit_the_stricter_holds(
    percent: float, usd: float | None, limit: float
) -> None:
    one = rules(max_daily_loss_pct=percent, max_daily_loss_usd=usd)
    assert not daily_loss_reached(1_000.0 - limit + 1, 1_000.0, one)
    assert daily_loss_reached(1_000.0 - limit, 1_000.0, one)
    capped = rules(max_position_pct=percent, max_position_usd=usd)
    assert wanted_lots(1.0, 1_000.0, math.inf, 1.0, capped, 0) == limit


@pytest.mark.parametrize(
    ("positions", "refusal"), [(1, "OK"), (2, "POSITION_COUNT"), (3, "POSITION_COUNT")]
)
def test_a_new_position_needs_a_free_place(positions: int, refusal: str) -> None:
    one = rules(max_positions=2)
    assert code(entry_refusal(5, 10.0, True, positions, one, 0)) == refusal
    assert code(entry_refusal(5, 10.0, False, positions, one, 0)) == "OK"


@pytest.mark.parametrize(
    ("lots", "refusal"), [(-1, "POSITION_SIZE"), (0, "POSITION_SIZE"), (1, "OK")]
)
def test_a_held_position_that_may_not_grow_is_refused_for_its_size(lots: int, refusal: str) -> None:
    assert code(entry_refusal(lots, 10.0, False, 1, rules(), 0)) == refusal


@pytest.mark.parametrize(
    ("filters", "refusal"),
    [
        ({"min_quantity": Decimal(5)}, "MIN_QUANTITY"),
        ({"min_quantity": Decimal("4.01")}, "MIN_QUANTITY"),
        ({"min_notional": Decimal(50)}, "MIN_NOTIONAL"),
        ({"min_trade_size": Decimal(5)}, "MIN_TRADE_SIZE"),
        ({"min_trade_size": Decimal("4.01")}, "MIN_TRADE_SIZE"),
    ],
)
def test_each_minimum_refuses_four_lots_and_takes_five(
    filters: dict[str, Decimal], refusal: str
) -> None:
    one = rules(Filters(lot_step=Decimal(1), **filters))
    assert [code(entry_refusal(n, 10.0, True, 0, one, 0)) for n in (4, 5, 6)] == [
        refusal,
        "OK",
        "OK",
    ]


def test_our_own_minimum_is_not_the_exchanges() -> None:
    one = rules(Filters(lot_step=Decimal(1), min_trade_size=Decimal(5)))
    assert code(exchange_refusal(1, 10.0, one, 0)) == "OK"
    assert code(exchange_refusal(0, 10.0, one, 0)) == "MIN_QUANTITY"


@pytest.mark.parametrize(
    ("minutes", "milliseconds", "inside"),
    [
        (8 * 60 + 30, -1, False),
        (8 * 60 + 30, 0, True),
        (8 * 60 + 30, 1, True),
        (17 * 60, -1, True),
        (17 * 60, 0, False),
        (17 * 60, 1, False),
    ],
)
def test_trading_hours_hold_their_start_and_not_their_end(
    minutes: int, milliseconds: int, inside: bool
) -> None:
    one = rules(trading_hours=TradingHours(start="08:30", end="17:00"))
    moment = utc_ms("2024-01-01") + minutes * 60_000 + milliseconds
    assert risk.within_hours(moment, one) is inside


# --- order: the earlier check wins


ACCOUNT_CHECKS = ("KILL_SWITCH", "TRADING_HOURS", "DAILY_LOSS", "DRAWDOWN")
ENTRY_CHECKS = (
    "POSITION_COUNT",
    "POSITION_SIZE",
    "MIN_QUANTITY",
    "MIN_NOTIONAL",
    "MIN_TRADE_SIZE",
)
ORDER = ACCOUNT_CHECKS + ENTRY_CHECKS


def gate(failing: set[str]) -> str:
    """What an entry of 4 lots at 10 hears where exactly these checks find something."""
    lots = 0 if "POSITION_SIZE" in failing else 4
    minimum = {"MIN_QUANTITY": "min_quantity", "MIN_TRADE_SIZE": "min_trade_size"}
    filters = {field: Decimal(5) for name, field in minimum.items() if name in failing}
    if "MIN_NOTIONAL" in failing:
        filters["min_notional"] = Decimal(50)
    away = TradingHours(days=("tue",)) if "TRADING_HOURS" in failing else TradingHours()
    one = rules(
        Filters(lot_step=Decimal(1), **filters),
        trading_hours=away,
        max_drawdown_pct=10,
        max_positions=2,
    )
    refusal = account_refusal(
        "KILL_SWITCH" in failing,
        NOON,
        "DAILY_LOSS" in failing,
        900.0 if "DRAWDOWN" in failing else 1_000.0,
        1_000.0,
        one,
    )
    if code(refusal) == "OK":
        positions = 2 if "POSITION_COUNT" in failing else 1
        refusal = entry_refusal(lots, 10.0, "POSITION_SIZE" not in failing, positions, one, 0)
    return code(refusal)


def test_an_entry_that_no_check_holds_back_passes() -> None:
    assert gate(set()) == "OK"


@pytest.mark.parametrize("name", ORDER)
def test_each_check_alone_refuses_with_its_own_code(name: str) -> None:
    assert gate({name}) == name


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        pair
        for pair in itertools.combinations(ORDER, 2)
        # Only a symbol that is not yet held can be one too many; only a held one can be full.
        if pair != ("POSITION_COUNT", "POSITION_SIZE")
    ],
)
def test_of_two_checks_that_refuse_the_earlier_is_told(earlier: str, later: str) -> None:
    assert gate({earlier, later}) == earlier


def test_the_codes_are_numbered_in_the_order_of_the_checks() -> None:
    numbers = {name: number for number, (name, _) in CODES.items()}
    assert [numbers[name] for name in ("OK", *ORDER, "CASH")] == list(range(11))


def test_without_limits_only_the_kill_switch_and_the_exchange_refuse() -> None:
    one = rules_for(Account(limits=None, filters={"X": Filters(lot_step=Decimal(1))}), ["X"])
    assert code(account_refusal(False, NOON, True, 1.0, 1_000.0, one)) == "OK"
    assert code(account_refusal(True, NOON, False, 1_000.0, 1_000.0, one)) == "KILL_SWITCH"
    assert not daily_loss_reached(1.0, 1_000.0, one)
    assert not drawdown_reached(1.0, 1_000.0, one)
    assert code(entry_refusal(1, 1.0, True, 1_000, one, 0)) == "OK"
    assert code(entry_refusal(0, 1.0, True, 0, one, 0)) == "MIN_QUANTITY"
    assert wanted_lots(1.0, 1_000.0, math.inf, 1.0, one, 0) == 1_000


# --- lots


steps = st.builds(
    lambda digits, places: Decimal(digits).scaleb(-places),
    st.sampled_from([1, 1, 1, 2, 3, 5, 7, 25, 125]),
    st.integers(0, 8),
)


def exactly(lots: int, step: Decimal) -> float:
    """The quantity of a lot count: an exact product, rounded once."""
    return float(lots * Fraction(step))


@given(steps, st.floats(0, 1e5))
def test_floor_lots_is_the_largest_count_whose_quantity_does_not_exceed(
    step: Decimal, quantity: float
) -> None:
    one = rules(Filters(lot_step=step, max_quantity=Decimal(1_000_000)))
    lots = floor_lots(quantity, one, 0)
    assert exactly(lots, step) <= quantity < exactly(lots + 1, step)
    # ... which is the exact floor, or the lot more that the nearest float stands for.
    assert 0 <= lots - math.floor(Fraction(quantity) / Fraction(step)) <= 1


@given(steps, st.integers(0, 10**11))
def test_no_lot_is_lost_on_an_exact_multiple_of_the_step(step: Decimal, lots: int) -> None:
    one = rules(Filters(lot_step=step, max_quantity=step * 10**12))
    assert quantity_of(lots, one, 0) == exactly(lots, step)
    assert floor_lots(exactly(lots, step), one, 0) == lots


def test_floating_floor_division_would_have_lost_lots() -> None:
    # The control for the property above: what the usual one-liner does to a step of 0.1.
    step = Decimal("0.1")
    one = rules(Filters(lot_step=step))
    counts = range(1, 1_001)
    assert sum(int(exactly(n, step) // 0.1) != n for n in counts) > 500
    assert all(floor_lots(exactly(n, step), one, 0) == n for n in counts)


@given(steps, st.integers(1, 1_000), st.floats(0, 1e12))
def test_the_exchanges_maximum_caps_the_lots(step: Decimal, most: int, quantity: float) -> None:
    one = rules(Filters(lot_step=step, max_quantity=step * most))
    expected = min(most, math.floor(Fraction(quantity) / Fraction(step)))
    assert floor_lots(quantity, one, 0) in (expected, min(most, expected + 1))
    assert floor_lots(math.inf, one, 0) == most


@given(
    steps,
    st.floats(0, 1e9),
    st.integers(1, 10**9),
    st.floats(1e-6, 1e6),
    st.sampled_from([0.0, 0.001, 0.05]),
)
def test_affordable_lots_are_the_most_that_cash_pays_fee_included(
    step: Decimal, cash: float, lots: int, price: float, fee_rate: float
) -> None:
    filters = Filters(lot_step=step, max_quantity=step * 10**9)
    one = rules_for(Account(filters={"X": filters}, fee_rate=fee_rate), ["X"])

    def cost(count: int) -> float:
        notional = exactly(count, step) * price
        return notional + notional * fee_rate

    paid = affordable_lots(cash, lots, price, one, 0)
    assert 0 <= paid <= lots
    assert cost(paid) <= cash
    assert paid == lots or cost(paid + 1) > cash


@given(st.floats(0, 1), st.floats(1e-3, 1e9), st.floats(1e-6, 1e6), st.integers(1, 100))
def test_a_larger_target_never_means_fewer_lots(
    target: float, equity: float, price: float, percent: int
) -> None:
    one = rules(Filters(), max_position_pct=percent)
    assume(equity / price < 1e7)
    parts = (0.0, 0.5, 1.0)
    lots = [wanted_lots(part * target, equity, math.inf, price, one, 0) for part in parts]
    assert lots == sorted(lots)
    assert lots[0] == 0
    assert quantity_of(lots[2], one, 0) * price <= percent / 100 * equity * (1 + 1e-12)


# --- hours against the calendar


@given(
    st.integers(0, utc_ms("2100-01-01")),
    st.sets(st.sampled_from(WEEKDAYS), min_size=1),
    st.integers(0, 1440),
    st.integers(0, 1440),
)
def test_trading_days_and_hours_are_those_of_the_utc_calendar(
    moment: int, days: set[str], start: int, end: int
) -> None:
    assume(start != end)
    text = [f"{minute // 60:02d}:{minute % 60:02d}" for minute in (start, end)]
    one = rules(trading_hours=TradingHours(start=text[0], end=text[1], days=tuple(days)))
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=moment)
    minute = at.hour * 60 + at.minute
    in_hours = start <= minute < end if start < end else minute >= start or minute < end
    expected = in_hours and at.strftime("%a").lower() in days
    assert risk.within_hours(moment, one) is expected


# --- an account in the engine's units


def test_rules_are_the_account_in_fractions_minutes_and_lots() -> None:
    account = Account(
        fee_rate=0.002,
        slippage_bps=5,
        limits=Limits(
            max_position_pct=25,
            max_positions=4,
            trading_hours=TradingHours(start="08:30", end="24:00", days=("mon", "sun")),
            kill_switch_armed=False,
            on_trip="flatten",
        ),
        stops=Stops(stop_loss_pct=2),
        filters={
            "X": Filters(
                lot_step=Decimal("0.005"),
                min_quantity=Decimal("0.011"),
                min_trade_size=Decimal("0.02"),
                max_quantity=Decimal("7.004"),
                min_notional=Decimal("12.5"),
            ),
            "Y": Filters(lot_step=Decimal(3), max_quantity=Decimal(30)),
        },
    )
    one = rules_for(account, ["Y", "X"])
    assert (one.fee_rate, one.slippage, one.max_position) == (0.002, 0.0005, 0.25)
    assert (one.max_position_usd, one.max_daily_loss_usd) == (math.inf, math.inf)
    assert (one.hours_start, one.hours_end, one.day_mask) == (510, 1440, 0b1000001)
    assert (one.max_positions, one.armed, one.flatten, one.gated) == (4, False, True, True)
    assert (one.stop_loss, one.take_profit, one.trailing_stop) == (0.02, 0.0, 0.0)
    assert (one.lot_numerator, one.lot_denominator) == ([3, 1], [1, 200])
    assert (one.min_lots, one.min_trade_lots, one.max_lots) == ([1, 3], [0, 4], [10, 1_400])
    assert one.min_notional == [0.0, 12.5]


def test_a_symbol_without_filters_is_named() -> None:
    account = Account(filters={"BTCUSDT": Filters()})
    with pytest.raises(UnknownNameError, match=r"ETHUSDT.*BTCUSDT|BTCUSDT.*ETHUSDT"):
        rules_for(account, ["BTCUSDT", "ETHUSDT"])
