"""The treating physician's contribution on a real database, and who is told of it."""

from __future__ import annotations

import email
import email.policy
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import delete, select

from gateway.errors import Conflict, Forbidden, InvalidContent, NotFound
from gateway.model.audit import AuditLine
from gateway.model.directory import Mailbox, Practitioner
from gateway.model.dossier import Contribution, Correspondent, Dossier
from gateway.model.message import Message, NotificationEntry
from gateway.model.person import WorkItem
from gateway.mssante.translate import Composer
from gateway.rcp import contribution
from tests.world import build

LETTERS = Composer(address="rcp@3c.mssante.example", nil="000000", name="RCP Sein")
NOW = datetime(2026, 3, 18, 9, 0, tzinfo=UTC)
STARTS = datetime(2026, 3, 19, 13, 0, tzinfo=UTC)
TEXT = "Patiente fatiguée, vit seule au troisième étage."


@pytest.fixture
def scene(store, make_steps):
    with store.session() as session:
        world = build(session)
        dossier = world.dossier()
        session.commit()
        made = SimpleNamespace(
            store=store,
            dossier=dossier.id,
            treating=world.treating.id,
            requester=world.requester.id,
            physician=world.caller(world.treating),
            coordinator=world.caller(world.coordinator),
            stranger=world.caller(world.stranger),
            requesting=world.caller(world.requester),
        )
    made.clock = SimpleNamespace(at=NOW, now=lambda: made.clock.at)
    made.steps = make_steps(clock=made.clock)
    return made


def contribute(scene, text=TEXT, *, interested=False, key="cle-du-formulaire", caller=None):
    def verb(step):
        return contribution.contribute(
            step, scene.dossier, text=text, interested=interested, key=key, letters=LETTERS
        ).id

    return scene.steps.run(caller or scene.physician, verb)


def rows(scene, model, *where):
    with scene.store.session() as session:
        return session.scalars(select(model).where(*where).order_by(model.id)).unique().all()


def change(scene, model, key, **values):
    with scene.store.session() as session:
        row = session.get_one(model, key)
        for name, value in values.items():
            setattr(row, name, value)
        session.commit()


@pytest.mark.req("S2-036", "S2-037", "S2-038", "S2-040")
def test_the_contribution_is_kept_and_the_requester_told_without_its_text(scene):
    contribute(scene, "  Fatiguée.\r\nVit seule\x07.  ", interested=True)
    [kept] = rows(scene, Contribution)
    assert kept.text == "Fatiguée.\nVit seule."
    assert kept.author_id == scene.treating
    assert (kept.author_name, kept.author_speciality) == ("Docteur Camille NGUYEN", "Médecine générale")
    assert (kept.at, kept.after_session) == (NOW, False)
    [message] = rows(scene, Message)
    assert (message.kind, message.recipient, message.recipient_id) == (
        "M2",
        "mercier@chu-x.mssante.fr",
        scene.requester,
    )
    mail = email.message_from_bytes(message.content, policy=email.policy.default)
    body = mail.get_content().replace("\r\n", "\n")
    assert mail["subject"] == "Demandeur – Contribution du médecin traitant avant RCP"
    assert body.startswith(
        "Bonjour Docteur MERCIER,\n\nDocteur NGUYEN a complété le dossier de PAT-TROIS DOMINIQUE, née le 28/03/1979, "
        "inscrit à la réunion Sein – Salle de visioconférence du CHU X du 19/03/2026.\n"
        "Le médecin traitant souhaite assister à la discussion.\n"
    )
    assert "Fatiguée" not in body
    assert f"https://rcp.example/dossiers/{scene.dossier}\n" in body
    [own] = rows(scene, Correspondent, Correspondent.role == "medecin-traitant")
    assert own.wishes_to_attend is True


@pytest.mark.req("S2-036")
def test_both_empty_is_refused_the_wish_alone_is_taken(scene):
    with pytest.raises(InvalidContent) as refused:
        contribute(scene, " \n\t ")
    assert refused.value.code == "contribution-vide"
    assert refused.value.rule is True
    assert rows(scene, Contribution) == []
    contribute(scene, "", interested=True)
    assert [row.text for row in rows(scene, Contribution)] == [""]


def test_a_text_above_the_limit_is_refused_by_its_name(scene):
    with pytest.raises(InvalidContent, match="10000 caractères") as refused:
        contribute(scene, "a" * 10_001)
    assert refused.value.code == "contribution-longue"
    contribute(scene, "a" * 10_000)


@pytest.mark.req("S2-036")
@pytest.mark.parametrize("state", ["cr-valide", "envoye", "correction", "addendum", "annule"])
def test_after_validation_it_is_closed(scene, state):
    change(scene, Dossier, scene.dossier, state=state)
    with pytest.raises(Conflict) as refused:
        contribute(scene)
    assert refused.value.code == "contribution-close"
    assert rows(scene, Message) == []


def test_after_the_session_it_is_marked_and_what_was_read_there_stays(scene):
    contribute(scene, "Avant.", key="cle-avant")
    scene.clock.at = STARTS + timedelta(hours=1)
    contribute(scene, "Après.", key="cle-apres")
    contribute(scene, "Après, corrigé.", key="cle-apres-2")
    assert [(row.text, row.after_session) for row in rows(scene, Contribution)] == [
        ("Avant.", False),
        ("Après, corrigé.", True),
    ]


@pytest.mark.req("S2-036", "S2-039")
def test_three_saves_in_five_minutes_are_one_mail_a_later_edit_one_more(scene):
    for number in range(3):
        scene.clock.at = NOW + timedelta(minutes=2 * number)
        contribute(scene, f"Version {number}", key=f"formulaire-{number}")
    assert [row.text for row in rows(scene, Contribution)] == ["Version 2"]
    assert len(rows(scene, Message)) == 1
    scene.clock.at = NOW + timedelta(minutes=40)
    contribute(scene, "Plus tard", key="formulaire-9")
    messages = rows(scene, Message)
    assert len(messages) == 2
    assert len({message.message_id for message in messages}) == 2


def test_the_same_form_twice_at_once_is_one_contribution_and_one_mail(scene):
    barrier, answers = threading.Barrier(2), []

    def save():
        barrier.wait()
        answers.append(contribute(scene))

    threads = [threading.Thread(target=save) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert len(rows(scene, Contribution)) == 1
    assert len(rows(scene, Message)) == 1


@pytest.mark.req("S2-037")
def test_a_requester_without_address_gets_no_mail_and_the_secretariat_an_alert(scene):
    with scene.store.session() as session:
        session.execute(delete(Mailbox).where(Mailbox.practitioner_id == scene.requester))
        session.commit()
    contribute(scene)
    assert rows(scene, Message) == []
    [entry] = rows(scene, NotificationEntry)
    assert (entry.kind, entry.code, entry.practitioner_id) == ("M2", "NON_MSS", scene.requester)
    [item] = rows(scene, WorkItem)
    assert (item.reason, item.dossier_id) == ("demandeur-sans-adresse", scene.dossier)


def test_a_requester_who_is_the_author_is_not_told(scene):
    change(scene, Dossier, scene.dossier, requester_id=scene.treating)
    contribute(scene)
    assert rows(scene, Message) == []
    assert len(rows(scene, Contribution)) == 1


@pytest.mark.req("S2-035")
def test_only_the_treating_physician_writes(scene):
    with pytest.raises(NotFound):
        contribute(scene, caller=scene.stranger)
    for reader in (scene.coordinator, scene.requesting):
        with pytest.raises(Forbidden) as refused:
            contribute(scene, caller=reader)
        assert refused.value.code == "role"
    assert rows(scene, Contribution) == []
    assert len(rows(scene, AuditLine, AuditLine.event == "refus")) == 3


def test_the_speciality_stays_as_it_was(scene):
    contribute(scene)
    change(scene, Practitioner, scene.treating, speciality="SM36", family="AUTRE")
    [kept] = rows(scene, Contribution)
    assert (kept.author_name, kept.author_speciality) == ("Docteur Camille NGUYEN", "Médecine générale")


def test_not_my_patient_ends_the_right_and_asks_the_secretariat(scene):
    scene.steps.run(scene.physician, lambda step: contribution.decline(step, scene.dossier))
    with pytest.raises(NotFound):
        contribute(scene)
    [item] = rows(scene, WorkItem)
    assert item.reason == "pas-mon-patient"


def test_neither_trail_nor_register_holds_the_text(scene):
    contribute(scene)
    for line in rows_of_trail(scene):
        assert TEXT.encode() not in line.payload
        assert b"PAT-TROIS" not in line.payload


def rows_of_trail(scene):
    with scene.store.session() as session:
        return session.scalars(select(AuditLine)).all()
