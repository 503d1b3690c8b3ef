"""A report over real servers: the document, the link and the patient's copy, each as its mailbox gets it."""

from __future__ import annotations

import email
import email.policy
import io
import zipfile
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from sqlalchemy import select, text, update

from gateway.exchange.delivery import Deliveries
from gateway.exchange.inbox import Inbox
from gateway.exchange.outbox import Outcome
from gateway.model.directory import Mailbox as Address
from gateway.model.meeting import Attendance, Rcp
from gateway.model.message import Message
from gateway.model.person import WorkItem
from gateway.mssante.account import Account
from gateway.mssante.channel import MssanteChannel
from gateway.mssante.intake import MailIntake
from gateway.mssante.mailbox import Mailbox
from gateway.mssante.submission import Submission
from gateway.mssante.translate import Composer
from gateway.rcp import mail_events, report
from gateway.rcp.report_draft import ReportDraft
from gateway.settings import MailServer
from gateway.transport import Tls
from tests import report_samples
from tests.e2e import mail_servers as servers
from tests.e2e.mail_servers import mail_servers  # noqa: F401 (a fixture)
from tests.e2e.test_mail_wire import PATIENCE
from tests.world import audit_lines, build

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

HELD = datetime(2026, 3, 19, 15, 0, tzinfo=UTC)
PATIENT = {
    "ins_system": "urn:oid:1.2.250.1.213.1.4.10",
    "ins_value": servers.PATIENT.partition("@")[0],
    "ins_qualified": True,
    "birth_place": "51215",
}


@pytest.fixture
def scene(store, make_steps, blobs, trail, mail_servers):  # noqa: F811
    with store.session() as session:
        world = build(session)
        for who, speciality in ((world.coordinator, None), (world.practitioner("LAVAL", speciality="SM05"), "SM05")):
            row = Attendance(
                session_id=world.meeting.id, practitioner_id=who.id, speciality=speciality or who.speciality
            )
            session.add(row)
        world.meeting.state = "ouverte"
        dossier = world.dossier(world.record(**PATIENT))
        for who, box in ((world.treating, servers.PHYSICIAN), (world.requester, servers.REQUESTER)):
            session.execute(update(Address).where(Address.practitioner_id == who.id).values(address=box))
        session.commit()
        made = SimpleNamespace(store=store, dossier=dossier.id, coordinator=world.caller(world.coordinator))
    made.clock = SimpleNamespace(at=HELD, now=lambda: made.clock.at)
    made.steps = make_steps(clock=made.clock)
    letters = Composer(address=servers.GATEWAY, nil="000000", name="RCP Sein")
    press = report_samples.press(blobs)
    made.press = report.Press(forms=press.forms, mails=letters, blobs=blobs, visibility=())
    server = MailServer("127.0.0.1", mail_servers.submission_port, "starttls", servers.GATEWAY, servers.PASSWORD)
    tls = Tls(authorities=mail_servers.authority.file)
    channel = MssanteChannel(Submission(Account(server, tls), timeouts=PATIENCE))

    def settled(session, message):
        mail_events.after_delivery(session, message)

    made.deliveries = Deliveries(store, blobs, trail, [channel], settled=settled)
    made.intake = MailIntake(made.steps, address=servers.GATEWAY)
    made.intake.attach(Inbox(store, blobs, [made.intake]))
    box = MailServer("127.0.0.1", mail_servers.imaps_port, "tls", servers.GATEWAY, servers.PASSWORD)
    made.mailbox = Mailbox(Account(box, tls))
    made.servers = mail_servers
    return made


def choose(scene, **said):
    with scene.store.session() as session:
        rcp = session.scalars(select(Rcp)).one()
        rcp.notification = {**rcp.notification, **said}
        session.commit()


def act(scene, verb, *args, **more):
    def inner(step):
        verb(step, scene.dossier, *args, **more)

    scene.steps.run(scene.coordinator, inner)


def rows(scene, model, *where):
    with scene.store.session() as session:
        return session.scalars(select(model).where(*where).order_by(model.id)).unique().all()


def left(scene):
    """Send whatever waits, and return each mail as its mailbox got it, by recipient."""
    found = {}
    for message in rows(scene, Message, Message.direction == "out", Message.state == "en-attente"):
        assert scene.deliveries.attempt(message.id) is Outcome.DELIVERED
        name = b"Message-ID: <" + message.message_id.encode()
        if message.recipient != servers.NO_ACCOUNT:
            [raw] = scene.servers.wait_inbox(message.recipient, lambda content, name=name: name in content)
            found[message.recipient] = email.message_from_bytes(raw, policy=email.policy.default)
    return found


def attached(mail):
    return {part.get_filename(): part.get_payload(decode=True) for part in mail.iter_attachments()}


def test_the_patient_gets_the_bytes_that_the_physicians_get_then_what_becomes_of_them(scene):
    choose(scene, patient=True)
    act(scene, report.draft, ReportDraft(proposal="Chirurgie première."))
    act(scene, report.validate, scene.press)
    first = left(scene)
    assert set(first) == {servers.PHYSICIAN, servers.REQUESTER, servers.PATIENT}
    own, physician = first[servers.PATIENT], first[servers.PHYSICIAN]
    assert attached(own) == attached(physician)
    archive = zipfile.ZipFile(io.BytesIO(attached(own)["IHE_XDM.zip"]))
    assert b"INVISIBLE_PATIENT" not in archive.read("IHE_XDM/SUBSET01/METADATA.XML")
    assert (own["X-MSS-MES"], physician["X-MSS-MES"]) == ("FIN", None)
    assert (own["Reply-To"], own["Disposition-Notification-To"]) == (None, None)
    assert own["To"].addresses[0].addr_spec == servers.PATIENT
    assert own["Subject"].startswith("XDM/1.0/DDM+CR de réunion de concertation pluridisci PAT-TROIS DOMINIQUE")

    act(scene, report.cancel, "Erreur de dossier", scene.press)
    last = left(scene)
    told = last[servers.PATIENT]
    assert (told.is_multipart(), told["In-Reply-To"], told["X-MSS-MES"]) == (False, own["Message-ID"], "FIN")
    assert "n'est plus valable" in told.get_content()
    assert "IHE_XDM.zip" in attached(last[servers.PHYSICIAN])
    with scene.store.session() as session:
        lines = audit_lines(session)
    sent = [line for line in lines if line["event"] == "envoi"]
    assert len(sent) == 6
    assert servers.PATIENT.partition("@")[0] not in str(lines)


def test_a_patient_without_account_is_told_to_a_person_once(scene):
    """Mon espace santé bounces: mailbox closed, patient not found (mssante.md 2.12)."""
    choose(scene, patient=True)
    with scene.store.session() as session:
        number = servers.NO_ACCOUNT.partition("@")[0]
        session.execute(text("UPDATE patient_record SET ins_value = :n"), {"n": number})
        session.commit()
    act(scene, report.draft, ReportDraft(proposal="Chirurgie première."))
    act(scene, report.validate, scene.press)
    left(scene)
    [copy] = rows(scene, Message, Message.kind == "M6p")
    name = copy.message_id.encode()
    scene.servers.wait_inbox(servers.GATEWAY, lambda content: name in content)
    scene.mailbox.read(scene.intake)
    [copy] = rows(scene, Message, Message.kind == "M6p")
    assert copy.state == "rejete"
    items = rows(scene, WorkItem, WorkItem.message_id == copy.id)
    assert [item.reason for item in items] == ["envoi-rejete"]
    assert servers.NO_ACCOUNT.partition("@")[0] not in str(items[0].details)
    # Who has no copy is not told of its withdrawal.
    act(scene, report.cancel, "Erreur de dossier", scene.press)
    assert rows(scene, Message, Message.kind == "M6pr") == []


def test_a_link_arrives_without_document_and_its_withdrawal_too(scene):
    choose(scene, cr_par_lien=True)
    act(scene, report.draft, ReportDraft(proposal="Chirurgie première."))
    act(scene, report.validate, scene.press)
    first = left(scene)
    act(scene, report.cancel, "Erreur de dossier", scene.press)
    last = left(scene)
    for mails, words in ((first, "a été validé par"), (last, "est retiré")):
        assert set(mails) == {servers.PHYSICIAN, servers.REQUESTER}
        for mail in mails.values():
            assert not mail.is_multipart()
            assert (mail["X-MSS-CODECDA"], mail["X-MSS-INS"]) == (None, None)
            assert words in mail.get_content()
            assert f"https://rcp.example/dossiers/{scene.dossier}/compte-rendu" in mail.get_content()
    assert last[servers.PHYSICIAN]["In-Reply-To"] == first[servers.PHYSICIAN]["Message-ID"]


@pytest.mark.parametrize("cut", [False, True], ids=["recorded", "killed"])
def test_what_leaves_while_its_report_is_withdrawn_is_taken_back(scene, monkeypatch, cut):
    """The coordinator withdraws between the operator's « 250 » and our record of it, or before a kill."""
    act(scene, report.draft, ReportDraft(proposal="Chirurgie première."))
    act(scene, report.validate, scene.press)
    [first] = rows(scene, Message, Message.kind == "M6", Message.recipient == servers.PHYSICIAN)
    send = scene.deliveries._send

    def withdrawn_meanwhile(claim):
        delivery = send(claim)
        act(scene, report.cancel, "Mauvais patient", scene.press)
        if cut:
            raise KeyboardInterrupt
        return delivery

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(scene.deliveries, "_send", withdrawn_meanwhile)
        if cut:
            with pytest.raises(KeyboardInterrupt):
                scene.deliveries.attempt(first.id)
        else:
            assert scene.deliveries.attempt(first.id) is Outcome.DELIVERED
    [first, other] = rows(scene, Message, Message.kind == "M6")
    assert {first.recipient: first.state, other.recipient: other.state} == {
        servers.PHYSICIAN: "annule" if cut else "envoye",
        servers.REQUESTER: "annule",
    }
    last = left(scene)
    assert set(last) == {servers.PHYSICIAN}, "who certainly got nothing is told nothing"
    told = next(one for one in (first, other) if one.recipient == servers.PHYSICIAN)
    assert last[servers.PHYSICIAN]["In-Reply-To"] == f"<{told.message_id}>"
    name = b"Message-ID: <" + told.message_id.encode()
    assert len(scene.servers.wait_inbox(servers.PHYSICIAN, lambda content: name in content)) == 1
