"""The session of a step: rows that nothing reads back at once are written together, one statement for all of a table.

Promises: what was deferred is in the transaction before its commit, in the order in which it was said; whatever the
session is asked meanwhile sees deferred rows (they are written first), except those that nothing reads in the step that
writes them, such as lines of the trail; a rollback forgets them. Not promised: that a faulty row is found before the
commit.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Insert, Table, event, insert
from sqlalchemy.orm import Session, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

__all__ = ["WriteSession", "adopt", "cautious", "later", "made", "name"]

#: Statements are made once: one with forty values in it costs more to look up than to run.
_INSERTS: dict[Table, Insert] = {}


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
        for (table, _), rows in grouped.items():
            statement = _INSERTS.get(table)
            if statement is None:
                statement = _INSERTS[table] = insert(table).inline()
            self.connection().execute(statement, rows if len(rows) > 1 else rows[0])

    def commit(self) -> None:
        """Write what waits and commit."""
        self.flush()
        self.write_deferred(unread=True)
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
    if isinstance(session, WriteSession):
        session.defer(table, dict(row), unread=unread)
    else:
        session.execute(insert(table).inline(), dict(row))


def adopt(session: Session, root: Any) -> None:
    """Insert a root with others of its table; from here on the session holds it like any that it flushed.

    What the session then writes of its own (rows that refer to the root) comes after it.
    """
    if not isinstance(session, WriteSession):
        session.add(root)
        session.flush()
        return
    table: Table = root.__table__
    # What nobody said is said here: the session would ask the database for each.
    for column in table.c:
        if column.key not in root.__dict__ and column.server_default is None:
            given = getattr(column.default, "arg", None)
            set_committed_value(root, column.key, given(None) if callable(given) else given)
    session.adopt(table, {column: value for column, value in root.__dict__.items() if column in table.c})
    name(session, root.id)
    make_transient_to_detached(root)
    session.add(root)


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
