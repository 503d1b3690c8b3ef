"""npm fhir-kit-client, which nobody here wrote, against the whole gateway over real HTTP: what it asks for it gets."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Shared
from tests.e2e.fhir_kit.kit import Kit, running
from tests.world import DOMAIN

CODES = "https://chu-x.example/ns/mesure"


@pytest.fixture(scope="module")
def kit(shared: Shared) -> Iterator[Kit]:
    """The client, signed in by its own discovery and a key that the hospital registered."""
    with running(shared.served.base) as kit:
        granted = kit.authorize(
            clientId=shared.hospital.client_id, key=shared.hospital.key.as_dict(private=True), scope=ALL_SCOPES
        ).good()
        assert granted == {"scope": ALL_SCOPES}
        yield kit


@pytest.fixture(scope="module")
def patient(kit: Kit) -> dict[str, Any]:
    return kit.create(resourceType="Patient", body=samples.patient("900001", ins=None, family="KITTEL")).good()


def observation(patient: dict[str, Any], batch: str, number: int) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "identifier": [{"system": CODES, "value": f"{batch}-{number}"}],
        "status": "final",
        "code": {"coding": [{"system": CODES, "code": batch}]},
        "subject": {"reference": f"Patient/{patient['id']}"},
        "effectiveDateTime": f"2026-01-{number + 1:02d}",
        "valueQuantity": {"value": number, "unit": "mm", "system": "http://unitsofmeasure.org", "code": "mm"},
    }


def test_it_reads_the_capabilities_as_its_own_tool_understands_them(kit: Kit) -> None:
    asked = [
        ["serverCan", "transaction"],
        ["serverCan", "batch"],
        ["resourceCan", "Patient", "create"],
        ["resourceCan", "Patient", "patch"],
        ["resourceCan", "AuditEvent", "create"],
        ["resourceSearch", "Patient", "identifier"],
        ["resourceSearch", "Patient", "shoe-size"],
    ]
    assert kit.capabilities(ask=asked).good() == [True, True, True, True, False, True, False]


def test_what_it_creates_it_reads_updates_and_finds_in_the_history(kit: Kit, patient: dict[str, Any]) -> None:
    made = kit.create(resourceType="Observation", body=observation(patient, "cycle", 1))
    assert made.status == 201
    tree = made.good()
    assert made.headers["location"].endswith(f"/Observation/{tree['id']}/_history/1")
    assert kit.read(resourceType="Observation", id=tree["id"]).good() == tree

    changed = tree | {"status": "amended"}
    updated = kit.update(
        resourceType="Observation", id=tree["id"], body=changed, options={"headers": {"If-Match": 'W/"1"'}}
    )
    assert (updated.status, updated.good()["meta"]["versionId"]) == (200, "2")
    stale = kit.update(
        resourceType="Observation", id=tree["id"], body=changed, options={"headers": {"If-Match": 'W/"1"'}}
    )
    assert (stale.status, stale.result["resourceType"]) == (412, "OperationOutcome")

    assert kit.vread(resourceType="Observation", id=tree["id"], version="1").good() == tree
    history = kit.history(resourceType="Observation", id=tree["id"]).good()
    assert [entry["resource"]["status"] for entry in history["entry"]] == ["amended", "final"]


def test_it_patches_and_deletes(kit: Kit, patient: dict[str, Any]) -> None:
    tree = kit.create(resourceType="Observation", body=observation(patient, "patch", 2)).good()
    patch = [
        {"op": "test", "path": "/status", "value": "final"},
        {"op": "replace", "path": "/status", "value": "corrected"},
        {"op": "add", "path": "/note", "value": [{"text": "Relu"}]},
    ]
    patched = kit.patch(resourceType="Observation", id=tree["id"], jsonPatch=patch).good()
    assert (patched["status"], patched["note"], patched["meta"]["versionId"]) == ("corrected", [{"text": "Relu"}], "2")
    again = kit.patch(resourceType="Observation", id=tree["id"], jsonPatch=patch)
    assert again.status in {409, 422}  # the test of the patch itself fails now
    assert kit.read(resourceType="Observation", id=tree["id"]).good() == patched

    assert kit.delete(resourceType="Observation", id=tree["id"]).status in {200, 204, None}
    assert kit.read(resourceType="Observation", id=tree["id"]).status == 410


def test_conditional_create_and_update_are_its_own(kit: Kit, patient: dict[str, Any]) -> None:
    tree = observation(patient, "condition", 3)
    key = f"identifier={CODES}|condition-3"
    statuses = [
        kit.create(resourceType="Observation", body=tree, options={"headers": {"If-None-Exist": key}}).status
        for _ in range(2)
    ]
    assert statuses == [201, 200]
    search = {"identifier": f"{CODES}|condition-3"}
    updated = kit.update(resourceType="Observation", searchParams=search, body=tree | {"status": "amended"})
    assert (updated.status, updated.good()["meta"]["versionId"]) == (200, "2")
    fresh = observation(patient, "condition", 4)
    created = kit.update(resourceType="Observation", searchParams={"identifier": f"{CODES}|condition-4"}, body=fresh)
    assert created.status == 201


def test_it_follows_the_pages_to_the_last_result(kit: Kit, patient: dict[str, Any]) -> None:
    entries = [
        {"resource": observation(patient, "pages", number), "request": {"method": "POST", "url": "Observation"}}
        for number in range(12)
    ]
    answered = kit.batch(body={"resourceType": "Bundle", "type": "batch", "entry": entries}).good()
    assert answered["type"] == "batch-response"
    assert {entry["response"]["status"].split(" ")[0] for entry in answered["entry"]} == {"201"}

    for options in ({}, {"postSearch": True}):
        query = {"code": f"{CODES}|pages", "_sort": "-date", "_count": 5}
        bundle = kit.search(resourceType="Observation", searchParams=query, options=options).good()
        assert bundle["total"] == 12
        pages = []
        while bundle is not None:
            pages.append([entry["resource"]["effectiveDateTime"] for entry in bundle["entry"]])
            bundle = kit.nextPage(bundle=bundle).good()
        assert [len(page) for page in pages] == [5, 5, 2]
        assert [day for page in pages for day in page] == [f"2026-01-{day:02d}" for day in range(12, 0, -1)]


def test_a_transaction_is_all_or_nothing(kit: Kit, shared: Shared) -> None:
    bundle = samples.transaction(
        rcp=shared.world.rcp.national_number,
        start="2026-03-19T14:00:00+01:00",
        requester=shared.world.requester.idnps,
        treating=shared.world.treating.rpps,
        ipp="900002",
        tumour="T-KIT",
        ins=None,
    )
    answered = kit.transaction(body=bundle)
    assert (answered.status, answered.good()["type"]) == (200, "transaction-response")
    assert {entry["response"]["status"].split(" ")[0] for entry in answered.result["entry"]} == {"201"}
    again = kit.transaction(body=bundle).good()
    assert {entry["response"]["status"].split(" ")[0] for entry in again["entry"]} == {"200"}
    found = kit.search(
        resourceType="Task",
        searchParams={"patient.identifier": f"{DOMAIN}|900002", "_include": ["Task:focus", "Task:patient"]},
    ).good()
    kinds = [(entry["search"]["mode"], entry["resource"]["resourceType"]) for entry in found["entry"]]
    assert kinds[0] == ("match", "Task")
    assert sorted(kinds[1:]) == [("include", "Patient"), ("include", "ServiceRequest")]

    broken = samples.transaction(
        rcp="RCP-NAT-NOWHERE",
        start="2026-03-19T14:00:00+01:00",
        requester=shared.world.requester.idnps,
        treating=None,
        ipp="900003",
        tumour="T-KIT-2",
        ins=None,
    )
    refused = kit.transaction(body=broken)
    assert (refused.status, refused.result["resourceType"]) == (422, "OperationOutcome")
    nobody = kit.search(resourceType="Patient", searchParams={"identifier": f"{DOMAIN}|900003"}).good()
    assert "entry" not in nobody


def test_it_resolves_references_and_asks_the_judge(kit: Kit, patient: dict[str, Any]) -> None:
    assert kit.resolve(reference=f"Patient/{patient['id']}").good() == patient
    tree = observation(patient, "judge", 5)
    judged = kit.operation(name="validate", resourceType="Observation", input=tree).good()
    assert {issue["severity"] for issue in judged["issue"]} <= {"information", "warning"}
    judged = kit.operation(name="$validate", resourceType="Observation", input=tree | {"status": "perhaps"})
    assert judged.result["issue"][0]["severity"] == "error"


def test_without_a_token_it_is_told_to_sign_in(shared: Shared) -> None:
    with running(shared.served.base) as stranger:
        refused = stranger.search(resourceType="Patient", searchParams={"_id": str(uuid.uuid4())})
    assert (refused.status, refused.result["issue"][0]["code"]) == (401, "login")
