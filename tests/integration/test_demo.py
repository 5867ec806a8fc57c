"""``candlebook demo``, shortened to a few paper bars, with and without real candles in reach."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from live import demo
from research.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing answers there


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("params", "notebooks"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("promoted", ".ipynb*")
        )
    monkeypatch.setenv("CANDLEBOOK_HOME", str(tmp_path))
    monkeypatch.setenv("CANDLEBOOK_EXCHANGE_URL", NOWHERE)
    # Set here so that what the demo puts into the environment is undone afterwards.
    monkeypatch.setenv("CANDLEBOOK_REPLAY_DATABASE_URL", f"sqlite:///{tmp_path / 'unused.db'}")
    monkeypatch.setenv("CANDLEBOOK_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(demo, "PAPER_BARS", 3)
    return tmp_path


def test_without_any_exchange_it_runs_on_labelled_synthetic_candles(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANDLEBOOK_SHARED", str(home / "absent"))
    said: list[str] = []
    result = demo.run_demo(load_settings(), said.append)
    assert result.source == "synthetic"
    assert any("Synthetic candles" in line for line in said)
    assert result.parity.equal
    assert result.parity.bars == 3
    page = result.report.read_text("utf-8")
    assert "Synthetic candles" in page
    assert not (home / "data" / "history").exists()  # made-up candles stay out of the store
    assert (home / "params" / "promoted" / "sma_demo.yaml").is_file()


def test_with_real_candles_it_counts(
    home: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANDLEBOOK_SHARED", str(shared))
    said: list[str] = []
    result = demo.run_demo(load_settings(), said.append)
    assert result.source == "binance"
    assert not any("Synthetic" in line for line in said)
    assert any("accepted a known outage" in line for line in said)
    assert result.parity.equal
    assert "Synthetic candles" not in result.report.read_text("utf-8")
    twice = demo.run_demo(load_settings(), said.append)
    assert twice.artefact.digests == result.artefact.digests
