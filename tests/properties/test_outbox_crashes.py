"""The outbox with a crash between any two lines [DECISIONS 1].

A process posts or delivers under a tracer and kills itself with SIGKILL before its n-th line, for every n; then others
take over. The other side is a file: what it holds is what a physician would find in his mailbox.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import partial
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from gateway.exchange import delivery as delivery_module
from gateway.exchange import jobs as jobs_module
from gateway.exchange import outbox as outbox_module
from gateway.exchange.delivery import Backoff, Deliveries
from gateway.exchange.outbox import Delivery, Outbox, Outcome
from gateway.model.message import Attempt, Message
from gateway.model.store import Store
from gateway.rcp.access import SYSTEM
from gateway.rcp.step import DomainClock, Steps
from tests.properties.crashing import killed_before_line
from tests.unit.exchange.channels import outgoing

TRACED = {module.__file__ for module in (delivery_module, outbox_module, jobs_module)} | {__file__}
AT_ONCE = {"mssante": Backoff((0.0,), 3600, 0.0)}


class Operator:
    """A mail operator behind a connection: it has the message from the instant of the final dot on."""

    name = "mssante"
    idempotent = True

    def __init__(self, mailbox: Path, answers: list[Outcome] | None = None) -> None:
        self.mailbox = mailbox
        self.answers = answers or []

    def deliver(self, message, content):
        outcome = self.answers.pop(0) if self.answers else Outcome.DELIVERED
        if outcome in (Outcome.UNAVAILABLE, Outcome.REFUSED):
            return Delivery(outcome)
        line = json.dumps({"id": message.message_id, "sha256": hashlib.sha256(content).hexdigest()}) + "\n"
        descriptor = os.open(self.mailbox, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, line.encode())  # the final dot
        os.close(descriptor)
        return Delivery(outcome)

    def copies(self) -> list[dict]:
        return [json.loads(line) for line in self.mailbox.read_text().splitlines()] if self.mailbox.exists() else []


@pytest.fixture
def world(database_url, blobs, trail, tmp_path):
    class World:
        operator = Operator(tmp_path / "mailbox")

        def __init__(self) -> None:
            self.stores: dict[int, Store] = {}

        def store(self) -> Store:
            """A store of this very process: a forked one must not speak on its parent's connections."""
            return self.stores.setdefault(os.getpid(), Store(database_url, pool_size=3))

        def post(self, key: str = "k", content: bytes = b"bonjour") -> None:
            store = self.store()
            steps = Steps(store, DomainClock(), trail, Outbox(blobs), lambda *_: None)
            steps.run(SYSTEM, lambda step: step.post(outgoing(key=key, content=content, message_id=key)))

        def attempt(self, message_id, answers=None) -> Outcome | None:
            store = self.store()
            operator = Operator(self.operator.mailbox, answers)
            return Deliveries(store, blobs, trail, [operator], backoff=AT_ONCE).attempt(message_id)

        def sweep(self) -> int:
            store = self.store()
            return Deliveries(store, blobs, trail, [self.operator], backoff=AT_ONCE).sweep()

        def messages(self) -> list[Message]:
            store = self.store()
            with store.session() as session:
                return list(session.scalars(select(Message).order_by(Message.created_at)))

        def open_attempts(self) -> int:
            store = self.store()
            with store.session() as session:
                return len(session.scalars(select(Attempt).where(Attempt.ended_at.is_(None))).all())

        def jobs(self) -> int:
            with psycopg.connect(database_url) as connection:
                return connection.execute("SELECT count(*) FROM procrastinate_jobs").fetchone()[0]

        def forget(self) -> None:
            self.operator.mailbox.unlink(missing_ok=True)
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute("DELETE FROM attempt")
                connection.execute("DELETE FROM message")
                connection.execute("DELETE FROM procrastinate_jobs")

        def until_idle(self, message_id) -> None:
            # The killed process's connection may be a moment dying: until then its lock stands, as it should.
            for _ in range(400):
                self.attempt(message_id)
                if self.messages()[0].state != "en-attente":
                    return
            pytest.fail("the message never left")

    world = World()
    yield world
    for store in world.stores.values():
        store.close()


def test_a_kill_at_any_line_of_posting_keeps_message_and_nudge_together_or_neither(world):
    number, kept, lost = 0, 0, 0
    while True:
        number += 1
        world.forget()
        died = killed_before_line(number, world.post, TRACED)
        messages = world.messages()
        assert len(messages) == world.jobs()
        kept, lost = kept + len(messages), lost + (not messages)
        if not died:
            break
    assert lost > 5
    assert kept > 0
    world.post()
    assert len(world.messages()) == 1, "the same key again is the same message"


def test_a_kill_at_any_line_of_a_delivery_ends_in_one_copy_or_in_two_alike_that_are_told(world):
    number, doubled, told = 0, 0, 0
    while True:
        number += 1
        world.forget()
        world.post()
        (message,) = world.messages()
        died = killed_before_line(number, partial(world.attempt, message.id), TRACED)
        copies_at_death, open_at_death = len(world.operator.copies()), world.open_attempts()
        world.until_idle(message.id)
        (message,) = world.messages()
        copies = world.operator.copies()
        assert message.state == "envoye"
        assert {(copy["id"], copy["sha256"]) for copy in copies} == {("k", message.sha256)}
        assert world.open_attempts() == 0
        if copies_at_death and open_at_death:
            # Between the final dot and our record: nobody can know, so a second copy, byte for byte, and it is told.
            assert len(copies) == 2
            doubled += 1
        else:
            assert len(copies) == 1
        assert (message.uncertain_at is not None) == bool(open_at_death)
        told += message.uncertain_at is not None
        if not died:
            break
    assert number > 60, "the tracer saw the lines of one delivery"
    assert doubled > 0
    assert told > doubled


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kills=st.lists(st.integers(1, 110), max_size=4),
    answers=st.lists(st.sampled_from([Outcome.UNAVAILABLE, Outcome.UNCERTAIN, Outcome.DELIVERED]), max_size=3),
)
def test_kills_one_after_another_with_any_answers_never_lose_the_message(world, kills, answers):
    world.forget()
    world.post(content=os.urandom(64))
    (message,) = world.messages()
    for number in kills:
        killed_before_line(number, lambda: world.attempt(message.id, list(answers)), TRACED)
    world.until_idle(message.id)
    (message,) = world.messages()
    copies = world.operator.copies()
    assert {copy["sha256"] for copy in copies} <= {message.sha256}
    if message.state == "parque":  # five uncertain attempts: a person decides
        assert message.uncertain_at is not None
    else:
        assert message.state == "envoye"
        assert copies
    assert len(copies) == 1 or message.uncertain_at is not None


def test_what_a_killed_worker_left_is_nudged_by_the_sweep(world):
    world.post()
    (message,) = world.messages()
    with psycopg.connect(world.store().dsn, autocommit=True) as connection:
        connection.execute("UPDATE procrastinate_jobs SET status = 'doing'")
    assert killed_before_line(40, lambda: world.attempt(message.id), TRACED)
    assert world.sweep() == 1
