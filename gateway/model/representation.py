"""One table for each FHIR type: the bytes that a read returns beside what a search finds them by.

Generated from ``mappings/fhir-search.json``: a new parameter is one line there and a ``reindex``. A read is one indexed
row; history is the same table's older versions. Nothing here parses FHIR: `gateway.fhir` fills the columns.

Columns of every table: see `_common`. What is searched stands in a few columns whatever the number of parameters
(docs/adr/0010); `gateway.fhir.search_columns` alone knows what is in them:

============ ==================== ===========================================================================
``terms``    text[]               whatever is looked up as a whole; one GIN with ``words``
``words``    tsvector             whatever is looked up by its beginning
``nodes``    jsonb                what is compared value by value among the rows that the index gave
``p_<code>`` tstzrange, numrange  one a parameter of dates, numbers or quantities (GiST): the hull of its values
============ ==================== ===========================================================================
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Executable,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    exists,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, NUMRANGE, TSTZRANGE, TSVECTOR, insert
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable
from sqlalchemy.types import TypeDecorator, TypeEngine

from gateway import terminology
from gateway.model.store import Base, Instant, XactId, utcnow

__all__ = ["INDEXED", "PARAMETERS", "TABLES", "align", "column_name", "lacking", "lines_of", "stale"]

_RANGES: Mapping[str, TypeEngine[Any]] = {"date": TSTZRANGE(), "number": NUMRANGE(), "quantity": NUMRANGE()}
#: Kilobytes of entries that wait to be sorted into the index: writing them one by one costs twice, and each search
#: reads those that wait.
_PENDING = 128


class Words(TypeDecorator[list[str]]):
    """``tsvector`` written from a list of texts, each a lexeme as it is: no language, no stemming."""

    impl = TSVECTOR
    cache_ok = True

    def process_bind_param(self, value: list[str] | None, dialect: Any) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Write the texts as the server reads a ``tsvector``: quoted, quotes and backslashes doubled."""
        if value is None:
            return None
        return " ".join(["'" + text.replace("\\", "\\\\").replace("'", "''") + "'" for text in value])


def column_name(code: str) -> str:
    """Range column of a search parameter: ``p_`` and its code with underscores."""
    return "p_" + code.replace("-", "_")


def _common() -> list[Column[Any]]:
    """Columns of every representation.

    ``id``/``version``: FHIR logical id and versionId. ``body``: UTF-8 JSON as read returns it, with ``id`` and ``meta``
    spliced in, without any base URL of ours. ``current``: the newest version. ``partner_id``: the owner, the only
    writer (none: the gateway itself). ``record_id``, ``dossier_id``, ``network_id``: what the access predicate looks
    at; ``public``: directory facts that any authenticated caller may read. ``root_kind``/``root_id``: the aggregate
    root that it represents. ``xid``: for cursors below the horizon. ``terms``, ``words``, ``nodes``: for search.
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
        Column("terms", ARRAY(Text()), nullable=False, server_default=text("'{}'")),
        Column("words", Words(), nullable=False, server_default=text("''")),
        Column("nodes", JSONB(none_as_null=True)),
    ]


def _load() -> dict[str, dict[str, dict[str, Any]]]:
    table = terminology.table("fhir-search")
    parameters: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in table["types"]}
    for line in table["parameters"]:
        for name in table["types"] if line["type"] == "*" else [line["type"]]:
            parameters[name][line["code"]] = line
    return parameters


#: Type → code → the parameter's line of the table.
PARAMETERS: Mapping[str, Mapping[str, Mapping[str, Any]]] = _load()


def _table(resource_type: str) -> Table:
    name = "fhir_" + resource_type.lower()
    ranges = {
        column_name(code): _RANGES[line["kind"]]
        for code, line in PARAMETERS[resource_type].items()
        if line["kind"] in _RANGES
    }
    return Table(
        name,
        Base.metadata,
        *_common(),
        *(Column(column, kind) for column, kind in ranges.items()),
        PrimaryKeyConstraint("id", "version"),
        Index(f"uq_{name}_current", "id", unique=True, postgresql_where=text("current")),
        Index(f"ix_{name}_record", "record_id", postgresql_where=text("current")),
        Index(f"ix_{name}_dossier", "dossier_id", postgresql_where=text("current")),
        Index(f"ix_{name}_partner", "partner_id", "updated_at", "id", postgresql_where=text("current")),
        Index(f"ix_{name}_updated", "updated_at", "id"),
        Index(f"ix_{name}_root", "root_id", "root_kind", postgresql_where=text("current")),
        Index(f"ix_{name}_moved", "xid", postgresql_where=text("current AND version > 1")),
        Index(
            f"ix_{name}_search",
            "terms",
            "words",
            postgresql_using="gin",
            postgresql_with={"gin_pending_list_limit": _PENDING},
            postgresql_where=text("current"),
        ),
        *(
            Index(
                f"ix_{name}_{column}",
                column,
                postgresql_using="gist",
                postgresql_where=text(f"current AND {column} IS NOT NULL"),
            )
            for column in ranges
        ),
    )


#: Type → its table.
TABLES: Mapping[str, Table] = {name: _table(name) for name in PARAMETERS}

#: By which lines of the table of parameters the rows of a type were last extracted again, and how far a reindex that
#: has not ended came (`None`: it ended).
INDEXED = Table(
    "search_index",
    Base.metadata,
    Column("type", Text, primary_key=True),
    Column("lines", Text, nullable=False),
    Column("done_to", Text),
)

#: Raised when the same line is extracted otherwise than before: every row is then to be extracted again.
_EXTRACTION = 1


def lines_of(resource_type: str) -> str:
    """What the rows of a type are extracted by, as one digest."""
    said = json.dumps([_EXTRACTION, PARAMETERS[resource_type]], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def stale(connection: Connection) -> list[str]:
    """Types that hold rows which were not extracted by the present table of parameters: `reindex` is due."""
    done = {row.type: row.lines for row in connection.execute(select(INDEXED).where(INDEXED.c.done_to.is_(None)))}
    return [
        name
        for name, table in TABLES.items()
        if done.get(name) != lines_of(name) and connection.scalar(select(exists().select_from(table)))
    ]


def _lacking(connection: Connection) -> Iterator[tuple[str, Executable]]:
    """What the table of parameters asks for and the database has not, with the statement that adds it."""
    # Asked of the catalogue: reflection does not know every type that stands in these tables.
    there: dict[str, set[str]] = {}
    for name, column in connection.execute(_COLUMNS):
        there.setdefault(name, set()).add(column)
    indexes = set(connection.scalars(_INDEXES))
    for table in TABLES.values():
        if table.name not in there:
            yield table.name, CreateTable(table)
        for column in table.columns:
            if table.name in there and column.name not in there[table.name]:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                yield f"{table.name}.{column.name}", text(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if index.name not in indexes:
                yield str(index.name), CreateIndex(index)


def lacking(connection: Connection) -> list[str]:
    """Names of what `align` would add."""
    return [name for name, _ in _lacking(connection)]


def align(connection: Connection) -> list[str]:
    """Bring the representation tables to the table of parameters: adds what is missing, drops nothing.

    Runs in the caller's transaction, after Alembic's revisions (which own what a new parameter does not change) and
    before a reindex. A column that is added is empty until then.

    Returns
    -------
    list of str
        Names of the tables, columns and indexes that were added.
    """
    added = []
    for name, statement in list(_lacking(connection)):
        connection.execute(statement)
        added.append(name)
    for name, table in TABLES.items():
        # What comes into an empty table is extracted by the present lines.
        if not connection.scalar(select(exists().select_from(table))):
            line = insert(INDEXED).values(type=name, lines=lines_of(name), done_to=None)
            now = {"lines": line.excluded.lines, "done_to": None}
            connection.execute(line.on_conflict_do_update(index_elements=["type"], set_=now))
    return added


_COLUMNS = text(
    "SELECT table_name, column_name FROM information_schema.columns"
    " WHERE table_schema = current_schema() AND starts_with(table_name, 'fhir_')"
)
_INDEXES = text(
    "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND starts_with(tablename, 'fhir_')"
)
