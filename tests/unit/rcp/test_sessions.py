"""RCPs and sessions: planned in wall time, opened and closed by their organisers, quorum by groups of specialities."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time, timedelta

import pytest
from sqlalchemy import select

from gateway.errors import Conflict, Forbidden, InvalidContent, NotFound
from gateway.model.directory import Practitioner
from gateway.model.meeting import Attendance, Rcp, RcpMember, RcpSession
from gateway.rcp import registry, sessions
from gateway.rcp.access import SYSTEM, Caller, CallerKind, Role
from gateway.rcp.calendar import EveryWeeks
from gateway.rcp.registry import NetworkFacts
from gateway.rcp.sessions import RcpFacts

FACTS = RcpFacts(
    national_number="RCP-1",
    title="Sénologie",
    place="CHU X",
    contact="secrétariat",
    signature="les organisateurs",
    quorum={"groups": {"oncologie-medicale": 1, "radiotherapie": 1}, "minimum": 3},
    notification={"active": True, "jours": 2, "calendrier": "ouvres", "heure_envoi": "07:30"},
)


@pytest.fixture
def meeting(steps, store):
    """One RCP with a coordinator, a member and a planned series; returns its id and callers."""

    def verb(step):
        network = registry.add_network(
            step,
            NetworkFacts(
                code="dcc", name="DCC", base_url="https://dcc.example", contact="x", holidays="alsace-moselle"
            ),
        )
        rcp = sessions.create_rcp(step, network, FACTS)
        callers = {}
        for number, role in enumerate(("coordonnateur", "membre", None)):
            who = Practitioner(
                rpps=f"1{number}", idnps=f"81{number}", family="X", given="Y", source="essai", as_of=date(2026, 1, 1)
            )
            step.session.add(who)
            step.session.flush()
            if role:
                sessions.join_rcp(step, rcp, who, Role(role))
            callers[role] = Caller(kind=CallerKind.PROFESSIONAL, practitioner_id=who.id, identifier=who.idnps)
        planned = sessions.plan_sessions(
            step, rcp, EveryWeeks(date(2026, 3, 19)), time(14), time(16), until=date(2026, 4, 16)
        )
        return rcp.id, [one.id for one in planned], callers

    return steps.run(SYSTEM, verb)


def test_a_series_leaves_holidays_out_and_keeps_its_hour(meeting, store):
    with store.session() as session:
        rows = session.scalars(select(RcpSession).order_by(RcpSession.starts_at)).unique().all()
        assert [row.on for row in rows] == [date(2026, 3, 19) + timedelta(weeks=week) for week in range(5)]
        assert [row.starts_at.hour for row in rows] == [13, 13, 12, 12, 12]
        assert {row.zone for row in rows} == {"Europe/Paris"}
        assert len({row.identifier for row in rows}) == 5


def test_a_session_on_a_holiday_is_planned_only_when_asked(steps, store, meeting):
    rcp_id, _, _ = meeting
    series, hours = EveryWeeks(date(2026, 5, 1)), (time(9), time(10))

    def plan(*, on_holidays):
        def verb(step):
            return len(
                sessions.plan_sessions(
                    step, step.session.get(Rcp, rcp_id), series, *hours, count=2, on_holidays=on_holidays
                )
            )

        return steps.run(SYSTEM, verb)

    assert plan(on_holidays=False) == 0  # 1 and 8 May
    assert plan(on_holidays=True) == 2


def test_planning_twice_adds_nothing(steps, store, meeting):
    rcp_id, _, _ = meeting

    def verb(step):
        rcp = step.session.get(Rcp, rcp_id)
        return sessions.plan_sessions(step, rcp, EveryWeeks(date(2026, 3, 19)), time(14), time(16), count=6)

    assert [one.on for one in steps.run(SYSTEM, verb)] == [date(2026, 4, 23)]


def test_states_follow_one_table(steps, store, meeting):
    _, [first, second, *_], callers = meeting
    who = callers["coordonnateur"]
    assert steps.run(who, lambda step: sessions.open_session(step, first).state) == "ouverte"
    assert steps.run(who, lambda step: sessions.open_session(step, first).state) == "ouverte"
    assert steps.run(who, lambda step: sessions.close_session(step, first).state) == "close"
    for verb, session_id in ((sessions.open_session, first), (sessions.close_session, second)):
        with pytest.raises(Conflict) as refusal:
            steps.run(who, lambda step, verb=verb, session_id=session_id: verb(step, session_id))
        assert refusal.value.code == "seance-etat"


def test_only_organisers_hold_a_session(steps, meeting):
    _, [first, *_], callers = meeting
    with pytest.raises(Forbidden):
        steps.run(callers["membre"], lambda step: sessions.open_session(step, first))
    with pytest.raises(NotFound):
        steps.run(callers[None], lambda step: sessions.open_session(step, first))
    with pytest.raises(NotFound):
        steps.run(SYSTEM, lambda step: sessions.open_session(step, uuid.uuid4()))


def test_attendance_freezes_the_speciality_and_may_be_corrected(steps, store, meeting):
    _, [first, *_], callers = meeting
    who = callers["coordonnateur"]

    def attend(step, mode):
        person = step.session.get(Practitioner, callers["membre"].practitioner_id)
        person.speciality = "SM36"
        return sessions.attend(step, first, person, mode=mode)

    with pytest.raises(Conflict):
        steps.run(who, lambda step: attend(step, "presentiel"))
    steps.run(who, lambda step: sessions.open_session(step, first))
    steps.run(who, lambda step: attend(step, "presentiel"))
    steps.run(who, lambda step: attend(step, "webconference"))
    with store.session() as session:
        [row] = session.scalars(select(Attendance)).all()
        assert (row.mode, row.speciality) == ("webconference", "SM36")
    steps.run(who, lambda step: sessions.leave(step, first, callers["membre"].practitioner_id))
    with store.session() as session:
        assert session.scalars(select(Attendance)).all() == []


def _session(*specialities, rule=None):
    rcp = Rcp(quorum=FACTS.quorum if rule is None else rule, notification={}, holidays="metropole")
    session = RcpSession(rcp=rcp, zone="Europe/Paris", on=date(2026, 3, 19), start=time(14))
    session.attendances = [Attendance(speciality=code, practitioner_id=uuid.uuid4()) for code in specialities]
    return session


# A.1: at least three doctors of different specialities; two people of one count once, one of two counts for one.
@pytest.mark.parametrize(
    ("specialities", "reached", "missing"),
    [
        ((), False, ("oncologie-medicale", "radiotherapie")),
        (("SM36", "SM37"), False, ()),
        (("SM36", "SM37", "SM01"), True, ()),
        (("SM36", "SM37", "SM37"), False, ()),
        (("SM36", "SM01", "SM20"), False, ("radiotherapie",)),
        # SM55 is a radiologist and a radiotherapist: he fills the seat that is missing.
        (("SM55", "SM36", "SM44"), True, ()),
        # SM35 counts for oncology or haematology, not for both.
        (("SM35", "SM37"), False, ()),
        (("SM36", "SM37", None), False, ()),
        (("SM36", "SM37", "inconnu"), False, ()),
    ],
)
def test_quorum_by_groups_of_specialities(specialities, reached, missing):
    quorum = sessions.quorum_of(_session(*specialities))
    assert (quorum.reached, quorum.missing) == (reached, missing)
    assert sum(quorum.counted.values()) <= len(specialities)


def test_a_rule_is_data():
    assert sessions.quorum_of(_session("SM36", "SM01", rule={"minimum": 2})).reached
    assert not sessions.quorum_of(_session("SM36", "SM01", rule={})).reached
    assert not sessions.quorum_of(_session("SM36", "SM01", "SM20", rule={"groups": {"oncologie-medicale": 2}})).reached
    # A person who could fill either seat does not keep another from his only one.
    assert sessions.quorum_of(
        _session("SM55", "SM45", rule={"groups": {"radiologie": 1, "radiotherapie": 1}, "minimum": 2})
    ).reached


def test_an_rcp_says_when_its_physicians_are_told():
    session = _session()
    session.rcp.notification = FACTS.notification
    notice = sessions.notice_of(session)
    # Tuesday 17 March 2026, 7:30 in Paris; the limit is the session's own hour.
    assert notice.sends_at == datetime(2026, 3, 17, 6, 30, tzinfo=UTC)
    assert notice.limit == datetime(2026, 3, 17, 13, 0, tzinfo=UTC)
    session.rcp.notification = {"fermetures": ["2026-03-18"]}
    assert sessions.notice_of(session).sending_day == date(2026, 3, 16)
    assert sessions.catch_up_of(session.rcp) is None
    session.rcp.notification = {"rattrapage": True, "rattrapage_min_heures": 2}
    assert sessions.catch_up_of(session.rcp).minimum_hours == 2


@pytest.mark.parametrize(
    "notification",
    [
        {"jours": "deux"},
        {"calendrier": "ouvrables"},
        {"heure_envoi": "8h"},
        {"limite": "?"},
        {"fermetures": ["demain"]},
    ],
)
def test_settings_that_cannot_be_read_are_refused_when_the_rcp_is_made(steps, notification):
    def verb(step):
        network = registry.add_network(
            step, NetworkFacts(code="dcc", name="DCC", base_url="https://dcc.example", contact="x")
        )
        facts = RcpFacts(
            national_number="R", title="T", place="P", contact="C", signature="S", notification=notification
        )
        sessions.create_rcp(step, network, facts)

    with pytest.raises(InvalidContent) as refusal:
        steps.run(SYSTEM, verb)
    assert refusal.value.code == "reglage-invalide"
    assert next(iter(notification)) in refusal.value.text


def test_a_member_who_left_may_come_back(steps, store, meeting):
    rcp_id, _, callers = meeting
    member = callers["membre"].practitioner_id
    with store.session() as session:
        row = session.scalars(select(RcpMember).where(RcpMember.practitioner_id == member)).one()
        row.until = datetime(2026, 1, 1, tzinfo=UTC)
        session.commit()

    def verb(step):
        who = step.session.get(Practitioner, member)
        sessions.join_rcp(step, step.session.get(Rcp, rcp_id), who, Role.MEMBER)

    steps.run(SYSTEM, verb)
    with store.session() as session:
        assert session.scalars(select(RcpMember.until).where(RcpMember.practitioner_id == member)).all() == [None]
