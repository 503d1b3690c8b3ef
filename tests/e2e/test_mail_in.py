"""What physicians send to the gateway's mailbox, through Debian's postfix and dovecot: replies become contributions."""

from __future__ import annotations

import email
import email.policy
import imaplib
import smtplib
import ssl
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from gateway.exchange.inbox import Inbox
from gateway.exchange.outbox import Outcome
from gateway.model.directory import Mailbox as Address
from gateway.model.dossier import Contribution
from gateway.model.message import Message
from gateway.mssante.intake import MailIntake
from gateway.mssante.translate import Composer
from gateway.rcp import notification
from tests.e2e import mail_servers as servers
from tests.e2e.mail_servers import mail_servers  # noqa: F401 (a fixture)
from tests.e2e.test_mail_exchange import rows, scene  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

LETTERS = Composer(address=servers.GATEWAY, nil="000000", name="RCP Sein", answers_read=True)


@pytest.fixture
def notified(scene):  # noqa: F811
    """The physician has his notification, at an address of MSSanté, and the mailbox is read with answers."""
    with scene.store.session() as session:
        session.execute(
            update(Address).where(Address.practitioner_id == scene.treating).values(address=servers.TREATING)
        )
        session.commit()
    scene.intake = MailIntake(scene.steps, address=servers.GATEWAY, letters=LETTERS)
    scene.inbox = Inbox(scene.store, scene.inbox._blobs, [scene.intake])
    scene.intake.attach(scene.inbox)
    notification.plan_due(scene.steps, LETTERS)
    [scene.notice] = rows(scene, Message, Message.kind == "M1")
    assert scene.deliveries().attempt(scene.notice.id) is Outcome.DELIVERED
    [scene.received] = delivered(scene, servers.TREATING, scene.notice.message_id)
    return scene


def delivered(scene, user, identifier):  # noqa: F811
    name = f"Message-ID: <{identifier}>".encode()
    return scene.servers.wait_inbox(user, lambda content: name in content)


def send(scene, user, content):  # noqa: F811
    """Write to the gateway through the operator, as a mail program does; the envelope is the user's own."""
    context = ssl.create_default_context(cafile=str(scene.servers.authority.file))
    with smtplib.SMTP("127.0.0.1", scene.servers.submission_port) as smtp:
        smtp.starttls(context=context)
        smtp.login(user, servers.PASSWORD)
        smtp.sendmail(user, [servers.GATEWAY], content)


def answer(scene, name, text, *more, sender=servers.TREATING):  # noqa: F811
    """A reply as a mail program writes it, with the very mail that came quoted below."""
    came = email.message_from_bytes(scene.received, policy=email.policy.default)
    quoted = "\r\n".join(f"> {line}" for line in came.get_content().splitlines())
    heads = [
        f"From: Paul Durant <{sender}>",
        f"To: {came['Reply-To'] or came['From']}",
        f"Subject: Re: {came['Subject']}",
        f"Message-ID: <{name}-{scene.notice.message_id[:20]}@cabinet.mssante.fr>",
        f"In-Reply-To: {came['Message-ID']}",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        *more,
    ]
    body = f"{text}\r\n\r\nLe 17/03/2026 à 08:00, RCP Sein a écrit :\r\n{quoted}\r\n\r\n-- \r\nDr Paul DURANT"
    policy = email.policy.SMTP.clone(cte_type="8bit", max_line_length=0)
    return email.message_from_bytes(("\r\n".join(heads) + "\r\n\r\n" + body).encode(), policy=policy).as_bytes()


def read(scene, *names):  # noqa: F811
    """Read the gateway's mailbox once those mails lie in it; the kept rows, by name."""
    for name in names:
        delivered(scene, servers.GATEWAY, f"{name}-{scene.notice.message_id[:20]}@cabinet.mssante.fr")
    scene.mailbox.read(scene.intake)
    kept = rows(scene, Message, Message.direction == "in", Message.message_id.like("%@cabinet.mssante.fr"))
    return {row.message_id.partition("-")[0]: row for row in kept}


def test_a_reply_becomes_a_contribution_and_its_author_is_told(notified):
    send(notified, servers.TREATING, answer(notified, "re", "Patiente fatiguée,\r\nvit seule."))
    send(notified, servers.TREATING, answer(notified, "abs", "Absent.", "Auto-Submitted: auto-replied"))
    send(notified, servers.STRANGER, answer(notified, "faux", "Je suis lui."))
    send(notified, servers.STRANGER, answer(notified, "autre", "Moi aussi.", sender=servers.STRANGER))
    kept = read(notified, "re", "abs", "faux", "autre")
    assert {name: (row.state, row.reason) for name, row in kept.items()} == {
        "re": ("traite", None),
        "abs": ("ignore", "automatic-answer"),
        "faux": ("quarantaine", "expediteur-douteux"),
        "autre": ("quarantaine", "adresse-non-notifiee"),
    }
    [said] = rows(notified, Contribution)
    assert (said.text, said.channel, said.author_id) == (
        "Patiente fatiguée,\nvit seule.",
        "messagerie",
        notified.treating,
    )
    answers = rows(notified, Message, Message.direction == "out", Message.kind.in_(("M7", "M8")))
    assert sorted((one.kind, one.recipient) for one in answers) == [
        ("M7", servers.TREATING),
        ("M8", servers.STRANGER),
    ]
    for one in answers:
        assert notified.deliveries().attempt(one.id) is Outcome.DELIVERED
        [mail] = delivered(notified, one.recipient, one.message_id)
        assert b"Auto-Submitted: auto-generated" in mail
        assert b"PAT-TROIS" not in mail


HOSTILE = {
    "a word whose base64 is none": b"From: a@b.example\r\nSubject: =?utf-8?B?a?=\r\n\r\nx",
    "half a character in an address": b"From: =?utf-7?q?+2AA-x=40b.example?=\r\nSubject: x\r\n\r\nx",
    "an identifier that no index holds": b"From: a@b.example\r\nMessage-ID: <"
    + b"".join(b"%x" % (n * 7919) for n in range(3000))
    + b"@b.example>\r\n\r\nx",
    "a sender of brackets": b"From: " + b"(" * 200_000 + b"\r\n\r\nx",
    "parts within parts": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(300)
    )
    + b"\r\n"
    + b"a\r\n" * 800_000,
}


def test_no_mail_stops_those_that_come_after_it(notified):
    context = ssl.create_default_context(cafile=str(notified.servers.authority.file))
    with imaplib.IMAP4_SSL("127.0.0.1", notified.servers.imaps_port, ssl_context=context) as imap:
        imap.login(servers.GATEWAY, servers.PASSWORD)
        for content in HOSTILE.values():
            assert imap.append("INBOX", None, None, content)[0] == "OK"
    send(notified, servers.TREATING, answer(notified, "apres", "Vit seule."))
    assert read(notified, "apres")["apres"].state == "traite"
    assert [one.text for one in rows(notified, Contribution)] == ["Vit seule."]
    kept = rows(notified, Message, Message.direction == "in", Message.state == "quarantaine")
    assert sorted(len(content) for content in HOSTILE.values()) == sorted(
        one.size_bytes for one in kept if one.size_bytes in {len(content) for content in HOSTILE.values()}
    )


def test_a_process_killed_after_it_kept_the_reply_loses_and_doubles_nothing(notified, monkeypatch):
    send(notified, servers.TREATING, answer(notified, "tue", "Vit seule."))
    with monkeypatch.context() as killed:
        killed.setattr(notified.inbox, "process", lambda _: False)  # the process ends between keeping and its step
        assert read(notified, "tue")["tue"].state == "garde"
    assert not rows(notified, Contribution)
    with notified.store.session() as session:
        kept = session.scalars(select(Message).where(Message.state == "garde", Message.direction == "in")).all()
        for one in kept:
            one.created_at -= timedelta(minutes=5)
        session.commit()
    again = MailIntake(notified.steps, address=servers.GATEWAY, letters=LETTERS)
    inbox = Inbox(notified.store, notified.inbox._blobs, [again])
    again.attach(inbox)
    inbox.sweep()
    notified.mailbox.read(again)
    assert read(notified, "tue")["tue"].state == "traite"
    assert [one.text for one in rows(notified, Contribution)] == ["Vit seule."]
    assert len(rows(notified, Message, Message.kind == "M7")) == 1
