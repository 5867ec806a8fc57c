"""Bad answers of an exchange never trade; `make faults` runs the whole table of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from live.feed import ExchangeFeed
from live.replay import FAULTS
from live.replay.faults import SERVER_ERRORS
from research.candles import Candles
from research.klines import Klines, parse_klines
from research.transport import Transport
from tests.failure_modes.faults import World, run, scenarios, world

# One answer of the 5xx family stands for them all where more is done than to fetch.
ALIKE = {f"status_{code}" for code in SERVER_ERRORS if code != 503}
SCENARIOS = [
    one for one in scenarios(every_endpoint=False) if one[0] not in ALIKE or one[1] == "refresh"
]


@pytest.fixture(scope="module")
def exchange() -> Iterator[World]:
    with world(deadline_s=0.4) as made:
        yield made


def test_every_kind_of_fault_is_in_the_campaign() -> None:
    assert {kind for kind, _, _ in SCENARIOS} == set(FAULTS)
    assert {operation for _, operation, _ in SCENARIOS} == {"fetch", "refresh", "paper"}


@pytest.mark.parametrize(
    ("kind", "operation", "endpoint"), SCENARIOS, ids=[f"{one[0]}-{one[1]}" for one in SCENARIOS]
)
def test_a_fault_is_typed_trades_nothing_and_leaves_no_trace(
    exchange: World, kind: str, operation: str, endpoint: str | None
) -> None:
    assert run(exchange, kind, operation, endpoint).wrong == ()


def careless(rows: list[list[Any]], symbol: str, timeframe: str, now: int | None = None) -> Any:
    """A reader that takes what comes, as ccxt's own does."""
    columns = [[float(value) for value in column] for column in zip(*rows, strict=True)][:6]
    ts = np.array(columns[0]).astype(np.int64)
    candles = Candles(symbol, timeframe, ts, *map(np.array, columns[1:]))
    ones = np.ones(len(rows))
    return Klines(candles, ts, ones, ones.astype(np.int64))


@pytest.mark.parametrize("kind", ["spike", "gap", "stale_tail"])
def test_without_the_second_question_the_campaign_fails(
    exchange: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting = "research.exchange.MarketData._require_confirmed"
    monkeypatch.setattr(trusting, lambda *_: None)
    monkeypatch.setattr("research.exchange._require_continued", lambda *_: None)
    assert run(exchange, kind, "refresh", None).wrong


def test_with_a_careless_reader_the_campaign_fails(
    exchange: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("research.binance.parse_klines", careless)
    # The store has a guard of its own, so that only what is sound in itself gets in.
    monkeypatch.setattr("research.history.require_sound", lambda *_: None)
    assert run(exchange, "swapped_high_low", "fetch", None).wrong
    assert parse_klines is not careless


def test_without_the_deadline_the_campaign_fails(
    exchange: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("research.transport._within", lambda _, call: call())
    found = run(exchange, "drip", "refresh", "klines", seconds=6.0)
    assert any(text.startswith("took") for text in found.wrong)


def test_a_run_that_does_not_look_at_the_listing_fails_the_campaign(
    exchange: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExchangeFeed, "require_tradable", lambda *_: None)
    found = run(exchange, "changed_filters", "paper", None)
    assert "orders were placed" in found.wrong


def test_a_client_that_does_not_retry_is_no_worse(
    exchange: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("research.transport._ATTEMPTS", 1)
    assert run(exchange, "status_503", "paper", "klines").wrong == ()
    assert Transport("binance", None, 1.0).exchange == "binance"
