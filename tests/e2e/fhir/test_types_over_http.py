"""Each type is written, read, changed and found by its owner, and does not exist for another establishment."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway.fhir.owners import WRITABLE
from gateway.model.partner import Partner
from tests.e2e.fhir import minimal, samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Shared, register

#: Types whose content a verb reads: they have tests of their own.
BY_VERB = frozenset({"Patient", "ServiceRequest", "Task"})
KEPT = tuple(kind for kind in WRITABLE if kind not in BY_VERB)
OTHER_DOMAIN = "https://clinique-y.example/ns/ipp"


@dataclass
class Scene:
    """Two establishments, one patient each, and what the first may refer to."""

    ours: httpx.Client
    theirs: httpx.Client
    known: dict[str, str]
    other_patient: str


@pytest.fixture(scope="module")
def scene(shared: Shared) -> Iterator[Scene]:
    with shared.served.store.session() as session:
        other = Partner(name="Clinique Y", patient_domains=[OTHER_DOMAIN])
        session.add(other)
        session.commit()
    stranger = register(shared.served, other, scopes=ALL_SCOPES)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(shared.hospital.client())
        theirs = stack.enter_context(stranger.client())
        known = minimal.fill(ours, shared.world.rcp.national_number, shared.world.requester.idnps)
        made = theirs.post("Patient", json=samples.patient("Y-1", domain=OTHER_DOMAIN, ins=None))
        yield Scene(ours, theirs, known, made.json()["id"])


def _said(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name not in {"id", "meta"}}


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


@pytest.mark.parametrize("kind", KEPT)
def test_its_owner_writes_reads_changes_and_finds_it(scene: Scene, kind: str) -> None:
    sent = minimal.resource(kind, scene.known) | {"language": "fr"}
    made = scene.ours.post(kind, json=sent)
    assert made.status_code == 201, made.text
    here = f"{kind}/{made.json()['id']}"
    read = scene.ours.get(here)
    assert (read.status_code, read.headers["etag"]) == (200, 'W/"1"')
    assert _said(read.json()) == sent
    changed = scene.ours.put(here, json=read.json() | {"language": "en"})
    assert (changed.status_code, changed.headers["etag"]) == (200, 'W/"2"'), changed.text
    assert _said(scene.ours.get(f"{here}/_history/1").json()) == sent
    if kind != "Binary":
        found = scene.ours.get(kind, params={"_id": made.json()["id"], "_total": "accurate"}).json()
        assert (found["total"], found["entry"][0]["resource"]["language"]) == (1, "en")


@pytest.mark.parametrize("kind", KEPT)
def test_it_does_not_exist_for_another_establishment(scene: Scene, kind: str) -> None:
    made = scene.ours.post(kind, json=minimal.resource(kind, scene.known))
    here = f"{kind}/{made.json()['id']}"
    assert scene.theirs.get(here).status_code == 404
    assert scene.theirs.get(f"{here}/_history").status_code == 404
    assert scene.theirs.get(f"{here}/_history/1").status_code == 404
    refused = scene.theirs.put(here, json=made.json() | {"language": "en"})
    assert refused.status_code == 404, refused.text
    if kind != "Binary":
        assert not scene.theirs.get(kind, params={"_id": made.json()["id"]}).json().get("entry")
    assert scene.theirs.delete(here).status_code == 204
    assert scene.ours.get(here).headers["etag"] == 'W/"1"'


#: Where each type names its patient, by hand from R4's definitions.
NAMES: dict[str, Any] = {
    "RelatedPerson": lambda to: {"patient": to},
    "CareTeam": lambda to: {"subject": to},
    "Encounter": lambda to: {"subject": to},
    "Condition": lambda to: {"subject": to},
    "QuestionnaireResponse": lambda to: {"subject": to},
    "Observation": lambda to: {"subject": to},
    "DiagnosticReport": lambda to: {"subject": to},
    "ImagingStudy": lambda to: {"subject": to},
    "CarePlan": lambda to: {"subject": to},
    "Composition": lambda to: {"subject": to},
    "DocumentReference": lambda to: {"subject": to},
    "CommunicationRequest": lambda to: {"subject": to},
    "Communication": lambda to: {"subject": to},
    "Consent": lambda to: {"patient": to},
    "List": lambda to: {"subject": to},
    "Basic": lambda to: {"subject": to},
    "Group": lambda to: {"member": [{"entity": to}]},
    "Schedule": lambda to: {"actor": [to]},
    "Appointment": lambda to: {"participant": [{"status": "accepted", "actor": to}]},
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_patient_who_does_not_exist_for_the_writer_is_named_by_nothing(scene: Scene, kind: str) -> None:
    for unknown in (scene.other_patient, str(uuid.uuid4()), "inconnu"):
        tree = minimal.resource(kind, scene.known) | NAMES[kind]({"reference": f"Patient/{unknown}"})
        refused = scene.ours.post(kind, json=tree)
        assert (refused.status_code, _code(refused)) == (422, "patient-inconnu"), (kind, refused.text)


@pytest.mark.parametrize("kind", ["Observation", "Condition", "Consent", "CarePlan", "RelatedPerson"])
def test_a_patient_may_be_named_by_his_own_number(scene: Scene, shared: Shared, kind: str) -> None:
    patient = scene.ours.get(scene.known["Patient"]).json()
    number = next(one for one in patient["identifier"] if one["use"] == "usual")
    to = {"type": "Patient", "identifier": {"system": number["system"], "value": number["value"]}}
    made = scene.ours.post(kind, json=minimal.resource(kind, scene.known) | NAMES[kind](to))
    assert made.status_code == 201, made.text
    with shared.served.store.session() as session:
        table = f"fhir_{kind.lower()}"
        row = session.connection().exec_driver_sql(f"SELECT record_id FROM {table} WHERE id = %s", (made.json()["id"],))
        assert str(row.scalar()) == patient["id"]


@pytest.mark.parametrize(
    ("kind", "based"),
    [
        ("Observation", lambda known: {"basedOn": [{"reference": known["ServiceRequest"]}]}),
        ("DiagnosticReport", lambda known: {"basedOn": [{"reference": known["ServiceRequest"]}]}),
        ("Communication", lambda known: {"partOf": [{"reference": known["Task"]}]}),
        ("CommunicationRequest", lambda known: {"about": [{"reference": known["ServiceRequest"]}]}),
        ("CarePlan", lambda known: {"supportingInfo": [{"reference": known["ServiceRequest"]}]}),
        ("DocumentReference", lambda known: {"context": {"related": [{"reference": known["ServiceRequest"]}]}}),
        ("Provenance", lambda known: {"target": [{"reference": known["ServiceRequest"]}]}),
    ],
)
def test_what_is_about_a_dossier_is_of_that_dossier_and_of_its_patient(
    scene: Scene, shared: Shared, kind: str, based: Any
) -> None:
    about = based(scene.known)
    subject = (
        {} if kind == "Provenance" else {"subject": scene.ours.get(scene.known["ServiceRequest"]).json()["subject"]}
    )
    made = scene.ours.post(kind, json=minimal.resource(kind, scene.known) | about | subject)
    assert made.status_code == 201, made.text
    dossier = scene.known["ServiceRequest"].partition("/")[2]
    with shared.served.store.session() as session:
        asked = f"SELECT dossier_id FROM fhir_{kind.lower()} WHERE id = %s"
        row = session.connection().exec_driver_sql(asked, (made.json()["id"],))
        assert str(row.scalar()) == dossier
    if kind == "Provenance":
        return
    another = scene.ours.post("Patient", json=minimal.resource("Patient", scene.known)).json()["id"]
    foreign = minimal.resource(kind, scene.known) | about | {"subject": {"reference": f"Patient/{another}"}}
    refused = scene.ours.post(kind, json=foreign)
    assert (refused.status_code, _code(refused)) == (422, "patient-different"), refused.text
