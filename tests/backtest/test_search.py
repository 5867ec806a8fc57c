"""A sweep's row is a backtest's figures, to the bit; memory does not grow with the grid."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from research.account import Account, Limits, Stops
from research.backtesting import backtest
from research.candles import COLUMNS, Candles, CandleSet, utc_ms
from research.errors import GapNotAccepted, InputError, ParameterError, UnknownNameError
from research.history import History
from research.metrics import Metrics
from research.search import sweep
from research.strategies.rsi_reversal import RsiReversal
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles

BUSY = Account(
    limits=Limits(max_position_pct=40, max_drawdown_pct=20, max_daily_loss_pct=3, max_positions=2),
    stops=Stops(stop_loss_pct=4, trailing_stop_pct=6, take_profit_pct=9),
)


@pytest.fixture(scope="module")
def candles() -> CandleSet:
    return synthetic_candles(("AAAUSDT", "BBBUSDT", "CCCUSDT"), "1h", utc_ms("2024"), 3_000)


def same(left: float, right: float) -> bool:
    return left == right or (math.isnan(left) and math.isnan(right))


@pytest.mark.parametrize("account", [BUSY, Account(limits=None)], ids=["gated", "no gate"])
def test_every_row_equals_its_single_backtest_exactly(candles: CandleSet, account: Account) -> None:
    found = sweep(SmaCrossover, candles, account, fast=[3, 7, 15, 40], slow=[10, 30, 90])
    assert len(found) + found.skipped == 12
    assert found.skipped == 3
    for strategy, (_, row) in zip(found.strategies, found.frame.iterrows(), strict=True):
        alone = backtest(strategy, candles, account).metrics
        assert all(same(row[name], getattr(alone, name)) for name in Metrics._fields), strategy
    assert len(set(found.frame["total_return"])) == len(found)


def test_real_candles_with_the_real_outage(shared_history: History) -> None:
    candles = shared_history.load(["BTCUSDT", "ETHUSDT"], "1h", "2023-01-01", "2023-07-01")
    found = sweep(RsiReversal, candles, BUSY, window=[7, 14], oversold=[20.0, 30.0])
    for strategy, (_, row) in zip(found.strategies, found.frame.iterrows(), strict=True):
        alone = backtest(strategy, candles, BUSY).metrics
        assert all(same(row[name], getattr(alone, name)) for name in Metrics._fields), strategy


def test_trade_from_is_the_backtests(candles: CandleSet) -> None:
    start = int(candles.clock()[1_000])
    found = sweep(SmaCrossover, candles, BUSY, trade_from=start, fast=[5], slow=[50])
    alone = backtest(SmaCrossover(5, 50), candles, BUSY, trade_from=start).metrics
    assert all(same(found.frame[k].iloc[0], v) for k, v in alone._asdict().items())


def test_a_sweep_that_charged_no_fee_would_be_noticed(candles: CandleSet) -> None:
    free = BUSY.model_copy(update={"fee_rate": 0.0})
    found = sweep(SmaCrossover, candles, free, fast=[3], slow=[10])
    alone = backtest(SmaCrossover(3, 10), candles, BUSY).metrics
    assert found.frame["final_equity"].iloc[0] != alone.final_equity


def test_the_best_row_run_alone_has_its_figures(candles: CandleSet) -> None:
    found = sweep(SmaCrossover, candles, BUSY, fast=[3, 7], slow=[30, 90])
    best = found.best("sharpe")
    assert best in found.strategies
    assert found.run().metrics.sharpe == found.frame["sharpe"].max()
    assert (
        found.best("max_drawdown") == found.strategies[int(np.argmin(found.frame["max_drawdown"]))]
    )
    assert repr(best) in repr(found)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({}, "expected values for some parameter"),
        ({"fast": []}, r"SmaCrossover\.fast: expected at least one value"),
        ({"fsat": [3]}, "Did you mean fast"),
        ({"fast": [3, 1]}, r"SmaCrossover\.fast: expected a whole number from 2 to 1000, got 1"),
        ({"fast": [2.5]}, r"SmaCrossover\.fast: expected a whole number"),
        ({"fast": ["3"]}, r'SmaCrossover\.fast: expected a whole number .*got "3"'),
        ({"fast": [60], "slow": [50]}, "at least one combination"),
    ],
)
def test_a_bad_grid_is_refused_by_name(candles: CandleSet, grid: dict, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        sweep(SmaCrossover, candles, BUSY, **grid)


def test_an_unknown_metric_is_refused(candles: CandleSet) -> None:
    found = sweep(SmaCrossover, candles, BUSY, fast=[3], slow=[10])
    with pytest.raises(ParameterError, match="metric: expected one of total_return"):
        found.best("sharp")


def test_a_gap_that_nobody_accepted_stops_a_sweep(candles: CandleSet, tmp_path: Path) -> None:
    first = candles.series[0]
    holed = CandleSet((_without(first, 500), *candles.series[1:]))
    with pytest.raises(GapNotAccepted, match="AAAUSDT 1h"):
        sweep(SmaCrossover, holed, BUSY, fast=[3], slow=[10])


def test_a_row_is_halted_where_its_backtest_is(candles: CandleSet) -> None:
    strict = Account(limits=Limits(max_position_pct=30, max_drawdown_pct=25))
    found = sweep(SmaCrossover, candles, strict, fast=[3, 7, 15, 40], slow=[10, 30, 90])
    alone = [backtest(one, candles, strict).halted_at is not None for one in found.strategies]
    assert found.frame["halted"].tolist() == alone
    assert 0 < sum(alone) < len(alone)
    assert f"{sum(alone)} halted" in repr(found)
    unarmed = strict.model_copy(
        update={"limits": Limits(max_position_pct=30, max_drawdown_pct=25, kill_switch_armed=False)}
    )
    assert not sweep(SmaCrossover, candles, unarmed, fast=[3], slow=[10]).frame["halted"].any()


def test_halted_is_no_metric(candles: CandleSet) -> None:
    found = sweep(SmaCrossover, candles, BUSY, fast=[3], slow=[10])
    with pytest.raises(ParameterError, match="metric: expected one of total_return"):
        found.best("halted")
    with pytest.raises(UnknownNameError, match="metric: expected one of total_return"):
        found.heatmap("halted")


def test_a_heatmap_takes_the_first_two_parameters_unless_told(candles: CandleSet) -> None:
    found = sweep(
        RsiReversal, candles, BUSY, window=[7, 14], oversold=[20.0, 30.0], overbought=[70.0, 80.0]
    )
    for named, axes in (
        ({}, ("window", "oversold")),
        ({"x": "oversold"}, ("oversold", "window")),
        ({"y": "window"}, ("oversold", "window")),
        ({"y": "overbought"}, ("window", "overbought")),
    ):
        layout = found.heatmap("sharpe", **named).layout
        assert (layout.xaxis.title.text, layout.yaxis.title.text) == axes


def test_a_sweep_of_one_parameter_draws_a_line(candles: CandleSet) -> None:
    found = sweep(SmaCrossover, candles, BUSY, fast=[15, 3, 7])
    figure = found.heatmap("total_return")
    assert list(figure.data[0].x) == [3.0, 7.0, 15.0]
    np.testing.assert_array_equal(
        figure.data[0].y, found.frame["total_return"].to_numpy()[[1, 2, 0]]
    )
    with pytest.raises(UnknownNameError, match="x: expected one of fast"):
        found.heatmap(x="slow")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (SmaCrossover(3, 10), r"backtest takes SmaCrossover\(fast=3, slow=10\)"),
        ("sma_crossover", "expected a class of strategies"),
        (int, "expected a class of strategies"),
    ],
)
def test_a_sweep_takes_a_class(candles: CandleSet, given: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        sweep(given, candles, BUSY, fast=[3])  # type: ignore[arg-type]


def test_one_symbols_candles_are_a_set_of_one(candles: CandleSet) -> None:
    one = candles.series[0]
    left = sweep(SmaCrossover, one, BUSY, fast=[3], slow=[10])
    right = sweep(SmaCrossover, CandleSet((one,)), BUSY, fast=[3], slow=[10])
    assert left.frame.equals(right.frame)
    with pytest.raises(InputError, match=r"candles: expected a CandleSet.*from_frame"):
        sweep(SmaCrossover, one.frame(), BUSY, fast=[3], slow=[10])  # type: ignore[arg-type]


# Random draws and constraints


def test_drawn_rows_are_rows_of_the_grid(candles: CandleSet) -> None:
    grid = {"fast": range(3, 13), "slow": range(10, 40, 3)}
    whole = sweep(SmaCrossover, candles, BUSY, **grid)
    found = sweep(SmaCrossover, candles, BUSY, draws=20, seed=7, **grid)
    assert len(found) == 20
    assert found.frame.index.is_unique
    rows = whole.frame.loc[found.frame.index]
    assert found.frame.equals(rows)
    assert not found.frame.equals(rows.sort_index())
    again = sweep(SmaCrossover, candles, BUSY, draws=20, seed=7, **grid)
    assert again.frame.equals(found.frame)
    other = sweep(SmaCrossover, candles, BUSY, draws=20, seed=8, **grid)
    assert not other.frame.equals(found.frame)


def test_rows_that_the_constraint_refuses_are_counted_not_run(candles: CandleSet) -> None:
    grid = {"fast": [3, 7, 15, 40], "slow": [10, 30, 90]}
    whole = sweep(SmaCrossover, candles, BUSY, **grid)
    found = sweep(
        SmaCrossover, candles, BUSY, constraint=lambda p: 2 * p["fast"] <= p["slow"], **grid
    )
    kept = [(fast, slow) for fast, slow in whole.frame.index if 2 * fast <= slow]
    assert found.frame.index.tolist() == kept
    assert found.frame.equals(whole.frame.loc[kept])
    assert (len(found), found.skipped) == (8, 4)
    assert whole.skipped == 3
    with pytest.raises(ParameterError, match="strategy and constraint allow"):
        sweep(SmaCrossover, candles, BUSY, constraint=lambda _: False, **grid)


def test_a_folder_of_rows_is_that_of_its_very_combinations(
    candles: CandleSet, tmp_path: Path
) -> None:
    grid = {"fast": range(3, 13), "slow": range(10, 40, 3)}

    def found(**how: Any) -> pd.DataFrame:
        return sweep(SmaCrossover, candles, BUSY, resume=tmp_path, **grid, **how).frame

    def near(p: dict[str, int | float]) -> bool:
        return p["slow"] < 20

    first = found(draws=9, seed=1)
    assert found(draws=9, seed=1).equals(first)
    for how in ({}, {"draws": 9, "seed": 2}, {"draws": 8, "seed": 1}, {"constraint": near}):
        with pytest.raises(InputError, match="another sweep"):
            found(**how)
    assert found(draws=9, seed=1, constraint=lambda _: True).equals(first)


def test_a_start_that_leaves_nothing_is_refused_as_by_a_backtest(candles: CandleSet) -> None:
    with pytest.raises(InputError, match="trade_from: expected a time up to the last close"):
        sweep(SmaCrossover, candles, BUSY, trade_from="2030", fast=[3], slow=[10])


# The best


def test_the_best_keep_their_equity(candles: CandleSet) -> None:
    found = sweep(SmaCrossover, candles, BUSY, fast=[3, 7, 15], slow=[10, 30, 90])
    for metric, upwards in (("total_return", False), ("max_drawdown", True)):
        equity = found.top(3, metric)
        ranked = found.frame.sort_values(metric, ascending=upwards, kind="stable")
        assert equity.columns.equals(ranked.index[:3])
        assert len(equity) == len(candles.clock())
        for (_, figures), (_, curve) in zip(ranked.iterrows(), equity.items(), strict=False):
            assert curve.iloc[-1] == figures["final_equity"]
        best = found.run(found.best(metric)).equity
        assert equity.iloc[:, 0].tolist() == best.tolist()
        assert equity.index.equals(best.index)
    assert found.top(100).shape[1] == len(found)
    for n in (0, -1, 2.5, True):
        with pytest.raises(ParameterError, match="n: expected a whole number from 1 on"):
            found.top(n)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="metric: expected one of total_return"):
        found.top(1, "halted")


def test_rows_without_a_value_rank_last(candles: CandleSet) -> None:
    found = sweep(SmaCrossover, candles, BUSY, fast=[3], slow=[10, 4_000, 30])
    assert found.frame["win_rate"].isna().tolist() == [False, True, False]
    assert found.ranked("win_rate")[-1] == 1
    assert found.best("win_rate") != found.strategies[1]


def _without(one: Candles, row: int) -> Candles:
    columns = (np.delete(getattr(one, name), row) for name in ("ts", *COLUMNS))
    return Candles(one.symbol, one.timeframe, *columns)
