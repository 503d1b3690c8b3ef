"""A search for what is rare is planned once, one for what is common each time; both find the same (docs/adr/0019)."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Select, select, text, true
from sqlalchemy.dialects import postgresql

from gateway.exchange.blobs import BlobStore
from gateway.fhir.paging import first_of_few, found_first, kept
from gateway.fhir.read import FhirReads
from gateway.fhir.search import Query, parse
from gateway.identifiers import uuid7
from gateway.model.audit import AuditTrail
from gateway.model.partner import Partner
from gateway.model.reads import Reads
from gateway.model.representation import TABLES
from gateway.model.store import Store
from gateway.rcp import access
from gateway.rcp.access import Caller, CallerKind
from gateway.settings import Limits

ROWS = 3000
TABLE = TABLES["Patient"]
#: Every third is called Martin, the others by a name that ten bear; five share an identifier; each fourth is nobody's.
_FILL = r"""
INSERT INTO fhir_patient
  (id, version, body, current, deleted, public, partner_id, updated_at, terms, words, p_birthdate)
SELECT 'p' || i, 1, convert_to('{"resourceType":"Patient","id":"p' || i || '"}', 'UTF8'), true, i % 500 = 0, false,
  CASE WHEN i % 4 > 0 THEN '{partner}'::uuid END, '2000-01-01Z'::timestamptz + i * '1 hour'::interval,
  ARRAY['gender', 'gender' || chr(31) || chr(31) || CASE WHEN i % 2 = 0 THEN 'male' ELSE 'female' END,
    'identifier', 'identifier' || chr(31) || 'urn:s' || chr(31) || i % 600, 'identifier' || chr(30) || i % 600],
  array_to_tsvector(ARRAY['given' || chr(31) || 'g' || i % 300,
    'family' || chr(31) || CASE WHEN i % 3 = 0 THEN 'martin' ELSE 'n' || i % 300 || 'x' END]),
  tstzrange('1950-01-01Z'::timestamptz + i % 700 * '1 day'::interval,
    '1950-01-02Z'::timestamptz + i % 700 * '1 day'::interval)
FROM generate_series(1, {rows}) AS i
"""
RARE = ["family=n7x", "family=N7", "family=n7x,n8x", "identifier=urn:s|7", "identifier=7", "given=g7&family=n7x",
        "family=nobody", "family=n7x&identifier=307", "family=n7'x", "family=n7\\\\x", "family:exact=N7x"]  # fmt: skip
COMMON = ["family=martin", "family=mar", "family=n", "family=martin,n7x", "family=n7x&gender=male", "gender=male"]
#: What does more than look up has plans of its own, rare as it may be.
OTHER = ["", "family=n7x&birthdate=1950-01-08", "family:contains=n7x", "identifier:not=7", "_id=p7",
         "_lastUpdated=2000-01-01", "_has:Observation:patient:code=x", "general-practitioner.identifier=x"]  # fmt: skip
SORTS = ["", "_id", "-_id", "family", "-birthdate,_id", "-_lastUpdated"]


def _fill(connection: Connection, partner: object) -> None:
    said = _FILL.replace("{rows}", str(ROWS)).replace("{partner}", str(partner))
    connection.exec_driver_sql(said.replace("%", "%%"), ())
    connection.exec_driver_sql("ANALYZE fhir_patient")


@pytest.fixture
def caller(store: Store) -> Caller:
    with store.session() as session:
        partner = Partner(name="CHU X")
        session.add(partner)
        session.commit()
        key = partner.id
    with store.engine.connect() as connection:
        _fill(connection, key)
        connection.commit()
    return Caller(kind=CallerKind.CLIENT, partner_id=key, scopes=frozenset({"system/*.rs"}))


class _NothingRare(Reads):
    """Reads that plan each search."""

    def rare(self, column: Column[Any], texts: Sequence[str], *, beginnings: bool = False) -> bool:
        del column, texts, beginnings
        return False


def _pairs(question: str, **more: str) -> list[tuple[str, str]]:
    asked = [tuple(pair.split("=", 1)) for pair in question.split("&") if pair]
    return [*asked, *more.items()]  # type: ignore[list-item]  # a pair each


async def _warm(reads: Reads) -> None:
    """Let the statistics come."""
    for column in (TABLE.c.terms, TABLE.c.words):
        reads.rare(column, [])
    while reads._tasks:
        await asyncio.gather(*reads._tasks)


def _over(reads: Reads, blobs: BlobStore) -> FhirReads:
    return FhirReads(reads, blobs, "https://x.example/fhir", Limits(), secrets.token_bytes(32))


async def _plans(reads: Reads, *, one_plan: bool) -> tuple[int, int]:
    """How many searches of patients had the plan of their text, and how many one of their own."""
    counted = text(
        "SELECT coalesce(sum(generic_plans), 0) AS once, coalesce(sum(custom_plans), 0) AS own "
        "FROM pg_prepared_statements WHERE statement LIKE '%FROM fhir_patient%' AND statement NOT LIKE '%pg_prepared%'"
    )
    [row] = await reads.fetch(counted, one_plan=one_plan)
    return int(row["once"]), int(row["own"])


def _searched(
    store: Store, trail: AuditTrail, blobs: BlobStore, caller: Caller, questions: Sequence[str]
) -> Mapping[str, tuple[int, int]]:
    """How each question was planned: by the plan of its text, by its own."""

    async def ask() -> dict[str, tuple[int, int]]:
        reads = Reads(store, trail, pool_size=1)
        over = _over(reads, blobs)
        found: dict[str, tuple[int, int]] = {}
        try:
            await _warm(reads)
            for question in questions:
                before = [await _plans(reads, one_plan=one) for one in (True, False)]
                for _ in range(3):
                    await over.search(caller, "Patient", _pairs(question, _total="none"))
                after = [await _plans(reads, one_plan=one) for one in (True, False)]
                found[question] = (
                    sum(now[0] - then[0] for now, then in zip(after, before, strict=True)),
                    sum(now[1] - then[1] for now, then in zip(after, before, strict=True)),
                )
            return found
        finally:
            await reads.close()

    return asyncio.run(ask())


def test_what_is_rare_is_planned_once_and_what_is_common_each_time(
    store: Store, trail: AuditTrail, blobs: BlobStore, caller: Caller
) -> None:
    found = _searched(store, trail, blobs, caller, RARE + COMMON + OTHER)
    assert {question for question, plans in found.items() if plans == (3, 0)} == set(RARE)
    assert {question for question, plans in found.items() if plans == (0, 3)} == {*COMMON, *OTHER}


def test_in_a_table_of_few_rows_each_search_is_planned(
    store: Store, trail: AuditTrail, blobs: BlobStore, caller: Caller
) -> None:
    with store.engine.connect() as connection:
        connection.exec_driver_sql("DELETE FROM fhir_patient WHERE id <> 'p7' AND id NOT LIKE 'p1%%'", ())
        connection.exec_driver_sql("ANALYZE fhir_patient")
        connection.commit()
    found = _searched(store, trail, blobs, caller, RARE[:3])
    # 1 112 rows: just enough.
    assert set(found.values()) == {(3, 0)}
    with store.engine.connect() as connection:
        connection.exec_driver_sql("DELETE FROM fhir_patient WHERE id NOT LIKE 'p7%%'", ())
        connection.exec_driver_sql("ANALYZE fhir_patient")
        connection.commit()
    assert set(_searched(store, trail, blobs, caller, RARE[:3]).values()) == {(0, 3)}


def test_both_ways_find_the_same_in_the_same_order_page_by_page(
    store: Store, trail: AuditTrail, blobs: BlobStore, caller: Caller
) -> None:
    nobody = Caller(kind=CallerKind.CLIENT, partner_id=uuid7(), scopes=caller.scopes)
    system = Caller(kind=CallerKind.SYSTEM)

    async def pages(over: FhirReads, who: Caller, pairs: list[tuple[str, str]]) -> list[Any]:
        found: list[Any] = []
        while pairs:
            page = json.loads(await over.search(who, "Patient", pairs))
            found.append((page.get("total"), page.get("entry"), [link["relation"] for link in page["link"]]))
            follow = [link["url"] for link in page["link"] if link["relation"] == "next"]
            pairs = [("_page", follow[0].rpartition("_page=")[2])] if follow else []
        return found

    async def ask() -> list[tuple[str, list[Any], list[Any]]]:
        quick, plain = Reads(store, trail), _NothingRare(store, trail)
        try:
            await _warm(quick)
            return [
                (
                    f"{who.kind} {question} {sort}",
                    await pages(
                        _over(quick, blobs), who, _pairs(question, _count="4", **({"_sort": sort} if sort else {}))
                    ),
                    await pages(
                        _over(plain, blobs), who, _pairs(question, _count="4", **({"_sort": sort} if sort else {}))
                    ),
                )
                for question in RARE
                for sort in SORTS
                for who in ([caller, nobody, system] if sort == "family" else [caller])
            ]
        finally:
            await quick.close()
            await plain.close()

    answers = asyncio.run(ask())
    assert [asked for asked, quick, plain in answers if quick != plain] == []
    assert max(len(quick) for _, quick, _ in answers) > 3


@pytest.mark.parametrize("question", [*RARE, *COMMON])
def test_a_question_that_looks_up_texts_is_written_once_a_shape(question: str) -> None:
    """What one like it puts into the statement then stands where its own texts stood."""
    key = object()

    def asked(text: str) -> Query:
        return parse("Patient", _pairs(text), visible=lambda *_: true())

    def never() -> Any:
        pytest.fail("written again")

    def make(where: Any) -> Select[Any]:
        return select(TABLE.c.id).where(where)

    def bound(statement: Select[Any], values: Mapping[str, Any] | None) -> tuple[str, list[Any]]:
        compiled = statement.params(values or {}).compile(dialect=postgresql.dialect(paramstyle="numeric_dollar"))  # type: ignore[no-untyped-call]  # SQLAlchemy's own constructor
        return compiled.string, [compiled.params[name] for name in compiled.positiontup or ()]

    like = question.replace("n7", "o88").replace("7", "41").replace("mar", "pet")
    first, second = asked(question), asked(like)
    statement, values = kept(key, lambda: first.where, make, first.looked_up)
    assert bound(statement, values) == bound(make(first.where), None)
    again, others = kept(key, never, make, second.looked_up)
    assert again is statement
    assert bound(again, others) == bound(make(second.where), None)
    assert (others == values) == (like == question)


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)


@pytest.mark.parametrize(
    "who",
    [
        Caller(kind=CallerKind.SYSTEM),
        Caller(kind=CallerKind.PROFESSIONAL, practitioner_id=uuid7()),
        Caller(kind=CallerKind.CLIENT, partner_id=uuid7(), rcps=frozenset({uuid7()})),
    ],
    ids=lambda who: who.kind,
)
def test_the_plan_of_any_values_reads_the_index_and_no_table(store: Store, who: Caller) -> None:
    """However the rows are to be ordered, and however few are wanted."""
    visible = access.representations(who, TABLE)
    asked = [(question, sort) for question in RARE for sort in SORTS]
    plans = []
    with store.engine.connect() as connection:
        _fill(connection, uuid7())
        connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
        for place, (question, sort) in enumerate(asked):
            query = parse("Patient", _pairs(question, **({"_sort": sort} if sort else {})), visible=lambda *_: true())
            assert query.looked_up
            wanted = [visible, query.where, found_first(TABLE)]
            statement = first_of_few(TABLE, [TABLE.c.id, TABLE.c.body], wanted, query.keys, 1)
            compiled = statement.compile(dialect=postgresql.dialect(paramstyle="numeric_dollar"))  # type: ignore[no-untyped-call]  # SQLAlchemy's own constructor
            connection.exec_driver_sql(f"PREPARE q{place} AS {compiled}".replace("%", "%%"), ())
            values = ", ".join(["NULL"] * len(compiled.positiontup or ()))
            [[plan]] = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) EXECUTE q{place}({values})").all()
            plans.append([*_nodes(plan[0]["Plan"])])
        connection.rollback()
    for of_it, plan in zip(asked, plans, strict=True):
        assert "fhir_patient" not in {one["Relation Name"] for one in plan if one["Node Type"] == "Seq Scan"}, of_it
        assert "ix_fhir_patient_search" in {one.get("Index Name") for one in plan}, of_it
