"""A sketch of a run: marks of the calendar that nest, and returns that compound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.candles import DAY, Ints, utc_ms
from research.daily import day_ends
from research.sketch import MOST_MARKS, blank_sketch, coarser, marks_of

HOUR = 3_600_000
START = utc_ms("2022")


def closes(bars: int, start: int = START, bar: int = HOUR) -> Ints:
    return start + bar * np.arange(1, bars + 1, dtype=np.int64)


def test_four_years_of_hours_are_marked_every_eighth_day_of_the_calendar() -> None:
    close_time = closes(35_064)
    sketch = blank_sketch(close_time, 1)
    assert sketch.step_days == 8
    assert sketch.marks == len(sketch.buckets) == 183
    ends = close_time[marks_of(close_time)]
    assert ((ends[:-1] + HOUR) % (8 * DAY) == 0).all()
    assert ends[-1] == close_time[-1]


@given(
    st.lists(st.integers(1, 5_000), min_size=1, max_size=400),
    st.integers(0, 3_000),
)
def test_marks_are_ends_of_days_and_never_too_many(gaps: list[int], first_day: int) -> None:
    close_time = first_day * DAY + HOUR * np.cumsum(np.array(gaps, np.int64))
    marks = marks_of(close_time)
    assert 1 <= len(marks) <= MOST_MARKS
    assert set(marks) <= set(day_ends(close_time))
    assert marks[-1] == len(close_time) - 1


@given(st.integers(30, 3_000), st.sampled_from([1, 2, 8, 64]), st.integers(0, 10**6))
def test_longer_periods_are_made_of_the_shorter_ones(days: int, times: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    close_time = closes(days, bar=DAY)
    sketch = blank_sketch(close_time, 2)
    equity = 1e4 * np.exp(np.cumsum(0.02 * rng.standard_normal((2, days)), axis=1))
    sketch.put([0, 1], equity[:, marks_of(close_time)], 1e4)
    buckets, returns = coarser(sketch.buckets, sketch.returns, times)
    period = DAY * sketch.step_days * times
    assert buckets.tolist() == sorted(set((close_time // period).tolist()))
    ends = [int(np.flatnonzero(close_time // period == one)[-1]) for one in buckets]
    growth = np.cumprod(1.0 + returns.astype(float), axis=1)
    assert np.allclose(growth, equity[:, ends] / 1e4, rtol=1e-4)


def test_the_first_return_is_from_the_initial_cash() -> None:
    sketch = blank_sketch(closes(48), 1)
    assert sketch.step_days == 1
    sketch.put([0], np.array([[110.0, 99.0, 99.0]]), 100.0)
    assert sketch.returns[0].tolist() == pytest.approx([0.1, -0.1, 0.0], rel=1e-6)


def test_digests_tell_equity_that_differs_in_the_last_bit() -> None:
    sketch = blank_sketch(closes(72), 3)
    equity = np.full((3, sketch.marks), 1e4)
    equity[2, 1] = np.nextafter(1e4, 2e4)
    sketch.put([0, 1, 2], equity, 1e4)
    same = [row.tobytes() for row in sketch.digests]
    assert same[0] == same[1] != same[2]
    assert abs(sketch.returns[2]).max() < 1e-15, "nor would anybody see it in the returns"


def test_a_million_rows_have_longer_periods_and_the_same_digests() -> None:
    close_time = closes(35_064)
    few, many = blank_sketch(close_time, 1), blank_sketch(close_time, 1_000_000)
    assert (few.marks, many.marks) == (183, 183)
    assert many.returns.nbytes <= 256 * 2**20
    assert many.step_days == 32
    equity = np.linspace(1e4, 2e4, few.marks)[None, :]
    few.put([0], equity, 1e4)
    many.put([0], equity, 1e4)
    assert few.digests[0].tobytes() == many.digests[0].tobytes()
    assert coarser(few.buckets, few.returns, 4)[1][0].tolist() == pytest.approx(
        many.returns[0].tolist(), abs=1e-6
    )
