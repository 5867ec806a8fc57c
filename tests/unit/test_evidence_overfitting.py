"""CSCV against a brute force that slices, against skfolio's splits, and on noise and an edge."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from research.errors import InputError
from research.evidence import overfitting as module
from research.evidence.overfitting import Overfitting, probability_of_overfitting


def noise(rows: int, days: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.02, (rows, days))


def slow_ratio(returns: np.ndarray) -> float:
    return 0.0 if np.ptp(returns) == 0.0 else float(returns.mean() / returns.std(ddof=1))


def slow_split(
    matrix: np.ndarray, inside: np.ndarray, outside: np.ndarray
) -> tuple[int, float, float, float]:
    """Chosen row, its two ratios and its logit, from days sliced and put together."""
    ours = np.round([slow_ratio(row[inside]) for row in matrix], 9)
    theirs = np.round([slow_ratio(row[outside]) for row in matrix], 9)
    best = int(np.argmax(ours))
    rank = stats.rankdata(theirs)[best] / (len(matrix) + 1)
    return best, ours[best], theirs[best], math.log(rank / (1 - rank))


def slow(matrix: np.ndarray, blocks: int) -> list[tuple[int, float, float, float]]:
    length = matrix.shape[1] // blocks
    first = matrix.shape[1] - length * blocks
    days = [np.arange(first + b * length, first + (b + 1) * length) for b in range(blocks)]
    found = []
    for chosen in combinations(range(blocks), blocks // 2):
        inside = np.concatenate([days[b] for b in range(blocks) if b in chosen])
        outside = np.concatenate([days[b] for b in range(blocks) if b not in chosen])
        found.append(slow_split(matrix, inside, outside))
    return found


def require_equal(found: Overfitting, expected: list[tuple[int, float, float, float]]) -> None:
    chosen, inside, outside, logits = map(np.array, zip(*expected, strict=True))
    np.testing.assert_array_equal(found.chosen, chosen)
    np.testing.assert_allclose(found.in_sample, inside, atol=2e-9)
    np.testing.assert_allclose(found.out_of_sample, outside, atol=2e-9)
    np.testing.assert_allclose(found.logits, logits, atol=1e-12)
    assert found.pbo == np.mean(logits <= 0)
    assert found.loss_probability == np.mean(outside < 0)
    if np.ptp(inside) > 1e-6:
        line = stats.linregress(found.in_sample, found.out_of_sample)
        assert found.slope == pytest.approx(line.slope, rel=1e-6, abs=1e-9)
        assert found.intercept == pytest.approx(line.intercept, rel=1e-6, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(2, 7),
    st.sampled_from([2, 4, 6, 8]),
    st.integers(16, 60),
    st.booleans(),
)
def test_it_equals_a_brute_force_that_slices_and_concatenates(
    seed: int, rows: int, blocks: int, days: int, idle: bool
) -> None:
    """Also with a row that never traded, one that traded early only, and one twice there."""
    matrix = noise(rows, days, seed)
    if idle:
        early = np.where(np.arange(days) < days // 2, matrix[0], 0.0)
        matrix = np.vstack([np.zeros(days), matrix, matrix[-1], early])
    require_equal(probability_of_overfitting(matrix, blocks), slow(matrix, blocks))


def test_small_pieces_give_what_one_piece_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = noise(5, 80)
    whole = probability_of_overfitting(matrix, 8)
    monkeypatch.setattr(module, "CELLS", 13)
    require_equal(probability_of_overfitting(matrix, 8), slow(matrix, 8))
    np.testing.assert_array_equal(probability_of_overfitting(matrix, 8).logits, whole.logits)


def test_the_splits_are_those_of_skfolio() -> None:
    """Its CombinatorialPurgedCV, nothing purged and half of the folds for testing, makes the same
    set of halves; each of its test sets is a sample to choose in here."""
    from skfolio.model_selection import CombinatorialPurgedCV

    matrix = noise(6, 96, seed=3)
    cv = CombinatorialPurgedCV(n_folds=6, n_test_folds=3, purged_size=0, embargo_size=0)
    found = []
    for train, tests in cv.split(matrix.T):
        found.append(slow_split(matrix, np.sort(np.concatenate(tests)), np.sort(train)))
    ours = probability_of_overfitting(matrix, 6)
    assert len(found) == len(ours.logits) == 20
    np.testing.assert_allclose(np.sort(ours.logits), np.sort([one[3] for one in found]))
    np.testing.assert_allclose(
        np.sort(ours.in_sample), np.sort([one[1] for one in found]), atol=2e-9
    )


def test_sixteen_blocks_make_the_splits_of_the_paper() -> None:
    found = probability_of_overfitting(noise(4, 165))
    assert len(found.logits) == math.comb(16, 8) == 12_870
    assert (found.block_days, found.days_left_out) == (10, 5)


def test_days_that_fill_no_block_are_the_oldest_and_do_not_matter() -> None:
    matrix = noise(4, 83)
    other = matrix.copy()
    other[:, :3] = 5.0
    ours, theirs = probability_of_overfitting(matrix, 8), probability_of_overfitting(other, 8)
    np.testing.assert_array_equal(ours.logits, theirs.logits)
    other[:, 3] = 5.0  # the first day that is used
    assert (probability_of_overfitting(other, 8).in_sample != ours.in_sample).any()


def test_noise_is_overfit_in_half_of_the_splits_on_average() -> None:
    found = [probability_of_overfitting(noise(40, 320, seed), 10) for seed in range(60)]
    assert np.mean([one.pbo for one in found]) == pytest.approx(0.5, abs=0.06)
    assert np.mean([one.loss_probability for one in found]) == pytest.approx(0.5, abs=0.08)
    # What a split takes from its own half the other half lacks: noise bends the line downwards.
    assert np.mean([one.slope for one in found]) < 0


def test_a_row_with_a_true_edge_is_not_overfit() -> None:
    matrix = noise(40, 640)
    matrix[17] += 0.006
    found = probability_of_overfitting(matrix)
    assert found.pbo < 0.01
    assert found.loss_probability < 0.01
    assert (found.chosen == 17).mean() > 0.99


def test_a_row_that_only_seemed_good_before_is_overfit() -> None:
    """Every row earns in one block what it loses in all others: the best in sample is always one
    whose block is there, and out of sample it is below those whose block is there."""
    matrix = noise(8, 160) * 0.1 - 0.001
    for row in range(8):
        matrix[row, row * 20 : (row + 1) * 20] += 0.02
    found = probability_of_overfitting(matrix, 8)
    assert found.pbo == 1.0
    assert found.loss_probability == 1.0
    assert found.slope < 0


def test_looking_at_the_unseen_half_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the noise test: a ranking in the very sample of the choice."""
    followed = module._followed
    monkeypatch.setattr(module, "_followed", lambda ours, _: followed(ours, ours))
    assert probability_of_overfitting(noise(40, 320), 10).pbo == 0.0


def test_rows_that_never_traded_are_cash_of_ratio_zero() -> None:
    losers = noise(3, 160) - 0.02
    found = probability_of_overfitting(np.vstack([losers, np.zeros(160)]), 8)
    assert (found.chosen == 3).all()
    assert (found.out_of_sample == 0.0).all()
    assert found.loss_probability == 0.0
    assert found.pbo == 0.0
    assert math.isnan(found.slope)


def test_a_row_that_earns_the_same_every_day_has_no_ratio_made_of_rounding() -> None:
    matrix = np.vstack([noise(3, 160) + 0.01, np.full(160, 0.1 / 3)])
    found = probability_of_overfitting(matrix, 8)
    assert (found.chosen != 3).all()
    assert found.in_sample.max() < 2.0


def test_rows_that_are_all_the_same_count_as_overfit() -> None:
    """They share the middle rank, logit zero: choosing among them was worth nothing."""
    found = probability_of_overfitting(np.tile(noise(1, 161), (5, 1)), 8)
    assert (found.chosen == 0).all()
    assert (found.logits == 0.0).all()
    assert found.pbo == 1.0


def test_scale_and_order_of_rows_do_not_matter() -> None:
    matrix = noise(9, 200)
    found = probability_of_overfitting(matrix, 8)
    scaled = probability_of_overfitting(matrix * np.linspace(0.1, 3, 9)[:, None], 8)
    turned = probability_of_overfitting(matrix[::-1], 8)
    np.testing.assert_array_equal(found.logits, scaled.logits)
    np.testing.assert_array_equal(found.logits, turned.logits)
    np.testing.assert_array_equal(found.chosen, 8 - turned.chosen)


def test_it_says_in_words_what_it_found() -> None:
    text = repr(probability_of_overfitting(noise(10, 100), 4))
    assert text.startswith("Probability of overfitting ")
    assert "6 splits the best of 10 rows" in text


@pytest.mark.parametrize(
    ("matrix", "blocks", "field"),
    [
        (noise(1, 100), 8, "returns"),
        (noise(1, 100)[0], 8, "returns"),
        (noise(3, 15), 8, "returns"),
        (np.full((3, 100), np.nan), 8, "returns"),
        (noise(3, 100), 7, "blocks"),
        (noise(3, 100), 0, "blocks"),
        (noise(3, 100), 22, "blocks"),
    ],
)
def test_what_cannot_be_split_is_refused_by_name(
    matrix: np.ndarray, blocks: int, field: str
) -> None:
    with pytest.raises(InputError) as caught:
        probability_of_overfitting(matrix, blocks)
    assert caught.value.field == field
