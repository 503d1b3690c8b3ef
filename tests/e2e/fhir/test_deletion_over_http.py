"""What others say of a resource that they may not see neither keeps it nor tells them that it was there."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from gateway.model.partner import Partner
from gateway.model.store import Store
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital
from tests.world import World

CODE = {"coding": [{"system": "https://y.example/ns/codes", "code": "essai"}]}


@pytest.fixture
def ehr(world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


@pytest.fixture
def other(store: Store, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    """A hospital with nothing in common with the first."""
    with store.session() as session:
        partner = Partner(name="Clinique Y", patient_domains=["https://y.example/ipp"])
        session.add(partner)
        session.commit()
    with admit(partner, scopes=ALL_SCOPES).client() as client:
        yield client


def _post(client: httpx.Client, kind: str, **tree: Any) -> str:
    made = client.post(kind, json={"resourceType": kind, **tree})
    assert made.status_code == 201, made.text
    return f"{kind}/{made.json()['id']}"


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


def _to(reference: str) -> dict[str, str]:
    return {"reference": reference}


def _someone(client: httpx.Client, ipp: str = "000042", domain: str | None = None) -> str:
    tree = samples.patient(ipp, ins=None, **({"domain": domain} if domain else {}))
    made = client.post("Patient", json=tree)
    assert made.status_code == 201, made.text
    return f"Patient/{made.json()['id']}"


def _naming(client: httpx.Client, subject: str, target: str) -> list[str]:
    """Whatever may refer to anything, referring to one resource."""
    about = {"status": "final", "code": CODE, "subject": _to(subject)}
    link = {"type": "seealso", "other": _to(target if target.startswith("Patient/") else subject)}
    with_link = samples.patient(target[-6:], domain="https://y.example/ipp", ins=None) | {"link": [link]}
    return [
        _post(client, "Observation", **about, focus=[_to(target)]),
        _post(client, "Observation", **about, focus=[_to(f"{target}/_history/1")]),
        _post(client, "List", status="current", mode="working", entry=[{"item": _to(target)}]),
        _post(
            client,
            "Provenance",
            target=[_to(target)],
            recorded="2026-03-09T09:00:00+01:00",
            agent=[{"who": _to(subject)}],
        ),
        _post(client, "Basic", code=CODE, extension=[{"url": "https://y.example/lien", "valueReference": _to(target)}]),
        _post(client, with_link.pop("resourceType"), **with_link),
    ]


def test_a_stranger_s_references_do_not_keep_what_he_may_not_see(ehr: httpx.Client, other: httpx.Client) -> None:
    patient = _someone(ehr)
    reading = _post(ehr, "Observation", status="final", code=CODE, subject=_to(patient))
    place = _post(ehr, "Location", name="Salle")
    his = _someone(other, "000001", "https://y.example/ipp")
    for target in (reading, place, patient):
        kept = _naming(other, his, target)
        before = [other.get(one).text for one in kept]
        gone = ehr.delete(target)
        assert gone.status_code == 204, (target, gone.text)
        assert ehr.get(target).status_code == 410
        # His own stand as he wrote them, and he learns nothing.
        assert [other.get(one).text for one in kept] == before
        assert other.get(target).status_code == 404


def test_what_he_names_reads_the_same_to_him_whether_it_is_there_or_not(ehr: httpx.Client, other: httpx.Client) -> None:
    """Before it was there, while it is, and once it is deleted: no answer tells them apart."""
    place, never = _post(ehr, "Location", name="Salle"), f"Location/{uuid.uuid4()}"
    gone = _post(ehr, "Location", name="Autre salle")
    assert ehr.delete(gone).status_code == 204
    told = []
    for target in (place, never, gone):
        made = other.post(
            "List",
            json={"resourceType": "List", "status": "current", "mode": "working", "entry": [{"item": _to(target)}]},
        )
        found = other.get(f"List?_id={made.json()['id']}&_include=List:item")
        told.append((made.status_code, len(found.json()["entry"]), other.get(f"List?item={target}").json()["total"]))
    assert told == [(201, 1, 1)] * 3
    # The owner himself is refused.
    refused = ehr.post(
        "List", json={"resourceType": "List", "status": "current", "mode": "working", "entry": [{"item": _to(gone)}]}
    )
    assert (refused.status_code, _code(refused)) == (422, "reference-supprimee")


def test_one_s_own_references_keep_it_however_many_strangers_refer_too(ehr: httpx.Client, other: httpx.Client) -> None:
    patient = _someone(ehr)
    his = _someone(other, "000001", "https://y.example/ipp")
    reading = _post(ehr, "Observation", status="final", code=CODE, subject=_to(patient))
    _naming(other, his, reading)
    mine = _post(ehr, "Observation", status="final", code=CODE, subject=_to(patient), derivedFrom=[_to(reading)])
    refused = ehr.delete(reading)
    assert (refused.status_code, _code(refused)) == (409, "ressource-utilisee")
    text = refused.json()["issue"][0]["details"]["text"]
    assert "Observation" in text
    # Nor is said what strangers wrote.
    assert not {"List", "Provenance", "Basic", "Patient"} & set(text.replace(",", " ").split())
    assert ehr.delete(mine).status_code == 204
    assert ehr.delete(reading).status_code == 204


def test_the_session_of_another_s_rcp_keeps_nobody_else_s_resource(
    world: World, ehr: httpx.Client, home: httpx.Client
) -> None:
    patient = _someone(ehr)
    reading = _post(ehr, "Observation", status="final", code=CODE, subject=_to(patient))
    agenda = _post(home, "List", status="current", mode="working", title="Ordre du jour")
    made = home.post(
        "Appointment",
        json={
            "resourceType": "Appointment",
            "status": "booked",
            "start": "2026-03-26T14:00:00+01:00",
            "end": "2026-03-26T16:00:00+01:00",
            "supportingInformation": [_to(reading), _to(agenda)],
            "participant": [
                {
                    "actor": {
                        "type": "HealthcareService",
                        "identifier": {
                            "system": "urn:oid:1.2.250.1.161.1.20.3.1",
                            "value": world.rcp.national_number,
                        },
                    },
                    "status": "accepted",
                }
            ],
        },
    )
    assert made.status_code == 201, made.text
    assert {reading, agenda} <= {one["reference"] for one in made.json()["supportingInformation"]}
    assert ehr.delete(reading).status_code == 204
    refused = home.delete(agenda)
    assert (refused.status_code, _code(refused)) == (409, "ressource-utilisee")
    assert "Appointment" in refused.text
