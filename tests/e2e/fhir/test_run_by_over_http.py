"""Software of the establishment that runs an RCP: of another hospital's patient it meets what his dossier brings.

Everything else of his record is asked for in every way that R4 has to ask, and is not there [ADR 14].
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital
from tests.world import World

CODES = "https://chu-x.example/ns/codes"
PDF = {"Content-Type": "application/pdf"}
PATCH = [{"op": "add", "path": "/language", "value": "fr"}]
#: Stands in what nobody attached, and nowhere else.
SECRET = "zzsecret"


@pytest.fixture
def ehr(world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


@dataclass
class Pushed:
    """What the hospital pushed: what its inscription brings, and what nobody attached."""

    subject: str
    request: str
    task: str
    brought: list[str]
    loose: list[str]


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


def _post(client: httpx.Client, kind: str, **tree: Any) -> str:
    made = client.post(kind, json={"resourceType": kind, **tree})
    assert made.status_code == 201, made.text
    return f"{kind}/{made.json()['id']}"


def _bytes(client: httpx.Client, content: bytes) -> str:
    made = client.post("Binary", content=content, headers=PDF)
    assert made.status_code == 201, made.text
    return f"Binary/{made.json()['id']}"


def _to(reference: str) -> dict[str, str]:
    return {"reference": reference}


def _coded(code: str) -> dict[str, Any]:
    return {"coding": [{"system": CODES, "code": code}]}


def _observation(client: httpx.Client, subject: str, code: str, **more: Any) -> str:
    return _post(client, "Observation", status="final", code=_coded(code), subject=_to(subject), **more)


def _document(client: httpx.Client, subject: str, url: str, **more: Any) -> str:
    attached = [{"attachment": {"contentType": "application/pdf", "url": url}}]
    return _post(client, "DocumentReference", status="current", subject=_to(subject), content=attached, **more)


@pytest.fixture
def pushed(world: World, ehr: httpx.Client) -> Pushed:
    """An inscription that names a reading, a report and a letter; beside it what concerns nobody else."""
    sent = samples.transaction(
        rcp=world.rcp.national_number,
        start="2026-03-19T14:00:00+01:00",
        requester=world.requester.idnps,
        treating=world.treating.rpps,
    )
    answer = ehr.post("", json=sent)
    assert answer.status_code == 200, answer.text
    made = {}
    for entry in answer.json()["entry"]:
        kind, key = entry["response"]["location"].split("/")[:2]
        made[kind] = f"{kind}/{key}"
    subject = made["Patient"]
    loose_bytes = _bytes(ehr, b"%PDF-1.7 zzsecret")
    loose = [
        _observation(ehr, subject, SECRET),
        _post(ehr, "Condition", subject=_to(subject), code=_coded(SECRET)),
        loose_bytes,
        _document(ehr, subject, loose_bytes, description=SECRET),
        _post(ehr, "DiagnosticReport", status="final", code=_coded(SECRET), subject=_to(subject)),
        _post(ehr, "RelatedPerson", patient=_to(subject), name=[{"family": SECRET}]),
        _post(
            ehr,
            "Encounter",
            status="finished",
            subject=_to(subject),
            type=[_coded(SECRET)],
            **{"class": {"code": "IMP"}},
        ),
        _post(
            ehr,
            "Consent",
            status="active",
            patient=_to(subject),
            scope=_coded(SECRET),
            category=[_coded(SECRET)],
            policyRule=_coded(SECRET),
        ),
        _post(ehr, "List", status="current", mode="working", subject=_to(subject), code=_coded(SECRET)),
    ]
    reading = _observation(ehr, subject, "stade", hasMember=[_to(loose[0])])
    result = _observation(ehr, subject, "resultat")
    report = _post(
        ehr, "DiagnosticReport", status="final", code=_coded("anapath"), subject=_to(subject), result=[_to(result)]
    )
    letter_bytes = _bytes(ehr, b"%PDF-1.7 lettre")
    letter = _document(ehr, subject, letter_bytes)
    tree = ehr.get(made["ServiceRequest"]).json()
    tree["supportingInfo"] = [_to(one) for one in (reading, report, letter)]
    match = {"If-Match": f'W/"{tree["meta"]["versionId"]}"'}
    changed = ehr.put(made["ServiceRequest"], json=tree, headers=match)
    assert changed.status_code == 200, changed.text
    brought = [*made.values(), reading, result, report, letter, letter_bytes]
    return Pushed(subject, made["ServiceRequest"], made["Task"], brought, loose)


def _found(answer: httpx.Response) -> set[str]:
    """``Type/id`` of everything that a Bundle holds."""
    assert answer.status_code == 200, answer.text
    entries = [one["resource"] for one in answer.json().get("entry", ()) if "resource" in one]
    return {f"{one['resourceType']}/{one['id']}" for one in entries if "id" in one}


def test_what_the_dossier_brings_is_read_and_the_rest_of_the_record_is_not(
    pushed: Pushed, home: httpx.Client, ehr: httpx.Client
) -> None:
    for reference in pushed.brought:
        assert home.get(reference).status_code == 200, reference
        assert home.get(f"{reference}/_history").status_code == 200, reference
    for reference in pushed.loose:
        assert ehr.get(reference).status_code == 200, reference
        for asked in (reference, f"{reference}/_history/1", f"{reference}/_history"):
            refused = home.get(asked)
            assert (refused.status_code, _code(refused)) == (404, "inconnu"), asked
        # Written over, patched and deleted alike, it is what nobody ever wrote.
        nobodys = f"{reference.partition('/')[0]}/{uuid.uuid4()}"
        tree = ehr.get(reference).json()
        for way in (
            lambda one, tree=tree: home.put(one, json=tree | {"id": one.partition("/")[2]}),
            home.delete,
            lambda one: home.patch(one, json=PATCH, headers={"Content-Type": "application/json-patch+json"}),
        ):
            there, never = way(reference), way(nobodys)
            assert (there.status_code, there.text) == (never.status_code, never.text), reference
        assert ehr.get(reference).headers["etag"] == 'W/"1"'
    gets = [{"request": {"method": "GET", "url": one}} for one in [*pushed.loose, *pushed.brought]]
    batch = home.post("", json={"resourceType": "Bundle", "type": "batch", "entry": gets})
    assert batch.status_code == 200
    assert SECRET not in batch.text
    told = [entry["response"]["status"][:3] for entry in batch.json()["entry"]]
    assert told == ["404"] * len(pushed.loose) + ["200"] * len(pushed.brought)
    whole = home.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": gets[:1]})
    assert whole.status_code == 404
    assert SECRET not in whole.text


def test_no_way_of_searching_meets_what_nobody_attached(pushed: Pushed, home: httpx.Client, ehr: httpx.Client) -> None:
    patient = pushed.subject.removeprefix("Patient/")
    loose = set(pushed.loose)
    searched = [one for one in pushed.loose if not one.startswith("Binary/")]
    asked = []
    for reference in searched:
        kind, _, key = reference.partition("/")
        asked += [
            kind,
            f"{kind}?_id={key}",
            f"{kind}?patient={patient}" if kind != "List" else f"{kind}?subject={patient}",
        ]
        asked.append(f"{kind}/_history")
    reading = next(one for one in pushed.brought if one.startswith("Observation/"))
    asked += [
        f"Patient?_id={patient}&_revinclude=*",
        f"Patient?_id={patient}&_revinclude=Observation:patient&_include:iterate=Observation:has-member",
        f"ServiceRequest?_id={pushed.request.partition('/')[2]}&_include=*&_include:iterate=*&_revinclude:iterate=*",
        f"Observation?_id={reading.partition('/')[2]}&_include=Observation:has-member",
        f"Observation?_id={reading.partition('/')[2]}&_include=*&_include:iterate=*",
    ]
    for one in asked:
        found = home.get(one)
        assert not _found(found) & loose, one
        assert SECRET not in found.text, one
    # The hospital itself meets all of it by the same questions: they would have found it.
    assert set(searched) <= set().union(*(_found(ehr.get(one)) for one in asked))
    # What is asked of the hidden, by way of the shown, is asked of nothing.
    for one in (
        f"Observation?has-member.code={SECRET}",
        f"Observation?has-member:Observation.code={SECRET}",
        f"Patient?_has:Observation:patient:code={SECRET}",
        "Patient?_has:Observation:subject:_has:Observation:has-member:code=stade",
        f"Patient?_has:Condition:subject:code={SECRET}",
        f"Patient?_has:DocumentReference:patient:description={SECRET}",
        f"Patient?_has:RelatedPerson:patient:name={SECRET}",
        f"Observation?code={SECRET}&_summary=count",
        f"Observation?code={SECRET}&_total=accurate",
    ):
        mine, theirs = ehr.get(one).json(), home.get(one).json()
        assert mine["total"] >= 1, one
        assert (theirs["total"], theirs.get("entry", [])) == (0, []), one
    # A condition meets no stranger's resource: what the hospital has is made a second time, for whoever asks.
    tree = {"resourceType": "Observation", "status": "final", "code": _coded(SECRET), "subject": _to(pushed.subject)}
    made = home.post("Observation", json=tree, headers={"If-None-Exist": f"code={SECRET}"})
    assert made.status_code == 201
    named = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "resource": {
                    "resourceType": "Basic",
                    "code": _coded("lien"),
                    "subject": _to(f"Condition?code={SECRET}"),
                },
                "request": {"method": "POST", "url": "Basic"},
            }
        ],
    }
    assert home.post("", json=named).status_code == 412


def test_software_opens_nothing_to_itself_by_naming_it(pushed: Pushed, home: httpx.Client, ehr: httpx.Client) -> None:
    loose = {one.partition("/")[0]: one for one in pushed.loose}
    task = home.get(pushed.task).json()
    match = {"If-Match": f'W/"{task["meta"]["versionId"]}"'}
    entry = {"type": {"text": "pièce"}, "valueReference": _to(loose["Observation"])}
    guessed = entry | {"valueReference": _to("Observation/personne")}
    versioned = {"note": [{"text": f'voir "{loose["Observation"]}/_history/1"'}]}
    texts = [{"note": [{"text": loose["Condition"]}]}, versioned, {"input": [*task.get("input", ()), entry]}]
    for more in [*texts, {"input": [*task.get("input", ()), guessed]}]:
        refused = home.put(pushed.task, json=task | more, headers=match)
        assert (refused.status_code, _code(refused)) == (422, "reference-inconnue"), more
    kept = home.put(pushed.task, json=task | {"note": [{"text": "lu"}]}, headers=match)
    assert kept.status_code == 200, kept.text
    # Its own words about the dossier, which stand in it.
    about = {"subject": _to(pushed.subject), "basedOn": [_to(pushed.request)]}
    results = [_to(loose["Observation"])]
    _post(home, "DiagnosticReport", status="final", code=_coded("a-moi"), result=results, **about)
    attached = [{"attachment": {"contentType": "application/pdf", "url": loose["Binary"]}}]
    refused = home.post(
        "DocumentReference",
        json={"resourceType": "DocumentReference", "status": "current", "content": attached}
        | {"subject": _to(pushed.subject), "context": {"related": [_to(pushed.request)]}},
    )
    assert (refused.status_code, _code(refused)) == (422, "piece-jointe-absente")
    for reference in pushed.loose:
        assert home.get(reference).status_code == 404, reference
    # The hospital puts one forward by the dossier's Task: then it is shown.
    task = ehr.get(pushed.task).json()
    match = {"If-Match": f'W/"{task["meta"]["versionId"]}"'}
    named = ehr.put(pushed.task, json=task | {"input": [*task.get("input", ()), entry]}, headers=match)
    assert named.status_code == 200, named.text
    assert home.get(loose["Observation"]).status_code == 200
    assert home.get(loose["Condition"]).status_code == 404
    # What stands there already is no news of whoever brings the Task again.
    task = home.get(pushed.task).json()
    match = {"If-Match": f'W/"{task["meta"]["versionId"]}"'}
    assert home.put(pushed.task, json=task | {"note": [{"text": "relu"}]}, headers=match).status_code == 200
