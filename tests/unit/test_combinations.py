"""What a search may choose from, and what it draws: distinct, allowed, reproducible, uniform."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research import combinations
from research.combinations import Space, drawn, every, space_of
from research.errors import ParameterError
from research.strategies.calm_trend import CalmTrend
from research.strategies.sma_crossover import SmaCrossover

HUGE: dict[str, Any] = {
    "fast": range(2, 1001),
    "slow": range(3, 5001),
    "window": range(1, 1001),
    "most_range": np.linspace(0.01, 100.0, 2_000),
}


def small(**grid: Any) -> Space:
    return space_of(SmaCrossover, grid or {"fast": range(2, 9), "slow": range(3, 12)})


def keys(chosen: list[Any]) -> list[tuple[int | float, ...]]:
    return [tuple(one.parameters().values()) for one in chosen]


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=2), data=st.data())
def test_a_position_is_that_of_the_product(lengths: list[int], data: st.DataObject) -> None:
    names = ("fast", "slow")[: len(lengths)]
    space = small(**{name: range(10, 10 + n) for name, n in zip(names, lengths, strict=True)})
    listed = list(itertools.product(*space.values.values()))
    assert space.size == len(listed)
    assert [space.at(i) for i in range(space.size)] == listed


@settings(max_examples=50)
@given(draws=st.integers(1, 80), seed=st.integers(0, 2**70))
def test_draws_are_distinct_allowed_and_the_same_for_the_same_seed(draws: int, seed: int) -> None:
    space = small()
    chosen, refused = drawn(space, draws, seed)
    allowed, left_out = every(space)
    assert len(set(keys(chosen))) == len(chosen) == min(draws, len(allowed))
    assert set(keys(chosen)) <= set(keys(allowed))
    assert drawn(space, draws, seed) == (chosen, refused)
    assert drawn(space, draws + 5, seed)[0][: len(chosen)] == chosen
    assert refused <= left_out
    if draws > len(allowed):
        assert refused == left_out


def test_another_seed_draws_otherwise() -> None:
    assert len({tuple(keys(drawn(small(), 10, seed)[0])) for seed in range(20)}) == 20


def far_from_uniform(draw: Any) -> float:
    """Chi-squared over its degrees of freedom, of the first two of 6,000 draws of 2 out of 5."""
    seen = Counter(tuple(itertools.islice(draw(seed), 2)) for seed in range(6_000))
    expected = 6_000 / 20
    pairs = itertools.permutations(range(5), 2)
    return sum((seen[pair] - expected) ** 2 / expected for pair in pairs) / 19


def test_every_ordered_draw_is_as_likely_as_any_other() -> None:
    def ours(seed: int) -> Iterator[int]:
        return combinations._shuffled(np.random.default_rng(seed), 5)

    def lopsided(seed: int) -> Iterator[int]:
        first = combinations._below(np.random.default_rng(seed), 5)
        return iter(((first + i) % 5) for i in range(5))

    assert far_from_uniform(ours) < 2.0
    assert far_from_uniform(lopsided) > 20.0, "otherwise the test sees nothing"


def test_a_shuffle_that_runs_to_its_end_is_a_permutation() -> None:
    for total in (0, 1, 2, 7, 100):
        shuffled = list(combinations._shuffled(np.random.default_rng(1), total))
        assert sorted(shuffled) == list(range(total))


def test_a_draw_from_ten_billion_lists_none_of_them() -> None:
    space = space_of(CalmTrend, HUGE)
    assert space.size == 999 * 4_998 * 1_000 * 2_000 > 2**43
    chosen, refused = drawn(space, 300, 7)
    assert len(set(chosen)) == 300
    assert all(one.fast < one.slow for one in chosen)
    assert 0 < refused < 200
    assert chosen == drawn(space, 300, 7)[0]
    assert len({one.most_range for one in chosen}) > 250


def test_what_passes_64_bits_is_drawn_from_all_of_it() -> None:
    total = 10**30
    found = list(itertools.islice(combinations._shuffled(np.random.default_rng(3), total), 2_000))
    assert max(found) < total
    assert np.mean([one / total for one in found]) == pytest.approx(0.5, abs=0.03)
    assert len(set(found)) == 2_000


def test_a_grid_too_large_to_try_all_of_is_refused_and_told_of_draws() -> None:
    with pytest.raises(ParameterError, match=r"at most 10,000,000 .* draws=1000"):
        every(space_of(CalmTrend, HUGE))


def test_a_range_without_end_is_not_listed() -> None:
    with pytest.raises(ParameterError, match=r"SmaCrossover\.fast: expected a whole number"):
        small(fast=itertools.count(2))


# Constraints


def test_a_constraint_is_asked_about_all_parameters_of_what_the_strategy_allows() -> None:
    seen: list[dict[str, int | float]] = []

    def twice(parameters: dict[str, int | float]) -> bool:
        seen.append(parameters)
        return parameters["fast"] * 2 <= parameters["slow"]

    space = space_of(SmaCrossover, {"fast": [3, 30, 60]}, twice)
    chosen, left_out = every(space)
    assert seen == [{"fast": 3, "slow": 50}, {"fast": 30, "slow": 50}]
    assert keys(chosen) == [(3, 50)]
    assert left_out == 2


def test_every_draw_keeps_to_the_constraint() -> None:
    def close(parameters: dict[str, int | float]) -> bool:
        return parameters["slow"] - parameters["fast"] == 1

    space = space_of(SmaCrossover, {"fast": range(2, 40), "slow": range(3, 42)}, close)
    chosen, refused = drawn(space, 1_000, 0)
    assert sorted(keys(chosen)) == [(n, n + 1) for n in range(2, 40)]
    assert refused == space.size - len(chosen)
    unbound, _ = drawn(small(fast=range(2, 40), slow=range(3, 42)), 1_000, 0)
    assert not all(close(one.parameters()) for one in unbound)


def test_a_space_in_which_hardly_anything_is_allowed_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(combinations, "MOST_REFUSED", 500)
    space = space_of(CalmTrend, HUGE, lambda _: False)
    with pytest.raises(ParameterError, match="500 draws in a row were not allowed"):
        drawn(space, 1, 0)


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (lambda p: p["fsat"] < 3, r"constraint: it failed with KeyError: 'fsat'"),
        (lambda p: p["fast"] / 0 < 3, r"it failed with ZeroDivisionError"),
        (lambda p: p["fast"], r"constraint: about .*expected True or False, got 2"),
        (lambda _: None, r"expected True or False, got None"),
        ("fast < slow", r"constraint: expected a function of the parameters"),
    ],
)
def test_a_constraint_that_does_not_answer_is_refused(constraint: Any, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        every(space_of(SmaCrossover, {"fast": [2], "slow": [3]}, constraint))


def test_numpys_booleans_are_answers() -> None:
    space = space_of(SmaCrossover, {"fast": [2, 5]}, lambda p: np.float64(p["fast"]) < 3)
    assert keys(every(space)[0]) == [(2, 50)]


@pytest.mark.parametrize(
    ("draws", "seed", "words"),
    [
        (0, 0, "draws: expected a whole number from 1 on, got 0"),
        (2.0, 0, "draws: expected a whole number"),
        (True, 0, "draws: expected a whole number"),
        (1, -1, "seed: expected a whole number from 0 on, got -1"),
        (1, None, "seed: expected a whole number"),
    ],
)
def test_wrong_numbers_are_refused_by_name(draws: Any, seed: Any, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        drawn(small(), draws, seed)


def test_the_number_of_ways_is_as_python_counts() -> None:
    assert small(fast=[2, 2, 3], slow=[9]).size == 2 == math.prod((2, 1))
