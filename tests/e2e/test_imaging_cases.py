"""Images to decide on, awaited images and files beside a dossier, as people have them: Chromium, without JavaScript.

The pictures of ``docs/images`` are made by ``RCP_DOC_IMAGES=docs/images pytest tests/e2e/test_imaging_cases.py -k
documentation``.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import date
from pathlib import Path

from sqlalchemy import select, update

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.dicom.outgoing import DicomChannel
from gateway.dicom.scu import Ours
from gateway.exchange.delivery import Deliveries
from gateway.exchange.outbox import Outcome
from gateway.model.imaging import StudyDossier
from gateway.model.message import Message
from gateway.model.partner import Partner, PartnerCredential
from gateway.model.person import PatientRecord
from gateway.model.received import ReceivedDocument
from gateway.model.store import utcnow
from gateway.rcp import imaging_sending
from tests.attached_samples import jpeg, pdf, png
from tests.e2e.dicom.peers import receiver, register
from tests.e2e.portal_house import DESK, PHONE, House, send_images
from tests.e2e.test_portal import MEASURE

FITS = {"width": PHONE["width"], "small": []}


def test_a_study_in_quarantine_is_compared_and_released_on_a_telephone(house: House, visitor, tmp_path: Path) -> None:
    record = house.world.session.get_one(PatientRecord, house.dossier.record_id)
    send_images(
        house,
        replace(DOMINIQUE, patient_id=record.value, issuer=record.system, birth_date=date(1981, 4, 2)),
        tmp_path,
    )
    organiser = visitor(PHONE, scripts=False)
    organiser.go("/seances/a-traiter")
    organiser.sign_in(house.world.coordinator)
    organiser.page.get_by_role("link", name="Comparer et décider").click()
    assert "02/04/1981" in organiser.read()
    assert "Diffère" in organiser.read()
    assert visitor_fits(organiser)
    organiser.page.get_by_label("Pourquoi *", exact=True).fill("Erreur de saisie au scanner")
    organiser.page.get_by_role("button", name="Rattacher ces images").click()
    assert "confirmez que vous les avez comparées" in organiser.read()
    assert visitor_fits(organiser)
    organiser.page.get_by_label("J’ai comparé les deux identités").check()
    organiser.page.get_by_role("button", name="Rattacher ces images").click()
    assert "Ces images sont rattachées au patient." in organiser.read()
    assert house.fresh().session.scalars(select(StudyDossier.basis)).all() == ["personne"]
    organiser.go("/imagerie")
    assert visitor_fits(organiser)


def visitor_fits(one) -> bool:
    """Whether nothing is wider than the telephone, or smaller than a finger; scripts of the page itself stay off."""
    session = one.context.new_cdp_session(one.page)
    found = session.send("Runtime.evaluate", {"expression": f"JSON.stringify(({MEASURE})())"})
    assert json.loads(found["result"]["value"]) == FITS
    return True


def test_images_of_somebody_else_are_taken_from_a_patient_on_a_telephone(house: House, visitor, tmp_path: Path) -> None:
    record = house.world.session.get_one(PatientRecord, house.dossier.record_id)
    send_images(house, replace(DOMINIQUE, patient_id=record.value, issuer=record.system), tmp_path)
    organiser = visitor(PHONE, scripts=False)
    base = f"/dossiers/{house.dossier.id}"
    organiser.go(base)
    organiser.sign_in(house.world.coordinator)
    organiser.page.get_by_role("link", name="Des images ne sont pas celles de ce patient").click()
    assert visitor_fits(organiser)
    organiser.page.get_by_role("link", name="TDM THORAX").click()
    assert visitor_fits(organiser)
    organiser.page.get_by_label("Pourquoi *", exact=True).fill("Bracelet échangé au scanner")
    organiser.page.get_by_role("button", name="Retirer ces images").click()
    assert "Confirmez que vous avez comparé" in organiser.read()
    organiser.page.get_by_label("J’ai comparé les identités").check()
    organiser.page.get_by_role("button", name="Retirer ces images").click()
    assert "Ces images sont retirées du dossier" in organiser.read()
    # What was seen a moment ago is nobody's here any more.
    assert organiser.go(f"{base}/images?serie={DOMINIQUE.study_uid}.1") == 404
    root = f"{organiser.origin}/dicom-web/studies/{DOMINIQUE.study_uid}"
    assert organiser.page.request.get(f"{root}/metadata").status == 404
    organiser.go("/imagerie")
    assert "Une personne a retiré cette étude du patient" in organiser.read()


def test_files_are_laid_beside_a_dossier_and_seen_there(house: House, visitor, tmp_path: Path) -> None:
    paths = []
    for name, content in (("photo.jpg", jpeg()), ("capture.png", png()), ("cr.pdf", pdf())):
        path = tmp_path / name
        path.write_bytes(content)
        paths.append(path)
    physician = visitor(PHONE)
    base = f"/dossiers/{house.dossier.id}"
    physician.go(f"{base}/pieces")
    physician.sign_in(house.world.treating)
    assert visitor_fits(physician)
    physician.page.get_by_label("Fichiers *").set_input_files(paths)
    physician.page.get_by_role("button", name="Ajouter au dossier").click()
    assert "Les documents sont joints au dossier." in physician.read()
    assert len(house.fresh().session.scalars(select(ReceivedDocument)).all()) == 3
    physician.go(base)
    shown = physician.page.locator("section[aria-labelledby=documents] img")
    assert shown.count() == 2
    for number in range(2):
        picture = shown.nth(number)
        picture.scroll_into_view_if_needed()
        # Drawn by the browser, under the headers of the file itself: turned as it was taken.
        size = picture.evaluate("async e => { await e.decode(); return [e.naturalWidth, e.naturalHeight]; }")
        assert sorted(size) == [24, 40]
    assert visitor_fits(physician)
    with physician.page.expect_download() as saved:
        physician.page.get_by_role("link", name="cr.pdf").click()
    assert Path(saved.value.path()).read_bytes() == pdf()
    assert "cr" not in saved.value.suggested_filename.removesuffix(".pdf").split("-")
    stranger = visitor()
    stranger.go(base)
    stranger.sign_in(house.world.stranger)
    [one, *_] = house.fresh().session.scalars(select(ReceivedDocument)).all()
    assert stranger.go(f"{base}/pieces/{one.id}.{one.format}") == 404


def test_awaited_images_are_declared_without_javascript(house: House, visitor) -> None:
    requester = visitor(PHONE, scripts=False)
    base = f"/dossiers/{house.dossier.id}"
    requester.go(f"{base}/images-attendues")
    requester.sign_in(house.world.requester)
    requester.page.get_by_label("Examen *").fill("IRM mammaire")
    requester.page.get_by_label("Modalité *").select_option("MR")
    requester.page.get_by_role("button", name="Attendre ces images").click()
    assert "1 examen manque" in requester.read()
    assert visitor_fits(requester)
    requester.page.get_by_role("button", name="Ne plus attendre").click()
    assert "IRM mammaire" not in requester.read()


def test_a_study_is_sent_to_another_hospital_from_the_page(house: House, visitor, tmp_path: Path) -> None:
    """dcmtk receives, on the order of a person at a telephone; the page follows."""
    session = house.world.session
    record = session.get_one(PatientRecord, house.dossier.record_id)
    send_images(house, replace(DOMINIQUE, patient_id=record.value, issuer=record.system), tmp_path / "ct")
    organiser = visitor(PHONE, scripts=False)
    there = f"/dossiers/{house.dossier.id}/envois"
    organiser.go(there)
    organiser.sign_in(house.world.coordinator)
    with receiver(tmp_path / "chuy", "CHUY_ARCHIVE") as theirs:
        hospital = Partner(name="CHU Y", network_id=house.world.network.id, patient_domains=[])
        session.add(hospital)
        session.flush()
        register(session, hospital, "CHUY_ARCHIVE", theirs.port)
        organiser.go(there)
        assert visitor_fits(organiser)
        organiser.page.get_by_label("Établissement *").select_option(label="CHU Y – CHUY_ARCHIVE")
        organiser.page.get_by_label("Cet établissement prend part aux soins").check()
        organiser.page.get_by_role("button", name="Envoyer ces images").click()
        assert "En file d’attente" in organiser.read()
        assert visitor_fits(organiser)
        message = house.fresh().session.scalars(select(Message.id).where(Message.direction == "out")).one()
        gateway = house.gateway
        channel = DicomChannel(gateway.store, gateway.blobs, Ours("RCPGATEWAY"))
        deliveries = Deliveries(
            gateway.store, gateway.blobs, gateway.steps.trail, [channel], settled=imaging_sending.after_delivery
        )
        listens = update(PartnerCredential).where(PartnerCredential.value == "CHUY_ARCHIVE")
        session.execute(listens.values(revoked_at=utcnow()))  # the operator takes the application out of his list
        session.commit()
        assert deliveries.attempt(message) is Outcome.REFUSED
        session.execute(listens.values(revoked_at=None))  # and puts it back
        session.commit()
        organiser.go(there)
        assert "Refusée, à traiter" in organiser.read()
        assert visitor_fits(organiser)
        organiser.page.get_by_role("button", name="Envoyer de nouveau").click()
        assert "L’envoi est repris" in organiser.read()
        assert deliveries.attempt(message) is Outcome.DELIVERED
        assert len(theirs.files) == 5
    organiser.go(there)
    assert "Envoyée" in organiser.read()
    assert "5 objets" in organiser.read()


#: The pages of images, by the picture of each in the documentation.
PAGES = {
    "images-attendues": "images-attendues",
    "images-envoi": "envois",
    "images-copies": "copies",
    "images-documents": "pieces",
}


def test_pictures_of_the_documentation_can_be_made(house: House, visitor, tmp_path: Path) -> None:
    """With ``RCP_DOC_IMAGES=docs/images`` in the environment they are the documentation's."""
    folder = Path(os.environ.get("RCP_DOC_IMAGES") or tmp_path)
    session = house.world.session
    record = session.get_one(PatientRecord, house.dossier.record_id)
    mine = replace(DOMINIQUE, patient_id=record.value, issuer=record.system)
    send_images(house, mine, tmp_path / "mine")
    wrong = replace(mine, study_uid=f"{mine.study_uid}.8", birth_date=date(1981, 4, 2), slices=2)
    send_images(house, wrong, tmp_path / "wrong")
    hospital = Partner(name="CHU Y", network_id=house.world.network.id, patient_domains=[])
    session.add(hospital)
    session.flush()
    register(session, hospital, "CHUY_ARCHIVE")
    said = {"birth_family": "PAT-QUATRE", "given": "CLAUDE", "given_names": ["CLAUDE"], "birth_date": "1961-07-14"}
    other = house.world.dossier(house.world.record(**said, used_family=None, used_given=None, match_key="QUATRE"))
    session.commit()
    organiser = visitor(DESK)
    page, base = organiser.page, f"/dossiers/{house.dossier.id}"

    def seen(name: str) -> None:
        page.evaluate(
            """() => Promise.all([...document.images].map(one => { one.loading = "eager"; return one.decode(); }))"""
        )
        page.screenshot(path=folder / f"{name}.png", full_page=True)

    organiser.go(f"{base}/images-attendues")
    organiser.sign_in(house.world.coordinator)
    page.get_by_label("Examen *").fill("IRM mammaire")
    page.get_by_label("Modalité *").select_option("MR")
    page.get_by_role("button", name="Attendre ces images").click()
    organiser.go(f"{base}/copies")
    page.get_by_role("button", name="Préparer la copie").click()
    organiser.go(f"{base}/envois")
    page.get_by_label("Établissement *").select_option(label="CHU Y – CHUY_ARCHIVE")
    page.get_by_label("Cet établissement prend part aux soins").check()
    page.get_by_role("button", name="Envoyer ces images").click()
    organiser.go(f"{base}/pieces")
    picture = tmp_path / "photo.jpg"
    picture.write_bytes(jpeg())
    page.get_by_label("Fichiers *").set_input_files([picture])
    page.get_by_role("button", name="Ajouter au dossier").click()
    for name, path in PAGES.items():
        organiser.go(f"{base}/{path}")
        seen(name)
    organiser.go(f"{base}/detacher")
    page.get_by_role("link", name="TDM THORAX").click()
    page.get_by_label("Référence d’un dossier que vous organisez").fill(other.reference)
    page.get_by_role("button", name="Comparer").click()
    assert "Donner à l’autre patient" in organiser.read()
    seen("images-retrait")
    organiser.go("/imagerie")
    seen("imagerie")
    page.get_by_role("link", name="La date de naissance").click()
    seen("imagerie-decision")
    made = {path.stem for path in folder.glob("*.png")}
    assert {*PAGES, "images-retrait", "imagerie", "imagerie-decision"} <= made
