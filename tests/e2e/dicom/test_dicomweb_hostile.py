"""DICOMweb asked too much, or by a client of its own images that nobody recognised: bounded, and in the trail."""

import time

import msgspec
import pytest

from gateway.dicom import retrieval
from gateway.rcp.access import Caller, CallerKind
from tests.e2e.dicom.conftest import storescu
from tests.e2e.dicom.test_dicomweb import ONE, shown, trail  # noqa: F401 - shown is a fixture


@pytest.mark.parametrize("accept", ["," * 30_000, 'a;b="' + "," * 30_000, '",' * 15_000])
def test_the_choice_of_a_media_type_is_bounded(shown, web, accept):  # noqa: F811
    began = time.process_time()
    status, _, body = web.get(f"{ONE}/metadata", "physician", accept)
    assert (status, msgspec.json.decode(body)["code"]) == (400, "accept-too-long")
    assert time.process_time() - began < 5  # of this process, which serves too


def test_frames_of_one_answer_are_bounded_in_bytes(shown, web, monkeypatch):  # noqa: F811
    monkeypatch.setattr(retrieval, "_MAX_FRAMES_BYTES", 2 * 128 * 128 * 2)
    assert web.get(f"{ONE}/frames/1,1", "physician")[0] == 200
    status, _, body = web.get(f"{ONE}/frames/1,1,1", "physician")
    assert (status, msgspec.json.decode(body)["code"]) == (400, "dicom-frames")


def test_a_value_that_the_database_could_not_take_is_refused(shown, web):  # noqa: F811
    assert web.get("/studies?PatientID=%00", "physician")[0] == 400


def test_every_search_is_in_the_trail_whether_it_names_somebody_or_not(port, session, world, ct, web):
    """Nobody inscribed the patient: his images are their sender's alone, and the answer names him all the same."""
    assert storescu(port.port, *ct).returncode == 0
    web.callers["ehr"] = Caller(
        kind=CallerKind.CLIENT,
        partner_id=world.partner.id,
        identifier="ehr",
        scopes=frozenset({"system/ImagingStudy.rs"}),
    )
    before = len(trail(session))
    [study] = web.json("/studies")
    assert study["00100010"]["Value"] == [{"Alphabetic": "PAT-TROIS^DOMINIQUE"}]
    assert web.json("/studies?PatientID=nobody") == []
    lines = trail(session)[before:]
    assert [(line["event"], line["actor_id"]) for line in lines] == [("recherche", "ehr")] * 2


def test_a_scope_that_refuses_is_in_the_trail(shown, web, session):  # noqa: F811
    web.callers["narrow"] = Caller(
        kind=CallerKind.CLIENT,
        partner_id=web.callers["ehr"].partner_id,
        identifier="narrow",
        scopes=frozenset({"system/Patient.rs"}),
    )
    before = len(trail(session))
    assert web.get(ONE, "narrow")[0] == 403
    [line] = trail(session)[before:]
    assert (line["event"], line["reason"], line["actor_id"]) == ("refus", "scope", "narrow")
