"""How search reads texts, moments and numbers: the same on the side of the resource and on that of the question.

[FHIR R4 search#string, #date, #number, #quantity]

Promises: pure; a partial date or a number is the interval of its precision; a moment without a zone is read in
Europe/Paris (general servers read it in UTC and lose local days); a text is compared without case, accents and
punctuation. Not promised: anything of a text behind its first `TEXT_MAX` letters, which only ``:exact`` compares whole.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, cast
from zoneinfo import ZoneInfo

__all__ = [
    "PARIS",
    "TEXT_MAX",
    "Bounds",
    "Span",
    "date_interval",
    "fold",
    "grams",
    "hull",
    "number",
    "precise",
    "split",
    "unescaped",
]

PARIS = ZoneInfo("Europe/Paris")
#: Letters of a folded text that are compared.
TEXT_MAX = 256
#: Powers of ten beyond which a number is no quantity of this world, and no ``numeric`` of PostgreSQL either.
_MAGNITUDE = 1000


Bounds = Literal["()", "[)", "(]", "[]"]


@dataclass(frozen=True, slots=True)
class Span:
    """A range of moments (aware) or of numbers as PostgreSQL has them; `None` is unbounded."""

    low: Any
    high: Any
    bounds: Bounds = "[)"

    @property
    def literal(self) -> str:
        """The text that PostgreSQL reads as this range."""
        low, high = (
            "" if bound is None else bound.isoformat() if isinstance(bound, datetime) else str(bound)
            for bound in (self.low, self.high)
        )
        return f"{self.bounds[0]}{low},{high}{self.bounds[1]}"


def hull(spans: Iterable[Span]) -> Span:
    """The smallest range that holds all of them; at least one is given."""
    given = list(spans)
    if len(given) == 1:
        return given[0]
    low = None if any(one.low is None for one in given) else min(one.low for one in given)
    high = None if any(one.high is None for one in given) else max(one.high for one in given)
    opens = "[" if any(one.low == low and one.bounds[0] == "[" for one in given) else "("
    closes = "]" if any(one.high == high and one.bounds[1] == "]" for one in given) else ")"
    return Span(low, high, cast("Bounds", opens + closes))


# Texts

_ASCII = {code: chr(code).lower() if chr(code).isalnum() or chr(code) in "$+<=>^`|~" else " " for code in range(128)}
_LIGATURES = str.maketrans({"œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE"})


def fold(text: str) -> str:
    """Fold for search: no case, no accent, ligatures opened, punctuation and blanks run together to one blank.

    « Jean-Pierre » and « jean pierre » are one name, « D’Æsope » is « d aesope » [FHIR R4 search#string].
    """
    if text.isascii():
        return " ".join(text.translate(_ASCII).split())[:TEXT_MAX]
    plain = "".join(
        " " if unicodedata.category(char)[0] in "PZC" else char
        for char in unicodedata.normalize("NFKD", text.translate(_LIGATURES))
        if not unicodedata.combining(char)
    )
    return " ".join(plain.casefold().split())[:TEXT_MAX]


def grams(folded: str) -> set[str]:
    """Every three letters that stand side by side: what ``:contains`` is found by."""
    return {folded[place : place + 3] for place in range(len(folded) - 2)}


def split(text: str, sign: str, most: int = -1) -> list[str]:
    """Cut at a sign that no backslash protects; escapes stay [FHIR R4 search#escaping]."""
    if "\\" not in text:
        return text.split(sign, most)
    parts: list[str] = []
    begin, place = 0, 0
    while place < len(text):
        if text[place] == "\\":
            place += 2
            continue
        if text[place] == sign and most != len(parts):
            parts.append(text[begin:place])
            begin = place + 1
        place += 1
    return [*parts, text[begin:]]


def unescaped(text: str) -> str:
    r"""Take the backslash off ``\,``, ``\|``, ``\$`` and ``\\``."""
    return re.sub(r"\\([,$|\\])", r"\1", text) if "\\" in text else text


# Numbers

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def number(value: Any) -> Decimal | None:
    """A number as it stands in a resource or in a question; `None` when it is none, or beyond all measure."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    far = not found.is_finite() or abs(found.adjusted()) > _MAGNITUDE or len(found.as_tuple().digits) > _MAGNITUDE
    return None if far else found


def precise(text: str) -> Span | None:
    """The numbers that a question means by its significant figures: half a unit of the last one around it.

    ``100`` is [99.5, 100.5), ``100.00`` [99.995, 100.005), ``1e2`` [95, 105) as R4's own table says [FHIR R4
    search#number].
    """
    value = number(text)
    if value is None:
        return None
    exponent = int(value.as_tuple().exponent)
    if "e" in text.lower() and "." not in text:
        exponent -= 1
    half = Decimal((0, (5,), exponent - 1))
    return Span(value - half, value + half)


# Moments

#: A microsecond off Python's own ends, which drivers take for infinity: no page would lie beyond that.
_FIRST = datetime.min.replace(tzinfo=UTC, microsecond=1)
_LAST = datetime.max.replace(tzinfo=UTC, microsecond=999_998)
_DATE_TIME = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})(?:T([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?)?)?"
)


def date_interval(text: str) -> tuple[datetime, datetime]:
    """Read a date or dateTime as the half-open interval of its implicit precision, in UTC.

    The calendar's first and last days end with it: softwares write « 9999-12-31 » for no end.

    Raises
    ------
    ValueError
        Not a date, or outside the calendar.
    """
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError("not a FHIR date")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    if hour is None:
        return _days(int(year), int(month or 1), int(day or 1), 2 if day else 1 if month else 0)
    info = PARIS if zone is None else UTC if zone == "Z" else _offset(zone)
    # A leap second is the last moment of its minute: Python has no 60th second.
    leap = second == "60"
    micro = int((fraction or "0")[:6].ljust(6, "0"))
    start = datetime(
        int(year), int(month), int(day), int(hour), int(minute), 59 if leap else int(second or 0), micro, info
    )
    step = timedelta(minutes=1) if second is None else timedelta(seconds=1)
    if fraction:
        step = timedelta(microseconds=max(1, 10 ** (6 - min(6, len(fraction)))))
    low = _utc(start)
    if low == _LAST:
        raise ValueError("no time is left after it")
    try:
        return low, min(low + step, _LAST)
    except OverflowError:
        return low, _LAST


def _utc(moment: datetime) -> datetime:
    try:
        return min(max(moment.astimezone(UTC), _FIRST), _LAST)
    except OverflowError:
        return _FIRST if moment.year == 1 else _LAST


def _offset(zone: str) -> timezone:
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    shift = timedelta(hours=hours, minutes=minutes)
    return timezone(-shift if zone[0] == "-" else shift)


def _days(year: int, month: int, day: int, precision: int) -> tuple[datetime, datetime]:
    start = datetime(year, month, day, tzinfo=PARIS)
    if year == 9999 and (month, day)[:precision] == (12, 31)[:precision]:
        return _utc(start), _LAST
    if precision == 2:
        after = (datetime(year, month, day) + timedelta(days=1)).replace(tzinfo=PARIS)  # noqa: DTZ001 - wall date
    elif precision == 1:
        after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=PARIS)
    else:
        after = datetime(year + 1, 1, 1, tzinfo=PARIS)
    return _utc(start), _utc(after)
