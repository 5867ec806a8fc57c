"""Longer bars out of shorter ones, against pandas and exact fractions, and against the exchange."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.candles import COLUMNS, Candles, utc_ms
from research.errors import (
    CandlesRejected,
    GapNotAccepted,
    HistoryMissing,
    InputError,
    ParameterError,
    UnknownNameError,
)
from research.history import History, Series
from research.resampling import compare_resampled, find_differences, resample, store_resampled
from research.synthetic import synthetic_candles

MINUTE = 60_000
HOUR = 60 * MINUTE
START = utc_ms("2024-01-01")


def minutes(bars: int, first: int = START) -> Candles:
    return synthetic_candles(("AAAUSDT",), "1m", first, bars)["AAAUSDT"]


def kept(candles: Candles, positions: list[int]) -> Candles:
    columns = (getattr(candles, name)[positions] for name in COLUMNS)
    return Candles(candles.symbol, candles.timeframe, candles.ts[positions], *columns)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Candles, str]:
    offset = draw(st.integers(0, 61))
    whole = minutes(draw(st.integers(1, 200)), START + offset * MINUTE)
    absent = draw(st.sets(st.integers(0, len(whole) - 1), max_size=len(whole) - 1))
    here = [i for i in range(len(whole)) if i not in absent]
    return kept(whole, here), draw(st.sampled_from(["3m", "5m", "15m", "30m", "1h", "2h"]))


@given(worlds())
def test_it_is_what_pandas_makes_of_the_bars_that_are_covered(world: tuple[Candles, str]) -> None:
    candles, timeframe = world
    made = resample(candles, timeframe)
    bar = made.bar_ms
    groups = candles.frame().groupby(candles.ts // bar * bar)
    table = groups.agg({"open": "first", "high": "max", "low": "min", "close": "last"})
    first, last = int(candles.ts[0]), int(candles.ts[-1]) + MINUTE
    covered = [ts for ts in table.index if first <= ts and ts + bar <= last]
    assert made.ts.tolist() == covered
    for name in ("open", "high", "low", "close"):
        assert getattr(made, name).tolist() == table[name].loc[covered].tolist()
    for i, ts in enumerate(covered):
        volumes = candles.volume[(candles.ts >= ts) & (candles.ts < ts + bar)].tolist()
        exact = sum(Fraction(repr(one)) for one in volumes)
        assert float(exact) == made.volume[i]


def test_a_float_sum_would_differ_in_the_last_bits() -> None:
    candles = minutes(60)
    volume = np.full(60, 0.1)
    made = resample(replace(candles, volume=volume), "1h")
    assert made.volume[0] == 6.0
    assert pd.Series(volume).cumsum().iloc[-1] != 6.0, "negative control"


def test_bars_that_are_not_covered_whole_are_left_out_and_gaps_stay() -> None:
    whole = minutes(300, START + 30 * MINUTE)
    here = [i for i in range(300) if not 60 <= i < 150 and i != 200]
    made = resample(kept(whole, here), "1h")
    hours = [(int(ts) - START) // HOUR for ts in made.ts]
    assert hours == [1, 3, 4], "the first is cut, hour 2 has no bar, the last is cut"
    assert made.open[0] == whole.open[30]
    assert not len(resample(minutes(30), "1h"))


@pytest.mark.parametrize(
    ("finer", "timeframe", "error"),
    [
        ("1h", "1m", ParameterError),
        ("1h", "30m", ParameterError),
        ("1h", "1h", ParameterError),
        ("3m", "5m", ParameterError),
        ("8h", "12h", ParameterError),
        ("1h", "2h", None),
        ("1h", "1w", UnknownNameError),
    ],
)
def test_only_a_longer_whole_multiple_is_made(
    finer: str, timeframe: str, error: type[Exception] | None
) -> None:
    candles = synthetic_candles(("AAAUSDT",), finer, START, 10)["AAAUSDT"]
    if error is None:
        assert len(resample(candles, timeframe)) == 5
        return
    with pytest.raises(error, match="timeframe"):
        resample(candles, timeframe)


def test_candles_that_are_not_sound_are_refused() -> None:
    candles = minutes(60)
    low = np.array(candles.low)
    low[7] = np.nan
    with pytest.raises(CandlesRejected, match="non_finite"):
        resample(replace(candles, low=low), "1h")


def test_one_changed_minute_is_found_and_named() -> None:
    finer = minutes(600)
    longer = resample(finer, "1h")
    assert compare_resampled(finer, longer) == ()
    close = np.array(finer.close)
    close[4 * 60 + 59] = finer.low[4 * 60 + 59]
    (found,) = compare_resampled(replace(finer, close=close), longer)
    assert (found.ts, found.column) == (START + 4 * HOUR, "close")
    assert (found.ours, found.theirs) == (close[4 * 60 + 59], longer.close[4])
    assert "2024-01-01T04:00Z close" in str(found)
    with pytest.raises(InputError):
        find_differences(longer, finer)


# In the store


def test_what_is_resampled_is_stored_with_its_source_and_its_gaps(tmp_path: Path) -> None:
    history = History(tmp_path)
    whole = minutes(600)
    here = [i for i in range(600) if not 110 <= i < 250]
    history.append("binance", kept(whole, here), "binance")
    series = Series("binance", "AAAUSDT", "1m")
    with pytest.raises(GapNotAccepted):
        store_resampled(history, series, "1h")
    assert [one.timeframe for one in history.series()] == ["1m"], "nothing was written"
    gap = (START + 110 * MINUTE, START + 250 * MINUTE)
    history.accept_gap("binance", "AAAUSDT", "1m", *gap, "lunch", "ada", "they were out")
    done = store_resampled(history, series, "1h")
    assert [(one.start, one.end, one.name) for one in done.accepted] == [
        (START + 2 * HOUR, START + 4 * HOUR, "lunch")
    ]
    manifest = history.manifest("binance", "AAAUSDT", "1h")
    assert manifest.sources == ("resampled from 1m",)
    assert manifest.rows == 8
    history.load(["AAAUSDT"], "1h").require_gaps_accepted()
    assert store_resampled(history, series, "1h").report.rows_added == 0
    with pytest.raises(HistoryMissing, match="no whole bar"):
        store_resampled(history, series, "1d")


def test_what_the_exchange_stored_stays(tmp_path: Path) -> None:
    history = History(tmp_path)
    finer = minutes(300)
    own = resample(finer, "1h")
    volume = np.array(own.volume)
    volume[2] += 1
    history.append("binance", replace(own, volume=volume).rows(0, 3), "binance")
    history.append("binance", finer, "binance")
    done = store_resampled(history, Series("binance", "AAAUSDT", "1m"), "1h")
    assert (done.report.rows_added, len(done.report.revisions)) == (2, 1)
    assert history.read("binance", "AAAUSDT", "1h").volume[2] == volume[2]


# The exchange's own


def test_hours_from_real_minutes_are_the_exchange_s_own_bit_for_bit(
    shared_history: History,
) -> None:
    finer = shared_history.read("binance", "BTCUSDT", "1m")
    longer = shared_history.read("binance", "BTCUSDT", "1h")
    made = resample(finer, "1h")
    assert np.isin(made.ts, longer.ts).sum() > 13_000
    assert find_differences(made, longer) == ()


@pytest.mark.parametrize("finer", ["15m", "1h"])
def test_longer_bars_from_real_shorter_ones_are_the_exchange_s_own(
    shared_history: History, finer: str
) -> None:
    compared = 0
    for one in shared_history.inventory():
        if (one.series.exchange, one.series.timeframe) != ("binance", finer):
            continue
        candles = shared_history.read("binance", one.series.symbol, finer)
        for longer in ("1h", "1d"):
            if longer != finer:
                own = shared_history.read("binance", one.series.symbol, longer)
                made = resample(candles, longer)
                compared += int(np.isin(made.ts, own.ts).sum())
                assert find_differences(made, own) == (), (one.series, longer)
    assert compared > 10_000
