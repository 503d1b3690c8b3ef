"""Files beside a dossier, through the real forms: what is taken, from whom, and to whom it is given."""

from __future__ import annotations

import base64
import io
import threading
import uuid
from dataclasses import replace

import pytest
from lxml import html
from PIL import Image
from pydicom import dcmread
from sqlalchemy import select

from gateway.demo.ct_phantom import DOMINIQUE, write_series
from gateway.fhir.keeping import Owner, keep
from gateway.model.dossier import Dossier
from gateway.model.imaging import Instance, QuarantinedObject, Study, StudyDossier
from gateway.model.person import WorkItem
from gateway.model.received import ReceivedDocument
from gateway.model.report import Report
from gateway.rcp import attachments
from gateway.web.csrf import CSRF_FIELD
from tests.attached_samples import SECRET, bmp, gif, jpeg, pdf, pixels, png
from tests.unit.portal.conftest import Browser, Site, words


@pytest.fixture
def dossier(site: Site) -> Dossier:
    row = site.world.dossier()
    site.world.session.commit()
    return row


def send(browser: Browser, dossier: Dossier, *files: tuple[str, bytes], status: int = 303, token: str | None = None):
    """Send a form of several files, as a browser does."""
    answer = browser.client.post(
        f"/dossiers/{dossier.id}/pieces",
        data={CSRF_FIELD: browser.token if token is None else token},
        files=[("fichiers", (name, content, "application/octet-stream")) for name, content in files],
        headers={"origin": str(browser.client.base_url)},
    )
    assert answer.status_code == status, (answer.status_code, answer.text[-600:])
    return answer


def kept(site: Site) -> list[ReceivedDocument]:
    return list(site.fresh().session.scalars(select(ReceivedDocument).order_by(ReceivedDocument.id)))


@pytest.mark.req("S0-065")
def test_several_files_are_kept_by_their_content_and_shown_with_the_dossier(site, dossier):
    requester = site.browser(site.world.requester)
    sent = {"scan.jpg": jpeg(), "capture.png": png(), "ciné.gif": gif(), "compte rendu.pdf": pdf(title=SECRET.decode())}
    send(requester, dossier, *sent.items())
    rows = kept(site)
    assert [(one.title, one.format, one.state) for one in rows] == [
        ("scan.jpg", "jpeg", "attache"),
        ("capture.png", "png", "attache"),
        ("ciné.gif", "gif", "attache"),
        ("compte rendu.pdf", "pdf", "attache"),
    ]
    page = requester.get(f"/dossiers/{dossier.id}")
    shown = page.xpath("//section[@aria-labelledby='documents']//img/@src")
    assert shown == [f"/dossiers/{dossier.id}/pieces/{one.id}.{one.format}" for one in rows[:3]]
    for one, (name, made) in zip(rows, sent.items(), strict=True):
        answer = requester.client.get(f"/dossiers/{dossier.id}/pieces/{one.id}.{one.format}")
        assert answer.status_code == 200
        assert SECRET not in answer.content
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        disposition = answer.headers["content-disposition"]
        assert disposition.startswith("attachment" if name.endswith("pdf") else "inline")
        assert one.title not in disposition
        if name.endswith("pdf"):
            assert b"SECRET" not in answer.content, "its title went"
            assert answer.content.startswith(b"%PDF-")
            assert answer.headers["content-type"] == "application/pdf"
        else:
            assert pixels(answer.content) == pixels(made)
    lines = [one for one in site.audit() if one["object_type"] == "ReceivedDocument"]
    assert [one["event"] for one in lines] == ["creation"] * 4 + ["consultation"] * 4
    assert {tuple(one["persons"]) for one in lines} == {(str(dossier.record_id),)}


@pytest.mark.req("S0-065")
def test_a_photograph_that_is_called_png_is_a_photograph(site, dossier):
    send(site.browser(site.world.requester), dossier, ("photo.png", jpeg()))
    [row] = kept(site)
    assert row.format == "jpeg"
    answer = site.browser(site.world.requester).client.get(f"/dossiers/{dossier.id}/pieces/{row.id}.jpeg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert (
        site.browser(site.world.requester).client.get(f"/dossiers/{dossier.id}/pieces/{row.id}.png").status_code == 404
    )


@pytest.mark.req("S0-065")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("image.bmp", bmp()),
        ("image.png", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"),
        ("page.pdf", b"<!DOCTYPE html><script>alert(1)</script>"),
        ("programme.pdf", pdf(script="app.alert(1)")),
        ("coupé.jpg", jpeg()[:200]),
    ],
)
def test_a_form_with_one_bad_file_is_refused_whole_and_says_which(site, dossier, name, content):
    answer = send(site.browser(site.world.requester), dossier, ("bon.png", png()), (name, content), status=422)
    assert f"Fichier 2 (« {name} »)" in answer.text.replace("\u00a0", " ")
    assert "alert(1)" not in answer.text
    assert kept(site) == []


def test_an_empty_form_says_so(site, dossier):
    assert "Choisissez au moins un fichier." in send(site.browser(site.world.requester), dossier, status=422).text


def test_the_same_file_twice_is_one(site, dossier):
    for _ in range(2):
        send(site.browser(site.world.requester), dossier, ("a.png", png()), ("b.png", png()))
    assert len(kept(site)) == 1


def test_two_people_at_once_with_the_same_file_keep_one(site, dossier):
    start = threading.Barrier(2)

    def go(person):
        browser = site.browser(person)
        start.wait()
        send(browser, dossier, ("a.png", png()))

    both = [threading.Thread(target=go, args=(one,)) for one in (site.world.requester, site.world.treating)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(kept(site)) == 1


@pytest.mark.req("S3-018")
def test_the_treating_physician_reads_and_adds_and_another_one_finds_nothing(site, dossier):
    requester, treating = site.browser(site.world.requester), site.browser(site.world.treating)
    stranger = site.browser(site.world.stranger)
    send(requester, dossier, ("a.png", png()))
    [row] = kept(site)
    url = f"/dossiers/{dossier.id}/pieces/{row.id}.png"
    assert treating.client.get(url).status_code == 200
    assert stranger.client.get(url).status_code == 404
    send(treating, dossier, ("b.pdf", pdf()))
    send(stranger, dossier, ("c.png", jpeg()), status=404)
    stranger.get(f"/dossiers/{dossier.id}/pieces", 404)
    assert len(kept(site)) == 2
    # Not through a dossier of his own either.
    own = site.world.dossier(requester_id=site.world.stranger.id)
    site.world.session.commit()
    assert stranger.client.get(f"/dossiers/{own.id}/pieces/{row.id}.png").status_code == 404


def test_nobody_sends_without_signing_in_or_without_the_session_s_token(site, dossier):
    answer = send(site.browser(), dossier, ("a.png", png()))
    assert "/connexion" in answer.headers["location"]
    send(site.browser(site.world.requester), dossier, ("a.png", png()), token="faux", status=403)
    assert kept(site) == []


def test_only_its_author_takes_a_file_back_and_its_bytes_are_given_to_nobody_any_more(site, dossier):
    requester, treating = site.browser(site.world.requester), site.browser(site.world.treating)
    send(treating, dossier, ("a.png", png()))
    [row] = kept(site)
    base = f"/dossiers/{dossier.id}/pieces"
    assert treating.get(base).xpath(f"//form[@action='{base}/{row.id}/retirer']")
    assert not requester.get(base).xpath(f"//form[@action='{base}/{row.id}/retirer']")
    requester.post(f"{base}/{row.id}/retirer", 403)
    site.browser(site.world.stranger).post(f"{base}/{row.id}/retirer", 404)
    requester.post(f"{base}/{uuid.uuid4()}/retirer", 404)
    assert [one.state for one in kept(site)] == ["attache"]
    for _ in range(2):
        treating.post(f"{base}/{row.id}/retirer")
    assert [one.state for one in kept(site)] == ["retire"]
    assert treating.client.get(f"{base}/{row.id}.png").status_code == 404
    assert "a.png" not in words(treating.get(f"/dossiers/{dossier.id}"))


def test_nothing_is_added_or_taken_back_once_the_report_is_validated(site, dossier):
    treating = site.browser(site.world.treating)
    send(treating, dossier, ("a.png", png()))
    [row] = kept(site)
    session = site.world.session
    frozen = {"content": b"{}", "validator_id": site.world.coordinator.id, "validated_at": site.clock.now()}
    who = site.world.coordinator.id
    session.add(Report(dossier_id=dossier.id, set_id=uuid.uuid4(), version=1, state="valide", author_id=who, **frozen))
    session.commit()
    send(treating, dossier, ("b.png", jpeg()), status=409)
    treating.post(f"/dossiers/{dossier.id}/pieces/{row.id}/retirer", 409)
    assert [one.state for one in kept(site)] == ["attache"]
    assert treating.client.get(f"/dossiers/{dossier.id}/pieces/{row.id}.png").status_code == 200


def test_limits_name_themselves(site, dossier):
    requester = site.browser(site.world.requester)
    answer = send(requester, dossier, *((f"{n}.png", b"x") for n in range(11)), status=400)
    assert kept(site) == []
    out = io.BytesIO()
    Image.new("1", (9000, 9000)).save(out, "PNG")
    answer = send(requester, dossier, ("bombe.png", out.getvalue()), status=422)
    assert "50000000 pixels" in answer.text
    answer = send(requester, dossier, ("grand.pdf", pdf() + b"\n" * (20 << 20)), status=422)
    assert "20971520 octets" in answer.text


def test_a_dossier_holds_so_many_files_and_a_form_over_it_keeps_none(site, dossier, monkeypatch):
    monkeypatch.setattr(attachments, "HELD_AT_MOST", 2)
    requester = site.browser(site.world.requester)
    send(requester, dossier, ("a.png", png()))
    answer = send(requester, dossier, ("b.jpg", jpeg()), ("c.gif", gif()), status=422)
    assert "plus de 2 documents" in answer.text
    assert [one.title for one in kept(site)] == ["a.png"]


def test_a_name_that_hides_something_is_shown_plainly(site, dossier):
    requester = site.browser(site.world.requester)
    send(requester, dossier, ("../..\\<script>alert(1)</script>\u202egnp.png", png()))
    [row] = kept(site)
    assert "\u202e" not in row.title
    assert "\\" not in row.title
    page = requester.client.get(f"/dossiers/{dossier.id}").text
    assert "<script>alert" not in page


# ---- image objects


def ct(tmp_path, **said) -> bytes:
    """One slice of Dominique's scanner, as a file of a disc; say what is otherwise."""
    path = write_series(replace(DOMINIQUE, patient_id=said.pop("number", "000003"), slices=1), tmp_path)[0]
    ds = dcmread(path)
    for name, value in said.items():
        setattr(ds, name, value)
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


@pytest.fixture
def imaged(site: Site) -> Dossier:
    row = site.world.dossier(site.world.record(value="000003"))
    site.world.session.commit()
    return row


def studies(site: Site) -> list[tuple[str, list[str]]]:
    session = site.fresh().session
    return [
        (one.state, list(session.scalars(select(StudyDossier.basis).where(StudyDossier.study_id == one.id))))
        for one in session.scalars(select(Study))
    ]


@pytest.mark.req("S0-065")
def test_an_object_of_dicom_is_known_by_its_preamble_and_kept_as_the_pacs_would(site, imaged, blobs, tmp_path):
    made = ct(tmp_path)
    send(site.browser(site.world.requester), imaged, ("IM000001", made), ("a.png", png()))
    assert studies(site) == [("rattache", ["ipp"])]
    kept_object = site.world.session.scalars(select(Instance)).one()
    assert dcmread(io.BytesIO(blobs.read(kept_object.sha256))).PixelData == dcmread(io.BytesIO(made)).PixelData
    assert len(kept(site)) == 1
    page = words(site.browser(site.world.treating).get(f"/dossiers/{imaged.id}"))
    assert "1 série, 1 image" in page
    # Sent again it is the same one.
    send(site.browser(site.world.requester), imaged, ("IM000001", made))
    assert len(site.world.session.scalars(select(Instance)).all()) == 1


@pytest.mark.parametrize("issuer", ["https://chu-y.example/ns/ipp", None])
def test_images_of_a_disc_are_the_patient_s_by_the_word_of_who_lays_them(site, imaged, tmp_path, issuer):
    made = dcmread(io.BytesIO(ct(tmp_path, number="998877")))
    if issuer is None:
        del made.IssuerOfPatientID, made.IssuerOfPatientIDQualifiersSequence
    else:
        made.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID = issuer
    out = io.BytesIO()
    made.save_as(out, enforce_file_format=True)
    answer = send(site.browser(site.world.treating), imaged, ("IM1", out.getvalue()))
    assert answer.headers["location"].endswith("fait=pieces")
    assert studies(site) == [("rattache", ["personne"])]
    assert site.world.session.scalars(select(WorkItem).where(WorkItem.closed_at.is_(None))).all() == []


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"PatientBirthDate": "19800101"}, "d’un autre patient"),
        ({"PatientName": "MARTIN^ZOE"}, "d’un autre patient"),
        ({"number": "000099"}, "d’un autre patient"),
        ({"PatientName": "", "PatientBirthDate": ""}, "pas assez de son patient"),
    ],
)
def test_images_of_somebody_else_are_refused_before_they_are_kept(site, imaged, tmp_path, said, text):
    answer = send(site.browser(site.world.requester), imaged, ("IM1", ct(tmp_path, **said)), status=422)
    assert text in answer.text
    assert "MARTIN" not in answer.text
    assert studies(site) == []
    assert site.world.session.scalars(select(Instance)).all() == []


def test_what_only_looks_like_an_object_is_refused(site, imaged):
    answer = send(site.browser(site.world.requester), imaged, ("IM1", bytes(128) + b"DICM" + bytes(200)), status=422)
    assert "Objet DICOM" in answer.text


def test_other_bytes_of_a_known_object_are_refused_and_kept_aside(site, imaged, tmp_path):
    requester = site.browser(site.world.requester)
    send(requester, imaged, ("IM1", ct(tmp_path)))
    answer = send(requester, imaged, ("IM1", ct(tmp_path, StudyDescription="AUTRE")), status=422)
    assert "autres octets" in answer.text
    assert len(site.fresh().session.scalars(select(Instance)).all()) == 1
    assert site.world.session.scalars(select(QuarantinedObject.reason)).all() == ["autres-octets"]


def test_a_form_of_which_one_image_cannot_be_kept_says_of_each_file_what_became_of_it(site, imaged, tmp_path):
    requester = site.browser(site.world.requester)
    first = ct(tmp_path)
    send(requester, imaged, ("IM1", first))
    other = ct(tmp_path, StudyDescription="AUTRE")
    new = ct(tmp_path, SOPInstanceUID="1.2.250.1.999999.2026.4.1.1.77")
    answer = send(requester, imaged, ("a.png", png()), ("IM1 <b>", other), ("IM2", new), ("c.jpg", jpeg()), status=422)
    page = html.document_fromstring(answer.text)
    lines = [" ".join(one.text_content().split()) for one in page.xpath("//section[@aria-labelledby='envoyes']//li")]
    assert [one.split(":")[0].strip() for one in lines] == ["Gardé", "Non gardé", "Gardé", "Gardé"]
    assert "« IM1 <b> ». SOPInstanceUID déjà reçu avec d’autres octets." in lines[1]
    assert [one.title for one in kept(site)] == ["a.png", "c.jpg"]
    uids = set(site.fresh().session.scalars(select(Instance.sop_instance_uid)))
    assert "1.2.250.1.999999.2026.4.1.1.77" in uids
    assert len(uids) == 2
    # Sent once more, nothing is there twice.
    send(requester, imaged, ("a.png", png()), ("IM2", new))
    assert len(kept(site)) == 2


def test_a_form_over_the_dossier_s_number_keeps_no_image_either(site, imaged, tmp_path, monkeypatch):
    monkeypatch.setattr(attachments, "HELD_AT_MOST", 1)
    requester = site.browser(site.world.requester)
    answer = send(requester, imaged, ("IM1", ct(tmp_path)), ("b.jpg", jpeg()), ("c.gif", gif()), status=422)
    assert "Aucun fichier de cet envoi n’a été gardé." in answer.text
    assert kept(site) == []
    assert studies(site) == []


def test_images_whose_number_is_another_patient_s_here_wait_for_a_person(site, imaged, tmp_path):
    """A disc of elsewhere says a number without its issuer, which here is somebody else's."""
    site.world.record(value="998877", birth_family="AUTRE", birth_date="1950-01-01")
    site.world.session.commit()
    made = dcmread(io.BytesIO(ct(tmp_path, number="998877")))
    del made.IssuerOfPatientID, made.IssuerOfPatientIDQualifiersSequence
    out = io.BytesIO()
    made.save_as(out, enforce_file_format=True)
    answer = send(site.browser(site.world.requester), imaged, ("IM1", out.getvalue()))
    assert answer.headers["location"].endswith("fait=images-en-attente")
    assert studies(site) == [("quarantaine", [])]


# ---- what a software brought


def brought(site: Site, dossier: Dossier, *parts: dict, key: str = "photo", **more) -> None:
    """Keep a DocumentReference as its sender's software wrote it."""
    tree = {"resourceType": "DocumentReference", "status": "current", "content": [{"attachment": one} for one in parts]}
    owner = Owner(partner_id=site.world.partner.id, record_id=dossier.record_id, dossier_id=dossier.id)
    keep(site.world.session, "DocumentReference", key, tree | more, owner)
    site.world.session.commit()


def attachment(kind: str, content: bytes, title: str = "photo.jpg") -> dict:
    return {"contentType": kind, "title": title, "data": base64.b64encode(content).decode()}


@pytest.mark.req("S3-018")
def test_what_a_software_brought_is_shown_with_the_dossier_freed_of_its_place(site, dossier):
    brought(site, dossier, attachment("image/jpeg", jpeg()), attachment("application/pdf", pdf(), "cr.pdf"))
    treating = site.browser(site.world.treating)
    page = treating.get(f"/dossiers/{dossier.id}")
    section = page.xpath("//section[@aria-labelledby='documents']")[0]
    links = section.xpath(".//h3/a/@href")
    assert links == [f"/dossiers/{dossier.id}/pieces-recues/photo~{one}" for one in ("0.jpeg", "1.pdf")]
    assert site.world.partner.name in words(section)
    answer = treating.client.get(links[0])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert SECRET not in answer.content
    assert pixels(answer.content) == pixels(jpeg())
    assert "sandbox" in answer.headers["content-security-policy"]
    assert treating.client.get(links[1]).headers["content-disposition"].startswith("attachment")
    stranger = site.browser(site.world.stranger)
    assert [stranger.client.get(one).status_code for one in links] == [404, 404]
    assert [one["object_id"] for one in site.audit() if one["object_type"] == "DocumentReference"][:2] == ["photo"] * 2


@pytest.mark.parametrize(
    ("kind", "content", "ending", "status"),
    [
        ("image/png", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "png", 422),
        ("application/pdf", b"<!DOCTYPE html><script>alert(1)</script>", "pdf", 422),
        ("image/png", jpeg(), "png", 404),
    ],
)
def test_what_a_software_calls_by_another_name_is_never_given(site, dossier, kind, content, ending, status):
    brought(site, dossier, attachment(kind, content))
    answer = site.browser(site.world.treating).client.get(f"/dossiers/{dossier.id}/pieces-recues/photo~0.{ending}")
    assert answer.status_code == status
    assert "alert(1)" not in answer.text


def test_what_was_entered_in_error_or_is_of_another_dossier_is_not_there(site, dossier):
    brought(site, dossier, attachment("image/jpeg", jpeg()), status="entered-in-error")
    other = site.world.dossier()
    site.world.session.commit()
    brought(site, other, attachment("image/jpeg", jpeg()), key="autre")
    treating = site.browser(site.world.treating)
    assert not treating.get(f"/dossiers/{dossier.id}").xpath("//section[@aria-labelledby='documents']//h3")
    for key in ("photo~0", "autre~0", "photo~9", "x"):
        assert treating.client.get(f"/dossiers/{dossier.id}/pieces-recues/{key}.jpeg").status_code == 404
