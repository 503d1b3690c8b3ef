"""What a browser is shown over HTTP: pictures beside Orthanc's, documents, tags, and nothing for who may not see."""

import asyncio
import io
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from email import message_from_bytes
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import generate_uid
from sqlalchemy import text

from gateway.dicom import pictures
from gateway.dicom.drawing import Drawing
from tests.e2e.dicom.conftest import storescu
from tests.e2e.dicom.test_dicomweb import INSTANCE, ONE, SERIES, STUDY, shown, trail  # noqa: F401 - a fixture
from tests.loopback import wait_until

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def adopted(path: Path, source: Path, ct: list[Path], *, series: str, option: str = "") -> str:
    """Lay an object of another origin into the study of the patient; give its path under ``/dicom-web``."""
    ds, own = dcmread(source), dcmread(ct[0])
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        setattr(ds, keyword, getattr(own, keyword))
    for keyword in ("IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"):
        if keyword in own:
            ds[keyword] = own[keyword]
    ds.SeriesInstanceUID, ds.SOPInstanceUID = series, generate_uid()
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    if option == "broken":
        ds.PixelData = ds.PixelData[:200]
    ds.save_as(path, enforce_file_format=True)
    return f"/studies/{STUDY}/series/{series}/instances/{ds.SOPInstanceUID}"


def sent(port, *paths, option=None):
    answer = storescu(port.port, *paths, option=option)
    assert answer.returncode == 0, answer.stdout


def test_a_picture_is_orthanc_s(shown, web, ct, orthanc):  # noqa: F811
    """The whole range of the values: Orthanc's own way to show an object without being told how."""
    kept = orthanc.post("/instances", ct[2].read_bytes())["ID"]
    request = urllib.request.Request(f"{orthanc.http}/instances/{kept}/preview", headers={"Accept": "image/png"})
    theirs = np.asarray(Image.open(io.BytesIO(urllib.request.urlopen(request, timeout=120).read()))).astype(int)
    values = dcmread(ct[2])
    low, high = (float(v) for v in (values.pixel_array.min(), values.pixel_array.max()))
    slope, intercept = float(values.RescaleSlope), float(values.RescaleIntercept)
    center, width = (low + high) / 2 * slope + intercept, (high - low) * slope
    status, _, body = web.get(f"{ONE}/rendered?window={center},{width},linear-exact", "physician", "image/png")
    ours = np.asarray(Image.open(io.BytesIO(body))).astype(int)
    assert status == 200
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1
    assert theirs.std() > 20


def test_a_tag_saves_the_picture_and_not_the_right_to_see_it(shown, web, session):  # noqa: F811
    def looked() -> int:
        return len([line for line in trail(session) if line["event"] == "imagerie"])

    before = looked()
    status, headers, picture = web.get(f"{ONE}/rendered", "physician")
    assert status == 200
    assert headers["cache-control"] == "private, no-store"
    tag = headers["etag"]
    again = web.get(f"{ONE}/rendered", "physician")
    assert (again[1]["etag"], again[2]) == (tag, picture)
    assert web.get(f"{ONE}/rendered?window=40,400", "physician")[1]["etag"] != tag

    def known(who):
        request = urllib.request.Request(
            f"{web.url}{ONE}/rendered", headers={"Authorization": f"Bearer {who}", "If-None-Match": f'"x", {tag}'}
        )
        with pytest.raises(urllib.error.HTTPError) as answer:
            urllib.request.urlopen(request, timeout=120)
        return answer.value.code

    assert known("physician") == 304
    # A line each: the first before its answer left, the others of the same study closely after theirs.
    assert wait_until(lambda: looked() >= before + 4)
    assert looked() == before + 4
    # Kept, and known by its tag: still nothing for who may not see it.
    assert known("stranger") == 404
    assert web.get(f"{ONE}/rendered", "stranger")[0] == 404


def test_who_looks_through_a_series_is_still_asked_for_his_right(shown, web, session):  # noqa: F811
    """His next picture is begun while his right is looked at again; when it is gone, so is the picture."""

    def look(number):
        return web.get(f"/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.{number}/rendered", "physician")[0]

    assert [look(number) for number in (1, 2, 5, 3)] == [200] * 4
    session.execute(text("UPDATE correspondent SET declined_at = now()"))
    session.commit()
    assert [look(number) for number in (1, 2, 4, 5, 3)] == [404] * 5
    session.execute(text("UPDATE correspondent SET declined_at = NULL"))
    session.commit()
    assert [look(number) for number in (1, 4)] == [200] * 2


def test_a_kept_picture_is_not_drawn_again(shown, web, tmp_path, ct, port, monkeypatch):  # noqa: F811
    path = adopted(tmp_path / "colour.dcm", FILES / "examples_jpeg2k.dcm", ct, series=f"{STUDY}.7")
    sent(port, tmp_path / "colour.dcm", option="-xv")
    draw, drawn = Drawing.drawn, []

    async def counted(self, work, path, **asked):
        drawn.append(work)
        return await draw(self, work, path, **asked)

    monkeypatch.setattr(Drawing, "drawn", counted)
    pictures = {web.get(f"{path}/rendered", "physician", "image/png")[::2] for _ in range(4)}
    assert {status for status, _ in pictures} == {200}
    assert (len(pictures), drawn) == (1, ["picture"])


def test_one_broken_object_leaves_the_others_their_pictures(shown, web, tmp_path, ct, port):  # noqa: F811
    broken = adopted(tmp_path / "broken.dcm", ct[0], ct, series=SERIES, option="broken")
    sent(port, tmp_path / "broken.dcm")
    status, _, body = web.get(f"{broken}/rendered", "physician")
    assert (status, b"dicom-pixels" in body) == (422, True)
    assert web.get(f"{ONE}/rendered", "physician")[0] == 200
    for path in (f"/studies/{STUDY}/thumbnail", f"/studies/{STUDY}/series/{SERIES}/thumbnail"):
        assert web.get(path, "physician")[0] == 200
    status, headers, body = web.get(
        f"/studies/{STUDY}/series/{SERIES}/rendered", "physician", 'multipart/related; type="image/png"'
    )
    assert status == 206
    parts = message_from_bytes(f"Content-Type: {headers['content-type']}\r\n\r\n".encode() + body).get_payload()
    assert len(parts) == 5
    pictures = [Image.open(io.BytesIO(part.get_payload(decode=True))) for part in parts]
    assert {(one.format, one.size) for one in pictures} == {("PNG", (128, 128))}


def test_several_frames_come_in_one_answer(shown, web):  # noqa: F811
    status, headers, body = web.get(f"{ONE}/frames/1,1/rendered", "physician", "multipart/related; type=image/jpeg")
    assert (status, headers["content-type"].split(";")[0]) == (200, "multipart/related")
    assert body.count(b"\xff\xd8\xff") == 2


def test_who_closes_the_connection_ends_the_drawing_of_a_series(shown, web, monkeypatch):  # noqa: F811
    begun, ended = [], []

    async def slowly(_, work, path, **asked):
        begun.append((work, path))
        try:
            await asyncio.Event().wait()
        finally:
            ended.append((work, path))

    monkeypatch.setattr(Drawing, "drawn", slowly)
    monkeypatch.setattr(pictures, "_GRACE_S", 0.02)
    server = urllib.parse.urlsplit(web.url)
    asked = f"GET {server.path}/studies/{STUDY}/series/{SERIES}/rendered HTTP/1.1\r\nHost: x\r\n"
    with socket.create_connection((server.hostname, server.port)) as connection:
        connection.sendall(f"{asked}Authorization: Bearer physician\r\n\r\n".encode())
        assert wait_until(lambda: begun)
    assert wait_until(lambda: ended and sorted(ended) == sorted(begun))
    assert len(begun) < 5  # as many as were under way, and no further one of the five


@pytest.mark.parametrize(
    "query",
    [
        "quality=0",
        "quality=101",
        "quality=x",
        "viewport=1,2,3",
        "viewport=9,9,0,0,0,5",
        "iccprofile=cmyk",
        "iccprofile=",
    ],
)
def test_bad_parameters_are_refused(shown, web, query):  # noqa: F811
    assert web.get(f"{ONE}/rendered?{query}", "physician")[0] == 400


def test_quality_and_region_are_heard(shown, web):  # noqa: F811
    sizes = [len(web.get(f"{ONE}/rendered?quality={quality}", "physician")[2]) for quality in (10, 95)]
    assert sizes[0] < sizes[1]
    whole = Image.open(io.BytesIO(web.get(f"{ONE}/rendered", "physician", "image/png")[2]))
    part = web.get(f"{ONE}/rendered?viewport=32,32,16,48,32,32", "physician", "image/png")[2]
    assert (np.asarray(Image.open(io.BytesIO(part))) == np.asarray(whole)[48:80, 16:48]).all()


@pytest.mark.parametrize("place", ["itself", "its optical path"])
def test_colours_leave_in_the_space_that_is_asked_for(shown, web, tmp_path, ct, port, place):  # noqa: F811
    """A profile that exchanges red and green shows whether it was applied."""
    profile = Path("/usr/share/color/icc/colord/SwappedRedAndGreen.icc")
    if not profile.exists():
        pytest.skip("colord-data is not installed (make test installs it as root)")
    ds = dcmread(FILES / "examples_rgb_color.dcm")
    if place == "itself":
        ds.ICCProfile = profile.read_bytes()
    else:
        ds.OpticalPathSequence = [pydicom.Dataset()]
        ds.OpticalPathSequence[0].OpticalPathIdentifier = "1"
        ds.OpticalPathSequence[0].ICCProfile = profile.read_bytes()
    ds.save_as(tmp_path / "source.dcm")
    one = adopted(tmp_path / "colour.dcm", tmp_path / "source.dcm", ct, series=f"{STUDY}.19")
    sent(port, tmp_path / "colour.dcm")
    stored, tags = dcmread(FILES / "examples_rgb_color.dcm").pixel_array.astype(int), set()
    for query, expected, carries in (
        ("", stored[..., [1, 0, 2]], False),
        ("?iccprofile=no", stored, False),
        ("?iccprofile=yes", stored, True),
        ("?iccprofile=srgb", stored[..., [1, 0, 2]], True),
    ):
        status, headers, body = web.get(f"{one}/rendered{query}", "physician", "image/png")
        picture = Image.open(io.BytesIO(body))
        assert status == 200
        assert np.abs(np.asarray(picture) - expected).max() <= 2
        assert ("icc_profile" in picture.info) is carries
        tags.add(headers["etag"])
    assert len(tags) == 4


def test_the_same_question_in_another_form_is_another_answer(shown, web):  # noqa: F811
    """What is asked again and again is read once, by all that it says."""
    for _ in range(2):
        for query, accept, kind in (
            ("?window=40,400", "image/png", "PNG"),
            ("?window=40,400", "image/jpeg", "JPEG"),
            ("?window=40,400", "image/jpeg;q=0.5, image/gif", "GIF"),
            ("?window=40,400&accept=image/gif", "image/png", "GIF"),
            ("?window=40,400&more=" + "x" * 2000, "image/png", "PNG"),
        ):
            status, headers, body = web.get(f"{ONE}/rendered{query}", "physician", accept)
            assert (status, Image.open(io.BytesIO(body)).format) == (200, kind)
            assert headers["content-type"] == f"image/{kind.lower()}"
        assert web.get(f"{ONE}/rendered?window=40,400", "physician", "image/webp")[0] == 406
        assert web.get(f"{ONE}/rendered?window=40,0", "physician", "image/png")[0] == 400


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


def test_a_report_is_a_page_that_runs_nothing(shown, web, tmp_path, ct, port, session):  # noqa: F811
    path = adopted(tmp_path / "sr.dcm", FILES / "test-SR.dcm", ct, series=f"{STUDY}.8")
    sent(port, tmp_path / "sr.dcm")
    for accept in (BROWSER, "*/*", "text/html"):
        status, headers, body = web.get(f"{path}/rendered", "physician", accept)
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "PAT-TROIS" in body.decode()
    assert "Diagnosis" in body.decode()
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "script" not in headers["content-security-policy"]
    assert headers["content-security-policy"].endswith("; sandbox")
    assert web.get(f"{path}/rendered", "physician", "image/jpeg")[0] == 406
    assert web.get(f"{path}/rendered", "stranger", BROWSER)[0] == 404
    assert web.get(f"{path}/thumbnail", "physician")[0] == 406
    line = [line for line in trail(session) if line["event"] == "imagerie"][-1]
    assert line["persons"]


@pytest.mark.parametrize(("tool", "kind"), [("pdf2dcm", "application/pdf"), ("cda2dcm", "text/html; charset=utf-8")])
def test_an_encapsulated_document_opens_as_what_it_is(shown, web, tmp_path, ct, port, tool, kind):  # noqa: F811
    from tests.contract.dicom.test_legible import CDA, PDF

    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (make test installs it as root)")
    source = tmp_path / "source"
    source.write_bytes(PDF if tool == "pdf2dcm" else CDA.encode())
    subprocess.run([tool, source, tmp_path / "made.dcm"], check=True, capture_output=True)
    path = adopted(tmp_path / "document.dcm", tmp_path / "made.dcm", ct, series=f"{STUDY}.9")
    sent(port, tmp_path / "document.dcm", option="-R")
    status, headers, body = web.get(f"{path}/rendered", "physician", BROWSER)
    assert (status, headers["content-type"]) == (200, kind)
    assert (body == PDF) if tool == "pdf2dcm" else ("Lésion de" in body.decode())
