"""The made-up candles: sound, the same everywhere, and never mistaken for a market."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.candles import (
    COLUMNS,
    DAY,
    TIMEFRAMES,
    CandleSet,
    find_gaps,
    iso,
    require_sound,
    utc_ms,
)
from research.errors import CandlebookError, InputError, ParameterError, UnknownNameError
from research.synthetic import SYNTHETIC_NOTICE, synthetic_candles

SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]


@pytest.fixture(scope="module")
def two_years() -> CandleSet:
    return synthetic_candles(SYMBOLS, "1h", "2022", 2 * 365 * 24)


@settings(max_examples=60, deadline=None)
@given(
    timeframe=st.sampled_from(sorted(TIMEFRAMES)),
    bars=st.integers(1, 300),
    seed=st.integers(0, 2**40),
    day=st.integers(0, 20_000),
)
def test_every_series_is_sound_gapless_and_starts_where_it_was_asked_to(
    timeframe: str, bars: int, seed: int, day: int
) -> None:
    start = day * DAY
    made = synthetic_candles([*SYMBOLS, "OTHERUSDT"], timeframe, start, bars, seed)
    assert made.source == "synthetic"
    for one in made:
        require_sound(one)
        assert len(one) == bars
        assert not find_gaps(one)
        assert int(one.ts[0]) == start
        assert one.volume.min() > 0


@settings(max_examples=40, deadline=None)
@given(
    timeframe=st.sampled_from(["1m", "1h", "1d"]),
    bars=st.integers(2, 400),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_the_first_n_bars_of_a_longer_series_are_the_series_of_n_bars(
    timeframe: str, bars: int, seed: int, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, bars - 1))
    long = synthetic_candles(SYMBOLS, timeframe, "2022", bars, seed)
    short = synthetic_candles(SYMBOLS, timeframe, "2022", n, seed)
    assert long.between(None, int(long.clock()[n])).digest() == short.digest()


def test_a_symbol_does_not_depend_on_its_company() -> None:
    alone = synthetic_candles(["ETHUSDT"], "1h", "2024", 500)
    among = synthetic_candles(["SOLUSDT", "ETHUSDT", "BTCUSDT"], "1h", "2024", 500)
    assert alone["ETHUSDT"].digest() == among["ETHUSDT"].digest()


def test_the_same_seed_gives_the_same_bits_on_every_machine_and_another_seed_does_not() -> None:
    # Golden: a change of it is a change of every demonstration's numbers, so it must be meant.
    made = synthetic_candles(["BTCUSDT", "XUSDT"], "1h", "2024", 500)
    assert made.digest() == "f9d550eece4e8fe18d7628348ec6163a0c9ec9e7c1a11532ae81f9c61e1327ca"
    assert synthetic_candles(["BTCUSDT", "XUSDT"], "1h", "2024", 500, 8).digest() != made.digest()


def test_prices_are_whole_ticks_and_an_open_is_close_to_the_last_close(
    two_years: CandleSet,
) -> None:
    for one in two_years:
        for name in COLUMNS[:4]:
            cents = getattr(one, name) * 100
            np.testing.assert_allclose(cents, np.rint(cents), rtol=0, atol=1e-6 * cents.max())
            assert all(float(f"{price:.2f}") == price for price in getattr(one, name)[:500])
        jump = np.abs(one.open[1:] - one.close[:-1]) / one.close[:-1]
        assert np.median(jump) < 0.001
        assert jump.max() < 0.02


def test_it_has_the_features_of_a_market_that_the_demonstration_needs(
    two_years: CandleSet,
) -> None:
    returns = np.array([np.diff(one.close) / one.close[:-1] for one in two_years])
    for row in returns:
        size = np.abs(row)
        assert 0.3 < row.std() * np.sqrt(365 * 24) < 1.6, "annual volatility"
        assert np.corrcoef(size[1:], size[:-1])[0, 1] > 0.08, "volatility comes in clusters"
        assert abs(np.corrcoef(row[1:], row[:-1])[0, 1]) < 0.05, "returns do not predict returns"
        assert ((row - row.mean()) ** 4).mean() / row.var() ** 2 > 3.3, "fat tails"
    correlation = np.corrcoef(returns)
    assert correlation[np.triu_indices(3, 1)].min() > 0.4
    assert correlation[np.triu_indices(3, 1)].max() < 0.95


def test_volume_has_a_daily_rhythm(two_years: CandleSet) -> None:
    for one in two_years:
        hour = one.ts % DAY // 3_600_000
        assert one.volume[hour == 15].mean() > 1.5 * one.volume[hour == 3].mean()
        logs = np.log(one.volume)
        assert abs(((logs - logs.mean()) ** 3).mean() / logs.std() ** 3) < 0.6, "log-normal"


@pytest.mark.parametrize(
    ("change", "error", "field"),
    [
        ({"bars": 0}, ParameterError, "bars"),
        ({"bars": 2.5}, ParameterError, "bars"),
        ({"bars": True}, ParameterError, "bars"),
        ({"seed": -1}, ParameterError, "seed"),
        ({"start": utc_ms("2024") + 1}, ParameterError, "start"),
        ({"start": "soon"}, InputError, "time"),
        ({"timeframe": "7m"}, UnknownNameError, "timeframe"),
        ({"symbols": []}, InputError, "symbols"),
        ({"symbols": ["BTCUSDT", "BTCUSDT"]}, InputError, "symbols"),
    ],
)
def test_a_wrong_argument_is_named(
    change: dict[str, object], error: type[CandlebookError], field: str
) -> None:
    good: dict[str, object] = {
        "symbols": SYMBOLS,
        "timeframe": "1h",
        "start": "2024",
        "bars": 10,
        "seed": 7,
    }
    with pytest.raises(error) as caught:
        synthetic_candles(**(good | change))  # type: ignore[arg-type]
    assert caught.value.field == field


def test_the_notice_says_that_it_is_no_market_data() -> None:
    assert SYNTHETIC_NOTICE.startswith("Synthetic candles")
    assert "no market data" in SYNTHETIC_NOTICE
    first = synthetic_candles(["BTCUSDT"], "1d", "2024-02-29", 1)
    assert repr(first).startswith("CandleSet(synthetic:")
    assert iso(int(first["BTCUSDT"].ts[0])) == "2024-02-29T00:00Z"
