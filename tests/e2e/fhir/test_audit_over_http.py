"""The trail over FHIR: whose lines, of which patients, in which pages, and that reading it stands in it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from gateway.fhir import validate
from gateway.model.audit import AuditFacts
from gateway.model.directory import Mailbox, Practitioner
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord
from gateway.model.store import Store
from gateway.rcp.access import SYSTEM
from gateway.rcp.step import Steps
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital
from tests.world import World, audit_lines

ALWAYS = {"date": "ge2020-01-01"}
OTHER = "https://clinique-y.example/ns/ipp"
DCM = "http://dicom.nema.org/resources/ontology/DCM"


@pytest.fixture
def ehr(world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


@pytest.fixture
def other(store: Store, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with store.session() as session:
        partner = Partner(name="Clinique Y", patient_domains=[OTHER])
        session.add(partner)
        session.commit()
    with admit(partner, scopes=ALL_SCOPES).client() as client:
        yield client


def _patient(client: httpx.Client, ipp: str, domain: str | None = None) -> str:
    more = {"domain": domain} if domain else {}
    made = client.post("Patient", json=samples.patient(ipp, ins=None, **more))
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def _events(client: httpx.Client, **asked: str) -> list[dict[str, Any]]:
    found = client.get("AuditEvent", params=ALWAYS | asked)
    assert found.status_code == 200, found.text
    return [one["resource"] for one in found.json().get("entry", ()) if one["search"]["mode"] == "match"]


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


def test_a_line_is_a_national_audit_event(ehr: httpx.Client) -> None:
    key = _patient(ehr, "A-1")
    ehr.get(f"Patient/{key}")
    read, made = _events(ehr, patient=f"Patient/{key}")
    assert not validate.judge(read)
    assert (read["type"]["code"], read["subtype"][0]["code"], read["action"], read["outcome"]) == (
        "rest",
        "read",
        "R",
        "0",
    )
    assert (made["subtype"][0]["code"], made["action"]) == ("create", "C")
    # What TdE asks for [spec audit 1.2].
    for event in (read, made):
        assert len(event["subtype"]) == 1
        assert 1 <= len(event["agent"]) <= 2
        assert all(agent["who"] for agent in event["agent"])
        assert event["period"]["start"]
        assert event["source"]["observer"]["type"] == "Device"
        assert event["entity"][0]["what"]["reference"] == f"Patient/{key}"
    whole = str([read, made])
    for trait in ("PAT-TROIS", "DOMINIQUE", "1979", "0601020304"):
        assert trait not in whole
    alone = ehr.get(f"AuditEvent/{read['id']}")
    assert (alone.status_code, alone.json()) == (200, read)
    assert ehr.get(f"AuditEvent/{uuid.uuid4()}").status_code == 404
    assert ehr.get("AuditEvent/rien").status_code == 404


def test_an_address_of_the_red_list_stands_in_no_line(ehr: httpx.Client, store: Store, steps: Steps) -> None:
    key = _patient(ehr, "A-1")
    addresses = "cachee@medecin.mssante.example", "publiee@medecin.mssante.example"
    with store.session() as session:
        held = session.scalars(select(PatientRecord.id)).one()
        who = session.scalars(select(Practitioner)).first()
        for address, confidential in zip(addresses, (True, False), strict=True):
            more = {"practitioner_id": who.id, "confidential": confidential, "source": "essai", "as_of": who.as_of}
            session.add(Mailbox(address=address, **more))
        session.commit()

    def told(step) -> None:
        for address in addresses:
            step.audit("envoi", action="C", persons=(held,), object_type="Message", recipient=address.upper())

    steps.run(SYSTEM, told)
    sent = [one for one in _events(ehr, patient=f"Patient/{key}") if len(one["agent"]) == 2]
    assert [one["agent"][1]["who"]["identifier"]["value"] for one in sent] == [f"mailto:{addresses[1].upper()}"]
    assert "cachee" not in str(_events(ehr)).lower()
    for one in _events(ehr):
        assert "cachee" not in ehr.get(f"AuditEvent/{one['id']}").text.lower()


def test_images_that_left_name_the_application_that_took_them(
    ehr: httpx.Client, store: Store, fhir_steps: Steps
) -> None:
    key = _patient(ehr, "A-1")
    fhir_steps.record(AuditFacts(event="envoi", action="C", persons=(uuid.UUID(key),), recipient="CHUY_ARCHIVE"))
    [sent] = [one for one in _events(ehr, patient=f"Patient/{key}") if len(one["agent"]) == 2]
    who = sent["agent"][1]["who"]["identifier"]
    assert (who["system"].rpartition("/")[2], who["value"]) == ("aet", "CHUY_ARCHIVE")


def test_an_organisation_reads_the_lines_of_its_own_patients(
    ehr: httpx.Client, other: httpx.Client, store: Store
) -> None:
    ours, theirs = _patient(ehr, "A-1"), _patient(other, "B-1", OTHER)
    assert {one["entity"][0]["what"]["reference"] for one in _events(ehr)} == {f"Patient/{ours}"}
    assert {one["entity"][0]["what"]["reference"] for one in _events(other)} == {f"Patient/{theirs}"}
    hidden = _events(other)[0]["id"]
    assert ehr.get(f"AuditEvent/{hidden}").status_code == 404
    assert _events(ehr, patient=f"Patient/{theirs}") == []
    assert _events(ehr, _id=hidden) == []
    assert ehr.delete(f"Patient/{ours}").status_code == 204
    assert [one["action"] for one in _events(ehr, patient=ours)] == ["D", "C"]
    with store.session() as session:
        told = [line for line in audit_lines(session) if line["event"] == "audit"]
    assert len(told) == 6
    assert told[-1]["persons"] == [ours]
    assert told[-1]["detail"] == {"lignes": 2}


def test_a_line_that_names_patients_of_two_shows_each_his_own(
    fhir_steps: Steps, ehr: httpx.Client, other: httpx.Client
) -> None:
    ours, theirs = _patient(ehr, "A-1"), _patient(other, "B-1", OTHER)
    both = AuditFacts(event="recherche", persons=(uuid.UUID(ours), uuid.UUID(theirs)), object_type="Task")
    fhir_steps.record(both)
    for client, key in ((ehr, ours), (other, theirs)):
        newest = _events(client)[0]
        assert [one["what"]["reference"] for one in newest["entity"]] == [f"Patient/{key}"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"action": "R"}, 1),
        ({"action": "C,R"}, 2),
        ({"outcome": "0"}, 2),
        ({"outcome": "8"}, 0),
        ({"type": "rest"}, 2),
        ({"type": f"{DCM}|110101"}, 0),
        ({"subtype": "read"}, 1),
        ({"subtype": "http://hl7.org/fhir/restful-interaction|create"}, 1),
        ({"_lastUpdated": "lt2020-01-01"}, 0),
        ({"period-start": "le2020-01-01"}, 0),
        ({"TDE_AuditEvent_period-start": "ge2020-01-01"}, 2),
        ({"agent-name": "chu x"}, 2),
        ({"agent-name": "personne"}, 0),
        ({"agent": "Practitioner/x"}, 0),
        ({"entity": "Patient/x"}, 0),
    ],
)
def test_it_is_searched(ehr: httpx.Client, asked: dict[str, str], found: int) -> None:
    key = _patient(ehr, "A-1")
    ehr.get(f"Patient/{key}")
    assert len(_events(ehr, patient=key, **asked)) == found


def test_it_is_searched_by_who_acted_and_by_what_was_concerned(ehr: httpx.Client) -> None:
    key = _patient(ehr, "A-1")
    made = ehr.post("Condition", json=samples.condition(f"Patient/{key}")).json()["id"]
    ehr.get(f"Condition/{made}")
    who = _events(ehr)[0]["agent"][0]["who"]["identifier"]
    assert len(_events(ehr, **{"agent:identifier": f"{who['system']}|{who['value']}"})) == 3
    assert _events(ehr, **{"agent:identifier": "x|personne"}) == []
    assert [one["action"] for one in _events(ehr, entity=f"Condition/{made}")] == ["R", "C"]
    assert len(_events(ehr, entity=f"Patient/{key}")) == 3


def test_pages_follow_the_lines_while_others_are_written(ehr: httpx.Client) -> None:
    key = _patient(ehr, "A-1")
    for _ in range(5):
        ehr.get(f"Patient/{key}")
    seen: list[str] = []
    url: str | None = f"AuditEvent?date=ge2020-01-01&patient={key}&_count=2"
    while url is not None:
        page = ehr.get(url).json()
        seen += [one["resource"]["id"] for one in page["entry"]]
        ehr.get(f"Patient/{key}")
        url = next((one["url"] for one in page["link"] if one["relation"] == "next"), None)
    assert len(seen) == len(set(seen)) == 6
    total = ehr.get("AuditEvent", params={**ALWAYS, "patient": key, "_summary": "count"}).json()
    assert "entry" not in total
    # Six lines, three readings of the patient meanwhile, three of the trail itself about him.
    assert total["total"] == 12


def _next(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(next(one["url"] for one in answer.json()["link"] if one["relation"] == "next"))


def test_the_link_of_a_page_tells_nothing_and_is_good_for_whom_it_was_made(
    ehr: httpx.Client, other: httpx.Client
) -> None:
    key = _patient(ehr, "A-1")
    for _ in range(4):
        ehr.get(f"Patient/{key}")
    asked = ALWAYS | {"patient": key, "_count": "2", "_format": "application/fhir+json"}
    by_post = {"Content-Type": "application/x-www-form-urlencoded"}
    for found in (ehr.get("AuditEvent", params=asked), ehr.post("AuditEvent/_search", data=asked, headers=by_post)):
        url = httpx.URL(_next(found))
        # Neither the number of a line, whose distance tells how many others wrote, nor what was asked.
        assert sorted(url.params) == ["_format", "_page"]
        assert key not in str(url)
        page = ehr.get(url)
        assert [one["resource"]["id"] for one in page.json()["entry"]] != [
            one["resource"]["id"] for one in found.json()["entry"]
        ]
        shown = {
            entity["what"]["reference"] for one in page.json()["entry"] for entity in one["resource"]["entity"][:1]
        }
        assert shown == {f"Patient/{key}"}
        own = next(one["url"] for one in page.json()["link"] if one["relation"] == "self")
        assert ehr.get(own).json()["entry"] == page.json()["entry"]
    token = url.params["_page"]
    assert httpx.URL(_next(ehr.get("AuditEvent", params=asked))).params["_page"] != token
    for client, params, code in (
        (other, {"_page": token}, "page-d-une-autre-recherche"),
        (ehr, {"_page": token[:-4] + "AAAA"}, "page-alteree"),
        (ehr, {"_page": "7"}, "page-alteree"),
        (ehr, ALWAYS | {"_page": token}, "page-d-une-autre-recherche"),
    ):
        refused = client.get("AuditEvent", params=params)
        assert (refused.status_code, _code(refused)) == (400, code), params
    elsewhere = ehr.get("Patient", params={"_page": token})
    assert (elsewhere.status_code, _code(elsewhere)) == (400, "page-d-une-autre-recherche")
    # A line's number is no parameter.
    guessed = ehr.get("AuditEvent", params=ALWAYS | {"_cursor": "5"}, headers={"Prefer": "handling=strict"})
    assert (guessed.status_code, _code(guessed)) == (400, "parametre-inconnu")


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"patient": str(uuid.UUID(int=1))}, "date-obligatoire"),
        ({"date": "hier"}, "parametre-valeur"),
        ({"date": "ge2020", "_sort": "date"}, "parametre-valeur"),
        ({"date": "ge2020", "_count": "-1"}, "parametre-valeur"),
        ({"date": "ge2020", "entity": "Rien/1"}, "parametre-valeur"),
        ({"date": "ge2020", "patient:missing": "true"}, "parametre-inconnu"),
    ],
)
def test_what_cannot_be_asked_is_refused(ehr: httpx.Client, asked: dict[str, str], code: str) -> None:
    refused = ehr.get("AuditEvent", params=asked)
    assert (refused.status_code, _code(refused)) == (400, code)
    by_post = ehr.post("AuditEvent/_search", data=asked, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (by_post.status_code, _code(by_post)) == (400, code)


def test_an_unknown_parameter_is_told_or_refused(ehr: httpx.Client) -> None:
    lenient = ehr.get("AuditEvent", params=ALWAYS | {"rien": "x"})
    assert lenient.json()["entry"][-1]["search"]["mode"] == "outcome"
    strict = ehr.get("AuditEvent", params=ALWAYS | {"rien": "x"}, headers={"Prefer": "handling=strict"})
    assert (strict.status_code, _code(strict)) == (400, "parametre-inconnu")


def test_who_asks_for_what_was_deleted_stands_in_the_trail_of_the_patient(
    ehr: httpx.Client, other: httpx.Client, store: Store
) -> None:
    patient = _patient(ehr, "A-9")
    made = ehr.post("Condition", json=samples.condition(f"Patient/{patient}", "T-9"))
    where = f"Condition/{made.json()['id']}"
    assert ehr.delete(where).status_code == 204
    before = len(_events(ehr, patient=f"Patient/{patient}", outcome="4"))
    patch = {"Content-Type": "application/json-patch+json"}
    entry = {"request": {"method": "GET", "url": where}}
    asked = (
        ehr.get(where),
        ehr.head(where),
        ehr.get(f"{where}/_history/2"),
        ehr.patch(where, json=[], headers=patch),
        ehr.put(where, json=made.json()),
    )
    assert [answer.status_code for answer in asked] == [410] * 5
    told = ehr.post("", json={"resourceType": "Bundle", "type": "batch", "entry": [entry]}).json()
    assert told["entry"][0]["response"]["status"].startswith("410")
    lines = _events(ehr, patient=f"Patient/{patient}", outcome="4")[: -before or None]
    assert len(lines) == 6
    for line in lines:
        assert not validate.judge(line)
        (what,) = [one["what"]["reference"] for one in line["entity"] if where in one["what"].get("reference", "")]
        assert what.startswith(where)
    # Whoever may not see it learns nothing, and no patient is named for him.
    assert other.get(where).status_code == 404
    assert len(_events(ehr, patient=f"Patient/{patient}", outcome="4")) == before + 6
    # About nobody, nothing is told.
    form = ehr.post("Questionnaire", json={"resourceType": "Questionnaire", "status": "draft"})
    about_nobody = f"Questionnaire/{form.json()['id']}"
    assert ehr.delete(about_nobody).status_code == 204
    with store.session() as session:
        count = len(audit_lines(session))
        assert ehr.get(about_nobody).status_code == 410
        session.rollback()
        assert len(audit_lines(session)) == count


def test_it_is_never_written(ehr: httpx.Client, world: World, admit: Callable[..., Hospital]) -> None:
    key = _patient(ehr, "A-1")
    line = _events(ehr, patient=key)[0]
    assert ehr.post("AuditEvent", json=line).status_code == 405
    assert ehr.put(f"AuditEvent/{line['id']}", json=line).status_code == 405
    assert ehr.delete(f"AuditEvent/{line['id']}").status_code == 405
    with admit(world.partner, scopes="system/Patient.rs").client() as narrow:
        assert narrow.get("AuditEvent", params=ALWAYS).status_code == 403
        assert narrow.get(f"AuditEvent/{line['id']}").status_code == 403
