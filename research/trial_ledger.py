"""The ledger of everything that was ever tried: an append-only SQLite file, a row a batch.

``backtest``, ``sweep`` and ``optimise`` write to it as they finish, from any notebook or script:
what nobody was shown, a search that was killed or failed, is not there. Rows are chained: the
digest of each covers its every field and the digest of the one before. Triggers refuse any change;
what another tool changes, drops or adds all the same is found by ``check``, but for an end that was
cut off together with SQLite's own count of rows: keep ``head`` elsewhere to tell that.

Write-ahead log with ``synchronous=NORMAL``: a killed process loses nothing; a power cut may lose
the last batches, never the file. Several processes may write at once, each waits for its turn.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from research.candles import timeframe_ms, utc_ms
from research.errors import CandlebookError, InputError, LedgerError
from research.settings import user_name
from research.sketch import DIGEST_BYTES
from research.trials import Batch, Recorded, Trials, trials_of
from research.workspace import trials_path

__all__ = ["Head", "TrialLedger", "UnrecordedTrial", "open_trials", "record_batch", "tried"]

SCHEMA_VERSION: Final = 1
APPLICATION: Final = 0x636E6474  # "cndt": whose file it is
NOTHING_BEFORE: Final = "0" * 64
TEXTS: Final = (
    *("who", "kind", "strategy", "module", "code", "symbols", "timeframe", "exchange", "source"),
    *("candles", "account", "parameters"),
)
NUMBERS: Final = ("at", "version", "first_close", "last_close", "step_days", "rows")
BLOBS: Final = ("sharpe", "trades", "buckets", "returns", "digests")
FIELDS: Final = (*NUMBERS, *TEXTS, *BLOBS)
SCHEMA: Final = (
    "CREATE TABLE batches (number INTEGER PRIMARY KEY AUTOINCREMENT, "
    + ", ".join(f"{name} INTEGER NOT NULL" for name in NUMBERS)
    + "".join(f", {name} TEXT NOT NULL" for name in TEXTS)
    + "".join(f", {name} BLOB NOT NULL" for name in BLOBS)
    + ", previous TEXT NOT NULL, digest TEXT NOT NULL)",
    "CREATE INDEX batches_of_market ON batches (timeframe, first_close, last_close)",
    *(
        f"CREATE TRIGGER batches_no_{what.lower()} BEFORE {what} ON batches BEGIN "
        "SELECT RAISE(ABORT, 'the trials are append-only'); END"
        for what in ("UPDATE", "DELETE")
    ),
    # INSERT OR REPLACE deletes without asking the trigger above.
    "CREATE TRIGGER batches_in_order BEFORE INSERT ON batches "
    "WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM batches) BEGIN "
    "SELECT RAISE(ABORT, 'the trials are append-only'); END",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
INSERT: Final = (
    f"INSERT INTO batches (number, {', '.join(FIELDS)}, previous, digest) "  # noqa: S608 - ours
    f"VALUES ({', '.join('?' * (len(FIELDS) + 3))})"
)
SELECT: Final = f"SELECT number, previous, digest, {', '.join(FIELDS)} FROM batches"  # noqa: S608

# Connections that a fork inherited: neither used nor closed there, since the file's locks are the
# parent's.
_INHERITED: list[sqlite3.Connection] = []


class UnrecordedTrial(UserWarning):
    """A run has its result, but could not be written to the ledger of trials."""


class Head(NamedTuple):
    """The last batch of a ledger; 0 and zeros for an empty one."""

    number: int
    digest: str


@dataclass(eq=False)
class TrialLedger:
    """The ledger in the file ``path``, which the first ``record`` makes. Threads may share one.

    ``patience_s`` is how long a write waits for others. Every method raises LedgerError, which
    names the file, for one that is damaged, no ledger of trials, of a later version, or out of
    reach; no such file is ever written to.
    """

    path: Path
    patience_s: float = 10.0
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _open: tuple[Any, sqlite3.Connection] | None = field(default=None, repr=False)

    def record(self, batch: Batch, *, at: int | None = None, who: str | None = None) -> int:
        """Append a batch, whole or not at all; returns its number.

        ``at`` (UTC milliseconds) and ``who`` default to now and to the user of this process.
        """
        moment = int(time.time() * 1000) if at is None else at
        values = _written(batch, moment, user_name() if who is None else who)
        with self._writing() as conn:
            number, digest = _head(conn)
            new = _chained(digest, number + 1, values)
            conn.execute(INSERT, (number + 1, *values, digest, new))
        return number + 1

    def batches(self, timeframe: str | None = None) -> Iterator[Recorded]:
        """Every batch, of one timeframe or of all, in the order in which they were recorded."""
        with self._reading() as conn:
            if conn is None:
                return
            found = conn.execute(
                f"{SELECT} WHERE timeframe = coalesce(?, timeframe) ORDER BY number", (timeframe,)
            )
            for number, _, _, *values in found:
                yield _read(number, values)

    def trials(
        self,
        strategy: str | None = None,
        symbols: Sequence[str] | None = None,
        timeframe: str | None = None,
        window: tuple[int, int] | None = None,
    ) -> Trials:
        """What was tried on any of these symbols, on this timeframe, over a window that overlaps
        (first and last close, UTC milliseconds), each trial once; None leaves nothing out.

        A verdict on one strategy counts those of all: leave ``strategy`` out. Raises what
        ``timeframe_ms`` raises for a timeframe that there is not.
        """
        if timeframe is not None:
            timeframe_ms(timeframe)  # which refuses one that there is not
        wanted = None if symbols is None else set(symbols)
        first, last = window or (0, 2**62)
        chosen = [
            one
            for one in self.batches(timeframe)
            if (strategy is None or one.batch.strategy == strategy)
            and (wanted is None or wanted & set(one.batch.symbols))
            and one.batch.first_close <= last
            and one.batch.last_close >= first
        ]
        return trials_of(chosen, window)

    def head(self) -> Head:
        """The last batch. Kept elsewhere, it shows later that nothing before it is missing."""
        with self._reading() as conn:
            return Head(0, NOTHING_BEFORE) if conn is None else _head(conn)

    def check(self, known: Head | None = None) -> Head:
        """Verify every byte of every batch and the chain; returns the head.

        ``known`` is a head from before, which has to be part of the chain. Raises LedgerError that
        names the first batch which is not what was recorded, or where one is missing.
        """
        with self._reading() as conn:
            head = Head(0, NOTHING_BEFORE)
            if conn is not None:
                head = self._walk(conn, known)
        if known is not None and known.number > head.number:
            raise self._broken(known.number, "it is missing, and all that came after it")
        return head

    def holds(self, head: Head) -> bool:
        """Whether ``head`` is part of the chain; whether that is whole is for ``check`` to say."""
        if head.number == 0:
            return True
        with self._reading() as conn:
            asked = "SELECT digest FROM batches WHERE number = ?"
            row = None if conn is None else conn.execute(asked, (head.number,)).fetchone()
        return row is not None and row[0] == head.digest

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self._lock:
            if self._open is not None and self._open[0][0] == os.getpid():
                self._open[1].close()
            self._open = None

    def _walk(self, conn: sqlite3.Connection, known: Head | None) -> Head:
        if conn.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise LedgerError("SQLite finds it damaged", field=str(self.path), remedy=_RESTORE)
        head = Head(0, NOTHING_BEFORE)
        for number, previous, digest, *values in conn.execute(f"{SELECT} ORDER BY number"):
            if number != head.number + 1:
                raise self._broken(head.number + 1, "it is missing")
            if previous != head.digest:
                raise self._broken(number, "it does not follow the one before it")
            if _chained(previous, number, values) != digest:
                raise self._broken(number, "it is not what was recorded")
            head = Head(number, digest)
            if known is not None and known.number == number and known.digest != digest:
                raise self._broken(number, "it is another than it was")
        counted = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'batches'").fetchone()
        if (counted or (0,))[0] != head.number:
            raise self._broken(head.number + 1, "it is missing, and all that came after it")
        return head

    def _broken(self, number: int, what: str) -> LedgerError:
        return LedgerError(what, field=f"{self.path}: batch {number}", remedy=_RESTORE)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._plain_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            conn = self._connection()
            conn.execute("BEGIN IMMEDIATE")
            try:
                self._require_ours(conn, make=True)
                yield conn
            except BaseException:
                conn.rollback()
                raise
            conn.commit()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """A consistent view; None where there is no file, which reading does not make."""
        with self._lock, self._plain_errors():
            if not self.path.exists():
                yield None
                return
            conn = self._connection()
            conn.execute("BEGIN")
            try:
                yield conn if self._require_ours(conn, make=False) else None
            finally:
                conn.rollback()

    def _connection(self) -> sqlite3.Connection:
        """This process's connection to the file that now has this name."""
        if self._open is not None:
            if self._open[0] == self._place():
                return self._open[1]
            if self._open[0][0] == os.getpid():
                self._open[1].close()
            else:
                _INHERITED.append(self._open[1])
            self._open = None
        conn = sqlite3.connect(
            self.path, timeout=self.patience_s, isolation_level=None, check_same_thread=False
        )
        try:
            self._require_ours(conn, make=False)
            _write_ahead(conn, self.patience_s)
            conn.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            conn.close()
            raise
        self._open = (self._place(), conn)
        return conn

    def _place(self) -> tuple[int, int, int] | None:
        """What a connection is good for: this process, and the file of this inode."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return os.getpid(), found.st_dev, found.st_ino

    def _require_ours(self, conn: sqlite3.Connection, make: bool) -> bool:
        """Whether the tables are there; ``make`` lays them out in a file that is empty."""
        (application,) = conn.execute("PRAGMA application_id").fetchone()
        (version,) = conn.execute("PRAGMA user_version").fetchone()
        if application == APPLICATION:
            if version == SCHEMA_VERSION:
                return True
            raise LedgerError(
                field=f"{self.path}: schema version",
                value=version,
                expected=str(SCHEMA_VERSION),
                remedy="It was written by another version of Candlebook: install that one.",
            )
        if application or conn.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise LedgerError(
                "a database, but not a ledger of trials",
                field=str(self.path),
                remedy="Set CANDLEBOOK_TRIALS to a file of its own.",
            )
        if make:
            for statement in SCHEMA:
                conn.execute(statement)
        return make

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """A failure of SQLite or the disk as a LedgerError that names the file."""
        try:
            yield
        except (sqlite3.Error, OSError) as err:
            self.close()
            damaged = getattr(err, "sqlite_errorcode", 0) & 0xFF in {
                sqlite3.SQLITE_NOTADB,
                sqlite3.SQLITE_CORRUPT,
            }
            raise LedgerError(
                f"{'it is damaged' if damaged else 'it cannot be used'} ({err})",
                field=str(self.path),
                remedy=_RESTORE if damaged else None,
            ) from err


_RESTORE: Final = "Keep it aside, and restore a copy or begin a new ledger by moving it away."


def open_trials() -> TrialLedger:
    """The ledger of the project: CANDLEBOOK_TRIALS, or ``trials.db`` in its data folder.

    Raises SettingsError outside a project, and for settings that are wrong.
    """
    return _ledger_at(trials_path())


@cache
def _ledger_at(path: Path) -> TrialLedger:
    ledger = TrialLedger(path)
    atexit.register(ledger.close)
    return ledger


def record_batch(make: Callable[[], Batch]) -> None:
    """Write the batch to the project's ledger; what hinders it is an UnrecordedTrial, a warning.

    The run that it is of has its result: a full disk is no reason to throw that away. But a trial
    that is not counted makes later verdicts too kind, so it is said aloud, each time at another
    place; ``warnings.simplefilter("error", UnrecordedTrial)`` makes it an error.
    """
    try:
        open_trials().record(make())
    except CandlebookError as err:
        warnings.warn(
            f"this run is not counted among the trials: {err}", UnrecordedTrial, stacklevel=3
        )


def tried(
    symbols: str | Sequence[str] | None = None,
    timeframe: str | None = None,
    start: str | int | None = None,
    end: str | int | None = None,
) -> Trials:
    """What was ever tried in this project on these symbols, timeframe and time; None: on any.

    ``start`` and ``end`` are UTC times; a trial counts if it traded on a bar that closed between.
    Raises InputError for what is none of these, what ``open_trials`` raises, and LedgerError for a
    ledger that cannot be read.
    """
    names = [symbols] if isinstance(symbols, str) else symbols
    if names is not None and not (
        isinstance(names, Sequence) and all(isinstance(one, str) for one in names)
    ):
        raise InputError(field="symbols", value=symbols, expected="a symbol or several, or None")
    first = 0 if start is None else utc_ms(start)
    last = 2**62 if end is None else utc_ms(end)
    if first > last:
        raise InputError(field="end", value=end, expected=f"a time after the start, {start}")
    return open_trials().trials(None, names, timeframe, (first, last))


def _write_ahead(conn: sqlite3.Connection, patience_s: float) -> None:
    # Of two processes that switch a new file at once SQLite refuses one, without any waiting.
    deadline = time.monotonic() + patience_s
    while True:
        try:
            conn.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as err:
            if err.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _head(conn: sqlite3.Connection) -> Head:
    found = conn.execute(
        "SELECT number, digest FROM batches ORDER BY number DESC LIMIT 1"
    ).fetchone()
    return Head(*(found or (0, NOTHING_BEFORE)))


def _chained(previous: str, number: int, values: Sequence[Any]) -> str:
    """SHA-256 over the digest before, the number and every field, each with its length."""
    sha = hashlib.sha256(f"{previous} {number}".encode())
    for value in values:
        raw = value if isinstance(value, bytes) else repr(value).encode()
        sha.update(f" {len(raw)} ".encode())
        sha.update(raw)
    return sha.hexdigest()


def _written(batch: Batch, at: int, who: str) -> tuple[Any, ...]:
    """The values of FIELDS; numbers little-endian, whatever the machine."""
    said = {
        **{name: getattr(batch, name) for name in (*NUMBERS, *TEXTS) if hasattr(batch, name)},
        "at": at,
        "who": who,
        "rows": len(batch),
        "symbols": json.dumps(batch.symbols),
        "parameters": json.dumps(batch.parameters),
        **{name: getattr(batch, name).astype(kind).tobytes() for name, kind in _KINDS.items()},
    }
    return tuple(said[name] for name in FIELDS)


_KINDS: Final = {
    **{"sharpe": "<f8", "trades": "<i8", "buckets": "<i8"},
    **{"returns": "<f4", "digests": "u1"},
}


def _read(number: int, values: Sequence[Any]) -> Recorded:
    said = dict(zip(FIELDS, values, strict=True))
    at, who, rows = said.pop("at"), said.pop("who"), said.pop("rows")
    arrays: dict[str, Any] = {
        name: np.frombuffer(said.pop(name), kind) for name, kind in _KINDS.items()
    }
    said["symbols"] = tuple(json.loads(said["symbols"]))
    said["parameters"] = json.loads(said["parameters"])
    arrays["returns"] = arrays["returns"].reshape(rows, len(arrays["buckets"]))
    arrays["digests"] = arrays["digests"].reshape(rows, DIGEST_BYTES)
    return Recorded(number, at, who, Batch(**said, **arrays))
