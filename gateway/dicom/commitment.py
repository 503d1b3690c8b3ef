"""Storage commitment: a PACS asks whether its objects are kept, and is told `[PS3.4 J.3]`.

N-ACTION is answered once the report is in the outbox; the report (N-EVENT-REPORT) then goes on the same association if
the caller stays on it, else on a new one that the worker opens, again until it is taken.

Promises
--------
* « Kept » means that the object's row and its bytes, at their length, are there; what the caller may not see is told as
  what does not exist.
* A report survives a crash between the answer and itself; it may come twice, never not at all. Whoever registered no
  place where he listens is told on his own association only.
* The same transaction asked again is judged again; while its report waits it is one report, the latest.
* A partner whose reports nobody takes fills no more than `MAX_WAITING` places of the outbox, nor `MAX_WAITING_BYTES`.

Does not read the bytes again: the blob store verifies them by itself.
"""

from __future__ import annotations

import hashlib
import io
import logging
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.dsutils import decode, encode
from sqlalchemy import ColumnElement, func, select

from gateway.dicom.command import is_uid
from gateway.dicom.levels import MAX_UIDS, values
from gateway.dicom.scu import Ours, Outbound, Patience
from gateway.dicom.services import Request, Service
from gateway.dicom.statements import located
from gateway.errors import InvalidContent, Unavailable, Unsupported
from gateway.exchange import jobs
from gateway.exchange.blobs import BlobStore
from gateway.exchange.outbox import Delivery, Outcome, Outgoing
from gateway.model.imaging import Instance
from gateway.model.message import Message
from gateway.model.store import utcnow
from gateway.rcp import imaging_sending
from gateway.rcp.access import Caller
from gateway.rcp.imaging_destinations import Destination, destination
from gateway.rcp.imaging_match import serialise
from gateway.rcp.step import Step, Steps

__all__ = ["KIND", "MAX_WAITING", "MAX_WAITING_BYTES", "Commitments", "report"]

LOG = logging.getLogger(__name__)

SOP_CLASS: Final = "1.2.840.10008.1.20.1"
_SOP_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
_REQUEST: Final = 1
_ALL_KEPT, _SOME_NOT = 1, 2
_LOOKS: Final = 8  # questions to the content store at once
_NO_SUCH_OBJECT, _CLASS_CONFLICT = 0x0112, 0x0119

KIND: Final = imaging_sending.CONFIRMATION

#: Reports of one partner that may wait to be taken, and their bytes: a request is some hundred bytes for each object.
MAX_WAITING: Final = 2_000
MAX_WAITING_BYTES: Final = 64 << 20

#: How long the caller's own association has for the report before a new one is opened for it.
GRACE_S: Final = 15.0
#: How long we look whether the caller leaves right after its request, as many do.
_LEAVES_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class _Reference:
    sop_class_uid: str
    sop_instance_uid: str


class Commitments:
    """The commitment service of one process."""

    def __init__(self, steps: Steps, blobs: BlobStore, ours: Ours) -> None:
        self._steps = steps
        self._blobs = blobs
        self._ours = ours
        self._looks = ThreadPoolExecutor(_LOOKS, thread_name_prefix="commitment")

    def services(self) -> tuple[Service[Caller], ...]:
        """Give the lines of the port's table."""
        return (Service(frozenset({SOP_CLASS}), N_ACTION, self.act),)

    def act(self, request: Request, caller: Caller) -> None:
        """Answer one N-ACTION, then report."""
        message = request.message
        if message.ActionTypeID != _REQUEST or str(message.RequestedSOPInstanceUID) != _SOP_INSTANCE:
            raise Unsupported("dicom-action", "Action inconnue de ce service.")
        transaction, references = _asked(request.identifier("ActionInformation"))
        known = self._steps.run(caller, partial(_known, transaction=transaction, references=references))
        answer = self._answer(transaction, references, known)
        message_id = self._steps.run(caller, partial(_promise, transaction=transaction, answer=answer, known=known))
        request.respond(0x0000)
        if request.leaves_within(_LEAVES_S):
            return
        said = request.report(SOP_CLASS, _SOP_INSTANCE, _event_type(answer), answer)
        if said is None or said.status != 0x0000:
            LOG.info("dicom commitment: the report waits for a new association, if its caller registered where")
        elif message_id is not None:
            self._steps.run(caller, partial(_told, message_id=message_id))

    def _answer(self, transaction: str, references: Sequence[_Reference], known: dict[str, Any]) -> Dataset:
        """Judge each reference; the content store is asked outside of any transaction, several objects at once."""
        keys = list({row.sha256 for row in known.values()})
        sizes = dict(zip(keys, self._looks.map(self._blobs.size, keys), strict=True))
        kept: list[Dataset] = []
        lost: list[Dataset] = []
        for one in references:
            row = known.get(one.sop_instance_uid)
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
            if row is None or sizes[row.sha256] != row.size_bytes:
                item.FailureReason = _NO_SUCH_OBJECT
            elif row.sop_class_uid != one.sop_class_uid:
                item.FailureReason = _CLASS_CONFLICT
            (lost if "FailureReason" in item else kept).append(item)
        answer = Dataset()
        answer.RetrieveAETitle = self._ours.ae_title
        answer.TransactionUID = transaction
        if kept:
            answer.ReferencedSOPSequence = kept
        if lost:
            answer.FailedSOPSequence = lost
        return answer


def _known(step: Step, *, transaction: str, references: Sequence[_Reference]) -> dict[str, Any]:
    """Find the objects that the caller may see, by SOP Instance UID.

    Raises
    ------
    Unavailable
        ``dicom-commitments-waiting``: looking for them would be in vain.
    """
    if _waiting(step, transaction) is None:
        _require_room(step, 0)
    wanted = [one.sop_instance_uid for one in references]
    known: dict[str, Any] = {}
    for row in step.session.execute(
        located(step.caller, instances=wanted).add_columns(Instance.partner_id).limit(None)
    ):
        if row.sop_instance_uid not in known or row.partner_id == step.caller.partner_id:
            known[row.sop_instance_uid] = row  # its own object stands for those of the same UID that others sent
    return known


def _promise(step: Step, *, transaction: str, answer: Dataset, known: dict[str, Any]) -> uuid.UUID | None:
    """Write down that the caller is told, and the report that tells him; none for who listens nowhere."""
    missing = len(answer.get("FailedSOPSequence") or ())
    step.audit(
        "recherche",
        object_type="Instance",
        persons=tuple(sorted({row.record_id for row in known.values() if row.record_id is not None})),
        detail={
            "service": "storage-commitment",
            "objects": missing + len(answer.get("ReferencedSOPSequence") or ()),
            "missing": missing,
        },
    )
    to = destination(step.session, str(step.caller.identifier))
    return _post(step, transaction, answer) if to is not None and to.partner_id == step.caller.partner_id else None


def _asked(information: Dataset) -> tuple[str, list[_Reference]]:
    """Read the Action Information `[PS3.4 table J.3-1]`."""
    transaction = next(iter(values(information, "TransactionUID")), "")
    try:
        items = list(information.get("ReferencedSOPSequence") or [])
    except Exception as error:  # the library raises whatever its parser met
        raise InvalidContent("dicom-identifier", "ReferencedSOPSequence illisible.", rule=True) from error
    if not is_uid(transaction) or not items:
        raise InvalidContent("dicom-identifier", "TransactionUID ou ReferencedSOPSequence absent.", rule=True)
    if len(items) > MAX_UIDS:
        raise InvalidContent("dicom-identifier", f"Plus de {MAX_UIDS} objets.", rule=True)
    references = [
        _Reference(*("\\".join(values(item, f"ReferencedSOP{what}UID")) for what in ("Class", "Instance")))
        for item in items
    ]
    if not all(is_uid(one.sop_class_uid) and is_uid(one.sop_instance_uid) for one in references):
        raise InvalidContent("dicom-identifier", "UID invalide dans ReferencedSOPSequence.", rule=True)
    return transaction, references


def _event_type(answer: Dataset) -> int:
    return _SOME_NOT if "FailedSOPSequence" in answer else _ALL_KEPT


def _post(step: Step, transaction: str, answer: Dataset) -> uuid.UUID:
    """Keep the report to be sent on a new association, unless the caller takes it on its own before."""
    content = encode(answer, is_implicit_vr=True, is_little_endian=True) or b""
    title = str(step.caller.identifier)
    serialise(step.session, [f"{KIND}|{step.caller.partner_id}"])
    before = _waiting(step, transaction)
    if before is not None:
        if before.sha256 == hashlib.sha256(content).hexdigest():
            return before.id
        before.state, before.done_at = "annule", utcnow()  # what it says is no longer so
        step.session.flush()
    _require_room(step, len(content))
    message = step.post(
        Outgoing(
            channel=imaging_sending.CHANNEL,
            kind=KIND,
            key=f"{KIND}|{step.caller.partner_id}|{title}|{transaction}|{uuid.uuid4()}",
            content=content,
            sender=transaction,
            recipient=title,
            partner_id=step.caller.partner_id,
        )
    )
    message.not_before = utcnow() + timedelta(seconds=GRACE_S)
    step.session.flush()
    jobs.nudge(step.session, message.id, at=message.not_before)
    return message.id


def _waits(step: Step) -> tuple[ColumnElement[bool], ...]:
    """Say which messages are reports that wait for the caller's partner; the index of what is due finds them."""
    return (
        Message.direction == "out",
        Message.state == "en-attente",
        Message.channel == imaging_sending.CHANNEL,
        Message.kind == KIND,
        Message.partner_id == step.caller.partner_id,
    )


def _waiting(step: Step, transaction: str) -> Message | None:
    """Find and hold the report of a transaction that waits already."""
    mine = (Message.sender == transaction, Message.recipient == str(step.caller.identifier))
    found = select(Message).where(*_waits(step), *mine).order_by(Message.created_at.desc())
    return step.session.scalars(found.with_for_update()).first()


def _require_room(step: Step, size_bytes: int) -> None:
    """Refuse one report more than a partner may have waiting.

    Raises
    ------
    Unavailable
        ``dicom-commitments-waiting``.
    """
    count, total = step.session.execute(
        select(func.count(), func.coalesce(func.sum(Message.size_bytes), 0)).where(*_waits(step))
    ).one()
    if count >= MAX_WAITING or total + size_bytes > MAX_WAITING_BYTES:
        text = f"{MAX_WAITING} confirmations ou {MAX_WAITING_BYTES >> 20} Mio attendent déjà d’être reçus."
        raise Unavailable("dicom-commitments-waiting", text)


def _told(step: Step, *, message_id: uuid.UUID) -> None:
    """The caller took the report on its own association."""
    message = step.session.get(Message, message_id, with_for_update=True)
    if message is not None and message.state == "en-attente":
        message.state, message.done_at = "envoye", utcnow()


def report(content: bytes, to: Destination, ours: Ours, patience: Patience | None = None) -> Delivery:
    """Send a kept report on a new association, as the provider that we are `[PS3.4 J.3.3]`.

    Raises
    ------
    GatewayError
        No association, or it broke.
    """
    syntaxes = [str(ImplicitVRLittleEndian), str(ExplicitVRLittleEndian)]
    with Outbound(to, ours, [(SOP_CLASS, syntaxes)], as_scp=[SOP_CLASS], patience=patience) as association:
        context_id = association.context(SOP_CLASS)
        if context_id is None:
            return Delivery(Outcome.REFUSED, "dicom-context-refused", "L’application ne reçoit pas de confirmation.")
        data_set = decode(io.BytesIO(content), is_implicit_vr=True, is_little_endian=True)
        explicit = association.transfer_syntax(context_id) == str(ExplicitVRLittleEndian)
        encoded = encode(data_set, is_implicit_vr=False, is_little_endian=True) if explicit else content
        answer = association.event_report(SOP_CLASS, _SOP_INSTANCE, _event_type(data_set), encoded or b"", context_id)
    if answer.status == 0x0000:
        return Delivery(Outcome.DELIVERED)
    return Delivery(Outcome.REFUSED, f"dicom-{answer.status:04x}", "L’application a refusé la confirmation.")
