"""Clients that ask for more than their token or their patient allows, or send what no client should."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from gateway.model.audit import AuditLine
from gateway.model.dossier import Dossier
from gateway.model.person import PatientRecord
from gateway.model.store import Store
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import SCOPES, Hospital
from tests.world import DOMAIN, World

START = "2026-03-19T14:00:00+01:00"


@pytest.fixture
def pushed(world: World, hospital: Hospital) -> dict[str, str]:
    bundle = samples.transaction(
        rcp=world.rcp.national_number, start=START, requester=world.requester.idnps, treating=world.treating.rpps
    )
    with hospital.client() as ehr:
        answer = ehr.post("", json=bundle)
    assert answer.status_code == 200, answer.text
    locations = [entry["response"]["location"].partition("/_history")[0] for entry in answer.json()["entry"]]
    return {location.partition("/")[0]: location for location in locations}


@pytest.fixture
def stranger(hospital: Hospital) -> str:
    """Another patient of the same hospital."""
    with hospital.client() as ehr:
        tree = samples.patient("000777", ins=None, family="AUTRE", birth_date="1950-01-02")
        made = ehr.post("Patient", json=tree)
    assert made.status_code == 201, made.text
    return f"Patient/{made.json()['id']}"


def _kinds(answer: Any) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {entry["resource"]["resourceType"] for entry in answer.json().get("entry", ())}


def _code(answer: Any) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


def test_a_search_shows_and_betrays_only_what_the_token_allows(hospital: Hospital, pushed: dict[str, str]) -> None:
    with hospital.client("system/ServiceRequest.rs") as ehr:
        assert ehr.get(pushed["Patient"]).status_code == 403
        assert _kinds(ehr.get("ServiceRequest?_include=ServiceRequest:subject")) == {"ServiceRequest"}
        assert _kinds(ehr.get("ServiceRequest?_revinclude=Task:focus")) == {"ServiceRequest"}
        assert _kinds(ehr.get("ServiceRequest?subject:Patient.family=PAT-TROIS")) == set()
        assert _kinds(ehr.get("ServiceRequest?_has:Task:focus:business-status=prefiche")) == set()
    with hospital.client("system/ServiceRequest.rs system/Patient.rs system/Task.rs") as ehr:
        assert _kinds(ehr.get("ServiceRequest?_include=ServiceRequest:subject")) == {"ServiceRequest", "Patient"}
        assert _kinds(ehr.get("ServiceRequest?subject:Patient.family=PAT-TROIS")) == {"ServiceRequest"}
        assert _kinds(ehr.get("ServiceRequest?_has:Task:focus:business-status=prefiche")) == {"ServiceRequest"}


@pytest.mark.parametrize(
    "query",
    [
        "Task?focus:Task.focus:Task.focus:Task.focus:Task.status=requested",
        "Task?focus:ServiceRequest.subject:Patient.general-practitioner:PractitionerRole.practitioner.family=x",
        "Task?_has:Task:focus:_has:Task:focus:_has:Task:focus:_has:Task:focus:status=requested",
        "Task?focus:Task.focus:Task._has:Task:focus:focus:ServiceRequest.status=active",
        "Task?" + "focus:Task." * 200 + "status=requested",
    ],
)
def test_a_chain_longer_than_its_limit_is_refused_by_name(hospital: Hospital, query: str) -> None:
    with hospital.client() as ehr:
        answer = ehr.get(query)
    assert (answer.status_code, _code(answer)) == (400, "chaine-trop-longue")
    assert "RCP_LIMIT_SEARCH_CHAIN" in answer.json()["issue"][0]["details"]["text"]


@pytest.mark.parametrize(
    "query",
    [
        "Task?focus:Task.focus:Task.focus:Task.status=requested",
        "Task?focus:ServiceRequest.subject:Patient.general-practitioner:Practitioner.family=x",
        "Task?_has:Task:focus:_has:Task:focus:_has:Task:focus:status=requested",
    ],
)
def test_a_chain_as_long_as_its_limit_is_answered(hospital: Hospital, query: str) -> None:
    with hospital.client() as ehr:
        assert _kinds(ehr.get(query)) == set()


@pytest.mark.parametrize(
    "query", ["Patient?family=%00", "Patient?identifier=a%7C%00", "Patient?_count=" + "9" * 5000, "Patient?_id=a%00b"]
)
def test_what_the_database_could_not_take_is_the_clients_fault(hospital: Hospital, query: str) -> None:
    with hospital.client() as ehr:
        answer = ehr.get(query)
    assert (answer.status_code, _code(answer)) == (400, "parametre-valeur")


@pytest.mark.parametrize("path", ["Patient/%00", "Patient/%00/_history", "Patient/a%00b/_history/1", "Binary/%00"])
def test_an_id_that_cannot_be_is_unknown(hospital: Hospital, path: str) -> None:
    with hospital.client() as ehr:
        answer = ehr.get(path)
    assert (answer.status_code, _code(answer)) == (404, "inconnu")


def test_a_condition_or_an_assertion_that_no_database_takes_is_refused(hospital: Hospital) -> None:
    with hospital.client() as ehr:
        practitioner = {"resourceType": "Practitioner", "identifier": [{"system": "urn:oid:1.2", "value": "x"}]}
        refused = ehr.put("Practitioner?identifier=urn:oid:1.2|%00", json=practitioner)
        assert (refused.status_code, _code(refused)) == (400, "parametre-valeur")
    for claims in ({"sub": "ehr\0", "iss": "ehr\0"}, {"jti": "a\0b"}):
        answer = hospital.ask_token(hospital.assertion(**claims))
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_an_inscription_does_not_change_patients(
    store: Store, hospital: Hospital, pushed: dict[str, str], stranger: str
) -> None:
    with hospital.client() as ehr:
        tree = ehr.get(pushed["ServiceRequest"]).json()
        tree["subject"] = {"reference": stranger}
        refused = ehr.put(pushed["ServiceRequest"], json=tree)
        assert (refused.status_code, _code(refused)) == (409, "patient-different")
        kept = ehr.get(pushed["ServiceRequest"]).json()
    assert kept["subject"]["reference"] == pushed["Patient"]
    with store.session() as session:
        assert f"Patient/{session.scalars(select(Dossier)).unique().one().record_id}" == pushed["Patient"]


def test_an_inscription_does_not_become_an_ordinary_request(hospital: Hospital, pushed: dict[str, str]) -> None:
    with hospital.client() as ehr:
        tree = ehr.get(pushed["ServiceRequest"]).json()
        tree["code"] = {"text": "Scanner thoracique"}
        refused = ehr.put(pushed["ServiceRequest"], json=tree)
        assert (refused.status_code, _code(refused)) == (409, "cle-modifiee")


@pytest.mark.parametrize("kind", ["QuestionnaireResponse", "Condition"])
def test_what_is_said_of_one_patient_is_not_taken_for_another(
    world: World, store: Store, hospital: Hospital, pushed: dict[str, str], stranger: str, kind: str
) -> None:
    """The form and the tumour of a dossier are its own patient's, in a transaction and alone."""
    bundle = samples.transaction(
        rcp=world.rcp.national_number,
        start=START,
        requester=world.requester.idnps,
        treating=world.treating.rpps,
        tumour="T-2",
    )
    for entry in bundle["entry"]:
        if entry["resource"]["resourceType"] == kind:
            entry["resource"]["subject"] = {"reference": stranger}
    with hospital.client() as ehr:
        refused = ehr.post("", json=bundle)
        assert refused.status_code == 422, refused.text
        assert _code(refused) == "patient-different"
        if kind == "QuestionnaireResponse":
            form = samples.form(stranger, pushed["ServiceRequest"], question="Autre question ?", key="F-autre")
            alone = ehr.post("QuestionnaireResponse", json=form)
            assert (alone.status_code, _code(alone)) == (422, "patient-different")
    with store.session() as session:
        dossier = session.scalars(select(Dossier)).unique().one()
        assert dossier.question == "Chimiothérapie néoadjuvante ou chirurgie première ?"


def test_a_conditional_write_that_only_shows_what_is_there_is_in_the_trail(
    store: Store, hospital: Hospital, pushed: dict[str, str]
) -> None:
    condition = f"identifier={DOMAIN}|000003"
    with hospital.client() as ehr:
        found = ehr.post("Patient", json=samples.patient(), headers={"If-None-Exist": condition})
        assert (found.status_code, found.json()["id"]) == (200, pushed["Patient"].partition("/")[2])
        same = ehr.get(pushed["Condition"]).json()
        assert ehr.put(pushed["Condition"], json=same).status_code == 200
    with store.session() as session:
        record = session.scalars(select(PatientRecord)).one()
        lines = session.scalars(select(AuditLine).where(AuditLine.event == "consultation")).all()
        said = [json.loads(line.payload) for line in lines if line.persons == [record.id]]
    assert [one["object_type"] for one in said] == ["Patient", "Condition", "Condition"]


def _broken() -> list[tuple[str, Callable[[dict[str, Any]], None]]]:
    def full_url(entry: dict[str, Any]) -> None:
        entry["fullUrl"] = ["urn:uuid:3f2a0000-0000-4000-8000-000000000001"]

    def method(entry: dict[str, Any]) -> None:
        entry["request"]["method"] = ["POST"]

    def address(entry: dict[str, Any]) -> None:
        entry["request"]["url"] = "http://[Patient"

    def match(entry: dict[str, Any]) -> None:
        entry["request"]["ifMatch"] = 1

    def exist(entry: dict[str, Any]) -> None:
        entry["request"]["ifNoneExist"] = {"identifier": "x"}

    return [(made.__name__, made) for made in (full_url, method, address, match, exist)]


@pytest.mark.parametrize(("name", "harm"), _broken())
def test_a_broken_entry_is_named_whatever_its_shape(
    hospital: Hospital, name: str, harm: Callable[[dict[str, Any]], None]
) -> None:
    del name
    entry: dict[str, Any] = {"resource": samples.patient(), "request": {"method": "POST", "url": "Patient"}}
    harm(entry)
    with hospital.client() as ehr:
        answer = ehr.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": [copy.deepcopy(entry)]})
        assert answer.status_code == 400, answer.text
        assert "Bundle.entry[0]" in str(answer.json()["issue"][0]["expression"])


def test_parameters_of_any_shape_are_judged(hospital: Hospital) -> None:
    with hospital.client() as ehr:
        for parameter in (["x"], [{"name": "resource", "resource": "x"}], "x", 1):
            tree = {"resourceType": "Parameters", "parameter": parameter}
            assert ehr.post("Patient/$validate", json=tree).status_code < 500


def test_a_refused_scope_is_in_the_trail(store: Store, hospital: Hospital, pushed: dict[str, str]) -> None:
    with hospital.client("system/ServiceRequest.rs") as ehr:
        assert ehr.get(pushed["Patient"]).status_code == 403
        assert ehr.get("Patient").status_code == 403
        assert ehr.post("Condition", json=samples.condition(pushed["Patient"], "T-9")).status_code == 403
    with store.session() as session:
        lines = session.scalars(select(AuditLine).where(AuditLine.event == "refus").order_by(AuditLine.seq)).all()
    said = [json.loads(line.payload) for line in lines]
    assert [(one["reason"], one["object_type"]) for one in said] == [
        ("portee-insuffisante", "Patient"),
        ("portee-insuffisante", "Patient"),
        ("portee-insuffisante", "Condition"),
    ]
    assert {one["actor_id"] for one in said} == {hospital.client_id}


def test_the_scopes_of_these_tests_read_everything() -> None:
    """What the tests above narrow."""
    assert "system/*.rs" in SCOPES.split()
