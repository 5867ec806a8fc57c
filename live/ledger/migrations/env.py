"""Alembic's entry: run the migrations on the connection that live.ledger.store hands over."""

from __future__ import annotations

from alembic import context

from live.ledger.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
