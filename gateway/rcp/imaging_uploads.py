"""Image objects that a person lays beside a dossier: from a disc, or from another hospital.

They are kept as those of the dossier's own establishment. Promises: what names another patient than the dossier's is
refused before it is kept, and an object that names nobody is no proof: name and birth date must be said and agree. Who
lays images of such a study beside a dossier says whose they are, and the study is that patient's by his word
(``personne``), unless its numbers or an order say another; then it waits as any study does.
Not promised: images of a dossier that no establishment sent.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import select

from gateway.errors import InvalidContent, Unsupported
from gateway.model.imaging import Study
from gateway.model.partner import Partner
from gateway.rcp import attachments, imaging, imaging_match
from gateway.rcp.access import Caller, CallerKind
from gateway.rcp.imaging_decisions import decide
from gateway.rcp.imaging_facts import ObjectFacts
from gateway.rcp.imaging_match import ATTACHED, PROPOSED, WAITING
from gateway.rcp.imaging_traits import differing, traits
from gateway.rcp.step import Step

__all__ = ["accept", "join"]


def accept(step: Step, dossier_id: uuid.UUID, facts: ObjectFacts) -> Caller:
    """Judge an object before it is kept; for whom it is then sent.

    Raises
    ------
    NotFound, Forbidden, Conflict
        As `gateway.rcp.attachments.held`.
    Unsupported
        ``imagerie-sans-etablissement``.
    InvalidContent
        ``image-autre-patient``, ``image-sans-patient`` (rules): it says another patient, or too little of this one.
    """
    dossier = attachments.held(step, dossier_id)
    if dossier.partner_id is None:
        text = "Ce dossier ne vient d’aucun établissement raccordé : ses images DICOM ne peuvent pas être déposées ici."
        raise Unsupported("imagerie-sans-etablissement", text)
    record, said = dossier.record, facts.patient
    # Compared as a study is: an object of its own, of nobody yet.
    alone = Study(traits=traits(said), order_keys=[])
    number = said.patient_id
    other = number is not None and number.system == record.system and number.value != record.value
    if differing(alone, record) is not None or other:
        text = "Cette image DICOM est celle d’un autre patient que celui du dossier."
        raise InvalidContent("image-autre-patient", text, rule=True)
    if not imaging_match.said_alike(alone, record):
        text = "Cette image DICOM ne dit pas assez de son patient (nom, date de naissance) pour être jointe au dossier."
        raise InvalidContent("image-sans-patient", text, rule=True)
    return Caller(
        kind=CallerKind.PACS,
        partner_id=dossier.partner_id,
        identifier=step.caller.identifier,
        name=step.caller.name,
        wire=step.caller.wire,
        address=step.caller.address,
        request_id=step.caller.request_id,
    )


def join(step: Step, dossier_id: uuid.UUID, objects: Sequence[ObjectFacts]) -> bool:
    """Give the studies of objects that were just kept to the patient of their dossier; whether all stand with him."""
    dossier = attachments.held(step, dossier_id)
    record, uids = dossier.record, {one.study.study_instance_uid for one in objects}
    # A number without its issuer is that of the house that took the images: which one is not said.
    bare = {
        one.study.study_instance_uid
        for one in objects
        if not (one.patient.patient_id and one.patient.patient_id.system)
    }
    imaging_match.serialise(step.session, imaging_match.keys_of(record))
    wanted = select(Study.id).where(Study.partner_id == dossier.partner_id, Study.study_instance_uid.in_(sorted(uids)))
    ids = step.session.scalars(wanted.order_by(Study.id)).all()
    mine = imaging_match.records_of_person(step.session, record)
    held = 0
    for study in step.lock(Study, *ids) if ids else ():
        reasons = imaging_match.against(step.session, study, record)
        others = imaging_match.named(step.session, step.session.get_one(Partner, study.partner_id), study)[0]
        if study.study_instance_uid in bare and all(one.id in mine for one in others):
            reasons = tuple(one for one in reasons if one != "identifiants-contradictoires")
        if study.state in (WAITING, PROPOSED) and not reasons:
            decide(study, record, "accepte")
            study.state, study.reason, study.record_id = ATTACHED, None, record.id
            step.session.flush()
            imaging_match.attach(step, study)
            imaging_match.answer(step, study, by=str(step.caller.identifier), decision="rattache")
            imaging.refresh(step, study)
        held += study.state == ATTACHED and study.record_id in mine
    return held == len(uids)
