"""The treating physician's two forms: his contribution, and « ce n'est pas mon patient »."""

from __future__ import annotations

import email
import email.policy
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from gateway.model.dossier import Contribution, Correspondent, Dossier
from gateway.model.message import Message
from gateway.model.person import WorkItem
from tests.unit.portal.conftest import BEFORE, Browser, Site, words

TEXT = "Autonome à domicile.\r\nVit seule : <b>fatigue</b>."


@pytest.fixture
def dossier(site: Site) -> Dossier:
    row = site.world.dossier()
    site.world.session.commit()
    return row


@pytest.fixture
def physician(site: Site, dossier: Dossier) -> Browser:
    return site.browser(site.world.treating)


def count(site: Site, model) -> int:
    return site.fresh().session.scalar(select(func.count()).select_from(model))


def key_of(browser: Browser, dossier: Dossier) -> str:
    return browser.get(f"/dossiers/{dossier.id}").xpath("//input[@name='version']/@value")[0]


@pytest.mark.req("S2-036", "S3-020")
def test_a_contribution_is_kept_shown_and_changed(site: Site, dossier: Dossier, physician: Browser) -> None:
    path = f"/dossiers/{dossier.id}"
    answer = physician.post(f"{path}/contribution", commentaire=TEXT, interet="oui", version=key_of(physician, dossier))
    assert answer.headers["location"] == f"{path}?fait=contribution"
    page = physician.get(answer.headers["location"])
    assert "Votre contribution est enregistrée." in words(page)
    avis = page.xpath("//section[@aria-labelledby='avis']")[0]
    assert "Vit seule : <b>fatigue</b>." in words(avis)
    assert not avis.xpath(".//b")
    assert "Souhaite assister à la discussion" in words(avis)
    form = page.xpath("//section[@id='contribution']")[0]
    assert form.xpath(".//textarea/text()")[0].strip().startswith("Autonome à domicile.")
    assert form.xpath(".//input[@name='interet']/@checked")
    physician.post(f"{path}/contribution", commentaire="Corrigé.", version=key_of(physician, dossier))
    row = site.fresh().session.scalars(select(Contribution)).one()
    assert row.text == "Corrigé."
    assert site.world.session.get(Dossier, dossier.id).state == "prefiche"


@pytest.mark.req("S2-036")
def test_neither_text_nor_wish_is_refused_beside_the_field(site: Site, dossier: Dossier, physician: Browser) -> None:
    path = f"/dossiers/{dossier.id}/contribution"
    refused = physician.post(path, 422, commentaire=" \n ")
    assert "Rien n’a été enregistré." in refused.text
    assert 'aria-invalid="true"' in refused.text
    long = physician.post(path, 422, commentaire="é" * 10_001, interet="oui")
    assert "Ce texte dépasse 10000 caractères." in long.text
    assert "é" * 10_001 in long.text
    assert count(site, Contribution) == 0
    physician.post(path, interet="oui", commentaire="")
    assert count(site, Contribution) == 1


@pytest.mark.req("S2-038")
def test_the_same_form_twice_is_one_contribution_and_one_mail(site: Site, dossier: Dossier, physician: Browser) -> None:
    key = key_of(physician, dossier)
    for _ in range(3):
        physician.post(f"/dossiers/{dossier.id}/contribution", commentaire="Vit seule.", version=key)
    assert count(site, Contribution) == 1
    (message,) = site.fresh().session.scalars(select(Message)).all()
    mail = email.message_from_bytes(message.content, policy=email.policy.default)
    assert message.kind == "M2"
    assert "Vit seule" not in mail.get_body().get_content()


@pytest.mark.req("S2-039")
def test_three_saves_in_five_minutes_are_one_mail(site: Site, dossier: Dossier, physician: Browser) -> None:
    for minute, text in enumerate(("Vit seule.", "Vit seule, fatiguée.", "Vit seule, très fatiguée.")):
        site.clock.at = BEFORE + timedelta(minutes=2 * minute)
        key = key_of(physician, dossier)
        physician.post(f"/dossiers/{dossier.id}/contribution", commentaire=text, version=key)
    assert site.fresh().session.scalars(select(Contribution.text)).one() == "Vit seule, très fatiguée."
    assert count(site, Message) == 1


@pytest.mark.req("S2-035", "S2-045")
def test_only_the_treating_physician_contributes(site: Site, dossier: Dossier, physician: Browser) -> None:
    path = f"/dossiers/{dossier.id}/contribution"
    for person, status in (
        (site.world.requester, 403),
        (site.world.coordinator, 403),
        (site.world.stranger, 404),
    ):
        browser = site.browser(person)
        browser.post(path, status, commentaire="Moi aussi.")
        browser.post(path, status, commentaire="")
        assert status == 404 or not browser.get(f"/dossiers/{dossier.id}").xpath("//textarea")
    physician.post(path, 403, token="", commentaire="Sans jeton.")
    physician.client.cookies.clear()
    assert physician.client.post(path, data={"commentaire": "x"}).headers["location"] == "/connexion"
    assert count(site, Contribution) == 0


@pytest.mark.req("S2-035")
@pytest.mark.parametrize("field", ["question", "label", "state", "proposition", "tumeur"])
def test_a_classical_field_is_read_only(site: Site, dossier: Dossier, physician: Browser, field: str) -> None:
    physician.post(f"/dossiers/{dossier.id}/contribution", 403, commentaire="Vu.", **{field: "Falsifié"})
    row = site.fresh().session.get(Dossier, dossier.id)
    assert (row.question, row.label) == ("Chimiothérapie néoadjuvante ou chirurgie première ?", "Tumeur du sein")
    assert count(site, Contribution) == 0
    assert [line["reason"] for line in site.audit() if line["event"] == "refus"] == ["lecture-seule"]


@pytest.mark.req("S2-036")
def test_a_validated_report_closes_the_contribution(site: Site, dossier: Dossier, physician: Browser) -> None:
    site.world.session.get(Dossier, dossier.id).state = "envoye"
    site.world.session.commit()
    page = physician.get(f"/dossiers/{dossier.id}")
    assert not page.xpath("//textarea")
    assert "la fiche ne reçoit plus de contribution" in words(page)
    physician.post(f"/dossiers/{dossier.id}/contribution", 409, commentaire="Trop tard.")
    assert count(site, Contribution) == 0


def test_the_first_reading_is_kept_for_the_register(site: Site, dossier: Dossier, physician: Browser) -> None:
    site.browser(site.world.coordinator).get(f"/dossiers/{dossier.id}")
    treating = select(Correspondent).where(Correspondent.role == "medecin-traitant")
    assert site.fresh().session.scalars(treating).one().connected_at is None
    physician.get(f"/dossiers/{dossier.id}")
    physician.get(f"/dossiers/{dossier.id}")
    assert site.fresh().session.scalars(treating).one().connected_at == site.clock.at
    session = site.browser(site.world.coordinator).get(f"/seances/{site.world.meeting.id}")
    assert "Fiche consultée le 15/03/2026 à 14h00" in words(session.xpath("//section[@aria-labelledby='registre']")[0])


def test_the_wish_to_take_part_is_not_told_to_other_correspondents(
    site: Site, dossier: Dossier, physician: Browser
) -> None:
    other = site.world.practitioner("CORRESPONDANT")
    site.world.session.add(Correspondent(dossier_id=dossier.id, practitioner_id=other.id, role="correspondant"))
    site.world.session.commit()
    physician.post(f"/dossiers/{dossier.id}/contribution", commentaire="Vu.", interet="oui")
    wish = "Souhaite assister à la discussion"
    path = f"/dossiers/{dossier.id}"
    assert wish not in words(site.browser(other).get(path))
    for person in (site.world.requester, site.world.coordinator, site.world.treating):
        assert wish in words(site.browser(person).get(path))


def test_who_only_reads_the_dossier_and_asks_for_that_page_is_refused_and_told_to_the_trail(
    site: Site, dossier: Dossier
) -> None:
    site.browser(site.world.requester).get(f"/dossiers/{dossier.id}/pas-mon-patient", 403)
    [line] = [line for line in site.audit() if line["event"] == "refus"]
    assert (line["reason"], line["outcome"], line["actor_id"]) == ("role", "4", site.world.requester.idnps)
    assert (line["object_type"], line["object_id"]) == ("Dossier", str(dossier.id))


def test_it_is_not_my_patient(site: Site, dossier: Dossier, physician: Browser) -> None:
    path = f"/dossiers/{dossier.id}/pas-mon-patient"
    asked = physician.get(path)
    assert "PAT-TROIS" in words(asked)
    for _ in range(2):
        answer = physician.post(path)
        done = physician.get(answer.headers["location"])
        assert "Votre signalement est enregistré" in words(done)
        assert "PAT-TROIS" not in words(done)
    physician.get(f"/dossiers/{dossier.id}", 404)
    assert count(site, WorkItem) == 1
    worklist = words(site.browser(site.world.coordinator).get("/seances/a-traiter").xpath("//main")[0])
    assert dossier.reference in worklist
    assert "Le médecin traitant déclaré signale que ce n’est pas son patient." in worklist
    assert "PAT-TROIS" not in worklist
    assert "attend une décision" in words(site.browser(site.world.coordinator).get("/seances"))
    for person, status in ((site.world.requester, 403), (site.world.stranger, 404)):
        site.browser(person).get(path, status)
        site.browser(person).post(path, status)
    assert "Rien n’attend de décision." in words(site.browser(site.world.stranger).get("/seances/a-traiter"))
