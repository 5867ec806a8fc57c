"""Indicators against TA-Lib's streams, their own prefixes, and the definitions of their authors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from research.candles import Floats
from research.errors import ParameterError
from research.indicators import atr, bollinger, ema, macd, momentum, rsi, sma

Bars = tuple[Floats, Floats, Floats]  # high, low, close


def random_bars(n: int, seed: int) -> Bars:
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, n)))
    low, high = close * (1 - rng.uniform(0, 0.01, n)), close * (1 + rng.uniform(0, 0.01, n))
    return high, low, close


@st.composite
def bars_of(draw: st.DrawFn, most: int = 120) -> Bars:
    """Any bars at all: prices on a coarse grid too, so that they repeat and stand still."""
    price = st.one_of(st.floats(1.0, 1e5), st.integers(1, 20).map(float))
    rows = draw(st.lists(st.tuples(price, price, price), min_size=1, max_size=most))
    ordered = np.sort(np.array(rows), axis=1)
    return ordered[:, 2].copy(), ordered[:, 0].copy(), ordered[:, 1].copy()


# Name -> (ours, TA-Lib's stream over the same columns); windows short enough for short series.
CASES: dict[str, tuple[Callable[[Bars], Any], Callable[[Bars], Any]]] = {
    "sma": (lambda b: sma(b[2], 7), lambda b: talib.stream.SMA(b[2], 7)),
    "ema": (lambda b: ema(b[2], 7), lambda b: talib.stream.EMA(b[2], 7)),
    "rsi": (lambda b: rsi(b[2], 5), lambda b: talib.stream.RSI(b[2], 5)),
    "atr": (lambda b: atr(*b, 5), lambda b: talib.stream.ATR(*b, 5)),
    "momentum": (lambda b: momentum(b[2], 6), lambda b: talib.stream.ROCP(b[2], 6)),
    "macd": (lambda b: macd(b[2], 4, 9, 3), lambda b: talib.stream.MACD(b[2], 4, 9, 3)),
    "bollinger": (
        lambda b: bollinger(b[2], 8, 2.5),
        lambda b: talib.stream.BBANDS(b[2], 8, 2.5, 2.5),
    ),
}
FIRST = {"sma": 6, "ema": 6, "rsi": 5, "atr": 5, "momentum": 6, "macd": 10, "bollinger": 7}


def columns(values: Any) -> list[Floats]:
    return list(values) if isinstance(values, tuple) else [values]


def cut(bars: Bars, stop: int) -> Bars:
    high, low, close = bars
    return high[:stop], low[:stop], close[:stop]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_batch_is_bit_for_bit_what_talib_streams_bar_by_bar(name: str, seed: int) -> None:
    ours, stream_of = CASES[name]
    bars = random_bars(900, seed)
    batch = columns(ours(bars))
    opened = int(np.random.default_rng(seed).integers(40, 500))
    handle = stream_of(cut(bars, opened))
    for t in range(opened, len(bars[2])):
        high, low, close = (column[t] for column in bars)
        streamed = handle.update(high, low, close) if name == "atr" else handle.update(close)
        values = np.array(columns(streamed)).tobytes()
        expected = np.array([column[t] for column in batch]).tobytes()
        assert values == expected, f"bar {t}, stream opened at {opened}"


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=60, deadline=None)
@given(bars=bars_of(), data=st.data())
def test_adding_bars_never_changes_an_earlier_value(
    name: str, bars: Bars, data: st.DataObject
) -> None:
    ours, _ = CASES[name]
    stop = data.draw(st.integers(0, len(bars[2])))
    for whole, part in zip(columns(ours(bars)), columns(ours(cut(bars, stop))), strict=True):
        assert part.tobytes() == whole[:stop].tobytes()


def test_the_prefix_check_catches_an_average_that_is_centred() -> None:
    def centred(close: Floats) -> Floats:
        return pd.Series(close).rolling(7, center=True).mean().to_numpy()

    close = random_bars(50, 3)[2]
    assert centred(close[:30]).tobytes() != centred(close)[:30].tobytes()


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None)
@given(bars=bars_of())
def test_values_are_as_many_as_bars_and_begin_when_the_window_is_full(
    name: str, bars: Bars
) -> None:
    for column in columns(CASES[name][0](bars)):
        assert column.dtype == np.float64
        assert column.shape == bars[2].shape
        assert np.isnan(column).tolist() == [t < FIRST[name] for t in range(len(column))]


@pytest.mark.parametrize("name", CASES)
def test_no_bar_gives_no_value(name: str) -> None:
    nothing = np.empty(0)
    for column in columns(CASES[name][0]((nothing, nothing, nothing))):
        assert column.shape == (0,)


def assert_close(ours: Floats, theirs: Any, scale: float = 1.0) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9 * scale, equal_nan=True)


def recursive(values: Floats, first: int, seed: float, alpha: float) -> Floats:
    """``seed`` at ``first``, then each value moves ``alpha`` of the way to the new one."""
    smoothed = np.full(len(values), np.nan)
    for t in range(first, len(values)):
        before = seed if t == first else smoothed[t - 1] + alpha * (values[t] - smoothed[t - 1])
        smoothed[t] = before
    return smoothed


def test_a_hand_made_series_gives_the_values_of_pencil_and_paper() -> None:
    close = np.array([2.0, 4.0, 6.0, 2.0])
    assert_close(sma(close, 2), [math.nan, 3.0, 5.0, 4.0])
    # alpha = 2/3: 3, then 3 + 2/3 (6 - 3) = 5, then 5 + 2/3 (2 - 5) = 3
    assert_close(ema(close, 2), [math.nan, 3.0, 5.0, 3.0])
    # gains 2, 2, 0 and losses 0, 0, 4: averages 2/0, then (2 + 0)/2 = 1 and (0 + 4)/2 = 2
    assert_close(rsi(close, 2), [math.nan, math.nan, 100.0, 100.0 / 3.0])
    # population deviation of (2, 4) is 1, of (4, 6) 1, of (6, 2) 2
    upper, middle, lower = bollinger(close, 2, 1.0)
    assert_close(upper - middle, [math.nan, 1.0, 1.0, 2.0])
    assert_close(middle - lower, [math.nan, 1.0, 1.0, 2.0])


def test_the_true_range_reaches_from_yesterdays_close() -> None:
    high, low, close = np.array([[10.0, 12.0, 9.0], [8.0, 11.0, 7.0], [9.0, 11.5, 8.0]])
    # 12 - 9 = 3 beats 12 - 11; 11.5 - 7 = 4.5 beats 9 - 7
    assert_close(atr(high, low, close, 1), [math.nan, 3.0, 4.5])
    assert_close(atr(high, low, close, 2), [math.nan, math.nan, 3.75])


@pytest.mark.parametrize("window", [1, 2, 14, 200])
def test_sma_is_the_rolling_mean(window: int) -> None:
    close = random_bars(1000, 5)[2]
    assert_close(sma(close, window), pd.Series(close).rolling(window).mean())


@pytest.mark.parametrize("window", [1, 2, 14, 200])
def test_momentum_is_the_relative_change_over_the_window(window: int) -> None:
    close = random_bars(1000, 12)[2]
    assert_close(momentum(close, window), pd.Series(close).pct_change(window))


@pytest.mark.parametrize("window", [1, 2, 14, 200])
def test_ema_is_the_recursion_from_the_first_windows_mean(window: int) -> None:
    close = random_bars(1000, 6)[2]
    seed = float(close[:window].mean())
    assert_close(ema(close, window), recursive(close, window - 1, seed, 2 / (window + 1)))


@pytest.mark.parametrize("window", [2, 14, 100])
def test_rsi_is_wilders(window: int) -> None:
    close = random_bars(1000, 7)[2]
    change = np.append(np.nan, np.diff(close))
    up, down = np.maximum(change, 0.0), np.maximum(-change, 0.0)
    average_up = recursive(up, window, float(up[1 : window + 1].mean()), 1 / window)
    average_down = recursive(down, window, float(down[1 : window + 1].mean()), 1 / window)
    assert_close(rsi(close, window), 100.0 - 100.0 / (1.0 + average_up / average_down))


@pytest.mark.parametrize("window", [1, 2, 14, 100])
def test_atr_is_wilders(window: int) -> None:
    high, low, close = random_bars(1000, 8)
    before = np.append(np.nan, close[:-1])
    true_range = np.maximum.reduce([high - low, np.abs(high - before), np.abs(low - before)])
    seed = float(true_range[1 : window + 1].mean())
    assert_close(atr(high, low, close, window), recursive(true_range, window, seed, 1 / window))


@pytest.mark.parametrize(("fast", "slow", "signal"), [(12, 26, 9), (2, 3, 1), (5, 100, 20)])
def test_macd_is_the_difference_of_two_averages_that_start_together(
    fast: int, slow: int, signal: int
) -> None:
    close = random_bars(1000, 9)[2]

    def average(window: int) -> Floats:
        # Both averages are first there when the slow window is full, each seeded by its own mean.
        seed = float(close[slow - window : slow].mean())
        return recursive(close, slow - 1, seed, 2 / (window + 1))

    line = average(fast) - average(slow)
    first = slow + signal - 2
    seed = float(line[slow - 1 : first + 1].mean())
    trigger = recursive(line, first, seed, 2 / (signal + 1))
    line[:first] = np.nan
    for ours, theirs in zip(macd(close, fast, slow, signal), (line, trigger), strict=False):
        assert_close(ours, theirs, scale=100.0)
    ours = macd(close, fast, slow, signal)
    assert_close(ours[2], ours[0] - ours[1], scale=100.0)


@pytest.mark.parametrize(("window", "width"), [(2, 1.0), (20, 2.0), (200, 3.5), (20, 2)])
def test_bollinger_bands_are_mean_and_population_deviation(window: int, width: float) -> None:
    close = random_bars(1000, 10)[2]
    rolling = pd.Series(close).rolling(window)
    mean, deviation = rolling.mean(), rolling.std(ddof=0)
    upper, middle, lower = bollinger(close, window, width)
    assert_close(middle, mean)
    assert_close(upper, mean + width * deviation)
    assert_close(lower, mean - width * deviation)


def test_rsi_stays_on_its_scale_at_the_ends() -> None:
    rising, falling, still = np.arange(1.0, 40.0), np.arange(40.0, 1.0, -1.0), np.full(39, 5.0)
    assert set(rsi(rising, 14)[14:]) == {100.0}
    assert set(rsi(falling, 14)[14:]) == {0.0}
    assert set(rsi(still, 14)[14:]) == {0.0}  # the documented choice for 0 / 0


@settings(deadline=None)
@given(bars=bars_of(), window=st.integers(2, 30))
def test_rsi_lies_between_0_and_100_and_atr_is_not_negative(bars: Bars, window: int) -> None:
    strength, span = rsi(bars[2], window), atr(*bars, window)
    assert np.all((strength[window:] >= 0.0) & (strength[window:] <= 100.0))
    assert np.all(span[window:] >= 0.0)


def test_one_missing_value_spoils_every_later_one() -> None:
    close = random_bars(60, 11)[2].copy()
    close[20] = np.nan
    for values in (sma(close, 5), ema(close, 5)):
        assert np.isfinite(values[4:20]).all()
        assert np.isnan(values[20:]).all()


def test_any_memory_layout_and_any_number_type_will_do() -> None:
    close = np.arange(1, 41)
    want = ema(close.astype(np.float64), 5).tobytes()
    assert ema(close, 5).tobytes() == want
    assert ema(np.repeat(close, 2)[::2], 5).tobytes() == want
    assert ema(close, np.int64(5)).tobytes() == want  # type: ignore[arg-type]


CLOSE = np.arange(1.0, 200.0)
WINDOWS: list[tuple[str, int, Callable[[Any], Any]]] = [
    ("sma.window", 1, lambda w: sma(CLOSE, w)),
    ("ema.window", 1, lambda w: ema(CLOSE, w)),
    ("rsi.window", 2, lambda w: rsi(CLOSE, w)),
    ("atr.window", 1, lambda w: atr(CLOSE, CLOSE, CLOSE, w)),
    ("momentum.window", 1, lambda w: momentum(CLOSE, w)),
    ("macd.fast", 2, lambda w: macd(CLOSE, fast=w)),
    ("macd.slow", 2, lambda w: macd(CLOSE, slow=w)),
    ("macd.signal", 1, lambda w: macd(CLOSE, signal=w)),
    ("bollinger.window", 2, lambda w: bollinger(CLOSE, w)),
]


@pytest.mark.parametrize(("field", "low", "call"), WINDOWS)
@pytest.mark.parametrize("window", [0, -1, 1.0, 14.0, True, "14", None, math.nan, 100_001, 2**40])
def test_a_bad_window_is_refused_by_name(
    field: str, low: int, call: Callable[[Any], Any], window: Any
) -> None:
    with pytest.raises(ParameterError, match=f"{field}: expected a whole number of bars") as caught:
        call(window)
    assert (caught.value.field, caught.value.expected) == (
        field,
        f"a whole number of bars from {low} to 100000",
    )


@pytest.mark.parametrize(("field", "low", "call"), WINDOWS)
def test_the_bound_itself_is_allowed_and_one_less_is_not(
    field: str, low: int, call: Callable[[Any], Any]
) -> None:
    if field != "macd.slow":  # a slow window of 2 has no faster one below it
        call(low)
    with pytest.raises(ParameterError, match=field):
        call(low - 1)


@pytest.mark.parametrize(("fast", "slow"), [(26, 26), (27, 26)])
def test_a_fast_window_that_is_not_faster_is_refused(fast: int, slow: int) -> None:
    with pytest.raises(ParameterError, match=r"macd.fast: expected less than slow \(26\), got 2"):
        macd(CLOSE, fast, slow)


@pytest.mark.parametrize("width", [0, -2.0, math.nan, math.inf, 1e300, True, "2", None])
def test_a_bad_width_is_refused_by_name(width: Any) -> None:
    with pytest.raises(ParameterError, match=r"bollinger.width: expected a number above 0"):
        bollinger(CLOSE, 20, width)
