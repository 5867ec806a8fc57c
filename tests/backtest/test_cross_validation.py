"""Combinatorial purged cross-validation against a brute force, tables by hand, and planted truths.

The brute force asks of every day and every split, straight from the definitions: is it tested, does
it lie within the purge or the embargo of a tested day, and which split is the fold's n-th?
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.account import Account, Stops
from research.backtesting import rerun
from research.errors import InputError
from research.evidence import cross_validation as module
from research.evidence.cross_validation import CrossValidation, cross_validate, margin_of
from research.strategies.buy_and_hold import BuyAndHold
from research.strategies.sma_crossover import SmaCrossover
from research.synthetic import synthetic_candles

Matrix = np.ndarray[Any, np.dtype[np.float64]]


def days_of(count: int) -> pd.DatetimeIndex:
    return pd.date_range("2022-01-01", periods=count, tz="UTC")


def noise(rows: int, days: int, seed: int) -> Matrix:
    return np.random.default_rng(seed).normal(0.0, 0.01, (rows, days))


def sharpe(returns: Matrix) -> float:
    return float(np.mean(returns) / np.std(returns, ddof=1) * math.sqrt(365))


# --- the brute force


def train_days(fold_of: list[int], tested: tuple[int, ...], purge: int, embargo: int) -> list[int]:
    """The days of no test fold that lie clear of every tested day."""
    test = [day for day, fold in enumerate(fold_of) if fold in tested]
    return [
        day
        for day, fold in enumerate(fold_of)
        if fold not in tested
        and all(not 0 < other - day <= purge for other in test)
        and all(not 0 < day - other <= purge + embargo for other in test)
    ]


def brute_force(
    matrix: Matrix, folds: int, test_folds: int, purge: int = 0, embargo: int = 0
) -> tuple[list[int], list[int], Matrix]:
    """The row chosen in each split, its number of training days, and the paths, days x paths."""
    days = matrix.shape[1]
    fold_of = [min(day // (days // folds), folds - 1) for day in range(days)]
    splits = list(combinations(range(folds), test_folds))
    trains = [train_days(fold_of, tested, purge, embargo) for tested in splits]
    chosen = [max(range(len(matrix)), key=lambda i: sharpe(matrix[i, train])) for train in trains]
    count = math.comb(folds, test_folds) * test_folds // folds
    paths = np.full((days, count), np.nan)
    for day, fold in enumerate(fold_of):
        having = [number for number, tested in enumerate(splits) if fold in tested]
        for path, number in enumerate(having):
            paths[day, path] = matrix[chosen[number], day]
    return chosen, [len(train) for train in trains], paths


def differs(found: CrossValidation, by_hand: tuple[list[int], list[int], Matrix]) -> bool:
    chosen, train, paths = by_hand
    return not (
        found.splits["chosen"].tolist() == chosen
        and found.splits["train_days"].tolist() == train
        and np.array_equal(found.paths.to_numpy(), paths)
    )


@st.composite
def cuts(draw: st.DrawFn) -> dict[str, int]:
    folds = draw(st.integers(3, 7))
    days = draw(st.integers(10 * folds, 16 * folds))
    room = days // folds - module.FEWEST_TRAIN_DAYS
    purge = draw(st.integers(0, room // 2))
    return {
        "days": days,
        "folds": folds,
        "test_folds": draw(st.integers(2, folds - 1)),
        "purge": purge,
        "embargo": draw(st.integers(0, room - 2 * purge)),
    }


@settings(deadline=None)  # the first example loads skfolio
@given(cuts(), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_splits_choices_and_paths_are_those_of_the_brute_force(
    cut: dict[str, int], rows: int, seed: int
) -> None:
    cut = dict(cut)
    matrix = noise(rows, cut.pop("days"), seed)
    found = cross_validate(matrix, days_of(matrix.shape[1]), **cut)
    assert not differs(found, brute_force(matrix, **cut))
    expected = [sharpe(path) for path in found.paths.to_numpy().T]
    np.testing.assert_allclose(found.sharpe, expected, rtol=1e-9, atol=1e-12)
    assert found.median == np.median(found.sharpe)
    assert found.negative == np.mean([one < 0 for one in expected])


@pytest.mark.parametrize("more", [{"purge": 4}, {"purge": 3, "embargo": 3}, {"purge": 2}])
def test_a_day_too_many_or_too_few_is_caught(more: dict[str, int]) -> None:
    matrix = noise(5, 61, seed=3)
    by_hand = brute_force(matrix, 5, 2, purge=3, embargo=2)
    assert not differs(cross_validate(matrix, days_of(61), folds=5, purge=3, embargo=2), by_hand)
    asked = {"purge": 3, "embargo": 2, **more}
    assert differs(cross_validate(matrix, days_of(61), folds=5, **asked), by_hand)


def test_a_choice_made_on_all_days_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = noise(20, 200, seed=1)
    honest = cross_validate(matrix, days_of(200))
    real = module._train_sharpes

    def peeking(values: Matrix, trains: list[Any]) -> Matrix:
        return real(values, [np.arange(values.shape[1])] * len(trains))

    monkeypatch.setattr(module, "_train_sharpes", peeking)
    peeked = cross_validate(matrix, days_of(200))
    assert differs(peeked, brute_force(matrix, 10, 2))
    assert peeked.median > honest.median + 1.0  # the best of twenty in hindsight


# --- by hand


def test_three_folds_by_hand() -> None:
    """Row 0 gains in fold 0, row 1 in fold 1, row 2 in fold 2; every row loses elsewhere.

    Tested on folds 0 and 1, one trains on fold 2 and takes row 2, and so on: the winner of the
    training fold loses in both test folds. Each day is tested twice, in two paths.
    """
    up, down = [0.01, 0.03] * 5, [-0.01, -0.02] * 5
    matrix = np.array([up + down + down, down + up + down, down + down + up])
    found = cross_validate(matrix, days_of(30), folds=3)
    assert found.splits["test_folds"].tolist() == [(0, 1), (0, 2), (1, 2)]
    assert found.splits["chosen"].tolist() == [2, 1, 0]
    assert found.splits["train_days"].tolist() == [10, 10, 10]
    assert np.array_equal(found.paths.to_numpy(), np.array([down * 3, down * 3]).T)
    assert found.negative == 1.0
    up_sharpe = 0.02 / np.std(up, ddof=1) * math.sqrt(365)
    assert found.splits["train_sharpe"].tolist() == pytest.approx([up_sharpe] * 3)
    assert found.median == pytest.approx(sharpe(np.array(down * 3)))


def test_purge_and_embargo_by_hand() -> None:
    """Sixty days, folds A B C of 20. Purge 2, embargo 3: 2 days go before a test, 5 after."""
    found = cross_validate(noise(2, 60, 0), days_of(60), folds=3, purge=2, embargo=3)
    assert found.splits.set_index("test_folds")["train_days"].to_dict() == {
        (0, 1): 15,  # C less five after B
        (0, 2): 13,  # B less five after A and two before C
        (1, 2): 18,  # A less two before B
    }


def test_ten_folds_by_two_are_forty_five_splits_and_nine_paths() -> None:
    found = cross_validate(noise(3, 205, 0), days_of(205))
    assert (len(found.splits), found.paths.shape) == (45, (205, 9))
    assert found.paths.index.equals(days_of(205))
    by_eight = cross_validate(noise(3, 205, 0), days_of(205), test_folds=8)
    assert (len(by_eight.splits), by_eight.paths.shape) == (45, (205, 36))


# --- planted truths


def overlapping(rows: int, days: int, span: int, seed: int) -> Matrix:
    """Luck, but sticky: neighbouring days share all but one of ``span`` shocks."""
    shocks = noise(rows, days + span - 1, seed)
    sums = np.cumsum(np.pad(shocks, ((0, 0), (1, 0))), axis=1)
    return (sums[:, span:] - sums[:, :-span]) / span


def test_a_leak_between_neighbouring_days_shows_without_purge_and_is_gone_with_it() -> None:
    """Two folds of three are tested: beside the one that is trained on, luck goes on for days."""

    def out_of_sample(purge: int) -> Matrix:
        cut = {"folds": 3, "test_folds": 2, "purge": purge}
        found = [
            cross_validate(overlapping(200, 75, 9, seed), days_of(75), **cut).splits
            for seed in range(300)
        ]
        return np.array([one["test_sharpe"].mean() for one in found])

    leaky, purged = out_of_sample(0), out_of_sample(9)
    errors = [one.std(ddof=1) / math.sqrt(300) for one in (leaky, purged, leaky - purged)]
    assert leaky.mean() > 4 * errors[0]
    assert abs(purged.mean()) < 3 * errors[1]
    assert (leaky - purged).mean() > 4 * errors[2]


def test_paths_of_noise_centre_on_nothing() -> None:
    """Forty markets of luck alone: the best of a hundred rows in sample is none out of it."""
    found = [cross_validate(noise(100, 500, seed), days_of(500)) for seed in range(40)]
    medians = np.array([one.median for one in found])
    assert abs(medians.mean()) < 3 * medians.std(ddof=1) / math.sqrt(40)
    assert np.mean([one.splits["train_sharpe"].mean() for one in found]) > 1.5


def test_every_path_of_a_true_edge_is_the_row_that_has_it() -> None:
    matrix = noise(30, 1_000, seed=5)
    matrix[17] += 0.01 * 4.0 / math.sqrt(365)  # a Sharpe ratio of 4, before its own luck
    found = cross_validate(matrix, days_of(1_000), purge=5, embargo=2)
    assert set(found.splits["chosen"]) == {17}
    assert (found.paths.to_numpy() == matrix[17][:, None]).all()
    assert found.median == pytest.approx(sharpe(matrix[17]))
    assert found.negative == 0.0


def test_rows_that_never_trade_come_last_and_have_no_ratio() -> None:
    matrix = np.zeros((3, 100))
    flat = cross_validate(matrix, days_of(100))
    assert set(flat.splits["chosen"]) == {0}
    assert np.isnan(flat.sharpe).all()
    assert math.isnan(flat.median)
    assert flat.negative == 0.0
    matrix[2] = noise(1, 100, 0)[0] - 0.02  # loses always, yet it is all that traded
    assert set(cross_validate(matrix, days_of(100)).splits["chosen"]) == {2}


def test_many_rows_are_ranked_block_by_block_as_one() -> None:
    matrix = noise(2 * module.BLOCK_ROWS + 3, 60, seed=2)
    found = cross_validate(matrix, days_of(60), folds=3)
    assert not differs(found, brute_force(matrix, 3, 2))


def test_it_says_what_it_found_in_one_line() -> None:
    found = cross_validate(noise(3, 200, 0), days_of(200), purge=2, embargo=1)
    said = replace(found, median=0.314, negative=1 / 3)
    assert repr(said) == (
        "CrossValidation(9 paths of 45 splits, purge 2 and embargo 1 days: median Sharpe ratio "
        "0.31 out of sample, 33% of the paths negative)"
    )


# --- what is refused


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"folds": 2}, "folds"),
        ({"folds": 10.0}, "folds"),
        ({"folds": 21}, "folds"),
        ({"test_folds": 1}, "test_folds"),
        ({"test_folds": 10}, "test_folds"),
        ({"purge": -1}, "purge and embargo"),
        ({"purge": 10, "embargo": 9}, "purge and embargo"),
        ({"embargo": True}, "embargo"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_name(asked: dict[str, Any], field: str) -> None:
    matrix = noise(2, 205, 0)
    with pytest.raises(InputError) as caught:
        cross_validate(matrix, days_of(205), **asked)
    assert caught.value.field == field


def test_a_split_that_keeps_too_few_days_to_train_on_is_refused() -> None:
    """Five folds of twenty days, four of them tested: eight days go on either side of the fifth."""
    matrix, cut = noise(2, 100, 0), {"folds": 5, "test_folds": 4}
    with pytest.raises(InputError, match="some split has 4 days left"):
        cross_validate(matrix, days_of(100), purge=8, **cut)
    assert cross_validate(matrix, days_of(100), purge=7, **cut).splits["train_days"].min() == 6


def test_too_many_splits_are_refused() -> None:
    with pytest.raises(InputError, match=r"at most 5,000 splits, not 184,756"):
        cross_validate(noise(2, 500, 0), days_of(500), folds=20, test_folds=10)


def spoilt() -> Iterator[tuple[Any, str]]:
    yield noise(2, 100, 0)[0], "rows x days"
    yield noise(2, 99, 0), "rows x days"
    yield np.empty((0, 100)), "rows x days"
    holed = noise(2, 100, 0)
    holed[1, 7] = np.nan
    yield holed, r"matrix\[1, 7\]: expected a finite return"


@pytest.mark.parametrize(("matrix", "said"), list(spoilt()))
def test_a_matrix_that_is_none_is_refused(matrix: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        cross_validate(matrix, days_of(100))


# --- the margins of a run


def test_purge_is_the_longest_trade_and_embargo_the_warmup_in_whole_days() -> None:
    candles = synthetic_candles(("BTCUSDT", "ETHUSDT"), "1h", "2024-01-01T05:00", 9_000)
    run = rerun(SmaCrossover(fast=5, slow=60), candles, Account(limits=None))
    trades = run.trades
    held = trades.index - trades["opened_at"]
    assert len(trades) > 50
    longest = math.ceil(held.max() / pd.Timedelta("1D"))
    assert longest > 3
    assert margin_of(run, folds=5) == (longest, 3, False)  # 59 bars are 2.5 days


def test_a_stop_ends_a_trade_and_shortens_the_purge() -> None:
    candles = synthetic_candles(("BTCUSDT",), "1h", "2024", 9_000)
    slow = SmaCrossover(fast=5, slow=60)
    free = margin_of(rerun(slow, candles, Account(limits=None)), folds=3)
    stops = Stops(time_stop_minutes=24 * 60)
    stopped = margin_of(rerun(slow, candles, Account(limits=None, stops=stops)), folds=3)
    assert stopped.purge <= 2 < free.purge


def test_a_position_that_is_never_closed_counts_up_to_the_last_close() -> None:
    candles = synthetic_candles(("BTCUSDT",), "1d", "2023", 600)
    run = rerun(BuyAndHold(), candles, Account(limits=None))
    assert run.trade_list == []
    assert margin_of(run, folds=10) == (10, 0, True)  # a sixth of sixty days, of 599 that it asks


def test_a_run_that_never_trades_needs_no_purge() -> None:
    candles = synthetic_candles(("BTCUSDT",), "1d", "2023", 150)
    run = rerun(SmaCrossover(fast=5, slow=151), candles, Account())
    assert run.fill_list == []
    assert margin_of(run, folds=3).purge == 0


@settings(deadline=None)
@given(st.integers(3, 12), st.integers(0, 40))
def test_capped_margins_always_fit(folds: int, extra: int) -> None:
    days = max(10, folds) * folds + extra
    most = days // folds // 6
    found = cross_validate(noise(2, days, 0), days_of(days), folds=folds, purge=most, embargo=most)
    assert found.splits["train_days"].min() >= days // folds // 2


def test_without_its_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skfolio.model_selection", None)
    with pytest.raises(InputError, match=r"skfolio is not installed.*candlebook\[evidence\]"):
        cross_validate(noise(2, 100, 0), days_of(100))
