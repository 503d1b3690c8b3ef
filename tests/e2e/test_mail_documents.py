"""A document that comes by the operator's mail is answered once, to whom asked, and by nobody in turn."""

from __future__ import annotations

import email
import email.policy
from datetime import timedelta
from email.message import EmailMessage

import pytest

from gateway.exchange.inbox import Inbox
from gateway.exchange.outbox import Outcome
from gateway.exchange.replaying import read_again
from gateway.model.message import Message
from gateway.model.received import ReceivedDocument
from gateway.mssante.intake import MailIntake
from gateway.mssante.mdn import Answering
from gateway.rcp import identity
from tests import xdm_samples
from tests.e2e import mail_servers as servers
from tests.e2e.mail_servers import mail_servers  # noqa: F401 (a fixture)
from tests.e2e.test_mail_exchange import rows, scene  # noqa: F401 (a fixture)
from tests.e2e.test_mail_in import send
from tests.world import build

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

SENDER = servers.TREATING
ARCHIVE = xdm_samples.zipped(xdm_samples.valid())
TRAITS = identity.traits_key("PAT-TROIS", "DOMINIQUE", "1979-03-28", "F")
KNOWN = {"match_key": TRAITS, "ins_system": "urn:oid:1.2.250.1.213.1.4.10", "ins_value": "279035121518989"}


@pytest.fixture
def reading(scene):  # noqa: F811
    """The gateway's mailbox is read with the answers of documents."""
    scene.restarted = lambda: _intake(scene)
    scene.intake, scene.inbox = _intake(scene)
    return scene


def _intake(scene):  # noqa: F811
    blobs = scene.inbox._blobs
    intake = MailIntake(
        scene.steps, address=servers.GATEWAY, blobs=blobs, answering=Answering(servers.GATEWAY, "000000", "RCP Sein")
    )
    inbox = Inbox(scene.store, blobs, [intake])
    return intake.attach(inbox), inbox


def patient(scene):  # noqa: F811
    with scene.store.session() as session:
        build(session).record(**KNOWN, ins_qualified=True)
        session.commit()


def document(name, *, asks=SENDER, archive=ARCHIVE, **heads):
    made = EmailMessage(policy=email.policy.SMTP)
    made["From"], made["To"] = f"Paul Durant <{SENDER}>", servers.GATEWAY
    made["Message-ID"] = f"<{name}@cabinet.mssante.fr>"
    made["Subject"] = "XDM/1.0/DDM+CR de réunion PAT-TROIS DOMINIQUE 28/03/1979"
    if asks is not None:
        made["Disposition-Notification-To"] = f"<{asks}>"
    for head, value in heads.items():
        made[head.replace("_", "-")] = value
    made.set_content("Un document.")
    made.add_attachment(archive, maintype="application", subtype="zip", filename="IHE_XDM.zip")
    return made.as_bytes()


def read(scene, *names):  # noqa: F811
    """Read the gateway's mailbox once the mails of these names lie in it; return what became of each."""
    wanted = [f"Message-ID: <{name}@cabinet.mssante.fr>".encode() for name in names]
    scene.servers.wait_inbox(servers.GATEWAY, lambda content: any(one in content for one in wanted), count=len(names))
    scene.mailbox.read(scene.intake)
    ids = [f"{name}@cabinet.mssante.fr" for name in names]
    return [row for row in rows(scene, Message, Message.direction == "in") if row.message_id in ids]


def answers(scene, *kept):  # noqa: F811
    """What answers these mails; the mailbox holds those of other tests too."""
    keys = {str(one.id) for one in kept}
    found = rows(scene, Message, Message.direction == "out", Message.kind == "MDN")
    return [one for one in found if one.details["repond_a"] in keys]


def delivered(scene, message):  # noqa: F811
    assert scene.deliveries().attempt(message.id) is Outcome.DELIVERED
    name = f"Message-ID: <{message.message_id}>".encode()
    [content] = scene.servers.wait_inbox(message.recipient, lambda content: name in content)
    return content


@pytest.mark.parametrize(
    ("known", "disposition", "subject"),
    [
        (True, "automatic-action/MDN-sent-automatically; processed", "XDM/1.0/DDM+"),
        (
            False,
            "automatic-action/MDN-sent-automatically; processed/error",
            "[KO Intégration système !][902] XDM/1.0/DDM+",
        ),
    ],
)
def test_the_sender_reads_what_became_of_his_document(reading, known, disposition, subject):
    if known:
        patient(reading)
    send(reading, SENDER, document(name := f"un-{known}"))
    [kept] = read(reading, name)
    assert kept.state == ("traite" if known else "quarantaine")
    [answer] = answers(reading, kept)
    assert (answer.recipient, answer.dossier_id, answer.details["mdn"]) == (SENDER, kept.dossier_id, False)
    content = delivered(reading, answer)
    said = email.message_from_bytes(content, policy=email.policy.default)
    assert said["Return-Path"] == "<>"  # news of it goes to nobody
    assert said["Subject"].startswith(subject)
    assert said["In-Reply-To"] == f"<{name}@cabinet.mssante.fr>"
    _, report, original = said.iter_parts()
    [fields] = report.get_payload()
    assert (fields["Disposition"], fields["Original-Message-ID"]) == (disposition, f"<{name}@cabinet.mssante.fr>")
    assert (fields["Error"] or "").partition("^")[0] == ("" if known else "902")
    [mail] = original.get_payload()
    assert next(mail.iter_attachments()).get_content() == ARCHIVE


def test_nobody_is_answered_who_did_not_ask_or_may_not_be(reading):
    patient(reading)
    send(reading, SENDER, document("sans", asks=None))
    send(reading, SENDER, document("ailleurs", asks=servers.STRANGER))  # S06
    send(reading, SENDER, document("machine", Auto_Submitted="auto-replied"))
    send(reading, SENDER, document("abime", archive=ARCHIVE[:-30], asks=None))
    kept = read(reading, "sans", "ailleurs", "machine", "abime")
    assert sorted(row.state for row in kept) == ["quarantaine", "traite", "traite", "traite"]
    assert not answers(reading, *kept)
    assert len(rows(reading, ReceivedDocument)) == 1


def test_the_answer_itself_is_answered_by_nobody(reading):
    patient(reading)
    send(reading, SENDER, document("boucle"))
    [answer] = answers(reading, *read(reading, "boucle"))
    content = delivered(reading, answer)
    # Its reader's program is another gateway's mailbox: what it gets is sent back to us as it stands, request and all.
    asks = f"Disposition-Notification-To: <{SENDER}>\r\n".encode()
    back = asks + content.partition(b"\r\n")[2].replace(answer.message_id.encode(), b"retour@cabinet.mssante.fr", 1)
    send(reading, SENDER, back.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    [kept] = read(reading, "retour")
    assert kept.kind == "mdn"
    assert not answers(reading, kept)


def test_one_document_has_one_answer_however_often_it_is_read_and_whoever_dies(reading, monkeypatch):
    patient(reading)
    send(reading, SENDER, document("tue"))
    with monkeypatch.context() as killed:
        killed.setattr(reading.inbox, "process", lambda _: False)  # the process ends between keeping and its step
        [kept] = read(reading, "tue")
        assert kept.state == "garde"
    assert not answers(reading, kept)
    with reading.store.session() as session:
        for one in session.query(Message).where(Message.state == "garde"):
            one.created_at -= timedelta(minutes=5)
        session.commit()
    reading.intake, reading.inbox = reading.restarted()
    reading.inbox.sweep()
    reading.mailbox.read(reading.intake)
    [kept] = read(reading, "tue")
    [first] = answers(reading, kept)
    for _ in range(2):  # a person has it read again
        with reading.store.session() as session:
            read_again(session, kept.id)
            session.commit()
        reading.inbox.process(kept.id)
    send(reading, SENDER, document("tue"))  # the same mail once more
    reading.servers.wait_inbox(
        servers.GATEWAY, lambda content: b"Message-ID: <tue@cabinet.mssante.fr>" in content, count=2
    )
    reading.mailbox.read(reading.intake)
    both = [row for row in rows(reading, Message) if row.message_id == kept.message_id]
    [only] = answers(reading, *both)
    assert len(both) == 2
    assert (only.id, only.sha256) == (first.id, first.sha256)


def test_a_first_answer_stands_even_when_a_person_settles_the_question_later(reading):
    send(reading, SENDER, document("tard"))
    [kept] = read(reading, "tard")
    [refused] = answers(reading, kept)
    patient(reading)
    with reading.store.session() as session:
        read_again(session, kept.id)
        session.commit()
    reading.inbox.process(kept.id)
    assert read(reading, "tard")[0].state == "traite"
    assert [one.sha256 for one in answers(reading, kept)] == [refused.sha256]  # one report for one mail [RFC 8098 §2.1]
