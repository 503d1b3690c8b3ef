"""Images: what a PACS sends is kept, recognised by identifier, and attached to the dossiers of its patient.

[spec fhir-fr 6.2; spec features B17; DESIGN §3 Imaging; DECISIONS 7]

Promises
--------
* The same object twice is kept once; other bytes under a known SOPInstanceUID are refused and kept in quarantine.
* A study is attached by the IPP with its issuer, in a domain that its partner may write, or by a qualified INS; never
  by a name. Traits that contradict the record (birth date, sex, name) put the study in quarantine with a work item, and
  it stands in no dossier. Traits alone only propose.
* An attached study that a later correction of the record contradicts goes the same way (`imaging_match.recheck`).
* A study that comes before its patient or his dossier is attached when they come (`attach_waiting`, `settle`).
* The study's counts and FHIR representation follow at its first object, then at most every `EVERY_S`, and when it has
  settled.

The bytes are already durable when `keep` is called. Orders: `imaging_orders`. What a person decides about a study or an
object in quarantine, or about one that was attached wrongly: `imaging_cases`, `imaging_detaching`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy import func, select

from gateway.errors import Conflict, GatewayError, InvalidContent, NotFound
from gateway.identifiers import uuid7
from gateway.model.dossier import Dossier
from gateway.model.imaging import Instance, QuarantinedObject, Series, Study
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord
from gateway.model.store import utcnow
from gateway.rcp import access, happenings, imaging_awaited
from gateway.rcp.facts import IdentifierFact
from gateway.rcp.imaging_facts import ObjectFacts
from gateway.rcp.imaging_match import (
    ATTACHED,
    FOREIGN,
    PROPOSED,
    WAITING,
    ask,
    attach,
    keys_of,
    qualified,
    recognise,
    records_of_person,
    serialise,
)
from gateway.rcp.imaging_traits import same_patient, traits
from gateway.rcp.step import Step, Steps

__all__ = [
    "EVERY_S",
    "Content",
    "attach_waiting",
    "follow",
    "instance_row",
    "is_due",
    "keep",
    "quarantine",
    "refresh",
    "settle",
]

#: Counts and representation of a study that is still coming in follow at most this often; a study in which nothing
#: came for as long has settled.
EVERY_S: Final = 10.0
#: The event of a study that stopped growing.
SETTLED: Final = happenings.STUDY_SETTLED


@dataclass(frozen=True, slots=True)
class Content:
    """Where an object's bytes are kept: their SHA-256 in the blob store, and how many they are."""

    sha256: str
    size_bytes: int


def keep(step: Step, facts: ObjectFacts, content: Content) -> GatewayError | None:
    """Keep one object of the calling partner.

    Returns
    -------
    GatewayError or None
        What its sender is to be told when it was refused; the refusal is kept with the step, so it is not raised.
        ``duplicate-instance`` (`Conflict`): other bytes are known under this SOPInstanceUID. ``identity-mismatch``
        (`InvalidContent`): the object names another patient than its study.
    """
    session, partner = step.session, _partner(step)
    uid = facts.instance.sop_instance_uid
    known = session.scalar(
        select(Instance.sha256).where(Instance.partner_id == partner.id, Instance.sop_instance_uid == uid)
    )
    if known is not None:
        if known == content.sha256:
            return None
        quarantine(step, uid, content, "autres-octets")
        return Conflict("duplicate-instance", "SOPInstanceUID déjà reçu avec d’autres octets.")
    study = _study(step, partner, facts)
    if not same_patient(study, facts.patient):
        quarantine(step, uid, content, "identite-autre-que-l-etude", study)
        return InvalidContent("identity-mismatch", "Identité autre que celle de l’étude.", rule=True)
    series_id = _series(step, study.id, facts)
    session.add(Instance(**instance_row(uuid7(), partner.id, series_id, facts, content, utcnow())))
    session.flush()
    follow(step, study.id)
    return None


def instance_row(
    key: uuid.UUID,
    partner_id: uuid.UUID | None,
    series_id: uuid.UUID,
    facts: ObjectFacts,
    content: Content,
    received_at: datetime,
) -> dict[str, Any]:
    """Give the row of one object: a value for each of its columns."""
    said = facts.instance
    return {
        "id": key,
        "partner_id": partner_id,
        "series_id": series_id,
        "sop_instance_uid": said.sop_instance_uid,
        "sop_class_uid": said.sop_class_uid,
        "transfer_syntax_uid": said.transfer_syntax_uid,
        "instance_number": said.number,
        "number_of_frames": said.number_of_frames,
        "rows": said.rows,
        "columns": said.columns,
        "sha256": content.sha256,
        "size_bytes": content.size_bytes,
        "dicom_json": facts.dicom_json,
        "received_at": received_at,
    }


def quarantine(step: Step, sop_instance_uid: str, content: Content, reason: str, study: Study | None = None) -> None:
    """Keep an object that is refused, and put it on the work list; the same bytes twice are one."""
    session, partner = step.session, _partner(step)
    same = (
        QuarantinedObject.partner_id == partner.id,
        QuarantinedObject.sop_instance_uid == sop_instance_uid,
        QuarantinedObject.sha256 == content.sha256,
    )
    if session.scalar(select(QuarantinedObject.id).where(*same)) is not None:
        return
    row = QuarantinedObject(
        id=uuid7(),
        partner_id=partner.id,
        sop_instance_uid=sop_instance_uid,
        sha256=content.sha256,
        size_bytes=content.size_bytes,
        reason=reason,
        study_id=study.id if study is not None else None,
    )
    session.add(row)
    session.flush()
    ask(step, partner, f"objet|{row.id}", reason, study_id=study.id if study else None, details={"objet": str(row.id)})
    step.audit(
        "imagerie",
        action="C",
        outcome="4",
        reason=reason,
        object_type="Instance",
        object_id=sop_instance_uid,
        object_sha256=content.sha256,
    )


def attach_waiting(step: Step, dossier: Dossier) -> list[Study]:
    """Attach to a new dossier the studies that came before it; the inscription calls this."""
    record = dossier.record
    serialise(step.session, keys_of(record))
    found = step.session.scalars(
        select(Study)
        .where(
            (Study.state == ATTACHED) & Study.record_id.in_(records_of_person(step.session, record))
            | (Study.state == WAITING)
            & (Study.patient_id == record.value)
            # A study whose identifier says an INS, or nothing, is found by the sweep of `settle`.
            & (Study.patient_id_system == record.system)
            | (Study.state.in_((WAITING, PROPOSED)))
            & (Study.partner_id == dossier.partner_id)
            & Study.order_keys.overlap(imaging_awaited.placer_keys(dossier))
        )
        .order_by(Study.id)
        .with_for_update(of=Study)
    ).all()
    for study in found:
        if study.state == ATTACHED:
            attach(step, study)
        else:
            recognise(step, step.session.get_one(Partner, study.partner_id), study)
        if study.state == ATTACHED:
            refresh(step, study)
    return [study for study in found if study.state == ATTACHED]


def settle(steps: Steps, *, limit: int = 200) -> int:
    """Bring studies that stopped growing to their final counts and representation; recognise those that waited.

    Periodic; returns how many studies it brought forward.
    """
    with steps.store.session() as session:
        quiet = utcnow() - timedelta(seconds=EVERY_S)
        unsettled = session.scalars(
            select(Study.id)
            .where(Study.settled_at.is_(None), Study.last_instance_at < quiet)
            .order_by(Study.last_instance_at)
            .limit(limit)
        ).all()
        known = (PatientRecord.value == Study.patient_id) & (PatientRecord.system == Study.patient_id_system)
        waiting = session.scalars(
            select(Study.id)
            .where(
                Study.state.in_((WAITING, PROPOSED)),
                Study.reason.is_distinct_from(FOREIGN),
                select(PatientRecord.id).where(known).exists(),
            )
            .limit(limit)
        ).all()
    return sum(steps.run(access.SYSTEM, partial(_settle, study_id=study_id)) for study_id in {*unsettled, *waiting})


def _settle(step: Step, study_id: uuid.UUID) -> bool:
    try:
        [study] = step.lock(Study, study_id)
    except NotFound:
        return False
    before = (study.state, study.settled_at)
    # Waits for objects of this study that are being committed; those that come later see `settled_at`.
    step.session.execute(select(Series.id).where(Series.study_id == study.id).order_by(Series.id).with_for_update())
    if study.state in (WAITING, PROPOSED):
        recognise(step, step.session.get_one(Partner, study.partner_id), study)
    elif study.state == ATTACHED:
        attach(step, study)
    refresh(step, study)
    if study.last_instance_at < utcnow() - timedelta(seconds=EVERY_S):
        if study.settled_at is None and study.state == ATTACHED:
            # What a subscription to settled studies tells of: its resource says the same from this step on.
            step.audit("imagerie", action="U", reason=SETTLED, object_type="Study", object_id=study.study_instance_uid)
            happenings.tell(step, SETTLED, study.id)
        study.settled_at = study.settled_at or utcnow()
    return (study.state, study.settled_at) != before


# ---- the rows of one object


def _partner(step: Step) -> Partner:
    if step.caller.partner_id is None:
        raise NotFound("inconnu", "Partenaire inconnu.")
    return step.session.get_one(Partner, step.caller.partner_id)


def _study(step: Step, partner: Partner, facts: ObjectFacts) -> Study:
    uid = facts.study.study_instance_uid
    wanted = select(Study).where(Study.partner_id == partner.id, Study.study_instance_uid == uid)
    found = step.session.scalars(wanted).one_or_none()
    if found is not None:
        return found
    serialise(step.session, (f"etude|{partner.id}|{uid}",))
    found = step.session.scalars(wanted).one_or_none()
    if found is not None:
        return found
    patient, said = qualified(partner, facts.patient), facts.study
    started_at, started_on = _begun(said.started)
    study = Study(
        id=uuid7(),
        partner_id=partner.id,
        study_instance_uid=uid,
        state=WAITING,
        patient_id=patient.value if patient else None,
        patient_id_system=patient.system if patient else None,
        traits=traits(facts.patient),
        accession_number=said.accession.value if said.accession else None,
        accession_system=(said.accession.system or None) if said.accession else None,
        order_keys=imaging_awaited.keys_of((*said.orders, IdentifierFact(system="", value=uid, kind="UID"))),
        study_description=said.description,
        referring_physician=said.referring_physician,
        started_at=started_at,
        started_on=started_on,
        modalities=[facts.series.modality] if facts.series.modality else [],
        **said.searched,
    )
    step.session.add(study)
    step.session.flush()
    recognise(step, partner, study)
    return study


def _begun(said: datetime | date | None) -> tuple[datetime | None, date | None]:
    """An instant, or the day alone; of the calendar's first and last years, whose ends no driver reads, the day."""
    if isinstance(said, datetime):
        return (said, None) if 1 < said.year < 9999 else (None, said.date())
    return None, said


def _series(step: Step, study_id: uuid.UUID, facts: ObjectFacts) -> uuid.UUID:
    said = facts.series
    wanted = select(Series.id).where(
        Series.study_id == study_id, Series.series_instance_uid == said.series_instance_uid
    )
    found = step.session.scalar(wanted)
    if found is None:
        serialise(step.session, (f"serie|{study_id}|{said.series_instance_uid}",))
        found = step.session.scalar(wanted)
    if found is not None:
        return found
    series = Series(
        id=uuid7(),
        study_id=study_id,
        series_instance_uid=said.series_instance_uid,
        modality=said.modality,
        series_number=said.number,
        series_description=said.description,
        body_part_examined=said.body_part_examined,
        started_at=_begun(said.started)[0],
        **said.searched,
    )
    step.session.add(series)
    step.session.flush()
    return series.id


def is_due(represented_at: datetime | None, settled_at: datetime | None) -> bool:
    """Whether a study to which an object came must be brought forward."""
    return represented_at is None or settled_at is not None or (utcnow() - represented_at).total_seconds() >= EVERY_S


def follow(step: Step, study_id: uuid.UUID) -> None:
    """Bring the study forward when it is due; read after the object is in, so that a settling study is not missed."""
    represented_at, settled_at = (
        step.session.execute(select(Study.represented_at, Study.settled_at).where(Study.id == study_id)).one().tuple()
    )
    if not is_due(represented_at, settled_at):
        return
    # While it grows, another object's step may be at it: that one, or the sweep, counts ours.
    study = step.session.scalars(
        select(Study)
        .where(Study.id == study_id)
        .with_for_update(of=Study, skip_locked=settled_at is None)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if study is not None:
        study.settled_at = None
        refresh(step, study)


def refresh(step: Step, study: Study) -> None:
    """Count what is there, and let the representation follow; the caller holds the study."""
    counted = step.session.execute(
        select(Series, func.count(Instance.id), func.max(Instance.received_at))
        .outerjoin(Instance, Instance.series_id == Series.id)
        .where(Series.study_id == study.id)
        .group_by(Series.id)
    ).all()
    for series, count, _ in counted:
        series.instances_count = count
    study.instances_count = sum(count for _, count, _ in counted)
    study.modalities = sorted({series.modality for series, _, _ in counted if series.modality})
    received: list[datetime | None] = [last for _, _, last in counted]
    study.last_instance_at = max((last for last in received if last is not None), default=study.last_instance_at)
    study.represented_at = utcnow()
    step.session.flush()
    if study.state == ATTACHED:
        step.touch(study)
