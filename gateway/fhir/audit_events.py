"""The trail over FHIR, read-only: AuditEvents computed from audit lines, for the organisation whose patients they name.

[spec audit 1.3, 2, 5; TdE 2.0.0; IHE ITI-81; FHIR R4 auditevent; DECISIONS 10]

Promises: a client sees the lines that name a patient of its own organisation, and of the persons of such a line only
its own; a search has a bound in time (TdE), newest first; its pages follow the lines themselves, so that none is shown
twice or left out while others are written; who reads the trail stands in the trail, before the answer leaves.
An address of the red list stands in no answer, though the trail has it.
Not promised: writing (405), versions, lines about no patient.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec
from sqlalchemy import ColumnElement, Uuid, any_, exists, false, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from gateway.errors import Forbidden
from gateway.fhir import audit_search
from gateway.fhir.audit_search import Asked, Pair
from gateway.fhir.auth_scopes import require_scope
from gateway.fhir.document import encode
from gateway.fhir.paging import PAGE, Mark, Pages, of
from gateway.fhir.reading import Budget
from gateway.fhir.searchset import split_page
from gateway.fhir.source import Source
from gateway.fhir.translate.audit import audit_event
from gateway.model.audit import AuditFacts, AuditLine
from gateway.model.representation import TABLES
from gateway.rcp import access, mailboxes
from gateway.rcp.access import Caller, CallerKind
from gateway.settings import Limits

__all__ = ["AuditReads"]


class AuditReads:
    """Reads of the trail.

    Parameters
    ----------
    source
        Where rows come from, and where reading the trail is told.
    pages
        The tokens of pages: the number of a line would tell how many others were written since another.
    until
        When the Bundle that this reads for must be done.
    """

    def __init__(
        self, source: Source, base_url: str, limits: Limits, pages: Pages, *, until: float | None = None
    ) -> None:
        self._source = source
        self._pages = pages
        self._base = base_url
        self._limits = limits
        self._until = until
        self._site = urlsplit(base_url).netloc

    def over(self, source: Source, *, until: float | None = None) -> AuditReads:
        """Read the same way out of another session, and until then."""
        return AuditReads(source, self._base, self._limits, self._pages, until=until)

    async def read(self, caller: Caller, identity: str) -> bytes:
        """Return one line.

        Raises
        ------
        NotFound
            ``inconnu``: there is none, or it names no patient of the caller's organisation.
        """
        await self._require_scope(caller, "r")
        key = audit_search.id_of(identity)
        rows = await self._source.fetch(_lines(caller).where(AuditLine.id == key)) if key is not None else ()
        if not rows:
            refusal = access.hidden(caller, "AuditEvent", identity)
            if isinstance(refusal.trail, AuditFacts):
                await self._source.record(refusal.trail)
            raise refusal
        seen = await self._seen(caller, rows)
        await self._tell(caller, (), 1, object_id=identity)
        return encode(self._tree(rows[0], seen))

    async def search(self, caller: Caller, pairs: Sequence[Pair], *, strict: bool = False) -> bytes:
        """Return a searchset, newest line first.

        Raises
        ------
        InvalidContent
            ``date-obligatoire``: no bound in time; ``parametre-inconnu``, ``parametre-valeur``,
            ``recherche-trop-couteuse``; see `gateway.fhir.paging.Pages.open`.
        """
        await self._require_scope(caller, "s")
        token, given, shared = split_page(pairs)
        mark = self._pages.open(token, "AuditEvent", given, whose=of(caller)) if token is not None else None
        asked = audit_search.parse([*mark.pairs, *shared] if mark is not None else pairs, self._limits, strict=strict)
        wanted = _lines(caller).where(*asked.where)
        budget = Budget(self._limits, self._until)
        total = None
        if asked.counted:
            rows = await self._fetch(select(func.count().label("n")).select_from(wanted.subquery()), budget)
            total = int(rows[0]["n"])
        paged = wanted.order_by(AuditLine.seq.desc()).limit(asked.count + 1)
        if mark is not None and mark.row is not None:
            paged = paged.where(AuditLine.seq < mark.row[1])
        rows = list(await self._fetch(paged, budget)) if asked.count else []
        page = rows[: asked.count]
        seen = await self._seen(caller, page) if page else _Seen()
        await self._tell(caller, asked.patients, len(page))
        said = tuple(pair for pair in asked.applied if pair not in shared)
        links = [("self", [*asked.applied, *([(PAGE, token)] if token is not None else [])])]
        if len(rows) > asked.count:
            place = Mark(path="AuditEvent", pairs=said, snapshot="", row=("", page[-1]["seq"]), whose=of(caller))
            links.append(("next", [(PAGE, self._pages.seal(place)), *shared]))
        return self._bundle(asked, page, seen, total, links)

    async def _fetch(self, statement: Any, budget: Budget) -> Sequence[Any]:
        try:
            return await self._source.fetch(statement, seconds=budget.left())
        except TimeoutError:
            raise budget.exceeded() from None

    async def _require_scope(self, caller: Caller, letter: str) -> None:
        try:
            require_scope(caller, "AuditEvent", letter)
        except Forbidden as refusal:
            if isinstance(refusal.trail, AuditFacts):
                await self._source.record(refusal.trail)
            raise

    async def _seen(self, caller: Caller, rows: Sequence[Any]) -> _Seen:
        """What of these lines the caller may see."""
        return _Seen(await self._shown(caller, rows), await self._hidden(rows))

    async def _hidden(self, rows: Sequence[Any]) -> frozenset[str]:
        """Which addresses of these lines are of the red list."""
        told = {str(line.get("recipient") or "").lower() for line in map(_payload, rows)} - {""}
        found = await self._source.fetch(mailboxes.hidden_among(told)) if told else ()
        return frozenset(str(row["address"]) for row in found)

    async def _shown(self, caller: Caller, rows: Sequence[Any]) -> frozenset[str]:
        """Which of the persons of these lines are the caller's own patients."""
        named = sorted({key for row in rows for key in row["persons"]})
        table = TABLES["Patient"]
        statement = select(table.c.record_id).where(
            table.c.current, table.c.record_id == any_(literal(named, ARRAY(Uuid()))), _own(caller)
        )
        return frozenset(str(row["record_id"]) for row in await self._source.fetch(statement))

    async def _tell(
        self, caller: Caller, persons: Sequence[uuid.UUID], lines: int, *, object_id: str | None = None
    ) -> None:
        await self._source.record(
            access.facts(
                caller,
                "audit",
                persons=tuple(persons),
                object_type="AuditEvent",
                object_id=object_id,
                detail={"lignes": lines},
            )
        )

    def _tree(self, row: Any, seen: _Seen) -> dict[str, Any]:
        line = _payload(row)
        if str(line.get("recipient") or "").lower() in seen.hidden:
            line |= {"recipient": None}
        return audit_event(line, shown=seen.persons, site=self._site)

    def _bundle(
        self,
        asked: Asked,
        page: Sequence[Any],
        seen: _Seen,
        total: int | None,
        links: Sequence[tuple[str, Sequence[Pair]]],
    ) -> bytes:
        head: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
        if total is not None:
            head["total"] = total
        head["link"] = [
            {"relation": relation, "url": f"{self._base}/AuditEvent?{urlencode(said)}"} for relation, said in links
        ]
        entries: list[dict[str, Any]] = [
            {
                "fullUrl": f"{self._base}/AuditEvent/{row['id']}",
                "resource": self._tree(row, seen),
                "search": {"mode": "match"},
            }
            for row in page
        ]
        if asked.warnings:
            told = {"resourceType": "OperationOutcome", "language": "fr", "issue": asked.warnings}
            entries.append({"resource": told, "search": {"mode": "outcome"}})
        if entries:
            head["entry"] = entries
        return encode(head)


class _Seen(NamedTuple):
    """Of a page of lines: ids of the caller's own patients, and addresses that are shown to nobody."""

    persons: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()


def _payload(row: Any) -> dict[str, Any]:
    line: dict[str, Any] = msgspec.json.decode(row["payload"])
    return line


def _own(caller: Caller) -> ColumnElement[bool]:
    """Predicate over the Patients whose lines the caller may read: those of his own organisation."""
    if caller.kind is CallerKind.SYSTEM:
        return TABLES["Patient"].c.record_id.is_not(None)
    if caller.kind is not CallerKind.CLIENT or caller.partner_id is None:
        return false()
    return TABLES["Patient"].c.partner_id == caller.partner_id


def _lines(caller: Caller) -> Any:
    """Lines that name a patient of the caller's; one that was deleted since is still his."""
    table = TABLES["Patient"]
    own = exists().where(table.c.record_id == any_(AuditLine.persons), table.c.current, _own(caller))
    return select(AuditLine.seq, AuditLine.id, AuditLine.persons, AuditLine.payload).where(own.correlate(AuditLine))
