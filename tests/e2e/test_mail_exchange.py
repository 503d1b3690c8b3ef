"""The notification over real servers: an hour without an operator, a cut after the final dot, receipts, answers."""

from __future__ import annotations

import base64
import email
import email.policy
import smtplib
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import select, update

from gateway.exchange.delivery import Deliveries
from gateway.exchange.inbox import Inbox
from gateway.exchange.outbox import Outcome
from gateway.model.directory import Mailbox as Address
from gateway.model.dossier import Correspondent
from gateway.model.message import Attempt, Message, NotificationEntry, Receipt
from gateway.model.person import WorkItem
from gateway.model.store import utcnow
from gateway.mssante.account import Account
from gateway.mssante.channel import MssanteChannel
from gateway.mssante.connection import Timeouts
from gateway.mssante.intake import MailIntake
from gateway.mssante.mailbox import Mailbox
from gateway.mssante.submission import Submission
from gateway.mssante.translate import Composer
from gateway.rcp import mail_events, notification
from gateway.settings import MailServer
from gateway.transport import Tls
from tests.e2e import mail_servers as servers
from tests.e2e.mail_servers import mail_servers  # noqa: F401 (a fixture)
from tests.e2e.test_mail_wire import PATIENCE, Script
from tests.loopback import free_port
from tests.world import build

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

SENDS = datetime(2026, 3, 17, 7, 0, tzinfo=UTC)
LETTERS = Composer(address=servers.GATEWAY, nil="000000", name="RCP Sein")


@pytest.fixture
def scene(store, make_steps, blobs, trail, mail_servers):  # noqa: F811
    with store.session() as session:
        world = build(session)
        dossier = world.dossier()
        session.execute(update(Correspondent).values(since=SENDS - timedelta(days=8)))
        session.execute(
            update(Address).where(Address.practitioner_id == world.treating.id).values(address=servers.PHYSICIAN)
        )
        session.commit()
        made = SimpleNamespace(store=store, dossier=dossier.id, treating=world.treating.id)
    made.servers = mail_servers
    made.clock = SimpleNamespace(at=SENDS, now=lambda: made.clock.at)
    made.steps = make_steps(clock=made.clock)

    def settled(session, message):
        mail_events.after_delivery(session, message)

    def deliveries(port=None, security="starttls"):
        server = MailServer(
            "127.0.0.1", port or mail_servers.submission_port, security, servers.GATEWAY, servers.PASSWORD
        )
        if security == "plain":
            server = MailServer("127.0.0.1", port, "plain")
        channel = MssanteChannel(
            Submission(Account(server, Tls(authorities=mail_servers.authority.file)), timeouts=PATIENCE)
        )
        return Deliveries(store, blobs, trail, [channel], settled=settled)

    made.deliveries = deliveries
    made.intake = MailIntake(made.steps, address=servers.GATEWAY)
    made.inbox = Inbox(store, blobs, [made.intake])
    made.intake.attach(made.inbox)
    box = MailServer("127.0.0.1", mail_servers.imaps_port, "tls", servers.GATEWAY, servers.PASSWORD)
    made.mailbox = Mailbox(Account(box, Tls(authorities=mail_servers.authority.file)))
    return made


def rows(scene, model, *where):
    with scene.store.session() as session:
        return session.scalars(select(model).where(*where).order_by(model.id)).unique().all()


def the_letter(scene):
    [message] = rows(scene, Message, Message.direction == "out")
    return message


def an_hour_later(scene):
    """Let the backoff elapse by moving its instant, not by waiting."""
    with scene.store.session() as session:
        session.execute(update(Message).where(Message.direction == "out").values(not_before=utcnow()))
        session.commit()


def arrived(scene, user=servers.PHYSICIAN, count=1):
    name = the_letter(scene).message_id.encode()
    return scene.servers.wait_inbox(user, lambda content: b"Message-ID: <" + name in content, count=count)


def take(scene, match, count=1):
    """Read the gateway's mailbox once what is waited for lies in it."""
    scene.servers.wait_inbox(servers.GATEWAY, match, count=count)
    scene.mailbox.read(scene.intake)


@pytest.mark.req("S2-020", "S2-026", "S3-005")
def test_the_operator_is_down_for_an_hour_and_the_notification_leaves_once(scene):
    port = free_port()
    notification.plan_due(scene.steps, LETTERS)
    message = the_letter(scene)
    down = scene.deliveries(port)
    for _ in range(4):
        an_hour_later(scene)
        assert down.attempt(message.id) is Outcome.UNAVAILABLE
        notification.plan_due(scene.steps, LETTERS)  # the planner runs on meanwhile
    assert the_letter(scene).state == "en-attente"
    assert the_letter(scene).not_before > utcnow()
    an_hour_later(scene)
    with Relay(port, scene.servers.submission_port):
        assert down.attempt(message.id) is Outcome.DELIVERED
        assert down.attempt(message.id) is None
    [mail] = arrived(scene)
    assert mail.endswith(message.content)
    assert (
        email.message_from_bytes(mail, policy=email.policy.default)["subject"] == "Médecin – Notification préalable RCP"
    )
    assert the_letter(scene).state == "envoye"
    assert [attempt.outcome for attempt in rows(scene, Attempt)] == ["unavailable"] * 4 + ["delivered"]
    notification.plan_due(scene.steps, LETTERS)
    assert len(arrived(scene)) == 1


class Relay:
    """Passes bytes from one port to another: the operator's address, now alive."""

    def __init__(self, port, to):
        self.listening, self.to = socket.create_server(("127.0.0.1", port)), to

    def __enter__(self):
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listening.close()

    def _run(self):
        while True:
            try:
                here, _ = self.listening.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self.to))
            for source, sink in ((here, there), (there, here)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pass(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


def test_a_cut_after_the_final_dot_sends_the_same_bytes_again_and_says_so(scene):
    notification.plan_due(scene.steps, LETTERS)
    message = the_letter(scene)
    script = Script(at_dot=b"")
    assert scene.deliveries(script.port, "plain").attempt(message.id) is Outcome.UNCERTAIN
    assert the_letter(scene).uncertain_at is not None
    assert the_letter(scene).state == "en-attente"
    an_hour_later(scene)
    assert scene.deliveries().attempt(message.id) is Outcome.DELIVERED
    [mail] = arrived(scene)
    script.join(5)
    first = script.data.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
    assert first == message.content
    assert mail.endswith(first)


def test_the_delivery_report_is_tied_to_the_notification(scene):
    notification.plan_due(scene.steps, LETTERS)
    message = the_letter(scene)
    scene.deliveries().attempt(message.id)
    take(scene, lambda content: message.message_id.encode() in content)
    assert the_letter(scene).state == "accepte"
    [receipt] = rows(scene, Receipt)
    assert (receipt.kind, receipt.message_id) == ("remise", message.id)
    kept = [row for row in rows(scene, Message, Message.direction == "in") if row.dossier_id == scene.dossier]
    assert [(row.kind, row.state) for row in kept] == [("dsn", "traite")]
    before = len(rows(scene, Message))
    scene.mailbox.read(scene.intake)
    again = MailIntake(scene.steps, address=servers.GATEWAY)
    again.attach(Inbox(scene.store, scene.inbox._blobs, [again]))
    scene.mailbox.read(again)  # another process, after a restart
    assert len(rows(scene, Message)) == before
    assert len(rows(scene, Receipt)) == 1


def test_a_mailbox_that_does_not_exist_is_told_and_not_used_again(scene):
    with scene.store.session() as session:
        session.execute(update(Address).where(Address.address == servers.PHYSICIAN).values(address=servers.GONE))
        session.commit()
    notification.plan_due(scene.steps, LETTERS)
    message = the_letter(scene)
    assert scene.deliveries().attempt(message.id) is Outcome.DELIVERED
    take(scene, lambda content: message.message_id.encode() in content)
    assert the_letter(scene).state == "rejete"
    [box] = rows(scene, Address, Address.address == servers.GONE)
    assert box.unusable_since is not None
    [entry] = rows(scene, NotificationEntry)
    assert entry.code == "ECHEC"
    [item] = rows(scene, WorkItem, WorkItem.message_id == message.id)
    assert (item.reason, item.dossier_id) == ("envoi-rejete", scene.dossier)


def test_a_mailbox_refused_at_once_is_told(scene):
    with scene.store.session() as session:
        session.execute(update(Address).where(Address.address == servers.PHYSICIAN).values(address=servers.CLOSED))
        session.commit()
    notification.plan_due(scene.steps, LETTERS)
    assert scene.deliveries().attempt(the_letter(scene).id) is Outcome.REFUSED
    assert the_letter(scene).state == "refuse"
    assert rows(scene, NotificationEntry)[0].code == "ECHEC"
    assert [item.reason for item in rows(scene, WorkItem)] == ["envoi-refuse"]


def post(scene, content):
    """Let the physician write to the gateway's mailbox through the operator, as a mail program does."""
    context = ssl.create_default_context(cafile=str(scene.servers.authority.file))
    with smtplib.SMTP("127.0.0.1", scene.servers.submission_port) as smtp:
        smtp.starttls(context=context)
        smtp.login(servers.PHYSICIAN, servers.PASSWORD)
        smtp.sendmail(servers.PHYSICIAN, [servers.GATEWAY], content.encode())


def head(scene, name, *more):
    lines = [
        f"From: Paul Durant <{servers.PHYSICIAN}>",
        f"To: {servers.GATEWAY}",
        f"Message-ID: <{name}@medecin.mssante.example>",
        f"In-Reply-To: <{the_letter(scene).message_id}>",
        *more,
    ]
    return "\r\n".join(lines)


def test_what_physicians_send_back_is_kept_each_with_its_place(scene):
    notification.plan_due(scene.steps, LETTERS)
    message = the_letter(scene)
    scene.deliveries().attempt(message.id)
    arrived(scene)
    unique = message.message_id[:20]
    mdn = (
        head(scene, f"mdn-{unique}", "MIME-Version: 1.0", "Subject: Lu : Notification")
        + '\r\nContent-Type: multipart/report; report-type=disposition-notification; boundary="m"\r\n\r\n'
        "--m\r\nContent-Type: text/plain\r\n\r\nLu.\r\n"
        "--m\r\nContent-Type: message/disposition-notification\r\n\r\n"
        f"Final-Recipient: rfc822;{servers.PHYSICIAN}\r\nOriginal-Message-ID: <{message.message_id}>\r\n"
        "Disposition: manual-action/MDN-sent-manually; displayed\r\n\r\n--m--\r\n"
    )
    reply = head(scene, f"re-{unique}", "Subject: Re: Notification") + "\r\n\r\nMerci, je serai présent.\r\n"
    vacation = head(scene, f"abs-{unique}", "Auto-Submitted: auto-replied", "Subject: Absent") + "\r\n\r\nAbsent.\r\n"
    forged = mdn.replace(message.message_id, "autre@ailleurs.example").replace(f"mdn-{unique}", f"faux-{unique}")
    for mail in (mdn, reply, vacation, forged):
        post(scene, mail)
    take(scene, lambda content: f"{unique}@medecin.mssante.example".encode() in content, count=4)
    kept = {
        row.message_id.partition("-")[0]: row
        for row in rows(scene, Message, Message.direction == "in")
        if row.message_id and row.message_id.endswith(f"{unique}@medecin.mssante.example")
    }
    told = {name: (row.kind, row.state, row.reason) for name, row in kept.items()}
    assert told == {
        "mdn": ("mdn", "traite", None),
        "re": ("reply", "quarantaine", "reply"),
        "abs": ("automatic", "ignore", "automatic-answer"),
        "faux": ("mdn", "quarantaine", "receipt-of-nothing-sent"),
    }
    assert kept["re"].dossier_id == scene.dossier
    assert "Merci, je serai présent.".encode() in kept["re"].content
    assert the_letter(scene).state == "lu"
    assert {receipt.kind for receipt in rows(scene, Receipt)} >= {"lue"}
    items = {item.message_id: item for item in rows(scene, WorkItem)}
    assert items[kept["re"].id].dossier_id == scene.dossier
    assert kept["faux"].id in items
    assert kept["abs"].id not in items


def test_a_renumbered_mailbox_is_read_again_and_nothing_is_done_twice(scene):
    notification.plan_due(scene.steps, LETTERS)
    message = the_letter(scene)
    scene.deliveries().attempt(message.id)
    take(scene, lambda content: message.message_id.encode() in content)
    assert scene.intake.position() is not None
    before = scene.intake.position().uid_validity
    folder = scene.servers.directory / "dovecot" / "mail" / servers.GATEWAY
    for name in folder.glob("dovecot*"):
        name.unlink()  # as after a restore: the server gives new numbers
    while time.time() < before + 1:  # dovecot numbers a mailbox by the second in which it makes it
        time.sleep(0.05)
    scene.mailbox.read(scene.intake)
    assert scene.intake.position().uid_validity != before
    assert len(rows(scene, Receipt, Receipt.message_id == message.id)) == 1
    states = {row.state for row in rows(scene, Message, Message.direction == "in", Message.reason == "duplicate")}
    assert states == {"ignore"}
    assert the_letter(scene).state == "accepte"


def test_the_timeouts_of_production_follow_the_standard():
    assert Timeouts().final_answer_s >= 600  # RFC 5321 4.5.3.2.6: ten minutes


def test_one_mail_with_a_nul_in_its_headers_does_not_stop_those_that_follow(scene):
    """An encoded word carries what no server lets through in the clear, and no text of PostgreSQL holds it."""
    for name in ("a", "b"):
        word = base64.b64encode(f"<nul\0{name}@example.mssante.example>".encode()).decode()
        lines = [
            f"From: {servers.PHYSICIAN} (=?utf-8?B?{word}?=)",
            f"Message-ID: <nul-{name}@example.mssante.example>",
            f"To: {servers.GATEWAY}",
            "Subject: Bonjour",
        ]
        post(scene, "\r\n".join(lines) + "\r\n\r\nTexte.\r\n")
    take(scene, lambda content: b"nul-" in content, count=2)
    kept = rows(scene, Message, Message.direction == "in", Message.message_id.like("nul-%"))
    assert [(one.message_id, one.state) for one in kept] == [
        ("nul-a@example.mssante.example", "quarantaine"),
        ("nul-b@example.mssante.example", "quarantaine"),
    ]
    assert {one.sender for one in kept} == {"nula@example.mssante.example", "nulb@example.mssante.example"}
