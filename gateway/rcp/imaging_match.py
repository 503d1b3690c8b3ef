"""Whose images these are: a study recognised by identifier, checked against the record's traits, attached to dossiers.

[spec fhir-fr 6.2; DECISIONS 7] The rules stand in `gateway.rcp.imaging`, whose second half this is.
"""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from gateway.identifiers import InsAuthority
from gateway.model.dossier import Dossier
from gateway.model.imaging import Study, StudyDossier
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord, PersonLink, WorkItem
from gateway.rcp import dossier_states, work_list
from gateway.rcp.facts import IdentifierFact, NameFact, PatientFacts, Sex
from gateway.rcp.identity import EVERY_DOMAIN, match_key, person_of
from gateway.rcp.imaging_facts import ImagedPatientFacts
from gateway.rcp.step import Step

__all__ = [
    "ATTACHED",
    "FOREIGN",
    "PROPOSED",
    "QUARANTINED",
    "WAITING",
    "ask",
    "attach",
    "keys_of",
    "qualified",
    "recheck",
    "recognise",
    "records_of_person",
    "same_patient",
    "serialise",
    "traits",
]

AUTHOR: Final = "rcp-gateway"

WAITING, ATTACHED, QUARANTINED, PROPOSED = "attendu", "rattache", "quarantaine", "propose"
BY_IPP, BY_INS = "ipp", "ins"
#: Why a study waits: its issuer is a domain that its partner may not write.
FOREIGN: Final = "domaine-hors-partenaire"


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


def traits(patient: ImagedPatientFacts) -> dict[str, Any]:
    """Give what objects say of their patient as `Study.traits` keeps it."""
    return {
        "family": patient.family,
        "given": patient.given,
        "birth_date": patient.birth_date.isoformat() if patient.birth_date else None,
        "sex": patient.sex.value,
        "others": [[other.system, other.value] for other in patient.others],
    }


def qualified(partner: Partner, patient: ImagedPatientFacts) -> IdentifierFact | None:
    """Give PatientID its domain: the object's own, else the partner's when it has only one."""
    said = patient.patient_id
    if said is None or said.system:
        return said
    own = [domain for domain in partner.patient_domains if domain != EVERY_DOMAIN]
    return IdentifierFact(system=own[0], value=said.value) if len(own) == 1 and patient.issuer_text is None else said


def same_patient(study: Study, patient: ImagedPatientFacts) -> bool:
    """Whether an object names the patient of its study; what is not said contradicts nothing."""
    said = traits(patient)
    for name in ("birth_date", "sex"):
        if said[name] not in (None, Sex.UNKNOWN.value) and study.traits.get(name) not in (
            None,
            Sex.UNKNOWN.value,
            said[name],
        ):
            return False
    number = patient.patient_id.value if patient.patient_id else None
    if number and study.patient_id and number != study.patient_id:
        return False
    return _names_agree(said["family"], [study.traits.get("family")])


def recognise(step: Step, partner: Partner, study: Study) -> None:
    """Find the study's patient record and dossiers, or put it in quarantine, or say why it waits."""
    identifiers = _identifiers(study)
    serialise(step.session, {f"imagerie|{system}|{value}" for system, value in identifiers})
    records, foreign = _records(step.session, partner, identifiers)
    if not records:
        study.reason = FOREIGN if foreign else "patient-inconnu"
        if foreign:
            ask(step, partner, f"etude|{study.id}", study.reason, study_id=study.id)
        elif study.state == WAITING:
            _propose(step, partner, study)
        return
    record = next((one for one in records if one.partner_id == partner.id), records[0])
    contradiction = _contradiction(step.session, study, records, record)
    if contradiction is None:
        study.state, study.reason, study.record_id = ATTACHED, None, record.id
        step.session.flush()
        attach(step, study)
    else:
        study.state, study.reason = QUARANTINED, contradiction
        ask(step, partner, f"etude|{study.id}", contradiction, study_id=study.id, record=record)
    step.audit(
        "imagerie",
        action="C",
        outcome="0" if contradiction is None else "4",
        reason=contradiction,
        persons=(record.id,),
        object_type="Study",
        object_id=study.study_instance_uid,
    )


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
        named = _records(session, partner, _identifiers(study))[0] if own is record else [own]
        contradiction = _contradiction(session, study, list({one.id: one for one in (*named, record)}.values()), record)
        if contradiction is None:
            continue
        leaves = delete(StudyDossier).where(StudyDossier.study_id == study.id)
        if own is record:
            study.state, study.reason, study.record_id = QUARANTINED, contradiction, None
        else:
            leaves = leaves.where(StudyDossier.dossier_id.in_(select(Dossier.id).where(Dossier.record_id == record.id)))
        left = session.scalars(leaves.returning(StudyDossier.dossier_id)).all()
        # A key of its own: a question asked before the study was attached may still be open.
        ask(step, partner, f"etude|{study.id}|correction", contradiction, study_id=study.id, record=record)
        for dossier_id in tuple(sorted(left)) or (None,):
            step.audit(
                "imagerie",
                action="U",
                outcome="4",
                reason=contradiction,
                persons=(record.id,),
                dossier=dossier_id,
                object_type="Study",
                object_id=study.study_instance_uid,
            )
        step.touch(study)
        parted.append(study)
    session.flush()
    return parted


def _identifiers(study: Study) -> list[tuple[str, str]]:
    said = [(study.patient_id_system or "", study.patient_id or "")]
    said += [(other[0], other[1]) for other in study.traits.get("others", ())]
    return [pair for pair in said if all(pair)]


def _records(
    session: Session, partner: Partner, identifiers: Sequence[tuple[str, str]]
) -> tuple[list[PatientRecord], bool]:
    """Records that the identifiers name, and whether one of them is of a domain that the partner may not write."""
    found: dict[uuid.UUID, PatientRecord] = {}
    foreign = False
    for system, value in identifiers:
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


def _contradiction(
    session: Session, study: Study, records: Sequence[PatientRecord], record: PatientRecord
) -> str | None:
    """Name what speaks against the record: identifiers of two persons, or a trait that differs."""
    if len({person_of(session, one) or one.id for one in records}) > 1:
        return "identifiants-contradictoires"
    said = study.traits
    # The record's date may be partial; a stranger's date differs in what both say.
    if said.get("birth_date") and record.birth_date and not said["birth_date"].startswith(record.birth_date):
        return "date-de-naissance-differente"
    if {said.get("sex"), record.sex} == {Sex.FEMALE.value, Sex.MALE.value}:
        return "sexe-different"
    if not _names_agree(said.get("family"), [record.birth_family, record.used_family]):
        return "nom-different"
    if not _names_agree(said.get("given"), [record.given, record.used_given, *record.given_names]):
        return "prenom-different"
    return None


def _names_agree(said: str | None, known: Iterable[str | None]) -> bool:
    """Whether a name shares a word with a known one; silence on either side contradicts nothing.

    Modalities cut names at 64 characters, drop hyphens and add « EP. »: a word in common is asked for, after an
    identifier has already matched; never more is concluded from a name.
    """
    words = _words(said)
    others = [found for name in known if (found := _words(name))]
    if not words or not others:
        return True
    return any(set(words) & set(other) or "".join(words) == "".join(other) for other in others)


def _words(name: str | None) -> list[str]:
    opened = (name or "").replace("œ", "oe").replace("Œ", "OE").replace("æ", "ae").replace("Æ", "AE")
    plain = unicodedata.normalize("NFKD", opened).encode("ascii", "ignore").decode("ascii").upper()
    return "".join(char if char.isalnum() else " " for char in plain).split()


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
        against = {row.id for row in session.scalars(asked) if _contradiction(session, study, [record, row], row)}
        wanted = [pair for pair in _open_dossiers(session, record) if pair[1] not in against]
    for dossier_id, record_id in wanted:
        if dossier_id in have:
            continue
        basis = BY_IPP if record_id == record.id and study.patient_id == record.value else BY_INS
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
