"""The project as a notebook opens it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import research as rs
from research.candles import utc_ms
from research.errors import HistoryMissing
from research.history import History
from research.synthetic import synthetic_candles


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose store holds two symbols, and whose settings are the defaults."""
    made = synthetic_candles(("BTCUSDT", "ETHUSDT"), "1h", utc_ms("2024"), 50)
    for one in made:
        History(tmp_path / "history").append("binance", one, "a test")
    monkeypatch.setenv("CANDLEBOOK_DATA_DIR", str(tmp_path))
    return tmp_path


def test_one_symbol_may_be_given_as_text(project: Path) -> None:
    for load in (rs.load, rs.load_or_synthetic):
        assert load("ETHUSDT", "1h").symbols == ("ETHUSDT",)
        assert load(["ETHUSDT", "BTCUSDT"], "1h").symbols == ("ETHUSDT", "BTCUSDT")
    assert rs.load("BTCUSDT", "1h", end="2024-01-02").exchange == "binance"


def test_what_is_not_stored_is_missing_or_made_up(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(HistoryMissing, match="XRPUSDT"):
        rs.load("XRPUSDT", "1h")
    made = rs.load_or_synthetic("XRPUSDT", "1h")
    assert (made.source, made.symbols) == ("synthetic", ("XRPUSDT",))
    assert "XRPUSDT" in capsys.readouterr().err


def test_made_up_candles_never_stand_in_for_some_that_are_missing(project: Path) -> None:
    with pytest.raises(HistoryMissing, match="XRPUSDT"):
        rs.load_or_synthetic(["BTCUSDT", "XRPUSDT"], "1h")


def test_every_name_of_the_facade_is_the_one_of_its_module() -> None:
    homes = {name: module for module, names in rs._HOME.items() for name in names}
    assert sorted(homes) == sorted(rs.__all__)
    for name, module in homes.items():
        assert getattr(rs, name) is getattr(importlib.import_module(module), name), name
    assert rs.resample.__module__ == "research.resampling"
    with pytest.raises(AttributeError, match="no attribute 'resampled'"):
        _ = rs.resampled
