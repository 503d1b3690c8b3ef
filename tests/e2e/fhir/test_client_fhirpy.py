"""fhirpy, which nobody here wrote, against the whole gateway over real HTTP: its whole vocabulary of a search."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fhirpy import AsyncFHIRClient, SyncFHIRClient
from fhirpy.base.exceptions import AuthorizationError, MultipleResourcesFound, OperationOutcome, ResourceNotFound

from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Shared
from tests.world import DOMAIN

CODES = "https://chu-x.example/ns/mesure"
UCUM = "http://unitsofmeasure.org"


def _token(shared: Shared) -> str:
    return f"Bearer {shared.hospital.ask_token().json()['access_token']}"


@pytest.fixture(scope="module")
def client(shared: Shared) -> SyncFHIRClient:
    return SyncFHIRClient(shared.served.base, authorization=_token(shared))


@pytest.fixture(scope="module")
def people(client: SyncFHIRClient) -> list[Any]:
    """Three patients, the first with accents in her name."""
    named = [
        ("910001", "DÉLÉTRÉ", "1950-05-01"),
        ("910002", "DELETRAZ", "1961-11-30"),
        ("910003", "BRUN", "1961-12-02"),
    ]
    return [
        client.resource("Patient", **samples.patient(ipp, ins=None, family=family, birth_date=born)).save()
        for ipp, family, born in named
    ]


@pytest.fixture(scope="module")
def measures(client: SyncFHIRClient, people: list[Any]) -> list[Any]:
    """Seven sizes of the first patient's tumour, one of the second's, in one batch."""
    entries = []
    for number in range(8):
        tree = client.resource(
            "Observation",
            identifier=[{"system": CODES, "value": f"py-{number}"}],
            status="final" if number % 2 else "preliminary",
            code={"coding": [{"system": CODES, "code": "taille"}], "text": "Taille de la tumeur"},
            subject=people[number // 7].to_reference(),
            effectiveDateTime=f"2026-01-{number + 1:02d}T10:00:00+01:00",
            valueQuantity={"value": 10 + number, "unit": "mm", "system": UCUM, "code": "mm"},
        )
        entries.append({"resource": tree.serialize(), "request": {"method": "POST", "url": "Observation"}})
    answered = client.resource("Bundle", type="batch", entry=entries).serialize()
    answered = client.execute("", data=answered)
    assert {entry.response.status.split(" ")[0] for entry in answered.entry} == {"201"}
    return [client.reference(reference="/".join(e.response.location.split("/")[-4:-2])) for e in answered.entry]


def test_a_resource_is_saved_refreshed_and_validated(client: SyncFHIRClient, people: list[Any]) -> None:
    person = client.get("Patient", people[0].id)
    assert person["name"][0]["family"] == "DÉLÉTRÉ"
    tree = client.resource("Patient", **person)
    tree["telecom"] = [{"system": "phone", "value": "0102030405"}]
    tree.save()
    assert tree["meta"]["versionId"] == "2"
    assert people[0].refresh()["telecom"] == tree["telecom"]
    assert tree.is_valid()
    tree["gender"] = "perhaps"
    assert not tree.is_valid()
    with pytest.raises(OperationOutcome) as refused:
        tree.save()
    assert refused.value.resource["issue"][0]["expression"] == ["Patient.gender"]


SEARCHES = [
    ({"family": "deletre"}, ["DÉLÉTRÉ"]),
    ({"family": "délétr"}, ["DELETRAZ", "DÉLÉTRÉ"]),
    ({"family__exact": "BRUN"}, ["BRUN"]),
    ({"family__contains": "ELETR"}, ["DELETRAZ", "DÉLÉTRÉ"]),
    ({"birthdate__ge": "1961", "birthdate__lt": "1961-12-02"}, ["DELETRAZ"]),
    ({"birthdate": "1961"}, ["BRUN", "DELETRAZ"]),
    ({"birthdate__ap": "1961-12-02", "family": "brun"}, ["BRUN"]),
    ({"gender__not": "female"}, []),
    ({"identifier": f"{DOMAIN}|910002,{DOMAIN}|910003"}, ["BRUN", "DELETRAZ"]),
    ({"organization__missing": True, "birthdate": "1950"}, ["DÉLÉTRÉ"]),
    ({"active": True, "birthdate": "1950"}, ["DÉLÉTRÉ"]),
]


@pytest.mark.parametrize(("asked", "found"), SEARCHES, ids=[str(asked) for asked, _ in SEARCHES])
def test_its_search_operators_find(
    client: SyncFHIRClient, people: list[Any], asked: dict[str, Any], found: list[str]
) -> None:
    base = client.resources("Patient").search(_id=",".join(one.id for one in people))
    assert sorted(one["name"][0]["family"] for one in base.search(**asked).fetch_all()) == found


def test_its_chains_and_reverse_chains_find(client: SyncFHIRClient, people: list[Any], measures: list[Any]) -> None:
    sizes = client.resources("Observation").search(code=f"{CODES}|taille")
    assert sizes.search(patient__family="deletre").count() == 7
    assert sizes.search(subject__Patient__birthdate__ge="1961").count() == 1
    assert sizes.search(patient__identifier=f"{DOMAIN}|910002").count() == 1
    assert sizes.search(value_quantity__gt=f"15|{UCUM}|mm").count() == 2
    assert sizes.search(value_quantity=f"15|{UCUM}|mm").count() == 1
    measured = client.resources("Patient").has("Observation", "patient", code=f"{CODES}|taille")
    assert sorted(one.id for one in measured.fetch_all()) == sorted(one.id for one in people[:2])
    # The client's own count: `_count=0` and a `total`, with a parameter of its own that we do not know.
    assert measured.count() == 2


def test_pages_are_followed_to_the_end_in_order(client: SyncFHIRClient, measures: list[Any]) -> None:
    sizes = client.resources("Observation").search(code=f"{CODES}|taille")
    days = [one["effectiveDateTime"][:10] for one in sizes.sort("-date").limit(3)]
    assert days == [f"2026-01-{day:02d}" for day in range(8, 0, -1)]
    first = sizes.sort("date").first()
    assert first["valueQuantity"]["value"] == 10
    with pytest.raises(MultipleResourcesFound):
        sizes.get()
    assert sizes.search(identifier=f"{CODES}|py-3").get()["status"] == "final"
    with pytest.raises(ResourceNotFound):
        sizes.search(identifier=f"{CODES}|nothing").get()


def test_includes_and_elements(client: SyncFHIRClient, people: list[Any], measures: list[Any]) -> None:
    sizes = client.resources("Observation").search(identifier=f"{CODES}|py-7").include("Observation", "patient")
    raw = sizes.fetch_raw()
    assert [(entry.search.mode, entry.resource.resource_type) for entry in raw.entry] == [
        ("match", "Observation"),
        ("include", "Patient"),
    ]
    assert [one.id for one in sizes.fetch()] == [raw.entry[0].resource.id]
    holders = client.resources("Patient").search(_id=people[1].id).revinclude("Observation", "subject").fetch_raw()
    assert [entry.resource.resource_type for entry in holders.entry] == ["Patient", "Observation"]
    bare = client.resources("Observation").search(identifier=f"{CODES}|py-7").elements("status").fetch()[0]
    # What R4 says must be there stays [FHIR R4 search#elements]; the rest is not sent.
    assert {"status", "code", "id", "meta"} <= set(bare)
    assert "effectiveDateTime" not in bare
    assert bare["meta"]["tag"][0]["code"] == "SUBSETTED"


def test_a_json_patch_goes_through_its_raw_door(shared: Shared, measures: list[Any]) -> None:
    door = SyncFHIRClient(
        shared.served.base,
        authorization=_token(shared),
        extra_headers={"Content-Type": "application/json-patch+json"},
    )
    patched = door.execute(
        measures[6].reference, method="patch", data=[{"op": "replace", "path": "/status", "value": "amended"}]
    )
    assert (patched.status, patched.meta.versionId) == ("amended", "2")


def test_its_own_merge_patch_is_refused_because_no_standard_has_it(measures: list[Any]) -> None:
    with pytest.raises(OperationOutcome) as refused:
        measures[5].patch(status="amended")
    assert refused.value.resource["resourceType"] == "OperationOutcome"
    assert measures[5].to_resource()["meta"]["versionId"] == "1"


def test_conditional_update_delete_and_the_gone(client: SyncFHIRClient, people: list[Any]) -> None:
    tree = {
        "resourceType": "Observation",
        "identifier": [{"system": CODES, "value": "py-cond"}],
        "status": "final",
        "code": {"text": "Poids"},
        "subject": {"reference": f"Patient/{people[2].id}"},
        "valueQuantity": {"value": 70.50, "unit": "kg", "system": UCUM, "code": "kg"},
    }
    one = client.resources("Observation").search(identifier=f"{CODES}|py-cond")
    made, created = one.update(client.resource("Observation", **tree))
    assert created
    same, created = one.update(client.resource("Observation", **(tree | {"status": "amended"})))
    assert (created, same.id, same["meta"]["versionId"]) == (False, made.id, "2")
    _, status = one.delete()
    assert status in {200, 204}
    with pytest.raises(ResourceNotFound):
        client.get("Observation", made.id)
    assert one.fetch() == []


def test_many_writers_at_once_through_its_asynchronous_side(shared: Shared, people: list[Any]) -> None:
    async def run() -> list[str]:
        client = AsyncFHIRClient(shared.served.base, authorization=_token(shared))

        async def one(number: int) -> str:
            tree = client.resource(
                "Condition",
                identifier=[{"system": CODES, "value": f"async-{number}"}],
                code={"text": "Antécédent"},
                subject={"reference": f"Patient/{people[2].id}"},
            )
            return str((await tree.save()).id)

        await asyncio.gather(*(one(number) for number in range(8)))
        found = client.resources("Condition").search(patient=people[2].id).limit(3)
        return [str(each["identifier"][0]["value"]) async for each in found]

    assert sorted(asyncio.run(run())) == [f"async-{number}" for number in range(8)]


def test_a_bad_token_is_an_authorization_error(shared: Shared) -> None:
    with pytest.raises(AuthorizationError):
        SyncFHIRClient(shared.served.base, authorization="Bearer x.y.z").resources("Patient").fetch()
