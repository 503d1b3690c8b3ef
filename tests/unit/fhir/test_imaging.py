"""ImagingStudy as it grows: counts at first, instances and an event once it is whole."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from fhir.resources.R4B.imagingstudy import ImagingStudy
from sqlalchemy import select, update

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
