"""A patient corrected after his images came: what the images contradict leaves his dossier, over real HTTP."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from sqlalchemy import not_, select
from sqlalchemy.orm import Session

from gateway.model.dossier import Dossier
from gateway.model.imaging import Study, StudyDossier
from gateway.model.person import PatientRecord, WorkItem
from gateway.model.representation import TABLES
from gateway.model.store import Store
from gateway.rcp import access, imaging_match
from gateway.rcp.access import SYSTEM
from gateway.rcp.step import Step
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Hospital
from tests.world import DOMAIN, World, audit_lines

UID = "1.2.250.1.999999.2026.4.2"
IMAGES = TABLES["ImagingStudy"]


def put(hospital: Hospital, tree: dict[str, Any]) -> int:
    with hospital.client() as ehr:
        return ehr.put(f"Patient?identifier={DOMAIN}|000003", json=tree).status_code


def shown(session: Session, world: World) -> list[str]:
    """Images that the treating physician is shown, whatever their version."""
    caller = world.caller(world.treating)
    wanted = select(IMAGES.c.id).where(access.representations(caller, IMAGES), not_(IMAGES.c.deleted))
    found = session.scalars(wanted).all()
    assert {str(row) for row in session.scalars(select(Study.id).where(access.studies(caller)))} == set(found)
    return list(found)


@pytest.fixture
def dossier(world: World, hospital: Hospital, store: Store) -> uuid.UUID:
    """A dossier of a patient who came over FHIR, with a study that was recognised by his IPP."""
    assert put(hospital, samples.patient("000003")) == 201
    with store.session() as session:
        world.session = session
        dossier = world.dossier(session.scalars(select(PatientRecord)).one()).id
        session.commit()

    def arrives(step: Step) -> None:
        study = Study(
            partner_id=world.partner.id,
            study_instance_uid=UID,
            state="attendu",
            patient_id="000003",
            patient_id_system=DOMAIN,
            traits={"family": "PAT-TROIS", "given": "DOMINIQUE", "birth_date": "1979-03-28", "sex": "F", "others": []},
        )
        step.session.add(study)
        step.session.flush()
        imaging_match.recognise(step, world.partner, study)
        step.touch(study)

    hospital.served.steps.run(SYSTEM, arrives)
    return dossier


@pytest.mark.parametrize(
    ("correction", "reason"),
    [
        ({"birthDate": "1980-04-01"}, "date-de-naissance-differente"),
        ({"gender": "male"}, "sexe-different"),
        ({"name": [{"use": "official", "family": "MARTIN", "given": ["DOMINIQUE"]}]}, "nom-different"),
    ],
)
def test_images_that_contradict_the_corrected_patient_leave_his_dossier(
    world: World, hospital: Hospital, store: Store, dossier: uuid.UUID, correction: dict[str, Any], reason: str
) -> None:
    with store.session() as session:
        assert session.scalars(select(StudyDossier.dossier_id)).all() == [dossier]
        [seen] = shown(session, world)
    assert put(hospital, samples.patient("000003") | correction) == 200
    with store.session() as session:
        study = session.scalars(select(Study)).one()
        assert (study.state, study.reason, study.record_id) == ("quarantaine", reason, None)
        assert session.scalars(select(StudyDossier)).all() == []
        item = session.scalars(select(WorkItem)).one()
        assert (item.kind, item.reason, item.study_id, item.dossier_id) == ("imagerie", reason, study.id, dossier)
        assert shown(session, world) == []
        lines = [line for line in audit_lines(session) if line["event"] == "imagerie"]
        assert (lines[-1]["reason"], lines[-1]["outcome"], lines[-1]["object_id"]) == (reason, "4", UID)
    with hospital.client() as ehr:
        assert ehr.get(f"ImagingStudy/{seen}").status_code == 410
        assert ehr.get("ImagingStudy?identifier=urn:dicom:uid|urn:oid:" + UID).json()["total"] == 0
    # The same correction again asks nothing more.
    assert put(hospital, samples.patient("000003") | correction) == 200
    with store.session() as session:
        assert len(session.scalars(select(WorkItem)).all()) == 1


def test_a_correction_that_contradicts_nothing_changes_nothing(
    world: World, hospital: Hospital, store: Store, dossier: uuid.UUID
) -> None:
    with store.session() as session:
        before = shown(session, world)
    assert put(hospital, samples.patient("000003", family="PAT-TROIS DURAND")) == 200
    with store.session() as session:
        assert session.scalars(select(PatientRecord.birth_family)).one() == "PAT-TROIS DURAND"
        assert session.scalars(select(Study.state)).one() == "rattache"
        assert session.scalars(select(StudyDossier.dossier_id)).all() == [dossier]
        assert session.scalars(select(WorkItem)).all() == []
        assert shown(session, world) == before
        assert session.scalars(select(IMAGES.c.version)).all() == [1]
        assert session.scalars(select(Dossier.version)).one() == 1
