"""What the gate and the kill switch do, as tables to be checked with a pencil (tables.py)."""

from __future__ import annotations

import pytest

from research.account import Stops, TradingHours
from research.candles import utc_ms
from research.engine import fold
from research.risk import CODES
from research.state import opening_state
from tests.backtest.oracle import Bar
from tests.backtest.tables import account, check, limits
from tests.backtest.worlds import World


def test_position_count_counts_what_will_be_held_once_pending_orders_are_filled() -> None:
    check(
        account(limits=limits(max_positions=2)),
        """
        10 10 10 10 .3 | 10 10 10 10 .3 | 10 10 10 10 .3 => A orders entry +30,
                                                         => B orders entry +30, C POSITION_COUNT
        10 10 10 10 .6 | 10 10 10 10 0  | 10 10 10 10 .4 => A entry +30 @10, B entry +30 @10,
                                                         => A orders entry +30,
                                                         => B orders exit -30, C orders entry +40
        """,
    )


def test_the_pending_order_of_an_absent_symbol_takes_a_position() -> None:
    check(
        account(limits=limits(max_positions=1)),
        """
        10 10 10 10 .3 | 10 10 10 10 0  => A orders entry +30
        -              | 10 10 10 10 .3 => B POSITION_COUNT
        10 10 10 10 .3 | 10 10 10 10 .3 => A entry +30 @10
        """,
    )


@pytest.mark.parametrize(
    "cap", [{"max_daily_loss_pct": 10}, {"max_daily_loss_usd": 200}], ids=["percent", "USD"]
)
def test_a_lost_day_refuses_entries_until_the_00_00_close_and_closes_nothing(
    cap: dict[str, float],
) -> None:
    # Ten lots bought at 100. At the close of 22:00 they have lost 200 of 2,000: just the limit.
    # What they earn back by 23:00 does not help; the close of 00:00 opens a new day.
    log = check(
        account(initial_cash=2_000, limits=limits(max_position_usd=1_000, **cap)),
        """
        100 100 100 100 1 | 10 10 10 10 .  => A orders entry +10
        100 100 100  81 1 | 10 10 10 10 .1 => A entry +10 @100, B orders entry +10
         80  80  80  80 1 | 10 10 10 10 .2 => B entry +10 @10, B DAILY_LOSS
         99  99  99  99 1 | 10 10 10 10 .3 => B DAILY_LOSS
         70  70  70  70 1 | 10 10 10 10 .4 => B orders entry +30
         70  70  70  70 1 | 10 10 10 10 .5 => B entry +30 @10, B orders entry +10
        """,
        start="2024-01-01T19:00",
    )
    assert log.day_base.tolist() == [2_000] * 4 + [1_700] * 2


def test_a_loss_of_less_than_the_daily_limit_refuses_nothing() -> None:
    check(
        account(initial_cash=2_000, limits=limits(max_position_usd=1_000, max_daily_loss_usd=200)),
        """
        100 100 100 100 1 | 10 10 10 10 .  => A orders entry +10
        100 100 100  81 1 | 10 10 10 10 .2 => A entry +10 @100, B orders entry +20
        """,
    )


def test_where_no_bar_closes_at_00_00_the_day_starts_from_the_mark_before_it() -> None:
    # No bar closes at 23:00, 00:00 and 01:00: the new day's first mark stands at 02:00.
    opens = [utc_ms(f"2024-01-{ts}:00") for ts in ("01T20", "01T21", "02T01", "02T02")]
    held = [(100, 1.0), (100, 1.0), (80, 1.0), (80, 1.0)]
    world = World(
        account(limits=limits(max_daily_loss_pct=20)),
        {
            "A": {
                ts: Bar(price, price, price, price, target)
                for ts, (price, target) in zip(opens, held, strict=True)
            },
            "B": {opens[3]: Bar(1, 1, 1, 1, 1.0)},
        },
    )
    start = opening_state(1_000, 2)
    _, log = fold(start, world.tape(), world.rules(), compiled=False)
    assert log.equity.tolist() == [1_000, 1_000, 800, 800]
    assert log.day_base.tolist() == [1_000, 1_000, 1_000, 1_000]
    assert CODES[int(log.code[3, 1])][0] == "DAILY_LOSS"


def test_on_daily_bars_the_daily_loss_never_bites() -> None:
    check(
        account(limits=limits(max_daily_loss_pct=1)),
        """
        100 100 100 100 1 | 10 10 10 10 0  => A orders entry +10
        100 100 100 100 1 | 10 10 10 10 0  => A entry +10 @100
         50  50  50  50 1 | 10 10 10 10 .5 => B orders entry +25
        """,
        timeframe="1d",
    )


def test_drawdown_is_the_code_of_the_bar_that_finds_it_and_the_kill_switch_from_the_next() -> None:
    log = check(
        account(limits=limits(max_drawdown_pct=20)),
        """
        100 100 100 100 1 | 10 10 10 10 0  => A orders entry +10
        100 100 100 100 1 | 10 10 10 10 0  => A entry +10 @100
         81  81  81  81 1 | 10 10 10 10 0  =>
         80  80  80  80 1 | 10 10 10 10 .1 => B DRAWDOWN
         99  99  99  99 1 | 10 10 10 10 .2 => B KILL_SWITCH
         99  99  99  99 0 | 10 10 10 10 .3 => A orders exit -10, B KILL_SWITCH
         99  99  99  99 0 | 10 10 10 10 .4 => A exit -10 @99, B KILL_SWITCH
        """,
    )
    assert log.tripped.tolist() == [False] * 3 + [True] * 4


def test_an_unarmed_switch_does_not_trip_itself_and_drawdown_refuses_while_it_lasts() -> None:
    log = check(
        account(limits=limits(max_drawdown_pct=20, kill_switch_armed=False, on_trip="flatten")),
        """
        100 100 100 100 1 | 10 10 10 10 0  => A orders entry +10
        100 100 100 100 1 | 10 10 10 10 0  => A entry +10 @100
         80  80  80  80 1 | 10 10 10 10 .1 => B DRAWDOWN
         79  79  79  79 1 | 10 10 10 10 .2 => B DRAWDOWN
         81  81  81  81 1 | 10 10 10 10 .3 => B orders entry +24
        """,
    )
    assert not log.tripped.any()


def test_a_kill_trips_an_unarmed_switch_too() -> None:
    log = check(
        account(limits=limits(kill_switch_armed=False)),
        """
        100 100 100 100 1 => A KILL_SWITCH
        100 100 100 100 1 =>
        """,
        kill=[0],
    )
    assert log.tripped.tolist() == [True, True]


def test_a_tripped_switch_that_holds_leaves_positions_to_their_exits_and_stops() -> None:
    check(
        account(stops=Stops(stop_loss_pct=20)),
        """
        100 100 100 100 .5 | 10 10 10 10 .5 => A orders entry +5, B orders entry +50
        100 100 100 100 .5 | 10 10 10 10 .5 => A entry +5 @100, B entry +50 @10
        100 100 100 100 .5 | 10 10 10 10 .5 =>
        100 100  80 100 .5 | 10 10 10 10 0  => A stop_loss -5 @80, B orders exit -50
        100 100 100 100 .6 | 10 10 10 10 0  => B exit -50 @10, A KILL_SWITCH
        """,
        kill=[2],
    )


def test_a_trip_that_flattens_sells_everything_at_the_next_open() -> None:
    check(
        account(limits=limits(max_drawdown_pct=20, on_trip="flatten")),
        """
        100 100 100 100 .5 | 10 10 10 10 .5 => A orders entry +5, B orders entry +50
        100 100 100 100 .5 | 10 10 10 10 .5 => A entry +5 @100, B entry +50 @10
         60  60  60  60 .5 | 10 10 10 10 .5 => A orders flatten -5, B orders flatten -50
         55  55  55  55 .5 | -              => A flatten -5 @55
         55  55  55  55 .5 | 11 11 11 11 .5 => B flatten -50 @11
        """,
    )


def test_a_smaller_sale_that_waits_is_replaced_by_the_flatten() -> None:
    check(
        account(limits=limits(on_trip="flatten")),
        """
        100 100 100 100 1  | 10 10 10 10 0 => A orders entry +10
        100 100 100 100 .5 | 10 10 10 10 0 => A entry +10 @100, A orders exit -5
        -                  | 10 10 10 10 0 => A cancels -5, A orders flatten -10
         90  90  90  90 .5 | 10 10 10 10 0 => A flatten -10 @90
        """,
        kill=[2],
    )


def test_a_trip_cancels_the_entries_that_wait_for_an_absent_symbol() -> None:
    check(
        account(),
        """
        100 100 100 100 1 | 10 10 10 10 0 => A orders entry +10
        -                 | 10 10 10 10 0 => A cancels +10
        100 100 100 100 1 | 10 10 10 10 0 =>
        """,
        kill=[1],
    )


def test_a_kill_reset_inside_one_bar_cancels_entries_but_neither_flattens_nor_stays() -> None:
    log = check(
        account(limits=limits(on_trip="flatten")),
        """
        100 100 100 100 0  | 10 10 10 10 .5 => B orders entry +50
        100 100 100 100 .4 | 10 10 10  9 .5 => B entry +50 @10, A orders entry +3
        -                  |  9  9  9  9 .6 => A cancels +3, B orders entry +13
        100 100 100 100 .4 |  9  9  9  9 .6 => B entry +13 @9
        """,
        kill=[2],
        reset=[2],
    )
    assert not log.tripped.any()
    assert log.peak.tolist() == [1_000, 1_000, 950, 950]


def test_a_reset_lets_entries_pass_again_and_sets_the_peak_to_the_equity_of_that_close() -> None:
    # From the new peak of 700 a drawdown of a fifth is 560: 600 is not yet one, 560 is.
    log = check(
        account(limits=limits(max_drawdown_pct=20)),
        """
        100 100 100 100 1 | 10 10 10 10 0  => A orders entry +10
        100 100 100 100 1 | 10 10 10 10 0  => A entry +10 @100
         75  75  75  75 1 | 10 10 10 10 .1 => B DRAWDOWN
         70  70  70  70 1 | 10 10 10 10 0  =>
         60  60  60  60 1 | 10 10 10 10 0  =>
         56  56  56  56 1 | 10 10 10 10 .1 => B DRAWDOWN
        """,
        reset=[3],
    )
    assert log.peak.tolist() == [1_000, 1_000, 1_000, 700, 700, 700]
    assert log.tripped.tolist() == [False, False, True, False, False, True]


def test_entries_are_decided_only_inside_trading_hours_start_included_end_excluded() -> None:
    day = limits(trading_hours=TradingHours(start="10:00", end="12:00"))
    check(
        account(limits=day),
        """
        10 10 10 10 .1 => A TRADING_HOURS
        10 10 10 10 .2 => A orders entry +20
        10 10 10 10 .3 => A entry +20 @10, A orders entry +10
        10 10 10 10 .4 => A entry +10 @10, A TRADING_HOURS
        10 10 10 10 0  => A orders exit -30
        """,
        start="2024-01-01T08:00",
    )


def test_hours_over_midnight_give_the_part_after_it_to_the_day_on_which_it_falls() -> None:
    # 2024-01-01 was a Monday. The close at 01:00 falls on Tuesday, which is not among the days.
    hours = TradingHours(start="23:00", end="02:00", days=("mon", "wed"))
    check(
        account(limits=limits(trading_hours=hours)),
        """
        10 10 10 10 .1 => A TRADING_HOURS
        10 10 10 10 .2 => A orders entry +20
        10 10 10 10 .3 => A entry +20 @10, A TRADING_HOURS
        10 10 10 10 .4 => A TRADING_HOURS
        """,
        start="2024-01-01T21:00",
    )
    check(
        account(limits=limits(trading_hours=hours)),
        """
        10 10 10 10 .1 => A TRADING_HOURS
        10 10 10 10 .2 => A orders entry +20
        10 10 10 10 .3 => A entry +20 @10, A orders entry +10
        10 10 10 10 .4 => A entry +10 @10, A TRADING_HOURS
        """,
        start="2024-01-02T22:00",
    )


def test_an_exit_passes_outside_trading_hours_on_a_lost_day_in_drawdown_and_after_a_kill() -> None:
    never = TradingHours(start="00:00", end="01:30", days=("mon",))
    check(
        account(limits=limits(trading_hours=never, max_drawdown_pct=1, max_daily_loss_pct=1)),
        """
        100 100 100 100 1 => A orders entry +10
        100 100 100  50 1 => A entry +10 @100
         50  50  50  50 0 => A orders exit -10
         50  50  50  50 0 => A exit -10 @50
        """,
        kill=[2],
    )


def test_without_limits_nothing_is_refused_but_the_kill_switch_still_holds() -> None:
    check(
        account(limits=None),
        """
        100 100 100 100 1 | 10 10 10 10 0  => A orders entry +10
        100 100 100  50 1 | 10 10 10 10 0  => A entry +10 @100
          1   1   1   1 1 | 10 10 10 10 1  => B orders entry +1
          1   1   1   1 1 | 10 10 10 10 1  => B entry +0 @10 CASH
          9   9   9   9 1 | 10 10 10 10 0  =>
          9   9   9   9 1 | 10 10 10 10 1  => B KILL_SWITCH
          9   9   9   9 1 | 10 10 10 10 0  =>
          9   9   9   9 1 | 10 10 10 10 1  => B orders entry +9
        """,
        kill=[5],
        reset=[6],
    )
