"""DICOMweb over HTTP with a client of others (dicomweb-client): found, fetched, drawn, refused, told to the trail."""

import io
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom import dcmread

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.rcp.access import Caller, CallerKind
from tests.e2e.dicom.conftest import storescu
from tests.loopback import wait_until
from tests.world import audit_lines

STUDY = DOMINIQUE.study_uid
SERIES = f"{STUDY}.1"
INSTANCE = f"{STUDY}.1.3"
ONE = f"/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}"


@pytest.fixture
def shown(port, session, world, ct, web):
    """A series attached to a dossier, and four callers."""
    dossier = world.dossier(world.record(value="000003"))
    session.commit()
    assert storescu(port.port, *ct).returncode == 0
    ehr = Caller(
        kind=CallerKind.CLIENT,
        partner_id=world.partner.id,
        identifier="ehr",
        wire="dicomweb",
        scopes=frozenset({"system/ImagingStudy.rs"}),
    )
    web.callers |= {
        "ehr": ehr,
        "physician": world.caller(world.treating),
        "organiser": world.caller(world.coordinator),
        "stranger": world.caller(world.stranger),
    }
    return dossier


@pytest.fixture
def client(shown, web):
    return DICOMwebClient(web.url, headers={"Authorization": "Bearer physician"})


def trail(session):
    session.rollback()
    return audit_lines(session)


def test_a_client_of_others_finds_and_fetches(client, ct):
    [study] = client.search_for_studies()
    assert study["0020000D"]["Value"] == [STUDY]
    assert study["00201208"]["Value"] == [5]
    assert study["00080061"]["Value"] == ["CT"]
    [series] = client.search_for_series(STUDY)
    assert (series["00201209"]["Value"], series["00080060"]["Value"]) == ([5], ["CT"])
    assert [one["00080018"]["Value"][0] for one in client.search_for_instances(STUDY, SERIES)] == [
        f"{SERIES}.{number}" for number in range(1, 6)
    ]
    assert len(client.search_for_instances()) == 5

    fetched = client.retrieve_study(STUDY)
    assert fetched == [dcmread(path) for path in ct]
    assert client.retrieve_series(STUDY, SERIES) == fetched
    assert client.retrieve_instance(STUDY, SERIES, INSTANCE) == fetched[2]

    metadata = client.retrieve_study_metadata(STUDY)
    assert len(metadata) == 5
    assert metadata[0]["00100010"]["Value"] == [{"Alphabetic": "PAT-TROIS^DOMINIQUE"}]
    assert client.retrieve_instance_metadata(STUDY, SERIES, INSTANCE)["00080018"]["Value"] == [INSTANCE]

    [frame] = client.retrieve_instance_frames(STUDY, SERIES, INSTANCE, [1])
    assert (np.frombuffer(frame, "<u2").reshape(128, 128) == fetched[2].pixel_array).all()
    picture = client.retrieve_instance_rendered(STUDY, SERIES, INSTANCE, media_types=("image/png",))
    assert Image.open(io.BytesIO(picture)).size == (128, 128)


MATCHES = [
    ({"PatientID": "000003"}, 1),
    ({"PatientID": "000004"}, 0),
    ({"PatientName": "pat-t*"}, 1),
    ({"PatientName": "PAT_TROIS*"}, 0),  # an underscore is no wildcard in DICOM
    ({"00100010": "PAT?TROIS^DOMINIQUE"}, 1),
    ({"StudyDate": "20260305"}, 1),
    ({"StudyDate": "20260306-"}, 0),
    ({"StudyDate": "-20260305"}, 1),
    ({"StudyDate": "20260301-20260304"}, 0),
    ({"ModalitiesInStudy": "CT"}, 1),
    ({"ModalitiesInStudy": "MR"}, 0),
    ({"AccessionNumber": "ACC-2026-0417"}, 1),
    ({"StudyInstanceUID": STUDY}, 1),
    ({"StudyInstanceUID": f"{STUDY},1.2.3"}, 1),
]


def test_studies_are_matched_by_their_attributes(client):
    counts = [(filters, len(client.search_for_studies(search_filters=filters))) for filters, _ in MATCHES]
    assert counts == MATCHES


def test_pages(client):
    first = client.search_for_instances(STUDY, limit=2)
    rest = client.search_for_instances(STUDY, limit=9, offset=2)
    assert len(first) == 2
    assert [one["00200013"]["Value"] for one in first + rest] == [[1], [2], [3], [4], [5]]


def test_who_may_see_sees(shown, web):
    for who in ("physician", "organiser", "ehr"):
        _sees(web, who)


def _sees(web, who):
    status, headers, body = web.get(f"{ONE}/rendered", who)
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    picture = np.asarray(Image.open(io.BytesIO(body)))
    # A thorax at its own window: air around and in the lungs, soft tissue between.
    assert picture[2, 2] < 10
    assert picture[64, 38] < 40
    assert 100 < picture[56, 72] < 200
    assert web.get(f"/studies/{STUDY}/thumbnail", who)[0] == 200


PATHS = [
    f"{ONE}/rendered",
    ONE,
    f"{ONE}/metadata",
    f"{ONE}/frames/1",
    f"{ONE}/thumbnail",
    f"/studies/{STUDY}",
    f"/studies/{STUDY}/metadata",
    f"/studies/{STUDY}/series/{SERIES}",
    f"/studies/{STUDY}/thumbnail",
]


def test_for_a_stranger_nothing_exists_and_the_trail_knows(shown, web, session):
    before = len(trail(session))
    for path in PATHS:
        status, _, body = web.get(path, "stranger")
        assert (path, status, msgspec.json.decode(body)["code"]) == (path, 404, "inconnu")
        nowhere = web.get(path.replace(STUDY, "1.2.3"), "stranger")
        assert (nowhere[0], nowhere[2]) == (404, body)
    assert [line["event"] for line in trail(session)[before:]] == ["refus"] * (2 * len(PATHS))
    assert web.json("/studies", "stranger") == []


def test_without_proof_nobody(shown, web):
    assert {path: web.get(path, "nobody")[0] for path in ("/studies", *PATHS)} == dict.fromkeys(
        ("/studies", *PATHS), 401
    )


def test_a_token_without_the_scope_is_refused(shown, web):
    web.callers["narrow"] = _with_scopes(web.callers["ehr"], "system/Patient.rs")
    assert web.get("/studies", "narrow")[0] == 403
    web.callers["wide"] = _with_scopes(web.callers["ehr"], "system/*.cruds")
    assert web.get("/studies", "wide")[0] == 200


def _with_scopes(caller, *scopes):
    return replace(caller, scopes=frozenset(scopes))


def test_one_line_an_answer_names_the_record(shown, web, session):
    for path in ("/studies", *PATHS):
        before = len(trail(session))
        assert (path, web.get(path, "physician")[0]) == (path, 200)
        # Of a study that is open already the line follows its answer.
        assert wait_until(lambda before=before: len(trail(session)) > before)
        [line] = trail(session)[before:]
        assert line["event"] == ("recherche" if path == "/studies" else "imagerie")
        assert line["persons"] == [str(shown.record_id)]
        assert line["actor_kind"] == "professionnel"


REFUSED = {
    "/studies/../../etc": 404,
    "/studies/abc/metadata": 400,
    f"/studies/{'1.' * 40}1/metadata": 400,
    f"{ONE}/frames/0": 404,
    f"{ONE}/frames/2": 404,
    f"{ONE}/frames/x": 400,
    f"{ONE}/frames/1,1,1/rendered?accept=image/jpeg": 406,
    f"{ONE}/rendered?window=1": 400,
    f"{ONE}/rendered?viewport=0,5": 400,
    f"{ONE}/rendered?viewport=99999,5": 400,
    f"{ONE}/rendered?accept=image/svg%2Bxml": 406,
    "/studies?PatientComments=x": 400,
    "/studies?StudyDate=hier": 400,
    "/studies?StudyDate=20261399": 400,
    "/studies?limit=-1": 400,
    "/studies?StudyInstanceUID=a": 400,
    "/series?SeriesNumber=x": 400,
}


def test_bad_requests_are_refused_by_name(shown, web):
    answers = {path: web.get(path, "physician") for path in REFUSED}
    assert {path: status for path, (status, _, _) in answers.items()} == REFUSED
    for path, status in REFUSED.items():
        assert status == 404 or msgspec.json.decode(answers[path][2])["code"]


def test_a_window_and_a_viewport_are_applied(shown, web):
    lung = web.get(f"{ONE}/rendered?window=-600,1500,linear&viewport=64,64", "physician", "image/png")[2]
    own = web.get(f"{ONE}/rendered?viewport=64,64", "physician", "image/png")[2]
    one, two = (np.asarray(Image.open(io.BytesIO(content))).astype(int) for content in (lung, own))
    assert one.shape == two.shape == (64, 64)
    assert one[32, 19] > two[32, 19] + 50  # the lung is grey at its window, black at the other


def test_a_single_object_may_be_had_without_multipart(shown, web, ct):
    status, headers, body = web.get(ONE, "physician", "application/dicom")
    assert (status, headers["content-type"]) == (200, "application/dicom; transfer-syntax=1.2.840.10008.1.2.1")
    assert dcmread(io.BytesIO(body)) == dcmread(ct[2])
