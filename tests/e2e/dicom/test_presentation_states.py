"""Presentation states over HTTP: drawn as the images that they are about, for who may see both, of one patient."""

import io
import json
import subprocess
from email import message_from_bytes
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import select, update

from gateway.dicom.drawing import Drawing
from gateway.model.imaging import Series, Study, StudyDossier
from gateway.model.partner import Partner
from tests.e2e.dicom.conftest import need, storescu
from tests.e2e.dicom.test_dicomweb import INSTANCE, ONE, SERIES, STUDY, shown, trail  # noqa: F401 - a fixture
from tests.loopback import wait_until

STATES = f"{STUDY}.11"


@pytest.fixture
def lay(port, tmp_path, ct):
    """Send a state that dcmtk makes of an image, changed; give its path under ``/dicom-web`` and its file."""

    def laid(change=lambda _: None, *, image=2) -> tuple[str, Path]:
        own, path = dcmread(ct[image]), tmp_path / "state.dcm"
        subprocess.run([need("dcmpsmk"), ct[image], path], check=True, capture_output=True)
        ds = dcmread(path)
        ds.SeriesInstanceUID, ds.SOPInstanceUID = STATES, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        for keyword in ("IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"):
            if keyword in own:
                ds[keyword] = own[keyword]
        change(ds)
        ds.save_as(path)
        answer = storescu(port.port, path, option="-R")
        assert answer.returncode == 0, answer.stdout
        return f"/studies/{STUDY}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}", path

    return laid


def about(*numbers, frames=None):
    """Have a state be about these objects of the series."""

    def change(ds):
        images = []
        for number in numbers:
            image = Dataset()
            image.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
            image.ReferencedSOPInstanceUID = f"{SERIES}.{number}"
            if frames:
                image.ReferencedFrameNumber = frames
            images.append(image)
        ds.ReferencedSeriesSequence[0].ReferencedImageSequence = images
        for item in (*ds.SoftcopyVOILUTSequence, *ds.DisplayedAreaSelectionSequence):
            del item.ReferencedImageSequence

    return change


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


def parts(headers, body):
    whole = message_from_bytes(f"Content-Type: {headers['content-type']}\r\n\r\n".encode() + body)
    return [one.get_payload(decode=True) for one in whole.get_payload()]


def drawings(session):
    return [line for line in trail(session) if line["object_type"] == "Rendered"]


def code(body):
    return json.loads(body)["code"]


def test_a_state_is_drawn_as_the_image_that_it_is_about(shown, web, lay, ct, tmp_path, session):  # noqa: F811
    def narrow(ds):
        ds.SoftcopyVOILUTSequence[0].WindowCenter, ds.SoftcopyVOILUTSequence[0].WindowWidth = -600, 900
        ds.ImageRotation, ds.ImageHorizontalFlip = 90, "Y"

    path, state = lay(narrow)
    subprocess.run([need("dcmp2pgm"), "-p", state, ct[2], tmp_path / "theirs.pgm"], check=True, capture_output=True)
    status, headers, body = web.get(f"{path}/rendered", "physician", "image/png")
    assert (status, headers["content-type"]) == (200, "image/png")
    assert headers["cache-control"] == "private, no-store"
    theirs = pixels((tmp_path / "theirs.pgm").read_bytes())
    assert np.abs(pixels(body) - theirs).max() <= 1
    assert theirs.std() > 5
    [line] = drawings(session)
    assert line["object_id"] == path.rpartition("/")[2]
    assert line["persons"] == [str(shown.record_id)]
    # With the image asked for, as the URI service has it; the same picture under the same tag.
    named = f"presentationSeriesUID={STATES}&presentationUID={path.rpartition('/')[2]}"
    again = web.get(f"{ONE}/rendered?{named}", "physician", "image/png")
    assert (again[0], again[1]["etag"], again[2]) == (200, headers["etag"], body)
    plain = web.get(f"{ONE}/rendered", "physician", "image/png")
    assert plain[1]["etag"] != headers["etag"]
    assert np.abs(pixels(plain[2]) - pixels(body)).mean() > 10
    assert web.get(f"{ONE}/frames/1/rendered?{named}", "physician", "image/png")[2] == body
    small = web.get(f"{path}/rendered?viewport=64,32", "physician", "image/jpeg")
    assert pixels(small[2]).shape == (32, 32)


def test_several_images_come_in_parts_and_the_missing_ones_are_said(shown, web, lay):  # noqa: F811
    path, _ = lay(about(2, 4))
    status, headers, body = web.get(f"{path}/rendered", "physician")
    assert (status, len(parts(headers, body))) == (200, 2)
    one, other = (pixels(content) for content in parts(headers, body))
    assert np.abs(one - other).max() > 20
    assert web.get(f"{path}/rendered", "physician", "image/png")[0] == 406
    path, _ = lay(about(2, 99))
    status, headers, body = web.get(f"{path}/rendered", "physician", 'multipart/related; type="image/png"')
    assert (status, len(parts(headers, body))) == (206, 1)
    for change in (about(99), about(3, frames=[2, 9])):
        path, _ = lay(change)
        assert web.get(f"{path}/rendered", "physician")[0] == 404
    path, _ = lay(about(3, frames=[1, 9]))
    assert web.get(f"{path}/rendered", "physician")[0] == 206
    path, _ = lay(about(*range(1, 400)))
    status, _, body = web.get(f"{path}/rendered", "physician")
    assert (status, code(body)) == (400, "dicom-frames")


def test_who_may_not_see_is_shown_nothing(shown, web, lay):  # noqa: F811
    path, _ = lay()
    named = f"presentationSeriesUID={STATES}&presentationUID={path.rpartition('/')[2]}"
    for asked in (f"{path}/rendered", f"{ONE}/rendered?{named}"):
        assert web.get(asked, "physician", "image/png")[0] == 200
        assert web.get(asked, "stranger", "image/png")[0] == 404  # it is kept, and not for him


def test_a_state_and_the_images_of_another_patient_s_study(shown, web, lay, session, world):  # noqa: F811
    """Two hospitals gave one number to studies of two patients, of whom the same person may see both."""
    path, _ = lay()
    named = f"presentationSeriesUID={STATES}&presentationUID={path.rpartition('/')[2]}"
    other = world.dossier(world.record(value="000009"))
    partner = Partner(name="CHU Y", network_id=world.partner.network_id, patient_domains=[])
    session.add(partner)
    session.flush()
    study = session.scalars(select(Study)).one()
    given = {one.key: getattr(study, one.key) for one in Study.__mapper__.column_attrs if one.key != "id"}
    theirs = Study(**{**given, "partner_id": partner.id, "record_id": other.record_id})
    session.add(theirs)
    session.flush()
    session.add(StudyDossier(study_id=theirs.id, dossier_id=other.id, basis="ipp", author="x"))
    session.execute(update(Series).where(Series.series_instance_uid == STATES).values(study_id=theirs.id))
    session.commit()
    assert web.get(f"{ONE}/rendered", "physician", "image/png")[0] == 200
    assert web.get(f"{path}/metadata", "physician", "application/dicom+json")[0] == 200
    assert web.get(f"{path}/rendered", "physician", "image/png")[0] == 404
    assert web.get(f"{ONE}/rendered?{named}", "physician", "image/png")[0] == 404


def test_a_state_that_is_not_about_the_image_is_refused(shown, web, lay):  # noqa: F811
    path, _ = lay(image=1)
    named = f"presentationSeriesUID={STATES}&presentationUID={path.rpartition('/')[2]}"
    status, _, body = web.get(f"{ONE}/rendered?{named}", "physician", "image/png")
    assert (status, code(body)) == (422, "dicom-presentation")
    for wrong, expected in (
        (f"presentationSeriesUID={STATES}&presentationUID=1.2.3", 404),
        (f"presentationSeriesUID={SERIES}&presentationUID={INSTANCE}", 404),
        (f"presentationUID={path.rpartition('/')[2]}", 400),
        (f"presentationSeriesUID={STATES}&presentationUID=x", 400),
    ):
        assert web.get(f"{ONE}/rendered?{wrong}", "physician", "image/png")[0] == expected


def test_what_a_state_says_itself_is_not_asked_for(shown, web, lay):  # noqa: F811
    path, _ = lay()
    for query, expected in (("window=40,400", "dicom-window"), ("viewport=9,9,0,0,5,5", "dicom-viewport")):
        status, _, body = web.get(f"{path}/rendered?{query}", "physician", "image/png")
        assert (status, code(body)) == (400, expected)
    assert web.get(f"{path}/frames/1/rendered", "physician", "image/png")[0] == 404
    assert web.get(f"{path}/rendered", "physician", "text/html")[0] == 406


def blending(ds):
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.11.4"


def broken(ds):
    ds.ImageRotation, ds.ImageHorizontalFlip = 45, "N"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (blending, (406, "dicom-presentation-kind")),
        (broken, (422, "dicom-presentation")),
        (lambda ds: setattr(ds, "ReferencedSeriesSequence", []), (422, "dicom-presentation")),
    ],
)
def test_a_state_that_cannot_be_drawn_costs_no_other_picture(shown, web, lay, session, change, expected):  # noqa: F811
    path, _ = lay(change)
    status, _, body = web.get(f"{path}/rendered", "physician")
    assert (status, code(body)) == expected
    assert wait_until(lambda: [line["object_id"] for line in drawings(session)] == [path.rpartition("/")[2]])
    good, _ = lay()
    assert web.get(f"{good}/rendered", "physician", "image/png")[0] == 200


def test_a_picture_of_a_state_is_drawn_once(shown, web, lay, session, monkeypatch):  # noqa: F811
    path, _ = lay()
    draw, drawn = Drawing.drawn, []

    async def counted(self, work, path, **asked):
        drawn.append(work)
        return await draw(self, work, path, **asked)

    monkeypatch.setattr(Drawing, "drawn", counted)
    assert len({web.get(f"{path}/rendered", "physician", "image/png")[2] for _ in range(3)}) == 1
    assert drawn == ["references", "presented"]
    assert wait_until(lambda: len(drawings(session)) == 3)
