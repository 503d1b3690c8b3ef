"""The head of a request, which comes before anything is known of who sends it: bounded in length and in time.

The parser keeps a line until it ends, and the server waits for it as long as it takes: one connection on which nobody
signed in could fill the memory of a process, and many that say nothing hold its places.

Promises: a head of more than `HEAD_BYTES` (and one read of the socket) is answered 431, one that is not whole within
`HEAD_S` 408, both by name; then the connection ends, as does one on which nothing came for as long. Not promised: a
bound of the body, which is its reader's (`gateway.web.body`).
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

__all__ = ["HEAD_BYTES", "HEAD_S", "Heads"]

log = structlog.get_logger("gateway.web")

#: Of the address and all fields: what proxies take at most too, and eight times what they send by default.
HEAD_BYTES: Final = 64 << 10
#: As long as an idle connection stays: pools that open one before they need it meet no other patience.
HEAD_S: Final = 75.0


class Heads(HttpToolsProtocol):
    """HTTP/1.1 as the server speaks it, with heads that end."""

    _in_head: bool = False
    _head_bytes: int = 0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as the server has it
        """Wait for the first head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._head_is_over()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless it is a head without an end."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        if self._head_bytes > HEAD_BYTES:
            self._too_long()
        elif self._late is None:  # a head that comes whole, as most do, is not waited for
            self._await_head()

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Go on to the body."""
        self._head_is_over()
        if self.transport.is_closing():
            return
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES:
            self._too_long()
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Forget what follows a head that was refused."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the message, unless its head was refused."""
        if not self.transport.is_closing():
            super().on_message_complete()

    @property
    def _busy(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # there is none before the first head
        return cycle is not None and not cycle.response_complete

    def _await_head(self) -> None:
        self._late = self.loop.call_later(HEAD_S, self._too_late)

    def _head_is_over(self) -> None:
        self._in_head = False
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_long(self) -> None:
        log.warning("http-head-too-long", limit=HEAD_BYTES)
        text = f"En-tête de requête trop long : limite de {HEAD_BYTES} octets (http.head)."
        self._refuse("431 Request Header Fields Too Large", text)

    def _too_late(self) -> None:
        self._late = None
        if self._busy:
            self._await_head()
            return
        if not self._in_head:
            self.transport.close()
            return
        log.info("http-head-too-late", limit_s=HEAD_S)
        text = f"En-tête de requête incomplet au bout de {HEAD_S:.0f} s (http.head)."
        self._refuse("408 Request Timeout", text)

    def _refuse(self, status: str, text: str) -> None:
        self._head_is_over()
        if not self._busy:  # behind an answer that is under way nothing else fits
            said = text.encode()
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(said)}\r\n"
            self.transport.write(head.encode() + b"Connection: close\r\n\r\n" + said)
        self.transport.close()
