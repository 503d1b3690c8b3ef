"""Laws of « n jours ouvrés avant » [requirements sheet 5.4.10]."""

from __future__ import annotations

import itertools
from datetime import date, time, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.errors import InvalidContent
from gateway.rcp.calendar import (
    CountMode,
    EveryWeeks,
    HolidaySet,
    LimitRule,
    NoticeRule,
    NthWeekday,
    WallTime,
    expand,
    holiday_zones,
    instant_of,
    is_working_day,
    nth_working_day_before,
    plan_notice,
)

days = st.dates(date(2000, 1, 1), date(2100, 12, 31))
zones = st.sampled_from([zone.id for zone in holiday_zones()])
places = st.sampled_from([name for zone in holiday_zones() for name in zone.timezones])
hours = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30, 45]))
modes = st.sampled_from(CountMode)


@st.composite
def holiday_sets(draw):
    near = draw(days)
    closures = draw(st.frozensets(st.integers(-20, 20).map(lambda shift: near + timedelta(days=shift)), max_size=5))
    return HolidaySet(draw(zones), draw(st.booleans()), draw(st.booleans()), closures)


@given(days, st.integers(1, 10), holiday_sets(), modes)
def test_the_sending_day_counts_and_exactly_n_days_count_until_the_session(day, count, holidays, mode):
    sending = nth_working_day_before(day, count, holidays, mode)
    assert is_working_day(sending, holidays, mode)
    span = [sending + timedelta(days=shift) for shift in range((day - sending).days)]
    assert sum(is_working_day(between, holidays, mode) for between in span) == count


@given(days, st.integers(0, 30), holiday_sets(), modes)
def test_monotone_in_the_session_day(day, later, holidays, mode):
    after = day + timedelta(days=later)
    assert nth_working_day_before(day, 2, holidays, mode) <= nth_working_day_before(after, 2, holidays, mode)


@given(days, st.integers(1, 10), holiday_sets())
def test_leaving_holidays_in_never_sends_earlier(day, count, holidays):
    without = nth_working_day_before(day, count, holidays, CountMode.OUVRES)
    assert nth_working_day_before(day, count, holidays, CountMode.HORS_WE) >= without


@given(days, hours, places, holiday_sets(), modes, hours, st.sampled_from(LimitRule), st.integers(1, 5))
def test_sending_limit_and_session_are_in_order(day, at, place, holidays, mode, send_at, limit, count):
    rule = NoticeRule(days=count, mode=mode, send_at=send_at, limit=limit, holidays=holidays)
    try:
        notice = plan_notice(WallTime(day, at, place), rule)
    except InvalidContent as refusal:
        # Only the session's own hour can be missing.
        assert refusal.code == "heure-inexistante"  # noqa: PT017 - the law is about what is not refused
        return
    assert notice.sends_at <= notice.limit < notice.starts_at
    assert WallTime.of(notice.sends_at, place).day == notice.sending_day


@given(days, hours, places)
def test_wall_time_comes_back_from_its_instant(day, at, place):
    try:
        instant = instant_of(day, at, place)
    except InvalidContent:
        skipped = instant_of(day, at, place, skip_gap=True)
        there = WallTime.of(skipped, place)
        assert (there.day, there.at) > (day, at)
        return
    assert WallTime.of(instant, place) == WallTime(day, at, place)


@given(st.dates(date(2000, 1, 1), date(2090, 1, 1)), st.integers(1, 4), st.integers(1, 60))
def test_weekly_series_are_even(first, interval, count):
    series = expand(EveryWeeks(first, interval), count=count)
    assert len(series) == count
    assert {later - earlier for earlier, later in itertools.pairwise(series)} <= {timedelta(weeks=interval)}


@given(st.dates(date(2000, 1, 1), date(2090, 1, 1)), st.integers(0, 6), st.sampled_from([-1, 1, 2, 3, 4, 5]))
def test_monthly_series_have_their_weekday_and_rank(first, weekday, nth):
    series = expand(NthWeekday(first, weekday, nth), count=24)
    assert all(day >= first and day.weekday() == weekday for day in series)
    if nth == -1:
        assert all((day + timedelta(weeks=1)).month != day.month for day in series)
    else:
        assert all((day.day - 1) // 7 + 1 == nth for day in series)


@given(days, zones)
def test_a_holiday_set_answers_alike_by_year_and_by_day(day, zone):
    holidays = HolidaySet(zone)
    assert (day in holidays) == (day in holidays.of_year(day.year))
    assert holidays.name_of(day) == holidays.of_year(day.year).get(day)


@given(days)
def test_alsace_and_moselle_rest_on_good_friday(day):
    assume(day not in HolidaySet())
    easter_monday = day + timedelta(days=3)
    if day.weekday() == 4 and HolidaySet().name_of(easter_monday) == "Lundi de Pâques":
        assert day in HolidaySet("alsace")


def test_the_laws_can_fail():
    # A counter of calendar days, which a hurried reader could write, breaks the second law on S2 7/10.
    session, wrong = date(2023, 5, 2), date(2023, 5, 2) - timedelta(days=2)
    with pytest.raises(AssertionError):
        assert is_working_day(wrong, HolidaySet())
    assert nth_working_day_before(session, 2, HolidaySet()) == date(2023, 4, 27)
