"""Working hours: how long a secretariat that is there in the daytime has had.

Promises: pure; days are those that count for `notice`, hours are wall time of the place, through changes of hour.

[spec mssante 5.7]
"""

from __future__ import annotations

from datetime import datetime, time, timedelta

from gateway.rcp.calendar.holidays import HolidaySet
from gateway.rcp.calendar.notice import is_working_day
from gateway.rcp.calendar.walltime import WallTime, instant_of

__all__ = ["CLOSES", "OPENS", "working_hours_after"]

OPENS, CLOSES = time(8, 0), time(18, 0)
"""The day of a secretariat: the sheet says « 4 working hours » and not which; these are ours."""


def working_hours_after(start: datetime, hours: float, zone: str, holidays: HolidaySet) -> datetime:
    """Return the instant at which that many working hours have gone by, in UTC."""
    left, day = timedelta(hours=hours), WallTime.of(start, zone).day
    while True:
        if is_working_day(day, holidays):
            begins = max(instant_of(day, OPENS, zone, skip_gap=True), start)
            ends = instant_of(day, CLOSES, zone, skip_gap=True)
            if begins + left <= ends:
                return begins + left
            left -= max(ends - begins, timedelta(0))
        day += timedelta(days=1)
