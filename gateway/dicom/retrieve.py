"""C-MOVE and C-GET: what a partner may see leaves byte for byte, by C-STORE sub-operations `[PS3.4 C.4.2, C.4.3]`.

Promises
--------
* Only objects that the caller may see are counted or sent; for C-MOVE, only to a registered application, and nothing
  that its organisation may not see: such an object is a failed sub-operation.
* An object leaves in the transfer syntax that it is kept in; for a receiver that does not take it, uncompressed
  (`gateway.dicom.conversion`); else the sub-operation fails, and the last response names the syntax.
* Audit lines are durable before the first byte leaves. No database session is held while bytes are sent.
* A C-CANCEL ends the work after the object under way; so does a caller or a receiver that went away.

What leaves as it is kept is never in memory whole: the blob store's file goes to the socket piece by piece.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, zip_longest
from typing import Any, Final, cast

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from sqlalchemy import ColumnElement, Select, literal

from gateway.dicom.command import Answer
from gateway.dicom.conversion import UNCOMPRESSED, Conversion, suitable
from gateway.dicom.levels import GET, MOVE, Wanted, wanted
from gateway.dicom.scu import Ours, Outbound, Patience
from gateway.dicom.sending import Originator, Piece, message, seek_data_set, store_command
from gateway.dicom.services import GoneError, Request, Service
from gateway.dicom.statements import located
from gateway.errors import GatewayError, InvalidContent
from gateway.exchange.blobs import BlobStore
from gateway.model.imaging import Study
from gateway.rcp import access
from gateway.rcp.access import Caller
from gateway.rcp.imaging_destinations import Destination, destination, require_located
from gateway.rcp.step import Step, Steps

__all__ = ["MAX_SUB_OPERATIONS", "Batch", "Retrieval", "batches", "no_context"]

LOG = logging.getLogger(__name__)

#: What the counters of a response can say (US).
MAX_SUB_OPERATIONS: Final = 65_535
_PAIRS: Final = 60  # classes with a syntax on one association: 128 contexts with their uncompressed ones
_TRIES: Final = 2  # associations that a destination may break in a row
_UID_LIST_BYTES: Final = 60_000  # a UI value in explicit VR holds 65 534

#: Relational retrieval is granted when asked `[PS3.4 C.5.2.1]`; keys of higher levels may be left out in any case.
_RELATIONAL: Final = b"\x01"
_SUCCESS, _CANCELLED = 0x0000, 0xFE00
_WARNING, _ALL_FAILED, _UNKNOWN_DESTINATION, _TOO_MANY = 0xB000, 0xA702, 0xA801, 0xA701
_NOT_SENT: Final = Answer(0x0110, "")


@dataclass(frozen=True, slots=True)
class _Object:
    piece: Piece
    may_go: bool = True


@dataclass
class _Tally:
    """Sub-operations of one retrieval, as its responses count them."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warned: int = 0
    lost: list[str] = field(default_factory=list)
    why: str = ""

    def count(self, uid: str, answer: Answer) -> None:
        self.remaining -= 1
        if answer.status == _SUCCESS:
            self.completed += 1
        elif answer.status == 0x0001 or answer.status >> 12 == 0xB:
            self.warned += 1
        else:
            self.failed += 1
            self.lost.append(uid)
            self.why = self.why or answer.comment

    def numbers(self, *, final: bool) -> dict[str, int]:
        said = {
            "NumberOfCompletedSuboperations": self.completed,
            "NumberOfFailedSuboperations": self.failed,
            "NumberOfWarningSuboperations": self.warned,
        }
        return said if final else {"NumberOfRemainingSuboperations": self.remaining, **said}

    def failures(self) -> Dataset:
        """Name what did not arrive, as much of it as one element holds."""
        listed, size = [], 0
        for uid in self.lost:
            size += len(uid) + 1
            if size > _UID_LIST_BYTES:
                break
            listed.append(uid)
        data_set = Dataset()
        data_set.FailedSOPInstanceUIDList = listed
        return data_set


class Retrieval:
    """The retrieval services of one process.

    Parameters
    ----------
    ours
        How destinations see us.
    """

    def __init__(
        self,
        steps: Steps,
        blobs: BlobStore,
        ours: Ours,
        *,
        patience: Patience | None = None,
        conversion: Conversion | None = None,
    ) -> None:
        self._steps = steps
        self.conversion = conversion or Conversion(blobs)
        self._ours = ours
        self._patience = patience or Patience()

    def services(self) -> tuple[Service[Caller], ...]:
        """Give the lines of the port's table."""
        return (
            Service(frozenset(MOVE), C_MOVE, self.move, extended=_RELATIONAL),
            Service(frozenset(GET), C_GET, self.get, extended=_RELATIONAL),
        )

    # ---- C-MOVE

    def move(self, request: Request, caller: Caller) -> None:
        """Send what is asked for to a registered application."""
        title = str(request.message.MoveDestination or "").strip()
        asked = wanted(request.identifier(), request.sop_class_uid)
        to, objects = self._steps.run(caller, partial(_for_move, asked=asked, title=title))
        if to is None:
            request.respond(_UNKNOWN_DESTINATION, comment="move-destination-unknown")
            return
        tally = _Tally(len(objects))
        originator = Originator(str(caller.identifier or "")[:16], int(request.message.MessageID))
        with contextlib.closing(_Towards(self, to, objects, originator)) as receiver:
            self._run(request, objects, tally, receiver.store)

    # ---- C-GET

    def get(self, request: Request, caller: Caller) -> None:
        """Send what is asked for on the caller's own association."""
        asked = wanted(request.identifier(), request.sop_class_uid)
        objects = self._steps.run(caller, partial(_objects, asked=asked))
        with contextlib.closing(_Back(self.conversion, request)) as back:
            self._run(request, objects, _Tally(len(objects)), back.store)

    # ---- both

    def _run(
        self,
        request: Request,
        objects: Sequence[_Object],
        tally: _Tally,
        store: Callable[[Piece, Piece | None], Answer],
    ) -> None:
        for one, following in zip_longest(objects, objects[1:]):
            if request.cancelled:
                request.respond(_CANCELLED, tally.failures(), numbers=tally.numbers(final=False))
                return
            if not request.alive:
                raise GoneError
            answer = self._one(one, following, store)
            tally.count(one.piece.sop_instance_uid, answer)
            if tally.remaining:
                request.progress(tally.remaining, tally.completed, tally.failed, tally.warned)
        if not tally.failed and not tally.warned:
            request.respond(_SUCCESS, numbers=tally.numbers(final=True))
            return
        LOG.warning("dicom retrieve: %d of %d objects not sent: %s", tally.failed, len(objects), tally.why)
        status = _ALL_FAILED if tally.failed == len(objects) else _WARNING
        request.respond(status, tally.failures(), comment=tally.why, numbers=tally.numbers(final=True))

    def _one(self, one: _Object, following: _Object | None, store: Callable[[Piece, Piece | None], Answer]) -> Answer:
        if not one.may_go:
            return Answer(_NOT_SENT.status, "destination-not-authorised")
        try:
            return store(one.piece, following.piece if following is not None else None)
        except GatewayError as error:
            LOG.warning("dicom sub-operation failed: %s", error.code)
            return Answer(_NOT_SENT.status, error.code)

    def open(self, to: Destination, contexts: Sequence[tuple[str, Sequence[str]]]) -> Outbound:
        """Associate with a destination."""
        return Outbound(to, self._ours, contexts, patience=self._patience)


@dataclass(frozen=True, slots=True)
class Batch:
    """Objects that follow one another on one association, with the contexts that they need."""

    first: int
    contexts: tuple[tuple[str, tuple[str, ...]], ...]


def batches(pieces: Sequence[Piece]) -> Iterator[Batch]:
    """Cut a list of objects where one association can hold no more presentation contexts."""
    first, pairs = 0, dict[tuple[str, str], None]()
    for position, piece in enumerate(pieces):
        pair = (piece.sop_class_uid, piece.transfer_syntax_uid)
        if pair not in pairs and len(pairs) == _PAIRS:
            yield Batch(first, _contexts(pairs))
            first, pairs = position, {}
        pairs[pair] = None
    if pairs:
        yield Batch(first, _contexts(pairs))


def _contexts(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Offer each class in the syntaxes of its objects, each by itself, and uncompressed."""
    kept = [(abstract, (transfer,)) for abstract, transfer in pairs]
    return (*kept, *((abstract, UNCOMPRESSED) for abstract in dict.fromkeys(abstract for abstract, _ in kept)))


@dataclass(frozen=True, slots=True)
class _Begun:
    """A sub-operation whose first block is made."""

    piece: Piece
    message_id: int
    blocks: Iterator[bytearray]
    opened: contextlib.ExitStack


class _Back:
    """The way back on the caller's own association: while it answers, the first block of the next object is read."""

    def __init__(self, conversion: Conversion, request: Request) -> None:
        self._conversion = conversion
        self._request = request
        self._message_id = int(request.message.MessageID)
        self._ahead: _Begun | None = None

    def store(self, piece: Piece, following: Piece | None) -> Answer:
        if self._ahead is not None and self._ahead.piece is not piece:
            self.close()
        begun, self._ahead = self._ahead or self._begin(piece), None
        if begun is None:
            return no_context(piece)
        with begun.opened:
            self._request.send(begun.blocks)
        if following is not None:
            with contextlib.suppress(GatewayError):  # said when its turn comes
                self._ahead = self._begin(following, converted=False)
        return self._request.stored(begun.message_id)

    def close(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.opened.close()

    def _begin(self, piece: Piece, *, converted: bool = True) -> _Begun | None:
        chosen = suitable(piece, self._request.storage_context)
        if chosen is None or (chosen[1] != piece.transfer_syntax_uid and not converted):
            return None
        context_id, syntax = chosen
        self._message_id = self._message_id % 0xFFFF + 1
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self._conversion.opened(piece, syntax))
            seek_data_set(file)
            command = store_command(piece, self._message_id)
            blocks = message(context_id, command, file, self._request.max_pdu_bytes)
            first = next(blocks)
            return _Begun(piece, self._message_id, chain([first], blocks), stack.pop_all())


class _Towards:
    """The way to a destination: opened at its first object, again when it broke, given up when it breaks twice."""

    def __init__(self, retrieval: Retrieval, to: Destination, objects: Sequence[_Object], by: Originator) -> None:
        pieces = [one.piece for one in objects if one.may_go]
        self._retrieval = retrieval
        self._to = to
        self._by = by
        self._batches = {batch.first: batch for batch in batches(pieces)}
        self._batch: Batch | None = None
        self._sent = 0
        self._association: Outbound | None = None
        self._failure: GatewayError | None = None
        self._broken = 0

    def store(self, piece: Piece, _: Piece | None) -> Answer:
        position, self._sent = self._sent, self._sent + 1
        if position in self._batches:
            self.close()
            self._batch = self._batches[position]
        if self._failure is not None and self._broken >= _TRIES:
            raise self._failure
        try:
            if self._association is None or not self._association.usable:
                assert self._batch is not None  # noqa: S101 - the first object begins the first batch
                self._association = self._retrieval.open(self._to, self._batch.contexts)
            chosen = suitable(piece, self._association.context)
            if chosen is None:
                return no_context(piece)
            context_id, syntax = chosen
            with self._retrieval.conversion.opened(piece, syntax) as file:
                answer = self._association.store(piece, file, context_id, self._by)
        except GatewayError as error:
            if error.code.startswith("dicom-peer"):
                self._failure = error
                self._broken = _TRIES if self._association is None else self._broken + 1
            raise
        self._broken = 0
        return answer

    def close(self) -> None:
        association, self._association = self._association, None
        if association is not None and association.usable:
            association.release()


def no_context(piece: Piece) -> Answer:
    """No context of the receiver holds this object as it is kept; said with the syntax, which names no patient."""
    return Answer(0x0122, f"transfer-syntax-refused: {piece.transfer_syntax_uid}"[:64])


def _for_move(step: Step, *, asked: Wanted, title: str) -> tuple[Destination | None, list[_Object]]:
    """Find the destination and what is to be sent to it."""
    require_located(step.caller)
    to = destination(step.session, title)
    if to is None:
        reason = "move-destination-unknown"
        step.audit("refus", outcome="4", reason=reason, object_type="Study", recipient=title or None)
        return None, []
    return to, _objects(step, asked=asked, to=to)


def _objects(step: Step, *, asked: Wanted, to: Destination | None = None) -> list[_Object]:
    """Find what is asked for, and write down that it leaves; the same object from two partners is one."""
    caller = step.caller
    require_located(caller)
    foreign = to is not None and to.partner_id != caller.partner_id
    allowed: ColumnElement[Any] = access.studies(to.caller) if to is not None and foreign else literal(value=True)
    rows = step.session.execute(_statement(caller, asked, allowed)).all()
    if len(rows) > MAX_SUB_OPERATIONS:
        raise InvalidContent("dicom-too-many", f"Plus de {MAX_SUB_OPERATIONS} objets demandés.", rule=True)
    if asked.level == "PATIENT" and len({row.patient_id_system or row.partner_id for row in rows}) > 1:
        text = "PatientID sans émetteur : plusieurs patients possibles, indiquer IssuerOfPatientID."
        raise InvalidContent("dicom-patient-ambiguous", text, expression="PatientID", rule=True)
    objects: dict[str, _Object] = {}
    studies: dict[str, set[uuid.UUID]] = {}
    for row in rows:
        known = objects.get(row.sop_instance_uid)
        if known is None or (row.may_go and not known.may_go):
            piece = Piece(row.sop_class_uid, row.sop_instance_uid, row.transfer_syntax_uid, row.sha256)
            objects[row.sop_instance_uid] = _Object(piece, bool(row.may_go))
        studies.setdefault(row.study_instance_uid, set()).update([row.record_id] if row.record_id else [])
    _tell(step, asked, to, studies, len(objects))
    return list(objects.values())


def _tell(step: Step, asked: Wanted, to: Destination | None, studies: dict[str, set[uuid.UUID]], objects: int) -> None:
    if not studies:
        named = next(iter((*asked.studies, *asked.series, *asked.instances)), None)
        step.audit("refus", outcome="4", reason="inconnu", object_type="Study", object_id=named)
    for uid, persons in studies.items():
        step.audit(
            "imagerie" if to is None else "envoi",
            action="R" if to is None else "C",
            persons=tuple(sorted(persons)),
            object_type="Study",
            object_id=uid,
            recipient=to.ae_title if to is not None else None,
            detail={"service": "C-GET" if to is None else "C-MOVE", "objects": objects},
        )


def _statement(caller: Caller, asked: Wanted, allowed: ColumnElement[Any]) -> Select[Any]:
    found = located(
        caller,
        studies=asked.studies,
        series=asked.series,
        instances=asked.instances,
        conditions=list(_of_the_patient(asked)),
    )
    wider = found.add_columns(Study.partner_id, Study.patient_id_system, allowed.label("may_go"))
    return cast("Select[Any]", wider.limit(MAX_SUB_OPERATIONS + 1))


def _of_the_patient(asked: Wanted) -> Iterator[ColumnElement[bool]]:
    if asked.patient_id is not None:
        yield Study.patient_id == asked.patient_id
    if asked.issuer is not None:
        yield Study.patient_id_system.in_((asked.issuer, f"urn:oid:{asked.issuer}"))
