"""What a client sent comes back to the last decimal, over real HTTP and PostgreSQL: only id, versionId and lastUpdated
are ours, and of what a verb understands the few elements that the gateway itself says (``docs/wires/fhir.md``)."""

from __future__ import annotations

import copy
import json
from decimal import Decimal
from typing import Any

import httpx
import pytest

from gateway.fhir import xml_write
from gateway.fhir.owners import WRITABLE
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Shared
from tests.fhir_resources import plain_json, resource

Tree = dict[str, Any]
XML = {"Content-Type": "application/fhir+xml", "Accept": "application/fhir+xml"}

DECIMAL = {"url": "http://chu-x.example/e", "valueDecimal": Decimal("1.10")}
NARRATIVE = {
    "status": "additional",
    "div": "<div xmlns=\"http://www.w3.org/1999/xhtml\"><p class='a'>é &amp; &#233;<br/></p><!-- n --></div>",
}
CONTAINED = [{"resourceType": "Practitioner", "id": "c1", "name": [{"family": "Contenu", "_family": {"id": "f"}}]}]
HOLDS = {"url": "http://chu-x.example/c", "valueReference": {"reference": "#c1"}}
META = {
    "tag": [{"system": "http://chu-x.example/t", "code": "t"}],
    "profile": ["http://chu-x.example/p"],
    "source": "urn:chu-x",
}
#: What the gateway says of a Task itself, whoever wrote it: where the dossier stands, and whose it is.
TASK_OURS = {"status", "businessStatus", "owner", "encounter"}


@pytest.fixture(scope="module")
def patient(ehr: httpx.Client) -> str:
    made = ehr.post("Patient", json=samples.patient("L0", ins=None))
    return f"Patient/{made.json()['id']}"


def _sorted(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _sorted(node[name]) for name in sorted(node)}
    return [_sorted(one) for one in node] if isinstance(node, list) else node


def _client_said(content: bytes) -> Tree:
    """What of a resource is the client's, decimals as written, whatever the order of names."""
    tree = json.loads(content, parse_float=Decimal)
    bare = {name: value for name, value in tree.items() if name not in {"id", "meta"}}
    meta = {name: value for name, value in tree.get("meta", {}).items() if name not in {"versionId", "lastUpdated"}}
    return {**bare, "meta": meta} if meta else bare


def _same(back: bytes, sent: bytes) -> bool:
    return plain_json(_sorted(_client_said(back))) == plain_json(_sorted(_client_said(sent)))


def _about(tree: Any, patient: str) -> Any:
    """The same resource about somebody who exists."""
    if isinstance(tree, dict):
        said = tree.get("reference")
        if isinstance(said, str) and said.startswith("Patient/"):
            return {**tree, "reference": patient}
        return {name: _about(value, patient) for name, value in tree.items()}
    return [_about(one, patient) for one in tree] if isinstance(tree, list) else tree


def _generated(kind: str, seed: int, patient: str) -> Tree:
    tree: Tree = _about(resource(kind, seed, 25), patient)
    for name in ("subject", "patient"):
        if name in tree and kind != "Consent":
            tree[name] = {"reference": patient}
    if kind == "Consent":
        tree["patient"] = {"reference": patient}
    if kind == "Subscription":  # what else it may say is the server's, or is judged
        tree |= {"status": "off", "criteria": "Patient?active=true"}
        tree["channel"] |= {
            "type": "rest-hook",
            "endpoint": "https://hook.example/a",
            "payload": "application/fhir+json",
        }
        tree["channel"].pop("header", None)
    if "securityContext" in tree:
        tree["securityContext"] = {"reference": patient}
    if kind in {"QuestionnaireResponse", "Observation", "DiagnosticReport"}:
        tree["subject"] = {"reference": patient}
    if kind == "Patient":
        # The order of identifiers is the client's: ours to know among them is only one.
        own = samples.patient(f"L-{seed}", ins=None)["identifier"]
        tree["identifier"] = [*tree.get("identifier", []), *own] if seed % 2 else [*own, *tree.get("identifier", [])]
    return tree


def _address(answer: httpx.Response) -> str:
    return answer.headers["location"].rpartition("/fhir/")[2].partition("/_history")[0]


@pytest.mark.parametrize("kind", [kind for kind in WRITABLE if kind != "Task"])
def test_a_generated_resource_comes_back(ehr: httpx.Client, patient: str, kind: str) -> None:
    for seed in range(8):
        tree = _generated(kind, seed, patient)
        sent = plain_json(tree)
        by_xml = bool(seed % 4 == 3)
        made = ehr.post(kind, content=xml_write.encode(tree), headers=XML) if by_xml else ehr.post(kind, content=sent)
        assert made.status_code == 201, (seed, made.text)
        address = _address(made)
        read = ehr.get(address)
        assert _same(read.content, sent), (seed, read.text)
        if not by_xml:
            assert made.content == read.content
        # The next version is what was sent then, nothing of the first; the first stays as it was.
        changed = _generated(kind, seed + 1000, patient) | {"id": address.partition("/")[2]}
        if kind == "Patient":
            changed["identifier"] = tree["identifier"]
        put = ehr.put(address, content=plain_json(changed))
        assert put.status_code == 200, (seed, put.text)
        assert _same(ehr.get(address).content, plain_json(changed)), seed
        assert ehr.get(f"{address}/_history/1").content == read.content
        found = ehr.get(kind, params={"_id": address.partition("/")[2]}) if kind != "Binary" else None
        if found is not None:
            entry = json.loads(found.content, parse_float=Decimal)["entry"][0]["resource"]
            assert _same(plain_json(entry), plain_json(changed)), seed


def _dressed(tree: Tree) -> Tree:
    """With everything that no verb speaks of."""
    return tree | {
        "text": NARRATIVE,
        "contained": CONTAINED,
        "language": "fr",
        "meta": META,
        "extension": [*tree.get("extension", []), DECIMAL, HOLDS],
    }


def _request(tree: Tree) -> Tree:
    tree["requester"]["display"] = "Dr Demandeur"
    tree["performer"] = [{**tree["performer"][0], "display": "RCP sein"}, {"display": "autre"}]
    first = {"use": "secondary", "value": "zz", "_value": {"id": "i"}, "period": {"start": "2026"}}
    return tree | {
        "identifier": [first, *tree["identifier"]],
        "_status": {"extension": [DECIMAL]},
        "_occurrenceDateTime": {"extension": [DECIMAL]},
        "priority": "urgent",
        "_priority": {"id": "p"},
        "note": [{"text": "n", "time": "2026-03-01T10:00:00.120+01:00"}],
        "supportingInfo": [{"reference": "#c1"}],
        "requisition": {"value": "R"},
        "reasonCode": [{"text": "r"}],
    }


def _task(tree: Tree) -> Tree:
    coded = {"coding": [{"system": "http://chu-x.example/q", "code": "q"}]}
    return tree | {
        "description": "d",
        "_description": {"extension": [DECIMAL]},
        "priority": "asap",
        "note": [{"text": "n"}],
        "code": {"text": "c"},
        "input": [{"type": {"text": "libre"}, "valueString": "v"}, {"type": coded, "valueDecimal": Decimal("2.50")}],
        "authoredOn": "2026-03-01T10:00:00.100+01:00",
        "lastModified": "2026-03-02T10:00:00.000Z",
        "requester": {"display": "R"},
        "executionPeriod": {"start": "2026"},
        "groupIdentifier": {"value": "g"},
        "restriction": {"repetitions": 1},
    }


def _form(tree: Tree) -> Tree:
    free = {
        "linkId": "libre",
        "answer": [
            {"valueDecimal": Decimal("1.10"), "extension": [DECIMAL]},
            {"valueDateTime": "2026-03-01T10:00:00.120+01:00"},
        ],
    }
    return tree | {"item": [*tree["item"], free], "author": {"reference": "#c1"}, "source": {"display": "s"}}


_DRESSES = {"ServiceRequest": _request, "Task": _task, "QuestionnaireResponse": _form}


def test_what_verbs_understand_comes_back_too(shared: Shared, ehr: httpx.Client) -> None:
    world = shared.world
    bundle = samples.transaction(
        rcp=world.rcp.national_number,
        start="2026-03-19T14:00:00+01:00",
        requester=world.requester.idnps,
        treating=world.treating.rpps,
        ipp="L-verbes",
        tumour="L-verbes",
        ins=None,
    )
    for entry in bundle["entry"]:
        dress = _DRESSES.get(entry["resource"]["resourceType"], lambda tree: tree)
        entry["resource"] = dress(_dressed(copy.deepcopy(entry["resource"])))
    answer = ehr.post("", content=plain_json(bundle))
    assert answer.status_code == 200, answer.text
    places = [entry["response"]["location"].rpartition("/fhir/")[2] for entry in answer.json()["entry"]]
    places = [place.partition("/_history")[0] for place in places]
    named = {entry["fullUrl"]: place for entry, place in zip(bundle["entry"], places, strict=True)}
    for entry, place in zip(bundle["entry"], places, strict=True):
        sent = plain_json(entry["resource"]).decode()
        for url, address in named.items():
            sent = sent.replace(url, address)
        back = ehr.get(place)
        if not place.startswith("Task/"):
            assert _same(back.content, sent.encode()), place
            continue
        said, wanted = _client_said(back.content), _client_said(sent.encode())
        for name in ("identifier", "input"):
            # Ours stand behind theirs.
            assert said[name][: len(wanted[name])] == wanted[name]
            assert len(said.pop(name)) == len(wanted.pop(name)) + 1
        assert {name for name in said.keys() | wanted.keys() if said.get(name) != wanted.get(name)} <= TASK_OURS
        assert plain_json(said["extension"]) == plain_json(wanted["extension"])


def test_a_reference_to_ourselves_is_kept_without_our_address(shared: Shared, ehr: httpx.Client, patient: str) -> None:
    """The one word of a client that is written otherwise: it names the same resource under any address of ours."""
    elsewhere = "https://ailleurs.example/fhir/Patient/1"
    tree = {
        "resourceType": "Basic",
        "code": {"text": f"{shared.served.base}/{patient}"},
        "subject": {"reference": f"{shared.served.base}/{patient}", "display": "x"},
        "extension": [{"url": "http://chu-x.example/e", "valueReference": {"reference": elsewhere}}],
    }
    made = ehr.post("Basic", json=tree)
    assert made.status_code == 201, made.text
    said = made.json()
    assert said["subject"] == {"reference": patient, "display": "x"}
    assert said["code"] == tree["code"]
    assert said["extension"] == tree["extension"]
