"""One search parameter and its value as an SQL condition [FHIR R4 search]; chains, ``_has``, keys to sort by.

What each column holds is `gateway.fhir.search_columns`' business, how one kind of parameter compares is
`gateway.fhir.search_kinds`'; which parameters a request holds is `gateway.fhir.search`'s.

Promises: every value travels as a bind; every table that a chain or a ``_has`` touches goes through the caller's
predicate; a chain longer than the limit, or chains over more tables than `TABLES_MAX`, are refused before any
statement.
Not offered: ``:above``, ``:below`` (DECISIONS 16), ``:in``, ``:not-in``, ``_content``, ``_text``, ``_filter``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Table, any_, case, func, literal, not_, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from gateway.errors import InvalidContent
from gateway.fhir import search_canonicals
from gateway.fhir.search_columns import ANY, IS, RANGED, Parameter, entry, parameters, types
from gateway.fhir.search_kinds import (
    ID,
    MODIFIERS,
    Asked,
    LookedUp,
    bad_modifier,
    bad_value,
    holds,
    kind_question,
    missing,
    points_to,
    printable,
    texts_of,
    token_texts,
)
from gateway.fhir.search_ranges import PREFIXES, instant, questions
from gateway.fhir.search_values import split, unescaped
from gateway.model.representation import TABLES
from gateway.settings import Limits

__all__ = [
    "ID",
    "MODIFIERS",
    "PREFIXES",
    "TABLES_MAX",
    "Visible",
    "bad_value",
    "condition",
    "printable",
    "question",
    "references",
    "refers",
    "sort_key",
    "values_of",
]

#: Says which rows of a type the caller may see; every table that a search touches goes through it.
Visible = Callable[[str, Table], ColumnElement[bool]]

#: Tables that the chains of one search may touch together: each level multiplies by the types that a reference may
#: point to, and a statement over a thousand tables takes longer to write and to plan than any answer is worth.
TABLES_MAX = 64


@dataclass(slots=True)
class _Search:
    """What holds for one parameter, however deep its chain goes."""

    visible: Visible
    limits: Limits
    base: str
    followed: int = 0
    tables: list[str] = field(default_factory=list)

    def deeper(self, kind: str) -> _Search:
        """One reference further, over a table of this type."""
        self.tables.append(kind)
        if self.followed >= self.limits.search_chain:
            text = f"Chaîne de références trop longue : {self.limits.told('search_chain')}."
            raise InvalidContent("chaine-trop-longue", text)
        if len(self.tables) > TABLES_MAX:
            text = f"Chaîne qui passe par plus de {TABLES_MAX} tables : nommez le type visé (« subject:Patient.… »)."
            raise InvalidContent("chaine-trop-large", text)
        return replace(self, followed=self.followed + 1)


def condition(
    kind: str,
    name: str,
    value: str,
    visible: Visible,
    *,
    limits: Limits | None = None,
    base: str = "",
    tables: list[str] | None = None,
) -> ColumnElement[bool] | None:
    """Make the condition of one parameter over the current rows of a type; see `question`."""
    found = question(kind, name, value, visible, limits=limits, base=base, tables=tables)
    return found.clause() if isinstance(found, LookedUp) else found


def question(
    kind: str,
    name: str,
    value: str,
    visible: Visible,
    *,
    limits: Limits | None = None,
    base: str = "",
    tables: list[str] | None = None,
) -> ColumnElement[bool] | LookedUp | None:
    """Understand one parameter over the current rows of a type; `None` if the type has no such parameter.

    Parameters
    ----------
    base
        Our FHIR base URL, without a slash at its end: an absolute URL below it means our own resource.
    tables
        Those that chains of the same search touched before; this one's are added.

    Raises
    ------
    InvalidContent
        ``parametre-valeur``, ``parametre-modificateur``, ``trop-de-parametres``, ``parametre-inconnu`` (in a chain),
        ``chaine-trop-longue``, ``chaine-trop-large``.
    """
    if "\x00" in value:  # no text of PostgreSQL holds it
        raise bad_value(name)
    touched = [] if tables is None else tables
    return _question(kind, name, value, _Search(visible, limits or Limits(), base, tables=touched))


def _condition(kind: str, name: str, value: str, search: _Search) -> ColumnElement[bool] | None:
    found = _question(kind, name, value, search)
    return found.clause() if isinstance(found, LookedUp) else found


def _question(kind: str, name: str, value: str, search: _Search) -> ColumnElement[bool] | LookedUp | None:
    if name.startswith("_has:"):
        return _reverse_chain(kind, name, value, search)
    table = TABLES[kind]
    head, dot, rest = name.partition(".")
    code, colon, modifier = head.partition(":")
    if code in _OWN and not dot:
        if colon:
            text = f"Modificateur « {printable(modifier)} » non offert pour le paramètre « {code} »."
            raise InvalidContent("parametre-modificateur", text)
        return _OWN[code](table, values_of(value, search.limits))
    parameter = parameters(kind).get(code)
    if parameter is None:
        return None
    if dot:
        return _chain(parameter, table, modifier, rest, value, search)
    if modifier == "missing" and "missing" in MODIFIERS[parameter.kind]:
        return missing(parameter, table, name, value)
    return kind_question(Asked(parameter, table, modifier, values_of(value, search.limits), search.base))


def values_of(value: str, limits: Limits | None = None) -> list[str]:
    """Split on commas that no backslash protects; escapes stay for the kind that knows them."""
    values = [part for part in split(value, ",") if part]
    told = limits or Limits()
    if len(values) > told.search_values:
        text = f"Trop de valeurs pour un paramètre : {len(values)}, {told.told('search_values')}."
        raise InvalidContent("trop-de-parametres", text)
    return values


def _by_id(table: Table, values: list[str]) -> ColumnElement[bool]:
    return table.c.id == any_(literal([unescaped(value) for value in values], ARRAY(Text())))


def _by_instant(table: Table, values: list[str]) -> ColumnElement[bool]:
    if not values:
        raise bad_value("_lastUpdated")
    asked = questions("date", values, bad_value("_lastUpdated"))
    return or_(*(instant(table.c.updated_at, question) for question in asked))


#: Parameters that are no search column but a column of every table.
_OWN: dict[str, Callable[[Table, list[str]], ColumnElement[bool]]] = {"_id": _by_id, "_lastUpdated": _by_instant}

# References followed, there and back


def _rows(kind: str, search: _Search, inner: ColumnElement[bool]) -> tuple[Any, ...]:
    """Which rows of another type count: current ones that the caller may see."""
    table = TABLES[kind]
    return table.c.current, not_(table.c.deleted), search.visible(kind, table), inner


def _chain(
    parameter: Parameter, table: Table, modifier: str, rest: str, value: str, search: _Search
) -> ColumnElement[bool]:
    if parameter.kind != "reference" or (modifier and not points_to(parameter, modifier)):
        raise bad_modifier(parameter, modifier or rest)
    conditions: list[ColumnElement[bool]] = []
    for target in [modifier] if modifier else [kind for kind in types() if points_to(parameter, kind)]:
        if target not in TABLES:
            continue
        inner = _condition(target, rest, value, search.deeper(target))
        if inner is None:
            search.tables.pop()
            continue
        begin = entry(parameter.code, target + "/")
        # Uncorrelated: a patient's link leads to the table that is searched itself.
        found = (
            select(func.array_agg(literal(begin, Text()) + TABLES[target].c.id))
            .where(*_rows(target, search, inner))
            .correlate(None)
        )
        conditions.append(table.c.terms.op("&&", is_comparison=True)(found.scalar_subquery()))
        if search_canonicals.leads_to(parameter, target):
            named = search_canonicals.referring(parameter, target, *_rows(target, search, inner))
            conditions.append(table.c.terms.op("&&", is_comparison=True)(named.scalar_subquery()))
    if rest == "identifier":
        # A logical reference says it itself.
        texts = [
            text for one in values_of(value, search.limits) for text in token_texts(f"{parameter.code}:identifier", one)
        ]
        conditions.append(holds(table, texts))
    if not conditions:
        text = f"Aucun type cible du paramètre « {parameter.code} » ne connaît « {printable(rest)} »."
        raise InvalidContent("parametre-inconnu", text)
    return or_(*conditions)


def _reverse_chain(kind: str, name: str, value: str, search: _Search) -> ColumnElement[bool]:
    steps = name.split(":", 3)
    if len(steps) != 4 or steps[1] not in TABLES:
        raise bad_value(name)
    _, source, code, rest = steps
    parameter = parameters(source).get(code)
    if parameter is None or parameter.kind != "reference" or not points_to(parameter, kind):
        raise bad_value(name)
    inner = _condition(source, rest, value, search.deeper(source))
    if inner is None:
        raise bad_value(name)
    begin = entry(code, kind + "/")
    said = select(func.unnest(TABLES[source].c.terms).label("text"))
    entries = said.where(*_rows(source, search, inner)).correlate(None).subquery()
    referred = select(func.array_agg(func.substr(entries.c.text, len(begin) + 1))).where(
        func.starts_with(entries.c.text, begin)
    )
    found = TABLES[kind].c.id == any_(func.coalesce(referred.scalar_subquery(), texts_of([])))
    if search_canonicals.leads_to(parameter, kind):
        return or_(found, search_canonicals.named_in(parameter, kind, entries.c.text))
    return found


def refers(kind: str, parameter: Parameter, texts: list[str]) -> ColumnElement[bool]:
    """Whether a row's reference parameter holds one of these ``Type/id`` or URLs: for ``_revinclude``."""
    return holds(TABLES[kind], [entry(parameter.code, text) for text in texts])


def references(kind: str, parameter: Parameter) -> ColumnElement[Any]:
    """What a row's reference parameter holds, as an array of texts (NULL: nothing): for ``_include``."""
    begin = parameter.code + IS
    text = func.unnest(TABLES[kind].c.terms).column_valued()
    return (
        select(func.array_agg(func.substr(text, len(begin) + 1))).where(func.starts_with(text, begin)).scalar_subquery()
    )


# Sorting


def sort_key(kind: str, code: str, *, descending: bool = False) -> ColumnElement[Any] | None:
    """What a search of this type is sorted by; `None` if the type has no such parameter, or it has no order.

    Of several values that counts which comes first in the order asked for [FHIR R4 search#sort]: the lowest, or the
    highest when it descends. A resource that says nothing gives NULL. An open end of a period counts as its other end.
    """
    table = TABLES[kind]
    if code == "_id":
        return table.c.id
    if code == "_lastUpdated":
        return table.c.updated_at
    parameter = parameters(kind).get(code)
    if parameter is None or parameter.kind == "composite":
        return None
    extreme = func.max if descending else func.min
    if parameter.kind in RANGED:
        low, high = func.lower(table.c[parameter.column]), func.upper(table.c[parameter.column])
        return func.coalesce(high, low) if descending else func.coalesce(low, high)
    begin = code + IS
    source = func.tsvector_to_array(table.c.words) if parameter.kind == "string" else table.c.terms
    text = func.unnest(source).column_valued()
    found = func.substr(text, len(begin) + 1)
    if parameter.kind == "token":
        # A code with a system stands there without it; what has none begins with the sign that would end it.
        bare = case((func.starts_with(text, code + ANY), found), else_=func.substr(text, len(begin) + 2))
        held = or_(func.starts_with(text, code + ANY), func.starts_with(text, begin + IS))
        return select(extreme(bare.collate("C"))).where(held).scalar_subquery()
    return select(extreme(found.collate("C"))).where(func.starts_with(text, begin)).scalar_subquery()
