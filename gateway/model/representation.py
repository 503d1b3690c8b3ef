"""One table for each FHIR type: the bytes that a read returns beside one column for each search parameter offered.

Generated from ``mappings/fhir-search.json``: a new parameter is one line there and a ``reindex``. A read is one indexed
row; history is the same table's older versions. Nothing here parses FHIR: `gateway.fhir` fills the columns.

Columns of every table: see `_common`. Search columns are named ``p_`` + the parameter's code with underscores:

========== ==================== =============================================================================
kind       type                 content (written and read by `gateway.fhir.search_columns` alone)
========== ==================== =============================================================================
token      text[] (GIN)         system with code, code of any system, system with any code
reference  text[] (GIN)         ``Type/id``, and the identifier of a logical reference
string     text[] (GIN)         folded texts, their first letters, the texts themselves
uri        text[] (GIN)         the URI as written
date       tstzrange (GiST)     the hull of the values, R4's implicit ranges applied
number     numrange (GiST)      the value's implicit range
quantity   numrange (GiST)      the same, unit ignored
========== ==================== =============================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, NUMRANGE, TSTZRANGE
from sqlalchemy.schema import CreateColumn
from sqlalchemy.types import TypeEngine

from gateway import terminology
from gateway.model.store import Base, Instant, XactId, utcnow

__all__ = ["PARAMETERS", "TABLES", "align", "column_name"]

_KINDS: Mapping[str, tuple[type[TypeEngine[Any]] | TypeEngine[Any], str]] = {
    "token": (ARRAY(Text()), "gin"),
    "reference": (ARRAY(Text()), "gin"),
    "string": (ARRAY(Text()), "gin"),
    "uri": (ARRAY(Text()), "gin"),
    "date": (TSTZRANGE(), "gist"),
    "number": (NUMRANGE(), "gist"),
    "quantity": (NUMRANGE(), "gist"),
}


def column_name(code: str) -> str:
    """Column of a search parameter: ``p_`` and its code with underscores."""
    return "p_" + code.replace("-", "_")


def _common() -> list[Column[Any]]:
    """Columns of every representation.

    ``id``/``version``: FHIR logical id and versionId. ``body``: UTF-8 JSON as read returns it, with ``id`` and ``meta``
    spliced in, without any base URL of ours. ``current``: the newest version. ``partner_id``: the owner, the only
    writer (none: the gateway itself). ``record_id``, ``dossier_id``, ``network_id``: what the access predicate looks
    at; ``public``: directory facts that any authenticated caller may read. ``root_kind``/``root_id``: the aggregate
    root that it represents. ``xid``: for cursors below the horizon.
    """
    return [
        Column("id", Text, nullable=False),
        Column("version", Integer, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("current", Boolean, nullable=False, default=True),
        Column("deleted", Boolean, nullable=False, default=False),
        Column("partner_id", Uuid),
        Column("record_id", Uuid),
        Column("dossier_id", Uuid),
        Column("network_id", Uuid),
        Column("public", Boolean, nullable=False, default=False),
        Column("root_kind", Text),
        Column("root_id", Uuid),
        Column("updated_at", Instant(), nullable=False, default=utcnow),
        Column("xid", XactId(), server_default=text("pg_current_xact_id()")),
    ]


def _load() -> dict[str, dict[str, dict[str, Any]]]:
    table = terminology.table("fhir-search")
    parameters: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in table["types"]}
    for line in table["parameters"]:
        parameters[line["type"]][line["code"]] = line
    return parameters


#: Type → code → the parameter's line of the table.
PARAMETERS: Mapping[str, Mapping[str, Mapping[str, Any]]] = _load()


def _table(resource_type: str) -> Table:
    name = "fhir_" + resource_type.lower()
    searches = [Column(column_name(code), _KINDS[line["kind"]][0]) for code, line in PARAMETERS[resource_type].items()]
    return Table(
        name,
        Base.metadata,
        *_common(),
        *searches,
        PrimaryKeyConstraint("id", "version"),
        Index(f"uq_{name}_current", "id", unique=True, postgresql_where=text("current")),
        Index(f"ix_{name}_record", "record_id", postgresql_where=text("current")),
        Index(f"ix_{name}_dossier", "dossier_id", postgresql_where=text("current")),
        Index(f"ix_{name}_partner", "partner_id", "updated_at", "id", postgresql_where=text("current")),
        Index(f"ix_{name}_updated", "updated_at", "id", postgresql_where=text("current")),
        Index(f"ix_{name}_root", "root_id", "root_kind", postgresql_where=text("current")),
        *(
            Index(
                f"ix_{name}_{column_name(code)}",
                column_name(code),
                postgresql_using=_KINDS[line["kind"]][1],
                postgresql_where=text("current"),
            )
            for code, line in PARAMETERS[resource_type].items()
        ),
    )


#: Type → its table.
TABLES: Mapping[str, Table] = {name: _table(name) for name in PARAMETERS}


def align(connection: Connection) -> list[str]:
    """Bring the representation tables to the table of parameters: adds what is missing, drops nothing.

    Runs in the caller's transaction, after Alembic's revisions (which own what a new parameter does not change) and
    before a reindex. A column that is added is empty until then.

    Returns
    -------
    list of str
        Names of the tables, columns and indexes that were added.
    """
    # Asked of the catalogue: reflection does not know every type that stands in these tables.
    there: dict[str, set[str]] = {}
    for name, column in connection.execute(_COLUMNS):
        there.setdefault(name, set()).add(column)
    indexes = set(connection.scalars(_INDEXES))
    added: list[str] = []
    for table in TABLES.values():
        if table.name not in there:
            table.create(connection)
            added.append(table.name)
            continue
        for column in table.columns:
            if column.name not in there[table.name]:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
                added.append(f"{table.name}.{column.name}")
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if index.name not in indexes:
                index.create(connection)
                added.append(str(index.name))
    return added


_COLUMNS = text(
    "SELECT table_name, column_name FROM information_schema.columns"
    " WHERE table_schema = current_schema() AND starts_with(table_name, 'fhir_')"
)
_INDEXES = text(
    "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND starts_with(tablename, 'fhir_')"
)
