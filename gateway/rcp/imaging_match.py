"""Whose images these are: a study recognised by identifier, checked against the record's traits, attached to dossiers.

[spec fhir-fr 6.2; DECISIONS 7] The rules stand in `gateway.rcp.imaging`, whose second half this is.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from gateway.identifiers import InsAuthority
from gateway.model.dossier import Dossier
from gateway.model.imaging import Study, StudyDossier
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord, PersonLink, WorkItem
from gateway.model.report import Report
from gateway.model.store import utcnow
from gateway.rcp import dossier_states, imaging_awaited, work_list
from gateway.rcp.facts import IdentifierFact, NameFact, PatientFacts, Sex
from gateway.rcp.identity import EVERY_DOMAIN, match_key, person_of
from gateway.rcp.imaging_decisions import accepted, parted, refused
from gateway.rcp.imaging_facts import ImagedPatientFacts
from gateway.rcp.imaging_traits import differences, differing
from gateway.rcp.step import Step

__all__ = [
    "ATTACHED",
    "BY_PERSON",
    "CROSSED",
    "DETACHED",
    "FOREIGN",
    "PROPOSED",
    "QUARANTINED",
    "WAITING",
    "against",
    "answer",
    "ask",
    "attach",
    "contradiction",
    "keys_of",
    "named",
    "qualified",
    "recheck",
    "recognise",
    "records_of_person",
    "said_alike",
    "serialise",
    "tell_reports",
]

AUTHOR: Final = "rcp-gateway"

WAITING, ATTACHED, QUARANTINED, PROPOSED = "attendu", "rattache", "quarantaine", "propose"
BY_IPP, BY_INS, BY_ORDER, BY_PERSON = "ipp", "ins", "demande", "personne"
#: Why a study waits: its issuer is a domain that its partner may not write.
FOREIGN: Final = "domaine-hors-partenaire"
#: Why a study is proposed: an order names the patient, and not enough of his traits is said to be sure.
UNSURE: Final = "demande-sans-traits"
#: Why a study is in quarantine: its numbers and its order are two patients'.
CROSSED: Final = "demande-d-un-autre-patient"
#: Why a study is in quarantine: a person took it from its patient (`gateway.rcp.imaging_detaching`).
DETACHED: Final = "detachee-par-une-personne"


def serialise(session: Session, keys: Iterable[str]) -> None:
    """Hold transaction-long locks on keys that may have no row yet, always in the same order."""
    for key in sorted(keys):
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))


def keys_of(record: PatientRecord) -> set[str]:
    """Keys (`serialise`) that whoever recognises a study of this record holds."""
    keys = {f"imagerie|{record.system}|{record.value}"}
    if record.ins_qualified:
        keys.add(f"imagerie|{record.ins_system}|{record.ins_value}")
    return keys


def qualified(partner: Partner, patient: ImagedPatientFacts) -> IdentifierFact | None:
    """Give PatientID its domain: the object's own, else the partner's when it has only one."""
    said = patient.patient_id
    if said is None or said.system:
        return said
    own = [domain for domain in partner.patient_domains if domain != EVERY_DOMAIN]
    return IdentifierFact(system=own[0], value=said.value) if len(own) == 1 and patient.issuer_text is None else said


def recognise(step: Step, partner: Partner, study: Study) -> None:
    """Find the study's patient record and dossiers, or put it in quarantine, or say why it waits.

    The patient's own identifiers decide; an order speaks where they are silent, and against them where it is sure.
    """
    identifiers = _identifiers(study)
    orders = {f"demande|{partner.id}|{key}" for key in study.order_keys}
    serialise(step.session, {f"imagerie|{system}|{value}" for system, value in identifiers} | orders)
    records, foreign = named(step.session, partner, study)
    asked = imaging_awaited.ordered(step.session, study)
    if records:
        record = next((one for one in records if one.partner_id == partner.id), records[0])
        reason = contradiction(step.session, study, records, record)
        if reason is None and _crossed(step.session, asked, record) and not accepted(study, record):
            reason = CROSSED
        if reason is None and _kept_from(step.session, study, record):
            reason = DETACHED
        _settle_on(step, partner, study, record, reason)
    elif foreign:
        study.reason = FOREIGN
        # Asked once: a person who left it where it is said so, and an order that came since is no news of him.
        if not study.decisions:
            ask(step, partner, f"etude|{study.id}", FOREIGN, study_id=study.id)
    elif not _by_order(step, partner, study, asked):
        study.reason = "patient-inconnu"
        if study.state == WAITING:
            _propose(step, partner, study)


def _by_order(step: Step, partner: Partner, study: Study, asked: Sequence[imaging_awaited.Ordered]) -> bool:
    """Follow the orders that a study answers; whether they said whose it is.

    An order names the patient for the images: a slip on the worklist of a modality gives them to somebody else. So name
    and birth date must be said and agree, and a number of the same domain must be the same; else a person decides.
    """
    asked = [one for one in asked if not refused(study, one.record) and not _kept_from(step.session, study, one.record)]
    if not asked:
        return False
    records = [one.record for one in asked]
    record = records[0]
    reason = contradiction(step.session, study, records, record)
    if reason is None and record.system == study.patient_id_system and record.value != study.patient_id:
        reason = "identifiants-contradictoires"
    if reason is None and not said_alike(study, record):
        if study.state == WAITING:
            study.state, study.reason = PROPOSED, UNSURE
            details = {"enregistrements": [str(one.id) for one in records]}
            ask(step, partner, f"etude|{study.id}", UNSURE, study_id=study.id, record=record, details=details)
        return True
    _settle_on(step, partner, study, record, reason)
    return True


def _kept_from(session: Session, study: Study, record: PatientRecord) -> bool:
    """Whether a person detached the study from the record's person; what is given back by a person is not kept away."""
    return not accepted(study, record) and parted(study, records_of_person(session, record))


def said_alike(study: Study, record: PatientRecord) -> bool:
    """Whether name and birth date are said at all, and the date is the record's."""
    said = study.traits
    return bool(said.get("family") and said.get("birth_date") and said["birth_date"] == record.birth_date)


def _crossed(session: Session, asked: Sequence[imaging_awaited.Ordered], record: PatientRecord) -> bool:
    """Whether an order, surely this one, is another person's."""
    person = person_of(session, record) or record.id
    return any(one.sure and (person_of(session, one.record) or one.record.id) != person for one in asked)


def _settle_on(step: Step, partner: Partner, study: Study, record: PatientRecord, reason: str | None) -> None:
    if reason is None:
        study.state, study.reason, study.record_id = ATTACHED, None, record.id
        study.settled_at = None  # it settles for those who see it from now on: they were not told before
        step.session.flush()
        attach(step, study)
        answer(step, study)
    else:
        study.state, study.reason = QUARANTINED, reason
        ask(step, partner, f"etude|{study.id}", reason, study_id=study.id, record=record)
    step.audit(
        "imagerie",
        action="C",
        outcome="0" if reason is None else "4",
        reason=reason,
        persons=(record.id,),
        object_type="Study",
        object_id=study.study_instance_uid,
    )


def answer(step: Step, study: Study, *, by: str = work_list.BY_ITSELF, decision: str = "nouvelle-recue") -> None:
    """Close what is asked of a study as a whole, once it is answered; its single objects are questions of their own."""
    step.session.execute(
        update(WorkItem)
        .where(
            WorkItem.study_id == study.id,
            WorkItem.key.in_((f"etude|{study.id}", f"etude|{study.id}|correction")),
            WorkItem.closed_at.is_(None),
        )
        .values(closed_at=utcnow(), closed_by=by, decision=decision)
        .execution_options(synchronize_session="fetch")
    )


def against(session: Session, study: Study, record: PatientRecord) -> tuple[str, ...]:
    """All that speaks against a record, whatever was decided before."""
    partner = session.get_one(Partner, study.partner_id)
    mine = set(records_of_person(session, record))
    found = list(differences(study, record))
    others = named(session, partner, study)[0]
    same_domain = record.system == study.patient_id_system and record.value != study.patient_id
    if same_domain or any(one.id not in mine for one in others):
        found.append("identifiants-contradictoires")
    if any(one.sure and one.record.id not in mine for one in imaging_awaited.ordered(session, study)):
        found.append(CROSSED)
    if parted(study, mine):
        found.append(DETACHED)
    return tuple(found)


def recheck(step: Step, record: PatientRecord) -> list[Study]:
    """Take out of dossiers the attached studies that a corrected record contradicts.

    Its own studies go into quarantine and leave every dossier; those of another record of the same person leave this
    record's dossiers, and stay where nothing speaks against them.

    The caller holds `keys_of` the record since before he locked it: whoever recognises holds them before he refers to
    the record, and whoever attaches to its dossiers before he looks for them, so a study is either seen here or
    compared with the record as corrected.
    """
    session = step.session
    here = select(StudyDossier.study_id).join(Dossier).where(Dossier.record_id == record.id)
    attached = session.scalars(
        select(Study)
        .where(or_(Study.record_id == record.id, Study.id.in_(here)), Study.state == ATTACHED)
        .order_by(Study.id)
        .with_for_update(of=Study)
        .execution_options(populate_existing=True)
    ).all()
    parted = []
    for study in attached:
        partner = session.get_one(Partner, study.partner_id)
        own = session.get_one(PatientRecord, study.record_id)
        others = named(session, partner, study)[0] if own is record else [own]
        reason = contradiction(session, study, list({one.id: one for one in (*others, record)}.values()), record)
        if reason is None:
            continue
        leaves = delete(StudyDossier).where(StudyDossier.study_id == study.id)
        if own is record:
            study.state, study.reason, study.record_id = QUARANTINED, reason, None
        else:
            leaves = leaves.where(StudyDossier.dossier_id.in_(select(Dossier.id).where(Dossier.record_id == record.id)))
        left = session.scalars(leaves.returning(StudyDossier.dossier_id)).all()
        # A key of its own: a question asked before the study was attached may still be open.
        details = {"dossiers": [str(one) for one in sorted(left)]}
        key = f"etude|{study.id}|correction"
        ask(step, partner, key, reason, study_id=study.id, record=record, details=details)
        tell_reports(step, left)
        for dossier_id in tuple(sorted(left)) or (None,):
            step.audit(
                "imagerie",
                action="U",
                outcome="4",
                reason=reason,
                persons=(record.id,),
                dossier=dossier_id,
                object_type="Study",
                object_id=study.study_instance_uid,
            )
        step.touch(study)
        parted.append(study)
    session.flush()
    return parted


def tell_reports(step: Step, dossiers: Iterable[uuid.UUID]) -> None:
    """Let the documents of validated reports follow: they name the studies that stand in their dossier.

    What was signed and sent does not change; what says of it today which images belong to it does.
    """
    wanted = select(Report).where(Report.dossier_id.in_(sorted(dossiers)), Report.state != "brouillon")
    step.touch(*step.session.scalars(wanted.order_by(Report.id)).unique())


def _identifiers(study: Study) -> list[tuple[str, str]]:
    said = [(study.patient_id_system or "", study.patient_id or "")]
    said += [(other[0], other[1]) for other in study.traits.get("others", ())]
    return [pair for pair in said if all(pair)]


def named(session: Session, partner: Partner, study: Study) -> tuple[list[PatientRecord], bool]:
    """Records that a study's identifiers name, and whether one is of a domain that its partner may not write."""
    found: dict[uuid.UUID, PatientRecord] = {}
    foreign = False
    for system, value in _identifiers(study):
        if InsAuthority.of(system) is not None:
            wanted = (PatientRecord.ins_system == system, PatientRecord.ins_value == value, PatientRecord.ins_qualified)
        elif {system, EVERY_DOMAIN} & set(partner.patient_domains):
            wanted = (PatientRecord.system == system, PatientRecord.value == value, PatientRecord.active)
        else:
            foreign = True
            continue
        rows = session.scalars(select(PatientRecord).where(*wanted).order_by(PatientRecord.id))
        found.update((row.id, row) for row in rows)
    return list(found.values()), foreign


def contradiction(
    session: Session, study: Study, records: Sequence[PatientRecord], record: PatientRecord
) -> str | None:
    """Name what speaks against the record: identifiers of two persons, or a trait that differs.

    Nothing does where a person accepted it, and both sides still say what they said then.
    """
    if accepted(study, record):
        return None
    if len({person_of(session, one) or one.id for one in records}) > 1:
        return "identifiants-contradictoires"
    return differing(study, record)


def records_of_person(session: Session, record: PatientRecord) -> list[uuid.UUID]:
    """The record, and those of the same person."""
    person = person_of(session, record)
    if person is None:
        return [record.id]
    linked = select(PersonLink.record_id).where(PersonLink.person_id == person, PersonLink.ended_at.is_(None))
    return sorted({record.id, *session.scalars(linked)})


def attach(step: Step, study: Study) -> None:
    """Attach a recognised study to the dossiers of its patient that still wait to be discussed."""
    session = step.session
    record = session.get(PatientRecord, study.record_id)
    if record is None:
        return
    have = set(session.scalars(select(StudyDossier.dossier_id).where(StudyDossier.study_id == study.id)))
    wanted = _open_dossiers(session, record)
    others = {one for key, one in wanted if key not in have} - {record.id}
    if others:
        asked = select(PatientRecord).where(PatientRecord.id.in_(others)).execution_options(populate_existing=True)
        serialise(session, {key for row in session.scalars(asked) for key in keys_of(row)})
        # Whoever corrects one of them has finished by now, or waits and then finds this study in its dossiers.
        against = {
            row.id
            for row in session.scalars(asked)
            if parted(study, [row.id]) or contradiction(session, study, [record, row], row)
        }
        wanted = [pair for pair in _open_dossiers(session, record) if pair[1] not in against]
    for dossier_id, record_id in wanted:
        if dossier_id in have:
            continue
        basis = _basis(study, record) if record_id == record.id else BY_INS
        session.add(StudyDossier(study_id=study.id, dossier_id=dossier_id, basis=basis, author=AUTHOR))
        step.audit(
            "imagerie",
            action="U",
            reason=f"rattachement-{basis}",
            persons=(record.id,),
            dossier=dossier_id,
            object_type="Study",
            object_id=study.study_instance_uid,
        )
    session.flush()


def _basis(study: Study, record: PatientRecord) -> str:
    """Why a study is this record's: a person's word stands before a number that needed it."""
    said = _identifiers(study)
    if accepted(study, record):
        return BY_PERSON
    if (record.system, record.value) in said:
        return BY_IPP
    return BY_INS if record.ins_qualified and (record.ins_system, record.ins_value) in said else BY_ORDER


def _open_dossiers(session: Session, record: PatientRecord) -> list[tuple[uuid.UUID, uuid.UUID]]:
    """Dossiers of a person that wait to be discussed, each with its record."""
    found = session.execute(
        select(Dossier.id, Dossier.record_id)
        .where(
            Dossier.record_id.in_(records_of_person(session, record)),
            Dossier.state.in_(sorted(dossier_states.open_states())),
        )
        .order_by(Dossier.id)
    )
    return [(key, one) for key, one in found]


def _propose(step: Step, partner: Partner, study: Study) -> None:
    """Traits alone: name the records that a person may confirm."""
    said = study.traits
    key = match_key(
        PatientFacts(
            birth_name=NameFact(family=said.get("family"), given=tuple((said.get("given") or "").split()[:1])),
            birth_date=said.get("birth_date"),
            sex=Sex(said.get("sex") or Sex.UNKNOWN.value),
        )
    )
    if key is None:
        return
    alike = step.session.scalars(
        select(PatientRecord)
        .where(PatientRecord.match_key == key, PatientRecord.partner_id == partner.id)
        .order_by(PatientRecord.id)
        .limit(5)
    ).all()
    alike = [one for one in alike if not refused(study, one)]
    if alike:
        study.state, study.reason = PROPOSED, "traits-seuls"
        details = {"enregistrements": [str(one.id) for one in alike]}
        ask(step, partner, f"etude|{study.id}", "traits-seuls", study_id=study.id, record=alike[0], details=details)


def ask(
    step: Step,
    partner: Partner,
    key: str,
    reason: str,
    *,
    study_id: uuid.UUID | None = None,
    record: PatientRecord | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """Put a question on the work list, once while it is open; it names rows, never a trait."""
    dossier_id = (
        step.session.scalar(
            select(Dossier.id).where(Dossier.record_id == record.id).order_by(Dossier.id.desc()).limit(1)
        )
        if record is not None
        else None
    )
    work_list.ask(
        step.session,
        WorkItem(
            key=key,
            kind="imagerie",
            reason=reason,
            network_id=partner.network_id,
            partner_id=partner.id,
            record_id=record.id if record is not None else None,
            dossier_id=dossier_id,
            study_id=study_id,
            details=details or {},
        ),
    )
