"""The fields of the fiche: what each is called, of which kind, by which national list (``mappings/FRCP-fiche.json``).

A value is what JSON holds: a text, a date that may be partial, an integer, a boolean, a code, a list of codes, or a
list of objects for what repeats (treatments, quoted reports). One table serves FHIR, the portal and the report.

Promises: `check` gives back the value as it is kept, or refuses it with the field's label and its limit, never with
what was sent; `taken` gives it back, or nothing, for what was kept before the lists were.
Not promised: that a field is asked for (`gateway.rcp.fiche` knows what an RCP requires).

[CI-SIS FRCP 2022.01]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from gateway.errors import InvalidContent
from gateway.rcp.report_draft import LINE_MAX_CHARS, LIST_MAX, TEXT_MAX_CHARS
from gateway.terminology import CodeList, Concept, code_list, table

__all__ = ["Field", "Option", "Section", "check", "concept_of", "field_named", "fields", "sections", "taken"]

_PARTIAL = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")
_BOOLEANS: Mapping[Any, bool] = {True: True, False: False, "oui": True, "non": False, "true": True, "false": False}


class Option(Struct, frozen=True):
    """One code of a short list that has no file of its own."""

    code: str
    label: str


class Field(Struct, frozen=True, kw_only=True, rename={"list_name": "list", "shape": "as"}):
    """One field.

    Parameters
    ----------
    key
        Stable key: the ``linkId`` of the question in FHIR and the name of the input in the portal.
    kind
        ``texte``, ``ligne``, ``date``, ``entier``, ``oui-non``, ``code``, ``codes``, ``groupe``, ``etiquettes``,
        ``professionnel`` (a national number, or a name).
    list_name, options
        Codes allowed: a list of ``mappings/``, or a few of its own.
    shape
        Key of the field whose pattern it shares.
    like
        Of a group: the group of questions of which it holds the second and the following occurrences.
    fields
        Of a group: what each of its objects holds.
    """

    key: str
    label: str
    kind: str
    list_name: str | None = None
    options: tuple[Option, ...] = ()
    pattern: str | None = None
    shape: str | None = None
    hint: str = ""
    min: int = 0
    max: int = 0
    required: bool = False
    like: str | None = None
    fields: tuple[Field, ...] = ()


class Section(Struct, frozen=True, kw_only=True):
    """Fields under one heading, in the order of their reading."""

    key: str
    title: str
    fields: tuple[Field, ...]


@cache
def sections() -> tuple[Section, ...]:
    """Sections of the fiche."""
    return msgspec.convert(table("FRCP-fiche")["sections"], tuple[Section, ...])


@cache
def fields() -> Mapping[str, Field]:
    """Fields by key, in order; the fields of groups stand in their group only."""
    return {field.key: field for section in sections() for field in section.fields}


def field_named(key: str) -> Field:
    """Return one field.

    Raises
    ------
    InvalidContent
        ``champ-inconnu``.
    """
    found = fields().get(key)
    if found is None:
        raise InvalidContent("champ-inconnu", "La fiche n’a pas de champ de ce nom.", rule=True)
    return found


def concept_of(field: Field, code: str) -> Concept | None:
    """Return the concept of a code that the field allows."""
    if field.list_name is not None:
        return code_list(field.list_name).get(code)
    return next((Concept(one.code, one.label) for one in field.options if one.code == code), None)


def taken(field: Field, value: Any) -> Any:
    """Return a value as it is kept, or ``None`` when it is none of this field."""
    try:
        return check(field, value)
    except InvalidContent:
        return None


def check(field: Field, value: Any, *, expression: str | None = None) -> Any:
    """Return a value as it is kept; ``None`` and empty ones say nothing.

    Raises
    ------
    InvalidContent
        ``code-inconnu`` or ``champ-invalide``; the text names the field and its limits.
    """
    if value is None or value in ("", [], ()):
        return None
    return _KINDS[field.kind](field, value, expression or field.key)


def _invalid(field: Field, expected: str, expression: str) -> InvalidContent:
    text = f"Le champ « {field.label} » attend {expected}."
    return InvalidContent("champ-invalide", text, expression=expression, rule=True)


def _text(field: Field, value: Any, expression: str) -> str | None:
    limit = TEXT_MAX_CHARS if field.kind == "texte" else LINE_MAX_CHARS
    said = str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    if said is None or len(said) > limit:
        raise _invalid(field, f"un texte de {limit} caractères au plus", expression)
    return said or None


def _line(field: Field, value: Any, expression: str) -> str | None:
    said = _text(field, value, expression)
    if said is None:
        return None
    model = field_named(field.shape) if field.shape is not None else field
    said = " ".join(said.split())
    if model.pattern is not None and not re.fullmatch(model.pattern, said):
        raise _invalid(field, f"une valeur d’une autre forme ({model.hint[:1].lower()}{model.hint[1:]})", expression)
    return said


def _date(field: Field, value: Any, expression: str) -> str:
    said = str(value).partition("T")[0]
    if not _PARTIAL.fullmatch(said) or not _is_day(said):
        raise _invalid(field, "une date : année, année et mois, ou jour (AAAA-MM-JJ)", expression)
    return said


def _is_day(said: str) -> bool:
    """Whether what is said to the day is a day; a month has no 31st for saying so."""
    try:
        return len(said) < len("AAAA-MM-JJ") or bool(date.fromisoformat(said))
    except ValueError:
        return False


def _integer(field: Field, value: Any, expression: str) -> int:
    said = str(value)
    if isinstance(value, bool) or not said.isdecimal() or not field.min <= int(said[:6]) <= field.max:
        raise _invalid(field, f"un nombre entier de {field.min} à {field.max}", expression)
    return int(said)


def _boolean(field: Field, value: Any, expression: str) -> bool:
    found = _BOOLEANS.get(value) if isinstance(value, bool | str) else None
    if found is None:
        raise _invalid(field, "oui ou non", expression)
    return found


def _code(field: Field, value: Any, expression: str) -> str:
    said = str(value).strip()
    if concept_of(field, said) is None:
        text = f"Ce code n’appartient pas à la liste du champ « {field.label} »{_of(field)}."
        raise InvalidContent("code-inconnu", text, expression=expression, rule=True)
    return said


def _of(field: Field) -> str:
    listed: CodeList | None = code_list(field.list_name) if field.list_name is not None else None
    return f" ({listed.title}, {listed.name})" if listed is not None else ""


def _codes(field: Field, value: Any, expression: str) -> list[str]:
    found = [_code(field, one, expression) for one in _listed(field, value, expression)]
    return list(dict.fromkeys(found))


def _lines(field: Field, value: Any, expression: str) -> list[str]:
    found = (_line(field, one, expression) for one in _listed(field, value, expression))
    return list(dict.fromkeys(one for one in found if one))


def _listed(field: Field, value: Any, expression: str) -> Sequence[Any]:
    listed = value if isinstance(value, list | tuple) else [value]
    if len(listed) > LIST_MAX:
        raise _invalid(field, f"{LIST_MAX} valeurs au plus", expression)
    return listed


def _group(field: Field, value: Any, expression: str) -> list[dict[str, Any]] | None:
    found = list(_objects(field, value, expression))
    return found or None


def _objects(field: Field, value: Any, expression: str) -> Iterator[dict[str, Any]]:
    for index, said in enumerate(_listed(field, value, expression)):
        here = f"{expression}[{index}]"
        if not isinstance(said, Mapping):
            raise _invalid(field, "une liste d’éléments", here)
        kept = {}
        for part in field.fields:
            one = check(part, said.get(part.key), expression=f"{here}.{part.key}")
            if one is not None:
                kept[part.key] = one
        if not kept:
            continue
        lacking = next((part for part in field.fields if part.required and part.key not in kept), None)
        if lacking is not None:
            text = f"Dans « {field.label} », le champ « {lacking.label} » est obligatoire."
            raise InvalidContent("champ-obligatoire", text, expression=f"{here}.{lacking.key}", rule=True)
        # Where it came from, when a resource said it: a later version of that resource replaces it.
        if isinstance(said.get("de"), str):
            kept["de"] = said["de"]
        yield kept


_KINDS = {
    "texte": _text,
    "ligne": _line,
    "professionnel": _line,
    "date": _date,
    "entier": _integer,
    "oui-non": _boolean,
    "code": _code,
    "codes": _codes,
    "etiquettes": _lines,
    "groupe": _group,
}
