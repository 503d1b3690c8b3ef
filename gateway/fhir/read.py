"""Reading over FHIR: one indexed row for a read, stored bytes joined for a search; nothing is parsed.

[FHIR R4 http#read, #vread, #history, search; DESIGN §3 and §4; spec fhir-fr 3.1, 3.2]

Promises: what the caller may not see does not exist (404, audited); an answer that names a person leaves once its audit
line is durable; ``_include`` and ``_revinclude`` show, and chained parameters betray, only what the caller and his
token may see; pages are followed by id, so that nothing is lost or shown twice while others write.
Not promised: totals that still hold on the next page.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
from sqlalchemy import ColumnElement, Table, any_, cast, false, func, literal, not_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from gateway.errors import Forbidden, NotFound
from gateway.fhir import document
from gateway.fhir.auth_scopes import permits, require_scope
from gateway.fhir.document import encode
from gateway.fhir.search import Include, Query, Visible, parse
from gateway.fhir.search_conditions import ID
from gateway.fhir.source import Contents, Source
from gateway.fhir.translate.imaging import BASE_URL
from gateway.model.audit import AuditFacts
from gateway.model.report import ReportForm
from gateway.model.representation import TABLES
from gateway.rcp import access
from gateway.rcp.access import Caller
from gateway.settings import Limits

__all__ = ["READABLE", "FhirReads", "Found", "RawContent"]

#: Types that are read here. AuditEvent lines are not representations and are not offered yet.
READABLE: tuple[str, ...] = tuple(kind for kind in TABLES if kind != "AuditEvent")
#: Included resources of one page at most.
INCLUDED_MAX = 1000

_BASE_MARK = encode(BASE_URL)[1:-1]


class Found(NamedTuple):
    """One version of one resource, as it leaves."""

    body: bytes
    version: int
    updated_at: datetime


class RawContent(NamedTuple):
    """The bytes of a Binary."""

    content_type: str
    content: bytes
    version: int
    updated_at: datetime


def _columns(table: Table) -> list[Any]:
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


class FhirReads:
    """Reads of one process.

    Parameters
    ----------
    source
        The asynchronous path of this event loop, or an open session.
    blobs
        Where report bytes are kept.
    base_url
        Our FHIR base, put into Bundles and Endpoints at the answer.
    limits
        Bounds of a search.
    key
        What the tokens of pages are sealed with; every process of one gateway has the same.
    """

    def __init__(self, source: Source, blobs: Contents, base_url: str, limits: Limits, key: bytes) -> None:
        self._source = source
        self._blobs = blobs
        self._base = base_url
        self._limits = limits
        self._key = key

    def over(self, source: Source, blobs: Contents | None = None) -> FhirReads:
        """Read the same way out of another session: the open one of a transaction."""
        return FhirReads(source, blobs or self._blobs, self._base, self._limits, self._key)

    # One resource

    async def read(self, caller: Caller, kind: str, identity: str, version: int | None = None) -> Found:
        """Return the current or a given version.

        Raises
        ------
        NotFound
            ``inconnu``; ``ressource-supprimee`` (410) for what was deleted.
        Forbidden
            The token does not allow it.
        """
        row = await self._row(caller, kind, identity, version)
        body = await self._whole(caller, kind, row)
        await self._tell(caller, kind, row)
        return Found(self._out(kind, body), row["version"], row["updated_at"])

    async def raw(self, caller: Caller, identity: str) -> RawContent:
        """Return the bytes of a Binary; see `read` for the refusals."""
        row = await self._row(caller, "Binary", identity, None)
        form = await self._form(caller, row)
        content = await self._blobs.read_async(form["sha256"])
        await self._tell(caller, "Binary", row, sha256=form["sha256"])
        return RawContent(form["content_type"], content, row["version"], row["updated_at"])

    async def _require_scope(self, caller: Caller, kind: str, letter: str) -> None:
        try:
            require_scope(caller, kind, letter)
        except Forbidden as refusal:
            if isinstance(refusal.trail, AuditFacts):
                await self._source.record(refusal.trail)
            raise

    async def _row(self, caller: Caller, kind: str, identity: str, version: int | None) -> Any:
        await self._require_scope(caller, kind, "r")
        if not ID.fullmatch(identity):
            await self._refuse(caller, kind, identity)
        table = TABLES[kind]
        which = table.c.current if version is None else table.c.version == version
        rows = await self._source.fetch(
            select(*_columns(table)).where(table.c.id == identity, which, access.representations(caller, table))
        )
        if not rows:
            await self._refuse(caller, kind, identity)
        if rows[0]["deleted"]:
            raise NotFound("ressource-supprimee", "Ressource supprimée.")
        return rows[0]

    async def _refuse(self, caller: Caller, kind: str, identity: str) -> None:
        refusal = access.hidden(caller, kind, identity)
        if isinstance(refusal.trail, AuditFacts):
            await self._source.record(refusal.trail)
        raise refusal

    async def _form(self, caller: Caller, row: Any) -> Any:
        rows = await self._source.fetch(
            select(ReportForm.sha256, ReportForm.content_type).where(ReportForm.id == row["root_id"])
        )
        if not rows:
            await self._refuse(caller, "Binary", row["id"])
        return rows[0]

    async def _whole(self, caller: Caller, kind: str, row: Any) -> bytes:
        """Stored bytes; of a Binary with its data, which stands in the blob store."""
        if kind != "Binary" or row["root_kind"] != "ReportForm":
            return bytes(row["body"])
        form = await self._form(caller, row)
        content = await self._blobs.read_async(form["sha256"])
        return encode({**document.parse(row["body"]), "data": b64encode(content).decode("ascii")})

    async def _tell(self, caller: Caller, kind: str, row: Any, *, sha256: str | None = None) -> None:
        if row["record_id"] is None:
            return
        await self._source.record(
            access.facts(
                caller,
                "consultation",
                persons=(row["record_id"],),
                dossier=row["dossier_id"],
                object_type=kind,
                object_id=row["id"],
                object_version=str(row["version"]),
                object_sha256=sha256,
            )
        )

    def _out(self, kind: str, body: bytes) -> bytes:
        return body.replace(_BASE_MARK, encode(self._base.removesuffix("/fhir"))[1:-1]) if kind == "Endpoint" else body

    async def history(self, caller: Caller, kind: str, identity: str, *, count: int, before: int | None) -> bytes:
        """Return the versions of one resource, newest first [FHIR R4 http#history]."""
        await self._require_scope(caller, kind, "r")
        if not ID.fullmatch(identity):
            await self._refuse(caller, kind, identity)
        table = TABLES[kind]
        statement = select(*_columns(table)).where(table.c.id == identity, access.representations(caller, table))
        if before is not None:
            statement = statement.where(table.c.version < before)
        rows = await self._source.fetch(statement.order_by(table.c.version.desc()).limit(count + 1))
        if not rows and before is None:
            await self._refuse(caller, kind, identity)
        page = rows[:count]
        entries = []
        for row in page:
            method = "DELETE" if row["deleted"] else "POST" if row["version"] == 1 else "PUT"
            entry: dict[str, Any] = {"fullUrl": f"{self._base}/{kind}/{identity}"}
            if not row["deleted"]:
                entry["resource"] = msgspec.Raw(self._out(kind, bytes(row["body"])))
            entry["request"] = {"method": method, "url": kind if method == "POST" else f"{kind}/{identity}"}
            entry["response"] = {
                "status": "201" if method == "POST" else "200",
                "etag": f'W/"{row["version"]}"',
                "lastModified": document.instant(row["updated_at"]),
            }
            entries.append(entry)
        for row in {row["record_id"]: row for row in reversed(page)}.values():
            await self._tell(caller, kind, row)
        links = [{"relation": "self", "url": f"{self._base}/{kind}/{identity}/_history"}]
        if len(rows) > count:
            url = f"{self._base}/{kind}/{identity}/_history?_count={count}&_before={page[-1]['version']}"
            links.append({"relation": "next", "url": url})
        return encode({"resourceType": "Bundle", "type": "history", "link": links, "entry": entries})

    # Many

    async def search(
        self, caller: Caller, kind: str, pairs: Sequence[tuple[str, str]], *, strict: bool = False
    ) -> bytes:
        """Return a searchset.

        Raises
        ------
        InvalidContent, Unsupported
            See `gateway.fhir.search.parse`.
        """
        await self._require_scope(caller, kind, "s")

        def by(letter: str) -> Visible:
            """What the caller may see of any type, as far as his token allows this interaction on it."""

            def visible(other: str, table: Table) -> ColumnElement[bool]:
                if other != kind and not permits(caller, other, letter):
                    return false()
                return access.representations(caller, table)

            return visible

        query = parse(kind, pairs, visible=by("s"), strict=strict)
        table = TABLES[kind]
        wanted = [table.c.current, not_(table.c.deleted), access.representations(caller, table), query.where]
        if query.horizon:
            wanted.append(table.c.xid < func.pg_snapshot_xmin(func.pg_current_snapshot()))
        total = await self._count(table, wanted) if query.total or query.count_only else None
        rows = [] if query.count_only else await self._page(table, query, wanted)
        page = rows[: query.count]
        included = await self._included(query, page, by("r")) if page else []
        persons = {row["record_id"] for row in page} | {row["record_id"] for _, row in included}
        await self._source.record(
            access.facts(
                caller,
                "recherche",
                persons=tuple(sorted(person for person in persons if person is not None)),
                object_type=kind,
                detail={"resultats": len(page), **({"total": total} if total is not None else {})},
            )
        )
        return self._searchset(query, page, included, total, more=len(rows) > query.count)

    async def _count(self, table: Table, wanted: Iterable[ColumnElement[bool]]) -> int:
        rows = await self._source.fetch(select(func.count().label("n")).select_from(table).where(*wanted))
        return int(rows[0]["n"])

    async def _page(self, table: Table, query: Query, wanted: list[ColumnElement[bool]]) -> Sequence[Any]:
        extra = {include.parameter.column for include in query.includes if not include.reverse}
        columns = [table.c[name] for name in sorted(extra) if name in table.c]
        statement = select(*_columns(table), *columns).where(*wanted)
        if query.sort:
            keys = [
                column.desc().nulls_last() if descending else column.asc().nulls_last()
                for column, descending in query.sort
            ]
            statement = statement.order_by(*keys, table.c.id).offset(query.offset)
        else:
            if query.after is not None:
                statement = statement.where(table.c.id > query.after)
            statement = statement.order_by(table.c.id)
        return await self._source.fetch(statement.limit(query.count + 1))

    async def _included(self, query: Query, page: Sequence[Any], visible: Visible) -> list[tuple[str, Any]]:
        shown = {(query.type, row["id"]) for row in page}
        found: list[tuple[str, Any]] = []
        for include in query.includes:
            if include.reverse:
                rows = await self._referring(include, query.type, [row["id"] for row in page], visible)
            else:
                rows = await self._referred(include, page, visible) if include.source == query.type else []
            for kind, row in rows:
                if (kind, row["id"]) not in shown and len(found) < INCLUDED_MAX:
                    shown.add((kind, row["id"]))
                    found.append((kind, row))
        return found

    async def _referring(
        self, include: Include, kind: str, ids: Sequence[str], visible: Visible
    ) -> list[tuple[str, Any]]:
        table = TABLES[include.source]
        wanted = literal([f"{kind}/{identity}" for identity in ids], ARRAY(Text()))
        rows = await self._source.fetch(
            select(*_columns(table))
            .where(
                table.c.current,
                not_(table.c.deleted),
                visible(include.source, table),
                table.c[include.parameter.column].op("&&")(cast(wanted, ARRAY(Text()))),
            )
            .limit(INCLUDED_MAX)
        )
        return [(include.source, row) for row in rows]

    async def _referred(self, include: Include, page: Sequence[Any], visible: Visible) -> list[tuple[str, Any]]:
        wanted: dict[str, set[str]] = {}
        for row in page:
            for reference in row[include.parameter.column] or ():
                kind, slash, identity = reference.partition("/")
                if slash and kind in READABLE and include.target in {None, kind}:
                    wanted.setdefault(kind, set()).add(identity)
        found: list[tuple[str, Any]] = []
        for kind, ids in sorted(wanted.items()):
            table = TABLES[kind]
            rows = await self._source.fetch(
                select(*_columns(table)).where(
                    table.c.id == any_(literal(sorted(ids), ARRAY(Text()))),
                    table.c.current,
                    not_(table.c.deleted),
                    visible(kind, table),
                )
            )
            found.extend((kind, row) for row in rows)
        return found

    def _searchset(
        self,
        query: Query,
        page: Sequence[Any],
        included: Sequence[tuple[str, Any]],
        total: int | None,
        *,
        more: bool,
    ) -> bytes:
        head: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
        if (total is not None and query.total) or query.count_only:
            head["total"] = total
        head["link"] = self._links(query, page, more=more)
        entries = [self._entry(query.type, row, "match", query.elements) for row in page]
        entries += [self._entry(kind, row, "include", ()) for kind, row in included]
        if query.warnings:
            issues = {"resourceType": "OperationOutcome", "language": "fr", "issue": query.warnings}
            entries.append({"resource": issues, "search": {"mode": "outcome"}})
        if entries:
            head["entry"] = entries
        return encode(head)

    def _entry(self, kind: str, row: Any, mode: str, elements: Sequence[str]) -> dict[str, Any]:
        body = self._out(kind, bytes(row["body"]))
        resource: Any = _subset(body, elements) if elements else msgspec.Raw(body)
        return {"fullUrl": f"{self._base}/{kind}/{row['id']}", "resource": resource, "search": {"mode": mode}}

    def _links(self, query: Query, page: Sequence[Any], *, more: bool) -> list[dict[str, str]]:
        def url(pairs: Sequence[tuple[str, str]]) -> str:
            asked = urlencode(pairs, safe="|:,/")
            return f"{self._base}/{query.type}" + (f"?{asked}" if asked else "")

        links = [{"relation": "self", "url": url(query.applied)}]
        if more:
            kept = [pair for pair in query.applied if pair[0] not in {"_after", "_offset", "_count"}]
            place = ("_offset", str(query.offset + query.count)) if query.sort else ("_after", page[-1]["id"])
            links.append({"relation": "next", "url": url([*kept, ("_count", str(query.count)), place])})
        return links


_ALWAYS = frozenset({"resourceType", "id", "meta"})


def _subset(body: bytes, elements: Sequence[str]) -> dict[str, Any]:
    """Keep the elements asked for and say so [FHIR R4 search#elements]."""
    tree = document.parse(body)
    names = {name.rpartition(".")[2] for name in elements}
    kept = {name: value for name, value in tree.items() if name in names or name in _ALWAYS}
    tag = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
    kept["meta"] = {**kept.get("meta", {}), "tag": [*kept.get("meta", {}).get("tag", []), tag]}
    return kept
