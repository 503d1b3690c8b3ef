"""The frozen first revision and the models say the same; a database of another revision is refused by name."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from gateway.errors import Fault
from gateway.model.schema import METADATA
from gateway.model.store import XactId


def test_migrating_an_empty_database_gives_the_models(store, monkeypatch) -> None:
    monkeypatch.setitem(store.engine.dialect.ischema_names, "xid8", XactId)  # SQLAlchemy does not reflect it
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": _ours})
        assert compare_metadata(context, METADATA) == []


def _ours(_thing: object, name: str | None, kind: str, *_: object) -> bool:
    return not (kind == "table" and str(name).startswith("procrastinate"))


def test_every_index_and_constraint_of_the_models_is_there(store) -> None:
    wanted = {index.name for table in METADATA.tables.values() for index in table.indexes}
    with store.engine.connect() as connection:
        found = set(connection.scalars(text("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")))
    assert wanted <= found


def test_a_database_of_another_revision_is_refused(store) -> None:
    with store.engine.begin() as connection:
        before = connection.scalar(text("SELECT version_num FROM alembic_version"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    try:
        with pytest.raises(Fault, match="0000"):
            store.require_current(may_migrate=False)
    finally:
        with store.engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :before"), {"before": before})


def test_migrating_twice_changes_nothing(store) -> None:
    before = store.revision()
    store.migrate()
    assert store.revision() == before
