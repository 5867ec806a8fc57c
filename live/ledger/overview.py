"""Where every account stands now: what `candlebook status` and a status page show.

A few rows an account, however long the ledger is. Times are UTC milliseconds, money is in quote
currency, drawdown is a fraction.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from live.ledger import read, tables
from live.ledger.read import AccountRow
from research.blotter import Decision

__all__ = ["Holding", "LastRun", "Standing", "standings"]


@dataclass(frozen=True, slots=True)
class Holding:
    """One position; ``last_price`` is None before the first close."""

    symbol: str
    quantity: float
    entry_price: float
    last_price: float | None
    value: float


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest run of the newest slot; ``finished_at`` is None while it is under way."""

    slot: int
    attempt: int
    status: str
    started_at: int
    finished_at: int | None
    message: str


@dataclass(frozen=True)
class Standing:
    """One account. ``marked_at`` is the last close, None where it has not lived one.

    ``signals`` are those of the last close; ``last_run`` is None where it ran outside a notebook.
    """

    account: AccountRow
    marked_at: int | None
    cash: float
    equity: float
    peak: float
    holdings: tuple[Holding, ...]
    signals: tuple[Decision, ...]
    last_run: LastRun | None

    @property
    def drawdown(self) -> float:
        return 1.0 - self.equity / self.peak


def standings(conn: Connection) -> list[Standing]:
    """Every account, by name."""
    return [_standing(conn, account) for account in read.accounts(conn)]


def _standing(conn: Connection, account: AccountRow) -> Standing:
    name, engine, table = account.account, account.engine, tables.metrics
    marked = conn.execute(
        sa.select(sa.func.max(table.c.at)).where(table.c.account == name)
    ).scalar()
    return Standing(
        account,
        marked,
        engine.cash,
        engine.equity,
        engine.peak,
        _holdings(conn, name),
        () if marked is None else tuple(read.decisions(conn, name, since=marked)),
        _last_run(conn, name),
    )


def _holdings(conn: Connection, account: str) -> tuple[Holding, ...]:
    table = tables.positions
    rows = conn.execute(
        sa.select(table).where(table.c.account == account, table.c.lots > 0).order_by("symbol")
    )
    return tuple(Holding(r.symbol, r.quantity, r.entry_price, r.last_price, r.value) for r in rows)


def _last_run(conn: Connection, account: str) -> LastRun | None:
    table = tables.runs
    row = conn.execute(
        sa.select(table)
        .where(table.c.account == account)
        .order_by(table.c.slot.desc(), table.c.attempt.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    return LastRun(row.slot, row.attempt, row.status, row.started_at, row.finished_at, row.message)
