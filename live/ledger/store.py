"""The ledger's database: opened safely, brought up to date, one writer at a time.

SQLite by default (write-ahead log, ``synchronous=FULL``, foreign keys on); PostgreSQL by URL. A
writing transaction takes the write lock at its first word (``BEGIN IMMEDIATE``; an advisory lock
on PostgreSQL), so that what it reads cannot change before it commits.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from research.errors import LedgerError, SettingsError

__all__ = ["HEAD", "Ledger", "open_ledger"]

HEAD = "0002"
MIGRATIONS = Path(__file__).parent / "migrations"
# The key of PostgreSQL's advisory lock: "cndl" as a number, the same for every writer.
POSTGRES_LOCK = 0x636E646C
BUSY_TIMEOUT_S = 30


@dataclass(frozen=True)
class Ledger:
    """An open ledger. Use ``reading()`` and ``writing()`` for a transaction of either kind."""

    engine: Engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view; writes inside it are undone."""
        options: dict[str, Any] = {}
        if self.engine.dialect.name == "postgresql":
            # There each statement would see what has been committed meanwhile.
            options["isolation_level"] = "REPEATABLE READ"
        with (
            _plain_errors(self.engine),
            self.engine.connect().execution_options(**options) as conn,
            conn.begin() as work,
        ):
            yield conn
            work.rollback()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One writing transaction: committed at the end, undone if anything raises."""
        with (
            _plain_errors(self.engine),
            self.engine.connect().execution_options(candlebook_writes=True) as conn,
            conn.begin(),
        ):
            if conn.dialect.name == "postgresql":
                conn.execute(sa.text(f"SET LOCAL lock_timeout = '{BUSY_TIMEOUT_S}s'"))
                conn.execute(sa.select(sa.func.pg_advisory_xact_lock(POSTGRES_LOCK)))
            yield conn

    def close(self) -> None:
        self.engine.dispose()


@contextmanager
def _plain_errors(engine: Engine) -> Iterator[None]:
    """A driver's failure as a LedgerError that says which database and what to do."""
    try:
        yield
    except SQLAlchemyError as err:
        cause = err.orig if isinstance(err, DBAPIError) else err
        raise LedgerError(
            f"the database failed: {cause}",
            field=f"ledger {engine.url.render_as_string(hide_password=True)}",
            remedy="Nothing of this transaction was written.",
        ) from err


def open_ledger(url: str) -> Ledger:
    """Open the ledger at a SQLAlchemy URL, creating it or migrating it to this version.

    A new ledger's kill switch is tripped. Raises SettingsError for a URL that cannot be used,
    LedgerError where the database cannot be reached or is of a later version.
    """
    ledger = Ledger(_engine(url))
    try:
        if _version(ledger) != HEAD:
            _upgrade(ledger)
    except BaseException:
        ledger.close()
        raise
    return ledger


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            if not str(parsed.database or ":memory:").startswith((":memory:", "file:")):
                Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
            engine = sa.create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_S})
            event.listen(engine, "connect", _sqlite_connect)
            event.listen(engine, "begin", _sqlite_begin)
            event.listen(engine, "handle_error", _sqlite_interrupted)
            return engine
        return sa.create_engine(parsed, pool_pre_ping=True, isolation_level="READ COMMITTED")
    except (SQLAlchemyError, ImportError, OSError, ValueError) as err:
        raise SettingsError(
            f"{err}",
            field="DATABASE_URL",
            expected="a SQLAlchemy URL such as sqlite:///data/ledger.db",
            remedy="For PostgreSQL install the extra `postgres` and use postgresql+psycopg://.",
        ) from err


def _sqlite_connect(dbapi_connection: Any, _record: Any) -> None:
    # The driver's own transaction handling would begin too late, and never around DDL.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_S * 1000}")
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    # Of two processes that switch a new file at once SQLite refuses one, without any waiting.
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as err:
            if err.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _sqlite_begin(conn: Connection) -> None:
    writes = conn.get_execution_options().get("candlebook_writes", False)
    conn.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _sqlite_interrupted(context: ExceptionContext) -> None:
    # SQLAlchemy drops a connection that Ctrl-C went through. SQLite would then keep the write lock
    # for as long as a traceback holds the cursor, which in a notebook is until the next error.
    if not isinstance(context.original_exception, Exception):
        context.is_disconnect = False


def _version(ledger: Ledger) -> str | None:
    with ledger.reading() as conn:
        if not sa.inspect(conn).has_table("alembic_version"):
            return None
        return conn.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(ledger: Ledger) -> None:
    """Run the migrations that are missing, all in one transaction."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    try:
        with ledger.writing() as conn:
            config.attributes["connection"] = conn
            command.upgrade(config, HEAD)
    except CommandError as err:
        raise LedgerError(
            f"{err}",
            field=f"ledger {ledger.engine.url.render_as_string(hide_password=True)}",
            expected=f"a version up to {HEAD}",
            remedy="It was written by a later version of Candlebook: install that one.",
        ) from err
