"""The dates of a meeting: every week, every second week, the n-th weekday of the month, or a list.

Series expand in wall time, then each occurrence becomes an instant: « 16:00 tous les mercredis » stays 16:00 through
the changes of hour. [spec features 5.3, 4.4 E14]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import count as count_from
from itertools import islice, takewhile

from gateway.errors import InvalidContent
from gateway.rcp.calendar.holidays import HolidaySet
from gateway.rcp.calendar.walltime import instant_of

__all__ = ["EveryWeeks", "ListedDates", "NthWeekday", "Occurrence", "Recurrence", "expand", "occurrences"]

_MOST_OCCURRENCES = 520
_DAYS_IN_WEEK = 7
_LAST = -1


@dataclass(frozen=True, slots=True)
class EveryWeeks:
    """Every ``interval`` weeks from a first date: 1 is weekly, 2 every second week."""

    first: date
    interval: int = 1

    def __post_init__(self) -> None:
        """Refuse an interval that would not advance."""
        if not 1 <= self.interval <= 52:
            raise InvalidContent("recurrence-invalide", "L’intervalle va de 1 à 52 semaines.", rule=True)

    def dates(self) -> Iterator[date]:
        """Yield the dates without end."""
        return (self.first + timedelta(weeks=self.interval * turn) for turn in count_from())


@dataclass(frozen=True, slots=True)
class NthWeekday:
    """The n-th weekday of each month from a first date on; -1 is the last. A month without a fifth one has none.

    Parameters
    ----------
    first
        No date before it.
    weekday
        0 is Monday.
    nth
        1 to 5, or -1.
    """

    first: date
    weekday: int
    nth: int

    def __post_init__(self) -> None:
        """Refuse what is no weekday or no rank."""
        if not 0 <= self.weekday < _DAYS_IN_WEEK or self.nth not in {_LAST, 1, 2, 3, 4, 5}:
            text = "Le rang va de 1 à 5 (ou -1 pour le dernier) et le jour de 0 (lundi) à 6 (dimanche)."
            raise InvalidContent("recurrence-invalide", text, rule=True)

    def dates(self) -> Iterator[date]:
        """Yield the dates without end."""
        for month in count_from(self.first.year * 12 + self.first.month - 1):
            day = self._in_month(*divmod(month, 12))
            if day is not None and day >= self.first:
                yield day

    def _in_month(self, year: int, month_index: int) -> date | None:
        opening = date(year, month_index + 1, 1)
        following = date(year + month_index // 11, (month_index + 1) % 12 + 1, 1)
        if self.nth == _LAST:
            back = (following - timedelta(days=1)).weekday() - self.weekday
            return following - timedelta(days=1 + back % _DAYS_IN_WEEK)
        day = opening + timedelta(days=(self.weekday - opening.weekday()) % _DAYS_IN_WEEK, weeks=self.nth - 1)
        return day if day < following else None


@dataclass(frozen=True, slots=True)
class ListedDates:
    """Dates given one by one; order and repetition do not matter."""

    days: tuple[date, ...]

    def dates(self) -> Iterator[date]:
        """Yield the dates in order, each once."""
        return iter(sorted(set(self.days)))


Recurrence = EveryWeeks | NthWeekday | ListedDates


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One session that a series gives: its wall times, its instants in UTC, and the holiday it falls on, if any."""

    day: date
    starts: time
    ends: time
    zone: str
    starts_at: datetime
    ends_at: datetime
    holiday: str | None


def expand(recurrence: Recurrence, *, until: date | None = None, count: int | None = None) -> tuple[date, ...]:
    """Return the dates of a series, ``until`` included, at most ``count``.

    Raises
    ------
    InvalidContent
        ``recurrence-sans-fin`` when neither is given for a series without end; ``recurrence-trop-longue`` beyond 520
        dates (ten years of a weekly meeting).
    """
    if until is None and count is None and not isinstance(recurrence, ListedDates):
        raise InvalidContent("recurrence-sans-fin", "Indiquez une date de fin ou un nombre de séances.", rule=True)
    if count is not None and count < 1:
        raise InvalidContent("recurrence-invalide", "Le nombre de séances est d’au moins 1.", rule=True)
    wanted = takewhile(lambda day: until is None or day <= until, recurrence.dates())
    days = tuple(islice(wanted, min(count or _MOST_OCCURRENCES + 1, _MOST_OCCURRENCES + 1)))
    if len(days) > _MOST_OCCURRENCES:
        text = f"Une série compte au plus {_MOST_OCCURRENCES} séances."
        raise InvalidContent("recurrence-trop-longue", text, rule=True)
    return days


def occurrences(
    days: tuple[date, ...], starts: time, ends: time, zone: str, holidays: HolidaySet
) -> tuple[Occurrence, ...]:
    """Return the sessions of some dates, holidays flagged; an end at or before the start is on the next day.

    Raises
    ------
    InvalidContent
        ``heure-inexistante``: names the date on which that hour does not exist.
    """
    overnight = timedelta(days=1 if ends <= starts else 0)
    return tuple(
        Occurrence(
            day=day,
            starts=starts,
            ends=ends,
            zone=zone,
            starts_at=instant_of(day, starts, zone),
            ends_at=instant_of(day + overnight, ends, zone),
            holiday=holidays.name_of(day),
        )
        for day in days
    )
