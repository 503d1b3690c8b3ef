"""Who is told at once of an inscription: administrators, and a requester who comes by video; once."""

from __future__ import annotations

import email
import email.policy
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import delete, select

from gateway.fhir.represent import Representer
from gateway.model.directory import Mailbox
from gateway.model.dossier import Dossier
from gateway.model.meeting import Rcp, RcpMember, RcpSession
from gateway.model.message import Message, NotificationEntry
from gateway.model.representation import TABLES
from gateway.mssante.translate import Composer
from gateway.rcp.announcements import announce_due
from tests.world import build

LETTERS = Composer(address="rcp@3c.mssante.example", nil="000000", name="RCP Sein")
REGISTERED = datetime(2026, 3, 9, 13, 0, tzinfo=UTC)
NOW = REGISTERED + timedelta(minutes=1)
VIDEO = {"lien": "https://visio.example/s", "complement": "Code : 4711", "test": "https://visio.example/test"}


@pytest.fixture
def scene(store, make_steps):
    with store.session() as session:
        world = build(session)
        dossier = world.dossier()
        first = world.practitioner("AUBERT", address="aubert@ch.mssante.fr")
        second = world.practitioner("BRUN", address="brun@ch.mssante.fr")
        former = world.practitioner("CAMUS", address="camus@ch.mssante.fr")
        for who, until in ((first, None), (second, None), (former, REGISTERED)):
            session.add(
                RcpMember(rcp_id=world.rcp.id, practitioner_id=who.id, role="administrateur", since=NOW, until=until)
            )
        session.commit()
        made = SimpleNamespace(
            store=store,
            dossier=dossier.id,
            meeting=world.meeting.id,
            rcp=world.rcp.id,
            requester=world.requester.id,
            first=first.id,
        )
    made.clock = SimpleNamespace(at=NOW, now=lambda: made.clock.at)
    made.steps = make_steps(clock=made.clock)
    return made


def change(scene, model, key, **values):
    with scene.store.session() as session:
        row = session.get_one(model, key)
        for name, value in values.items():
            setattr(row, name, value)
        session.commit()


def mails(scene, kind):
    with scene.store.session() as session:
        rows = session.scalars(select(Message).where(Message.kind == kind).order_by(Message.recipient)).all()
        return [(row.recipient, email.message_from_bytes(row.content, policy=email.policy.default)) for row in rows]


def lines(scene):
    with scene.store.session() as session:
        rows = session.scalars(select(NotificationEntry).order_by(NotificationEntry.kind, NotificationEntry.subject))
        return [(row.kind, row.code) for row in rows]


@pytest.mark.req("S0-068")
def test_each_administrator_is_told_once_of_an_added_patient(scene):
    change(scene, Dossier, scene.dossier, urgent=True)
    assert announce_due(scene.steps, LETTERS) == 2
    assert announce_due(scene.steps, LETTERS) == 0
    (first, mail), (second, _) = mails(scene, "M3")
    assert (first, second) == ("aubert@ch.mssante.fr", "brun@ch.mssante.fr")
    assert mail["subject"] == "RCP – Nouveau dossier inscrit"
    body = mail.get_content().replace("\r\n", "\n")
    assert body.startswith(
        "Bonjour Docteur AUBERT,\n\nUn dossier vient d'être ajouté à la séance Sein du jeudi 19 mars 2026"
    )
    assert "  Patient   : PAT-TROIS DOMINIQUE, née le 28/03/1979\n" in body
    assert "  Demandeur : Docteur MERCIER (" in body
    assert "  Pièces    : 0 examen(s) DICOM\n  URGENT : demande un examen prioritaire.\n" in body
    assert f"/dossiers/{scene.dossier}\n" in body
    assert "La séance compte 1 dossier(s)." in body
    assert "PAT-TROIS" not in mail["subject"]
    assert lines(scene) == [("M3", "ENVOYEE"), ("M3", "ENVOYEE")]


def test_two_workers_at_once_tell_once(scene):
    threads = [threading.Thread(target=announce_due, args=(scene.steps, LETTERS)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mails(scene, "M3")) == 2


@pytest.mark.req("S1-028", "S1-029")
def test_a_requester_who_comes_by_video_gets_the_links_and_no_identity(scene):
    change(scene, Rcp, scene.rcp, webconference=VIDEO)
    announce_due(scene.steps, LETTERS)
    assert mails(scene, "M4") == []
    change(scene, Dossier, scene.dossier, participation="present")
    announce_due(scene.steps, LETTERS)
    assert mails(scene, "M4") == []
    change(scene, Dossier, scene.dossier, participation="webconference")
    scene.clock.at = NOW + timedelta(days=2)  # changed later: he is told when he chose
    assert announce_due(scene.steps, LETTERS) == 1
    assert announce_due(scene.steps, LETTERS) == 0
    [(_, mail)] = mails(scene, "M4")
    body = mail.get_content()
    assert mail["subject"] == "RCP – Votre participation en webconférence"
    assert "https://visio.example/s" in body
    assert "https://visio.example/test" in body
    assert "Code : 4711" in body
    assert "jeudi 19 mars 2026 de 14h00 à " in body
    assert not {"PAT-TROIS", "DOMINIQUE", "28/03/1979"} & set(mail.as_string().replace(",", " ").split())


@pytest.mark.parametrize(
    ("model", "key", "values"),
    [
        (Dossier, "dossier", {"opposed_at": REGISTERED}),
        (Dossier, "dossier", {"state": "annule"}),
        (Dossier, "dossier", {"registered_at": NOW - timedelta(days=2)}),
        (Rcp, "rcp", {"fictive": True}),
        (RcpSession, "meeting", {"state": "annulee"}),
        (RcpSession, "meeting", {"starts_at": NOW}),
    ],
)
def test_nothing_leaves_where_nothing_may(scene, model, key, values):
    change(scene, Dossier, scene.dossier, participation="webconference" if "registered_at" not in values else "absent")
    change(scene, Rcp, scene.rcp, webconference=VIDEO)
    change(scene, model, getattr(scene, key), **values)
    assert announce_due(scene.steps, LETTERS) == 0
    assert lines(scene) == []


def test_who_has_no_mailbox_stands_in_the_register_and_does_not_hold_the_others(scene):
    with scene.store.session() as session:
        session.execute(delete(Mailbox).where(Mailbox.practitioner_id == scene.first))
        session.commit()
    assert announce_due(scene.steps, LETTERS) == 1
    assert [to for to, _ in mails(scene, "M3")] == ["brun@ch.mssante.fr"]
    assert sorted(lines(scene)) == [("M3", "ENVOYEE"), ("M3", "NON_MSS")]
    assert announce_due(scene.steps, LETTERS) == 0


def test_what_is_told_has_its_fhir_representation(scene, make_steps, blobs):
    steps = make_steps(clock=scene.clock, represent=Representer(blobs))
    assert announce_due(steps, LETTERS) == 2
    table = TABLES["Communication"]
    with scene.store.session() as session:
        shown = session.execute(select(table.c.body).where(table.c.dossier_id == scene.dossier)).all()
    assert len(shown) == 2
    assert all(b"PAT-TROIS" not in bytes(row.body) for row in shown)
