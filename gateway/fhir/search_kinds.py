"""The conditions of each kind of search parameter over the columns of `gateway.fhir.search_columns`.

[FHIR R4 search#ptypes, #modifiers]

Promises: every value travels as a bind; each condition holds one that an index answers, and where that one may err (a
composite, a text that only holds the letters asked for) the row itself is looked at after it. Exceptions, for which the
order of the page is walked: ``:not``, which asks for what is not there, and ``:contains`` of less than three letters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import (
    BinaryExpression,
    BindParameter,
    Column,
    ColumnElement,
    Table,
    and_,
    cast,
    func,
    literal,
    not_,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSQUERY
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.types import Text, TypeDecorator

from gateway.errors import InvalidContent
from gateway.fhir.search_columns import (
    IS,
    RANGED,
    Component,
    Parameter,
    any_system,
    entry,
    parameters,
    said,
    token,
    types,
)
from gateway.fhir.search_ranges import among, quantity_among, questions, ranged
from gateway.fhir.search_values import fold, grams, split, unescaped

__all__ = [
    "ID",
    "MODIFIERS",
    "Asked",
    "LookedUp",
    "bad_modifier",
    "bad_value",
    "holds",
    "kind_condition",
    "kind_question",
    "missing",
    "points_to",
    "printable",
    "texts_of",
    "token_texts",
]

ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")

#: Modifiers that each kind of parameter takes; a reference takes the names of its target types besides.
MODIFIERS: Mapping[str, tuple[str, ...]] = {
    "token": ("not", "text", "of-type", "missing"),
    "reference": ("identifier", "missing"),
    "string": ("exact", "contains", "missing"),
    "uri": ("missing",),
    "date": ("missing",),
    "number": ("missing",),
    "quantity": ("missing",),
    "composite": (),
}

_PRINTABLE = re.compile(r"[_a-z][A-Za-z-]{0,30}(?::[A-Za-z-]{1,24})?")


def printable(name: str) -> str:
    """Repeat a name if it looks like one: whoever forgets an equals sign may have put a patient there."""
    return name if _PRINTABLE.fullmatch(name) else "…"


def bad_value(name: str) -> InvalidContent:
    """Make the refusal of a value, without the value."""
    return InvalidContent("parametre-valeur", f"Valeur invalide pour le paramètre « {printable(name)} ».")


def bad_modifier(parameter: Parameter, modifier: str) -> InvalidContent:
    """Make the refusal of a modifier that this parameter does not take."""
    text = f"Modificateur « {printable(modifier)} » non offert pour le paramètre « {parameter.code} »."
    return InvalidContent("parametre-modificateur", text)


def texts_of(values: Sequence[str]) -> ColumnElement[Any]:
    """Texts as one bind of an array."""
    return cast(literal(list(values), ARRAY(Text())), ARRAY(Text()))


class LookedUp(NamedTuple):
    """The condition of rows that hold one of these texts in a column, or one that begins so: what an index looks up."""

    column: Column[Any]
    texts: Sequence[str]
    beginnings: bool = False

    def clause(self) -> ColumnElement[bool]:
        """Write it."""
        if not self.beginnings:
            return self.column.op("&&", is_comparison=True)(texts_of(self.texts))
        # Put together by hand: SQLAlchemy's own way looks at each side anew, a third of the cost of understanding a
        # search.
        return BinaryExpression(self.column, literal(self.texts, _Query()), _MATCHES)


def holds(table: Table, texts: Sequence[str]) -> ColumnElement[bool]:
    """Whether a row has one of these entries."""
    return LookedUp(table.c.terms, texts).clause()


def missing(parameter: Parameter, table: Table, name: str, value: str) -> ColumnElement[bool]:
    """Whether the resource says nothing that the parameter finds."""
    if value not in {"true", "false"}:
        raise bad_value(name)
    return holds(table, [said(parameter.code, there=value == "false")])


@dataclass(frozen=True, slots=True)
class Asked:
    """One parameter as asked: values split but with their escapes; our base URL, to know our absolute references."""

    parameter: Parameter
    table: Table
    modifier: str
    values: Sequence[str]
    base: str = ""


def kind_condition(asked: Asked) -> ColumnElement[bool]:
    """Make the condition of a parameter with one of the values; raises as `kind_question` does."""
    found = kind_question(asked)
    return found.clause() if isinstance(found, LookedUp) else found


def kind_question(asked: Asked) -> ColumnElement[bool] | LookedUp:
    """Understand a parameter with one of the values: where it only looks up texts, those are not written as SQL yet.

    Raises
    ------
    InvalidContent
        ``parametre-valeur``, ``parametre-modificateur``.
    """
    parameter, modifier = asked.parameter, asked.modifier
    typed = parameter.kind == "reference" and points_to(parameter, modifier)
    if modifier and modifier not in MODIFIERS[parameter.kind] and not typed:
        raise bad_modifier(parameter, modifier)
    if not asked.values:
        raise bad_value(parameter.code)
    if parameter.kind in RANGED:
        return or_(
            *(
                ranged(parameter, asked.table, question)
                for question in questions(parameter.kind, asked.values, bad_value(parameter.code))
            )
        )
    return _KINDS[parameter.kind](asked)


# Tokens


def _token(asked: Asked) -> ColumnElement[bool] | LookedUp:
    code = asked.parameter.code
    if asked.modifier == "text":
        return _begins(asked, f"{code}:text")
    if asked.modifier == "of-type":
        return _listed(asked, [_of_type(asked.parameter, value) for value in asked.values])
    found = _listed(asked, [text for value in asked.values for text in _token_texts(asked.parameter, value)])
    return not_(found.clause()) if asked.modifier == "not" else found


def _listed(asked: Asked, texts: list[str]) -> LookedUp:
    return LookedUp(asked.table.c.terms, texts)


def _token_texts(parameter: Parameter, value: str) -> list[str]:
    return token_texts(parameter.code, value.casefold() if parameter.folded else value)


def token_texts(code: str, value: str) -> list[str]:
    """Entries that answer ``code``, ``system|code``, ``|code`` and ``system|`` [FHIR R4 search#token]."""
    parts = [unescaped(part) for part in split(value, "|", 1)]
    if not any(parts):
        raise bad_value(code)
    if len(parts) == 1:
        return [any_system(code, parts[0]), entry(code, token(None, parts[0]))]
    return [entry(code, token(*parts))]


def _of_type(parameter: Parameter, value: str) -> str:
    parts = [unescaped(part) for part in split(value, "|", 2)]
    if len(parts) != 3 or not all(parts):
        raise bad_value(f"{parameter.code}:of-type")
    return entry(f"{parameter.code}:of-type", IS.join(parts))


# References and URIs

_TYPED = re.compile(r"([A-Z][A-Za-z]+)/[A-Za-z0-9\-.]{1,64}(/_history/[A-Za-z0-9\-.]{1,64})?")


def points_to(parameter: Parameter, kind: str) -> bool:
    """Whether a reference parameter may point to this type."""
    return kind in parameter.targets or ("*" in parameter.targets and kind in types())


def _reference(asked: Asked) -> LookedUp:
    code = asked.parameter.code
    if asked.modifier == "identifier":
        return _listed(asked, [text for one in asked.values for text in token_texts(f"{code}:identifier", one)])
    return _listed(asked, [text for value in asked.values for text in _reference_texts(asked, value)])


def _reference_texts(asked: Asked, value: str) -> list[str]:
    """Entries that answer ``id``, ``Type/id``, a version of it, or a URL [FHIR R4 search#reference]."""
    parameter, kind, text = asked.parameter, asked.modifier, unescaped(value)
    if not text:
        raise bad_value(parameter.code)
    if ID.fullmatch(text):
        kinds = [kind] if kind else [one for one in parameter.targets if one != "*"] or list(types())
        # What has no target type is a canonical or an id of a type that is not kept here: as it was written.
        return [entry(parameter.code, f"{one}/{text}") for one in kinds] + [entry(parameter.code, text)]
    if asked.base and text.startswith(asked.base + "/"):
        text = text[len(asked.base) + 1 :]
    typed = _TYPED.fullmatch(text)
    if typed and kind and typed.group(1) != kind:
        return []
    return [entry(parameter.code, text)]


def _uri(asked: Asked) -> LookedUp:
    return _listed(asked, [entry(asked.parameter.code, unescaped(value)) for value in asked.values])


# Strings


def _string(asked: Asked) -> ColumnElement[bool] | LookedUp:
    if asked.modifier == "exact":
        return _uri(asked)
    if asked.modifier == "contains":
        return or_(*(_contains(asked, _folded(asked, value)) for value in asked.values))
    return _begins(asked, asked.parameter.code)


def _folded(asked: Asked, value: str) -> str:
    folded = fold(unescaped(value))
    if not folded:
        raise bad_value(asked.parameter.code)
    return folded


def _begins(asked: Asked, code: str) -> LookedUp:
    """Whether a text begins with one of the values."""
    return LookedUp(asked.table.c.words, [code + IS + _folded(asked, value) for value in asked.values], beginnings=True)


class _Query(TypeDecorator[list[str]]):
    """Beginnings, one of which is to be found, as a question to words that the server reads."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: list[str] | None, dialect: Any) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Write them, quotes and backslashes doubled."""
        if value is None:
            return None
        texts = [text.replace("\\", "\\\\").replace("'", "''") for text in value]
        # The whole text besides: of a word the planner knows how common it is, of a beginning often not.
        return " | ".join([f"'{text}' | '{text}':*" for text in texts])

    def bind_expression(self, bindvalue: BindParameter[list[str]]) -> ColumnElement[Any]:
        """Cast it there."""
        return cast(bindvalue, TSQUERY)


_MATCHES: custom_op[Any] = custom_op("@@", is_comparison=True)


def _contains(asked: Asked, folded: str) -> ColumnElement[bool]:
    table, begin = asked.table, asked.parameter.code + IS
    word = func.unnest(func.tsvector_to_array(table.c.words)).column_valued()
    inside = func.strpos(func.substr(word, len(begin) + 1), folded) > 0
    found = select(literal(1)).where(func.starts_with(word, begin), inside).exists()
    letters = sorted("~" + gram for gram in grams(folded))
    if not letters:
        return found
    return and_(table.c.terms.op("@>", is_comparison=True)(texts_of(letters)), found)


# Composites


def _composite(asked: Asked) -> ColumnElement[bool]:
    return or_(*(_composed(asked, value) for value in asked.values))


def _composed(asked: Asked, value: str) -> ColumnElement[bool]:
    """Find by the parameters of both sides, then compare node by node that one says both."""
    parameter, table = asked.parameter, asked.table
    parts = split(value, "$")
    if len(parts) != len(parameter.components):
        raise bad_value(parameter.code)
    sides = [
        replace(asked, parameter=parameters(parameter.type)[one.code], values=[part])
        for one, part in zip(parameter.components, parts, strict=True)
    ]
    found = [kind_condition(side) for side in sides]
    if not parameter.whole:
        node: ColumnElement[Any] = func.jsonb_array_elements(
            table.c.nodes[parameter.code], type_=JSONB()
        ).column_valued()
        both = [
            _said_by(one, side, node[place])
            for place, (one, side) in enumerate(zip(parameter.components, sides, strict=True))
        ]
        found.append(select(literal(1)).where(*both).exists())
    return and_(*found)


def _said_by(component: Component, side: Asked, said_there: ColumnElement[Any]) -> ColumnElement[bool]:
    value = side.values[0]
    if component.kind in RANGED:
        (question,) = questions(component.kind, [value], bad_value(component.code))
        inside = quantity_among if component.kind == "quantity" else among
        return inside(component.kind, question, said_there)
    if component.kind == "string":
        text = func.jsonb_array_elements_text(said_there).column_valued()
        return select(literal(1)).where(func.starts_with(text, _folded(side, value))).exists()
    texts = _reference_texts(side, value) if component.kind == "reference" else _token_texts(side.parameter, value)
    return said_there.op("?|", is_comparison=True)(texts_of(texts))


_KINDS: Mapping[str, Callable[[Asked], ColumnElement[bool] | LookedUp]] = {
    "token": _token,
    "reference": _reference,
    "string": _string,
    "uri": _uri,
    "composite": _composite,
}
