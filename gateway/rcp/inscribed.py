"""What a dossier brings of its patient's record: all that the software of the RCP's establishment sees beside it.

Of another hospital's record that software (docs/adr/0014) sees the patient and what the hospital itself put forward:
what its inscription names (the ServiceRequest and its Task), the parts of that (the bytes of a document, the results of
a report, whatever a form names), and the images that stand in the dossier. What hangs on the dossier by its own
``dossier_id`` is `gateway.rcp.access`' business.

Promises: nobody opens a resource to himself by naming it: the inscription is written by the patient's hospital alone,
a part counts when whoever wrote it wrote what names it too, and a Task brought by another names nothing new that he
does not see (`named_in`, which the write side asks). The predicate starts at the row that it judges and reaches the few
rows of the same record by their index.
Not promised: what is named by what is named, any further.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sqlalchemy import (
    ColumnElement,
    FromClause,
    LargeBinary,
    Table,
    Text,
    and_,
    cast,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
)

from gateway.model.dossier import Dossier
from gateway.model.imaging import Study, StudyDossier
from gateway.model.representation import TABLES

__all__ = ["brought", "named_in"]

#: Resources that stand for the inscription, with the dossier as their root.
_INSCRIPTION = ("ServiceRequest", "Task")
#: Kept as sent → the types of its parts; a form names whatever it was answered with.
_PARTS: Mapping[str, frozenset[str] | None] = {
    "QuestionnaireResponse": None,
    "DiagnosticReport": frozenset({"Observation", "ImagingStudy", "Binary"}),
    "DocumentReference": frozenset({"Binary"}),
}
_NAMED = re.compile(rb'"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?="|/_history/)')


def named_in(body: bytes) -> frozenset[tuple[str, str]]:
    """Types and ids that the stored bytes of an inscription name here, read as `brought` reads them."""
    found = ((kind.decode("ascii"), key.decode("ascii")) for kind, key in _NAMED.findall(body))
    return frozenset(pair for pair in found if pair[0] in TABLES)


def brought(table: Table, seen: ColumnElement[bool]) -> ColumnElement[bool]:
    """Predicate over one representation table: what the dossiers of its patient bring.

    Parameters
    ----------
    seen
        Predicate over `Dossier`, correlated to it: which dossiers count.
    """
    kind = next(name for name, one in TABLES.items() if one is table)
    if kind == "Patient":
        return exists().where(Dossier.record_id == table.c.record_id, seen).correlate(table)
    if kind == "ImagingStudy":
        held = and_(StudyDossier.study_id == table.c.root_id, StudyDossier.dossier_id == Dossier.id)
        attached = exists().where(held, Study.id == StudyDossier.study_id, Study.state == "rattache", seen)
        return or_(attached.correlate(table), _named(kind, table, seen))
    return _named(kind, table, seen)


def _named(kind: str, row: Table, seen: ColumnElement[bool]) -> ColumnElement[bool]:
    ways = [_by_inscription(kind, row, seen)]
    for holder, parts in _PARTS.items():
        if parts is not None and kind not in parts:
            continue
        one = TABLES[holder].alias(f"holding_{holder.lower()}")
        of_dossier = exists().where(Dossier.id == one.c.dossier_id, seen).correlate(one)
        ways.append(
            exists(
                select(literal(1))
                .select_from(one)
                .where(
                    *_beside(one, row),
                    one.c.partner_id == row.c.partner_id,
                    one.c.root_kind.is_(None),
                    _holds(one, kind, row),
                    or_(of_dossier, and_(one.c.dossier_id.is_(None), _by_inscription(holder, one, seen))),
                )
                .correlate(row)
            )
        )
    return or_(*ways)


def _by_inscription(kind: str, row: FromClause, seen: ColumnElement[bool]) -> ColumnElement[bool]:
    ways = []
    for name in _INSCRIPTION:
        one = TABLES[name].alias(f"naming_{name.lower()}")
        ways.append(
            exists(
                select(literal(1))
                .select_from(one)
                .join(Dossier, Dossier.id == one.c.root_id)
                .where(*_beside(one, row), one.c.root_kind == "Dossier", _mentions(one, kind, row), seen)
                .correlate(row)
            )
        )
    return or_(*ways)


def _beside(one: FromClause, row: FromClause) -> tuple[ColumnElement[bool], ...]:
    """Of the same record, and there: found by the record's index."""
    return one.c.record_id == row.c.record_id, one.c.current, not_(one.c.deleted)


def _mentions(one: FromClause, kind: str, row: FromClause) -> ColumnElement[bool]:
    """Whether stored bytes hold a reference to a row, with or without a version."""
    return or_(_says(one, f'"{kind}/', row, '"'), _says(one, f'"{kind}/', row, "/_history/"))


def _holds(one: FromClause, kind: str, row: FromClause) -> ColumnElement[bool]:
    """`_mentions`, and of bytes by an attachment's address, which may be absolute."""
    said = _mentions(one, kind, row)
    return or_(said, _says(one, "/Binary/", row, '"')) if kind == "Binary" else said


def _says(one: FromClause, begin: str, row: FromClause, end: str) -> ColumnElement[bool]:
    text = literal(begin, Text()) + row.c.id + literal(end, Text())
    needle = cast(func.convert_to(text, literal("UTF8", Text())), LargeBinary())
    return func.position(needle.op("IN")(one.c.body)) > 0
