"""``$validate`` answers what would become of a resource and keeps nothing [FHIR R4 resource-operation-validate]."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest
from fhir.resources.R4B.operationoutcome import OperationOutcome

from tests.e2e.fhir import samples


@pytest.fixture(scope="module")
def patient(ehr: httpx.Client) -> dict[str, Any]:
    made = ehr.post("Patient", json=samples.patient("V-1", ins=None))
    assert made.status_code == 201, made.text
    tree: dict[str, Any] = made.json()
    return tree


def _observation(patient: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "89247-1"}], "text": "OMS"},
        "subject": {"reference": f"Patient/{patient['id']}"},
        "valueInteger": 1,
    } | changed


def _said(answer: httpx.Response, status: int = 200) -> list[tuple[str, str, str, list[str]]]:
    """Severity, issue code, our code and place of each issue of an outcome that R4's own classes accept."""
    assert answer.status_code == status, answer.text
    OperationOutcome.model_validate_json(answer.content)
    return [
        (
            one["severity"],
            one["code"],
            one["details"].get("coding", [{}])[0].get("code", ""),
            one.get("expression", []),
        )
        for one in answer.json()["issue"]
    ]


def _errors(answer: httpx.Response) -> list[tuple[str, str, list[str]]]:
    return [(code, own, where) for severity, code, own, where in _said(answer) if severity == "error"]


def _parameters(tree: dict[str, Any] | None, **said: str) -> dict[str, Any]:
    kinds = {"mode": "valueCode", "profile": "valueUri"}
    listed: list[dict[str, Any]] = [{"name": name, kinds[name]: value} for name, value in said.items()]
    if tree is not None:
        listed.append({"name": "resource", "resource": tree})
    return {"resourceType": "Parameters", "parameter": listed}


def _count(ehr: httpx.Client) -> int:
    return int(ehr.get("Observation", params={"_summary": "count"}).json()["total"])


def test_a_good_resource_has_warnings_and_no_error(ehr: httpx.Client, patient: dict[str, Any]) -> None:
    said = _said(ehr.post("Observation/$validate", json=_observation(patient)))
    assert ("warning", "invariant", "invariant-dom-6", ["Observation"]) in said
    assert said[-1][:2] == ("information", "informational")
    assert not [one for one in said if one[0] == "error"]
    claimed = _observation(patient, meta={"profile": ["http://exemple.fr/profil"]})
    said = _said(ehr.post("Observation/$validate", json=_parameters(claimed)))
    assert ("information", "invalid", "profils-non-juges", ["Observation.meta.profile"]) in said


def test_structure_and_invariants_are_told_with_their_place(ehr: httpx.Client, patient: dict[str, Any]) -> None:
    wrong = _observation(patient, status="perhaps", subject={"reference": "Medication/1"}, autre=1)
    told = _errors(ehr.post("Observation/$validate", json=wrong))
    assert sorted(told) == [
        ("code-invalid", "code-hors-liste", ["Observation.status"]),
        ("structure", "element-inconnu", ["Observation.autre"]),
        ("value", "cible-de-reference", ["Observation.subject"]),
    ]
    broken = _observation(patient, dataAbsentReason={"text": "x"}, effectivePeriod={"start": "2026", "end": "2025"})
    told = _errors(ehr.post("Observation/$validate", json=broken))
    assert told == [
        ("invariant", "invariant-obs-6", ["Observation"]),
        ("invariant", "invariant-per-1", ["Observation.effectivePeriod"]),
    ]
    # What $validate tells, a create refuses with: 422 for a rule, 400 for the structure (DECISIONS 10).
    assert ehr.post("Observation", json=broken).status_code == 422
    assert ehr.post("Observation", json=wrong).status_code == 400
    told = _errors(ehr.post("Patient/$validate", json=_observation(patient)))
    assert told == [("invalid", "type-different", ["Resource.resourceType"])]


@pytest.mark.parametrize("place", ["address", "body"])
def test_create_is_rehearsed_and_nothing_stays(ehr: httpx.Client, patient: dict[str, Any], place: str) -> None:
    before = _count(ehr)

    def ask(tree: dict[str, Any]) -> httpx.Response:
        if place == "address":
            return ehr.post("Observation/$validate?mode=create", json=tree)
        return ehr.post("Observation/$validate", json=_parameters(tree, mode="create"))

    assert _errors(ask(_observation(patient))) == []
    # A rule of business, which no structure holds: the patient does not exist.
    nobody = _observation({"id": str(uuid.uuid4())})
    told = _errors(ask(nobody))
    refused = ehr.post("Observation", json=nobody)
    assert [own for _, own, _ in told] == [refused.json()["issue"][0]["details"]["coding"][0]["code"]]
    assert _count(ehr) == before


def test_update_and_delete_are_rehearsed(ehr: httpx.Client, patient: dict[str, Any]) -> None:
    made = ehr.post("Observation", json=_observation(patient)).json()
    address = f"Observation/{made['id']}"
    changed = made | {"valueInteger": 2}
    assert _errors(ehr.post(f"{address}/$validate?mode=update", json=changed)) == []
    assert _errors(ehr.post("Observation/$validate", json=_parameters(changed, mode="update"))) == []
    other = changed | {"id": "autre"}
    told = _errors(ehr.post(f"{address}/$validate?mode=update", json=other))
    assert told == [("invalid", "identifiant-different", ["Observation.id"])]
    assert _errors(ehr.post(f"{address}/$validate?mode=delete")) == []
    assert _errors(ehr.post(f"{address}/$validate", json=_parameters(None, mode="delete"))) == []
    read = ehr.get(address).json()
    assert read["valueInteger"] == 1
    assert read["meta"]["versionId"] == "1"
    # What is referred to is not deleted: the rehearsal says so as the deletion does.
    told = _errors(ehr.post(f"Patient/{patient['id']}/$validate?mode=delete"))
    refused = ehr.delete(f"Patient/{patient['id']}")
    assert refused.status_code == 409
    assert [own for _, own, _ in told] == [refused.json()["issue"][0]["details"]["coding"][0]["code"]]


def test_what_cannot_be_answered_is_refused(ehr: httpx.Client, patient: dict[str, Any]) -> None:
    tree = _observation(patient)
    own = "http://hl7.org/fhir/StructureDefinition/Observation"
    assert _errors(ehr.post("Observation/$validate", json=_parameters(tree, mode="profile", profile=own))) == []
    foreign = ehr.post("Observation/$validate", params={"profile": "http://exemple.fr/profil"}, json=tree)
    assert _said(foreign, 422)[0][:3] == ("error", "not-supported", "profil-non-gere")
    for answer, code in (
        (ehr.post("Observation/$validate?mode=perhaps", json=tree), "mode-inconnu"),
        (ehr.post("Observation/$validate"), "element-obligatoire"),
        (ehr.post("Observation/$validate?mode=delete"), "element-obligatoire"),
        (ehr.post("Observation/$validate", json=_parameters(None, mode="create")), "element-obligatoire"),
        (ehr.post("Observation/$validate", content=b"{"), "json-illisible"),
    ):
        assert _said(answer, 400)[0][2] == code


def test_xml_is_judged_and_answered(ehr: httpx.Client, patient: dict[str, Any]) -> None:
    content = (
        '<Observation xmlns="http://hl7.org/fhir"><status value="final"/><code><text value="é"/></code>'
        f'<subject><reference value="Patient/{patient["id"]}"/></subject>'
        '<valueInteger value="1"/><dataAbsentReason><text value="x"/></dataAbsentReason></Observation>'
    )
    headers = {"Content-Type": "application/fhir+xml"}
    told = _errors(ehr.post("Observation/$validate", content=content, headers=headers))
    assert told == [("invariant", "invariant-obs-6", ["Observation"])]
