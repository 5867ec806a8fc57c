"""The exchange feed: the store is filled where it lacks something, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live.feed import CLOCK_TOLERANCE_MS, ExchangeFeed, ReplayFeed, require_same_market
from research.account import Filters
from research.answers import Listing
from research.candles import COLUMNS, Candles, utc_ms
from research.errors import ExchangeRefused, MarketChanged
from research.fetching import OVERLAP_BARS
from research.history import History
from research.synthetic import synthetic_candles

HOUR = 3_600_000
START = utc_ms("2024-01-01")
WHOLE = synthetic_candles(("AAAUSDT",), "1h", START, 200)["AAAUSDT"]


class Market:
    """An exchange that has every candle, by its own clock, and notes what it is asked."""

    def __init__(self, clock: int, candles: Candles = WHOLE) -> None:
        self.clock, self.candles, self.asked = clock, candles, 0

    def server_time(self) -> int:
        return self.clock

    def closed_candles(
        self, symbol: str, timeframe: str, start: int, end: int, stored: Any, now: int
    ) -> Iterator[Candles]:
        part = self.candles.between(start, end).closed_by(now)
        for first in range(0, len(part), 50):
            self.asked += min(50, len(part) - first)
            yield part.rows(first, min(first + 50, len(part)))

    def forming_open(self, symbol: str, timeframe: str, now: int) -> tuple[int, float] | None:
        i = int(np.searchsorted(self.candles.ts, now - now % HOUR))
        shown = self.candles.ts[i] <= self.clock
        return (int(self.candles.ts[i]), float(self.candles.open[i])) if shown else None


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def feed(history: History, market: Market) -> ExchangeFeed:
    return ExchangeFeed(history, market, "binance", ("AAAUSDT",), "1h", START)  # type: ignore[arg-type]


def same(left: Candles, right: Candles) -> bool:
    return left.digest() == right.digest()


def test_an_empty_store_is_filled_and_then_only_the_last_candles_are_asked_for_again(
    history: History,
) -> None:
    now = START + 150 * HOUR
    market = Market(now)
    assert same(feed(history, market).closed(now)["AAAUSDT"], WHOLE.closed_by(now))
    market.asked = 0
    feed(history, market).closed(now)
    assert market.asked == OVERLAP_BARS + 1, "and the one before them, to judge the first by"


def test_a_missing_head_and_an_open_hole_are_filled(history: History) -> None:
    history.append("binance", WHOLE.rows(60, 80), "binance")
    history.append("binance", WHOLE.rows(90, 100), "binance")
    now = START + 120 * HOUR
    assert same(feed(history, Market(now)).closed(now)["AAAUSDT"], WHOLE.closed_by(now))


@pytest.mark.parametrize("lead", [-CLOCK_TOLERANCE_MS, -1, 0, 1, CLOCK_TOLERANCE_MS])
def test_only_what_has_closed_by_both_clocks_is_stored(history: History, lead: int) -> None:
    now = START + 100 * HOUR
    market = Market(now + lead)
    got = feed(history, market).closed(now)["AAAUSDT"]
    assert same(got, WHOLE.closed_by(min(now, now + lead)))
    assert same(history.read("binance", "AAAUSDT", "1h"), got)


def test_nothing_is_asked_while_the_two_clocks_disagree(history: History) -> None:
    now = START + 100 * HOUR
    for lead in (-CLOCK_TOLERANCE_MS - 1, HOUR):
        market = Market(now + lead)
        with pytest.raises(ExchangeRefused, match="clock"):
            feed(history, market).closed(now)
        assert market.asked == 0
    assert not history.inventory()


def test_a_restated_candle_keeps_its_first_values(history: History) -> None:
    now = START + 100 * HOUR
    feed(history, Market(now)).closed(now)
    columns = {name: np.array(getattr(WHOLE, name)) for name in COLUMNS}
    columns["volume"][99] += 1
    restated = Market(now + HOUR, Candles("AAAUSDT", "1h", WHOLE.ts, **columns))
    assert same(feed(history, restated).closed(now + HOUR)["AAAUSDT"], WHOLE.rows(0, 101))
    assert len(history.manifest("binance", "AAAUSDT", "1h").revisions) == 1
    ((symbol, revision),) = feed(history, restated).restated()
    assert (symbol, revision.ts) == ("AAAUSDT", START + 99 * HOUR)


FROZEN = {"AAAUSDT": Filters(lot_step="0.01", tick="0.1", min_trade_size="0.5")}


@pytest.mark.parametrize(
    ("status", "changes", "named"),
    [
        ("TRADING", {}, None),
        ("TRADING", {"min_trade_size": "9"}, None),
        ("BREAK", {}, "status"),
        ("TRADING", {"lot_step": "0.02"}, "lot_step"),
        ("TRADING", {"tick": "0.2"}, "tick"),
        ("TRADING", {"min_notional": "10"}, "min_notional"),
        ("TRADING", {"min_quantity": "10"}, "min_quantity"),
        ("TRADING", {"max_quantity": "10"}, "max_quantity"),
    ],
)
def test_a_halted_symbol_or_a_changed_filter_is_named(
    status: str, changes: dict[str, str], named: str | None
) -> None:
    filters = Filters(**FROZEN["AAAUSDT"].model_dump() | changes)
    listings = {"AAAUSDT": Listing("AAAUSDT", status, filters)}
    if named is None:
        require_same_market(FROZEN, listings)
        return
    with pytest.raises(MarketChanged, match=named) as caught:
        require_same_market(FROZEN, listings)
    assert caught.value.remedy


def test_the_forming_open_is_shown_unless_the_exchange_is_not_there_yet(history: History) -> None:
    now = START + 100 * HOUR + 5_000
    expected = {"AAAUSDT": (START + 100 * HOUR, float(WHOLE.open[100]))}
    assert feed(history, Market(now)).forming(now) == expected
    assert feed(history, Market(now - HOUR)).forming(now) == {}


def test_a_replay_shows_the_same_as_the_exchange_would() -> None:
    replay = ReplayFeed(synthetic_candles(("AAAUSDT",), "1h", START, 200))
    now = START + 100 * HOUR + 5_000
    assert same(replay.closed(now)["AAAUSDT"], WHOLE.closed_by(now))
    assert replay.forming(now) == {"AAAUSDT": (START + 100 * HOUR, float(WHOLE.open[100]))}
