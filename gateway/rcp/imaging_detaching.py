"""A study taken from the patient to whom it was attached by mistake: a person decides, and says why.

Promises
--------
* Who organises the RCP of a dossier detaches a study that stands in it; for anybody else it does not exist (404,
  audited).
* He decides on what he saw (`Detachable.seen`); a decision over a mark that has changed is refused. Twice is once.
* The study leaves every dossier of that patient in one step, with its ImagingStudy and what validated reports say of
  it; it goes into quarantine, onto the work list, or to the patient of another dossier that he organises.
* Nothing attaches it to the same patient again but a person, whatever comes, is corrected or is ordered later.
* Who did it, when and why stands in the case on the work list; the trail names both patients.

[spec fhir-fr 6.2; DECISIONS 7, 11]
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from gateway.errors import Conflict, InvalidContent
from gateway.model.dossier import Dossier
from gateway.model.imaging import Study, StudyDossier
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord, WorkItem
from gateway.model.store import utcnow
from gateway.rcp import access, imaging, imaging_cases, imaging_match, work_list
from gateway.rcp.access import Caller
from gateway.rcp.imaging_cases import GIVEN, Candidate
from gateway.rcp.imaging_decisions import decide, part, parted, picture
from gateway.rcp.imaging_match import ATTACHED, DETACHED, QUARANTINED
from gateway.rcp.step import Step

__all__ = ["Detachable", "detach", "held", "may_detach", "read"]


@dataclass(frozen=True, slots=True)
class Detachable:
    """A study beside the patient to whom it is attached.

    Parameters
    ----------
    own
        That patient.
    other
        The patient of another dossier, when one is compared.
    seen
        Mark of all sides, to be given back with the decision.
    """

    dossier: Dossier
    study: Study
    own: Candidate
    other: Candidate | None
    seen: str


def may_detach(session: Session, caller: Caller, dossier: Dossier) -> bool:
    """Whether the caller organises the RCP of a dossier."""
    return bool(access.roles_in(session, caller, dossier.session.rcp_id) & access.ORGANISERS)


def held(session: Session, caller: Caller, dossier_id: uuid.UUID) -> Dossier:
    """Return a dossier whose images the caller may detach.

    Raises
    ------
    NotFound
        It does not exist for him, or he does not organise its RCP.
    """
    dossier = session.scalars(select(Dossier).where(Dossier.id == dossier_id, access.dossiers(caller))).one_or_none()
    if dossier is None or not may_detach(session, caller, dossier):
        raise access.hidden(caller, "Dossier", dossier_id)
    return dossier


def read(
    session: Session, caller: Caller, dossier_id: uuid.UUID, study_id: uuid.UUID, reference: str = ""
) -> Detachable:
    """Return a study of a dossier, beside its patient and, if one is named, the patient of another dossier.

    Raises
    ------
    NotFound
        The dossier or the study does not exist for him.
    """
    dossier = held(session, caller, dossier_id)
    study = session.scalars(
        select(Study)
        .join(StudyDossier, StudyDossier.study_id == Study.id)
        .where(StudyDossier.dossier_id == dossier.id, Study.id == study_id, Study.state == ATTACHED)
    ).one_or_none()
    if study is None:
        raise access.hidden(caller, "Study", study_id)
    own = session.get_one(PatientRecord, study.record_id)
    other = imaging_cases.record_behind(session, caller, reference) if reference else None
    if other is not None and other.id in imaging_match.records_of_person(session, own):
        other = None
    records = [own] if other is None else [own, other]
    first, *rest = (imaging_cases.candidate(session, caller, study, one) for one in records)
    return Detachable(dossier, study, first, rest[0] if rest else None, picture(study, records))


def detach(
    step: Step,
    dossier_id: uuid.UUID,
    study_id: uuid.UUID,
    *,
    reason: str,
    confirmed: bool,
    seen: str,
    reference: str = "",
) -> None:
    """Take a study from its patient: into quarantine, or to the patient of the dossier `reference`.

    Parameters
    ----------
    confirmed
        Whether he said that he compared the identities.
    seen
        `Detachable.seen` of the page on which he decided.

    Raises
    ------
    NotFound
        The dossier or the study does not exist for him.
    InvalidContent
        ``motif-absent``, ``motif-trop-long``, ``confirmation-absente``, ``enregistrement-absent`` (rules).
    Conflict
        ``situation-changee``: one of the sides says something else now.
    """
    session, caller = step.session, step.caller
    if _done(session, held(session, caller, dossier_id), study_id):
        return
    before = read(session, caller, dossier_id, study_id, reference)
    said = imaging_cases.motive(reason)
    if reference and before.other is None:
        text = "Aucun dossier d’un autre patient, que vous organisez, ne porte cette référence."
        raise InvalidContent("enregistrement-absent", text, expression="reference", rule=True)
    if not confirmed:
        text = "Confirmez que vous avez comparé les identités."
        raise InvalidContent("confirmation-absente", text, expression="confirme", rule=True)
    own, other = before.own.record, before.other.record if before.other is not None else None
    # Held before the records are read, as `imaging_match.recheck` asks: a correction is seen, or sees this.
    keys = imaging_match.keys_of(own) | (imaging_match.keys_of(other) if other is not None else set())
    imaging_match.serialise(session, keys)
    [study] = step.lock(Study, study_id)
    if _done(session, before.dossier, study_id):
        return
    for record in (own, other):
        if record is not None:
            session.refresh(record)
    if read(session, caller, dossier_id, study_id, reference).seen != seen:
        text = "Ce que disent les images ou le dossier patient a changé : relisez les deux côtés."
        raise Conflict("situation-changee", text)
    _move(step, study, own, other, said)


def _done(session: Session, dossier: Dossier, study_id: uuid.UUID) -> bool:
    """Whether this very study was detached from the dossier's patient already: the same form came twice."""
    study = session.get(Study, study_id)
    there = session.get(StudyDossier, (study_id, dossier.id)) if study is not None else None
    if study is None or there is not None:
        return False
    return parted(study, imaging_match.records_of_person(session, dossier.record))


def _move(step: Step, study: Study, own: PatientRecord, other: PatientRecord | None, said: str) -> None:
    session = step.session
    for key in imaging_match.records_of_person(session, own):
        part(study, session.get_one(PatientRecord, key))
    gone = delete(StudyDossier).where(StudyDossier.study_id == study.id).returning(StudyDossier.dossier_id)
    left = sorted(session.scalars(gone))
    if other is None:
        study.state, study.reason, study.record_id = QUARANTINED, DETACHED, None
    else:
        study.record_id, study.settled_at = other.id, None
        decide(study, other, "accepte")
    session.flush()
    partner = session.get_one(Partner, study.partner_id)
    item = WorkItem(
        key=f"etude|{study.id}",
        kind="imagerie",
        reason=DETACHED,
        network_id=partner.network_id,
        partner_id=partner.id,
        record_id=own.id,
        dossier_id=left[-1] if left else None,
        study_id=study.id,
        details={"dossiers": [str(one) for one in left], "motif": said, "par": step.caller.identifier or ""},
    )
    if other is None:
        work_list.ask(session, item)
    else:
        imaging_match.answer(step, study, by=str(step.caller.identifier), decision=GIVEN)
        item.closed_at, item.closed_by, item.decision = utcnow(), step.caller.identifier, GIVEN
        session.add(item)
        session.flush()
        imaging_match.attach(step, study)
    imaging.refresh(step, study)
    step.touch(study)
    imaging_match.tell_reports(step, left)
    for dossier_id in tuple(left) or (None,):
        step.audit(
            "imagerie",
            action="U",
            reason="detachement",
            persons=tuple(one.id for one in (own, other) if one is not None),
            dossier=dossier_id,
            object_type="Study",
            object_id=study.study_instance_uid,
        )
