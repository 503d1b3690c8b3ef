"""French patients and inscriptions, read from examples that were written outside this project."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import InvalidContent
from gateway.fhir.translate.elements import professional, wall
from gateway.fhir.translate.inscription import form_facts, inscription_facts, is_inscription, tumour_facts
from gateway.fhir.translate.patient import patient_facts
from gateway.rcp.facts import CodedFact, IdentifierFact, IdentityFlag, IdentityStatus, Sex

DATA = Path(__file__).parents[2] / "contract" / "data" / "fhir"
OLD = "https://hl7.fr/ig/fhir/core/CodeSystem/fr-core-cs-v2-0445"
NEW = "https://hl7.fr/ig/fhir/core/CodeSystem/fr-core-cs-identity-status"


def _example(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((DATA / f"{name}.json").read_bytes())
    return read


def test_qualified_patient() -> None:
    facts = patient_facts(_example("Patient-pat-trois-qualifie"))
    assert facts.ins == IdentifierFact(
        system="urn:oid:1.2.250.1.213.1.4.10", value="279035121518989", kind="INS-NIR-TEST"
    )
    assert facts.status is IdentityStatus.QUALIFIEE
    assert (facts.birth_name.family, facts.birth_name.given, facts.birth_given_names) == (
        "PAT-TROIS",
        ("DOMINIQUE",),
        "DOMINIQUE",
    )
    assert facts.used_name is not None
    assert facts.used_name.prefix == "MME"
    assert (facts.sex, facts.birth_date, facts.birth_place_insee) == (Sex.FEMALE, "1979-03-28", "51215")
    assert [one.value for one in facts.identifiers] == ["000003", "A-2026-0000417"]


def _with_status(system: str, code: str, *, ins: bool) -> dict[str, Any]:
    tree = _example("Patient-pat-trois-qualifie")
    for part in tree["extension"][0]["extension"]:
        if part["url"] == "identityStatus":
            part["valueCoding"] = {"system": system, "code": code}
    if not ins:
        tree["identifier"] = tree["identifier"][1:]
    return tree


@pytest.mark.parametrize(
    ("system", "code", "status"),
    [
        (OLD, "VALI", IdentityStatus.QUALIFIEE),
        (OLD, "PROV", IdentityStatus.PROVISOIRE),
        (NEW, "VALI", IdentityStatus.VALIDEE),
        (NEW, "QUAL", IdentityStatus.QUALIFIEE),
        (NEW, "RECUP", IdentityStatus.RECUPEREE),
    ],
)
def test_the_system_is_read_before_the_code(system: str, code: str, status: IdentityStatus) -> None:
    assert patient_facts(_with_status(system, code, ins=False)).status is status


@pytest.mark.parametrize(("system", "code"), [(OLD, "PROV"), (NEW, "VALI"), (OLD, "DOUT"), (OLD, "FICT")])
def test_an_ins_without_a_qualified_identity_is_refused(system: str, code: str) -> None:
    with pytest.raises(InvalidContent) as refused:
        patient_facts(_with_status(system, code, ins=True))
    assert (refused.value.code, refused.value.rule) == ("ins-non-qualifie", True)
    assert refused.value.expression == "Patient.identifier[0]"


def test_doubt_is_a_flag_and_forces_provisional() -> None:
    facts = patient_facts(_with_status(OLD, "DOUT", ins=False))
    assert facts.flags == {IdentityFlag.DOUTEUSE}
    assert facts.status is IdentityStatus.PROVISOIRE


def test_a_billing_number_under_the_oid_of_the_ins_is_no_ins() -> None:
    tree = _with_status(OLD, "PROV", ins=False)
    tree["identifier"].append(
        {
            "use": "official",
            "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "NH"}]},
            "system": "urn:oid:1.2.250.1.213.1.4.8",
            "value": "279035121518989",
        }
    )
    assert patient_facts(tree).ins is None


@pytest.mark.parametrize(
    "identifier",
    [
        {"system": "https://rpps.esante.gouv.fr", "value": "10100000016"},
        {"system": "urn:oid:1.2.250.1.71.4.2.1", "value": "810100000016"},
        {"system": "https://rpps.esante.gouv.fr", "value": "810100000016"},
        {"system": "urn:oid:1.2.250.1.71.4.2.1", "value": "10100000016"},
    ],
)
def test_a_professional_under_either_system_is_one_number(identifier: dict[str, str]) -> None:
    found = professional({"identifier": identifier}, lambda _: None)
    assert found is not None
    assert found.identifier is not None
    assert found.identifier.value == "810100000016"


def test_a_situation_of_practice_names_no_person_but_its_practitioner_does() -> None:
    stored = {
        "PractitionerRole/role-mercier": _example("PractitionerRole-mercier"),
        "Practitioner/mercier": _example("Practitioner-mercier"),
    }
    found = professional({"reference": "PractitionerRole/role-mercier", "display": "Dr M"}, stored.get)
    assert found is not None
    assert found.identifier is not None
    assert found.identifier.value == "810100000016"
    assert professional({"display": "Dr Sans Numéro"}, stored.get) == professional(
        {"reference": "Practitioner/inconnu", "display": "Dr Sans Numéro"}, stored.get
    )


def test_inscription_of_the_national_example() -> None:
    entries = [entry["resource"] for entry in _example("Bundle-transaction-inscription")["entry"]]
    condition, request = entries[1], entries[2]
    form = _example("QuestionnaireResponse-prefiche-1")
    assert is_inscription(request)
    facts = inscription_facts(request, tumour=condition, form=form)
    assert facts.number == "urn:uuid:6a1f3f0e-5a55-4c2c-9a51-0c6f7d2c8d10"
    assert facts.placer is not None
    assert facts.placer.value == "DR-2026-991"
    assert facts.session.rcp_number == "RCP-NAT-0042"
    assert facts.session.start == datetime(2026, 3, 19, 13, 0, tzinfo=UTC)
    assert facts.requester is not None
    assert facts.requester.identifier is not None
    assert facts.requester.identifier.value == "810100000024"
    assert facts.question == "Chimiothérapie néoadjuvante ou chirurgie première ?"
    assert facts.reason == CodedFact(
        system="https://smt.esante.gouv.fr/fhir/CodeSystem/terminologie-cisis",
        code="ORG-114",
        text="Proposition de traitement",
    )
    assert inscription_facts(request).question == "chimiothérapie néoadjuvante ou chirurgie première ?"


def test_tumour_and_form() -> None:
    tumour = tumour_facts(_example("Condition-tumeur-1"))
    assert tumour.topography is not None
    assert (tumour.topography.code, tumour.stage) == ("C50.4", "cT2 N0 M0, stade IIA (UICC 8)")
    assert tumour.morphology is not None
    assert tumour.morphology.code == "8500/3"
    form = form_facts(_example("QuestionnaireResponse-prefiche-1"))
    assert form.completed
    assert form.text("tumeur.tnm") == "cT2 N0 M0"
    assert form.text("etat.oms") == "1"
    assert form.text("absent") is None
    assert [one.link_id for one in form.answers][:2] == ["motif.type", "motif.statut"]
    asked = {"linkId": "rcp.allergie", "text": "Allergie à l’iode", "answer": [{"valueBoolean": True}]}
    [own] = form_facts({"resourceType": "QuestionnaireResponse", "item": [{"linkId": "g", "item": [asked]}]}).answers
    assert (own.link_id, own.question, own.values) == ("rcp.allergie", "Allergie à l’iode", (True,))


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (datetime(2026, 3, 19, 13, tzinfo=UTC), "2026-03-19T14:00:00+01:00"),
        (datetime(2026, 7, 14, 12, tzinfo=UTC), "2026-07-14T14:00:00+02:00"),
        # Paris was nine minutes and twenty-one seconds before Greenwich until 1911: FHIR has no such offset.
        (datetime(1900, 1, 1, 10, tzinfo=UTC), "1900-01-01T10:00:00Z"),
    ],
)
def test_an_instant_is_written_in_wall_time_with_an_offset_that_fhir_has(moment: datetime, written: str) -> None:
    assert wall(moment, "Europe/Paris") == written
