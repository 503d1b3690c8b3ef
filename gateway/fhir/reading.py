"""What every reading interaction shares: whose it is, what it may show, how it tells the trail.

Promises: what the caller may not see does not exist (404, audited); an answer that names a person leaves once its audit
line is durable; one line an answer.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from sqlalchemy import ColumnElement, Executable, Table, false, func, literal_column, select

from gateway.errors import Forbidden, InvalidContent, NotFound
from gateway.fhir import binaries
from gateway.fhir.auth_scopes import permits, require_scope
from gateway.fhir.document import encode
from gateway.fhir.paging import Pages
from gateway.fhir.search_conditions import Visible
from gateway.fhir.search_kinds import LookedUp
from gateway.fhir.source import Contents, Source
from gateway.fhir.translate.imaging import BASE_URL
from gateway.model.audit import AuditFacts
from gateway.model.representation import TABLES
from gateway.rcp import access
from gateway.rcp.access import Caller
from gateway.settings import Limits

__all__ = ["COUNTED", "GIVEN_UP", "READABLE", "UNSEARCHED", "Budget", "Reading", "columns", "deleted", "too_long"]

T = TypeVar("T")

#: Types that are read here; the trail is not kept as representations (`gateway.fhir.audit_events`).
READABLE: tuple[str, ...] = tuple(TABLES)
#: Those that have no search [FHIR R4 binary#rest].
UNSEARCHED = frozenset({"Binary"})
#: Matches that are counted without being asked for; beyond, a total is left out.
COUNTED = 1000
#: Codes of what ends a step: the database has stopped its statement, or nothing more of it is wanted.
GIVEN_UP = frozenset({"recherche-trop-couteuse", "bundle-trop-long", "reponse-trop-grande"})

_BASE_MARK = encode(BASE_URL)[1:-1]


def columns(table: Table) -> list[Any]:
    """Columns that an answer is made of."""
    return [
        table.c.id,
        table.c.version,
        table.c.body,
        table.c.updated_at,
        table.c.deleted,
        table.c.record_id,
        table.c.dossier_id,
        table.c.root_id,
        table.c.root_kind,
    ]


def deleted(
    caller: Caller,
    kind: str,
    identity: str,
    version: int,
    *,
    record_id: uuid.UUID | None,
    dossier_id: uuid.UUID | None,
) -> NotFound:
    """The refusal of what was deleted (410): who may know that it was there asked about somebody, says the trail."""
    refusal = NotFound("ressource-supprimee", "Ressource supprimée.")
    if record_id is not None:
        refusal.trail = access.facts(
            caller,
            "refus",
            outcome="4",
            reason=refusal.code,
            persons=(record_id,),
            dossier=dossier_id,
            object_type=kind,
            object_id=identity,
            object_version=str(version),
        )
    return refusal


class Budget:
    """What one search may still cost the database.

    Parameters
    ----------
    until
        When the Bundle that it is an entry of must be done, by `time.monotonic`.

    Attributes
    ----------
    apart
        Whether its statements are long (`gateway.fhir.search.costly`).
    """

    def __init__(self, limits: Limits, until: float | None = None) -> None:
        self.apart = False
        self._limits = limits
        self._end = time.monotonic() + limits.search_seconds
        self._of_bundle = until is not None and until < self._end
        if until is not None and until < self._end:
            self._end = until

    def left(self) -> float:
        """Seconds left; refuses when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.exceeded()
        return left

    def exceeded(self) -> InvalidContent:
        """The refusal of what costs too much."""
        if self._of_bundle:
            return too_long(self._limits)
        text = f"Recherche trop coûteuse, arrêtée : {self._limits.told('search_seconds')} s. Précisez la question."
        return InvalidContent("recherche-trop-couteuse", text)


def too_long(limits: Limits) -> InvalidContent:
    """The refusal of a Bundle, or of what is left of it, whose time is over."""
    text = f"Bundle trop long à traiter : {limits.told('bundle_seconds')} s pour toutes ses entrées. Partagez-le."
    return InvalidContent("bundle-trop-long", text)


@dataclass(frozen=True, slots=True)
class Reading:
    """One process's, or one transaction's, way of reading.

    Attributes
    ----------
    source
        The asynchronous path of this event loop, or an open session.
    blobs
        Where report bytes are kept.
    base
        Our FHIR base, put into Bundles and Endpoints at the answer.
    limits
        Bounds of a search.
    pages
        The tokens of pages.
    until
        When the Bundle that this reads for must be done.
    """

    source: Source
    blobs: Contents
    base: str
    limits: Limits
    pages: Pages
    until: float | None = None

    def budget(self) -> Budget:
        """What one search or history may cost."""
        return Budget(self.limits, self.until)

    async def require_scope(self, caller: Caller, kind: str, letter: str) -> None:
        """Refuse what the token does not allow, and tell the trail."""
        try:
            require_scope(caller, kind, letter)
        except Forbidden as refusal:
            if isinstance(refusal.trail, AuditFacts):
                await self.source.record(refusal.trail)
            raise

    async def refuse(self, caller: Caller, kind: str, identity: str) -> NoReturn:
        """Say that a resource does not exist for this caller, and tell the trail."""
        await self._told(access.hidden(caller, kind, identity))

    async def refuse_deleted(self, caller: Caller, kind: str, row: Any) -> NoReturn:
        """Say that what this caller might see was deleted, and tell the trail of whom it spoke."""
        ids = {name: row[name] for name in ("record_id", "dossier_id")}
        await self._told(deleted(caller, kind, row["id"], row["version"], **ids))

    async def _told(self, refusal: NotFound) -> NoReturn:
        if isinstance(refusal.trail, AuditFacts):
            await self.source.record(refusal.trail)
        raise refusal

    def seen(self, caller: Caller, kind: str) -> Callable[[str], Visible]:
        """What this caller may see of any type while he asks for one.

        Returns
        -------
        callable
            From the letter of an interaction to the predicate, which also asks his token.
        """

        def by(letter: str) -> Visible:
            def visible(other: str, table: Table) -> ColumnElement[bool]:
                if other != kind and not permits(caller, other, letter):
                    return false()
                return access.representations(caller, table)

            return visible

        return by

    def rare(self, asked: Sequence[LookedUp]) -> bool:
        """Whether few rows are known to hold what is looked up, if anything is."""
        return bool(asked) and all(self.source.rare(one.column, one.texts, beginnings=one.beginnings) for one in asked)

    async def fetch(
        self,
        statement: Executable,
        budget: Budget,
        values: Mapping[str, Any] | None = None,
        *,
        one_plan: bool = False,
    ) -> Sequence[Any]:
        """Rows of a statement of a search; ``values`` of the named binds of one that is kept."""
        seconds = budget.left()
        try:
            return await self.source.fetch(statement, values, seconds=seconds, apart=budget.apart, one_plan=one_plan)
        except TimeoutError:
            raise budget.exceeded() from None

    async def apart(self, work: Callable[[], T], budget: Budget) -> T:
        """Do what takes long to think about where it holds nobody up; what follows of the search is long too."""
        budget.apart = True
        try:
            return await self.source.apart(work, seconds=budget.left())
        except TimeoutError:
            raise budget.exceeded() from None

    async def count(self, table: Table, wanted: Iterable[ColumnElement[bool]], budget: Budget) -> int:
        """Count all rows."""
        rows = await self.fetch(select(func.count().label("n")).select_from(table).where(*wanted), budget)
        return int(rows[0]["n"])

    async def count_some(self, table: Table, wanted: Iterable[ColumnElement[bool]], budget: Budget) -> int | None:
        """Count rows unless there are more than are counted unasked."""
        some = select(literal_column("1").label("one")).select_from(table).where(*wanted).limit(COUNTED + 1).subquery()
        rows = await self.fetch(select(func.count().label("n")).select_from(some), budget)
        found = int(rows[0]["n"])
        return found if found <= COUNTED else None

    async def filled(self, kind: str, body: bytes) -> bytes:
        """Stored bytes, with the data of a large Binary, which stands in the blob store."""
        key = binaries.mark_in(body) if kind == "Binary" else None
        return body if key is None else binaries.filled(body, await self.blobs.read_async(key))

    def out(self, kind: str, body: bytes) -> bytes:
        """Stored bytes as they leave: our own address stands in none of them."""
        return body.replace(_BASE_MARK, encode(self.base.removesuffix("/fhir"))[1:-1]) if kind == "Endpoint" else body
