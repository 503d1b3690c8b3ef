"""Deadlines across a change of hour, in Paris and overseas: each expected instant is typed by hand.

2026: Europe/Paris goes from UTC+1 to UTC+2 on Sunday 29 March and back on 25 October; America/Miquelon from UTC-3 to
UTC-2 on Sunday 8 March and back on 1 November; Indian/Reunion (UTC+4) and Pacific/Tahiti (UTC-10) never do.
"""

from __future__ import annotations

import email
import email.policy
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import select, update

from gateway.model.dossier import Correspondent, Dossier
from gateway.model.message import Message, NotificationEntry
from gateway.mssante.translate import Composer
from gateway.rcp import notification
from gateway.rcp.calendar import HolidaySet, instant_of
from gateway.rcp.receipt_rules import waits
from tests.world import build

LETTERS = Composer(address="rcp@3c.mssante.example", nil="000000", name="RCP Sein")
SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Case:
    """A session at 14:00 of its place; two working days before at 08:00 its physicians are told, 14:00 is the limit."""

    zone: str
    holidays: str
    on: date
    sends: str
    limit: str
    starts: str
    #: A mail that left at 16:00 of the sending day: four working hours later.
    silent: str
    said: str


CASES = [
    # Tuesday; Friday before the night without an hour from 2 to 3; two hours on Friday, two on Monday morning.
    Case("Europe/Paris", "metropole", date(2026, 3, 31), "2026-03-27T07:00Z", "2026-03-27T13:00Z",
         "2026-03-31T12:00Z", "2026-03-30T08:00Z", "mardi 31 mars 2026 à 14h00"),
    # Monday right after that night: Thursday.
    Case("Europe/Paris", "metropole", date(2026, 3, 30), "2026-03-26T07:00Z", "2026-03-26T13:00Z",
         "2026-03-30T12:00Z", "2026-03-27T09:00Z", "lundi 30 mars 2026 à 14h00"),
    # Tuesday; Friday before the night with two hours from 2 to 3.
    Case("Europe/Paris", "metropole", date(2026, 10, 27), "2026-10-23T06:00Z", "2026-10-23T12:00Z",
         "2026-10-27T13:00Z", "2026-10-26T09:00Z", "mardi 27 octobre 2026 à 14h00"),
    # Saint-Pierre changes three weeks before Paris.
    Case("America/Miquelon", "saint-pierre-et-miquelon", date(2026, 3, 10), "2026-03-06T11:00Z", "2026-03-06T17:00Z",
         "2026-03-10T16:00Z", "2026-03-09T12:00Z", "mardi 10 mars 2026 à 14h00"),
    # Tuesday after All Saints' Sunday: Friday, still in summer time.
    Case("America/Miquelon", "saint-pierre-et-miquelon", date(2026, 11, 3), "2026-10-30T10:00Z", "2026-10-30T16:00Z",
         "2026-11-03T17:00Z", "2026-11-02T13:00Z", "mardi 3 novembre 2026 à 14h00"),
    # Places that never change, while Paris does.
    Case("Indian/Reunion", "la-reunion", date(2026, 3, 31), "2026-03-27T04:00Z", "2026-03-27T10:00Z",
         "2026-03-31T10:00Z", "2026-03-30T06:00Z", "mardi 31 mars 2026 à 14h00"),
    # The limit and the session are on the next day of the meridian of Greenwich.
    Case("Pacific/Tahiti", "polynesie-francaise", date(2026, 3, 31), "2026-03-27T18:00Z", "2026-03-28T00:00Z",
         "2026-04-01T00:00Z", "2026-03-30T20:00Z", "mardi 31 mars 2026 à 14h00"),
]  # fmt: skip


@pytest.fixture(params=CASES, ids=lambda case: f"{case.zone}-{case.on}")
def case(request) -> Case:
    return request.param


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def test_who_is_told_when_and_who_comes_too_late(store, make_steps, case) -> None:
    with store.session() as session:
        world = build(session)
        world.rcp.zone, world.rcp.holidays = case.zone, case.holidays
        meeting = world.meeting
        meeting.zone, meeting.on, meeting.start, meeting.end = case.zone, case.on, time(14), time(16)
        meeting.starts_at = instant_of(case.on, time(14), case.zone)
        meeting.ends_at = meeting.starts_at + timedelta(hours=2)
        assert meeting.starts_at == at(case.starts)
        limit = at(case.limit)
        times = {"en temps": at("2026-02-10T09:00Z"), "à la limite": limit, "trop tard": limit + SECOND}
        keys = {
            name: world.dossier(registered_at=registered, prefiche_at=registered).id
            for name, registered in times.items()
        }
        session.execute(update(Correspondent).values(since=at("2026-02-10T09:00Z")))
        session.commit()
    clock = SimpleNamespace(at=at(case.sends) - SECOND, now=lambda: clock.at)
    steps = make_steps(clock=clock)

    def run(instant: datetime) -> int:
        clock.at = instant
        return notification.plan_due(steps, LETTERS).sent

    with store.session() as session:  # those that are not registered yet
        session.execute(update(Dossier).where(Dossier.id != keys["en temps"]).values(prefiche_at=None))
        session.commit()
    assert run(at(case.sends) - SECOND) == 0
    assert run(at(case.sends)) == 1
    with store.session() as session:
        message = session.scalars(select(Message)).one()
        mail = email.message_from_bytes(message.content, policy=email.policy.default)
        assert mail["date"].datetime == at(case.sends)
        assert f"  Date      : {case.said}\n" in mail.get_content().replace("\r\n", "\n")
        for name in ("à la limite", "trop tard"):
            session.get_one(Dossier, keys[name]).prefiche_at = times[name]
        session.commit()
    assert run(limit + SECOND) == 1
    with store.session() as session:
        said = select(NotificationEntry.dossier_id, NotificationEntry.code, NotificationEntry.due_at)
        found = {key: (code, due) for key, code, due in session.execute(said)}
    assert found[keys["en temps"]] == ("ENVOYEE", at(case.sends))
    assert found[keys["à la limite"]][0] == "ENVOYEE"
    assert found[keys["trop tard"]] == ("NON_DELAI", limit)


def test_four_working_hours_are_hours_of_the_place(case) -> None:
    left = at(case.sends) + timedelta(hours=8)
    [wait] = waits("M1", left, dsn=True, mdn=False, zone=case.zone, holidays=HolidaySet(zone=case.holidays))
    assert wait.until == at(case.silent)


def test_a_missed_run_is_made_up_for_until_the_very_second_of_the_session(store, make_steps, case) -> None:
    with store.session() as session:
        world = build(session, on=case.on)
        world.meeting.zone, world.rcp.holidays = case.zone, case.holidays
        world.meeting.starts_at, world.meeting.ends_at = at(case.starts), at(case.starts) + timedelta(hours=2)
        world.dossier(registered_at=at("2026-02-10T09:00Z"), prefiche_at=at("2026-02-10T09:00Z"))
        session.execute(update(Correspondent).values(since=at("2026-02-10T09:00Z")))
        session.commit()
    clock = SimpleNamespace(at=at(case.starts) - SECOND, now=lambda: clock.at)
    steps = make_steps(clock=clock)

    def judged() -> tuple[str, bool]:
        with store.session() as session:
            dossier = session.scalars(select(Dossier)).unique().one()
            [(code, _)] = notification.decided(session, dossier, clock.at)
            return str(code), clock.at < dossier.session.starts_at

    assert judged() == ("PREVUE", True)
    clock.at = at(case.starts)
    assert judged() == ("ECHEC", False)
    clock.at = at(case.starts) - SECOND
    assert notification.plan_due(steps, LETTERS).sent == 1
    with store.session() as session:
        assert session.scalars(select(NotificationEntry.late)).one()
