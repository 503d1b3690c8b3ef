"""The trail of images that somebody looks through: who has a study open is told before its first byte leaves.

Looking through a study is hundreds of answers, each with a line of its own. The line that opens the study for a caller
is durable before the answer leaves, like every other. For `OPEN_S` seconds after it, the lines of further answers below
the same study, to the same caller, follow their answers at once and together (docs/adr/0023).

Promises: no line is left out; what a kill takes is lines of the last instants of a study that the trail says was open;
a trail that takes no lines opens nothing, and ends what is open; bounded memory. A line may be there twice when the
database broke off in the instant of its commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import structlog
from msgspec.structs import replace

from gateway.errors import GatewayError
from gateway.model.audit import AuditFacts
from gateway.model.reads import Reads
from gateway.model.store import utcnow

__all__ = ["Opened"]

log = structlog.get_logger(__name__)

#: How long a line that opens a study speaks for those that follow it.
OPEN_S: Final = 60.0
#: How long lines gather, how many at most, and how long a trail that took none is left alone.
_GATHER_S: Final = 0.05
_GATHERED: Final = 256
_AGAIN_S: Final = 1.0
_STUDIES: Final = 4096


class Opened:
    """What is open in one process.

    Parameters
    ----------
    reads
        Writes the lines.
    clock
        Monotonic seconds; tests give their own.
    """

    def __init__(self, reads: Reads, clock: Callable[[], float] = time.monotonic) -> None:
        self._reads = reads
        self._clock = clock
        self._until: OrderedDict[tuple[object, ...], float] = OrderedDict()
        self._lines: list[AuditFacts] = []
        self._writing: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    async def tell(self, line: AuditFacts, study: str) -> None:
        """Write a line; returns when it is durable, or when one is that says the study is open to the same caller.

        Raises
        ------
        Unavailable
            It cannot be written.
        """
        # All that says who asked and whose images they are: a line speaks for its own caller and patient alone.
        key = (
            *(line.actor_kind, line.actor_id, line.actor_name, line.actor_situation, line.acr),
            *(line.wire, line.address, line.session, line.purpose),
            *(line.persons, study),
        )
        now = self._clock()
        is_open = self._until.get(key, 0.0) > now and not self._closed.is_set()
        if is_open and len(self._lines) < _GATHERED:
            self._lines.append(line if line.happened is not None else replace(line, happened=utcnow()))
            if self._writing is None:
                self._writing = asyncio.create_task(self._write())
            return
        await self._reads.record(line)
        self._until[key] = now + OPEN_S
        self._until.move_to_end(key)
        while len(self._until) > _STUDIES:
            self._until.popitem(last=False)

    async def _write(self) -> None:
        pause = _GATHER_S
        while self._lines:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), pause)
            if self._closed.is_set():
                return
            pause = _GATHER_S if await self._written() else _AGAIN_S
        self._writing = None

    async def _written(self) -> bool:
        lines = self._lines.copy()
        try:
            await self._reads.record(*lines)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is open any more, and lines are kept
            if not isinstance(error, GatewayError):
                log.error("audit-lines-wait", error=type(error).__name__, lines=len(lines))  # noqa: TRY400 - no values
            self._until.clear()
            return False
        del self._lines[: len(lines)]
        return True

    async def close(self) -> None:
        """Write what is gathered; nothing is told after."""
        self._closed.set()
        if self._writing is not None:
            await self._writing  # what it has begun to write it ends
        if self._lines and not await self._written():
            log.error("audit-lines-lost", lines=len(self._lines))
