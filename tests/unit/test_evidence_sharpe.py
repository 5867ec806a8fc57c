"""Sharpe statistics against the numbers of their papers, scipy, vectorbt and skfolio."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from research.errors import InputError
from research.evidence import sharpe as module
from research.evidence.sharpe import (
    deflated_sharpe,
    deflated_sharpe_of,
    expected_max_sharpe,
    min_track_record_length,
    moments_of,
    probabilistic_sharpe,
    probabilistic_sharpe_of,
    sharpe_ratio,
)

DAILY = 2.5 / math.sqrt(250)  # the example of 2014 has years of 250 days


def noise(rows: int, days: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(4, (rows, days)) * 0.01 + 0.0005


def test_the_deflated_ratio_is_that_of_its_paper() -> None:
    """Bailey and Lopez de Prado (2014), "A numerical example": an annual ratio of 2.5 over five
    years of days, skewness -3, kurtosis 10, and trials whose annual ratios vary by 1/2. The paper
    prints 0.1132 and 0.9004 for 100 trials, and says that about 0.95 is reached with 46 trials,
    or with 88 if returns were normal."""
    assert expected_max_sharpe(100, 0.5 / 250) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe(DAILY, 100, 0.5 / 250, 1250, -3, 10) == pytest.approx(0.9004, abs=5e-5)
    assert deflated_sharpe(DAILY, 46, 0.5 / 250, 1250, -3, 10) == pytest.approx(0.9505, abs=5e-5)
    assert deflated_sharpe(DAILY, 88, 0.5 / 250, 1250) == pytest.approx(0.9505, abs=5e-5)


def test_excess_kurtosis_would_miss_the_number_of_the_paper() -> None:
    with pytest.raises(InputError, match="kurtosis"):
        deflated_sharpe(DAILY, 100, 0.5 / 250, 1250, -3, 10 - 3)
    assert abs(deflated_sharpe(DAILY, 100, 0.5 / 250, 1250, -3, 13) - 0.9004) > 1e-3


def test_the_probabilistic_ratio_and_the_track_record_are_those_of_their_paper() -> None:
    """Bailey and Lopez de Prado (2012): two years of months with a ratio of 0.458, skewness -2.448
    and kurtosis 10.164 give 0.913, and 0.982 were they normal. An annual ratio of 2 is above 1 at
    95 % after 2.73 years of days, 2.83 of weeks, 3.24 of months, and after 4.99 years of months
    with the skewness -0.72 and the kurtosis 5.78 of hedge funds."""
    assert probabilistic_sharpe(0.458, 0, 24, -2.448, 10.164) == pytest.approx(0.913, abs=5e-4)
    assert probabilistic_sharpe(0.458, 0, 24) == pytest.approx(0.982, abs=5e-4)
    for a_year, years in [(250, 2.73), (52, 2.83), (12, 3.24)]:
        root = math.sqrt(a_year)
        length = min_track_record_length(2 / root, 1 / root)
        assert length / a_year == pytest.approx(years, abs=5e-3)
    root = math.sqrt(12)
    length = min_track_record_length(2 / root, 1 / root, -0.72, 5.78)
    assert length / 12 == pytest.approx(4.99, abs=5e-3)


@given(st.floats(0.01, 0.5), st.floats(-1.0, 1.0), st.floats(2.5, 20.0), st.floats(0.6, 0.999))
def test_a_record_of_the_minimum_length_has_exactly_that_confidence(
    sharpe: float, skew: float, kurtosis: float, confidence: float
) -> None:
    length = min_track_record_length(sharpe, 0.0, skew, kurtosis, confidence)
    # The formula itself, since a number of returns is whole.
    spread = 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2
    z = sharpe * math.sqrt(length - 1) / math.sqrt(spread)
    assert module.NORMAL.cdf(z) == pytest.approx(confidence, rel=1e-9)
    enough = probabilistic_sharpe(sharpe, 0.0, math.ceil(length) + 1, skew, kurtosis)
    assert enough >= confidence
    if (few := math.floor(length) - 1) >= 2:
        assert probabilistic_sharpe(sharpe, 0.0, few, skew, kurtosis) < confidence


def test_moments_are_those_of_scipy_and_skfolio_by_row() -> None:
    """skfolio 0.20 has no probabilistic or deflated Sharpe ratio. It has what goes into them: mean,
    deviation, skewness and kurtosis, and its kurtosis is not in excess either."""
    from scipy import stats
    from skfolio import measures

    returns = noise(7, 500)
    found = moments_of(returns)
    ratio = measures.mean(returns.T) / measures.standard_deviation(returns.T)
    np.testing.assert_allclose(found.sharpe, ratio, rtol=1e-12)
    np.testing.assert_allclose(found.skew, measures.skew(returns.T), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.kurtosis, measures.kurtosis(returns.T), rtol=1e-12)
    np.testing.assert_allclose(found.skew, stats.skew(returns, axis=1), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        found.kurtosis, stats.kurtosis(returns, axis=1, fisher=False), rtol=1e-12
    )


def test_the_deflated_ratio_is_that_of_vectorbt_to_twelve_digits() -> None:
    import pandas as pd
    import vectorbt as vbt

    returns = noise(20, 730)
    frame = pd.DataFrame(returns.T, index=pd.date_range("2024", periods=730, freq="D", tz="UTC"))
    theirs = frame.vbt.returns(freq="D", year_freq="365 days").deflated_sharpe_ratio()
    variance = float(sharpe_ratio(returns).var(ddof=1))
    np.testing.assert_allclose(deflated_sharpe_of(returns, 20, variance), theirs, rtol=1e-12)
    for trials in (2, 10, 1000):
        expected = vbt.returns.metrics.approx_exp_max_sharpe(0.0, variance, trials)
        assert expected_max_sharpe(trials, variance) == pytest.approx(expected, rel=1e-12)


def test_a_matrix_gives_row_by_row_what_single_series_give() -> None:
    returns = noise(5, 100)
    whole = probabilistic_sharpe_of(returns, 0.02)
    alone = [float(probabilistic_sharpe_of(row, 0.02)) for row in returns]
    np.testing.assert_allclose(whole, alone, rtol=1e-13)
    found = moments_of(returns[3])
    by_hand = probabilistic_sharpe(
        float(found.sharpe), 0.02, 100, float(found.skew), float(found.kurtosis)
    )
    assert whole[3] == pytest.approx(by_hand, rel=1e-13)
    assert sharpe_ratio(returns.reshape(5, 2, 50)).shape == (5, 2)


@given(st.floats(1.0, 1e9), st.floats(1.0, 1e9))
def test_more_trials_never_lower_the_bar(one: float, other: float) -> None:
    few, many = sorted((one, other))
    assert 0.0 <= expected_max_sharpe(few, 0.01) <= expected_max_sharpe(many, 0.01)


def test_one_trial_deflates_nothing() -> None:
    assert expected_max_sharpe(1, 0.5) == 0.0
    assert expected_max_sharpe(1.0 + 1e-12, 0.5) == 0.0
    assert deflated_sharpe(0.1, 1, 0.5, 500) == probabilistic_sharpe(0.1, 0.0, 500)


def test_the_bar_is_what_the_best_of_many_ratios_reaches() -> None:
    best = np.random.default_rng(1).normal(0, 0.2, (4000, 50)).max(axis=1).mean()
    assert expected_max_sharpe(50, 0.04) == pytest.approx(best, rel=0.02)
    assert expected_max_sharpe(500, 0.04) != pytest.approx(best, rel=0.02)


def test_the_confidence_of_noise_is_uniform_and_its_deflated_best_is_not_believed() -> None:
    returns = np.random.default_rng(2).normal(0, 0.01, (2000, 250))
    values = probabilistic_sharpe_of(returns)
    assert np.quantile(values, [0.05, 0.5, 0.95]) == pytest.approx([0.05, 0.5, 0.95], abs=0.03)
    variance = float(sharpe_ratio(returns).var(ddof=1))
    assert values.max() > 0.999  # the best of 2,000, taken at face value
    assert deflated_sharpe_of(returns, 2000, variance).max() < 0.95


def test_what_cannot_be_said_is_nan() -> None:
    flat = np.zeros(100)
    same = np.full(100, 0.1 / 3)
    traded = noise(1, 100)[0]
    ratios = sharpe_ratio(np.stack([flat, same, traded]))
    assert np.isnan(ratios[:2]).all()
    assert np.isfinite(ratios[2])
    assert math.isnan(probabilistic_sharpe_of(flat))
    assert math.isnan(sharpe_ratio(np.array([0.01])))
    assert math.isnan(probabilistic_sharpe(0.1, 0.0, 1))
    assert math.isnan(min_track_record_length(math.nan))


def test_a_ratio_that_is_not_above_its_benchmark_needs_for_ever() -> None:
    assert min_track_record_length(0.1, 0.1) == math.inf
    assert min_track_record_length(-0.1) == math.inf


def test_two_values_only_meet_the_bound_of_kurtosis_and_are_no_error() -> None:
    found = moments_of(np.tile([0.01, 0.01, -0.005], 40))
    assert float(found.kurtosis) == pytest.approx(1 + float(found.skew) ** 2, rel=1e-9)
    assert 0.5 < float(probabilistic_sharpe_of(np.tile([0.01, 0.01, -0.005], 40))) <= 1.0
    assert probabilistic_sharpe(2.0, 0.0, 10, 1.0, 2.0) == 1.0  # its variance is zero there
    assert probabilistic_sharpe(2.0, 3.0, 10, 1.0, 2.0) == 0.0


@given(arrays(np.float64, (3, 60), elements=st.floats(-0.5, 0.5, width=32)))
def test_no_sample_breaks_the_bound_of_kurtosis(returns: np.ndarray) -> None:
    values = probabilistic_sharpe_of(returns)
    assert ((values >= 0.0) & (values <= 1.0) | np.isnan(values)).all()


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: expected_max_sharpe(0.5, 1.0), "trials"),
        (lambda: expected_max_sharpe(math.nan, 1.0), "trials"),
        (lambda: expected_max_sharpe(10, -1.0), "variance"),
        (lambda: min_track_record_length(0.1, confidence=1.0), "confidence"),
        (lambda: probabilistic_sharpe(0.1, 0.0, 100, 2.0, 3.0), "kurtosis"),
        (lambda: sharpe_ratio(np.array([0.1, math.nan])), "returns"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(call: object, field: str) -> None:
    with pytest.raises(InputError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.field == field
