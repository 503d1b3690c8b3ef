"""The planner by the page decides what the planner by the dossier decides, under the dossier's lock."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import psycopg
import pytest
from sqlalchemy import select, update

from gateway.model.directory import Mailbox, Organisation, PracticeRole, Practitioner
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import Rcp, RcpSession
from gateway.model.message import Message, NotificationEntry
from gateway.mssante.translate import Composer
from gateway.rcp import access, mailboxes, notice_pages, notification
from tests.world import build

SENDS = datetime(2026, 3, 17, 7, 0, tzinfo=UTC)
STARTS = datetime(2026, 3, 19, 13, 0, tzinfo=UTC)
LETTERS = Composer(address="rcp@3c.mssante.example", nil="000000", name="RCP Sein")
DAY = timedelta(days=1)
#: Before, at and after each limit, and after the session.
INSTANTS = (SENDS - 3 * DAY, SENDS, SENDS + 5 * timedelta(hours=1), STARTS - DAY, STARTS, STARTS + DAY)


class Undone(Exception):
    """Takes a step back once what it would keep has been read."""


def populate(session, world, dice, count):
    """Dossiers of every kind: named or not, with an address or not, late, opposed, declined, over."""
    people = [world.treating, world.requester, world.stranger, world.practitioner("SANSBOITE")]
    people.append(world.practitioner("SANSRPPS", rpps=None))
    people.append(world.practitioner("REFUS", address="refus@medecin.mssante.fr", informed=False))
    office = world.practitioner("SECRETARIAT")
    session.add(
        PracticeRole(practitioner_id=office.id, organisation_id=world.organisation.id, source="e", as_of=office.as_of)
    )
    session.add(
        Mailbox(
            organisation_id=world.organisation.id,
            address="sein@chu-x.mssante.fr",
            kind="ORG",
            source="e",
            as_of=office.as_of,
        )
    )
    people.append(office)
    for _ in range(count):
        registered = dice.choice([SENDS - 8 * DAY, SENDS - DAY, SENDS + timedelta(hours=3), STARTS - DAY])
        row = world.dossier(
            state=dice.choice(["inscrit", "prefiche", "prefiche", "prefiche", "annule", "discute"]),
            registered_at=registered,
            prefiche_at=dice.choice([registered, registered, None]),
            opposed_at=dice.choice([None] * 5 + [registered]),
        )
        for one in session.scalars(select(Correspondent).where(Correspondent.dossier_id == row.id)):
            if one.role != "medecin-traitant":
                continue
            if dice.random() < 0.1:
                session.delete(one)
                continue
            person = dice.choice([*people, None])
            one.practitioner_id = person.id if person is not None else None
            one.since = dice.choice([registered, SENDS + timedelta(hours=1)])
            one.use_personal, one.use_secretariat = dice.random() < 0.8, dice.random() < 0.4
            one.declined_at = dice.choice([None] * 6 + [registered])
    session.flush()


@pytest.fixture
def scene(store, make_steps):
    made = SimpleNamespace(store=store)
    made.clock = SimpleNamespace(at=SENDS, now=lambda: made.clock.at)
    made.steps = make_steps(clock=made.clock)
    return made


def register(session):
    rows = session.scalars(select(NotificationEntry).where(NotificationEntry.kind == "M1"))
    return sorted(
        (
            str(row.dossier_id),
            row.subject,
            row.code,
            str(row.due_at),
            str(row.ready_at),
            str(row.practitioner_id),
            str(row.session_id),
            row.late,
            row.message_id is not None,
        )
        for row in rows
    )


def by_the_dossier(scene):
    """What settling each dossier by itself would leave in the register; taken back."""
    found = []

    def verb(step):
        for dossier_id in step.session.scalars(select(Dossier.id)).all():
            notification.settle(step, dossier_id, LETTERS)
        step.session.flush()
        found.append(register(step.session))
        raise Undone

    with pytest.raises(Undone):
        scene.steps.run(access.SYSTEM, verb)
    return found[0]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("option", [{"active": True}, {"active": True, "rattrapage": True}])
def test_pages_leave_the_register_that_single_steps_would(scene, seed, option):
    dice = random.Random(seed)  # noqa: S311 - the same world each time
    with scene.store.session() as session:
        world = build(session)
        populate(session, world, dice, 40)
        session.execute(update(Rcp).values(notification=option))
        session.commit()
    codes = set()
    for at in INSTANTS:
        scene.clock.at = at
        expected = by_the_dossier(scene)
        run = notification.plan_due(scene.steps, LETTERS, page=dice.choice([1, 7, 40, 1000]))
        assert run.failed == 0
        with scene.store.session() as session:
            assert register(session) == expected, at
        assert notification.plan_due(scene.steps, LETTERS, page=7).settled == 0
        codes |= {line[2] for line in expected}
    assert {"ENVOYEE", "NON_OPPOSITION", "NON_RPPS", "NON_MSS"} <= codes


def test_what_changed_between_reading_and_writing_counts_as_it_is(scene):
    with scene.store.session() as session:
        world = build(session)
        opposed, plain, due = (world.dossier() for _ in range(3))
        session.execute(update(Correspondent).values(since=SENDS - 8 * DAY))
        session.commit()
        ids = opposed.id, plain.id, due.id
    scene.clock.at = SENDS - DAY
    [(seen, found, single)] = notice_pages.sorted_out(scene.steps, 1000)
    assert (seen, set(found), single) == (3, set(ids), [])
    with scene.store.session() as session:
        session.get_one(Dossier, ids[0]).opposed_at = SENDS - DAY
        session.commit()
    assert scene.steps.run(access.SYSTEM, lambda step: notice_pages.write(step, ids[:2])) == []
    scene.clock.at = SENDS  # the hour came before the third was written: its mail needs a step of its own
    assert scene.steps.run(access.SYSTEM, lambda step: notice_pages.write(step, ids[2:])) == [ids[2]]
    with scene.store.session() as session:
        codes = dict(session.execute(select(NotificationEntry.dossier_id, NotificationEntry.code)).tuples().all())
        assert session.scalars(select(Message)).all() == []
    assert codes == {ids[0]: "NON_OPPOSITION", ids[1]: "PREVUE"}


def test_a_setting_that_cannot_be_read_holds_no_other_meeting(scene):
    with scene.store.session() as session:
        good, bad = build(session), build(session)
        good.dossier(), bad.dossier()
        bad.rcp.notification = {"active": True, "heure_envoi": "huit heures"}
        session.execute(update(Correspondent).values(since=SENDS - 8 * DAY))
        session.commit()
    scene.clock.at = SENDS - DAY
    run = notification.plan_due(scene.steps, LETTERS)
    assert (run.seen, run.settled, run.failed) == (2, 1, 1)


def test_a_page_asks_as_many_questions_whatever_it_holds(scene, monkeypatch):
    """No question a dossier: the number of statements of a run over one page does not grow with the page."""
    asked: list[object] = []

    def counted_by(ask):
        def counting(cursor, query, *more, **named):
            asked.append(query)
            return ask(cursor, query, *more, **named)

        return counting

    for name in ("execute", "executemany", "copy"):
        monkeypatch.setattr(psycopg.Cursor, name, counted_by(getattr(psycopg.Cursor, name)))
    with scene.store.session() as session:
        world = build(session)
        session.commit()
    scene.clock.at = SENDS - DAY
    counted = []
    for more in (2, 5, 30):
        with scene.store.session() as session:
            world.session = session
            for name in ("meeting", "partner", "organisation", "requester", "treating"):
                setattr(world, name, session.merge(getattr(world, name)))
            for _ in range(more):
                world.dossier()
            session.execute(update(Correspondent).values(since=SENDS - 8 * DAY))
            session.commit()
        asked.clear()
        run = notification.plan_due(scene.steps, LETTERS)
        assert (run.settled, run.failed) == (more, 0)
        counted.append(len(asked))
    assert counted[1] == counted[2] > 0  # the first run has no line of before to look at


def test_two_planners_at_once_write_one_line_each(scene):
    """What both saw without a line is written by the one, and found written by the other that waited for its lock."""
    with scene.store.session() as session:
        world = build(session)
        ids = [world.dossier().id for _ in range(40)]
        session.execute(update(Correspondent).values(since=SENDS - 8 * DAY))
        session.commit()
    scene.clock.at = SENDS - DAY
    both_saw = threading.Barrier(2)

    def plan():
        [(_, plain, single)] = notice_pages.sorted_out(scene.steps, 1000)
        assert (set(plain), single) == (set(ids), [])
        both_saw.wait(60)
        return scene.steps.run(access.SYSTEM, lambda step: notice_pages.write(step, plain))

    with ThreadPoolExecutor(2) as pool:
        assert [one.result() for one in [pool.submit(plan) for _ in range(2)]] == [[], []]
    with scene.store.session() as session:
        assert sorted(session.scalars(select(NotificationEntry.dossier_id))) == sorted(ids)


def test_who_can_be_reached_is_one_rule(scene):
    with scene.store.session() as session:
        world = build(session)
        other = Organisation(name="Cabinet", source="e", as_of=world.treating.as_of)
        session.add(other)
        session.flush()
        dice = random.Random(7)  # noqa: S311 - the same world each time
        for number in range(60):
            person = world.practitioner(f"P{number}")
            for place in dice.sample([world.organisation, other], dice.randint(0, 2)):
                session.add(
                    PracticeRole(practitioner_id=person.id, organisation_id=place.id, source="e", as_of=person.as_of)
                )
            for box in range(dice.randint(0, 2)):
                session.add(
                    Mailbox(
                        practitioner_id=person.id,
                        address=f"p{number}-{box}@medecin.mssante.fr",
                        kind=dice.choice(["PER", "CAB", "APP", "ORG"]),
                        source="e",
                        as_of=person.as_of,
                        unusable_since=dice.choice([None, None, SENDS]),
                        gone_on=dice.choice([None, None, person.as_of]),
                    )
                )
        session.add(
            Mailbox(organisation_id=other.id, address="c@cab.mssante.fr", kind="ORG", source="e", as_of=person.as_of)
        )
        session.commit()
        session.expire_all()
        people = session.scalars(select(Practitioner)).all()
        found = mailboxes.reachable(session, [one.id for one in people])
        for one in people:
            for personal, office in ((True, False), (False, True), (True, True)):
                listed = mailboxes.addresses(session, one, personal=personal, secretariat=office)
                flat = [box for box, ticked in zip(found[one.id], (personal, office), strict=True) if ticked and box]
                assert bool(flat) == bool(listed), (one.family, personal, office)
                assert set(flat) <= {box.address for box in listed}


def test_sessions_beyond_the_horizon_are_not_read(scene):
    with scene.store.session() as session:
        world = build(session)
        world.dossier()
        session.commit()
        meeting = session.get_one(RcpSession, world.meeting.id).starts_at
    for at in (meeting - timedelta(days=121), meeting + timedelta(days=8)):
        scene.clock.at = at
        assert notification.plan_due(scene.steps, LETTERS).seen == 0
