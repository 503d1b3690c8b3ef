"""How many bytes of resources one answer holds: known before they are read.

Promises: what is read together is never more than ``RCP_LIMIT_ANSWER_BYTES``, and at most one content of the blob store
beyond it; bodies too long for each row of an answer to have one like it are weighed first, and read only as far as they
fit. Rows of ordinary length cost no second statement. Not promised: the same bound for one resource alone, which is as
long as it was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, Table, Text, case, cast, column, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from gateway.fhir.reading import Budget, Reading, columns
from gateway.model.representation import TABLES

__all__ = ["columns_under", "share", "weighed"]


def share(room: int, rows: int) -> int:
    """The length that each of so many bodies may have, that all fit."""
    return max(1, room) // max(1, rows)


def columns_under(table: Table, most: int) -> list[Any]:
    """Columns that an answer is made of; a body longer than ``most`` bytes stays where it is, and is null."""
    # The length stands beside a long value: it is not read for it.
    body = case((func.octet_length(table.c.body) <= literal(most), table.c.body)).label("body")
    return [body if one is table.c.body else one for one in columns(table)]


async def weighed(
    reading: Reading, kind: str, rows: Sequence[Any], room: int, budget: Budget, *, least: int = 1
) -> list[Any]:
    """Those of the first rows that fit, each with its body.

    Parameters
    ----------
    room
        Bytes that they may have together.
    least
        Rows that are there whatever they weigh: whoever follows the links must get on.
    """
    if all(row["body"] is not None for row in rows):
        return list(rows)  # of a length each, all fit
    table = TABLES[kind]
    long = [(row["id"], row["version"]) for row in rows if row["body"] is None]
    found = await reading.fetch(_of(table, func.octet_length(table.c.body).label("size"), long), budget)
    sizes = {(row["id"], row["version"]): int(row["size"]) for row in found}
    fitting: list[Any] = []
    for row in rows:
        room -= sizes[row["id"], row["version"]] if row["body"] is None else len(row["body"])
        if room < 0 and len(fitting) >= least:
            break
        fitting.append(row)
    long = [(row["id"], row["version"]) for row in fitting if row["body"] is None]
    found = await reading.fetch(_of(table, table.c.body, long), budget) if long else []
    bodies = {(row["id"], row["version"]): row["body"] for row in found}
    return [
        row if row["body"] is not None else {**dict(row), "body": bodies[row["id"], row["version"]]} for row in fitting
    ]


def _of(table: Table, wanted: ColumnElement[Any], named: Sequence[tuple[str, int]]) -> Select[Any]:
    """Ask something of versions by their names."""
    ids = cast(literal([key for key, _ in named], ARRAY(Text())), ARRAY(Text()))
    versions = cast(literal([version for _, version in named], ARRAY(Integer())), ARRAY(Integer()))
    asked = func.unnest(ids, versions).table_valued(column("id", Text()), column("version", Integer()))
    asked = asked.render_derived("asked")
    return select(table.c.id, table.c.version, wanted).join_from(
        asked, table, (table.c.id == asked.c.id) & (table.c.version == asked.c.version)
    )
