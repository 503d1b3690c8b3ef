"""Statements that are asked all the time: compiled once, sent by the driver on the session's own connection.

SQLAlchemy's way to the driver costs ten times what the driver does (200 µs of processor a query, 20 without): it makes
the statement, the key of its cache, a context and a result anew. Here a statement is made and compiled at its first use
and keeps what SQLAlchemy would do to each value; many rows of one table are copied.

Promises: the transaction is the session's; values are sent, and rows come back, as SQLAlchemy sends and gives them;
errors are SQLAlchemy's, so that a step is run again after a clash whoever sent the statement. Not promised: entities
(rows are tuples with names), what the session holds back (`gateway.model.writes.ask`), events of SQLAlchemy's engine.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import psycopg
from psycopg import sql
from psycopg.pq import PipelineStatus, TransactionStatus
from sqlalchemy import ARRAY, Dialect, Engine, Executable, Table, Text, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, SessionTransaction

__all__ = ["Copied", "Prepared"]

_Process = Callable[[Any], Any]
_AT_REST: Final = (TransactionStatus.IDLE, PipelineStatus.OFF)


class _Ready(NamedTuple):
    """A compiled statement: its text, values that do not change, what is done to the others, and to rows."""

    text: str
    fixed: dict[str, Any]
    values: tuple[tuple[str, _Process], ...]
    row: Callable[[Iterable[Any]], Any] | None
    columns: tuple[_Process | None, ...] | None


class Prepared:
    """One statement.

    Parameters
    ----------
    make
        Makes it, with a `bindparam` for each value; called once, when the tables are declared.
    """

    def __init__(self, make: Callable[[], Executable]) -> None:
        self._make = make
        self._ready: _Ready | None = None

    def run(self, session: Session, values: Mapping[str, Any]) -> list[Any]:
        """Send it with these values; its rows, if it gives any."""
        ready = self._ready
        if ready is None:
            ready = self._ready = _compiled(self._make(), session.connection().dialect)
        cursor = _cursor(session)
        try:
            cursor.execute(ready.text, _sent(ready, values), prepare=True)
            if ready.row is None:
                return []
            found: list[Any] = cursor.fetchall()
        except psycopg.Error as error:
            raise _told(session, cursor.connection, error) from error
        if ready.columns is not None:
            return [ready.row(_processed(row, ready.columns)) for row in found]
        return [ready.row(row) for row in found]

    def at_once(self, engine: Engine, every: Sequence[Mapping[str, Any]]) -> list[int]:
        """Send it with each of these values, in one transaction of its own without a session, committed on return.

        Returns
        -------
        list of int
            How many rows each wrote.
        """
        ready = self._ready
        if ready is None:
            ready = self._ready = _compiled(self._make(), engine.dialect)
        pooled = engine.raw_connection()
        driver = cast("psycopg.Connection[Any]", pooled.driver_connection)
        try:
            driver.autocommit = True
            if len(every) == 1:
                cursors = [driver.execute(ready.text, _sent(ready, every[0]), prepare=True)]
            else:
                # Up to its end a pipeline is one transaction.
                with driver.pipeline():
                    cursors = [driver.execute(ready.text, _sent(ready, values), prepare=True) for values in every]
            return [cursor.rowcount for cursor in cursors]
        except (psycopg.Error, IndexError) as error:
            if isinstance(error, IndexError):  # the driver has one question less than answers: the end was refused
                error = psycopg.OperationalError("the end of a pipeline was refused")
            raise DBAPIError.instance(None, None, error, psycopg.Error, hide_parameters=True) from error
        finally:
            if (driver.info.transaction_status, driver.info.pipeline_status) == _AT_REST:
                driver.autocommit = False
            else:
                pooled.invalidate()
            pooled.close()


def _sent(ready: _Ready, values: Mapping[str, Any]) -> dict[str, Any]:
    sent = {**ready.fixed, **values}
    for name, process in ready.values:
        sent[name] = process(sent[name])
    return sent


class Copied:
    """Rows of one table that say these columns, sent together.

    Parameters
    ----------
    names
        The columns in which values come; the server gives the others theirs.
    """

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self._table = table
        self._names = tuple(names)
        columns = sql.SQL(", ").join(map(sql.Identifier, self._names))
        self._text = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table.name), columns).as_bytes()
        self._values: tuple[_Process | None, ...] | None = None

    def run(self, session: Session, rows: Iterable[Mapping[str, Any]]) -> None:
        """Send them."""
        processes = self._values
        if processes is None:
            dialect = session.connection().dialect
            processes = tuple(_bound(self._table.c[name].type, dialect) for name in self._names)
            self._values = processes
        places = tuple(zip(self._names, processes, strict=True))
        cursor = _cursor(session)
        try:
            with cursor.copy(self._text) as copy:
                for row in rows:
                    copy.write_row([row[name] if process is None else process(row[name]) for name, process in places])
        except psycopg.Error as error:
            raise _told(session, cursor.connection, error) from error


def _compiled(statement: Any, dialect: Dialect) -> _Ready:
    compiled = statement.compile(dialect=dialect)
    row, columns = None, None
    if getattr(statement, "is_select", False) and hasattr(statement, "selected_columns"):
        listed = list(statement.selected_columns)
        made: Any = namedtuple("Row", [column.key for column in listed])  # type: ignore[misc]  # noqa: PYI024 - its names are the statement's
        row = made._make
        columns = tuple(column.type._cached_result_processor(dialect, None) for column in listed)  # noqa: SLF001 - see `_bound`
    processes = {name: _bound(bind.type, dialect) for name, bind in compiled.binds.items()}
    return _Ready(
        str(compiled),
        dict(compiled.construct_params(_check=False)),
        tuple((name, process) for name, process in processes.items() if process is not None),
        row,
        columns if columns is not None and any(columns) else None,
    )


def _bound(kind: Any, dialect: Dialect) -> _Process | None:
    """What SQLAlchemy itself does to a value of a type before it is sent; lists of texts go as the server writes them.

    The driver looks at each text of a list anew, which costs more than sending it.
    """
    if isinstance(kind, ARRAY) and isinstance(kind.item_type, Text):
        return _texts
    process: _Process | None = kind._cached_bind_processor(dialect)  # noqa: SLF001 - its own compiler asks it so
    return process


def _texts(value: list[str] | None) -> str | None:
    if value is None:
        return None
    if not value:
        return "{}"
    joined = '","'.join(value)
    if "\\" in joined or joined.count('"') != 2 * len(value) - 2:
        joined = '","'.join([text.replace("\\", "\\\\").replace('"', '\\"') for text in value])
    return f'{{"{joined}"}}'


def _processed(row: Sequence[Any], columns: Sequence[_Process | None]) -> Iterator[Any]:
    for value, process in zip(row, columns, strict=True):
        yield value if process is None else process(value)


#: Where a session keeps its cursor while its transaction lasts: making one anew costs a fifth of a statement.
_HELD = "gateway.model.prepared"


def _cursor(session: Session) -> psycopg.Cursor[Any]:
    cursor = session.info.get(_HELD)
    if cursor is None:
        cursor = session.info[_HELD] = session.connection().connection.cursor()
    return cast("psycopg.Cursor[Any]", cursor)


@event.listens_for(Session, "after_transaction_end")
def _ended(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info.pop(_HELD, None)


def _told(session: Session, driver: psycopg.Connection[Any], error: psycopg.Error) -> BaseException:
    """The same as SQLAlchemy says it; a connection that is lost is given to nobody any more."""
    if driver.closed:
        session.connection().invalidate(error)
    return DBAPIError.instance(
        None, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=driver.closed
    )
