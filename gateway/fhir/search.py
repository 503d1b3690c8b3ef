"""Search: from the parameters of a request to one SQL condition over a representation table.

[FHIR R4 search]; what each parameter's column holds is `gateway.fhir.search_columns`' business.

Promises: pure (no socket, session or clock); every value travels as a bind; the same statement runs under psycopg and
asyncpg; an unknown parameter is a warning, or refused under ``Prefer: handling=strict``; a modifier that is not offered
is always refused, because ignoring it would widen the answer.
Offered: all parameters of the table and ``_id``, ``_lastUpdated``; prefixes of dates; ``:exact``, ``:contains``,
``:not``, ``:missing``, ``:identifier``, ``:Type``; one level of chaining and of ``_has``; ``_include`` and
``_revinclude`` of one level; ``_sort`` by ``_id``, ``_lastUpdated`` or a date parameter; ``_count``, ``_total``,
``_summary=count``, ``_elements``. Not offered: ``:above``, ``:below``, ``:text``, ``:in``, ``_content``, ``_filter``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, any_, cast, false, func, literal, not_, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import DateTime, Text

from gateway.errors import InvalidContent, Unsupported
from gateway.fhir.outcome import warning
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

__all__ = ["COUNT_DEFAULT", "COUNT_MAX", "Include", "Query", "Visible", "parse"]

COUNT_DEFAULT = 50
COUNT_MAX = 500
#: Values that one parameter may list, and parameters that one request may hold.
VALUES_MAX = 200
PARAMETERS_MAX = 50

#: Says which rows of a type the caller may see; every table that a search touches goes through it.
Visible = Callable[[str, Table], ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class Include:
    """One ``_include`` or ``_revinclude``."""

    source: str
    parameter: Parameter
    target: str | None
    reverse: bool


@dataclass(slots=True)
class Query:
    """A search, ready to be put into a statement.

    Attributes
    ----------
    where
        Condition over the current rows of ``TABLES[type]`` (the caller adds `Visible` and ``current``).
    sort
        Pairs of column expression and whether it descends; empty means by ``updated_at`` and ``id``.
    applied
        The parameters as understood, for the ``self`` link.
    warnings
        Issues of parameters that were ignored.
    after
        Id that the page begins after, when the order is by id.
    horizon
        Whether only rows below the transaction horizon may answer: whoever asks by ``_lastUpdated`` asks what is new,
        and must not lose what commits late [DESIGN §3, Cursors].
    """

    type: str
    where: ColumnElement[bool]
    sort: list[tuple[ColumnElement[Any], bool]] = field(default_factory=list)
    count: int = COUNT_DEFAULT
    offset: int = 0
    after: str | None = None
    total: bool = True
    count_only: bool = False
    horizon: bool = False
    elements: tuple[str, ...] = ()
    includes: list[Include] = field(default_factory=list)
    applied: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)


def parse(
    kind: str,
    pairs: Iterable[tuple[str, str]],
    *,
    visible: Visible,
    strict: bool = False,
) -> Query:
    """Understand the parameters of one search.

    Parameters
    ----------
    kind
        Resource type searched; one of `search_columns.types`.
    pairs
        Names (with modifiers) and values, decoded, in order; repeated names mean *and*.
    visible
        The caller's access predicate, applied to chained and reverse tables too.
    strict
        Whether an unknown parameter is refused.

    Raises
    ------
    InvalidContent
        ``parametre-inconnu`` (strict), ``parametre-valeur``, ``parametre-modificateur``, ``trop-de-parametres``.
    """
    given = list(pairs)
    if len(given) > PARAMETERS_MAX:
        text = f"Trop de paramètres de recherche : {len(given)}, limite {PARAMETERS_MAX}."
        raise InvalidContent("trop-de-parametres", text)
    query = Query(type=kind, where=true())
    conditions: list[ColumnElement[bool]] = []
    for name, value in given:
        if not value:
            continue
        control = _CONTROLS.get(name.partition(":")[0])
        if control is not None:
            control(query, name, value)
            query.applied.append((name, value))
            continue
        condition = _condition(kind, name, value, visible)
        if condition is None:
            text = f"Paramètre de recherche inconnu pour {kind} : « {_printable(name)} »."
            if strict:
                raise InvalidContent("parametre-inconnu", text)
            query.warnings.append(warning("parametre-inconnu", text))
            continue
        conditions.append(condition)
        query.horizon = query.horizon or name == "_lastUpdated"
        query.applied.append((name, value))
    query.where = and_(true(), *conditions)
    return query


_PRINTABLE = re.compile(r"[_a-z][a-z-]{0,30}(?::[a-z]{1,12})?")


def _printable(name: str) -> str:
    """Repeat a name if it looks like one: whoever forgets an equals sign may have put a patient there."""
    return name if _PRINTABLE.fullmatch(name) else "…"


def _condition(kind: str, name: str, value: str, visible: Visible) -> ColumnElement[bool] | None:  # noqa: PLR0911 - one return a kind of name
    table = TABLES[kind]
    if name.startswith("_has:"):
        return _reverse_chain(kind, name, value, visible)
    head, dot, rest = name.partition(".")
    code, _, modifier = head.partition(":")
    if code == "_id" and not modifier:
        return table.c.id == any_(literal(_values(value), ARRAY(Text())))
    if code == "_lastUpdated" and not modifier:
        return or_(*(_instant_condition(table.c.updated_at, text) for text in _values(value)))
    parameter = parameters(kind).get(code)
    if parameter is None:
        return None
    column = table.c[parameter.column]
    if dot:
        return _chain(parameter, column, modifier, rest, value, visible)
    if modifier == "missing":
        if value not in {"true", "false"}:
            raise _bad_value(name)
        return column.is_(None) if value == "true" else column.is_not(None)
    return _KINDS[parameter.kind](parameter, column, modifier, _values(value))


def _values(value: str) -> list[str]:
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


def _bad_value(name: str) -> InvalidContent:
    return InvalidContent("parametre-valeur", f"Valeur invalide pour le paramètre « {_printable(name)} ».")


def _bad_modifier(parameter: Parameter, modifier: str) -> InvalidContent:
    text = f"Modificateur « {_printable(modifier)} » non offert pour le paramètre « {parameter.code} »."
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


_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
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
    if _ID.fullmatch(value):
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
            raise _bad_value(parameter.code)
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
        inner = _condition(target, rest, value, visible)
        if inner is None:
            continue
        table = TABLES[target]
        found = select(func.array_agg(literal(target + "/") + table.c.id)).where(
            table.c.current, not_(table.c.deleted), visible(target, table), inner
        )
        conditions.append(func.coalesce(column.op("&&")(found.scalar_subquery()), false()))
    if rest.partition(":")[0] == "identifier":
        conditions.append(_overlap(column, [ANY + token(*_identifier(text)) for text in _values(value)]))
    if not conditions:
        text = f"Aucun type cible du paramètre « {parameter.code} » ne connaît « {_printable(rest)} »."
        raise InvalidContent("parametre-inconnu", text)
    return or_(*conditions)


def _reverse_chain(kind: str, name: str, value: str, visible: Visible) -> ColumnElement[bool]:
    steps = name.split(":", 3)
    if len(steps) != 4 or steps[1] not in TABLES:
        raise _bad_value(name)
    _, source, code, rest = steps
    parameter = parameters(source).get(code)
    inner = _condition(source, rest, value, visible)
    if parameter is None or parameter.kind != "reference" or inner is None:
        raise _bad_value(name)
    table = TABLES[source]
    referred = select(func.unnest(table.c[parameter.column])).where(
        table.c.current, not_(table.c.deleted), visible(source, table), inner
    )
    return (literal(kind + "/") + TABLES[kind].c.id).in_(referred)


def _count(query: Query, name: str, value: str) -> None:
    if not value.isdecimal():
        raise _bad_value(name)
    if int(value) == 0:
        query.count_only = True
    query.count = max(1, min(COUNT_MAX, int(value)))


def _offset(query: Query, name: str, value: str) -> None:
    if not value.isdecimal() or len(value) > 9:
        raise _bad_value(name)
    query.offset = int(value)


def _after(query: Query, name: str, value: str) -> None:
    if not _ID.fullmatch(value):
        raise _bad_value(name)
    query.after = value


def _sort(query: Query, name: str, value: str) -> None:
    table = TABLES[query.type]
    for key in _values(value):
        code = key.removeprefix("-")
        parameter = parameters(query.type).get(code)
        if code == "_id":
            column: ColumnElement[Any] = table.c.id
        elif code == "_lastUpdated":
            column = table.c.updated_at
            query.horizon = True
        elif parameter is not None and parameter.kind == "date":
            column = func.lower(table.c[parameter.column])
        else:
            text = f"Tri non offert par « {_printable(code)} »."
            raise Unsupported("tri-non-offert", text, expression=name)
        query.sort.append((column, key.startswith("-")))


def _include(query: Query, name: str, value: str) -> None:
    reverse = name.startswith("_revinclude")
    if name.partition(":")[2] not in {"", "iterate"}:
        raise _bad_value(name)
    source, _, rest = value.partition(":")
    code, _, target = rest.partition(":")
    parameter = parameters(source).get(code)
    if parameter is None or parameter.kind != "reference" or (target and target not in TABLES):
        raise _bad_value(name)
    query.includes.append(Include(source, parameter, target or None, reverse))


def _total(query: Query, name: str, value: str) -> None:
    if value not in {"none", "estimate", "accurate"}:
        raise _bad_value(name)
    query.total = value != "none"


def _summary(query: Query, _name: str, value: str) -> None:
    if value not in {"false", "count"}:
        raise Unsupported("resume-non-offert", "Seuls « _summary=count » et « _summary=false » sont offerts.")
    query.count_only = value == "count"


def _elements(query: Query, _name: str, value: str) -> None:
    query.elements = tuple(_values(value))


def _nothing(query: Query, name: str, value: str) -> None:
    """Understood elsewhere (`_format`, `_pretty`) or without effect."""


_CONTROLS: Mapping[str, Callable[[Query, str, str], None]] = {
    "_count": _count,
    "_offset": _offset,
    "_after": _after,
    "_sort": _sort,
    "_include": _include,
    "_revinclude": _include,
    "_total": _total,
    "_summary": _summary,
    "_elements": _elements,
    "_format": _nothing,
    "_pretty": _nothing,
}
