"""Alembic's entry: runs on the connection that `gateway.model.store.Store.migrate` hands over."""

from __future__ import annotations

from alembic import context

from gateway.model.schema import METADATA

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("migrations run through rcp-gateway migrate")

context.configure(connection=connection, target_metadata=METADATA, transaction_per_migration=True, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
