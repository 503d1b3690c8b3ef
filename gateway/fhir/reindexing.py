"""Every representation's search columns extracted again: after a line of the table of parameters was added or changed.

Promises: tables are first brought in line with the table of parameters; a run that was killed goes on where it was, if
the table of parameters is still the same, and begins again if not; writers go on meanwhile and lose nothing, because
only the row of the version that was read is written, and a newer version brings its own columns; one run at a time.
Not promised: rows that a process of an older program writes during the run (restart the others first); old versions,
which no search answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Table, func, not_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from gateway.errors import Conflict, Unavailable
from gateway.fhir import document
from gateway.fhir.keeping import columns
from gateway.model.representation import INDEXED, TABLES, align, lines_of
from gateway.model.store import Store

__all__ = ["Told", "reindex"]

#: Hears after each batch: type, rows of it done, rows of it in all (about).
Told = Callable[[str, int, int], None]

_LOCK = 4207208
_ATTEMPTS = 10
#: Serialisation failure, deadlock with a writer, lock not available.
_RETRIED = frozenset({"40001", "40P01", "55P03"})


def reindex(store: Store, *, told: Told | None = None, batch: int = 500, kinds: Sequence[str] | None = None) -> int:
    """Extract the search columns of every current resource again; how many in this run.

    Parameters
    ----------
    kinds
        Only these types; all by default.

    Raises
    ------
    Conflict
        ``reindexation-en-cours``: another process is at it.
    Unavailable
        ``contention``: writers kept winning.
    """
    with store.engine.connect() as guard:
        if not guard.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}):
            raise Conflict("reindexation-en-cours", "Une réindexation est déjà en cours.")
        guard.commit()
        try:
            with store.engine.begin() as connection:
                align(connection)
            done = 0
            with store.session() as session:
                for kind, last in _left(session, kinds):
                    done += _type(session, kind, last, batch, told)
            return done
        finally:
            guard.rollback()
            guard.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            guard.commit()


def _left(session: Session, kinds: Sequence[str] | None) -> list[tuple[str, str]]:
    """Types that are still to be done, and the id to go on after; a run that ended makes all of them."""
    wanted = tuple(TABLES) if kinds is None else tuple(kinds)
    known = {row.type: row for row in session.execute(select(INDEXED))}
    begun = {
        kind: known[kind].done_to
        for kind in wanted
        if kind in known and known[kind].done_to is not None and known[kind].lines == lines_of(kind)
    }
    changed = [kind for kind in wanted if kind not in known or known[kind].lines != lines_of(kind)]
    anew = [kind for kind in wanted if not begun or kind in changed]
    for kind in anew:
        _mark(session, kind, "")
    session.commit()
    return [(kind, begun.get(kind, "") if kind not in anew else "") for kind in wanted if kind in begun or kind in anew]


def _mark(session: Session, kind: str, done_to: str | None) -> None:
    line = insert(INDEXED).values(type=kind, lines=lines_of(kind), done_to=done_to)
    now = {"lines": line.excluded.lines, "done_to": line.excluded.done_to}
    session.execute(line.on_conflict_do_update(index_elements=["type"], set_=now))


def _type(session: Session, kind: str, last: str, batch: int, told: Told | None) -> int:
    table = TABLES[kind]
    wanted = (table.c.current, not_(table.c.deleted), table.c.id > last)
    total = session.scalar(select(func.count()).select_from(table).where(*wanted)) or 0
    session.commit()
    done = 0
    while True:
        rows = _batch(session, table, kind, last, batch)
        if not rows:
            break
        last = rows[-1].id
        done += len(rows)
        if told is not None:
            told(kind, done, max(total, done))
    _mark(session, kind, None)
    session.commit()
    return done


def _batch(session: Session, table: Table, kind: str, last: str, batch: int) -> Sequence[Any]:
    """Extract the next rows and keep how far it came, together."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            rows = session.execute(
                select(table.c.id, table.c.version, table.c.body)
                .where(table.c.current, not_(table.c.deleted), table.c.id > last)
                .order_by(table.c.id)
                .limit(batch)
            ).all()
            for row in rows:
                # What stands under an id and a version never changes: whoever replaces it meanwhile writes another row.
                values = columns(document.decode(row.body))
                this = (table.c.id == row.id, table.c.version == row.version)
                session.execute(update(table).where(*this).values(**values))
            if rows:
                _mark(session, kind, rows[-1].id)
            session.commit()
        except DBAPIError as error:
            session.rollback()
            if getattr(error.orig, "sqlstate", None) not in _RETRIED:
                raise
            if attempt == _ATTEMPTS:
                raise Unavailable("contention", "Trop d’écritures simultanées.", retry_after_s=1) from error
        else:
            return rows
    raise AssertionError("unreachable")
