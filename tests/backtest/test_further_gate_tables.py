"""The gate's further rules, each one unit below, at and above its threshold (tables.py)."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from research.account import Account, Limits, Stops
from research.candles import Candles, utc_ms
from research.errors import ParameterError
from research.risk import room_for, rules_for
from research.tape import Move, yearly_volatility
from tests.backtest.tables import WIDE, account, check, limits


@pytest.mark.parametrize(("needed", "heard"), [(2, "A orders entry +10"), (3, ""), (4, "")])
def test_an_entry_needs_so_many_candles_in_a_row_since_a_hole(needed: int, heard: str) -> None:
    # After the hole of row 1 the bar of row 4 is the third in a row.
    first = "A orders entry +10" if needed <= 2 else "A STALE_DATA"
    second = {2: "A entry +10 @10, A orders entry +10", 3: "A orders entry +20"}
    check(
        account(initial_cash=1_000, limits=limits(min_fresh_bars=needed)),
        f"""
        10 10 10 10 0  | 10 10 10 10 0 =>
        -              | 10 10 10 10 0 =>
        10 10 10 10 0  | 10 10 10 10 0 =>
        10 10 10 10 .1 | 10 10 10 10 0 => {first}
        10 10 10 10 .2 | 10 10 10 10 0 => {second.get(needed, "A STALE_DATA")}
        """,
    )
    assert heard in ("", first)


def test_an_exit_needs_no_fresh_candles() -> None:
    check(
        account(limits=limits(min_fresh_bars=2)),
        """
        10 10 10 10 0  | 10 10 10 10 0 =>
        10 10 10 10 .1 | 10 10 10 10 0 => A orders entry +10
        -              | 10 10 10 10 0 =>
        10 10 10 10 0  | 10 10 10 10 0 => A entry +10 @10, A orders exit -10
        """,
    )


@pytest.mark.parametrize(
    ("minutes", "heard"),
    [(119, "A orders entry +9"), (120, "A orders entry +9"), (121, "A COOLDOWN")],
)
def test_no_entry_for_so_many_minutes_after_the_close_of_the_bar_in_which_a_trade_lost(
    minutes: int, heard: str
) -> None:
    check(
        account(limits=limits(cooldown_minutes=minutes)),
        f"""
        10 10 10 10 .1  => A orders entry +10
        10 10 10 10 0   => A entry +10 @10, A orders exit -10
         9  9  9 10 0   => A exit -10 @9
        10 10 10 10 0   =>
        10 10 10 10 .1  => {heard}
        """
        + ("" if "COOLDOWN" in heard else "10 10 10 10 .1 => A entry +9 @10"),
    )


def test_a_trade_that_gained_is_followed_at_once_and_one_that_only_paid_fees_is_not() -> None:
    text = """
        10 10 10 10 .1  => A orders entry +10
        10 10 10 10 0   => A entry +10 @10{fee}, A orders exit -10
        {out}{at} 10 10 10 .1 => A exit -10 @{at}{fee}, A {heard}
        """
    cool = limits(cooldown_minutes=60)
    check(account(limits=cool), text.format(fee="", out="", at=10, heard="orders entry +10"))
    lost = text.replace("{fee}", " fee 1").format(out="", at=10, heard="COOLDOWN")
    check(account(limits=cool, fee_rate=0.01), lost)


def test_a_stop_is_followed_by_the_pause_even_where_it_gained() -> None:
    check(
        account(limits=limits(cooldown_minutes=60), stops=Stops(take_profit_pct=10)),
        """
        10 10 10 10 .1 | 10 10 10 10 0  => A orders entry +10
        10 12 10 10 0  | 10 10 10 10 0  => A entry +10 @10, A take_profit -10 @11
        10 10 10 10 .1 | 10 10 10 10 .1 => A orders entry +10, B orders entry +10
        """,
    )
    check(
        account(limits=limits(cooldown_minutes=61), stops=Stops(take_profit_pct=10)),
        """
        10 10 10 10 .1 | 10 10 10 10 0  => A orders entry +10
        10 12 10 10 0  | 10 10 10 10 0  => A entry +10 @10, A take_profit -10 @11
        10 10 10 10 .1 | 10 10 10 10 .1 => A COOLDOWN, B orders entry +10
        """,
    )


@pytest.mark.parametrize(("percent", "lots"), [(29, 29), (30, 30), (31, 30)])
def test_a_symbols_own_exposure_reduces_an_entry(percent: float, lots: int) -> None:
    own = limits(max_exposure_pct_by_symbol={"A": percent}, max_position_usd=300)
    check(
        account(limits=own),
        f"""
        10 10 10 10 1 | 10 10 10 10 1 => A orders entry +{lots}, B orders entry +30
        """,
    )


def test_an_exposure_that_leaves_less_than_the_exchange_takes_refuses_with_its_own_code() -> None:
    check(
        account(limits=limits(max_exposure_pct_by_symbol={"A": 0.5}, max_exposure_pct=50)),
        """
        10 10 10 10 1 | 10 10 10 10 1 | 10 10 10 10 1 => A SYMBOL_EXPOSURE, B orders entry +50,
                                                      => C GROSS_EXPOSURE
        """,
    )


@pytest.mark.parametrize(("percent", "lots"), [(49, 19), (50, 20), (51, 21), (100, 70)])
def test_all_positions_together_leave_what_the_others_do_not_hold(
    percent: float, lots: int
) -> None:
    check(
        account(limits=limits(max_exposure_pct=percent)),
        f"""
        10 10 10 10 .3 | 10 10 10 10 1 => A orders entry +30, B orders entry +{lots}
        """,
    ) if percent == 100 else check(
        account(limits=limits(max_exposure_pct=percent, max_position_usd=300)),
        f"""
        10 10 10 10 1 | 10 10 10 10 1 => A orders entry +30, B orders entry +{lots}
        """,
    )


@pytest.mark.parametrize(("most", "heard"), [(1, "B ORDER_RATE"), (2, ""), (3, "")])
def test_so_many_orders_a_day_and_an_exit_counts_but_is_never_held_back(
    most: int, heard: str
) -> None:
    second = "B orders entry +10" if most > 1 else "B ORDER_RATE"
    fill = "B entry +10 @10, " if most > 1 else ""
    third, fourth = "B ORDER_RATE", f"B orders entry {'+20' if most > 1 else '+30'}"
    check(
        account(limits=limits(max_orders_per_day=most)),
        f"""
        10 10 10 10 .1 | 10 10 10 10 0  => A orders entry +10
        10 10 10 10 .1 | 10 10 10 10 .1 => A entry +10 @10, {second}
        10 10 10 10 0  | 10 10 10 10 .2 => {fill}A orders exit -10, {third}
        10 10 10 10 0  | 10 10 10 10 .3 => A exit -10 @10, {fourth}
        """,
        start="2024-01-01T20:00",
    )
    assert heard in ("", second)


@pytest.mark.parametrize(
    ("percent", "heard"),
    [(39, "B TURNOVER"), (40, "B orders entry +20"), (41, "B orders entry +20")],
)
def test_no_more_is_traded_in_a_day_than_the_turnover_allows(percent: float, heard: str) -> None:
    check(
        account(limits=limits(max_daily_turnover_pct=percent)),
        f"""
        10 10 10 10 .2 | 10 10 10 10 0  => A orders entry +20
        10 10 10 10 .2 | 10 10 10 10 .2 => A entry +20 @10, {heard}
        """,
    )


@pytest.mark.parametrize(
    ("open_", "heard"),
    [
        (109, "A entry +9 @109"),
        (110, "A entry +9 @110"),
        (111, "A entry +0 @111 PRICE_COLLAR"),
        (91, "A entry +9 @91"),
        (90, "A entry +9 @90"),
        (89, "A entry +0 @89 PRICE_COLLAR"),
    ],
)
def test_an_entry_fills_no_further_from_the_last_close_than_the_collar(
    open_: int, heard: str
) -> None:
    check(
        account(limits=limits(price_collar_pct=10)),
        f"""
        100 100 100 100 .9 => A orders entry +9
        {open_} 120 80 100 .9 => {heard}
        """,
    )


def test_an_exit_fills_outside_the_collar() -> None:
    check(
        account(limits=limits(price_collar_pct=1)),
        """
        100 100 100 100 .9 => A orders entry +9
        100 100 100 100 0  => A entry +9 @100, A orders exit -9
         50  50  50  50 0  => A exit -9 @50
        """,
    )


@pytest.mark.parametrize(
    ("minutes", "third", "fourth"),
    [
        (119, "A orders time_stop -10", "A time_stop -10 @12"),
        (120, "A orders time_stop -10", "A time_stop -10 @12"),
        (121, "", "A orders time_stop -10"),
    ],
)
def test_a_position_is_sold_once_so_much_time_has_passed_since_its_entry_was_decided(
    minutes: int, third: str, fourth: str
) -> None:
    last = "A time_stop -10 @13" if minutes > 120 else ""
    check(
        account(stops=Stops(time_stop_minutes=minutes)),
        f"""
        10 10 10 10 .1 => A orders entry +10
        10 10 10 10 .1 => A entry +10 @10
        11 11 11 11 .1 => {third}
        12 12 12 12 .1 => {fourth}
        13 13 13 13 .1 => {last}
        13 13 13 13 .1 =>
        """,
    )


def test_a_target_that_rises_as_the_time_ends_is_used_up() -> None:
    check(
        account(stops=Stops(time_stop_minutes=60)),
        """
        10 10 10 10 .1 => A orders entry +10
        10 10 10 10 .2 => A entry +10 @10, A orders time_stop -10, A TIME_STOP_DUE
        10 10 10 10 .2 => A time_stop -10 @10
        10 10 10 10 .3 => A orders entry +30
        """,
    )


def test_the_time_stop_works_without_limits_and_after_a_kill() -> None:
    for free, kill in ((None, ()), (WIDE, (1,))):
        check(
            account(limits=free, stops=Stops(time_stop_minutes=60)),
            """
            10 10 10 10 1 => A orders entry +100
            10 10 10 10 1 => A entry +100 @10, A orders time_stop -100
            10 10 10 10 1 => A time_stop -100 @10
            """,
            kill=kill,
        )


def test_reduce_only_holds_entries_back_until_it_is_taken_back_and_leaves_the_peak() -> None:
    log = check(
        account(),
        """
        10 10 10 10 .1 | 10 10 10 10 0  => A orders entry +10
        12 12 12 12 .1 | 10 10 10 10 .1 => A entry +10 @12, B REDUCE_ONLY
        11 11 11 11 0  | 10 10 10 10 .2 => A orders exit -10, B REDUCE_ONLY
        11 11 11 11 0  | 10 10 10 10 .3 => A exit -10 @11, B orders entry +29
        """,
        moves={1: Move.REDUCE, 3: Move.RESUME},
    )
    assert not log.tripped.any()
    assert log.peak.tolist() == [1_000] * 4


# --- sizes


@pytest.mark.parametrize(("risk", "lots"), [(1, 20), (2, 40), (5, 100), (6, 100)])
def test_a_position_is_as_large_as_its_stop_may_lose(risk: float, lots: int) -> None:
    # A stop 5 % below the entry loses 1 % of 1,000 on a position of 200.
    check(
        account(limits=limits(risk_per_trade_pct=risk), stops=Stops(stop_loss_pct=5)),
        f"10 10 10 10 1 => A orders entry +{lots}",
    )


def test_risk_is_sized_by_the_nearer_of_two_stops_and_needs_one() -> None:
    both = Stops(stop_loss_pct=10, trailing_stop_pct=5)
    check(
        account(limits=limits(risk_per_trade_pct=1), stops=both),
        "10 10 10 10 1 => A orders entry +20",
    )
    with pytest.raises(ParameterError, match="a stop_loss_pct or trailing_stop_pct"):
        Account(limits=Limits(risk_per_trade_pct=1))


def test_volatility_is_the_yearly_deviation_of_log_returns_and_knows_no_later_candle() -> None:
    rng = np.random.default_rng(5)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, 300)))
    ts = utc_ms("2024-01-01") + np.arange(300) * 3_600_000
    one = Candles("A", "1h", ts, close, close, close, close, np.ones(300))
    known = yearly_volatility(one, 24)
    assert np.isnan(known[:24]).all()
    for t in (24, 25, 100, 299):
        returns = [math.log(close[i] / close[i - 1]) for i in range(t - 23, t + 1)]
        expected = statistics.stdev(returns) * math.sqrt(365 * 24)
        assert known[t] == pytest.approx(expected, rel=1e-9)
    shorter = Candles("A", "1h", ts[:200], *[close[:200]] * 4, np.ones(200))
    assert yearly_volatility(shorter, 24).tolist()[24:] == known[24:200].tolist()


@pytest.mark.parametrize(
    ("volatility", "money"),
    [(0.0, math.inf), (0.5, 2_000), (1.0, 1_000), (2.0, 500), (math.nan, 0)],
)
def test_a_volatile_symbol_gets_less_room_and_one_not_yet_known_none(
    volatility: float, money: float
) -> None:
    rules = rules_for(Account(limits=Limits(target_volatility_pct=100)), ["A"])
    assert room_for(1_000.0, 0.0, volatility, rules, 0)[0] == money


def test_an_entry_before_volatility_is_known_is_refused_with_its_code() -> None:
    log = check(
        account(limits=limits(target_volatility_pct=100, volatility_bars=2)),
        """
        10 10 10 10 .1 => A VOLATILITY
        10 10 10 10 .2 => A VOLATILITY
        10 10 10 10 .3 => A orders entry +30
        10 10 10 10 .3 => A entry +30 @10
        """,
    )
    assert log.equity.tolist() == [1_000] * 4
