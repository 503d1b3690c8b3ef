"""« Copies sans identité » of a dossier's images, read from the model.

Promises: for who organises the RCP; what was left out, and what pixels may still show, is said in words.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from gateway.model.audit import AuditFacts
from gateway.model.dossier import Dossier
from gateway.model.imaging_copy import StudyCopy
from gateway.portal import views as v
from gateway.portal import words
from gateway.portal.attachments import octets
from gateway.portal.render import counted
from gateway.portal.viewer import attached_studies, study_name
from gateway.rcp import access, imaging_copies
from gateway.rcp.access import Caller
from gateway.rcp.imaging_copies import BURNED_IN, CHARACTERISTICS, DATES, DONE, EMPTY

__all__ = ["copies_page", "copies_url"]

_STATES: Final[Mapping[str, v.Badge]] = {
    DONE: v.Badge("Prête", "success"),
    EMPTY: v.Badge("Rien à copier", "warning"),
}
_KEPT: Final[Mapping[str, str]] = {
    CHARACTERISTICS: "sexe, âge, taille et poids",
    DATES: "dates et heures d’examen",
    BURNED_IN: "images où une identité est incrustée",
}
_LEFT_OUT: Final[Mapping[str, tuple[str, str]]] = {
    "incrustation": ("image où une identité est incrustée", "images où une identité est incrustée"),
    "copy-not-an-image": ("objet qui n’est pas une image", "objets qui ne sont pas des images"),
}
_UNREADABLE: Final = ("objet illisible ou trop grand", "objets illisibles ou trop grands")


def copies_url(session: Session, caller: Caller, row: Dossier) -> str:
    """Return the page's address for who may have copies made, else nothing."""
    return f"/dossiers/{row.id}/copies" if imaging_copies.may_copy(session, caller, row) else ""


def copies_page(
    session: Session, caller: Caller, now: datetime, dossier_id: uuid.UUID, errors: Mapping[str, str]
) -> tuple[v.CopiesPage, list[AuditFacts]]:
    """Return the page.

    Raises
    ------
    NotFound
        The dossier does not exist for the caller, or he does not organise its RCP.
    """
    row, found = imaging_copies.copies(session, caller, dossier_id)
    page = v.CopiesPage(
        reference=row.reference,
        patient=words.patient_view(row.record, now.date(), row.partner.name if row.partner else ""),
        copies=tuple(_line(session, row, one) for one in found),
        studies=tuple(v.Choice(str(one.id), study_name(one)) for one in attached_studies(session, caller, row)),
        options=tuple(v.Choice(code, _KEPT[code].capitalize()) for code in imaging_copies.OPTIONS),
        back_url=f"/dossiers/{row.id}",
        images_url=f"/dossiers/{row.id}/images",
        action=f"/dossiers/{row.id}/copies",
        errors=dict(errors),
    )
    line = access.facts(
        caller, "consultation", persons=(row.record_id,), dossier=row.id, object_type="Dossier", object_id=str(row.id)
    )
    return page, [line]


def _line(session: Session, row: Dossier, copy: StudyCopy) -> v.StudyCopyLine:
    said = imaging_copies.summary(session, copy.id)
    ready = copy.state == DONE
    return v.StudyCopyLine(
        pseudonym=copy.pseudonym,
        study=study_name(copy.study),
        state=_STATES.get(copy.state, v.Badge("En préparation : rechargez cette page dans un instant", "info")),
        asked_at=words.local(copy.asked_at, row.session.zone),
        kept=tuple(_KEPT[one] for one in copy.options),
        images=said.copied,
        size=octets(said.size_bytes),
        to_look_at=said.to_look_at if ready else 0,
        left_out=tuple(
            counted(count, *_LEFT_OUT.get(reason, _UNREADABLE)) for reason, count in sorted(said.left_out.items())
        ),
        download_url=f"/dossiers/{row.id}/copies/{copy.id}.zip" if ready else "",
    )
