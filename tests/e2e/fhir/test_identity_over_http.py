"""One record a source, one person for the records that say the same, over real HTTP and with real races."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway.model.partner import Partner
from gateway.model.person import PatientRecord, Person, PersonLink, WorkItem
from gateway.model.store import Store
from gateway.rcp import identity
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import Hospital
from tests.world import DOMAIN, World

OTHER_DOMAIN = "https://clinique-y.example/ns/ipp"


@pytest.fixture
def clinic(world: World, store: Store, admit: Callable[..., Hospital]) -> Hospital:
    """A second organisation with its own patient identifiers."""
    with store.session() as session:
        partner = Partner(name="Clinique Y", network_id=world.network.id, patient_domains=[OTHER_DOMAIN])
        session.add(partner)
        session.commit()
    return admit(partner)


def _put(hospital: Hospital, **facts: object) -> tuple[int, dict[str, object]]:
    tree = samples.patient(**facts)  # type: ignore[arg-type]
    said = tree["identifier"][-1]
    with hospital.client() as ehr:
        answer = ehr.put(f"Patient?identifier={said['system']}|{said['value']}", json=tree)
    return answer.status_code, answer.json()


def _persons(session: Session) -> list[object]:
    return [identity.person_of(session, record) for record in session.scalars(select(PatientRecord))]


def test_sixteen_writers_at_once_make_one_record(store: Store, hospital: Hospital) -> None:
    tree = samples.patient("000016")
    with hospital.client() as ehr, ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda _: ehr.put(f"Patient?identifier={DOMAIN}|000016", json=tree).status_code, range(16))
        )
    assert sorted(answers) == [200] * 15 + [201]
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(PatientRecord)) == 1
        assert session.scalar(select(func.count()).select_from(Person)) == 1


def test_sixteen_plain_creates_make_one_record_too(store: Store, hospital: Hospital) -> None:
    tree = samples.patient("000017")
    with hospital.client() as ehr, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: ehr.post("Patient", json=tree).status_code, range(16)))
    assert sorted(answers) == [201] + [409] * 15
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(PatientRecord)) == 1


def test_two_organisations_make_two_records_and_one_person(store: Store, hospital: Hospital, clinic: Hospital) -> None:
    assert _put(hospital)[0] == 201
    assert _put(clinic, ipp="Y-42", domain=OTHER_DOMAIN)[0] == 201
    with store.session() as session:
        persons = _persons(session)
        assert len(persons) == 2
        assert persons[0] is not None
        assert persons[0] == persons[1]
        reasons = set(session.scalars(select(PersonLink.reason).where(PersonLink.ended_at.is_(None))))
        assert reasons == {identity.ALONE, identity.BY_INS}


def test_two_organisations_at_the_same_instant_make_one_person(
    store: Store, hospital: Hospital, clinic: Hospital
) -> None:
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(_put, hospital)
        second = pool.submit(_put, clinic, ipp="Y-42", domain=OTHER_DOMAIN)
        assert first.result()[0] == second.result()[0] == 201
    with store.session() as session:
        assert len(set(_persons(session))) == 1


@pytest.mark.parametrize("other", [{"birth_date": "1980-03-28"}, {"family": "AUTRE-NOM"}])
def test_same_ins_with_other_traits_is_kept_unlinked_on_the_work_list(
    store: Store, hospital: Hospital, clinic: Hospital, other: dict[str, str]
) -> None:
    assert _put(hospital)[0] == 201
    status, kept = _put(clinic, ipp="Y-43", domain=OTHER_DOMAIN, **other)
    assert status == 201
    with store.session() as session:
        record = session.scalars(select(PatientRecord).where(PatientRecord.value == "Y-43")).one()
        assert str(record.id) == kept["id"]
        assert identity.person_of(session, record) is None
        item = session.scalars(select(WorkItem)).one()
        assert (item.kind, item.record_id, item.closed_at) == ("identite", record.id, None)
        assert samples.INS not in repr(item.details)
    # Saying the same again asks nobody twice.
    assert _put(clinic, ipp="Y-43", domain=OTHER_DOMAIN, **other)[0] == 200
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(WorkItem)) == 1


def test_ins_with_a_wrong_key_is_kept_flagged_and_proves_nothing(
    store: Store, hospital: Hospital, clinic: Hospital
) -> None:
    wrong = samples.INS[:-1] + "0"
    assert _put(hospital, ins=wrong)[0] == 201
    assert _put(clinic, ipp="Y-44", domain=OTHER_DOMAIN, ins=wrong)[0] == 201
    with store.session() as session:
        for record in session.scalars(select(PatientRecord)):
            assert record.ins_value == wrong
            assert record.ins_faults == ["ins-cle"]
            assert not record.ins_qualified
        assert len(set(_persons(session))) == 2


def test_a_source_writes_only_in_its_own_domains(store: Store, hospital: Hospital) -> None:
    status, outcome = _put(hospital, domain=OTHER_DOMAIN, family=samples.CANARY)
    assert status == 403
    assert outcome["issue"][0]["details"]["coding"][0]["code"] == "domaine-patient"  # type: ignore[index]
    assert samples.CANARY not in repr(outcome)
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(PatientRecord)) == 0


def test_the_ins_is_never_a_key_to_write_by(hospital: Hospital) -> None:
    with hospital.client() as ehr:
        answer = ehr.put(f"Patient?identifier={samples.INS_TEST}|{samples.INS}", json=samples.patient())
    assert answer.status_code == 422
    assert samples.INS not in answer.text


def test_traits_that_change_part_two_records_again(store: Store, hospital: Hospital, clinic: Hospital) -> None:
    _put(hospital)
    _put(clinic, ipp="Y-42", domain=OTHER_DOMAIN)
    assert _put(clinic, ipp="Y-42", domain=OTHER_DOMAIN, family="AUTRE-NOM")[0] == 200
    with store.session() as session:
        record = session.scalars(select(PatientRecord).where(PatientRecord.value == "Y-42")).one()
        assert identity.person_of(session, record) is None
        ended = session.scalars(select(PersonLink).where(PersonLink.record_id == record.id)).one()
        assert ended.ended_at is not None
        assert session.scalar(select(func.count()).select_from(WorkItem)) == 1
    # Corrected at the source, it comes back to the person.
    _put(clinic, ipp="Y-42", domain=OTHER_DOMAIN)
    with store.session() as session:
        assert len(set(_persons(session))) == 1
