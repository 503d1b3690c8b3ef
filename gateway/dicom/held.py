"""How many bytes the answers of one process hold at once, all together.

What is decoded or converted for an answer is in memory until the client has taken it, and a client may read as slowly
as it likes. `Held` lends bytes: whoever wants to hold some waits for his turn, and is told to come back when it does
not come; the loan ends when the last byte is with the system, not when it was written into a buffer.

Promises: never more on loan than there is; who came first is served first, but that frames and what is read from files
do not wait behind what is converted, which leaves them a quarter; a loan ends however its answer does. Does not count:
what the kernel holds of each connection, and what drawing processes hold, which have bounds of their own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.errors import InvalidContent, Unavailable

__all__ = ["AT_ONCE_BYTES", "Buffers", "Flow", "Held", "Loan", "Whole"]

#: What is written to a connection at a time; the next piece waits until it has nearly left.
AT_ONCE_BYTES: Final = 1 << 20
#: Pieces of memory that are kept to be used again.
_BUFFERS: Final = 8
#: How long one waits for bytes.
_SECONDS: Final = 5.0


#: What is more is large, and leaves one of so many parts of all to what is small.
_LARGE_BYTES: Final = 4 << 20
_RESERVE: Final = 4


class Loan:
    """Bytes on loan, until they are given back or forgotten."""

    __slots__ = ("_of", "size")

    def __init__(self, of: Held, size: int) -> None:
        self._of, self.size = of, size

    def shrink(self, size: int) -> None:
        """Keep as many, and give the others back."""
        if size < self.size:
            over, self.size = self.size - size, size
            self._of.returned(over)

    def take(self, other: Loan) -> None:
        """Hold what another holds as well."""
        self.size, other.size = self.size + other.size, 0

    def end(self) -> None:
        """Give all back; harmless when they are."""
        self.shrink(0)

    def __del__(self) -> None:
        """Give back what a cancelled request forgot, in whichever thread it is found."""
        if self.size:
            self._of.forgotten(self.size)


class Buffers:
    """Memory that answers are put together in, used again: the system's pages cost more than what is copied into them.

    Safe in one thread.
    """

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def of(self, size: int) -> tuple[bytearray, memoryview]:
        """Give memory, and a view of so many bytes of it; `AT_ONCE_BYTES` at most."""
        memory = self._free.pop() if self._free else bytearray(AT_ONCE_BYTES)
        return memory, memoryview(memory)[:size]

    def back(self, memory: bytearray) -> None:
        """Take memory back, unless somebody still sends of it."""
        if len(self._free) < _BUFFERS:
            try:
                memory.pop()  # is refused while there is any view
            except BufferError:
                return
            memory.append(0)
            self._free.append(memory)


_Queue = deque[tuple[int, "asyncio.Future[Loan]"]]


class Held:
    """The bytes of one process.

    Parameters
    ----------
    most
        How many there are.
    name
        The setting that says so, as an operator knows it.
    seconds
        How long one waits for some; five when None.
    """

    def __init__(self, most: int, name: str, *, seconds: float | None = None) -> None:
        self.most = most
        self._name = name
        self._seconds = _SECONDS if seconds is None else seconds
        self._left = most
        self._kept = most // _RESERVE
        # What is small does not wait behind what is large.
        self._small: _Queue = deque()
        self._large: _Queue = deque()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def lend(self, size: int) -> Loan:
        """Lend some bytes.

        Raises
        ------
        InvalidContent
            ``dicom-too-large``: more than there are.
        Unavailable
            ``dicom-retrieval-busy``: others hold them, and go on doing so.
        """
        large = size > _LARGE_BYTES
        waiting, kept = (self._large, self._kept) if large else (self._small, 0)
        if size > self.most - kept:
            text = f"Cette réponse demande plus de {self.most - kept} octets en mémoire (« {self._name} »)."
            raise InvalidContent("dicom-too-large", text)
        if size <= self._left - kept and not waiting:
            self._left -= size
            return Loan(self, size)
        self._loop = asyncio.get_running_loop()
        turn: asyncio.Future[Loan] = self._loop.create_future()
        place = (size, turn)
        waiting.append(place)
        try:
            async with asyncio.timeout(self._seconds):
                return await turn
        except TimeoutError:
            text = f"Les réponses en cours occupent les {self.most} octets permis (« {self._name} »)."
            raise Unavailable("dicom-retrieval-busy", text, retry_after_s=self._seconds) from None
        finally:
            if place in waiting:
                waiting.remove(place)
                self._next()  # a smaller one may have waited behind

    def returned(self, size: int) -> None:
        """Take bytes back."""
        self._left += size
        self._next()

    def forgotten(self, size: int) -> None:
        """Take bytes back in any thread."""
        if self._loop is None or self._loop.is_closed():
            self._left += size  # nobody waits
        else:
            self._loop.call_soon_threadsafe(self.returned, size)

    def _next(self) -> None:
        for waiting, kept in ((self._small, 0), (self._large, self._kept)):
            while waiting:
                size, turn = waiting[0]
                if not turn.done():
                    if size > self._left - kept:
                        break
                    self._left -= size
                    turn.set_result(Loan(self, size))
                waiting.popleft()


class Whole(Response):
    """An answer that is in memory, and on loan until the client has it.

    Parameters
    ----------
    content
        Its bytes.
    loan
        Ends with it.
    ended
        Called when they are nobody's any more.
    """

    def __init__(
        self,
        content: bytes | memoryview,
        status: int,
        headers: Mapping[str, str],
        media_type: str,
        loan: Loan,
        ended: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(content, status, headers, media_type)
        self._loan = loan
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        del receive
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            size = 0 if scope["method"] == "HEAD" else len(self.body)
            for at in range(0, size, AT_ONCE_BYTES):
                piece = self.body[at : at + AT_ONCE_BYTES]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                del piece
            # Whoever sends waits first until what was sent before has nearly left.
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.body = b""
            self._loan.end()
            if self._ended is not None:
                self._ended()


class Flow(StreamingResponse):
    """An answer that is read while it leaves, one piece on loan at a time."""

    def __init__(
        self, pieces: AsyncIterator[bytes], status: int, headers: Mapping[str, str], media_type: str, loan: Loan
    ) -> None:
        super().__init__(pieces, status, headers, media_type)
        self._loan = loan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            if scope["method"] == "HEAD":
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await super().__call__(scope, receive, send)
        finally:
            self._loan.end()
