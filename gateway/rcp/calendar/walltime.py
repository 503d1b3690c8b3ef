"""From an hour on the wall of a place to an instant, through changes of hour [spec features 5.3].

Promises: an hour that exists twice is the first, one that does not exist is refused, or skipped when asked. The rules
of the zones are the IANA's, as the machine or the `tzdata` package has them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.errors import InvalidContent

__all__ = ["WallTime", "instant_of", "time_zone"]


@dataclass(frozen=True, slots=True)
class WallTime:
    """What people agreed on: a date and an hour in a place. It does not move when the hour changes.

    Parameters
    ----------
    day, at
        As the clock on the wall shows them, without zone.
    zone
        IANA name of the place (``Europe/Paris``), never a fixed offset.
    """

    day: date
    at: time
    zone: str

    @property
    def instant(self) -> datetime:
        """The instant, in UTC (`instant_of`)."""
        return instant_of(self.day, self.at, self.zone)

    @classmethod
    def of(cls, instant: datetime, zone: str) -> WallTime:
        """Return what the clock of a place shows at an instant."""
        there = instant.astimezone(time_zone(zone))
        return cls(there.date(), there.time().replace(tzinfo=None, fold=0), zone)


@cache
def time_zone(name: str) -> ZoneInfo:
    """Return an IANA zone of a place.

    Raises
    ------
    InvalidContent
        ``fuseau-inconnu``: no such zone, or a fixed offset, which would be wrong half of the year.
    """
    place = None
    if "/" in name and not name.startswith("Etc/"):
        with suppress(ZoneInfoNotFoundError, ValueError, OSError):
            place = ZoneInfo(name)
    if place is None:
        text = "Ce fuseau horaire n’existe pas : indiquez un lieu, comme « Europe/Paris »."
        raise InvalidContent("fuseau-inconnu", text, rule=True)
    return place


def instant_of(day: date, at: time, zone: str, *, skip_gap: bool = False) -> datetime:
    """Return the instant of a wall time, in UTC.

    An hour that exists twice (the clocks go back) is the first of the two.

    Parameters
    ----------
    skip_gap
        What to do with an hour that does not exist (the clocks go forward): refuse what a person entered (default), or
        take the first instant after the gap, for what is computed.

    Raises
    ------
    InvalidContent
        ``heure-inexistante``.
    """
    place = time_zone(zone)
    wall = datetime.combine(day, at.replace(tzinfo=None, fold=0))
    instant = wall.replace(tzinfo=place).astimezone(UTC)
    if instant.astimezone(place).replace(tzinfo=None) == wall:
        return instant
    if not skip_gap:
        text = f"Le {day:%d/%m/%Y}, {at:%H} h {at:%M} n’existe pas : l’heure change cette nuit-là."
        raise InvalidContent("heure-inexistante", text, rule=True)
    # With fold=0 the offset before the gap was used; the gap ends where that offset stops being the place's.
    before = wall.replace(tzinfo=place).utcoffset() or timedelta(0)
    after = wall.replace(tzinfo=place, fold=1).utcoffset() or timedelta(0)
    low, high = instant - abs(after - before), instant
    while high - low > timedelta(microseconds=1):
        middle = low + (high - low) / 2
        low, high = (middle, high) if place.utcoffset(middle.astimezone(place)) == before else (low, middle)
    return high
