"""What follows a mail after it left, on a real database: states, lost addresses, questions, silence."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import make_transient

from gateway.errors import InvalidContent
from gateway.exchange.delivery import Deliveries
from gateway.exchange.outbox import Delivery, Outcome
from gateway.identifiers import uuid7
from gateway.model.directory import Mailbox
from gateway.model.dossier import Correspondent
from gateway.model.meeting import Rcp
from gateway.model.message import Message, NotificationEntry, Receipt
from gateway.model.person import WorkItem
from gateway.mssante.translate import Composer
from gateway.rcp import access, deadlines, mail_events, notification
from tests.world import build

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

# Tuesday 17 March 2026, 08:00 in Paris: two working days before the world's meeting.
SENDS = datetime(2026, 3, 17, 7, 0, tzinfo=UTC)
LETTERS = Composer(address="rcp@3c.mssante.example", nil="000000", name="RCP Sein")
NUMBERS = itertools.count(1)


class Operator:
    """A way out that answers as it is told."""

    name, idempotent = "mssante", True

    def __init__(self):
        self.answer = Delivery(Outcome.DELIVERED, "accepted", facts={"dsn": True, "queue_id": "4XyZ"})

    def deliver(self, _message, _content):
        return self.answer


@pytest.fixture
def scene(store, make_steps, blobs, trail):
    with store.session() as session:
        world = build(session)
        dossier = world.dossier()
        session.execute(update(Correspondent).values(since=SENDS - timedelta(days=8)))
        session.commit()
        made = SimpleNamespace(
            store=store, dossier=dossier.id, treating=world.treating.id, network=world.network.id, rcp=world.rcp.id
        )
    made.clock = SimpleNamespace(at=SENDS, now=lambda: made.clock.at)
    made.steps = make_steps(clock=made.clock)
    made.operator = Operator()

    def settled(session, message):
        mail_events.after_delivery(session, message)

    made.deliveries = Deliveries(store, blobs, trail, [made.operator], settled=settled)
    return made


def rows(scene, model, *where):
    with scene.store.session() as session:
        return session.scalars(select(model).where(*where).order_by(model.id)).unique().all()


def letter(scene):
    [found] = rows(scene, Message, Message.direction == "out")
    return found


def send(scene, answer=None):
    """Let the notification leave; the operator answers."""
    if answer is not None:
        scene.operator.answer = answer
    notification.plan_due(scene.steps, LETTERS)
    scene.deliveries.attempt(letter(scene).id)
    return letter(scene).id


def arrive(scene, message_id, kind, *, source=None, **said):
    """Let a report come; the same source is the same mail."""

    def verb(step):
        mail = step.session.get(Message, source) if source else None
        if mail is None:
            number = next(NUMBERS)
            mail = Message(
                direction="in",
                channel="mssante",
                kind="dsn",
                key=f"1.{number}",
                content=b"",
                sha256=f"{number:064d}",
                size_bytes=0,
                state="garde",
                domain_at=step.now,
            )
            step.session.add(mail)
            step.session.flush()
        mail_events.take_receipt(step, step.session.get_one(Message, message_id), mail, kind, **said)
        return mail.id

    return scene.steps.run(access.SYSTEM, verb)


def questions(scene, *, open_only=True):
    found = rows(scene, WorkItem, *([WorkItem.closed_at.is_(None)] if open_only else []))
    return sorted(item.reason for item in found)


def address(scene):
    [found] = rows(scene, Mailbox, Mailbox.practitioner_id == scene.treating)
    return found


@pytest.mark.parametrize(
    ("kinds", "state", "asked"),
    [
        (("remise", "lue"), "lu", []),
        (("remise", "rejetee"), "rejete", ["envoi-rejete"]),
        (("lue", "rejetee"), "lu", ["envoi-rejete"]),
        (("supprimee", "lue"), "lu", []),
        (("remise", "refusee"), "rejete", ["envoi-non-integre"]),
        (("retardee", "remise", "traitee"), "traite", []),
        (("supprimee",), "supprime", ["envoi-supprime"]),
        (("supprimee", "rejetee"), "rejete", ["envoi-rejete"]),
    ],
)
def test_receipts_in_each_order_leave_one_state_and_the_same_questions(scene, kinds, state, asked):
    sent = send(scene)
    for order in itertools.permutations(kinds):
        with scene.store.session() as session:
            session.execute(text("DELETE FROM receipt"))
            session.execute(text("DELETE FROM work_item"))
            session.execute(update(Message).where(Message.id == sent).values(state="envoye"))
            session.commit()
        for kind in order:
            source = arrive(scene, sent, kind)
            arrive(scene, sent, kind, source=source)  # the same report twice
        assert (letter(scene).state, questions(scene)) == (state, asked), order
        assert sorted(one.kind for one in rows(scene, Receipt)) == sorted(kinds)


def test_two_workers_that_take_two_reports_at_once_lose_neither(scene):
    sent = send(scene)
    both = [threading.Thread(target=arrive, args=(scene, sent, kind)) for kind in ("lue", "remise")]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert letter(scene).state == "lu"
    assert {one.kind for one in rows(scene, Receipt)} == {"lue", "remise"}


@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        (Delivery(Outcome.REFUSED, "smtp-550", facts={"at_recipient": True}), True),
        (Delivery(Outcome.REFUSED, "smtp-551", facts={"at_recipient": True}), True),
        (Delivery(Outcome.REFUSED, "smtp-553", facts={"at_recipient": True}), True),
        (Delivery(Outcome.REFUSED, "smtp-550 5.2.1", facts={"at_recipient": True}), True),
        (Delivery(Outcome.REFUSED, "smtp-550 5.1.1", facts={"at_recipient": False}), True),
        # The same number after the content or for the sender says nothing of the address.
        (Delivery(Outcome.REFUSED, "smtp-550", facts={"at_recipient": False}), False),
        (Delivery(Outcome.REFUSED, "smtp-550 5.7.1", facts={"at_recipient": True}), False),
        (Delivery(Outcome.REFUSED, "smtp-552 5.2.2", facts={"at_recipient": True}), False),
        (Delivery(Outcome.REFUSED, "smtp-554", facts={"at_recipient": True}), False),
    ],
)
def test_an_address_refused_for_good_is_used_no_more(scene, answer, lost):
    send(scene, answer)
    assert letter(scene).state == "refuse"
    assert (address(scene).unusable_since is not None) is lost
    [item] = rows(scene, WorkItem)
    assert (item.reason, item.details.get("adresse")) == ("envoi-refuse", "perdue" if lost else None)
    assert (item.dossier_id, item.network_id) == (scene.dossier, scene.network)
    assert rows(scene, NotificationEntry)[0].code == "ECHEC"


@pytest.mark.parametrize(
    ("kind", "said", "lost"),
    [
        ("rejetee", {"status": "5.1.1", "code": "550"}, True),
        ("rejetee", {"status": "5.7.1", "code": "550"}, False),
        ("rejetee", {"status": "5.2.2", "code": "552"}, False),
        ("refusee", {"code": "902"}, False),
        ("retardee", {"status": "4.4.1"}, False),
    ],
)
def test_a_late_bounce_counts_as_the_refusal_at_once(scene, kind, said, lost):
    arrive(scene, send(scene), kind, **said)
    assert (address(scene).unusable_since is not None) is lost


def test_what_the_operator_says_besides_stays_with_the_mail(scene):
    send(scene)
    assert {name: letter(scene).details[name] for name in ("dsn", "queue_id", "mdn")} == {
        "dsn": True,
        "queue_id": "4XyZ",
        "mdn": True,
    }


def test_a_report_finds_its_mail_by_an_index_in_a_plan_for_any_value(scene):
    sent = send(scene)
    mail = letter(scene)
    with scene.store.session() as session:
        for names in ({"message_id": mail.message_id, "envelope_id": None}, {"message_id": "x", "envelope_id": "y"}):
            found = mail_events.find_sent(session, **names)
            assert (found.id if found else None) == (sent if names["message_id"] == mail.message_id else None)
        envelope = mail.details["envelope_id"]
        assert mail_events.find_sent(session, message_id=None, envelope_id=envelope).id == sent
        [statement] = mail_events.sent_by(message_id=None, envelope_id=envelope)
        compiled = statement.compile(session.get_bind())
        plain = str(compiled)
        for number, name in enumerate(compiled.params, 1):
            plain = plain.replace(f"%({name})s::VARCHAR", f"${number}").replace(f"%({name})s", f"${number}")
        session.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
        session.execute(text("SET LOCAL enable_seqscan = off"))
        session.execute(text(f"PREPARE found ({', '.join(['text'] * len(compiled.params))}) AS {plain}"))
        given = ", ".join(["'x'"] * len(compiled.params))
        plan = " ".join(session.scalars(text(f"EXPLAIN EXECUTE found ({given})")))
    assert "ix_message_envelope" in plan
    assert "Index Cond: ((details ->> 'envelope_id'" in plan


def silent(scene, at):
    scene.clock.at = at
    return deadlines.settle_due(scene.steps)


NOON = datetime(2026, 3, 17, 11, 0, tzinfo=UTC)


@pytest.mark.req("S2-004")
def test_a_notification_without_news_for_four_working_hours_is_told_once(scene):
    send(scene)
    due = letter(scene).receipt_due_at
    assert NOON <= due < NOON + timedelta(minutes=5)  # the attempt took its time
    assert silent(scene, due - timedelta(seconds=1)) == 0
    assert letter(scene).state == "envoye"
    assert silent(scene, due) == 1
    assert silent(scene, due + timedelta(hours=1)) == 0
    assert (letter(scene).state, questions(scene)) == ("sans-nouvelle", ["sans-nouvelle"])
    arrive(scene, letter(scene).id, "remise")
    assert (letter(scene).state, questions(scene)) == ("accepte", [])
    [item] = rows(scene, WorkItem)
    assert (item.closed_by, item.decision) == ("rcp-gateway", "nouvelle-recue")


@pytest.mark.parametrize("kind", ["retardee", "relayee"])
def test_a_delay_is_no_news_of_delivery(scene, kind):
    sent = send(scene)
    arrive(scene, sent, kind)
    assert silent(scene, NOON + timedelta(hours=2)) == 1
    assert letter(scene).state == "sans-nouvelle"


def test_a_mail_of_which_news_came_is_left_alone(scene):
    arrive(scene, send(scene), "remise")
    assert silent(scene, NOON + timedelta(days=30)) == 0
    assert (letter(scene).state, questions(scene), letter(scene).receipt_due_at) == ("accepte", [], None)


def test_an_operator_without_delivery_reports_lets_nobody_wait(scene):
    send(scene, Delivery(Outcome.DELIVERED, "accepted", facts={"dsn": False}))
    assert letter(scene).receipt_due_at is None
    assert silent(scene, NOON + timedelta(days=30)) == 0
    assert letter(scene).state == "envoye"


def test_a_setting_that_nobody_can_read_stops_no_mail(scene):
    notification.plan_due(scene.steps, LETTERS)
    with scene.store.session() as session:
        session.execute(update(Rcp).values(notification={"active": True, "fermetures": ["hier"]}))
        session.commit()
    scene.deliveries.attempt(letter(scene).id)
    assert letter(scene).state == "envoye"
    assert letter(scene).receipt_due_at is not None


def as_report(scene, **details):
    """Make the mail that left that of a report."""
    sent = send(scene)
    with scene.store.session() as session:
        message = session.get_one(Message, sent)
        message.kind, message.details = "M6", {**message.details, **details}
        session.flush()
        mail_events.after_delivery(session, message)
        session.commit()
    return sent


DAY = timedelta(days=1)


def test_a_report_that_is_not_delivered_in_two_days_is_told(scene):
    as_report(scene)
    assert silent(scene, SENDS + 2 * DAY - timedelta(minutes=1)) == 0
    assert silent(scene, SENDS + 2 * DAY + timedelta(minutes=5)) == 1
    assert (letter(scene).state, questions(scene)) == ("sans-nouvelle", ["sans-nouvelle"])


def test_a_report_that_is_delivered_and_not_read_in_a_week_is_told(scene):
    sent = as_report(scene)
    arrive(scene, sent, "remise")
    assert silent(scene, SENDS + 3 * DAY) == 0
    assert silent(scene, SENDS + 8 * DAY) == 1
    # That it was delivered stays true.
    assert (letter(scene).state, questions(scene)) == ("accepte", ["sans-lecture"])
    arrive(scene, sent, "lue")
    assert (letter(scene).state, questions(scene)) == ("lu", [])


def test_a_read_receipt_that_was_not_asked_for_is_not_missed(scene):
    sent = as_report(scene, mdn=False)
    arrive(scene, sent, "remise")
    assert silent(scene, SENDS + 30 * DAY) == 0


def test_a_worker_that_was_down_for_weeks_asks_once(scene):
    as_report(scene)
    assert silent(scene, SENDS + 30 * DAY) == 1
    assert silent(scene, SENDS + 31 * DAY) == 0
    assert questions(scene) == ["sans-nouvelle"]


def test_a_silence_that_cannot_be_told_holds_no_other(scene, monkeypatch):
    as_report(scene)
    with scene.store.session() as session:
        first = session.scalars(select(Message).where(Message.direction == "out")).one()
        told, due = first.id, first.receipt_due_at
        session.expunge(first)
        for number in range(3):
            make_transient(first)
            first.id, first.key, first.message_id = uuid7(), f"autre-{number}", f"autre-{number}@x"
            first.receipt_due_at = due - timedelta(minutes=number + 1)
            session.add(first)
            session.flush()
            session.expunge_all()
        session.commit()
    settle = deadlines.settle

    def failing(step, message_id):
        if message_id != told:
            raise InvalidContent("essai", "Celui-ci ne peut pas être dit.")
        return settle(step, message_id)

    monkeypatch.setattr(deadlines, "settle", failing)
    scene.clock.at = SENDS + 30 * DAY
    assert deadlines.settle_due(scene.steps, limit=2) == 1


def test_two_workers_tell_a_silence_once(scene):
    send(scene)
    scene.clock.at = NOON + timedelta(hours=1)
    told = []
    both = [threading.Thread(target=lambda: told.append(deadlines.settle_due(scene.steps))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert sum(told) == 1
    with scene.store.session() as session:
        assert session.scalar(select(func.count()).select_from(WorkItem)) == 1
