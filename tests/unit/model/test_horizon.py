"""Cursors below the transaction horizon: the late committer that a plain cursor loses."""

from __future__ import annotations

import time
from contextlib import ExitStack

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from gateway.errors import InvalidContent
from gateway.model.audit import AuditFacts, AuditLine
from gateway.model.horizon import Position, after, burn_until


def read(store, position, limit=100):
    """What a poller does."""
    with store.session() as session:
        rows = session.execute(
            select(AuditLine.xid, AuditLine.seq, AuditLine.actor_id)
            .where(after(AuditLine.xid, AuditLine.seq, position))
            .order_by(AuditLine.xid, AuditLine.seq)
            .limit(limit)
        ).all()
    return [row.actor_id for row in rows], Position(rows[-1].xid, rows[-1].seq) if rows else position


def holders(store):
    """Who holds the horizon: said when rows are missing."""
    with psycopg.connect(store.dsn) as connection:
        return connection.execute(
            "SELECT backend_type, datname, state, backend_xid::text, now() - xact_start, left(query, 80)"
            " FROM pg_stat_activity WHERE backend_xid IS NOT NULL"
        ).fetchall()


def test_a_late_committer_is_never_lost(store, trail):
    with store.session() as early, store.session() as late:
        trail.write(early, AuditFacts(event="systeme", actor_id="row 1"))  # written first, committed last
        early.write_deferred(unread=True)
        trail.write(late, AuditFacts(event="systeme", actor_id="row 2"))
        late.commit()
        with store.session() as session:
            visible = session.scalars(select(AuditLine.actor_id)).all()
        assert visible == ["row 2"], "a poller without a horizon would go on from row 2"
        seen, position = read(store, None)
        assert seen == []
        early.commit()
    seen, position = read(store, position)
    assert seen == ["row 1", "row 2"]
    assert read(store, position) == ([], position)


def test_a_rolled_back_writer_blocks_nobody(store, trail):
    with store.session() as session:
        trail.write(session, AuditFacts(event="systeme", actor_id="undone"))
        session.rollback()
    with store.session() as session:
        trail.write(session, AuditFacts(event="systeme", actor_id="kept"))
        session.commit()
    assert read(store, None)[0] == ["kept"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_order_of_commits_each_row_is_read_once_and_in_one_order(store, trail, data):
    # A draw may end the example: a session left open would hold the horizon of the next ones.
    with ExitStack() as opened:
        _each_row_is_read_once(store, trail, data, opened)


def _each_row_is_read_once(store, trail, data, opened):
    _, position = read(store, None, limit=10_000)
    count = data.draw(st.integers(1, 5))
    open_sessions, seen, written = {}, [], set()
    for number in range(count):
        session = opened.enter_context(store.session())
        open_sessions[number] = session
        for line in range(data.draw(st.integers(1, 2))):
            trail.write(session, AuditFacts(event="systeme", actor_id=f"{number}/{line}"))
            session.write_deferred(unread=True)
            written.add(f"{number}/{line}")
    for number in data.draw(st.permutations(list(open_sessions))):
        session = open_sessions.pop(number)
        if data.draw(st.booleans()):
            session.commit()
        else:
            session.rollback()
            written -= {name for name in written if name.startswith(f"{number}/")}
        session.close()
        new, position = read(store, position, limit=data.draw(st.integers(1, 3)))
        seen += new
    # A transaction in another database of this server may hold the horizon for a moment: what is read comes late.
    deadline = time.monotonic() + 60
    while len(seen) < len(written) and time.monotonic() < deadline:
        new, position = read(store, position, limit=2)
        seen += new
    seen += read(store, position)[0]
    assert len(seen) == len(set(seen))
    assert set(seen) == written, holders(store)
    assert seen == sorted(seen), "transactions in the order in which they began to write, lines as written"


def test_a_position_is_a_token_and_nothing_else_is(store):
    assert Position.parse(str(Position(18446744073709551615, 7))) == Position(18446744073709551615, 7)
    for forged in ("", "1", "1.", ".1", "-1.2", "1.2.3", "1;DROP.1", "١.٢", "1.2\n"):
        with pytest.raises(InvalidContent):
            Position.parse(forged)


def test_after_a_restore_new_transactions_come_after_the_restored_ones(store):
    with psycopg.connect(store.dsn, autocommit=True) as connection:
        (now,) = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        burn_until(connection, int(now) + 5000)
        (later,) = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
    assert int(later) > int(now) + 5000
