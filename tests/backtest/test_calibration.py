"""The calibration of the gate: its markets are what they say, its page says what it measured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.candles import CandleSet, require_sound
from research.evidence.planted import Market, candles_of
from tests.calibration.page import chart_of, table_of, write_calibration, write_real
from tests.calibration.sweeps import EDGES, NOISE, figures_of, interval, true_sharpe

BARS = 4_000


def closes(market: Market, seeds: int) -> np.ndarray:
    return np.array([candles_of(market, seed, BARS)["BTCUSDT"].close for seed in range(seeds)])


def growth(market: Market, seeds: int = 300) -> np.ndarray:
    found = closes(market, seeds)
    return found[:, -1] / found[:, 0]


def test_the_candles_are_sound_and_the_same_seed_gives_the_same() -> None:
    market = Market("a test", trend=5.0)
    one = candles_of(market, 7, BARS)
    require_sound(one["BTCUSDT"])
    assert isinstance(one, CandleSet)
    assert one.digest() == candles_of(market, 7, BARS).digest()
    assert one.digest() != candles_of(market, 8, BARS).digest()


def test_without_an_edge_the_price_is_a_martingale_and_a_rising_market_is_none() -> None:
    flat, rising = growth(Market("flat")), growth(Market("rising", rise=1.0))
    error = flat.std() / np.sqrt(len(flat))
    assert abs(flat.mean() - 1.0) < 3 * error
    assert rising.mean() - 1.0 > 3 * error


def test_a_planted_edge_is_a_drift_that_lasts_and_noise_has_none() -> None:
    def persistence(market: Market) -> float:
        moves = np.diff(np.log(closes(market, 40)), axis=1)
        weeks = moves[:, : BARS // 168 * 168 - 168].reshape(40, -1, 168).sum(axis=2)
        return float(np.corrcoef(weeks[:, 1:].ravel(), weeks[:, :-1].ravel())[0, 1])

    assert persistence(Market("edge", trend=6.0)) > 0.15
    assert abs(persistence(Market("none"))) < 0.12


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"), [(0, 200, 0.0, 0.01827), (5, 10, 0.18709, 0.81291)]
)
def test_the_interval_is_that_of_clopper_and_pearson(
    hits: int, of: int, low: float, high: float
) -> None:
    assert interval(hits, of) == pytest.approx((low, high), abs=1e-5)


def test_every_kind_is_named_apart_and_the_edges_grow() -> None:
    assert len({str(kind) for kind in (*NOISE, *EDGES)}) == len(NOISE) + len(EDGES)
    assert not any(kind.market.trend for kind in NOISE)
    assert true_sharpe(EDGES[-1], 3) > true_sharpe(NOISE[0], 3)


def test_a_few_sweeps_come_to_figures_and_to_a_page(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:  # a process would load everything again
        found = [figures_of(kind, 0, 2, pool) for kind in (NOISE[0], EDGES[-1])]
    assert [one["sweeps"] for one in found] == [2, 2]
    assert found[0]["ours"]["hits"] == 0
    assert found[0]["refused_by"]["luck"] == 2
    page = _page(tmp_path)
    write_calibration(page, found)
    text = page.read_text()
    assert "before\n" in text
    assert "after\n" in text
    for one in found:
        assert f"| {one['market']} | {one['rows']} |" in text
    write_calibration(page, found)
    assert page.read_text() == text
    assert (tmp_path / "images/calibration.svg").read_text() == chart_of(found)


def _page(folder: Path) -> Path:
    (folder / "images").mkdir()
    page = folder / "evidence.md"
    marks = [
        f"<!-- {name}: {end}, by make calibrate -->"
        for name in ("calibration", "real")
        for end in ("begin", "end")
    ]
    page.write_text("before\n" + "\n".join(marks) + "\nafter\n")
    return page


def _figures(hits: int) -> dict[str, Any]:
    side = {"hits": hits, "low": hits / 200, "high": hits / 200}
    return {
        **{"market": "a <market>", "sweeps": 200, "rows": 45, "true_sharpe": 1.5},
        **{"best_sharpe": 1.7, "ours": side, "best_row": side, "vectorbt": side},
        **{"refused_by": {"luck": 200 - hits}, "overfitting_below_half": 0.5, "seconds": 1.0},
    }


def test_the_chart_draws_shares_and_no_name_is_markup() -> None:
    half, whole = chart_of([_figures(100)]), chart_of([_figures(200)])
    assert 'width="200.0"' in half
    assert 'width="400.0"' in whole
    assert "a &lt;market&gt;" in half
    assert "luck 100" in table_of([_figures(100)])


def test_the_real_report_names_what_refuses_and_what_is_undefined(tmp_path: Path) -> None:
    page = _page(tmp_path)
    row = {
        **{"symbols": "BTCUSDT ETHUSDT", "strategy": "SmaCrossover(fast=5, slow=50)"},
        **{"trials": 90, "effective_trials": 7, "failed": ("luck", "timing")},
        "statistics": {"sharpe_daily": 0.71, "deflated_sharpe": None},
    }
    write_real(page, [row, row | {"failed": ()}])
    text = page.read_text()
    assert "| all ten, one account | SmaCrossover(fast=5, slow=50) | 0.71 | 90, 7 | – |" in text
    assert "| luck, timing |" in text
    assert "| nothing: promoted |" in text


def test_a_page_without_its_block_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "evidence.md"
    page.write_text("nothing to replace\n")
    with pytest.raises(ValueError, match="has no block"):
        write_real(page, [])
    assert page.read_text() == "nothing to replace\n"
