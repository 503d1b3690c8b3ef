"""Every GET that the wire offers, alone and as an entry of a batch and of a transaction: the answer is the same."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway.fhir.capability import ROUTES
from tests.e2e.fhir import minimal

#: Address of a route → what is asked there; ``{id}`` is a Location, ``{line}`` a line of the trail about a patient.
ASKED: dict[str, tuple[str, ...]] = {
    "/fhir/{kind}/{identity}": ("Location/{id}", "Location/{id}?_summary=true", "Location/{id}?_elements=status"),
    "/fhir/{kind}/{identity}/_history/{version}": ("Location/{id}/_history/1",),
    "/fhir/{kind}/{identity}/_history": ("Location/{id}/_history", "Location/{id}/_history?_count=0"),
    "/fhir/{kind}/_history": ("Location/_history?_sort=_lastUpdated",),
    "/fhir/{kind}": ("Location?_id={id}", "Location?_id={id}&_summary=count"),
    "/fhir/AuditEvent/{identity}": ("AuditEvent/{line}",),
    "/fhir/AuditEvent": ("AuditEvent?date=ge2020-01-01&_id={line}", "AuditEvent?date=ge2020-01-01&_id={line}&_count=0"),
    "/fhir/metadata": ("metadata", "metadata?_summary=true", "metadata?_elements=fhirVersion", "metadata?mode=full"),
}
#: What is JSON of another standard, and no resource that an entry could hold.
OUTSIDE = {"/fhir/.well-known/smart-configuration"}
#: Asked in a batch by `test_document_over_http` and `test_told_over_http`: for a validated report, for a subscriber.
ELSEWHERE = {
    "/fhir/Composition/{identity}/$document",
    "/fhir/Subscription/{identity}/$status",
    "/fhir/Subscription/{identity}/$events",
}


def test_no_address_goes_untried() -> None:
    assert {path for method, path in ROUTES if method == "GET"} == {*ASKED, *OUTSIDE, *ELSEWHERE}


@pytest.fixture
def names(ehr: httpx.Client) -> dict[str, str]:
    made = ehr.post("Location", json=minimal.resource("Location", {}))
    patient = ehr.post("Patient", json=minimal.resource("Patient", {}))
    assert (made.status_code, patient.status_code) == (201, 201)
    asked = {"date": "ge2020-01-01", "patient": f"Patient/{patient.json()['id']}"}
    lines = ehr.get("AuditEvent", params=asked).json()["entry"]
    return {"id": made.json()["id"], "line": lines[0]["resource"]["id"]}


def sent(ehr: httpx.Client, kind: str, *requests: dict[str, str]) -> list[dict[str, Any]]:
    entries = [{"request": request} for request in requests]
    answer = ehr.post("", json={"resourceType": "Bundle", "type": kind, "entry": entries})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["entry"]
    return found


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_a_get_is_answered_in_a_bundle_as_alone(ehr: httpx.Client, names: dict[str, str], kind: str) -> None:
    asked = [one.format(**names) for each in ASKED.values() for one in each]
    alone = [ehr.get(one) for one in asked]
    together = sent(ehr, kind, *({"method": "GET", "url": one} for one in asked))
    for url, answer, entry in zip(asked, alone, together, strict=True):
        assert (entry["response"]["status"], answer.status_code) == ("200 OK", 200), url
        assert entry["resource"] == answer.json(), url
        if "etag" in entry["response"]:
            assert entry["response"]["etag"] == answer.headers["ETag"], url


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_a_head_is_answered_without_what_a_get_is(ehr: httpx.Client, names: dict[str, str], kind: str) -> None:
    asked = [one.format(**names) for each in ASKED.values() for one in each]
    found = sent(ehr, kind, *({"method": "HEAD", "url": one} for one in asked))
    assert [one["response"]["status"] for one in found] == ["200 OK"] * len(asked)
    assert [url for url, one in zip(asked, found, strict=True) if "resource" in one] == []


def test_head_and_posted_searches_and_what_is_known_already(ehr: httpx.Client, names: dict[str, str]) -> None:
    tag = ehr.get("metadata").headers["ETag"]
    line = names["line"]
    found = sent(
        ehr,
        "batch",
        {"method": "HEAD", "url": "metadata"},
        {"method": "HEAD", "url": f"AuditEvent/{line}"},
        {"method": "GET", "url": "metadata", "ifNoneMatch": tag},
        {"method": "GET", "url": "metadata", "ifNoneMatch": 'W/"autre"'},
        {"method": "POST", "url": f"AuditEvent/_search?date=ge2020-01-01&_id={line}"},
    )
    assert [one["response"]["status"][:3] for one in found] == ["200", "200", "304", "200", "200"]
    assert ["resource" in one for one in found] == [False, False, False, True, True]
    assert found[4]["resource"]["entry"][0]["resource"]["id"] == line


def test_what_is_not_offered_alone_is_not_in_a_bundle(ehr: httpx.Client, names: dict[str, str]) -> None:
    line = names["line"]
    refused = {
        "metadata/x": "404",
        f"AuditEvent/{line}/_history": "404",
        "AuditEvent": "400",
        "AuditEvent/rien": "404",
        ".well-known/smart-configuration": "400",
        "Nimporte/x": "400",
        "https://ailleurs.example/fhir/metadata": "400",
    }
    found = sent(ehr, "batch", *({"method": "GET", "url": url} for url in refused))
    assert {url: one["response"]["status"][:3] for url, one in zip(refused, found, strict=True)} == refused
    writes = [{"method": "PUT", "url": f"AuditEvent/{line}"}, {"method": "DELETE", "url": f"AuditEvent/{line}"}]
    for one in sent(ehr, "batch", *writes, {"method": "POST", "url": "metadata"}):
        assert one["response"]["status"].startswith("400"), one
