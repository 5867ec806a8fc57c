"""Writing to the ledger: one phase of one bar at a time, inside the caller's transaction."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from live.broker import Broker
from live.ledger import read, tables
from live.orders import FINAL, require_transition
from research.blotter import (
    Decision,
    Desk,
    Ending,
    Fill,
    Order,
    OrderStatus,
    Rows,
    ended,
    positions_of,
    round_trips,
)
from research.errors import LedgerError
from research.state import Log, State
from research.tape import Move

__all__ = [
    "add_account",
    "add_intervention",
    "add_mark",
    "add_revision",
    "add_rows",
    "move_cursor",
    "set_positions",
]


def add_account(
    conn: Connection, account: str, seal: str, mode: str, trade_from: int, engine: State, now: int
) -> None:
    """A new account that has decided nothing yet."""
    conn.execute(
        sa.insert(tables.state),
        {
            "account": account,
            "seal": seal,
            "mode": mode,
            "trade_from": trade_from,
            "cursor_bar": None,
            "cursor_phase": None,
            "engine": read.state_to_json(engine),
            "seen_opens": "{}",
            "chain": "",
            "updated_at": now,
        },
    )


def move_cursor(
    conn: Connection,
    account: str,
    cursor: tuple[int, str],
    engine: State,
    seen_opens: dict[str, float],
    chain: str,
    now: int,
) -> None:
    """The state after ``cursor`` = (bar open, phase)."""
    conn.execute(
        sa.update(tables.state).where(tables.state.c.account == account),
        {
            "cursor_bar": cursor[0],
            "cursor_phase": cursor[1],
            "engine": read.state_to_json(engine),
            "seen_opens": json.dumps(seen_opens),
            "chain": chain,
            "updated_at": now,
        },
    )


def add_rows(conn: Connection, account: str, rows: Rows, broker: Broker, now: int) -> None:
    """What one phase left behind: signals, new orders, fills, endings, and trades they closed."""
    _insert(conn, tables.signals, [_signal(account, one, now) for one in rows.decisions])
    for order in rows.orders:
        _add_order(conn, account, order, broker, now)
    _add_fills(conn, account, rows.fills)
    for ending in rows.endings:
        _end_order(conn, ending)
    for fill in rows.fills:
        _add_trade(conn, account, fill)


def _insert(conn: Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        conn.execute(sa.insert(table), rows)


def _signal(account: str, decision: Decision, now: int) -> dict[str, Any]:
    signal = decision.signal
    return {
        "account": account,
        "at": signal.timestamp,
        "symbol": signal.symbol,
        "action": signal.action.value,
        "confidence": signal.confidence,
        "strategy": signal.strategy,
        "reason": signal.reason,
        "target": None if math.isnan(decision.target) else decision.target,
        "code": decision.code,
        "recorded_at": now,
    }


def _add_order(conn: Connection, account: str, order: Order, broker: Broker, now: int) -> None:
    row = dataclasses.asdict(order) | {"account": account, "recorded_at": now}
    status: OrderStatus | None = None
    events = []
    for step, after in enumerate(broker.place(order)):
        require_transition(order.order_id, status, after)
        status = after
        events.append(_event(order.order_id, step, after, order.decided_at))
    if status is None:
        raise LedgerError(
            field=f"broker {broker.name}", value=(), expected="a status for every order it takes"
        )
    conn.execute(sa.insert(tables.orders), row | {"status": status.value, "side": order.side.value})
    _insert(conn, tables.order_events, events)


def _event(order_id: str, step: int, status: OrderStatus, at: int) -> dict[str, Any]:
    return {"order_id": order_id, "step": step, "status": status.value, "at": at}


def _add_fills(conn: Connection, account: str, fills: Sequence[Fill]) -> None:
    if not fills:
        return
    table, orders = tables.fills, tables.orders
    names = [one.order_id for one in fills]
    over = conn.execute(
        sa.select(orders.c.order_id).where(orders.c.order_id.in_(names), orders.c.status.in_(FINAL))
    ).scalar()
    if over is not None:
        raise LedgerError(
            "filled, but it has ended already",
            field=f"order {over}",
            remedy="candlebook parity names the first difference.",
        )
    last = conn.execute(
        sa.select(sa.func.max(table.c.place)).where(table.c.account == account)
    ).scalar()
    first = 0 if last is None else last + 1
    earlier = conn.execute(sa.select(table.c.order_id).where(table.c.order_id.in_(names)))
    parts = Counter(row.order_id for row in earlier)
    _insert(
        conn,
        table,
        [
            dataclasses.asdict(fill)
            | {
                "account": account,
                "side": fill.side.value,
                "part": parts[fill.order_id] + 1,  # a phase fills an order once
                "place": first + i,
            }
            for i, fill in enumerate(fills)
        ],
    )


def _end_order(conn: Connection, ending: Ending) -> None:
    orders, events = tables.orders, tables.order_events
    before = read.order_of(conn, ending.order_id)
    if before is None:
        raise LedgerError(
            "ended, but was never placed",
            field=f"order {ending.order_id}",
            remedy="candlebook parity names the first difference.",
        )
    after = ended(before, ending)
    require_transition(ending.order_id, before.status, after.status)
    conn.execute(
        sa.update(orders).where(orders.c.order_id == ending.order_id),
        {
            "status": after.status.value,
            "filled_quantity": after.filled_quantity,
            "price": after.price,
            "fee": after.fee,
            "ended_at": after.ended_at,
            "code": after.code,
        },
    )
    last = conn.execute(
        sa.select(sa.func.max(events.c.step)).where(events.c.order_id == ending.order_id)
    ).scalar_one()
    _insert(conn, events, [_event(ending.order_id, last + 1, after.status, ending.at)])


def _add_trade(conn: Connection, account: str, fill: Fill) -> None:
    """The round trip that ``fill`` ended, if it did."""
    fills, orders, trades = tables.fills, tables.orders, tables.trades
    last_exit = conn.execute(
        sa.select(sa.func.max(fills.c.place))
        .join(trades, trades.c.exit_order_id == fills.c.order_id)
        .where(trades.c.account == account, trades.c.symbol == fill.symbol)
    ).scalar()
    legs = read.fills(conn, account, fill.symbol, after=-1 if last_exit is None else last_exit)
    intent = conn.execute(
        sa.select(orders.c.intent).where(orders.c.order_id == fill.order_id)
    ).scalar_one()
    _insert(
        conn,
        trades,
        [
            dataclasses.asdict(trip) | {"account": account, "exit_order_id": fill.order_id}
            for trip in round_trips(legs, {leg.order_id: intent for leg in legs})
        ],
    )


def set_positions(conn: Connection, account: str, desk: Desk, engine: State, at: int) -> None:
    """What is held now, one row a symbol."""
    table = tables.positions
    conn.execute(sa.delete(table).where(table.c.account == account))
    rows = [
        dataclasses.asdict(one) | {"account": account, "updated_at": at}
        for one in positions_of(desk, engine)
    ]
    _insert(conn, table, rows)


def add_mark(conn: Connection, account: str, log: Log, at: int, chain: str, now: int) -> None:
    """The account at one bar's close, from row 0 of the log."""
    conn.execute(
        sa.insert(tables.metrics),
        {
            "account": account,
            "at": at,
            "cash": log.cash[0],
            "equity": log.equity[0],
            "peak": log.peak[0],
            "day_base": log.day_base[0],
            "tripped": log.tripped[0],
            "chain": chain,
            "recorded_at": now,
        },
    )


def add_revision(
    conn: Connection,
    account: str,
    symbol: str,
    bar: int,
    first_seen: float,
    later: float,
    now: int,
) -> None:
    """An open that the exchange restated after we had acted on it."""
    conn.execute(
        sa.insert(tables.revisions),
        {
            "account": account,
            "symbol": symbol,
            "bar": bar,
            "first_seen": first_seen,
            "later": later,
            "recorded_at": now,
        },
    )


def add_intervention(
    conn: Connection, at: int, move: Move, reason: str, who: str, now: int
) -> None:
    """A person's move of the kill switch, effective from the first close at or after ``at``."""
    conn.execute(
        sa.insert(tables.interventions),
        {"at": at, "move": move.value, "reason": reason, "who": who, "recorded_at": now},
    )
