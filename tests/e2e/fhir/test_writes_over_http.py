"""Update-as-create, patch, delete and the conditions of writes over real HTTP, as R4 has them."""

from __future__ import annotations

import json
import uuid
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from sqlalchemy import select

from gateway.model.audit import AuditLine
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Hospital, Shared, register
from tests.world import DOMAIN, World

START = "2026-03-19T14:00:00+01:00"
JSON_PATCH = {"Content-Type": "application/json-patch+json"}
TUMOUR = "https://chu-x.example/ns/tumeur"


@pytest.fixture
def tumour(ehr: httpx.Client, someone: str, key: str) -> dict[str, Any]:
    made = ehr.post("Condition", json=samples.condition(someone, key))
    assert made.status_code == 201, made.text
    return dict(made.json())


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


def _at(tree: dict[str, Any]) -> str:
    return f"{tree['resourceType']}/{tree['id']}"


def _inscription(world: World, key: str) -> dict[str, Any]:
    return samples.transaction(
        rcp=world.rcp.national_number,
        start=START,
        requester=world.requester.idnps,
        treating=world.treating.rpps,
        ipp=key,
        tumour=key,
        ins=None,
        family=f"I{key}",
    )


# Create and update


def test_a_client_may_name_an_id_that_nobody_used(ehr: httpx.Client, someone: str, key: str) -> None:
    tree = samples.condition(someone, key) | {"id": f"tumeur-{key}.1"}
    made = ehr.put(f"Condition/tumeur-{key}.1", json=tree)
    assert made.status_code == 201, made.text
    assert made.headers["location"].endswith(f"/Condition/tumeur-{key}.1/_history/1")
    assert made.headers["etag"] == 'W/"1"'
    assert "last-modified" in made.headers
    again = ehr.put(f"Condition/tumeur-{key}.1", json=tree)
    assert (again.status_code, again.headers["etag"]) == (200, 'W/"1"')
    assert ehr.get(f"Condition/tumeur-{key}.1").json()["subject"] == {"reference": someone}
    for header in ({"If-Match": 'W/"1"'}, {"If-Match": "*"}):
        unknown = ehr.put(f"Condition/autre-{key}", json=tree | {"id": f"autre-{key}"}, headers=header)
        assert (unknown.status_code, _code(unknown)) == (412, "version-perimee")


def test_a_root_of_ours_takes_a_uuid_only(ehr: httpx.Client, key: str) -> None:
    chosen = str(uuid.uuid4())
    tree = samples.patient(key, ins=None)
    made = ehr.put(f"Patient/{chosen}", json=tree | {"id": chosen})
    assert (made.status_code, made.json()["id"]) == (201, chosen), made.text
    for bad in ("mon-patient", chosen.upper()):
        refused = ehr.put(f"Patient/{bad}", json=samples.patient(key + "b", ins=None) | {"id": bad})
        assert (refused.status_code, _code(refused)) == (400, "valeur-invalide"), bad
    other = str(uuid.uuid4())
    taken = ehr.put(f"Patient/{other}", json=tree | {"id": other})
    assert (taken.status_code, _code(taken)) == (409, "identifiant-deja-utilise")
    assert ehr.get(f"Patient/{other}").status_code == 404


def test_an_id_of_another_organisation_is_neither_shown_nor_taken(
    shared: Shared, ehr: httpx.Client, tumour: dict[str, Any], key: str
) -> None:
    with shared.served.store.session() as session:
        other = Partner(name=f"Clinique {key}", network_id=shared.world.network.id, patient_domains=[f"urn:x:{key}"])
        session.add(other)
        session.commit()
        stranger = register(shared.served, other, scopes="system/*.cruds")
    with stranger.client() as client:
        tree = {**samples.condition("Patient/x", key), "id": tumour["id"]}
        assert client.put(_at(tumour), json=tree).status_code == 404
        assert client.patch(_at(tumour), json=[], headers=JSON_PATCH).status_code == 404
        assert client.delete(_at(tumour)).status_code == 204, "what does not exist for him is as if it were deleted"
    assert ehr.get(_at(tumour)).json() == tumour


def test_an_id_is_named_only_where_the_setting_says_so(world: World, hospital: Hospital) -> None:
    with hospital.client() as ehr:
        made = ehr.post("Patient", json=samples.patient()).json()
        tree = samples.condition(f"Patient/{made['id']}") | {"id": "t1"}
        refused = ehr.put("Condition/t1", json=tree)
        assert (refused.status_code, _code(refused)) == (405, "creation-par-id")
        refused = ehr.put(f"Condition?identifier={TUMOUR}|T-1", json=tree)
        assert (refused.status_code, _code(refused)) == (405, "creation-par-id")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ('W/"1"', 200),
        ('"1"', 200),
        ('W/"7", W/"1"', 200),
        ("*", 200),
        ('W/"2"', 412),
        ('W/"01"', 412),
        ("1", 400),
        ("W/1", 400),
        ('w/"1"', 400),
        ("", 400),
    ],
)
def test_if_match_in_its_forms(ehr: httpx.Client, tumour: dict[str, Any], header: str, status: int) -> None:
    changed = tumour | {"recordedDate": "2026-03-01"}
    answer = ehr.put(_at(tumour), json=changed, headers={"If-Match": header})
    assert answer.status_code == status, answer.text
    if status == 400:
        assert _code(answer) == "etiquette-illisible"
    assert ehr.get(_at(tumour)).headers["etag"] == ('W/"2"' if status == 200 else 'W/"1"')


def test_if_none_match_creates_once(ehr: httpx.Client, someone: str, key: str) -> None:
    tree = samples.condition(someone, key)
    by_key = f"Condition?identifier={TUMOUR}|{key}"
    once = {"If-None-Match": "*"}
    assert ehr.put(by_key, json=tree, headers=once).status_code == 201
    again = ehr.put(by_key, json=tree | {"recordedDate": "2026-03-01"}, headers=once)
    assert (again.status_code, _code(again)) == (412, "existe-deja")
    named = ehr.put(f"Condition/n-{key}", json=tree | {"id": f"n-{key}"}, headers=once)
    assert named.status_code == 201
    assert ehr.put(f"Condition/n-{key}", json=tree | {"id": f"n-{key}"}, headers=once).status_code == 412


def test_a_condition_by_any_name_finds_the_same(ehr: httpx.Client, someone: str, key: str) -> None:
    tree = samples.condition(someone, key)
    first = ehr.post("Condition", json=tree, headers={"If-None-Exist": f"identifier={TUMOUR}|{key}"})
    assert first.status_code == 201
    for condition in (
        f"identifier={TUMOUR}%7C{key}",
        f"?identifier={TUMOUR}|{key}",
        f"Condition?identifier={TUMOUR}|{key}",
        f"identifier={key}&subject={someone}",
        f"_id={first.json()['id']}",
    ):
        found = ehr.post("Condition", json=tree | {"recordedDate": "2026-03-01"}, headers={"If-None-Exist": condition})
        assert (found.status_code, found.json()) == (200, first.json()), condition
    for bad in ("", "identifier=", "_count=1", "_sort=_id", f"identifier={key}&_include=Condition:subject"):
        refused = ehr.post("Condition", json=tree, headers={"If-None-Exist": bad})
        assert refused.status_code == 400, bad
    misplaced = ehr.post(f"Condition?identifier={TUMOUR}|{key}", json=tree)
    assert (misplaced.status_code, _code(misplaced)) == (400, "condition-mal-placee")
    assert ehr.post("Condition?_format=json&_pretty=true", json=tree).status_code == 201
    unknown = ehr.post("Condition", json=tree, headers={"If-None-Exist": "inconnu=1"})
    assert (unknown.status_code, _code(unknown)) == (400, "parametre-inconnu")


def test_several_matches_are_refused_whatever_the_method(ehr: httpx.Client, someone: str, key: str) -> None:
    for _ in range(2):
        assert ehr.post("Condition", json=samples.condition(someone, key)).status_code == 201
    by_key = f"Condition?identifier={TUMOUR}|{key}"
    tree = samples.condition(someone, key)
    answers = [
        ehr.post("Condition", json=tree, headers={"If-None-Exist": by_key.partition("?")[2]}),
        ehr.put(by_key, json=tree),
        ehr.patch(by_key, json=[], headers=JSON_PATCH),
        ehr.delete(by_key),
    ]
    assert [(answer.status_code, _code(answer)) for answer in answers] == [(412, "plusieurs-correspondances")] * 4
    assert [answer.json()["issue"][0]["code"] for answer in answers] == ["multiple-matches"] * 4


def test_a_conditional_update_checks_the_id_of_the_body(ehr: httpx.Client, tumour: dict[str, Any], key: str) -> None:
    by_key = f"Condition?identifier={TUMOUR}|{key}"
    refused = ehr.put(by_key, json=tumour | {"id": "autre"})
    assert (refused.status_code, _code(refused)) == (400, "identifiant-different")
    assert ehr.put(by_key, json=tumour | {"recordedDate": "2026-03-01"}).json()["id"] == tumour["id"]
    made = ehr.put(
        f"Condition?identifier={key}-nul",
        json=samples.condition(tumour["subject"]["reference"], key) | {"id": f"z-{key}"},
    )
    assert (made.status_code, made.json()["id"]) == (201, f"z-{key}")


@pytest.mark.parametrize("wish", ["minimal", "representation", "OperationOutcome"])
def test_each_write_answers_as_preferred(ehr: httpx.Client, someone: str, key: str, wish: str) -> None:
    prefer = {"Prefer": f"return={wish}"}
    tree = samples.condition(someone, key) | {"id": f"p-{key}"}
    change = [{"op": "add", "path": "/recordedDate", "value": "2026-03-01"}]
    answers = [
        ehr.post("Condition", json=samples.condition(someone, key + "x"), headers=prefer),
        ehr.put(f"Condition/p-{key}", json=tree, headers=prefer),
        ehr.patch(f"Condition/p-{key}", json=change, headers=prefer | JSON_PATCH),
    ]
    gone = ehr.delete(f"Condition/p-{key}", headers=prefer)
    assert [answer.status_code for answer in answers] == [201, 201, 200]
    for answer in answers:
        kind = answer.json()["resourceType"] if answer.content else None
        assert kind == {"minimal": None, "representation": "Condition"}.get(wish, wish)
        assert answer.headers["etag"]
        assert answer.headers["last-modified"]
        assert answer.headers["location"]
    assert gone.status_code == (200 if wish == "OperationOutcome" else 204)
    assert (gone.json()["resourceType"] if gone.content else None) == (wish if wish == "OperationOutcome" else None)


# Patch


def test_a_json_patch_changes_what_it_says_and_nothing_else(ehr: httpx.Client, someone: str, key: str) -> None:
    body = json.dumps(samples.condition(someone, key) | {"extension": [{"url": "urn:x", "valueDecimal": 1}]})
    made = ehr.post("Condition", content=body.replace('"valueDecimal": 1', '"valueDecimal": 1.100'))
    where = _at(made.json())
    patch = [
        {"op": "test", "path": "/code/text", "value": "Tumeur maligne du quadrant supéro-externe du sein"},
        {"op": "replace", "path": "/code/text", "value": "Autre"},
        {"op": "add", "path": "/note", "value": []},
        {"op": "add", "path": "/note/-", "value": {"text": "Une note"}},
        {"op": "remove", "path": "/onsetDateTime"},
    ]
    done = ehr.patch(where, json=patch, headers=JSON_PATCH | {"If-Match": 'W/"1"'})
    assert (done.status_code, done.headers["etag"]) == (200, 'W/"2"'), done.text
    tree = ehr.get(where).json()
    assert tree["code"]["text"] == "Autre"
    assert tree["note"] == [{"text": "Une note"}]
    assert "onsetDateTime" not in tree
    assert '"valueDecimal":1.100' in ehr.get(where).text
    stale = ehr.patch(where, json=patch[1:2], headers=JSON_PATCH | {"If-Match": 'W/"1"'})
    assert (stale.status_code, _code(stale)) == (412, "version-perimee")
    failed = ehr.patch(where, json=patch, headers=JSON_PATCH)
    assert (failed.status_code, _code(failed)) == (409, "patch-test")
    nothing = ehr.patch(where, json=[], headers=JSON_PATCH)
    assert (nothing.status_code, nothing.headers["etag"]) == (200, 'W/"2"')
    history = ehr.get(f"{where}/_history").json()["entry"]
    assert [entry["request"]["method"] for entry in history] == ["PUT", "POST"]


@pytest.mark.parametrize(
    ("patch", "status", "code"),
    [
        ([{"op": "replace", "path": "/id", "value": "autre"}], 422, "element-protege"),
        ([{"op": "remove", "path": "/meta/versionId"}], 422, "element-protege"),
        ([{"op": "replace", "path": "/identifier/0/value", "value": "x"}], 422, "element-protege"),
        ([{"op": "replace", "path": "/resourceType", "value": "Patient"}], 422, "element-protege"),
        ([{"op": "remove", "path": ""}], 400, "patch-illisible"),
        ([{"op": "add", "path": "/inconnu", "value": 1}], 400, "element-inconnu"),
        ([{"op": "remove", "path": "/subject"}], 400, "element-obligatoire"),
        ([{"op": "replace", "path": "/subject/reference", "value": "Medication/1"}], 400, "cible-de-reference"),
        ([{"op": "remove", "path": "/note"}], 409, "patch-cible"),
        ([{"op": "enlever", "path": "/note"}], 400, "patch-illisible"),
        ({"op": "remove", "path": "/note"}, 400, "patch-illisible"),
        ([{"op": "test", "path": "/onsetDateTime", "value": "x"}] * 201, 413, "trop-d-operations"),
    ],
)
def test_a_patch_that_cannot_be_leaves_all_as_it_was(
    ehr: httpx.Client, tumour: dict[str, Any], patch: Any, status: int, code: str
) -> None:
    refused = ehr.patch(_at(tumour), json=patch, headers=JSON_PATCH)
    assert (refused.status_code, _code(refused)) == (status, code), refused.text
    assert ehr.get(_at(tumour)).json() == tumour


FHIRPATH = {
    "resourceType": "Parameters",
    "parameter": [
        {
            "name": "operation",
            "part": [
                {"name": "type", "valueCode": "replace"},
                {"name": "path", "valueString": "Condition.code.coding.where(code = 'C50.4').display"},
                {"name": "value", "valueString": "Sein"},
            ],
        }
    ],
}
XML = (
    '<Parameters xmlns="http://hl7.org/fhir"><parameter><name value="operation"/>'
    '<part><name value="type"/><valueCode value="add"/></part>'
    '<part><name value="path"/><valueString value="Condition"/></part>'
    '<part><name value="name"/><valueString value="recordedDate"/></part>'
    '<part><name value="value"/><valueDateTime value="2026-03-01"/></part></parameter></Parameters>'
)


def test_a_fhirpath_patch_in_json_and_in_xml(ehr: httpx.Client, tumour: dict[str, Any], key: str) -> None:
    absent = ehr.patch(_at(tumour), json=FHIRPATH)
    assert (absent.status_code, _code(absent)) == (409, "patch-cible")
    operation = json.loads(json.dumps(FHIRPATH))
    parts = operation["parameter"][0]["part"]
    parts[0]["valueCode"] = "add"
    parts[1]["valueString"] = "Condition.code.coding.where(code = 'C50.4')"
    parts.append({"name": "name", "valueString": "display"})
    done = ehr.patch(f"Condition?identifier={TUMOUR}|{key}", json=operation)
    assert done.status_code == 200, done.text
    assert done.json()["code"]["coding"][0]["display"] == "Sein"
    done = ehr.patch(_at(tumour), content=XML, headers={"Content-Type": "application/fhir+xml"})
    assert done.status_code == 200, done.text
    assert (done.json()["recordedDate"], done.json()["meta"]["versionId"]) == ("2026-03-01", "3")
    other = ehr.patch(_at(tumour), json=tumour)
    assert (other.status_code, _code(other)) == (400, "patch-illisible")
    nobody = ehr.patch(f"Condition?identifier={key}-nul", json=FHIRPATH)
    assert (nobody.status_code, _code(nobody)) == (404, "inconnu")


def test_a_patched_patient_goes_through_his_verb(shared: Shared, ehr: httpx.Client, someone: str) -> None:
    done = ehr.patch(someone, json=[{"op": "replace", "path": "/birthDate", "value": "1980-01-02"}], headers=JSON_PATCH)
    assert done.status_code == 200, done.text
    with shared.served.store.session() as session:
        record = session.get(PatientRecord, uuid.UUID(someone.partition("/")[2]))
        assert record is not None
        assert record.birth_date == "1980-01-02"


def test_a_patched_task_is_a_move(shared: Shared, ehr: httpx.Client, key: str) -> None:
    done = ehr.post("", json=_inscription(shared.world, key))
    assert done.status_code == 200, done.text
    where = done.json()["entry"][0]["response"]["location"].partition("/_history")[0]
    version = ehr.get(where).headers["etag"]
    move = [{"op": "replace", "path": "/status", "value": "completed"}]
    required = ehr.patch(where, json=move, headers=JSON_PATCH)
    assert (required.status_code, _code(required)) == (428, "version-exigee")
    refused = ehr.patch(where, json=move, headers=JSON_PATCH | {"If-Match": version})
    assert (refused.status_code, _code(refused)) == (422, "passage-impossible")
    move[0]["value"] = "cancelled"
    cancelled = ehr.patch(where, json=move, headers=JSON_PATCH | {"If-Match": version})
    assert cancelled.status_code == 200, cancelled.text
    assert cancelled.json()["businessStatus"]["coding"][0]["code"] == "annule"


# Delete


def test_what_is_deleted_is_gone_and_its_versions_stay(
    shared: Shared, ehr: httpx.Client, tumour: dict[str, Any], key: str
) -> None:
    where = _at(tumour)
    stale = ehr.delete(where, headers={"If-Match": 'W/"2"'})
    assert (stale.status_code, _code(stale)) == (412, "version-perimee")
    gone = ehr.delete(where, headers={"If-Match": 'W/"1"'})
    assert (gone.status_code, gone.content, gone.headers["etag"]) == (204, b"", 'W/"2"')
    read = ehr.get(where)
    assert (read.status_code, _code(read)) == (410, "ressource-supprimee")
    assert ehr.get(f"{where}/_history/1").json() == tumour
    again = ehr.delete(where)
    assert (again.status_code, again.headers["etag"]) == (204, 'W/"2"')
    assert ehr.delete(f"Condition?identifier={TUMOUR}|{key}").status_code == 204
    assert ehr.delete("Condition/inconnue").status_code == 204
    assert ehr.get(f"Condition?identifier={TUMOUR}|{key}").json().get("entry", []) == []
    history = ehr.get(f"{where}/_history").json()["entry"]
    assert [entry["request"]["method"] for entry in history] == ["DELETE", "POST"]
    assert ehr.patch(where, json=[], headers=JSON_PATCH).status_code == 410
    with shared.served.store.session() as session:
        lines = session.scalars(select(AuditLine).where(AuditLine.event == "modification")).all()
        said = [one for line in lines if (one := json.loads(line.payload))["object_id"] == tumour["id"]]
    assert [(one["action"], one["object_version"]) for one in said] == [("D", "2")]
    back = ehr.put(where, json=tumour)
    assert (back.status_code, back.headers["etag"]) == (201, 'W/"3"'), back.text
    assert ehr.get(where).status_code == 200


def test_a_conditional_delete_deletes_the_one(ehr: httpx.Client, tumour: dict[str, Any], key: str) -> None:
    assert ehr.delete(f"Condition?identifier={TUMOUR}|{key}").status_code == 204
    assert ehr.get(_at(tumour)).status_code == 410
    for bad in ("Condition?_format=json", "Condition?identifier="):
        refused = ehr.delete(bad)
        assert (refused.status_code, _code(refused)) == (400, "condition-vide"), bad
    for bad in ("Condition", "Condition?"):
        refused = ehr.delete(bad)
        assert (refused.status_code, _code(refused)) == (405, "method-not-offered"), bad


def test_what_is_used_stays_and_the_refusal_says_by_which_types(
    shared: Shared, ehr: httpx.Client, tumour: dict[str, Any], someone: str, key: str
) -> None:
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "Taille"},
        "subject": {"reference": someone},
        "focus": [{"reference": _at(tumour)}],
        "valueInteger": 3,
    }
    made = ehr.post("Observation", json=observation).json()
    refused = ehr.delete(_at(tumour))
    assert (refused.status_code, _code(refused)) == (409, "ressource-utilisee")
    text = refused.json()["issue"][0]["details"]["text"]
    assert "Observation" in text
    assert "entered-in-error" in text
    assert made["id"] not in refused.text
    patient = ehr.delete(someone)
    assert patient.status_code == 409, patient.text
    assert ehr.delete(_at(made)).status_code == 204
    assert ehr.delete(_at(tumour)).status_code == 204
    assert ehr.delete(someone).status_code == 204
    assert ehr.get(someone).status_code == 410
    gone = ehr.post("Observation", json=observation)
    assert gone.status_code == 422, gone.text
    back = samples.patient(key, ins=None) | {"id": someone.partition("/")[2]}
    again = ehr.put(someone, json=back)
    assert (again.status_code, again.headers["etag"]) == (201, 'W/"3"'), again.text
    assert ehr.get(someone).status_code == 200


def test_what_belongs_to_a_dossier_is_not_deleted(shared: Shared, ehr: httpx.Client, key: str) -> None:
    done = ehr.post("", json=_inscription(shared.world, key))
    assert done.status_code == 200, done.text
    for entry in done.json()["entry"]:
        where = entry["response"]["location"].partition("/_history")[0]
        refused = ehr.delete(where)
        assert refused.status_code == 409, refused.text
        assert "entered-in-error" in refused.text or where.startswith("Patient/")
        assert ehr.get(where).status_code == 200


def test_a_delete_needs_its_scope_and_its_owner(shared: Shared, tumour: dict[str, Any]) -> None:
    with shared.hospital.client("system/*.crus") as ehr:
        refused = ehr.delete(_at(tumour))
        assert (refused.status_code, _code(refused)) == (403, "portee-insuffisante")
    with shared.hospital.client() as ehr:
        practitioner = f"Practitioner/{shared.world.requester.id}"
        ehr.put(f"Practitioner?identifier={shared.world.requester.idnps}", json={"resourceType": "Practitioner"})
        refused = ehr.delete(practitioner)
        assert refused.status_code == 403, refused.text
        assert ehr.get(practitioner).status_code == 200


def test_an_ipp_is_the_key_of_a_conditional_patient(ehr: httpx.Client, key: str) -> None:
    by_key = f"Patient?identifier={DOMAIN}|{key}"
    assert ehr.put(by_key, json=samples.patient(key, ins=None)).status_code == 201
    assert ehr.put(by_key, json=samples.patient(key, ins=None, family="AUTRE")).headers["etag"] == 'W/"2"'
    assert ehr.patch(by_key, json=[{"op": "remove", "path": "/telecom"}], headers=JSON_PATCH).status_code == 200
    assert ehr.delete(by_key).status_code == 204
    assert ehr.delete(by_key).status_code == 204


@pytest.mark.parametrize("key_", ["%00", "a%00b", "a%2Fb", "é", "x" * 65, "%ED%A0%80", "_history", "$validate"])
@pytest.mark.parametrize("kind", ["Condition", "Patient", "Task"])
def test_an_id_that_cannot_be_is_nobodys_fault_but_the_clients(ehr: httpx.Client, kind: str, key_: str) -> None:
    tree = {"resourceType": kind, "id": "x"}
    answers = [
        ehr.put(f"{kind}/{key_}", json=tree),
        ehr.put(f"{kind}/{key_}", json=tree | {"id": unquote(key_)}),
        ehr.patch(f"{kind}/{key_}", json=[], headers=JSON_PATCH),
        ehr.delete(f"{kind}/{key_}"),
        ehr.patch(f"{kind}?identifier={key_}", json=[], headers=JSON_PATCH),
        ehr.delete(f"{kind}?identifier={key_}"),
    ]
    assert [answer.status_code for answer in answers if answer.status_code >= 500] == []
