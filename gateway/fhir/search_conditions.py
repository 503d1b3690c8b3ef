"""One search parameter and its value as an SQL condition [FHIR R4 search].

What each column holds is `gateway.fhir.search_columns`' business; which parameters a request holds is
`gateway.fhir.search`'s. Every value travels as a bind; NULL (the resource says nothing) is false, also below a NOT.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, any_, cast, false, func, literal, not_, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import DateTime, Text

from gateway.errors import InvalidContent
from gateway.fhir.search_columns import (
    ANY,
    IS,
    PREFIX,
    Parameter,
    date_interval,
    exact,
    fold,
    parameters,
    token,
    types,
)
from gateway.model.representation import TABLES

__all__ = ["ID", "VALUES_MAX", "Visible", "bad_value", "condition", "printable", "values_of"]

#: Values that one parameter may list.
VALUES_MAX = 200

#: Says which rows of a type the caller may see; every table that a search touches goes through it.
Visible = Callable[[str, Table], ColumnElement[bool]]


_PRINTABLE = re.compile(r"[_a-z][a-z-]{0,30}(?::[a-z]{1,12})?")


def printable(name: str) -> str:
    """Repeat a name if it looks like one: whoever forgets an equals sign may have put a patient there."""
    return name if _PRINTABLE.fullmatch(name) else "…"


def condition(  # noqa: PLR0911 - one return a kind of name
    kind: str, name: str, value: str, visible: Visible, *, chained: bool = False
) -> ColumnElement[bool] | None:
    """Make the condition of one parameter; `None` when the type has no such parameter.

    Parameters
    ----------
    chained
        Whether a chain or ``_has`` led here: each further level would multiply the statement by all target types.

    Raises
    ------
    InvalidContent
        ``parametre-valeur``, ``parametre-modificateur``, ``trop-de-parametres``, ``parametre-inconnu`` (in a chain),
        ``chaine-trop-longue``.
    """
    table = TABLES[kind]
    if chained and ("." in name or name.startswith("_has:")):
        text = "Un paramètre enchaîné (« . » ou « _has ») ne suit qu’une référence ; celui-ci en suit davantage."
        raise InvalidContent("chaine-trop-longue", text)
    if name.startswith("_has:"):
        return _reverse_chain(kind, name, value, visible)
    head, dot, rest = name.partition(".")
    code, _, modifier = head.partition(":")
    if code == "_id" and not modifier:
        return table.c.id == any_(literal(values_of(value), ARRAY(Text())))
    if code == "_lastUpdated" and not modifier:
        return or_(*(_instant_condition(table.c.updated_at, text) for text in values_of(value)))
    parameter = parameters(kind).get(code)
    if parameter is None:
        return None
    column = table.c[parameter.column]
    if dot:
        return _chain(parameter, column, modifier, rest, value, visible)
    if modifier == "missing":
        if value not in {"true", "false"}:
            raise bad_value(name)
        return column.is_(None) if value == "true" else column.is_not(None)
    return _KINDS[parameter.kind](parameter, column, modifier, values_of(value))


def values_of(value: str) -> list[str]:
    """Split on commas that no backslash protects; escapes stay for the kind that knows them."""
    values = [part for part in re.split(r"(?<!\\),", value) if part]
    if len(values) > VALUES_MAX:
        text = f"Trop de valeurs pour un paramètre : {len(values)}, limite {VALUES_MAX}."
        raise InvalidContent("trop-de-parametres", text)
    return values


def _plain(text: str) -> str:
    return re.sub(r"\\([,$|\\])", r"\1", text)


def _overlap(column: ColumnElement[Any], texts: Sequence[str]) -> ColumnElement[bool]:
    """Whether the array holds one of the texts; NULL (says nothing) is false, also below a NOT."""
    return func.coalesce(column.op("&&")(cast(literal(list(texts), ARRAY(Text())), ARRAY(Text()))), false())


def bad_value(name: str) -> InvalidContent:
    """Make the refusal of a value, without the value."""
    return InvalidContent("parametre-valeur", f"Valeur invalide pour le paramètre « {printable(name)} ».")


def _bad_modifier(parameter: Parameter, modifier: str) -> InvalidContent:
    text = f"Modificateur « {printable(modifier)} » non offert pour le paramètre « {parameter.code} »."
    return InvalidContent("parametre-modificateur", text)


def _token(
    parameter: Parameter, column: ColumnElement[Any], modifier: str, values: Sequence[str]
) -> ColumnElement[bool]:
    if modifier not in {"", "not"}:
        raise _bad_modifier(parameter, modifier)
    held = _overlap(column, [_token_text(value) for value in values])
    return not_(held) if modifier == "not" else held


def _token_text(value: str) -> str:
    system, bar, code = _split_bar(value)
    if not bar:
        return ANY + code
    return token(system, code) if code else system + ANY


def _split_bar(value: str) -> tuple[str, str, str]:
    parts = re.split(r"(?<!\\)\|", value, maxsplit=1)
    if len(parts) == 1:
        return "", "", _plain(parts[0])
    return _plain(parts[0]), "|", _plain(parts[1])


ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_TYPED = re.compile(r"(?:.*/)?([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})(?:/_history/.*)?")


def _reference(
    parameter: Parameter, column: ColumnElement[Any], modifier: str, values: Sequence[str]
) -> ColumnElement[bool]:
    if modifier == "identifier":
        return _overlap(column, [ANY + token(*_identifier(value)) for value in values])
    if modifier and modifier not in types():
        raise _bad_modifier(parameter, modifier)
    return _overlap(column, [text for value in values for text in _reference_texts(parameter, modifier, _plain(value))])


def _identifier(value: str) -> tuple[str, str]:
    system, _, code = _split_bar(value)
    return system, code


def _reference_texts(parameter: Parameter, modifier: str, value: str) -> list[str]:
    if ID.fullmatch(value):
        kinds = [modifier] if modifier else [kind for kind in parameter.targets if kind != "*"] or list(types())
        return [f"{kind}/{value}" for kind in kinds]
    typed = _TYPED.fullmatch(value)
    if typed is None:
        return [value]
    # Our own absolute URLs were made relative when stored; a peer's stay absolute: both are asked for.
    return [typed.group(1), value] if not modifier or typed.group(1).startswith(modifier + "/") else [""]


def _string(
    parameter: Parameter, column: ColumnElement[Any], modifier: str, values: Sequence[str]
) -> ColumnElement[bool]:
    texts = [_plain(value) for value in values]
    if modifier == "exact":
        return _overlap(column, [exact(text) for text in texts])
    if modifier not in {"", "contains"}:
        raise _bad_modifier(parameter, modifier)
    conditions: list[ColumnElement[bool]] = []
    for text in texts:
        folded = fold(text)
        if not folded:
            raise bad_value(parameter.code)
        entry = func.unnest(column).column_valued("entry")
        whole = not_(or_(entry.startswith(IS), entry.startswith(ANY)))
        if modifier == "contains":
            conditions.append(select(literal(1)).where(whole, entry.contains(folded, autoescape=True)).exists())
            continue
        begins = _overlap(column, [IS + folded[:PREFIX]])
        if len(folded) > PREFIX:
            matching = select(literal(1)).where(whole, entry.startswith(folded, autoescape=True)).exists()
            begins = and_(begins, matching)
        conditions.append(begins)
    return or_(*conditions)


def _uri(parameter: Parameter, column: ColumnElement[Any], modifier: str, values: Sequence[str]) -> ColumnElement[bool]:
    if modifier:
        raise _bad_modifier(parameter, modifier)
    return _overlap(column, [_plain(value) for value in values])


_PREFIXED = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb)?([0-9].*)", re.DOTALL)


def _interval(text: str) -> tuple[str, datetime, datetime]:
    match = _PREFIXED.fullmatch(text)
    try:
        if match is None:
            raise ValueError("no prefix that is offered")  # noqa: TRY301 - one refusal for both causes
        # A plus sign that was not escaped in a URL arrives as a space.
        low, high = date_interval(match.group(2).replace(" ", "+"))
    except (ValueError, OverflowError):
        raise InvalidContent("parametre-valeur", "Date de recherche illisible ou préfixe non offert.") from None
    return match.group(1) or "eq", low, high


def _moment(value: datetime | None) -> ColumnElement[Any]:
    return cast(literal(value, DateTime(timezone=True)), DateTime(timezone=True))


def _range(low: datetime | None, high: datetime | None) -> ColumnElement[Any]:
    return func.tstzrange(_moment(low), _moment(high))


def _date(
    parameter: Parameter, column: ColumnElement[Any], modifier: str, values: Sequence[str]
) -> ColumnElement[bool]:
    if modifier:
        raise _bad_modifier(parameter, modifier)
    return or_(*(func.coalesce(_date_condition(column, text), false()) for text in values))


def _date_condition(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Compare two intervals as R4 defines each prefix [FHIR R4 search#prefix]."""
    prefix, low, high = _interval(text)
    inside = column.op("<@", is_comparison=True)(_range(low, high))
    above = column.op("&&", is_comparison=True)(_range(high, None))
    below = column.op("&&", is_comparison=True)(_range(None, low))
    conditions: dict[str, ColumnElement[bool]] = {
        "eq": inside,
        "ne": not_(inside),
        "gt": above,
        "lt": below,
        "ge": or_(inside, above),
        "le": or_(inside, below),
        "sa": column.op(">>", is_comparison=True)(_range(low, high)),
        "eb": column.op("<<", is_comparison=True)(_range(low, high)),
    }
    return conditions[prefix]


def _instant_condition(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    prefix, low, high = _interval(text)
    after, before = column >= _moment(high), column < _moment(low)
    return {
        "eq": not_(or_(after, before)),
        "ne": or_(after, before),
        "gt": after,
        "sa": after,
        "lt": before,
        "eb": before,
        "ge": not_(before),
        "le": not_(after),
    }[prefix]


_KINDS: Mapping[str, Callable[[Parameter, ColumnElement[Any], str, Sequence[str]], ColumnElement[bool]]] = {
    "token": _token,
    "reference": _reference,
    "string": _string,
    "uri": _uri,
    "date": _date,
}


def _chain(
    parameter: Parameter, column: ColumnElement[Any], modifier: str, rest: str, value: str, visible: Visible
) -> ColumnElement[bool]:
    if parameter.kind != "reference" or (modifier and modifier not in types()):
        raise _bad_modifier(parameter, modifier or rest)
    targets = [modifier] if modifier else [kind for kind in parameter.targets if kind in TABLES]
    conditions: list[ColumnElement[bool]] = []
    for target in targets or [kind for kind in types() if "*" in parameter.targets]:
        inner = condition(target, rest, value, visible, chained=True)
        if inner is None:
            continue
        table = TABLES[target]
        found = select(func.array_agg(literal(target + "/") + table.c.id)).where(
            table.c.current, not_(table.c.deleted), visible(target, table), inner
        )
        conditions.append(func.coalesce(column.op("&&")(found.scalar_subquery()), false()))
    if rest.partition(":")[0] == "identifier":
        conditions.append(_overlap(column, [ANY + token(*_identifier(text)) for text in values_of(value)]))
    if not conditions:
        text = f"Aucun type cible du paramètre « {parameter.code} » ne connaît « {printable(rest)} »."
        raise InvalidContent("parametre-inconnu", text)
    return or_(*conditions)


def _reverse_chain(kind: str, name: str, value: str, visible: Visible) -> ColumnElement[bool]:
    steps = name.split(":", 3)
    if len(steps) != 4 or steps[1] not in TABLES:
        raise bad_value(name)
    _, source, code, rest = steps
    parameter = parameters(source).get(code)
    inner = condition(source, rest, value, visible, chained=True)
    if parameter is None or parameter.kind != "reference" or inner is None:
        raise bad_value(name)
    table = TABLES[source]
    referred = select(func.unnest(table.c[parameter.column])).where(
        table.c.current, not_(table.c.deleted), visible(source, table), inner
    )
    return (literal(kind + "/") + TABLES[kind].c.id).in_(referred)
