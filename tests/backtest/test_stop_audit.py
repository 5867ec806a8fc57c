"""The stop audit: tables to check with a pencil, a naive oracle, real candles, and sabotage."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import research as rs
from research import engine, stop_audit, stop_replay
from research.account import Account, Filters, Limits, Stops
from research.backtesting import Backtest, backtest, run_tape
from research.candles import COLUMNS, Candles, CandleSet, utc_ms
from research.errors import CandlesRejected, InputError, ParameterError
from research.resampling import resample
from research.state import STOPS
from research.stop_findings import DIFFERENCES, Finding, StopAudit
from research.strategy import Targets, make_strategy
from research.tape import tape_of
from tests.backtest.stop_oracle import Verdict, verdicts

START = utc_ms("2024")
HOUR, QUARTER = 3_600_000, 900_000
FREE = Account(
    initial_cash=1_000,
    fee_rate=0,
    slippage_bps=0,
    limits=None,
    filters={one: Filters(lot_step=Decimal(1)) for one in ("AAA", "BBB")},
)


def candles_of(
    rows: Any, timeframe: str = "15m", symbol: str = "AAA", start: int = START
) -> Candles:
    """Candles from rows of open, high, low, close."""
    values = np.asarray(rows, np.float64)
    step = rs.Candles(symbol, timeframe, *(np.array([]) for _ in range(6))).bar_ms
    ts = start + step * np.arange(len(values), dtype=np.int64)
    return Candles(symbol, timeframe, ts, *values.T, np.ones(len(values)))


def run_over(
    hours: CandleSet, account: Account, targets: list[np.ndarray], name: str = "audited"
) -> Backtest:
    """A run of given targets; whether a gap was accepted is not asked."""
    made = tuple(Targets(one, np.zeros(len(one)), np.zeros(len(one), np.int64)) for one in targets)
    tape = tape_of(hours, made)
    return run_tape(make_strategy("sma_crossover"), hours, account, made, tape, name)


# By hand: ten lots are bought at 100, at the open of the second hour. A row is a quarter hour.


def pencil(
    text: str, account: Account = FREE, sold: int | None = None, **stops: float
) -> StopAudit:
    """The audit of the one trade of a table that begins with the hour of the entry.

    An empty line parts the hours; at the close of hour ``sold`` (the first is 1) it is sold.
    """
    rows = [[100.0] * 4] * 4 + [
        [float(word) for word in line.split()] for line in text.strip().splitlines() if line.strip()
    ]
    fine = candles_of(rows)
    hours = resample(fine, "1h")
    target = np.full(len(hours), math.nan)
    target[0] = 1.0
    if sold is not None:
        target[sold] = 0.0
    account = account.model_copy(update={"stops": Stops(**stops)})
    audit = run_over(CandleSet((hours,)), account, [target]).audit_stops(fine)
    assert len(audit.frame) == 1
    return audit


def told(audit: StopAudit) -> tuple[Any, ...]:
    """Finding, then exit, hour and price by the run's bars and by the finer candles."""
    row = audit.frame.iloc[0]
    hours = [(one - audit.frame["opened_at"][0]) // pd.Timedelta(hours=1) for one in
             (row["bar"], row["fine_bar"])]  # fmt: skip
    prices = [round(row[name], 9) for name in ("price", "fine_price")]
    return (row["finding"], row["exit"], hours[0], prices[0],
            row["fine_exit"], hours[1], prices[1])  # fmt: skip


UP_THEN_DOWN = """
    100 106 100 104
    104 104  94  96
     96  97  95  97
     97  98  96  98
"""
DOWN_THEN_UP = """
    100 100  94  96
     96 106  96 104
    104 104 103 103
    103 103 102 102
"""


def test_a_target_that_came_before_the_stop_is_found_and_counted() -> None:
    audit = pencil(UP_THEN_DOWN, stop_loss_pct=5, take_profit_pct=5)
    assert told(audit) == ("other stop", "stop_loss", 0, 95, "take_profit", 0, 105)
    assert (audit.both_inside, audit.target_first) == (1, 1)
    assert audit.share == 1
    assert audit.shares[Finding.INTENT] == 1
    assert (audit.pnl, audit.pnl_change) == (-50, 100)
    assert audit.mean_bps == pytest.approx((105 / 95 - 1) * 10_000)
    assert audit.frame["fine_at"][0] == pd.Timestamp("2024-01-01T01:15", tz="UTC")


def test_a_stop_that_came_before_the_target_confirms_the_engine() -> None:
    audit = pencil(DOWN_THEN_UP, stop_loss_pct=5, take_profit_pct=5)
    assert told(audit) == ("same", "stop_loss", 0, 95, "stop_loss", 0, 95)
    assert (audit.both_inside, audit.target_first) == (1, 0)
    assert (audit.share, audit.pnl_change) == (0, 0)


def test_a_bar_that_opens_beyond_its_stop_has_nothing_to_doubt() -> None:
    quiet = "100 100 100 100\n" * 4
    audit = pencil(f"{quiet}\n94 106 94 100\n{quiet[:48]}", stop_loss_pct=5, take_profit_pct=5)
    assert told(audit) == ("same", "stop_loss", 1, 94, "stop_loss", 1, 94)
    assert audit.both_inside == 0


def test_a_price_that_leaps_over_the_stop_between_two_quarters_sells_at_their_open() -> None:
    rows = "100 100 99 99\n 93 94 92 93\n 93 93 93 93\n 93 93 93 93"
    audit = pencil(rows, stop_loss_pct=5)
    assert told(audit) == ("other price", "stop_loss", 0, 95, "stop_loss", 0, 93)
    assert audit.pnl_change == -20


def test_a_price_that_leaps_over_the_target_sells_at_their_open_too() -> None:
    rows = "100 104 100 104\n 107 107 106 106\n 106 106 106 106\n 106 106 106 106"
    audit = pencil(rows, take_profit_pct=5)
    assert told(audit) == ("other price", "take_profit", 0, 105, "take_profit", 0, 107)
    assert audit.pnl_change == 20


ROSE_AND_FELL = """
    100 120 100 118
    118 118 107 110
    110 112 109 110
    110 110 110 110
"""


def test_a_trailing_level_that_rose_within_the_hour_sells_earlier_and_dearer() -> None:
    later = "104 105 104 104\n" * 4
    audit = pencil(f"{ROSE_AND_FELL}\n{later}", trailing_stop_pct=10)
    assert told(audit) == ("other bar", "trailing_stop", 1, 104, "trailing_stop", 0, 108)
    assert audit.pnl_change == 40


def test_a_trailing_level_that_rose_within_the_hour_may_sell_what_went_on_to_rise() -> None:
    later = "110 130 110 130\n" + "130 130 130 130\n" * 3
    audit = pencil(f"{ROSE_AND_FELL}\n{later}", trailing_stop_pct=10)
    words = "stopped on the finer candles only"
    assert told(audit) == (words, "open", 1, 130, "trailing_stop", 0, 108)
    assert audit.pnl_change == -220
    assert audit.frame["price_bps"][0] == pytest.approx((108 / 130 - 1) * 10_000)


def test_the_open_of_the_next_quarter_meets_the_level_of_the_quarter_before() -> None:
    rows = "100 120 100 118\n 100 101 100 100\n 100 100 100 100\n 100 100 100 100"
    audit = pencil(rows, trailing_stop_pct=10)
    # The hour's low of 100 is above its level of 90; the level of the first quarter is 108.
    assert told(audit)[4:] == ("trailing_stop", 0, 100)


def test_what_the_exchange_refuses_after_a_leap_is_held_and_valued_at_the_close() -> None:
    filters = Filters(lot_step=Decimal(1), min_notional=Decimal(940))
    account = FREE.model_copy(update={"filters": {"AAA": filters}})
    rows = "100 100 99 99\n 93 94 92 93\n 93 93 93 93\n 93 93 91 91"
    audit = pencil(rows, account, stop_loss_pct=5)
    words = "stopped on the run's bars only"
    assert told(audit) == (words, "stop_loss", 0, 95, "held", 0, 91)
    assert audit.pnl_change == -40
    assert pd.isna(audit.frame["fine_at"][0])


def test_slippage_and_fee_are_those_of_the_run_and_a_target_slips_nowhere() -> None:
    account = FREE.model_copy(update={"slippage_bps": 100, "fee_rate": 0.01, "initial_cash": 2000})
    row = pencil(UP_THEN_DOWN, account, stop_loss_pct=5, take_profit_pct=4).frame.iloc[0]
    lots = row["quantity"]
    assert row["entry_price"] == 101
    assert row["price"] == 101 * 0.95 * 0.99
    assert row["fine_price"] == 101 * 1.04
    paid = lots * 101 * 1.01
    assert row["fine_pnl"] == pytest.approx(lots * 101 * 1.04 * 0.99 - paid)
    assert row["pnl"] == pytest.approx(lots * 101 * 0.95 * 0.99 * 0.99 - paid)


@pytest.mark.parametrize(
    ("sold", "stops", "intent"),
    [(1, {}, "exit"), (None, {"time_stop_minutes": 60}, "time_stop")],
)
def test_a_trade_that_the_run_itself_sold_is_the_same_unless_a_finer_stop_came_first(
    sold: int | None, stops: dict[str, int], intent: str
) -> None:
    after = "104 105 104 104\n" * 4
    audit = pencil(f"{ROSE_AND_FELL}\n{after}", sold=sold, stop_loss_pct=5, **stops)
    assert told(audit) == ("same", intent, 1, 104, intent, 1, 104)
    stopped = pencil(f"{ROSE_AND_FELL}\n{after}", sold=sold, trailing_stop_pct=10, **stops)
    words = "stopped on the finer candles only"
    assert told(stopped) == (words, intent, 1, 104, "trailing_stop", 0, 108)


def test_a_trade_that_lacks_one_quarter_is_counted_and_not_judged() -> None:
    fine = candles_of([[100.0] * 4] * 4 + [[100, 100, 94, 94]] * 4)
    hours = CandleSet((resample(fine, "1h"),))
    account = FREE.model_copy(update={"stops": Stops(stop_loss_pct=5)})
    run = run_over(hours, account, [np.array([1.0, math.nan])])
    whole, lacking = run.audit_stops(fine), run.audit_stops(fine.rows(0, 7))
    assert (whole.not_covered, lacking.not_covered) == (0, 1)
    assert len(lacking.audited) == 0
    assert math.isnan(lacking.share)
    assert lacking.shares.isna().all()
    assert lacking.frame["fine_price"].isna().all()
    assert "not known" in repr(lacking)
    # A quarter that it does not need may be missing.
    assert run.audit_stops(fine.rows(1, 8)).not_covered == 0


def test_candles_of_another_source_are_judged_and_told_apart() -> None:
    fine = candles_of([[100.0] * 4] * 4 + [[100, 100, 96, 98]] * 4)
    other = candles_of([[100.0] * 4] * 4 + [[100, 100, 94, 98]] * 4)
    account = FREE.model_copy(update={"stops": Stops(stop_loss_pct=5)})
    run = run_over(CandleSet((resample(fine, "1h"),)), account, [np.array([1.0, math.nan])])
    same, differs = run.audit_stops(fine), run.audit_stops(other)
    assert (same.frame["adds_up"][0], differs.frame["adds_up"][0]) == (True, False)
    assert "do not add up" in repr(differs)
    assert "do not add up" not in repr(same)


# Random walks on a finer timeframe, resampled; half of them of round prices without costs.


@dataclass(frozen=True)
class Walked:
    run: Backtest
    fine: CandleSet
    consistent: bool


def walked(seed: int) -> Walked:
    """The same run and finer candles for the same seed."""
    rng = Random(seed)  # noqa: S311 - nothing secret depends on it
    count, coarse = rng.choice([2, 4, 12]), rng.random() < 0.5
    timeframe = {2: "30m", 4: "15m", 12: "5m"}[count]
    symbols = ["AAA", "BBB"][: rng.randint(1, 2)]
    bars = rng.randint(2, 14)
    holes, restated = rng.random() < 0.25, rng.random() < 0.2
    fine, hours, targets = [], [], []
    for symbol in symbols:
        one = _random_walk(rng, symbol, timeframe, bars * count, coarse)
        if holes:
            kept = sorted(rng.sample(range(len(one)), len(one) - rng.randint(1, 3)))
            one = _taken(one, [0, *[i for i in kept if i not in (0, len(one) - 1)], len(one) - 1])
        fine.append(one)
        hours.append(_restated(rng, resample(one, "1h")) if restated else resample(one, "1h"))
        wanted = [rng.choice([math.nan] * 5 + [0.0, 0.5, 1.0, 1.0]) for _ in range(len(hours[-1]))]
        wanted[0] = rng.choice([1.0, 0.5])
        targets.append(np.array(wanted))
    account = _random_account(rng, symbols, coarse)
    run = run_over(CandleSet(tuple(hours)), account, targets)
    known = fine[1:] if len(fine) == 2 and rng.random() < 0.1 else fine
    return Walked(run, CandleSet(tuple(known)), not restated)


def _random_walk(rng: Random, symbol: str, timeframe: str, bars: int, coarse: bool) -> Candles:
    rows, price = [], 100.0
    move: Callable[[float], float] = (
        (lambda spread: float(rng.randint(-int(spread), int(spread))))
        if coarse
        else (lambda spread: rng.gauss(0, spread / 2))
    )
    for _ in range(bars):
        opened = price if rng.random() < 0.7 else max(price + move(3), 20.0)
        price = max(opened + move(3), 20.0)
        high, low = max(opened, price) + abs(move(2)), min(opened, price) - abs(move(2))
        rows.append((opened, high, max(low, 10.0), price))
    return candles_of(rows, timeframe, symbol)


def _taken(one: Candles, rows: list[int]) -> Candles:
    return Candles(
        one.symbol, one.timeframe, *(getattr(one, name)[rows] for name in ("ts", *COLUMNS))
    )


def _restated(rng: Random, one: Candles) -> Candles:
    changed = np.array([rng.random() < 0.3 for _ in range(len(one))])
    return replace(
        one,
        high=np.where(changed, one.high * 1.03, one.high),
        low=np.where(changed, one.low * 0.98, one.low),
    )


def _random_account(rng: Random, symbols: list[str], coarse: bool) -> Account:
    pick = rng.choice
    step = Decimal(pick(["1", "0.001", "0.3"]))
    filters = Filters(
        lot_step=step,
        min_quantity=step * pick([0, 0, 2]),
        min_notional=Decimal(pick([0, 0, 0, 450, 480, 930])),
    )
    stops = None
    while stops is None:
        levels = [pick([None, 2, 3, 5, 10]) for _ in range(3)]
        if any(levels):
            named = dict(
                zip(("stop_loss_pct", "take_profit_pct", "trailing_stop_pct"), levels, strict=True)
            )
            stops = Stops(**named, time_stop_minutes=pick([None, None, None, 120]))
    return Account(
        initial_cash=1_000,
        fee_rate=0 if coarse else pick([0, 0.001]),
        slippage_bps=0 if coarse else pick([0, 5, 100]),
        limits=pick([None, Limits(max_position_pct=100, max_drawdown_pct=pick([5, 100]))]),
        stops=stops,
        filters=dict.fromkeys(symbols, filters),
    )


def faults(audit: StopAudit, expected: list[Verdict]) -> list[str]:
    """Where an audit does not say what the oracle says, in words."""
    rows = audit.frame.to_dict("records")
    if len(rows) != len(expected):
        return [f"{len(rows)} trades, expected {len(expected)}"]
    return [
        f"trade {i}: {name} is {row[name]}, expected {wanted}"
        for i, (row, verdict) in enumerate(zip(rows, expected, strict=True))
        for name, wanted in vars(verdict).items()
        if not _equal(row[name], wanted)
    ]


def _equal(got: Any, wanted: Any) -> bool:
    if wanted is None:
        return got == "" or bool(pd.isna(got))
    if isinstance(got, pd.Timestamp):
        return got.value // 1_000_000 == int(wanted)
    if isinstance(wanted, float) and isinstance(got, float):
        return math.isclose(got, wanted, rel_tol=1e-9, abs_tol=1e-7)
    return bool(got == wanted)


@given(st.integers(0, 2**40))
def test_the_audit_says_what_a_naive_walk_through_the_candles_says(seed: int) -> None:
    made = walked(seed)
    assert faults(made.run.audit_stops(made.fine), list(verdicts(made.run, made.fine))) == []


def test_the_walks_bring_about_every_finding_and_every_end() -> None:
    findings, exits = Counter[str](), Counter[str]()
    both, inside = 0, 0
    for seed in range(400):
        made = walked(seed)
        audit = made.run.audit_stops(made.fine)
        findings.update(audit.frame["finding"])
        exits.update(audit.frame["exit"])
        both, inside = both + audit.target_first, inside + audit.both_inside
    assert findings.keys() == set(map(str, Finding))
    assert min(findings.values()) >= 5, findings
    assert exits.keys() >= {*STOPS, "exit", "time_stop", "open"}
    assert 0 < both < inside


@given(st.integers(0, 2**40))
def test_a_run_audited_on_its_own_bars_differs_nowhere(seed: int) -> None:
    run = walked(seed).run
    audit = stop_audit._compared(run, run.candles)
    assert audit.share == 0 or math.isnan(audit.share)
    assert audit.not_covered == 0
    frame = audit.frame
    assert frame["adds_up"].all()
    for name in ("exit", "bar", "price", "pnl"):
        assert (frame[name] == frame[f"fine_{name}"]).all()
    # Trades that have ended are those of the blotter, with the same profit to the bit.
    ended = frame[frame["exit"] != "open"]
    ours = sorted(zip(ended["symbol"], ended["opened_at"], ended["pnl"], strict=True))
    trades = run.trades
    assert ours == sorted(zip(trades["symbol"], trades["opened_at"], trades["pnl"], strict=True))


@given(st.integers(0, 2**40))
def test_on_consistent_candles_a_finer_stop_never_comes_later(seed: int) -> None:
    """Levels are never lower on finer candles, so what the hour's low reaches was reached there.

    Fixed levels are met in the same bar; only a trailing one moves the bar.
    """
    made = walked(seed)
    if not made.consistent or any(
        one.min_notional for one in (made.run.account.filters or {}).values()
    ):
        return
    audit = made.run.audit_stops(made.fine)
    found = audit.audited
    assert (found["finding"] != Finding.COARSE_ONLY).all()
    assert (found["fine_bar"] <= found["bar"]).all()
    assert found["adds_up"].all()
    if made.run.account.stops.trailing_stop_pct is None:
        assert (found["finding"] != Finding.BAR).all()
        assert (found["finding"] != Finding.FINE_ONLY).all()


def test_the_compiled_engine_gives_the_same_audit() -> None:
    for seed in range(40):
        made = walked(seed)
        run, side = made.run, made.fine
        for held in stop_replay.holdings_of(run):
            if run.symbols[held.s] not in side.symbols:
                continue
            bars, rules = stop_replay.symbol_tape(run, held.s), stop_replay.stop_rules(run, held.s)
            laid = stop_replay.laid_beside(bars, HOUR, side[run.symbols[held.s]])
            rows = held.rows[laid.covered[held.rows]]
            if not len(rows) or rows[0] != held.rows[0]:
                continue
            both = [
                stop_replay.replay(held, rows, bars, laid, rules, compiled=one)[1]
                for one in (False, True)
            ]
            assert both[0] == both[1]


def test_a_replay_in_small_pieces_is_the_replay_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [walked(seed) for seed in range(60)]
    whole = [one.run.audit_stops(one.fine).frame for one in made]
    monkeypatch.setattr(stop_replay, "_CANDLES_AT_A_TIME", 1)
    for one, frame in zip(made, whole, strict=True):
        pd.testing.assert_frame_equal(one.run.audit_stops(one.fine).frame, frame)


# What is sabotaged is found. The runs and the oracle's verdicts are made before.

SABOTAGE: dict[str, tuple[ModuleType, str, str, str]] = {
    "the candles of a bar in reverse": (
        stop_replay, "Laid.candles", "np.arange(self.count)", "np.arange(self.count)[::-1]"),
    "the last candle of a bar left out": (
        stop_replay, "Laid.candles", "np.arange(self.count)", "np.minimum(np.arange(self.count), "
        "self.count - 2)"),
    "a bar that lacks its last candle is covered": (
        stop_replay, "laid_beside", "ts[np.minimum(last, len(candles))] == closing",
        "ts[np.minimum(last, len(candles)) - 1] >= opens"),
    "the time stop acts on finer candles": (
        stop_replay, "stop_rules", "._replace(time_stop=0)", ""),
    "no slippage": (stop_replay, "stop_rules", "time_stop=0", "time_stop=0, slippage=0.0"),
    "the exchange refuses nothing": (
        stop_replay, "stop_rules", "time_stop=0", "time_stop=0, min_notional=[0.0]"),
    "later fills are left out": (
        stop_replay, "replay", "state = _filled(state, leg, bars, rules)",
        "state = _filled(state, leg, bars, rules) if leg is held.legs[0] else state"),
    "the bar of the exit is not replayed": (
        stop_replay, "_of_symbol", "held(legs[0].row, t + 1)", "held(legs[0].row, t)"),
    "the bar after the exit is replayed": (
        stop_replay, "_of_symbol", "held(legs[0].row, t), sold", "held(legs[0].row, t + 1), sold"),
    "an open that decides counts as both inside": (
        stop_replay, "has_both_inside", "and its_open.stop_lots[0, 0] == 0", ""),
    "a trailing level follows a candle before its check": (
        engine, "_run_stops", "        trail = state.high[s]",
        "        state.high[s] = max(state.high[s], tape.high[t][s])\n"
        "        trail = state.high[s]"),
    "the target goes first": (
        engine, "_run_stops", "(tape.low[t][s] <= stop and opened < goal)",
        "(tape.low[t][s] <= stop and tape.high[t][s] < goal)"),
    "a gap fills at the stop": (engine, "_run_stops", "min(opened, stop)", "stop"),
    "another bar is no difference": (
        stop_audit, "_finding", "fine.row != coarse.row", "False"),
    "fills after a finer exit count": (
        stop_audit, "_sold", "leg.row <= end.row", "True"),
    "fees of the exit are forgotten": (stop_audit, "_sold", "- end.fee", ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def judged() -> list[tuple[Walked, list[Verdict]]]:
    made = [walked(seed) for seed in range(300)]
    return [(one, list(verdicts(one.run, one.fine))) for one in made]


def test_nothing_is_found_where_nothing_is_sabotaged(
    judged: list[tuple[Walked, list[Verdict]]],
) -> None:
    assert [faults(one.run.audit_stops(one.fine), wanted) for one, wanted in judged] == [
        [] for _ in judged
    ]


@pytest.mark.parametrize(("module", "name", "old", "new"), SABOTAGE.values(), ids=SABOTAGE)
def test_a_sabotaged_audit_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    judged: list[tuple[Walked, list[Verdict]]],
    module: ModuleType,
    name: str,
    old: str,
    new: str,
) -> None:
    owner, _, attribute = name.rpartition(".")
    original = getattr(getattr(module, owner) if owner else module, attribute)
    source = inspect.cleandoc("\n" + inspect.getsource(original))
    assert source.count(old) == 1, source
    names = dict(vars(module))
    exec(source.replace(old, new), names)  # noqa: S102
    for place in (engine, stop_replay, stop_replay.Laid, stop_audit):
        if vars(place).get(attribute) is original:
            monkeypatch.setattr(place, attribute, names[attribute])
    for made, wanted in judged:
        if faults(made.run.audit_stops(made.fine), wanted):
            return
    pytest.fail("nobody noticed")


# What is refused, and what it shows.


def small_run(**stops: float) -> tuple[Backtest, Candles]:
    fine = candles_of([[100.0] * 4] * 8)
    account = FREE.model_copy(update={"stops": Stops(**stops)})
    hours = CandleSet((resample(fine, "1h"),))
    return run_over(hours, account, [np.array([1.0, math.nan])]), fine


@pytest.mark.parametrize("stops", [{}, {"time_stop_minutes": 60}])
def test_an_account_without_a_stop_at_a_price_has_nothing_to_audit(stops: Any) -> None:
    run, fine = small_run(**stops)
    with pytest.raises(InputError, match=r"no stop that acts at a price.*stop_loss_pct=2"):
        run.audit_stops(fine)


@pytest.mark.parametrize("timeframe", ["1h", "2h", "1d"])
def test_a_timeframe_that_is_not_finer_is_refused(timeframe: str) -> None:
    run, _ = small_run(stop_loss_pct=5)
    with pytest.raises(ParameterError, match=r"expected a shorter one that divides 1h"):
        run.audit_stops(candles_of([[100.0] * 4] * 8, timeframe))


def test_a_timeframe_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"divides 8h, got \"6h\""):
        stop_audit.require_auditable(Account(stops=Stops(stop_loss_pct=1)), "8h", "6h")


def test_a_run_that_fills_in_parts_is_refused() -> None:
    run, fine = small_run(stop_loss_pct=5)
    account = run.account.model_copy(update={"volume_share_pct": 1.0})
    with pytest.raises(InputError, match="an exit in parts"):
        run_over(run.candles, account, [np.array([1.0, math.nan])]).audit_stops(fine)


def test_candles_that_are_not_candles_or_of_other_symbols_or_unsound_are_refused() -> None:
    run, fine = small_run(stop_loss_pct=5)
    with pytest.raises(InputError, match="a CandleSet"):
        run.audit_stops("1m")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"some of the run's symbols: AAA, got \"BBB\""):
        run.audit_stops(candles_of([[100.0] * 4] * 8, symbol="BBB"))
    with pytest.raises(CandlesRejected, match="high_below_low"):
        run.audit_stops(replace(fine, low=fine.high + 1))


def test_a_run_without_a_trade_has_an_audit_without_a_row() -> None:
    run, fine = small_run(stop_loss_pct=5)
    idle = run_over(run.candles, run.account, [np.full(2, math.nan)])
    audit = rs.audit_stops(idle, fine)
    assert audit.frame.empty
    assert math.isnan(audit.share)
    assert list(audit.frame.columns) == list(run.audit_stops(fine).frame.columns)
    assert "Trades" in repr(audit)


def test_it_says_in_plain_words_what_was_found() -> None:
    audit = pencil(UP_THEN_DOWN, stop_loss_pct=5, take_profit_pct=5)
    text = repr(audit)
    for words in (
        "Stops of a run over 1h bars of AAA, replayed on 15m candles",
        "stop-loss 5 %, take-profit 5 %",
        "100.0%, 1 of 1",
        "other stop",
        "-50.00 on 1h bars, +50.00 with the exits of the 15m candles",
        "a change of +100.00 (+10.00% of the cash",
        "the 15m candles met the target first in 1 of them",
    ):
        assert words in text, text
    page = audit._repr_html_()
    assert page.count("<tr>") == len(text.splitlines()) - 1
    assert "<script" not in page
    summary = audit.summary()
    assert summary["shares"] == {
        kind.name.lower(): float(kind is Finding.INTENT) for kind in DIFFERENCES
    }
    assert (summary["audited"], summary["stopped"], summary["target_first"]) == (1, 1, 1)


def test_shares_add_up_to_the_share_that_differs() -> None:
    for seed in range(40):
        made = walked(seed)
        audit = made.run.audit_stops(made.fine)
        if len(audit.audited):
            assert audit.shares.sum() == pytest.approx(audit.share)


# Real candles.


PAGE = Path(__file__).resolve().parents[2] / "knowledge" / "stop_audit.md"
WIDE = Limits(max_position_pct=100, max_daily_loss_pct=100, max_drawdown_pct=100)
FIXED = {"stop_loss_pct": 2, "take_profit_pct": 5}
TRAILING = {"trailing_stop_pct": 3}


@pytest.fixture(scope="module")
def bitcoin(shared: Path) -> tuple[CandleSet, Candles]:
    """Hours and minutes of 2024 and half of 2025."""
    folder = shared / "history" / "binance" / "BTCUSDT"
    start, end = utc_ms("2024-01-01"), utc_ms("2025-07-01")
    hours, minutes = (
        Candles.from_frame("BTCUSDT", one, pd.read_parquet(folder / f"{one}.parquet"))
        for one in ("1h", "1m")
    )
    return CandleSet((hours.between(start, end),)), minutes


def real_audit(candles: tuple[CandleSet, Candles], **stops: float) -> StopAudit:
    account = Account(limits=WIDE, stops=Stops(**stops))
    return backtest(make_strategy("sma_crossover"), candles[0], account).audit_stops(candles[1])


def test_the_page_has_the_figures_of_real_minutes(bitcoin: tuple[CandleSet, Candles]) -> None:
    cells = []
    for stops in (FIXED, TRAILING, FIXED | TRAILING):
        audit = real_audit(bitcoin, **stops)
        assert audit.not_covered == 0
        assert audit.frame["adds_up"].all()
        cells.append(f"{len(audit.differing)} of {len(audit.frame)}")
    assert f"| SmaCrossover | {' | '.join(cells)} |" in PAGE.read_text("utf-8")


def test_the_page_lists_every_finding() -> None:
    text = PAGE.read_text("utf-8")
    assert [one for one in (Finding.SAME, *DIFFERENCES) if f"| {one} |" not in text] == []


def test_the_naive_walk_agrees_on_real_minutes(bitcoin: tuple[CandleSet, Candles]) -> None:
    spring = utc_ms("2024-03-01"), utc_ms("2024-05-01")
    hours, minutes = (one.between(*spring) for one in bitcoin)
    account = Account(limits=WIDE, stops=Stops(**FIXED, **TRAILING))
    run = backtest(make_strategy("sma_crossover", fast=5, slow=20), hours, account)
    expected = list(verdicts(run, CandleSet((minutes,))))
    assert len(expected) > 30
    assert faults(run.audit_stops(minutes), expected) == []
