"""Markets of which the truth is known: what is planted is there, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from research.errors import ParameterError
from research.evidence.planted import Market, candles_of
from research.metrics import YEAR_DAYS

HOURS_A_YEAR = 24 * YEAR_DAYS
SEEDS = range(40)


def moves(market: Market, seed: int) -> np.ndarray:
    close = candles_of(market, seed).series[0].close
    return np.diff(close) / close[:-1]


def annual(changes: np.ndarray) -> float:
    return float(changes.mean() / changes.std() * np.sqrt(HOURS_A_YEAR))


def test_made_up_candles_say_so_and_bear_the_name_that_was_asked_for() -> None:
    made = candles_of(Market("edge", trend=5.0), 1, bars=500, symbol="MADEUSDT")
    assert (made.source, made.symbols, made.timeframe) == ("synthetic", ("MADEUSDT",), "1h")
    named = candles_of(Market("edge", trend=5.0), 1, bars=500)["BTCUSDT"]
    assert (named.close == made["MADEUSDT"].close).all()


def test_holding_earns_what_the_market_rises_by_and_nothing_where_it_does_not() -> None:
    # Four years each: the mean of 40 ratios is known to 1 / sqrt(160), and to three times that.
    wide = 3 / np.sqrt(4 * len(SEEDS))
    for rise in (0.0, 1.0):
        ratios = [annual(moves(Market("drift", rise=rise), seed)) for seed in SEEDS]
        assert np.mean(ratios) == pytest.approx(rise, abs=wide)


def test_following_a_planted_trend_earns_and_noise_has_none_to_follow() -> None:
    def followed(trend: float, seed: int) -> float:
        changes = moves(Market("trend", trend=trend), seed)
        past = np.convolve(changes, np.ones(300), "valid")[:-1]  # known before each later move
        return annual(np.sign(past) * changes[300:])

    wide = 3 / np.sqrt(4 * 20)
    assert np.mean([followed(5.0, seed) for seed in range(20)]) > 1.0
    assert np.mean([followed(0.0, seed) for seed in range(20)]) == pytest.approx(0.0, abs=wide)


@pytest.mark.parametrize(("given", "field"), [({"bars": 0}, "bars"), ({"seed": -1}, "seed")])
def test_what_makes_no_market_is_refused(given: dict[str, int], field: str) -> None:
    with pytest.raises(ParameterError) as caught:
        candles_of(Market("none"), **{"seed": 1, **given})
    assert caught.value.field == field
