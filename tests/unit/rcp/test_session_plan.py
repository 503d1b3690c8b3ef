"""One session planned, moved, cancelled, and what becomes of its dossiers: the verbs on a real database."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from gateway.errors import Conflict, Forbidden, GatewayError, InvalidContent, NotFound
from gateway.model.directory import Organisation
from gateway.model.dossier import Dossier, DossierMove
from gateway.model.meeting import RcpSession
from gateway.model.message import Message, NotificationEntry
from gateway.model.partner import Partner
from gateway.model.person import WorkItem
from gateway.model.store import Store
from gateway.rcp import session_plan, sessions
from gateway.rcp.access import Caller, CallerKind
from gateway.rcp.session_plan import SessionFacts
from gateway.rcp.step import DomainClock, Step, Steps
from tests.world import World, build

BEFORE = datetime(2026, 3, 9, 8, 0, tzinfo=UTC)
FINESS = "750000018"
# Wall time of Paris on both sides of the change to summer time (29 March 2026).
WINTER = datetime(2026, 3, 26, 13, 0, tzinfo=UTC)
SUMMER = datetime(2026, 4, 2, 12, 0, tzinfo=UTC)


@pytest.fixture
def world(store: Store) -> World:
    with store.session() as session:
        made = build(session)
        session.get_one(Organisation, made.organisation.id).finess = FINESS
        session.get_one(Partner, made.partner.id).finess = FINESS
        session.commit()
    return made


@pytest.fixture
def steps(make_steps: Callable[..., Steps], world: World) -> Steps:
    return make_steps(clock=DomainClock(BEFORE))


def _facts(starts_at: datetime = WINTER, hours: float = 2, place: str | None = None) -> SessionFacts:
    return SessionFacts(starts_at=starts_at, ends_at=starts_at + timedelta(hours=hours), place=place)


def _hold(steps: Steps, world: World, caller: Caller, facts: SessionFacts, **more: Any) -> RcpSession:
    return steps.run(caller, lambda step: session_plan.hold(step, world.rcp, facts, **more))


def _move(steps: Steps, caller: Caller, key: uuid.UUID, facts: SessionFacts) -> RcpSession:
    return steps.run(caller, lambda step: session_plan.move_session(step, key, facts))


@pytest.mark.parametrize(("starts", "wall"), [(WINTER, time(14)), (SUMMER, time(14))])
def test_a_session_is_wall_time_of_its_rcp(steps: Steps, world: World, starts: datetime, wall: time) -> None:
    key = uuid.uuid4()
    made = _hold(steps, world, world.client(), _facts(starts), key=key)
    assert (made.id, made.start, made.end, made.zone) == (key, wall, time(16), "Europe/Paris")
    assert (made.state, made.starts_at, made.on) == ("prevue", starts, starts.date())


def test_who_organises_writes_and_nobody_else(steps: Steps, world: World) -> None:
    stranger = Caller(kind=CallerKind.CLIENT, partner_id=uuid.uuid4(), identifier="autre", wire="fhir")
    refused: list[tuple[Caller, type[GatewayError], str]] = [
        (stranger, Forbidden, "proprietaire"),
        (world.caller(world.treating), NotFound, "inconnu"),
        (Caller(kind=CallerKind.PEER, partner_id=world.partner.id, wire="fhir"), NotFound, "inconnu"),
    ]
    for caller, kind, code in refused:
        with pytest.raises(kind) as error:
            _hold(steps, world, caller, _facts())
        assert error.value.code == code
        with pytest.raises(kind):
            steps.run(caller, lambda step: session_plan.cancel_session(step, world.meeting.id))
        with pytest.raises(kind):
            _move(steps, caller, world.meeting.id, _facts())
        with pytest.raises(kind):
            steps.run(caller, lambda step: sessions.open_session(step, world.meeting.id))
    assert _hold(steps, world, world.caller(world.coordinator), _facts()).state == "prevue"


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (_facts(BEFORE - timedelta(days=1)), "seance-passee"),
        (_facts(hours=-1), "seance-horaire"),
        (_facts(hours=0), "seance-horaire"),
        (_facts(hours=12), "seance-horaire"),
    ],
)
def test_hours_that_are_none_are_refused(steps: Steps, world: World, facts: SessionFacts, code: str) -> None:
    with pytest.raises(InvalidContent) as error:
        _hold(steps, world, world.client(), facts)
    assert (error.value.code, error.value.rule) == (code, True)


def test_two_writers_of_one_session_make_one(store: Store, steps: Steps, world: World) -> None:
    def once(_place: int) -> Any:
        try:
            return _hold(steps, world, world.client(), _facts()).state
        except Conflict as error:
            return error.code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(once, range(4))) == ["prevue", *["seance-existante"] * 3]
    with store.session() as session:
        wanted = select(func.count()).select_from(RcpSession).where(RcpSession.starts_at == WINTER)
        assert session.scalar(wanted) == 1


def test_the_dossiers_follow_a_session_that_moves(store: Store, steps: Steps, world: World) -> None:
    with store.session() as session:
        world.session = session
        ready, waiting, over = (
            world.dossier(),
            world.dossier(state="inscrit", prefiche_at=None),
            world.dossier(state="annule"),
        )
        told = world.dossier(state="notifie")
        message = Message(
            direction="out", channel="mssante", kind="M1", key="k", content=b"x", sha256="0" * 64, size_bytes=1,
            state="envoye", domain_at=BEFORE, dossier_id=told.id,
        )  # fmt: skip
        session.add(message)
        session.flush()
        session.add(
            NotificationEntry(
                dossier_id=told.id, session_id=world.meeting.id, subject="x", code="ENVOYEE", decided_at=BEFORE,
                message_id=message.id,
            )
        )  # fmt: skip
        session.commit()
        keys = {name: row.id for name, row in (("r", ready), ("w", waiting), ("o", over), ("t", told))}
    identifier = world.meeting.identifier
    moved = _move(steps, world.client(), world.meeting.id, _facts(place="Salle B"))
    assert (moved.identifier, moved.on, moved.start, moved.place) == (
        identifier,
        date(2026, 3, 26),
        time(14),
        "Salle B",
    )
    with store.session() as session:
        states = {name: session.get_one(Dossier, key).state for name, key in keys.items()}
        assert states == {"r": "prefiche", "w": "reporte", "o": "annule", "t": "prefiche"}
        history = session.scalars(
            select(DossierMove.to_state).where(DossierMove.dossier_id == keys["t"]).order_by(DossierMove.at)
        ).all()
        assert set(history) == {"reporte", "prefiche"}
        asked = session.execute(select(WorkItem.reason, WorkItem.dossier_id)).all()
        assert asked == [("seance-deplacee", keys["t"])]
    again = _move(steps, world.client(), world.meeting.id, _facts(place="Salle B"))
    assert again.version == moved.version


def test_a_cancelled_session_is_over_and_its_dossiers_wait(store: Store, steps: Steps, world: World) -> None:
    with store.session() as session:
        world.session = session
        key = world.dossier().id
        session.commit()

    def cancel(step: Step) -> str:
        return session_plan.cancel_session(step, world.meeting.id).state

    assert steps.run(world.client(), cancel) == steps.run(world.client(), cancel) == "annulee"
    with pytest.raises(Conflict) as error:
        _move(steps, world.client(), world.meeting.id, _facts())
    assert error.value.code == "seance-etat"
    with store.session() as session:
        assert session.execute(select(WorkItem.reason, WorkItem.dossier_id)).all() == [("seance-annulee", key)]
        assert session.get_one(Dossier, key).state == "prefiche"


def test_a_session_that_is_held_is_not_moved(steps: Steps, world: World) -> None:
    steps.run(world.client(), lambda step: sessions.open_session(step, world.meeting.id))
    for act in (
        lambda step: session_plan.cancel_session(step, world.meeting.id),
        lambda step: session_plan.move_session(step, world.meeting.id, _facts()),
    ):
        with pytest.raises(Conflict) as error:
            steps.run(world.client(), act)
        assert error.value.code == "seance-etat"
