"""Fills, costs, stops, targets and sizes, as tables to be checked with a pencil (tables.py)."""

from __future__ import annotations

from decimal import Decimal

import pytest

from research.account import Filters, Limits, Stops
from tests.backtest.tables import WHOLE, WIDE, account, check, limits

# --- fills and costs


def test_a_signal_fills_at_the_next_open_with_slippage_and_fee() -> None:
    log = check(
        account(fee_rate=0.001, slippage_bps=100),
        """
        100 101  99 100 1  => A orders entry +10
         50  51  49  50 1  => A entry +10 @50.5 fee 0.505
         50  51  49  50 0  => A orders exit -10
         60  61  59  60 0  => A exit -10 @59.4 fee 0.594
        """,
    )
    assert log.cash.tolist() == pytest.approx([1_000, 494.495, 494.495, 1_087.901])
    assert log.action[:, 0].tolist() == [1, 0, -1, 0]


def test_equity_is_cash_and_what_is_held_at_the_last_close() -> None:
    log = check(
        account(),
        """
        100 100 100 100 1 | -            => A orders entry +10
        100 100 100 110 1 | 20 20 20 20 0 => A entry +10 @100
        -                 | 20 20 20 20 0 =>
        """,
    )
    assert log.equity.tolist() == [1_000, 1_100, 1_100]
    assert log.peak.tolist() == [1_000, 1_100, 1_100]


def test_sales_fill_before_purchases_whatever_the_order_of_symbols() -> None:
    check(
        account(),
        """
        100 100 100 100 0 | 100 100 100 100 1 => B orders entry +10
        100 100 100 100 1 | 100 100 100 100 0 => B entry +10 @100,
                                              => A orders entry +10, B orders exit -10
        100 100 100 100 1 | 100 100 100 100 0 => A entry +10 @100, B exit -10 @100
        """,
    )


def test_the_order_of_an_absent_symbol_waits_for_its_next_open() -> None:
    check(
        account(),
        """
        100 100 100 100 1 | 10 10 10 10 0 => A orders entry +10
        -                 | 10 10 10 10 0 =>
        -                 | 10 10 10 10 0 =>
         80  80  80  80 1 | 10 10 10 10 0 => A entry +10 @80
        """,
    )


def test_a_purchase_shrinks_to_what_cash_pays_fee_and_slippage_included() -> None:
    # 9 x 100 x 1.01 = 909, with the fee of 1 % 918.09; a tenth lot would need 1,020.1.
    check(
        account(fee_rate=0.01, slippage_bps=100),
        """
        100 100 100 100 1 => A orders entry +10
        100 100 100 100 1 => A entry +9 @101 fee 9.09 CASH
        """,
    )


def test_cash_that_pays_to_the_last_cent_is_enough() -> None:
    check(
        account(initial_cash=1_010, fee_rate=0.01, limits=limits(max_position_usd=1_000)),
        """
        100 100 100 100 1 => A orders entry +10
        100 100 100 100 1 => A entry +10 @100 fee 10
        """,
    )


@pytest.mark.parametrize(
    "minimum", [{"min_quantity": Decimal(6)}, {"min_notional": Decimal(1_200)}]
)
def test_a_purchase_that_cash_shrinks_below_the_exchange_minimum_is_rejected(
    minimum: dict[str, Decimal],
) -> None:
    # 1,000 buy five lots at 199: less than six, and worth 995.
    check(
        account(initial_cash=1_200, filters=WHOLE.model_copy(update=minimum), limits=None),
        """
        100 100 100 100 1 => A orders entry +12
        201 201 201 201 1 => A entry +0 @201 CASH
        201 201 201 201 1 =>
        """,
    )


# --- protective stops


def test_a_stop_gapped_through_fills_at_the_open() -> None:
    check(
        account(stops=Stops(stop_loss_pct=10)),
        """
        100 101  99 100 1 => A orders entry +10
        100 101  99 100 1 => A entry +10 @100
         80  95  79  94 1 => A stop_loss -10 @80
        """,
    )


def test_a_stop_moved_through_fills_at_the_stop() -> None:
    check(
        account(stops=Stops(stop_loss_pct=10)),
        """
        100 101  99   100 1 => A orders entry +10
        100 101  90.5 100 1 => A entry +10 @100
         99  99  89    99 1 => A stop_loss -10 @90
        """,
    )


def test_a_low_that_touches_the_stop_is_enough() -> None:
    check(
        account(stops=Stops(stop_loss_pct=25)),
        """
        100 100 100 100 1 => A orders entry +10
        100 100  75 100 1 => A entry +10 @100, A stop_loss -10 @75
        """,
    )


def test_the_stop_goes_before_the_target_inside_one_bar() -> None:
    check(
        account(stops=Stops(stop_loss_pct=10, take_profit_pct=25)),
        """
        100 100 100 100 1 => A orders entry +10
        100 100 100 100 1 => A entry +10 @100
        100 130  85 120 1 => A stop_loss -10 @90
        """,
    )


def test_an_open_above_the_target_decides_before_a_low_below_the_stop() -> None:
    check(
        account(stops=Stops(stop_loss_pct=10, take_profit_pct=25)),
        """
        100 100 100 100 1 => A orders entry +10
        100 100 100 100 1 => A entry +10 @100
        140 140  85 120 1 => A take_profit -10 @140
        """,
    )


def test_a_stop_pays_slippage_and_a_take_profit_does_not() -> None:
    check(
        account(
            slippage_bps=100, limits=limits(max_position_usd=500), stops=Stops(stop_loss_pct=50)
        ),
        """
        100 100 100 100 1 => A orders entry +5
        100 100 100 100 1 => A entry +5 @101
        100 100  40 100 1 => A stop_loss -5 @49.995
        """,
    )
    check(
        account(
            slippage_bps=100, limits=limits(max_position_usd=500), stops=Stops(take_profit_pct=50)
        ),
        """
        100 100 100 100 1 => A orders entry +5
        100 100 100 100 1 => A entry +5 @101
        100 160 100 100 1 => A take_profit -5 @151.5
        """,
    )


def test_the_trailing_stop_moves_only_after_the_check_of_the_bar_that_made_the_high() -> None:
    check(
        account(stops=Stops(trailing_stop_pct=10)),
        """
        100 100 100 100 1 => A orders entry +10
        100 120  95 110 1 => A entry +10 @100
        119 119 109 110 1 =>
        110 110 107 110 1 => A trailing_stop -10 @108
        """,
    )


def test_the_trailing_high_starts_at_the_fill_and_the_entry_bar_can_be_stopped_out() -> None:
    check(
        account(stops=Stops(trailing_stop_pct=25)),
        """
        200 200 100 100 1 => A orders entry +10
        100 110  75 100 1 => A entry +10 @100, A trailing_stop -10 @75
        """,
    )


def test_the_higher_of_two_stops_acts_and_on_a_tie_the_stop_loss_is_named() -> None:
    check(
        account(stops=Stops(stop_loss_pct=10, trailing_stop_pct=10)),
        """
        100 100 100 100 1   => A orders entry +10
        100 100 100 100 1   => A entry +10 @100
        100 100  90 100 0.5 => A stop_loss -10 @90
        100 100 100 100 1   => A orders entry +9
        100 120 100 120 1   => A entry +9 @100
        120 120 108 120 1   => A trailing_stop -9 @108
        """,
    )


def test_the_entry_price_of_two_purchases_is_weighted_by_lots() -> None:
    # 5 lots at 100 and 3 at 132: (500 + 396) / 8 = 112, a quarter below is 84.
    check(
        account(initial_cash=1_000, stops=Stops(stop_loss_pct=25)),
        """
        100 100 100 100 0.5 => A orders entry +5
        100 100 100 100 0.5 => A entry +5 @100
        100 100 100 125 0.9 => A orders entry +3
        132 132 132 132 0.9 => A entry +3 @132
        100 100  83 100 0.9 => A stop_loss -8 @84
        """,
    )


def test_a_symbol_that_is_absent_is_not_stopped_out() -> None:
    check(
        account(stops=Stops(stop_loss_pct=10)),
        """
        100 100 100 100 1 | 10 10 10 10 0 => A orders entry +10
        100 100 100 100 1 | 10 10 10 10 0 => A entry +10 @100
        -                 | 10 10 10 10 0 =>
         70  70  70  70 1 | 10 10 10 10 0 => A stop_loss -10 @70
        """,
    )


def test_a_stop_that_the_exchange_would_reject_does_not_fill() -> None:
    check(
        account(
            filters=Filters(lot_step=Decimal(1), min_notional=Decimal(900)),
            stops=Stops(stop_loss_pct=10),
        ),
        """
        100 100 100 100 1 => A orders entry +10
        100 100 100 100 1 => A entry +10 @100
         89  89  89  89 1 =>
         91  91  89  91 1 => A stop_loss -10 @90
        """,
    )


# --- targets


def test_drift_of_price_alone_never_trades() -> None:
    check(
        account(),
        """
        100 100 100 100 0.5 => A orders entry +5
        100 100 100 100 0.5 => A entry +5 @100
        300 300 300 300 0.5 =>
         50  50  50  50 0.5 =>
        """,
    )


def test_a_target_of_nan_keeps_what_is_held() -> None:
    check(
        account(),
        """
        100 100 100 100 .   =>
        100 100 100 100 0.5 => A orders entry +5
        100 100 100 100 .   => A entry +5 @100
        100 100 100 100 0.5 =>
        100 100 100 100 0   => A orders exit -5
        """,
    )


def test_a_target_that_falls_sells_down_to_it() -> None:
    log = check(
        account(),
        """
        100 100 100 100 1    => A orders entry +10
        100 100 100 100 0.25 => A entry +10 @100, A orders exit -8
        100 100 100 100 0.25 => A exit -8 @100
        """,
    )
    assert log.action[:, 0].tolist() == [1, -1, 0]


def test_a_stopped_out_target_is_consumed_until_it_changes() -> None:
    check(
        account(stops=Stops(stop_loss_pct=10)),
        """
        100 100 100 100 1   => A orders entry +10
        100 100  80 100 1   => A entry +10 @100, A stop_loss -10 @90
        100 100 100 100 1   =>
        100 100 100 100 0.5 =>
        100 100 100 100 1   => A orders entry +9
        """,
    )


def test_a_refused_target_is_consumed_until_it_changes() -> None:
    check(
        account(limits=limits(max_positions=1)),
        """
        100 100 100 100 0.5 | 100 100 100 100 0.5 => A orders entry +5, B POSITION_COUNT
        100 100 100 100 0   | 100 100 100 100 0.5 => A entry +5 @100, A orders exit -5
        100 100 100 100 0   | 100 100 100 100 0.5 => A exit -5 @100
        100 100 100 100 0   | 100 100 100 100 0.6 => B orders entry +6
        """,
    )


def test_a_target_of_zero_sells_what_is_still_held_as_soon_as_the_exchange_takes_it() -> None:
    log = check(
        account(filters=Filters(lot_step=Decimal(1), min_notional=Decimal(500))),
        """
        100 100 100 100 1 => A orders entry +10
        100 100 100  49 0 => A entry +10 @100, A MIN_NOTIONAL
         49  49  49  49 0 => A MIN_NOTIONAL
         49  50  49  50 0 => A orders exit -10
         51  51  51  51 0 => A exit -10 @51
        """,
    )
    assert log.action[:, 0].tolist() == [1, -1, 0, 0, 0]


# --- sizes and the exchange's minimums


@pytest.mark.parametrize(
    ("filters", "held_back", "lots"),
    [
        (WHOLE, WIDE, 10),
        (WHOLE, limits(max_position_pct=25), 2),
        (WHOLE, limits(max_position_usd=399.99), 3),
        (WHOLE, limits(max_position_pct=40, max_position_usd=700), 4),
        (WHOLE, limits(max_position_pct=70, max_position_usd=400), 4),
        (Filters(lot_step=Decimal(1), max_quantity=Decimal(7)), WIDE, 7),
        (Filters(lot_step=Decimal(3)), WIDE, 3),
        (WHOLE, None, 10),
    ],
)
def test_caps_reduce_an_entry_and_do_not_refuse_it(
    filters: Filters, held_back: Limits | None, lots: int
) -> None:
    check(
        account(filters=filters, limits=held_back),
        f"""
        100 100 100 100 1 => A orders entry +{lots}
        """,
    )


def test_a_position_at_its_cap_is_refused_more_with_position_size() -> None:
    check(
        account(limits=limits(max_position_usd=500)),
        """
        100 100 100 100 0.8 => A orders entry +4
        100 100 100 200 1   => A entry +4 @100, A POSITION_SIZE
        """,
    )


@pytest.mark.parametrize(
    ("filters", "code"),
    [
        ({"min_quantity": Decimal(6)}, "A MIN_QUANTITY"),
        ({"min_quantity": Decimal(5)}, "A orders entry +5"),
        ({"min_notional": Decimal("500.01")}, "A MIN_NOTIONAL"),
        ({"min_notional": Decimal(500)}, "A orders entry +5"),
        ({"min_trade_size": Decimal("5.5")}, "A MIN_TRADE_SIZE"),
        ({"min_trade_size": Decimal(5)}, "A orders entry +5"),
        ({"lot_step": Decimal(6)}, "A MIN_QUANTITY"),
        ({"min_quantity": Decimal(6), "min_notional": Decimal(900)}, "A MIN_QUANTITY"),
        ({"min_notional": Decimal(900), "min_trade_size": Decimal(9)}, "A MIN_NOTIONAL"),
    ],
)
def test_an_entry_below_a_minimum_is_refused_with_its_code(
    filters: dict[str, Decimal], code: str
) -> None:
    check(
        account(filters=Filters(**{"lot_step": Decimal(1)} | filters)),
        f"""
        100 100 100 100 0.5 => {code}
        """,
    )


def test_our_own_minimum_holds_entries_back_and_never_exits() -> None:
    check(
        account(filters=Filters(lot_step=Decimal(1), min_trade_size=Decimal(3))),
        """
        100 100 100 100 0.5 => A orders entry +5
        100 100 100 100 0.6 => A entry +5 @100, A MIN_TRADE_SIZE
        100 100 100 100 0.4 => A orders exit -1
        100 100 100 100 0.8 => A exit -1 @100, A orders entry +4
        """,
    )
