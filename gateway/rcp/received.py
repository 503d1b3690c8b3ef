"""A document that somebody sends about a patient: whose it is, and what became of it.

Promises: a document is attached to a patient only by a qualified INS, else by a number of his establishment, and in
both cases only if birth name, first given name, birth date and sex agree with what is known; whatever is not sure waits
for a person with its reason and is seen nowhere else. The bytes are kept as they came. A later version replaces the
former one of the same sender, an older one does not come back; a withdrawal holds even if its document comes after it;
one identifier over two contents is a question, never a replacement. Whoever brings a document sees and changes only
what exists for him: his own patients, what he brought himself. What waits and came in no mail is a question of its own
on the work list, which goes when it is answered. Not promised: conformity of the document.

[spec cda-frcp 6, mssante 5.8, 6.1, 7.4 X10 to X12, X33, X35]
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct
from sqlalchemy import ColumnElement, or_, select, true, update

from gateway.exchange import pending
from gateway.exchange.blobs import BlobStore
from gateway.identifiers import Ins, InsAuthority, uuid7
from gateway.model.dossier import Dossier
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord, WorkItem
from gateway.model.received import ReceivedDocument
from gateway.model.store import utcnow
from gateway.rcp import access, dossier_states, identity
from gateway.rcp.report_content import Identifier, PartialDate
from gateway.rcp.step import Step
from gateway.rcp.work_list import BY_ITSELF, ask

__all__ = ["DocumentHeader", "Incoming", "copy_set", "is_of", "take_back", "take_document", "tell", "visible"]


_HELD = frozenset({"attache", "remplace"})


class DocumentHeader(Struct, frozen=True, kw_only=True):
    """What the header of a CDA says.

    Attributes
    ----------
    unique_id, set_id, replaces
        ``root``, or ``root^extension``.
    patient_ids
        INS and local numbers, as the document has them.
    birth_date
        ISO 8601, as far as it is said.
    author_idnps
        National number of the first author who has one.
    pdf
        The document that an ``n1`` envelope carries, when it is a PDF.
    format
        ``pdf``: a readable copy that came beside a CDA, whose header says the rest.
    """

    unique_id: str
    set_id: str | None = None
    version: int | None = None
    replaces: str | None = None
    type_code: str | None = None
    type_label: str | None = None
    title: str | None = None
    created: datetime | None = None
    author: str | None = None
    author_idnps: str | None = None
    patient_ids: tuple[Identifier, ...] = ()
    birth_family: str | None = None
    birth_given: str | None = None
    birth_date: PartialDate | None = None
    sex: str | None = None
    format: Literal["n1", "structure", "pdf"] = "structure"
    pdf: bytes | None = None


class Incoming(Struct, frozen=True, kw_only=True):
    """How a document came.

    Attributes
    ----------
    sender
        Its sender's address, or the partner's id: only the same house replaces or withdraws.
    withdraws
        Whether the sender takes this document back.
    hint
        The dossier of the letter that it answers, or that its sender names.
    record_id
        The record of which the sender says that it is about.
    document_id
        The id that it gets when it is new.
    objection
        Why a person must look at it first, which the wire knows and the document does not say.
    """

    channel: Literal["mssante", "fhir", "hl7v2"]
    sender: str | None
    message_id: uuid.UUID | None = None
    withdraws: bool = False
    hint: uuid.UUID | None = None
    record_id: uuid.UUID | None = None
    document_id: uuid.UUID | None = None
    objection: str | None = None


def copy_set(set_id: str | None) -> str | None:
    """Return the set of the readable copies of a set of documents: they are replaced and withdrawn with them."""
    return f"{set_id}|pdf" if set_id is not None else None


def take_document(
    step: Step, header: DocumentHeader, content: bytes, incoming: Incoming, blobs: BlobStore
) -> tuple[ReceivedDocument | None, str | None]:
    """Keep one document, or take it back; the same one twice is one.

    Returns
    -------
    tuple
        The document, none for a withdrawal that is refused; and why a person must look, if one must.

    Raises
    ------
    Unavailable
        The bytes could not be kept.
    """
    step.serialise(*(f"document|{one}" for one in (header.unique_id, header.set_id, header.replaces) if one))
    digest = hashlib.sha256(content).hexdigest()
    known = _known(step, header)
    same = next((one for one in known if _is_same(one, header, incoming, digest)), None)
    if same is not None and same.state != "quarantaine" and not incoming.withdraws:
        return same, None
    records, reason = _records(step, header)
    hint = step.session.get(Dossier, incoming.hint) if incoming.hint is not None else None
    named = {one for one in (hint.record_id if hint is not None else None, incoming.record_id) if one is not None}
    if reason is None and not named <= {one.id for one in records}:
        reason = "document-autre-patient"  # X33
    reason = reason or _objection(header, incoming, known, records) or incoming.objection
    if incoming.withdraws:
        return (
            (None, reason) if reason is not None else (_withdraw(step, header, incoming, known, records, digest), None)
        )
    row = same or _row(header, incoming, step.now)  # what waited is judged again: the patient may be known by now
    row.sha256, row.size_bytes = pending.keep(step.session, blobs, content).sha256, len(content)
    row.state, row.reason = ("quarantaine", reason) if reason is not None else ("attache", None)
    if reason is None:
        record = next((one for one in records if one.id in named), records[0])
        row.record_id = record.id
        row.dossier_id = hint.id if hint is not None else _dossier(step, records)
        for old in known:
            if old.state == "attache" and _succeeds(header, old):
                old.state = "remplace"
                step.touch(old)
    step.session.add(row)
    step.session.flush()
    if incoming.channel != "mssante":  # else its mail is the question
        _ask(step, row)
    tell(step, row, "creation", "C")
    return row, reason


def take_back(step: Step, row: ReceivedDocument) -> None:
    """Withdraw a document for whoever brought it, attached or waiting; twice is once."""
    if row.state == "retire":
        return
    row.state, row.reason = "retire", None
    step.session.flush()
    _ask(step, row)
    tell(step, row, "modification", "U")


def _ask(step: Step, row: ReceivedDocument) -> None:
    """Ask a person about what waits; what waits no more is no question."""
    key = f"document|{row.id}"
    if row.state == "quarantaine" and row.reason is not None:
        partner = step.session.get(Partner, step.caller.partner_id) if step.caller.partner_id is not None else None
        owner = {"partner_id": partner.id, "network_id": partner.network_id} if partner is not None else {}
        ask(step.session, WorkItem(key=key, kind="message", reason=row.reason, **owner))
        return
    step.session.execute(
        update(WorkItem)
        .where(WorkItem.key == key, WorkItem.closed_at.is_(None))
        .values(closed_at=utcnow(), closed_by=BY_ITSELF, decision="nouvelle-recue")
    )


def is_of(row: ReceivedDocument, content: bytes) -> bool:
    """Whether bytes are those of a document."""
    return row.sha256 == hashlib.sha256(content).hexdigest()


def visible(step: Step, document_id: uuid.UUID) -> ReceivedDocument | None:
    """Return a document that exists for the caller: of a patient of his, or his own."""
    return step.session.scalar(select(ReceivedDocument).where(ReceivedDocument.id == document_id, _exists(step)))


def _exists(step: Step) -> ColumnElement[bool]:
    if step.caller.kind is access.CallerKind.SYSTEM:
        return true()
    theirs = select(PatientRecord.id).where(access.records(step.caller))
    own = ReceivedDocument.sender == str(step.caller.partner_id)
    return or_(own, ReceivedDocument.record_id.in_(theirs))


def _is_same(row: ReceivedDocument, header: DocumentHeader, incoming: Incoming, sha256: str) -> bool:
    """Whether a document is this one: who sent what waits is asked again, never somebody else's question answered."""
    there = row.unique_id == header.unique_id and row.sha256 == sha256
    return there and (row.state != "quarantaine" or _house(row.sender) == _house(incoming.sender))


def _known(step: Step, header: DocumentHeader) -> Sequence[ReceivedDocument]:
    """What exists for the caller of this document, of its set and of what it replaces; what is settled comes first."""
    named: list[ColumnElement[bool]] = [
        ReceivedDocument.unique_id.in_([one for one in (header.unique_id, header.replaces) if one])
    ]
    if header.set_id is not None:
        named.append(ReceivedDocument.set_id.in_([header.set_id, copy_set(header.set_id)]))
    wanted = select(ReceivedDocument).where(or_(*named), _exists(step))
    settled_first = (ReceivedDocument.state == "quarantaine", ReceivedDocument.id)
    return step.session.scalars(wanted.order_by(*settled_first).with_for_update()).all()


def _succeeds(header: DocumentHeader, old: ReceivedDocument) -> bool:
    if old.unique_id == header.replaces:
        return True
    same = old.set_id is not None and old.set_id in {header.set_id, copy_set(header.set_id)}
    return same and (old.version or 0) < (header.version or 0)


def _objection(
    header: DocumentHeader, incoming: Incoming, known: Sequence[ReceivedDocument], records: Sequence[PatientRecord]
) -> str | None:
    """Why what is kept already speaks against this document."""
    mine = {one.state for one in known if one.unique_id == header.unique_id}
    accepted = [one for one in known if one.state in _HELD]
    same_set = [one for one in accepted if header.set_id is not None and one.set_id == header.set_id]
    theirs = any(one.record_id not in {record.id for record in records} for one in accepted)
    judged = (
        ("auteur-non-autorise", any(_house(one.sender) != _house(incoming.sender) for one in accepted)),  # 901
        ("document-autre-patient", theirs),
        ("document-retire", not incoming.withdraws and "retire" in mine),
        ("meme-identifiant-autres-octets", not incoming.withdraws and mine - {"quarantaine", "retire"}),
        (
            "version-perimee",  # 900: for a withdrawal too, which is of the latest one (mssante 6.1)
            mine & _HELD == {"remplace"}
            if incoming.withdraws
            else any((one.version or 0) >= (header.version or 0) for one in same_set),
        ),
    )
    return next((reason for reason, holds in judged if holds), None)


def _house(sender: str | None) -> str:
    return (sender or "").rpartition("@")[2].lower()


def _withdraw(
    step: Step,
    header: DocumentHeader,
    incoming: Incoming,
    known: Sequence[ReceivedDocument],
    records: Sequence[PatientRecord],
    sha256: str,
) -> ReceivedDocument:
    """Take a document back; one that never came is refused when it comes (R02)."""
    # By its identifier: its sender may have written it anew to withdraw it, and nobody must go on reading it.
    rows = [
        one
        for one in known
        if one.unique_id == header.unique_id and (one.state in _HELD or one.sha256 in {sha256, None})
    ]
    if not rows:
        row = _row(header, incoming, step.now)
        row.sha256, row.size_bytes, row.record_id = None, 0, records[0].id
        step.session.add(row)
        rows = [row]
    copies = [one for one in known if header.set_id is not None and one.set_id == copy_set(header.set_id)]
    for one in (*rows, *(one for one in copies if one.version == header.version and one.state in _HELD)):
        one.state, one.reason = "retire", None
        step.session.flush()
        _ask(step, one)
        tell(step, one, "modification", "U")
    return rows[0]


def _row(header: DocumentHeader, incoming: Incoming, now: datetime) -> ReceivedDocument:
    return ReceivedDocument(
        id=incoming.document_id or uuid7(),
        message_id=incoming.message_id,
        channel=incoming.channel,
        sender=incoming.sender,
        unique_id=header.unique_id,
        set_id=header.set_id,
        version=header.version,
        replaces=header.replaces,
        format=header.format,
        title=header.title,
        type_code=header.type_code,
        type_label=header.type_label,
        author=header.author,
        written_at=header.created,
        received_at=now,
    )


def tell(step: Step, row: ReceivedDocument, event: str, action: str) -> None:
    """Let a document's representation follow, and leave the trail of what became of it."""
    step.touch(row)
    step.audit(
        event,
        action=action,
        persons=(row.record_id,) if row.record_id is not None else (),
        dossier=row.dossier_id,
        object_type="ReceivedDocument",
        object_id=str(row.id),
        object_sha256=row.sha256,
        detail={"voie": row.channel, "etat": row.state},
    )


def _records(step: Step, header: DocumentHeader) -> tuple[Sequence[PatientRecord], str | None]:
    """The records of the patient whom the header names, or why that is not sure."""
    sex = header.sex if header.sex in {"M", "F"} else "U"
    traits = identity.traits_key(header.birth_family, header.birth_given, header.birth_date, sex)
    if traits is None:
        return (), "traits-absents"  # X12, 905
    numbers = [(one, InsAuthority.of(one.root)) for one in header.patient_ids]
    read = [Ins.from_wire(one.extension or "", authority) for one, authority in numbers if authority is not None]
    fault = _ins_fault(step, read)
    if fault is not None:
        return (), fault
    by_ins = [
        (PatientRecord.ins_system == one.system) & (PatientRecord.ins_value == one.value) & PatientRecord.ins_qualified
        for one in read
    ]
    local = [(f"urn:oid:{one.root}", one.extension) for one, authority in numbers if authority is None]
    by_number = [(PatientRecord.system == system) & (PatientRecord.value == value) for system, value in local]
    found: Sequence[PatientRecord] = ()
    for conditions in (by_ins, by_number):
        if conditions and not found:
            wanted = select(PatientRecord).where(or_(*conditions), access.records(step.caller))
            found = step.session.scalars(wanted.order_by(PatientRecord.id)).unique().all()
    return (found, _doubt(step, found, traits, read)) if found else ((), "document-patient-inconnu")


def _ins_fault(step: Step, read: Sequence[Ins]) -> str | None:
    if len({(one.system, one.value) for one in read}) > 1:
        return "plusieurs-ins"
    if any(one.faults for one in read):
        return read[0].faults[0]  # X11, 904
    invented = any(one.authority is not None and one.authority.environment != "production" for one in read)
    return "ins-essai" if invented and not step.fictitious else None


def _doubt(step: Step, found: Sequence[PatientRecord], traits: str, read: Sequence[Ins]) -> str | None:
    if any(one.match_key != traits for one in found):
        return "traits-differents"
    said = {(one.system, one.value) for one in read}
    if said and any(one.ins_qualified and (one.ins_system, one.ins_value) not in said for one in found):
        return "ins-differente"  # found by its local number, whose establishment knows another INS
    people = {identity.person_of(step.session, one) or one.id for one in found}
    return "plusieurs-patients" if len(people) > 1 else None


def _dossier(step: Step, records: Sequence[PatientRecord]) -> uuid.UUID | None:
    """The latest open dossier of the patient, where it is shown."""
    return step.session.scalar(
        select(Dossier.id)
        .where(Dossier.record_id.in_([one.id for one in records]), Dossier.state.not_in(dossier_states.FINAL))
        .order_by(Dossier.registered_at.desc(), Dossier.id)
        .limit(1)
    )
