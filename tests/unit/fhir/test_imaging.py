"""ImagingStudy as it grows: counts at first, instances and an event once it is whole."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from fhir.resources.R4B.imagingstudy import ImagingStudy
from msgspec.structs import replace
from sqlalchemy import event, select, update

from gateway.fhir import imaging_parts
from gateway.fhir.represent import Representer
from gateway.fhir.translate import imaging as translate
from gateway.model.imaging import Instance, Study
from gateway.model.representation import TABLES
from gateway.model.store import utcnow
from gateway.rcp import imaging
from tests.image_samples import CT, STUDY, facts, send
from tests.world import audit_lines, build

TABLE = TABLES["ImagingStudy"]


@pytest.fixture
def steps(make_steps, blobs):
    return make_steps(represent=Representer(blobs))


@pytest.fixture
def world(store):
    with store.session() as session:
        made = build(session)
        made.dossier(made.record(value="000003"))
        session.commit()
        yield made


def versions(world) -> list[dict]:
    world.session.rollback()
    return [json.loads(body) for body in world.session.scalars(select(TABLE.c.body).order_by(TABLE.c.version))]


def quiet(world, steps) -> None:
    """Let ten seconds pass."""
    world.session.execute(update(Study).values(last_instance_at=utcnow() - timedelta(seconds=11)))
    world.session.execute(update(Instance).values(received_at=utcnow() - timedelta(seconds=11)))
    world.session.commit()
    imaging.settle(steps)


def test_a_study_lists_its_instances_once_it_is_whole(world, steps):
    for number in (3, 1, 2):
        assert send(steps, world, facts(number)) is None
    assert send(steps, world, facts(4, modality="SR", sop=f"{STUDY}.1.9")) is None
    growing = versions(world)[-1]
    assert "instance" not in growing["series"][0]
    assert "extension" not in growing
    quiet(world, steps)
    whole = versions(world)[-1]
    ImagingStudy.model_validate({name: value for name, value in whole.items() if name != "meta"})
    assert (whole["numberOfSeries"], whole["numberOfInstances"]) == (1, 4)
    [series] = whole["series"]
    assert series["modality"]["code"] == "CT"
    assert [one["number"] for one in series["instance"]] == [1, 2, 3, 4]
    assert series["instance"][0] == {
        "uid": f"{STUDY}.1.1",
        "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{CT}"},
        "number": 1,
    }
    assert [one["reference"] for one in whole["endpoint"]] == ["Endpoint/dicomweb"]
    said = [one for one in whole["extension"] if one["url"] == translate.SETTLED]
    assert len(said) == 1
    assert [one["reason"] for one in audit_lines(world.session) if one.get("reason") == "etude-complete"] == [
        "etude-complete"
    ]


def test_a_study_that_grows_again_is_whole_again_once(world, steps):
    assert send(steps, world, facts(1)) is None
    quiet(world, steps)
    count = len(versions(world))
    imaging.settle(steps)
    assert len(versions(world)) == count  # nothing came: nothing is said again
    assert send(steps, world, facts(2)) is None
    assert "extension" not in versions(world)[-1]
    quiet(world, steps)
    assert versions(world)[-1]["numberOfInstances"] == 2
    assert "extension" in versions(world)[-1]


def test_a_study_of_very_many_instances_says_their_number(world, steps, monkeypatch):
    monkeypatch.setattr(translate, "LISTED_AT_MOST", 1)
    for number in (1, 2):
        assert send(steps, world, facts(number)) is None
    quiet(world, steps)
    [series] = versions(world)[-1]["series"]
    assert ("instance" in series, series["numberOfInstances"]) == (False, 2)


def element(vr: str, *values) -> dict:
    return {"vr": vr, "Value": list(values)}


def code(value: str, scheme: str, meaning: str) -> dict:
    named = (("00080100", value), ("00080102", scheme), ("00080104", meaning))
    return {tag: element("SH", said) for tag, said in named}


SAYS = {
    "00081032": element("SQ", code("24627-2", "LN", "CT Chest"), code("TDM01", "99CHU", "TDM thorax")),
    "00321064": element("SQ", code("24627-2", "LN", "CT Chest")),
    "00401002": element("LO", "Bilan d’extension\u0000 "),
    "00081060": element("PN", {"Alphabetic": "ROUX^ANNE^^DR"}),
    "00081050": element("PN", {"Alphabetic": "BLANC^LUC"}),
    "00081070": element("PN", {"Alphabetic": "BLANC^LUC"}, None, {"Alphabetic": "NOIR"}),
    "00400243": element("SH", "Scanner 2"),
    "00081040": element("LO", "Radiologie"),
    "00200060": element("CS", "L"),
}


def say(world, steps, number: int, said: dict, body_part: str | None = "BREAST") -> None:
    one = facts(number)
    changed = replace(
        one,
        dicom_json=json.dumps(said).encode(),
        series=replace(one.series, body_part_examined=body_part, series_instance_uid=f"{STUDY}.{number}"),
    )
    assert send(steps, world, changed) is None


def test_what_objects_say_of_the_procedure_and_the_body_is_said(world, steps):
    say(world, steps, 1, SAYS)
    say(world, steps, 2, {"00082218": element("SQ", code("39607008", "SCT", "Lung"))}, "NOWHERE")
    old = {"00082218": element("SQ", code("T-28000", "SRT", "Lung")), "00200060": element("CS", "?")}
    say(world, steps, 3, old, "XX")
    quiet(world, steps)
    whole = versions(world)[-1]
    ImagingStudy.model_validate({name: value for name, value in whole.items() if name != "meta"})
    assert whole["procedureCode"] == [
        {"coding": [{"system": "http://loinc.org", "code": "24627-2", "display": "CT Chest"}], "text": "CT Chest"},
        {"coding": [{"code": "TDM01", "display": "TDM thorax"}], "text": "TDM thorax"},
    ]
    assert whole["reasonCode"] == [{"text": "Bilan d’extension"}]
    assert whole["interpreter"] == [{"display": "ROUX ANNE DR"}]
    assert whole["location"] == {"display": "Scanner 2"}
    breast, lung, unknown = whole["series"]
    # [PS3.16 L-1, CID 244]: the codes of SNOMED CT as the standard prints them.
    sct = "http://snomed.info/sct"
    assert breast["bodySite"] == {"system": sct, "code": "76752008", "display": "Breast"}
    assert breast["laterality"] == {"system": sct, "code": "7771000", "display": "Left"}
    assert breast["performer"] == [{"actor": {"display": "BLANC LUC"}}, {"actor": {"display": "NOIR"}}]
    assert lung["bodySite"] == {"system": sct, "code": "39607008", "display": "Lung"}
    assert not {"bodySite", "laterality", "performer"} & set(unknown)


def test_objects_that_say_very_much_are_not_read_whole(world, steps, monkeypatch):
    monkeypatch.setattr(imaging_parts, "_SAID_BYTES", 100)
    say(world, steps, 1, SAYS)
    [series] = versions(world)[-1]["series"]
    assert ("laterality" in series, series["bodySite"]["code"]) == (False, "76752008")


def test_as_many_questions_for_twelve_series_as_for_two(world, steps, store):
    def questions() -> int:
        """Statements of one representation of the whole study."""
        asked: list[str] = []

        def keep(*arguments) -> None:
            asked.append(arguments[2])

        world.session.rollback()
        with store.session() as session:
            study = session.scalars(select(Study)).one()
            event.listen(store.engine, "before_cursor_execute", keep)
            try:
                parts = imaging_parts.parts_of(session, study)
            finally:
                event.remove(store.engine, "before_cursor_execute", keep)
            assert sum(map(len, parts.instances.values())) == study.instances_count
        return len(asked)

    for number in (1, 2):
        say(world, steps, number, SAYS)
    quiet(world, steps)
    few = questions()
    for number in range(3, 13):
        say(world, steps, number, SAYS)
    quiet(world, steps)
    assert questions() == few
    assert few <= 4
    [one, *_] = versions(world)[-1]["series"]
    assert len(one["instance"]) == 1
