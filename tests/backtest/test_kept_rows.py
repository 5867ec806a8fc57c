"""A sweep that was stopped goes on where it was, and ends with the frame of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from research import search
from research.account import Account, Limits
from research.candles import Candles, CandleSet, utc_ms
from research.errors import InputError
from research.rows import figures_of_rows
from research.search import sweep
from research.strategies.ema_crossover import EmaCrossover
from research.strategies.sma_crossover import SmaCrossover
from research.strategy import Strategy, Targets, param
from research.synthetic import synthetic_candles

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = Account(limits=Limits(max_position_pct=40, max_drawdown_pct=20))
GRID: dict[str, Any] = {"fast": range(2, 27), "slow": range(30, 50)}


def candles(bars: int = 600) -> CandleSet:
    return synthetic_candles(("BTCUSDT",), "1h", utc_ms("2024"), bars)


def swept(resume: Path | None = None, **changes: Any) -> pd.DataFrame:
    asked = {"candles": candles(), "account": ACCOUNT, **changes}
    found = sweep(SmaCrossover, asked["candles"], asked["account"], resume=resume, **GRID)
    return found.frame


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each chunk that is computed from now on."""
    chunks: list[int] = []

    def counting(strategies: Any, *others: Any) -> Any:
        chunks.append(len(strategies))
        return figures_of_rows(strategies, *others)

    monkeypatch.setattr(search, "figures_of_rows", counting)
    return chunks


def test_what_is_kept_is_not_computed_again_and_the_frame_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = swept()
    pd.testing.assert_frame_equal(swept(tmp_path / "sweep"), plain, check_exact=True)
    chunks = counted(monkeypatch)
    pd.testing.assert_frame_equal(swept(tmp_path / "sweep"), plain, check_exact=True)
    assert chunks == []
    lost = sorted((tmp_path / "sweep").glob("rows-*.npy"))[0]
    rows = len(np.load(lost))
    lost.unlink()
    pd.testing.assert_frame_equal(swept(tmp_path / "sweep"), plain, check_exact=True)
    assert sum(chunks) == rows


def test_a_file_with_one_bit_flipped_is_computed_again(tmp_path: Path) -> None:
    plain = swept(tmp_path)
    for path in sorted(tmp_path.glob("rows-*.npy")):
        raw = bytearray(path.read_bytes())
        raw[-5] ^= 1
        path.write_bytes(raw)
    pd.testing.assert_frame_equal(swept(tmp_path), plain, check_exact=True)


def test_an_interruption_loses_at_most_what_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = [0]

    def stopping(strategies: Any, *others: Any) -> Any:
        done[0] += 1
        if done[0] > 4:
            raise KeyboardInterrupt
        return figures_of_rows(strategies, *others)

    monkeypatch.setattr(search, "figures_of_rows", stopping)
    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path)
    monkeypatch.undo()
    kept = len(list(tmp_path.glob("rows-*.npy")))
    assert kept == 4
    chunks = counted(monkeypatch)
    pd.testing.assert_frame_equal(swept(tmp_path), swept(), check_exact=True)
    assert sum(chunks[:-8]) <= 500


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.backtest.test_kept_rows import *
search.LARGEST_CHUNK = 8
swept(Path(sys.argv[2]), candles=candles(20_000))
print("done", flush=True)
"""


def test_a_sweep_that_is_killed_again_and_again_ends_with_the_same_frame(tmp_path: Path) -> None:
    folder, ends = tmp_path / "sweep", []
    kept_before = 0
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(ROOT), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            kept = len(list(folder.glob("rows-*.npy"))) if folder.exists() else 0
            if kept >= kept_before + 22:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        out, _ = process.communicate(timeout=60)
        kept_before = len(list(folder.glob("rows-*.npy")))
        ends.append(process.returncode)
        if "done" in out:
            break
    assert ends[-1] == 0
    assert -signal.SIGKILL in ends, "otherwise nothing was killed"
    resumed = swept(folder, candles=candles(20_000))
    pd.testing.assert_frame_equal(resumed, swept(candles=candles(20_000)), check_exact=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"candles": candles(601)},
        {"account": ACCOUNT.model_copy(update={"fee_rate": 0.002})},
    ],
)
def test_another_sweep_is_refused_the_folder(tmp_path: Path, changes: dict[str, Any]) -> None:
    swept(tmp_path)
    with pytest.raises(InputError, match="another sweep"):
        swept(tmp_path, **changes)


def test_another_strategy_grid_or_folder_is_refused(tmp_path: Path) -> None:
    swept(tmp_path / "one")
    with pytest.raises(InputError, match="another sweep"):
        sweep(EmaCrossover, candles(), ACCOUNT, resume=tmp_path / "one", **GRID)
    with pytest.raises(InputError, match="another sweep"):
        sweep(SmaCrossover, candles(), ACCOUNT, resume=tmp_path / "one", fast=[2], slow=[30])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(InputError, match="an empty folder"):
        swept(tmp_path / "mine")
    (tmp_path / "one" / "sweep.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        swept(tmp_path / "one")


@dataclass(frozen=True)
class OfThisCell(Strategy):
    """A strategy without a file in the project. Confidence is 0."""

    version: ClassVar[int] = 1
    reasons: ClassVar[tuple[str, ...]] = ("not ready", "in")
    hold: int = param(1, low=1, high=9)

    @property
    def warmup(self) -> int:
        return 0

    def targets(self, candles: Candles) -> Targets:
        bars = len(candles)
        return Targets(np.ones(bars), np.zeros(bars), np.ones(bars, np.int64))


def test_a_strategy_without_a_file_cannot_be_resumed_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OfThisCell, "__module__", "__main__")
    with pytest.raises(InputError, match="research/strategies"):
        sweep(OfThisCell, candles(), ACCOUNT, resume=tmp_path / "cell", hold=[1, 2])
    assert len(sweep(OfThisCell, candles(), ACCOUNT, hold=[1, 2])) == 2


def test_the_record_says_what_the_columns_are(tmp_path: Path) -> None:
    frame = swept(tmp_path)
    record = json.loads((tmp_path / "sweep.json").read_text())
    assert record["columns"] == ["position", *frame.columns]
