"""One step: kept together or not at all, run again after a clash, refusals told to the trail."""

from __future__ import annotations

import contextlib
import threading
import uuid
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import func, select, text

from gateway.errors import Conflict, NotFound
from gateway.exchange.outbox import Outgoing
from gateway.model.audit import AuditLine
from gateway.model.message import Message
from gateway.model.network import Network
from gateway.rcp import access
from gateway.rcp.access import SYSTEM
from gateway.rcp.step import DomainClock


def outgoing(key: str = "M1|d|s|r|1", content: bytes = b"octets") -> Outgoing:
    return Outgoing(channel="mssante", kind="M1", key=key, content=content)


def count(store, model) -> int:
    with store.session() as session:
        return session.scalar(select(func.count()).select_from(model))


def network(code: str) -> Network:
    return Network(code=code, name="Essai", base_url="https://rcp.example", contact="3c@example.org")


def test_rows_lines_messages_and_nudges_are_kept_together(steps, store) -> None:
    def verb(step):
        step.session.add(network("ensemble"))
        step.audit("creation", action="C")
        step.post(outgoing())

    steps.run(SYSTEM, verb)
    assert (count(store, Network), count(store, AuditLine), count(store, Message)) == (1, 1, 1)
    with store.session() as session:
        assert session.scalar(text("SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'deliver'")) == 1


def test_a_failure_undoes_them_together(steps, store) -> None:
    def verb(step):
        step.session.add(network("defait"))
        step.audit("creation", action="C")
        step.post(outgoing())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        steps.run(SYSTEM, verb)
    assert (count(store, Network), count(store, AuditLine), count(store, Message)) == (0, 0, 0)
    with store.session() as session:
        assert session.scalar(text("SELECT count(*) FROM procrastinate_jobs")) == 0


def test_the_same_message_twice_is_one_message_with_the_first_bytes(steps, store) -> None:
    first = steps.run(SYSTEM, lambda step: step.post(outgoing(content=b"premier")).id)
    second = steps.run(SYSTEM, lambda step: step.post(outgoing(content=b"second")).id)
    assert first == second
    with store.session() as session:
        assert session.get(Message, first).content == b"premier"
        assert session.scalar(text("SELECT count(*) FROM procrastinate_jobs")) == 1


def test_a_large_message_stands_in_the_blob_store(steps, store, blobs) -> None:
    content = bytes(range(256)) * 512
    kept = steps.run(SYSTEM, lambda step: step.post(outgoing(content=content)).id)
    with store.session() as session:
        row = session.get(Message, kept)
        assert row.content is None
        assert row.size_bytes == len(content)
        assert blobs.read(row.sha256) == content


def test_a_refusal_is_told_to_the_trail_after_the_rollback(steps, store) -> None:
    wanted = uuid.uuid4()

    def verb(step):
        step.session.add(network("refuse"))
        raise access.hidden(step.caller, "Dossier", wanted)

    with pytest.raises(NotFound):
        steps.run(SYSTEM, verb)
    assert count(store, Network) == 0
    with store.session() as session:
        line = session.scalars(select(AuditLine)).one()
    said = msgspec.json.decode(line.payload)
    assert (said["event"], said["outcome"], said["object_id"]) == ("refus", "4", str(wanted))


def test_writers_that_race_for_a_key_end_as_one_row(steps, store) -> None:
    barrier = threading.Barrier(8)

    def verb(step):
        found = step.session.scalars(select(Network).where(Network.code == "course")).one_or_none()
        if found is None:
            if barrier.n_waiting < 8 and not barrier.broken:
                with contextlib.suppress(threading.BrokenBarrierError):
                    barrier.wait(timeout=5)
            found = network("course")
            step.session.add(found)
            step.session.flush()
        return found.id

    answers: list[uuid.UUID] = []
    threads = [threading.Thread(target=lambda: answers.append(steps.run(SYSTEM, verb))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 8
    assert len(set(answers)) == 1
    assert count(store, Network) == 1


def test_steps_that_lock_in_opposite_order_both_end(steps, store) -> None:
    one, two = (steps.run(SYSTEM, lambda step, c=c: _add(step, c)) for c in ("un", "deux"))
    met = threading.Barrier(2)

    def crossing(first: uuid.UUID, second: uuid.UUID):
        seen = []

        def verb(step):
            step.session.execute(select(Network).where(Network.id == first).with_for_update()).all()
            if not seen:
                seen.append(1)
                met.wait(60)
            row = step.session.scalars(select(Network).where(Network.id == second).with_for_update()).one()
            row.name += "+"

        steps.run(SYSTEM, verb)

    threads = [threading.Thread(target=crossing, args=pair) for pair in ((one, two), (two, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with store.session() as session:
        assert sorted(session.scalars(select(Network.name))) == ["Essai+", "Essai+"]


def _add(step, code: str) -> uuid.UUID:
    row = network(code)
    step.session.add(row)
    step.session.flush()
    return row.id


def test_a_lasting_clash_is_a_conflict_and_not_a_fault(steps) -> None:
    def verb(step):
        step.session.add_all([network("double"), network("double")])

    with pytest.raises(Conflict):
        steps.run(SYSTEM, verb)


def test_lock_refuses_what_does_not_exist(steps) -> None:
    with pytest.raises(NotFound):
        steps.run(SYSTEM, lambda step: step.lock(Network, uuid.uuid4()))


def test_touched_roots_are_represented_once_before_the_commit(make_steps, store) -> None:
    seen = []

    def represent(step, roots):
        seen.append([root.code for root in roots])
        assert count(store, Network) == 0  # not committed yet

    def verb(step):
        row = network("racine")
        step.session.add(row)
        step.session.flush()
        step.touch(row)
        step.touch(row)

    make_steps(represent=represent).run(SYSTEM, verb)
    assert seen == [["racine"]]


def test_the_domain_clock_starts_where_it_is_told_and_runs_on() -> None:
    start = datetime(2026, 3, 17, 7, tzinfo=UTC)
    clock = DomainClock(start)
    first = clock.now()
    assert start <= first < start + timedelta(seconds=60)
    assert clock.now() >= first


def test_the_trail_refuses_update_delete_and_truncate(steps, store) -> None:
    steps.record(access.facts(SYSTEM, "systeme"))
    for statement in ("UPDATE audit_line SET event = 'x'", "DELETE FROM audit_line", "TRUNCATE audit_line"):
        with store.session() as session, pytest.raises(Exception, match="append-only"):
            session.execute(text(statement))
