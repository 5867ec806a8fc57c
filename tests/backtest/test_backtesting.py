"""One run: what it refuses, what it shows, and that it is the same everywhere.

Run as a script, this file prints the digest of a run: another process must print the same.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from research.account import Account, Limits, Stops
from research.backtesting import Backtest, backtest
from research.blotter import OrderStatus
from research.candles import COLUMNS, Candles, CandleSet, Gap, find_gaps, utc_ms
from research.errors import (
    CandlesRejected,
    GapNotAccepted,
    HistoryMissing,
    InputError,
    UnknownNameError,
)
from research.metrics import METRICS
from research.settings import load_settings
from research.state import STOPS
from research.strategies.rsi_reversal import RsiReversal
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles
from research.tape import Intervention, Move

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3_600_000
SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
START = utc_ms("2024")
WIDE = Limits(max_position_pct=30, max_drawdown_pct=100, max_daily_loss_pct=100)
QUICK = SmaCrossover(fast=5, slow=20)


def made_up(bars: int = 1000, seed: int = 7, symbols: list[str] = SYMBOLS) -> CandleSet:
    return synthetic_candles(symbols, "1h", "2024", bars, seed)


def without(one: Candles, *missing: int) -> Candles:
    kept = ~np.isin(np.arange(len(one)), missing)
    return Candles(one.symbol, one.timeframe, *(getattr(one, c)[kept] for c in ("ts", *COLUMNS)))


def short_run() -> Backtest:
    account = Account(limits=WIDE, stops=Stops(trailing_stop_pct=2))
    return backtest(QUICK, made_up(), account, name="short")


@pytest.fixture(scope="module")
def run() -> Backtest:
    return short_run()


@pytest.fixture(scope="module")
def real(shared: Path) -> CandleSet:
    """Hours around the outage of 2023-03-24 13:00, as Binance has them; nothing accepted."""
    folder = shared / "history" / "binance"
    series = []
    for symbol in SYMBOLS:
        frame = pd.read_parquet(folder / symbol / "1h.parquet")
        series.append(Candles.from_frame(symbol, "1h", frame))
    return CandleSet(tuple(series), (), "binance").between(utc_ms("2023-03"), utc_ms("2023-04"))


# What is refused.


def test_a_gap_that_nobody_accepted_stops_the_run_and_says_how_to_accept_it() -> None:
    btc, eth, sol = made_up(100)
    holed = CandleSet((btc, without(eth, 50, 51), sol))
    with pytest.raises(GapNotAccepted, match="2 bars are missing") as caught:
        backtest(QUICK, holed, Account())
    assert caught.value.field == "ETHUSDT 1h at 2024-01-03T02:00Z"
    assert "history accept-gap ETHUSDT --timeframe 1h" in str(caught.value.remedy)
    accepted = Gap("ETHUSDT", START + 50 * HOUR, START + 52 * HOUR, "maintenance")
    assert len(backtest(QUICK, CandleSet(holed.series, (accepted,)), Account()).equity) == 100


def test_an_empty_series_is_missing_history() -> None:
    btc, eth, _ = made_up(100)
    with pytest.raises(HistoryMissing, match="ETHUSDT 1h: no candles in this range"):
        backtest(QUICK, CandleSet((btc, eth.rows(0, 0))), Account())


def test_one_unsound_candle_stops_the_run() -> None:
    btc, eth, _ = made_up(100)
    close = eth.close.copy()
    close[60] = np.nan
    with pytest.raises(CandlesRejected, match="ETHUSDT 1h: non_finite at 2024-01-03T12:00Z"):
        backtest(QUICK, CandleSet((btc, dataclasses.replace(eth, close=close))), Account())


def test_a_start_after_the_last_close_leaves_nothing_to_trade() -> None:
    candles, last = made_up(100), START + 100 * HOUR
    assert len(backtest(QUICK, candles, Account(), trade_from=last).equity) == 1
    with pytest.raises(InputError, match=r"trade_from: .* up to the last close, 2024-01-05T04:00Z"):
        backtest(QUICK, candles, Account(), trade_from=last + 1)
    with pytest.raises(InputError, match="time: expected a UTC date"):
        backtest(QUICK, candles, Account(), trade_from="soon")


@pytest.mark.parametrize(
    ("part", "given", "words"),
    [
        ("strategy", SmaCrossover, r"strategy: SmaCrossover is a class.*SmaCrossover\(\) has the"),
        ("strategy", "sma_crossover", r'expected a strategy such as.*make_strategy\("sma_cross'),
        ("strategy", int, "expected a strategy such as"),
        ("candles", "BTCUSDT", r'candles: expected a CandleSet.*got "BTCUSDT".*load\(\["BTCUSDT'),
        ("candles", pd.DataFrame({"close": [1.0]}), r"got .a DataFrame.*Candles\.from_frame"),
        ("candles", list(made_up(9)), "got .a list"),
        ("candles", None, "candles: expected a CandleSet"),
        ("account", Limits(), "account: expected an Account"),
        ("account", {"fee_rate": 0.0}, "account: expected an Account"),
    ],
)
def test_what_is_of_the_wrong_kind_is_told_apart_at_the_door(
    part: str, given: object, words: str
) -> None:
    right = {"strategy": QUICK, "candles": made_up(50), "account": Account()}
    with pytest.raises(InputError, match=words) as caught:
        backtest(**{**right, part: given})  # type: ignore[arg-type]
    assert caught.value.field == part
    assert len(str(caught.value)) < 300


def test_one_symbols_candles_are_a_set_of_one() -> None:
    one = made_up(200).series[0]
    run = backtest(QUICK, one, Account(limits=WIDE))
    assert run.symbols == (one.symbol,)
    assert run.digest() == backtest(QUICK, CandleSet((one,)), Account(limits=WIDE)).digest()


def test_without_an_account_the_project_s_settings_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDLEBOOK_HOME", str(ROOT))
    run = backtest(QUICK, made_up(100))
    assert run.account == load_settings().account(SYMBOLS)
    assert run.account.filters is not None
    assert set(run.account.filters) == set(SYMBOLS)
    with pytest.raises(UnknownNameError, match="MADEUPUSDT"):
        backtest(QUICK, made_up(100, symbols=["BTCUSDT", "MADEUPUSDT"]))


# The outage of 2023-03-24: Binance has no candle that opens at 13:00 UTC.


OUTAGE = utc_ms("2023-03-24T13:00")


def accepted(real: CandleSet) -> CandleSet:
    gaps = tuple(Gap(symbol, OUTAGE, OUTAGE + HOUR, "matching_engine_2023") for symbol in SYMBOLS)
    return CandleSet(real.series, gaps, "binance")


def test_the_real_outage_is_refused_until_it_is_accepted(real: CandleSet) -> None:
    with pytest.raises(GapNotAccepted) as caught:
        backtest(QUICK, real, Account())
    assert caught.value.field == "BTCUSDT 1h at 2023-03-24T13:00Z"
    assert len(backtest(QUICK, accepted(real), Account()).equity) == 31 * 24 - 1


def test_at_the_real_outage_nothing_happens_and_orders_wait_for_the_next_open(
    real: CandleSet,
) -> None:
    # Fast enough windows that some order is decided at 13:00, the close before the missing bar.
    account = Account(limits=WIDE, stops=Stops(stop_loss_pct=0.2, take_profit_pct=0.2))
    waited = 0
    for fast in range(2, 6):
        run = backtest(SmaCrossover(fast, fast + 1), accepted(real), account)
        closes = run.tape.close_time.tolist()
        assert OUTAGE + HOUR not in closes
        assert OUTAGE in closes
        assert OUTAGE + HOUR not in run.signals.index.as_unit("ms").asi8
        for fill in run.fill_list:  # stamped with the close by a stop, with the open else
            stopped = run.intents[fill.order_id] in STOPS
            assert fill.at != (OUTAGE + HOUR if stopped else OUTAGE)
        for order in run.order_list:
            assert order.decided_at != OUTAGE + HOUR
            if order.decided_at == OUTAGE and order.intent in ("entry", "exit"):
                waited += 1
                assert order.status is OrderStatus.FILLED
                assert order.ended_at == OUTAGE + HOUR
                open_after = run.candles[order.symbol].between(OUTAGE + HOUR).open[0]
                slip = 1 + (0.0005 if order.side == "BUY" else -0.0005)
                assert order.price == open_after * slip
    assert waited > 0


def test_where_one_symbol_is_absent_the_others_trade_and_it_keeps_its_last_close() -> None:
    btc, eth, _ = made_up(300)
    gone = set(range(100, 140))
    holed = without(eth, *gone)
    run = backtest(QUICK, CandleSet((btc, holed), tuple(find_gaps(holed))), Account(limits=WIDE))
    absent = {START + (t + 1) * HOUR for t in gone}
    eth_signals = run.signals[run.signals.symbol == "ETHUSDT"].index.as_unit("ms").asi8
    btc_signals = run.signals[run.signals.symbol == "BTCUSDT"].index.as_unit("ms").asi8
    assert not absent & set(eth_signals.tolist())
    assert absent <= set(btc_signals.tolist())
    for order in run.order_list:
        if order.symbol == "ETHUSDT":
            assert order.decided_at not in absent
            assert order.ended_at not in {close - HOUR for close in absent}
    # Indicators run over the rows that are there: the same targets as without any hole in time.
    closed_up = dataclasses.replace(holed, ts=btc.ts[: len(holed)])
    alone = backtest(QUICK, CandleSet((closed_up,)), Account(limits=WIDE))
    assert run.targets[1].target.tobytes() == alone.targets[0].target.tobytes()


# trade_from: earlier candles warm the indicators, and nothing else.


@pytest.mark.parametrize("strategy", [QUICK, RsiReversal(window=10)])
@pytest.mark.parametrize("begin", [0, 1, 400, 401, 999])
def test_trading_starts_flat_with_indicators_warmed_by_all_earlier_candles(
    strategy: SmaCrossover | RsiReversal, begin: int
) -> None:
    candles = made_up()
    whole = backtest(strategy, candles, Account(limits=WIDE))
    start = START + (begin + 1) * HOUR  # the close of bar `begin`
    run = backtest(strategy, candles, Account(limits=WIDE), trade_from=start)
    assert int(run.tape.close_time[0]) == start
    assert len(run.equity) == 1000 - begin
    assert run.log.equity[0] == run.log.cash[0] == run.account.initial_cash
    assert run.tape.target.tobytes() == whole.tape.target[begin:].tobytes()
    said = ["target", "confidence", "reason", "symbol"]
    pd.testing.assert_frame_equal(run.signals[said], whole.signals.loc[run.close_time[0] :][said])
    # The first tradable bar counts as a change from 0, whatever the bar before it said.
    first = run.tape.target[0]
    expected = ["BUY" if target > 0 else "HOLD" for target in first]
    assert run.signals.loc[[run.close_time[0]], "action"].tolist() == expected


def test_a_start_between_two_closes_is_the_next_close() -> None:
    candles, bar = made_up(100), START + 50 * HOUR
    runs = {
        backtest(QUICK, candles, Account(), trade_from=start).digest()
        for start in (bar - HOUR + 1, bar - 1, bar, pd.Timestamp(bar, unit="ms").isoformat())
    }
    assert len(runs) == 1


def test_candles_that_are_cut_off_instead_give_other_signals() -> None:
    """The control: a warm-up really needs the earlier candles, and RSI never forgets them."""
    candles = made_up()
    start = START + 400 * HOUR
    warmed = backtest(RsiReversal(window=10), candles, Account(), trade_from=start + HOUR)
    cold = backtest(RsiReversal(window=10), candles.between(start), Account())
    assert warmed.close_time.equals(cold.close_time)
    assert not np.array_equal(warmed.tape.target, cold.tape.target, equal_nan=True)


# What people do.


def acted(*moves: tuple[int, Move]) -> Backtest:
    acts = [Intervention(START + bar * HOUR, move, "test", "someone") for bar, move in moves]
    return backtest(QUICK, made_up(), Account(limits=WIDE), interventions=acts)


def entries(run: Backtest) -> list[int]:
    """Bars at whose close an entry was ordered, counted like the interventions."""
    return [(o.decided_at - START) // HOUR for o in run.order_list if o.intent == "entry"]


def test_between_a_kill_and_a_reset_there_is_no_entry_and_exits_go_on() -> None:
    plain, stopped = acted(), acted((300, Move.KILL), (600, Move.RESET))
    assert [bar for bar in entries(plain) if 300 <= bar < 600]
    assert not [bar for bar in entries(stopped) if 300 <= bar < 600]
    assert [bar for bar in entries(stopped) if bar >= 600]
    assert [bar for bar in entries(stopped) if bar < 300] == [b for b in entries(plain) if b < 300]
    held = [o for o in plain.order_list if o.decided_at < START + 300 * HOUR]
    assert stopped.order_list[: len(held)] == held
    assert stopped.halted_at == pd.Timestamp(START + 300 * HOUR, unit="ms", tz="UTC")
    assert plain.halted_at is None
    refused = stopped.signals[stopped.signals.code == "KILL_SWITCH"]
    assert len(refused) > 0
    assert set(refused.action) == {"BUY"}
    exits = [o for o in stopped.order_list if o.intent == "exit"]
    assert any(START + 300 * HOUR <= o.decided_at < START + 600 * HOUR for o in exits)


@pytest.mark.parametrize("late", [0, 1, HOUR - 1])
def test_an_act_counts_from_the_first_close_at_or_after_it(late: int) -> None:
    act = Intervention(START + 299 * HOUR + late, Move.KILL)
    run = backtest(QUICK, made_up(), Account(limits=WIDE), interventions=[act])
    bar = 299 if late == 0 else 300
    assert run.halted_at == pd.Timestamp(START + bar * HOUR, unit="ms", tz="UTC")


def test_the_order_in_which_acts_are_listed_does_not_matter_at_different_times() -> None:
    moves = [(300, Move.KILL), (320, Move.RESET), (500, Move.KILL)]
    assert acted(*moves).digest() == acted(*reversed(moves)).digest()


def test_acts_after_the_last_close_change_nothing() -> None:
    assert acted((5000, Move.KILL)).digest() == acted().digest()


# The same run is the same run.


def test_equal_runs_have_equal_digests_and_any_other_run_another(run: Backtest) -> None:
    again = short_run()
    assert again is not run
    assert again.digest() == run.digest()
    different: list[Callable[[], Backtest]] = [
        lambda: backtest(SmaCrossover(5, 21), made_up(), run.account, name="short"),
        lambda: backtest(QUICK, made_up(seed=8), run.account, name="short"),
        lambda: backtest(QUICK, made_up(symbols=SYMBOLS[::-1]), run.account, name="short"),
        lambda: backtest(QUICK, made_up(), run.account, name="another"),
        lambda: backtest(QUICK, made_up(), run.account, name="short", trade_from="2024-01-09"),
        lambda: backtest(
            QUICK, made_up(), run.account.model_copy(update={"slippage_bps": 6.0}), name="short"
        ),
    ]
    digests = {run.digest(), *(other().digest() for other in different)}
    assert len(digests) == 1 + len(different)


@pytest.mark.parametrize("seed", ["0", "1", "12345"])
def test_another_process_with_another_hash_seed_gets_the_same_digest(
    run: Backtest, seed: str
) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == [run.digest(), run.candles.digest()]


def test_a_growing_history_never_changes_what_was_already_done(run: Backtest) -> None:
    for bars in (21, 333, 999):
        shorter = backtest(QUICK, made_up(bars), run.account, name="short")
        assert shorter.log.equity.tobytes() == run.log.equity[:bars].tobytes()
        assert shorter.log.cash.tobytes() == run.log.cash[:bars].tobytes()
        assert shorter.fill_list == run.fill_list[: len(shorter.fill_list)]
        pd.testing.assert_frame_equal(shorter.signals, run.signals.iloc[: 3 * bars])


# What it shows.


UTC_MS = pd.DatetimeTZDtype("ms", "UTC")
FRAMES = {
    "orders": {"quantity", "filled_quantity", "price", "fee"},
    "fills": {"price", "quantity", "notional", "fee"},
    "trades": {"quantity", "entry_price", "exit_price", "fees", "pnl", "pnl_pct"},
    "signals": {"confidence", "target"},
}
MOMENTS = {"orders": {"ended_at"}, "fills": set(), "trades": {"opened_at"}, "signals": set()}
INDEX = {
    "orders": "decided_at",
    "fills": "at",
    "trades": "closed_at",
    "signals": "timestamp",
}


def test_frames_hold_one_row_a_thing_with_utc_times_and_float_money(run: Backtest) -> None:
    assert len(run.orders) == len(run.order_list) > 50
    assert len(run.fills) == len(run.fill_list)
    assert len(run.trades) == len(run.trade_list) == run.metrics.trades
    assert len(run.signals) == 3 * len(run.close_time)
    for name, money in FRAMES.items():
        frame = getattr(run, name)
        assert frame.index.name == INDEX[name]
        assert frame.index.dtype == UTC_MS
        assert frame.index.is_monotonic_increasing
        assert {c for c in frame if frame[c].dtype == np.float64} == money
        assert {c for c in frame if frame[c].dtype == UTC_MS} == MOMENTS[name]
        assert not frame.drop(columns=["ended_at", "target"], errors="ignore").isna().any(axis=None)
    assert run.fills["lots"].dtype == np.int64


def test_frames_without_a_row_have_the_same_columns_and_types(run: Backtest) -> None:
    idle = backtest(QUICK, made_up(19), Account())
    for name in ("orders", "fills", "trades"):
        empty, full = getattr(idle, name), getattr(run, name)
        assert len(empty) == 0
        assert empty.columns.tolist() == full.columns.tolist()
        assert empty.index.dtype == UTC_MS
        assert empty.dtypes.to_dict() == full.dtypes.to_dict()


def test_series_stand_at_each_close(run: Backtest) -> None:
    assert run.close_time.dtype == UTC_MS
    assert run.close_time[0] == pd.Timestamp("2024-01-01 01:00", tz="UTC")
    for series in (run.equity, run.drawdown):
        assert series.dtype == np.float64
        assert series.index.equals(run.close_time)
    peak = np.maximum.accumulate(np.append(run.account.initial_cash, run.equity))[1:]
    np.testing.assert_array_equal(run.drawdown, 1 - run.equity.to_numpy() / peak)
    assert run.drawdown.max() == pytest.approx(run.metrics.max_drawdown, rel=1e-12)
    assert run.metrics.final_equity == run.equity.iloc[-1]


def test_an_order_that_waits_has_no_end_in_the_frame() -> None:
    candles = made_up()
    full = backtest(QUICK, candles, Account(limits=WIDE))
    last = max(order.decided_at for order in full.order_list)
    run = backtest(QUICK, candles.closed_by(last), Account(limits=WIDE))
    waiting = run.orders[run.orders.status == "PENDING"]
    assert len(waiting) > 0
    assert waiting.ended_at.isna().all()
    assert run.orders.ended_at.isna().sum() == len(waiting)


def test_the_summary_names_every_figure(run: Backtest) -> None:
    summary = run.summary()
    assert summary.index.tolist() == [name for name, _ in METRICS.values()]
    assert summary["Sharpe ratio"] == run.metrics.sharpe


def test_a_halt_by_drawdown_is_told() -> None:
    strict = Limits(max_position_pct=100, max_drawdown_pct=1, max_daily_loss_pct=100)
    run = backtest(QUICK, made_up(), Account(limits=strict))
    assert run.halted_at is not None
    assert run.drawdown[run.halted_at] >= 0.01
    assert (run.drawdown[: run.halted_at].iloc[:-1] < 0.01).all()
    after = run.orders.loc[run.halted_at :]
    assert "entry" not in set(after.intent)


if __name__ == "__main__":
    told = short_run()
    sys.stdout.write(f"{told.digest()}\n{told.candles.digest()}\n")
