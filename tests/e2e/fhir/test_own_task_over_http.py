"""A Task that is about no inscription is its sender's own: kept as sent, changed, deleted; it moves no dossier."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from gateway.model.partner import Partner
from tests.e2e.fhir import minimal, samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Shared, register
from tests.world import World

STATE = "https://rcp.example.org/fhir/CodeSystem/rcp-etat-dossier"


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


@pytest.fixture
def stranger(shared: Shared) -> Iterator[httpx.Client]:
    """Another establishment."""
    with shared.served.store.session() as session:
        partner = Partner(name=f"CHU {uuid.uuid4()}", patient_domains=[f"https://{uuid.uuid4()}.example/ipp"])
        session.add(partner)
        session.commit()
    with register(shared.served, partner, scopes=ALL_SCOPES).client() as client:
        yield client


@pytest.fixture
def patient(ehr: httpx.Client) -> str:
    made = ehr.post("Patient", json=samples.patient(uuid.uuid4().hex, ins=None))
    assert made.status_code == 201, made.text
    return f"Patient/{made.json()['id']}"


def _task(**more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Task",
        "identifier": [{"system": "https://chu-x.example/ns/tache", "value": uuid.uuid4().hex}],
        "status": "requested",
        "intent": "order",
        "description": "Commander les lames à relire",
    } | more


def _inscription(world: World, **more: Any) -> dict[str, Any]:
    return samples.transaction(
        rcp=world.rcp.national_number,
        start="2026-03-19T14:00:00+01:00",
        requester=world.requester.idnps,
        treating=None,
        ipp=uuid.uuid4().hex,
        tumour=uuid.uuid4().hex,
        ins=None,
        **more,
    )


def test_a_task_of_the_senders_own_is_kept_changed_and_deleted(
    ehr: httpx.Client, stranger: httpx.Client, patient: str
) -> None:
    asked = ehr.post(
        "ServiceRequest",
        json={
            "resourceType": "ServiceRequest",
            "status": "active",
            "intent": "order",
            "code": minimal.CODE,
            "subject": {"reference": patient},
        },
    )
    assert asked.status_code == 201, asked.text
    focus = {"reference": f"ServiceRequest/{asked.json()['id']}"}
    for about in ({}, {"focus": {"display": "Lames"}}, {"focus": focus}, {"basedOn": [focus]}):
        tree = _task(**about, **{"for": {"reference": patient}})
        made = ehr.post("Task", json=tree)
        assert made.status_code == 201, made.text
        where = f"Task/{made.json()['id']}"
        read = ehr.get(where).json()
        assert {name: value for name, value in read.items() if name not in {"id", "meta"}} == tree
        found = ehr.get(f"Task?identifier={tree['identifier'][0]['value']}&patient={patient}")
        assert [one["resource"]["id"] for one in found.json()["entry"]] == [read["id"]]
        # No dossier's rule is over it: no version is asked for, its status is its sender's.
        done = ehr.put(where, json=read | {"status": "completed"})
        assert (done.status_code, done.headers["etag"]) == (200, 'W/"2"'), done.text
        assert stranger.get(where).status_code == 404
        assert stranger.delete(where).status_code in {204, 404}
        assert ehr.get(where).status_code == 200
        assert ehr.delete(where).status_code == 204
        assert ehr.get(where).status_code == 410


def test_a_task_that_means_a_dossier_names_one_that_is_known(ehr: httpx.Client, stranger: httpx.Client) -> None:
    state = {"businessStatus": {"coding": [{"system": STATE, "code": "discute"}]}}
    lost = {"focus": {"reference": f"ServiceRequest/{uuid.uuid4()}"}}
    for tree in (_task(**state), _task(**lost), _task(basedOn=[lost["focus"]])):
        refused = ehr.post("Task", json=tree)
        assert (refused.status_code, _code(refused)) == (422, "inscription-inconnue"), refused.text
    unknown = ehr.post("Task", json=_task(**{"for": {"reference": f"Patient/{uuid.uuid4()}"}}))
    assert (unknown.status_code, _code(unknown)) == (422, "patient-inconnu")
    assert stranger.post("Task", json=_task()).status_code == 201


def test_a_dossiers_task_stays_the_dossiers(shared: Shared, ehr: httpx.Client, stranger: httpx.Client) -> None:
    done = ehr.post("", json=_inscription(shared.world), headers={"Prefer": "return=representation"})
    assert done.status_code == 200, done.text
    tree = next(one["resource"] for one in done.json()["entry"] if one["resource"]["resourceType"] == "Task")
    where, match = f"Task/{tree['id']}", {"If-Match": f'W/"{tree["meta"]["versionId"]}"'}
    loose = {name: value for name, value in tree.items() if name not in {"focus", "basedOn", "businessStatus"}}
    refused = ehr.put(where, json=loose, headers=match)
    assert (refused.status_code, _code(refused)) == (422, "inscription-inconnue"), refused.text
    assert ehr.delete(where).status_code == 409
    # Its inscription is not the stranger's: it names nothing that he knows, and is not told from what is not there.
    followed = stranger.post("Task", json=_task(focus=tree["focus"]))
    assert (followed.status_code, _code(followed)) == (422, "inscription-inconnue"), followed.text
    # One's own task does not become the dossier's either.
    own = ehr.post("Task", json=_task()).json()
    turned = ehr.put(f"Task/{own['id']}", json=own | {"focus": tree["focus"]})
    assert (turned.status_code, _code(turned)) == (409, "cle-modifiee"), turned.text
    assert ehr.get(where).headers["etag"] == match["If-Match"]


def test_both_kinds_of_task_travel_in_one_transaction(shared: Shared, ehr: httpx.Client) -> None:
    bundle = _inscription(shared.world)
    loose = f"urn:uuid:{uuid.uuid4()}"
    part = _task(partOf=[{"reference": loose}])
    bundle["entry"] += [
        {"fullUrl": loose, "resource": _task(), "request": {"method": "POST", "url": "Task"}},
        {"fullUrl": f"urn:uuid:{uuid.uuid4()}", "resource": part, "request": {"method": "POST", "url": "Task"}},
    ]
    done = ehr.post("", json=bundle, headers={"Prefer": "return=representation"})
    assert done.status_code == 200, done.text
    kept = [one["resource"] for one in done.json()["entry"] if one["resource"]["resourceType"] == "Task"]
    dossiers = [one for one in kept if "businessStatus" in one]
    assert (len(kept), len(dossiers)) == (3, 1)
    named = next(one for one in kept if "partOf" in one)["partOf"][0]["reference"]
    assert named.partition("/")[2] in {one["id"] for one in kept if "partOf" not in one and one not in dossiers}


@pytest.mark.parametrize("kind", ["Task", "Encounter"])
def test_a_dossier_is_never_written_over_what_somebody_keeps(
    shared: Shared, ehr: httpx.Client, stranger: httpx.Client, kind: str, admitted: Callable[..., dict[str, Any]]
) -> None:
    key = str(uuid.uuid4())
    theirs = admitted(kind) | {"id": key}
    assert stranger.put(f"{kind}/{key}", json=theirs).status_code == 201
    bundle = _inscription(shared.world)
    for entry in bundle["entry"]:
        if entry["resource"]["resourceType"] == "ServiceRequest":
            entry["resource"]["id"] = key
            entry["request"] = {"method": "PUT", "url": f"ServiceRequest/{key}"}
    refused = ehr.post("", json=bundle)
    assert (refused.status_code, _code(refused)) == (409, "cle-modifiee"), refused.text
    assert stranger.get(f"{kind}/{key}").headers["etag"] == 'W/"1"'
    assert ehr.get(f"{kind}/{key}").status_code == 404


def test_nothing_is_kept_where_a_dossiers_encounter_will_be(
    shared: Shared, ehr: httpx.Client, stranger: httpx.Client, admitted: Callable[..., dict[str, Any]]
) -> None:
    done = ehr.post("", json=_inscription(shared.world))
    assert done.status_code == 200, done.text
    where = next(one["response"]["location"] for one in done.json()["entry"] if "Task/" in one["response"]["location"])
    key = where.split("/")[-3]
    for client in (ehr, stranger):
        assert client.put(f"Encounter/{key}", json=admitted("Encounter") | {"id": key}).status_code in {403, 404, 409}


@pytest.fixture
def admitted() -> Callable[..., dict[str, Any]]:
    """The least that either type says."""
    least: dict[str, dict[str, Any]] = {
        "Task": _task(),
        "Encounter": {
            "resourceType": "Encounter",
            "status": "planned",
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
        },
    }
    return lambda kind: least[kind]
