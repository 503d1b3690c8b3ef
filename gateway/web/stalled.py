"""Who does not take what he asked for is left: the protocol of our HTTP ports, which may also pour a body.

An answer that nobody reads stays in memory, and what it holds with it, for as long as its connection lives.

Promises: a connection that takes less than `LEAST_BYTES` in `STALLED_S` seconds while there is more is broken off, and
what was written into it is freed; however slow, one that takes more is left alone.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Final
from weakref import ReferenceType, ref

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.web.joined import Joined
from gateway.web.poured import EXTENSION, Offer

__all__ = ["LEAST_BYTES", "STALLED_S", "Protocol"]

log = structlog.get_logger("gateway.web")

STALLED_S: Final = 60.0
LEAST_BYTES: Final = 64 << 10
_AT_ONCE: Final = struct.pack("ii", 1, 0)


class Protocol(Joined):
    """HTTP/1.1 as the server speaks it, without endless patience."""

    _look: asyncio.TimerHandle | None = None
    _myself: ReferenceType[HttpToolsProtocol] | None = None
    _waiting_bytes: int = 0

    def on_message_begin(self) -> None:
        """Offer to pour the body of what begins."""
        super().on_message_begin()
        if self._myself is None:
            self._myself = ref(self)
        extensions: dict[str, Any] = {EXTENSION: Offer(self._myself)}
        self.scope["extensions"] = extensions

    def pause_writing(self) -> None:
        """Begin to look whether what is written is taken."""
        super().pause_writing()
        self._again()

    def resume_writing(self) -> None:
        """Stop looking."""
        self._enough()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking."""
        self._enough()
        super().connection_lost(exc)

    def _again(self) -> None:
        self._waiting_bytes = self.transport.get_write_buffer_size()
        self._look = self.loop.call_later(STALLED_S, self._looked)

    def _enough(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _looked(self) -> None:
        taken = self._waiting_bytes - self.transport.get_write_buffer_size()
        if taken >= LEAST_BYTES:
            self._again()
            return
        self._look = None
        log.warning("client-stalled", seconds=STALLED_S, taken=taken)
        # What the system holds of it goes too: no goodbye is waited for.
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()
