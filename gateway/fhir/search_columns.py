"""What a resource can be found by: from a tree to the values of its table's search columns.

One column a parameter of ``mappings/fhir-search`` (`Parameter.column`), `None` when the resource says nothing. How each
kind is written, so that one indexed operator answers each question:

=========  ===========  ==============================================================================================
kind       column       content
=========  ===========  ==============================================================================================
token      text[]       ``system␟code``, ``␞code`` (any system) and ``system␞`` (any code) of each coding
reference  text[]       ``Type/id``; ``␞system␟value`` of a reference by identifier; a canonical, bare too
date       tstzrange    the hull of all moments said, half open; partial dates are intervals
string     text[]       each text folded (`fold`), ``␟`` and its first letters (up to `PREFIX`) for starts-with,
                        and ``␞`` with the text itself for ``:exact``
uri        text[]       as written
=========  ===========  ==============================================================================================

``␞`` and ``␟`` stand for U+001E and U+001F, which no FHIR string may hold [FHIR R4 datatypes#string].

Promises: pure functions of the tree; `extract` of a tree that was accepted never raises; a moment without a zone is
read in Europe/Paris (general servers read it in UTC and lose local days). Not promised: FHIRPath beyond the paths of
the table (names, choices, alternatives, reference types).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from gateway import terminology

__all__ = [
    "ANY",
    "IS",
    "PREFIX",
    "Interval",
    "Parameter",
    "date_interval",
    "exact",
    "extract",
    "fold",
    "parameters",
    "token",
    "types",
]

ANY = "\x1e"
IS = "\x1f"
PARIS = ZoneInfo("Europe/Paris")
#: Letters of a folded text that are indexed for starts-with; longer questions are checked on the whole text after.
PREFIX = 8

#: Half open, in UTC; `None` is unbounded.
Interval = tuple[datetime | None, datetime | None]


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    choice: bool = False


@dataclass(frozen=True, slots=True)
class _Path:
    steps: tuple[_Step, ...]
    only: str | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One search parameter of one type."""

    type: str
    code: str
    kind: str
    paths: tuple[_Path, ...]
    targets: tuple[str, ...]
    url: str

    @property
    def column(self) -> str:
        """Name of its column: the code, hyphens as underscores, behind ``p_``."""
        return "p_" + self.code.replace("-", "_")


@cache
def _table() -> Mapping[str, Mapping[str, Parameter]]:
    raw = terminology.table("fhir-search")
    found: dict[str, dict[str, Parameter]] = {kind: {} for kind in raw["types"]}
    for row in raw["parameters"]:
        found[row["type"]][row["code"]] = Parameter(
            type=row["type"],
            code=row["code"],
            kind=row["kind"],
            paths=tuple(_path(text) for text in row["path"].split("|")),
            targets=tuple(row.get("targets", ())),
            url=row["url"],
        )
    return found


def _path(text: str) -> _Path:
    dotted, _, only = text.partition(":")
    steps = []
    for step in dotted.split("."):
        name, bracket, kind = step.partition("[")
        kind = kind.rstrip("]")
        if bracket and kind != "x":
            name += kind[0].upper() + kind[1:]
        steps.append(_Step(name, choice=kind == "x"))
    return _Path(tuple(steps), only or None)


def types() -> tuple[str, ...]:
    """Resource types that have a table, in the order of the file."""
    return tuple(_table())


def parameters(kind: str) -> Mapping[str, Parameter]:
    """Search parameters of one type, by code; empty for a type without a table."""
    return _table().get(kind, {})


def extract(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the search columns of one resource.

    Returns
    -------
    dict
        Column name to a sorted list of texts, to an `Interval`, or to `None`.
    """
    return {
        parameter.column: _KINDS[parameter.kind](parameter, tree)
        for parameter in parameters(str(tree.get("resourceType"))).values()
    }


def _nodes(tree: Mapping[str, Any], parameter: Parameter) -> Iterator[Any]:
    for path in parameter.paths:
        level: list[Any] = [tree]
        for step in path.steps:
            below: list[Any] = []
            for node in level:
                if isinstance(node, dict):
                    below.extend(_children(node, step))
            level = below
        yield from (node for node in level if path.only is None or _refers_to(node, path.only))


def _children(node: Mapping[str, Any], step: _Step) -> Iterator[Any]:
    if step.choice:
        values = [
            value
            for name, value in node.items()
            if name.startswith(step.name) and name[len(step.name) : len(step.name) + 1].isupper()
        ]
    else:
        values = [node[step.name]] if step.name in node else []
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value


def _refers_to(node: Any, kind: str) -> bool:
    if not isinstance(node, dict):
        return False
    literal = _literal(node.get("reference"))
    return literal.split("/")[0] == kind if literal else node.get("type") == kind


def token(system: str | None, code: str) -> str:
    """Write the exact token of a coding, an identifier or a plain code."""
    return f"{system or ''}{IS}{code}"


def exact(text: str) -> str:
    """Write the entry that ``:exact`` looks for."""
    return ANY + text


def _tokens(parameter: Parameter, tree: Mapping[str, Any]) -> list[str] | None:
    found: set[str] = set()
    if parameter.code == "deceased":
        # R4 says: exists() and not false; so an absent element answers false.
        dead = tree.get("deceasedBoolean", "deceasedDateTime" in tree)
        found |= {ANY + str(bool(dead)).lower()}
    else:
        for node in _nodes(tree, parameter):
            for system, code in _codings(node):
                found |= {token(system, code), ANY + code}
                if system:
                    found.add(system + ANY)
    return sorted(found) or None


def _codings(node: Any) -> Iterator[tuple[str | None, str]]:
    if isinstance(node, bool):
        yield None, str(node).lower()
    elif isinstance(node, str):
        yield None, node
    elif isinstance(node, dict):
        for coding in node.get("coding", ()):
            yield from _codings(coding)
        code = node.get("code", node.get("value"))
        if isinstance(code, str):
            yield node.get("system"), code


_RELATIVE = re.compile(r"([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")


def _literal(reference: Any) -> str | None:
    """``Type/id`` of a relative reference, the URL itself of an absolute one."""
    if not isinstance(reference, str) or reference.startswith("#"):
        return None
    relative = _RELATIVE.fullmatch(reference)
    return relative.group(1) if relative else reference


def _reference_tokens(parameter: Parameter, tree: Mapping[str, Any]) -> list[str] | None:
    found: set[str] = set()
    for node in _nodes(tree, parameter):
        if isinstance(node, str):
            found |= {node, node.partition("|")[0]}
        elif isinstance(node, dict):
            literal = _literal(node.get("reference"))
            if literal:
                found.add(literal)
            identifier = node.get("identifier")
            if isinstance(identifier, dict) and isinstance(identifier.get("value"), str):
                found.add(ANY + token(identifier.get("system"), identifier["value"]))
    return sorted(found) or None


def fold(text: str) -> str:
    """Fold for search: no case, no accent, ligatures opened, blanks run together [FHIR R4 search#string]."""
    opened = text.replace("œ", "oe").replace("Œ", "OE").replace("æ", "ae").replace("Æ", "AE").replace("’", "'")
    plain = "".join(char for char in unicodedata.normalize("NFKD", opened) if not unicodedata.combining(char))
    return " ".join(plain.casefold().split())


_NAME_PARTS = ("text", "family", "given", "prefix", "suffix")
_ADDRESS_PARTS = ("text", "line", "city", "district", "state", "postalCode", "country")


def _strings(parameter: Parameter, tree: Mapping[str, Any]) -> list[str] | None:
    found: set[str] = set()
    for node in _nodes(tree, parameter):
        texts: list[Any] = [node]
        if isinstance(node, dict):
            texts = []
            for part in {*_NAME_PARTS, *_ADDRESS_PARTS}:
                value = node.get(part)
                texts.extend(value if isinstance(value, list) else [value])
        for text in texts:
            if isinstance(text, str):
                folded = fold(text)
                found |= {folded, exact(text)}
                found |= {IS + folded[:length] for length in range(1, min(PREFIX, len(folded)) + 1)}
    return sorted(found) or None


def _uris(parameter: Parameter, tree: Mapping[str, Any]) -> list[str] | None:
    return sorted({node for node in _nodes(tree, parameter) if isinstance(node, str)}) or None


def _moments(parameter: Parameter, tree: Mapping[str, Any]) -> Interval | None:
    intervals = [interval for node in _nodes(tree, parameter) for interval in _intervals(node)]
    if not intervals:
        return None
    starts = [start for start, _ in intervals if start is not None]
    ends = [end for _, end in intervals if end is not None]
    return (
        min(starts) if len(starts) == len(intervals) else None,
        max(ends) if len(ends) == len(intervals) else None,
    )


def _intervals(node: Any) -> Iterator[Interval]:
    if isinstance(node, str):
        # The first and last years of the calendar have no neighbour to end at: they cannot be searched by.
        with suppress(ValueError, OverflowError):
            yield date_interval(node)
    elif isinstance(node, dict):
        for event in node.get("event", ()):
            yield from _intervals(event)
        low = next((low for low, _ in _intervals(node.get("start"))), None)
        high = next((high for _, high in _intervals(node.get("end"))), None)
        # A period that ends before it starts would make an invalid range; it is then only its start.
        if low is not None and high is not None and low >= high:
            yield from _intervals(node["start"])
        elif low is not None or high is not None:
            yield low, high


_DATE_TIME = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})(?:T([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?)?)?"
)


def date_interval(text: str) -> tuple[datetime, datetime]:
    """Read a date or dateTime as the half-open interval of its implicit precision, in UTC.

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
    low = start.astimezone(UTC)
    return low, low + step


def _offset(zone: str) -> timezone:
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    shift = timedelta(hours=hours, minutes=minutes)
    return timezone(-shift if zone[0] == "-" else shift)


def _days(year: int, month: int, day: int, precision: int) -> tuple[datetime, datetime]:
    start = datetime(year, month, day, tzinfo=PARIS)
    if precision == 2:
        after = (datetime(year, month, day) + timedelta(days=1)).replace(tzinfo=PARIS)  # noqa: DTZ001 - wall date
    elif precision == 1:
        after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=PARIS)
    else:
        after = datetime(year + 1, 1, 1, tzinfo=PARIS)
    return start.astimezone(UTC), after.astimezone(UTC)


_KINDS = {
    "token": _tokens,
    "reference": _reference_tokens,
    "string": _strings,
    "uri": _uris,
    "date": _moments,
}
