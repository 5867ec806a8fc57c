"""Redrawn days and trades against bars put together by hand, arch's draws, and known coverage."""

from __future__ import annotations

import math
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.account import Account, Limits, Stops
from research.backtesting import Backtest, rerun
from research.candles import DAY
from research.daily import day_ends
from research.errors import InputError
from research.evidence import bootstrap as module
from research.evidence.bootstrap import (
    RESAMPLED,
    automatic_length,
    day_draws,
    intervals,
    stationary_indices,
    trade_monte_carlo,
    trade_returns,
)
from research.evidence.day_sums import DaySums, day_sums_of, figures_of_days
from research.history import History
from research.metrics import METRICS, Metrics
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles

OPEN = Limits(max_position_pct=40, max_drawdown_pct=100, max_daily_loss_pct=100)


def run_of(symbols: list[str], seed: int, bars: int = 1501, slow: int = 30) -> Backtest:
    account = Account(
        limits=OPEN, stops=Stops(stop_loss_pct=2, take_profit_pct=4, trailing_stop_pct=3)
    )
    candles = synthetic_candles(symbols, "1h", "2024-01-01T05:00", bars, seed)
    return rerun(SmaCrossover(fast=5, slow=slow), candles, account)


@pytest.fixture(scope="module")
def run() -> Backtest:
    return run_of(["BTCUSDT", "ETHUSDT", "SOLUSDT"], seed=1)


@pytest.fixture(scope="module")
def idle() -> Backtest:
    """A run that is too short for its slow average: it never trades."""
    return run_of(["BTCUSDT"], seed=1, bars=100, slow=200)


def days_of(returns: np.ndarray) -> DaySums:
    """Days of one bar each, from their returns; always invested, no costs."""
    nothing, one = np.zeros(len(returns)), np.ones(len(returns))
    downside = np.minimum(returns, 0.0)
    columns = (one, returns, returns**2, downside**2, one, one, nothing, nothing)
    growth = 1.0 + returns
    return DaySums(
        growth=growth,
        highest=np.maximum(growth, 1.0),
        lowest=np.minimum(growth, 1.0),
        drawdown=np.maximum(-returns, 0.0),
        sums=np.column_stack(columns),
        fees=nothing,
        initial_cash=1000.0,
        bar_ms=DAY,
    )


def require_close(found: Metrics, expected: Metrics, leave: tuple[str, ...] = ()) -> None:
    for name in Metrics._fields:
        if name not in ("win_rate", "profit_factor", *leave):
            ours, theirs = getattr(found, name), getattr(expected, name)
            assert ours == pytest.approx(theirs, rel=1e-10, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("seed", range(6))
def test_the_days_in_their_own_order_give_the_figures_of_the_run(seed: int) -> None:
    found = run_of(["BTCUSDT", "ETHUSDT", "SOLUSDT"][: 1 + seed % 3], seed, bars=700 + 7 * seed)
    days = day_sums_of(found)
    assert found.metrics.trades > 10
    assert len(days) == len(found.daily_returns)
    np.testing.assert_allclose(days.growth - 1.0, found.daily_returns, atol=1e-15)
    require_close(figures_of_days(days, np.arange(len(days))[None])[0], found.metrics)


def test_so_they_do_on_real_candles_with_the_real_outage(shared_history: History) -> None:
    candles = shared_history.load(["BTCUSDT", "ETHUSDT"], "1h", "2023-01-01", "2023-07-01")
    found = rerun(SmaCrossover(fast=10, slow=40), candles, Account(limits=OPEN))
    days = day_sums_of(found)
    assert 23 in days.sums[:, 0]  # the day of the missing hour
    require_close(figures_of_days(days, np.arange(len(days))[None])[0], found.metrics)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_days_put_together_anew_give_the_figures_of_their_bars(
    run: Backtest, data: st.DataObject
) -> None:
    """The bars of the drawn days one after the other, and each figure from its definition."""
    days = day_sums_of(run)
    drawn = np.array(data.draw(st.lists(st.integers(0, len(days) - 1), min_size=2, max_size=90)))
    cash, before = run.account.initial_cash, np.append(run.account.initial_cash, run.log.equity)
    change = run.log.equity / before[:-1] - 1.0
    ends = day_ends(run.tape.close_time)
    spans = [np.arange(a, b) for a, b in pairwise([0, *(ends + 1)])]
    bars = np.concatenate([spans[day] for day in drawn])
    returns = change[bars]
    equity = cash * np.cumprod(1.0 + returns)
    held = (run.log.equity - run.log.cash)[bars]
    opening = np.append(cash, equity)[:-1]
    fees = (run.log.fill_fee + run.log.stop_fee).sum(axis=1) / before[:-1]
    peak = np.maximum.accumulate(np.append(cash, equity))[1:]
    years = len(bars) / (365 * 24)
    expected = Metrics(
        total_return=equity[-1] / cash - 1,
        cagr=(equity[-1] / cash) ** (1 / years) - 1,
        sharpe=returns.mean() / returns.std(ddof=1) * math.sqrt(365 * 24)
        if returns.any()
        else math.nan,
        sortino=returns.mean()
        / math.sqrt((np.minimum(returns, 0) ** 2).mean())
        * math.sqrt(365 * 24)
        if (returns < 0).any()
        else math.nan,
        max_drawdown=float((1 - equity / peak).max()),
        trades=0,
        win_rate=math.nan,
        profit_factor=math.nan,
        exposure=float((held / run.log.equity[bars]).mean()),
        time_in_market=float((held > 0).mean()),
        turnover=math.nan,
        fees_paid=float((fees[bars] * opening).sum()),
        final_equity=float(equity[-1]),
    )
    require_close(figures_of_days(days, drawn[None])[0], expected, leave=("trades", "turnover"))


def test_a_fall_over_several_days_is_seen_and_so_is_one_within() -> None:
    """By hand: 1.0 -> 1.2 -> 0.9 -> 0.99: 25 % from the high; the days turned round fall less."""
    returns = np.array([0.2, -0.25, 0.1])
    found = figures_of_days(days_of(returns), np.array([[0, 1, 2], [1, 2, 0], [0, 1, 1]]))
    assert [one.max_drawdown for one in found] == pytest.approx([0.25, 0.25, 1 - 0.75**2])
    assert [one.total_return for one in found] == pytest.approx([-0.01, -0.01, 1.2 * 0.5625 - 1])
    assert found[0].final_equity == pytest.approx(990.0)
    assert found[0].exposure == 1.0


def slow_indices(n: int, length: float, draws: int, seed: int) -> np.ndarray:
    """Politis and Romano's recipe position by position."""
    rng = np.random.default_rng(seed)
    chances, anywhere = rng.random((draws, n)), rng.integers(0, n, (draws, n))
    found = anywhere.copy()
    for row in range(draws):
        for i in range(1, n):
            if chances[row, i] >= 1 / length:
                found[row, i] = (found[row, i - 1] + 1) % n
    return found


@given(st.integers(1, 40), st.floats(1.0, 30.0), st.integers(0, 1000))
def test_positions_are_those_of_the_recipe_step_by_step(n: int, length: float, seed: int) -> None:
    found = stationary_indices(n, length, 3, np.random.default_rng(seed))
    np.testing.assert_array_equal(found, slow_indices(n, length, 3, seed))


def shape_of(drawn: np.ndarray) -> tuple[float, np.ndarray]:
    """The share of positions that follow the one before, and how often each was drawn."""
    n = drawn.shape[1]
    follows = (drawn[:, 1:] - drawn[:, :-1]) % n == 1
    return float(follows.mean()), np.bincount(drawn.ravel(), minlength=n) / drawn.size


@pytest.mark.parametrize("length", [1.0, 3.5, 12.0])
def test_positions_have_the_law_of_arch(length: float) -> None:
    """The mean length of blocks, 1 / (share that begin), and every position as often as another."""
    from arch.bootstrap import StationaryBootstrap

    n, draws = 50, 4000
    ours = stationary_indices(n, length, draws, np.random.default_rng(1))
    theirs = StationaryBootstrap(length, np.arange(n), seed=2)
    arch = np.array([drawn for (drawn,), _ in theirs.bootstrap(draws)])
    follow = 1 - (1 / length) * (1 - 1 / n)  # a new block too may begin at the next position
    for drawn in (ours, arch):
        share, marginal = shape_of(drawn)
        assert share == pytest.approx(follow, abs=0.005)
        np.testing.assert_allclose(marginal, 1 / n, atol=0.004)
        assert drawn.min() == 0
        assert drawn.max() == n - 1
    wrong = stationary_indices(n, length + 1, draws, np.random.default_rng(1))
    assert abs(shape_of(wrong)[0] - follow) > 0.005


def autoregressive(count: int, days: int, phi: float) -> np.ndarray:
    rng = np.random.default_rng(7)
    shocks = rng.normal(0.0, 0.01 * math.sqrt(1 - phi * phi), (count, days + 50))
    found = np.zeros_like(shocks)
    for day in range(1, days + 50):
        found[:, day] = phi * found[:, day - 1] + shocks[:, day]
    return found[:, 50:] + 0.0008


def coverage(series: np.ndarray, length: float | None) -> float:
    """How often the 90 % interval of the Sharpe ratio holds the true one, 0.08 a day."""
    true, hits = 0.08 * math.sqrt(365), 0
    for seed, returns in enumerate(series):
        mean_length = automatic_length(returns) if length is None else length
        rng = np.random.default_rng(seed)
        drawn = day_draws(days_of(returns), mean_length, 200, rng)
        low, high = np.quantile([one.sharpe for one in drawn], [0.05, 0.95])
        hits += low <= true <= high
    return hits / len(series)


def test_the_interval_of_the_sharpe_ratio_covers_as_often_as_it_says() -> None:
    assert coverage(autoregressive(150, 300, phi=0.0), None) == pytest.approx(0.9, abs=0.06)


def test_blocks_are_what_keeps_the_coverage_where_days_hang_together() -> None:
    """Days drawn one by one, the negative control, would cover the true ratio far too seldom."""
    series = autoregressive(150, 300, phi=0.5)
    assert coverage(series, None) > 0.8
    assert coverage(series, 1.0) < 0.75


def test_every_figure_of_a_run_has_its_value_between_low_and_high(run: Backtest) -> None:
    frame = intervals(run, draws=500)
    assert list(frame.index) == list(METRICS) == list(RESAMPLED)
    assert list(frame.columns) == ["value", "low", "high"]
    assert frame["value"].to_dict() == {k: float(v) for k, v in run.metrics._asdict().items()}
    assert frame.notna().all(axis=None)
    assert (frame["low"] < frame["high"]).all()
    likely = frame.drop(index="max_drawdown")  # order makes it: it may lie outside its own
    assert ((likely["low"] < likely["value"]) & (likely["value"] < likely["high"])).all()


def test_a_higher_level_gives_wider_intervals_from_the_same_draws(run: Backtest) -> None:
    narrow, wide = intervals(run, level=0.5, draws=300), intervals(run, level=0.99, draws=300)
    assert (wide["low"] < narrow["low"]).all()
    assert (wide["high"] > narrow["high"]).all()


def test_the_same_seed_gives_the_same_intervals(run: Backtest) -> None:
    one, same, other = (intervals(run, draws=200, seed=seed) for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(one, same)
    assert (one.loc["sharpe"] != other.loc["sharpe"]).any()


def test_win_rate_is_drawn_from_trades_as_a_binomial_is(run: Backtest) -> None:
    """As many trades drawn with replacement: the number of wins is binomial, by definition."""
    from scipy import stats

    frame = intervals(run, level=0.9, draws=20_000)
    n, rate = run.metrics.trades, run.metrics.win_rate
    low, high = stats.binom.ppf([0.05, 0.95], n, rate) / n
    assert frame.loc["win_rate", "low"] == pytest.approx(low, abs=1.01 / n)
    assert frame.loc["win_rate", "high"] == pytest.approx(high, abs=1.01 / n)
    wins = np.array([trade.pnl for trade in run.trade_list]) > 0
    assert wins.mean() == pytest.approx(rate)


def test_draws_without_a_loser_have_an_infinite_profit_factor() -> None:
    rate, factor = module._trade_figures(np.array([5.0, -1.0]), 4000, np.random.default_rng(0))
    assert set(zip(rate.tolist(), factor.tolist(), strict=True)) == {
        (0.0, 0.0),
        (0.5, 5.0),
        (1.0, math.inf),
    }
    assert module._middle(factor, 5.0, 0.95) == (0.0, math.inf)
    between = np.array([1.0, math.inf])  # where an end falls between two draws, it is one of them
    assert module._middle(between, 5.0, 0.5) == (1.0, math.inf)


def test_what_cannot_be_said_has_no_interval(idle: Backtest) -> None:
    frame = intervals(idle, draws=50)
    assert idle.metrics.trades == 0
    unsaid = frame.loc[["sharpe", "sortino", "win_rate", "profit_factor"]]
    assert unsaid.isna().all(axis=None)
    assert (frame.loc[["total_return", "max_drawdown", "trades", "fees_paid"]] == 0.0).all(
        axis=None
    )
    alone = run_of(["BTCUSDT"], seed=1, bars=10, slow=200)  # one day is nothing to draw from
    assert intervals(alone, draws=50)[["low", "high"]].isna().all(axis=None)


def test_trades_one_after_the_other_make_the_return_of_the_run() -> None:
    """Of one symbol up to where it was last flat: no trades overlap and none is left out."""
    found = run_of(["BTCUSDT"], seed=4)
    flat = np.flatnonzero(found.log.equity == found.log.cash)[-1]
    grown = float(np.prod(1.0 + trade_returns(found)))
    assert grown * 10_000 == pytest.approx(found.log.equity[flat], rel=1e-12)


def test_a_trade_is_measured_on_the_equity_at_the_last_close_before_it(run: Backtest) -> None:
    found = trade_returns(run)
    assert len(found) == run.metrics.trades > 50
    for value, trade in zip(found, run.trade_list, strict=True):
        opened = pd.Timestamp(trade.opened_at, unit="ms", tz="UTC")
        equity = run.equity[run.equity.index <= opened]
        assert value == trade.pnl / (equity.iloc[-1] if len(equity) else 10_000.0)


def test_redrawn_trades_are_independent_draws(run: Backtest) -> None:
    """So that the mean of their products is the product of their means."""
    drawn, factors = trade_monte_carlo(run, draws=8000), 1.0 + trade_returns(run)
    spread = drawn.final_return.std() / math.sqrt(8000)
    mean = factors.mean() ** len(factors) - 1
    assert drawn.final_return.mean() == pytest.approx(mean, abs=4 * spread)
    assert drawn.loss_probability == np.mean(drawn.final_return < 0)
    assert drawn.trades == len(factors)


def test_trades_that_all_lose_the_same_fall_from_where_they_began() -> None:
    final, fall = module._redrawn(np.full(5, 0.9), 3, np.random.default_rng(0))
    assert final == pytest.approx([0.9**5 - 1] * 3)
    assert fall == pytest.approx([1 - 0.9**5] * 3)


def test_a_redrawn_drawdown_is_the_deepest_fall_between_trades(
    run: Backtest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trade_monte_carlo(run, draws=30, seed=2)
    assert (whole.max_drawdown >= np.maximum(-whole.final_return, 0.0)).all()
    assert (whole.max_drawdown < 1.0).all()
    monkeypatch.setattr(module, "CELLS", len(run.trade_list) * 7)  # pieces of seven draws
    pieces = trade_monte_carlo(run, draws=30, seed=2)
    np.testing.assert_array_equal(whole.final_return, pieces.final_return)
    np.testing.assert_array_equal(whole.max_drawdown, pieces.max_drawdown)


def test_quantiles_of_redrawn_trades_are_a_table_and_a_sentence(run: Backtest) -> None:
    drawn = trade_monte_carlo(run, draws=500, seed=1)
    table = drawn.quantiles()
    assert table.index.name == "quantile"
    assert table["final_return"].is_monotonic_increasing
    assert table.loc[0.5, "max_drawdown"] == np.median(drawn.max_drawdown)
    assert repr(drawn).startswith(f"{run.metrics.trades} trades drawn 500 times: return ")
    assert drawn.quantiles([0.5]).shape == (1, 2)


def test_a_run_without_a_trade_has_nothing_to_redraw(idle: Backtest) -> None:
    drawn = trade_monte_carlo(idle, draws=10)
    assert drawn.trades == 0
    assert math.isnan(drawn.loss_probability)
    assert drawn.quantiles().isna().all(axis=None)
    assert repr(drawn) == "No trade to draw from."


def test_the_automatic_length_is_one_where_nothing_can_be_said() -> None:
    rng = np.random.default_rng(0)
    assert automatic_length(np.zeros(500)) == 1.0
    assert automatic_length(rng.normal(size=15)) == 1.0
    assert automatic_length(np.append(rng.normal(size=5), np.zeros(300))) >= 1.0
    assert automatic_length(autoregressive(1, 1000, 0.7)[0]) > 5.0


def test_without_arch_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arch.bootstrap", None)
    monkeypatch.setitem(sys.modules, "arch", None)
    with pytest.raises(InputError, match=r"candlebook\[evidence\]"):
        automatic_length(np.random.default_rng(0).normal(size=100))


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"draws": 0}, "draws"), ({"level": 1.0}, "level"), ({"level": 95}, "level")],
)
def test_what_makes_no_sense_is_refused_by_name(run: Backtest, arguments: dict, field: str) -> None:
    with pytest.raises(InputError) as caught:
        intervals(run, **arguments)
    assert caught.value.field == field
    with pytest.raises(InputError):
        trade_monte_carlo(run, draws=0)
