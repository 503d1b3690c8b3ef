"""HL7's own R4 examples, none of which is in this repository, are accepted and come back equal.

Each refusal is justified one by one: the example breaks R4 itself.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.fhir import document, validate
from tests.e2e.fhir_r4 import official
from tests.fhir_resources import OFFERED

#: What is not an instance but a definition: never offered, contained at most, and thousands of them.
DEFINITIONS = {"StructureDefinition", "ValueSet", "CodeSystem", "SearchParameter", "ConceptMap", "OperationDefinition"}

#: Examples of offered types that are refused: codes of the refusal, and why it is right.
REFUSED = {
    "Observation-clinical-gender": (
        {"cible-de-reference"},
        "an Encounter is no performer: R4's targets do not name it",
    ),
    "Questionnaire-qs1": ({"element-obligatoire"}, "items without linkId, which is 1..1"),
    "Questionnaire-zika-virus-exposure-assessment": ({"invariant-txt-2"}, "a narrative of spaces only (txt-2)"),
}
#: The same of types that are only contained or carried.
REFUSED_ELSEWHERE = {
    "ActivityDefinition-blood-tubes-supply": ({"invariant-txt-2"}, "a narrative of spaces only"),
    "ActivityDefinition-heart-valve-replacement": ({"invariant-txt-2"}, "a narrative of spaces only"),
    "DeviceMetric-example": ({"cible-de-reference"}, "its parent is a DeviceComponent, a type of STU3"),
    "DeviceUseStatement-example": ({"cible-de-reference"}, "a target that R4 does not name"),
    "EventDefinition-example": ({"invariant-txt-2"}, "a narrative of spaces only"),
    "MedicationRequest-medrx0301": ({"cible-de-reference"}, "a practitioner as the dispensing organisation"),
}


def _examples() -> list[Path]:
    if not any(folder.is_dir() for folder in official.INSTALLED):
        return []
    # The largest hold definitions of R4, up to all of them: 1 MB is every instance.
    limit = 1_000_000
    return [
        path
        for path in official.files()
        if path.name.partition("-")[0] not in DEFINITIONS and path.stat().st_size < limit
    ]


EXAMPLES = _examples()


def _codes(path: Path) -> set[str]:
    return {issue.code for issue in validate.judge(document.parse(path.read_bytes()))}


def test_the_examples_are_those_of_r4() -> None:
    kinds: dict[str, int] = {}
    for path in official.files(*OFFERED):
        kinds[path.name.partition("-")[0]] = kinds.get(path.name.partition("-")[0], 0) + 1
    assert set(OFFERED) - {"Binary", "Basic"} <= kinds.keys()
    assert sum(kinds.values()) > 280


@pytest.mark.parametrize("kind", OFFERED)
def test_every_example_of_an_offered_type_is_accepted_and_comes_back_equal(kind: str) -> None:
    for path in official.files(kind):
        content = path.read_bytes()
        expected = json.loads(content, parse_float=Decimal)
        tree = document.parse(content)
        assert json.loads(document.encode(tree), parse_float=Decimal) == expected
        assert list(tree) == list(expected)
        wanted = REFUSED.get(path.stem, (set(), ""))[0]
        assert _codes(path) == wanted, path.stem


def test_every_other_example_is_judged_as_r4_says() -> None:
    seen = 0
    refused: dict[str, set[str]] = {}
    for path in EXAMPLES:
        if path.name.partition("-")[0] in OFFERED:
            continue
        seen += 1
        if codes := _codes(path):
            refused[path.stem] = codes
    assert refused == {name: codes for name, (codes, _) in REFUSED_ELSEWHERE.items()}
    assert seen > 300 or not EXAMPLES


def test_an_example_of_another_type_may_be_contained_or_carried() -> None:
    for path in official.files("Medication", "Substance", "Specimen", "Device", "Procedure", "AllergyIntolerance"):
        inner: Any = document.parse(path.read_bytes())
        carried = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": inner}]}
        assert validate.judge(carried) == [], path.stem
        parameters = {"resourceType": "Parameters", "parameter": [{"name": "x", "resource": inner}]}
        assert validate.judge(parameters) == [], path.stem
        if "contained" in inner:
            continue
        inner = {name: value for name, value in inner.items() if name != "meta"} | {"id": "c1"}
        basic = {
            "resourceType": "Basic",
            "contained": [inner],
            "extension": [{"url": "http://exemple.fr/x", "valueReference": {"reference": "#c1"}}],
            "code": {"text": "x"},
        }
        assert validate.judge(basic) == [], path.stem
