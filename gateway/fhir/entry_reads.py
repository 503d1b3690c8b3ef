"""GET entries of a Bundle: answered by the same reads as the routes, out of the session of an open step.

Promises: what the step wrote is seen; audit lines are kept exactly if the step is; nothing is awaited.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from sqlalchemy import Executable, text
from sqlalchemy.exc import DBAPIError

from gateway.errors import Fault, NotFound
from gateway.exchange.blobs import BlobStore
from gateway.fhir import conditions
from gateway.fhir.bundle import Answer, Ask
from gateway.fhir.negotiation import require_type
from gateway.fhir.read import FhirReads
from gateway.model.audit import AuditFacts
from gateway.rcp.step import Step

__all__ = ["answer"]

T = TypeVar("T")
_CANCELLED = "57014"


class _StepSource:
    """Rows of an open step (`gateway.fhir.source.Source`)."""

    def __init__(self, step: Step) -> None:
        self._step = step

    async def fetch(
        self, statement: Executable, values: Mapping[str, Any] | None = None, *, seconds: float | None = None
    ) -> Sequence[Any]:
        session = self._step.session
        if seconds is None:
            return session.execute(statement, values).mappings().all()
        before = session.scalar(text("SELECT current_setting('statement_timeout')"))
        session.execute(text("SELECT set_config('statement_timeout', :most, true)"), {"most": f"{int(seconds * 1000)}"})
        try:
            rows = session.execute(statement, values).mappings().all()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == _CANCELLED:
                raise TimeoutError from error
            raise
        session.execute(text("SELECT set_config('statement_timeout', :most, true)"), {"most": before})
        return rows

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


def answer(step: Step, reads: FhirReads, blobs: BlobStore, ask: Ask, *, strict: bool = False) -> Answer:
    """Answer what an entry asks for.

    Raises
    ------
    GatewayError
        What the same request alone would be refused for.
    """
    require_type(ask.kind)
    over = reads.over(_StepSource(step), _Contents(blobs))
    match ask.steps:
        case () | ("_search",):
            return Answer(200, _driven(over.search(step.caller, ask.kind, list(ask.pairs), strict=strict)))
        case (identity,) if not identity.startswith("_"):
            return _one(step, over, ask, identity, None)
        case (identity, "_history"):
            return Answer(200, _history(step, over, ask, identity))
        case (identity, "_history", version) if version.isdecimal() and len(version) <= 9:
            return _one(step, over, ask, identity, int(version))
        case _:
            raise NotFound("inconnu", "Ressource ou opération inconnue.")


def _one(step: Step, over: FhirReads, ask: Ask, identity: str, version: int | None) -> Answer:
    found = _driven(over.read(step.caller, ask.kind, identity, version))
    same = ask.if_none_match is not None and conditions.tags(ask.if_none_match, "If-None-Match").hold(found.version)
    if same or (ask.if_none_match is None and _unchanged(ask.if_modified_since, found.updated_at)):
        return Answer(304, version=found.version, updated_at=found.updated_at)
    body = None if ask.head else found.body
    return Answer(200, body, version=found.version, updated_at=found.updated_at)


def _unchanged(since: str | None, updated_at: datetime) -> bool:
    """Whether nothing changed since an instant, as FHIR or HTTP writes it; HTTP knows whole seconds."""
    if since is None:
        return False
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        try:
            moment = parsedate_to_datetime(since) + timedelta(seconds=1)
        except ValueError:
            return False
    return updated_at <= (moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _history(step: Step, over: FhirReads, ask: Ask, identity: str) -> bytes:
    said = dict(ask.pairs)
    count, before = (said.get(name, "") for name in ("_count", "_before"))
    return _driven(
        over.history(
            step.caller,
            ask.kind,
            identity,
            count=min(int(count), 500) if count.isdecimal() and 0 < len(count) <= 9 else 50,
            before=int(before) if before.isdecimal() and 0 < len(before) <= 9 else None,
        )
    )
