"""The receiving path of a C-STORE: socket → one buffer → sink → answer, beside pynetdicom's own machinery.

pynetdicom negotiates, serves every other message and owns the state machine. Its DUL thread is the only reader and the
only writer of its socket; we take the place of the one method of that thread that reads a PDU. A C-STORE-RQ on an
accepted context is read straight into a `Sink` and answered from here; every other PDU goes whole to the stock path.
So an association may mix C-ECHO, C-STORE, C-FIND, C-GET and N-ACTION at will.

Promises
--------
* 0x0000 leaves only after `Sink.commit` returned; a refused object is drained and answered with status and comment.
* Nothing a peer sends makes memory grow: PDUs, command sets, other messages and objects have limits of their own.
* A stall, an abort or a closed connection discards the sink within `Limits.idle_s`.

Does not know partners, files or tables. No pynetdicom event is raised for a diverted store: trail from the sink.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import pynetdicom
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE
from pynetdicom.transport import AssociationSocket

from gateway.dicom import outcome
from gateway.dicom.command import (
    A_ABORT,
    A_ASSOCIATE_RQ,
    P_DATA_TF,
    PDU_TYPES,
    ProtocolError,
    StoreRequest,
    announces_data_set,
    expect_one_message,
    iterate_pdvs,
    parse_command,
    store_request,
    store_response,
)
from gateway.dicom.intake import Intake, OpenSink
from gateway.dicom.pacing import Pace, WaitingSocket, poll
from gateway.dicom.proposals import Proposal, Proposals

__all__ = ["Diverter", "Limits", "assert_library", "divert"]

LOG = logging.getLogger(__name__)

PINNED_VERSION: Final = "3.0.4"
_PINNED: Final[dict[type, tuple[str, ...]]] = {
    DULServiceProvider: ("_read_pdu_data", "_decode_pdu", "_is_transport_event"),
    AssociationSocket: ("ready", "_shutdown_socket"),
    Association: ("_run_reactor", "kill", "_serve_request"),
}
_PINNED_ATTRIBUTES: Final = {
    "dul": ("_recv_pdu", "_idle_timer", "_kill_thread", "_run_loop_delay"),
    "association": ("_accepted_cx", "_sent_abort", "_reactor_checkpoint", "_is_paused", "_kill"),
}

_HEAD_LENGTH: Final = 6  # of a PDU
_HEADS_LENGTH: Final = 12  # and of its first PDV
_SLICE_S: Final = 1.0  # how long one blocking read lasts before aborts and deadlines are looked at
_LEAVING_S: Final = 5.0  # how long who was aborted may go on sending; shorter, and a reset overtakes our A-ABORT


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of the receiving path; what exceeds one is refused or aborted, and the log names the bound."""

    max_pdu_bytes: int = 131_072  # P-DATA-TF, as announced at negotiation
    max_other_pdu_bytes: int = 1 << 20  # A-ASSOCIATE-RQ and whatever else is read whole
    max_command_bytes: int = 65_536
    max_message_bytes: int = 16 << 20  # a message on the stock path, which keeps it in memory
    max_object_bytes: int = 8 << 30  # one composite object
    buffer_bytes: int = 256 << 10  # per association while stores are under way: hashed while the peer sends on
    idle_s: float = 60.0  # silence of the peer, and the time one PDU may take
    acse_s: float = 30.0  # negotiation
    handshake_s: float = 10.0  # TLS
    linger_s: float = 0.02  # how long the fast loop waits for the next message before a turn of the stock loop
    max_associations: int = 50
    drain_s: float = 20.0  # on stop, for stores under way


class _GoneError(Exception):
    """The transport closed or went silent, or the local user takes the association back in mid data set."""


class _StreamStoppedError(Exception):
    """A PDU other than P-DATA-TF came in the middle of a data set; it has been given to the stock path."""


def assert_library() -> None:
    """Refuse to start on a pynetdicom whose private names are not those this module was written against."""
    missing = [
        f"{owner.__name__}.{name}" for owner, names in _PINNED.items() for name in names if not hasattr(owner, name)
    ]
    probe = Association(pynetdicom.AE(), "acceptor")
    owners = {"dul": probe.dul, "association": probe}
    missing += [
        f"{key}.{name}" for key, names in _PINNED_ATTRIBUTES.items() for name in names if not hasattr(owners[key], name)
    ]
    if pynetdicom.__version__ != PINNED_VERSION or missing:
        found = pynetdicom.__version__
        raise RuntimeError(f"pynetdicom {PINNED_VERSION} is required, found {found}; missing names: {missing}")


def divert(association: Association, open_sink: OpenSink, limits: Limits, proposals: Proposals) -> Diverter:
    """Put a `Diverter` in the place of an acceptor's PDU reader.

    To be called from EVT_CONN_OPEN, before the association's threads start: at EVT_ESTABLISHED the A-ASSOCIATE-AC is
    already queued and the peer's first PDU may be in the stock path.
    """
    diverter = Diverter(association, open_sink, limits, proposals)
    dul: Any = association.dul
    # The request handler builds the socket object and queues its first event; changing its class keeps both.
    dul.socket.__class__ = WaitingSocket
    dul.socket.patience_s = diverter.patience_s
    dul.socket.sending_s = limits.idle_s
    dul._run_loop_delay = 0  # `ready` does the waiting  # noqa: SLF001 - pinned by assert_library
    dul._read_pdu_data = diverter  # noqa: SLF001
    association._reactor_checkpoint = diverter.pace  # noqa: SLF001
    _say_nothing_more(dul)
    return diverter


def _say_nothing_more(dul: Any) -> None:
    """Drop what our own side still says once the transport only waits to be closed.

    The association's thread may accept what its peer has just broken off: the state machine has no such transition,
    and the stock thread would die of it and leave the connection open. And let that thread go when what came in place
    of an A-ASSOCIATE-RQ ended the talk: it would wait for one, in a place that another caller could have, for `acse_s`.
    """
    machine = dul.state_machine
    act = machine.do_action

    def do_action(event: str) -> None:
        before = machine.current_state
        if before != "Sta13" or (event, "Sta13") in TRANSITION_TABLE:
            act(event)
            if before == "Sta2" and machine.current_state in ("Sta1", "Sta13"):
                dul.to_user_queue.put(None)
            return
        LOG.info("dicom answer dropped: the peer broke off")
        with contextlib.suppress(queue.Empty):
            dul.to_provider_queue.get_nowait()  # else it would be said again, and nothing else

    machine.do_action = do_action


class Diverter:
    """Stands for one association's `DULServiceProvider._read_pdu_data`; runs in the DUL thread only.

    Parameters
    ----------
    association
        The acceptor, before its threads start.
    open_sink
        Called with each C-STORE-RQ; may raise a `GatewayError`, which is then the answer.
    limits
        The bounds.
    proposals
        What callers of this port proposed before.
    """

    def __init__(self, association: Association, open_sink: OpenSink, limits: Limits, proposals: Proposals) -> None:
        self.stored = 0
        self.pace = Pace()
        self.proposal: Proposal | None = None
        self._proposals = proposals
        self._association: Any = association
        self._dul: Any = cast("Any", association.dul)
        self._socket: Any = self._dul.socket.socket
        # The kernel keeps the time of a plain connection, and waits for all that is asked for: else each read is a poll
        # and a part, and between associations each of these is a fight for the interpreter.
        self._plain = not isinstance(self._socket, ssl.SSLSocket)
        if self._plain:
            for option, seconds in ((socket.SO_RCVTIMEO, _SLICE_S), (socket.SO_SNDTIMEO, limits.idle_s)):
                whole = int(seconds)
                value = struct.pack("@ll", whole, int((seconds - whole) * 1_000_000))
                self._socket.setsockopt(socket.SOL_SOCKET, option, value)
        self.open_sink = open_sink  # replaced once the caller is known
        self._limits = limits
        self._head = memoryview(bytearray(_HEADS_LENGTH))
        self._ahead = 0  # how much of a PDU's head is read
        self._buffer: memoryview | None = None
        self._held: list[bytearray] = []  # PDUs of a command set that is not complete yet
        self._command = bytearray()
        self._fed_bytes = 0
        self._deadline = 0.0
        self._dead = False
        self._leaves_at: float | None = None
        self._draining = False
        self._aborting = False

    # ---- called from other threads

    def drain(self) -> None:
        """Let the store under way end, then abort; never blocks."""
        self._draining = True

    def abort(self) -> None:
        """Abort within a second, even in mid data set; never blocks.

        `Association.abort` is no substitute: it lets the association's thread close the socket before the A-ABORT left.
        """
        self._aborting = True

    def patience_s(self) -> float:
        """How long the DUL thread may wait for bytes; a drain takes effect here, between two messages."""
        state = self._dul.state_machine.current_state
        if state == "Sta13":
            return _SLICE_S  # the peer closes first, so that our last PDU is not lost to a reset
        if self._dul.to_provider_queue.queue:
            return 0.0
        if (self._draining or self._aborting) and not self._dead and self._quiet():
            self._give_up()
        return self.pace.pause_s()

    # ---- the method of the DUL thread

    def __call__(self) -> None:
        """Read what the stock loop saw coming: one PDU, or as many whole stores as follow one another."""
        events = self._dul.event_queue
        if not events.empty():
            return  # the stock loop handles one event a turn; reading ahead would overtake its state
        self._socket.settimeout(None if self._plain else _SLICE_S)
        try:
            if self._dead or self._dul.state_machine.current_state == "Sta13":
                self._throw_away()
            else:
                while self._one() and poll(self._socket, self._limits.linger_s) and not self._wanted_elsewhere():
                    self._dul._idle_timer.restart()  # noqa: SLF001
        except _StreamStoppedError:
            pass
        except (_GoneError, OSError) as error:  # ssl.SSLError and TimeoutError are OSErrors
            LOG.info("dicom transport ended: %s", type(error).__name__)
            if not (self._association._sent_abort or self._dul._kill_thread):  # noqa: SLF001 - else stock sends its A-ABORT
                self._end("Evt17")
        except ProtocolError as error:
            LOG.warning("dicom protocol error, association aborted: %s", error)
            self._give_up()
        except Exception as error:  # noqa: BLE001 - this thread serves one peer; the others go on
            LOG.error("dicom receive failed, association aborted: %s", outcome.where(error))  # noqa: TRY400
            self._give_up()
        finally:
            self._buffer = None  # the association and this object refer to one another: free the buffer now
            self.pace.ring()

    def _throw_away(self) -> None:
        """After a protocol error the rest is not in step with PDU borders: stock would parse thousands of bad PDUs."""
        if self._leaves_at is None:
            self._leaves_at = time.monotonic() + _LEAVING_S
        elif time.monotonic() > self._leaves_at:
            self._dul.socket.close()
            return
        try:
            if self._socket.recv(65_536):
                return
        except (TimeoutError, BlockingIOError):
            return
        self._end("Evt17")

    def _wanted_elsewhere(self) -> bool:
        dul = self._dul
        return bool(dul.to_provider_queue.queue or dul._kill_thread or not dul.event_queue.empty() or self._draining)  # noqa: SLF001

    # ---- reading

    def _receive(self, view: memoryview, least: int) -> int:
        """Read at least so many bytes, and what came with them as far as there is room; how many they are."""
        got = 0
        while got < least:
            try:
                if self._plain:
                    count = self._socket.recv_into(view[got:], 0, socket.MSG_WAITALL)
                else:
                    count = self._socket.recv_into(view[got:])
            except (TimeoutError, BlockingIOError):
                self._look_up()
                continue
            if not count:
                raise _GoneError
            got += count
            if got < least:  # a byte now and then is no sign of life
                self._look_up()
        return got

    def _read_head(self, least: int, most: int) -> None:
        """Have the first bytes of a PDU; some may have come with the PDU before."""
        if self._ahead < least:
            self._ahead += self._receive(self._head[self._ahead : most], least - self._ahead)

    def _look_up(self) -> None:
        if self._aborting:
            raise ProtocolError("local abort")
        if self._association._sent_abort or self._dul._kill_thread:  # noqa: SLF001
            raise _GoneError
        if time.monotonic() > self._deadline:
            raise ProtocolError(f"idle_s: no whole PDU within {self._limits.idle_s} s")

    def _pdu_head(self, most: int = _HEAD_LENGTH) -> tuple[int, int]:
        self._deadline = time.monotonic() + self._limits.idle_s
        self._read_head(_HEAD_LENGTH, most)
        kind, _, length = struct.unpack_from(">BBL", self._head)
        name = "max_pdu_bytes" if kind == P_DATA_TF else "max_other_pdu_bytes"
        if kind not in PDU_TYPES:
            raise ProtocolError(f"unknown PDU type 0x{kind:02X}")
        # Senders count the announced length with or without the PDV heads; 64 bytes forgive both.
        if length > getattr(self._limits, name) + 64:
            raise ProtocolError(f"{name}: PDU of {length} bytes")
        return kind, length

    def _pdu_rest(self, length: int) -> bytearray:
        pdu, ahead, self._ahead = bytearray(_HEAD_LENGTH + length), self._ahead, 0
        if ahead > len(pdu):
            raise ProtocolError("PDU: bytes of another behind one that ends the data set")
        pdu[:ahead] = self._head[:ahead]
        self._receive(memoryview(pdu)[ahead:], len(pdu) - ahead)
        return pdu

    def _quiet(self) -> bool:
        """Between two messages: nothing held, nothing half-read on the stock path, nothing to send."""
        dimse = self._association.dimse
        return (
            not self._held
            and dimse.message is None
            and dimse.msg_queue.empty()
            and not self._dul.to_provider_queue.queue
        )

    def _feed(self, *pdus: bytearray) -> None:
        """Give whole PDUs to the stock decoder and state machine."""
        for pdu in pdus:
            try:
                decoded, event = self._decoded(pdu)
            except Exception:  # noqa: BLE001 - the library raises whatever its decoder met
                LOG.warning("dicom: undecodable PDU of type 0x%02X", pdu[0])
                self._give_up()
                return
            self._dul._recv_pdu.put(decoded)  # noqa: SLF001
            self._dul.event_queue.put(event)
        self.pace.ring()

    def _decoded(self, pdu: bytearray) -> tuple[Any, str]:
        if pdu[0] != A_ASSOCIATE_RQ:
            return cast("tuple[Any, str]", self._dul._decode_pdu(pdu))  # noqa: SLF001
        proposal = self._proposals.read(bytes(pdu))
        if self.proposal is None:  # a second one is no proposal: the state machine aborts
            self.proposal = proposal
        return proposal, "Evt6"

    def _give_up(self) -> None:
        """A-ABORT through the state machine, in this thread's own turn."""
        self._dead = True
        self._end("Evt19")

    def _end(self, event: str) -> None:
        self._dul.event_queue.put(event)

    def _one(self) -> bool:
        """Read one PDU and, if it opens a C-STORE-RQ, the whole message; true when more of the fast path may follow."""
        in_step = self._dul.state_machine.current_state == "Sta6" and self._association.dimse.message is None
        kind, length = self._pdu_head()
        pdu = self._pdu_rest(length)
        if kind == P_DATA_TF and in_step:
            self._fed_bytes = 0
            return self._opening(pdu)
        if kind == P_DATA_TF:
            if self._association.dimse.message is not None:
                expect_one_message(iterate_pdvs(pdu), data_set=True)
            self._fed_bytes += length
            if self._fed_bytes > self._limits.max_message_bytes:
                raise ProtocolError(f"max_message_bytes: more than {self._limits.max_message_bytes} bytes")
        held, self._held = self._held, []
        self._command.clear()
        self._feed(*held, pdu)
        return False

    def _opening(self, pdu: bytearray) -> bool:
        """Take a PDU that begins, or continues, a command set."""
        self._held.append(pdu)
        fragments = iterate_pdvs(pdu)
        for context_id, header, fragment in fragments:
            if not header & 1:
                break  # a data set without its command: the stock path aborts
            self._command += fragment
            if len(self._command) > self._limits.max_command_bytes:
                raise ProtocolError(f"max_command_bytes: more than {self._limits.max_command_bytes} bytes")
            if header & 2:
                context = self._association._accepted_cx.get(context_id)  # noqa: SLF001
                command = parse_command(self._command)
                request = None
                if context is not None and context.as_scp:
                    request = store_request(context_id, command, str(context.transfer_syntax[0]))
                if request is None:
                    expect_one_message(fragments, data_set=announces_data_set(command))
                    break
                self._held, self._command = [], bytearray()
                self._store(request, str(context.abstract_syntax), fragments)
                return True
        else:
            return True  # goes on in the next PDU
        held, self._held = self._held, []
        self._command.clear()
        self._feed(*held)  # C-ECHO, C-FIND, a C-STORE-RSP of our own C-GET, or nonsense
        return False

    # ---- storing

    def _store(self, request: StoreRequest, abstract_syntax: str, rest: Iterator[tuple[int, int, memoryview]]) -> None:
        # Peers with Nagle's algorithm wait for our acknowledgement; the option is not sticky.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        intake = Intake(request, abstract_syntax, self.open_sink, self._limits.max_object_bytes)
        try:
            last = False
            for context_id, header, fragment in rest:  # fragments in the same PDU as the command
                if last or context_id != request.context_id or header & 1:
                    raise ProtocolError("data set: fragment of another message")
                intake.write(fragment)
                last = bool(header & 2)
            if not last:
                self._stream(request.context_id, intake)
            self._dul._idle_timer.restart()  # noqa: SLF001 - the commit may last
            answer = intake.finish()
        finally:
            intake.close()
        self._answer(store_response(request, answer))
        self.stored += answer.status == 0
        intake.answered()

    def _answer(self, pdu: bytes) -> None:
        """Send a PDU that is small; a peer may read slowly all the same."""
        if self._plain:
            if self._socket.send(pdu) < len(pdu):  # in idle_s
                raise _GoneError
            return
        self._socket.settimeout(self._limits.idle_s)
        self._socket.sendall(pdu)
        self._socket.settimeout(_SLICE_S)

    def _stream(self, context_id: int, intake: Intake) -> None:
        """Read the P-DATA-TF PDUs of one data set up to its last fragment."""
        if self._buffer is None:
            self._buffer = memoryview(bytearray(self._limits.buffer_bytes))
        filled, last = 0, False
        while not last:
            kind, length = self._pdu_head(_HEADS_LENGTH)
            if kind != P_DATA_TF:
                if kind != A_ABORT:
                    LOG.warning("dicom: PDU of type 0x%02X in the middle of a data set", kind)
                self._feed(self._pdu_rest(length))
                raise _StreamStoppedError
            filled, last = self._fragments(length, context_id, intake, self._buffer, filled)
            self._dul._idle_timer.restart()  # noqa: SLF001
            if self._aborting or self._association._sent_abort or self._dul._kill_thread:  # noqa: SLF001
                self._look_up()
        intake.write(self._buffer[:filled])

    def _fragments(
        self, left: int, context_id: int, intake: Intake, buffer: memoryview, filled: int
    ) -> tuple[int, bool]:
        """Read one PDU into the buffer, emptied when full; return its filling and whether the last one was there."""
        size, last = len(buffer) - _HEADS_LENGTH, False
        if not left:
            raise ProtocolError("P-DATA-TF without a fragment")
        while left:
            if last:
                raise ProtocolError("PDV: after the last fragment")
            if left < 6:
                raise ProtocolError("PDV: truncated head")
            self._read_head(_HEADS_LENGTH, _HEADS_LENGTH)
            length, fragment_context, header = struct.unpack_from(">LBB", self._head, _HEAD_LENGTH)
            left -= 4 + length
            length -= 2
            if length < 0 or left < 0 or fragment_context != context_id or header & 1:
                raise ProtocolError("PDV: outside its PDU, or of another message")
            last = bool(header & 2)
            self._ahead = _HEAD_LENGTH if left else 0
            while length:
                step = min(length, size - filled)
                length -= step
                # When another PDU follows, its heads come with the rest of this one.
                more = 0 if last or left or length else _HEADS_LENGTH
                self._ahead += self._receive(buffer[filled : filled + step + more], step) - step
                filled += step
                if more:
                    self._head[: self._ahead] = buffer[filled : filled + self._ahead]
                if filled == size:
                    intake.write(buffer[:size])
                    filled = 0
        return filled, last
