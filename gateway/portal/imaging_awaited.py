"""« Images attendues et reçues » of one dossier, read from the model.

Promises: what is missing is said in words beside what came; who ordered or declared it is named by his organisation or
his number, never the patient.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from sqlalchemy.orm import Session

from gateway.model.audit import AuditFacts
from gateway.model.dossier import Dossier
from gateway.portal import views as v
from gateway.portal import words
from gateway.portal.dossiers import visible_dossier
from gateway.portal.render import counted, short_date
from gateway.rcp import access, fiche
from gateway.rcp.access import Caller
from gateway.rcp.imaging_awaited import Awaited, Imagery
from gateway.rcp.imaging_orders import DECLARED, LABEL_CHARACTERS, MODALITIES

__all__ = ["awaited_images", "awaited_page"]


def awaited_images(session: Session, row: Dossier, *, editable: bool, removable: bool = False) -> v.AwaitedImages:
    """Return what a dossier awaits and what of it came."""
    known = fiche.imagery_of(session, [row])[row.id]
    return v.AwaitedImages(
        received=known.received,
        state=_state(known),
        lines=tuple(_line(row, one, removable=editable and removable) for one in known.awaited),
        edit_url=f"/dossiers/{row.id}/images-attendues" if editable and not removable else "",
    )


def _state(known: Imagery) -> v.Badge:
    if known.missing:
        said = counted(len(known.missing), "examen manque", "examens manquent")
        return v.Badge(said, "warning")
    if known.received:
        return v.Badge("Rien ne manque", "success")
    return v.Badge("Sans imagerie", "neutral") if known.without else v.Badge("Aucune image", "warning")


def _line(row: Dossier, one: Awaited, *, removable: bool) -> v.AwaitedLine:
    declared = one.source.startswith(DECLARED)
    house = row.partner.name if row.partner is not None else "l’établissement"
    return v.AwaitedLine(
        label=one.label,
        modality=MODALITIES.get(one.modality or "", one.modality or ""),
        planned=short_date(one.planned_on) if one.planned_on else "",
        by=f"déclaré par {one.author or 'une personne'}" if declared else f"demandé par {house}",
        received=one.study_id is not None,
        remove_url=f"/dossiers/{row.id}/images-attendues/{one.id}/retirer" if removable and declared else "",
    )


def awaited_page(
    session: Session,
    caller: Caller,
    dossier_id: uuid.UUID,
    *,
    key: str,
    given: Mapping[str, str],
    errors: Mapping[str, str],
) -> tuple[v.AwaitedPage, list[AuditFacts]]:
    """Return the page on which awaited images are declared.

    Raises
    ------
    NotFound
        The dossier does not exist for the caller, or he reads it only.
    """
    row = visible_dossier(session, caller, dossier_id)
    if not fiche.editable(session, caller, row):
        raise access.hidden(caller, "Dossier", dossier_id)
    page = v.AwaitedPage(
        reference=row.reference,
        patient=words.patient_view(row.record, row.registered_at.date(), row.partner.name if row.partner else ""),
        images=awaited_images(session, row, editable=True, removable=True),
        back_url=f"/dossiers/{row.id}",
        action=f"/dossiers/{row.id}/images-attendues",
        key=key,
        label_characters=LABEL_CHARACTERS,
        modalities=tuple(v.Choice(code, said, code == given.get("modalite")) for code, said in MODALITIES.items()),
        given=given.get("examen", ""),
        planned=given.get("prevu", ""),
        errors=dict(errors),
    )
    line = access.facts(
        caller, "consultation", persons=(row.record_id,), dossier=row.id, object_type="Dossier", object_id=str(row.id)
    )
    return page, [line]
