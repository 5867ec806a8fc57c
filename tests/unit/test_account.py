"""The account's values: bounds, exact decimals, and errors that a person can act on."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from research.account import (
    Account,
    Filters,
    Frozen,
    Limits,
    Stops,
    TradingHours,
    complaints,
    did_you_mean,
    dotted,
)
from research.errors import ParameterError, UnknownNameError

# The machine may be busy: a slow example is not a wrong one.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

CASES: list[tuple[type[Frozen], dict[str, Any], str]] = [
    (
        Limits,
        {"max_position_usd": -1},
        "max_position_usd: expected a number greater than 0, got -1",
    ),
    (
        Limits,
        {"max_position_usd": "abc"},
        'max_position_usd: expected a positive number, got "abc"',
    ),
    (
        Limits,
        {"max_position_pct": 0},
        "max_position_pct: expected a number greater than 0 and at most 100, got 0",
    ),
    (
        Limits,
        {"max_positions": 2.5},
        "max_positions: expected a whole number from 1 to 1000, got 2.5",
    ),
    (Limits, {"max_positions": 0}, "max_positions: expected a whole number from 1 to 1000, got 0"),
    (Limits, {"on_trip": "sell"}, 'on_trip: expected one of hold, flatten, got "sell"'),
    (
        Limits,
        {"kill_switch_armed": "maybe"},
        'kill_switch_armed: expected true or false, got "maybe"',
    ),
    (Limits, {"trading_hours": 5}, "trading_hours: expected a mapping of keys to values, got 5"),
    (
        Limits,
        {"trading_hours": {"start": 630}},
        'trading_hours.start: expected a UTC time of day in quotes, such as "08:30", got 630',
    ),
    (TradingHours, {"days": "mon"}, 'days: expected a list, got "mon"'),
    (
        Stops,
        {"stop_loss_pct": 100},
        "stop_loss_pct: expected a number greater than 0 and less than 100, got 100",
    ),
    (
        Account,
        {"fee_rate": 0.1},
        "fee_rate: expected a number of at least 0 and less than 0.1, got 0.1",
    ),
    (
        Account,
        {"initial_cash": float("nan")},
        "initial_cash: expected a number greater than 0, got nan",
    ),
    (Account, {"initial_cash": True}, "initial_cash: expected a positive number, got True"),
    (Filters, {"lot_step": "0"}, 'lot_step: expected a number greater than 0, got "0"'),
    (Filters, {"tick": "1e-5x"}, 'tick: expected a positive number, got "1e-5x"'),
    (Filters, {"min_notional": "-1"}, 'min_notional: expected a number of at least 0, got "-1"'),
    (
        Account,
        {"filters": {"BTCUSDT": {"lot_step": True}}},
        "filters.BTCUSDT.lot_step: expected a positive number, got True",
    ),
]


@pytest.mark.parametrize(("model", "values", "message"), CASES)
def test_a_wrong_value_is_told_by_field_value_and_expectation(
    model: type[Frozen], values: dict[str, Any], message: str
) -> None:
    for build in (lambda: model(**values), lambda: model.model_validate(values)):
        with pytest.raises(ParameterError) as caught:
            build()
        assert str(caught.value) == f"{model.__name__}.{message}"


def test_an_unknown_field_is_refused_with_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(ParameterError) as caught:
        Stops(stop_los_pct=5)  # type: ignore[call-arg]
    assert str(caught.value) == (
        "Stops.stop_los_pct: unknown; expected one of stop_loss_pct, take_profit_pct, "
        "trailing_stop_pct, time_stop_minutes. Did you mean stop_loss_pct?"
    )


def test_every_wrong_field_is_told_at_once() -> None:
    with pytest.raises(ParameterError) as caught:
        Limits(max_positions=0, max_daily_loss_pct=-1, trading_hours={"start": "9"})  # type: ignore[arg-type]
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "Limits.max_daily_loss_pct",
        "Limits.max_positions",
        "Limits.trading_hours.start",
    ]
    assert caught.value.field == "Limits.max_daily_loss_pct"


def test_a_missing_field_says_what_it_should_hold() -> None:
    class Order(Frozen):
        price: Decimal
        note: str
        limits: Limits

    with pytest.raises(ParameterError) as caught:
        Order()  # type: ignore[call-arg]
    first, second, third = str(caught.value).splitlines()
    assert first == "Order.price: missing; expected a number"
    assert second.startswith("Order.note: missing; expected text")
    assert third == "Order.limits: missing; expected a mapping of keys to values"


def test_inside_a_plain_model_all_errors_keep_their_paths() -> None:
    class File(BaseModel):
        limits: Limits
        more: list[Stops]

    with pytest.raises(ValidationError) as caught:
        File.model_validate({"limits": {"max_positions": 0}, "more": [{}, {"stop_loss_pct": 0}]})
    found = complaints(caught.value, File)
    assert [dotted(one.path) for one in found] == [
        "limits.max_positions",
        "more[1].stop_loss_pct",
    ]


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@unhurried
@given(
    st.sampled_from([Limits, Stops, Filters, TradingHours, Account]).flatmap(
        lambda model: st.tuples(
            st.just(model),
            st.dictionaries(st.sampled_from([*model.model_fields, "nonsense"]), anything),
        )
    )
)
def test_no_input_escapes_as_another_error_or_in_words_of_pydantic(
    given_: tuple[type[Frozen], dict[str, Any]],
) -> None:
    model, values = given_
    told = ""
    try:
        model(**values)
    except ParameterError as err:
        told = str(err)
    for foreign in ("Input should", "Extra inputs", "Value error", "another value"):
        assert foreign not in told


@pytest.mark.parametrize("value", ["0.00001", 0.00001, Decimal("0.00001"), "1e-5", "0.000010"])
def test_a_lot_step_is_the_decimal_that_was_written(value: Any) -> None:
    assert Filters(lot_step=value).lot_step == Decimal("0.00001")


@unhurried
@given(st.floats(1e-8, 1e8))
def test_a_float_becomes_a_decimal_through_its_shortest_text(value: float) -> None:
    assert Filters(tick=value).tick == Decimal(str(value))  # type: ignore[arg-type]
    binary = Decimal(value)
    assert Filters(tick=value).tick == binary or binary != Decimal(str(value))  # type: ignore[arg-type]


@unhurried
@given(st.integers(1, 10**8), st.integers(0, 8))
def test_the_lot_ratio_is_the_step_exactly(digits: int, places: int) -> None:
    step = Decimal(digits).scaleb(-places)
    numerator, denominator = Filters(lot_step=step, max_quantity=step).lot_ratio()
    assert Decimal(numerator) == step * denominator


def test_quantities_that_a_float_cannot_count_in_lots_are_refused() -> None:
    Filters(lot_step=Decimal("1e-8"), max_quantity=Decimal(90_000_000))
    for most in ("90072000", "1e999999"):
        with pytest.raises(ParameterError, match=r"lots are exact|positive number"):
            Filters(lot_step=Decimal("1e-8"), max_quantity=Decimal(most))


def test_trading_hours_are_minutes_of_the_utc_day() -> None:
    assert TradingHours(start="08:30", end="24:00").minutes() == (510, 1440)
    for start in ("8:30", "24:01", "08:60", "08:30 ", ""):
        with pytest.raises(ParameterError):
            TradingHours(start=start)
    with pytest.raises(ParameterError, match="an end that differs"):
        TradingHours(start="08:00", end="08:00")


def test_filters_of_an_unknown_symbol_are_refused_and_none_means_ideal() -> None:
    assert Account().filters_for("ANYTHING") == Filters()
    with pytest.raises(UnknownNameError, match="ETHUSDT"):
        Account(filters={"BTCUSDT": Filters()}).filters_for("ETHUSDT")


def test_defaults_are_the_documented_risk_limits() -> None:
    limits = Limits()
    assert (limits.max_position_pct, limits.max_daily_loss_pct, limits.max_drawdown_pct) == (
        5,
        2,
        10,
    )
    assert limits.max_positions == 3
    assert limits.max_position_usd is None
    assert limits.max_daily_loss_usd is None
    assert limits.kill_switch_armed is True
    assert (Account().initial_cash, Account().fee_rate, Account().slippage_bps) == (
        10_000,
        0.001,
        5,
    )


def test_a_value_cannot_be_changed_and_equal_values_hash_alike() -> None:
    with pytest.raises(ValidationError):
        Limits().max_positions = 5  # type: ignore[misc]
    assert hash(Limits(max_positions=4)) == hash(Limits(max_positions=4))
    assert Limits(max_positions=4) != Limits()


def test_the_nearest_word_is_suggested_only_when_it_is_near() -> None:
    assert did_you_mean("SOLUSD", ["BTCUSDT", "SOLUSDT"]) == "Did you mean SOLUSDT?"
    assert did_you_mean("zebra", ["BTCUSDT", "SOLUSDT"]) is None
