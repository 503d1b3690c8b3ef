"""The asynchronous path gives what psycopg gives, whatever the shape of the statement, and its lines are durable."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import ColumnElement, any_, bindparam, cast, func, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from gateway.errors import Unavailable
from gateway.model.audit import AuditFacts, AuditLine, AuditTrail
from gateway.model.connections import Connections
from gateway.model.partner import Partner
from gateway.model.reads import Reads
from gateway.model.store import Instant, Store


def test_statements_of_one_shape_keep_their_own_values(store: Store, trail: AuditTrail) -> None:
    with store.session() as session:
        session.add_all([Partner(name=name, patient_domains=[name]) for name in "abc"])
        session.commit()

    async def ask() -> list[list[str]]:
        reads = Reads(store, trail)
        try:
            found = []
            for names in (["a"], ["b", "c"], ["a", "b", "c"], []):
                one = await reads.fetch(select(Partner.name).where(Partner.name.in_(names)).order_by(Partner.name))
                other = await reads.fetch(
                    select(Partner.name)
                    .where(Partner.name == any_(literal(names, ARRAY(Text()))))
                    .order_by(Partner.name)
                )
                assert [row[0] for row in one] == [row[0] for row in other]
                found.append([row["name"] for row in one])
            for name in "abc":
                rows = await reads.fetch(select(Partner.name).where(Partner.name == name))
                found.append([row[0] for row in rows])
            return found
        finally:
            await reads.close()

    assert asyncio.run(ask()) == [["a"], ["b", "c"], ["a", "b", "c"], [], ["a"], ["b"], ["c"]]


def test_a_kept_statement_is_asked_with_the_values_given_each_time(store: Store, trail: AuditTrail) -> None:
    with store.session() as session:
        session.add_all(
            [Partner(name=name, created_at=datetime(2026, 3, day, tzinfo=UTC)) for day, name in enumerate("abc", 1)]
        )
        session.commit()
    kept = (
        select(Partner.name)
        .where(Partner.created_at >= bindparam("since", type_=Instant()), Partner.name != "b")
        .order_by(Partner.name)
    )

    async def ask() -> list[list[str]]:
        reads = Reads(store, trail)
        try:
            return [
                [row["name"] for row in await reads.fetch(kept, {"since": datetime(2026, 3, day, tzinfo=UTC)})]
                for day in (1, 3, 2, 4, 1)
            ]
        finally:
            await reads.close()

    assert asyncio.run(ask()) == [["a", "c"], ["c"], ["c"], [], ["a", "c"]]


def test_a_statement_is_planned_for_its_own_values(store: Store, trail: AuditTrail) -> None:
    async def ask() -> tuple[int, int]:
        reads = Reads(store, trail, pool_size=1)
        try:
            for number in range(12):
                await reads.fetch(select(Partner.name).where(Partner.name == str(number)))
            plans = text(
                "SELECT sum(generic_plans) AS generic, sum(custom_plans) AS own FROM pg_prepared_statements "
                "WHERE cardinality(parameter_types) > 0"
            )
            [row] = await reads.fetch(plans)
            return int(row["generic"]), int(row["own"])
        finally:
            await reads.close()

    generic, own = asyncio.run(ask())
    assert generic == 0
    assert own >= 12


def test_values_of_every_kind_pass(store: Store, trail: AuditTrail) -> None:
    key, at = uuid.uuid4(), datetime(2026, 3, 19, 13, tzinfo=UTC)
    with store.session() as session:
        session.add(Partner(id=key, name="x", created_at=at, fhir_scopes=["s"]))
        session.commit()

    async def ask() -> int:
        reads = Reads(store, trail)
        try:
            statement = select(func.count()).where(
                Partner.id == key, Partner.created_at == at, Partner.fhir_scopes == ["s"], Partner.revoked_at.is_(None)
            )
            return int((await reads.fetch(statement))[0][0])
        finally:
            await reads.close()

    assert asyncio.run(ask()) == 1


def test_rows_wanted_by_many_at_once_are_read_together_and_each_gets_his_own(
    store: Store, trail: AuditTrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [uuid.uuid4() for _ in range(40)]
    with store.session() as session:
        session.add_all([Partner(id=key, name=f"partner {place}") for place, key in enumerate(keys)])
        session.commit()
    by_id = select(cast(Partner.id, Text()).label("id"), Partner.name).where(
        cast(Partner.id, Text()) == any_(bindparam("ids", type_=ARRAY(Text())))
    )
    sent: list[list[str]] = []
    fetch = Connections.fetch

    async def noted(self: Connections, text: str, values: list[Any], *, seconds: float) -> list[Any]:
        sent.append(values[0])
        return await fetch(self, text, values, seconds=seconds)

    monkeypatch.setattr(Connections, "fetch", noted)

    async def ask() -> None:
        reads = Reads(store, trail)
        try:
            wanted = [*map(str, keys), str(uuid.uuid4()), str(keys[0])]
            gone = asyncio.create_task(reads.one(by_id, str(keys[1])))
            answers = [asyncio.create_task(reads.one(by_id, key)) for key in wanted]
            await asyncio.sleep(0)
            gone.cancel()
            rows = await asyncio.gather(*answers)
            assert [row and row["name"] for row in rows] == [*(f"partner {n}" for n in range(40)), None, "partner 0"]
            assert len(sent) <= 5
            assert max(map(len, sent)) <= 16
            sent.clear()
            row = await reads.one(by_id, str(keys[3]))
            assert row is not None
            assert (row["name"], sent) == ("partner 3", [[str(keys[3])]])
        finally:
            await reads.close()

    asyncio.run(ask())


def test_lines_of_concurrent_reads_are_durable_and_share_commits(store: Store, trail: AuditTrail) -> None:
    async def write() -> None:
        reads = Reads(store, trail)
        try:
            await asyncio.gather(
                *(reads.record(AuditFacts(event="consultation", object_id=str(place))) for place in range(200))
            )
        finally:
            await reads.close()

    asyncio.run(write())
    with store.session() as session:
        lines = session.scalars(select(AuditLine)).all()
        commits = session.scalar(select(func.count(func.distinct(text("xid::text")))).select_from(AuditLine))
    assert len(lines) == 200
    assert commits is not None
    assert commits < 20
    assert all(trail.mac(line.payload) == line.mac for line in lines)


def test_a_database_that_is_gone_is_unavailable(trail: AuditTrail) -> None:
    nowhere = Store("postgresql://rcp@/x?host=/nulle-part")

    async def ask() -> None:
        await Reads(nowhere, trail, timeout_s=2).fetch(select(Partner.name))

    async def write() -> None:
        await Reads(nowhere, trail, timeout_s=2).record(AuditFacts(event="consultation"))

    for question in (ask, write):
        with pytest.raises(Unavailable):
            asyncio.run(question())


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("stopped", [func.pg_cancel_backend, func.pg_terminate_backend])
def test_what_an_operator_stops_is_unavailable(
    store: Store, trail: AuditTrail, by_id: bool, stopped: Callable[[Any], ColumnElement[Any]]
) -> None:
    # Waits to be stopped: the signal may come a moment after the call.
    statement = select(literal("a").label("id"), stopped(func.pg_backend_pid()), func.pg_sleep(10)).where(
        literal("a") == any_(bindparam("ids", type_=ARRAY(Text())))
    )

    async def ask() -> None:
        reads = Reads(store, trail)
        try:
            with pytest.raises(Unavailable):
                await (reads.one(statement, "a") if by_id else reads.fetch(statement, {"ids": ["a"]}))
        finally:
            await reads.close()

    asyncio.run(ask())
