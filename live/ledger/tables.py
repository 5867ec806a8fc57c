"""The ledger's tables. The database itself refuses what may not be: keys, states, sides.

Times are UTC milliseconds since 1970 (BIGINT); money and prices are double precision exactly as
the engine computed them; quantities are kept as whole lots too. One row of ``state`` is one
account: its cursor and the engine's state after it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

from research.blotter import OrderStatus
from research.strategy import Action

__all__ = [
    "documents",
    "fills",
    "interventions",
    "metadata",
    "metrics",
    "order_events",
    "orders",
    "positions",
    "revisions",
    "runs",
    "signals",
    "state",
    "trades",
]

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _one_of(column: str, values: list[str], name: str) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(v) for v in values)})", name=name)


_STATES = [status.value for status in OrderStatus]
_SIDES = [Action.BUY.value, Action.SELL.value]
_ACTIONS = [action.value for action in Action]


def _account() -> Column[str]:
    return Column("account", String(41), ForeignKey("state.account"), nullable=False)


state = Table(
    "state",
    metadata,
    Column("account", String(41), primary_key=True),
    Column("seal", String(64), nullable=False),
    Column("mode", String(8), nullable=False),
    Column("trade_from", BigInteger, nullable=False),
    Column("cursor_bar", BigInteger),
    Column("cursor_phase", String(5)),
    Column("engine", Text, nullable=False),
    Column("seen_opens", Text, nullable=False),
    Column("chain", String(64), nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    _one_of("mode", ["paper", "replay"], "mode"),
    _one_of("cursor_phase", ["open", "close"], "phase"),
)

interventions = Table(
    "interventions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("move", String(8), nullable=False),
    Column("reason", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    _one_of("move", ["kill", "reset", "reduce", "resume"], "move"),
    CheckConstraint("length(reason) > 0", name="reason"),
    Index(None, "at"),
)

signals = Table(
    "signals",
    metadata,
    _account(),
    Column("at", BigInteger, nullable=False),
    Column("symbol", String(20), nullable=False),
    Column("action", String(4), nullable=False),
    Column("confidence", Double, nullable=False),
    Column("strategy", String(80), nullable=False),
    Column("reason", Text, nullable=False),
    Column("target", Double),
    Column("code", String(32), nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("account", "at", "symbol"),
    _one_of("action", _ACTIONS, "action"),
    CheckConstraint("confidence BETWEEN 0 AND 100", name="confidence"),
)

orders = Table(
    "orders",
    metadata,
    Column("order_id", String(36), primary_key=True),
    _account(),
    Column("symbol", String(20), nullable=False),
    Column("side", String(4), nullable=False),
    Column("intent", String(16), nullable=False),
    Column("quantity", Double, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("filled_quantity", Double, nullable=False),
    Column("price", Double, nullable=False),
    Column("fee", Double, nullable=False),
    Column("ended_at", BigInteger, nullable=False),
    Column("code", String(32), nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    _one_of("side", _SIDES, "side"),
    _one_of("status", _STATES, "status"),
    CheckConstraint("quantity > 0", name="quantity"),
    CheckConstraint("filled_quantity BETWEEN 0 AND quantity", name="filled"),
    Index(None, "account", "decided_at"),
    Index(None, "account", "status"),
)

order_events = Table(
    "order_events",
    metadata,
    Column("order_id", String(36), ForeignKey("orders.order_id"), nullable=False),
    Column("step", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("order_id", "step"),
    _one_of("status", _STATES, "status"),
)

fills = Table(
    "fills",
    metadata,
    Column("order_id", String(36), ForeignKey("orders.order_id"), nullable=False),
    Column("part", Integer, nullable=False),
    _account(),
    Column("symbol", String(20), nullable=False),
    Column("side", String(4), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("lots", BigInteger, nullable=False),
    Column("price", Double, nullable=False),
    Column("quantity", Double, nullable=False),
    Column("notional", Double, nullable=False),
    Column("fee", Double, nullable=False),
    Column("place", Integer, nullable=False),
    PrimaryKeyConstraint("order_id", "part"),
    _one_of("side", _SIDES, "side"),
    CheckConstraint("lots > 0", name="lots"),
    CheckConstraint("price > 0", name="price"),
    Index(None, "account", "place", unique=True),
)

trades = Table(
    "trades",
    metadata,
    Column("exit_order_id", String(36), ForeignKey("orders.order_id"), primary_key=True),
    _account(),
    Column("symbol", String(20), nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger, nullable=False),
    Column("quantity", Double, nullable=False),
    Column("entry_price", Double, nullable=False),
    Column("exit_price", Double, nullable=False),
    Column("fees", Double, nullable=False),
    Column("pnl", Double, nullable=False),
    Column("pnl_pct", Double, nullable=False),
    Column("exit_intent", String(16), nullable=False),
    Index(None, "account", "closed_at"),
)

positions = Table(
    "positions",
    metadata,
    _account(),
    Column("symbol", String(20), nullable=False),
    Column("lots", BigInteger, nullable=False),
    Column("quantity", Double, nullable=False),
    Column("entry_price", Double, nullable=False),
    Column("last_price", Double),
    Column("value", Double, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("account", "symbol"),
    CheckConstraint("lots >= 0", name="lots"),
)

metrics = Table(
    "metrics",
    metadata,
    _account(),
    Column("at", BigInteger, nullable=False),
    Column("cash", Double, nullable=False),
    Column("equity", Double, nullable=False),
    Column("peak", Double, nullable=False),
    Column("day_base", Double, nullable=False),
    Column("tripped", Boolean(create_constraint=True, name="tripped"), nullable=False),
    Column("chain", String(64), nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("account", "at"),
    CheckConstraint("cash >= 0", name="cash"),
)

# An open that the exchange showed while the candle formed and stated otherwise once it had closed.
revisions = Table(
    "revisions",
    metadata,
    _account(),
    Column("symbol", String(20), nullable=False),
    Column("bar", BigInteger, nullable=False),
    Column("first_seen", Double, nullable=False),
    Column("later", Double, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("account", "symbol", "bar"),
)

runs = Table(
    "runs",
    metadata,
    Column("account", String(41), nullable=False),
    Column("slot", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("message", Text, nullable=False),
    PrimaryKeyConstraint("account", "slot", "attempt"),
    _one_of("status", ["running", "done", "failed", "waiting"], "status"),
)

documents = Table(
    "documents",
    metadata,
    Column("path", String(400), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("title", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
