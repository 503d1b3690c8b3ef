"""What one answer reads out of the database, whatever its rows weigh: counted where the rows come in."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pytest
from sqlalchemy import Column, Executable

from gateway.exchange.blobs import BlobStore
from gateway.fhir import keeping
from gateway.fhir.keeping import Owner
from gateway.fhir.read import FhirReads
from gateway.model.audit import AuditFacts, AuditTrail
from gateway.model.partner import Partner
from gateway.model.reads import Reads
from gateway.model.store import Store
from gateway.rcp.access import Caller, CallerKind
from gateway.settings import Limits

T = TypeVar("T")

ROOM = 1_000_000
#: Each as long as half an answer, and one that is longer than one.
LENGTHS = [500_000] * 12 + [3_000_000]


class _Counting:
    """The real reads; how many bytes of bodies each statement brought, and how many statements there were."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self.brought: list[list[int]] = []

    async def apart(self, work: Callable[[], T], *, seconds: float) -> T:
        return await self._reads.apart(work, seconds=seconds)

    async def fetch(
        self,
        statement: Executable,
        values: Mapping[str, Any] | None = None,
        *,
        seconds: float | None = None,
        apart: bool = False,
        one_plan: bool = False,
    ) -> Sequence[Any]:
        rows = await self._reads.fetch(statement, values, seconds=seconds, apart=apart, one_plan=one_plan)
        self.brought.append([len(dict(row).get("body") or b"") for row in rows])
        return rows

    def rare(self, column: Column[Any], texts: Sequence[str], *, beginnings: bool = False) -> bool:
        return self._reads.rare(column, texts, beginnings=beginnings)

    async def one(self, statement: Executable, identity: str) -> Any | None:
        return await self._reads.one(statement, identity)

    async def record(self, *lines: AuditFacts) -> None:
        await self._reads.record(*lines)


@pytest.fixture
def caller(store: Store) -> Caller:
    with store.session() as session:
        partner = Partner(name="CHU X")
        session.add(partner)
        session.commit()
        return Caller(kind=CallerKind.CLIENT, partner_id=partner.id, scopes=frozenset({"system/*.rs"}))


def _write(store: Store, caller: Caller, lengths: Sequence[int], *, one: bool = False) -> None:
    with store.session() as session:
        for number, length in enumerate(lengths):
            tree = {"resourceType": "Location", "name": "x" * length}
            keeping.keep(
                session, "Location", "a" if one else f"l{number:02}", tree, Owner(partner_id=caller.partner_id)
            )
        session.commit()


def _asked(store: Store, trail: AuditTrail, blobs: BlobStore, ask: Any) -> tuple[dict[str, Any], list[list[int]]]:
    async def run() -> tuple[bytes, list[list[int]]]:
        reads = Reads(store, trail)
        source = _Counting(reads)
        limits = dataclasses.replace(Limits(), answer_bytes=ROOM)
        try:
            over = FhirReads(source, blobs, "https://x.example/fhir", limits, secrets.token_bytes(32))
            return await ask(over), source.brought
        finally:
            await reads.close()

    body, brought = asyncio.run(run())
    return json.loads(body), brought


@pytest.mark.parametrize("path", ["search", "history of a type", "history"])
def test_no_statement_brings_more_than_an_answer_holds(
    store: Store, trail: AuditTrail, blobs: BlobStore, caller: Caller, path: str
) -> None:
    _write(store, caller, LENGTHS, one=path == "history")

    async def ask(over: FhirReads) -> bytes:
        pairs = [("_count", "13"), ("_sort", "_lastUpdated")]
        if path == "search":
            return await over.search(caller, "Location", pairs)
        return await over.history(caller, "Location", "a" if path == "history" else None, pairs)

    answer, brought = _asked(store, trail, blobs, ask)
    assert len(answer["entry"]) == 1  # what surrounds the name makes two of them longer than an answer
    assert max(sum(rows) for rows in brought) <= ROOM
    assert sum(sum(rows) for rows in brought) <= ROOM


def test_a_resource_longer_than_an_answer_is_read_alone(
    store: Store, trail: AuditTrail, blobs: BlobStore, caller: Caller
) -> None:
    _write(store, caller, LENGTHS)

    async def ask(over: FhirReads) -> bytes:
        return await over.search(caller, "Location", [("_sort", "-_id")])

    answer, brought = _asked(store, trail, blobs, ask)
    assert [len(entry["resource"]["name"]) for entry in answer["entry"]] == [3_000_000]
    assert [len([one for one in rows if one]) for rows in brought].count(1) == 1
    assert sum(sum(rows) for rows in brought) < 3_001_000


def test_what_is_included_is_weighed_before_it_is_read(
    store: Store, trail: AuditTrail, blobs: BlobStore, caller: Caller
) -> None:
    with store.session() as session:
        for number, length in enumerate([10, *LENGTHS]):
            tree: dict[str, Any] = {"resourceType": "Location", "name": "x" * length}
            if number:
                tree["partOf"] = {"reference": "Location/l00"}
            keeping.keep(session, "Location", f"l{number:02}", tree, Owner(partner_id=caller.partner_id))
        session.commit()

    async def ask(over: FhirReads) -> bytes:
        return await over.search(caller, "Location", [("_id", "l00"), ("_revinclude", "Location:partof")])

    answer, brought = _asked(store, trail, blobs, ask)
    assert [entry["search"]["mode"] for entry in answer["entry"]] == ["match", "include", "outcome"]
    assert sum(sum(rows) for rows in brought) <= ROOM


def test_resources_of_ordinary_length_cost_one_statement(
    store: Store, trail: AuditTrail, blobs: BlobStore, caller: Caller
) -> None:
    _write(store, caller, [100] * 12)

    async def ask(over: FhirReads) -> bytes:
        return await over.search(caller, "Location", [])

    answer, brought = _asked(store, trail, blobs, ask)
    assert (len(answer["entry"]), len(brought)) == (12, 1)
