"""The services of the port beside C-STORE: which SOP classes are accepted, and who answers which message.

`Service` is one line of the table that the composition hands to `gateway.dicom.scp.Scp`; `Request` is one message being
answered: its identifier, its cancellation, its responses, and sub-operations on its own association (C-GET).

Promises
--------
* A message that no line of the table knows goes to pynetdicom's own path, which refuses it.
* An error becomes a response with the service's own status and a comment of ours; the association goes on.
* What is sent waits for the peer to read: a peer that does not costs `Limits.idle_s` and a few PDUs of memory.

Does not know studies, partners or files.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Generic, TypeVar

from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE, C_STORE, N_ACTION, N_EVENT_REPORT
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu_primitives import A_RELEASE
from pynetdicom.presentation import PresentationContext

from gateway.dicom import outcome
from gateway.dicom.command import Answer
from gateway.dicom.line import GoneError, Line
from gateway.dicom.sending import p_data, progress_command
from gateway.errors import GatewayError, InvalidContent

__all__ = ["GoneError", "Request", "Served", "Service", "granted", "service_contexts"]

LOG = logging.getLogger(__name__)

P = TypeVar("P")

#: Syntaxes of identifiers, in our order of preference.
IDENTIFIER_SYNTAXES: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)

# What a response repeats of its request; Orthanc takes no N-ACTION-RSP without [PS3.7 10.1.4].
_ECHOED: Final = (
    ("AffectedSOPClassUID", "AffectedSOPClassUID"),
    ("RequestedSOPClassUID", "AffectedSOPClassUID"),
    ("RequestedSOPInstanceUID", "AffectedSOPInstanceUID"),
    ("ActionTypeID", "ActionTypeID"),
)
#: Command fields of the responses that say how far a retrieval is [PS3.7 E.1-1].
_PROGRESS: Final[Mapping[type, int]] = {C_MOVE: 0x8021, C_GET: 0x8010}

# Service → category of the error → status [PS3.4 tables C.4-1, C.4-2, C.4-3] [PS3.7 C.5]. An identifier that does not
# fit its SOP class is 0xA900 everywhere; N-ACTION has PS3.7's general ones.
_UNABLE: Final = 0xC000
_RESOURCES: Final[Mapping[type, int]] = {C_FIND: 0xA700, C_MOVE: 0xA701, C_GET: 0xA701, N_ACTION: 0x0213}
_QUERY: Final[Mapping[str, int]] = {"invalid-content": 0xA900, "forbidden": 0x0124, "unknown-identity": 0x0124}
_ACTION: Final[Mapping[str, int]] = {"invalid-content": 0x0115, "not-found": 0x0112, "unsupported": 0x0123}


@dataclass(frozen=True, slots=True)
class Service(Generic[P]):
    """One line of the table: a message of these SOP classes is answered by ``serve``.

    Parameters
    ----------
    message
        pynetdicom's primitive: `C_FIND`, `C_MOVE`, `C_GET`, `N_ACTION`.
    serve
        Called in the association's thread with the request and its caller; sends every response itself. A
        `GatewayError` that it raises becomes the last response.
    extended
        What SOP class extended negotiation grants: 1 for each byte that may be asked for.
    """

    sop_classes: frozenset[str]
    message: type
    serve: Callable[[Request, P], None]
    extended: bytes = b""


def granted(services: Iterable[Service[Any]], asked: Mapping[str, bytes]) -> dict[str, bytes]:
    """Answer SOP class extended negotiation: of what is asked, what the table grants `[PS3.7 D.3.3.5]`."""
    return {
        uid: bytes(ours & theirs for ours, theirs in zip(service.extended, asked[uid], strict=False))
        for service in services
        for uid in service.sop_classes
        if service.extended and asked.get(uid)
    }


def service_contexts(services: Iterable[Service[Any]]) -> dict[str, list[str]]:
    """Give the abstract syntaxes of a table with the transfer syntaxes of their identifiers."""
    return {uid: [str(one) for one in IDENTIFIER_SYNTAXES] for service in services for uid in service.sop_classes}


class Request:
    """One request on an accepted association, and what is said in answer."""

    def __init__(
        self,
        association: Association,
        line: Line,
        message: Any,
        context: PresentationContext,
        *,
        idle_s: float,
        extended: bytes = b"",
    ) -> None:
        self.message = message
        self.extended = extended
        self.sop_class_uid = str(context.abstract_syntax)
        self._association: Any = association
        self._line = line
        self._context = context
        self._idle_s = idle_s
        self._syntax: Any = context.transfer_syntax[0]

    @property
    def association(self) -> Association:
        """The association on which the request came."""
        return self._association  # type: ignore[no-any-return] # kept untyped for its private names

    def identifier(self, keyword: str = "Identifier") -> Dataset:
        """Read the data set of the request; refuse what is none. Values are parsed when they are looked at."""
        encoded = getattr(self.message, keyword, None)
        if encoded is None:
            raise InvalidContent("dicom-identifier", "Jeu de données absent de la requête.", rule=True)
        syntax = self._syntax
        try:
            encoded.seek(0)
            found = decode(
                encoded, syntax.is_implicit_VR, syntax.is_little_endian, syntax == DeflatedExplicitVRLittleEndian
            )
        except Exception as error:  # the library raises whatever its parser met
            raise InvalidContent("dicom-identifier", "Jeu de données illisible.", rule=True) from error
        return found

    @property
    def cancelled(self) -> bool:
        """Whether a C-CANCEL-RQ came for this message."""
        return self.message.MessageID in self._association.dimse.cancel_req

    @property
    def alive(self) -> bool:
        """Whether the association still stands."""
        return self._line.alive

    def respond(
        self,
        status: int,
        data_set: Dataset | None = None,
        *,
        comment: str = "",
        numbers: Mapping[str, int] | None = None,
    ) -> None:
        """Send one response; ``numbers`` are further elements of the command set by keyword."""
        response = type(self.message)()
        response.MessageID = self.message.MessageID
        response.MessageIDBeingRespondedTo = self.message.MessageID
        for said, echoed in _ECHOED:
            if getattr(self.message, said, None) is not None:
                setattr(response, echoed, getattr(self.message, said))
        response.Status = status
        if comment:
            response.ErrorComment = comment
        for keyword, value in (numbers or {}).items():
            setattr(response, keyword, value)
        if data_set is not None:
            syntax = self._syntax
            encoded = encode(data_set, syntax.is_implicit_VR, syntax.is_little_endian)
            if encoded is None:
                raise ValueError("the answer cannot be encoded")
            response.Identifier = BytesIO(encoded)
        self._say(response)

    def progress(self, *counts: int) -> None:
        """Send a pending response of a retrieval: sub-operations that remain, completed, failed, and were warned of."""
        message = self.message
        said = progress_command(self.sop_class_uid, _PROGRESS[type(message)], int(message.MessageID), counts)
        self._line.write(p_data(int(self._context.context_id or 0), b"\x03" + said))

    def refuse(self, error: BaseException) -> None:
        """Send the response that says what went wrong."""
        known = outcome.as_gateway_error(error)
        kind = type(self.message)
        if known.category == "unavailable":
            status = _RESOURCES[kind]
        elif kind is N_ACTION:
            status = _ACTION.get(known.category, 0x0110)
        else:
            status = _QUERY.get(known.category, _UNABLE)
        self.respond(status, comment=outcome.answer(known).comment)

    # ---- sub-operations on the same association

    def storage_context(self, sop_class_uid: str, transfer_syntax_uid: str) -> int | None:
        """Find the context on which the caller takes objects of a class in a syntax (role SCP) `[PS3.7 D.3.3.4]`."""
        for context_id, context in self._association._accepted_cx.items():  # noqa: SLF001
            if (
                context.as_scu
                and str(context.abstract_syntax) == sop_class_uid
                and str(context.transfer_syntax[0]) == transfer_syntax_uid
            ):
                return int(context_id)
        return None

    @property
    def max_pdu_bytes(self) -> int:
        """The longest P-DATA-TF that the caller takes; 0 says that it sets no limit."""
        return int(self._association.requestor.maximum_length or 0)

    def send(self, blocks: Iterable[bytes | bytearray]) -> None:
        """Send one message (`gateway.dicom.sending.message`)."""
        self._line.send(blocks)

    def stored(self, message_id: int) -> Answer:
        """Wait for the C-STORE-RSP to what was sent."""
        return self._line.stored(message_id)

    # ---- a report on the same association

    def leaves_within(self, seconds: float) -> bool:
        """Whether the caller asks to release, or goes, within a time."""
        until = time.monotonic() + seconds
        with self._line.listen():
            while time.monotonic() < until:
                if self._leaves():
                    return True
                time.sleep(0.005)
        return self._leaves()

    def report(self, sop_class_uid: str, sop_instance_uid: str, event_type: int, data_set: Dataset) -> Answer | None:
        """Send an N-EVENT-REPORT on the caller's association; None when it leaves or does not answer.

        Requests that come meanwhile are served afterwards.
        """
        message = N_EVENT_REPORT()
        message.MessageID = 1
        message.AffectedSOPClassUID = UID(sop_class_uid)
        message.AffectedSOPInstanceUID = UID(sop_instance_uid)
        message.EventTypeID = event_type
        syntax = self._syntax
        encoded = encode(data_set, syntax.is_implicit_VR, syntax.is_little_endian)
        message.EventInformation = BytesIO(encoded or b"")
        dimse = self._association.dimse
        self._say(message)
        until, others, answer = time.monotonic() + self._idle_s, [], None
        with self._line.listen():
            while answer is None and time.monotonic() < until and not (self._leaves() and dimse.msg_queue.empty()):
                context_id, one = dimse.get_msg(block=False)
                if isinstance(one, N_EVENT_REPORT) and one.Status is not None:
                    answer = Answer(int(one.Status))
                elif one is not None:
                    others.append((context_id, one))
                else:
                    time.sleep(0.002)
        for other in others:
            dimse.msg_queue.put(other)
        return answer

    def _leaves(self) -> bool:
        waiting = self._association.dul.peek_next_pdu()
        return not self.alive or isinstance(waiting, A_RELEASE)

    def _say(self, message: Any) -> None:
        """Send a message by the stock path, which encodes it."""
        self._line.wait_for_room()
        self._association.dimse.send_msg(message, self._context.context_id)
        self._line.stir()


class Served(Generic[P]):
    """Stands for one association's ``_serve_request``: ours by the table, the rest to the stock path."""

    def __init__(self, association: Association, services: Sequence[Service[P]], peer: P, *, idle_s: float) -> None:
        self._association: Any = association
        self._stock: Callable[[Any, int], None] = self._association._serve_request  # noqa: SLF001
        self._table = {(uid, one.message): one for one in services for uid in one.sop_classes}
        self._peer = peer
        self._idle_s = idle_s
        self._line = Line(association, idle_s=idle_s)

    def __call__(self, message: Any, context_id: int) -> None:
        """Answer one message in the association's thread."""
        association = self._association
        if isinstance(message, N_EVENT_REPORT):
            # A request, for which the library starts a thread each; nobody here is told of events [PS3.4 J.3.3].
            LOG.warning("dicom association aborted: N-EVENT-REPORT to a provider")
            association.dul.event_queue.put("Evt19")
            return
        context = association._accepted_cx.get(context_id)  # noqa: SLF001
        service = None
        if context is not None and context.as_scp and message.is_valid_request:
            service = self._table.get((str(context.abstract_syntax), type(message)))
        if context is not None and not context.as_scp and isinstance(message, C_STORE) and message.is_valid_request:
            # Whoever negotiated to take the objects of a class lays none of them down [PS3.7 D.3.3.4].
            refused = Request(association, self._line, message, context, idle_s=self._idle_s)
            with contextlib.suppress(GoneError):
                refused.respond(0x0122, comment="role-not-negotiated")
            return
        if service is None:
            self._stock(message, context_id)
            return
        association._is_paused = True  # noqa: SLF001 - as stock: the conversation is ours until it ends
        asked = {str(uid): bytes(said) for uid, said in association.requestor.sop_class_extended.items()}
        extended = granted([service], asked).get(str(context.abstract_syntax), b"")
        request = Request(association, self._line, message, context, idle_s=self._idle_s, extended=extended)
        try:
            with self._line.talk():
                self._serve(service, request)
        except GoneError:
            LOG.info("dicom request ended: the peer is gone")
            association.abort()
        except Exception as error:  # noqa: BLE001 - this thread serves one peer; the others go on
            LOG.error("dicom request failed, association aborted: %s", outcome.where(error))  # noqa: TRY400
            association.abort()
        finally:
            association._is_paused = False  # noqa: SLF001
            association.dimse.cancel_req.clear()

    def _serve(self, service: Service[P], request: Request) -> None:
        message = request.message
        said = getattr(message, "AffectedSOPClassUID", None) or getattr(message, "RequestedSOPClassUID", None)
        if str(said) != request.sop_class_uid:
            request.respond(0x0122, comment="sop-class-mismatch")
            return
        try:
            service.serve(request, self._peer)
        except GoneError:
            raise
        except GatewayError as error:
            LOG.warning("dicom request refused: %s", error.code)
            request.refuse(error)
        except Exception as error:  # noqa: BLE001 - a defect of ours is said, not shown by a dead association
            LOG.error("dicom request failed: %s", outcome.where(error))  # noqa: TRY400 - no traceback in the log
            request.refuse(error)
