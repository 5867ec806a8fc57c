"""The kill switch: one for the whole ledger, moved by people, kept in the ledger.

It holds over restarts until a person resets it with a reason, and a new ledger's is tripped. An
account can also trip by itself (its drawdown limit, where the limits arm it); a reset by a person
clears that too. A ledger that cannot be read stops everything: there is no answer that means "go".

Beside it stands reduce-only, a person's milder word: no entries until they resume, and neither the
switch nor any peak moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from live.ledger import Ledger, read, tables, write
from research.candles import iso
from research.errors import InputError
from research.settings import user_name
from research.tape import Intervention, Move

__all__ = ["SwitchStatus", "kill", "reduce_only", "reset", "resume", "switch_status"]

SWITCH = (Move.KILL, Move.RESET)
HOLDING_BACK = (Move.REDUCE, Move.RESUME)


@dataclass(frozen=True)
class SwitchStatus:
    """``tripped`` by a person, by the ``last`` move that holds; ``planned`` are later ones.

    ``tripped_accounts`` are those that tripped by themselves, at their drawdown limit.
    ``reducing`` is the order that holds entries back, None where there is none.
    """

    tripped: bool
    last: Intervention
    planned: tuple[Intervention, ...]
    tripped_accounts: tuple[str, ...]
    reducing: Intervention | None = None


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


def reduce_only(
    ledger: Ledger, reason: str, now: int, *, at: int | None = None, who: str | None = None
) -> int:
    """Refuse every account's entries until ``resume``; returns from when. As ``kill``, never
    refused, but the switch and the peaks stay as they are."""
    return _move(ledger, Move.REDUCE, reason, now, at, who)


def resume(
    ledger: Ledger, reason: str, now: int, *, at: int | None = None, who: str | None = None
) -> int:
    """Take ``reduce_only`` back; returns from when. Raises InputError as ``reset`` does."""
    return _move(ledger, Move.RESUME, reason, now, at, who)


def _move(
    ledger: Ledger, move: Move, reason: str, now: int, at: int | None, who: str | None
) -> int:
    if not reason.strip():
        raise InputError(field="reason", value=reason, expected="a reason, in words")
    with ledger.writing() as conn:
        stops = move in (Move.KILL, Move.REDUCE)
        kin = SWITCH if move in SWITCH else HOLDING_BACK
        marked = _latest_mark(conn)
        moves = [one for one in read.interventions(conn) if one.move in kin]
        if at is not None and at <= marked and not stops:
            raise InputError(
                field="--at",
                value=iso(at),
                expected=f"a time after {iso(marked)}, which is decided already",
            )
        stood = max((one.at for one in moves if one.move is kin[0] and one.at <= now), default=-1)
        if at is not None and not stops and at < stood:
            raise InputError(
                field="--at",
                value=iso(at),
                expected=f"a time from {iso(stood)} on, when the last {kin[0]} was ordered",
            )
        effective = max(now if at is None else at, marked + 1)
        # A kill is not undone by a reset that is still to come; a planned kill outlives a reset.
        latest = max((one.at for one in moves), default=-1)
        moments = {effective, max(effective, latest)} if stops else {effective}
        for moment in sorted(moments):
            write.add_intervention(conn, moment, move, reason.strip(), who or user_name(), now)
    return effective


def _latest_mark(conn: Connection) -> int:
    """The last close that any account has decided; -1 for none."""
    latest = conn.execute(sa.select(sa.func.max(tables.metrics.c.at))).scalar()
    return -1 if latest is None else int(latest)


def switch_status(conn: Connection, now: int) -> SwitchStatus:
    """Where the switch stands at ``now`` (UTC milliseconds), and what is planned after it."""
    acts = read.interventions(conn)
    moves = [act for act in acts if act.move in SWITCH]
    past = [move for move in moves if move.at <= now] or moves[:1]
    planned = tuple(act for act in acts if act.at > now and act is not past[-1])
    held_back = [act for act in acts if act.move in HOLDING_BACK and act.at <= now]
    reducing = held_back[-1] if held_back and held_back[-1].move is Move.REDUCE else None
    own = tuple(
        row.account
        for row in read.accounts(conn)
        if row.engine.tripped and not _killed_by(moves, _last_mark(conn, row.account))
    )
    return SwitchStatus(past[-1].move is Move.KILL, past[-1], planned, own, reducing)


def _killed_by(moves: Sequence[Intervention], close: int) -> bool:
    """Whether people had the switch tripped at ``close``."""
    reached = [move for move in moves if move.at <= close]
    return bool(reached) and reached[-1].move is Move.KILL


def _last_mark(conn: Connection, account: str) -> int:
    table = tables.metrics
    last = conn.execute(
        sa.select(sa.func.max(table.c.at)).where(table.c.account == account)
    ).scalar()
    return -1 if last is None else int(last)
