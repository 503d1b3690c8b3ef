"""Taking a patient's record back, and who may stand in the way: the verb on a real database, two writers at once."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import func, select

from gateway.errors import Conflict
from gateway.model.dossier import Dossier
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord, Person, PersonLink, WorkItem
from gateway.model.store import Store
from gateway.rcp import identity, inscription
from gateway.rcp.facts import (
    IdentifierFact,
    IdentityStatus,
    InscriptionFacts,
    NameFact,
    PatientFacts,
    SessionFact,
    Sex,
)
from gateway.rcp.step import DomainClock, Step, Steps
from tests.world import DOMAIN, World, audit_lines, build


@pytest.fixture
def world(store: Store) -> World:
    with store.session() as session:
        made = build(session)
        session.commit()
    return made


@pytest.fixture
def steps(make_steps: Callable[..., Steps], world: World) -> Steps:
    return make_steps(clock=DomainClock(world.meeting.starts_at.replace(day=9)))


def _facts(ipp: str, ins: str | None = None, **more: Any) -> PatientFacts:
    base: dict[str, Any] = {
        "identifiers": (IdentifierFact(system=DOMAIN, value=ipp, kind="PI"),),
        "ins": IdentifierFact(system="urn:oid:1.2.250.1.213.1.4.10", value=ins) if ins else None,
        "status": IdentityStatus.QUALIFIEE if ins else IdentityStatus.PROVISOIRE,
        "flags": frozenset(),
        "birth_name": NameFact(family="PAT-TROIS", given=("DOMINIQUE",)),
        "birth_given_names": None,
        "used_name": None,
        "sex": Sex.FEMALE,
        "birth_date": "1979-03-28",
        "birth_place_insee": None,
        "treating_physician": None,
        "active": True,
    }
    return PatientFacts(**(base | more))


def _declare(steps: Steps, world: World, facts: PatientFacts, **more: Any) -> uuid.UUID:
    return steps.run(world.client(), lambda step: identity.declare(step, world.partner, facts, **more).id)


def _withdraw(steps: Steps, world: World, key: uuid.UUID) -> None:
    def verb(step: Step) -> None:
        [record] = step.lock(PatientRecord, key)
        identity.withdraw(step, record)

    steps.run(world.client(), verb)


def _count(store: Store, model: Any) -> int:
    with store.session() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def test_a_record_is_made_under_the_id_that_the_wire_named_and_taken_back(
    store: Store, steps: Steps, world: World
) -> None:
    named = uuid.uuid4()
    assert _declare(steps, world, _facts("77"), record_id=named) == named
    _withdraw(steps, world, named)
    assert (_count(store, PatientRecord), _count(store, PersonLink)) == (0, 0)
    with store.session() as session:
        last = audit_lines(session)[-1]
    assert (last["action"], last["persons"], last["object_id"]) == ("D", [str(named)], str(named))
    assert _declare(steps, world, _facts("77")) != named


def test_the_locks_are_those_that_declaring_takes(store: Store, steps: Steps, world: World) -> None:
    facts = _facts("78", "279035121518989")
    names = identity.locks(world.partner, facts)
    assert names == [f"ipp|{world.partner.id}|{DOMAIN}|78", "ins|urn:oid:1.2.250.1.213.1.4.10|279035121518989"]
    held, done = threading.Event(), threading.Event()

    def holder(step: Step) -> None:
        for name in names:
            step.session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))
        held.set()
        assert done.wait(60)

    def seen(step: Step) -> int:
        step.session.execute(select(func.set_config("lock_timeout", "200ms", True)))
        free = (
            step.session.scalar(select(func.pg_try_advisory_xact_lock(func.hashtextextended(name, 0))))
            for name in names
        )
        return sum(map(bool, free))

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(steps.run, world.client(), holder)
        assert held.wait(60)
        assert steps.run(world.client(), seen) == 0
        done.set()
        waiting.result()
    _declare(steps, world, facts)
    assert _count(store, PatientRecord) == 1


def test_who_is_known_elsewhere_and_who_is_new_are_declared_together(store: Store, steps: Steps, world: World) -> None:
    with store.session() as session:
        other = Partner(name="Clinique Y", network_id=world.network.id, patient_domains=[DOMAIN])
        session.add(other)
        session.commit()
    _declare(steps, world, _facts("79", "279035121518989"))
    said = [_facts("79", "279035121518989"), _facts("80"), _facts("81")]

    def verb(step: Step) -> list[uuid.UUID]:
        identity.foresee(step, other, [(identity.own_identifier(other, facts), facts) for facts in said])
        return [identity.declare(step, other, facts, new=True).id for facts in said]

    made = steps.run(world.client(), verb)
    with store.session() as session:
        reasons = dict(session.execute(select(PersonLink.record_id, PersonLink.reason)).all())
    assert [reasons[key] for key in made] == [identity.BY_INS, identity.ALONE, identity.ALONE]
    assert _count(store, Person) == 3


def test_what_hangs_on_a_record_keeps_it(store: Store, steps: Steps, world: World) -> None:
    inscribed, linked, twin = (
        _declare(steps, world, _facts("80", birth_date="1960-01-01")),
        _declare(steps, world, _facts("81", "279035121518989")),
        _declare(steps, world, _facts("82", "279035121518989")),
    )
    with store.session() as session:
        world.session = session
        world.dossier(session.get(PatientRecord, inscribed))
        session.commit()
    for key in (inscribed, linked, twin):
        with pytest.raises(Conflict) as refused:
            _withdraw(steps, world, key)
        assert refused.value.code == "patient-utilise"
    assert _count(store, PatientRecord) == 3


def test_an_open_question_about_a_record_closes_with_it(store: Store, steps: Steps, world: World) -> None:
    _declare(steps, world, _facts("83", "279035121518989"))
    other = _declare(steps, world, _facts("84", "279035121518989", birth_date="1980-01-01"))
    _withdraw(steps, world, other)
    with store.session() as session:
        item = session.scalars(select(WorkItem)).one()
    assert (item.record_id, item.decision) == (None, "enregistrement-retire")
    assert item.closed_at is not None


def test_inscribing_and_taking_back_at_once_never_leaves_a_dossier_of_nobody(
    store: Store, steps: Steps, world: World
) -> None:
    for place in range(6):
        key = _declare(steps, world, _facts(f"9{place}"))
        read = threading.Event()

        def inscribe(step: Step, key: uuid.UUID = key, read: threading.Event = read) -> None:
            record = step.session.get(PatientRecord, key)
            if record is None:
                return
            read.set()
            session = SessionFact(rcp_number=world.rcp.national_number, start=world.meeting.starts_at)
            inscription.inscribe(step, record, InscriptionFacts(session=session), partner=world.partner)

        def withdraw(key: uuid.UUID = key, read: threading.Event = read) -> None:
            assert read.wait(60)
            _withdraw(steps, world, key)

        with ThreadPoolExecutor(2) as pool:
            asked, taken = pool.submit(steps.run, world.client(), inscribe), pool.submit(withdraw)
            failures = [type(one.exception()) for one in (asked, taken)]
        with store.session() as session:
            record = session.get(PatientRecord, key)
            dossiers = session.scalar(select(func.count()).where(Dossier.record_id == key))
        # Either he is gone and nothing is inscribed, or he is inscribed and taking him back was refused.
        assert (record is None, dossiers, failures) in [(True, 0, [type(None)] * 2), (False, 1, [type(None), Conflict])]
