"""Reading over FHIR: one indexed row for a read; nothing is parsed unless a part of it is asked for.

[FHIR R4 http#read, #vread, #history, search; DESIGN §3 and §4; spec fhir-fr 3.1, 3.2]

Promises: what the caller may not see does not exist (404, audited); an answer that names a person leaves once its audit
line is durable; what reads is said by `gateway.fhir.source`, so that a GET inside a transaction answers the same.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Hashable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, Table, Text, any_, bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY

from gateway.fhir import binaries, document, document_bundle, history, searchset, subscription_reads
from gateway.fhir.document import encode
from gateway.fhir.paging import Pages
from gateway.fhir.reading import READABLE, Reading, columns
from gateway.fhir.search_conditions import ID
from gateway.fhir.source import Contents, Source
from gateway.fhir.summary import WHOLE, Form
from gateway.model.representation import TABLES
from gateway.rcp import access
from gateway.rcp.access import Caller
from gateway.settings import Limits

__all__ = ["READABLE", "FhirReads", "Found", "RawContent"]


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


_KEPT: dict[Hashable, Select[Any]] = {}
_KEPT_MAX = 1024


def _statement(table: Table, caller: Caller, *, version: bool) -> Select[Any]:
    """The statement that reads current rows by their ids, or one version, for whoever has these rights.

    Kept, because every read asks it.
    """
    key = (table, version, access.rights(caller))
    found = _KEPT.get(key)
    if found is None:
        wanted = (
            [table.c[name] == bindparam(name, type_=table.c[name].type) for name in ("id", "version")]
            if version
            else [table.c.id == any_(bindparam("ids", type_=ARRAY(Text()))), table.c.current]
        )
        found = select(*columns(table)).where(*wanted, access.representations(caller, table))
        if len(_KEPT) >= _KEPT_MAX:
            _KEPT.clear()
        _KEPT[key] = found
    return found


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
    until
        When what is read for must be done, by `time.monotonic`.
    """

    def __init__(
        self,
        source: Source,
        blobs: Contents,
        base_url: str,
        limits: Limits,
        key: bytes,
        *,
        until: float | None = None,
    ) -> None:
        self._key = key
        self._in = Reading(source, blobs, base_url, limits, Pages(key, limits), until)

    @property
    def limits(self) -> Limits:
        """Bounds of what is asked."""
        return self._in.limits

    def over(self, source: Source, blobs: Contents | None = None, *, until: float | None = None) -> FhirReads:
        """Read the same way out of another session, the open one of a transaction, and until then."""
        return FhirReads(source, blobs or self._in.blobs, self._in.base, self._in.limits, self._key, until=until)

    async def read(
        self, caller: Caller, kind: str, identity: str, version: int | None = None, *, form: Form = WHOLE
    ) -> Found:
        """Return the current or a given version.

        Raises
        ------
        NotFound
            ``inconnu``; ``ressource-supprimee`` (410) for what was deleted.
        Forbidden
            The token does not allow it.
        """
        row = await self._row(caller, kind, identity, version)
        body = self._in.out(kind, await self._whole(caller, kind, row))
        await self._tell(caller, kind, row)
        if not form.whole:
            body = bytes(form.cut(kind, body))
        return Found(body, row["version"], row["updated_at"])

    async def document(self, caller: Caller, identity: str, pairs: Sequence[tuple[str, str]] = ()) -> Found:
        """Return a Composition with what it speaks of (`gateway.fhir.document_bundle`); refuses as `read` does."""
        row = await self._row(caller, "Composition", identity, None)
        document_bundle.require_parameters(pairs)
        body = await document_bundle.build(self._in, caller, row)
        await self._tell(caller, "Composition", row)
        return Found(body, row["version"], row["updated_at"])

    async def subscription_status(self, caller: Caller, identity: str, pairs: Sequence[tuple[str, str]] = ()) -> bytes:
        """Return where a Subscription stands (`gateway.fhir.subscription_reads`); refuses as `read` does."""
        row = await self._row(caller, "Subscription", identity, None)
        return await subscription_reads.status(self._in, row, pairs)

    async def subscription_events(self, caller: Caller, identity: str, pairs: Sequence[tuple[str, str]] = ()) -> bytes:
        """Return the events of a Subscription (`gateway.fhir.subscription_reads`); refuses as `read` does."""
        row = await self._row(caller, "Subscription", identity, None)
        return await subscription_reads.events(self._in, caller, row, pairs)

    async def raw(self, caller: Caller, identity: str) -> RawContent:
        """Return the bytes of a Binary; see `read` for the refusals."""
        row = await self._row(caller, "Binary", identity, None)
        if row["root_kind"] not in binaries.OWN:
            await self._tell(caller, "Binary", row)
            tree = document.decode(await self._in.filled("Binary", bytes(row["body"])))
            sent = b64decode(tree.get("data", ""))
            return RawContent(tree["contentType"], sent, row["version"], row["updated_at"])
        form = await self._own(caller, row)
        content = await self._in.blobs.read_async(form["sha256"])
        await self._tell(caller, "Binary", row, sha256=form["sha256"])
        return RawContent(form["content_type"], content, row["version"], row["updated_at"])

    async def history(
        self,
        caller: Caller,
        kind: str,
        identity: str | None,
        pairs: Sequence[tuple[str, str]] = (),
        *,
        strict: bool = False,
    ) -> bytes:
        """Return the versions of one resource or of all of a type, newest first; see `gateway.fhir.history`."""
        return await history.answer(self._in, caller, kind, identity, pairs, strict=strict)

    async def search(
        self,
        caller: Caller,
        kind: str,
        pairs: Sequence[tuple[str, str]],
        *,
        strict: bool = False,
        posted: bool = False,
    ) -> bytes:
        """Return a searchset; see `gateway.fhir.searchset`."""
        return await searchset.answer(self._in, caller, kind, pairs, strict=strict, posted=posted)

    async def _row(self, caller: Caller, kind: str, identity: str, version: int | None) -> Any:
        await self._in.require_scope(caller, kind, "r")
        if not ID.fullmatch(identity):
            await self._in.refuse(caller, kind, identity)
        table = TABLES[kind]
        statement = _statement(table, caller, version=version is not None)
        if version is None:
            row = await self._in.source.one(statement, identity)
        else:
            rows = await self._in.source.fetch(statement, {"id": identity, "version": version})
            row = rows[0] if rows else None
        if row is None:
            await self._in.refuse(caller, kind, identity)
        if row["deleted"]:
            await self._in.refuse_deleted(caller, kind, row)
        return row

    async def _own(self, caller: Caller, row: Any) -> Any:
        rows = await self._in.source.fetch(binaries.kept(row["root_kind"], row["root_id"]))
        if not rows:
            await self._in.refuse(caller, "Binary", row["id"])
        return rows[0]

    async def _whole(self, caller: Caller, kind: str, row: Any) -> bytes:
        """Stored bytes; of a Binary with its data, which stands in the blob store."""
        if kind != "Binary" or row["root_kind"] not in binaries.OWN:
            return await self._in.filled(kind, bytes(row["body"]))
        form = await self._own(caller, row)
        content = await self._in.blobs.read_async(form["sha256"])
        return encode({**document.decode(row["body"]), "data": b64encode(content).decode("ascii")})

    async def _tell(self, caller: Caller, kind: str, row: Any, *, sha256: str | None = None) -> None:
        if row["record_id"] is None:
            return
        await self._in.source.record(
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
