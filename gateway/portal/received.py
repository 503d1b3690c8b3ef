"""The documents that others sent about the patient, in the fiche's panel of what came from elsewhere.

Promises: only those that were attached to this dossier, or to its patient before he had one; what was replaced or
withdrawn says so. Titles and authors are in the sender's words. The bytes are read over FHIR.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from gateway.model.dossier import Dossier
from gateway.model.received import ReceivedDocument
from gateway.portal import views as v
from gateway.portal import words

__all__ = ["received_lines"]

_SHOWN = 50
_STATES = {"attache": "", "remplace": ", remplacé par une version plus récente", "retire": ", retiré par son auteur"}


def received_lines(session: Session, row: Dossier) -> Iterable[v.InteropLine]:
    """One line a document, latest first."""
    patient = ReceivedDocument.dossier_id.is_(None) & (ReceivedDocument.record_id == row.record_id)
    found = session.scalars(
        select(ReceivedDocument)
        .where(
            or_(ReceivedDocument.dossier_id == row.id, patient),
            ReceivedDocument.state.in_(sorted(_STATES)),
            ReceivedDocument.sha256.is_not(None),
        )
        .order_by(ReceivedDocument.received_at.desc(), ReceivedDocument.id)
        .limit(_SHOWN)
    )
    for one in found:
        named = one.title or one.type_label or "sans titre"
        said = f"Document reçu\u00a0: {named}{_STATES[one.state]}"
        yield v.InteropLine(one.author or "Auteur non indiqué", said, words.local(one.received_at, row.session.zone))
