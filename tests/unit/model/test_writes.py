"""Deferred rows are in the transaction when anything could see them, and nowhere when it is undone."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from sqlalchemy import Table, event, func, select, text
from sqlalchemy.exc import DataError, IntegrityError

from gateway.errors import Fault
from gateway.fhir.keeping import Owner, current, keep
from gateway.model.audit import AuditFacts, AuditLine, AuditTrail
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord, Person, PersonLink
from gateway.model.prepared import Prepared
from gateway.model.representation import TABLES
from gateway.model.store import Base, Store, utcnow
from gateway.model.writes import later

TABLE = TABLES["Basic"]


def noted(store: Store, request: pytest.FixtureRequest) -> list[str]:
    """Every statement that connections send from now on, whoever makes it."""
    seen: list[str] = []

    class Noting(psycopg.Cursor[Any]):
        def execute(self, query: Any, *given: Any, **named: Any) -> Any:
            seen.append(str(query))
            return super().execute(query, *given, **named)

        def copy(self, statement: Any, *given: Any, **named: Any) -> Any:
            seen.append(statement.decode())
            return super().copy(statement, *given, **named)

    def given_out(connection: Any, *_: Any) -> None:
        connection.cursor_factory = Noting

    event.listen(store.engine, "checkout", given_out)
    request.addfinalizer(lambda: event.remove(store.engine, "checkout", given_out))
    return seen


def tree(said: str) -> dict[str, object]:
    return {"resourceType": "Basic", "code": {"text": said}}


def test_rows_of_one_table_go_in_one_statement_at_the_commit(
    store: Store, trail: AuditTrail, request: pytest.FixtureRequest
) -> None:
    seen = noted(store, request)
    with store.session() as session:
        for number in range(20):
            root = Partner(name=f"p{number}")
            session.add(root)
            session.flush()
            owner = Owner(root_kind="Partner", root_id=root.id)
            keep(session, "Basic", str(root.id), tree("un"), owner)
            trail.write(session, AuditFacts(event="creation", object_id=str(number)))
        session.commit()
    assert sum('COPY "fhir_basic"' in said for said in seen) == 1
    assert sum('COPY "audit_line"' in said for said in seen) == 1
    assert not any("INSERT INTO fhir_basic" in said or "INSERT INTO audit_line" in said for said in seen)
    assert not any("FROM fhir_basic" in said for said in seen), "what this session made has no version to look for"
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(TABLE)) == 20
        lines = session.scalars(select(AuditLine).order_by(AuditLine.seq)).all()
    assert [trail.mac(line.payload) for line in lines] == [line.mac for line in lines]
    assert [int(line.payload.split(b'"object_id":"')[1].split(b'"')[0]) for line in lines] == list(range(20))


def test_a_question_sees_what_was_deferred_before_it(store: Store) -> None:
    with store.session() as session:
        keep(session, "Basic", "b", tree("un"), Owner())
        found = current(session, "Basic", "b")
        assert found is not None
        assert found.version == 1
        assert keep(session, "Basic", "b", tree("deux"), Owner()).version == 2
        keep(session, "Basic", "b", tree("deux"), Owner())
        versions = session.execute(select(TABLE.c.version, TABLE.c.current).order_by(TABLE.c.version)).all()
    assert [tuple(row) for row in versions] == [(1, False), (2, True)]


def test_what_a_row_refers_to_is_written_before_it_whichever_table_was_named_first(store: Store) -> None:
    with store.session() as session:
        partner = Partner(name="p")
        session.add(partner)
        session.flush()
        records = [PatientRecord(partner_id=partner.id, system="s", value=str(number)) for number in range(2)]
        session.add_all(records)
        known = Person()
        session.add(known)
        session.commit()
        links: Table = Base.metadata.tables[PersonLink.__tablename__]
        new = uuid.uuid4()
        for record, person in ((records[0], known.id), (records[1], new)):
            if person == new:
                later(session, Base.metadata.tables[Person.__tablename__], {"id": new})
            said = {"reason": "r", "author": "a", "linked_at": utcnow()}
            later(session, links, {"record_id": record.id, "person_id": person, **said})
        session.commit()
    with store.session() as session:
        assert set(session.scalars(select(PersonLink.person_id))) == {known.id, new}


def test_what_went_on_after_an_error_is_not_said_to_be_kept(store: Store) -> None:
    failing = Prepared(lambda: text("SELECT 1 / 0"))
    with store.session() as session:
        session.add(Partner(name="p"))
        session.flush()
        with pytest.raises(DataError):
            failing.run(session, {})
        with pytest.raises(Fault, match="transaction-perdue"):
            session.commit()
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(Partner)) == 0


def test_a_rollback_forgets_what_waits(store: Store, trail: AuditTrail) -> None:
    with store.session() as session:
        keep(session, "Basic", "a", tree("un"), Owner(root_kind="Partner", root_id=uuid.uuid4()))
        trail.write(session, AuditFacts(event="creation"))
        session.rollback()
        session.commit()
    with store.session() as session:
        keep(session, "Basic", "b", tree("un"), Owner())
        trail.write(session, AuditFacts(event="creation"))
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(TABLE)) == 0
        assert session.scalar(select(func.count()).select_from(AuditLine)) == 0


def test_an_id_that_was_used_before_is_found_when_the_step_runs_again(store: Store) -> None:
    """What a step made is taken for new; if its id had a version after all, the clash is told and then looked at."""
    key = uuid.uuid4()
    with store.session() as session:
        keep(session, "Basic", str(key), tree("un"), Owner())
        session.commit()

    def again(*, cautious: bool) -> int:
        with store.session() as session:
            session.cautious = cautious
            session.add(Partner(id=key, name="p"))
            session.flush()
            kept = keep(session, "Basic", str(key), tree("deux"), Owner(root_kind="Partner", root_id=key))
            session.commit()
            return kept.version

    with pytest.raises(IntegrityError) as refused:
        again(cautious=False)
    assert refused.value.orig.sqlstate == "23505"  # `Steps` runs the verb again after it, cautiously
    assert again(cautious=True) == 2


def test_a_connection_that_the_server_closed_is_not_given_out(store: Store) -> None:
    with store.session() as session:
        mine = session.scalar(select(func.pg_backend_pid()))
    with store.session() as other, other.connection().engine.connect() as killer:
        held = other.scalar(select(func.pg_backend_pid()))
        assert held == mine
        assert killer.scalar(select(func.pg_terminate_backend(mine))) is True
        other.invalidate()
    for _ in range(3):
        with store.session() as session:
            assert session.scalar(select(func.pg_backend_pid())) != mine
