"""What one client's answers, links and refusals say to another, and to one of narrower scopes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gateway.model.partner import Partner
from gateway.model.store import Store
from tests.e2e.fhir import minimal, samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital
from tests.world import World

OTHER_DOMAIN = "https://chu-y.example/ns/ipp"
JSON_PATCH = {"Content-Type": "application/json-patch+json"}


@pytest.fixture
def one(world: World, admit: Callable[..., Hospital]) -> Hospital:
    return admit(world.partner, scopes=ALL_SCOPES)


@pytest.fixture
def other(store: Store, world: World, admit: Callable[..., Hospital]) -> Hospital:
    """A hospital of the same network that runs no RCP."""
    with store.session() as session:
        partner = Partner(name="CHU Y", network_id=world.network.id, patient_domains=[OTHER_DOMAIN])
        session.add(partner)
        session.commit()
    return admit(partner, scopes=ALL_SCOPES)


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


def test_a_page_is_for_whom_it_was_made(one: Hospital, other: Hospital) -> None:
    with one.client() as ehr, other.client() as stranger:
        for number in range(3):
            made = ehr.post("Patient", json=samples.patient(f"P{number}", ins=None, family=samples.CANARY))
            assert made.status_code == 201, made.text
        for path in (f"Patient?family={samples.CANARY}&_count=1&_total=accurate", "Patient/_history?_count=1"):
            links = {link["relation"]: link["url"] for link in ehr.get(path).json()["link"]}
            assert ehr.get(links["next"]).status_code == 200
            stolen = stranger.get(links["next"])
            assert (stolen.status_code, _code(stolen)) == (400, "page-d-une-autre-recherche")
            assert samples.CANARY not in stolen.text
            assert "total" not in stolen.json()


def test_who_may_not_read_is_shown_nothing_by_what_he_writes(one: Hospital) -> None:
    with one.client() as ehr:
        known = ehr.post("Patient", json=samples.patient("P1", ins=None, family=samples.CANARY)).json()
    again = {"If-None-Exist": f"identifier={known['identifier'][0]['system']}|P1"}
    entry = {"resource": samples.patient("P1", ins=None), "request": {"method": "POST", "url": "Patient"}}
    entry["request"]["ifNoneExist"] = again["If-None-Exist"]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    with one.client(scope="system/Patient.c") as maker:
        found = maker.post("Patient", json=samples.patient("P1", ins=None), headers=again)
        assert (found.status_code, found.content) == (200, b"")
        assert f"/Patient/{known['id']}/" in found.headers["Location"]
        told = maker.post("", json=bundle, headers={"Prefer": "return=representation"})
        assert told.json()["entry"][0]["response"]["location"].startswith(f"Patient/{known['id']}/")
        assert "resource" not in told.json()["entry"][0]
    with one.client(scope="system/Patient.u") as changer:
        patched = changer.patch(f"Patient/{known['id']}", content=b"[]", headers=JSON_PATCH)
        assert (patched.status_code, patched.content) == (200, b"")
        assert patched.headers["ETag"] == 'W/"1"'


def test_nobody_learns_what_another_has_deleted(one: Hospital, other: Hospital) -> None:
    with one.client() as ehr, other.client() as stranger:
        subject = ehr.post("Patient", json=samples.patient("P1", ins=None)).json()["id"]
        kept = minimal.resource("Observation", {"Patient": f"Patient/{subject}"}, key="o-1")
        gone = ehr.post("Observation", json=kept).json()["id"]
        assert ehr.delete(f"Observation/{gone}").status_code == 204

        def refer(who: httpx.Client) -> httpx.Response:
            more = {"url": "https://chu-x.example/fhir/vu", "valueReference": {"reference": f"Observation/{gone}"}}
            return who.post("Basic", json={"resourceType": "Basic", "code": minimal.CODE, "extension": [more]})

        mine = refer(ehr)
        assert (mine.status_code, _code(mine)) == (422, "reference-supprimee")
        assert refer(stranger).status_code == 201


def test_large_bytes_are_whole_where_they_are_included_and_where_they_are_patched(one: Hospital) -> None:
    data = b64encode(bytes(range(256)) * 1024).decode("ascii")
    with one.client() as ehr:
        sent: dict[str, Any] = {"resourceType": "Binary", "contentType": "application/dicom", "data": data}
        key = ehr.post("Binary", json=sent).json()["id"]
        said = minimal.resource("Provenance", {}) | {"target": [{"reference": f"Binary/{key}"}]}
        assert ehr.post("Provenance", json=said).status_code == 201
        found = ehr.get("Provenance?_include=Provenance:target").json()["entry"]
        assert [entry["resource"]["data"] for entry in found if entry["search"]["mode"] == "include"] == [data]
        change = [{"op": "replace", "path": "/contentType", "value": "image/png"}]
        patched = ehr.patch(f"Binary/{key}", json=change, headers=JSON_PATCH)
        assert patched.status_code == 200, patched.text
        again = ehr.get(f"Binary/{key}", headers={"Accept": "application/fhir+json"}).json()
        assert (again["contentType"], again["data"]) == ("image/png", data)


def test_what_one_search_asks_is_counted_together(one: Hospital) -> None:
    with one.client() as ehr:
        assert ehr.get("Observation?focus._id=1").status_code == 200
        many = ehr.get("Observation", params=[("focus._id", "1")] * 40)
        assert (many.status_code, _code(many)) == (400, "chaine-trop-large")
        dates = ",".join(f"ge2026-01-{day:02d}" for day in range(1, 31))
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        long = ehr.post("Observation/_search", content="&".join([f"date={dates}"] * 9), headers=form)
        assert (long.status_code, _code(long)) == (400, "trop-de-parametres")
        assert "RCP_LIMIT_SEARCH_VALUES" in long.text


def test_a_name_that_nobody_proved_is_not_remembered_at_any_length(one: Hospital) -> None:
    smart = one.served.smart
    assert smart is not None
    for length in (256, 10_000):
        answer = one.ask_token(one.assertion(sub="x" * length, iss="x" * length))
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert max(map(len, smart.clients.names), default=0) <= 255


def test_what_is_moved_out_of_a_dossier_by_its_patient_is_refused(one: Hospital, world: World) -> None:
    dossier = world.dossier()
    stranger = world.record()
    world.session.commit()
    kept = minimal.resource("Observation", {"Patient": f"Patient/{dossier.record_id}"}, key="o-1")
    with one.client() as ehr:
        made = ehr.post("Observation", json=kept | {"basedOn": [{"reference": f"ServiceRequest/{dossier.id}"}]})
        assert made.status_code == 201, made.text
        moved = kept | {"id": made.json()["id"], "subject": {"reference": f"Patient/{stranger.id}"}}
        answer = ehr.put(f"Observation/{moved['id']}", json=moved)
        assert (answer.status_code, _code(answer)) == (422, "patient-different")


def test_many_operations_over_a_large_resource_are_refused(one: Hospital) -> None:
    part = [{"name": "type", "valueCode": "delete"}, {"name": "path", "valueString": "Basic.extension.where(url='x')"}]
    asked = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": part}] * 200}
    large = [{"url": "https://chu-x.example/fhir/n", "valueString": str(number)} for number in range(5_000)]
    with one.client() as ehr:
        made = ehr.post("Basic", json={"resourceType": "Basic", "code": minimal.CODE, "extension": large})
        assert made.status_code == 201, made.text
        answer = ehr.patch(f"Basic/{made.json()['id']}", json=asked)
        assert (answer.status_code, _code(answer)) == (413, "patch-demesure")
