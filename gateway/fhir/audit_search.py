"""What a search of the trail asks: its parameters, and the conditions on lines that they become.

[spec audit 5; TdE 2.0.0; IHE ITI-81; FHIR R4 auditevent]

Promises: a bound in time is there; each value is read or refused by its parameter's name; a payload, whose exact bytes
a MAC covers, is asked as it stands. Not promised: whose lines they are (`gateway.fhir.audit_events`).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Text, Uuid, and_, any_, cast, false, func, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from gateway.errors import InvalidContent
from gateway.fhir.outcome import warning
from gateway.fhir.search_columns import date_interval
from gateway.fhir.translate.audit import events_of
from gateway.model.audit import AuditLine
from gateway.model.directory import Practitioner
from gateway.model.representation import TABLES
from gateway.settings import Limits

__all__ = ["PARAMETERS", "Asked", "Pair", "id_of", "parse"]

Pair = tuple[str, str]

#: Parameter → its kind: what is searched here.
PARAMETERS: Mapping[str, str] = {
    "date": "date",
    "period-start": "date",
    "patient": "reference",
    "entity": "reference",
    "agent": "reference",
    "agent-name": "string",
    "type": "token",
    "subtype": "token",
    "action": "token",
    "outcome": "token",
    "_id": "token",
    "_lastUpdated": "date",
}
#: TdE prints the name of its parameter where its code is meant: both are taken.
_ALSO = {"TDE_AuditEvent_period-start": "period-start"}
_BOUNDS = frozenset({"date", "_lastUpdated"})
_CONTROLS = frozenset({"_count", "_sort", "_total", "_summary", "_format", "_pretty"})
_COUNT = 50
_PREFIX = re.compile(r"(eq|ne|ge|le|gt|lt|sa|eb)?(.+)")

# A line's payload is exact bytes, which its MAC covers.
_payload = cast(func.convert_from(AuditLine.payload, "UTF8"), JSONB)


@dataclass(slots=True)
class Asked:
    """A search of the trail, read.

    Attributes
    ----------
    counted
        Whether a total is wanted.
    patients
        Those that it names.
    """

    where: list[ColumnElement[bool]] = field(default_factory=list)
    applied: list[Pair] = field(default_factory=list)
    warnings: list[Mapping[str, Any]] = field(default_factory=list)
    count: int = _COUNT
    bounded: bool = False
    counted: bool = False
    patients: list[uuid.UUID] = field(default_factory=list)


def parse(pairs: Sequence[Pair], limits: Limits, *, strict: bool) -> Asked:
    """Read a search.

    Raises
    ------
    InvalidContent
        ``date-obligatoire``: no bound in time; ``parametre-inconnu``, ``parametre-valeur``, ``trop-de-parametres``,
        ``trop-de-valeurs``.
    """
    asked = Asked()
    if len(pairs) > limits.search_parameters:
        text = f"Trop de paramètres : {len(pairs)}, {limits.told('search_parameters')}."
        raise InvalidContent("trop-de-parametres", text)
    for said, value in pairs:
        name, _, modifier = _ALSO.get(said, said).partition(":")
        if name in _CONTROLS:
            _control(asked, name, value, limits)
        elif name not in PARAMETERS or modifier not in _MODIFIERS.get(name, {""}):
            text = f"Paramètre de recherche inconnu : {said[:64]}."
            if strict or name in PARAMETERS:
                raise InvalidContent("parametre-inconnu", text, expression=said[:64])
            asked.warnings.append(warning("parametre-inconnu", text, said[:64]))
            continue
        elif not value or "\x00" in value or len(value) > 500:
            raise _bad(said)
        else:
            parts = value.split(",")
            if len(parts) > limits.search_values:
                text = f"Trop de valeurs : {len(parts)}, {limits.told('search_values')}."
                raise InvalidContent("trop-de-valeurs", text, expression=said[:64])
            asked.where.append(or_(*(_CONDITIONS[name](asked, said, part) for part in parts)))
            asked.bounded = asked.bounded or name in _BOUNDS
        asked.applied.append((said, value))
    if not asked.bounded:
        text = "Une recherche dans la trace porte au moins une borne de date (« date=ge… », « date=le… »)."
        raise InvalidContent("date-obligatoire", text, expression="date")
    return asked


def _control(asked: Asked, name: str, value: str, limits: Limits) -> None:
    if name == "_count":
        if not value.isascii() or not value.isdecimal() or len(value) > 18:
            raise _bad(name)
        asked.count = min(int(value), limits.search_page)
    elif name == "_sort" and value != "-date":
        text = "La trace se lit de la ligne la plus récente à la plus ancienne (« _sort=-date »)."
        raise InvalidContent("parametre-valeur", text, expression="_sort")
    elif name == "_total":
        asked.counted = asked.counted or value in {"accurate", "estimate"}
    elif name == "_summary" and value == "count":
        asked.counted, asked.count = True, 0


def id_of(text: str) -> uuid.UUID | None:
    """Read the id of a line or of a person; none when it is none."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _bad(name: str) -> InvalidContent:
    text = f"Valeur invalide pour le paramètre « {name[:64]} »."
    return InvalidContent("parametre-valeur", text, expression=name[:64])


# One condition a parameter: what was asked so far, its name as said, one of its values.


def _date(column: Any) -> Callable[[Asked, str, str], ColumnElement[bool]]:
    def condition(_asked: Asked, name: str, value: str) -> ColumnElement[bool]:
        found = _PREFIX.fullmatch(value)
        if found is None:
            raise _bad(name)
        try:
            low, high = date_interval(found.group(2))
        except (ValueError, OverflowError, InvalidContent):
            raise _bad(name) from None
        match found.group(1) or "eq":
            case "eq":
                return and_(column >= low, column < high)
            case "ne":
                return or_(column < low, column >= high)
            case "ge":
                return column >= low  # type: ignore[no-any-return]  # a comparison of columns
            case "gt" | "sa":
                return column >= high  # type: ignore[no-any-return]  # a comparison of columns
            case "le":
                return column < high  # type: ignore[no-any-return]  # a comparison of columns
            case _:
                return column < low  # type: ignore[no-any-return]  # a comparison of columns

    return condition


def _person(asked: Asked, name: str, value: str) -> ColumnElement[bool]:
    del name
    key = id_of(value.removeprefix("Patient/"))
    if key is None:
        return false()
    asked.patients.append(key)
    return AuditLine.persons.contains(cast(literal([key], ARRAY(Uuid())), ARRAY(Uuid())))


def _entity(asked: Asked, name: str, value: str) -> ColumnElement[bool]:
    kind, slash, key = value.partition("/")
    if not slash or kind not in TABLES:
        raise _bad(name)
    if kind == "Patient":
        return _person(asked, name, value)
    concerned = and_(_text("object_type") == kind, _text("object_id") == key.partition("/")[0])
    dossier = id_of(key) if kind in {"ServiceRequest", "Task", "Encounter"} else None
    return or_(concerned, AuditLine.dossier == dossier) if dossier is not None else concerned


def _agent(_asked: Asked, name: str, value: str) -> ColumnElement[bool]:
    if name.endswith(":identifier"):
        return AuditLine.actor_id == value.rpartition("|")[2]
    key = id_of(value.removeprefix("Practitioner/"))
    if key is None:
        return false()
    number = select(Practitioner.idnps).where(Practitioner.id == key).scalar_subquery()
    return AuditLine.actor_id == number


def _text(name: str) -> ColumnElement[str]:
    return _payload.op("->>")(literal(name, Text()))


def _name(_asked: Asked, _said: str, value: str) -> ColumnElement[bool]:
    return func.strpos(func.lower(_text("actor_name")), value.lower()) > 0


def _token(name: str) -> Callable[[Asked, str, str], ColumnElement[bool]]:
    def condition(_asked: Asked, _said: str, value: str) -> ColumnElement[bool]:
        return _text(name) == value.rpartition("|")[2]

    return condition


def _coded(element: str) -> Callable[[Asked, str, str], ColumnElement[bool]]:
    def condition(_asked: Asked, _said: str, value: str) -> ColumnElement[bool]:
        system, bar, code = value.rpartition("|")
        events = events_of(element, system if bar else None, code or None)
        named = AuditLine.event == any_(literal(events, ARRAY(Text())))
        if element == "type" or (bar and system != "http://hl7.org/fhir/restful-interaction"):
            return named
        letter = {"create": "C", "read": "R", "update": "U", "delete": "D", "operation": "E"}.get(code)
        unsaid = AuditLine.event == any_(literal(["modification", "systeme", "refus"], ARRAY(Text())))
        return or_(named, and_(unsaid, _text("action") == letter)) if letter else named

    return condition


def _outcome(_asked: Asked, _said: str, value: str) -> ColumnElement[bool]:
    return AuditLine.outcome == value.rpartition("|")[2]


def _id(_asked: Asked, _said: str, value: str) -> ColumnElement[bool]:
    key = id_of(value)
    return AuditLine.id == key if key is not None else false()


_happened = func.coalesce(cast(_text("happened"), DateTime(timezone=True)), AuditLine.recorded)
_CONDITIONS: Mapping[str, Callable[[Asked, str, str], ColumnElement[bool]]] = {
    "date": _date(AuditLine.recorded),
    "_lastUpdated": _date(AuditLine.recorded),
    "period-start": _date(_happened),
    "patient": _person,
    "entity": _entity,
    "agent": _agent,
    "agent-name": _name,
    "type": _coded("type"),
    "subtype": _coded("subtype"),
    "action": _token("action"),
    "outcome": _outcome,
    "_id": _id,
}
_MODIFIERS: Mapping[str, frozenset[str]] = {"agent": frozenset({"", "identifier"})}
