"""Walk-forward against a brute force that slices candles and runs every combination alone.

The brute force cuts by dates with pandas and calls one backtest a combination and window; nothing
of the code under test is in it. Figures are compared with ``==``, never "close to".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.account import Account, Limits, Stops
from research.backtesting import Backtest, rerun
from research.candles import DAY, Candles, CandleSet, utc_ms
from research.errors import InputError, ParameterError
from research.evidence import walk_forward as module
from research.evidence.walk_forward import (
    WalkForward,
    Window,
    out_of_sample,
    walk_forward,
    windows_of,
)
from research.search import Sweep, sweep
from research.strategies.buy_and_hold import BuyAndHold
from research.strategies.momentum_rotation import MomentumRotation
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Strategy, Targets, param
from research.synthetic import synthetic_candles
from tests.backtest.referee import real_hours

HOUR = 3_600_000
ACCOUNT = Account(
    limits=Limits(max_position_pct=40, max_drawdown_pct=30), stops=Stops(stop_loss_pct=4)
)
GRID: dict[str, Any] = {"fast": (3, 8, 20), "slow": (30, 60, 90)}


@pytest.fixture(scope="module")
def found() -> Sweep:
    candles = synthetic_candles(("BTCUSDT", "ETHUSDT"), "1h", "2024-01-01T07:00", 8_000, 11)
    return sweep(SmaCrossover, candles, ACCOUNT, **GRID)


@pytest.fixture(scope="module")
def by_hand(found: Sweep) -> list[dict[str, Any]]:
    return brute_force(found, 4, anchored=False)


# --- the brute force


def bars_by_hand(of: Sweep) -> pd.DataFrame:
    """A row a bar, from the first on which every combination has its targets: close and day."""
    longest = max(one.warmup for one in of.strategies)
    opens = pd.DatetimeIndex(of.candles.clock().astype("datetime64[ms]"))
    first = pd.Timestamp(int(of.candles.series[0].ts[longest]), unit="ms")
    opens = opens[opens >= first]
    closes = opens + pd.Timedelta(of.candles.timeframe)
    return pd.DataFrame({"close": closes, "day": closes.floor("D")})


def spans_by_hand(of: Sweep, folds: int, anchored: bool) -> list[list[pd.DataFrame]]:
    """The bars of each fold's training and test window, whole days to each part."""
    bars = bars_by_hand(of)
    days = sorted(set(bars["day"]))
    parts = folds + 3
    groups = [days[i * len(days) // parts : (i + 1) * len(days) // parts] for i in range(parts)]

    def spanned(part: slice) -> pd.DataFrame:
        return bars[bars["day"].isin([day for group in groups[part] for day in group])]

    return [
        [spanned(slice(0 if anchored else i, i + 3)), spanned(slice(i + 3, i + 4))]
        for i in range(folds)
    ]


def run_alone(of: Sweep, strategy: Strategy, bars: pd.DataFrame) -> Backtest:
    """One backtest over these bars: it knows no later candle and starts flat at the first."""
    first, last = (int(one.value // 1_000_000) for one in bars["close"].iloc[[0, -1]])
    return rerun(strategy, of.candles.between(None, last), of.account, trade_from=first)


def score(run: Backtest, metric: str) -> float:
    value = float(getattr(run.metrics, metric))
    return -math.inf if math.isnan(value) else -value if metric == "max_drawdown" else value


def brute_force(
    of: Sweep, folds: int, anchored: bool, metric: str = "sharpe"
) -> list[dict[str, Any]]:
    rows = []
    for train, test in spans_by_hand(of, folds, anchored):
        runs = [run_alone(of, one, train) for one in of.strategies]
        best = max(range(len(runs)), key=lambda i: (score(runs[i], metric), -i))
        tested = run_alone(of, of.strategies[best], test)
        rows.append(
            {
                "train_start": train["close"].iloc[0].tz_localize("UTC"),
                "train_end": train["close"].iloc[-1].tz_localize("UTC"),
                "test_start": test["close"].iloc[0].tz_localize("UTC"),
                "test_end": test["close"].iloc[-1].tz_localize("UTC"),
                **{name: getattr(of.strategies[best], name) for name in of.frame.index.names},
                "train_sharpe": runs[best].metrics.sharpe,
                "test_sharpe": tested.metrics.sharpe,
                "train_return": runs[best].metrics.total_return,
                "test_return": tested.metrics.total_return,
                "test_trades": len(tested.trade_list),
                "daily": tested.daily_returns,
                "equity": tested.equity,
            }
        )
    return rows


def differences(mine: WalkForward, by_hand: list[dict[str, Any]], cash: float) -> list[str]:
    """What differs, as ``fold.column``; NaN equals NaN, and nothing else is forgiven."""
    frame = mine.folds
    assert len(frame) == len(by_hand)
    assert [*frame.columns, "daily", "equity"] == list(by_hand[0])
    wrong = [
        f"{fold}.{name}"
        for fold, row in enumerate(by_hand)
        for name in frame.columns
        if frame[name].iloc[fold] != row[name]
        and not (isinstance(row[name], float) and math.isnan(row[name]))
    ]
    daily = pd.concat([row["daily"] for row in by_hand])
    if not (daily.index.equals(mine.returns.index) and (daily == mine.returns).all()):
        wrong.append("returns")
    level, levels = 1.0, []
    for row in by_hand:
        levels.append(row["equity"] / cash * level)
        level = level * (row["equity"].iloc[-1] / cash)
    equity = pd.concat(levels)
    if not (equity.index.equals(mine.equity.index) and (equity == mine.equity).all()):
        wrong.append("equity")
    return wrong


@pytest.mark.parametrize("metric", ["sharpe", "max_drawdown", "win_rate"])
@pytest.mark.parametrize("anchored", [False, True], ids=["rolling", "anchored"])
def test_every_fold_is_the_brute_force_one_to_the_bit(
    found: Sweep, anchored: bool, metric: str
) -> None:
    mine = walk_forward(found, folds=4, anchored=anchored, metric=metric)
    assert mine.folds["test_trades"].min() > 0
    by_hand = brute_force(found, 4, anchored, metric)
    assert differences(mine, by_hand, ACCOUNT.initial_cash) == []


def test_folds_of_a_strategy_that_ranks_symbols_are_the_brute_force_ones() -> None:
    """Also while one of the symbols is not listed yet."""
    three = synthetic_candles(("BTCUSDT", "ETHUSDT", "SOLUSDT"), "1h", "2024", 6_000)
    young = three["SOLUSDT"].rows(2_000, 6_000)
    listed = replace(three, series=(three["BTCUSDT"], three["ETHUSDT"], young))
    grid = {"lookback": [24, 72], "top": [1, 2]}
    for candles in (three, listed):
        ranked = sweep(MomentumRotation, candles, ACCOUNT, **grid)
        mine = walk_forward(ranked, folds=3)
        assert mine.folds["test_trades"].min() > 0
        by_hand = brute_force(ranked, 3, anchored=False)
        assert differences(mine, by_hand, ACCOUNT.initial_cash) == []


def test_the_kinds_of_walk_choose_differently(found: Sweep, by_hand: list[dict[str, Any]]) -> None:
    """So that the comparisons above tell them apart."""
    for other in (
        walk_forward(found, folds=4, anchored=True),
        walk_forward(found, folds=4, metric="max_drawdown"),
    ):
        assert differences(other, by_hand, ACCOUNT.initial_cash) != []


def test_windows_begin_at_the_start_of_trading_where_that_is_later_than_the_warmup() -> None:
    candles = synthetic_candles(("BTCUSDT",), "4h", "2023-01-01T08:00", 3_000)
    late = sweep(SmaCrossover, candles, ACCOUNT, trade_from="2023-04-03T08:00", **GRID)
    early = sweep(SmaCrossover, candles, ACCOUNT, trade_from="2023-01-03T08:00", **GRID)
    warm = pd.Timestamp(int(candles.series[0].ts[89]) + 4 * HOUR, unit="ms", tz="UTC")
    start = pd.Timestamp("2023-04-03T08:00", tz="UTC")
    assert walk_forward(late, folds=3).folds["train_start"].iloc[0] == start > warm
    assert walk_forward(early, folds=3).folds["train_start"].iloc[0] == warm


def test_four_real_years_with_an_outage_equal_the_brute_force(shared: Path) -> None:
    few = {"fast": (10, 40), "slow": (50, 300)}
    real = sweep(SmaCrossover, real_hours(shared, ("BTCUSDT",)), ACCOUNT, **few)
    mine = walk_forward(real)
    assert len(set(mine.chosen)) > 1
    assert differences(mine, brute_force(real, 6, anchored=False), ACCOUNT.initial_cash) == []


def test_a_choice_made_on_the_test_window_is_caught(
    found: Sweep, by_hand: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = walk_forward(found, folds=4)
    real = module._fold

    def peeking(choice: Any, closes: Any, window: Window) -> Any:
        peek = Window(window.test_start, window.test_end - 1, window.test_end)
        best = real(choice, closes, peek).strategy
        return real(replace(choice, strategies=(best,)), closes, window)

    monkeypatch.setattr(module, "_fold", peeking)
    peeked = walk_forward(found, folds=4)
    assert differences(peeked, by_hand, ACCOUNT.initial_cash) != []
    assert peeked.sharpe > honest.sharpe  # which is why it must be


def test_positions_carried_into_the_test_window_are_caught(
    found: Sweep, by_hand: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:

    def carried(strategy: Strategy, candles: CandleSet, account: Account, trade_from: int) -> Any:
        return rerun(strategy, candles, account, trade_from=trade_from - 48 * HOUR)

    monkeypatch.setattr(module, "rerun", carried)
    assert differences(walk_forward(found, folds=4), by_hand, ACCOUNT.initial_cash) != []


# --- what a window may know


def doubled_from(candles: CandleSet, moment: int) -> CandleSet:
    """The same candles, at twice the price from ``moment`` on."""

    def one(series: Candles) -> Candles:
        factor = np.where(series.ts >= moment, 2.0, 1.0)
        prices = [getattr(series, name) * factor for name in ("open", "high", "low", "close")]
        return Candles(series.symbol, series.timeframe, series.ts, *prices, series.volume)

    return replace(candles, series=tuple(map(one, candles)))


@dataclass(frozen=True)
class Foresight(Strategy):
    """Holds while the close is below the highest close of the whole series times ``share``."""

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = ("looks ahead",)
    share: float = param(0.9, low=0.1, high=1.0)

    @property
    def warmup(self) -> int:
        return 0

    def targets(self, candles: Candles) -> Targets:
        low = candles.close < self.share * candles.close.max()
        return Targets(low.astype(float), np.full(len(low), 50.0), np.zeros(len(low), np.int64))


@pytest.mark.parametrize(
    ("kind", "grid"), [(SmaCrossover, GRID), (Foresight, {"share": (0.6, 0.8, 0.9, 0.97)})]
)
def test_a_fold_knows_no_candle_after_its_end(kind: type[Strategy], grid: dict[str, Any]) -> None:
    """Not even that of a strategy which looks ahead: its candles end with the window."""
    candles = synthetic_candles(("BTCUSDT",), "1h", "2024", 4_000)
    mine = walk_forward(sweep(kind, candles, ACCOUNT, **grid), folds=4)
    ends = [int(one.value // 1_000_000) for one in mine.folds["test_end"]]
    splits = [int(one.value // 1_000_000) for one in mine.folds["train_end"]]
    for fold in (0, 2):
        after = walk_forward(
            sweep(kind, doubled_from(candles, ends[fold]), ACCOUNT, **grid), folds=4
        )
        assert after.folds.iloc[: fold + 1].equals(mine.folds.iloc[: fold + 1])
        changed = sweep(kind, doubled_from(candles, splits[fold]), ACCOUNT, **grid)
        train = walk_forward(changed, folds=4).folds.filter(like="train_")
        assert train.iloc[: fold + 1].equals(mine.folds.filter(like="train_").iloc[: fold + 1])
    # The control: a change within what the first fold trained on does show.
    within = sweep(kind, doubled_from(candles, splits[0] - 200 * HOUR), ACCOUNT, **grid)
    assert not walk_forward(within, folds=4).folds.iloc[:1].equals(mine.folds.iloc[:1])


# --- windows


@st.composite
def clocks(draw: st.DrawFn) -> np.ndarray:
    """Closes on an hourly grid with holes, from any hour of the day on."""
    bars = draw(st.integers(1, 900))
    seed, kept = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([1.0, 0.9, 0.05]))
    there = np.random.default_rng(seed).random(bars) < kept
    there[0] = True
    return utc_ms("2024") + HOUR * (draw(st.integers(0, 50)) + np.flatnonzero(there))


def faults(closes: np.ndarray, windows: tuple[Window, ...], folds: int, anchored: bool) -> set[str]:
    """Which promises about windows do not hold."""
    day = closes // DAY
    wrong = set()
    for window in windows:
        if not 0 <= window.train_start < window.test_start < window.test_end <= len(closes):
            wrong.add("a window is empty or out of order")
        for edge in window:
            if 0 < edge < len(closes) and day[edge] == day[edge - 1]:
                wrong.add("an edge within a day")
        if anchored and window.train_start != 0:
            wrong.add("not anchored")
    if any(one.test_end != other.test_start for one, other in pairwise(windows)):
        wrong.add("test windows do not join up")
    if windows[-1].test_end != len(closes) or windows[0].train_start != 0 or len(windows) != folds:
        wrong.add("not all bars are used")
    days = [len(set(day[w.test_start : w.test_end])) for w in windows]
    train = [len(set(day[w.train_start : w.test_start])) for w in windows]
    if max(days) - min(days) > 1 or (not anchored and max(train) - min(train) > 3):
        wrong.add("unequal windows")
    if not all(3 * (len(set(day)) // (folds + 3)) <= one for one in train):
        wrong.add("training is shorter than three tests")
    return wrong


@given(clocks(), st.integers(1, 12), st.booleans())
def test_windows_are_whole_days_that_join_up(
    closes: np.ndarray, folds: int, anchored: bool
) -> None:
    windows = windows_of(closes, folds, anchored)
    if len(set(closes // DAY)) < folds + 3:
        assert windows == ()
    else:
        assert faults(closes, windows, folds, anchored) == set()


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda w: [*w[:-1], w[-1]._replace(test_end=w[-1].test_end - 1)], "not all bars are used"),
        (lambda w: [w[0]._replace(test_end=w[0].test_end + 24), *w[1:]], "do not join up"),
        (lambda w: [w[0]._replace(test_start=w[0].test_start - 1), *w[1:]], "within a day"),
        (lambda w: [w[0]._replace(test_start=w[0].test_end), *w[1:]], "empty or out of order"),
    ],
)
def test_spoilt_windows_are_told_apart(spoil: Callable[[Any], Any], fault: str) -> None:
    closes = utc_ms("2024") + HOUR * np.arange(24 * 40)
    windows = tuple(spoil(list(windows_of(closes, 4))))
    assert any(fault in one for one in faults(closes, windows, 4, anchored=False))


def test_the_default_cut_on_a_calendar() -> None:
    """90 whole days in nine parts of ten days: thirty to train on, ten to trade."""
    closes = utc_ms("2024") + HOUR * np.arange(24 * 90)
    days = [tuple(edge // 24 for edge in one) for one in windows_of(closes, 6)]
    assert days == [
        (0, 30, 40),
        (10, 40, 50),
        (20, 50, 60),
        (30, 60, 70),
        (40, 70, 80),
        (50, 80, 90),
    ]
    anchored = [tuple(edge // 24 for edge in one) for one in windows_of(closes, 2, anchored=True)]
    assert anchored == [(0, 54, 72), (0, 72, 90)]


# --- the sums


def test_the_stitched_figures_are_those_of_their_parts(found: Sweep) -> None:
    mine = walk_forward(found, folds=5)
    folds = mine.folds
    daily = mine.returns
    assert daily.index.is_unique
    assert daily.index.is_monotonic_increasing
    assert mine.equity.iloc[-1] == pytest.approx((1.0 + daily).prod(), rel=1e-12)
    assert mine.equity.iloc[-1] == pytest.approx((1.0 + folds["test_return"]).prod(), rel=1e-12)
    assert mine.sharpe == pytest.approx(daily.mean() / daily.std() * math.sqrt(365), rel=1e-9)
    assert mine.profitable == sum(folds["test_return"] > 0) / 5


def test_efficiency_is_the_mean_ratio_out_of_sample_over_that_in_sample() -> None:
    candles = synthetic_candles(("BTCUSDT",), "1h", "2024", 8_000)
    mine = walk_forward(sweep(SmaCrossover, candles, ACCOUNT, **GRID), folds=4)
    tested, trained = mine.folds["test_sharpe"].mean(), mine.folds["train_sharpe"].mean()
    assert trained > 0.0
    assert mine.efficiency == pytest.approx(tested / trained, rel=1e-12)


def test_what_earned_nothing_in_training_has_no_efficiency() -> None:
    """A loss over a loss would look like a gain over a gain."""
    candles = synthetic_candles(("BTCUSDT",), "1h", "2024", 8_000, 8)
    mine = walk_forward(sweep(SmaCrossover, candles, ACCOUNT, **GRID), folds=4)
    means = mine.folds[["train_sharpe", "train_return", "test_sharpe", "test_return"]].mean()
    assert means.max() < 0.0
    assert math.isnan(mine.efficiency)
    assert math.isnan(mine.return_efficiency)


def test_efficiency_of_returns_is_that_of_annual_returns() -> None:
    """By hand: a price that grows by 1 % a day in training and 0.5 % a day in each test.

    It cannot do both at once in rolling windows, so there is one fold: 300 days, then 100.
    """
    days = 400
    rates = np.where(np.arange(days) < 300, 1.01, 1.005)
    close = 100.0 * np.cumprod(rates)
    ts = utc_ms("2023") + DAY * np.arange(days, dtype=np.int64)
    steady = Candles("BTCUSDT", "1d", ts, close, close, close, close, np.ones(days))
    free = Account(limits=None, fee_rate=0.0, slippage_bps=0.0, initial_cash=1e9)
    run = rerun(BuyAndHold(), steady, free)
    mine = out_of_sample(run, folds=1)
    train, test = mine.folds["train_return"].iloc[0], mine.folds["test_return"].iloc[0]
    # Each window buys at the open after its first close: one day's growth fewer than it has days.
    assert train == pytest.approx(1.01**298 - 1, rel=1e-6)
    assert test == pytest.approx(1.005**98 - 1, rel=1e-6)
    assert mine.return_efficiency == pytest.approx((test / 100) / (train / 300), rel=1e-12)


def test_the_same_walk_twice_is_the_same(found: Sweep) -> None:
    one, other = walk_forward(found), walk_forward(found)
    assert one.folds.equals(other.folds)
    assert one.equity.equals(other.equity)


def test_it_says_what_it_found_in_one_line(found: Sweep) -> None:
    mine = walk_forward(found, folds=4)
    gained = int(4 * mine.profitable)
    assert repr(mine) == (
        f"WalkForward(4 rolling folds by sharpe: Sharpe ratio {mine.sharpe:.2f} out of sample, "
        f"efficiency {mine.efficiency:.2f}, {gained} of 4 folds gained)"
    )


# --- odd histories


@dataclass(frozen=True)
class Sleeper(Strategy):
    """Flat before bar ``wake``; from then on in and out every ``beat`` bars."""

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = ("by the clock",)
    wake: int = param(1_000, low=0, high=100_000)
    beat: int = param(10, low=1, high=1_000)

    @property
    def warmup(self) -> int:
        return 0

    def targets(self, candles: Candles) -> Targets:
        bar = np.arange(len(candles))
        wanted = (bar >= self.wake) & (bar // self.beat % 2 == 0)
        return Targets(wanted.astype(float), np.full(len(bar), 50.0), np.zeros(len(bar), np.int64))


def test_where_nothing_traded_in_training_the_first_combination_is_taken() -> None:
    candles = synthetic_candles(("BTCUSDT",), "1h", "2024", 4_000)
    asleep = sweep(Sleeper, candles, ACCOUNT, wake=[2_700], beat=[7, 11, 13])
    mine = walk_forward(asleep, folds=4)
    assert np.isnan(mine.folds["train_sharpe"].iloc[0])
    assert np.isnan(mine.folds["test_sharpe"].iloc[0])
    assert mine.chosen[0] == asleep.strategies[0]
    assert not np.isnan(mine.efficiency) or mine.folds["train_sharpe"].fillna(0.0).mean() <= 0.0
    assert (mine.returns.loc[: mine.folds["test_end"].iloc[0]] == 0.0).all()


def test_a_symbol_that_was_listed_later_joins_when_it_is_there() -> None:
    pair = synthetic_candles(("BTCUSDT", "ETHUSDT"), "1h", "2024", 4_000)
    young = replace(pair, series=(pair["BTCUSDT"], pair["ETHUSDT"].rows(3_000, 4_000)))
    alone = replace(pair, series=(pair["BTCUSDT"],))
    both = walk_forward(sweep(SmaCrossover, young, ACCOUNT, **GRID), folds=4)
    one = walk_forward(sweep(SmaCrossover, alone, ACCOUNT, **GRID), folds=4)
    listed = pd.Timestamp(int(young["ETHUSDT"].ts[0]), unit="ms", tz="UTC")
    before = both.folds["test_end"] < listed
    assert 0 < before.sum() < 4
    assert both.folds[before].equals(one.folds[before])
    assert not both.folds[~before].equals(one.folds[~before])


def test_windows_that_are_too_short_say_how_many_folds_fit(found: Sweep) -> None:
    short = replace(found, candles=synthetic_candles(("BTCUSDT",), "1d", "2023", 600))
    with pytest.raises(InputError, match=r"at least 100 bars .* at least 30") as caught:
        walk_forward(short, folds=20)
    assert caught.value.field == "folds"
    most = int(str(caught.value.remedy).split()[0])
    assert len(walk_forward(short, folds=most).folds) == most
    with pytest.raises(InputError):
        walk_forward(short, folds=most + 1)


@pytest.mark.parametrize("bars", [50, 89, 90, 150])
def test_a_history_that_is_too_short_for_any_fold_is_refused(found: Sweep, bars: int) -> None:
    short = replace(found, candles=synthetic_candles(("BTCUSDT",), "1d", "2023", bars))
    with pytest.raises(InputError, match="longer history"):
        walk_forward(short)


def test_training_windows_are_as_long_as_the_longest_warmup() -> None:
    candles = synthetic_candles(("BTCUSDT",), "1d", "2023", 1_200)
    slow = sweep(SmaCrossover, candles, ACCOUNT, fast=[20], slow=[50, 400])
    with pytest.raises(InputError, match="at least 399 bars"):
        walk_forward(slow)
    assert walk_forward(slow, folds=2).folds["train_start"].iloc[0] == pd.Timestamp(
        int(candles.series[0].ts[399]) + DAY, unit="ms", tz="UTC"
    )


@pytest.mark.parametrize("folds", [0, -1, 1.5, True, "6"])
def test_folds_is_a_number_from_one_on(found: Sweep, folds: Any) -> None:
    with pytest.raises(InputError, match="folds: expected a whole number"):
        walk_forward(found, folds=folds)


def test_an_unknown_metric_is_refused(found: Sweep) -> None:
    with pytest.raises(ParameterError, match="metric: expected one of"):
        walk_forward(found, metric="luck")


# --- one strategy, nothing chosen


def test_one_run_part_by_part_is_the_walk_of_a_sweep_of_one_row(found: Sweep) -> None:
    run = found.run(SmaCrossover(fast=8, slow=60))
    alone = sweep(SmaCrossover, found.candles, ACCOUNT, fast=[8], slow=[60])
    mine, other = out_of_sample(run, folds=4), walk_forward(alone, folds=4)
    assert mine.folds.equals(other.folds)
    assert mine.equity.equals(other.equity)
    by_hand = brute_force(alone, 4, anchored=False)
    assert differences(mine, by_hand, ACCOUNT.initial_cash) == []
    assert set(mine.chosen) == {run.strategy}


def test_a_strategy_without_parameters_has_parts_too(found: Sweep) -> None:
    mine = out_of_sample(rerun(BuyAndHold(), found.candles, ACCOUNT), folds=4)
    assert len(mine.folds) == 4
    assert list(mine.folds.columns[4:5]) == ["train_sharpe"]
