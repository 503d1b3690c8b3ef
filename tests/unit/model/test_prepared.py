"""Statements that the driver sends: in the session's transaction, with any text, with SQLAlchemy's errors."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from sqlalchemy import bindparam, func, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from gateway.model.partner import Partner
from gateway.model.prepared import Copied, Prepared
from gateway.model.representation import TABLES
from gateway.model.store import Store
from gateway.model.writes import ask, held

TABLE = TABLES["Basic"]
#: What quoting is easily wrong about, and what COPY or a list takes for nothing.
HARD = ["a'b", 'c"d', "e\\f", "g\\\\'h", "{i,j}", "k l", "NULL", "\\N", "m\tn\no", "'", "\\", "p:1A", "œ€🙂", " q "]
NAMED = Prepared(lambda: select(Partner.id, Partner.name).where(Partner.name == bindparam("name")))
WHOLE = Prepared(lambda: select(Partner.__table__).where(Partner.name == bindparam("name")))


def row(key: str) -> dict[str, object]:
    return {
        "id": key,
        "version": 1,
        "body": b"\x00\\x41'",
        "updated_at": datetime(2026, 1, 1, tzinfo=UTC),
        "terms": HARD,
        "words": HARD,
        "nodes": {"a": HARD},
        **dict.fromkeys(("current", "deleted", "public"), False),
        "p_created": "[2026-01-01T00:00:00+00:00,2026-01-02T00:00:00+00:00)",
    }


@pytest.mark.parametrize("many", [False, True])
def test_any_text_arrives_as_it_is(store: Store, many: bool) -> None:
    with store.session() as session:
        if many:
            Copied(TABLE, tuple(row("un"))).run(session, [row("un"), row("deux")])
        else:
            Prepared(lambda: insert(TABLE).values({one: bindparam(one) for one in row("un")})).run(session, row("un"))
        session.commit()
    with store.session() as session:
        found = session.execute(
            select(
                TABLE.c.body,
                TABLE.c.terms,
                func.tsvector_to_array(TABLE.c.words),
                TABLE.c.nodes,
                func.lower(TABLE.c.p_created),
                TABLE.c.current,
                TABLE.c.xid,
            ).where(TABLE.c.id == "un")
        ).one()
    assert found[0] == b"\x00\\x41'"
    assert found[1] == HARD
    assert sorted(found[2]) == sorted(HARD)
    assert found[3] == {"a": HARD}
    assert found[4] == datetime(2026, 1, 1, tzinfo=UTC)
    assert found[6] > 0, "what is not said is the server's to give"


def test_it_sees_what_its_session_was_told_and_goes_with_it(store: Store) -> None:
    with store.session() as session:
        session.add(Partner(name="p"))
        [found] = ask(session, NAMED, name="p")
        assert found.name == "p"
        session.rollback()
        assert ask(session, NAMED, name="p") == []
        session.add(Partner(name="q"))
        session.commit()
        assert [one.name for one in ask(session, NAMED, name="q")] == ["q"], "the next transaction has its connection"
    with store.session() as other:
        assert len(ask(other, NAMED, name="q")) == 1


def test_a_row_of_a_whole_table_is_the_root_that_the_session_would_have_loaded(store: Store) -> None:
    with store.session() as session:
        session.add(Partner(name="p", patient_domains=["d"]))
        session.commit()
    with store.session() as session:
        root = held(session, Partner, ask(session, WHOLE, name="p")[0])
        assert session.get(Partner, root.id) is root
        assert held(session, Partner, ask(session, WHOLE, name="p")[0]) is root
        assert (root.patient_domains, root.credentials) == (["d"], [])
        root.name = "q"
        session.commit()
    with store.session() as session:
        assert [one.name for one in ask(session, NAMED, name="q")] == ["q"]


@pytest.mark.parametrize("many", [False, True])
def test_a_clash_is_told_as_sqlalchemy_tells_it(store: Store, many: bool) -> None:
    key = uuid.uuid4()
    same = [{"id": key, "name": "a"}, {"id": key, "name": "b"}]
    names = {"patient_domains": [], "fhir_scopes": [], "created_at": datetime.now(UTC)}
    rows = [{**one, **names} for one in same]
    made = Prepared(lambda: insert(Partner.__table__).values({one: bindparam(one) for one in rows[0]}))
    with store.session() as session:
        if not many:
            made.run(session, rows[0])
        with pytest.raises(IntegrityError) as refused:
            Copied(Partner.__table__, tuple(rows[0])).run(session, rows) if many else made.run(session, rows[1])
        assert refused.value.orig.sqlstate == "23505"
        session.rollback()
        assert session.scalar(select(func.count()).select_from(Partner)) == 0


def test_a_connection_that_is_lost_is_told_and_given_to_nobody(store: Store) -> None:
    asked = Prepared(lambda: text("SELECT 1"))
    with store.session() as session, store.engine.connect() as killer:
        asked.run(session, {})
        mine = session.scalar(select(func.pg_backend_pid()))
        assert killer.scalar(select(func.pg_terminate_backend(mine))) is True
        with pytest.raises(DBAPIError) as refused:
            asked.run(session, {})
        assert refused.value.connection_invalidated
    for _ in range(3):
        with store.session() as session:
            assert session.scalar(select(func.pg_backend_pid())) != mine


PUT = Prepared(lambda: insert(TABLE).values({one: bindparam(one) for one in row("un")}))


@pytest.mark.parametrize("keys", [["un"], ["un", "deux", "trois"]])
def test_what_is_sent_at_once_is_committed_whole_without_a_session(store: Store, keys: list[str]) -> None:
    assert PUT.at_once(store.engine, [row(key) for key in keys]) == [1] * len(keys)
    with store.session() as session:
        assert set(session.scalars(select(TABLE.c.id))) == set(keys)


@pytest.mark.parametrize("keys", [["un"], ["deux", "un", "trois"], ["deux", "trois", "deux"]])
def test_one_that_is_refused_undoes_all_that_were_sent_with_it_and_costs_no_connection(
    store: Store, keys: list[str]
) -> None:
    PUT.at_once(store.engine, [row("un")])
    with store.engine.connect() as connection:
        before = connection.scalar(text("SELECT pg_backend_pid()"))
    with pytest.raises(IntegrityError):
        PUT.at_once(store.engine, [row(key) for key in keys])
    with store.engine.connect() as connection:
        assert list(connection.scalars(select(TABLE.c.id))) == ["un"]
        assert connection.scalar(text("SELECT pg_backend_pid()")) == before
        connection.rollback()
        # And a session's transaction is one again.
        connection.execute(insert(TABLE).values(row("quatre")))
        connection.rollback()
        assert list(connection.scalars(select(TABLE.c.id))) == ["un"]


def partners(count: int) -> list[dict[str, object]]:
    said = {"patient_domains": [], "fhir_scopes": [], "created_at": datetime(2026, 1, 1, tzinfo=UTC)}
    return [{"id": uuid.uuid4(), "name": f"n{number}", **said} for number in range(count)]


LATE = Prepared(lambda: insert(Partner.__table__).values({one: bindparam(one) for one in partners(1)[0]}))


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(
    "ending", ["RAISE EXCEPTION 'no'", "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5)"]
)
def test_a_commit_that_fails_is_told(store: Store, count: int, ending: str) -> None:
    """Each statement was answered already: what goes wrong then must not pass for written."""
    with store.engine.begin() as connection:
        connection.execute(
            text(f"CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {ending}; RETURN NULL; END $$")
        )
        connection.execute(
            text(
                "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON partner DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION late()"
            )
        )
    try:
        for _ in range(20):  # the driver says it in two ways, as the answers come apart or together
            with pytest.raises(DBAPIError):
                LATE.at_once(store.engine, partners(count))
    finally:
        with store.engine.begin() as connection:
            connection.execute(text("DROP FUNCTION late CASCADE"))
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(Partner)) == 0
    assert LATE.at_once(store.engine, partners(count)) == [1] * count
