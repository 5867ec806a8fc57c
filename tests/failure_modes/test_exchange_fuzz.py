"""A sample of `make fuzz` with a fixed seed, and proof that its judges would notice."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from research.candles import Candles
from tests.failure_modes.fuzz import Kind, attack, kinds, recorded_folder

KINDS = kinds(recorded_folder())


@pytest.mark.parametrize("name", KINDS)
def test_no_mutated_body_is_accepted_wrongly_or_ends_untyped(name: str) -> None:
    found = attack(KINDS[name], 500, seed=20_261_125)
    assert found.violations == []
    assert found.accepted > 10, "harmless mutations, such as of a field that is not read, pass"
    assert found.refused.total() > 100


def credulous(body: Any) -> Any:
    """A reader that takes numbers as they come, as a careless one would."""
    rows = [[float(value) for value in row[:6]] for row in body]
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    with np.errstate(invalid="ignore"):
        ts = np.array(columns[0]).astype(np.int64)
    return SimpleNamespace(candles=Candles("BTCUSDT", "1h", ts, *map(np.array, columns[1:])))


def test_a_careless_reader_is_caught() -> None:
    found = attack(replace(KINDS["klines"], read=credulous), 300, seed=1)
    assert any("unsound" in one for one in found.violations)
    assert any("Error" in one for one in found.violations), "and what it raises is untyped"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("klines", lambda kept: SimpleNamespace(candles=kept.candles.rows(1, len(kept.candles)))),
        ("ticker/price", lambda price: price * (1 + 1e-12)),
        ("ticker/24hr", lambda day: replace(day, high=day.low / 2)),
        ("time", lambda moment: moment + 1),
        (
            "exchangeInfo",
            lambda listings: {name: replace(one, status="X") for name, one in listings.items()},
        ),
    ],
)
def test_a_reader_that_mends_or_bends_is_caught(name: str, change: Any) -> None:
    kind = KINDS[name]
    bent = Kind(kind.seeds, lambda body: change(kind.read(copy.deepcopy(body))), kind.judge)
    assert attack(bent, 100, seed=2).violations
