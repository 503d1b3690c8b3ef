"""Laws of the decision who is told before a meeting (features.md 5.4), and the worked boundaries of 5.5."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rcp.calendar import CatchUp, NoticeRule, WallTime, plan_notice
from gateway.rcp.notice_rules import CONDITIONS, Facts, decide

# features.md 5.5, case "S2 3/10": Thursday 11 May 2023, 18:30 in Paris.
NOTICE = plan_notice(WallTime(date(2023, 5, 11), time(18, 30), "Europe/Paris"), NoticeRule())
GOOD = Facts(
    notice=NOTICE,
    session_holds=True,
    opposed=False,
    rcp_takes_part=True,
    named=True,
    has_rpps=True,
    is_requester=False,
    wants_news=True,
    box_ticked=True,
    has_address=True,
    registered_at=datetime(2023, 5, 2, 9, 0, tzinfo=UTC),
)
WRONG = {
    "NON_SEANCE": {"session_holds": False},
    "NON_OPPOSITION": {"opposed": True},
    "NON_RCP": {"rcp_takes_part": False},
    "NON_MT": {"named": False},
    "NON_RPPS": {"has_rpps": False},
    "NON_DEMANDEUR": {"is_requester": True},
    "NON_REFUS": {"wants_news": False},
    "NON_ADRESSE": {"box_ticked": False},
    "NON_MSS": {"has_address": False},
}
INSTANTS = st.datetimes(datetime(2023, 4, 25), datetime(2023, 5, 20), timezones=st.just(UTC))
FACTS = st.builds(
    Facts,
    notice=st.just(NOTICE),
    session_holds=st.booleans(),
    opposed=st.booleans(),
    rcp_takes_part=st.booleans(),
    named=st.booleans(),
    has_rpps=st.booleans(),
    is_requester=st.booleans(),
    wants_news=st.booleans(),
    box_ticked=st.booleans(),
    has_address=st.booleans(),
    registered_at=st.none() | INSTANTS,
    ready_at=st.none() | INSTANTS,
    catch_up=st.none() | st.just(CatchUp()),
)


@pytest.mark.req("S3-006", "S3-007", "S3-008", "S3-009")
@pytest.mark.parametrize("code", sorted(WRONG))
def test_each_condition_alone_false_has_its_own_code(code):
    assert decide(replace(GOOD, **WRONG[code]), NOTICE.sends_at).code == code
    assert decide(GOOD, NOTICE.sends_at).code == "ENVOYEE"


def test_every_condition_is_in_the_table_once():
    assert [code for code, _ in CONDITIONS] == list(WRONG)


@pytest.mark.req("S2-020", "S3-004", "S3-006")
@pytest.mark.parametrize(
    ("registered", "code", "due"),
    [
        ("2023-05-09T05:59Z", "ENVOYEE", "2023-05-09T06:00Z"),
        ("2023-05-09T09:00Z", "ENVOYEE", "2023-05-09T09:00Z"),
        ("2023-05-09T16:30:00Z", "ENVOYEE", "2023-05-09T16:30:00Z"),
        ("2023-05-09T16:30:01Z", "NON_DELAI", "2023-05-09T16:30:00Z"),
        ("2023-05-10T08:00Z", "NON_DELAI", "2023-05-09T16:30:00Z"),
    ],
)
def test_the_worked_boundaries(registered, code, due):
    at = datetime.fromisoformat(registered)
    decision = decide(replace(GOOD, registered_at=at), max(at, NOTICE.sends_at))
    assert (decision.code, decision.due_at) == (code, datetime.fromisoformat(due))


@given(FACTS, INSTANTS)
def test_nothing_leaves_unless_every_condition_holds_and_in_time(facts, now):
    decision = decide(facts, now)
    if decision.code == "ENVOYEE":
        assert all(holds(facts) for _, holds in CONDITIONS)
        assert facts.registered_at is not None
        assert decision.due_at is not None
        assert NOTICE.sends_at <= decision.due_at <= now < NOTICE.starts_at
        assert decision.due_at >= facts.registered_at
        if not decision.catch_up:
            assert decision.due_at <= NOTICE.limit
        assert decision.late == (now - decision.due_at > timedelta(minutes=15))


@given(FACTS, INSTANTS)
def test_one_code_and_the_first_false_condition_decides(facts, now):
    decision = decide(facts, now)
    false = [code for code, holds in CONDITIONS if not holds(facts)]
    if false:
        assert decision.code == false[0]
    else:
        assert decision.code in {None, "NON_DELAI", "PREVUE", "ENVOYEE", "ECHEC"}


@given(FACTS, INSTANTS, INSTANTS)
def test_with_the_same_facts_time_only_moves_forward(facts, one, other):
    order = [None, "PREVUE", "ENVOYEE", "ECHEC", "NON_DELAI"]
    first, second = (decide(facts, at).code for at in sorted([one, other]))
    if first in order and second in order:
        if first == "NON_DELAI":
            assert second == "NON_DELAI"
        assert order.index(first) <= order.index(second)
    else:
        assert first == second


@given(FACTS, INSTANTS)
def test_after_the_start_nothing_leaves(facts, now):
    if now >= NOTICE.starts_at:
        assert decide(facts, now).code not in {"ENVOYEE", "PREVUE"}
