"""Patches that would grow a resource, work on it without end or take it away whole, over real HTTP."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from tests.contract.fhir.test_fhirpath_patch import op, parameters
from tests.e2e.fhir import minimal
from tests.e2e.fhir.conftest import Shared

JSON_PATCH = {"Content-Type": "application/json-patch+json"}
COPY = {"op": "copy", "from": "/note/0", "path": "/note/-"}
HUNGRY = "Condition.note.where((" + "text.exists() or " * 100 + "true) = false)"


@pytest.fixture(scope="module")
def known(shared: Shared, ehr: httpx.Client) -> dict[str, str]:
    made = ehr.post("Patient", json=minimal.resource("Patient", {}))
    assert made.status_code == 201, made.text
    return {"Patient": f"Patient/{made.json()['id']}"}


def _condition(ehr: httpx.Client, known: dict[str, str], notes: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    made = ehr.post("Condition", json=minimal.resource("Condition", known) | {"note": notes})
    assert made.status_code == 201, made.text
    return f"Condition/{made.json()['id']}", made.json()


def _told(answer: httpx.Response) -> tuple[int, str, str]:
    (issue,) = answer.json()["issue"]
    return answer.status_code, issue["details"]["coding"][0]["code"], issue["details"]["text"]


@pytest.mark.parametrize(
    ("note", "operations", "limit"),
    [
        ("x" * 200_000, [COPY] * 100, "16777216 (RCP_LIMIT_HTTP_BODY_BYTES)"),
        ("x", [{"op": "copy", "from": "/note", "path": "/note/-"}] * 40, "250000 (RCP_LIMIT_JSON_NODES)"),
        ("x", [{"op": "add", "path": "/note/0" * 70, "value": {}}], "64 (RCP_LIMIT_JSON_DEPTH)"),
    ],
)
def test_a_patch_that_multiplies_is_refused_by_its_limit_in_every_way_it_comes(
    ehr: httpx.Client, known: dict[str, str], note: str, operations: list[dict[str, Any]], limit: str
) -> None:
    where, kept = _condition(ehr, known, [{"text": note}])
    status, code, text = _told(ehr.patch(where, json=operations, headers=JSON_PATCH))
    assert (status, code) == (413, "patch-demesure")
    assert limit in text
    data = base64.b64encode(json.dumps(operations).encode()).decode()
    carried = {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": data}
    entry = {"resource": carried, "request": {"method": "PATCH", "url": where}}
    answer = ehr.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    status, code, text = _told(answer)
    assert (status, code) == (413, "patch-demesure")
    assert limit in text
    assert ehr.get(where).json() == kept


def test_a_path_that_is_walked_again_and_again_is_refused_by_its_limit(
    ehr: httpx.Client, known: dict[str, str]
) -> None:
    where, kept = _condition(ehr, known, [{"text": "x"}] * 5_000)
    status, code, text = _told(ehr.patch(where, json=parameters(op("delete", HUNGRY))))
    assert (status, code) == (413, "patch-demesure")
    assert "250000 (RCP_LIMIT_JSON_NODES)" in text
    assert ehr.get(where).json() == kept
    few = parameters(*[op("delete", "Condition.note.where(text = 'y')")] * 10)
    assert ehr.patch(where, json=few).status_code == 200


@pytest.mark.parametrize("path", ["Condition", "Resource", "Condition.where(true)"])
def test_a_resource_is_not_deleted_by_a_patch(ehr: httpx.Client, known: dict[str, str], path: str) -> None:
    where, kept = _condition(ehr, known, [{"text": "x"}])
    status, code, _ = _told(ehr.patch(where, json=parameters(op("delete", path))))
    assert (status, code) == (422, "patch-ressource-entiere")
    assert ehr.get(where).json() == kept
    status, code, _ = _told(ehr.patch(where, json=parameters(op("delete", "Condition.id"))))
    assert (status, code) == (422, "element-protege")
    status, code, _ = _told(ehr.patch(where, json=parameters(op("delete", "Condition.meta"))))
    assert (status, code) == (422, "element-protege")


def test_a_body_of_more_elements_than_the_limit_is_refused_before_it_is_made(
    ehr: httpx.Client, known: dict[str, str]
) -> None:
    tree = minimal.resource("Condition", known)
    start = json.dumps(tree)[:-1].encode() + b', "note": ['
    for item in (b"{}", b"[]", b'""', b"1", b'{"text": "a, [b], {c}"}'):
        for kind in (b"", b"[["):
            content = start + kind + b",".join([item] * 260_000) + (b"]]" if kind else b"") + b"]}"
            status, code, text = _told(ehr.post("Condition", content=content))
            assert (status, code) == (413, "trop-d-elements")
            assert "250000 (RCP_LIMIT_JSON_NODES)" in text
    # Signs within texts are no elements.
    text = ",[{" * 200_000
    made = ehr.post("Condition", json=tree | {"note": [{"text": text}]})
    assert made.status_code == 201, made.text
    assert ehr.get(f"Condition/{made.json()['id']}").json()["note"] == [{"text": text}]
