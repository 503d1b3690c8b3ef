"""Options, limits, gaps and recurrences of the calendar."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import pytest

from gateway.errors import InvalidContent
from gateway.rcp.calendar import (
    CatchUp,
    CountMode,
    EveryWeeks,
    HolidaySet,
    LimitRule,
    ListedDates,
    NoticeRule,
    NthWeekday,
    Verdict,
    WallTime,
    expand,
    holiday_zones,
    instant_of,
    is_working_day,
    occurrences,
    plan_notice,
    time_zone,
)

PARIS = "Europe/Paris"
# S2 3/10: Thursday 11/05/2023 18:30; sending Tuesday 09/05 08:00, limit Tuesday 09/05 18:30, in Paris.
SESSION = WallTime(date(2023, 5, 11), time(18, 30), PARIS)


def _paris(text):
    day = datetime.fromisoformat(text)
    return instant_of(day.date(), day.time(), PARIS)


@pytest.mark.parametrize(
    ("registered", "verdict", "at"),
    [
        ("2023-05-02T10:00", Verdict.AT_SENDING, "2023-05-09T08:00"),
        ("2023-05-09T07:59", Verdict.AT_SENDING, "2023-05-09T08:00"),
        ("2023-05-09T11:00", Verdict.AT_ONCE, "2023-05-09T11:00"),
        ("2023-05-09T18:30:00", Verdict.AT_ONCE, "2023-05-09T18:30:00"),
        ("2023-05-09T18:30:01", Verdict.TOO_LATE, None),
        ("2023-05-10T09:00", Verdict.TOO_LATE, None),
    ],
)
def test_boundaries_of_the_limit(registered, verdict, at):
    sending = plan_notice(SESSION, NoticeRule()).sending(_paris(registered))
    assert sending.verdict is verdict
    assert sending.at == (at and _paris(at))


def test_catch_up_needs_the_option_and_hours_left():
    notice = plan_notice(SESSION, NoticeRule())
    assert notice.sending(_paris("2023-05-10T09:00"), catch_up=CatchUp()).verdict is Verdict.CATCH_UP
    assert notice.sending(_paris("2023-05-11T12:30"), catch_up=CatchUp()).at == _paris("2023-05-11T12:30")
    assert notice.sending(_paris("2023-05-11T12:31"), catch_up=CatchUp()).verdict is Verdict.TOO_LATE
    assert notice.sending(_paris("2023-05-11T12:31"), catch_up=CatchUp(minimum_hours=2)).verdict is Verdict.CATCH_UP


def test_a_condition_that_comes_late_on_a_dossier_in_time():
    notice = plan_notice(SESSION, NoticeRule())
    registered = _paris("2023-05-02T10:00")
    assert notice.sending(registered, completed_at=_paris("2023-05-09T12:00")).at == _paris("2023-05-09T12:00")
    late = _paris("2023-05-10T09:00")
    assert notice.sending(registered, completed_at=late).verdict is Verdict.TOO_LATE
    # « Rattrapage » is for dossiers registered late, not for this.
    assert notice.sending(registered, completed_at=late, catch_up=CatchUp()).verdict is Verdict.TOO_LATE
    assert notice.sending(registered, completed_at=late, data_limit=_paris("2023-05-10T12:00")).at == late


def test_a_missed_run_is_caught_up_before_the_session_never_after():
    notice = plan_notice(SESSION, NoticeRule())
    sending = notice.sending(_paris("2023-05-02T10:00"))
    assert not notice.is_due(sending, _paris("2023-05-09T07:59"))
    assert notice.is_due(sending, _paris("2023-05-09T08:00"))
    assert notice.is_due(sending, _paris("2023-05-11T18:29"))
    assert not notice.is_due(sending, _paris("2023-05-11T18:30"))
    assert not notice.is_due(notice.sending(_paris("2023-05-10T09:00")), _paris("2023-05-10T10:00"))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (LimitRule.HEURE_SEANCE, "2023-05-09T18:30"),
        (LimitRule.HEURE_ENVOI, "2023-05-09T08:00"),
        (LimitRule.FIN_DE_JOURNEE, "2023-05-09T23:59:59"),
    ],
)
def test_the_three_limits(limit, expected):
    assert plan_notice(SESSION, NoticeRule(limit=limit)).limit == _paris(expected)


def test_options_change_which_days_count():
    whit_monday = date(2023, 5, 29)
    assert not is_working_day(whit_monday, HolidaySet())
    assert is_working_day(whit_monday, HolidaySet(solidarity_day_worked=True))
    assert is_working_day(whit_monday, HolidaySet(), CountMode.HORS_WE)
    schoelcher = date(2023, 7, 21)
    assert is_working_day(schoelcher, HolidaySet("martinique"))
    assert not is_working_day(schoelcher, HolidaySet("martinique", local_customs=True))


def test_a_closure_acts_as_a_holiday_for_that_rcp_only():
    bridge = date(2023, 5, 19)
    closed = HolidaySet(closures=frozenset({bridge}))
    assert closed.name_of(bridge) == "Fermeture locale"
    assert bridge in closed.of_year(2023)
    assert bridge not in HolidaySet()
    monday = WallTime(date(2023, 5, 22), time(12, 0), PARIS)
    assert plan_notice(monday, NoticeRule()).sending_day == date(2023, 5, 17)
    assert plan_notice(monday, NoticeRule(holidays=closed)).sending_day == date(2023, 5, 16)


def test_a_closure_on_a_holiday_keeps_the_holiday_name():
    labour_day = date(2023, 5, 1)
    closed = HolidaySet(closures=frozenset({labour_day}))
    assert closed.of_year(2023)[labour_day] == closed.name_of(labour_day) == "Fête du Travail"


def test_unknown_zones_and_impossible_delays_are_refused():
    for zone in ("", "GES", "Paris"):
        with pytest.raises(InvalidContent) as refusal:
            HolidaySet(zone)
        assert refusal.value.code == "zone-inconnue"
    for days in (0, -1, 61):
        with pytest.raises(InvalidContent) as refusal:
            NoticeRule(days=days)
        assert "60" in refusal.value.text


@pytest.mark.parametrize("name", ["UTC", "Etc/GMT+2", "Europe/Lutece", "+02:00", "", "../../etc/passwd", "CET"])
def test_a_fixed_offset_is_no_place(name):
    with pytest.raises(InvalidContent) as refusal:
        time_zone(name)
    assert refusal.value.code == "fuseau-inconnu"


def test_every_territory_has_real_zones():
    for zone in holiday_zones():
        assert [time_zone(name).key for name in zone.timezones] == list(zone.timezones)


def test_an_hour_that_does_not_exist_is_refused_to_people_and_skipped_in_computations():
    with pytest.raises(InvalidContent) as refusal:
        instant_of(date(2023, 3, 26), time(2, 30), PARIS)
    assert refusal.value.code == "heure-inexistante"
    assert "26/03/2023" in refusal.value.text
    skipped = instant_of(date(2023, 3, 26), time(2, 30), PARIS, skip_gap=True)
    assert skipped == datetime(2023, 3, 26, 1, 0, tzinfo=UTC)


def test_an_hour_that_exists_twice_is_the_first():
    assert instant_of(date(2023, 10, 29), time(2, 30), PARIS) == datetime(2023, 10, 29, 0, 30, tzinfo=UTC)
    assert instant_of(date(2023, 10, 29), time(2, 30, fold=1), PARIS) == datetime(2023, 10, 29, 0, 30, tzinfo=UTC)


def test_every_week_keeps_its_hour_through_both_changes():
    days = expand(EveryWeeks(date(2023, 3, 15)), until=date(2023, 4, 5))
    series = occurrences(days, time(16, 0), time(17, 30), PARIS, HolidaySet())
    assert [occurrence.starts_at.hour for occurrence in series] == [15, 15, 14, 14]
    assert all(occurrence.ends_at - occurrence.starts_at == timedelta(minutes=90) for occurrence in series)


def test_series_stop_at_their_end():
    weekly = EveryWeeks(date(2026, 1, 7))
    assert expand(weekly, count=3) == (date(2026, 1, 7), date(2026, 1, 14), date(2026, 1, 21))
    assert expand(weekly, until=date(2026, 1, 14)) == (date(2026, 1, 7), date(2026, 1, 14))
    assert expand(weekly, until=date(2026, 1, 14), count=1) == (date(2026, 1, 7),)
    assert expand(EveryWeeks(date(2026, 1, 7), 2), count=2) == (date(2026, 1, 7), date(2026, 1, 21))
    assert expand(weekly, until=date(2026, 1, 1)) == ()


def test_nth_weekdays_of_2026():
    second_thursday = NthWeekday(date(2026, 1, 1), weekday=3, nth=2)
    assert expand(second_thursday, count=3) == (date(2026, 1, 8), date(2026, 2, 12), date(2026, 3, 12))
    last_friday = NthWeekday(date(2026, 1, 1), weekday=4, nth=-1)
    assert expand(last_friday, count=3) == (date(2026, 1, 30), date(2026, 2, 27), date(2026, 3, 27))
    # Only January, April, July, October and December 2026 have a fifth Thursday.
    fifth = NthWeekday(date(2026, 1, 1), weekday=3, nth=5)
    assert [day.month for day in expand(fifth, until=date(2026, 12, 31))] == [1, 4, 7, 10, 12]
    assert expand(NthWeekday(date(2026, 1, 9), weekday=3, nth=2), count=1) == (date(2026, 2, 12),)
    assert expand(NthWeekday(date(2026, 12, 1), weekday=3, nth=-1), count=2) == (date(2026, 12, 31), date(2027, 1, 28))


def test_lists_are_sorted_and_flag_holidays():
    days = expand(ListedDates((date(2026, 5, 8), date(2026, 5, 6), date(2026, 5, 8))))
    series = occurrences(days, time(18, 0), time(18, 0), PARIS, HolidaySet())
    assert [occurrence.holiday for occurrence in series] == [None, "Victoire 1945"]
    assert series[0].ends_at - series[0].starts_at == timedelta(days=1)


def test_series_without_end_too_long_or_impossible_are_refused():
    codes = {}
    for name, make in {
        "recurrence-sans-fin": lambda: expand(EveryWeeks(date(2026, 1, 7))),
        "recurrence-trop-longue": lambda: expand(EveryWeeks(date(2026, 1, 7)), until=date(2046, 1, 1)),
        "recurrence-invalide": lambda: EveryWeeks(date(2026, 1, 7), 0),
    }.items():
        with pytest.raises(InvalidContent) as refusal:
            make()
        codes[name] = refusal.value.code
    assert all(name == code for name, code in codes.items())
    for nth, weekday in ((0, 1), (6, 1), (1, 7)):
        with pytest.raises(InvalidContent):
            NthWeekday(date(2026, 1, 1), weekday, nth)
    with pytest.raises(InvalidContent):
        expand(EveryWeeks(date(2026, 1, 7)), count=0)
    assert len(expand(EveryWeeks(date(2026, 1, 7)), count=520)) == 520


def test_a_series_into_a_missing_hour_names_its_date():
    days = expand(EveryWeeks(date(2026, 3, 22)), count=2)
    with pytest.raises(InvalidContent) as refusal:
        occurrences(days, time(2, 30), time(4, 0), PARIS, HolidaySet())
    assert "29/03/2026" in refusal.value.text
