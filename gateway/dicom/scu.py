"""An association that the gateway opens: C-STORE to a destination, N-EVENT-REPORT to whoever asked for commitment.

One thread, one socket, one message at a time: what is sent is read from the kept file piece by piece, and a receiver
that does not read, does not answer, or answers nonsense costs `Patience` and nothing else. The bodies of A-ASSOCIATE
PDUs are pynetdicom's.

Promises
--------
* Objects leave in the transfer syntax that they are kept in, or not at all.
* An unreachable, silent or overloaded peer is `Unavailable`; one that rejects us for good is `Forbidden`.
* One process holds at most `gateway.dicom.places.MAX_TO_ONE` associations with one peer.
* Nothing that a peer sends is kept beyond its status; no name or address of a patient reaches a log.

Does not know studies, the outbox or who may see what.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import build_context

from gateway.dicom.command import (
    A_ABORT,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    P_DATA_TF,
    Answer,
    ProtocolError,
    iterate_pdvs,
    parse_command,
)
from gateway.dicom.places import taken
from gateway.dicom.proposals import readable
from gateway.dicom.sending import Originator, Piece, event_command, message, seek_data_set, store_command
from gateway.errors import Forbidden, GatewayError, Unavailable
from gateway.rcp.imaging_destinations import Destination
from gateway.transport import TLS_CIPHERS, Tls

__all__ = ["MAX_CONTEXTS", "Ours", "Outbound", "Patience", "client_tls"]

#: Presentation contexts of one association: odd numbers of one byte `[PS3.8 9.3.2.2]`.
MAX_CONTEXTS: Final = 128

_ASSOCIATE_AC, _ASSOCIATE_RJ, _RELEASE_RQ, _RELEASE_RP = 0x02, 0x03, 0x05, 0x06
_TRANSIENT: Final = 0x02
_MAX_ASSOCIATE_BYTES: Final = 1 << 20
_OUR_PDU_BYTES: Final = 16_384  # what peers may send us: responses are small
_MAX_RESPONSE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a peer may take."""

    connect_s: float = 10.0
    negotiate_s: float = 30.0
    answer_s: float = 60.0
    write_s: float = 60.0
    release_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Ours:
    """How the gateway calls: its AE title, and which destinations it speaks TLS to.

    Parameters
    ----------
    encrypted
        AE titles of destinations that are reached over TLS.
    """

    ae_title: str
    tls: Tls = field(default_factory=Tls)
    encrypted: frozenset[str] = frozenset()

    def context(self, destination: Destination) -> ssl.SSLContext | None:
        """Give the TLS towards a destination; None when it is reached in the clear."""
        return client_tls(self.tls) if destination.ae_title in self.encrypted else None


def client_tls(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or later towards a peer `[BCP 195]`, whose certificate must name its host; ours is shown when asked."""
    return tls.minding(lambda: _client(tls))


def _client(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls.authorities) if tls.authorities else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS_CIPHERS)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def _unreachable(reason: str) -> Unavailable:
    return Unavailable("dicom-peer-unreachable", f"L’application DICOM distante ne répond pas ({reason}).")


def _broken(reason: str) -> Unavailable:
    return Unavailable("dicom-peer-broken", f"L’échange DICOM a été rompu ({reason}).")


class Outbound:
    """An established association; a context manager that releases it, or aborts it after an error.

    Parameters
    ----------
    contexts
        Abstract syntax and transfer syntaxes of each presentation context, `MAX_CONTEXTS` at most.
    as_scp
        Abstract syntaxes for which we act as the provider (N-EVENT-REPORT) `[PS3.7 D.3.3.4]`.

    Raises
    ------
    Unavailable, Forbidden
        No association.
    """

    def __init__(
        self,
        destination: Destination,
        ours: Ours,
        contexts: Sequence[tuple[str, Sequence[str]]],
        *,
        as_scp: Iterable[str] = (),
        patience: Patience | None = None,
    ) -> None:
        self._patience = patience or Patience()
        self._message_id = 0
        self._accepted: dict[int, tuple[str, str]] = {}
        self.max_pdu_bytes = 0
        self.usable = True
        address = (destination.host, destination.port)
        self._place = taken(address, self._patience.negotiate_s)
        try:
            tls = ours.context(destination)
            self._socket = socket.create_connection(address, self._patience.connect_s)
        except BaseException as error:
            self._place.give_back()
            if isinstance(error, (OSError, UnicodeError, OverflowError)):  # also a name or a port that is none
                raise _unreachable(type(error).__name__) from error
            raise
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_hostname=destination.host)
            self._negotiate(_proposal(destination, ours.ae_title, contexts, as_scp), contexts)
        except BaseException as error:
            self._close()
            if isinstance(error, (OSError, ProtocolError)):
                raise _unreachable(type(error).__name__) from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None and self.usable:
            self.release()
        else:
            self.abort()

    # ---- negotiation

    def _negotiate(self, proposal: bytes, contexts: Sequence[tuple[str, Sequence[str]]]) -> None:
        deadline = time.monotonic() + self._patience.negotiate_s
        self._socket.settimeout(self._patience.negotiate_s)
        self._socket.sendall(proposal)
        kind, pdu = self._read(deadline, _MAX_ASSOCIATE_BYTES)
        if kind == _ASSOCIATE_RJ:
            raise _rejected(pdu)
        if kind != _ASSOCIATE_AC:
            raise _unreachable(f"PDU 0x{kind:02X}")
        try:
            accepted = A_ASSOCIATE_AC()
            accepted.decode(readable(bytes(pdu)))
            answer: Any = accepted.to_primitive()
            results = answer.presentation_context_definition_results_list
            for context in results:
                position, odd = divmod(context.context_id, 2)
                if context.result == 0 and odd and position < len(contexts):
                    self._accepted[context.context_id] = (contexts[position][0], str(context.transfer_syntax[0]))
            for item in answer.user_information:
                if isinstance(item, MaximumLengthNotification):
                    self.max_pdu_bytes = item.maximum_length_received or 0
        except Exception as error:  # the library raises whatever its decoder met
            raise _unreachable("A-ASSOCIATE-AC illisible") from error
        if not results:
            raise _unreachable("A-ASSOCIATE-AC sans contexte")

    def context(self, abstract_syntax: str, transfer_syntax: str | None = None) -> int | None:
        """Find an accepted context."""
        for context_id, (abstract, transfer) in self._accepted.items():
            if abstract == abstract_syntax and transfer_syntax in (None, transfer):
                return context_id
        return None

    def transfer_syntax(self, context_id: int) -> str:
        """Give the transfer syntax of an accepted context."""
        return self._accepted[context_id][1]

    # ---- messages

    def store(self, piece: Piece, file: BinaryIO, context_id: int, originator: Originator | None = None) -> Answer:
        """Send one kept Part 10 file by C-STORE; return what the receiver says of it.

        Raises
        ------
        Unavailable
            The receiver is gone; this association is of no more use.
        """
        seek_data_set(file)
        return self._ask(context_id, store_command(piece, self._next(), originator), file)

    def event_report(
        self, sop_class_uid: str, sop_instance_uid: str, event_type: int, data_set: bytes, context_id: int
    ) -> Answer:
        """Send an N-EVENT-REPORT; errors as `store`."""
        command = event_command(sop_class_uid, sop_instance_uid, self._next(), event_type)
        return self._ask(context_id, command, io.BytesIO(data_set))

    def release(self) -> None:
        """End in good order; a peer that does not answer is left after `Patience.release_s`."""
        self.usable = False
        with contextlib.suppress(OSError, ProtocolError, GatewayError):
            self._socket.settimeout(self._patience.release_s)
            self._socket.sendall(struct.pack(">BBLL", _RELEASE_RQ, 0, 4, 0))
            deadline = time.monotonic() + self._patience.release_s
            while self._read(deadline, _MAX_ASSOCIATE_BYTES)[0] == P_DATA_TF:
                pass
        self._close()

    def abort(self) -> None:
        """End at once."""
        self.usable = False
        with contextlib.suppress(OSError):
            self._socket.settimeout(0.5)
            self._socket.sendall(struct.pack(">BBLBBBB", A_ABORT, 0, 4, 0, 0, 0, 0))
        self._close()

    def _next(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def _ask(self, context_id: int, command: bytes, file: BinaryIO) -> Answer:
        if not self.usable:
            raise _broken("association terminée")
        try:
            self._socket.settimeout(self._patience.write_s)
            for block in message(context_id, command, file, self.max_pdu_bytes):
                self._socket.sendall(block)
            return self._answer()
        except (OSError, ProtocolError) as error:
            self.abort()
            raise _broken(type(error).__name__) from error
        except BaseException:
            self.abort()  # half a message was sent: nothing else fits behind it
            raise

    def _answer(self) -> Answer:
        deadline = time.monotonic() + self._patience.answer_s
        command, with_data, size = bytearray(), False, 0
        fields: dict[int, bytes] | None = None
        while True:
            kind, pdu = self._read(deadline, _OUR_PDU_BYTES + 64)
            if kind != P_DATA_TF:
                raise ProtocolError(f"PDU 0x{kind:02X} in place of a response")
            size += len(pdu)
            if size > _MAX_RESPONSE_BYTES:
                raise ProtocolError(f"response of more than {_MAX_RESPONSE_BYTES} bytes")
            for _, header, fragment in iterate_pdvs(pdu):
                if header & 1 and fields is None:
                    command += fragment
                    if header & 2:
                        fields = parse_command(command)
                        with_data = fields.get(0x0800, b"\x01\x01") != b"\x01\x01"
                elif fields is not None and header & 2:
                    with_data = False
            if fields is not None and not with_data:
                return self._status(fields)

    def _status(self, fields: dict[int, bytes]) -> Answer:
        answered, status = fields.get(0x0120, b""), fields.get(0x0900, b"")
        if len(status) != 2 or answered != struct.pack("<H", self._message_id):
            raise ProtocolError("a response to something else")
        comment = fields.get(0x0902, b"").decode("ascii", "replace").strip()
        return Answer(struct.unpack("<H", status)[0], comment[:64])

    # ---- bytes

    def _read(self, deadline: float, limit: int) -> tuple[int, bytearray]:
        head = self._exactly(6, deadline)
        kind, _, length = struct.unpack(">BBL", head)
        if length > limit:
            raise ProtocolError(f"PDU of {length} bytes")
        if kind == A_ABORT:
            raise _broken("A-ABORT")
        return kind, head + self._exactly(length, deadline)

    def _exactly(self, count: int, deadline: float) -> bytearray:
        data = bytearray()
        while len(data) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            piece = self._socket.recv(min(count - len(data), 65_536))
            if not piece:
                raise ConnectionResetError
            data += piece
        return data

    def _close(self) -> None:
        self._place.give_back()
        with contextlib.suppress(OSError):
            self._socket.close()


def _proposal(
    destination: Destination, ae_title: str, contexts: Sequence[tuple[str, Sequence[str]]], as_scp: Iterable[str]
) -> bytes:
    proposed = []
    for position, (abstract_syntax, transfer_syntaxes) in enumerate(contexts[:MAX_CONTEXTS]):
        context = build_context(abstract_syntax, list(transfer_syntaxes))
        context.context_id = 2 * position + 1
        proposed.append(context)
    length, implementation, version = (
        MaximumLengthNotification(),
        ImplementationClassUIDNotification(),
        ImplementationVersionNameNotification(),
    )
    length.maximum_length_received = _OUR_PDU_BYTES
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    information: list[Any] = [length, implementation, version]
    for abstract_syntax in as_scp:
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid = abstract_syntax
        role.scu_role, role.scp_role = False, True
        information.append(role)
    primitive: Any = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title = ae_title
    primitive.called_ae_title = destination.ae_title
    primitive.presentation_context_definition_list = proposed
    primitive.user_information = information
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return pdu.encode()


def _rejected(pdu: bytearray) -> GatewayError:
    try:
        rejection = A_ASSOCIATE_RJ()
        rejection.decode(bytes(pdu))
        transient, reason = rejection.result == _TRANSIENT, rejection.reason_str
    except Exception:  # noqa: BLE001 - the library raises whatever its decoder met
        transient, reason = True, "illisible"
    if transient:
        return Unavailable("dicom-peer-busy", f"L’application DICOM distante refuse pour l’instant ({reason}).")
    return Forbidden("dicom-peer-rejects", f"L’application DICOM distante refuse l’association ({reason}).")
