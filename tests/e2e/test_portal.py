"""The portal as a person has it: Chromium, the composed application, a real PostgreSQL, a sign-in through a provider.

The pictures of ``docs/images`` are made by ``RCP_DOC_IMAGES=docs/images pytest tests/e2e/test_portal.py -k images``.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.model.dossier import Contribution, Correspondent, Dossier, DossierMove
from gateway.model.meeting import Attendance
from gateway.model.message import Message
from gateway.model.person import PatientRecord
from gateway.model.report import Report
from tests.e2e.portal_house import DESK, PHONE, House, send_images


@pytest.mark.req("S0-007", "S2-027", "S2-036", "S3-020")
def test_the_physician_follows_the_link_signs_in_and_contributes_without_javascript(house: House, visitor) -> None:
    physician = visitor(scripts=False)
    physician.go(f"/dossiers/{house.dossier.id}")
    assert "PAT-TROIS" not in physician.page.content()
    physician.sign_in(house.world.treating)
    assert physician.page.url == f"{house.origin}/dossiers/{house.dossier.id}"
    said = physician.read()
    for expected in (
        "PAT-TROIS DOMINIQUE ANNE",
        "Chimiothérapie néoadjuvante ou chirurgie première ?",
        "Document préparatoire, susceptible d’évoluer jusqu’à la validation.",
        "Ce texte sera lu par les participants et conservé dans le compte rendu.",
        "Code : 134679",
    ):
        assert expected in said, expected
    physician.page.get_by_role("button", name="Enregistrer ma contribution").click()
    assert "Rien n’a été enregistré." in physician.read()
    physician.page.get_by_label(re.compile("Commentaire du Docteur")).fill("Vit seule.\nFatigue importante.")
    physician.page.get_by_label(re.compile("La discussion m’intéresse")).check()
    physician.page.get_by_role("button", name="Enregistrer ma contribution").click()
    assert "Votre contribution est enregistrée." in physician.read()
    assert "Fatigue importante." in physician.page.locator("section[aria-labelledby=avis]").inner_text()
    row = house.fresh().session.scalars(select(Contribution)).one()
    assert row.text == "Vit seule.\nFatigue importante."
    (mail,) = house.world.session.scalars(select(Message).where(Message.kind == "M2")).all()
    assert b"Fatigue" not in mail.content


@pytest.mark.req("S0-049")
def test_another_physician_gets_404_and_the_next_one_at_the_machine_gets_nothing(house: House, visitor) -> None:
    other = visitor()
    other.go(f"/dossiers/{house.dossier.id}")
    other.sign_in(house.world.stranger)
    assert "Page introuvable" in other.read()
    assert "PAT-TROIS" not in other.page.content()
    assert other.go(f"/dossiers/{house.dossier.id}") == 404

    physician = visitor()
    physician.go(f"/dossiers/{house.dossier.id}")
    physician.sign_in(house.world.treating)
    assert "PAT-TROIS" in physician.read()
    physician.page.get_by_role("button", name="Se déconnecter").click()
    physician.page.wait_for_url(re.compile("/connexion"))
    physician.page.go_back()
    assert "PAT-TROIS" not in physician.page.content()
    physician.go(f"/dossiers/{house.dossier.id}")
    assert physician.page.url.startswith(f"{house.origin}/connexion")


MEASURE = """() => ({
  width: document.documentElement.scrollWidth,
  small: [...document.querySelectorAll(
      'button, .button, input:not([type=hidden]), select, textarea, nav a, .line-link, .foot a, .brand, .tile')]
    .filter(e => !['checkbox', 'radio'].includes(e.type))
    .map(e => [e, e.getBoundingClientRect()])
    .filter(([e, r]) => r.height > 0 && (r.height < 44 || r.width < 44) && !e.closest('.pages'))
    .map(([e, r]) => `${e.outerHTML.slice(0, 90)} ${r.width}x${r.height}`),
})"""


@pytest.mark.req("S0-006")
def test_every_page_fits_a_phone(house: House, visitor) -> None:
    phone = visitor(PHONE)
    public = ["/", "/rcp", f"/rcp/{house.world.rcp.id}", "/connexion", "/aide", "/aide/medecin-traitant"]
    public += ["/aide/medecin-rcp", "/aide/test?essai=2", "/aide/navigateurs", "/aide/accessibilite", "/rien"]
    for path in public:
        phone.go(path)
        found = phone.page.evaluate(MEASURE)
        assert found == {"width": PHONE["width"], "small": []}, path
    phone.go("/patients")
    phone.sign_in(house.world.coordinator)
    base = f"/dossiers/{house.dossier.id}"
    for path in (
        "/patients",
        base,
        f"/dossiers/{house.hostile.id}",
        f"{base}/fiche",
        f"{base}/compte-rendu",
        "/seances",
        f"/seances/{house.world.meeting.id}",
        f"/seances/{house.world.meeting.id}/registre",
        "/seances/a-traiter",
    ):
        assert phone.go(path) == 200
        found = phone.page.evaluate(MEASURE)
        assert found == {"width": PHONE["width"], "small": []}, path
    physician = visitor(PHONE)
    physician.go(base)
    physician.sign_in(house.world.treating)
    for path in (base, f"{base}/pas-mon-patient"):
        physician.go(path)
        assert physician.page.evaluate(MEASURE) == {"width": PHONE["width"], "small": []}, path


@pytest.mark.req("S0-053")
def test_a_hostile_name_runs_nothing(house: House, visitor) -> None:
    physician = visitor()
    refused: list[str] = []
    physician.page.on(
        "console", lambda said: refused.append(said.text) if "Content Security Policy" in said.text else None
    )
    physician.go("/patients")
    physician.sign_in(house.world.treating)
    for path in ("/patients", f"/dossiers/{house.hostile.id}"):
        physician.go(path)
        assert "ONERROR" in physician.read()
        assert physician.page.title() != "volé"
        assert physician.page.locator("img[src=x]").count() == 0
    assert refused == [], "a page of ours breaks its own content security policy"


def test_the_keyboard_reaches_the_content_and_shows_where_it_is(house: House, visitor) -> None:
    reader = visitor()
    reader.go("/")
    reader.page.keyboard.press("Tab")
    focused = "getComputedStyle(document.activeElement)"
    assert reader.page.evaluate("document.activeElement.className") == "skip"
    assert reader.page.evaluate(f"{focused}.outlineStyle") == "solid"
    reader.page.keyboard.press("Enter")
    assert reader.page.evaluate("document.activeElement.id") == "contenu"
    reader.page.keyboard.press("Tab")
    assert "Se connecter" in reader.page.evaluate("document.activeElement.textContent")


def test_the_organiser_holds_the_session_and_validates_the_report(house: House, visitor) -> None:
    organiser = visitor(scripts=False)
    organiser.go("/seances")
    organiser.sign_in(house.world.coordinator)
    page = organiser.page
    page.locator("main a", has_text="jeudi 19").first.click()
    page.get_by_role("button", name="Ouvrir la séance").click()
    for choice in page.locator("select[name^='presence-']").all():
        choice.select_option("presentiel")
    page.get_by_role("button", name="Enregistrer les présents").click()
    assert "Quorum atteint" in organiser.read()
    assert len(house.fresh().session.scalars(select(Attendance)).all()) == 3
    page.locator(f"a[href='/dossiers/{house.dossier.id}/compte-rendu']").first.click()
    page.get_by_label("Proposition de prise en charge").fill("Chimiothérapie néoadjuvante, puis chirurgie.")
    page.get_by_role("button", name="Enregistrer et relire avant validation").click()
    assert "À qui il sera envoyé" in organiser.read()
    page.get_by_label("J’ai relu ce compte rendu et je le valide").check()
    page.get_by_role("button", name="Valider et envoyer").click()
    assert "Le compte rendu est validé." in organiser.read()
    assert house.fresh().session.scalars(select(Report.state)).one() == "valide"
    with page.expect_download() as download:
        page.locator("a", has_text="PDF").first.click()
    kept = download.value
    assert re.fullmatch(r"compte-rendu-RCP-T\d+-00-v1\.pdf", kept.suggested_filename)
    assert Path(kept.path()).read_bytes().startswith(b"%PDF-")


def test_the_organiser_reads_the_register_and_takes_it_to_a_spreadsheet(house: House, visitor) -> None:
    organiser = visitor(scripts=False)
    organiser.go(f"/seances/{house.world.meeting.id}")
    organiser.sign_in(house.world.coordinator)
    page = organiser.page
    page.get_by_role("link", name="Registre complet").click()
    assert page.url.endswith("/registre")
    assert page.locator("table th[scope=col]").all_inner_texts()[-2:] == ["Fiche consultée", "Contribution"]
    assert "Notification non encore planifiée" in organiser.read()
    table = page.locator(".frame").first
    assert table.evaluate("box => box.scrollWidth - box.clientWidth") == 0, "the whole line is seen at once"
    with page.expect_download() as download:
        page.get_by_role("link", name="Télécharger le registre (CSV)").click()
    assert download.value.suggested_filename.startswith("registre-2026-03-19-")
    head, *lines = Path(download.value.path()).read_text("utf-8-sig").splitlines()
    assert head.startswith("Séance;Dossier;Patient;")
    assert len(lines) == 2


def test_the_requester_fills_the_fiche_without_javascript(house: House, visitor) -> None:
    requester = visitor(scripts=False)
    requester.go(f"/dossiers/{house.hostile.id}")
    requester.sign_in(house.world.requester)
    page = requester.page
    page.get_by_role("link", name="Modifier la fiche").click()
    assert page.locator("label[for='motif.question']").inner_text() == "Question posée *"
    page.get_by_label("Topographie (CIM-10)", exact=True).fill(
        "C50.2 – Tumeur maligne du quadrant supéro-interne du sein"
    )
    page.get_by_label("Latéralité", exact=True).select_option(label="Gauche")
    page.get_by_label("T", exact=True).fill("T9")
    page.get_by_label("Avis diagnostique").check()
    page.get_by_role("button", name="Enregistrer", exact=True).click()
    assert "Rien n’a été enregistré." in requester.read()
    assert page.get_by_label("T", exact=True).get_attribute("aria-invalid") == "true"
    page.get_by_label("T", exact=True).fill("T2")
    page.get_by_role("button", name="Enregistrer", exact=True).click()
    said = requester.read()
    assert "La fiche est enregistrée." in said
    for words in ("C50.2", "gauche", "T2", "Avis diagnostique", "Saisi par"):
        assert words in said, words


def test_the_printed_fiche_names_the_patient_on_each_sheet(house: House, visitor, tmp_path: Path) -> None:
    from pypdf import PdfReader

    world = house.world
    world.session.get(Dossier, house.dossier.id).question = "Une question longue. " * 600
    world.session.commit()
    physician = visitor()
    physician.go(f"/dossiers/{house.dossier.id}")
    physician.sign_in(world.treating)
    physician.page.pdf(path=tmp_path / "fiche.pdf", format="A4")
    sheets = [sheet.extract_text() for sheet in PdfReader(tmp_path / "fiche.pdf").pages]
    assert len(sheets) >= 2
    assert all("PAT-TROIS DOMINIQUE ANNE" in sheet for sheet in sheets)
    assert "Enregistrer ma contribution" not in " ".join(sheets)


PICTURES = "[...document.querySelectorAll('.thumbs img')].map(i => [i.complete, i.naturalWidth > 32])"


def test_the_images_of_the_fiche_are_seen_by_who_may(house: House, visitor, tmp_path: Path) -> None:
    house.world.session.get(PatientRecord, house.dossier.record_id).value = DOMINIQUE.patient_id
    house.world.session.commit()
    send_images(house, DOMINIQUE, tmp_path / "ct")
    physician = visitor()
    physician.go(f"/dossiers/{house.dossier.id}")
    physician.sign_in(house.world.treating)
    assert "TDM THORAX – bilan d’extension" in physician.read()
    assert "1 série, 5 images" in physician.read()
    pictures = physician.page.locator(".thumbs img")
    pictures.last.scroll_into_view_if_needed()
    physician.page.wait_for_function(f"() => {PICTURES}.every(([done, drawn]) => done && drawn)")
    assert pictures.count() == 3
    address = pictures.first.get_attribute("src")
    other = visitor()
    other.go("/patients")
    other.sign_in(house.world.stranger)
    assert other.go(address) == 404


def test_an_image_that_contradicts_the_patient_is_held_for_the_organisers(
    house: House, visitor, tmp_path: Path
) -> None:
    house.world.session.get(PatientRecord, house.dossier.record_id).value = DOMINIQUE.patient_id
    house.world.session.commit()
    send_images(house, replace(DOMINIQUE, birth_date=date(1951, 1, 2)), tmp_path / "ct")
    physician = visitor()
    physician.go(f"/dossiers/{house.dossier.id}")
    physician.sign_in(house.world.treating)
    assert "TDM THORAX" not in physician.page.content()
    organiser = visitor()
    organiser.go("/seances/a-traiter")
    organiser.sign_in(house.world.coordinator)
    assert "La date de naissance de l’étude contredit celle du patient." in organiser.read()
    assert "La quarantaine est vide." not in organiser.read()
    assert "1951" not in organiser.page.content()


def test_images_of_the_documentation_can_be_made(house: House, visitor, tmp_path: Path) -> None:
    """With ``RCP_DOC_IMAGES=docs/images`` in the environment they are the documentation's."""
    folder = Path(os.environ.get("RCP_DOC_IMAGES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    world = house.world
    for kind in (Correspondent, DossierMove):
        world.session.execute(delete(kind).where(kind.dossier_id == house.hostile.id))
    world.session.execute(delete(Dossier).where(Dossier.id == house.hostile.id))
    world.session.commit()
    desk, phone, organiser = visitor(DESK), visitor(PHONE), visitor(DESK)
    desk.go("/")
    desk.page.screenshot(path=folder / "portail-accueil.png")
    desk.go("/connexion")
    desk.page.screenshot(path=folder / "portail-connexion.png")
    for one, name in ((desk, "portail-fiche.png"), (phone, "portail-fiche-telephone.png")):
        one.go(f"/dossiers/{house.dossier.id}")
        one.sign_in(world.treating)
        one.page.screenshot(path=folder / name, full_page=one is desk)
    organiser.go(f"/seances/{world.meeting.id}")
    organiser.sign_in(world.coordinator)
    organiser.page.screenshot(path=folder / "portail-seance.png", full_page=True)
    assert {path.suffix for path in folder.glob("portail-*")} == {".png"}
