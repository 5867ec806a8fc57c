"""Real candles for the tests that want them; where there are none, those tests say so and skip.

What the tests run is no trial of the project: it goes to a ledger of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from research.history import History
from research.history_import import import_folder
from research.known_gaps import accept_known_gaps, load_known_gaps
from research.variables import environment_with

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def trials_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The ledger of trials of this session (or worker); processes that it starts inherit it."""
    path = tmp_path_factory.mktemp("trials") / "trials.db"
    with environment_with({"CANDLEBOOK_TRIALS": str(path)}):
        yield path


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared material: CANDLEBOOK_SHARED, or ``../shared`` beside the project."""
    folder = (ROOT / os.environ.get("CANDLEBOOK_SHARED", "../shared")).resolve()
    if not (folder / "history").is_dir():
        pytest.skip(f"needs real candles: set CANDLEBOOK_SHARED (no history/ in {folder})")
    return folder


@pytest.fixture(scope="session")
def shared_history(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> History:
    """A store of every shared candle, its known outages accepted. Read it; never append to it."""
    history = History(tmp_path_factory.mktemp("shared") / "history")
    import_folder(history, shared / "history")
    known = load_known_gaps(ROOT / "params" / "known_gaps.yaml")
    accept_known_gaps(history, known, at=1_767_225_600_000)
    return history
