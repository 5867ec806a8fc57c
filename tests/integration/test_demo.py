"""``candlebook demo``, shortened to a few paper bars, with and without real candles in reach."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from live import demo
from live.cli import main
from research.candles import utc_ms
from research.history import History
from research.settings import load_settings
from research.synthetic import synthetic_candles
from tests.integration.cli_project import contents, without

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
    monkeypatch.setenv("CANDLEBOOK_REPLAY_DATABASE_URL", f"sqlite:///{tmp_path / 'unused.db'}")
    monkeypatch.delenv("CANDLEBOOK_DATA_DIR", raising=False)
    monkeypatch.setattr(demo, "PAPER_BARS", 3)
    return tmp_path


def test_without_any_exchange_it_runs_on_labelled_synthetic_candles(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANDLEBOOK_SHARED", str(home / "absent"))
    said: list[str] = []
    before = dict(os.environ)
    result = demo.run_demo(load_settings(), said.append)
    # scikit-learn sets two of KMP's for good when it is first loaded.
    assert {k: v for k, v in os.environ.items() if k in before or k[:4] != "KMP_"} == before
    assert result.source == "synthetic"
    assert any("Synthetic candles" in line for line in said)
    assert result.parity.equal
    assert result.parity.bars == 3
    page = result.report.read_text("utf-8")
    assert "Synthetic candles" in page
    assert (home / "params" / "promoted" / "sma_demo.yaml").is_file()
    # What it printed to look at its books is a command that shows them.
    (look,) = (line.strip() for line in "\n".join(said).splitlines() if "status --replay" in line)
    variable, _, command = look.partition(" ")
    name, _, value = variable.partition("=")
    monkeypatch.setenv(name, value)
    monkeypatch.delenv("CANDLEBOOK_REPLAY_DATABASE_URL")
    shown = CliRunner().invoke(main, command.split()[1:])
    assert "sma_demo" in shown.stdout


def test_it_copies_from_the_users_store_and_touches_nothing_of_theirs(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANDLEBOOK_SHARED", str(home / "absent"))
    store = History(home / "data" / "history")
    hole = utc_ms("2024-02-01")
    for one in synthetic_candles(demo.SYMBOLS, "1h", utc_ms("2024"), 2_000):
        lunched = without(one, hole) if one.symbol == "ETHUSDT" else one
        store.append("binance", lunched, "binance")
    store.accept_gap(
        "binance", "ETHUSDT", "1h", hole, hole + 3_600_000, "lunch", "ada", "they were out"
    )
    theirs = home / "data" / "replays" / "sma_demo" / "2024-01-01T0000Z"
    theirs.mkdir(parents=True)
    (theirs / "report.ipynb").write_text("theirs")
    before = contents(home / "data")
    result = demo.run_demo(load_settings(), lambda _: None)
    assert result.source == "binance"
    assert result.parity.equal
    after = contents(home / "data")
    assert {name: after.get(name) for name in before} == before
    assert all(name.startswith("demo/") for name in after.keys() - before.keys())
    assert not (home / "unused.db").exists()


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
    told = {"judgement", "override"}  # which hold the time
    assert {k: v for k, v in twice.artefact.digests.items() if k not in told} == {
        k: v for k, v in result.artefact.digests.items() if k not in told
    }
    first, second = result.artefact.judgement, twice.artefact.judgement
    assert first is not None
    assert second is not None
    assert first.model_copy(update={"head": second.head}) == second
    assert any("Is it an edge or luck?" in line for line in said)
    assert result.artefact.override is not None
    assert result.artefact.override.why == demo.OVERRIDE
