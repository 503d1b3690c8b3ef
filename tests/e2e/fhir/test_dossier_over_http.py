"""What a requester may still do with his inscription over FHIR, and what only the gateway may."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from gateway.model.directory import Organisation
from gateway.model.dossier import Dossier
from gateway.model.store import Store
from gateway.rcp import access
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Hospital
from tests.world import World

START = "2026-03-19T14:00:00+01:00"


@pytest.fixture
def pushed(world: World, hospital: Hospital) -> dict[str, str]:
    with hospital.client() as ehr:
        answer = ehr.post(
            "",
            json=samples.transaction(
                rcp=world.rcp.national_number,
                start=START,
                requester=world.requester.idnps,
                treating=world.treating.rpps,
            ),
        )
    assert answer.status_code == 200, answer.text
    locations = [entry["response"]["location"].partition("/_history")[0] for entry in answer.json()["entry"]]
    return {location.partition("/")[0]: location for location in locations}


def _dossier(store: Store) -> Dossier:
    with store.session() as session:
        return session.scalars(select(Dossier)).unique().one()


def test_a_task_is_cancelled_with_its_version_and_nothing_else_is_moved(
    store: Store, hospital: Hospital, pushed: dict[str, str]
) -> None:
    with hospital.client() as ehr:
        read = ehr.get(pushed["Task"])
        task: dict[str, Any] = read.json()
        etag = read.headers["etag"]
        assert ehr.put(pushed["Task"], json=task).status_code == 428
        forged = copy.deepcopy(task)
        forged["status"] = "completed"
        refused = ehr.put(pushed["Task"], json=forged, headers={"If-Match": etag})
        assert refused.status_code == 422
        assert refused.json()["issue"][0]["details"]["coding"][0]["code"] == "passage-impossible"
        forged = copy.deepcopy(task)
        forged["businessStatus"]["coding"][0]["code"] = "discute"
        assert ehr.put(pushed["Task"], json=forged, headers={"If-Match": etag}).status_code == 422
        assert _dossier(store).state == "prefiche"
        task["status"] = "cancelled"
        task["note"] = [{"text": "Patient hospitalisé"}]
        done = ehr.put(pushed["Task"], json=task, headers={"If-Match": etag})
        assert done.status_code == 200, done.text
        assert done.json()["businessStatus"]["coding"][0]["code"] == "annule"
        assert done.json()["note"] == [{"text": "Patient hospitalisé"}]
        assert ehr.get(pushed["ServiceRequest"]).json()["status"] == "revoked"
        stale = ehr.put(pushed["Task"], json=task, headers={"If-Match": etag})
        assert stale.status_code == 412
    assert _dossier(store).state == "annule"


def test_the_form_changes_until_the_discussion(store: Store, hospital: Hospital, pushed: dict[str, str]) -> None:
    with hospital.client() as ehr:
        form = ehr.get(pushed["QuestionnaireResponse"]).json()
        form["item"][0]["item"][0]["answer"][0]["valueString"] = "Et la radiothérapie ?"
        changed = ehr.put(pushed["QuestionnaireResponse"], json=form)
        assert (changed.status_code, changed.headers["etag"]) == (200, 'W/"2"')
        assert _dossier(store).question == "Et la radiothérapie ?"
        with store.session() as session:
            row = session.scalars(select(Dossier)).unique().one()
            row.state = "discute"
            session.commit()
        form["status"] = "amended"
        refused = ehr.put(pushed["QuestionnaireResponse"], json=form)
        assert refused.status_code == 409
        assert "formulaire-clos" in refused.text
        assert ehr.get(pushed["QuestionnaireResponse"]).headers["etag"] == 'W/"2"'


def test_same_patient_session_and_tumour_twice_is_a_conflict(
    world: World, hospital: Hospital, pushed: dict[str, str]
) -> None:
    def again(tumour: str) -> Any:
        return samples.transaction(
            rcp=world.rcp.national_number,
            start=START,
            requester=world.requester.idnps,
            treating=world.treating.rpps,
            tumour=tumour,
        )

    del pushed
    with hospital.client() as ehr:
        refused = ehr.post("", json=again("T-1"))
        assert refused.status_code == 409
        assert refused.json()["issue"][0]["details"]["coding"][0]["code"] == "dossier-deja-inscrit"
        assert ehr.post("", json=again("T-2")).status_code == 200


def test_what_others_own_is_not_written(world: World, admit: Callable[..., Hospital], store: Store) -> None:
    rcp = {"system": "urn:oid:1.2.250.1.161.1.20.3.1", "value": world.rcp.national_number}
    with store.session() as session:
        structure = session.get_one(Organisation, world.organisation.id).idnst
    with store.session() as session:
        world.session = session
        dossier = world.dossier()
        session.commit()
        subject = {"reference": f"Patient/{dossier.record_id}"}
    care = samples.RCP_CARE
    about = [{"reference": f"ServiceRequest/{dossier.id}"}]
    bodies: dict[str, dict[str, Any]] = {
        "HealthcareService": {"identifier": [rcp], "name": "x"},
        "Appointment": {
            "status": "booked",
            "start": START,
            "end": "2026-03-19T16:00:00+01:00",
            "participant": [{"status": "accepted", "actor": {"identifier": rcp}}],
        },
        "Practitioner": {
            "identifier": [{"system": "https://rpps.esante.gouv.fr", "value": world.treating.rpps}],
            "name": [{"family": "x"}],
        },
        "Organization": {"identifier": [{"system": "urn:oid:1.2.250.1.71.4.2.2", "value": structure}], "name": "x"},
        "Encounter": {
            "status": "finished",
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "VR"},
            "type": [care],
            "subject": subject,
            "basedOn": about,
        },
        "CarePlan": {
            "status": "active",
            "intent": "proposal",
            "category": [
                {"coding": [{"system": "https://rcp.example.org/fhir/CodeSystem/rcp-plan", "code": "avis-rcp"}]}
            ],
            "subject": subject,
            "encounter": {"reference": f"Encounter/{dossier.id}"},
        },
    }
    everything = "system/*.cruds"
    # What stands here is represented when the inscription is first touched.
    served = admit(world.partner, scopes=everything)
    served.served.steps.run(access.SYSTEM, lambda step: step.touch(*step.lock(Dossier, dossier.id)))
    with served.client(everything) as ehr:
        for kind, body in bodies.items():
            refused = ehr.post(kind, json={"resourceType": kind} | body)
            assert refused.status_code == 403, (kind, refused.text)
            assert refused.json()["issue"][0]["details"]["coding"][0]["code"] == "proprietaire", kind
            assert refused.json()["language"] == "fr"
        shown = {"Encounter": dossier.id, "HealthcareService": world.rcp.id, "Organization": world.organisation.id}
        for kind, key in shown.items():
            there = ehr.get(f"{kind}/{key}").json()
            assert ehr.put(f"{kind}/{key}", json=there).status_code == 403, kind
            assert ehr.delete(f"{kind}/{key}").status_code == 403, kind


def test_a_known_professional_is_recognised_and_left_aside(world: World, admit: Callable[..., Hospital]) -> None:
    tree = {
        "resourceType": "Practitioner",
        "identifier": [{"system": "https://rpps.esante.gouv.fr", "value": world.treating.rpps}],
        "name": [{"family": "AUTRE"}],
    }
    number = world.treating.rpps
    everything = "system/*.cruds"
    with admit(world.partner, scopes=everything).client(everything) as ehr:
        condition = {"If-None-Exist": f"identifier=https://rpps.esante.gouv.fr|{number}"}
        found = ehr.post("Practitioner", json=tree, headers=condition)
        assert found.status_code == 200, found.text
        assert found.json()["name"][0]["family"] == world.treating.family
        read = ehr.get(f"Practitioner?identifier=https://rpps.esante.gouv.fr|{number}")
        assert read.json()["total"] == 1
        unknown = {"If-None-Exist": "identifier=https://rpps.esante.gouv.fr|10999999999"}
        assert ehr.post("Practitioner", json=tree, headers=unknown).status_code == 403


def test_a_condition_without_a_known_patient_is_refused(hospital: Hospital) -> None:
    with hospital.client() as ehr:
        refused = ehr.post("Condition", json=samples.condition("Patient/inconnu"))
        assert refused.status_code == 422
        assert refused.json()["issue"][0]["details"]["coding"][0]["code"] == "patient-inconnu"
