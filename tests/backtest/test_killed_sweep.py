"""A sweep of 10,000 rows, killed at random points again and again, ends with the same frame.

SIGKILL to real processes. After each kill every kept row is the uninterrupted sweep's, and no more
was lost than the chunks under way; the chunks that each process began say so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest

from research import kept_rows
from research.kept_rows import KeptRows
from research.search import LARGEST_CHUNK
from tests.backtest.killed_sweep import BREAKS, FEW, WORKERS, swept

ROOT = Path(__file__).resolve().parents[2]
ROWS = 10_000
UNDER_WAY = WORKERS * LARGEST_CHUNK

Values = tuple[float, ...]


@dataclass
class Sweeper:
    """The process of killed_sweep.py at one sweep: its folder of kept rows and its journal."""

    process: subprocess.Popen[str]
    folder: Path
    journal: Path

    def start(self, word: str = "nothing", leash: int = 0) -> None:
        self._say(f"start\t{word}\t{self.folder}\t{self.journal}\t{leash}")

    def kill(self) -> int:
        return self._ended("kill")

    def wait(self) -> int:
        return self._ended("wait")

    def begun(self) -> list[str]:
        """The size of every chunk begun so far, by whichever process, and an ``end`` for each
        process that was done."""
        return self.journal.read_text().split() if self.journal.exists() else []

    def rows_begun(self) -> int:
        return sum(int(one) for one in self.begun() if one != "end")

    def kept(self) -> dict[int, Values]:
        """The rows in the folder, by their position."""
        rows = KeptRows(self.folder).read()
        return {i: (*row.figures, float(row.halted)) for i, row in rows.items()}

    def _ended(self, command: str) -> int:
        self._say(command)
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()


@pytest.fixture(scope="module")
def process() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.backtest.killed_sweep"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, env=environment
    ) as started:
        yield started
        started.kill()


@pytest.fixture
def sweeper(process: subprocess.Popen[str], tmp_path: Path) -> Sweeper:
    return Sweeper(process, tmp_path / "rows", tmp_path / "journal")


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    """The frame of the sweep that nobody interrupted."""
    return swept()


@dataclass
class Story:
    """What became of a sweep that was killed: how often, how far it was, what was wrong."""

    kept_at_kill: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    ended: bool = False


def killed_until_done(one: Sweeper, whole: pd.DataFrame, seed: int, word: str, most: int) -> Story:
    """Start the sweep and kill it, up to ``most`` times, or until it was done before that."""
    rng = Random(seed)  # noqa: S311 - repeatable on purpose
    story, truth, before = Story(), whole.to_numpy(np.float64), 0
    for _ in range(most):
        begun = one.rows_begun()
        chunks = rng.randrange(16)
        one.start(word, leash=chunks + 2)
        _let_run(one, chunks, seconds=rng.random() * 0.03)
        code = one.kill()
        kept = one.kept()
        if code == 0:
            story.ended = True
        elif code == -signal.SIGKILL:
            story.kept_at_kill.append(len(kept))
        else:
            story.wrong.append(f"ended with {code}")
        story.wrong += _not_of(truth, kept)
        lost = one.rows_begun() - begun - (len(kept) - before)
        if lost > (0 if story.ended else UNDER_WAY):
            story.wrong.append(f"{lost} rows lost")
        before = len(kept)
        if story.ended or story.wrong:
            break
    return story


def _let_run(one: Sweeper, chunks: int, seconds: float) -> None:
    """Until that many chunks have begun, or it is done, and then a little longer."""
    first, until = len(one.begun()), time.monotonic() + 60
    while len(one.begun()) < first + chunks and time.monotonic() < until:
        if one.begun()[-1:] == ["end"]:
            break
        time.sleep(0.001)
    time.sleep(seconds)


def _not_of(truth: np.ndarray[tuple[int, int], np.dtype], kept: dict[int, Values]) -> list[str]:
    """The kept rows that are not the uninterrupted sweep's."""
    theirs = truth[list(kept)]
    mine = np.array(list(kept.values()), np.float64).reshape(theirs.shape)
    same = ((mine == theirs) | (np.isnan(mine) & np.isnan(theirs))).all(axis=1)
    return [f"row {i}" for i, is_same in zip(kept, same, strict=True) if not is_same]


def test_ten_thousand_rows_killed_at_random_end_with_the_same_frame(
    sweeper: Sweeper, whole: pd.DataFrame
) -> None:
    assert len(whole) == ROWS
    story = killed_until_done(sweeper, whole, seed=20_261_125, word="nothing", most=20)
    assert story.wrong == []
    if not story.ended:
        sweeper.start()
        assert sweeper.wait() == 0
    kills = len(story.kept_at_kill)
    assert kills >= 8
    assert len(set(story.kept_at_kill)) >= 6, "at different points"
    assert story.kept_at_kill == sorted(story.kept_at_kill), "nothing that was kept is lost"
    assert sweeper.rows_begun() - ROWS <= kills * UNDER_WAY
    done = sweeper.rows_begun()
    sweeper.start()
    assert sweeper.wait() == 0
    assert sweeper.rows_begun() == done, "of a sweep that is done nothing is computed again"
    pd.testing.assert_frame_equal(swept(sweeper.folder), whole, check_exact=True)


@pytest.mark.parametrize("word", BREAKS)
def test_what_is_wrong_in_what_is_kept_is_noticed(
    sweeper: Sweeper, whole: pd.DataFrame, word: str
) -> None:
    assert killed_until_done(sweeper, whole, seed=1, word=word, most=12).wrong != []


def test_killed_before_any_file_operation_it_goes_on_from_there(
    process: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_rows, "code_hashes", cache(kept_rows.code_hashes))
    few, operation, code = swept(**FEW), 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        operation += 1
        one = Sweeper(process, tmp_path / f"rows-{operation}", tmp_path / "journal")
        one.start(f"dies at {operation}")
        code = one.wait()
        pd.testing.assert_frame_equal(swept(one.folder, **FEW), few, check_exact=True)
    assert code == 0
    assert operation > 18, "the record and two chunks, seven operations each"
