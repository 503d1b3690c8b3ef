"""Dates that no calendar of ours holds whole: the objects that say them are kept, shown and found."""

from __future__ import annotations

import json
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.model.imaging import Study
from tests.e2e.dicom.test_stow import sender, written  # noqa: F401 - a fixture


@pytest.mark.parametrize(
    ("day", "clock", "zone"),
    [
        ("99991231", "235959.999999", None),
        ("99991231", "233000", "-1200"),
        ("00010101", "000000", None),
        ("00010101", "000000", "+1400"),
        ("19000101", "101500", None),
    ],
)
def test_dates_at_the_ends_of_the_calendar_keep_their_study(web, sender, session, day, clock, zone):  # noqa: F811
    """What takes dates away writes such ones; no driver reads the instants: the objects were refused as a defect."""
    for index in range(2):
        ds = slice_data_set(DOMINIQUE, index)
        more = {"TimezoneOffsetFromUTC": zone} if zone else {}
        body = written(ds, StudyDate=day, StudyTime=clock, SeriesDate=day, SeriesTime=clock, **more)
        assert web.post("/studies", body, "application/dicom")[0] == 200
    session.rollback()
    study = session.scalars(select(Study)).one()
    known = study.started_on or study.started_at.astimezone(ZoneInfo("Europe/Paris")).date()
    assert known.isoformat().replace("-", "") == day
    status, _, found = web.get(f"/studies?StudyDate={day}&includefield=all")
    assert (status, json.loads(found)[0]["00080020"]["Value"], json.loads(found)[0]["00080030"]["Value"]) == (
        200,
        [day],
        [clock],
    )
