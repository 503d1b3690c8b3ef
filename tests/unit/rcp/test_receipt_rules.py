"""What receipts mean in any order, which bounces are for good, and how long news is waited for."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.rcp.calendar import HolidaySet, is_working_day, working_hours_after
from gateway.rcp.calendar.walltime import WallTime
from gateway.rcp.receipt_rules import STATES, address_is_lost, state_after, waits

FRANCE = HolidaySet()


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        # spec mssante 5.3: each row of the table of states, then what may come after it.
        (("retardee",), "retarde"),
        (("relayee",), "relaye"),
        (("remise",), "accepte"),
        (("rejetee",), "rejete"),
        (("refusee",), "rejete"),
        (("lue",), "lu"),
        (("traitee",), "traite"),
        (("supprimee",), "supprime"),
        (("retardee", "remise"), "accepte"),
        (("retardee", "rejetee"), "rejete"),
        (("remise", "lue"), "lu"),
        (("remise", "rejetee"), "rejete"),  # S03: some operators bounce after acceptance
        (("lue", "rejetee"), "lu"),  # both are kept, what was read stays read
        (("remise", "supprimee"), "supprime"),
        (("supprimee", "lue"), "lu"),
        (("remise", "traitee", "lue"), "lu"),
    ],
)
def test_receipts_in_every_order_and_twice_give_one_state(kinds, state):
    for order in itertools.permutations(kinds + kinds):
        for left in ("en-attente", "envoye", "parque", "annule"):
            found = left
            for kind in order:
                found = state_after(found, kind)
            assert found == state, order


@given(st.lists(st.sampled_from(sorted(STATES)), min_size=1, max_size=8), st.randoms())
@settings(max_examples=60)
def test_no_order_of_receipts_is_another_truth(kinds, random):
    def settled(order):
        state = "envoye"
        for kind in order:
            state = state_after(state, kind)
        return state

    mixed = list(kinds)
    random.shuffle(mixed)
    assert settled(kinds) == settled(mixed)


def test_a_silence_that_was_told_ends_with_the_first_news_of_delivery():
    assert state_after("sans-nouvelle", "retardee") == "sans-nouvelle"
    assert state_after("sans-nouvelle", "remise") == "accepte"
    assert state_after("sans-nouvelle", "rejetee") == "rejete"


@pytest.mark.parametrize("word", ["inconnue", ""])
def test_a_receipt_of_no_kind_changes_nothing(word):
    assert state_after("envoye", word) == "envoye"


@pytest.mark.parametrize(
    ("status", "code", "lost"),
    [
        ("5.1.1", "550", True),
        ("5.1.1", None, True),
        ("5.1.2", None, True),
        ("5.1.6", "551", True),  # moved, no forwarding address
        ("5.1.10", None, True),  # null MX
        ("5.2.1", "550", True),  # mailbox disabled
        (None, "550", True),
        (None, "551", True),
        (None, "553", True),
        ("5.0.0", "550", True),
        ("5.1.5", None, False),  # "destination address valid"
        ("5.1.7", "553", False),  # the sender's address
        ("5.1.8", "550", False),
        ("5.2.2", "552", False),  # full
        ("5.7.1", "550", False),  # policy
        ("5.1.11", None, False),
        ("4.1.1", "450", False),
        (None, "554", False),
        (None, "552", False),
        ("5.0.0", "554", False),
        (None, None, False),
    ],
)
def test_which_failures_say_that_the_address_is_no_good(status, code, lost):
    assert address_is_lost(status=status, code=code) is lost


def paris(day, hour, minute=0):
    return WallTime(
        datetime.fromisoformat(day).date(), datetime(2026, 1, 1, hour, minute).time(), "Europe/Paris"
    ).instant


@pytest.mark.parametrize(
    ("start", "then"),
    [
        # Worked by hand on the calendar of 2026; Monday 6 April is Easter Monday.
        (paris("2026-03-17", 8), paris("2026-03-17", 12)),
        (paris("2026-03-17", 16), paris("2026-03-18", 10)),
        (paris("2026-03-17", 14), paris("2026-03-17", 18)),
        (paris("2026-03-20", 17), paris("2026-03-23", 11)),
        (paris("2026-03-21", 11), paris("2026-03-23", 12)),
        (paris("2026-04-03", 16, 30), paris("2026-04-07", 10, 30)),
        (paris("2026-03-17", 3), paris("2026-03-17", 12)),
        (paris("2026-03-17", 23), paris("2026-03-18", 12)),
        (paris("2026-03-27", 17), paris("2026-03-30", 11)),  # the clocks go forward on Sunday 29
    ],
)
def test_four_working_hours_are_those_of_a_secretariat(start, then):
    assert working_hours_after(start, 4, "Europe/Paris", FRANCE) == then


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)), st.sampled_from([0.5, 4, 10, 23]))
@settings(max_examples=60)
def test_working_hours_end_on_a_working_day_and_never_before_they_are_over(start, hours):
    begins = start.replace(tzinfo=UTC)
    ends = working_hours_after(begins, hours, "Europe/Paris", FRANCE)
    there = WallTime.of(ends, "Europe/Paris")
    assert ends - begins >= timedelta(hours=hours)
    assert is_working_day(there.day, FRANCE)
    assert 8 <= there.at.hour + there.at.minute / 60 <= 18


@pytest.mark.parametrize(
    ("kind", "dsn", "mdn", "found"),
    [
        ("M1", True, True, [("remise", paris("2026-03-17", 12))]),
        ("M1", False, True, []),
        ("M2", True, True, []),
        ("M6", True, True, [("remise", paris("2026-03-19", 8)), ("lecture", paris("2026-03-24", 8))]),
        ("M6", True, False, [("remise", paris("2026-03-19", 8))]),
        ("M6", False, True, [("lecture", paris("2026-03-24", 8))]),
        ("M6r", False, False, []),
    ],
)
def test_what_is_waited_for_and_until_when(kind, dsn, mdn, found):
    said = waits(kind, paris("2026-03-17", 8), dsn=dsn, mdn=mdn, zone="Europe/Paris", holidays=FRANCE)
    assert [(one.what, one.until) for one in said] == found
