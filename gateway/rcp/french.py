"""How dates, hours, places and names are written in French, in mails, pages and documents alike.

Promises: no locale of the machine is asked; a day is written as it is on the wall of the place that the caller chose,
and nothing here converts an instant but `zone_note`. Escapes nothing: each medium does.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time
from zoneinfo import ZoneInfo

__all__ = [
    "born",
    "hour",
    "long_date",
    "long_day",
    "partial_date",
    "patient_surname",
    "short_date",
    "zone_label",
    "zone_note",
]

_DAYS = ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche")
_MONTHS = (
    "janvier",
    "février",
    "mars",
    "avril",
    "mai",
    "juin",
    "juillet",
    "août",
    "septembre",
    "octobre",
    "novembre",
    "décembre",
)
_BORN = {"M": "né", "F": "née", "male": "né", "female": "née"}

_ZONES: Mapping[str, tuple[str, str]] = {
    # IANA zone: "heure de …", "12h30 à …"
    "Europe/Paris": ("heure de Paris", "en métropole"),
    "America/Martinique": ("heure de La Martinique", "à La Martinique"),
    "America/Guadeloupe": ("heure de La Guadeloupe", "à La Guadeloupe"),
    "America/Cayenne": ("heure de Cayenne", "en Guyane"),
    "America/Miquelon": ("heure de Saint-Pierre", "à Saint-Pierre-et-Miquelon"),
    "America/St_Barthelemy": ("heure de Saint-Barthélemy", "à Saint-Barthélemy"),
    "America/Marigot": ("heure de Saint-Martin", "à Saint-Martin"),
    "Indian/Reunion": ("heure de La Réunion", "à La Réunion"),
    "Indian/Mayotte": ("heure de Mayotte", "à Mayotte"),
    "Pacific/Noumea": ("heure de Nouméa", "en Nouvelle-Calédonie"),
    "Pacific/Tahiti": ("heure de Tahiti", "à Tahiti"),
    "Pacific/Marquesas": ("heure des Marquises", "aux Marquises"),
    "Pacific/Gambier": ("heure des Gambier", "aux Gambier"),
    "Pacific/Wallis": ("heure de Wallis", "à Wallis-et-Futuna"),
}


def born(gender: str | None) -> str:
    """Return « né », « née », or « né(e) » when the sex is not known (``M``, ``F``, or FHIR's words)."""
    return _BORN.get(gender or "", "né(e)")


def patient_surname(birth_name: str, used_name: str | None = None, gender: str | None = None) -> str:
    """Return the surname to print: the used name, with the birth name beside it when they differ; upper case."""
    birth, used = birth_name.strip().upper(), (used_name or "").strip().upper()
    if not used or used == birth:
        return birth
    return f"{used} ({born(gender)} {birth})" if birth else used


def short_date(day: date) -> str:
    """Return « 11/05/2023 »."""
    return f"{day.day:02d}/{day.month:02d}/{day.year:04d}"


def partial_date(value: str | None) -> str:
    """Return an ISO 8601 date that may stop at the month or the year: « 01/03/1965 », « 03/1965 », « 1965 »."""
    parts = (value or "").partition("T")[0].split("-")
    return "/".join(reversed(parts)) if parts != [""] else "date de naissance inconnue"


def long_date(day: date) -> str:
    """Return « 11 mai 2023 », « 1er mai 2023 »."""
    return f"{'1er' if day.day == 1 else day.day} {_MONTHS[day.month - 1]} {day.year:04d}"


def long_day(day: date) -> str:
    """Return « jeudi 11 mai 2023 »."""
    return f"{_DAYS[day.weekday()]} {long_date(day)}"


def hour(at: time | datetime, *, spaced: bool = False) -> str:
    """Return « 18h30 », or « 18 h 30 » (no-break spaces) when `spaced` (setting ``format_heure``)."""
    joint = "\u00a0h\u00a0" if spaced else "h"
    return f"{at.hour:02d}{joint}{at.minute:02d}"


def zone_label(zone: str) -> str:
    """Return « heure de Paris » for an IANA zone."""
    return _ZONES.get(zone, (f"heure de {zone}", ""))[0]


def zone_note(start: datetime, zone: str, reader_zone: str | None) -> str:
    """Return what follows the hour when the reader lives in another zone, else nothing.

    Parameters
    ----------
    start
        Aware instant of the session.
    zone
        IANA zone of the RCP, whose wall time the mail prints.
    reader_zone
        IANA zone of the recipient's territory, if known.

    Notes
    -----
    « (heure de Paris ; 12h30 à La Martinique) »; the day is added when it is another day there.
    """
    if not reader_zone or reader_zone == zone:
        return ""
    here, there = start.astimezone(ZoneInfo(zone)), start.astimezone(ZoneInfo(reader_zone))
    if here.utcoffset() == there.utcoffset():
        return ""
    here_label = zone_label(zone)
    there_label = _ZONES.get(reader_zone, ("", f"({reader_zone})"))[1]
    day = "" if here.date() == there.date() else f"{long_day(there.date())} à "
    return f"({here_label} ; {day}{hour(there)} {there_label})"
