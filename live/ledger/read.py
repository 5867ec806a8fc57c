"""Questions to the ledger. Every function takes an open connection and changes nothing."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from live.ledger import tables
from research.blotter import Decision, Fill, Order, OrderStatus, Position, Trade
from research.candles import iso
from research.state import State
from research.strategy import Action, Signal
from research.tape import Intervention, Move

__all__ = [
    "PHASES",
    "AccountRow",
    "MarkRow",
    "account_of",
    "accounts",
    "decisions",
    "fills",
    "frame",
    "interventions",
    "marks",
    "order_of",
    "orders",
    "revisions",
]

PHASES = ("open", "close")


@dataclass(frozen=True)
class AccountRow:
    """One account as the ledger holds it; ``cursor`` is the last (bar open, phase) done."""

    account: str
    seal: str
    mode: str
    trade_from: int
    cursor: tuple[int, str] | None
    engine: State
    seen_opens: dict[str, float]
    chain: str

    @property
    def position(self) -> str:
        """The cursor in words."""
        return "nothing yet" if self.cursor is None else f"{iso(self.cursor[0])} {self.cursor[1]}"


@dataclass(frozen=True, slots=True)
class MarkRow:
    """The account as marked at one bar's close."""

    at: int
    cash: float
    equity: float
    peak: float
    day_base: float
    tripped: bool
    chain: str


def account_of(conn: Connection, account: str) -> AccountRow | None:
    """The account, or None where the ledger does not know it."""
    row = conn.execute(sa.select(tables.state).where(tables.state.c.account == account)).first()
    return None if row is None else _account_row(row)


def accounts(conn: Connection) -> list[AccountRow]:
    """Every account, by name."""
    rows = conn.execute(sa.select(tables.state).order_by(tables.state.c.account))
    return [_account_row(row) for row in rows]


def _account_row(row: Any) -> AccountRow:
    cursor = None if row.cursor_bar is None else (row.cursor_bar, row.cursor_phase)
    return AccountRow(
        row.account,
        row.seal,
        row.mode,
        row.trade_from,
        cursor,
        state_from_json(row.engine),
        json.loads(row.seen_opens),
        row.chain,
    )


def state_from_json(text: str) -> State:
    """The engine's state as ``state_to_json`` wrote it, to the bit."""
    fields = json.loads(text)
    fields["last"] = [math.nan if price is None else price for price in fields["last"]]
    return State(**fields)


def state_to_json(state: State) -> str:
    """The engine's state as JSON; floats are written so that they read back the same."""
    fields = state._asdict()
    fields["last"] = [None if math.isnan(price) else price for price in state.last]
    return json.dumps(fields, allow_nan=False)


def interventions(conn: Connection, up_to: int | None = None) -> list[Intervention]:
    """What people did to the kill switch, oldest first; ``up_to`` (UTC ms) inclusive."""
    query = sa.select(tables.interventions).order_by(
        tables.interventions.c.at, tables.interventions.c.id
    )
    if up_to is not None:
        query = query.where(tables.interventions.c.at <= up_to)
    return [Intervention(r.at, Move(r.move), r.reason, r.who) for r in conn.execute(query)]


def revisions(conn: Connection, account: str) -> dict[tuple[int, str], float]:
    """The first-seen open of every candle whose open was restated, by (bar open, symbol)."""
    table = tables.revisions
    rows = conn.execute(sa.select(table).where(table.c.account == account))
    return {(row.bar, row.symbol): row.first_seen for row in rows}


def decisions(conn: Connection, account: str, since: int = 0) -> list[Decision]:
    """Signals with their refusals from ``since`` on, by time, by symbol within a bar."""
    table = tables.signals
    rows = conn.execute(
        sa.select(table)
        .where(table.c.account == account, table.c.at >= since)
        .order_by(table.c.at, table.c.symbol)
    )
    return [
        Decision(
            Signal(r.symbol, Action(r.action), r.confidence, r.strategy, r.at, r.reason),
            math.nan if r.target is None else r.target,
            r.code,
        )
        for r in rows
    ]


def orders(conn: Connection, account: str) -> list[Order]:
    """Every order, in order of decision."""
    table = tables.orders
    rows = conn.execute(
        sa.select(table)
        .where(table.c.account == account)
        .order_by(table.c.decided_at, table.c.order_id)
    )
    return [_order(row) for row in rows]


def order_of(conn: Connection, order_id: str) -> Order | None:
    """One order as it stands, or None where the ledger does not know it."""
    row = conn.execute(sa.select(tables.orders).where(tables.orders.c.order_id == order_id)).first()
    return None if row is None else _order(row)


def _order(r: Any) -> Order:
    return Order(
        r.order_id, r.symbol, Action(r.side), r.intent, r.quantity, r.decided_at, r.reason,
        OrderStatus(r.status), r.filled_quantity, r.price, r.fee, r.ended_at, r.code,
    )  # fmt: skip


def fills(conn: Connection, account: str, symbol: str | None = None, after: int = -1) -> list[Fill]:
    """Fills in the order in which they happened, those behind place ``after`` in that order."""
    table = tables.fills
    query = sa.select(table).where(table.c.account == account, table.c.place > after)
    if symbol is not None:
        query = query.where(table.c.symbol == symbol)
    return [
        Fill(
            r.order_id, r.symbol, Action(r.side), r.at, r.lots, r.price, r.quantity, r.notional,
            r.fee,
        )
        for r in conn.execute(query.order_by(table.c.place))
    ]  # fmt: skip


def trades(conn: Connection, account: str) -> list[Trade]:
    """Every round trip that has ended, in order of its last fill."""
    table, fills_ = tables.trades, tables.fills
    ends = (
        sa.select(fills_.c.order_id, sa.func.max(fills_.c.place).label("place"))
        .group_by(fills_.c.order_id)
        .subquery()
    )
    rows = conn.execute(
        sa.select(table)
        .join(ends, ends.c.order_id == table.c.exit_order_id)
        .where(table.c.account == account)
        .order_by(ends.c.place)
    )
    names = [field.name for field in dataclasses.fields(Trade)]
    return [Trade(*(getattr(row, name) for name in names)) for row in rows]


def positions(conn: Connection, account: str) -> list[Position]:
    """What is held, one row a symbol, by symbol."""
    table = tables.positions
    rows = conn.execute(sa.select(table).where(table.c.account == account).order_by(table.c.symbol))
    names = [field.name for field in dataclasses.fields(Position)]
    return [Position(*(getattr(row, name) for name in names)) for row in rows]


def last_events(conn: Connection, account: str) -> dict[str, str]:
    """The last status of each order in its history, by order id."""
    events, orders_ = tables.order_events, tables.orders
    rows = conn.execute(
        sa.select(events.c.order_id, events.c.status)
        .join(orders_, orders_.c.order_id == events.c.order_id)
        .where(orders_.c.account == account)
        .order_by(events.c.order_id, events.c.step)
    )
    return {row.order_id: row.status for row in rows}


def marks(conn: Connection, account: str) -> list[MarkRow]:
    """The account at every bar's close, by time."""
    table = tables.metrics
    rows = conn.execute(sa.select(table).where(table.c.account == account).order_by(table.c.at))
    return [
        MarkRow(r.at, r.cash, r.equity, r.peak, r.day_base, bool(r.tripped), r.chain) for r in rows
    ]


_MOMENTS = {
    "at", "bar", "closed_at", "decided_at", "ended_at", "finished_at", "opened_at", "recorded_at",
    "slot", "started_at", "trade_from", "updated_at",
}  # fmt: skip


def frame(conn: Connection, table: str, account: str | None = None) -> pd.DataFrame:
    """A whole table as a DataFrame with UTC times, for notebooks; one account's rows or all."""
    source = tables.metadata.tables[table]
    query = sa.select(source)
    if account is not None and "account" in source.c:
        query = query.where(source.c.account == account)
    rows = pd.DataFrame(conn.execute(query).mappings().all(), columns=source.c.keys())
    for name in _MOMENTS & set(rows.columns):
        stamps = pd.to_numeric(rows[name]).replace(0, None)
        rows[name] = pd.to_datetime(stamps, unit="ms", utc=True)
    return rows
