"""Whether a JSON value has the format of its FHIR primitive type [FHIR R4 datatypes#primitive].

Promises: one test a type in `PRIMITIVES`, none of which raises or takes more than linear time; calendar dates exist.
Not promised: that an address answers or a code is known.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

__all__ = ["PRIMITIVES", "Test"]

#: Asked with a value; a second argument is taken and not looked at, so that a test can stand among the closures of
#: `gateway.fhir.structure` without one more call for each value.
Test = Callable[..., bool]

_DATE = r"[0-9]{4}(?:-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12][0-9]|3[01]))?)?"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
_ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_FULL = r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"


def _text(value: Any, _: Any = None) -> bool:
    return type(value) is str and value != "" and not value.isspace()


def _matching(pattern: str) -> Test:
    fits = re.compile(pattern).fullmatch
    return lambda value, _=None: type(value) is str and fits(value) is not None


def _in_calendar(value: str) -> bool:
    if len(value) < 10:
        return value[:4] != "0000"
    try:
        date(int(value[:4]), int(value[5:7]), int(value[8:10]))
    except ValueError:
        return False
    return True


def _dated(pattern: str) -> Test:
    fits = re.compile(pattern).fullmatch
    return lambda value, _=None: type(value) is str and fits(value) is not None and _in_calendar(value)


def _whole(low: int, high: int) -> Test:
    return lambda value, _=None: type(value) is int and low <= value <= high


def _decimal(value: Any, _: Any = None) -> bool:
    return type(value) is int or (isinstance(value, Decimal) and value.is_finite())


_SPACES = re.compile(r"[ \t\r\n]+")


def _base64(value: Any, _: Any = None) -> bool:
    if type(value) is not str or value == "":
        return False
    try:
        binascii.a2b_base64(_SPACES.sub("", value), strict_mode=True)
    except ValueError:
        return False
    return True


# Where a regular expression would have to look at each character twice, the test is written out.
PRIMITIVES: Mapping[str, Test] = {
    "boolean": lambda value, _=None: type(value) is bool,
    "integer": _whole(-(2**31), 2**31 - 1),
    "unsignedInt": _whole(0, 2**31 - 1),
    "positiveInt": _whole(1, 2**31 - 1),
    "decimal": _decimal,
    "id": _matching(r"[A-Za-z0-9\-.]{1,64}"),
    "code": _matching(r"[^\s]+(?:\s[^\s]+)*"),
    "uri": _matching(r"\S+"),
    "url": _matching(r"\S+"),
    "canonical": _matching(r"\S+"),
    "oid": _matching(r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+"),
    "uuid": _matching(r"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "date": _dated(_DATE),
    "dateTime": _dated(rf"{_DATE}|{_FULL}T{_TIME}{_ZONE}"),
    "instant": _dated(rf"{_FULL}T{_TIME}{_ZONE}"),
    "time": _matching(_TIME),
    "base64Binary": _base64,
    "string": _text,
    "markdown": _text,
    "xhtml": lambda value, _=None: (
        type(value) is str and value.startswith(("<div>", "<div ", "<div\n", "<div\t", "<div\r"))
    ),
    "System.String": _text,
}
