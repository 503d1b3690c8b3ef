"""Act 1 of the story over real HTTP: a transaction becomes one dossier, and bad input changes nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from gateway.model.dossier import Correspondent, Dossier
from gateway.model.person import PatientRecord
from gateway.model.representation import TABLES
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Hospital, Served
from tests.world import World

START = "2026-03-19T14:00:00+01:00"


def _bundle(world: World, **more: Any) -> dict[str, Any]:
    facts = {
        "rcp": world.rcp.national_number,
        "start": START,
        "requester": world.requester.idnps,
        "treating": world.treating.rpps,
    }
    return samples.transaction(**(facts | more))


def _counts(served: Served) -> dict[str, int]:
    with served.store.session() as session:
        found = {"dossier": session.scalar(select(func.count()).select_from(Dossier))}
        found["record"] = session.scalar(select(func.count()).select_from(PatientRecord))
        for kind, table in TABLES.items():
            found[kind] = session.scalar(select(func.count()).select_from(table))
    return found


@pytest.mark.req("S0-067")
def test_transaction_makes_the_dossier_and_its_resources(served: Served, world: World, hospital: Hospital) -> None:
    with hospital.client() as ehr:
        answer = ehr.post("", json=_bundle(world))
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["type"] == "transaction-response"
        statuses = [entry["response"]["status"] for entry in body["entry"]]
        assert statuses == ["201 Created"] * 5
        kinds = [entry["response"]["location"].split("/")[0] for entry in body["entry"]]
        assert kinds == ["Task", "Patient", "Condition", "QuestionnaireResponse", "ServiceRequest"]
        task_url = body["entry"][0]["response"]["location"].partition("/_history")[0]

        task = ehr.get(task_url).json()
        assert task["status"] == "accepted"
        assert task["businessStatus"]["coding"][0]["code"] == "prefiche"
        assert {"https://chu-x.example/ns/tache"} <= {one["system"] for one in task["identifier"]}
        session_url = task["input"][0]["valueReference"]["reference"]
        appointment = ehr.get(session_url).json()
        assert appointment["start"] == START
        assert "PAT-TROIS" not in ehr.get(session_url).text

    with served.store.session() as session:
        dossier = session.scalars(select(Dossier)).unique().one()
        assert dossier.state == "prefiche"
        assert dossier.session_id == world.meeting.id
        assert dossier.partner_id == world.partner.id
        assert dossier.requester_id == world.requester.id
        assert dossier.label == "Tumeur maligne du quadrant supéro-externe du sein"
        assert dossier.question == "Chimiothérapie néoadjuvante ou chirurgie première ?"
        assert dossier.prefiche_at is not None
        roles = {one.role: one.practitioner_id for one in session.scalars(select(Correspondent)).unique()}
        assert roles == {"demandeur": world.requester.id, "medecin-traitant": world.treating.id}


def test_same_transaction_twice_makes_one_dossier_and_no_new_version(
    served: Served, world: World, hospital: Hospital
) -> None:
    bundle = _bundle(world)
    with hospital.client() as ehr:
        first = ehr.post("", json=bundle)
        before = _counts(served)
        second = ehr.post("", json=bundle)
    assert first.status_code == second.status_code == 200, second.text
    assert [entry["response"]["status"] for entry in second.json()["entry"]] == ["200 OK"] * 5
    locations = [[entry["response"]["location"] for entry in answer.json()["entry"]] for answer in (first, second)]
    assert locations[0] == locations[1]
    assert _counts(served) == before


@pytest.mark.parametrize(
    ("break_it", "status", "entry", "words"),
    [
        (lambda b: b["entry"][2]["resource"].update(onsetDateTime="1956-00-00"), 400, 2, "Entrée 3 (Condition)"),
        (lambda b: b["entry"][1]["resource"].update(gender="zzz"), 400, 1, "administrative-gender"),
        (lambda b: b["entry"][4]["resource"].pop("status"), 400, 4, "status"),
        (lambda b: b["entry"][4]["resource"]["subject"].update(reference="Medication/1"), 400, 4, "Patient"),
        (
            lambda b: b["entry"][4]["resource"]["performer"][0]["identifier"].update(value="RCP-NAT-INCONNUE"),
            422,
            4,
            "RCP inconnue",
        ),
        (
            lambda b: b["entry"][4]["resource"].update(occurrenceDateTime="2026-03-20T14:00:00+01:00"),
            422,
            4,
            "19/03/2026 à 14 h 00",
        ),
        (
            lambda b: b["entry"][4]["resource"]["requester"]["identifier"].update(value="810999999999"),
            422,
            4,
            "demandeur",
        ),
        (
            lambda b: b["entry"][1]["resource"]["extension"][0]["extension"][0]["valueCoding"].update(code="PROV"),
            422,
            1,
            "INS",
        ),
        (
            lambda b: b["entry"][3]["resource"]["basedOn"][0].update(reference="urn:uuid:nulle-part"),
            400,
            3,
            "aucune entrée",
        ),
    ],
)
def test_one_bad_entry_changes_nothing_and_is_named(
    served: Served, world: World, hospital: Hospital, break_it: Any, status: int, entry: int, words: str
) -> None:
    before = _counts(served)
    bundle = _bundle(world, family=samples.CANARY)
    break_it(bundle)
    with hospital.client() as ehr:
        answer = ehr.post("", json=bundle)
    assert answer.status_code == status, answer.text
    outcome = answer.json()
    assert outcome["resourceType"] == "OperationOutcome"
    assert outcome["language"] == "fr"
    issue = outcome["issue"][0]
    assert issue["severity"] == "error"
    assert issue["expression"][0].startswith(f"Bundle.entry[{entry}]")
    assert f"Entrée {entry + 1} " in issue["details"]["text"]
    assert any(words in one["details"]["text"] for one in outcome["issue"])
    assert samples.CANARY not in answer.text
    assert _counts(served) == before


def test_what_was_sent_comes_back_to_the_last_decimal(world: World, hospital: Hospital) -> None:
    sent = samples.patient(treating=world.treating.rpps)
    raw = msgspec.json.encode(sent).replace(b"3.1}", b"3.10}")
    assert b"3.10}" in raw
    with hospital.client() as ehr:
        made = ehr.post("Patient", content=raw)
        assert made.status_code == 201, made.text
        read = ehr.get(made.headers["location"])
    assert b"3.10}" in read.content
    tree = msgspec.json.decode(read.content, type=dict[str, Any])
    assert tree.pop("id")
    assert set(tree.pop("meta")) == {"versionId", "lastUpdated"}
    wanted = msgspec.json.Decoder(float_hook=Decimal).decode(raw)
    assert msgspec.json.Decoder(float_hook=Decimal).decode(read.content) | wanted == msgspec.json.Decoder(
        float_hook=Decimal
    ).decode(read.content)
    assert list(tree) == list(wanted)


def test_a_body_over_its_limit_is_refused_by_name(hospital: Hospital) -> None:
    with hospital.client() as ehr:
        answer = ehr.post("Patient", content=b'{"resourceType": "Patient", "id": "' + b"x" * (16 << 20) + b'"}')
    assert answer.status_code == 413
    [issue] = answer.json()["issue"]
    assert issue["code"] == "too-long"
    assert "RCP_LIMIT_HTTP_BODY_BYTES" in issue["details"]["text"]


@pytest.mark.parametrize(
    ("kind", "element", "value"),
    [
        ("ServiceRequest", "authoredOn", "0001-01-01"),
        ("ServiceRequest", "authoredOn", "0001-01-01T00:00:00"),
        ("ServiceRequest", "authoredOn", "0001-01-01T00:00:00Z"),
        ("ServiceRequest", "authoredOn", "9999-12-31"),
        ("ServiceRequest", "authoredOn", "9999-12-31T23:59:59Z"),
        ("ServiceRequest", "occurrenceDateTime", "9999-12-31T23:59:59Z"),
        ("ServiceRequest", "occurrenceDateTime", "0001-01-01T00:00:00+14:00"),
        ("QuestionnaireResponse", "authored", "9999-12-31T23:59:59Z"),
        ("QuestionnaireResponse", "authored", "0001-01-01T00:00:00"),
    ],
)
def test_the_ends_of_the_calendar_are_refused_by_name(
    world: World, hospital: Hospital, kind: str, element: str, value: str
) -> None:
    """Softwares write « 0001-01-01T00:00:00 » for no date; no wall clock of Paris shows the last instant of 9999."""
    body = _bundle(world)
    [entry] = [one for one in body["entry"] if one["resource"]["resourceType"] == kind]
    entry["resource"][element] = value
    with hospital.client() as ehr:
        answer = ehr.post("", json=body)
    assert answer.status_code == 400
    [issue] = answer.json()["issue"]
    assert issue["details"]["coding"][0]["code"] == "valeur-invalide"
