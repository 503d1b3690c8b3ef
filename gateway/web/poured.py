"""A large body goes from the connection straight into memory that its reader lends, piece after piece.

The server hands bodies on as objects of at most a few reads, each copied five times on its way and each an event: half
of what laying down an image cost. Here the HTTP protocol leaves its connection to another one for as long as such a
body lasts, which reads into the lent memory and knows nothing but how many bytes are to come.

Promises: the bytes are those of `gateway.web.body.body_stream`, under the same limit and with the same refusals; no
more is read than was lent; who sends nothing for `SILENCE_S` is left; what comes after the body is read by the HTTP
protocol again, also when its reader gives up before the end: the rest is then read and forgotten. A body of unknown or
small length, or in a content coding, takes the ordinary way under the same names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol
from weakref import ReferenceType

import httptools
from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import Unavailable
from gateway.web.body import Limit, body_stream, incomplete, refuse_length

__all__ = ["EXTENSION", "SILENCE_S", "Body", "Offer", "poured"]

SILENCE_S: Final = 60.0
#: In the scope of a request: the `Offer` of its server.
EXTENSION: Final = "gateway.web.poured"
_LEAST_BYTES: Final = 128 << 10
_SPOILED_BYTES: Final = 64 << 10


class Body(Protocol):
    """A body, in the order of its bytes."""

    async def fill(self, memory: memoryview) -> tuple[int, bool]:
        """Write what comes next into memory, until it is full or the body is whole.

        Returns
        -------
        tuple
            How many bytes, and whether they are the last.

        Raises
        ------
        InvalidContent
            As `gateway.web.body.body_stream`.
        Unavailable
            ``body-silence``.
        """
        ...

    def close(self) -> None:
        """Ask for nothing more; harmless when all is read."""


def poured(request: Request, limit: Limit) -> Body:
    """Give the body of a request of which nothing was read yet.

    Raises
    ------
    InvalidContent
        ``body-too-large``, ``content-length-invalid``.
    """
    refuse_length(request, limit)
    offer = request.scope.get("extensions", {}).get(EXTENSION)
    headers = request.headers
    if isinstance(offer, Offer) and "content-encoding" not in headers and "transfer-encoding" not in headers:
        taken = offer.take(int(headers.get("content-length", 0)))
        if taken is not None:
            return taken
    return _Collected(body_stream(request, limit))


class _Collected:
    """The ordinary way."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    async def fill(self, memory: memoryview) -> tuple[int, bool]:
        filled = 0
        while True:
            step = min(len(self._rest), len(memory) - filled)
            memory[filled : filled + step] = self._rest[:step]
            filled, self._rest = filled + step, self._rest[step:]
            if filled == len(memory):
                return filled, False
            try:
                async with asyncio.timeout(SILENCE_S):
                    self._rest = memoryview(await anext(self._pieces))
            except StopAsyncIteration:
                return filled, True
            except TimeoutError:
                raise _silent() from None

    def close(self) -> None:
        """Leave the rest to the server."""


class Offer:
    """What the HTTP protocol says with each request: its body may be poured."""

    def __init__(self, http: ReferenceType[HttpToolsProtocol]) -> None:
        self._http = http  # the connection knows the request, which knows this

    def take(self, length: int) -> Body | None:
        """Take the body of this request, of which nothing was asked for yet; None when it is too small for that."""
        http = self._http()
        cycle: Any = http.cycle if http is not None else None
        # The offer of the request that the connection is at: behind one that is whole another may have begun.
        if http is None or cycle is None or cycle.scope.get("extensions", {}).get(EXTENSION) is not self:
            return None
        left = length - len(cycle.body)
        if left < _LEAST_BYTES or not cycle.more_body or cycle.disconnected or http.transport.is_closing():
            return None
        return _Poured(http, cycle, left)


class _Poured(asyncio.BufferedProtocol):
    """Stands on the connection until the body is whole."""

    def __init__(self, http: HttpToolsProtocol, cycle: Any, left: int) -> None:
        self._http, self._cycle, self._left = http, cycle, left
        self._transport = http.transport
        self._begun = memoryview(bytes(cycle.body))
        cycle.body = bytearray()
        self._memory: memoryview | None = None
        self._filled = 0
        self._filling: asyncio.Future[None] | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._given_up = False
        http.flow.pause_reading()
        self._transport.set_protocol(self)

    # ---- for the reader

    async def fill(self, memory: memoryview) -> tuple[int, bool]:
        http, cycle = self._http, self._cycle
        if cycle.waiting_for_100_continue and not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        step = min(len(self._begun), len(memory))
        memory[:step] = self._begun[:step]
        self._begun, self._filled = self._begun[step:], step
        if self._left and step < len(memory):
            if cycle.disconnected:
                raise incomplete()
            self._memory = memory
            self._filling = http.loop.create_future()
            self._heard = http.loop.time()
            self._silence = http.loop.call_at(self._heard + SILENCE_S, self._listen)
            http.flow.resume_reading()
            try:
                await self._filling
            finally:
                self._silence.cancel()
                self._memory = self._filling = None
                if not self._left and not cycle.disconnected:
                    self._give_back()
                elif not self._given_up:
                    http.flow.pause_reading()
        return self._filled, not self._left and not self._begun

    def close(self) -> None:
        if self._left and not self._given_up:
            self._given_up = True
            self._http.flow.resume_reading()

    def _listen(self) -> None:
        until = self._heard + SILENCE_S
        if self._filling is None or self._filling.done():
            return
        if self._http.loop.time() >= until:
            self._filling.set_exception(_silent())
        else:
            self._silence = self._http.loop.call_at(until, self._listen)

    def _give_back(self) -> None:
        """Let the HTTP protocol go on behind the body, of which its parser never saw the end."""
        http = self._http
        http.parser = httptools.HttpRequestParser(http)
        http.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._cycle.more_body = False
        self._transport.set_protocol(http)
        self._cycle.message_event.set()
        http.flow.resume_reading()

    # ---- for the transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - what is lent decides
        if self._memory is None:
            return memoryview(bytearray(min(self._left, _SPOILED_BYTES)))
        return self._memory[self._filled : self._filled + self._left]

    def buffer_updated(self, nbytes: int) -> None:
        self._left -= nbytes
        if self._memory is None:
            self._http._unset_keepalive_if_required()  # noqa: SLF001 - as the protocol does whenever something comes
            if not self._left:
                self._give_back()
            return
        self._filled += nbytes
        self._heard = self._http.loop.time()
        if (not self._left or self._filled == len(self._memory)) and self._filling is not None:
            self._http.flow.pause_reading()
            if not self._filling.done():
                self._filling.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.connection_lost(exc)
        if self._filling is not None and not self._filling.done():
            self._filling.set_exception(incomplete())

    def eof_received(self) -> None:
        self._http.eof_received()

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()


def _silent() -> Unavailable:
    return Unavailable("body-silence", f"Rien n’est arrivé pendant {SILENCE_S:.0f} s.")
