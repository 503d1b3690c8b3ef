"""What an address does not do is a 405 that says what it does; where nothing is, it is a 404 [RFC 9110 §15.5.6]."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.e2e.fhir.conftest import Shared

#: Each address of [FHIR R4 http#summary], of the token server and of DICOMweb → the methods that it has here.
ADDRESSES = {
    "/fhir": "POST, OPTIONS",
    "/fhir/": "POST, OPTIONS",
    "/fhir/metadata": "GET, HEAD, OPTIONS",
    "/fhir/.well-known/smart-configuration": "GET, HEAD, OPTIONS",
    "/fhir/Patient": "GET, HEAD, POST, OPTIONS",
    "/fhir/Patient?identifier=urn:oid:1.2|x": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
    "/fhir/Patient/x": "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
    "/fhir/Patient/_history": "GET, HEAD, OPTIONS",
    "/fhir/Patient/_search": "POST, OPTIONS",
    "/fhir/Patient/$validate": "POST, OPTIONS",
    "/fhir/Patient/x/$validate": "POST, OPTIONS",
    "/fhir/Patient/x/_history": "GET, HEAD, OPTIONS",
    "/fhir/Patient/x/_history/1": "GET, HEAD, OPTIONS",
    "/fhir/Binary": "POST, OPTIONS",
    "/fhir/Binary?_id=x": "POST, OPTIONS",
    "/fhir/Binary/x": "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
    "/fhir/AuditEvent": "GET, HEAD, OPTIONS",
    "/fhir/AuditEvent/x": "GET, HEAD, OPTIONS",
    "/fhir/AuditEvent/_search": "POST, OPTIONS",
    "/oauth/token": "POST, OPTIONS",
    "/oauth/jwks": "GET, HEAD, OPTIONS",
    "/dicom-web/studies": "GET, HEAD, POST, OPTIONS",
    "/dicom-web/studies/1.2/series/1.3/metadata": "GET, HEAD, OPTIONS",
    "/health/live": "GET, OPTIONS",
}
#: Where nothing is: types that R4 has and this server has not, operations and histories that it does not offer.
NOWHERE = (
    "/fhir/Claim",
    "/fhir/Claim/x",
    "/fhir/Claim/x/_history/1",
    "/fhir/patient",
    "/fhir/_history",
    "/fhir/_search",
    "/fhir/$export",
    "/fhir/Patient/$everything",
    "/fhir/Patient/x/$everything",
    "/fhir/Patient/x/_history/1/2",
    "/fhir/AuditEvent/x/_history",
    "/fhir/Binary/_search/x",
    "/oauth/authorize",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


@pytest.mark.parametrize(("address", "allow"), ADDRESSES.items())
def test_each_address_tells_its_methods_and_refuses_the_others(
    shared: Shared, ehr: httpx.Client, address: str, allow: str
) -> None:
    told = httpx.options(shared.served.url + address, timeout=120)  # no proof is asked for what the statement says
    assert (told.status_code, told.headers["allow"], told.content) == (204, allow, b"")
    offered = set(allow.split(", "))
    for method in (*METHODS, "TRACE"):
        answer = ehr.request(method, shared.served.url + address)
        if method in offered:
            assert answer.status_code != 405, (method, answer.text)
            continue
        assert answer.status_code == 405, (method, answer.text)
        assert answer.headers["allow"] == allow, method
        if not address.startswith("/health") and method != "HEAD":
            issue = answer.json()["issue"][0]
            assert (issue["severity"], issue["code"]) == ("error", "not-supported")


@pytest.mark.parametrize("address", NOWHERE)
def test_where_nothing_is_no_method_is_spoken_of(shared: Shared, ehr: httpx.Client, address: str) -> None:
    for method in (*METHODS, "OPTIONS"):
        answer = ehr.request(method, shared.served.url + address, content=b'{"resourceType": "Claim"}')
        assert (answer.status_code, answer.headers.get("allow")) == (404, None), (method, answer.text)


def test_a_method_that_only_this_resource_has_not_is_not_in_its_own_list(ehr: httpx.Client) -> None:
    """The type is updated, this one is not there and the server makes no such id: PUT is what was just refused."""
    tree = {"resourceType": "Binary", "id": "x", "contentType": "text/plain"}
    refused = ehr.request("GET", "Binary")
    assert (refused.status_code, _code(refused), refused.headers["allow"]) == (
        405,
        "recherche-non-offerte",
        "POST, OPTIONS",
    )
    refused = ehr.post("AuditEvent", json=tree)
    assert (refused.status_code, _code(refused)) == (405, "ecriture-non-offerte")
    assert refused.headers["allow"] == "GET, HEAD, OPTIONS"


def test_a_method_that_nobody_knows_meets_the_same_list(ehr: httpx.Client) -> None:
    answer = ehr.request("PROPFIND", "Patient/x")
    assert (answer.status_code, answer.headers["allow"]) == (405, ADDRESSES["/fhir/Patient/x"])


def test_the_refusal_has_the_form_that_was_asked_for(ehr: httpx.Client) -> None:
    answer = ehr.delete("Patient/_history", headers={"Accept": "application/fhir+xml"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert answer.headers["content-type"].startswith("application/fhir+xml")


def test_the_statement_and_the_addresses_say_the_same(shared: Shared) -> None:
    """The code of an interaction on the left, address and method on the right [FHIR R4 http#summary]."""
    where = {
        "read": ("/x", "GET"),
        "vread": ("/x/_history/1", "GET"),
        "update": ("/x", "PUT"),
        "patch": ("/x", "PATCH"),
        "delete": ("/x", "DELETE"),
        "history-instance": ("/x/_history", "GET"),
        "history-type": ("/_history", "GET"),
        "create": ("", "POST"),
        "search-type": ("", "GET"),
    }
    with httpx.Client(base_url=shared.served.base, timeout=120) as anybody:
        statement: dict[str, Any] = anybody.get("/metadata").json()
        for one in statement["rest"][0]["resource"]:
            told = {path: _allowed(anybody, one["type"], path) for path in {path for path, _ in where.values()}}
            done = {code for code, (path, method) in where.items() if method in told[path]}
            assert done == {said["code"] for said in one["interaction"]}, (one["type"], json.dumps(sorted(done)))
            conditional = _allowed(anybody, one["type"], "?_id=x")
            assert ("PUT" in conditional) == one.get("conditionalUpdate", False), one["type"]
            assert ("DELETE" in conditional) == ("conditionalDelete" in one), one["type"]


def _allowed(anybody: httpx.Client, kind: str, path: str) -> set[str]:
    answer = anybody.options(f"/{kind}{path}")
    return set(answer.headers["allow"].split(", ")) if answer.status_code == 204 else set()
