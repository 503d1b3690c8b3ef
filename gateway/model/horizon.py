"""Cursors below the transaction horizon: how to ask "what is new" without losing a late committer.

A sequence or a clock orders rows by when they were written, not by when they became visible: who reads up to row 2
while row 1 is not committed yet never sees row 1. So whoever reads in order keeps below ``pg_snapshot_xmin``, the
oldest transaction that may still commit: an event exists once nothing older can. Order and cursor are (xid, seq), the
transaction that wrote the row and a number that tells its rows apart.

Promises: a reader that always asks `after` its last `Position` sees each committed row exactly once, in one order that
is the same for every reader. It costs freshness while an old transaction is open: keep transactions short.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import BigInteger, ColumnElement, SQLColumnExpression, and_, func, literal, or_

from gateway.errors import InvalidContent
from gateway.model.store import XactId

__all__ = ["Position", "after", "burn_until", "settled"]

_TOKEN = re.compile(r"(\d{1,20})\.(\d{1,19})", re.ASCII)


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """A place in the order of a table with ``xid`` and a number: everything up to it was seen."""

    xid: int
    seq: int

    def __str__(self) -> str:
        return f"{self.xid}.{self.seq}"

    @classmethod
    def parse(cls, token: str) -> Position:
        """Read what `str` wrote.

        Raises
        ------
        InvalidContent
            ``cursor`` when it is anything else.
        """
        found = _TOKEN.fullmatch(token)
        if found is None:
            raise InvalidContent("cursor", "Ce repère de lecture n’est pas de ceux que la passerelle donne.")
        return cls(int(found[1]), int(found[2]))


def settled(xid: SQLColumnExpression[int]) -> ColumnElement[bool]:
    """Predicate: nothing older than this row can still commit. To be evaluated in the statement that reads the rows."""
    return xid < func.pg_snapshot_xmin(func.pg_current_snapshot(), type_=XactId())


def after(
    xid: SQLColumnExpression[int], seq: SQLColumnExpression[int], position: Position | None
) -> ColumnElement[bool]:
    """Predicate: the row is settled and comes after ``position`` in (xid, seq) order; order the query by both."""
    if position is None:
        return settled(xid)
    mark = literal(position.xid, XactId())
    return and_(settled(xid), xid >= mark, or_(xid > mark, seq > literal(position.seq, BigInteger())))


def burn_until(connection: psycopg.Connection[Any], xid: int) -> None:
    """Spend transaction numbers until new ones are above ``xid``.

    Needed once after a dump was restored into another server: its rows carry the numbers of the old server, and a
    new transaction below them would never be seen by a reader that is past it. ``connection`` must be in autocommit.
    """
    connection.execute("SET statement_timeout = 0")
    connection.execute(
        psycopg.sql.SQL(
            "DO $$ BEGIN WHILE pg_current_xact_id() <= {}::text::xid8 LOOP COMMIT; END LOOP; END $$"
        ).format(psycopg.sql.Literal(str(xid)))
    )
    connection.execute("RESET statement_timeout")
