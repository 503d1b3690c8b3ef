"""Who is told at once of an inscription: administrators, and a requester who comes by video; once."""

from __future__ import annotations

import email
import email.policy
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import make_transient

from gateway.errors import InvalidContent
from gateway.fhir.represent import Representer
from gateway.identifiers import uuid7
from gateway.model.directory import Mailbox
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import Rcp, RcpMember, RcpSession
from gateway.model.message import Message, NotificationEntry
from gateway.model.received import ReceivedDocument
from gateway.model.representation import TABLES
from gateway.mssante.translate import Composer
from gateway.portal.register import label
from gateway.rcp import announcements
from gateway.rcp.added_values import DATED
from gateway.rcp.announcements import announce_due
from gateway.rcp.fiche_fields import fields
from gateway.rcp.notice_rules import REASONS
from gateway.rcp.notification import plan_due
from tests.world import build

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

LETTERS = Composer(address="rcp@3c.mssante.example", nil="000000", name="RCP Sein")
REGISTERED = datetime(2026, 3, 9, 13, 0, tzinfo=UTC)
NOW = REGISTERED + timedelta(minutes=1)
VIDEO = {"lien": "https://visio.example/s", "complement": "Code : 4711", "test": "https://visio.example/test"}


@pytest.fixture
def scene(store, make_steps):
    with store.session() as session:
        world = build(session)
        dossier = world.dossier()
        session.execute(update(Correspondent).values(since=REGISTERED))
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
    # The text of features 4.2 M3, to the character.
    assert body.partition("\n\n")[2] == (
        "Un dossier vient d'être ajouté à la séance Sein du jeudi 19 mars 2026 à 14h00.\n\n"
        "  Patient   : PAT-TROIS DOMINIQUE, née le 28/03/1979\n"
        "  Ajouté par : Docteur MERCIER (Gynécologie-obstétrique, CHU X)\n"
        "  Étiquettes : Urgence\n"
        "  Complétude : 50 % – à compléter : Imagerie, ou « sans imagerie »\n"
        "  Pièces     : 0 document(s), 0 examen(s) DICOM\n"
        "  Médecin traitant : Notification avant RCP prévue le 17/03/2026\n"
        "  URGENT : demande un examen prioritaire.\n\n"
        f"Ouvrir le dossier : https://rcp.example/dossiers/{scene.dossier}\n"
        "La séance compte 1 dossier(s).\n"
    )
    assert "PAT-TROIS" not in mail["subject"]
    assert lines(scene) == [("M3", "ENVOYEE"), ("M3", "ENVOYEE")]


def _document(scene, state, **more):
    with scene.store.session() as session:
        number = f"1.2.3.{len(session.scalars(select(ReceivedDocument)).all())}"
        row = ReceivedDocument(
            channel="mssante",
            unique_id=number,
            format="pdf",
            size_bytes=1,
            dossier_id=scene.dossier,
            state=state,
            **more,
        )
        session.add(row)
        session.commit()


def _body(scene):
    assert announce_due(scene.steps, LETTERS) == 2
    return mails(scene, "M3")[0][1].get_content().replace("\r\n", "\n")


def test_labels_fields_and_papers_are_those_of_the_dossier(scene):
    rules = {"etiquettes": ["Recours", "Essai"], "obligatoires": ["tumeur.t", "etat.oms"]}
    change(scene, Rcp, scene.rcp, fiche=rules)
    statements = {
        "etiquettes": {"value": ["Recours", "Essai"], "source": "fiche"},
        "examens.sans_imagerie": {"value": True, "source": "fiche"},
    }
    change(scene, Dossier, scene.dossier, clinical={"fiche": statements})
    for state in ("attache", "attache", "remplace", "retire", "quarantaine"):
        _document(scene, state)
    body = _body(scene)
    assert "  Étiquettes : Recours, Essai\n" in body
    assert "  Pièces     : 2 document(s), 0 examen(s) DICOM\n" in body
    # Four things are asked: the question and the imaging are there, two fields are not.
    first, second = (fields()[key].label for key in rules["obligatoires"])
    assert f"  Complétude : 50 % – à compléter : {first}, {second}\n" in body
    assert "URGENT" not in body


def test_what_is_complete_and_without_label_leaves_no_hole(scene):
    change(
        scene, Dossier, scene.dossier, clinical={"fiche": {"examens.sans_imagerie": {"value": True, "source": "fiche"}}}
    )
    body = _body(scene)
    assert "  Étiquettes : aucune\n  Complétude : 100 %\n  Pièces" in body


def test_settings_that_nobody_can_read_stop_no_news(scene):
    change(scene, Rcp, scene.rcp, fiche={"inconnu": True})
    body = _body(scene)
    assert "  Étiquettes : inconnues\n  Complétude : 0 % – à compléter : les réglages de la fiche" in body


def test_who_added_it_is_named_as_far_as_he_is_known(scene):
    change(scene, Dossier, scene.dossier, requester_id=None, organisation_id=None)
    assert "  Ajouté par : Docteur (nom non communiqué) (spécialité non renseignée, structure non renseignée)" in _body(
        scene
    )


@pytest.mark.parametrize(
    ("change_of", "said"),
    [
        ({"notification": {}}, "Dispositif non activé pour cette RCP"),
        ({"notification": {"active": True, "jours": "beaucoup"}}, "Notification non encore planifiée"),
        ({"notification": {"active": True, "jours": 20}}, "Dossier inscrit après la limite du 19/02/2026 à 14h00"),
        (
            {"notification": {"active": True, "jours": 20, "format_heure": "18 h 30"}},
            "Dossier inscrit après la limite du 19/02/2026 à 14\u00a0h\u00a000",
        ),
    ],
)
def test_the_administrator_reads_what_becomes_of_the_notification(scene, change_of, said):
    change(scene, Rcp, scene.rcp, **change_of)
    assert f"  Médecin traitant : {said}\n" in _body(scene)


def test_a_notification_that_left_already_is_said_to_have_left(scene):
    scene.clock.at = datetime(2026, 3, 17, 7, 0, tzinfo=UTC)
    change(scene, Dossier, scene.dossier, registered_at=scene.clock.at - timedelta(hours=1))
    plan_due(scene.steps, LETTERS)
    assert "  Médecin traitant : Notification envoyée le 17/03/2026 à 08h00\n" in _body(scene)


@pytest.mark.parametrize("code", sorted(REASONS))
def test_the_register_and_the_letter_say_a_code_with_the_same_words(code):
    at = datetime(2026, 3, 17, 8, 0)
    if code != "ECHEC":  # of which the register says why, too
        said = DATED.get(code, REASONS[code])
        assert label(code, at) == said.format(date="17/03/2026", heure="08h00")


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
    assert "même connexion) : https://visio.example/test\n2. Le jour venu," in body.replace("\r\n", "\n")
    assert "Code : 4711" in body
    assert "jeudi 19 mars 2026 de 14h00 à " in body
    assert not {"PAT-TROIS", "DOMINIQUE", "28/03/1979"} & set(mail.as_string().replace(",", " ").split())


def test_with_the_option_the_meeting_comes_as_a_file_for_the_agenda_that_names_no_patient(scene):
    change(scene, Rcp, scene.rcp, webconference=VIDEO | {"agenda": True})
    change(scene, Dossier, scene.dossier, participation="webconference")
    assert announce_due(scene.steps, LETTERS) == 3
    [(_, mail)] = mails(scene, "M4")
    [file] = mail.iter_attachments()
    assert (file.get_content_type(), file.get_filename()) == ("text/calendar", "reunion.ics")
    said = file.get_payload(decode=True).decode().replace("\r\n ", "").split("\r\n")
    assert {
        f"UID:{scene.meeting}@rcp.example",
        "SEQUENCE:0",
        "DTSTART:20260319T130000Z",  # 14:00 in Paris
        "DTEND:20260319T150000Z",
        "SUMMARY:RCP Sein",
        "LOCATION:Salle de visioconférence du CHU X",
        "DESCRIPTION:Lien : https://visio.example/s\\nCode : 4711\\n3c@example.org",
    } <= set(said)
    whole = "\n".join(said) + mail.get_body().get_content()
    with scene.store.session() as session:
        dossier = session.get_one(Dossier, scene.dossier)
        assert not [name for name in ("PAT-TROIS", "DOMINIQUE", "1979", dossier.reference) if name in whole]
    for _, other in mails(scene, "M3"):
        assert not list(other.iter_attachments())


def test_a_dossier_that_fails_each_time_holds_no_other(scene, monkeypatch):
    """More of them than a page has places, before the one that can be told of."""
    monkeypatch.setattr(announcements, "_PAGE", 2)
    told = announcements.announce
    with scene.store.session() as session:
        row = session.get_one(Dossier, scene.dossier)
        session.expunge_all()
        for number in range(5):
            make_transient(row)
            row.id, row.number, row.reference = uuid7(), f"n-{number}", f"RCP-F{number}"
            row.tumour_key, row.registered_at = str(number), REGISTERED - timedelta(minutes=5 - number)
            session.add(row)
            session.flush()
            session.expunge_all()
        session.commit()

    def failing(step, dossier_id, letters):
        if dossier_id != scene.dossier:
            raise InvalidContent("essai", "Celui-ci ne peut pas être annoncé.")
        return told(step, dossier_id, letters)

    monkeypatch.setattr(announcements, "announce", failing)
    assert [announce_due(scene.steps, LETTERS) for _ in range(2)] == [2, 0]


def test_without_a_page_of_the_rcp_the_browser_is_tried_on_ours(scene):
    """The mail has both links whatever the RCP says (S1-029); the page exists (DECISIONS 18)."""
    change(scene, Rcp, scene.rcp, webconference={"lien": "https://visio.example/s"})
    change(scene, Dossier, scene.dossier, participation="webconference")
    announce_due(scene.steps, LETTERS)
    [(_, mail)] = mails(scene, "M4")
    body = mail.get_content().replace("\r\n", "\n")
    assert "\n1. Avant la réunion, vérifiez votre poste" in body
    assert "même connexion) : https://rcp.example/aide/test\n" in body
    assert "\n3. Vous attendez dans la salle d'attente" in body


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


def test_a_dossier_of_which_nobody_can_be_told_does_not_hold_the_others(scene, monkeypatch):
    """A requester who is only named has no line of the register; the oldest dossiers fill the page."""
    change(scene, Rcp, scene.rcp, webconference=VIDEO)
    change(scene, Dossier, scene.dossier, participation="webconference", requester_id=None)
    assert announce_due(scene.steps, LETTERS) == 2
    monkeypatch.setattr(announcements, "_PAGE", 1)
    with scene.store.session() as session:
        known = session.get_one(Dossier, scene.dossier)
        same = {one: getattr(known, one) for one in ("session_id", "record_id", "partner_id", "state")}
        later = known.registered_at + timedelta(minutes=1)
        session.add(
            Dossier(number="urn:uuid:deux", reference="RCP-AAAA-22", tumour_key="autre", registered_at=later, **same)
        )
        session.commit()
    assert announce_due(scene.steps, LETTERS) == 2


def test_what_is_told_has_its_fhir_representation(scene, make_steps, blobs):
    steps = make_steps(clock=scene.clock, represent=Representer(blobs))
    assert announce_due(steps, LETTERS) == 2
    table = TABLES["Communication"]
    with scene.store.session() as session:
        shown = session.execute(select(table.c.body).where(table.c.dossier_id == scene.dossier)).all()
    assert len(shown) == 2
    assert all(b"PAT-TROIS" not in bytes(row.body) for row in shown)
