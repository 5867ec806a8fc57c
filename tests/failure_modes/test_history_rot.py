"""Rot, crashes and crowds: the store reads what was written, or says that it cannot.

The oracle is always the same: a read gives exactly the rows that one committed append left, bit
for bit, or a typed error. Never other rows, never fewer in silence.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from research import history_files, history_manifest
from research.candles import Candles, utc_ms
from research.errors import Busy, CandlebookError, CorruptHistory, HistoryMissing
from research.history import History
from research.history_manifest import Manifest

DAY = 86_400_000
JANUARY = utc_ms("2024-01-01")
ROOT = Path(__file__).resolve().parents[2]


def days(first: int, count: int) -> Candles:
    """Sound daily candles from day ``first`` of 2024; a candle's values depend on its day."""
    day = np.arange(first, first + count)
    low = 100 + day % 97 / 7
    return Candles("BTCUSDT", "1d", JANUARY + day * DAY, low, low + 3, low, low + 1, day % 9 / 4)


def read(history: History) -> Candles:
    return history.read("binance", "BTCUSDT", "1d")


def folder_of(history: History) -> Path:
    return history.root / "binance" / "BTCUSDT" / "1d"


def manifest_of(history: History) -> Manifest:
    return history.manifest("binance", "BTCUSDT", "1d")


def temporaries(history: History) -> list[str]:
    return sorted(path.name for path in folder_of(history).glob(".*.tmp"))


@pytest.fixture
def history(tmp_path: Path) -> History:
    """A store of 100 days in four months."""
    history = History(tmp_path / "history")
    history.append("binance", days(0, 100), "test")
    return history


# Rot


def require_noticed(history: History, path: Path, damaged: bytes) -> None:
    """The store names ``path`` and reads nothing once it was damaged; restores it afterwards."""
    sound = path.read_bytes()
    assert damaged != sound
    path.write_bytes(damaged)
    with pytest.raises(CorruptHistory, match="candlebook history fetch BTCUSDT") as caught:
        read(history)
    assert path.name in str(caught.value)
    assert [problem.file for problem in history.verify()] == [path.name]
    path.write_bytes(sound)


def flipped(raw: bytes, bit: int) -> bytes:
    damaged = bytearray(raw)
    damaged[int(bit) // 8] ^= 1 << int(bit) % 8
    return bytes(damaged)


def test_no_flipped_bit_and_no_truncation_is_read_silently(history: History) -> None:
    rng = np.random.default_rng(20240324)
    files = [*sorted(folder_of(history).glob("*.parquet")), folder_of(history) / "manifest.json"]
    for _ in range(1_000):
        path = files[rng.integers(len(files))]
        raw = path.read_bytes()
        require_noticed(history, path, flipped(raw, int(rng.integers(8 * len(raw)))))
    for _ in range(300):
        path = files[rng.integers(len(files))]
        raw = path.read_bytes()
        require_noticed(history, path, raw[: rng.integers(len(raw))])
    assert read(history).digest() == days(0, 100).digest()


def test_without_the_hash_the_page_checksums_still_catch_what_lies_in_a_page(
    history: History,
) -> None:
    # The second line of defence alone: the bytes go to the reader unhashed.
    path = folder_of(history) / "2024-01.parquet"
    raw = path.read_bytes()
    series = history.series()[0]
    wrong = 0
    for bit in np.random.default_rng(7).choice(8 * len(raw), 300, replace=False):
        try:
            candles = history_files._decode_month(flipped(raw, bit), series, path.name)
            wrong += candles.digest() != days(0, 31).digest()
        except CandlebookError:
            continue
    # What is left is the footer and the page headers, which no page checksum covers.
    assert wrong <= 3


def test_without_any_check_flipped_bits_are_read_as_prices(tmp_path: Path) -> None:
    # The negative control: a plain Parquet file reads on with wrong numbers.
    sound = days(0, 31)
    columns = [pa.array(getattr(sound, name)) for name in ("open", "high", "low", "close")]
    path = tmp_path / "plain.parquet"
    pq.write_table(pa.table(columns, names=list("ohlc")), path, compression="none")
    raw, expected = path.read_bytes(), pq.read_table(path)
    wrong = 0
    for bit in np.random.default_rng(7).integers(8 * 100, 8 * 1000, 50):
        path.write_bytes(flipped(raw, bit))
        try:
            wrong += not pq.read_table(path).equals(expected)
        except (OSError, pa.ArrowException):
            continue
    assert wrong > 10


def test_without_any_check_a_truncated_file_is_read_as_fewer_rows(tmp_path: Path) -> None:
    # The negative control of truncation: a plain text file ends wherever it ends.
    path = tmp_path / "plain.csv"
    days(0, 31).frame().to_csv(path)
    raw, fewer = path.read_bytes(), 0
    for length in np.random.default_rng(7).integers(100, len(raw) - 100, 50):
        path.write_bytes(raw[:length])
        fewer += 0 < len(pd.read_csv(path)) < 31
    assert fewer > 40


def test_a_manifest_without_its_own_hash_would_lie(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The negative control of the flips in manifests: other ranges, names and counts are believed.
    true = manifest_of(history)
    path = folder_of(history) / "manifest.json"
    raw, lies = path.read_bytes(), 0
    monkeypatch.setattr(history_manifest, "_content_hash", lambda _: ANY)
    for bit in np.random.default_rng(7).integers(8 * len(raw), size=200):
        path.write_bytes(flipped(raw, int(bit)))
        with suppress(CandlebookError):
            lies += manifest_of(history) != true
    assert lies > 20


def remove(path: Path) -> None:
    path.unlink()


def swap_with_next(path: Path) -> None:
    other = path.with_name("2024-03.parquet")
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def add_a_month(path: Path) -> None:
    shutil.copy(path, path.with_name("2024-05.parquet"))


def add_a_copy(path: Path) -> None:
    shutil.copy(path, path.with_name("2024-02 (copy).parquet"))


def make_unreadable(path: Path) -> None:
    path.unlink()
    path.mkdir()


def remove_manifest(path: Path) -> None:
    path.with_name("manifest.json").unlink()


def rewrite_sound(path: Path) -> None:
    table = pq.read_table(path)
    close = table["close"].to_numpy() + 0.5
    position = table.schema.get_field_index("close")
    changed = table.set_column(position, "close", pa.array(close))
    pq.write_table(changed, path, write_page_checksum=True)


@pytest.mark.parametrize(
    "harm",
    [
        remove,
        swap_with_next,
        add_a_month,
        add_a_copy,
        make_unreadable,
        remove_manifest,
        rewrite_sound,
    ],
)
def test_a_file_that_is_not_the_one_written_is_named_and_nothing_is_read_or_written(
    history: History, harm: Callable[[Path], None]
) -> None:
    harm(folder_of(history) / "2024-02.parquet")
    with pytest.raises(CorruptHistory, match="2024-0"):
        read(history)
    assert history.verify() != []
    before = {path.name: path.stat().st_mtime_ns for path in folder_of(history).iterdir()}
    with pytest.raises(CorruptHistory, match="2024-0"):
        history.append("binance", days(35, 80), "test")
    after = {path.name: path.stat().st_mtime_ns for path in folder_of(history).iterdir()}
    after.pop(".lock", None)
    before.pop(".lock", None)
    assert after == before


def test_a_month_gone_is_an_error_even_where_it_is_not_asked_for(history: History) -> None:
    (folder_of(history) / "2024-02.parquet").unlink()
    with pytest.raises(CorruptHistory, match=r"2024-02\.parquet: the file is gone"):
        history.read("binance", "BTCUSDT", "1d", JANUARY, JANUARY + DAY)


def test_a_series_moved_under_another_name_is_refused(history: History) -> None:
    folder_of(history).parent.rename(history.root / "binance" / "ETHUSDT")
    with pytest.raises(CorruptHistory, match="ETHUSDT"):
        history.read("binance", "ETHUSDT", "1d")


# Crashes


class Crash(BaseException):
    """The power goes: nothing in the code under test may catch it."""


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the ``step``-th touch of the disk never happen (0 is the first)."""
    left = iter(range(step))

    def dying(touch: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            if next(left, None) is None:
                raise Crash
            return touch(*args)

        return call

    def write_half(path: Path, raw: bytes) -> None:
        if next(left, None) is None:
            path.write_bytes(raw[: len(raw) // 2])
            raise Crash
        path.write_bytes(raw)

    monkeypatch.setattr(history_files, "_write_synced", write_half)
    monkeypatch.setattr(history_files, "sync_folder", dying(history_files.sync_folder))
    monkeypatch.setattr(Path, "replace", dying(Path.replace))
    monkeypatch.setattr(Path, "unlink", dying(Path.unlink))


def test_a_crash_at_any_step_leaves_the_old_rows_or_the_new_and_the_next_write_mends(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = days(0, 100), days(0, 150)
    outcomes = []
    sound = folder_of(history).parent.with_name("sound")
    shutil.copytree(folder_of(history), sound)
    for step in range(100):
        shutil.rmtree(folder_of(history))
        shutil.copytree(sound, folder_of(history))
        with monkeypatch.context() as dying:
            crash_at(dying, step)
            try:
                history.append("binance", days(90, 60), "test")
            except Crash:
                crashed = True
            else:
                crashed = False
        if not crashed:
            break
        found = read(history).digest()
        assert found in (old.digest(), new.digest())
        assert history.verify() == []
        outcomes.append("new" if found == new.digest() else "old")
        # One day more than the write that died: its last month would be another file, so nothing
        # but a sweep removes the one that it left.
        report = history.append("binance", days(0, 151), "test")
        assert report.rows_added == (1 if outcomes[-1] == "new" else 51)
        assert read(history).digest() == days(0, 151).digest()
        assert temporaries(history) == []
        assert history.verify() == []
    assert read(history).digest() == new.digest()
    # Three months change. One commit: all old before it, all new after it, and both were seen.
    assert outcomes == sorted(outcomes, reverse=True)
    assert outcomes.count("old") >= 5
    assert outcomes.count("new") >= 4


def test_a_crash_in_the_very_first_write_leaves_nothing_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(tmp_path / "new")
    folder_of(history).mkdir(parents=True)
    with monkeypatch.context() as dying:
        crash_at(dying, 2)
        with pytest.raises(Crash):
            history.append("binance", days(0, 100), "test")
    assert temporaries(history) != []
    with pytest.raises(HistoryMissing):
        read(history)
    assert history.series() == []
    history.append("binance", days(0, 50), "test")
    assert read(history).digest() == days(0, 50).digest()
    assert temporaries(history) == []


# Processes

FORKER = """
import json, os, signal, sys
sys.path[:0] = sys.argv[1:3]
from test_history_rot import days
from research import history_files
from research.history import History
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are gone at once
for line in sys.stdin:
    root, said, first, step, careless = json.loads(line)
    if pid := os.fork():
        print(pid, flush=True)
        continue
    if careless:  # writes over the month that is in place, before the manifest names it
        history_files._hidden_name = lambda entry: f"{entry.month}.parquet"
    with open(said, "w", buffering=1) as file:
        for day in range(first, 5000, step):
            History(root).append("binance", days(day, 1), f"writer {first}")
            print(day, file=file)
    os._exit(0)
"""


@dataclass
class Writer:
    """A process that appends day after day until it is killed, and notes each day it stored."""

    pid: int
    said: Path
    killed: bool = False

    def kill(self) -> list[int]:
        """SIGKILL; the days that it had been told were stored."""
        self.killed = True
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.001)
        lines = self.said.read_text().split("\n") if self.said.exists() else [""]
        return [int(line) for line in lines[:-1]]


StartWriter = Callable[..., Writer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartWriter]:
    """Starts a writer at a first day and in steps of days; one process imports for all of them."""
    here = (str(ROOT), str(Path(__file__).parent))
    forker = subprocess.Popen(
        [sys.executable, "-c", FORKER, *here],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert forker.stdin is not None
    assert forker.stdout is not None
    alive: list[Writer] = []

    def begin(history: History, first: int, step: int, careless: bool = False) -> Writer:
        said = tmp_path / f"said {len(alive)}"
        asked = [str(history.root), str(said), first, step, careless]
        forker.stdin.write(json.dumps(asked) + "\n")
        forker.stdin.flush()
        alive.append(Writer(int(forker.stdout.readline()), said))
        return alive[-1]

    yield begin
    for writer in alive:
        if not writer.killed:  # a number that was freed may be somebody else's by now
            writer.kill()
    forker.communicate(timeout=20)


def test_two_hundred_kills_leave_a_readable_store_that_lost_nothing_it_had_stored(
    tmp_path: Path, start: StartWriter
) -> None:
    history = History(tmp_path / "history")
    history.append("binance", days(0, 1), "test")
    rng, kept = np.random.default_rng(5), 1
    swept = stale = 0
    for _ in range(200):
        writer = start(history, kept, 1)
        time.sleep(0.02 + rng.random() * 0.08)
        said = writer.kill()
        candles = read(history)
        assert candles.digest() == days(0, len(candles)).digest()
        assert len(candles) >= max([kept, *(day + 1 for day in said)])
        kept = len(candles)
        if left := temporaries(history):
            # Two days at once are another file than the one day that was being written: what was
            # left is not written over by chance, but swept.
            named = {history_files._hidden_name(one) for one in manifest_of(history).months}
            stale += bool(set(left) - named - {".manifest.json.tmp"})
            swept += 1
            history.append("binance", days(kept, 2), "test")
            assert temporaries(history) == []
            kept += 2
    assert kept > 200
    assert swept > 10, "otherwise nobody was killed while writing"
    assert stale > 5, "otherwise every leftover could have been put in place"
    assert read(history).digest() == days(0, kept).digest()
    assert history.verify() == []


def test_a_writer_that_writes_in_place_is_caught_by_the_same_kills(
    tmp_path: Path, start: StartWriter
) -> None:
    # The negative control: without the hidden files and the one rename, a kill ruins the store.
    history = History(tmp_path / "history")
    history.append("binance", days(0, 1), "test")
    rng = np.random.default_rng(5)

    def kill_until_unreadable() -> None:
        for _ in range(200):
            writer = start(history, len(read(history)), 1, careless=True)
            time.sleep(0.02 + rng.random() * 0.08)
            writer.kill()

    with pytest.raises(CorruptHistory, match=r"SHA-256|the manifest does not name this file"):
        kill_until_unreadable()


def test_two_writers_at_once_lose_nothing_and_a_reader_sees_only_whole_states(
    tmp_path: Path, start: StartWriter
) -> None:
    history = History(tmp_path / "history")
    history.append("binance", days(0, 1), "test")
    even, odd = start(history, 2, 2), start(history, 1, 2)
    until, before, reads, sources = time.monotonic() + 60, 1, 0, {"test"}
    while time.monotonic() < until and not (reads >= 50 and before >= 50 and len(sources) == 3):
        candles = read(history)
        stored = (candles.ts - JANUARY) // DAY
        whole = days(0, int(stored[-1]) + 1)
        assert candles.close.tobytes() == whole.close[stored].tobytes()
        assert len(candles) >= before
        before, reads = len(candles), reads + 1
        sources = set(manifest_of(history).sources)
    said = {0, *even.kill(), *odd.kill()}
    stored = (read(history).ts - JANUARY) // DAY
    assert said <= set(stored.tolist())
    assert min(len(said), reads) >= 48  # each writer may be killed before it noted its last day
    assert sources == {"test", "writer 1", "writer 2"}
    assert history.verify() == []


def test_a_writer_that_waits_too_long_is_told_who_is_busy(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_files, "LOCK_SECONDS", 0.05)
    with FileLock(folder_of(history) / ".lock"), pytest.raises(Busy, match="BTCUSDT/1d"):
        history.append("binance", days(100, 1), "test")
    assert len(read(history)) == 100  # a reader needs no lock
    assert history.append("binance", days(100, 1), "test").rows_added == 1
