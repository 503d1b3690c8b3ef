"""« Envoyer des images » of a dossier, read from the model.

Promises: for who organises the RCP; each sending says to whom, when, by whom, and what became of it; never an address.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from gateway.model.audit import AuditFacts
from gateway.model.dossier import Dossier
from gateway.model.imaging import Study
from gateway.portal import views as v
from gateway.portal import words
from gateway.portal.viewer import attached_studies, study_name
from gateway.rcp import access, imaging_sending
from gateway.rcp.access import Caller
from gateway.rcp.imaging_destinations import Offered
from gateway.rcp.imaging_sending import Sending

__all__ = ["sending_page", "sending_url"]

_STATES: Final[Mapping[str, v.Badge]] = {
    "en-attente": v.Badge("En file d’attente", "info"),
    "envoye": v.Badge("Envoyée", "success"),
    "refuse": v.Badge("Refusée, à traiter", "danger"),
    "parque": v.Badge("Échec, à traiter", "danger"),
    "annule": v.Badge("Annulée"),
}


def sending_url(session: Session, caller: Caller, row: Dossier) -> str:
    """Return the page's address for who may send images, else nothing."""
    return f"/dossiers/{row.id}/envois" if imaging_sending.may_send(session, caller, row) else ""


def sending_page(
    session: Session,
    caller: Caller,
    now: datetime,
    dossier_id: uuid.UUID,
    given: Mapping[str, str],
    errors: Mapping[str, str],
) -> tuple[v.SendingPage, list[AuditFacts]]:
    """Return the page.

    Raises
    ------
    NotFound
        The dossier does not exist for the caller, or he does not organise its RCP.
    """
    row, places = imaging_sending.places(session, caller, dossier_id)
    studies = attached_studies(session, caller, row)
    page = v.SendingPage(
        reference=row.reference,
        patient=words.patient_view(row.record, now.date(), row.partner.name if row.partner else ""),
        lines=tuple(_line(row, studies, one) for one in imaging_sending.sent(session, row, places)),
        studies=tuple(
            v.Choice(str(one.id), study_name(one), selected=given.get("etude") == str(one.id)) for one in studies
        ),
        destinations=tuple(
            v.Choice(one.to, _place(one), selected=given.get("destination") == one.to) for one in places
        ),
        back_url=f"/dossiers/{row.id}",
        action=f"/dossiers/{row.id}/envois",
        errors=dict(errors),
    )
    line = access.facts(
        caller, "consultation", persons=(row.record_id,), dossier=row.id, object_type="Dossier", object_id=str(row.id)
    )
    return page, [line]


def _place(one: Offered) -> str:
    # A server's address is no secret of its host's, and says nothing to who chooses: its machine does.
    return f"{one.partner} – {one.to.split('/')[2] if one.web else one.to}"


def _line(row: Dossier, studies: Sequence[Study], one: Sending) -> v.SendingLine:
    message = one.message
    known = next((study for study in studies if study.study_instance_uid == one.study_uid), None)
    waits = message.state == "en-attente" and message.attempts > 0
    state = v.Badge("Nouvel essai à venir", "warning") if waits else _STATES.get(message.state)
    return v.SendingLine(
        study=study_name(known) if known is not None else "Étude",
        to=one.partner,
        state=state or words.message_badge(message.state),
        asked_at=words.local(message.domain_at, row.session.zone),
        by=str(message.details.get("par", "")),
        images=one.objects,
        said=(one.said or "") if one.failed or waits else "",
        failed=one.failed,
        again_url=f"/dossiers/{row.id}/envois/{message.id}/reprise" if one.failed and one.offered else "",
    )
