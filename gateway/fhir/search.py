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

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, and_, func, true

from gateway.errors import InvalidContent, Unsupported
from gateway.fhir.outcome import warning
from gateway.fhir.search_columns import Parameter, parameters
from gateway.fhir.search_conditions import ID, Visible, bad_value, condition, printable, values_of
from gateway.model.representation import TABLES

__all__ = ["COUNT_DEFAULT", "COUNT_MAX", "Include", "Query", "Visible", "parse"]

COUNT_DEFAULT = 50
COUNT_MAX = 500
#: Parameters that one request may hold.
PARAMETERS_MAX = 50


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
        ``parametre-inconnu`` (strict), ``parametre-valeur``, ``parametre-modificateur``, ``trop-de-parametres``,
        ``chaine-trop-longue``.
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
        if "\x00" in value:  # no text of PostgreSQL holds it
            raise bad_value(name)
        control = _CONTROLS.get(name.partition(":")[0])
        if control is not None:
            control(query, name, value)
            query.applied.append((name, value))
            continue
        wanted = condition(kind, name, value, visible)
        if wanted is None:
            text = f"Paramètre de recherche inconnu pour {kind} : « {printable(name)} »."
            if strict:
                raise InvalidContent("parametre-inconnu", text)
            query.warnings.append(warning("parametre-inconnu", text))
            continue
        conditions.append(wanted)
        query.horizon = query.horizon or name == "_lastUpdated"
        query.applied.append((name, value))
    query.where = and_(true(), *conditions)
    return query


def _count(query: Query, name: str, value: str) -> None:
    if not value.isdecimal() or len(value) > 9:
        raise bad_value(name)
    if int(value) == 0:
        query.count_only = True
    query.count = max(1, min(COUNT_MAX, int(value)))


def _offset(query: Query, name: str, value: str) -> None:
    if not value.isdecimal() or len(value) > 9:
        raise bad_value(name)
    query.offset = int(value)


def _after(query: Query, name: str, value: str) -> None:
    if not ID.fullmatch(value):
        raise bad_value(name)
    query.after = value


def _sort(query: Query, name: str, value: str) -> None:
    table = TABLES[query.type]
    for key in values_of(value):
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
            text = f"Tri non offert par « {printable(code)} »."
            raise Unsupported("tri-non-offert", text, expression=name)
        query.sort.append((column, key.startswith("-")))


def _include(query: Query, name: str, value: str) -> None:
    reverse = name.startswith("_revinclude")
    if name.partition(":")[2] not in {"", "iterate"}:
        raise bad_value(name)
    source, _, rest = value.partition(":")
    code, _, target = rest.partition(":")
    parameter = parameters(source).get(code)
    if parameter is None or parameter.kind != "reference" or (target and target not in TABLES):
        raise bad_value(name)
    query.includes.append(Include(source, parameter, target or None, reverse))


def _total(query: Query, name: str, value: str) -> None:
    if value not in {"none", "estimate", "accurate"}:
        raise bad_value(name)
    query.total = value != "none"


def _summary(query: Query, _name: str, value: str) -> None:
    if value not in {"false", "count"}:
        raise Unsupported("resume-non-offert", "Seuls « _summary=count » et « _summary=false » sont offerts.")
    query.count_only = value == "count"


def _elements(query: Query, _name: str, value: str) -> None:
    query.elements = tuple(values_of(value))


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
