"""What a person decides about images: a proposal, a study in quarantine, an object that was kept aside.

Promises
--------
* Who organises an RCP decides, and of a patient who stands in dossiers only who organises one of these; for anybody
  else the case does not exist (404, audited). He gives images to a record only if the case names it or he organises a
  dossier of it.
* He decides on what he saw: both sides are marked (`Case.seen`); a decision over a mark that has changed is refused.
* Each case is decided once, whoever comes second is told; what was decided, by whom, when and why stands in it.
* A study that is given to a record stands in its open dossiers and in those that it had left; FHIR and the documents of
  validated reports follow in the same step. The decision holds against later corrections that say nothing new.
* Nothing is ever thrown away: what is left where it is can be taken up again.

[spec fhir-fr 6.2; DECISIONS 7, 11]
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import ColumnElement, and_, exists, func, not_, or_, select
from sqlalchemy.orm import Session

from gateway.errors import Conflict, GatewayError, InvalidContent
from gateway.model.dossier import Dossier
from gateway.model.imaging import QuarantinedObject, Study, StudyDossier
from gateway.model.meeting import RcpSession
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord, WorkItem
from gateway.model.store import utcnow
from gateway.rcp import access, imaging, imaging_awaited, imaging_match
from gateway.rcp.access import Caller, CallerKind
from gateway.rcp.imaging_decisions import decide, picture
from gateway.rcp.imaging_match import ATTACHED, BY_PERSON, FOREIGN, PROPOSED, QUARANTINED, WAITING
from gateway.rcp.ports import ImageObjects
from gateway.rcp.step import Step
from gateway.rcp.work_list import still_open

__all__ = [
    "ADMITTED",
    "GIVEN",
    "LEFT",
    "REASON_CHARACTERS",
    "Candidate",
    "Case",
    "candidate",
    "cases",
    "decidable",
    "give",
    "judge_again",
    "leave",
    "motive",
    "read",
    "record_behind",
    "take_up",
]

REASON_CHARACTERS: Final = 300
#: Decisions, as a case keeps them.
GIVEN, LEFT, ADMITTED = "rattache", "laisse", "admis"
_NAMED_AT_MOST: Final = 10


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record that a case may give the images to.

    Parameters
    ----------
    against
        What speaks against it: reasons as the work list has them.
    dossiers
        References of its dossiers that the caller sees.
    """

    record: PatientRecord
    against: tuple[str, ...]
    dossiers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One case as its reader sees it.

    Parameters
    ----------
    study, object
        What it is about; an object may be of no study that is known.
    seen
        Mark of both sides, to be given back with the decision.
    """

    item: WorkItem
    study: Study | None
    object: QuarantinedObject | None
    partner: Partner | None
    candidates: tuple[Candidate, ...]
    seen: str

    @property
    def open(self) -> bool:
        """Whether it waits for a decision."""
        return self.item.closed_at is None

    @property
    def retakable(self) -> bool:
        """Whether it was left where it is, and still is there."""
        there = self.study is not None and self.object is None and self.study.state in {QUARANTINED, WAITING}
        return not self.open and self.item.decision == LEFT and there


def decidable(caller: Caller) -> ColumnElement[bool]:
    """Predicate over `WorkItem`: the cases that the caller may read and decide."""
    own = select(Study.record_id).where(Study.id == WorkItem.study_id).correlate(WorkItem).scalar_subquery()
    whose = func.coalesce(WorkItem.record_id, own)
    anybodys = not_(exists().where(Dossier.record_id == whose).correlate(WorkItem))
    theirs = (
        exists()
        .where(
            Dossier.record_id == whose,
            RcpSession.id == Dossier.session_id,
            access.sessions(caller, organised=True),
        )
        .correlate(WorkItem)
    )
    # Other questions about images, of their sending for example, are no question of whose they are.
    asked = or_(WorkItem.key.startswith("etude|"), WorkItem.key.startswith("objet|"))
    mine = or_(whose.is_(None), anybodys, theirs)
    return and_(WorkItem.kind == "imagerie", asked, access.work_items(caller), mine)


def cases(session: Session, caller: Caller, *, limit: int, left: bool = False) -> Sequence[WorkItem]:
    """Return the cases that wait, oldest first; or those that were left where they are, latest first."""
    wanted = select(WorkItem).where(decidable(caller))
    if not left:
        wanted = wanted.where(WorkItem.closed_at.is_(None)).order_by(WorkItem.opened_at, WorkItem.id)
    else:
        wanted = wanted.where(WorkItem.decision == LEFT).order_by(WorkItem.closed_at.desc(), WorkItem.id)
    return session.scalars(wanted.limit(limit)).all()


def read(session: Session, caller: Caller, item_id: uuid.UUID, reference: str = "") -> Case:
    """Return one case, open or closed.

    Parameters
    ----------
    reference
        A dossier of the caller's whose patient is compared too; one that is not his is left out.

    Raises
    ------
    NotFound
        It does not exist, or not for him.
    """
    item = session.scalars(select(WorkItem).where(WorkItem.id == item_id, decidable(caller))).one_or_none()
    if item is None:
        raise access.hidden(caller, "WorkItem", item_id)
    study = session.get(Study, item.study_id) if item.study_id is not None else None
    kept = item.details.get("objet")
    row = session.get(QuarantinedObject, uuid.UUID(str(kept))) if kept else None
    partner = session.get(Partner, item.partner_id) if item.partner_id is not None else None
    found = _candidates(session, caller, item, study, reference) if study is not None and row is None else ()
    mark = picture(study, [one.record for one in found]) if study is not None else ""
    return Case(item, study, row, partner, found, mark)


def _candidates(
    session: Session, caller: Caller, item: WorkItem, study: Study, reference: str
) -> tuple[Candidate, ...]:
    partner = session.get_one(Partner, study.partner_id)
    ids = {uuid.UUID(str(one)) for one in item.details.get("enregistrements", ())}
    ids |= {item.record_id} if item.record_id is not None else set()
    ids |= {one.id for one in imaging_match.named(session, partner, study)[0]}
    ids |= {one.record.id for one in imaging_awaited.ordered(session, study)}
    wanted = select(PatientRecord).where(PatientRecord.id.in_(sorted(ids)), _may_name(caller, or_else_nobodys=True))
    records = list(session.scalars(wanted.order_by(PatientRecord.id).limit(_NAMED_AT_MOST)))
    other = record_behind(session, caller, reference) if reference else None
    if other is not None and other.id not in {one.id for one in records}:
        records.append(other)
    return tuple(candidate(session, caller, study, one) for one in records)


def _may_name(caller: Caller, *, or_else_nobodys: bool) -> ColumnElement[bool]:
    """Predicate over `PatientRecord`: those of the dossiers that he organises, and those that stand in none."""
    organised = (
        exists()
        .where(
            Dossier.record_id == PatientRecord.id,
            RcpSession.id == Dossier.session_id,
            access.sessions(caller, organised=True),
        )
        .correlate(PatientRecord)
    )
    if not or_else_nobodys:
        return organised
    return or_(organised, not_(exists().where(Dossier.record_id == PatientRecord.id).correlate(PatientRecord)))


def record_behind(session: Session, caller: Caller, reference: str) -> PatientRecord | None:
    """Find the patient of a dossier that the caller organises, by its reference."""
    dossier = session.scalars(
        select(Dossier)
        .join(RcpSession, RcpSession.id == Dossier.session_id)
        .where(Dossier.reference == reference.strip().upper(), access.sessions(caller, organised=True))
    ).one_or_none()
    return dossier.record if dossier is not None else None


def candidate(session: Session, caller: Caller, study: Study, record: PatientRecord) -> Candidate:
    """Describe a record that images may be given to, or taken from."""
    references = session.scalars(
        select(Dossier.reference)
        .where(Dossier.record_id == record.id, access.dossiers(caller))
        .order_by(Dossier.registered_at)
    )
    return Candidate(record, imaging_match.against(session, study, record), tuple(references))


# ---- the decisions


def give(
    step: Step,
    item_id: uuid.UUID,
    *,
    record_id: uuid.UUID | None = None,
    reference: str = "",
    reason: str,
    confirmed: bool,
    seen: str,
) -> None:
    """Give a study to a record: a proposal is confirmed, or a study leaves the quarantine.

    Parameters
    ----------
    record_id
        The record: one that the case names, or the one of `reference`; none: that one.
    reference
        A dossier that the caller organises, beside which he decided.
    confirmed
        Whether he said that he compared both sides; asked for where something speaks against the record.
    seen
        `Case.seen` of the page on which he decided.

    Raises
    ------
    NotFound
        The case, or the dossier, does not exist for him.
    InvalidContent
        ``motif-absent``, ``motif-trop-long``, ``enregistrement-absent``, ``confirmation-absente`` (rules).
    Conflict
        ``deja-traite``; ``situation-changee``: one of the sides says something else now.
    """
    said = motive(reason)
    item = _open(step, item_id)
    if item is None:
        return
    study, record = _both_sides(step, item, record_id, reference, seen)
    if imaging_match.against(step.session, study, record) and not confirmed:
        text = "Les deux identités diffèrent : confirmez que vous les avez comparées."
        raise InvalidContent("confirmation-absente", text, expression="confirme", rule=True)
    before, back = study.state, _left(step.session, item, record)
    if before == ATTACHED and not back:
        raise Conflict("decision-impossible", "Cette étude est déjà rattachée à un patient.")
    decide(study, record, "accepte")
    if before != ATTACHED:
        study.state, study.reason, study.record_id = ATTACHED, None, record.id
    step.session.flush()
    _put_back(step, study, record, back)
    if before != ATTACHED:
        imaging_match.attach(step, study)
    imaging.refresh(step, study)
    imaging_match.tell_reports(step, back)
    _closed(step, item, GIVEN, said)
    imaging_match.answer(step, study, by=str(step.caller.identifier), decision=GIVEN)
    _tell(step, study, "decision-rattachement", record)


def _both_sides(
    step: Step, item: WorkItem, record_id: uuid.UUID | None, reference: str, seen: str
) -> tuple[Study, PatientRecord]:
    """Lock the study and hold the record's keys; both as they stand now, and as the person saw them."""
    session, caller = step.session, step.caller
    before = read(session, caller, item.id, reference)
    if before.study is None or before.object is not None:
        raise Conflict("decision-impossible", "Cette situation ne porte sur aucune étude à rattacher.")
    other = record_behind(session, caller, reference) if reference else None
    if reference and other is None:
        text = "Aucun dossier que vous organisez ne porte cette référence."
        raise access.hidden(caller, "Dossier", reference.strip()[:40], text=text)
    named = (one.record for one in before.candidates if one.record.id == record_id)
    record = next(named, None) if record_id is not None else other
    if record is None:
        text = "Choisissez le patient à qui sont ces images."
        raise InvalidContent("enregistrement-absent", text, expression="patient", rule=True)
    # As `imaging_match.recheck` asks: held before the record is read, so that a correction is seen or sees this.
    imaging_match.serialise(session, imaging_match.keys_of(record))
    [study] = step.lock(Study, before.study.id)
    for one in before.candidates:
        session.refresh(one.record)
    if read(session, caller, item.id, reference).seen != seen:
        text = "Ce que disent les images ou le dossier patient a changé : relisez les deux côtés."
        raise Conflict("situation-changee", text)
    return study, record


def _left(session: Session, item: WorkItem, record: PatientRecord) -> list[uuid.UUID]:
    """Dossiers of the record's person that the study had left for this very question."""
    ids = [uuid.UUID(str(one)) for one in item.details.get("dossiers", ())]
    mine = imaging_match.records_of_person(session, record)
    wanted = select(Dossier.id).where(Dossier.id.in_(sorted(ids)), Dossier.record_id.in_(mine))
    return list(session.scalars(wanted.order_by(Dossier.id)))


def _put_back(step: Step, study: Study, record: PatientRecord, dossiers: Sequence[uuid.UUID]) -> None:
    have = set(step.session.scalars(select(StudyDossier.dossier_id).where(StudyDossier.study_id == study.id)))
    for dossier_id in dossiers:
        if dossier_id in have:
            continue
        author = str(step.caller.identifier)
        step.session.add(StudyDossier(study_id=study.id, dossier_id=dossier_id, basis=BY_PERSON, author=author))
        _tell(step, study, f"rattachement-{BY_PERSON}", record, dossier=dossier_id)
    step.session.flush()


def leave(step: Step, item_id: uuid.UUID, reason: str) -> None:
    """Refuse a proposal, or leave in quarantine what is there; the same question is not asked again.

    Raises
    ------
    NotFound
        The case does not exist for him.
    InvalidContent
        ``motif-absent``, ``motif-trop-long`` (rules).
    Conflict
        ``deja-traite``.
    """
    said = motive(reason)
    item = _open(step, item_id)
    if item is None:
        return
    case = read(step.session, step.caller, item.id)
    if case.object is not None:
        [row] = step.lock(QuarantinedObject, case.object.id)
        row.judged_at, row.judged_by, row.decision = step.now, step.caller.identifier, LEFT
    elif case.study is not None:
        [study] = step.lock(Study, case.study.id)
        for one in case.candidates:
            decide(study, one.record, "refuse")
        if study.state == PROPOSED:
            study.state, study.reason = WAITING, "patient-inconnu"
        elif study.reason == FOREIGN:
            study.decisions = {**(study.decisions or {}), "": ["refuse", picture(study)]}
        step.session.flush()
        _tell(step, study, "decision-refus", *(one.record for one in case.candidates))
    _closed(step, item, LEFT, said)


def take_up(step: Step, item_id: uuid.UUID) -> uuid.UUID:
    """Ask again what was left: a person changed his mind; return the new case.

    Raises
    ------
    Conflict
        ``decision-impossible``: it was not left, or is not there any more.
    """
    case = read(step.session, step.caller, item_id)
    if case.study is not None:
        step.lock(Study, case.study.id)
        case = read(step.session, step.caller, item_id)
    if not case.retakable or case.study is None:
        raise Conflict("decision-impossible", "Cette situation n’est plus à reprendre.")
    old = case.item
    open_now = select(WorkItem.id).where(WorkItem.key == old.key, WorkItem.closed_at.is_(None))
    known = step.session.scalar(open_now)
    if known is not None:
        return known
    names = ("key", "kind", "reason", "network_id", "partner_id", "record_id", "dossier_id", "study_id")
    details = {name: value for name, value in old.details.items() if name != "motif"}
    new = WorkItem(**{name: getattr(old, name) for name in names}, details=details)
    step.session.add(new)
    step.session.flush()
    _tell(step, case.study, "decision-reprise")
    return new.id


def judge_again(step: Step, item_id: uuid.UUID, objects: ImageObjects) -> bool:
    """Judge again what is kept aside, by the rules for what comes in; whether it is admitted now.

    Raises
    ------
    NotFound
        The case does not exist for him.
    Conflict
        ``deja-traite``; ``decision-impossible``: it is about no object and no study in quarantine.
    GatewayError
        Why an object is refused again, as its sender would be told.
    """
    item = _open(step, item_id)
    if item is None:
        return False
    case = read(step.session, step.caller, item.id)
    if case.object is not None:
        _object_again(step, case.object, objects)
        _closed(step, item, ADMITTED)
        return True
    if case.study is None or case.study.state != QUARANTINED:
        raise Conflict("decision-impossible", "Cette étude n’est plus en quarantaine.")
    [study] = step.lock(Study, case.study.id)
    study.state = WAITING
    imaging_match.recognise(step, step.session.get_one(Partner, study.partner_id), study)
    imaging.refresh(step, study)
    return study.state == ATTACHED


def _object_again(step: Step, kept: QuarantinedObject, objects: ImageObjects) -> None:
    [row] = step.lock(QuarantinedObject, kept.id)
    facts = objects.read(row.sha256)
    if facts.instance.sop_instance_uid != row.sop_instance_uid:
        raise InvalidContent("dicom-mismatch", "Objet autre que celui que la commande annonce.", rule=True)
    sender = Caller(
        kind=CallerKind.PACS, partner_id=row.partner_id, identifier=step.caller.identifier, wire=step.caller.wire
    )
    content = imaging.Content(row.sha256, row.size_bytes)
    refusal: GatewayError | None = imaging.keep(replace(step, caller=sender), facts, content)
    if refusal is not None:
        raise refusal
    row.judged_at, row.judged_by, row.decision = step.now, step.caller.identifier, ADMITTED
    step.session.flush()


def motive(written: str) -> str:
    """Return why a person decides.

    Raises
    ------
    InvalidContent
        ``motif-absent``, ``motif-trop-long`` (rules).
    """
    said = " ".join(written.split())
    if not said:
        raise InvalidContent("motif-absent", "Dites pourquoi.", expression="motif", rule=True)
    if len(said) > REASON_CHARACTERS:
        text = f"Ce texte dépasse {REASON_CHARACTERS} caractères."
        raise InvalidContent("motif-trop-long", text, expression="motif", rule=True)
    return said


def _open(step: Step, item_id: uuid.UUID) -> WorkItem | None:
    read(step.session, step.caller, item_id)
    return still_open(step, item_id)


def _closed(step: Step, item: WorkItem, decision: str, reason: str = "") -> None:
    item.closed_at, item.closed_by, item.decision = utcnow(), step.caller.identifier, decision
    if reason:
        item.details = {**item.details, "motif": reason}
    step.session.flush()
    step.audit(
        "modification",
        action="U",
        dossier=item.dossier_id,
        object_type="WorkItem",
        object_id=str(item.id),
        reason=item.reason,
        detail={"decision": decision},
    )


def _tell(step: Step, study: Study, reason: str, *records: PatientRecord, dossier: uuid.UUID | None = None) -> None:
    step.audit(
        "imagerie",
        action="U",
        reason=reason,
        persons=tuple(one.id for one in records),
        dossier=dossier,
        object_type="Study",
        object_id=study.study_instance_uid,
    )
