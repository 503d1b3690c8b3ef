"""Orders of images that a software writes over real HTTP: the images that answer them find their patient."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.model.imaging import AwaitedStudy, Study, StudyDossier
from gateway.model.person import PatientRecord
from gateway.model.store import Store
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Hospital
from tests.image_samples import STUDY, facts, send
from tests.world import World

RIS = "https://ris.chu-x.example/ns/accession"
ACSN = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]}
PLAC = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PLAC"}]}
IMAGING = {"coding": [{"system": "http://snomed.info/sct", "code": "363679005"}]}
MR = {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "MR"}


def orders(patient: str) -> dict[str, dict[str, Any]]:
    """One order of each type, each with the number ACC-1."""
    number = {"type": ACSN, "system": RIS, "value": "ACC-1"}
    subject = {"reference": f"Patient/{patient}"}
    return {
        "ServiceRequest": {
            "resourceType": "ServiceRequest",
            "identifier": [number],
            "status": "active",
            "intent": "order",
            "category": [IMAGING],
            "code": {"text": "IRM mammaire"},
            "orderDetail": [{"coding": [MR]}],
            "subject": subject,
            "occurrenceDateTime": "2026-03-10T09:00:00+01:00",
        },
        "ImagingStudy": {
            "resourceType": "ImagingStudy",
            "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}],
            "status": "registered",
            "modality": [MR],
            "subject": subject,
            "description": "IRM mammaire",
        },
        "Task": {
            "resourceType": "Task",
            "identifier": [number],
            "status": "requested",
            "intent": "order",
            "code": {"text": "IRM mammaire"},
            "for": subject,
        },
        "Appointment": {
            "resourceType": "Appointment",
            "identifier": [number],
            "status": "booked",
            "description": "IRM mammaire",
            "start": "2026-03-10T09:00:00+01:00",
            "end": "2026-03-10T09:30:00+01:00",
            "participant": [{"actor": subject, "status": "accepted"}],
        },
    }


@pytest.fixture
def session(store: Store):
    with store.session() as session:
        yield session


@pytest.fixture
def hospital(world: World, admit) -> Hospital:
    """The hospital, whose software may write and delete all that orders images."""
    return admit(world.partner, scopes="system/*.cruds")


@pytest.fixture
def patient(world: World, hospital: Hospital, session: Session) -> str:
    """A patient with a dossier, as his hospital's software wrote him."""
    with hospital.client() as ehr:
        assert ehr.put(
            "Patient?identifier=https://chu-x.example/ns/ipp|000003", json=samples.patient("000003")
        ).is_success
    world.session = session
    record = session.scalars(select(PatientRecord)).one()
    world.dossier(record)
    session.commit()
    return str(record.id)


def arrived(world: World, hospital: Hospital, session: Session, **more: Any) -> tuple[str, list[str]]:
    said = facts(patient=None, accession=(RIS, "ACC-1"), modality="MR", **more)
    assert send(hospital.served.steps, world, said) is None
    session.rollback()
    session.expire_all()
    return session.scalars(select(Study.state)).one(), list(session.scalars(select(StudyDossier.basis)))


@pytest.mark.parametrize("kind", ["ServiceRequest", "ImagingStudy", "Task", "Appointment"])
def test_images_follow_the_order_that_a_software_wrote(world, hospital, session, patient, kind):
    with hospital.client() as ehr:
        answer = ehr.post(kind, json=orders(patient)[kind])
        assert answer.status_code == 201, answer.text
    awaited = session.scalars(select(AwaitedStudy)).one()
    assert (awaited.source, awaited.label) == (f"{kind}/{answer.json()['id']}", "IRM mammaire")
    if kind in {"ServiceRequest", "Appointment"}:
        assert awaited.planned_on == date(2026, 3, 10)
    assert arrived(world, hospital, session) == ("rattache", ["demande"])
    # Seen over FHIR as any study of the patient.
    with hospital.client() as ehr:
        found = ehr.get(f"ImagingStudy?identifier=urn:dicom:uid|urn:oid:{STUDY}&status=available").json()
        assert [one["resource"]["subject"]["reference"] for one in found["entry"]] == [f"Patient/{patient}"]


@pytest.mark.parametrize("kind", ["ServiceRequest", "Task", "Appointment"])
def test_a_study_names_the_order_that_it_answers_while_there_is_one(world, hospital, session, patient, kind):
    with hospital.client() as ehr:
        first = ehr.post(kind, json=orders(patient)[kind]).json()
        assert arrived(world, hospital, session) == ("rattache", ["demande"])
        here = f"{kind}/{first['id']}"

        def named() -> list[str]:
            [entry] = ehr.get(f"ImagingStudy?identifier=urn:dicom:uid|urn:oid:{STUDY}").json()["entry"]
            return [one["reference"] for one in entry["resource"].get("basedOn", ())]

        assert named() == [here]
        found = ehr.get(f"ImagingStudy?basedon={here}").json()
        assert found["total"] == 1
        # One more order of the same number comes after the images, and is deleted again.
        second = ehr.post(kind, json=orders(patient)[kind]).json()
        assert named() == [here, f"{kind}/{second['id']}"]
        assert ehr.delete(f"{kind}/{second['id']}").status_code in {200, 204}
        assert named() == [here]
        # An order of another number is none of this study's.
        other = orders(patient)[kind]
        other["identifier"] = [{"type": ACSN, "system": RIS, "value": "ACC-2"}]
        assert ehr.post(kind, json=other).status_code == 201
        assert named() == [here]


def test_an_order_that_is_cancelled_or_deleted_brings_nothing(world, hospital, session, patient):
    tree = orders(patient)["ServiceRequest"]
    with hospital.client() as ehr:
        first, second = (ehr.post("ServiceRequest", json=tree).json() for _ in range(2))
        assert len(session.scalars(select(AwaitedStudy)).all()) == 2
        assert ehr.put(f"ServiceRequest/{first['id']}", json=first | {"status": "revoked"}).status_code == 200
        assert ehr.delete(f"ServiceRequest/{second['id']}").status_code in {200, 204}
    session.rollback()
    assert session.scalars(select(AwaitedStudy)).all() == []
    assert arrived(world, hospital, session) == ("propose", [])  # by their traits, for a person


def test_a_request_that_orders_no_image_is_awaited_by_nobody(hospital, session, patient):
    tree = orders(patient)["ServiceRequest"]
    tree |= {"identifier": [{"type": PLAC, "system": RIS, "value": "BIO-1"}], "code": {"text": "Numération"}}
    del tree["category"], tree["orderDetail"]
    with hospital.client() as ehr:
        assert ehr.post("ServiceRequest", json=tree).status_code == 201
    assert session.scalars(select(AwaitedStudy)).all() == []


def test_a_patient_for_whom_images_are_ordered_is_deleted_with_the_order_or_not_at_all(hospital, session):
    with hospital.client() as ehr:
        made = ehr.put("Patient?identifier=https://chu-x.example/ns/ipp|000003", json=samples.patient("000003")).json()
        order = ehr.post("ServiceRequest", json=orders(made["id"])["ServiceRequest"]).json()
        refused = ehr.delete(f"Patient/{made['id']}")
        assert refused.status_code == 409, refused.text
        assert len(session.scalars(select(AwaitedStudy)).all()) == 1
        session.rollback()
        entries = [
            {"request": {"method": "DELETE", "url": url}}
            for url in (f"Patient/{made['id']}", f"ServiceRequest/{order['id']}")
        ]
        answer = ehr.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
        assert answer.status_code == 200, answer.text
    assert session.scalars(select(AwaitedStudy)).all() == []
    assert session.scalars(select(PatientRecord)).all() == []
