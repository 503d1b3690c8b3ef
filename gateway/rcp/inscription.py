"""Inscription of one patient to one session of an RCP, and what may change until it is discussed.

[spec fhir-fr 1.12, 2.2, 4.4; DECISIONS 4, 17]

Promises: one dossier an inscription number; same patient, session and tumour twice is a conflict, two tumours are two
dossiers; an unknown RCP or a session that takes no inscription is refused with the next one that does; the dossier
snapshots its correspondents, and a later change of the médecin traitant applies until he is notified; the form is
closed once the dossier is discussed. Concurrent inscriptions to one session queue on the session.
Not promised: that the requester was entitled to ask for this patient (the wire's caller and `identity` decide whose
record it is).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway.errors import Conflict, InvalidContent
from gateway.identifiers import DossierReference, IdNatPs, Urn, uuid7
from gateway.model.directory import Organisation, Practitioner
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import RcpSession
from gateway.model.message import NotificationEntry
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord
from gateway.rcp import dossier_states, fiche, imaging
from gateway.rcp.clinical import form_of, form_values, require_tumour, tumour_of, tumour_values
from gateway.rcp.facts import (
    CodedFact,
    FormFacts,
    InscriptionFacts,
    Participation,
    ProfessionalFact,
    TumourFacts,
)
from gateway.rcp.fiche_fields import concept_of, field_named
from gateway.rcp.session_choice import find_session, require_open
from gateway.rcp.step import Step

__all__ = [
    "amend",
    "cancel",
    "declare_complete",
    "follow_patient",
    "inscribe",
    "replace_form",
    "reschedule",
    "take_tumour",
    "tumour_key",
]

REQUESTER = "demandeur"
TREATING = "medecin-traitant"
#: Sessions that take inscriptions until they end.
#: Dossiers that no longer stand against a new inscription of the same tumour.
_GONE = ("annule", "refuse")
_URGENT = {True: [fiche.URGENT], False: []}


def inscribe(
    step: Step,
    record: PatientRecord,
    facts: InscriptionFacts,
    *,
    partner: Partner | None = None,
    key: uuid.UUID | None = None,
) -> Dossier:
    """Inscribe a patient to a session.

    Parameters
    ----------
    record
        What the requesting organisation says of the patient (`identity.declare`).
    partner
        The organisation that asks; `None` when a professional does so on the portal.
    key
        Id of the dossier, when the wire had to name it before it exists.

    Raises
    ------
    InvalidContent
        ``rcp-inconnue``, ``seance-inconnue``, ``seance-close`` (the text names the next open session),
        ``professionnel-inconnu``, ``code-inconnu`` (topography, morphology); all are rules.
    Conflict
        ``identifiant-deja-utilise`` (number), ``dossier-deja-inscrit`` (patient, session and tumour).
    """
    session = find_session(step.session, facts.session, step.now)
    [session] = step.lock(RcpSession, session.id)
    require_open(step.session, session, step.now)
    number = Urn.parse(facts.number).value if facts.number else Urn.new().value
    if step.session.scalar(select(Dossier.id).where(Dossier.number == number)) is not None:
        text = "Un dossier porte déjà ce numéro d’inscription."
        raise Conflict("identifiant-deja-utilise", text, expression="ServiceRequest.identifier")
    which = tumour_key(facts.tumour)
    _refuse_twin(step.session, record.id, session.id, which)
    requester = _requester(step.session, facts.requester)
    tumour = facts.tumour
    require_tumour(tumour)
    dossier = Dossier(
        id=key or uuid7(),
        number=number,
        reference=DossierReference.new().value,
        placer_system=facts.placer.system if facts.placer else None,
        placer_value=facts.placer.value if facts.placer else None,
        session_id=session.id,
        record_id=record.id,
        partner_id=partner.id if partner else None,
        organisation_id=_organisation(step.session, partner),
        requester_id=requester.id if requester else None,
        participation=(facts.participation or Participation.ABSENT).value,
        rank=_next_rank(step.session, session.id),
        urgent=facts.urgent,
        label=_label(tumour),
        question=facts.question,
        reason_code=facts.reason.code if facts.reason else None,
        reason_text=facts.reason.text if facts.reason else None,
        tumour_key=which,
        clinical=_clinical(tumour, facts.form),
        requested_at=_instant(facts.requested_on, session.zone),
        registered_at=step.now,
    )
    step.session.add(dossier)
    dossier_states.move(step, dossier, "inscrit")
    step.session.flush()
    _take_reasons(step, dossier, (), facts.reasons)
    fiche.require_labels(dossier, form_values(facts.form, strict=True).get("etiquettes", _URGENT[facts.urgent]))
    _snapshot_correspondents(step, dossier, record, requester, facts.requester)
    if facts.form is not None and facts.form.completed:
        _complete(step, dossier)
    step.session.flush()
    step.session.refresh(dossier)
    imaging.attach_waiting(step, dossier)
    step.touch(dossier)
    return dossier


def tumour_key(tumour: TumourFacts | None) -> str:
    """Tell two tumours of one patient apart: the tumour's own identifier, else its topography and side."""
    if tumour is None:
        return ""
    if tumour.identifiers:
        return f"{tumour.identifiers[0].system}|{tumour.identifiers[0].value}"
    parts = (tumour.topography, tumour.morphology, tumour.laterality)
    return "/".join(part.code or "" for part in parts if part is not None)


def _refuse_twin(session: Session, record_id: uuid.UUID, session_id: uuid.UUID, key: str) -> None:
    twin = session.scalar(
        select(Dossier.reference).where(
            Dossier.record_id == record_id,
            Dossier.session_id == session_id,
            Dossier.tumour_key == key,
            Dossier.state.not_in(_GONE),
        )
    )
    if twin is not None:
        text = f"Ce patient est déjà inscrit à cette séance pour cette tumeur (dossier {twin})."
        raise Conflict("dossier-deja-inscrit", text, expression="ServiceRequest")


def _practitioner(session: Session, who: ProfessionalFact | None) -> Practitioner | None:
    if who is None or who.identifier is None:
        return None
    return session.scalar(
        select(Practitioner).where(Practitioner.idnps == IdNatPs.from_wire(who.identifier.value).value)
    )


def _requester(session: Session, who: ProfessionalFact | None) -> Practitioner | None:
    found = _practitioner(session, who)
    if found is None and who is not None and who.identifier is not None:
        text = "Le demandeur n’est pas connu de l’annuaire de cette passerelle."
        raise InvalidContent("professionnel-inconnu", text, expression="ServiceRequest.requester", rule=True)
    return found


def _organisation(session: Session, partner: Partner | None) -> uuid.UUID | None:
    if partner is None or partner.finess is None:
        return None
    return session.scalar(select(Organisation.id).where(Organisation.finess == partner.finess))


def _next_rank(session: Session, session_id: uuid.UUID) -> int:
    return (session.scalar(select(func.max(Dossier.rank)).where(Dossier.session_id == session_id)) or 0) + 1


def _label(tumour: TumourFacts | None) -> str | None:
    if tumour is None:
        return None
    coded = tumour.topography
    return tumour.label or (coded.text or coded.code if coded else None)


def _clinical(tumour: TumourFacts | None, form: FormFacts | None) -> dict[str, Any]:
    clinical: dict[str, Any] = {}
    if tumour is not None:
        clinical["tumour"] = msgspec.to_builtins(tumour)
    if form is not None:
        clinical["form"] = msgspec.to_builtins(form)
    return clinical


def _instant(said: datetime | date | None, zone: str) -> datetime | None:
    if said is None or isinstance(said, datetime):
        return said
    return datetime.combine(said, time(), ZoneInfo(zone)).astimezone(UTC)


def _snapshot_correspondents(
    step: Step,
    dossier: Dossier,
    record: PatientRecord,
    requester: Practitioner | None,
    asked_by: ProfessionalFact | None,
) -> None:
    if requester is not None or asked_by is not None:
        _add_correspondent(step, dossier, REQUESTER, requester, asked_by.display if asked_by else None)
    treating = _treating(step.session, record)
    if treating is not None or record.treating_display is not None or record.treating_idnps is not None:
        _add_correspondent(step, dossier, TREATING, treating, record.treating_display)


def _treating(session: Session, record: PatientRecord) -> Practitioner | None:
    if record.treating_idnps is None:
        return None
    return session.scalar(select(Practitioner).where(Practitioner.idnps == record.treating_idnps))


def _add_correspondent(step: Step, dossier: Dossier, role: str, who: Practitioner | None, display: str | None) -> None:
    step.session.add(
        Correspondent(
            dossier_id=dossier.id,
            practitioner_id=who.id if who else None,
            role=role,
            display=None if who else display,
            since=step.now,
        )
    )


def _complete(step: Step, dossier: Dossier) -> None:
    """The form is complete: that instant is compared with the notification's limit, once for each session."""
    fiche.require_enough(dossier)
    if dossier.prefiche_at is None:
        dossier.prefiche_at = step.now
    if dossier.state == "inscrit":
        dossier_states.move(step, dossier, "prefiche")


def declare_complete(step: Step, dossier_id: uuid.UUID) -> Dossier:
    """Say at the portal that the fiche is complete.

    Raises
    ------
    NotFound, Forbidden, Conflict
        As `fiche.held`.
    InvalidContent
        ``champ-obligatoire``.
    """
    dossier = fiche.held(step, dossier_id)
    if dossier.prefiche_at is None:
        _complete(step, dossier)
        fiche.noted(step, dossier, "Dossier")
    return dossier


def take_tumour(step: Step, dossier: Dossier, tumour: TumourFacts) -> bool:
    """Take a new description of the tumour; return whether it says something else.

    Raises
    ------
    InvalidContent
        ``code-inconnu``: a topography or morphology of no national list.
    """
    known = tumour_of(dossier)
    if known == tumour:
        return False
    require_tumour(tumour)
    # A new object, because changes inside a JSON value are not seen.
    dossier.clinical = {**dossier.clinical, "tumour": msgspec.to_builtins(tumour)}
    fiche.take(dossier, tumour_values(known), tumour_values(tumour), source="tumeur", at=step.now)
    return True


def _take_reasons(step: Step, dossier: Dossier, before: Sequence[CodedFact], after: Sequence[CodedFact]) -> bool:
    """Take all the motives that the request names; what is none of the national four is words only."""
    field = field_named("motif.motifs")
    said = []
    for reasons in (before, after):
        codes = [one.code for one in reasons if one.code and concept_of(field, one.code)]
        said.append({"motif.motifs": codes} if codes else {})
    return fiche.take(dossier, *said, source="inscription", at=step.now)


def replace_form(step: Step, dossier: Dossier, form: FormFacts) -> None:
    """Take a new version of the form, until the dossier is discussed.

    Raises
    ------
    Conflict
        ``formulaire-clos``: the dossier is discussed, refused or cancelled.
    InvalidContent
        ``code-inconnu``, ``champ-invalide``: an answer is none of its field's; ``champ-obligatoire``: the form is
        declared complete and is not; ``etiquette-inconnue``, ``etiquette-absente``.
    """
    if dossier.state not in dossier_states.open_states():
        text = "Le formulaire ne peut plus changer : le dossier est discuté, refusé ou annulé."
        raise Conflict("formulaire-clos", text, expression="QuestionnaireResponse")
    before, after = form_values(form_of(dossier)), form_values(form, strict=True)
    # A new object, because changes inside a JSON value are not seen.
    dossier.clinical = {**dossier.clinical, "form": msgspec.to_builtins(form)}
    fiche.take(dossier, before, after, source="formulaire", at=step.now)
    if before.get("etiquettes") != after.get("etiquettes"):
        fiche.require_labels(dossier, after.get("etiquettes", _URGENT[dossier.urgent]))
    asked = form.text("motif.question")
    if asked:
        dossier.question = asked
    if form.completed:
        _complete(step, dossier)
    fiche.noted(step, dossier, "QuestionnaireResponse")


def amend(step: Step, dossier: Dossier, facts: InscriptionFacts, before: InscriptionFacts | None = None) -> None:
    """Take what the requester says anew: question, reasons, urgency, the tumour, or another session.

    Parameters
    ----------
    before
        What the same request said last: what it merely repeats overrides nothing that was written since.

    Raises
    ------
    Conflict
        ``dossier-clos``: it is discussed, refused or cancelled.
    InvalidContent
        As `inscribe`, when the session changes.
    """
    session = find_session(step.session, facts.session, step.now)
    known = tumour_of(dossier)
    tumour = facts.tumour or known
    asked = facts.question if before is None or facts.question != before.question else None
    said = {
        "question": asked or dossier.question,
        "reason_code": facts.reason.code if facts.reason else dossier.reason_code,
        "reason_text": facts.reason.text if facts.reason else dossier.reason_text,
        "urgent": facts.urgent if before is None or facts.urgent != before.urgent else dossier.urgent,
        "label": _label(tumour) if _label(tumour) != _label(known) else dossier.label,
    }
    stays = dossier.state in dossier_states.open_states()
    taken = stays and _take_reasons(step, dossier, before.reasons if before else (), facts.reasons)
    taken = (stays and tumour is not None and take_tumour(step, dossier, tumour)) or taken
    changed = [name for name, value in said.items() if getattr(dossier, name) != value]
    if not changed and not taken and session.id == dossier.session_id:
        return
    if dossier.state not in dossier_states.open_states():
        text = "L’inscription ne peut plus changer : le dossier est discuté, refusé ou annulé."
        raise Conflict("dossier-clos", text, expression="ServiceRequest")
    for name in changed:
        setattr(dossier, name, said[name])
    if session.id != dossier.session_id:
        reschedule(step, dossier, session)
    fiche.noted(step, dossier, "ServiceRequest")


def cancel(step: Step, dossier: Dossier, reason: str | None = None) -> None:
    """Withdraw a dossier at its requester's or the secretariat's wish; nothing more is sent for it."""
    dossier_states.move(step, dossier, "annule", reason)


def reschedule(step: Step, dossier: Dossier, to: RcpSession, reason: str | None = None) -> None:
    """Move a dossier to another session of the same or another RCP; its form stays, its rank is new.

    Raises
    ------
    InvalidContent
        ``seance-close``, or ``passage-impossible`` when it was already discussed.
    Conflict
        ``dossier-deja-inscrit``.
    """
    [session] = step.lock(RcpSession, to.id)
    require_open(step.session, session, step.now)
    _refuse_twin(step.session, dossier.record_id, session.id, dossier.tumour_key)
    dossier.rank = _next_rank(step.session, session.id)
    dossier.session_id = session.id
    dossier.session = session
    # Rules of the new session: the limit is compared with the instant of its own registration.
    dossier.registered_at = step.now
    complete = dossier.prefiche_at is not None
    dossier.prefiche_at = None
    dossier_states.move(step, dossier, "reporte", reason)
    if complete:
        dossier.prefiche_at = step.now
        dossier_states.move(step, dossier, "prefiche")


def follow_patient(step: Step, record: PatientRecord) -> list[Dossier]:
    """Carry a change of médecin traitant into the dossiers whose médecin traitant was not notified yet."""
    treating = _treating(step.session, record)
    changed = []
    dossiers = step.session.scalars(
        select(Dossier)
        .where(Dossier.record_id == record.id, Dossier.state.in_(sorted(dossier_states.open_states())))
        .order_by(Dossier.id)
    ).unique()
    for dossier in dossiers:
        known = [one for one in dossier.correspondents if one.role == TREATING]
        if any(one.practitioner_id == (treating.id if treating else None) for one in known) or _notified(step, dossier):
            continue
        for one in known:
            step.session.delete(one)
        step.session.flush()
        if treating is not None or record.treating_display or record.treating_idnps:
            _add_correspondent(step, dossier, TREATING, treating, record.treating_display)
        step.session.flush()
        step.session.refresh(dossier)
        dossier.version += 1
        step.touch(dossier)
        changed.append(dossier)
    return changed


def _notified(step: Step, dossier: Dossier) -> bool:
    sent = select(NotificationEntry.id).where(
        NotificationEntry.dossier_id == dossier.id,
        NotificationEntry.session_id == dossier.session_id,
        NotificationEntry.message_id.is_not(None),
    )
    return step.session.scalar(sent.limit(1)) is not None
