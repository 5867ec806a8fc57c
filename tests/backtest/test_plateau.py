"""The neighbourhood of a sweep's best row: by hand, by brute force, and of one lone peak."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from research.account import Account
from research.candles import Candles, CandleSet, utc_ms
from research.errors import InputError, ParameterError
from research.evidence import plateau as module
from research.evidence.plateau import NEAREST_A_PARAMETER, plateau
from research.search import Sweep, sweep
from research.strategies.buy_and_hold import BuyAndHold
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Strategy, Targets, param
from research.synthetic import synthetic_candles

FREE = Account(fee_rate=0.0, slippage_bps=0.0, limits=None)


@dataclass(frozen=True)
class Cell(Strategy):
    """A strategy that does nothing; its row of the sweep is written by hand."""

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = ("nothing",)
    x: int = param(0, low=0, high=1000)
    y: int = param(0, low=0, high=1000)
    z: int = param(0, low=0, high=1000)

    @property
    def warmup(self) -> int:
        return 0

    def targets(self, candles: Candles) -> Targets:
        none = np.zeros(len(candles))
        return Targets(none, none, none.astype(np.int64))


@pytest.fixture(scope="module")
def candles() -> CandleSet:
    return synthetic_candles(("BTCUSDT",), "1h", utc_ms("2024"), 700)


def table(sharpe: dict[tuple[int, int], float], skipped: int = 0) -> Sweep:
    """A sweep over x and y with these Sharpe ratios."""
    index = pd.MultiIndex.from_tuples(list(sharpe), names=["x", "y"])
    frame = pd.DataFrame({"sharpe": list(sharpe.values())}, index=index)
    return Sweep(
        Cell,
        synthetic_candles(("BTCUSDT",), "1h", utc_ms("2024"), 1),
        FREE,
        None,
        tuple(Cell(x=x, y=y) for x, y in sharpe),
        frame,
        skipped,
    )


HILL = {
    (x, y): 2.0 - 0.25 * max(abs(x - 20), abs(y - 300) / 100) / 10
    for x in (10, 20, 40, 80)
    for y in (100, 300, 900)
}
PEAK = {cell: 2.0 if cell == (20, 300) else -0.1 for cell in HILL}


def test_neighbours_are_one_step_of_each_parameters_own_values_away_corners_too() -> None:
    found = plateau(table(HILL))
    assert found.chosen == Cell(x=20, y=300)
    beside = {(x, y) for x in (10, 20, 40) for y in (100, 300, 900)} - {(20, 300)}
    assert set(found.neighbours.index) == beside
    assert found.steps
    assert (found.neighbours["distance"] == 1).all()
    assert found.median == np.median([HILL[cell] for cell in beside])
    assert found.score == found.median / 2.0
    assert found.positive == found.all_positive == 1.0
    assert found.at_edge == ()


def test_a_lone_peak_scores_nothing_and_a_hill_nearly_all() -> None:
    assert plateau(table(HILL)).score == 0.875
    peak = plateau(table(PEAK))
    assert (peak.score, peak.positive, peak.all_positive) == (0.0, 0.0, 1 / 12)
    assert "score 0.00" in repr(peak)


def test_the_order_of_the_rows_says_nothing() -> None:
    cells = list(HILL)
    np.random.default_rng(3).shuffle(cells)
    mixed = plateau(table({tuple(map(int, cell)): HILL[tuple(cell)] for cell in cells}))
    straight = plateau(table(HILL))
    assert set(mixed.neighbours.index) == set(straight.neighbours.index)
    assert (mixed.score, mixed.at_edge) == (straight.score, straight.at_edge)


def test_a_choice_on_the_edge_of_the_grid_is_named() -> None:
    found = plateau(table(HILL), Cell(x=80, y=300))
    assert found.at_edge == ("x",)
    assert len(found.neighbours) == 5
    assert "edge of x" in repr(found)
    two = {(x, y): 1.0 for x in (1, 2) for y in (1, 2, 3)}
    assert plateau(table(two), Cell(x=1, y=2)).at_edge == ()


def test_steps_of_values_instead_of_ranks_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative control: on a grid of unequal steps distances of values find nobody."""

    def by_value(index: pd.Index) -> tuple[np.ndarray, np.ndarray]:
        values = index.to_frame(index=False).to_numpy(np.float64)
        return values, np.array([len(np.unique(column)) for column in values.T], np.float64)

    monkeypatch.setattr(module, "_ranks", by_value)
    with pytest.raises(AssertionError):
        test_neighbours_are_one_step_of_each_parameters_own_values_away_corners_too()


def test_combinations_that_a_rule_refused_leave_a_grid_a_grid() -> None:
    allowed = {cell: value for cell, value in HILL.items() if cell not in {(40, 900), (10, 100)}}
    found = plateau(table(allowed, skipped=2))
    assert found.steps
    assert len(found.neighbours) == 6


def test_a_search_that_left_combinations_out_takes_the_nearest_by_scaled_ranks() -> None:
    rng = np.random.default_rng(11)
    cells = [
        (int(x), int(y))
        for x, y in zip(rng.permutation(60), rng.permutation(60) ** 2 % 997, strict=True)
    ]
    drawn = {cell: float(v) for cell, v in zip(cells, rng.normal(size=60), strict=True)}
    found = plateau(table(drawn))
    assert not found.steps
    assert len(found.neighbours) == 2 * NEAREST_A_PARAMETER
    xs, ys = (sorted({cell[i] for cell in drawn}) for i in (0, 1))
    best = max(drawn, key=drawn.__getitem__)

    def away(cell: tuple[int, int]) -> float:
        dx = (xs.index(cell[0]) - xs.index(best[0])) / (len(xs) - 1)
        dy = (ys.index(cell[1]) - ys.index(best[1])) / (len(ys) - 1)
        return math.hypot(dx, dy)

    order = sorted(away(cell) for cell in drawn if cell != best)
    assert found.neighbours["distance"].tolist() == pytest.approx(order[: len(found.neighbours)])
    for cell, distance in found.neighbours["distance"].items():
        assert distance == pytest.approx(away(cell))


def test_a_choice_without_profit_scores_zero_and_a_run_without_trades_counts_as_zero() -> None:
    losing = {(x, 0): -1.0 for x in (1, 2, 3)}
    assert plateau(table(losing)).score == 0.0
    idle = {(1, 0): math.nan, (2, 0): 1.0, (3, 0): math.nan}
    found = plateau(table(idle))
    assert (found.median, found.score, found.positive) == (0.0, 0.0, 0.0)
    assert plateau(table(idle), Cell(x=1)).value == 0.0


def test_a_neighbourhood_better_than_the_choice_scores_one() -> None:
    assert plateau(table(HILL), Cell(x=80, y=900)).score == 1.0


def test_one_row_has_no_neighbours_and_says_so(candles: CandleSet) -> None:
    found = plateau(sweep(SmaCrossover, candles, FREE, fast=[5], slow=[20]))
    assert math.isnan(found.score)
    assert math.isnan(found.positive)
    assert len(found.neighbours) == 0
    assert found.at_edge == ()


def test_one_parameter_has_the_values_on_either_side(candles: CandleSet) -> None:
    found = sweep(SmaCrossover, candles, FREE, slow=[30, 10, 20, 60, 40], fast=[5])
    middle = plateau(found, SmaCrossover(fast=5, slow=30))
    assert sorted(slow for slow, _ in middle.neighbours.index) == [20, 40]


@pytest.mark.parametrize("metric", ["sharpe", "sortino", "total_return"])
def test_a_real_sweep_equals_brute_force(candles: CandleSet, metric: str) -> None:
    fasts, slows = [2, 5, 9, 14], [8, 12, 30, 55]
    found = sweep(SmaCrossover, candles, FREE, fast=fasts, slow=slows)
    assert found.skipped
    alone = {one: getattr(found.run(one).metrics, metric) for one in found.strategies}
    for chosen in found.strategies:
        near = plateau(found, chosen, metric)
        expected = {}
        for i, j in itertools.product(range(4), range(4)):
            steps = max(abs(i - fasts.index(chosen.fast)), abs(j - slows.index(chosen.slow)))
            if steps == 1 and fasts[i] < slows[j]:
                expected[fasts[i], slows[j]] = alone[SmaCrossover(fasts[i], slows[j])]
        assert near.neighbours[metric].to_dict() == expected
        assert near.median == np.median(list(expected.values()))


def test_three_parameters_have_up_to_twenty_six_neighbours() -> None:
    cells = list(itertools.product(range(3), range(3), range(3)))
    sheet = table({(0, 0): 1.0})
    index = pd.MultiIndex.from_tuples(cells, names=["x", "y", "z"])
    frame = pd.DataFrame({"sharpe": 1.0}, index=index)
    rows = tuple(Cell(x=x, y=y, z=z) for x, y, z in cells)
    cube = replace(sheet, strategies=rows, frame=frame)
    assert len(plateau(cube, Cell(x=1, y=1, z=1)).neighbours) == 26
    assert len(plateau(cube, Cell(x=0, y=0, z=0)).neighbours) == 7


def test_what_is_no_row_or_no_metric_is_refused(candles: CandleSet) -> None:
    found = table(HILL)
    with pytest.raises(InputError, match="a strategy that the sweep has run"):
        plateau(found, Cell(x=21, y=300))
    with pytest.raises(InputError, match="a strategy that the sweep has run"):
        plateau(found, BuyAndHold())
    with pytest.raises(ParameterError, match="one of sharpe, sortino, total_return"):
        plateau(found, metric="max_drawdown")
