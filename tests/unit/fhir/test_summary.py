"""Parts of resources, written out by hand after R4's Σ marks [FHIR R4 search#summary, #elements]."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import InvalidContent
from gateway.fhir.summary import Form, form

PATIENT = (
    '{"resourceType":"Patient","id":"p","meta":{"versionId":"2","tag":[{"code":"x"}],"lastUpdated":"2026-01-01T00:00:00Z"},'
    '"language":"fr","text":{"status":"generated","div":"<div xmlns=\\"http://www.w3.org/1999/xhtml\\">é</div>"},'
    '"contained":[{"resourceType":"Organization","id":"o"}],'
    '"extension":[{"url":"urn:poids","valueDecimal":3.10}],"modifierExtension":[{"url":"urn:m","valueBoolean":true}],'
    '"active":true,"name":[{"family":"ABEL","_family":{"extension":[{"url":"urn:f","valueString":"x"}]}}],'
    '"_birthDate":{"extension":[{"url":"urn:b","valueTime":"10:00:00"}]},"deceasedDateTime":"2026-01-01",'
    '"maritalStatus":{"text":"M"},"photo":[{"url":"urn:x"}],"contact":[{"gender":"male"}],'
    '"link":[{"id":"l","extension":[{"url":"urn:z","valueCode":"c"}],"other":{"reference":"Patient/q"},"type":"seealso"}]}'
)
SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}


def names(tree: dict[str, Any]) -> set[str]:
    return set(tree) - {"resourceType", "id", "meta"}


def cut(kind: str, body: str, **asked: str) -> dict[str, Any]:
    found = bytes(form([(f"_{name}", value) for name, value in asked.items()]).cut(kind, body.encode()))
    tree: dict[str, Any] = json.loads(found)
    assert tree["meta"]["tag"][-1] == SUBSETTED
    assert {"resourceType", "id"} <= set(tree)
    return tree


def test_a_summary_holds_what_r4_marks_and_turns_no_meaning_round() -> None:
    tree = cut("Patient", PATIENT, summary="true")
    assert names(tree) == {"modifierExtension", "active", "name", "_birthDate", "deceasedDateTime", "link"}
    assert tree["meta"]["tag"] == [{"code": "x"}, SUBSETTED]
    assert tree["meta"]["versionId"] == "2"
    assert tree["name"] == [{"family": "ABEL", "_family": {"extension": [{"url": "urn:f", "valueString": "x"}]}}]
    assert tree["link"] == [{"other": {"reference": "Patient/q"}, "type": "seealso"}]


def test_a_summary_goes_into_what_is_only_partly_summary() -> None:
    observation = {
        "resourceType": "Observation",
        "id": "o",
        "status": "final",
        "code": {"text": "c"},
        "category": [{"text": "laboratory"}],
        "valueSampledData": {"origin": {"value": 1}, "period": 1, "dimensions": 1, "data": "1 2"},
        "referenceRange": [{"text": "r"}],
        "component": [{"code": {"text": "a"}, "valueInteger": 1, "referenceRange": [{"text": "r"}]}],
    }
    tree = cut("Observation", json.dumps(observation), summary="true")
    assert names(tree) == {"status", "code", "valueSampledData", "component"}
    assert tree["component"] == [{"code": {"text": "a"}, "valueInteger": 1}]
    assert set(tree["valueSampledData"]) == {"origin", "period", "dimensions"}
    attached = {
        "resourceType": "DocumentReference",
        "id": "d",
        "status": "current",
        "content": [{"attachment": {"contentType": "text/plain", "data": "YQ==", "size": 1}, "format": {"code": "f"}}],
        "context": {"period": {"start": "2026"}, "facilityType": {"text": "f"}},
    }
    tree = cut("DocumentReference", json.dumps(attached), summary="true")
    assert tree["content"] == [{"attachment": {"contentType": "text/plain", "size": 1}, "format": {"code": "f"}}]
    assert tree["context"] == {"period": {"start": "2026"}}


def test_text_and_data_are_each_others_rest() -> None:
    assert names(cut("Patient", PATIENT, summary="text")) == {"text"}
    everything = names(json.loads(PATIENT))
    assert names(cut("Patient", PATIENT, summary="data")) == everything - {"text"}
    task = (
        '{"resourceType":"Task","id":"t","text":{"status":"empty"},"status":"draft","intent":"order","priority":"stat"}'
    )
    # What must be there stays: a Task without status or intent is none.
    assert names(cut("Task", task, summary="text")) == {"text", "status", "intent"}


def test_elements_are_those_asked_for_and_those_that_must_be() -> None:
    assert names(cut("Patient", PATIENT, elements="name,birthDate")) == {"name", "_birthDate", "modifierExtension"}
    assert names(cut("Patient", PATIENT, elements="Patient.name")) == {"name", "modifierExtension"}
    assert names(cut("Patient", PATIENT, elements="name.family")) == {"name", "modifierExtension"}
    task = '{"resourceType":"Task","id":"t","status":"draft","intent":"order","priority":"stat","description":"d"}'
    assert names(cut("Task", task, elements="description")) == {"description", "status", "intent"}
    found = form([("_elements", "description,Patient.name")])
    assert names(json.loads(bytes(found.cut("Task", task.encode())))) == {"description", "status", "intent"}
    # What is included with a search is cut only if its type was named.
    assert bytes(found.cut("Task", task.encode(), included=True)) == task.encode()
    assert names(json.loads(bytes(found.cut("Patient", PATIENT.encode(), included=True)))) == {
        "name",
        "modifierExtension",
    }


def test_what_is_kept_is_kept_to_the_byte() -> None:
    found = bytes(form([("_summary", "data")]).cut("Patient", PATIENT.encode()))
    assert b'"valueDecimal":3.10' in found
    for asked in ([], [("_summary", "false")], [("_summary", "count")], [("_elements", "")], [("_summary", "")]):
        assert form(asked).whole
        assert bytes(form(asked).cut("Patient", PATIENT.encode())) == PATIENT.encode()
    # A type that R4 does not know is left as it is.
    assert bytes(Form("true").cut("Chien", b"{}")) == b"{}"


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        ([("_summary", "yes")], "parametre-valeur"),
        ([("_summary", "true"), ("_elements", "name")], "parametres-incompatibles"),
    ],
)
def test_what_cannot_be_understood_is_refused(pairs: list[tuple[str, str]], code: str) -> None:
    with pytest.raises(InvalidContent) as refused:
        form(pairs)
    assert refused.value.code == code
