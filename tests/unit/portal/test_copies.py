"""« Copies sans identité » through the real forms: who asks, what is said, and the zip that leaves."""

from __future__ import annotations

import io
import zipfile

import pydicom
import pytest
from pydicom.data import get_testdata_file
from sqlalchemy import select

from gateway.dicom import translate
from gateway.dicom.copier import Copier
from gateway.dicom.drawing import Drawing
from gateway.model.imaging import Study
from gateway.model.imaging_copy import StudyCopy
from gateway.rcp import imaging, imaging_copies
from gateway.rcp.imaging import Content
from tests.image_samples import pacs
from tests.unit.portal.conftest import Site, words
from tests.world import DOMAIN, audit_lines

STUDY = "1.2.250.1.999999.2026.9.8"


@pytest.fixture(scope="module")
def drawing():
    shared = Drawing(processes=1)
    yield shared
    shared.close()


@pytest.fixture
def dossier(site: Site, blobs, tmp_path):
    """A dossier with a slice, and an ultrasound of which nobody knows what its pixels show."""
    record = site.world.record(value="000003", match_key="PATTROIS|DOMINIQUE|1979-03-28|F")
    row = site.world.dossier(record)
    site.world.session.commit()
    for number, modality in ((1, "CT"), (2, "US")):
        ds = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
        for keyword, value in {
            "StudyInstanceUID": STUDY,
            "SeriesInstanceUID": f"{STUDY}.{number}",
            "SOPInstanceUID": f"{STUDY}.{number}.1",
            "PatientName": "PAT-TROIS^DOMINIQUE",
            "PatientID": "000003",
            "IssuerOfPatientID": DOMAIN,
            "PatientBirthDate": "19790328",
            "PatientSex": "F",
            "Modality": modality,
            "SeriesNumber": number,
        }.items():
            setattr(ds, keyword, value)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        path = tmp_path / f"{number}.dcm"
        ds.save_as(path, enforce_file_format=True)
        blob = blobs.put(path.read_bytes())
        facts = translate.read(path)
        kept = Content(blob.sha256, blob.size_bytes)
        assert site.steps.run(pacs(site.world), lambda step, f=facts, k=kept: imaging.keep(step, f, k)) is None
    return row


def test_a_copy_is_asked_for_made_looked_at_and_handed_out(site, dossier, blobs, drawing):
    coordinator = site.browser(site.world.coordinator)
    fiche = coordinator.get(f"/dossiers/{dossier.id}")
    [there] = fiche.xpath("//a[contains(text(), 'Copies sans identité')]/@href")
    study = site.fresh().session.scalars(select(Study)).one()
    answer = coordinator.post(there, etude=str(study.id), caracteristiques="oui")
    assert answer.headers["location"] == f"{there}?fait=copie"
    assert "En préparation" in coordinator.get(there).text_content()
    imaging_copies.make_due(site.steps, Copier(blobs, drawing))
    copy = site.fresh().session.scalars(select(StudyCopy)).one()
    page = coordinator.get(there)
    said = words(page)
    assert "Prête" in said
    assert "1 image peut montrer le patient dans ses pixels" in said
    assert "sexe, âge, taille et poids" in said
    [form] = page.xpath("//form[contains(@action, '.zip')]/@action")
    refused = coordinator.post(form, 422)
    assert "Regardez d’abord" in refused.text
    sent = coordinator.post(form, 200, regardees="oui")
    assert sent.headers["content-type"] == "application/zip"
    assert sent.headers["content-disposition"] == f'attachment; filename="{copy.pseudonym}.zip"'
    with zipfile.ZipFile(io.BytesIO(sent.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{copy.pseudonym}/SE0001/IM000001", f"{copy.pseudonym}/SE0002/IM000002"]
        objects = [pydicom.dcmread(archive.open(name)) for name in archive.namelist()]
    assert {str(one.PatientName) for one in objects} == {copy.pseudonym}
    assert len({one.StudyInstanceUID for one in objects} | {STUDY}) == 2
    for word in (b"PAT-TROIS", b"DOMINIQUE", b"000003", b"19790328", STUDY.encode()):
        assert word not in sent.content
    events = [line["event"] for line in audit_lines(site.fresh().session)]
    assert events.count("remise-copie") == 1  # the refused one handed nothing out


@pytest.mark.parametrize("who", ["requester", "treating"])
def test_who_does_not_organise_sees_neither_the_link_nor_the_page(site, dossier, who):
    browser = site.browser(getattr(site.world, who))
    fiche = browser.get(f"/dossiers/{dossier.id}")
    assert fiche.xpath("//a[contains(text(), 'Copies sans identité')]") == []
    browser.get(f"/dossiers/{dossier.id}/copies", status=404)
    study = site.fresh().session.scalars(select(Study)).one()
    browser.post(f"/dossiers/{dossier.id}/copies", 404, etude=str(study.id))
    assert site.fresh().session.scalars(select(StudyCopy)).all() == []


def test_a_form_without_its_token_asks_for_nothing(site, dossier):
    coordinator = site.browser(site.world.coordinator)
    study = site.fresh().session.scalars(select(Study)).one()
    coordinator.post(f"/dossiers/{dossier.id}/copies", 403, token="", etude=str(study.id))
    assert site.fresh().session.scalars(select(StudyCopy)).all() == []
