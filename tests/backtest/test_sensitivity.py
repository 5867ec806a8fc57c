"""Costs, delay and start: each variation against a run that was set up for it by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from research.account import Account, Limits, Stops
from research.backtesting import Backtest, rerun
from research.candles import Candles, CandleSet, utc_ms
from research.errors import InputError, ParameterError
from research.evidence import sensitivity
from research.evidence.reruns import again, course_again
from research.evidence.sensitivity import (
    breakeven_factor,
    cost_sensitivity,
    delay_sensitivity,
    share_positive,
    start_sensitivity,
)
from research.history import History
from research.indicators import Bank
from research.rows import figures_of_rows
from research.strategies.buy_and_hold import BuyAndHold
from research.strategies.momentum_rotation import MomentumRotation
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Strategy, Targets, param
from research.synthetic import synthetic_candles
from research.tape import Intervention, Move

BUSY = Account(
    limits=Limits(max_position_pct=40, max_drawdown_pct=25, max_daily_loss_pct=3),
    stops=Stops(stop_loss_pct=4, take_profit_pct=9),
)
FREE = Account(fee_rate=0.0, slippage_bps=0.0, limits=None)
STARTS = [None, "2024-01-20T05:00"]


@dataclass(frozen=True)
class Late(Strategy):
    """What SmaCrossover(5, 20) says, ``late`` candles after it said it."""

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = SmaCrossover.reasons
    late: int = param(1, low=0, high=100)

    @property
    def warmup(self) -> int:
        return SmaCrossover(5, 20).warmup + self.late

    def targets(self, candles: Candles) -> Targets:
        said = SmaCrossover(5, 20).targets(candles)
        target = np.full(len(candles), np.nan)
        for t in range(self.late, len(candles)):
            target[t] = said.target[t - self.late]
        return Targets(target, np.zeros(len(candles)), said.reason)


@pytest.fixture(scope="module")
def candles() -> CandleSet:
    return synthetic_candles(("AAAUSDT", "BBBUSDT"), "1h", utc_ms("2024-01-01T07:00"), 1_500)


def run_of(candles: CandleSet, account: Account = BUSY, **more: Any) -> Backtest:
    return rerun(SmaCrossover(5, 20), candles, account, **more)


def row(frame: pd.DataFrame, label: object) -> list[Any]:
    return frame.loc[label].tolist()


def figures(run: Backtest) -> list[Any]:
    return [*run.metrics, run.last.tripped]


# Costs


@pytest.mark.parametrize("start", STARTS)
def test_costs_equal_reruns_under_an_account_that_has_them(
    candles: CandleSet, start: str | None
) -> None:
    frame = cost_sensitivity(run_of(candles, trade_from=start), (0, 0.5, 1, 3))
    assert frame.index.tolist() == [0.0, 0.5, 1.0, 3.0]
    assert frame.index.name == "cost_factor"
    for factor in frame.index:
        account = BUSY.model_copy(update={"fee_rate": 0.001 * factor, "slippage_bps": 5 * factor})
        assert row(frame, factor) == figures(run_of(candles, account, trade_from=start))
    assert row(frame, 1.0) == figures(run_of(candles, trade_from=start))
    assert frame["fees_paid"].loc[0.0] == 0.0
    assert frame["total_return"].is_monotonic_decreasing


def test_moves_of_the_kill_switch_are_made_again(candles: CandleSet) -> None:
    acts = [
        Intervention(utc_ms("2024-01-15"), Move.KILL),
        Intervention(utc_ms("2024-02-01"), Move.RESET),
        Intervention(utc_ms("2024-02-10"), Move.REDUCE),
    ]
    run = run_of(candles, interventions=acts)
    account = BUSY.model_copy(update={"fee_rate": 0.002, "slippage_bps": 10.0})
    expected = run_of(candles, account, interventions=acts)
    assert row(cost_sensitivity(run), 2.0) == figures(expected)
    assert row(delay_sensitivity(run), 0) == figures(run)
    assert figures(run) != figures(run_of(candles)), "otherwise nobody would notice their absence"
    (again_in_rows,) = figures_of_rows([run.strategy], course_again(run), BUSY, Bank(0))
    assert list(again_in_rows.figures) == list(run.metrics)


def test_at_the_breakeven_factor_gains_turn_into_losses() -> None:
    run = rerun(SmaCrossover(5, 20), waves(0.0), BUSY)
    assert run.metrics.total_return > 0.0
    factor = breakeven_factor(run)
    below, above = cost_sensitivity(run, (0.998 * factor, 1.002 * factor))["total_return"]
    assert below > 0.0 > above
    assert factor > 1.0


def test_a_losing_run_breaks_even_below_its_own_costs_or_never() -> None:
    costly = BUSY.model_copy(update={"fee_rate": 0.09, "slippage_bps": 100.0})
    run = rerun(SmaCrossover(5, 20), waves(0.0), costly)
    free = cost_sensitivity(run, [0])
    assert run.metrics.total_return < 0.0 < free["total_return"].loc[0.0]
    assert 0.0 < breakeven_factor(run) < 1.0
    falling = rerun(BuyAndHold(), waves(-0.004), BUSY)
    assert falling.metrics.turnover > 0.0
    assert breakeven_factor(falling) == 0.0


def waves(drift: float) -> CandleSet:
    """Slow waves, in whose trends an average of the last bars makes money."""
    bars = np.arange(400)
    return made(100.0 * np.exp(drift * bars + 0.1 * np.sin(bars / 10.0)))


def made(close: np.ndarray) -> CandleSet:
    ts = utc_ms("2024") + 3_600_000 * np.arange(len(close))
    opened = np.append(close[0], close[:-1])
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    return CandleSet((Candles("AAAUSDT", "1h", ts, opened, high, low, close, np.ones(len(ts))),))


def test_a_run_that_no_cost_can_hurt_has_an_infinite_factor_and_one_without_costs_none() -> None:
    soaring = made(100.0 * np.exp(0.02 * np.arange(300)))
    patient = Account()
    assert breakeven_factor(rerun(BuyAndHold(), soaring, patient)) == math.inf
    assert math.isnan(breakeven_factor(rerun(BuyAndHold(), soaring, FREE)))
    idle = rerun(SmaCrossover(5, 900), soaring, BUSY)
    assert math.isnan(breakeven_factor(idle))


@pytest.mark.parametrize("factors", [(), (1, -1), (math.nan,), (math.inf,)])
def test_factors_that_are_none_are_refused(candles: CandleSet, factors: tuple[float, ...]) -> None:
    with pytest.raises(ParameterError, match="finite numbers from 0 on"):
        cost_sensitivity(run_of(candles), factors)


def test_costs_past_what_an_account_allows_are_refused(candles: CandleSet) -> None:
    with pytest.raises(ParameterError, match=r"Account\.fee_rate"):
        cost_sensitivity(run_of(candles), (1_000,))


# Delay


@pytest.mark.parametrize("start", STARTS)
def test_a_delay_equals_a_strategy_that_shifts_by_hand(
    candles: CandleSet, start: str | None
) -> None:
    frame = delay_sensitivity(run_of(candles, trade_from=start), (0, 1, 2, 7))
    for bars in (0, 1, 2, 7):
        expected = rerun(Late(late=bars), candles, BUSY, trade_from=start)
        assert row(frame, bars) == figures(expected)
    assert row(frame, 0) == figures(run_of(candles, trade_from=start))
    assert row(frame, 1) != row(frame, 0)


def test_a_delay_in_the_wrong_direction_is_caught(
    candles: CandleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensitivity, "_later", lambda column, bars: np.roll(column, -bars))
    with pytest.raises(AssertionError):
        test_a_delay_equals_a_strategy_that_shifts_by_hand(candles, None)


def test_no_delay_is_the_run_to_the_bit_for_strategies_that_keep(candles: CandleSet) -> None:
    run = rerun(MomentumRotation(lookback=48, rebalance_every=12), candles, BUSY)
    same = again(run, columns=[one.target for one in run.targets])
    assert same.equity.tolist() == run.equity.tolist()
    assert row(delay_sensitivity(run), 0) == figures(run)


def test_a_delay_past_the_end_never_trades(candles: CandleSet) -> None:
    frame = delay_sensitivity(run_of(candles), (5_000,))
    assert frame["trades"].tolist() == [0]
    assert frame["total_return"].tolist() == [0.0]


@pytest.mark.parametrize("bars", [(), (-1,), (1.5,), (True,)])
def test_delays_that_are_none_are_refused(candles: CandleSet, bars: tuple[Any, ...]) -> None:
    with pytest.raises(ParameterError, match="whole numbers from 0 on"):
        delay_sensitivity(run_of(candles), bars)


# Start


@pytest.mark.parametrize("start", STARTS)
def test_starts_equal_reruns_that_begin_there(candles: CandleSet, start: str | None) -> None:
    run = run_of(candles, trade_from=start)
    frame = start_sensitivity(run, 6)
    begin = int(np.flatnonzero(~np.isnan(run.tape.target).all(axis=1))[0])
    assert frame.index[0] == run.close_time[0]
    assert frame.index[1] > run.close_time[begin]
    assert frame.index[-1] == run.close_time[begin + (len(run.close_time) - begin) // 2]
    assert len(frame) == 7
    for moment in frame.index:
        assert row(frame, moment) == figures(run_of(candles, trade_from=moment))
    assert len(set(frame["total_return"])) > 1


def test_the_share_positive_is_counted_by_hand(candles: CandleSet) -> None:
    frame = start_sensitivity(run_of(candles), 5)
    assert share_positive(frame) == sum(one > 0 for one in frame["total_return"]) / 6
    assert share_positive(pd.DataFrame({"total_return": [0.1, 0.0, -0.1, 2.0]})) == 0.5


def test_a_short_run_has_fewer_starts() -> None:
    run = run_of(synthetic_candles(("AAAUSDT",), "1h", utc_ms("2024"), 5))
    assert len(start_sensitivity(run, 12)) == 1  # its warm-up is longer
    longer = run_of(synthetic_candles(("AAAUSDT",), "1h", utc_ms("2024"), 24))
    assert 2 <= len(start_sensitivity(longer, 12)) <= 4


@pytest.mark.parametrize("starts", [0, -1, 2.5, True])
def test_a_wrong_number_of_starts_is_refused(candles: CandleSet, starts: Any) -> None:
    with pytest.raises(InputError, match="a whole number from 1 on"):
        start_sensitivity(run_of(candles), starts)


def test_real_candles_with_the_real_outage(shared_history: History) -> None:
    real = shared_history.load(["BTCUSDT", "ETHUSDT"], "1h", "2023-01-01", "2023-06-01")
    run = run_of(real)
    assert row(delay_sensitivity(run), 2) == figures(rerun(Late(late=2), real, BUSY))
    frame = start_sensitivity(run, 3)
    for moment in frame.index:
        assert row(frame, moment) == figures(run_of(real, trade_from=moment))
