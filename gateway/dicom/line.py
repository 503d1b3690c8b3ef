"""What is said on a caller's association while a request of his is answered, past pynetdicom's objects for each PDU.

pynetdicom's DUL thread stays the only reader and writer of its socket. It is handed PDUs that are ready, many at a
time; it sleeps until there are some, or until the peer speaks, in place of turning in circles beside the thread that
makes them; and the C-STORE-RSP of a sub-operation is read without an object of its own.

Promises
--------
* PDUs leave whole and in their order, between those of the stock path; a peer that does not read costs ``idle_s`` and
  `_WAITING_BLOCKS` blocks of memory.
* A message that broke off in its middle ends the association: nothing else would fit behind it.
* A peer that sends requests ahead of their answers, which nobody negotiated, is aborted beyond `MAX_WAITING_REQUESTS`
  or `MAX_WAITING_BYTES`.

Does not know what the messages mean.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from gateway.dicom.command import Answer, ProtocolError, parse_command

__all__ = ["MAX_WAITING_BYTES", "MAX_WAITING_REQUESTS", "GoneError", "Line"]

LOG = logging.getLogger(__name__)

#: Requests that may wait behind the one under way, and their bytes.
MAX_WAITING_REQUESTS: Final = 8
MAX_WAITING_BYTES: Final = 4 << 20
_WAITING_BLOCKS: Final = 4
_CANCELLED: Final = 8
_SLICE_S: Final = 0.1  # how long a wait lasts before the association is looked at
_C_STORE_RSP: Final = struct.pack("<H", 0x8001)
_NO_DATA_SET: Final = struct.pack("<H", 0x0101)
_WHOLE_COMMAND: Final = 3  # message control header: a command set, and its last fragment


class GoneError(Exception):
    """The peer went away, or does not read: nothing more can be said to it."""


class _Ready(P_DATA):
    """P-DATA-TF PDUs as they go to the socket; the queue of what is to be sent takes them for a P-DATA request."""

    def __init__(self, pdus: bytes | bytearray) -> None:
        super().__init__()
        self.pdus = pdus


class Line:
    """One association's.

    To be made while it is negotiated: no message has come yet.
    """

    def __init__(self, association: Association, *, idle_s: float) -> None:
        self._association: Any = association
        self._dul: Any = cast("Any", association.dul)
        self._dimse: Any = cast("Any", association.dimse)
        self._idle_s = idle_s
        self._answers: queue.SimpleQueue[tuple[bytes, Answer]] = queue.SimpleQueue()
        self._talking = self._listening = False
        self._said, self._room, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._ahead_bytes = 0
        self._stock_put = self._dimse.msg_queue.put
        self._dimse.msg_queue.put = self._asked
        self._stock_received = self._dimse.receive_primitive
        self._dimse.receive_primitive = self._received
        self._stock_act = self._dul.state_machine.do_action
        self._dul.state_machine.do_action = self._act
        self._stock_patience_s = self._dul.socket.patience_s
        self._dul.socket.patience_s = self._patience_s

    # ---- the association's own thread

    @contextlib.contextmanager
    def talk(self) -> Iterator[None]:
        """Say that a request is being answered."""
        self._talking = True
        try:
            yield
        finally:
            self._talking = self._listening = False
            self._said.set()

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        """Say that the next word is the peer's."""
        self._listening = True
        self._said.set()
        try:
            yield
        finally:
            self._listening = False

    @property
    def alive(self) -> bool:
        """Whether the association still stands."""
        association = self._association
        return bool(
            association.is_established
            and not association._kill  # noqa: SLF001 - pinned by gateway.dicom.wire
            and self._dul.is_alive()
            and not association.acse.is_aborted()
        )

    def write(self, pdus: bytes | bytearray) -> None:
        """Send whole P-DATA-TF PDUs, which are not to be changed any more.

        Raises
        ------
        GoneError
        """
        self.wait_for_room()
        self._dul.send_pdu(_Ready(pdus))
        self.stir()

    def send(self, blocks: Iterable[bytes | bytearray]) -> None:
        """Send one message in blocks of whole PDUs; the next is made while one leaves.

        Raises
        ------
        GoneError
            Or the message broke off.
        Exception
            What making the first block raises: nothing of the message was sent.
        """
        several = iter(blocks)
        block = next(several, None)
        while block is not None:
            self.write(block)
            try:
                block = next(several, None)
            except Exception as error:
                LOG.warning("dicom sub-operation broken off: %s", type(error).__name__)
                raise GoneError from error

    def stored(self, message_id: int) -> Answer:
        """Wait for the C-STORE-RSP to a message.

        Raises
        ------
        GoneError
        """
        with self._lock:
            self._listening = self._answers.empty()  # else the DUL thread would wait for what it has brought
        self._said.set()
        until = time.monotonic() + self._idle_s
        while True:
            try:
                answered, answer = self._answers.get(timeout=_SLICE_S)
            except queue.Empty:
                if not self.alive or time.monotonic() > until:
                    raise GoneError from None
                continue
            if answered != struct.pack("<H", message_id):
                raise GoneError
            return answer

    def wait_for_room(self) -> None:
        """Wait until the peer has read enough of what was said.

        Raises
        ------
        GoneError
        """
        until = time.monotonic() + self._idle_s
        waiting = self._dul.to_provider_queue
        while True:
            self._room.clear()
            if not self.alive or time.monotonic() > until:
                raise GoneError
            if waiting.qsize() < _WAITING_BLOCKS:
                return
            self._room.wait(_SLICE_S)

    def stir(self) -> None:
        """Say that something is to be sent: our own sending is a sign of life."""
        self._dul._idle_timer.restart()  # noqa: SLF001 - as above
        self._association._reactor_checkpoint.ring()  # noqa: SLF001 - a `Pace`
        self._said.set()

    # ---- the DUL thread

    def _act(self, event: str) -> None:
        waiting = self._dul.to_provider_queue
        if event == "Evt9" and not waiting.queue:
            return  # the library said it twice: once each turn, and the first had to wait behind what the peer said
        # Sta8: the peer asked to release while it is still being answered; what is under way leaves first.
        if event == "Evt9" and self._dul.state_machine.current_state in ("Sta6", "Sta8"):
            first = waiting.queue[0]
            if isinstance(first, _Ready):
                waiting.get_nowait()
                self._dul.socket.send(first.pdus)
                self._room.set()
                return
        self._stock_act(event)
        self._room.set()

    def _patience_s(self) -> float:
        pause_s = float(self._stock_patience_s())
        if not self._talking or not pause_s or self._dul.state_machine.current_state != "Sta6":
            return pause_s
        if self._listening:
            return _SLICE_S  # the peer's bytes end it
        # The next thing to happen is that our side says something; a C-CANCEL can wait so long.
        self._said.wait(_SLICE_S / 10)
        self._said.clear()
        return 0.0

    def _asked(self, waiting: tuple[int, Any]) -> None:
        """Put a message behind the others; what was cancelled before it was asked for is not cancelled."""
        self._dimse.cancel_req.pop(getattr(waiting[1], "MessageID", None), None)
        self._stock_put(waiting)

    def _received(self, primitive: P_DATA) -> None:
        answer = self._whole_answer(primitive) if self._talking and self._dimse.message is None else None
        if answer is None:
            self._stock_received(primitive)
            cancelled = self._dimse.cancel_req
            if len(cancelled) > _CANCELLED:  # of nothing: the library takes a few, then serves them as requests
                cancelled.pop(next(iter(cancelled), None), None)
            answer = self._stock_answer() if self._talking else None
        if answer is not None:
            with self._lock:
                self._listening = False
                self._answers.put(answer)
        ahead = max(self._dimse.msg_queue.qsize(), self._answers.qsize())
        size = sum(len(data) for _, data in primitive.presentation_data_value_list)
        self._ahead_bytes = self._ahead_bytes + size if ahead else 0
        for name, found, limit in (
            ("max_waiting_requests", ahead, MAX_WAITING_REQUESTS),
            ("max_waiting_bytes", self._ahead_bytes, MAX_WAITING_BYTES),
        ):
            if found > limit:
                LOG.warning("dicom association aborted: %s %d", name, limit)
                self._dul.event_queue.put("Evt19")
                return

    def _stock_answer(self) -> tuple[bytes, Answer] | None:
        """Take a C-STORE-RSP that the stock path put together from several pieces."""
        messages = self._dimse.msg_queue
        with messages.mutex:
            last = messages.queue[-1][1] if messages.queue else None
            if not isinstance(last, C_STORE) or not last.is_valid_response:
                return None
            messages.queue.pop()
        return struct.pack("<H", last.MessageIDBeingRespondedTo), Answer(int(last.Status or 0))

    @staticmethod
    def _whole_answer(primitive: P_DATA) -> tuple[bytes, Answer] | None:
        """Read a C-STORE-RSP that came in one piece."""
        values = primitive.presentation_data_value_list
        if len(values) != 1 or values[0][1][:1] != bytes([_WHOLE_COMMAND]):
            return None
        try:
            fields = parse_command(values[0][1][1:])
        except ProtocolError:
            return None
        if (
            fields.get(0x0100) != _C_STORE_RSP
            or fields.get(0x0800) != _NO_DATA_SET
            or len(fields.get(0x0900, b"")) != 2
        ):
            return None
        return fields.get(0x0120, b""), Answer(struct.unpack("<H", fields[0x0900])[0])
