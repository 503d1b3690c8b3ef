"""« Ces images ne sont pas celles de ce patient »: the studies of a dossier, and one beside the patients it may be of.

Promises: for who organises the RCP; both sides are shown to who decides once the line that says so is durable.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.model.audit import AuditFacts
from gateway.model.dossier import Dossier
from gateway.model.partner import Partner
from gateway.portal import views as v
from gateway.portal import words
from gateway.portal.imaging_cases import comparison
from gateway.portal.viewer import attached_studies, study_name
from gateway.rcp import access, imaging_detaching
from gateway.rcp.access import Caller
from gateway.rcp.imaging_cases import REASON_CHARACTERS

__all__ = ["detaching_list", "detaching_page", "detaching_url"]


def detaching_url(session: Session, caller: Caller, row: Dossier) -> str:
    """Return the page's address for who may detach images, else nothing."""
    return f"/dossiers/{row.id}/detacher" if imaging_detaching.may_detach(session, caller, row) else ""


def _facts(caller: Caller, row: Dossier, *others: uuid.UUID) -> AuditFacts:
    persons = (row.record_id, *others)
    return access.facts(
        caller, "consultation", persons=persons, dossier=row.id, object_type="Dossier", object_id=str(row.id)
    )


def _patient(row: Dossier, now: datetime) -> v.Patient:
    return words.patient_view(row.record, now.date(), row.partner.name if row.partner else "")


def detaching_list(
    session: Session, caller: Caller, now: datetime, dossier_id: uuid.UUID
) -> tuple[v.DetachingList, list[AuditFacts]]:
    """Return the studies of a dossier.

    Raises
    ------
    NotFound
        The dossier does not exist for the caller, or he does not organise its RCP.
    """
    row = imaging_detaching.held(session, caller, dossier_id)
    studies = attached_studies(session, caller, row)
    senders = select(Partner.id, Partner.name).where(Partner.id.in_({one.partner_id for one in studies}))
    names = dict(session.execute(senders).tuples().all())
    page = v.DetachingList(
        reference=row.reference,
        patient=_patient(row, now),
        studies=tuple(
            (study_name(one), names.get(one.partner_id, ""), f"/dossiers/{row.id}/detacher/{one.id}") for one in studies
        ),
        back_url=f"/dossiers/{row.id}",
    )
    return page, [_facts(caller, row)]


def detaching_page(
    session: Session,
    caller: Caller,
    now: datetime,
    dossier_id: uuid.UUID,
    study_id: uuid.UUID,
    *,
    reference: str = "",
    given: str = "",
    errors: Mapping[str, str] | None = None,
) -> tuple[v.DetachingPage, list[AuditFacts]]:
    """Return one study of a dossier beside its patient, and beside another dossier's if one is named.

    Raises
    ------
    NotFound
        The dossier or the study does not exist for the caller, or he does not organise the RCP.
    """
    found = imaging_detaching.read(session, caller, dossier_id, study_id, reference)
    row, other = found.dossier, found.other
    faults = dict(errors or {})
    if reference and other is None:
        faults["reference"] = "Aucun dossier d’un autre patient, que vous organisez, ne porte cette référence."
    compared = [found.own] if other is None else [found.own, other]
    named = reference.strip().upper() if other is not None else ""
    page = v.DetachingPage(
        reference=row.reference,
        patient=_patient(row, now),
        study=study_name(found.study),
        labels=(f"Dossier {row.reference}",) if other is None else (f"Dossier {row.reference}", f"Dossier {named}"),
        traits=tuple(comparison(found.study, compared)),
        against=tuple(words.WORK_REASONS.get(one, one) for one in other.against) if other is not None else (),
        other=named,
        seen=found.seen,
        given=given,
        reason_characters=REASON_CHARACTERS,
        back_url=f"/dossiers/{row.id}/detacher",
        url=f"/dossiers/{row.id}/detacher/{found.study.id}",
        errors=faults,
    )
    return page, [_facts(caller, row, *(one.record.id for one in compared[1:]))]
