"""Public holidays by territory: a set of dates a year, from ``mappings/jours_feries.json`` [spec features 5.2].

Promises: legal holidays of every territory for any year, with the years in which each law holds. A closure of one
place is said by its RCP, not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any

from gateway.errors import InvalidContent
from gateway.terminology import table

__all__ = ["HolidaySet", "HolidayZone", "easter", "holiday_zone", "holiday_zones", "zone_of_insee"]

_DEFAULT_ZONE = "metropole"


@dataclass(frozen=True, slots=True)
class HolidayZone:
    """A territory with its own holidays, and the IANA zones of its clocks (the first is the usual one)."""

    id: str
    label: str
    timezones: tuple[str, ...]
    insee: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Rule:
    """One holiday of every year: a fixed day, or days after Easter Sunday."""

    label: str
    month: int
    day: int
    easter: int | None
    solidarity: bool
    years: range

    def in_year(self, year: int) -> date:
        if self.easter is None:
            return date(year, self.month, self.day)
        return easter(year) + timedelta(days=self.easter)


@dataclass(frozen=True, slots=True)
class HolidaySet:
    """The days on which an RCP's organisers do not work, besides week-ends.

    Parameters
    ----------
    zone
        A zone's id or alias (`holiday_zones`).
    solidarity_day_worked
        Whit Monday is worked as « journée de solidarité »; a legal holiday otherwise.
    local_customs
        Days that only custom or a local labour code gives (21 July in the Antilles, 24 September in Nouméa).
    closures
        Days on which this RCP is closed, bridges for instance.
    """

    zone: str = _DEFAULT_ZONE
    solidarity_day_worked: bool = False
    local_customs: bool = False
    closures: frozenset[date] = frozenset()

    def __post_init__(self) -> None:
        """Refuse an unknown zone at once, not at the first question."""
        object.__setattr__(self, "zone", holiday_zone(self.zone).id)

    def of_year(self, year: int) -> Mapping[date, str]:
        """Return the holidays of one year with their French names; two on one day share it."""
        named = dict(_legal_days(self.zone, year, self.solidarity_day_worked, self.local_customs))
        named.update({day: "Fermeture locale" for day in self.closures if day.year == year and day not in named})
        return MappingProxyType(named)

    def name_of(self, day: date) -> str | None:
        """Return why nobody works on a day, or None."""
        named = _legal_days(self.zone, day.year, self.solidarity_day_worked, self.local_customs).get(day)
        return named or ("Fermeture locale" if day in self.closures else None)

    def __contains__(self, day: date) -> bool:
        return self.name_of(day) is not None


def easter(year: int) -> date:
    """Return Easter Sunday by the Gregorian computus (Meeus, Jones and Butcher's form)."""
    golden = year % 19
    century, in_century = divmod(year, 100)
    leap_centuries, century_rest = divmod(century, 4)
    moon_shift = (century - (century + 8) // 25 + 1) // 3
    epact = (19 * golden + century - leap_centuries - moon_shift + 15) % 30
    leaps, leap_rest = divmod(in_century, 4)
    to_sunday = (32 + 2 * century_rest + 2 * leaps - epact - leap_rest) % 7
    late = (golden + 11 * epact + 22 * to_sunday) // 451
    month, day = divmod(epact + to_sunday - 7 * late + 114, 31)
    return date(year, month, day + 1)


def holiday_zones() -> tuple[HolidayZone, ...]:
    """Return every territory, in the order of the table."""
    return tuple(
        HolidayZone(row["id"], row["label"], tuple(row["timezones"]), tuple(row["insee"]))
        for row in table("jours_feries")["zones"]
    )


def holiday_zone(name: str) -> HolidayZone:
    """Return a territory by its id or an alias.

    Raises
    ------
    InvalidContent
        ``zone-inconnue``.
    """
    found = _zones_by_name().get(name)
    if found is None:
        known = ", ".join(zone.id for zone in holiday_zones())
        raise InvalidContent("zone-inconnue", f"Cette zone de jours fériés n’existe pas. Zones : {known}.", rule=True)
    return found


def zone_of_insee(code: str) -> HolidayZone:
    """Return the territory of an INSEE commune or department code; a postal code would not tell."""
    prefixes = {prefix: zone for zone in holiday_zones() for prefix in zone.insee if code.startswith(prefix)}
    return prefixes[max(prefixes, key=len)] if prefixes else holiday_zone(_DEFAULT_ZONE)


@cache
def _zones_by_name() -> Mapping[str, HolidayZone]:
    by_id = {zone.id: zone for zone in holiday_zones()}
    aliases = {alias: by_id[row["id"]] for row in table("jours_feries")["zones"] for alias in row["aliases"]}
    return MappingProxyType(by_id | aliases)


@cache
def _rules(zone: str, solidarity_day_worked: bool, local_customs: bool) -> tuple[_Rule, ...]:  # noqa: FBT001 - a cache key
    row = next(row for row in table("jours_feries")["zones"] if row["id"] == zone)
    rules = [_rule(raw) for raw in (*table("jours_feries")["common"], *row["added"])]
    rules += [_rule(raw) for raw in row["customary"] if local_customs]
    return tuple(rule for rule in rules if not (rule.solidarity and solidarity_day_worked))


def _rule(raw: Mapping[str, Any]) -> _Rule:
    return _Rule(
        label=raw["label"],
        month=raw.get("month", 0),
        day=raw.get("day", 0),
        easter=raw.get("easter"),
        solidarity=raw.get("solidarity", False),
        years=range(raw.get("from", date.min.year), raw.get("until", date.max.year) + 1),
    )


@lru_cache(maxsize=512)
def _legal_days(zone: str, year: int, solidarity_day_worked: bool, local_customs: bool) -> Mapping[date, str]:  # noqa: FBT001 - a cache key
    named: dict[date, str] = {}
    rules = _rules(zone, solidarity_day_worked, local_customs)
    for rule in (rule for rule in rules if year in rule.years):
        day = rule.in_year(year)
        named[day] = f"{named[day]}, {rule.label}" if day in named else rule.label
    return MappingProxyType(named)
