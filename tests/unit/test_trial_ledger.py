"""The ledger of trials: it keeps what was recorded, refuses changes, finds those made anyway."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.errors import LedgerError
from research.settings import user_name
from research.trial_ledger import BLOBS, FIELDS, NUMBERS, Head, TrialLedger
from research.trials import Batch
from tests.unit.test_trials import batch, walk

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ledger(tmp_path: Path) -> TrialLedger:
    """A ledger of three batches."""
    made = TrialLedger(tmp_path / "data" / "trials.db")
    for i in range(3):
        made.record(batch(walk(i, 4), kind="sweep"), at=1_000 + i, who="ann")
    return made


def edit(ledger: TrialLedger, *statements: str) -> None:
    """What somebody does to the file with another tool, who has first dropped the triggers."""
    ledger.close()
    with closing(sqlite3.connect(ledger.path)) as conn:
        names = conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in names:
            conn.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            conn.execute(statement)
        conn.commit()


def same(one: Batch, other: Batch) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name == "sharpe")
        if isinstance(getattr(one, name), np.ndarray)
        else getattr(one, name) == getattr(other, name)
        for name in one.__dataclass_fields__
    )


def test_what_is_read_is_what_was_recorded(tmp_path: Path) -> None:
    ledger = TrialLedger(tmp_path / "trials.db")
    sharpe = np.array([np.nan, -0.0, 1e300])
    parameters: Any = {"window": [1, 2, 3], "level": [0.1, 1e-9, 2.0]}
    made = batch(walk(1, 3), sharpe=sharpe, parameters=parameters, symbols=("AUSDT", "BUSDT"))
    assert ledger.record(made, at=77, who="ann") == 1
    assert ledger.record(made) == 2
    first, second = ledger.batches()
    assert (first.number, first.at, first.who) == (1, 77, "ann")
    assert second.who == user_name()
    assert second.at > 1_700_000_000_000
    assert same(first.batch, made)
    assert [type(one) for one in first.batch.parameters["window"]] == [int, int, int]
    ledger.close()
    assert same(next(TrialLedger(ledger.path).batches()).batch, made)


def test_it_finds_what_was_tried_on_an_overlapping_market(tmp_path: Path) -> None:
    ledger = TrialLedger(tmp_path / "trials.db")
    ledger.record(batch(walk(1, 5), symbols=("BTCUSDT", "ETHUSDT")))
    ledger.record(batch(walk(2, 3), strategy="Ema", first_period=500))
    ledger.record(batch(walk(3, 2), timeframe="1d"))
    day = 86_400_000
    assert ledger.trials().raw == 10
    assert ledger.trials(symbols=["ETHUSDT"]).raw == 5
    assert ledger.trials(symbols=["SOLUSDT"]).raw == 0
    assert ledger.trials(symbols=["BTCUSDT"], timeframe="1h").raw == 8, "of every strategy"
    assert ledger.trials("Ema", ["BTCUSDT"], "1h").raw == 3
    assert ledger.trials(window=(119 * day, 499 * day)).raw == 7
    assert ledger.trials(window=(120 * day, 499 * day)).raw == 0
    assert ledger.trials(window=(120 * day, 500 * day)).raw == 3


def test_no_statement_changes_or_removes_what_is_there(ledger: TrialLedger) -> None:
    head = ledger.head()
    ledger.close()
    with closing(sqlite3.connect(ledger.path)) as conn:
        columns = ", ".join(("number", *FIELDS, "previous", "digest"))
        copied = f"SELECT {columns} FROM batches WHERE number = 2"  # noqa: S608
        for statement in (
            "UPDATE batches SET who = 'bob'",
            "UPDATE batches SET number = 9 WHERE number = 3",
            "DELETE FROM batches WHERE number = 3",
            "DELETE FROM batches",
            f"INSERT OR REPLACE INTO batches ({columns}) {copied}",
            f"INSERT INTO batches ({columns}) {copied.replace('number,', '7,', 1)}",
        ):
            with pytest.raises(sqlite3.IntegrityError, match=r"append-only"):
                conn.execute(statement)
    assert ledger.check(head) == head


@pytest.mark.parametrize("name", [*FIELDS, "digest", "previous"])
def test_a_change_of_any_field_is_found(ledger: TrialLedger, name: str) -> None:
    if name in NUMBERS:
        change = f"{name} + 1"
    elif name in BLOBS:
        change = f"zeroblob(length({name}))"
    else:
        change = f"'x' || substr({name}, 2)"
    edit(ledger, f"UPDATE batches SET {name} = {change} WHERE number = 2")  # noqa: S608
    with pytest.raises(LedgerError, match=r"trials\.db: batch [23]: it (is not|does not)"):
        ledger.check()


@pytest.mark.parametrize(
    ("statements", "number"),
    [
        (("DELETE FROM batches WHERE number = 1",), 1),
        (("DELETE FROM batches WHERE number = 2",), 2),
        (("DELETE FROM batches WHERE number = 3",), 3),
        (
            (
                "DELETE FROM batches WHERE number = 2",
                "UPDATE batches SET number = 2 WHERE number = 3",
                "UPDATE sqlite_sequence SET seq = 2",
            ),
            2,
        ),
    ],
)
def test_a_batch_that_is_missing_is_found(
    ledger: TrialLedger, statements: tuple[str, ...], number: int
) -> None:
    edit(ledger, *statements)
    with pytest.raises(LedgerError, match=rf"batch {number}: it (is missing|does not follow)"):
        ledger.check()


def test_a_cut_end_with_its_count_is_found_by_a_head_from_before(ledger: TrialLedger) -> None:
    head = ledger.head()
    edit(
        ledger,
        "DELETE FROM batches WHERE number = 3",
        "UPDATE sqlite_sequence SET seq = 2",
    )
    assert ledger.check().number == 2, "which the chain alone cannot tell"
    with pytest.raises(LedgerError, match=r"batch 3: it is missing"):
        ledger.check(head)
    ledger.path.unlink()
    with pytest.raises(LedgerError, match=r"batch 3: it is missing"):
        ledger.check(head)


def test_a_ledger_made_anew_is_another_than_the_one_whose_head_is_known(tmp_path: Path) -> None:
    heads = []
    for folder, seed in (("one", 1), ("two", 2)):
        made = TrialLedger(tmp_path / folder / "trials.db")
        made.record(batch(walk(seed, 2)), at=5)
        heads.append(made.head())
    assert made.check(heads[1]) == heads[1]
    with pytest.raises(LedgerError, match=r"batch 1: it is another than it was"):
        made.check(heads[0])


def test_reading_makes_no_file(tmp_path: Path) -> None:
    ledger = TrialLedger(tmp_path / "none" / "trials.db")
    assert ledger.trials().raw == 0
    assert ledger.check() == ledger.head() == Head(0, "0" * 64)
    assert list(tmp_path.iterdir()) == []


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, and long enough to be looked at" * 50)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9_000])


def _another_database(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE orders (id INTEGER)")
        conn.commit()


def _later_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA user_version = 9")
        conn.commit()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_garbage, "it is damaged"),
        (_cut, "it is damaged"),
        (_another_database, "not a ledger of trials"),
        (_later_version, "schema version: expected 1, got 9"),
    ],
)
def test_a_file_that_is_no_sound_ledger_is_named_and_left_as_it_is(
    ledger: TrialLedger, harm: Callable[[Path], None], words: str
) -> None:
    ledger.close()
    harm(ledger.path)
    before = ledger.path.read_bytes()
    for use in (lambda: ledger.record(batch(walk(9, 2))), ledger.trials, ledger.check):
        with pytest.raises(LedgerError, match=rf"trials\.db.*{words}"):
            use()
        assert ledger.path.read_bytes() == before


def test_a_flipped_bit_in_the_file_is_found(ledger: TrialLedger) -> None:
    ledger.close()
    raw = bytearray(ledger.path.read_bytes())
    place = raw.index(walk(1, 4).tobytes()[:64])
    raw[place + 5] ^= 1
    ledger.path.write_bytes(raw)
    with pytest.raises(LedgerError, match=r"batch 2: it is not what was recorded"):
        ledger.check()


def test_a_locked_ledger_is_waited_for_and_then_given_up(ledger: TrialLedger) -> None:
    hasty = TrialLedger(ledger.path, patience_s=0.05)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match=r"trials\.db: .*\(database is locked"):
            hasty.record(batch(walk(9, 2)))
        other.execute("ROLLBACK")
    assert hasty.record(batch(walk(9, 2))) == 4


def test_a_file_that_was_replaced_is_opened_anew(ledger: TrialLedger) -> None:
    shutil.rmtree(ledger.path.parent)
    assert ledger.trials().raw == 0
    assert ledger.record(batch(walk(9, 2))) == 1
    assert TrialLedger(ledger.path).trials().raw == 2


def test_a_fork_uses_no_connection_of_its_parent(ledger: TrialLedger) -> None:
    child = os.fork()
    if child == 0:
        try:
            os._exit(ledger.record(batch(walk(9, 2))))
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    assert ledger.record(batch(walk(9, 2))) == 5
    assert ledger.check().number == 5


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from research.trial_ledger import TrialLedger
from tests.unit.test_trials import batch, walk
ledger = TrialLedger(Path(sys.argv[2]), patience_s=60)
print("ready", flush=True)
sys.stdin.readline()
for i in range(25):
    ledger.record(batch(walk(i, 3)), who=sys.argv[3])
"""


def test_processes_that_write_at_once_lose_nothing_and_keep_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trials.db"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(ROOT), str(path), f"writer {i}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(3)
    ]
    for one in writers:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in writers:
        one.communicate("go\n", timeout=120)
    assert [one.returncode for one in writers] == [0, 0, 0]
    ledger = TrialLedger(path)
    assert ledger.check().number == 75
    who = [one.who for one in ledger.batches()]
    assert {name: who.count(name) for name in set(who)} == {f"writer {i}": 25 for i in range(3)}


KILLED = WRITER.replace("range(25)", "range(10**6)").replace(
    "who=sys.argv[3])", "who=sys.argv[3]); print(i + 1, flush=True)"
)


def test_a_killed_process_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "trials.db"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(ROOT), str(path), "me"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.strip() == "40":
            process.kill()
            break
    rest = [line.strip() for line in process.stdout if line.endswith("\n")]
    process.wait()
    said = int(rest[-1]) if rest else 40
    assert TrialLedger(path).check().number in (said, said + 1)
