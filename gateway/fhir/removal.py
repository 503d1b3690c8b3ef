"""Deleting over FHIR: what its owner wrote and nothing uses is gone, its versions stay.

[FHIR R4 http#delete; DECISIONS 6]

Promises: only the owner deletes; what a dossier uses or another resource refers to stays (409 that names
``entered-in-error``, and the types that refer, never which resource), unless whoever refers may not see it: to name an
id holds nobody's resource; who refers to a resource and who deletes it queue up, so that one of the two is refused; a
second delete does nothing. Not promised: anything for roots that have no verb to take them back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, case, func, literal, not_, or_, select

from gateway.errors import Conflict
from gateway.fhir import search_columns
from gateway.fhir.keeping import Owner, remove
from gateway.fhir.search_conditions import refers
from gateway.fhir.write_orders import forget_order
from gateway.fhir.writing import Operation, Writing, reference_key
from gateway.model.meeting import RcpSession
from gateway.model.person import PatientRecord
from gateway.model.representation import TABLES
from gateway.rcp import access, identity
from gateway.rcp.access import Caller, CallerKind

__all__ = ["carry_out", "require_unreferred"]

#: Roots whose resources the gateway alone writes, and whose references it chose itself.
_MADE_HERE = frozenset({"Study"})
_ADVICE = "utilisez le statut « entered-in-error »."


def carry_out(writing: Writing, operation: Operation) -> None:
    """Delete what a located operation concerns.

    Raises
    ------
    Conflict
        ``ressource-utilisee``, ``patient-utilise``.
    """
    writing.partner  # noqa: B018 - refuses whoever may not write, before any effect
    row = operation.before
    if operation.untouched or row is None:
        return
    # Whoever refers to it now waits, and then finds it gone.
    writing.step.serialise(reference_key(operation.kind, row.id))
    withdraw = _ROOTS.get(row.root_kind) if row.root_kind else _nothing
    if withdraw is None or (row.root_kind is None and row.dossier_id is not None):
        raise _used(operation, "Un dossier de RCP utilise cette ressource")
    withdraw(writing, row)
    owner = Owner(
        partner_id=row.partner_id,
        record_id=row.record_id,
        dossier_id=row.dossier_id,
        network_id=row.network_id,
        root_kind=row.root_kind,
        root_id=row.root_id,
    )
    remove(writing.step.session, operation.kind, row.id, owner)
    forget_order(writing, operation.kind, row.id)
    writing.removed[operation.kind, row.id] = row
    if row.root_kind is None:
        writing.step.audit(
            "modification",
            action="D",
            persons=(row.record_id,) if row.record_id else (),
            dossier=row.dossier_id,
            object_type=operation.kind,
            object_id=row.id,
            object_version=str(row.version + 1),
        )


def _nothing(_writing: Writing, _row: Any) -> None:
    """What is kept as sent stands for nothing else."""


def _patient(writing: Writing, row: Any) -> None:
    record = writing.step.session.get(PatientRecord, row.root_id)
    if record is not None:
        identity.withdraw(writing.step, record)


#: Roots that a verb takes back, by what stands behind the resource; the others stay.
_ROOTS: Mapping[str, Callable[[Writing, Any], None]] = {"PatientRecord": _patient}


def _used(operation: Operation, why: str) -> Conflict:
    text = f"{why} : elle ne se supprime pas ; {_ADVICE}"
    return Conflict("ressource-utilisee", text, expression=operation.where or operation.kind)


def require_unreferred(writing: Writing, operation: Operation) -> None:
    """Refuse a removal, once all of the step is written, while something still refers to what is gone.

    Raises
    ------
    Conflict
        ``ressource-utilisee``, with the types that refer.
    """
    row = writing.removed.get((operation.kind, operation.identity or ""))
    if row is None:
        return
    kinds = list(_referring(writing, operation.kind, row))
    if kinds:
        raise _used(operation, f"Des ressources {', '.join(kinds)} se réfèrent à celle-ci")


def _referring(writing: Writing, kind: str, row: Any) -> Iterator[str]:
    """Types that refer to a resource: by a search parameter, or anywhere in what is kept of the same patient."""
    text = f"{kind}/{row.id}"
    known: dict[Any, bool] = {}
    for other, table in TABLES.items():
        named = [
            refers(other, one, [text]) for one in search_columns.parameters(other).values() if one.kind == "reference"
        ]
        if row.record_id is not None:
            named.append((table.c.record_id == row.record_id) & _mentions(table, text))
        wanted = (table.c.current, not_(table.c.deleted), not_((table.c.id == row.id) & literal(other == kind)))
        session_id = case((table.c.root_kind == "RcpSession", table.c.root_id))
        by = select(table.c.partner_id, table.c.root_kind, session_id).where(*wanted, or_(*named)).distinct()
        for who in writing.step.session.execute(by) if named else ():
            if tuple(who) not in known:
                known[tuple(who)] = _counts(writing, kind, row, *who)
            if known[tuple(who)]:
                yield other
                break


def _counts(writing: Writing, kind: str, row: Any, partner_id: Any, root_kind: str | None, session_id: Any) -> bool:
    """Whether what an organisation refers to a resource by holds it: whoever may not see it holds nothing.

    Parameters
    ----------
    session_id
        Of an RCP's session, which belongs to nobody: the software of whoever runs the RCP wrote it.
    """
    if partner_id == row.partner_id or root_kind in _MADE_HERE:
        return True
    session = writing.step.session
    if partner_id is None:
        held = session.get(RcpSession, session_id) if session_id is not None else None
        return held is None or held.rcp_id in access.run_by(session, row.partner_id)
    caller = Caller(kind=CallerKind.CLIENT, partner_id=partner_id, rcps=access.run_by(session, partner_id))
    table = TABLES[kind]
    seen = select(literal(1)).where(table.c.id == row.id, table.c.current, access.representations(caller, table))
    return session.scalar(seen) is not None


def _mentions(table: Any, text: str) -> ColumnElement[bool]:
    """Whether the stored bytes hold a reference, with or without a version."""
    needles = (f'"{text}"'.encode(), f'"{text}/_history/'.encode())
    return or_(*(func.position(literal(needle, LargeBinary()).op("IN")(table.c.body)) > 0 for needle in needles))
