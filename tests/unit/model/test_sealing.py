"""The sealed trail: one line altered, removed, added, moved, is found; a sound one is called sound."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import msgspec
import psycopg
import pytest
from sqlalchemy import func, select

from gateway.model import sealing
from gateway.model.audit import AuditFacts, AuditLine, AuditSeal, AuditTrail
from gateway.model.sealing import seal, verify


@pytest.fixture
def write(store, trail):
    def lines(*names: str) -> None:
        with store.session() as session:
            for name in names:
                trail.write(session, AuditFacts(event="consultation", actor_id=name))
            session.commit()

    return lines


@pytest.fixture
def forge(store):
    """What somebody with all rights on the database can do: the triggers do not stop him."""

    def execute(statement: str, *values: object) -> None:
        with psycopg.connect(store.dsn, autocommit=True) as connection:
            for table in ("audit_line", "audit_seal"):
                connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            connection.execute(statement, values)

    return execute


def kinds(store, trail, **options) -> set[str]:
    return {found.kind for found in verify(store, trail, **options).breaks}


def test_a_sound_trail_is_called_sound(store, trail, write):
    write("a", "b")
    assert seal(store, trail) == 2
    write("c")
    assert seal(store, trail) == 1
    write("d")
    verdict = verify(store, trail)
    assert (verdict.sound, verdict.lines, verdict.seals, verdict.unsealed) == (True, 4, 2, 1)


def test_batches_cut_inside_a_transaction_and_chain_on(store, trail, write):
    write(*"abcdefg")
    assert seal(store, trail, batch_lines=3) == 7
    verdict = verify(store, trail)
    assert verdict.sound
    assert verdict.seals == 3


def test_nothing_new_makes_no_seal_but_a_new_day_is_anchored(store, trail, write, monkeypatch):
    write("a")
    assert [seal(store, trail) for _ in range(3)] == [1, 0, 0]
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    monkeypatch.setattr(sealing, "utcnow", lambda: tomorrow)
    assert seal(store, trail) == 0
    with store.session() as session:
        days = session.scalars(select(AuditSeal.anchor_of).order_by(AuditSeal.number)).all()
    assert days == [tomorrow.date() - timedelta(days=1), tomorrow.date()]
    assert verify(store, trail).sound


def test_the_database_refuses_changes_to_the_trail(store, trail, write):
    write("a")
    seal(store, trail)
    with psycopg.connect(store.dsn, autocommit=True) as connection:
        for statement in (
            "UPDATE audit_line SET actor_id = 'x'",
            "DELETE FROM audit_line",
            "TRUNCATE audit_line",
            "UPDATE audit_seal SET lines = 0",
            "DELETE FROM audit_seal",
        ):
            with pytest.raises(psycopg.errors.RestrictViolation):
                connection.execute(statement)


@pytest.mark.parametrize("sealed", [True, False])
def test_an_altered_payload_is_found_and_named(store, trail, write, forge, sealed):
    write("a", "b", "c")
    if sealed:
        seal(store, trail)
    with store.session() as session:
        line = session.scalars(select(AuditLine).where(AuditLine.actor_id == "b")).one()
    said = msgspec.json.decode(line.payload)
    said["actor_id"] = "z"
    forge("UPDATE audit_line SET payload = %s, actor_id = 'z' WHERE seq = %s", msgspec.json.encode(said), line.seq)
    found = [each for each in verify(store, trail).breaks if each.kind == "line"]
    assert [each.seq for each in found] == [line.seq]


@pytest.mark.parametrize(
    "change",
    ["actor_id = 'z'", "event = 'systeme'", "outcome = '4'", "recorded = now() - interval '1 day'",
     "persons = ARRAY[gen_random_uuid()]", "dossier = gen_random_uuid()", "id = gen_random_uuid()"],
)  # fmt: skip
def test_an_altered_search_column_is_found(store, trail, write, forge, change):
    write("a", "b")
    seal(store, trail)
    forge(f"UPDATE audit_line SET {change} WHERE actor_id = 'a'")
    assert kinds(store, trail) == {"line"}


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_a_removed_line_is_found_wherever_it_was(store, trail, write, forge, name):
    write("a", "b")
    seal(store, trail)
    write("c", "d")
    seal(store, trail)
    forge("DELETE FROM audit_line WHERE actor_id = %s", name)
    verdict = verify(store, trail)
    assert {found.kind for found in verdict.breaks} == {"lines-missing"}
    assert [found.seal for found in verdict.breaks] == [1 if name in "ab" else 2]


def test_reordered_lines_are_found(store, trail, write, forge):
    write("a", "b", "c")
    seal(store, trail)
    # Each line stays what it was; only who comes first changes.
    forge(
        "UPDATE audit_line x SET payload = y.payload, mac = y.mac, actor_id = y.actor_id, recorded = y.recorded "
        "FROM audit_line y WHERE (x.actor_id, y.actor_id) IN (('a', 'b'), ('b', 'a'))"
    )
    forge("UPDATE audit_line SET id = gen_random_uuid() WHERE actor_id IN ('a', 'b')")
    forge("UPDATE audit_line SET id = (convert_from(payload, 'UTF8')::jsonb ->> 'id')::uuid")
    assert kinds(store, trail) == {"chain"}


def test_a_line_moved_behind_the_last_seal_is_missed_there(store, trail, write, forge):
    write("a", "b")
    seal(store, trail)
    forge("UPDATE audit_line SET xid = pg_current_xact_id() WHERE actor_id = 'a'")
    assert "lines-missing" in kinds(store, trail)


def test_a_line_with_another_key_is_found(store, trail, write):
    write("a")
    with store.session() as session:
        AuditTrail(b"another secret").write(session, AuditFacts(event="systeme"))
        session.commit()
    assert kinds(store, trail) == {"line"}


def test_a_line_slipped_into_a_sealed_batch_is_found(store, trail, write, forge):
    write("a")
    seal(store, trail)
    write("b")
    forge("UPDATE audit_line SET xid = '3' WHERE actor_id = 'b'")
    assert kinds(store, trail) == {"lines-added"}


def test_an_altered_or_removed_seal_is_found(store, trail, write, forge):
    write("a")
    seal(store, trail)
    write("b")
    seal(store, trail)
    write("c")
    seal(store, trail)
    forge("UPDATE audit_seal SET chain = '\\x00' WHERE number = 1")
    assert "chain" in kinds(store, trail)
    forge("DELETE FROM audit_seal WHERE number = 2")
    assert "seal-missing" in kinds(store, trail)


def test_a_cut_tail_is_found_with_an_anchor_kept_elsewhere(store, trail, write, forge):
    write("a")
    seal(store, trail)
    with store.session() as session:
        kept = session.scalars(select(AuditSeal)).one()
    anchors = {kept.anchor_of: kept.chain.hex()}
    assert verify(store, trail, anchors=anchors).sound
    forge("DELETE FROM audit_line")
    forge("DELETE FROM audit_seal")
    assert kinds(store, trail) == set(), "nothing in the database tells"
    assert kinds(store, trail, anchors=anchors) == {"anchor"}


def test_a_late_committer_is_sealed_in_its_turn(store, trail, write):
    with store.session() as late:
        trail.write(late, AuditFacts(event="consultation", actor_id="late"))
        late.write_deferred(unread=True)
        write("a")
        assert seal(store, trail) == 0
        late.commit()
    assert seal(store, trail) == 2
    assert verify(store, trail).sound


def test_sealers_at_once_seal_each_line_once(store, trail, write):
    for _ in range(20):
        write("x")
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(seal(store, trail, batch_lines=4))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seal(store, trail)
    with store.session() as session:
        assert session.scalar(select(func.sum(AuditSeal.lines))) == 20
    assert verify(store, trail).sound
