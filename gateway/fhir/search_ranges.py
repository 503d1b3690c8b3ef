"""Prefixes over dates, numbers and quantities: an index over the hull of a row's values, then the values themselves.

[FHIR R4 search#prefix, #date, #number, #quantity]

Both sides are ranges. Of a date, the question means the whole day, month or second that it writes; so does the
resource. Of a number, ``eq`` and ``ne`` mean its significant figures, the other prefixes the number itself, and the
resource's value is the number that it says, or all that its comparator leaves open (``<5``).

Promises: a resource with several values is found if one of them answers, never because their hull does; a
resource that says nothing answers no question, ``ne`` included. ``ap`` is a tenth of the number, or of the time between
the date and now, as R4 recommends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, case, cast, func, literal, not_, or_, select, true
from sqlalchemy.dialects.postgresql import JSONB, NUMRANGE, TSTZRANGE
from sqlalchemy.types import DateTime, Text, TypeEngine

from gateway.errors import InvalidContent
from gateway.fhir.search_columns import ANY, Parameter, token
from gateway.fhir.search_values import Span, date_interval, number, precise, split, unescaped
from gateway.model.store import utcnow

__all__ = ["PREFIXES", "Question", "among", "instant", "quantity_among", "questions", "ranged"]

#: Prefixes of dates, numbers and quantities.
PREFIXES: tuple[str, ...] = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")

_PREFIXED = re.compile(rf"({'|'.join(PREFIXES)})?(.*)", re.DOTALL)
_TYPES: Mapping[str, TypeEngine[Any]] = {"date": TSTZRANGE(), "number": NUMRANGE(), "quantity": NUMRANGE()}


@dataclass(frozen=True, slots=True)
class Question:
    """One value asked for.

    Attributes
    ----------
    equal
        What ``eq`` and ``ne`` look into.
    same
        What the other prefixes compare with.
    near
        What ``ap`` looks into.
    unit
        Unit that a quantity must have, as `search_columns` writes it.
    """

    prefix: str
    equal: Span
    same: Span
    near: Span
    unit: str | None = None

    @property
    def above(self) -> Span:
        """All behind it."""
        return Span(self.same.high, None, "()" if self.same.bounds[1] == "]" else "[)")

    @property
    def below(self) -> Span:
        """All before it."""
        return Span(None, self.same.low, "()")

    @property
    def since(self) -> Span:
        """It, and all behind it."""
        return Span(self.same.low, None, "[)")

    @property
    def until(self) -> Span:
        """It, and all before it."""
        return Span(None, self.same.high, "(]" if self.same.bounds[1] == "]" else "()")


def questions(kind: str, values: Sequence[str], refusal: InvalidContent) -> list[Question]:
    """Read the values of a date, number or quantity parameter; ``refusal`` is raised for what is none."""
    found = []
    for value in values:
        match = _PREFIXED.fullmatch(value)
        prefix, rest = (match.group(1) or "eq", match.group(2)) if match else ("eq", "")
        question = _date(prefix, rest) if kind == "date" else _number(prefix, rest, units=kind == "quantity")
        if question is None:
            raise refusal
        found.append(question)
    return found


def _date(prefix: str, text: str) -> Question | None:
    try:
        # A plus sign that was not escaped in a URL arrives as a space.
        low, high = date_interval(unescaped(text).replace(" ", "+"))
    except (ValueError, OverflowError):
        return None
    day = Span(low, high)
    near = day
    if prefix == "ap":
        around: timedelta = abs(utcnow() - low) / 10
        near = Span(_moved(low, -around), _moved(high, around))
    return Question(prefix, day, day, near)


def _moved(moment: datetime, by: timedelta) -> datetime | None:
    try:
        return moment + by
    except OverflowError:
        return None


def _number(prefix: str, text: str, *, units: bool) -> Question | None:
    parts = [unescaped(part) for part in split(text, "|", 2)]
    value, equal = number(parts[0]), precise(parts[0])
    if value is None or equal is None or len(parts) == 2 or (len(parts) == 3 and not units):
        return None
    unit = None
    if len(parts) == 3 and any(parts[1:]):
        unit = token(parts[1], parts[2]) if parts[1] else ANY + parts[2]
    tenth = abs(value) / 10
    return Question(prefix, equal, Span(value, value, "[]"), Span(value - tenth, value + tenth, "[]"), unit)


def _is(kind: str, span: Span) -> ColumnElement[Any]:
    return cast(literal(span.literal, Text()), _TYPES[kind])


def _meets(kind: str, value: ColumnElement[Any], span: Span) -> ColumnElement[bool]:
    return value.op("&&", is_comparison=True)(_is(kind, span))


def _inside(kind: str, value: ColumnElement[Any], span: Span) -> ColumnElement[bool]:
    return value.op("<@", is_comparison=True)(_is(kind, span))


_Compare = Callable[[str, Question, ColumnElement[Any]], ColumnElement[bool]]

#: Whether one value answers, in R4's words of ranges [FHIR R4 search#prefix].
_ANSWERS: Mapping[str, _Compare] = {
    "eq": lambda kind, asked, value: _inside(kind, value, asked.equal),
    "ne": lambda kind, asked, value: not_(_inside(kind, value, asked.equal)),
    "gt": lambda kind, asked, value: _meets(kind, value, asked.above),
    "lt": lambda kind, asked, value: _meets(kind, value, asked.below),
    "ge": lambda kind, asked, value: or_(_meets(kind, value, asked.above), _inside(kind, value, asked.same)),
    "le": lambda kind, asked, value: or_(_meets(kind, value, asked.below), _inside(kind, value, asked.same)),
    "sa": lambda kind, asked, value: value.op(">>", is_comparison=True)(_is(kind, asked.same)),
    "eb": lambda kind, asked, value: value.op("<<", is_comparison=True)(_is(kind, asked.same)),
    "ap": lambda kind, asked, value: _meets(kind, value, asked.near),
}

#: What the hull of all values must fulfil if one of them answers: only overlaps, which the index knows.
_MAY_ANSWER: Mapping[str, _Compare] = {
    "eq": lambda kind, asked, hull: _meets(kind, hull, asked.equal),
    "ne": lambda kind, asked, hull: or_(
        _meets(kind, hull, Span(None, asked.equal.low, "()")), _meets(kind, hull, Span(asked.equal.high, None, "[)"))
    ),
    "gt": lambda kind, asked, hull: _meets(kind, hull, asked.above),
    "sa": lambda kind, asked, hull: _meets(kind, hull, asked.above),
    "lt": lambda kind, asked, hull: _meets(kind, hull, asked.below),
    "eb": lambda kind, asked, hull: _meets(kind, hull, asked.below),
    "ge": lambda kind, asked, hull: _meets(kind, hull, asked.since),
    "le": lambda kind, asked, hull: _meets(kind, hull, asked.until),
    "ap": lambda kind, asked, hull: _meets(kind, hull, asked.near),
}

#: Prefixes of which the hull says all: one value reaches behind, before or out of the range exactly if the hull does.
_SAID_BY_HULL = frozenset({"gt", "lt", "ne"})


def ranged(parameter: Parameter, table: Table, question: Question) -> ColumnElement[bool]:
    """Make the condition of one value over a row."""
    kind, hull, nodes = parameter.kind, table.c[parameter.column], table.c.nodes
    found = _MAY_ANSWER[question.prefix](kind, question, hull)
    if question.prefix in _SAID_BY_HULL and question.unit is None:
        return found
    if kind == "quantity":
        return and_(found, quantity_among(kind, question, nodes[parameter.code]))
    several = among(kind, question, nodes[parameter.code])
    return and_(
        found, case((nodes.has_key(parameter.code), several), else_=_ANSWERS[question.prefix](kind, question, hull))
    )


def among(kind: str, question: Question, listed: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether one of the ranges that are listed as texts answers."""
    value = func.jsonb_array_elements_text(listed).column_valued()
    return select(literal(1)).where(_ANSWERS[question.prefix](kind, question, cast(value, _TYPES[kind]))).exists()


def quantity_among(kind: str, question: Question, listed: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether one of the quantities that are listed as range and units answers."""
    pair: ColumnElement[Any] = func.jsonb_array_elements(listed, type_=JSONB()).column_valued()
    wanted = [_ANSWERS[question.prefix](kind, question, cast(pair[0].as_string(), _TYPES[kind]))]
    if question.unit is not None:
        wanted.append(pair[1].op("?", is_comparison=True)(question.unit))
    return select(literal(1)).where(*wanted).exists()


def instant(column: ColumnElement[Any], question: Question) -> ColumnElement[bool]:
    """Make the condition of one value over a moment that is exact, such as ``lastUpdated``."""

    def at(value: datetime | None) -> ColumnElement[Any]:
        return cast(literal(value, DateTime(timezone=True)), DateTime(timezone=True))

    low, high, near = at(question.same.low), at(question.same.high), question.near
    after, before = column >= high, column < low
    around = [column >= at(near.low)] if near.low is not None else []
    around += [column < at(near.high)] if near.high is not None else []
    return {
        "eq": and_(column >= low, column < high),
        "ne": or_(before, after),
        "gt": after,
        "sa": after,
        "lt": before,
        "eb": before,
        "ge": column >= low,
        "le": column < high,
        "ap": and_(true(), *around),
    }[question.prefix]
