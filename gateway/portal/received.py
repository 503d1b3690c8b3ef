"""The documents that others sent about the patient, in the fiche's panel of what came from elsewhere.

Promises: only those that were attached to this dossier, or to its patient before he had one; what was replaced or
withdrawn says so. Titles and authors are in the sender's words. The bytes are saved from there
(`gateway.portal.received_routes`), unless they were withdrawn.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from gateway.model.dossier import Dossier
from gateway.model.received import ReceivedDocument
from gateway.portal import views as v
from gateway.portal import words
from gateway.rcp import attachments

__all__ = ["received_lines", "shown_with"]

_SHOWN = 50
_STATES = {"attache": "", "remplace": ", remplacé par une version plus récente", "retire": ", retiré par son auteur"}


def shown_with(document: ReceivedDocument, row: Dossier) -> bool:
    """Whether the bytes of a document may be had by whoever sees a dossier."""
    if document.channel == attachments.CHANNEL:
        return False  # beside the dossier, by addresses of their own
    here = document.dossier_id == row.id or (document.dossier_id is None and document.record_id == row.record_id)
    return here and document.state in {"attache", "remplace"} and document.sha256 is not None


def _files(one: ReceivedDocument, row: Dossier) -> tuple[tuple[str, str], ...]:
    """Label and address of what may be saved."""
    if not shown_with(one, row):
        return ()
    base = f"/dossiers/{row.id}/documents/{one.id}"
    pdf = (("PDF", f"{base}.pdf"),) if one.format in {"n1", "pdf"} else ()
    return (*pdf, *((("CDA", f"{base}.xml"),) if one.format != "pdf" else ()))


def received_lines(session: Session, row: Dossier) -> Iterable[v.InteropLine]:
    """One line a document, latest first."""
    patient = ReceivedDocument.dossier_id.is_(None) & (ReceivedDocument.record_id == row.record_id)
    found = session.scalars(
        select(ReceivedDocument)
        .where(
            or_(ReceivedDocument.dossier_id == row.id, patient),
            ReceivedDocument.state.in_(sorted(_STATES)),
            ReceivedDocument.sha256.is_not(None),
            ReceivedDocument.channel != attachments.CHANNEL,
        )
        .order_by(ReceivedDocument.received_at.desc(), ReceivedDocument.id)
        .limit(_SHOWN)
    )
    for one in found:
        named = one.title or one.type_label or "sans titre"
        said = f"Document reçu\u00a0: {named}{_STATES[one.state]}"
        at = words.local(one.received_at, row.session.zone)
        yield v.InteropLine(one.author or "Auteur non indiqué", said, at, _files(one, row))
