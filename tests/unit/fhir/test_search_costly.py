"""Which searches are understood and compiled beside the event loop, and that they find what they ask for there.

What is judged here is a search's look, never a time: the figures behind the bounds are in `gateway.fhir.search`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pytest
from sqlalchemy import Column, Executable

from gateway.errors import InvalidContent
from gateway.exchange.blobs import BlobStore
from gateway.fhir import keeping, search
from gateway.fhir.keeping import Owner
from gateway.fhir.read import FhirReads
from gateway.fhir.search import costly
from gateway.model.audit import AuditFacts, AuditTrail
from gateway.model.partner import Partner
from gateway.model.reads import Reads
from gateway.model.store import Store
from gateway.rcp.caller import Caller, CallerKind
from gateway.settings import Limits

T = TypeVar("T")


def listed(count: int, value: str) -> str:
    return ",".join(value.format(number) for number in range(count))


@pytest.mark.parametrize(
    ("kind", "pairs"),
    [
        ("Patient", [("identifier", "urn:oid:1.2|7"), ("_count", "10")]),
        ("Patient", [("_id", listed(200, "p{}"))]),
        ("Observation", [("code", listed(200, "urn:x|{}")), ("date", "ge2026-01-01"), ("date", "lt2027-01-01")]),
        ("Patient", [("name:exact", listed(200, "n{}"))]),
        ("Patient", [("name", listed(8, "n{}")), ("birthdate", listed(8, "19{:02}"))]),
        ("Task", [("focus:ServiceRequest.subject:Patient.name", "x"), ("patient.identifier", "urn:x|1")]),
        ("Patient", [("_has:Observation:subject:code", "x")]),
    ],
)
def test_what_many_ask_stays_on_the_loop(kind: str, pairs: list[tuple[str, str]]) -> None:
    assert not costly(kind, pairs)


@pytest.mark.parametrize(
    ("kind", "pairs"),
    [
        ("Observation", [("date", listed(40, "ne20{:02}"))]),
        ("Observation", [("value-quantity", listed(20, "{}.5|u|mg"))]),
        ("Observation", [("component-code-value-quantity", listed(20, "urn:x|c${}.5"))]),
        ("Patient", [("name:contains", listed(100, "n{}"))]),
        ("Observation", [("_lastUpdated", listed(30, "ne20{:02}"))]),
        ("Patient", [("birthdate", "ne1990")] * 50),
        ("Task", [("focus.identifier", "x")]),
        ("Task", [("focus:ServiceRequest.subject:Patient.name", "x")] * 4),
        ("Patient", [("_has:Task:patient:focus.identifier", "x")]),
        ("Task", [("patient.name", listed(20, "n{}"))]),
    ],
)
def test_what_takes_long_is_seen_by_its_look(kind: str, pairs: list[tuple[str, str]]) -> None:
    assert costly(kind, pairs)


class _Watching:
    """The real reads; in which threads searches are thought about, and whether statements are compiled apart."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self.threads: list[str] = []
        self.apart_fetches: list[bool] = []

    async def apart(self, work: Callable[[], T], *, seconds: float) -> T:
        def seen() -> T:
            self.threads.append(threading.current_thread().name)
            return work()

        return await self._reads.apart(seen, seconds=seconds)

    async def fetch(
        self,
        statement: Executable,
        values: Mapping[str, Any] | None = None,
        *,
        seconds: float | None = None,
        apart: bool = False,
        one_plan: bool = False,
    ) -> Sequence[Any]:
        self.apart_fetches.append(apart)
        return await self._reads.fetch(statement, values, seconds=seconds, apart=apart, one_plan=one_plan)

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
        session.flush()
        for year in range(1990, 2020):
            tree = {"resourceType": "Patient", "birthDate": str(year), "name": [{"family": f"N{year}"}]}
            keeping.keep(session, "Patient", f"p{year}", tree, Owner(partner_id=partner.id))
        session.commit()
        return Caller(kind=CallerKind.CLIENT, partner_id=partner.id, scopes=frozenset({"system/*.rs"}))


def _found(
    store: Store, trail: AuditTrail, blobs: BlobStore, caller: Caller, pairs: list[tuple[str, str]]
) -> tuple[list[str], _Watching]:
    async def run() -> tuple[list[str], _Watching]:
        reads = Reads(store, trail)
        source = _Watching(reads)
        over = FhirReads(source, blobs, "https://x.example/fhir", Limits(), secrets.token_bytes(32))
        found: list[str] = []
        try:
            token: list[tuple[str, str]] = pairs
            while token:
                page = json.loads(await over.search(caller, "Patient", token))
                found += [one["resource"]["id"] for one in page.get("entry", [])]
                follow = [link["url"] for link in page["link"] if link["relation"] == "next"]
                token = [("_page", follow[0].rpartition("_page=")[2])] if follow else []
            return found, source
        finally:
            await reads.close()

    return asyncio.run(run())


def test_a_costly_search_finds_the_same_page_by_page(
    store: Store, trail: AuditTrail, blobs: BlobStore, caller: Caller
) -> None:
    years = ",".join(str(year) for year in range(1995, 2015))
    found, source = _found(
        store, trail, blobs, caller, [("birthdate", years), ("_count", "7"), ("_total", "accurate"), ("_sort", "_id")]
    )
    assert found == [f"p{year}" for year in range(1995, 2015)]
    assert source.threads
    assert threading.main_thread().name not in source.threads
    assert all(source.apart_fetches)
    found, source = _found(store, trail, blobs, caller, [("birthdate", "1995,1996"), ("_sort", "_id")])
    assert (found, source.threads, any(source.apart_fetches)) == (["p1995", "p1996"], [], False)


def test_a_costly_search_is_refused_as_any_other(
    store: Store, trail: AuditTrail, blobs: BlobStore, caller: Caller
) -> None:
    with pytest.raises(InvalidContent) as refused:
        _found(store, trail, blobs, caller, [("birthdate", ",".join(["hier"] * 30))])
    assert refused.value.code == "parametre-valeur"


def test_who_does_not_get_his_turn_in_time_is_told_what_the_limit_is(
    store: Store, trail: AuditTrail, blobs: BlobStore, caller: Caller
) -> None:
    free = threading.Event()

    async def run() -> None:
        reads = Reads(store, trail)
        over = FhirReads(reads, blobs, "https://x.example/fhir", Limits(search_seconds=3), secrets.token_bytes(32))
        holding = asyncio.ensure_future(reads.apart(free.wait, seconds=60))
        try:
            with pytest.raises(InvalidContent) as refused:
                await over.search(caller, "Patient", [("birthdate", ",".join(["1990"] * 30))])
            assert refused.value.code == "recherche-trop-couteuse"
            # Others pass meanwhile.
            assert b"p1990" in await over.search(caller, "Patient", [("birthdate", "1990")])
        finally:
            free.set()
            await holding
            await reads.close()

    asyncio.run(run())


def test_shapes_with_many_values_are_not_kept(store: Store, trail: AuditTrail, caller: Caller) -> None:
    async def run() -> tuple[int, int]:
        reads = Reads(store, trail)
        try:
            kept = []
            for count in (10, 300):
                asked = search.parse(
                    "Patient",
                    [("name:contains", ",".join(f"N{number}" for number in range(count)))],
                    visible=lambda _kind, _table: search.true(),
                    limits=Limits(search_values=1000),
                )
                reads.sql(asked.where)  # type: ignore[arg-type]  # any clause is compiled
                kept.append(len(reads._compiled))
            return kept[0], kept[1]
        finally:
            await reads.close()

    del caller
    assert asyncio.run(run()) == (1, 1)
