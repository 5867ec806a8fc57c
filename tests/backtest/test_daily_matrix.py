"""The matrix of daily returns: each row its backtest's to the bit, from disk only if it is that."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.account import Account, Limits, Stops
from research.backtesting import rerun
from research.candles import CandleSet
from research.daily_file import read_returns
from research.errors import CorruptHistory
from research.evidence import daily_matrix as module
from research.evidence.daily_matrix import DailyMatrix, annual_sharpe, daily_matrix
from research.search import Sweep, sweep
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles

ACCOUNT = Account(limits=Limits(max_position_pct=40), stops=Stops(stop_loss_pct=4))
FEW: dict[str, Any] = {"fast": range(3, 6), "slow": range(20, 23)}
MANY: dict[str, Any] = {"fast": range(3, 12), "slow": range(20, 35)}


def candles(seed: int = 7) -> CandleSet:
    return synthetic_candles(("BTCUSDT", "ETHUSDT"), "1h", "2024-01-01T07:00", 2_400, seed)


def swept(
    returns: Path | None = None,
    account: Account = ACCOUNT,
    seed: int = 7,
    grid: dict[str, Any] = FEW,
) -> Sweep:
    start = "2024-01-05T13:00"
    return sweep(SmaCrossover, candles(seed), account, trade_from=start, returns=returns, **grid)


def rows_that_differ(found: DailyMatrix, of: Sweep) -> list[int]:
    """The rows that are not their backtest's daily returns to the bit."""
    differ = []
    for row, strategy in enumerate(of.strategies):
        alone = rerun(strategy, of.candles, of.account, trade_from=of.trade_from).daily_returns
        assert found.days.equals(alone.index)
        if found.matrix[row].tobytes() != alone.to_numpy().tobytes():
            differ.append(row)
    return differ


def refuse_to_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(module, "figures_of_rows", refuse)


def test_every_computed_row_is_its_backtests_daily_returns() -> None:
    found = swept(grid=MANY)
    assert len(found) > 2 * module.LARGEST_CHUNK  # several chunks, the last one shorter
    assert rows_that_differ(daily_matrix(found), found) == []


def test_a_row_with_one_other_bit_is_told_apart() -> None:
    found = swept()
    days, matrix = daily_matrix(found)
    matrix[3, 5] = np.nextafter(matrix[3, 5], 1.0)
    assert rows_that_differ(DailyMatrix(days, matrix), found) == [3]


def test_returns_on_disk_are_read_and_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = swept(tmp_path)
    refuse_to_compute(monkeypatch)
    assert rows_that_differ(daily_matrix(found), found) == []
    with pytest.raises(AssertionError, match="computed again"):
        daily_matrix(swept())


@pytest.mark.parametrize(
    "other",
    [
        {"account": Account(limits=Limits(max_position_pct=41), stops=Stops(stop_loss_pct=4))},
        {"account": ACCOUNT.model_copy(update={"fee_rate": 0.002})},
        {"seed": 8},
    ],
    ids=["other limits", "other fees", "other candles"],
)
def test_returns_of_another_sweep_with_the_same_parameters_are_not_taken(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    found = swept(tmp_path)
    swept(tmp_path, **other)  # which writes over them
    kept = read_returns(tmp_path)
    assert rows_that_differ(DailyMatrix(kept.days, kept.matrix), found) != []
    assert rows_that_differ(daily_matrix(found), found) == []


def test_returns_of_other_parameters_are_not_taken(tmp_path: Path) -> None:
    found = swept(tmp_path)
    swept(tmp_path, grid=MANY)
    assert len(read_returns(tmp_path).matrix) > len(found)
    assert rows_that_differ(daily_matrix(found), found) == []


def test_a_folder_that_is_gone_is_computed_again(tmp_path: Path) -> None:
    found = swept(tmp_path / "returns")
    shutil.rmtree(tmp_path / "returns")
    assert rows_that_differ(daily_matrix(found), found) == []


def test_rotten_bytes_are_reported(tmp_path: Path) -> None:
    found = swept(tmp_path)
    matrix = next(tmp_path.glob("returns-*.npy"))
    raw = bytearray(matrix.read_bytes())
    raw[500] ^= 1
    matrix.write_bytes(raw)
    with pytest.raises(CorruptHistory, match="not what was written"):
        daily_matrix(found)


# --- Sharpe ratios


def test_on_daily_bars_the_ratio_of_daily_returns_is_that_of_the_bars() -> None:
    daily = synthetic_candles(("BTCUSDT",), "1d", "2023", 500)
    run = rerun(SmaCrossover(fast=5, slow=20), daily, ACCOUNT)
    assert run.metrics.trades > 5
    assert float(annual_sharpe(run.daily_returns)) == pytest.approx(run.metrics.sharpe, rel=1e-12)


@given(
    st.lists(st.floats(-0.2, 0.2).map(lambda one: round(one, 6)), min_size=2, max_size=40),
    st.integers(1, 3),
)
def test_the_ratio_is_mean_over_deviation_along_the_last_axis(
    returns: list[float], rows: int
) -> None:
    values = np.array([returns] * rows)
    found = annual_sharpe(values)
    assert found.shape == (rows,)
    if len(set(returns)) == 1:
        assert np.isnan(found).all()
    else:
        alone = np.mean(returns) / np.std(returns, ddof=1) * math.sqrt(365)
        np.testing.assert_allclose(found, alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("returns", [[], [0.1], [0.0] * 9, [0.001] * 1_000])
def test_without_deviation_there_is_no_ratio(returns: list[float]) -> None:
    assert math.isnan(float(annual_sharpe(returns)))
