"""Creates that wait at the same time are written together: one step, one commit, one answer each.

[FHIR R4 http#create]

A commit and each statement cost the database and this process about the same for one resource as for twenty. Creates of
one type by one caller that come while others are being written therefore form the next group; nobody waits for company:
whoever comes alone is written at once (docs/adr/0018).

Promises: what stands afterwards, what is answered and what the trail says are those of one step each: as soon as one of
a group is refused, or names what another one names, the group is undone and each is written alone, so that nobody
learns of another's refusal; an answer leaves after the commit of its group; locks are taken in the order of a
transaction. Not promised: in which order creates of different requests take effect.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

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

__all__ = ["GATHERED", "Gathering"]

log = structlog.get_logger(__name__)

#: Types of which many are created at once; others are written one a step.
GATHERED = frozenset({"Patient"})
#: How many are written together at most.
_MOST = 32


class _ApartError(Exception):
    """Each is to be written alone."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """One create: its thread sleeps until somebody has written it, or it is its turn to write."""

    caller: Caller
    take: Callable[[], Operation]
    woken: threading.Lock = field(default_factory=threading.Lock)
    leads: bool = False
    done: Done | None = None
    error: GatewayError | None = None

    def __post_init__(self) -> None:
        self.woken.acquire()


class Gathering:
    """Writes creates, together when they wait at the same time.

    Parameters
    ----------
    writing
        Opens one step's writes.
    """

    def __init__(self, steps: Steps, writing: Callable[[Step], Writing]) -> None:
        self._steps = steps
        self._writing = writing
        self._lock = threading.Lock()
        self._queues: dict[tuple[str, Caller], deque[_Waiting]] = {}

    @staticmethod
    def takes(operation: Operation) -> bool:
        """Whether an operation may be written with others: a create without a condition."""
        return operation.method == "POST" and operation.kind in GATHERED and operation.query is None

    def run(self, caller: Caller, kind: str, take: Callable[[], Operation], alone: Callable[[], Done]) -> Done:
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
        mine = _Waiting(caller, take)
        key = (kind, replace(caller, address=None, request_id=None))
        with self._lock:
            if key in self._queues:
                self._queues[key].append(mine)
            else:
                self._queues[key], mine.leads = deque(), True
        if not mine.leads:
            mine.woken.acquire()
        if mine.leads:
            self._lead(key, mine, alone)
        if mine.error is not None:
            raise mine.error
        return mine.done if mine.done is not None else alone()

    def _lead(self, key: tuple[str, Caller], mine: _Waiting, alone: Callable[[], Done]) -> None:
        """Write what waits."""
        with self._lock:
            queue = self._queues[key]
            group = [mine, *(queue.popleft() for _ in range(min(len(queue), _MOST - 1)))]
        try:
            if len(group) == 1:
                mine.done = alone()
            else:
                self._write(key, group)
        finally:
            self._hand_over(key, mine)
            for one in group[1:]:
                one.woken.release()

    def _hand_over(self, key: tuple[str, Caller], mine: _Waiting) -> None:
        """Let the first of those that came meanwhile lead the next group; once."""
        with self._lock:
            if not mine.leads:
                return
            mine.leads = False
            following = self._queues[key].popleft() if self._queues[key] else None
            if following is None:
                del self._queues[key]
                return
            following.leads = True
        following.woken.release()

    def _write(self, key: tuple[str, Caller], group: Sequence[_Waiting]) -> None:
        """Write a group; who has neither an answer nor an error afterwards is written alone."""
        used: list[bool] = []

        def verb(step: Step) -> list[Done]:
            if used:  # it clashed with another writer
                raise _ApartError
            used.append(True)
            try:
                answers = self._together(step, group)
            except GatewayError as refusal:
                # Not told to the trail here: it is refused again, alone.
                raise _ApartError from refusal
            # While the database writes this group and waits for the disk, the next one is put together.
            self._hand_over(key, group[0])
            return answers

        try:
            answers = self._steps.run(group[0].caller, verb)
        except Unavailable as error:
            # The connection may have been lost while it was committed: written again, a second one might stand.
            for one in group:
                one.error = error
        except Exception as error:  # noqa: BLE001 - whatever it was, it is undone, and tells its own request when alone
            log.debug("group-apart", size=len(group), error=type(error.__cause__ or error).__name__)
        else:
            for one, done in zip(group, answers, strict=True):
                one.done = done

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
