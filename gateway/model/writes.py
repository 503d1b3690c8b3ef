"""The session of a step: rows that nothing reads back at once are written together, one statement for all of a table.

Promises: what was deferred is in the transaction before its commit, what a row refers to before the row, and rows that
say the same columns of a table in the order in which they were said; whatever the session is asked meanwhile sees
deferred rows (they are written first), except those that nothing reads in the step that writes them, such as lines of
the trail; a rollback forgets them; a commit that says nothing has kept all. Not promised: that a faulty row is found
before the commit.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from psycopg.pq import TransactionStatus
from sqlalchemy import MetaData, Table, bindparam, event, insert
from sqlalchemy.orm import Session, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from gateway.errors import Fault
from gateway.model.prepared import Copied, Prepared

__all__ = ["WriteSession", "adopt", "ask", "cautious", "held", "laid", "later", "made", "name"]

R = TypeVar("R")

#: How rows of a table that say certain columns are written: one alone, and many.
_INSERTS: dict[tuple[Table, tuple[str, ...]], tuple[Prepared, Copied]] = {}


class WriteSession(Session):
    """A session with deferred rows.

    Attributes
    ----------
    made
        Keys of the roots that this session inserted.
    cautious
        Whether nothing is taken for granted about rows that were not looked at: after a clash.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.made: set[uuid.UUID] = set()
        self.cautious = False
        self._adopted: list[tuple[Table, dict[str, Any]]] = []
        self._read: list[tuple[Table, dict[str, Any]]] = []
        self._unread: list[tuple[Table, dict[str, Any]]] = []

    def defer(self, table: Table, row: dict[str, Any], *, unread: bool) -> None:
        """Write a row before the commit; before the next question too, unless nothing reads it."""
        (self._unread if unread else self._read).append((table, row))

    def adopt(self, table: Table, row: dict[str, Any]) -> None:
        """Write a row before anything that the session writes or asks: others may refer to it."""
        self._adopted.append((table, row))

    def write_deferred(self, *, unread: bool) -> None:
        """Write what waits."""
        waiting, self._adopted, self._read = self._adopted + self._read, [], []
        if unread:
            waiting, self._unread = waiting + self._unread, []
        self._write(waiting)

    def write_adopted(self) -> None:
        """Write the roots that wait."""
        waiting, self._adopted = self._adopted, []
        self._write(waiting)

    def _write(self, waiting: list[tuple[Table, dict[str, Any]]]) -> None:
        grouped: dict[tuple[Table, tuple[str, ...]], list[dict[str, Any]]] = {}
        for table, row in waiting:
            grouped.setdefault((table, tuple(row)), []).append(row)
        # A row that refers to what stood before may have opened its table's group ahead of what the next refers to.
        for key in sorted(grouped, key=_place) if len(grouped) > 1 else grouped:
            rows = grouped[key]
            alone, together = _INSERTS.get(key) or _INSERTS.setdefault(key, _inserts(*key))
            if len(rows) == 1:
                alone.run(self, rows[0])
            else:
                together.run(self, rows)

    def commit(self) -> None:
        """Write what waits and commit.

        Raises
        ------
        Fault
            ``transaction-perdue``: a statement had failed and nobody said so; the server would undo all without a word.
        """
        self.flush()
        self.write_deferred(unread=True)
        if self.in_transaction():
            driver: Any = self.connection().connection.driver_connection
            if driver.info.transaction_status == TransactionStatus.INERROR:
                raise Fault("transaction-perdue", "Une étape a continué après une erreur de la base.")
        super().commit()
        self.made.clear()

    def rollback(self) -> None:
        """Undo, and forget what waits."""
        self._forget()
        super().rollback()

    def close(self) -> None:
        """Give the connection back."""
        self._forget()
        super().close()

    def _forget(self) -> None:
        self._adopted, self._read, self._unread = [], [], []
        self.made.clear()


@cache
def _places(metadata: MetaData, count: int) -> dict[Table, int]:
    """Places of so many tables, each behind those that it refers to."""
    del count  # it asks anew after another was declared
    return {table: place for place, table in enumerate(metadata.sorted_tables)}


def _place(key: tuple[Table, tuple[str, ...]]) -> int:
    metadata = key[0].metadata
    return _places(metadata, len(metadata.tables))[key[0]]


def _inserts(table: Table, names: tuple[str, ...]) -> tuple[Prepared, Copied]:
    said = {one: bindparam(one, type_=table.c[one].type) for one in names}
    return Prepared(lambda: insert(table).inline().values(said)), Copied(table, names)


@event.listens_for(WriteSession, "do_orm_execute")
def _asked(state: Any) -> None:
    session = state.session
    if session._read or session._adopted:  # noqa: SLF001 - a part of the class
        session.write_deferred(unread=False)


@event.listens_for(WriteSession, "before_flush")
def _flushing(session: WriteSession, _context: Any, _instances: Any) -> None:
    session.write_adopted()


@event.listens_for(WriteSession, "after_flush")
def _flushed(session: WriteSession, _context: Any) -> None:
    session.made.update(key for root in session.new if isinstance(key := getattr(root, "id", None), uuid.UUID))


def later(session: Session, table: Table, row: Mapping[str, Any], *, unread: bool = False) -> None:
    """Write a row in the session's transaction, with others of its table when the session can."""
    said = dict(row)
    _complete(table, said)
    if isinstance(session, WriteSession):
        session.defer(table, said, unread=unread)
    else:
        session.execute(insert(table).inline(), said)


def ask(session: Session, statement: Prepared, **values: Any) -> list[Any]:
    """Rows of a statement, which sees all that the session has been told."""
    session.flush()
    if isinstance(session, WriteSession):
        session.write_deferred(unread=False)
    return statement.run(session, values)


#: What a table's columns are given by the process where a row does not say them.
_GIVEN: dict[Table, tuple[tuple[str, Any], ...]] = {}


def _complete(table: Table, said: dict[str, Any]) -> None:
    """Say what nobody said, where it is not the server that does."""
    given = _GIVEN.get(table)
    if given is None:
        columns = [column for column in table.c if column.server_default is None and column.identity is None]
        given = _GIVEN[table] = tuple((column.key, getattr(column.default, "arg", None)) for column in columns)
    for key, value in given:
        if key not in said:
            said[key] = value(None) if callable(value) else value


def laid(kind: type[R], values: Mapping[str, Any]) -> R:
    """A root with these columns, for `adopt`: the ORM keeps watch of each attribute that is set on one, at a price."""
    root = kind()
    root.__dict__.update(values)
    return root


def adopt(session: Session, root: Any) -> None:
    """Insert a root with others of its table; from here on the session holds it like any that it flushed.

    What the session then writes of its own (rows that refer to the root) comes after it.
    """
    if not isinstance(session, WriteSession):
        session.add(root)
        session.flush()
        return
    table: Table = root.__table__
    row = {column.key: root.__dict__[column.key] for column in table.c if column.key in root.__dict__}
    said = len(row)
    _complete(table, row)
    for key in [*row][said:]:  # the session would ask the database for each
        set_committed_value(root, key, row[key])
    session.adopt(table, row)
    name(session, root.id)
    make_transient_to_detached(root)
    session.add(root)


def held(session: Session, kind: type[R], row: Any) -> R:
    """The root that a row of its whole table is, held by the session as if it had loaded it."""
    known = session.identity_map.get(identity_key(kind, row.id))
    if known is not None:
        return known
    root = kind()
    root.__dict__.update(row._asdict())
    make_transient_to_detached(root)
    session.add(root)
    return root


def name(session: Session, key: uuid.UUID) -> None:
    """Say of a key that this step has just made it: nobody else can have written under it."""
    if isinstance(session, WriteSession):
        session.made.add(key)


def made(session: Session, key: uuid.UUID | None) -> bool:
    """Whether this session inserted the root with this key, so that nobody else can have written of it before."""
    return isinstance(session, WriteSession) and not session.cautious and key in session.made


def cautious(session: Session) -> None:
    """Have everything looked at: something that was taken for granted was not so."""
    if isinstance(session, WriteSession):
        session.cautious = True
