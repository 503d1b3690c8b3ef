"""What an operator's wider limits let in is kept, compared, changed and read like all else: no other limit meets it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.fhir.reindexing import reindex
from gateway.settings import Limits
from tests.e2e.fhir import minimal
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital, Served
from tests.world import World

JSON_PATCH = {"Content-Type": "application/json-patch+json"}


@pytest.fixture
def limits() -> Limits:
    return Limits(json_depth=150)


@pytest.fixture
def ehr(world: World, admit: Any) -> Iterator[httpx.Client]:
    hospital: Hospital = admit(world.partner, scopes=ALL_SCOPES)
    with hospital.client() as client:
        yield client


def _deep(tree: dict[str, Any]) -> dict[str, Any]:
    """More levels than the default of 64 [R4: an extension holds extensions]."""
    inner: dict[str, Any] = {"url": "https://x.example/e", "valueString": "x"}
    for _ in range(50):
        inner = {"url": "https://x.example/e", "extension": [inner]}
    return tree | {"extension": [inner]}


def test_a_resource_deeper_than_the_default_lives_its_whole_life(ehr: httpx.Client, served: Served) -> None:
    patient = ehr.post("Patient", json=_deep(minimal.resource("Patient", {})))
    assert patient.status_code == 201, patient.text
    where = f"Patient/{patient.json()['id']}"
    known = {"Patient": where}
    made = ehr.post("Condition", json=_deep(minimal.resource("Condition", known)))
    assert made.status_code == 201, made.text
    for path, tree in ((where, patient.json()), (f"Condition/{made.json()['id']}", made.json())):
        same = ehr.put(path, json=tree)
        assert (same.status_code, same.json()["meta"]["versionId"]) == (200, "1"), same.text
        changed = ehr.put(path, json=tree | {"language": "fr"})
        assert (changed.status_code, changed.json()["meta"]["versionId"]) == (200, "2"), changed.text
        patch = [{"op": "replace", "path": "/language", "value": "de"}]
        assert ehr.patch(path, json=patch, headers=JSON_PATCH).status_code == 200
        entry = {"resource": tree | {"language": "it"}, "request": {"method": "PUT", "url": path}}
        answer = ehr.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
        assert answer.status_code == 200, answer.text
        assert ehr.get(path).json()["extension"] == tree["extension"]
        assert ehr.get(path, headers={"Accept": "application/fhir+xml"}).status_code == 200
        assert ehr.get(f"{path}/_history").json()["total"] == 4
    reindex(served.store)
    assert ehr.delete(f"Condition/{made.json()['id']}").status_code == 204
