"""The outcome table, row by row, over a real database."""

from __future__ import annotations

import threading
from datetime import timedelta

import msgspec
import psycopg
import pytest
from sqlalchemy import select

from gateway.errors import Fault, NotFound, Unavailable
from gateway.exchange.delivery import MAIL, PEER, Backoff, Deliveries
from gateway.exchange.outbox import Delivery, Outcome
from gateway.exchange.replaying import send_again
from gateway.model.audit import AuditLine
from gateway.model.message import Attempt, Message
from gateway.model.store import utcnow
from gateway.rcp.access import SYSTEM
from tests.unit.exchange.channels import Scripted, outgoing

AT_ONCE = {"mssante": Backoff((0.0,), 3600, 0.0), "pigeon": Backoff((0.0,), 3600, 0.0)}


@pytest.fixture
def make(store, blobs, trail):
    def deliveries(*channels, **options) -> Deliveries:
        return Deliveries(store, blobs, trail, channels, **{"backoff": AT_ONCE, **options})

    return deliveries


@pytest.fixture
def post(steps):
    def posted(**more):
        return steps.run(SYSTEM, lambda step: step.post(outgoing(**more))).id

    return posted


def row(store, message_id) -> Message:
    with store.session() as session:
        return session.get_one(Message, message_id)


def attempts(store, message_id) -> list[Attempt]:
    with store.session() as session:
        return list(
            session.scalars(select(Attempt).where(Attempt.message_id == message_id).order_by(Attempt.started_at))
        )


def jobs(store) -> list[tuple]:
    with psycopg.connect(store.dsn) as connection:
        return connection.execute(
            "SELECT args ->> 'message_id', status::text, scheduled_at FROM procrastinate_jobs "
            "WHERE task_name = 'deliver'"
        ).fetchall()


def open_attempt(store, message_id) -> None:
    """What a worker leaves that is killed while it sends."""
    with store.session() as session:
        session.add(Attempt(message_id=message_id))
        session.commit()


@pytest.mark.parametrize(
    ("outcome", "idempotent", "state", "uncertain"),
    [
        (Outcome.DELIVERED, True, "envoye", False),
        (Outcome.DELIVERED, False, "envoye", False),
        (Outcome.REFUSED, True, "refuse", False),
        (Outcome.REFUSED, False, "refuse", False),
        (Outcome.UNAVAILABLE, True, "en-attente", False),
        (Outcome.UNAVAILABLE, False, "en-attente", False),
        (Outcome.UNCERTAIN, True, "en-attente", True),
        (Outcome.UNCERTAIN, False, "parque", True),
    ],
)
def test_the_table_of_outcomes(store, make, post, outcome, idempotent, state, uncertain):
    message_id = post()
    assert make(Scripted([outcome], idempotent=idempotent)).attempt(message_id) is outcome
    message = row(store, message_id)
    assert (message.state, message.uncertain_at is not None, message.attempts) == (state, uncertain, 1)
    assert (message.done_at is None) == (state == "en-attente")
    assert [(each.outcome, each.ended_at is not None) for each in attempts(store, message_id)] == [(outcome, True)]


def test_each_attempt_sends_the_very_bytes_that_were_posted(store, make, post):
    content = bytes(range(256)) * 3
    channel = Scripted([Outcome.UNCERTAIN, Outcome.UNCERTAIN])
    message_id = post(content=content)
    while make(channel).attempt(message_id) is not Outcome.DELIVERED:
        pass
    assert channel.received == [content] * 3
    assert row(store, message_id).uncertain_at is not None


def test_bytes_beyond_64_kib_come_from_the_blob_store(store, make, post):
    content = b"x" * 70_000
    message_id = post(content=content)
    assert row(store, message_id).content is None
    channel = Scripted()
    make(channel).attempt(message_id)
    assert channel.received == [content]


def test_an_hour_without_the_operator_and_the_message_leaves_once_when_it_is_back(store, make, post):
    channel = Scripted([Outcome.UNAVAILABLE] * 12)
    message_id = post()
    while make(channel).attempt(message_id) is not Outcome.DELIVERED:
        assert row(store, message_id).state == "en-attente"
    assert len(channel.received) == 1
    assert row(store, message_id).uncertain_at is None
    assert row(store, message_id).attempts == 13


def test_the_next_attempt_is_not_before_the_pause_and_has_its_own_job(store, make, post):
    message_id = post()
    deliveries = make(Scripted([Outcome.UNAVAILABLE]), backoff={"mssante": Backoff((120.0,), 3600, 0.0)})
    began = utcnow()
    deliveries.attempt(message_id)
    message = row(store, message_id)
    assert began <= message.not_before - timedelta(seconds=120) <= utcnow()
    assert [at for name, _, at in jobs(store) if at is not None] == [message.not_before]
    assert deliveries.attempt(message_id) is None


def test_a_channel_may_count_attempts_and_stop(store, make, post):
    message_id = post()
    backoff = {"mssante": Backoff((0.0,), 3600, 0.0, attempts=3)}
    deliveries = make(Scripted([Outcome.UNAVAILABLE, Outcome.UNCERTAIN, Outcome.UNAVAILABLE]), backoff=backoff)
    states = []
    while deliveries.attempt(message_id) is not None:
        states.append(row(store, message_id).state)
    assert states == ["en-attente", "en-attente", "parque"]


def test_what_its_channel_held_back_is_no_attempt_and_comes_again_when_told(store, make, post):
    message_id = post()
    held = Delivery(Outcome.UNAVAILABLE, "throttled", "Débit.", 7.0, untried=True)
    deliveries = make(Scripted([held]), backoff={"mssante": Backoff((120.0,), 0, 0.0)})
    began = utcnow()
    deliveries.attempt(message_id)
    message = row(store, message_id)
    assert (message.state, message.attempts, attempts(store, message_id)) == ("en-attente", 0, [])
    assert began <= message.not_before - timedelta(seconds=7) <= utcnow()
    assert [at for name, _, at in jobs(store) if at is not None] == [message.not_before]


def test_pauses_follow_the_sheets_with_jitter():
    assert MAIL.pauses_s == (60, 300, 900, 1800, 3600)
    assert MAIL.give_up_s == 86_400
    assert PEER.pauses_s == (60, 300, 900, 3600)
    assert PEER.give_up_s == 7 * 86_400
    for policy in (MAIL, PEER):
        for attempt, pause in enumerate([*policy.pauses_s, policy.pauses_s[-1]], start=1):
            drawn = {policy.pause_s(attempt, None) for _ in range(50)}
            assert 0.8 * pause <= min(drawn) < max(drawn) <= 1.2 * pause
    assert MAIL.pause_s(1, 1800) == 1800
    assert MAIL.pause_s(1, 10**9) <= 3600 * 1.2, "a peer may not put a message off for ever"


def test_a_message_that_nobody_takes_for_a_day_is_parked(store, make, post):
    message_id = post()
    with store.session() as session:
        session.get_one(Message, message_id).created_at = utcnow() - timedelta(hours=25)
        session.commit()
    make(Scripted([Outcome.UNAVAILABLE]), backoff={}).attempt(message_id)
    assert row(store, message_id).state == "parque"


def test_uncertainty_that_repeats_is_parked_and_not_sent_for_ever(store, make, post):
    channel = Scripted([Outcome.UNCERTAIN] * 50)
    message_id = post()
    while make(channel).attempt(message_id) is not None:
        pass
    assert row(store, message_id).state == "parque"
    assert len(channel.received) == 5


def test_an_interrupted_attempt_is_sent_again_and_said_to_be_uncertain(store, make, post):
    message_id = post()
    open_attempt(store, message_id)
    channel = Scripted()
    assert make(channel).attempt(message_id) is Outcome.DELIVERED
    assert row(store, message_id).uncertain_at is not None
    assert [(each.outcome, each.code) for each in attempts(store, message_id)] == [
        ("uncertain", "interrupted"),
        ("delivered", "code-delivered"),
    ]


def test_an_interrupted_attempt_of_a_channel_that_repeats_is_a_persons_decision(store, make, post):
    message_id = post(channel="pigeon")
    open_attempt(store, message_id)
    channel = Scripted(name="pigeon", idempotent=False)
    assert make(channel).attempt(message_id) is Outcome.UNCERTAIN
    assert channel.received == []
    assert row(store, message_id).state == "parque"


def test_a_defect_of_the_channel_counts_as_uncertain_and_its_text_stays_out_of_the_row(store, make, post):
    message_id = post()
    make(Scripted([ValueError("DUPONT Jeanne")])).attempt(message_id)
    message = row(store, message_id)
    assert (message.state, message.reason, message.uncertain_at is not None) == ("en-attente", "channel-fault", True)
    assert "DUPONT" not in str([(each.code, each.reason) for each in attempts(store, message_id)])


def test_a_channel_that_raises_unavailable_did_nothing(store, make, post):
    message_id = post()
    assert make(Scripted([Unavailable("mail-down", "…")])).attempt(message_id) is Outcome.UNAVAILABLE
    assert row(store, message_id).uncertain_at is None


def test_bytes_that_changed_since_are_not_sent(store, make, post):
    message_id = post()
    with store.session() as session:
        session.get_one(Message, message_id).content = b"From: a\r\n\r\nautre chose\r\n"
        session.commit()
    channel = Scripted()
    assert make(channel).attempt(message_id) is Outcome.REFUSED
    assert channel.received == []
    assert row(store, message_id).reason == "content-altered"


def test_a_blob_store_that_does_not_answer_delays_a_lost_blob_refuses(store, make, post, blobs, monkeypatch):
    message_id = post(content=b"x" * 70_000)

    def fail(error):
        def read(key):
            raise error

        return read

    monkeypatch.setattr(blobs, "read", fail(Unavailable("blob-store", "…")))
    assert make(Scripted()).attempt(message_id) is Outcome.UNAVAILABLE
    assert row(store, message_id).state == "en-attente"
    monkeypatch.setattr(blobs, "read", fail(Fault("blob-missing", "…")))
    assert make(Scripted()).attempt(message_id) is Outcome.REFUSED


def test_a_message_of_another_process_s_channel_is_left_alone(store, make, post):
    message_id = post(channel="fhir")
    assert make(Scripted()).attempt(message_id) is None
    assert row(store, message_id).attempts == 0


@pytest.mark.parametrize("state", ["envoye", "refuse", "parque", "annule", "lu"])
def test_what_is_settled_is_not_sent(store, make, post, state):
    message_id = post()
    with store.session() as session:
        session.get_one(Message, message_id).state = state
        session.commit()
    channel = Scripted()
    assert make(channel).attempt(message_id) is None
    assert channel.received == []


@pytest.mark.parametrize(("meanwhile", "then"), [("lu", "lu"), ("rejete", "rejete"), ("annule", "envoye")])
def test_what_a_receipt_said_meanwhile_stays(store, make, post, meanwhile, then):
    message_id = post()

    class Quick(Scripted):
        def deliver(self, message, content):
            with store.session() as session:  # the row is not locked while the channel works
                session.get_one(Message, message.id).state = meanwhile
                session.commit()
            return super().deliver(message, content)

    make(Quick()).attempt(message_id)
    assert row(store, message_id).state == then


def test_a_slow_peer_holds_neither_the_row_nor_the_horizon(store, make, post):
    message_id = post()
    seen = {}

    class Slow(Scripted):
        def deliver(self, message, content):
            with psycopg.connect(store.dsn) as connection:
                seen["row"] = connection.execute(
                    "SELECT state FROM message WHERE id = %s FOR UPDATE NOWAIT", (message.id,)
                ).fetchone()
                seen["horizon"] = connection.execute(
                    "SELECT pg_snapshot_xmin(pg_current_snapshot()) >= pg_current_xact_id()"
                ).fetchone()
            return super().deliver(message, content)

    make(Slow()).attempt(message_id)
    assert seen == {"row": ("en-attente",), "horizon": (True,)}


def test_two_workers_at_once_send_once(store, make, post):
    ids = [post(key=f"k{number}") for number in range(6)]
    channel = Scripted()
    gate = threading.Barrier(4)

    def work() -> None:
        deliveries = make(channel)
        gate.wait()
        for message_id in ids:
            deliveries.attempt(message_id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Whoever finds a message taken leaves it to the one who has it.
    assert len(channel.received) == 6
    assert {row(store, message_id).state for message_id in ids} == {"envoye"}
    assert {row(store, message_id).attempts for message_id in ids} == {1}


def test_the_sweep_nudges_what_has_no_job_and_only_that(store, make, post):
    first, second, third = (post(key=f"k{number}") for number in range(3))
    with psycopg.connect(store.dsn) as connection:
        connection.execute("DELETE FROM procrastinate_jobs WHERE args ->> 'message_id' = %s", (str(first),))
        connection.execute(
            "UPDATE procrastinate_jobs SET status = 'doing' WHERE args ->> 'message_id' = %s", (str(second),)
        )
    assert make().sweep() == 2, "a lost job, and one whose worker may be dead"
    assert make().sweep() == 0
    assert {name for name, status, _ in jobs(store) if status == "todo"} == {str(first), str(second), str(third)}


def test_the_sweep_leaves_what_is_settled_or_not_due(store, make, post):
    settled, later = post(key="a"), post(key="b")
    with store.session() as session:
        session.get_one(Message, settled).state = "envoye"
        session.get_one(Message, later).not_before = utcnow() + timedelta(hours=1)
        session.commit()
    with psycopg.connect(store.dsn) as connection:
        connection.execute("DELETE FROM procrastinate_jobs")
    assert make().sweep() == 0


@pytest.mark.parametrize("state", ["parque", "refuse", "envoye"])
def test_a_replay_sends_the_same_bytes_again(store, make, post, state):
    message_id = post()
    with store.session() as session:
        message = session.get_one(Message, message_id)
        message.state, message.created_at = state, utcnow() - timedelta(days=30)
        session.commit()
    channel = Scripted([Outcome.UNAVAILABLE])
    deliveries = make(channel)
    with store.session() as session:
        send_again(session, message_id)
        session.commit()
    assert deliveries.attempt(message_id) is Outcome.UNAVAILABLE
    assert row(store, message_id).state == "en-attente", "a replay has its own day before it gives up"
    assert deliveries.attempt(message_id) is Outcome.DELIVERED
    assert channel.received == [row(store, message_id).content]
    assert row(store, message_id).details["replays"] == 1


def test_what_is_no_outgoing_message_cannot_be_replayed(store):
    import uuid

    with store.session() as session, pytest.raises(NotFound):
        send_again(session, uuid.uuid4())


def test_the_trail_says_where_which_bytes_went(store, make, post):
    message_id = post()
    make(Scripted([Outcome.UNAVAILABLE])).attempt(message_id)
    make(Scripted()).attempt(message_id)
    with store.session() as session:
        lines = [msgspec.json.decode(line.payload) for line in session.scalars(select(AuditLine))]
    assert [(line["event"], line["recipient"], line["object_sha256"]) for line in lines] == [
        ("envoi", "b@y", row(store, message_id).sha256)
    ]


def test_whoever_follows_the_outcome_is_asked_in_the_same_transaction(store, make, post):
    message_id = post()
    seen = []

    def settled(session, message):
        seen.append((message.id, message.state))
        if len(seen) == 1:
            message.kind = "undone"
            session.flush()
            raise psycopg_error

    import sqlalchemy

    psycopg_error = sqlalchemy.exc.OperationalError("", {}, psycopg.errors.DeadlockDetected())
    channel = Scripted()
    make(channel, settled=settled).attempt(message_id)
    assert seen == [(message_id, "envoye")] * 2
    assert row(store, message_id).kind == "M1"
    assert len(channel.received) == 1


def test_a_peer_that_says_when_to_come_back_is_believed(store, make, post):
    message_id = post()
    told = Delivery(Outcome.UNAVAILABLE, "451", None, retry_after_s=600)
    began = utcnow()
    make(Scripted([told]), backoff={}).attempt(message_id)
    assert row(store, message_id).not_before - began >= timedelta(seconds=600)
