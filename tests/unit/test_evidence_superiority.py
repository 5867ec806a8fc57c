"""The reality check and SPA against slow ones written by hand, under the null, with an edge."""

from __future__ import annotations

import math

import numpy as np
import pytest
from arch.bootstrap import SPA, StationaryBootstrap

from research.errors import InputError
from research.evidence import superiority as module
from research.evidence.superiority import Superiority, bootstrap_deviation, superior_ability


def noise(rows: int, days: int, seed: int = 0) -> np.ndarray:
    scale = np.linspace(0.005, 0.03, rows)[:, None]
    return np.random.default_rng(seed).standard_t(5, (rows, days)) * scale


def slow_variance(series: np.ndarray, length: float) -> float:
    """Hansen (2005), section 3.1, lag by lag, none taken round the end."""
    n, q = len(series), 1.0 / length
    away = series - series.mean()
    total = float(away @ away) / n
    for i in range(1, n):
        kernel = (n - i) / n * (1 - q) ** i + i / n * (1 - q) ** (n - i)
        total += 2 * kernel * float(away[:-i] @ away[i:]) / n
    return total


def slow_tests(matrix: np.ndarray, length: float, reps: int, seed: int) -> dict[str, float]:
    """Hansen's three p values and White's, as their papers write them, over arch's positions."""
    n = matrix.shape[1]
    means = [float(row.mean()) for row in matrix]
    deviations = [math.sqrt(slow_variance(row, length)) for row in matrix]
    hopeless = math.sqrt(2 * math.log(math.log(n)))
    centres = {
        "lower": [max(mean, 0.0) for mean in means],
        "consistent": [
            mean if math.sqrt(n) * mean / omega >= -hopeless else 0.0
            for mean, omega in zip(means, deviations, strict=True)
        ],
        "upper": means,
    }
    observed = max(math.sqrt(n) * m / w for m, w in zip(means, deviations, strict=True))
    observed = max(observed, 0.0)
    above = dict.fromkeys([*centres, "reality_check"], 0)
    positions = StationaryBootstrap(length, np.arange(n), seed=seed)
    for (drawn,), _ in positions.bootstrap(reps):
        again = [float(row[drawn].mean()) for row in matrix]
        for name, centre in centres.items():
            largest = max(
                math.sqrt(n) * (a - c) / w
                for a, c, w in zip(again, centre, deviations, strict=True)
            )
            above[name] += max(largest, 0.0) > observed
        largest = max(a - m for a, m in zip(again, means, strict=True))
        above["reality_check"] += largest > max(means)
    return {name: count / reps for name, count in above.items()}


@pytest.mark.parametrize("edge", [0.0, 0.0015])
@pytest.mark.parametrize("length", [1.0, 4.5])
def test_every_p_value_is_that_of_the_papers_over_the_same_draws(
    edge: float, length: float
) -> None:
    """Exactly: a p value is a count over reps. Some row must be ahead: else arch differs."""
    matrix = noise(8, 120, seed=5) + 0.0002
    matrix[2] += edge
    matrix[6] -= 0.01  # hopeless: what tells the three apart
    found = superior_ability(matrix, seed=11, reps=300, block_length=length)
    expected = slow_tests(matrix, length, 300, 11)
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected, abs=1e-12)
    assert found.lower <= found.consistent <= found.upper


def test_arch_by_itself_does_not_divide_by_deviations() -> None:
    """Why differences are divided before they go in: handed raw ones, arch answers otherwise than
    the papers do, since its ``studentize`` only enters what is left out of the recentring."""
    matrix = noise(8, 120, seed=5) + 0.0002
    expected = slow_tests(matrix, 3.0, 300, 11)["upper"]
    raw = SPA(np.zeros(120), -matrix.T, block_size=3.0, reps=300, seed=11)
    raw.compute()
    assert abs(float(raw.pvalues["upper"]) - expected) > 0.02
    found = superior_ability(matrix, seed=11, reps=300, block_length=3.0)
    assert found.upper == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("length", [1.0, 2.7, 20.0])
@pytest.mark.parametrize("days", [60, 97])
def test_deviations_are_those_of_the_sum_over_all_lags(length: float, days: int) -> None:
    matrix = np.cumsum(noise(5, days), axis=1) * 0.1 + noise(5, days, seed=1)
    expected = [math.sqrt(slow_variance(row, length)) for row in matrix]
    np.testing.assert_allclose(bootstrap_deviation(matrix, length), expected, rtol=1e-10)


def test_deviations_are_what_means_of_draws_spread_by() -> None:
    series = np.convolve(noise(1, 203)[0], [1.0, 0.8, 0.5, 0.3], mode="valid")
    draws = StationaryBootstrap(6, series, seed=1)
    means = [float(drawn.mean()) for (drawn,), _ in draws.bootstrap(4000)]
    spread = math.sqrt(len(series)) * float(np.std(means))
    assert bootstrap_deviation(series[None], 6.0)[0] == pytest.approx(spread, rel=0.04)
    assert bootstrap_deviation(series[None], 1.0)[0] != pytest.approx(spread, rel=0.15)


def p_values(count: int, edge: float) -> np.ndarray:
    """Of so many sweeps of ten related rows: columns consistent and reality check."""
    found = []
    for seed in range(count):
        common = np.random.default_rng(10_000 + seed).normal(0, 0.01, 120)
        matrix = noise(10, 120, seed) + common
        matrix[3] += edge
        one = superior_ability(matrix, seed=seed, reps=150, block_length=2.0)
        found.append((one.consistent, one.reality_check))
    return np.array(found)


def test_noise_is_called_superior_about_as_often_as_the_level_says() -> None:
    rejected = (p_values(300, edge=0.0) < 0.1).mean(axis=0)
    assert ((rejected >= 0.05) & (rejected <= 0.17)).all(), rejected


def test_an_edge_is_found_though_nine_other_rows_are_noise() -> None:
    rejected = (p_values(30, edge=0.009) < 0.1).mean(axis=0)
    assert (rejected >= 0.8).all(), rejected


def test_losses_turned_into_gains_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """arch takes losses. The row that wins must be the evidence, the row that loses must not."""
    matrix = noise(5, 200)
    matrix[1] += 0.01
    assert superior_ability(matrix, reps=200).consistent < 0.01
    assert superior_ability(matrix, reps=200).best == 1
    lost = noise(5, 200) - 0.01
    assert superior_ability(lost, reps=200).consistent > 0.4
    right = module._ahead
    monkeypatch.setattr(module, "_ahead", lambda returns, base: -right(returns, base))
    assert superior_ability(lost, reps=200).consistent < 0.01


def test_a_benchmark_that_is_as_good_takes_the_edge_away() -> None:
    matrix = noise(6, 300)
    market = np.random.default_rng(9).normal(0.01, 0.01, 300)
    along = matrix + market
    assert superior_ability(along, reps=200).consistent < 0.01
    beaten = superior_ability(along, market, reps=200)
    alone = superior_ability(matrix, reps=200)
    assert beaten.consistent == pytest.approx(alone.consistent, abs=0.02)
    assert beaten.consistent > 0.1
    assert superior_ability(along, 0.05, reps=200).consistent > 0.4


def test_rows_that_never_traded_change_nothing() -> None:
    matrix = noise(6, 200)
    idle = np.vstack([np.zeros((3, 200)), matrix, np.full((1, 200), 0.1 / 3)])
    ours = superior_ability(idle, seed=3, reps=200, block_length=3)
    theirs = superior_ability(matrix, seed=3, reps=200, block_length=3)
    assert ours.rows == theirs.rows == 6
    assert ours.best == theirs.best + 3  # type: ignore[operator]
    for name in ("lower", "consistent", "upper", "reality_check"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_a_row_that_is_its_benchmark_and_a_constant_is_no_row_to_test() -> None:
    """Its differences deviate by rounding only, which would make any t statistic."""
    market = noise(1, 200)[0]
    alone = superior_ability(np.stack([market + 0.001, market]), market, reps=50)
    assert (alone.rows, alone.consistent) == (0, 1.0)


def test_where_nothing_was_traded_there_is_nothing_to_believe() -> None:
    found = superior_ability(np.zeros((4, 100)))
    assert (found.consistent, found.reality_check, found.best, found.rows) == (1.0, 1.0, None, 0)
    assert repr(found) == "No row differs from the benchmark: nothing to test."


def test_a_wild_row_weakens_the_reality_check_but_not_spa() -> None:
    """Hansen (2005): White's statistic is in returns, so a wild row drowns a calm one's edge."""
    matrix = noise(6, 400) * 0.2
    matrix[0] += 0.0012
    before = superior_ability(matrix, reps=400)
    wild = np.vstack([matrix, np.random.default_rng(4).normal(-0.005, 0.3, 400)])
    after = superior_ability(wild, reps=400)
    assert before.consistent < 0.02
    assert before.reality_check < 0.02
    assert after.consistent < 0.02
    assert after.reality_check > 0.3


def test_the_same_seed_gives_the_same_and_another_does_not() -> None:
    matrix = noise(5, 150)
    one = superior_ability(matrix, seed=1, reps=300)
    assert one == superior_ability(matrix, seed=1, reps=300)
    assert one != superior_ability(matrix, seed=2, reps=300)


def test_the_automatic_block_is_longer_for_returns_that_persist() -> None:
    matrix = noise(4, 400)
    slow = np.apply_along_axis(np.convolve, 1, noise(4, 409), np.ones(10) / 10, "valid")
    calm = superior_ability(matrix, reps=1).block_length
    assert 1.0 <= calm < superior_ability(slow, reps=1).block_length
    assert superior_ability(matrix, reps=1, block_length=7).block_length == 7.0


def test_it_says_in_words_what_it_found() -> None:
    found = Superiority(0.01, 0.02, 0.03, 0.04, 2, 3.1, 1234, 2.0)
    assert repr(found) == (
        "Superior ability: p = 0.020 (0.010 to 0.030) for the best of 1,234 rows, "
        "by the reality check 0.040."
    )


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"returns": noise(3, 15)}, "returns"),
        ({"returns": noise(1, 100)[0]}, "returns"),
        ({"returns": np.full((2, 100), np.nan)}, "returns"),
        ({"returns": noise(3, 100), "benchmark": np.zeros(99)}, "benchmark"),
        ({"returns": noise(3, 100), "reps": 0}, "reps"),
        ({"returns": noise(3, 100), "block_length": 0.5}, "block_length"),
        ({"returns": noise(3, 100), "block_length": 101}, "block_length"),
    ],
)
def test_what_cannot_be_tested_is_refused_by_name(arguments: dict, field: str) -> None:
    with pytest.raises(InputError) as caught:
        superior_ability(**arguments)
    assert caught.value.field == field
