"""Projects for the tests of the command: an empty one, one with history, one that has traded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from live.cli import main
from live.paper import run_slot
from research.candles import iso
from research.settings import load_settings
from research.variables import VARIABLES
from tests.integration.cli_project import (
    HOUR,
    LAST_CLOSE,
    OUTAGE,
    PROMOTE,
    as_file,
    document,
    empty_project,
    made,
    without,
)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic candles laid out as people have them; one symbol lacks an hour of an outage."""
    folder = tmp_path_factory.mktemp("files")
    for one in made():
        candles = without(one, OUTAGE) if one.symbol == "BTCUSDT" else one
        as_file(candles, folder / "binance" / one.symbol / "1h.parquet")
    return folder


@pytest.fixture(scope="session")
def prepared(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with history and one promoted strategy. Copied, never used."""
    root = empty_project(tmp_path_factory.mktemp("prepared"))
    for args in (("history", "import", str(tree)), PROMOTE):
        done = CliRunner().invoke(main, ["--home", str(root), *args])
        assert done.exit_code == 0, done.output
    return root


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "CANDLEBOOK_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(
    prepared: Path, tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Path:
    root = tmp_path / "project"
    shutil.copytree(prepared, root)
    monkeypatch.setenv("CANDLEBOOK_HOME", str(root))
    return root


@pytest.fixture
def new_home(tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = empty_project(tmp_path / "new")
    monkeypatch.setenv("CANDLEBOOK_HOME", str(root))
    return root


@pytest.fixture
def lived(home: Path) -> Path:
    """A project whose replay has lived two bars, without a notebook."""
    slot = LAST_CLOSE - HOUR
    document("reset", "--reason", "go", "--replay", "--at", iso(slot - HOUR))
    for moment in (slot, LAST_CLOSE):
        run_slot("trend", moment, "replay", load_settings(home))
    return home
