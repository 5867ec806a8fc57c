"""The first tables; a new ledger's kill switch is tripped until a person resets it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KNOWN_STATUS = (
    "status IN ('CREATED', 'SUBMITTED', 'PENDING', 'PARTIALLY_FILLED', 'FILLED', 'CANCELLED', "
    "'REJECTED')"
)


def upgrade() -> None:
    op.create_table(
        "documents",
        sa.Column("path", sa.String(length=400), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_documents")),
    )
    op.create_table(
        "interventions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("move", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("move IN ('kill', 'reset')", name=op.f("ck_interventions_move")),
        sa.CheckConstraint("length(reason) > 0", name=op.f("ck_interventions_reason")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_interventions")),
    )
    op.create_index(op.f("ix_interventions_at"), "interventions", ["at"], unique=False)
    op.create_table(
        "runs",
        sa.Column("account", sa.String(length=41), nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "status IN ('running', 'done', 'failed', 'waiting')", name=op.f("ck_runs_status")
        ),
        sa.PrimaryKeyConstraint("account", "slot", "attempt", name=op.f("pk_runs")),
    )
    op.create_table(
        "state",
        sa.Column("account", sa.String(length=41), nullable=False),
        sa.Column("seal", sa.String(length=64), nullable=False),
        sa.Column("mode", sa.String(length=8), nullable=False),
        sa.Column("trade_from", sa.BigInteger(), nullable=False),
        sa.Column("cursor_bar", sa.BigInteger(), nullable=True),
        sa.Column("cursor_phase", sa.String(length=5), nullable=True),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("seen_opens", sa.Text(), nullable=False),
        sa.Column("chain", sa.String(length=64), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("cursor_phase IN ('open', 'close')", name=op.f("ck_state_phase")),
        sa.CheckConstraint("mode IN ('paper', 'replay')", name=op.f("ck_state_mode")),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_state")),
    )
    op.create_table(
        "metrics",
        sa.Column("account", sa.String(length=41), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("cash", sa.Double(), nullable=False),
        sa.Column("equity", sa.Double(), nullable=False),
        sa.Column("peak", sa.Double(), nullable=False),
        sa.Column("day_base", sa.Double(), nullable=False),
        sa.Column("tripped", sa.Boolean(create_constraint=True, name="tripped"), nullable=False),
        sa.Column("chain", sa.String(length=64), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("cash >= 0", name=op.f("ck_metrics_cash")),
        sa.ForeignKeyConstraint(["account"], ["state.account"], name=op.f("fk_metrics_account")),
        sa.PrimaryKeyConstraint("account", "at", name=op.f("pk_metrics")),
    )
    op.create_table(
        "orders",
        sa.Column("order_id", sa.String(length=36), nullable=False),
        sa.Column("account", sa.String(length=41), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("intent", sa.String(length=16), nullable=False),
        sa.Column("quantity", sa.Double(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("filled_quantity", sa.Double(), nullable=False),
        sa.Column("price", sa.Double(), nullable=False),
        sa.Column("fee", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.String(length=32), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("side IN ('BUY', 'SELL')", name=op.f("ck_orders_side")),
        sa.CheckConstraint(
            KNOWN_STATUS,
            name=op.f("ck_orders_status"),
        ),
        sa.CheckConstraint("filled_quantity BETWEEN 0 AND quantity", name=op.f("ck_orders_filled")),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_orders_quantity")),
        sa.ForeignKeyConstraint(["account"], ["state.account"], name=op.f("fk_orders_account")),
        sa.PrimaryKeyConstraint("order_id", name=op.f("pk_orders")),
    )
    op.create_index(
        op.f("ix_orders_account_decided_at"), "orders", ["account", "decided_at"], unique=False
    )
    op.create_index(op.f("ix_orders_account_status"), "orders", ["account", "status"], unique=False)
    op.create_table(
        "positions",
        sa.Column("account", sa.String(length=41), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("lots", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.Double(), nullable=False),
        sa.Column("entry_price", sa.Double(), nullable=False),
        sa.Column("last_price", sa.Double(), nullable=True),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("lots >= 0", name=op.f("ck_positions_lots")),
        sa.ForeignKeyConstraint(["account"], ["state.account"], name=op.f("fk_positions_account")),
        sa.PrimaryKeyConstraint("account", "symbol", name=op.f("pk_positions")),
    )
    op.create_table(
        "revisions",
        sa.Column("account", sa.String(length=41), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("bar", sa.BigInteger(), nullable=False),
        sa.Column("first_seen", sa.Double(), nullable=False),
        sa.Column("later", sa.Double(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["state.account"], name=op.f("fk_revisions_account")),
        sa.PrimaryKeyConstraint("account", "symbol", "bar", name=op.f("pk_revisions")),
    )
    op.create_table(
        "signals",
        sa.Column("account", sa.String(length=41), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("action", sa.String(length=4), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("strategy", sa.String(length=80), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("target", sa.Double(), nullable=True),
        sa.Column("code", sa.String(length=32), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("action IN ('BUY', 'SELL', 'HOLD')", name=op.f("ck_signals_action")),
        sa.CheckConstraint("confidence BETWEEN 0 AND 100", name=op.f("ck_signals_confidence")),
        sa.ForeignKeyConstraint(["account"], ["state.account"], name=op.f("fk_signals_account")),
        sa.PrimaryKeyConstraint("account", "at", "symbol", name=op.f("pk_signals")),
    )
    op.create_table(
        "fills",
        sa.Column("order_id", sa.String(length=36), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("account", sa.String(length=41), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("lots", sa.BigInteger(), nullable=False),
        sa.Column("price", sa.Double(), nullable=False),
        sa.Column("quantity", sa.Double(), nullable=False),
        sa.Column("notional", sa.Double(), nullable=False),
        sa.Column("fee", sa.Double(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.CheckConstraint("side IN ('BUY', 'SELL')", name=op.f("ck_fills_side")),
        sa.CheckConstraint("lots > 0", name=op.f("ck_fills_lots")),
        sa.CheckConstraint("price > 0", name=op.f("ck_fills_price")),
        sa.ForeignKeyConstraint(["account"], ["state.account"], name=op.f("fk_fills_account")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.order_id"], name=op.f("fk_fills_order_id")),
        sa.PrimaryKeyConstraint("order_id", "part", name=op.f("pk_fills")),
    )
    op.create_index(op.f("ix_fills_account_place"), "fills", ["account", "place"], unique=True)
    op.create_table(
        "order_events",
        sa.Column("order_id", sa.String(length=36), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            KNOWN_STATUS,
            name=op.f("ck_order_events_status"),
        ),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.order_id"], name=op.f("fk_order_events_order_id")
        ),
        sa.PrimaryKeyConstraint("order_id", "step", name=op.f("pk_order_events")),
    )
    op.create_table(
        "trades",
        sa.Column("exit_order_id", sa.String(length=36), nullable=False),
        sa.Column("account", sa.String(length=41), nullable=False),
        sa.Column("symbol", sa.String(length=20), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.Double(), nullable=False),
        sa.Column("entry_price", sa.Double(), nullable=False),
        sa.Column("exit_price", sa.Double(), nullable=False),
        sa.Column("fees", sa.Double(), nullable=False),
        sa.Column("pnl", sa.Double(), nullable=False),
        sa.Column("pnl_pct", sa.Double(), nullable=False),
        sa.Column("exit_intent", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["state.account"], name=op.f("fk_trades_account")),
        sa.ForeignKeyConstraint(
            ["exit_order_id"], ["orders.order_id"], name=op.f("fk_trades_exit_order_id")
        ),
        sa.PrimaryKeyConstraint("exit_order_id", name=op.f("pk_trades")),
    )
    op.create_index(
        op.f("ix_trades_account_closed_at"), "trades", ["account", "closed_at"], unique=False
    )
    op.bulk_insert(
        sa.table(
            "interventions",
            sa.column("at", sa.BigInteger),
            sa.column("move", sa.String),
            sa.column("reason", sa.Text),
            sa.column("who", sa.Text),
            sa.column("recorded_at", sa.BigInteger),
        ),
        [
            {
                "at": 0,
                "move": "kill",
                "reason": "a new ledger",
                "who": "candlebook",
                "recorded_at": 0,
            }
        ],
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_trades_account_closed_at"), table_name="trades")
    op.drop_table("trades")
    op.drop_table("order_events")
    op.drop_index(op.f("ix_fills_account_place"), table_name="fills")
    op.drop_table("fills")
    op.drop_table("signals")
    op.drop_table("revisions")
    op.drop_table("positions")
    op.drop_index(op.f("ix_orders_account_status"), table_name="orders")
    op.drop_index(op.f("ix_orders_account_decided_at"), table_name="orders")
    op.drop_table("orders")
    op.drop_table("metrics")
    op.drop_table("state")
    op.drop_table("runs")
    op.drop_index(op.f("ix_interventions_at"), table_name="interventions")
    op.drop_table("interventions")
    op.drop_table("documents")
