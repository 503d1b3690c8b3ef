"""The head of an answer leaves with the first bytes of its body, in one word to the system.

The server writes a head by itself and judges each of its fields anew: two calls of the system an answer, of which the
first wakes whoever waits for the second, and a dozen fields that are the same each time.

Promises: the bytes of an answer are those that the server itself would write, in their order; a head whose body does
not come in the same turn of the loop leaves at the end of that turn. A field that the standard does not allow is
refused as the server refuses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

from gateway.web.heads import Heads

__all__ = ["Joined"]

_Message = MutableMapping[str, Any]
_Send = Callable[[Any], Awaitable[None]]

#: Fields that many answers say alike; others are one answer's own, or nothing to keep.
_ALIKE: Final = frozenset(
    {
        *(b"accept-ranges", b"cache-control", b"content-security-policy", b"content-type", b"date"),
        *(b"permissions-policy", b"cross-origin-opener-policy", b"cross-origin-resource-policy"),
        *(
            b"referrer-policy",
            b"server",
            b"strict-transport-security",
            b"vary",
            b"x-content-type-options",
            b"x-frame-options",
        ),
    }
)
#: Fields by which the server knows how the body ends.
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})
#: What is less is copied behind its head: two pieces cost the system more.
_LITTLE_BYTES: Final = 16 << 10


class Joined(Heads):
    """HTTP/1.1 as the server speaks it, with heads that wait for their bodies."""

    _begun: bytes = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as the server has it
        """Leave each request's line in the log to `gateway.web.request_id`."""
        self.access_log = False
        super().connection_made(transport)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        def answered(scope: Any, receive: Any, send: _Send) -> Any:
            def sending(message: _Message) -> Awaitable[None]:
                if not cycle.response_started:
                    return self._begin(cycle, send, message)
                return self._go_on(cycle, send, message) if self._begun else send(message)

            return app(scope, receive, sending)

        super()._start_asgi_task(cycle, answered)

    async def _begin(self, cycle: RequestResponseCycle, send: _Send, message: _Message) -> None:
        said = message.get("headers", ())
        if (
            message["type"] != "http.response.start"
            or cycle.disconnected
            or self.flow.write_paused
            or self.transport.is_closing()
        ):
            await send(message)
            return
        cycle.response_started, cycle.waiting_for_100_continue = True, False
        lines, closes = [STATUS_LINE[message["status"]]], False
        for name, value in (*cycle.default_headers, *said):
            name = name.lower()  # noqa: PLW2901 - as the server writes it
            if name in _FRAMING:
                closes |= _framed(cycle, name, value)
            lines.append(_alike(name, value) if name in _ALIKE else _line(name, value))
        if not (cycle.keep_alive or closes):
            lines.append(b"connection: close\r\n")
        if cycle.chunked_encoding is None and cycle.scope["method"] != "HEAD" and message["status"] not in (204, 304):
            cycle.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self._begun = b"".join(lines)
        self.loop.call_soon(self._leave)

    async def _go_on(self, cycle: RequestResponseCycle, send: _Send, message: _Message) -> None:
        body = message.get("body", b"")
        plain = message["type"] == "http.response.body" and not cycle.chunked_encoding
        if (
            not (plain and body)
            or cycle.scope["method"] == "HEAD"
            or cycle.disconnected
            or len(body) > cycle.expected_content_length
        ):
            self._leave()
            await send(message)
            return
        head, self._begun = self._begun, b""
        cycle.expected_content_length -= len(body)
        if len(body) <= _LITTLE_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))
        if not message.get("more_body", False):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _leave(self) -> None:
        """Write a head that nothing followed yet."""
        head, self._begun = self._begun, b""
        if head and not self.transport.is_closing():
            self.transport.write(head)


def _framed(cycle: RequestResponseCycle, name: bytes, value: bytes) -> bool:
    """Remember how the body ends, and say whether the connection ends with it."""
    if name == b"connection":
        if b"close" not in [token.lower().strip() for token in value.split(b",")]:
            return False
        cycle.keep_alive = False
        return True
    if name == b"content-length" and cycle.chunked_encoding is None:
        cycle.expected_content_length, cycle.chunked_encoding = int(value.decode()), False
    elif name == b"transfer-encoding" and value.lower() == b"chunked":
        cycle.expected_content_length, cycle.chunked_encoding = 0, True
    return False


def _line(name: bytes, value: bytes) -> bytes:
    if HEADER_RE.search(name):
        raise RuntimeError("Invalid HTTP header name.")
    if HEADER_VALUE_RE.search(value):
        raise RuntimeError("Invalid HTTP header value.")
    return b"%s: %s\r\n" % (name, value)


_alike = lru_cache(maxsize=512)(_line)
