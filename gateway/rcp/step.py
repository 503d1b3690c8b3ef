"""One step: a transaction in which verbs run, with all that must be kept or undone together.

A verb receives an open `Step`, locks its roots in key order and never commits. The wire opens the step through `Steps`,
may run several verbs in it, and it is committed once: canonical rows, representations, audit lines and outgoing
messages are kept together or not at all. One retry loop serves serialisation failures, deadlocks and insert races.
"""

from __future__ import annotations

import functools
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from gateway.errors import Conflict, GatewayError, NotFound, Unavailable
from gateway.exchange import pending
from gateway.exchange.outbox import Outbox, Outgoing
from gateway.model.audit import AuditFacts, AuditTrail
from gateway.model.message import Message
from gateway.model.prepared import Prepared
from gateway.model.store import Base, Store
from gateway.model.writes import cautious
from gateway.rcp import access
from gateway.rcp.access import Caller
from gateway.rcp.ports import Clock, Represent

__all__ = ["DomainClock", "Step", "Steps", "hold"]

T = TypeVar("T")
K = TypeVar("K")
R = TypeVar("R", bound=Base)

log = structlog.get_logger(__name__)

#: Serialisation failure, deadlock, unique violation of an insert race, what was referred to is just gone, lock not
#: available.
_RETRIED = frozenset({"40001", "40P01", "23505", "23503", "55P03"})
_ATTEMPTS = 6
#: Before a key of `Step.held` that is held together with others.
_SHARED = "\x1f"


def _holding(function: str) -> Prepared:
    hashes = "(SELECT hashtextextended(unnest(CAST(:keys AS text[])), 0) AS key ORDER BY key) AS hashes"
    return Prepared(lambda: text(f"SELECT {function}(key) FROM {hashes}"))  # noqa: S608 - our own words


_HELD_ALONE = _holding("pg_advisory_xact_lock")
_HELD_TOGETHER = _holding("pg_advisory_xact_lock_shared")


def hold(session: Session, *keys: str, shared: bool = False) -> None:
    """Hold keys until the transaction ends, all in one order whoever asks."""
    (_HELD_TOGETHER if shared else _HELD_ALONE).run(session, {"keys": sorted(keys)})


def _busy() -> Unavailable:
    return Unavailable("database-busy", "Le service est saturé.", retry_after_s=2)


def _silent() -> Unavailable:
    return Unavailable("database", "La base de données ne répond pas.", retry_after_s=5)


class DomainClock:
    """Starts at an instant and runs on; real time when none is given (DECISIONS 12)."""

    def __init__(self, start: datetime | None = None) -> None:
        self._offset = start - datetime.now(UTC) if start is not None else None

    def now(self) -> datetime:
        """Aware instant, UTC."""
        real = datetime.now(UTC)
        return real if self._offset is None else real + self._offset


@dataclass
class Step:
    """An open step.

    Attributes
    ----------
    session
        The database session; verbs read and write through it and never commit it.
    caller
        For whom the step is done.
    now
        Domain time, one instant for the whole step.
    fictitious
        Whether patients may be invented ones: not in ``prod``.
    """

    session: Session
    caller: Caller
    now: datetime
    trail: AuditTrail
    outbox: Outbox
    fictitious: bool = True
    roots: dict[tuple[str, uuid.UUID], Any] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)

    def serialise(self, *keys: str, shared: bool = False) -> None:
        """Hold transaction-long locks on keys that may have no row yet, in one order whoever asks.

        Whoever needs several takes them in one call; a key that the step already holds costs nothing. ``shared``
        excludes only who holds the key alone.
        """
        wanted = [key for key in keys if key not in self.held and (not shared or _SHARED + key not in self.held)]
        if not wanted:
            return
        hold(self.session, *wanted, shared=shared)
        self.held.update(_SHARED + key if shared else key for key in wanted)

    def lock(self, kind: type[R], *ids: uuid.UUID) -> list[R]:
        """Lock roots of one kind, in key order, and return them in the order asked.

        Raises
        ------
        NotFound
            One of them does not exist.
        """
        rows = self.session.scalars(
            select(kind)
            .where(kind.id.in_(sorted(set(ids))))  # type: ignore[attr-defined]  # every root is Keyed
            .order_by(kind.id)  # type: ignore[attr-defined]  # every root is Keyed
            .with_for_update(of=kind)
            .execution_options(populate_existing=True)
        ).unique()
        found = {row.id: row for row in rows}  # type: ignore[attr-defined]  # every root is Keyed
        for wanted in ids:
            if wanted not in found:
                raise NotFound("inconnu", "Ressource inconnue.")
        return [found[wanted] for wanted in ids]

    def touch(self, *roots: Any) -> None:
        """Say which aggregate roots this step changed; their representations follow before the commit."""
        for root in roots:
            self.roots[(type(root).__name__, root.id)] = root

    def audit(self, event: str, **more: Any) -> None:
        """Write an audit line of this step's caller; kept exactly if the step is."""
        self.trail.write(self.session, access.facts(self.caller, event, happened=self.now, **more))

    def post(self, outgoing: Outgoing) -> Message:
        """Put one message into the outbox; the same key twice is the same message."""
        return self.outbox.post(self.session, outgoing, self.now)


class Steps:
    """Opens steps.

    Parameters
    ----------
    represent
        Runs once before each commit over the touched roots (`gateway.rcp.ports.Represent`).
    fictitious
        See `Step`.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        trail: AuditTrail,
        outbox: Outbox,
        represent: Represent,
        *,
        fictitious: bool = True,
    ) -> None:
        self.store = store
        self.clock = clock
        self.trail = trail
        self.outbox = outbox
        self.represent = represent
        self.fictitious = fictitious

    def run(self, caller: Caller, verb: Callable[[Step], T]) -> T:
        """Run a verb in one step and commit it.

        The verb may be run again from the start after a clash with another writer: it must have no effect outside its
        step. A refusal is undone, with the bytes that it kept, and then told to the trail in a transaction of its own.

        Raises
        ------
        Unavailable
            The database does not answer, or others kept winning.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._once(caller, verb, again=attempt > 1)
            except GatewayError as error:
                if isinstance(error.trail, AuditFacts):
                    self.record(error.trail)
                raise
            except PoolTimeout as error:
                raise _busy() from error
            except DBAPIError as error:
                state = getattr(error.orig, "sqlstate", None)
                if state not in _RETRIED:
                    if isinstance(error, OperationalError):
                        raise _silent() from error
                    raise
                if attempt == _ATTEMPTS:
                    if state == "23505":
                        raise Conflict("duplicate", "Un élément portant la même clé existe déjà.") from error
                    raise Unavailable("contention", "Trop d’écritures simultanées.", retry_after_s=1) from error
                log.debug("step-retried", sqlstate=state, attempt=attempt)
                time.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable")

    def _once(self, caller: Caller, verb: Callable[[Step], T], *, again: bool) -> T:
        with self.store.session() as session:
            if again:
                cautious(session)
            step = Step(session, caller, self.clock.now(), self.trail, self.outbox, self.fictitious)
            try:
                answer = verb(step)
                session.flush()
                if step.roots:
                    self.represent(step, tuple(step.roots.values()))
            except BaseException:
                pending.take_back(session)
                raise
            session.commit()
            return answer

    def at_once(self, statement: Prepared, every: Sequence[Mapping[str, Any]]) -> list[int]:
        """Send a statement with each of these values in one transaction, without a step; how many rows each wrote.

        For what is asked all the time, changes no root and leaves no trail of its own.

        Raises
        ------
        Unavailable
            The database does not answer; nobody knows whether it was committed.
        DBAPIError
            What it refused; nothing was written.
        """
        try:
            return statement.at_once(self.store.engine, every)
        except PoolTimeout as error:
            raise _busy() from error
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) in _RETRIED:
                raise
            raise _silent() from error

    def each(self, keys: Iterable[K], verb: Callable[[K, Step], int], *, refused: str) -> int:
        """Run a verb of the gateway itself for each key, each in a step of its own; sum what they give.

        Parameters
        ----------
        refused
            The warning that is logged for a key whose verb refuses; the others go on.

        Raises
        ------
        Unavailable
            As `run`: the next would fail too.
        """
        total = 0
        for key in keys:
            try:
                total += self.run(access.SYSTEM, functools.partial(verb, key))
            except Unavailable:
                raise
            except GatewayError as error:
                log.warning(refused, key=str(key), code=error.code)
        return total

    def record(self, *lines: AuditFacts) -> None:
        """Write audit lines in a transaction of their own: refusals, sign-ins, system events; raises as `run`."""

        def verb(step: Step) -> None:
            for line in lines:
                step.trail.write(step.session, line)

        self.run(access.SYSTEM, verb)

    def read(self, caller: Caller, question: Callable[[Session], tuple[T, Iterable[AuditFacts]]]) -> T:
        """Answer a question whose audit lines are durable before the answer leaves.

        ``question`` returns the answer and the lines that tell of it; caller facts are laid under each line by
        `gateway.rcp.access.facts`, which the question uses.
        """

        def verb(step: Step) -> T:
            answer, lines = question(step.session)
            for line in lines:
                step.trail.write(step.session, line)
            return answer

        return self.run(caller, verb)
