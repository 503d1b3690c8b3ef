"""GET entries of a Bundle: answered by the same reads as the routes, out of the session of an open step.

Promises: whatever a client may GET, but for what is no FHIR; what the step wrote is seen; audit lines are kept exactly
if the step is; nothing is awaited.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import Column, Executable

from gateway.errors import Fault, NotFound
from gateway.exchange.blobs import BlobStore
from gateway.fhir.audit_events import AuditReads
from gateway.fhir.bundle import Answer, Ask
from gateway.fhir.negotiation import require_type
from gateway.fhir.read import FhirReads
from gateway.fhir.routes_read import unchanged
from gateway.fhir.summary import form
from gateway.fhir.timed import UNKEPT, stopped_after
from gateway.model.audit import AuditFacts
from gateway.rcp.caller import Caller
from gateway.rcp.step import Step

__all__ = ["Offered", "answer"]

T = TypeVar("T")


class _StepSource:
    """Rows of an open step (`gateway.fhir.source.Source`)."""

    def __init__(self, step: Step) -> None:
        self._step = step

    async def apart(self, work: Callable[[], T], *, seconds: float) -> T:
        del seconds  # a step has a thread of its own
        return work()

    async def fetch(
        self,
        statement: Executable,
        values: Mapping[str, Any] | None = None,
        *,
        seconds: float | None = None,
        apart: bool = False,
        one_plan: bool = False,
    ) -> Sequence[Any]:
        del one_plan  # the plans of a step's connection are the server's choice
        session, kept = self._step.session, UNKEPT if apart else {}
        if seconds is None:
            return session.execute(statement, values, execution_options=kept).mappings().all()
        with stopped_after(session, seconds):
            return session.execute(statement, values, execution_options=kept).mappings().all()

    def rare(self, column: Column[Any], texts: Sequence[str], *, beginnings: bool = False) -> bool:
        del column, texts, beginnings
        return False

    async def one(self, statement: Executable, identity: str) -> Any | None:
        return self._step.session.execute(statement, {"ids": [identity]}).mappings().one_or_none()

    async def record(self, *lines: AuditFacts) -> None:
        for line in lines:
            self._step.trail.write(self._step.session, line)


class _Contents:
    """Bytes of Binaries, read in place."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    async def read_async(self, key: str, /) -> bytes:
        return self._blobs.read(key)


def _driven(question: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits."""
    try:
        question.send(None)
    except StopIteration as end:
        found: T = end.value
        return found
    question.close()
    raise Fault("lecture-suspendue", "Une lecture a attendu là où rien n’attend.")


@dataclass(frozen=True, slots=True)
class Offered:
    """What entries are answered from.

    Attributes
    ----------
    statement
        Entity tag and bytes of the CapabilityStatement.
    """

    reads: FhirReads
    trail: AuditReads
    blobs: BlobStore
    statement: Callable[[], tuple[str, bytes]]


def answer(step: Step, offered: Offered, ask: Ask, *, strict: bool = False, until: float | None = None) -> Answer:
    """Answer what an entry asks for.

    Parameters
    ----------
    until
        When the Bundle must be done (`gateway.fhir.allowance`).

    Raises
    ------
    GatewayError
        What the same request alone would be refused for.
    """
    found = _found(step, offered, ask, strict=strict, until=until)
    return replace(found, body=None) if ask.head else found


def _found(step: Step, offered: Offered, ask: Ask, *, strict: bool, until: float | None) -> Answer:
    if ask.kind == "metadata":
        return _statement(offered, ask)
    if ask.kind == "AuditEvent":
        return _of_trail(step, offered.trail.over(_StepSource(step), until=until), ask, strict=strict)
    require_type(ask.kind)
    over = offered.reads.over(_StepSource(step), _Contents(offered.blobs), until=until)
    return _of_type(step, over, ask, strict=strict)


async def _document(over: FhirReads, caller: Caller, identity: str, pairs: Sequence[tuple[str, str]]) -> bytes:
    return (await over.document(caller, identity, pairs)).body


_Operation = Callable[[FhirReads, Caller, str, Sequence[tuple[str, str]]], Coroutine[Any, Any, bytes]]
_OPERATIONS: Final[Mapping[tuple[str, str], _Operation]] = {
    ("Composition", "$document"): _document,
    ("Subscription", "$status"): FhirReads.subscription_status,
    ("Subscription", "$events"): FhirReads.subscription_events,
}


def _of_type(step: Step, over: FhirReads, ask: Ask, *, strict: bool) -> Answer:
    pairs = list(ask.pairs)
    match ask.steps:
        case () | ("_search",):
            posted = ask.steps != ()
            return Answer(200, _driven(over.search(step.caller, ask.kind, pairs, strict=strict, posted=posted)))
        case ("_history",):
            return Answer(200, _driven(over.history(step.caller, ask.kind, None, pairs, strict=strict)))
        case (identity,):
            return _one(step, over, ask, identity, None)
        case (identity, name) if (ask.kind, name) in _OPERATIONS:
            return Answer(200, _driven(_OPERATIONS[ask.kind, name](over, step.caller, identity, pairs)))
        case (identity, "_history"):
            return Answer(200, _driven(over.history(step.caller, ask.kind, identity, pairs, strict=strict)))
        case (identity, "_history", version) if version.isascii() and version.isdecimal() and len(version) <= 9:
            return _one(step, over, ask, identity, int(version))
        case _:
            raise NotFound("inconnu", "Ressource ou opération inconnue.")


def _statement(offered: Offered, ask: Ask) -> Answer:
    if ask.steps:
        raise NotFound("inconnu", "Ressource ou opération inconnue.")
    tag, body = offered.statement()
    known = {one.strip() for one in (ask.if_none_match or "").split(",")}
    if known & {tag, "*"}:
        return Answer(304)
    return Answer(200, bytes(form(ask.pairs).cut("CapabilityStatement", body)))


def _of_trail(step: Step, over: AuditReads, ask: Ask, *, strict: bool) -> Answer:
    match ask.steps:
        case () | ("_search",):
            body = _driven(over.search(step.caller, list(ask.pairs), strict=strict))
        case (identity,):
            body = _driven(over.read(step.caller, identity))
        case _:
            raise NotFound("inconnu", "Ressource ou opération inconnue.")
    return Answer(200, body)


def _one(step: Step, over: FhirReads, ask: Ask, identity: str, version: int | None) -> Answer:
    found = _driven(over.read(step.caller, ask.kind, identity, version, form=form(ask.pairs)))
    known = _known(ask, found.version, found.updated_at)
    body = None if known else found.body
    return Answer(304 if known else 200, body, version=found.version, updated_at=found.updated_at)


def _known(ask: Ask, version: int, updated_at: datetime) -> bool:
    """Whether who asks has this version already; ``ifModifiedSince`` is an instant, not an HTTP date."""
    if ask.if_none_match is not None:
        return unchanged({"if-none-match": ask.if_none_match}, version, updated_at)
    try:
        since = datetime.fromisoformat(ask.if_modified_since or "")
    except ValueError:
        return ask.if_modified_since is not None and unchanged(
            {"if-modified-since": ask.if_modified_since}, version, updated_at
        )
    return since.tzinfo is not None and updated_at <= since
