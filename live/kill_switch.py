"""The kill switch: one for the whole ledger, moved by people, kept in the ledger.

It holds over restarts until a person resets it with a reason, and a new ledger's is tripped. An
account can also trip by itself (its drawdown limit, where the limits arm it); a reset by a person
clears that too. A ledger that cannot be read stops everything: there is no answer that means "go".
"""

from __future__ import annotations

import getpass
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from live.ledger import Ledger, read, tables, write
from research.candles import iso
from research.errors import InputError
from research.tape import Intervention, Move

__all__ = ["SwitchStatus", "kill", "reset", "switch_status"]


@dataclass(frozen=True)
class SwitchStatus:
    """``tripped`` by a person; ``last`` move; accounts that tripped by themselves."""

    tripped: bool
    last: Intervention
    tripped_accounts: tuple[str, ...]


def kill(
    ledger: Ledger, reason: str, now: int, *, at: int | None = None, who: str | None = None
) -> int:
    """Trip the switch for every account; returns from when it holds (UTC milliseconds).

    It takes effect at the first bar close at or after ``at`` (default ``now``). A time that some
    account has already decided is moved to the next moment after it: a kill is never refused. A
    reset that was asked for a later time does not undo it.
    """
    return _move(ledger, Move.KILL, reason, now, at, who)


def reset(
    ledger: Ledger, reason: str, now: int, *, at: int | None = None, who: str | None = None
) -> int:
    """Let trading start (again); returns from when. Every account's peak becomes its equity.

    Raises InputError for an ``at`` that some account has already decided.
    """
    return _move(ledger, Move.RESET, reason, now, at, who)


def _move(
    ledger: Ledger, move: Move, reason: str, now: int, at: int | None, who: str | None
) -> int:
    if not reason.strip():
        raise InputError(field="reason", value=reason, expected="a reason, in words")
    with ledger.writing() as conn:
        marked, moved = _latest(conn, tables.metrics), _latest(conn, tables.interventions)
        decided = marked if move is Move.KILL else max(marked, moved)
        if at is not None and at <= decided and move is Move.RESET:
            raise InputError(
                field="--at",
                value=iso(at),
                expected=f"a time after {iso(decided)}, which is decided already",
            )
        effective = max(now if at is None else at, decided + 1)
        # A kill neither waits for a reset that is still to come nor is undone by it.
        for moment in sorted({effective, max(effective, moved)}):
            write.add_intervention(
                conn, moment, move, reason.strip(), who or getpass.getuser(), now
            )
    return effective


def _latest(conn: Connection, table: sa.Table) -> int:
    """The latest ``at``: of the marks, the last close that any account has decided. -1 for none."""
    latest = conn.execute(sa.select(sa.func.max(table.c.at))).scalar()
    return -1 if latest is None else int(latest)


def switch_status(conn: Connection) -> SwitchStatus:
    """Where the switch stands after everything that people did to it."""
    moves = read.interventions(conn)
    last = moves[-1]
    own = tuple(row.account for row in read.accounts(conn) if row.engine.tripped)
    return SwitchStatus(last.move is Move.KILL, last, own)
