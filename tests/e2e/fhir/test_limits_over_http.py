"""Each limit of the wire, exceeded by one, answers with its name and value; none is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import httpx
import pytest

from gateway.settings import Limits
from tests.e2e.fhir import minimal
from tests.e2e.fhir.conftest import Hospital

JSON_PATCH = {"Content-Type": "application/json-patch+json"}
#: Those that are not a matter of one small request: where they are exceeded.
ELSEWHERE = {
    "search_seconds": "test_search_over_http",
    "search_minutes": "test_paging_over_http",
    "search_included": "test_including_over_http",
    "answer_bytes": "test_answer_size_over_http",
    "bundle_seconds": "test_bundle_bounds_over_http",
    "requests_per_minute": "test_rate_over_http",
    "dicom_associations": "tests/e2e/dicom",
    "stow_bytes": "tests/e2e/dicom/test_stow",
    "stow_metadata_bytes": "tests/e2e/dicom/test_described",
    "stow_metadata_values": "tests/e2e/dicom/test_described",
    "retrieval_bytes": "tests/e2e/dicom/test_retrieval_bounds",
    "mllp_connections": "tests/e2e/test_mllp",
    "mllp_message_bytes": "tests/e2e/test_mllp",
    "attachment_bytes": "tests/unit/portal/test_attachments",
    "attachment_files": "tests/unit/portal/test_attachments",
}


@pytest.fixture
def limits() -> Limits:
    return Limits(
        http_body_bytes=5000,
        bundle_entries=2,
        json_depth=16,
        json_nodes=200,
        patch_operations=2,
        search_parameters=3,
        search_values=2,
        search_chain=1,
        search_sort=1,
        search_page=2,
    )


def _nested(levels: int) -> dict[str, Any]:
    tree: dict[str, Any] = {"url": "https://x.example/e", "valueString": "x"}
    for _ in range(levels):
        tree = {"url": "https://x.example/e", "extension": [tree]}
    return minimal.resource("Patient", {}) | {"extension": [tree]}


def _many(names: int) -> dict[str, Any]:
    return minimal.resource("Patient", {}) | {"name": [{"given": ["x"] * names}]}


def _bundle(entries: int, kind: str) -> dict[str, Any]:
    entry = {"request": {"method": "GET", "url": "Patient?_id=x"}}
    return {"resourceType": "Bundle", "type": kind, "entry": [entry] * entries}


def _patch(operations: int) -> list[dict[str, Any]]:
    return [{"op": "test", "path": "/active", "value": True}] * operations


Ask = Callable[[httpx.Client, str], httpx.Response]
#: Limit → how it is exceeded, and how it is just not.
EXCEEDED: dict[str, tuple[Ask, Ask]] = {
    "http_body_bytes": (
        lambda ehr, _: ehr.post("Patient", content=b" " * 5001),
        lambda ehr, _: ehr.post("Patient", json=minimal.resource("Patient", {})),
    ),
    "bundle_entries": (
        lambda ehr, _: ehr.post("", json=_bundle(3, "batch")),
        lambda ehr, _: ehr.post("", json=_bundle(2, "transaction")),
    ),
    "json_depth": (
        lambda ehr, _: ehr.post("Patient", json=_nested(7)),
        lambda ehr, _: ehr.post("Patient", json=_nested(5)),
    ),
    "json_nodes": (
        lambda ehr, _: ehr.post("Patient", json=_many(200)),
        lambda ehr, _: ehr.post("Patient", json=_many(150)),
    ),
    "patch_operations": (
        lambda ehr, patient: ehr.patch(patient, json=_patch(3), headers=JSON_PATCH),
        lambda ehr, patient: ehr.patch(patient, json=_patch(2), headers=JSON_PATCH),
    ),
    "search_parameters": (
        lambda ehr, _: ehr.get("Patient?_id=x&_id=x&_id=x&_id=x"),
        lambda ehr, _: ehr.get("Patient?_id=x&_id=x&_id=x"),
    ),
    "search_values": (
        lambda ehr, _: ehr.get("Patient?identifier=a,b,c"),
        lambda ehr, _: ehr.get("Patient?identifier=a,b"),
    ),
    "search_chain": (
        lambda ehr, _: ehr.get("Task?focus:ServiceRequest.subject:Patient.identifier=x"),
        lambda ehr, _: ehr.get("Task?focus:ServiceRequest.identifier=x"),
    ),
    "search_sort": (
        lambda ehr, _: ehr.get("Patient?_sort=birthdate,_id"),
        lambda ehr, _: ehr.get("Patient?_sort=birthdate"),
    ),
}


def test_each_limit_is_exceeded_by_name(hospital: Hospital, limits: Limits) -> None:
    with hospital.client() as ehr:
        patient = f"Patient/{ehr.post('Patient', json=minimal.resource('Patient', {})).json()['id']}"
        for name, (over, under) in EXCEEDED.items():
            good = under(ehr, patient)
            assert good.status_code in {200, 201}, (name, good.text)
            refused = over(ehr, patient)
            assert refused.status_code in {400, 413}, (name, refused.text)
            told = refused.json()["issue"][0]["details"]["text"]
            assert Limits.variable(name) in told, name
            assert str(getattr(limits, name)) in told, name


def test_a_page_holds_no_more_than_its_limit_whatever_is_asked_for(hospital: Hospital) -> None:
    with hospital.client() as ehr:
        for _ in range(3):
            ehr.post("Patient", json=minimal.resource("Patient", {}))
        page = ehr.get("Patient?_count=400&_total=accurate").json()
        assert (page["total"], len(page["entry"])) == (3, 2)
        rest = ehr.get(next(link["url"] for link in page["link"] if link["relation"] == "next")).json()
        assert len(rest["entry"]) == 1


def test_no_limit_goes_untried() -> None:
    assert {limit.name for limit in fields(Limits)} == {*EXCEEDED, *ELSEWHERE, "search_page"}
