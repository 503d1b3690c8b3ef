"""Kept before acknowledged, processed once, answered alike."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from gateway.errors import Fault, InvalidContent, NotFound, Unavailable
from gateway.exchange.inbox import Inbox, Incoming, once
from gateway.model.message import Attempt, Message
from gateway.model.store import Store, utcnow
from gateway.rcp.access import SYSTEM
from tests.unit.exchange.channels import NOW

ADT = b"MSH|^~\\&|SIL|HOPITAL|RCP|3C|202603020800||ADT^A01^ADT_A01|42|P|2.5\r"


def incoming(**more) -> Incoming:
    return Incoming(
        **{"channel": "mllp", "kind": "ADT^A01", "key": "SIL|42", "content": ADT, "message_id": "42", **more}
    )


class Wire:
    """What a wire does with a kept message; ``fails`` is raised once each."""

    channel = "mllp"

    def __init__(self, steps, fails=()) -> None:
        self.steps = steps
        self.fails = list(fails)
        self.done: list[bytes] = []
        self.set_aside: list[tuple[str, str]] = []

    def reprocess(self, message_id, content):
        def verb(step):
            def work(message):
                if self.fails:
                    raise self.fails.pop(0)
                self.done.append(content)
                return "AA"

            return once(step.session, message_id, work)

        return self.steps.run(SYSTEM, verb)

    def refused(self, _session, message):
        self.set_aside.append((message.key, message.reason))


def row(store, message_id) -> Message:
    with store.session() as session:
        return session.get_one(Message, message_id)


def age(store, message_id, seconds) -> None:
    with store.session() as session:
        session.get_one(Message, message_id).created_at = utcnow() - timedelta(seconds=seconds)
        session.commit()


def test_what_is_kept_is_there_whatever_becomes_of_the_step(store, blobs, steps):
    inbox = Inbox(store, blobs)
    kept = inbox.keep(incoming(), NOW)
    assert (kept.again, kept.same_bytes, kept.state, kept.told) == (False, True, "garde", None)
    with pytest.raises(InvalidContent):
        Wire(steps, [InvalidContent("bad", "…")]).reprocess(kept.id, ADT)
    other = Store(store.dsn)
    assert Inbox(other, blobs).content(kept.id) == ADT
    assert (row(other, kept.id).state, row(other, kept.id).domain_at) == ("garde", NOW)
    other.close()


def test_large_bytes_go_to_the_blob_store_and_come_back(store, blobs):
    content = bytes(range(256)) * 400
    kept = Inbox(store, blobs).keep(incoming(content=content), NOW)
    assert row(store, kept.id).content is None
    assert Inbox(store, blobs).content(kept.id) == content


def test_the_same_message_twice_does_the_step_once_and_answers_the_same(store, blobs, steps):
    inbox, wire = Inbox(store, blobs), Wire(steps)
    answers = []
    for _ in range(3):
        kept = inbox.keep(incoming(), NOW)
        answers.append(wire.reprocess(kept.id, ADT))
    assert answers == ["AA"] * 3
    assert wire.done == [ADT]
    assert kept.again
    assert (kept.state, kept.told) == ("traite", "AA")


def test_one_key_over_two_contents_is_told_apart(store, blobs):
    inbox = Inbox(store, blobs)
    first = inbox.keep(incoming(), NOW)
    second = inbox.keep(incoming(content=ADT + b"PID|1\r"), NOW)
    assert (second.id, second.again, second.same_bytes) == (first.id, True, False)
    assert inbox.content(first.id) == ADT


def test_one_key_on_two_channels_is_two_messages(store, blobs):
    inbox = Inbox(store, blobs)
    assert inbox.keep(incoming(), NOW).id != inbox.keep(incoming(channel="mssante"), NOW).id


def test_sixteen_senders_at_once_keep_one_and_do_it_once(store, blobs, steps):
    inbox, wire = Inbox(store, blobs), Wire(steps)
    ids, answers = [], []
    gate = threading.Barrier(16)

    def send() -> None:
        gate.wait()
        kept = inbox.keep(incoming(), NOW)
        ids.append(kept.id)
        answers.append(wire.reprocess(kept.id, ADT))

    threads = [threading.Thread(target=send) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 1
    assert answers == ["AA"] * 16
    assert wire.done == [ADT]


def test_a_refusal_is_written_after_the_rollback_by_its_code(store, blobs, steps):
    inbox = Inbox(store, blobs)
    kept = inbox.keep(incoming(), NOW)
    inbox.refuse(kept.id, InvalidContent("pid-missing", "DUPONT n’a pas d’identifiant."), told="AE")
    message = row(store, kept.id)
    assert (message.state, message.told, message.reason) == ("quarantaine", "AE", "pid-missing")
    again = inbox.keep(incoming(), NOW)
    assert (again.state, again.told) == ("quarantaine", "AE")


def test_the_sweep_does_what_a_killed_process_left(store, blobs, steps):
    wire = Wire(steps)
    inbox = Inbox(store, blobs, [wire])
    left, fresh = inbox.keep(incoming(key="left"), NOW), inbox.keep(incoming(key="fresh"), NOW)
    foreign = inbox.keep(incoming(key="foreign", channel="dicom"), NOW)
    for each in (left, foreign):
        age(store, each.id, 120)
    assert inbox.sweep() == 1
    assert [row(store, each.id).state for each in (left, fresh, foreign)] == ["traite", "garde", "garde"]
    assert inbox.sweep() == 0


def test_what_is_unavailable_stays_kept_and_what_is_refused_is_set_aside(store, blobs, steps):
    wire = Wire(steps, [Unavailable("down", "…"), InvalidContent("bad", "…")])
    inbox = Inbox(store, blobs, [wire])
    kept = inbox.keep(incoming(), NOW)
    assert not inbox.process(kept.id)
    assert row(store, kept.id).state == "garde"
    assert inbox.process(kept.id)
    assert (row(store, kept.id).state, row(store, kept.id).reason) == ("quarantaine", "bad")
    assert wire.set_aside == [("SIL|42", "bad")]
    with store.session() as session:
        outcomes = session.scalars(select(Attempt.outcome).order_by(Attempt.started_at)).all()
    assert outcomes == ["unavailable", "refused"]


def test_a_defect_is_tried_some_times_and_then_set_aside(store, blobs, steps):
    wire = Wire(steps, [ValueError("DUPONT")] * 99)
    inbox = Inbox(store, blobs, [wire])
    kept = inbox.keep(incoming(), NOW)
    for _ in range(10):
        assert not inbox.process(kept.id)
    assert (row(store, kept.id).state, row(store, kept.id).reason) == ("quarantaine", "reader-fault")
    assert wire.set_aside == [("SIL|42", "reader-fault")]
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(Attempt).where(Attempt.reason.is_not(None))) == 0


def test_a_replay_processes_again_what_was_settled(store, blobs, steps):
    wire = Wire(steps, [InvalidContent("bad", "…")])
    inbox = Inbox(store, blobs, [wire])
    kept = inbox.keep(incoming(), NOW)
    inbox.process(kept.id)
    assert inbox.replay(kept.id)
    message = row(store, kept.id)
    assert (message.state, message.told, message.reason, message.details["replays"]) == ("traite", "AA", None, 1)
    assert wire.done == [ADT]


def test_bytes_that_changed_since_are_not_processed(store, blobs, steps):
    inbox = Inbox(store, blobs, [Wire(steps)])
    kept = inbox.keep(incoming(), NOW)
    with store.session() as session:
        session.get_one(Message, kept.id).content = b"MSH|other"
        session.commit()
    with pytest.raises(Fault) as refusal:
        inbox.content(kept.id)
    assert refusal.value.code == "content-altered"
    inbox.process(kept.id)
    assert row(store, kept.id).reason == "content-altered"


def test_what_is_not_kept_is_not_found(store, blobs, steps):
    inbox = Inbox(store, blobs)
    for act in (inbox.content, inbox.replay, lambda unknown: Wire(steps).reprocess(unknown, b"")):
        with pytest.raises(NotFound):
            act(uuid.uuid4())


def test_a_database_that_does_not_answer_keeps_nothing_and_says_so(blobs):
    store = Store("postgresql://rcp@/rcp?host=/nowhere")
    with pytest.raises(Unavailable):
        Inbox(store, blobs).keep(incoming(), NOW)
