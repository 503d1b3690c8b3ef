"""What the national examples' Observations and report say of a fiche; values read by hand from those files."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.fhir.translate.fiche import values_of
from tests.unit.fhir.test_translate import _example

LOINC = "http://loinc.org"
TA = "https://smt.esante.gouv.fr/fhir/CodeSystem/terminologie-cisis"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Observation-oms", {"etat.oms": 1, "etat.oms_date": "2026-03-05"}),
        ("Observation-tnm-groupe", {"tumeur.stade": "IIA", "tumeur.edition": "8"}),
        ("Observation-tnm-t", {"tumeur.t": "cT2", "tumeur.edition": "8"}),
        (
            "DiagnosticReport-anapath-1",
            {
                "acp": [
                    {
                        "conclusion": "Carcinome infiltrant de type non spécifique, grade 2, RH+, HER2 0",
                        "debut": "2026-02-20",
                        "realisateur": "Dr Paul ROBERT",
                        "de": "DiagnosticReport/anapath-1",
                    }
                ]
            },
        ),
        ("Observation-quorum", {}),
    ],
)
def test_the_national_examples_state_their_fields(name: str, said: dict[str, Any]) -> None:
    assert values_of(_example(name)) == said


def _observed(code: str, system: str = TA, **more: Any) -> dict[str, Any]:
    coded = {"coding": [{"system": system, "code": code}]}
    return {"resourceType": "Observation", "status": "final", "code": coded} | more


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (_observed("MED-239", valueCodeableConcept=_concept(TA, "MED-267")), {"etat.oms": 4}),
        (_observed("89247-1", LOINC, valueCodeableConcept=_concept(LOINC, "LA9624-3")), {"etat.oms": 2}),
        (_observed("89247-1", LOINC, valueInteger=5), {}),
        (_observed("48544-1", LOINC, valueQuantity={"value": "14.0"}), {"etat.g8": 14}),
        (_observed("63921-1", LOINC, valueBoolean=False), {"decouverte.depistage": False}),
        (
            _observed("MED-243", valueCodeableConcept=_concept(TA, "MED-244"), effectiveDateTime="2025-11"),
            {"phase.code": "MED-244", "phase.date": "2025-11"},
        ),
        (_observed("MED-243", valueCodeableConcept=_concept(LOINC, "MED-244")), {}),
        (_observed("MED-245", valueBoolean=True), {"phase.progression": True}),
        (_observed("ORG-115", valueBoolean=True), {"motif.motifs": ["ORG-115"]}),
        (_observed("ORG-115", valueBoolean=False), {}),
        (_observed("21905-5", LOINC, valueCodeableConcept=_concept("urn:oid:2.16.840.1.113883.15.6", "T9")), {}),
        (_observed("MED-245", valueBoolean=True) | {"status": "entered-in-error"}, {}),
        (_observed("MED-245", dataAbsentReason={"text": "?"}), {}),
        ({"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "CR"}, "conclusion": "Rien."}, {}),
    ],
)
def test_a_value_of_another_list_or_range_states_nothing(tree: dict[str, Any], said: dict[str, Any]) -> None:
    assert values_of(tree) == said


def test_nothing_is_read_of_what_a_modifier_changes() -> None:
    known = _observed("MED-239", valueCodeableConcept=_concept(TA, "MED-267"))
    assert values_of(known) == {"etat.oms": 4}
    assert values_of(known | {"modifierExtension": [{"url": "http://x.fr/nie", "valueBoolean": True}]}) == {}
