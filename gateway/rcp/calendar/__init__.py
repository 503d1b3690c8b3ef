"""The French working-day calendar: when a session is, and when its physicians are told.

Promises: pure functions on frozen values, no clock of their own, no database; nothing depends on the time zone of the
machine. Datetimes are aware and in UTC; what people agreed on (a session, an hour of sending) is wall time in a named
IANA zone. [spec features part 5]

Not promised: local closures that nobody entered, and holidays before 1982 (8 May).

`holidays` (who rests when), `walltime` (from an hour on the wall to an instant), `notice` (« 2 jours ouvrés avant »),
`working_hours` (how long a secretariat has had), `recurrence` (the dates of a meeting).
"""

from gateway.rcp.calendar.holidays import HolidaySet, HolidayZone, easter, holiday_zone, holiday_zones, zone_of_insee
from gateway.rcp.calendar.notice import (
    CatchUp,
    CountMode,
    LimitRule,
    Notice,
    NoticeRule,
    Sending,
    Verdict,
    is_working_day,
    nth_working_day_before,
    plan_notice,
)
from gateway.rcp.calendar.recurrence import (
    EveryWeeks,
    ListedDates,
    NthWeekday,
    Occurrence,
    Recurrence,
    expand,
    occurrences,
)
from gateway.rcp.calendar.walltime import WallTime, instant_of, time_zone
from gateway.rcp.calendar.working_hours import working_hours_after

__all__ = [
    "CatchUp",
    "CountMode",
    "EveryWeeks",
    "HolidaySet",
    "HolidayZone",
    "LimitRule",
    "ListedDates",
    "Notice",
    "NoticeRule",
    "NthWeekday",
    "Occurrence",
    "Recurrence",
    "Sending",
    "Verdict",
    "WallTime",
    "easter",
    "expand",
    "holiday_zone",
    "holiday_zones",
    "instant_of",
    "is_working_day",
    "nth_working_day_before",
    "occurrences",
    "plan_notice",
    "time_zone",
    "working_hours_after",
    "zone_of_insee",
]
