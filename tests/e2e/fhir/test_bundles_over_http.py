"""Batches and transactions over real HTTP: every method, links of every kind, all or nothing."""

from __future__ import annotations

import base64
import copy
import json
import uuid
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from gateway.model.representation import TABLES
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Shared
from tests.world import DOMAIN

TUMOUR = "https://chu-x.example/ns/tumeur"
NOTE = "https://chu-x.example/ns/mesure"


def urn() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


def entry(
    method: str, url: str, resource: dict[str, Any] | None = None, full_url: str | None = None, **request: str
) -> dict[str, Any]:
    made: dict[str, Any] = {"request": {"method": method, "url": url, **request}}
    if resource is not None:
        made["resource"] = resource
    if full_url is not None:
        made["fullUrl"] = full_url
    return made


def bundle(kind: str, *entries: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def measure(subject: str, key: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "identifier": [{"system": NOTE, "value": key}],
        "status": "final",
        "code": {"text": "Taille"},
        "subject": {"reference": subject},
        "valueInteger": 3,
    } | more


def statuses(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [int(one["response"]["status"].partition(" ")[0]) for one in answer.json()["entry"]]


def where(answer: httpx.Response, index: int) -> str:
    return str(answer.json()["entry"][index]["response"]["location"]).partition("/_history")[0]


def codes(answer: httpx.Response) -> list[tuple[str, str]]:
    return [
        (issue["details"]["coding"][0]["code"], issue.get("expression", [""])[0]) for issue in answer.json()["issue"]
    ]


def total(shared: Shared) -> int:
    with shared.served.store.session() as session:
        return sum(session.scalar(select(func.count()).select_from(table)) or 0 for table in TABLES.values())


def encoded(patch: list[dict[str, Any]]) -> dict[str, Any]:
    data = base64.b64encode(json.dumps(patch).encode()).decode()
    return {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": data}


# Batch


def test_a_batch_answers_each_entry_by_itself(ehr: httpx.Client, someone: str, key: str) -> None:
    kept = ehr.post("Observation", json=measure(someone, key)).json()
    gone = ehr.post("Observation", json=measure(someone, key + "-2")).json()
    tree = measure(someone, key + "-n") | {"id": f"b-{key}"}
    parameters = {
        "resourceType": "Parameters",
        "parameter": [
            {
                "name": "operation",
                "part": [
                    {"name": "type", "valueCode": "replace"},
                    {"name": "path", "valueString": "Observation.value"},
                    {"name": "value", "valueString": "trois"},
                ],
            }
        ],
    }
    answer = ehr.post(
        "",
        json=bundle(
            "batch",
            entry("GET", f"Observation/{kept['id']}"),
            entry("POST", "Observation", measure(someone, key + "-3")),
            entry("POST", "Observation", {"resourceType": "Observation", "status": "fini"}),
            entry("PUT", f"Observation/b-{key}", tree),
            entry(
                "PATCH", f"Observation/{kept['id']}", encoded([{"op": "replace", "path": "/valueInteger", "value": 4}])
            ),
            entry("PATCH", f"Observation/{kept['id']}", parameters),
            entry("DELETE", f"Observation/{gone['id']}"),
            entry("GET", f"Observation/{gone['id']}"),
            entry("GET", f"Observation?identifier={NOTE}|{key}-3"),
            entry("POST", f"Observation/_search?identifier={NOTE}|{key}"),
            entry("GET", f"Observation/{kept['id']}/_history/1"),
            entry("GET", f"Observation/{kept['id']}/_history"),
            entry("GET", "Observation/inconnue"),
            entry("GET", f"Patient/{someone.partition('/')[2]}", ifNoneMatch='W/"1"'),
            entry("VOIR", "Observation"),
            entry("GET", "Medication/1"),
            {"fullUrl": "urn:uuid:rien"},
            entry("POST", "Observation", measure(someone, key), ifNoneExist=f"identifier={NOTE}|{key}"),
        ),
    )
    assert answer.json()["type"] == "batch-response"
    assert statuses(answer) == [
        200,
        201,
        400,
        201,
        200,
        200,
        204,
        410,
        200,
        200,
        200,
        200,
        404,
        304,
        400,
        400,
        400,
        200,
    ]
    entries = answer.json()["entry"]
    assert entries[0]["resource"] == kept
    assert entries[2]["response"]["outcome"]["issue"][0]["expression"][0].startswith("Bundle.entry[2].resource")
    assert entries[8]["resource"]["entry"][0]["resource"]["identifier"][0]["value"] == key + "-3"
    assert entries[9]["resource"]["total"] == 1
    assert entries[10]["resource"] == kept
    assert [one["resource"]["meta"]["versionId"] for one in entries[11]["resource"]["entry"]] == ["3", "2", "1"]
    assert entries[17]["response"]["location"] == f"Observation/{kept['id']}/_history/3"
    now = ehr.get(f"Observation/{kept['id']}").json()
    assert (now["valueString"], "valueInteger" in now) == ("trois", False)


def test_entries_of_a_batch_do_not_refer_to_one_another(ehr: httpx.Client, key: str) -> None:
    who = urn()
    answer = ehr.post(
        "",
        json=bundle(
            "batch",
            entry("POST", "Patient", samples.patient(key, ins=None), who),
            entry("POST", "Observation", measure(who, key)),
        ),
    )
    assert statuses(answer) == [201, 400]


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_an_answer_shows_what_prefer_asks_for(ehr: httpx.Client, someone: str, key: str, kind: str) -> None:
    shown = {}
    for wish in ("minimal", "representation", "OperationOutcome"):
        made = entry("POST", "Observation", measure(someone, key + wish))
        one = ehr.post("", json=bundle(kind, made), headers={"Prefer": f"return={wish}"}).json()["entry"][0]
        assert one["response"]["status"] == "201 Created"
        assert one["response"]["etag"] == 'W/"1"'
        shown[wish] = ("resource" in one, one["response"].get("outcome", {}).get("resourceType"))
    assert shown == {
        "minimal": (False, None),
        "representation": (True, None),
        "OperationOutcome": (False, "OperationOutcome"),
    }


def test_searches_of_a_bundle_are_strict_when_asked(ehr: httpx.Client) -> None:
    asked = bundle("batch", entry("GET", "Observation?inconnu=1"))
    assert statuses(ehr.post("", json=asked)) == [200]
    assert statuses(ehr.post("", json=asked, headers={"Prefer": "handling=strict"})) == [400]


# Transaction


def test_a_transaction_takes_every_method_in_the_right_order(ehr: httpx.Client, someone: str, key: str) -> None:
    old = ehr.post("Observation", json=measure(someone, key)).json()
    changed = ehr.post("Observation", json=measure(someone, key + "-p")).json()
    updated = ehr.post("Observation", json=measure(someone, key + "-u")).json()
    answer = ehr.post(
        "",
        json=bundle(
            "transaction",
            entry("GET", f"Observation?identifier={NOTE}|{key}"),
            entry("GET", f"Observation/{changed['id']}"),
            entry(
                "PATCH",
                f"Observation/{changed['id']}",
                encoded([{"op": "replace", "path": "/valueInteger", "value": 9}]),
            ),
            entry("PUT", f"Observation?identifier={NOTE}|{key}-u", measure(someone, key + "-u", valueInteger=8)),
            # The same identifier as what is deleted: the delete goes first, so this makes a new one.
            entry("POST", "Observation", measure(someone, key), ifNoneExist=f"identifier={NOTE}|{key}"),
            entry("DELETE", f"Observation?identifier={NOTE}|{key}"),
            entry("GET", f"Observation/{old['id']}/_history/1"),
        ),
    )
    assert statuses(answer) == [200, 200, 200, 200, 201, 204, 200]
    found = answer.json()["entry"]
    assert found[0]["resource"]["entry"][0]["resource"]["id"] == where(answer, 4).partition("/")[2]
    assert found[1]["resource"]["valueInteger"] == 9
    assert (where(answer, 3), found[3]["response"]["etag"]) == (f"Observation/{updated['id']}", 'W/"2"')
    assert found[6]["resource"] == old
    assert ehr.get(f"Observation/{old['id']}").status_code == 410


def test_links_of_every_kind_become_what_was_made(ehr: httpx.Client, key: str) -> None:
    who, what, other, base = urn(), urn(), urn(), "http://ailleurs.example/fhir"
    oid = "urn:oid:1.2.250.1.999." + str(int(key, 16))
    tree = measure(who, key)
    tree["text"] = {
        "status": "generated",
        "div": f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{what}">{what}</a> '
        f'<img src="{oid}#p" alt="x"/></div>',
    }
    tree["derivedFrom"] = [{"reference": other}, {"reference": oid}, {"reference": f"{base}/Observation/77"}]
    tree["extension"] = [
        {"url": "urn:x-uri", "valueUri": what},
        {"url": "urn:x-url", "valueUrl": f"{what}#fragment"},
        {"url": "urn:x-uuid", "valueUuid": what},
        {"url": "urn:x-canonical", "valueCanonical": what},
        {"url": "urn:x-string", "valueString": what},
        {"url": "urn:x-attachment", "valueAttachment": {"url": oid}},
    ]
    tree["note"] = [{"text": what}]
    tree["contained"] = [
        {
            "resourceType": "Observation",
            "id": "c",
            "status": "final",
            "code": {"text": "x"},
            "subject": {"reference": who},
        }
    ]
    tree["hasMember"] = [{"reference": "#c"}]
    relative = measure("Patient/88", key + "-r")
    answer = ehr.post(
        "",
        json=bundle(
            "transaction",
            entry("POST", "Observation", tree, what),
            entry("POST", "Observation", measure(who, key + "-2", derivedFrom=[{"reference": what}]), other),
            entry("POST", "Observation", measure(who, key + "-3"), oid),
            entry("POST", "Observation", relative, f"{base}/Observation/77"),
            entry("POST", "Patient", samples.patient(key, ins=None), who),
            entry("POST", "Patient", samples.patient(key + "8", ins=None), f"{base}/Patient/88"),
        ),
    )
    assert statuses(answer) == [201] * 6
    me, second, third, fourth, patient, eighty_eight = (where(answer, index) for index in range(6))
    read = ehr.get(me).json()
    assert read["subject"] == read["contained"][0]["subject"] == {"reference": patient}
    assert [one["reference"] for one in read["derivedFrom"]] == [second, third, fourth]
    assert ehr.get(second).json()["derivedFrom"] == [{"reference": me}], "a circle of two"
    assert ehr.get(fourth).json()["subject"] == {"reference": eighty_eight}, "relative to the base of its own fullUrl"
    assert f'<a href="{me}">{what}</a> <img src="{third}#p"' in read["text"]["div"]
    values = {one["url"]: one for one in read["extension"]}
    assert values["urn:x-uri"]["valueUri"] == me
    assert values["urn:x-url"]["valueUrl"] == f"{me}#fragment"
    assert values["urn:x-canonical"]["valueCanonical"] == what
    assert values["urn:x-string"]["valueString"] == what
    assert values["urn:x-attachment"]["valueAttachment"]["url"] == third
    assert read["note"] == [{"text": what}]
    assert read["hasMember"] == [{"reference": "#c"}]


def test_patients_of_one_transaction_may_be_linked_in_a_circle(ehr: httpx.Client, key: str) -> None:
    one, other = urn(), urn()

    def linked(ipp: str, to: str) -> dict[str, Any]:
        return samples.patient(ipp, ins=None) | {"link": [{"other": {"reference": to}, "type": "seealso"}]}

    sent = bundle(
        "transaction",
        entry("POST", "Patient", linked(key + "1", other), one),
        entry("PUT", f"Patient?identifier={DOMAIN}|{key}2", linked(key + "2", one), other),
    )
    answer = ehr.post("", json=sent)
    assert statuses(answer) == [201, 201]
    first, second = where(answer, 0), where(answer, 1)
    assert ehr.get(first).json()["link"][0]["other"] == {"reference": second}
    assert ehr.get(second).json()["link"][0]["other"] == {"reference": first}


def test_a_reference_may_ask_for_the_version_that_is_made(ehr: httpx.Client, someone: str, key: str) -> None:
    url, pinned = "http://hl7.org/fhir/StructureDefinition/resolve-as-version-specific", urn()
    held = ehr.post("Observation", json=measure(someone, key + "-h")).json()

    def asking(reference: str) -> dict[str, Any]:
        return {"reference": reference, "extension": [{"url": url, "valueBoolean": True}]}

    tree = {
        "resourceType": "Provenance",
        "target": [asking(pinned), asking(f"Observation/{held['id']}"), {"reference": f"{someone}/_history/1"}],
        "recorded": "2026-03-09T09:00:00Z",
        "agent": [{"who": {"display": "x"}}],
    }
    answer = ehr.post(
        "",
        json=bundle(
            "transaction",
            entry("POST", "Provenance", tree),
            entry("POST", "Observation", measure(someone, key), pinned),
            entry("PUT", f"Observation/{held['id']}", held | {"valueInteger": 5}),
        ),
    )
    assert statuses(answer) == [201, 201, 200]
    assert ehr.get(where(answer, 0)).json()["target"] == [
        {"reference": f"{where(answer, 1)}/_history/1"},
        {"reference": f"Observation/{held['id']}/_history/2"},
        {"reference": f"{someone}/_history/1"},
    ]


def test_conditional_references_name_exactly_one(shared: Shared, ehr: httpx.Client, someone: str, key: str) -> None:
    kept = bundle("transaction", entry("POST", "Observation", measure(f"Patient?identifier={DOMAIN}|{key}", key)))
    answer = ehr.post("", json=kept)
    assert statuses(answer) == [201]
    assert ehr.get(where(answer, 0)).json()["subject"] == {"reference": someone}
    together = bundle(
        "transaction",
        entry("POST", "Observation", measure(f"Patient?identifier={DOMAIN}|{key}n", key + "-n")),
        entry("PUT", f"Patient?identifier={DOMAIN}|{key}n", samples.patient(key + "n", ins=None)),
    )
    answer = ehr.post("", json=together)
    assert statuses(answer) == [201, 201]
    assert ehr.get(where(answer, 0)).json()["subject"] == {"reference": where(answer, 1)}
    before = total(shared)
    for query in (f"identifier={DOMAIN}|{key}-nul", "birthdate=1979-03-28"):
        bad = bundle("transaction", entry("POST", "Observation", measure(f"Patient?{query}", key + "-m")))
        refused = ehr.post("", json=bad)
        assert refused.status_code == 412, refused.text
        assert codes(refused)[0][1] == "Bundle.entry[0].resource.subject"
    assert total(shared) == before


def test_every_faulty_entry_is_named_and_nothing_stays(
    shared: Shared, ehr: httpx.Client, someone: str, key: str
) -> None:
    before = total(shared)
    good = entry("POST", "Observation", measure(someone, key))
    sent = [
        good,
        entry("PUT", "Observation/inconnue", measure(someone, key) | {"id": "autre"}),
        entry("DELETE", f"Observation?identifier={NOTE}|{key}", ifMatch='W/"4"'),
        entry("PATCH", "Observation/nulle-part", encoded([])),
        entry("PUT", f"Observation?identifier={NOTE}|{key}-z", measure(someone, key), ifMatch="3"),
    ]
    refused = ehr.post("", json=bundle("transaction", *sent))
    assert refused.status_code == 400, refused.text
    assert codes(refused) == [
        ("identifiant-different", "Bundle.entry[1].resource.id"),
        ("version-perimee", "Bundle.entry[2].resource"),
        ("inconnu", "Bundle.entry[3].resource"),
        ("etiquette-illisible", "Bundle.entry[4].resource"),
    ]
    shapes = [
        good,
        entry("POST", "Observation", {"resourceType": "Observation", "status": "fini", "code": {}}),
        entry(
            "PATCH",
            "Observation/x",
            {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": "é"},
        ),
        entry("PUT", "Observation", measure(someone, key)),
        entry("HURLER", "Observation"),
    ]
    refused = ehr.post("", json=bundle("transaction", *shapes))
    assert refused.status_code == 400
    places = {place.partition("]")[0] for _, place in codes(refused)}
    assert places == {f"Bundle.entry[{index}" for index in (1, 2, 3, 4)}
    verbs = [
        good,
        entry("POST", "Observation", measure("Patient/" + str(uuid.uuid4()), key + "-a")),
        entry("POST", "Patient", samples.patient(key, ins=None, domain="https://autre.example/ipp"), "urn:uuid:p"),
        entry("POST", "Observation", measure("urn:uuid:p", key + "-b")),
        entry("POST", "Condition", {"resourceType": "Condition", "subject": {"reference": "Patient/inconnu"}}),
    ]
    refused = ehr.post("", json=bundle("transaction", *verbs))
    assert [place for _, place in codes(refused)] == [
        "Bundle.entry[1].resource.subject",
        "Bundle.entry[2].resource.identifier",
        "Bundle.entry[4].resource.subject",
    ], "what refers to a refused entry is not said again"
    assert total(shared) == before


def test_one_resource_is_touched_by_one_entry(shared: Shared, ehr: httpx.Client, someone: str, key: str) -> None:
    held = ehr.post("Observation", json=measure(someone, key)).json()
    at = f"Observation/{held['id']}"
    by_key = f"Observation?identifier={NOTE}|{key}"
    tree = measure(someone, key, valueInteger=7)
    pairs = [
        (entry("PUT", at, tree | {"id": held["id"]}), entry("PUT", by_key, tree)),
        (entry("PUT", by_key, tree), entry("PATCH", at, encoded([]))),
        (entry("DELETE", at), entry("PUT", at, tree | {"id": held["id"]})),
        (entry("DELETE", at), entry("DELETE", by_key)),
        (
            entry("POST", "Observation", measure(someone, key + "x"), ifNoneExist=f"identifier={NOTE}|{key}x"),
            entry("PUT", f"Observation?identifier={NOTE}%7C{key}x", measure(someone, key + "x")),
        ),
        (
            entry("POST", "Patient", samples.patient(key + "y", ins=None)),
            entry("PUT", f"Patient?identifier={DOMAIN}|{key}y", samples.patient(key + "y", ins=None)),
        ),
    ]
    before = total(shared)
    for pair in pairs:
        for one, other in (pair, pair[::-1]):
            refused = ehr.post("", json=bundle("transaction", copy.deepcopy(one), copy.deepcopy(other)))
            assert refused.status_code in {400, 409}, refused.text
            assert total(shared) == before
    twice = entry("POST", "Observation", tree, ifNoneExist=f"identifier={NOTE}|{key}")
    answer = ehr.post("", json=bundle("transaction", twice, copy.deepcopy(twice)))
    assert statuses(answer) == [200, 200], "what stands already may be named twice"


def test_conditions_of_entries_are_heard(ehr: httpx.Client, someone: str, key: str) -> None:
    held = ehr.post("Observation", json=measure(someone, key)).json()
    at = f"Observation/{held['id']}"

    def sent(**request: str) -> httpx.Response:
        return ehr.post("", json=bundle("transaction", entry("PUT", at, held | {"valueInteger": 6}, **request)))

    assert sent(ifMatch='W/"9"').status_code == 412
    assert sent(ifMatch="9").status_code == 400
    assert sent(ifNoneMatch="*").status_code == 412
    assert statuses(sent(ifMatch='W/"1"')) == [200]
    fresh = bundle(
        "transaction",
        entry("GET", at, ifNoneMatch='W/"2"'),
        entry("GET", at, ifNoneMatch='W/"1"'),
        entry("GET", at, ifModifiedSince="2099-01-01T00:00:00Z"),
        entry("GET", at, ifModifiedSince="2001-01-01T00:00:00Z"),
    )
    assert statuses(ehr.post("", json=fresh)) == [304, 200, 304, 200]


def test_what_is_deleted_together_may_refer_to_one_another(
    shared: Shared, ehr: httpx.Client, someone: str, key: str
) -> None:
    one = ehr.post("Observation", json=measure(someone, key)).json()
    at = f"Observation/{one['id']}"
    other = ehr.post("Observation", json=measure(someone, key + "-2", derivedFrom=[{"reference": at}])).json()
    that = f"Observation/{other['id']}"
    before = total(shared)
    alone = ehr.post("", json=bundle("transaction", entry("DELETE", at)))
    assert (alone.status_code, codes(alone)) == (409, [("ressource-utilisee", "Bundle.entry[0].resource")])
    kept = ehr.post(
        "",
        json=bundle(
            "transaction",
            entry("DELETE", at),
            entry("POST", "Observation", measure(someone, key + "-3", derivedFrom=[{"reference": at}])),
        ),
    )
    assert kept.status_code == 422, "what is deleted is not referred to"
    assert total(shared) == before
    assert statuses(ehr.post("", json=bundle("transaction", entry("DELETE", at), entry("DELETE", that)))) == [204, 204]


def test_a_refused_read_undoes_the_transaction(shared: Shared, ehr: httpx.Client, someone: str, key: str) -> None:
    before = total(shared)
    refused = ehr.post(
        "",
        json=bundle(
            "transaction", entry("POST", "Observation", measure(someone, key)), entry("GET", "Observation/nul")
        ),
    )
    assert (refused.status_code, codes(refused)) == (404, [("inconnu", "Bundle.entry[1].request")])
    assert total(shared) == before


def test_a_bundle_over_its_limit_is_refused_by_the_limits_name(ehr: httpx.Client) -> None:
    many = [entry("GET", "Observation/x")] * 501
    for kind in ("batch", "transaction"):
        refused = ehr.post("", json=bundle(kind, *many))
        assert refused.status_code == 413
        assert "500 (RCP_LIMIT_BUNDLE_ENTRIES)" in refused.json()["issue"][0]["details"]["text"]
    assert ehr.post("", json=bundle("collection")).status_code == 400
    for kind in ("batch", "transaction"):
        empty = ehr.post("", json={"resourceType": "Bundle", "type": kind})
        assert (empty.status_code, empty.json()) == (200, {"resourceType": "Bundle", "type": f"{kind}-response"})
