"""The calendar against dates computed elsewhere: the 25 vectors of the requirements sheet and 16 years of holidays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest

from gateway.rcp.calendar import (
    CountMode,
    HolidaySet,
    NoticeRule,
    WallTime,
    easter,
    nth_working_day_before,
    plan_notice,
    zone_of_insee,
)

DATA = Path(__file__).parent / "data"
VECTORS = json.loads((DATA / "notice_vectors.json").read_text(encoding="utf-8"))["vectors"]
HOLIDAYS = json.loads((DATA / "holidays_2020_2035.json").read_text(encoding="utf-8"))


def _notice(vector):
    session = datetime.fromisoformat(vector["seance"])
    rule = NoticeRule(mode=CountMode(vector["mode"]), holidays=HolidaySet(vector["zone"]))
    return plan_notice(WallTime(session.date(), session.time(), vector["tz"]), rule)


@pytest.mark.req("S2-008", "S2-020", "S3-004")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["case"])
def test_vectors(vector):
    notice = _notice(vector)
    assert notice.sending_day == date.fromisoformat(vector["jour"])
    assert notice.sends_at == datetime.fromisoformat(vector["envoi"])
    assert notice.limit == datetime.fromisoformat(vector["limite"])
    assert notice.starts_at == datetime.fromisoformat(vector["seance_utc"])


def test_there_are_25_vectors():
    assert len(VECTORS) == 25


@pytest.mark.parametrize("machine_zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_vectors_do_not_depend_on_the_machine(machine_zone):
    script = (
        "from tests.contract.test_calendar import VECTORS, _notice\n"
        "print([str(_notice(v).sends_at) + str(_notice(v).limit) for v in VECTORS])"
    )
    environment = os.environ | {"TZ": machine_zone}
    root = Path(__file__).parents[2]
    shown = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=root, check=True, capture_output=True, text=True
    ).stdout
    assert shown.strip() == str([f"{_notice(v).sends_at}{_notice(v).limit}" for v in VECTORS])


@pytest.mark.parametrize("year", HOLIDAYS["easter"])
def test_easter(year):
    assert easter(int(year)) == date.fromisoformat(HOLIDAYS["easter"][year])


@pytest.mark.parametrize("zone", HOLIDAYS["legal"])
def test_legal_holidays_of_16_years(zone):
    for year, days in HOLIDAYS["legal"][zone].items():
        assert sorted(HolidaySet(zone).of_year(int(year))) == [date.fromisoformat(day) for day in days], year


@pytest.mark.parametrize("zone", ["polynesie-francaise", "nouvelle-caledonie", "wallis-et-futuna"])
def test_local_labour_codes_add_theirs_by_option(zone):
    for year, days in HOLIDAYS["local"][zone].items():
        with_customs = HolidaySet(zone, local_customs=True).of_year(int(year)).keys()
        assert with_customs - HolidaySet(zone).of_year(int(year)).keys() == set(map(date.fromisoformat, days)), year


def test_customs_of_guadeloupe():
    # The library's three, and All Souls, which the requirements sheet adds.
    for year, days in HOLIDAYS["local"]["guadeloupe"].items():
        customs = HolidaySet("guadeloupe", local_customs=True).of_year(int(year)).keys()
        expected = {*map(date.fromisoformat, days), date(int(year), 11, 2)}
        assert customs - HolidaySet("guadeloupe").of_year(int(year)).keys() == expected


# Requirements sheet 5.2, by hand: Easter Monday, Ascension, Whit Monday, Good Friday.
@pytest.mark.parametrize(
    ("year", "days", "good_friday"),
    [
        (2023, ("04-10", "05-18", "05-29"), "04-07"),
        (2024, ("04-01", "05-09", "05-20"), "03-29"),
        (2025, ("04-21", "05-29", "06-09"), "04-18"),
        (2026, ("04-06", "05-14", "05-25"), "04-03"),
        (2027, ("03-29", "05-06", "05-17"), "03-26"),
        (2028, ("04-17", "05-25", "06-05"), "04-14"),
    ],
)
def test_movable_days(year, days, good_friday):
    for day in days:
        assert date.fromisoformat(f"{year}-{day}") in HolidaySet()
    assert date.fromisoformat(f"{year}-{good_friday}") in HolidaySet("alsace-moselle")
    assert date.fromisoformat(f"{year}-{good_friday}") not in HolidaySet()


def test_ascension_on_the_first_of_may_is_one_day_with_two_names():
    assert HolidaySet().name_of(date(2008, 5, 1)) == "Fête du Travail, Ascension"
    assert len(HolidaySet().of_year(2008)) == 10


@pytest.mark.parametrize(
    ("insee", "zone"),
    [
        ("75056", "metropole"),
        ("57463", "alsace-moselle"),
        ("67482", "alsace-moselle"),
        ("54395", "metropole"),
        ("2A004", "metropole"),
        ("97105", "guadeloupe"),
        ("97701", "saint-barthelemy"),
        ("97123", "saint-barthelemy"),
        ("97801", "saint-martin"),
        ("97611", "mayotte"),
        ("98818", "nouvelle-caledonie"),
    ],
)
def test_the_territory_follows_the_insee_code(insee, zone):
    assert zone_of_insee(insee).id == zone


# « Reading » of the requirements sheet 5.5: what `hors_we` gives beside `ouvres`.
@pytest.mark.parametrize(
    ("session", "ouvres", "hors_we"),
    [
        ("2023-05-02", "2023-04-27", "2023-04-28"),
        ("2023-05-09", "2023-05-04", "2023-05-05"),
        ("2023-05-10", "2023-05-05", "2023-05-08"),
        ("2023-05-19", "2023-05-16", "2023-05-17"),
        ("2023-05-30", "2023-05-25", "2023-05-26"),
    ],
)
def test_the_two_modes_around_holidays(session, ouvres, hors_we):
    for mode, expected in ((CountMode.OUVRES, ouvres), (CountMode.HORS_WE, hors_we)):
        assert nth_working_day_before(date.fromisoformat(session), 2, HolidaySet(), mode) == date.fromisoformat(
            expected
        )


def test_change_of_hour_makes_95_or_97_hours():
    hours = {
        vector["case"]: (_notice(vector).starts_at - _notice(vector).limit) / timedelta(hours=1) for vector in VECTORS
    }
    assert hours["lundi apres passage heure ete"] == 95
    assert hours["mardi apres passage heure hiver"] == 97


def test_miquelon_changes_hour_by_another_rule():
    # Requirements sheet 5.3: 16:00 in Paris, seen from Saint-Pierre.
    seen = {}
    for day in (date(2023, 3, 8), date(2023, 3, 15), date(2023, 11, 1), date(2023, 11, 8)):
        paris = WallTime(day, time(16, 0), "Europe/Paris")
        seen[day.isoformat()] = WallTime.of(paris.instant, "America/Miquelon").at.hour
    assert seen == {"2023-03-08": 12, "2023-03-15": 13, "2023-11-01": 13, "2023-11-08": 12}


def test_a_weekly_session_keeps_its_hour_through_the_year():
    # Requirements sheet 5.3: 16:00 is 15:00Z in winter, 14:00Z in summer.
    assert WallTime(date(2023, 1, 11), time(16, 0), "Europe/Paris").instant == datetime(2023, 1, 11, 15, tzinfo=UTC)
    assert WallTime(date(2023, 7, 12), time(16, 0), "Europe/Paris").instant == datetime(2023, 7, 12, 14, tzinfo=UTC)
