"""The MLLP port: frames on bytes, bounded in size, number and time, with or without TLS.

Promises
--------
* A frame is ``0x0B`` … ``0x1C 0x0D``; what stands between frames is passed over, a frame that begins anew before its
  end drops what came before, one that never ends gets no answer. Any split of the bytes gives the same frames.
* A message is answered on its connection, in order, before the next one is read. What exceeds the size is read to its
  end, kept nowhere and refused by name; the connection goes on.
* A connection costs a thread and little memory while it is silent. Over `Limits.connections` a new one is closed at
  once, and the log names the limit.
* `stop` closes the port, lets messages in work be answered within `Limits.drain_s`, then cuts.

Knows nothing of what a message says.

Sources: [HL7 MLLP R1], [BCP 195], spec mssante 3.1, 7.4 X29.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from gateway.errors import GatewayError, InvalidContent, UnknownIdentity
from gateway.rcp.access import Caller
from gateway.rcp.peer_proofs import plain
from gateway.transport import Address

__all__ = ["Frame", "Framer", "Limits", "Mllp", "Peers", "Taker"]

START: Final = b"\x0b"
END: Final = b"\x1c"
_CHUNK: Final = 64 * 1024
#: Of a message over the limit: enough to read to whom the refusal goes.
_BEGINNING: Final = 16 * 1024

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one port takes; the first two are an operator's (`gateway.settings.Limits`).

    Attributes
    ----------
    message_bytes
        Of one message.
    message_told
        How a refusal says that limit.
    connections
        At once.
    at_once
        Messages in work; others wait in their connections.
    idle_s
        Silence between two messages.
    silence_s
        Silence inside a message.
    frame_s
        From the first byte of a message to its last.
    stray_bytes
        Bytes outside a frame, after which a connection is no MLLP.
    """

    message_bytes: int = 20 << 20
    message_told: str = ""
    connections: int = 50
    at_once: int = 8
    idle_s: float = 3600.0
    silence_s: float = 30.0
    frame_s: float = 300.0
    handshake_s: float = 10.0
    answer_s: float = 30.0
    drain_s: float = 20.0
    stray_bytes: int = 64 * 1024


class Peers(Protocol):
    """Who may call."""

    def recognise(self, address: str, certificate: bytes | None) -> Caller:
        """Return whoever calls, or raise `UnknownIdentity`."""
        ...


class Taker(Protocol):
    """Where messages go; an answer comes back whatever happens."""

    def take(self, content: bytes, caller: Caller) -> bytes:
        """Take a message."""
        ...

    def refuse(self, beginning: bytes, error: GatewayError) -> bytes:
        """Refuse a message that is not taken at all."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """What stood between start and end; only the beginning of what is over the limit (``whole`` is False)."""

    content: bytes = field(repr=False)
    whole: bool


class Framer:
    """Cuts a stream of bytes into frames.

    Parameters
    ----------
    limit
        Bytes of one message.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: bytearray | None = None
        self._size = 0
        #: Bytes outside frames since the last one, line ends not counted.
        self.stray = 0

    @property
    def open(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._held is not None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take the next bytes; gives the frames that they end."""
        at = 0
        while at < len(data):
            if self._held is None:
                begin = data.find(START, at)
                outside = data[at : begin if begin >= 0 else len(data)]
                self.stray += len(outside.translate(None, b"\r\n"))
                if begin < 0:
                    return
                self._held, self._size, at = bytearray(), 0, begin + 1
                continue
            ends = [one for one in (data.find(END, at), data.find(START, at)) if one >= 0]
            stop = min(ends, default=len(data))
            self._add(data[at:stop])
            at = stop + 1
            if not ends:
                return
            if data[stop : stop + 1] == START:  # it began anew: what came before has no end
                self._held, self._size = bytearray(), 0
                continue
            whole = self._size <= self._limit
            content, self._held, self.stray = bytes(self._held), None, 0
            yield Frame(content if whole else content[:_BEGINNING], whole)

    def _add(self, data: bytes) -> None:
        assert self._held is not None  # noqa: S101 - called inside a frame
        self._size += len(data)
        if self._size <= self._limit:
            self._held += data
        elif len(self._held) < _BEGINNING:
            self._held += data[: _BEGINNING - len(self._held)]
        else:
            del self._held[_BEGINNING:]


class Mllp:
    """The listening port.

    Parameters
    ----------
    bind
        Port 0 lets the system choose; `port` says which.
    peers, taker
        Who may call, and where messages go.
    tls
        Plain when absent.
    """

    def __init__(
        self,
        *,
        bind: Address,
        peers: Peers,
        taker: Taker,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._bind = bind
        self._peers = peers
        self._taker = taker
        self._limits = limits or Limits()
        self._tls = tls
        self._listening: socket.socket | None = None
        self._threads: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()
        self._working = threading.BoundedSemaphore(self._limits.at_once)
        self._stopping = threading.Event()

    @property
    def port(self) -> int:
        """The port in use; 0 before `start`."""
        return int(self._listening.getsockname()[1]) if self._listening is not None else 0

    def start(self) -> None:
        """Bind and serve in threads of its own; raises OSError when the port is taken."""
        self._listening = self._bind.listening(backlog=128)
        threading.Thread(target=self._accept, args=(self._listening,), name="mllp-accept", daemon=True).start()

    def stop(self) -> None:
        """Close the port, let messages in work be answered, cut what is left."""
        listening, self._listening = self._listening, None
        if listening is None:
            return
        self._stopping.set()
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        listening.close()
        for act, patience_s in ((socket.SHUT_RD, self._limits.drain_s), (socket.SHUT_RDWR, 2.0)):
            for connection in self._live().values():
                with contextlib.suppress(OSError):
                    # The socket's own: that of TLS would go on in clear.
                    socket.socket.shutdown(connection, act)
            until = time.monotonic() + patience_s
            for thread in self._live():
                thread.join(max(0.0, until - time.monotonic()))

    def _live(self) -> dict[threading.Thread, socket.socket]:
        with self._lock:
            return dict(self._threads)

    def _accept(self, listening: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                connection, peer = listening.accept()
            except OSError as error:
                if self._stopping.is_set():
                    return
                log.warning("mllp-accept", error=type(error).__name__)  # no descriptor left: others will close
                time.sleep(0.1)
                continue
            with self._lock:
                if len(self._threads) < self._limits.connections:
                    thread = threading.Thread(
                        target=self._serve, args=(connection, plain(str(peer[0]))), name="mllp", daemon=True
                    )
                    self._threads[thread] = connection
                    thread.start()
                    continue
            log.warning("mllp-connection-refused", limit=f"connections {self._limits.connections}")
            connection.close()

    def _serve(self, connection: socket.socket, address: str) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection.settimeout(self._limits.handshake_s)
                connection = self._tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._threads[threading.current_thread()] = connection
            self._converse(connection, address)
        except UnknownIdentity as error:
            log.warning("mllp-stranger", code=error.code, address=address)
        except OSError as error:  # TLS errors are OSErrors
            log.info("mllp-cut", error=type(error).__name__, address=address)
        except Exception as error:  # noqa: BLE001 - one connection's defect is no other's
            log.error("mllp-fault", error=type(error).__name__)  # noqa: TRY400 - a trace may quote a patient
        finally:
            with contextlib.suppress(OSError):
                connection.close()
            with self._lock:
                self._threads.pop(threading.current_thread(), None)

    def _converse(self, connection: socket.socket, address: str) -> None:
        certificate = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLSocket) else None
        try:
            self._peers.recognise(address, certificate)  # a stranger is not listened to
        except UnknownIdentity:
            raise
        except GatewayError as error:
            log.warning("mllp-peer-unknown-yet", code=error.code)  # nobody can say now: each message is answered so
        framer, began = Framer(self._limits.message_bytes), 0.0
        while not self._stopping.is_set():
            data = self._read(connection, framer, began)
            if not data:
                if framer.open:
                    log.warning("mllp-unfinished", address=address)
                return
            begins = not framer.open
            for frame in framer.feed(data):
                begins = True
                answer = self._answer(frame, address, certificate)
                connection.settimeout(self._limits.answer_s)
                connection.sendall(START + answer + END + b"\r")
            if framer.stray > self._limits.stray_bytes:
                log.warning("mllp-no-frame", address=address)
                return
            began = time.monotonic() if begins else began

    def _read(self, connection: socket.socket, framer: Framer, began: float) -> bytes:
        """Return the next bytes; none at the end, and when time is up."""
        patience_s = self._limits.idle_s
        if framer.open:
            patience_s = min(self._limits.silence_s, began + self._limits.frame_s - time.monotonic())
        if patience_s <= 0:
            return b""
        connection.settimeout(patience_s)
        try:
            return connection.recv(_CHUNK)
        except TimeoutError:
            return b""

    def _answer(self, frame: Frame, address: str, certificate: bytes | None) -> bytes:
        with self._working:
            try:
                caller = self._peers.recognise(address, certificate)
            except UnknownIdentity:
                raise
            except GatewayError as error:
                return self._taker.refuse(frame.content[:_BEGINNING], error)
            if not frame.whole:
                text = f"Message de plus de {self._limits.message_bytes} octets : {self._limits.message_told}."
                return self._taker.refuse(frame.content, InvalidContent("hl7-trop-grand", text))
            return self._taker.take(frame.content, caller)
