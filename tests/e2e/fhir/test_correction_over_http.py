"""A patient corrected after his images came: what the images contradict leaves his dossier, over real HTTP."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import delete, not_, select
from sqlalchemy.orm import Session

from gateway.model.dossier import Dossier
from gateway.model.imaging import Study, StudyDossier
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord, WorkItem
from gateway.model.representation import TABLES
from gateway.model.store import Store
from gateway.rcp import access, imaging_match
from gateway.rcp.access import SYSTEM
from gateway.rcp.step import Step
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Hospital
from tests.loopback import until
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


OTHER = "https://y.example/ipp"


@pytest.fixture
def elsewhere(world: World, store: Store, admit: Callable[..., Hospital]) -> Hospital:
    """Another hospital, where the same person is known."""
    with store.session() as session:
        other = Partner(name="Clinique Y", patient_domains=[OTHER])
        session.add(other)
        session.commit()
    hospital = admit(other)
    assert _known_there(hospital, samples.patient("000009", domain=OTHER)) == 201
    return hospital


def _known_there(hospital: Hospital, tree: dict[str, Any]) -> int:
    with hospital.client() as ehr:
        return ehr.put(f"Patient?identifier={OTHER}|000009", json=tree).status_code


def _two_dossiers(world: World, store: Store, elsewhere: Hospital) -> tuple[uuid.UUID, uuid.UUID]:
    """The dossier of the first hospital's record, and one of the other's, with the same images."""
    with store.session() as session:
        world.session = session
        there = session.scalars(select(PatientRecord).where(PatientRecord.partner_id == elsewhere.partner.id)).one()
        second = world.dossier(there)
        second.partner_id = elsewhere.partner.id
        session.commit()
        first = session.scalars(select(Dossier.id).where(Dossier.record_id != there.id)).one()

    def attach(step: Step) -> None:
        imaging_match.attach(step, step.session.scalars(select(Study)).one())

    elsewhere.served.steps.run(SYSTEM, attach)
    return first, second.id


@pytest.mark.parametrize(
    ("correction", "reason"),
    [
        ({"birthDate": "1980-04-01"}, "date-de-naissance-differente"),
        ({"gender": "male"}, "sexe-different"),
        ({"identifier": samples.patient("000009", domain=OTHER, ins="190039935012338")["identifier"]}, None),
    ],
)
def test_images_of_another_record_leave_the_dossiers_of_the_one_that_is_corrected_and_no_others(
    world: World,
    hospital: Hospital,
    store: Store,
    dossier: uuid.UUID,
    elsewhere: Hospital,
    correction: dict[str, Any],
    reason: str | None,
) -> None:
    first, second = _two_dossiers(world, store, elsewhere)
    assert first == dossier
    with store.session() as session:
        assert set(session.scalars(select(StudyDossier.dossier_id))) == {first, second}
    corrected = samples.patient("000009", domain=OTHER) | correction
    assert _known_there(elsewhere, corrected) == 200
    with store.session() as session:
        study = session.scalars(select(Study)).one()
        assert study.state == "rattache"
        assert session.scalars(select(StudyDossier.dossier_id)).all() == [first]
        [item] = session.scalars(select(WorkItem).where(WorkItem.study_id == study.id)).all()
        told = item.reason
        assert told in ({reason, "identifiants-contradictoires"} if reason else {"identifiants-contradictoires"})
        assert item.dossier_id == second
        lines = [line for line in audit_lines(session) if line["event"] == "imagerie"]
        assert (lines[-1]["reason"], lines[-1]["outcome"], lines[-1]["dossier"]) == (told, "4", str(second))

    # Nor do they come back by the same way.
    def attach(step: Step) -> None:
        imaging_match.attach(step, step.session.scalars(select(Study)).one())

    elsewhere.served.steps.run(SYSTEM, attach)
    with store.session() as session:
        assert session.scalars(select(StudyDossier.dossier_id)).all() == [first]
    # The first hospital's own record is corrected too: nothing is left.
    assert put(hospital, samples.patient("000003") | {"gender": "male"}) == 200
    with store.session() as session:
        assert session.scalars(select(StudyDossier)).all() == []


def test_a_correction_while_the_images_are_attached_leaves_none_behind(
    world: World, store: Store, dossier: uuid.UUID, elsewhere: Hospital
) -> None:
    """Whoever attaches has read that both records are one person's; whoever corrects waits for him, and looks."""
    _, second = _two_dossiers(world, store, elsewhere)
    with store.session() as session:
        session.execute(delete(StudyDossier).where(StudyDossier.dossier_id == second))
        session.commit()
    attached, go = threading.Event(), threading.Event()

    def attach(step: Step) -> None:
        imaging_match.attach(step, step.session.scalars(select(Study)).one())
        attached.set()
        assert go.wait(60)

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(elsewhere.served.steps.run, SYSTEM, attach)
        assert attached.wait(60)
        tree = samples.patient("000009", domain=OTHER) | {"gender": "male"}
        two = pool.submit(_known_there, elsewhere, tree)
        _wait_for_a_lock(store)
        go.set()
        one.result(60)
        assert two.result(60) == 200
    with store.session() as session:
        assert session.scalars(select(StudyDossier.dossier_id)).all() == [dossier]


def _wait_for_a_lock(store: Store) -> None:

    def somebody() -> bool:
        with store.engine.connect() as connection:
            asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            return bool(connection.exec_driver_sql(asked).scalar_one())

    until(somebody)
