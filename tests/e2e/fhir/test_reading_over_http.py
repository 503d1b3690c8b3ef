"""Reading, searching and versions over real HTTP, with clients that know nothing of us."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fhirpy import AsyncFHIRClient
from sqlalchemy import select

from gateway.exchange.blobs import BlobStore
from gateway.fhir.reindexing import reindex
from gateway.fhir.represent import Representer
from gateway.model.audit import AuditLine
from gateway.model.dossier import Dossier
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord
from gateway.model.representation import TABLES
from gateway.model.store import Store
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Hospital, Served
from tests.world import DOMAIN, World

START = "2026-03-19T14:00:00+01:00"


@pytest.fixture
def pushed(world: World, hospital: Hospital) -> dict[str, str]:
    """Act 1 done: type → ``Type/id``."""
    bundle = samples.transaction(
        rcp=world.rcp.national_number,
        start=START,
        requester=world.requester.idnps,
        treating=world.treating.rpps,
    )
    with hospital.client() as ehr:
        answer = ehr.post("", json=bundle)
    assert answer.status_code == 200, answer.text
    locations = [entry["response"]["location"].partition("/_history")[0] for entry in answer.json()["entry"]]
    return {location.partition("/")[0]: location for location in locations}


def _ids(answer: httpx.Response, mode: str = "match") -> list[str]:
    assert answer.status_code == 200, answer.text
    entries = answer.json().get("entry", [])
    return [
        f"{entry['resource']['resourceType']}/{entry['resource']['id']}"
        for entry in entries
        if entry["search"]["mode"] == mode
    ]


FORM = "https://rcp.example.org/fhir/Questionnaire/prefiche-rcp"
SEARCHES: list[tuple[str, str | None]] = [
    (f"Patient?identifier={DOMAIN}|000003", "Patient"),
    ("Patient?identifier=000003", "Patient"),
    (f"Patient?identifier={DOMAIN}|", "Patient"),
    (f"Patient?identifier={DOMAIN}|000004", None),
    ("Patient?family=pat-tro", "Patient"),
    ("Patient?family=PAT-TROIS", "Patient"),
    ("Patient?family=PAT-TROISI", None),
    ("Patient?family:exact=PAT-TROIS", "Patient"),
    ("Patient?family:exact=pat-trois", None),
    ("Patient?name:contains=rois", "Patient"),
    ("Patient?given=dominique&gender=female", "Patient"),
    ("Patient?gender:not=female", None),
    ("Patient?birthdate=1979-03-28", "Patient"),
    ("Patient?birthdate=1979-03", "Patient"),
    ("Patient?birthdate=ge1979-03-28&birthdate=lt1979-03-29", "Patient"),
    ("Patient?birthdate=gt1979-03-28", None),
    ("Patient?birthdate=sa1979-03-27", "Patient"),
    ("Patient?deceased=false", "Patient"),
    ("Patient?organization:missing=true", "Patient"),
    ("Patient?general-practitioner:identifier=https://rpps.esante.gouv.fr|{treating}", "Patient"),
    ("ServiceRequest?patient={Patient}", "ServiceRequest"),
    ("ServiceRequest?patient={patient_id}", "ServiceRequest"),
    ("ServiceRequest?patient:Patient={patient_id}&status=active", "ServiceRequest"),
    (f"ServiceRequest?patient.identifier={DOMAIN}|000003", "ServiceRequest"),
    (f"ServiceRequest?patient.identifier={DOMAIN}|000004", None),
    ("ServiceRequest?occurrence=2026-03-19", "ServiceRequest"),
    ("ServiceRequest?occurrence=eq2026-03-19T13:00Z", "ServiceRequest"),
    ("ServiceRequest?_has:Task:focus:business-status=prefiche", "ServiceRequest"),
    ("ServiceRequest?_has:Task:focus:business-status=annule", None),
    ("Task?focus={ServiceRequest}&business-status=prefiche,notifie", "Task"),
    ("Task?patient={Patient}&status=accepted", "Task"),
    ("QuestionnaireResponse?based-on={ServiceRequest}&status=completed", "QuestionnaireResponse"),
    (
        "QuestionnaireResponse?questionnaire=https://rcp.example.org/fhir/Questionnaire/prefiche-rcp",
        "QuestionnaireResponse",
    ),
    ("Condition?code=https://smt.esante.gouv.fr/terminologie-cim-10|C50.4", "Condition"),
    ("Condition?code=|C50.4", None),
    ("Condition?onset-date=2026-02", "Condition"),
    ("Encounter?patient={Patient}&status=planned", "Encounter"),
]


def test_searches_find_what_r4_says(world: World, hospital: Hospital, pushed: dict[str, str]) -> None:
    patient_id = pushed["Patient"].partition("/")[2]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    with hospital.client() as ehr:
        for query, found in SEARCHES:
            asked = query.format(**pushed, patient_id=patient_id, treating=world.treating.rpps)
            ids = _ids(ehr.get(asked))
            assert [one.partition("/")[0] for one in ids] == ([found] if found else []), asked
            kind, _, parameters = asked.partition("?")
            assert _ids(ehr.post(f"{kind}/_search", content=parameters, headers=form)) == ids, asked
            if found in pushed:
                assert ids == [pushed[found]], asked


def test_includes_bring_what_is_referred_to_and_what_refers(hospital: Hospital, pushed: dict[str, str]) -> None:
    with hospital.client() as ehr:
        forward = ehr.get("Task?_include=Task:focus&_include=Task:patient")
        assert set(_ids(forward, "include")) == {pushed["ServiceRequest"], pushed["Patient"]}
        assert forward.json()["total"] == 1
        reverse = ehr.get("ServiceRequest?_revinclude=Task:focus")
        assert _ids(reverse, "include") == [pushed["Task"]]


def test_pages_follow_each_other_without_loss(hospital: Hospital) -> None:
    with hospital.client() as ehr:
        for number in range(7):
            made = ehr.post("Patient", json=samples.patient(f"P{number:05d}", ins=None, status="PROV"))
            assert made.status_code == 201
        seen: list[str] = []
        url: str | None = "Patient?_count=3"
        pages = 0
        while url:
            answer = ehr.get(url)
            assert answer.json()["total"] == 7
            seen += _ids(answer)
            links = {link["relation"]: link["url"] for link in answer.json()["link"]}
            url = links.get("next")
            pages += 1
    assert pages == 3
    assert len(seen) == len(set(seen)) == 7


def test_controls_of_the_answer(hospital: Hospital, pushed: dict[str, str]) -> None:
    with hospital.client() as ehr:
        only = ehr.get("Patient?_summary=count").json()
        assert (only["total"], only.get("entry")) == (1, None)
        assert "total" not in ehr.get("Patient?_total=none").json()
        partly = ehr.get("Patient?_elements=birthDate").json()["entry"][0]["resource"]
        assert set(partly) == {"resourceType", "id", "meta", "birthDate"}
        assert partly["meta"]["tag"][0]["code"] == "SUBSETTED"
        sorted_ = ehr.get("ServiceRequest?_sort=-authored,_id")
        assert _ids(sorted_) == [pushed["ServiceRequest"]]
        recent = ehr.get("Patient?_lastUpdated=ge2026-01-01")
        assert _ids(recent) == [pushed["Patient"]]


def test_unknown_parameters_warn_or_are_refused(hospital: Hospital, pushed: dict[str, str]) -> None:
    del pushed
    with hospital.client() as ehr:
        lenient = ehr.get("Patient?couleur=bleu")
        assert len(_ids(lenient)) == 1
        outcome = [entry for entry in lenient.json()["entry"] if entry["search"]["mode"] == "outcome"]
        assert outcome[0]["resource"]["issue"][0]["severity"] == "warning"
        strict = ehr.get("Patient?couleur=bleu", headers={"Prefer": "handling=strict"})
        assert strict.status_code == 400
        for bad in ("Patient?birthdate=hier", "Patient?gender:in=x", "Patient?_sort=couleur", "Patient?_count=-1"):
            assert ehr.get(bad).status_code in {400, 405}, bad
            assert ehr.get(bad).json()["resourceType"] == "OperationOutcome"


def test_versions_etag_and_history(hospital: Hospital, pushed: dict[str, str]) -> None:
    with hospital.client() as ehr:
        first = ehr.get(pushed["Patient"])
        assert first.headers["etag"] == 'W/"1"'
        assert "last-modified" in first.headers
        assert ehr.get(pushed["Patient"], headers={"If-None-Match": 'W/"1"'}).status_code == 304
        tree = first.json()
        tree["telecom"] = [{"system": "phone", "value": "0611223344"}]
        stale = ehr.put(pushed["Patient"], json=tree, headers={"If-Match": 'W/"7"'})
        assert stale.status_code == 412
        changed = ehr.put(pushed["Patient"], json=tree, headers={"If-Match": 'W/"1"'})
        assert (changed.status_code, changed.headers["etag"]) == (200, 'W/"2"')
        again = ehr.put(pushed["Patient"], json=tree)
        assert (again.status_code, again.headers["etag"]) == (200, 'W/"2"')
        old = ehr.get(pushed["Patient"] + "/_history/1").json()
        assert old["telecom"][0]["value"] == "0601020304"
        assert ehr.get(pushed["Patient"] + "/_history/9").status_code == 404
        history = ehr.get(pushed["Patient"] + "/_history").json()
        assert [entry["response"]["etag"] for entry in history["entry"]] == ['W/"2"', 'W/"1"']


def test_preferences_and_formats(hospital: Hospital, pushed: dict[str, str]) -> None:
    with hospital.client() as ehr:
        tree = samples.patient("000099", ins=None, status="PROV")
        minimal = ehr.post("Patient", json=tree, headers={"Prefer": "return=minimal"})
        assert (minimal.status_code, minimal.content) == (201, b"")
        assert minimal.headers["location"].endswith("/_history/1")
        outcome = ehr.put(
            f"Patient?identifier={DOMAIN}|000099", json=tree, headers={"Prefer": "return=OperationOutcome"}
        )
        assert outcome.json()["resourceType"] == "OperationOutcome"
        assert ehr.get(pushed["Patient"], headers={"Accept": "text/turtle"}).status_code == 406
        assert ehr.get(pushed["Patient"] + "?_format=json", headers={"Accept": "text/html"}).status_code == 200
        turtle = ehr.post("Patient", content="<> a <Patient>", headers={"Content-Type": "text/turtle"})
        assert turtle.status_code == 415
        merge = {"Content-Type": "application/merge-patch+json"}
        assert ehr.patch(pushed["Patient"], json={}, headers=merge).status_code == 415
        assert ehr.get("Medication/1").status_code == 404
        assert ehr.get("Patient/nul").status_code == 404


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"resourceType":"Patient","a":1,"a":2}', b"\xff\xfe", b"[" * 5000]
)
def test_unreadable_bodies_are_refused_in_french(hospital: Hospital, body: bytes) -> None:
    with hospital.client() as ehr:
        for address in ("Patient", ""):
            answer = ehr.post(address, content=body)
            assert answer.status_code == 400
            assert answer.json()["language"] == "fr"


def test_another_organisation_sees_nothing_and_the_trail_knows(
    world: World, store: Store, admit: Callable[..., Hospital], pushed: dict[str, str]
) -> None:
    with store.session() as session:
        other = Partner(name="Clinique Y", network_id=world.network.id, patient_domains=["https://y.example/ipp"])
        session.add(other)
        session.commit()
    with admit(other).client() as ehr:
        for location in pushed.values():
            hidden = ehr.get(location)
            unknown = ehr.get(location[:-4] + "0000")
            assert hidden.status_code == unknown.status_code == 404
            assert hidden.json() == unknown.json()
            kind = location.partition("/")[0]
            assert ehr.get(kind).json()["total"] == 0
            assert ehr.get(f"{location}/_history").status_code == 404
        refused = ehr.put(pushed["Patient"], json=samples.patient() | {"id": pushed["Patient"].partition("/")[2]})
        assert refused.status_code == 405
        chained = ehr.get(f"ServiceRequest?patient.identifier={DOMAIN}|000003")
        assert _ids(chained) == []
    with store.session() as session:
        refusals = session.scalars(select(AuditLine).where(AuditLine.event == "refus")).all()
    assert {line.outcome for line in refusals} == {"4"}
    assert len(refusals) >= len(pushed)


def test_each_answer_that_names_a_person_is_in_the_trail_before_it_leaves(
    store: Store, hospital: Hospital, pushed: dict[str, str]
) -> None:
    with hospital.client() as ehr:
        ehr.get(pushed["Patient"])
        ehr.get("Task")
    with store.session() as session:
        record = session.scalars(select(PatientRecord)).one()
        lines = session.scalars(select(AuditLine).where(AuditLine.persons.contains([record.id]))).all()
    events = [line.event for line in lines]
    assert "consultation" in events
    assert "recherche" in events
    assert "creation" in events
    for line in lines:
        payload = json.loads(line.payload)
        assert payload["actor_id"] == hospital.client_id
        assert b"PAT-TROIS" not in line.payload


def test_a_generic_client_reads_and_searches(served: Served, hospital: Hospital, pushed: dict[str, str]) -> None:
    token = hospital.ask_token().json()["access_token"]

    async def story() -> tuple[Any, Any, int]:
        client = AsyncFHIRClient(served.base, authorization=f"Bearer {token}")
        patients = await client.resources("Patient").search(family="pat").fetch_all()
        request = await client.reference(reference=pushed["ServiceRequest"]).to_resource()
        count = await client.resources("Task").search(patient=patients[0].id).count()
        return patients, request, count

    patients, request, count = asyncio.run(story())
    assert [f"Patient/{one.id}" for one in patients] == [pushed["Patient"]]
    assert request["subject"]["reference"] == pushed["Patient"]
    assert count == 1


def test_capability_statement_says_what_is_served(served: Served, hospital: Hospital) -> None:
    answer = httpx.get(f"{served.base}/metadata")
    assert answer.status_code == 200
    statement = answer.json()
    assert (statement["fhirVersion"], statement["kind"]) == ("4.0.1", "instance")
    rest = statement["rest"][0]
    offered = {one["type"]: one for one in rest["resource"]}
    with hospital.client() as ehr:
        for kind, one in offered.items():
            codes = {interaction["code"] for interaction in one["interaction"]}
            # The trail is searched within a bound of time only.
            query = {"date": "ge2026-01-01"} if kind == "AuditEvent" else {}
            assert ("search-type" in codes) == (ehr.get(kind, params=query).status_code == 200), kind
            names = [parameter["name"] for parameter in one.get("searchParam", [])]
            assert len(names) == len(set(names))
    # What only the gateway writes is offered to nobody for writing [DECISIONS 10 for the trail].
    writing = {"create", "update", "patch", "delete"}
    assert not writing & {interaction["code"] for interaction in offered["AuditEvent"]["interaction"]}
    assert writing <= {interaction["code"] for interaction in offered["Observation"]["interaction"]}


def test_capability_statement_passes_the_judge(served: Served) -> None:
    from fhir.resources.R4B.capabilitystatement import CapabilityStatement

    CapabilityStatement.model_validate(httpx.get(f"{served.base}/metadata").json())


def test_every_stored_resource_passes_the_judge_and_holds_no_base_url(
    store: Store, served: Served, hospital: Hospital, pushed: dict[str, str]
) -> None:
    from fhir.resources.R4B import get_fhir_model_class

    del hospital, pushed
    seen = set()
    with store.session() as session:
        for kind, table in TABLES.items():
            for row in session.execute(select(table.c.body).where(table.c.current)):
                get_fhir_model_class(kind).model_validate_json(row.body)
                assert served.url.encode() not in row.body
                seen.add(kind)
    assert {"Patient", "ServiceRequest", "Task", "Appointment", "HealthcareService", "Encounter"} <= seen


def test_rendering_and_indexing_again_change_nothing(
    store: Store, blobs: BlobStore, hospital: Hospital, pushed: dict[str, str]
) -> None:
    del hospital, pushed

    def content() -> dict[str, list[Any]]:
        with store.session() as session:
            return {
                kind: list(session.execute(select(table).order_by(table.c.id, table.c.version)))
                for kind, table in TABLES.items()
            }

    before = content()
    with store.session() as session:
        roots = [*session.scalars(select(Dossier)).unique(), *session.scalars(select(PatientRecord))]
        kept = Representer(blobs).keep(session, roots, {})
        assert kept
        assert not [one for one in kept.values() if one.changed]
    assert reindex(store) == sum(len([row for row in rows if row.current]) for rows in before.values())
    assert content() == before


def test_canary_identity_is_in_no_log_line_and_no_refusal(
    world: World, hospital: Hospital, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    bundle = samples.transaction(
        rcp=world.rcp.national_number,
        start=START,
        requester=world.requester.idnps,
        treating=None,
        family=samples.CANARY,
    )
    refusals = []
    with hospital.client() as ehr:
        assert ehr.post("", json=bundle).status_code == 200
        ehr.get(f"Patient?family={samples.CANARY}")
        bundle["entry"][1]["resource"]["gender"] = samples.CANARY
        refusals.append(ehr.post("", json=bundle))
        refusals.append(ehr.get(f"Patient?{samples.CANARY}:{samples.INS}=x", headers={"Prefer": "handling=strict"}))
        refusals.append(ehr.get(f"Patient?birthdate={samples.CANARY}"))
        refusals.append(ehr.get(f"Patient/{samples.CANARY}"))
        refusals.append(ehr.post("Patient", json=samples.patient("000003", family=samples.CANARY)))
        refusals.append(ehr.post("Patient", json=samples.patient("1", domain="https://z", family=samples.CANARY)))
    logged = capsys.readouterr()
    for words in (samples.CANARY, samples.INS):
        assert words not in logged.out + logged.err
        # The test's own client logs the URLs that it asks for.
        assert not [one for one in caplog.records if words in one.getMessage() and not one.name.startswith("http")]
    for refusal in refusals:
        assert refusal.status_code >= 400
        assert samples.INS not in refusal.text
        assert samples.CANARY not in refusal.text
