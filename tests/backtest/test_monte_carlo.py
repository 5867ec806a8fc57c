"""Markets made of a run's own bars: sound, of the same moves, and without what was longer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from research.account import Account, Limits, Stops
from research.backtesting import Backtest, rerun
from research.candles import COLUMNS, Candles, CandleSet, find_gaps, require_sound
from research.errors import InputError, ParameterError
from research.evidence import monte_carlo as module
from research.evidence.bootstrap import stationary_indices
from research.evidence.monte_carlo import candle_monte_carlo, mean_block, resampled
from research.history import History
from research.strategies.buy_and_hold import BuyAndHold
from research.strategies.sma_crossover import SmaCrossover
from tests.backtest.noise import noise, ragged

FREE = Account(fee_rate=0.0, slippage_bps=0.0, limits=None)
BUSY = Account(
    limits=Limits(max_position_pct=40, max_drawdown_pct=25, max_daily_loss_pct=3),
    stops=Stops(stop_loss_pct=4, take_profit_pct=9),
)


def stationary_places(rng: np.random.Generator, bars: int, pool: int, block: float) -> np.ndarray:
    return stationary_indices(pool, block, 1, rng, size=bars)[0]


def moves(one: Candles) -> np.ndarray:
    """Open, high, low, close over the close before, and volume: candle by candle, the first not."""
    prices = np.column_stack([getattr(one, name) for name in COLUMNS[:4]])
    return np.column_stack([prices[1:] / one.close[:-1, None], one.volume[1:]])


@pytest.mark.parametrize("start", [None, "2024-01-10T03:00"])
def test_every_bar_moving_as_itself_gives_the_candles_back(start: str | None) -> None:
    candles = ragged(700)
    run = rerun(SmaCrossover(5, 20), candles, BUSY, trade_from=start)
    same = resampled(run, np.arange(len(run.tape.close_time)))
    for one, other in zip(candles, same, strict=True):
        assert other.ts.tolist() == one.ts.tolist()
        for name in COLUMNS:
            assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-11)


def test_every_new_bar_moves_as_the_same_old_bar_in_every_symbol() -> None:
    run = rerun(SmaCrossover(5, 20), noise(3, 300, symbols=3), BUSY)
    rows = np.random.default_rng(0).integers(1, 300, 300)
    made = resampled(run, rows)
    for one, other in zip(run.candles, made, strict=True):
        assert moves(other) == pytest.approx(moves(one)[rows[1:] - 1], rel=1e-11)
        assert [getattr(other, n)[0] for n in COLUMNS] == [getattr(one, n)[0] for n in COLUMNS]


def test_blocks_that_differ_between_symbols_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = module._moves

    def apart(run: Backtest, s: int, bars: np.ndarray) -> dict[str, np.ndarray]:
        return whole(run, s, np.roll(bars, s))

    monkeypatch.setattr(module, "_moves", apart)
    with pytest.raises(AssertionError):
        test_every_new_bar_moves_as_the_same_old_bar_in_every_symbol()


@pytest.mark.parametrize("seed", range(5))
def test_the_candles_are_sound_at_the_same_timestamps_and_gaps(seed: int) -> None:
    run = rerun(SmaCrossover(5, 20), ragged(700), BUSY, trade_from="2024-01-03T03:00")
    rows = module._pool(run)
    rng = np.random.default_rng(seed)
    made = resampled(run, rows[stationary_places(rng, len(run.tape.close_time), len(rows), 9.0)])
    made.require_gaps_accepted()
    for one, other in zip(run.candles, made, strict=True):
        require_sound(other)
        assert other.ts.tolist() == one.ts.tolist()
        assert find_gaps(other) == find_gaps(one)
        before = int(np.searchsorted(one.ts, run.tape.close_time[0] - one.bar_ms))
        assert other.close[:before].tolist() == one.close[:before].tolist()
        assert other.close[before + 1 :].tolist() != one.close[before + 1 :].tolist()


def test_a_high_that_was_rounded_below_a_close_is_mended() -> None:
    one = noise(1, 50).series[0]
    crossed = replace(one, high=one.close * (1 - 1e-15), low=one.close * (1 + 1e-15))
    mended = module._sound(crossed, 0)
    require_sound(mended)
    assert np.all(mended.high >= np.maximum(one.open, one.close))


def test_blocks_have_the_mean_length_asked_for_and_run_on_in_a_circle() -> None:
    rng = np.random.default_rng(5)
    rows = stationary_places(rng, 200_000, 1_000, 25.0)
    assert rows.min() == 0
    assert rows.max() == 999
    breaks = np.count_nonzero(np.diff(rows) % 1_000 != 1)
    assert 200_000 / (breaks + 1) == pytest.approx(25.0, rel=0.03)
    whole = stationary_places(rng, 5_000, 1_000, 1e12)
    assert (np.diff(whole) % 1_000 == 1).all()
    alone = stationary_places(rng, 5_000, 1_000, 1.0)
    assert np.mean(np.diff(alone) % 1_000 == 1) < 0.01


def test_every_draw_equals_a_rerun_on_its_candles() -> None:
    for start in (None, "2024-01-08T03:00"):
        run = rerun(SmaCrossover(5, 20), ragged(700), BUSY, trade_from=start)
        found = candle_monte_carlo(run, draws=4, seed=3, block_days=2)
        assert found.block_bars == 48.0
        pool = module._pool(run)
        for draw in range(4):
            rng = np.random.default_rng([3, draw])
            rows = pool[stationary_places(rng, len(run.tape.close_time), len(pool), 48.0)]
            alone = rerun(SmaCrossover(5, 20), resampled(run, rows), BUSY, trade_from=start)
            assert found.draws.loc[draw].tolist() == [*alone.metrics, alone.last.tripped]
        assert found.real == run.metrics


def test_a_draw_depends_on_the_seed_and_its_number_alone() -> None:
    run = rerun(SmaCrossover(5, 20), noise(3, 400), BUSY)
    few, many = (candle_monte_carlo(run, draws, seed=1) for draws in (3, 8))
    assert few.draws.equals(many.draws.iloc[:3])
    assert not candle_monte_carlo(run, 3, seed=2).draws.equals(few.draws)


def waves() -> CandleSet:
    """Slow waves in noise: trends that last for hundreds of bars."""
    one = noise(8, 3_000).series[0]
    wave = np.exp(0.5 * np.sin(np.arange(3_000) / 120.0))
    close = 100.0 * wave * np.exp(np.random.default_rng(1).normal(0.0, 0.004, 3_000))
    opened = np.append(100.0, close[:-1])
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    return CandleSet((Candles(one.symbol, "1h", one.ts, opened, high, low, close, one.volume),))


def test_a_run_that_lives_off_long_trends_lies_above_markets_of_short_blocks() -> None:
    run = rerun(SmaCrossover(20, 60), waves(), FREE)
    short = candle_monte_carlo(run, 40, block_days=0.5)
    assert short.rank("sharpe") == 1.0
    long = candle_monte_carlo(run, 40, block_days=40)
    assert long.draws["sharpe"].median() > short.draws["sharpe"].median() + 1.0


def test_on_a_random_walk_the_run_is_one_among_its_draws() -> None:
    ranks = [
        candle_monte_carlo(rerun(SmaCrossover(5, 30), noise(s, 500), FREE), 19, block_days=1).rank(
            "sharpe"
        )
        for s in range(30)
    ]
    assert 0.3 < float(np.mean(ranks)) < 0.7
    assert np.mean([0.05 < rank < 0.95 for rank in ranks]) > 0.75


def test_holding_keeps_its_drift_in_every_order_of_things() -> None:
    run = rerun(BuyAndHold(), noise(2, 2_000, drift=0.002), FREE)
    found = candle_monte_carlo(run, 40, block_days=1)
    assert found.draws["sharpe"].mean() == pytest.approx(run.metrics.sharpe, rel=0.15)
    assert 0.05 < found.rank("sharpe") < 0.95


def test_ranks_are_counted_by_hand() -> None:
    run = rerun(SmaCrossover(5, 20), noise(3, 400), BUSY)
    found = candle_monte_carlo(run, 10, block_days=1)
    for name in ("sharpe", "total_return", "max_drawdown"):
        real, drawn = getattr(run.metrics, name), found.draws[name].tolist()
        expected = sum(1.0 if one < real else 0.5 if one == real else 0.0 for one in drawn) / 10
        assert found.rank(name) == pytest.approx(expected)
        assert found.table.loc[name, "real"] == real
        assert found.table.loc[name, 0.5] == pytest.approx(np.median(drawn))
    assert "in 10 markets" in repr(found)
    with pytest.raises(ParameterError, match="figure: expected one of"):
        found.rank("luck")


def test_a_run_that_never_trades_ranks_among_equals() -> None:
    found = candle_monte_carlo(rerun(SmaCrossover(5, 900), noise(3, 300), FREE), 5)
    assert math.isnan(found.real.sharpe)
    assert found.rank("sharpe") == 0.5


def test_the_block_is_archs_and_longer_where_volatility_clusters() -> None:
    from arch.bootstrap import optimal_block_length

    calm = rerun(BuyAndHold(), noise(5, 3_000), FREE)
    one = calm.candles.series[0]
    returns = np.diff(np.log(one.close))
    lengths = [
        optimal_block_length(values)["stationary"].iloc[0] for values in (returns, returns**2)
    ]
    assert mean_block(calm) == pytest.approx(max(1.0, *lengths))
    scale = np.repeat(np.where(np.arange(30) % 2, 3.0, 0.5), 100)[1:]
    close = 100.0 * np.exp(np.append(0.0, np.cumsum(returns * scale)))
    opened = np.append(100.0, close[:-1])
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    wild = Candles("AAA", "1h", one.ts, opened, high, low, close, one.volume)
    assert mean_block(rerun(BuyAndHold(), wild, FREE)) > 5 * mean_block(calm)


def test_a_still_market_has_blocks_of_one_bar() -> None:
    flat = np.full(100, 50.0)
    one = noise(1, 100).series[0]
    still = Candles("AAA", "1h", one.ts, flat, flat, flat, flat, one.volume)
    run = rerun(BuyAndHold(), still, FREE)
    assert mean_block(run) == 1.0
    assert candle_monte_carlo(run, 2).draws["total_return"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "wrong",
    [{"draws": 0}, {"seed": -1}, {"block_days": 0.01}, {"block_days": 6.0}, {"block_days": "1"}],
)
def test_wrong_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        candle_monte_carlo(rerun(SmaCrossover(5, 20), noise(3, 400), FREE), **wrong)


def test_symbols_that_share_too_few_bars_are_refused() -> None:
    both = noise(4, 300, symbols=2)
    late = replace(both, series=(both.series[0], both.series[1].rows(280, 300)))
    run: Backtest = rerun(SmaCrossover(5, 20), late, FREE)
    with pytest.raises(InputError, match="its symbols share 19 bars"):
        candle_monte_carlo(run)


def test_real_candles_with_the_real_outage(shared_history: History) -> None:
    real = shared_history.load(["BTCUSDT", "SOLUSDT"], "1h", "2023-03-01", "2023-05-01")
    run = rerun(SmaCrossover(5, 20), real, BUSY, trade_from="2023-03-10")
    found = candle_monte_carlo(run, 6)
    assert found.draws["sharpe"].nunique() == 6
    rows = np.random.default_rng(1).choice(module._pool(run), len(run.tape.close_time))
    for one in resampled(run, rows):
        require_sound(one)
