"""What a run is measured against: by closed form, by the engine, by statsmodels, by brute force."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from research.account import Account, Limits, Stops
from research.backtesting import Backtest, rerun
from research.candles import CandleSet
from research.errors import InputError, ParameterError
from research.evidence import benchmarks
from research.evidence import random_entries as module
from research.evidence.benchmarks import alpha_beta, buy_and_hold, market_returns
from research.evidence.random_entries import Turning, random_entries, rotated, turning_of
from research.evidence.reruns import PreparedTargets
from research.history import History
from research.strategies.buy_and_hold import BuyAndHold
from research.strategies.donchian_breakout import DonchianBreakout
from research.strategies.momentum_rotation import MomentumRotation
from research.strategies.rsi_reversal import RsiReversal
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Strategy
from tests.backtest.noise import noise, ragged

FREE = Account(fee_rate=0.0, slippage_bps=0.0, limits=None)
BUSY = Account(
    limits=Limits(max_position_pct=40, max_drawdown_pct=25, max_daily_loss_pct=3),
    stops=Stops(stop_loss_pct=4, trailing_stop_pct=6, take_profit_pct=9),
)


# Buy and hold


def test_holding_one_symbol_is_what_the_engine_makes_of_buy_and_hold() -> None:
    candles = noise(1, 600)
    costs = Account(limits=None, fee_rate=0.002, slippage_bps=20)
    run = rerun(BuyAndHold(), candles, costs)
    found = buy_and_hold(run)
    assert found.full.equity.to_numpy() == pytest.approx(run.equity.to_numpy(), rel=1e-8)
    assert found.full.sharpe == pytest.approx(run.metrics.sharpe, rel=1e-6)
    assert found.full.max_drawdown == pytest.approx(run.metrics.max_drawdown, rel=1e-6)
    assert found.full.total_return == pytest.approx(run.metrics.total_return, rel=1e-6)
    assert found.excess_sharpe == pytest.approx(0.0, abs=1e-6)


def test_holding_several_symbols_by_closed_form() -> None:
    candles = ragged(900)
    account = Account(fee_rate=0.001, slippage_bps=10)
    run = rerun(SmaCrossover(5, 20), candles, account)
    expected = []
    for close_time in run.tape.close_time:
        worth = 0.0
        for one in candles:
            at = int(np.searchsorted(one.ts, close_time - one.bar_ms, side="right")) - 1
            if at < 1:
                worth += 5_000.0
            else:
                worth += 5_000.0 / (one.open[1] * 1.001 * 1.001) * one.close[at]
        expected.append(worth)
    found = buy_and_hold(run)
    assert found.full.equity.to_numpy() == pytest.approx(expected, rel=1e-12)
    assert found.full.total_return == pytest.approx(expected[-1] / 10_000.0 - 1.0)
    curve = np.array([10_000.0, *expected])
    assert found.full.max_drawdown == pytest.approx(
        float(np.max(1.0 - curve / np.maximum.accumulate(curve)))
    )


def test_a_holder_who_buys_a_bar_too_soon_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = benchmarks._last_closes
    monkeypatch.setattr(benchmarks, "_last_closes", lambda run: np.roll(whole(run), -1, axis=0))
    with pytest.raises(AssertionError):
        test_holding_one_symbol_is_what_the_engine_makes_of_buy_and_hold()


def test_the_even_holding_bears_the_runs_exposure_at_every_bar() -> None:
    run = rerun(SmaCrossover(5, 20), noise(2, 900, drift=0.0005), BUSY)
    found = buy_and_hold(run)
    share = run.metrics.exposure
    assert 0.0 < share < 0.4
    moves = found.full.equity.pct_change().to_numpy()[1:]
    assert found.even.equity.pct_change().to_numpy()[1:] == pytest.approx(share * moves)
    assert found.even.exposure == share
    assert found.even.sharpe == pytest.approx(found.full.sharpe)
    assert found.even.max_drawdown < found.full.max_drawdown
    assert found.excess_sharpe == run.metrics.sharpe - found.full.sharpe
    assert found.excess_return == run.metrics.total_return - found.even.total_return


def test_a_run_with_a_start_is_measured_from_there_on() -> None:
    candles = noise(1, 600)
    account = Account(limits=None)
    run = rerun(BuyAndHold(), candles, account, trade_from="2024-01-10T03:00")
    found = buy_and_hold(run)
    assert found.full.equity.index.equals(run.equity.index)
    assert found.full.equity.to_numpy() == pytest.approx(run.equity.to_numpy(), rel=1e-8)


# Alpha and beta


def test_alpha_and_beta_are_those_of_statsmodels() -> None:
    import statsmodels.api as sm

    run = rerun(SmaCrossover(10, 50), noise(7, 8_000, symbols=2, memory=0.1), BUSY)
    found = alpha_beta(run)
    market = market_returns(run)
    assert found.lags == int(4 * (found.days / 100) ** (2 / 9)) > 1
    fit = sm.OLS(run.daily_returns.to_numpy(), sm.add_constant(market.to_numpy())).fit(
        cov_type="HAC", cov_kwds={"maxlags": found.lags}
    )
    assert [found.alpha / 365, found.beta] == pytest.approx(fit.params.tolist(), rel=1e-9)
    assert [found.alpha_t, found.beta_t] == pytest.approx(fit.tvalues.tolist(), rel=1e-9)
    assert found.r_squared == pytest.approx(fit.rsquared, rel=1e-9)
    plain = sm.OLS(run.daily_returns.to_numpy(), sm.add_constant(market.to_numpy())).fit()
    assert abs(found.beta_t / plain.tvalues[1] - 1) > 0.01, "plain errors would not do"


def test_the_market_is_the_mean_of_the_symbols_days_and_a_holder_has_beta_one() -> None:
    candles = ragged(900)
    run = rerun(BuyAndHold(), candles, FREE)
    days = [one.frame()["close"] for one in candles]
    closes = pd.concat(
        [
            one.set_axis(one.index + pd.Timedelta(hours=1)).groupby(lambda t: t.floor("D")).last()
            for one in days
        ],
        axis=1,
        keys=candles.symbols,
    )
    moves = closes.pct_change(fill_method=None)
    moves.iloc[0, 0] = closes.iloc[0, 0] / candles.series[0].close[0] - 1
    expected = moves.mean(axis=1)
    assert market_returns(run).to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-9, abs=1e-15)
    alone = rerun(BuyAndHold(), noise(9, 2_000), FREE)
    found = alpha_beta(alone)
    assert found.beta == pytest.approx(1.0, abs=0.03)
    assert found.r_squared > 0.99


def test_an_idle_run_has_no_alpha() -> None:
    found = alpha_beta(rerun(SmaCrossover(10, 500), noise(1, 300), FREE))
    assert math.isnan(found.alpha)
    assert math.isnan(found.alpha_t)
    short = alpha_beta(rerun(BuyAndHold(), noise(1, 30), FREE))
    assert short.days == 2
    assert math.isnan(short.beta)


# Random entries

RUNS: list[tuple[Strategy, Any]] = [
    (SmaCrossover(5, 20), noise(3, 500)),
    (DonchianBreakout(10, 5), noise(5, 400, symbols=3)),
    (MomentumRotation(lookback=24, rebalance_every=6), noise(6, 400, symbols=3)),
    (RsiReversal(), ragged(900)),
]


def by_hand(run: Backtest, shift: int) -> Backtest:
    """The run with its targets ``shift`` bars later in a circle, one by one, bar by bar."""
    clock = (run.tape.close_time - run.candles.bar_ms).tolist()
    levels: dict[tuple[int, str], float] = {}
    ready: dict[str, int] = {}
    for one, said in zip(run.candles, run.targets, strict=True):
        now = 0.0
        at = dict(zip(one.ts.tolist(), range(len(one)), strict=True))
        for t, ts in enumerate(clock):
            place = at.get(ts, -1)
            if place >= run.strategy.warmup:
                ready.setdefault(one.symbol, t)
                if not math.isnan(said.target[place]):
                    now = float(said.target[place])
            if one.symbol in ready:
                levels[t, one.symbol] = now
    first = max(ready.values())
    bars = len(clock) - first
    columns = []
    for one in run.candles:
        column = np.full(len(one), np.nan)
        for i, ts in enumerate(one.ts.tolist()):
            if ts in clock:
                t = clock.index(ts)
                source = t if t < first else first + (t - first - shift) % bars
                column[i] = levels.get((source, one.symbol), math.nan)
        columns.append(column)
    prepared = PreparedTargets(run.symbols, lambda: tuple(columns))
    start = int(run.tape.close_time[0])
    return rerun(prepared, run.candles, run.account, trade_from=start)


@pytest.mark.parametrize(("strategy", "candles"), RUNS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("start", [None, "2024-01-04T05:00"])
def test_every_draw_equals_a_rerun_of_targets_that_were_turned_by_hand(
    strategy: Strategy, candles: CandleSet, start: str | None
) -> None:
    run = rerun(strategy, candles, BUSY, trade_from=start)
    found = random_entries(run, draws=6, seed=2)
    assert found.sharpe == run.metrics.sharpe
    assert found.exposure == run.metrics.exposure
    turned = [by_hand(run, int(shift)) for shift in found.shifts]
    assert found.sharpes.tolist() == [one.metrics.sharpe for one in turned]
    assert found.mean_exposure == np.mean([one.metrics.exposure for one in turned])
    assert found.halted == np.mean([one.last.tripped for one in turned])
    at_least = sum(one.metrics.sharpe >= run.metrics.sharpe for one in turned)
    assert found.p_value == (1 + at_least) / 7
    assert len(set(found.sharpes)) > 1


def test_turning_symbols_apart_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def apart(turning: Turning, shift: int) -> np.ndarray:
        each = [rotated(turning, shift + s)[:, s] for s in range(turning.levels.shape[1])]
        return np.column_stack(each)

    monkeypatch.setattr(module, "rotated", apart)
    with pytest.raises(AssertionError):
        test_every_draw_equals_a_rerun_of_targets_that_were_turned_by_hand(*RUNS[1], None)


def test_what_turns_stays_what_it_was_and_the_warm_up_stays_where_it_was() -> None:
    run = rerun(MomentumRotation(lookback=24, rebalance_every=6), noise(6, 400, symbols=3), BUSY)
    turning = turning_of(run)
    assert turning.first == 24
    assert not np.isnan(turning.levels[24:]).any()
    for shift in (0, 1, 57, 300):
        turned = rotated(turning, shift)
        assert turned[:24].tobytes() == turning.levels[:24].tobytes()
        assert turned[24 + shift :].tolist() == turning.levels[24 : 400 - shift].tolist()
        rows = [tuple(row) for row in turned[24:].tolist()]
        assert sorted(rows) == sorted(tuple(row) for row in turning.levels[24:].tolist())


def test_no_draw_is_the_run_itself_or_sees_prices_before_they_were() -> None:
    run = rerun(SmaCrossover(5, 20), noise(3, 200), FREE)
    found = random_entries(run, draws=100_000)
    assert found.bars == 200 - 19
    assert sorted(found.shifts.tolist()) == list(range(1, found.bars - 19))
    assert len(found.sharpes) == len(found.shifts)


def test_with_shifts_that_see_ahead_noise_would_look_better_than_the_run() -> None:
    """The negative control: draws a few bars *early* beat the run on pure noise."""
    ahead = behind = 0
    for seed in range(8):
        run = rerun(SmaCrossover(5, 20), noise(seed, 400), FREE)
        bars = turning_of(run).bars
        own = run.metrics.sharpe
        ahead += sum(by_hand(run, bars - early).metrics.sharpe > own for early in (3, 6))
        behind += sum(by_hand(run, late).metrics.sharpe > own for late in (3, 6))
    assert ahead == 16
    assert behind < 14


def test_the_same_seed_draws_the_same_and_another_others() -> None:
    run = rerun(SmaCrossover(5, 20), noise(3, 500), BUSY)
    one, same, other = (random_entries(run, 30, seed) for seed in (1, 1, 2))
    assert one.sharpes.tolist() == same.sharpes.tolist()
    assert one.shifts.tolist() == same.shifts.tolist()
    assert one.shifts.tolist() != other.shifts.tolist()
    assert "30 random timings" in repr(one)


def test_on_noise_p_values_are_about_uniform() -> None:
    from scipy.stats import kstest

    strategies = (SmaCrossover(10, 40), SmaCrossover(5, 100), RsiReversal())
    found = [
        random_entries(rerun(strategies[seed % 3], noise(100 + seed, 500), FREE), 39, seed).p_value
        for seed in range(60)
    ]
    assert kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.1) <= 0.25


def test_drift_is_no_timing_however_good_the_sharpe_ratio() -> None:
    runs = [
        rerun(SmaCrossover(10, 40), noise(seed, 1_000, drift=0.002), FREE) for seed in range(12)
    ]
    assert np.mean([run.metrics.sharpe for run in runs]) > 10
    found = np.array([random_entries(run, 49).p_value for run in runs])
    assert np.mean(found <= 0.05) <= 0.25
    assert 0.2 < np.median(found) < 0.8


def test_a_planted_edge_in_timing_is_found() -> None:
    runs = [rerun(SmaCrossover(2, 5), noise(seed, 1_500, memory=0.35), FREE) for seed in range(8)]
    found = [random_entries(run, 99).p_value for run in runs]
    assert np.median(found) <= 0.02
    assert max(found) < 0.2


def test_a_run_that_is_always_in_has_no_timing_at_all() -> None:
    found = random_entries(rerun(BuyAndHold(), noise(3, 300, drift=0.01), FREE), 20)
    assert found.p_value == 1.0
    falling = rerun(DonchianBreakout(50, 20), noise(3, 400, drift=-0.03), FREE)
    assert falling.metrics.trades == 0
    idle = random_entries(falling, 20)
    assert (idle.sharpe, idle.p_value) == (0.0, 1.0)


def test_a_kill_switch_that_halts_draws_shows_in_their_exposure() -> None:
    strict = Account(limits=Limits(max_position_pct=100, max_drawdown_pct=12))
    run = rerun(SmaCrossover(2, 5), noise(0, 1_500, memory=0.35), strict)
    found = random_entries(run, 40)
    assert found.halted > 0.5
    assert found.mean_exposure < 0.8 * found.exposure


def test_a_symbol_that_is_never_ready_takes_no_part_and_too_few_bars_are_refused() -> None:
    both = noise(4, 300, symbols=2)
    late = replace(both, series=(both.series[0], both.series[1].rows(290, 300)))
    run = rerun(SmaCrossover(5, 20), late, BUSY)
    alone = rerun(SmaCrossover(5, 20), CandleSet(both.series[:1]), BUSY)
    assert random_entries(run, 9).sharpes.tolist() == random_entries(alone, 9).sharpes.tolist()
    for bars in (60, 19, 10):
        with pytest.raises(InputError, match="at least 40"):
            random_entries(rerun(SmaCrossover(5, 20), noise(1, bars), BUSY))
    listed = replace(both, series=(both.series[0], both.series[1].rows(250, 300)))
    with pytest.raises(InputError, match="listed last"):
        random_entries(rerun(SmaCrossover(5, 20), listed, BUSY))


@pytest.mark.parametrize("wrong", [{"draws": 0}, {"draws": 1.5}, {"seed": -1}, {"draws": True}])
def test_wrong_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="a whole number from"):
        random_entries(rerun(SmaCrossover(5, 20), noise(3, 200), BUSY), **wrong)


def test_real_candles_with_the_real_outage(shared_history: History) -> None:
    real = shared_history.load(["BTCUSDT", "SOLUSDT"], "1h", "2023-03-01", "2023-04-15")
    run = rerun(SmaCrossover(5, 20), real, BUSY)
    found = random_entries(run, 3)
    assert found.sharpe == run.metrics.sharpe
    turned = [by_hand(run, int(shift)).metrics.sharpe for shift in found.shifts]
    assert found.sharpes.tolist() == turned
    assert buy_and_hold(run).full.equity.notna().all()
