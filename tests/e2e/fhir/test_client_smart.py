"""fhirclient (SMART Health IT's own), which nobody here wrote: discovery, backend sign-in, typed models, pages."""

from __future__ import annotations

import pytest
from fhirclient.client import FHIRClient
from fhirclient.models.bundle import Bundle
from fhirclient.models.condition import Condition
from fhirclient.models.fhirsearch import FHIRSearch
from fhirclient.models.patient import Patient
from fhirclient.server import FHIRNotFoundException, FHIRUnauthorizedException
from requests import HTTPError

from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Shared
from tests.world import DOMAIN


def _client(shared: Shared) -> FHIRClient:
    return FHIRClient(
        settings={
            "app_id": shared.hospital.client_id,
            "api_base": shared.served.base,
            "scope": ALL_SCOPES,
            "jwt_token": shared.hospital.assertion(),
        }
    )


@pytest.fixture(scope="module")
def smart(shared: Shared) -> FHIRClient:
    """Signed in: the token's address is read from our CapabilityStatement by the library itself."""
    client = _client(shared)
    assert client.prepare() is False
    client.authorize()
    assert client.ready
    return client


@pytest.fixture(scope="module")
def patient(smart: FHIRClient) -> Patient:
    made = Patient(samples.patient("920001", ins=None, family="PYTHON")).create(smart.server)
    return Patient.read(made["id"], smart.server)


def test_the_statement_fits_its_strict_model(smart: FHIRClient) -> None:
    statement = smart.server.capabilityStatement
    assert statement.fhirVersion == "4.0.1"
    assert {"Patient", "Task", "ServiceRequest"} <= {one.type for one in statement.rest[0].resource}


def test_a_resource_is_read_changed_and_deleted_as_an_object(smart: FHIRClient, patient: Patient) -> None:
    assert (patient.name[0].family, patient.birthDate.isostring) == ("PYTHON", "1979-03-28")
    condition = Condition(samples.condition(patient.relativePath(), "T-SMART"))
    made = Condition.read(condition.create(smart.server)["id"], smart.server)
    made.code.text = "Tumeur du sein gauche"
    assert made.update(smart.server)["meta"]["versionId"] == "2"
    assert made.subject.resolved(Patient).name[0].family == "PYTHON"
    made.delete(smart.server)
    with pytest.raises(HTTPError, match="410"):
        Condition.read(made.id, smart.server)
    with pytest.raises(FHIRNotFoundException):
        Condition.read("nobody", smart.server)


def test_a_transaction_and_a_search_through_all_pages(smart: FHIRClient, patient: Patient) -> None:
    entries = [
        {
            "resource": samples.condition(patient.relativePath(), f"T-SMART-{number:02d}"),
            "request": {
                "method": "POST",
                "url": "Condition",
                "ifNoneExist": f"identifier=https://chu-x.example/ns/tumeur|T-SMART-{number:02d}",
            },
        }
        for number in range(11)
    ]
    pushed = Bundle({"resourceType": "Bundle", "type": "transaction", "entry": entries})
    for status in ("201", "200"):
        answered = Bundle(pushed.create(smart.server))
        assert {entry.response.status.split(" ")[0] for entry in answered.entry} == {status}
    found = FHIRSearch(Condition, {"patient": {"identifier": f"{DOMAIN}|920001"}, "_count": "4", "_sort": "_id"})
    pages = list(found.perform_iter(smart.server))
    assert [len(page.entry) for page in pages] == [4, 4, 3]
    keys = [entry.resource.identifier[0].value for page in pages for entry in page.entry]
    assert sorted(keys) == [f"T-SMART-{number:02d}" for number in range(11)]
    named = FHIRSearch(Patient, {"family": {"$exact": "PYTHON"}}).perform_resources_iter(smart.server)
    assert [one.id for one in named] == [patient.id]
    with_subject = FHIRSearch(Condition, {"identifier": "T-SMART-03"}).include("subject")
    kinds = [one.resource_type for one in with_subject.perform_resources_iter(smart.server)]
    assert kinds == ["Condition", "Patient"]


def test_an_assertion_serves_once_and_nobody_reads_without_a_token(shared: Shared, smart: FHIRClient) -> None:
    again = _client(shared)
    again.prepare()
    again.authorize()
    with pytest.raises((FHIRUnauthorizedException, HTTPError)):
        again.authorize()
    stranger = FHIRClient(settings={"app_id": "x", "api_base": shared.served.base})
    with pytest.raises(FHIRUnauthorizedException):
        Patient.read("x", stranger.server)
