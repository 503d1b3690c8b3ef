"""Creates that wait at the same time are written together: one step, one commit, one answer each.

[FHIR R4 http#create]

A commit and each statement cost the database and this process about the same for one resource as for twenty. Creates of
one type by one caller that come while others are being written therefore form the next group. Whoever comes alone is
written at once. After a group its senders are about to send again: the next one waits for as many as there were, no
longer than `PATIENCE_S`, or it would be written with one and leave the others for the group behind it (docs/adr/0018).

Promises: what stands afterwards, what is answered and what the trail says are those of one step each: as soon as one of
a group is refused, or names what another one names, the group is undone and each is written alone, so that nobody
learns of another's refusal; an answer leaves after the commit of its group; locks are taken in the order of a
transaction. A caller that goes away changes nothing for the others. Not promised: in which order creates of different
requests take effect.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from gateway.errors import GatewayError, Unavailable
from gateway.fhir import write
from gateway.fhir.locating import Locator
from gateway.fhir.operation import Done, Operation
from gateway.fhir.writing import Writing
from gateway.identifiers import uuid7
from gateway.rcp import identity
from gateway.rcp.caller import Caller
from gateway.rcp.step import Step, Steps

__all__ = ["GATHERED", "PATIENCE_S", "Gathering"]

log = structlog.get_logger(__name__)

#: Types of which many are created at once; others are written one a step.
GATHERED = frozenset({"Patient"})
#: How long a group waits at most for as many as the one before it had, in seconds.
PATIENCE_S: Final = 0.006
#: How many are written together at most.
_MOST = 32


class _ApartError(Exception):
    """Each is to be written alone."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """One create that waits for its answer."""

    caller: Caller
    take: Callable[[], Operation]
    alone: Callable[[], Done]
    answer: asyncio.Future[Done]

    def tell(self, told: Done | BaseException) -> None:
        """Answer, unless nobody waits any more."""
        if self.answer.done():
            return
        if isinstance(told, Done):
            self.answer.set_result(told)
        else:
            self.answer.set_exception(told)


@dataclass(slots=True, eq=False)
class _Line:
    """Creates of one type by one caller, in the order in which they came, while one of them is being written."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    wanted: int = 1
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    def join(self, one: _Waiting) -> None:
        """Wait behind the others."""
        self.waiting.append(one)
        if len(self.waiting) >= self.wanted:
            self.enough.set()

    async def group(self) -> list[_Waiting]:
        """Who is written next; nobody when nobody came."""
        if len(self.waiting) < self.wanted:
            self.enough.clear()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self.enough.wait()
            except TimeoutError:
                pass
        found = [self.waiting.popleft() for _ in range(min(len(self.waiting), _MOST))]
        self.wanted = len(found)
        return found


class Gathering:
    """Writes creates, together when they wait at the same time; asked in one event loop.

    Parameters
    ----------
    writing
        Opens one step's writes.
    threads
        Where groups are written.
    """

    def __init__(self, steps: Steps, writing: Callable[[Step], Writing], threads: Executor) -> None:
        self._steps = steps
        self._writing = writing
        self._threads = threads
        self._lines: dict[tuple[str, Caller], _Line] = {}
        self._writers: set[asyncio.Task[None]] = set()

    @staticmethod
    def takes(operation: Operation) -> bool:
        """Whether an operation may be written with others: a create without a condition."""
        return operation.method == "POST" and operation.kind in GATHERED and operation.query is None

    async def run(self, caller: Caller, kind: str, take: Callable[[], Operation], alone: Callable[[], Done]) -> Done:
        """Write one create, alone or with others.

        Parameters
        ----------
        take
            Gives the operation, unused, as often as it is asked.
        alone
            Writes it in a step of its own.

        Raises
        ------
        GatewayError
            What `alone` raises; `Unavailable`, when nothing is known of what became of the group.
        """
        loop = asyncio.get_running_loop()
        # What is said of this request (its id) is said in the thread that writes it alone, too.
        told = contextvars.copy_context()
        mine = _Waiting(caller, take, lambda: told.run(alone), loop.create_future())
        key = (kind, replace(caller, address=None, request_id=None))
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line()
            line.join(mine)
            writer = loop.create_task(self._serve(key, line))
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        else:
            line.join(mine)
        return await mine.answer

    async def _serve(self, key: tuple[str, Caller], line: _Line) -> None:
        """Write what waits in a line, until nobody does."""
        loop = asyncio.get_running_loop()
        group: Sequence[_Waiting] = ()
        try:
            while group := await line.group():
                told: Sequence[Done | BaseException] | None = None
                if len(group) > 1:
                    told = await loop.run_in_executor(self._threads, self._write, group)
                if told is None:
                    written = (loop.run_in_executor(self._threads, one.alone) for one in group)
                    told = await asyncio.gather(*written, return_exceptions=True)
                for one, answer in zip(group, told, strict=True):
                    one.tell(answer)
        except RuntimeError as error:
            # The threads are closed: nobody waits for ever.
            for one in (*group, *line.waiting):
                one.tell(Unavailable("stopping", "La passerelle s’arrête.", retry_after_s=5))
            log.warning("group-stopped", size=len(group), error=type(error).__name__)
        finally:
            del self._lines[key]

    def _write(self, group: Sequence[_Waiting]) -> Sequence[Done | BaseException] | None:
        """Write a group, in a thread: what each is told, or `None` when each is to be written alone."""
        used: list[bool] = []

        def verb(step: Step) -> list[Done]:
            if used:  # it clashed with another writer
                raise _ApartError
            used.append(True)
            try:
                return self._together(step, group)
            except GatewayError as refusal:
                # Not told to the trail here: it is refused again, alone.
                raise _ApartError from refusal

        try:
            return self._steps.run(group[0].caller, verb)
        except Unavailable as error:
            # The connection may have been lost while it was committed: written again, a second one might stand.
            return [error] * len(group)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is undone, and tells its own request when alone
            log.debug("group-apart", size=len(group), error=type(error.__cause__ or error).__name__)
            return None

    def _together(self, step: Step, group: Sequence[_Waiting]) -> list[Done]:
        operations = [one.take() for one in group]
        writing = self._writing(step)
        if Locator(writing).locate_all(operations):
            raise _ApartError
        _name_patients(writing, operations)
        if writing.hold_references(operations):
            raise _ApartError
        for one, operation in zip(group, operations, strict=True):
            step.caller = one.caller
            write.apply(writing, operation)
        writing.finish()
        answers = []
        for one, operation in zip(group, operations, strict=True):
            step.caller = one.caller
            answers.append(writing.done(operation))
        return answers


def _name_patients(writing: Writing, operations: Sequence[Operation]) -> None:
    """Look for all together, and name those who are new."""
    said = [(identity.own_identifier(writing.partner, one), one) for one in map(writing.sent_facts, operations)]
    known = identity.foresee(writing.step, writing.partner, said)
    if known or len({(key.system, key.value) for key, _ in said}) < len(said):
        raise _ApartError
    for operation in operations:
        operation.identity = str(uuid7())
