"""Search: from the parameters of a request to one SQL condition over a representation table.

[FHIR R4 search]; what each parameter's column holds is `gateway.fhir.search_columns`' business, what an answer holds
is `gateway.fhir.searchset`'s.

Promises: pure (no socket, session or clock); every value travels as a bind; the same statement runs under psycopg and
asyncpg; an unknown parameter is a warning, or refused under ``Prefer: handling=strict``; a modifier that is not offered
is always refused, because ignoring it would widen the answer.
Offered: what `gateway.fhir.search_conditions` knows of the type, and `CONTROLS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, and_, true

from gateway.errors import InvalidContent
from gateway.fhir.including import Include, includes
from gateway.fhir.outcome import warning
from gateway.fhir.paging import Key
from gateway.fhir.search_columns import parameters
from gateway.fhir.search_conditions import Visible, bad_value, printable, question, sort_key, values_of
from gateway.fhir.search_kinds import LookedUp
from gateway.fhir.summary import WHOLE, Form, form
from gateway.model.representation import TABLES
from gateway.settings import Limits

__all__ = ["CONTROLS", "COUNT_DEFAULT", "IN_EVERY_ADDRESS", "TOTALS", "Query", "Visible", "costly", "parse"]

#: Resources of one page when ``_count`` says nothing.
COUNT_DEFAULT = 50
#: What ``_total`` takes [FHIR R4 search#total].
TOTALS: tuple[str, ...] = ("none", "estimate", "accurate")
#: Parameters that say how an answer is written, not what it holds: they go along with every link.
IN_EVERY_ADDRESS: tuple[str, ...] = ("_format", "_pretty")


@dataclass(slots=True)
class Query:
    """A search, ready to be put into a statement.

    Attributes
    ----------
    conditions
        What the current rows of ``TABLES[type]`` must be (the caller adds `Visible` and ``current``).
    keys
        The order, down to the id: no two rows have the same place.
    total
        One of `TOTALS`, or `None` when nothing was said.
    count_only
        Whether only the total is wanted.
    applied
        The parameters as understood, for the ``self`` link.
    warnings
        Issues of parameters that were ignored.
    horizon
        Whether only rows below the transaction horizon may answer: whoever asks by ``_lastUpdated`` asks what is new,
        and must not lose what commits late [DESIGN §3, Cursors].
    """

    type: str
    limits: Limits
    conditions: list[ColumnElement[bool] | LookedUp] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    count: int = COUNT_DEFAULT
    total: str | None = None
    count_only: bool = False
    horizon: bool = False
    form: Form = WHOLE
    includes: list[Include] = field(default_factory=list)
    applied: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def where(self) -> ColumnElement[bool]:
        """The conditions as one, written anew."""
        return and_(true(), *(one.clause() if isinstance(one, LookedUp) else one for one in self.conditions))

    @property
    def narrowed(self) -> bool:
        """Whether there is a condition at all."""
        return bool(self.conditions)

    @property
    def looked_up(self) -> list[LookedUp]:
        """The conditions, if all of them only look up texts; else nothing."""
        found = [one for one in self.conditions if isinstance(one, LookedUp)]
        return found if len(found) == len(self.conditions) else []


def parse(
    kind: str,
    pairs: Iterable[tuple[str, str]],
    *,
    visible: Visible,
    strict: bool = False,
    limits: Limits | None = None,
    base: str = "",
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
    limits
        Bounds; the defaults when absent.
    base
        Our FHIR base URL: an absolute URL below it means our own resource.

    Raises
    ------
    InvalidContent
        ``parametre-inconnu`` (strict), ``parametre-valeur``, ``parametre-modificateur``, ``trop-de-parametres``,
        ``chaine-trop-longue``, ``tri-non-offert``, ``trop-de-tris``, ``inclusion-inconnue``,
        ``parametres-incompatibles``.
    """
    limits = limits or Limits()
    given = list(pairs)
    if len(given) > limits.search_parameters:
        text = f"Trop de paramètres de recherche : {len(given)}, {limits.told('search_parameters')}."
        raise InvalidContent("trop-de-parametres", text)
    _require_few(given, limits)
    query = Query(type=kind, limits=limits)
    tables: list[str] = []
    for name, value in given:
        if not value:
            continue
        if "\x00" in value:  # no text of PostgreSQL holds it
            raise bad_value(name)
        control = CONTROLS.get(name.partition(":")[0])
        if control is not None:
            control(query, name, value)
            query.applied.append((name, value))
            continue
        wanted = question(kind, name, value, visible, limits=query.limits, base=base, tables=tables)
        if wanted is None:
            text = f"Paramètre de recherche inconnu pour {kind} : « {printable(name)} »."
            if strict:
                raise InvalidContent("parametre-inconnu", text)
            query.warnings.append(warning("parametre-inconnu", text))
            continue
        query.conditions.append(wanted)
        query.horizon = query.horizon or name == "_lastUpdated"
        query.applied.append((name, value))
    query.form = form(query.applied)
    query.count_only = query.count_only or query.form.summary == "count"
    if query.form.summary == "text" and query.includes:
        text = "« _summary=text » ne se combine pas avec « _include » ni « _revinclude »."
        raise InvalidContent("parametres-incompatibles", text)
    _close(query)
    return query


#: Conditions that are understood and compiled in milliseconds; two hundred ranges of quantities take half a second.
_LIGHT = 16
#: Conditions that a chain, or a ``_has``, weighs as much as.
_CHAIN = 6
#: Kinds of which the values of one parameter are one list for the database.
_LISTED = frozenset({"token", "reference", "uri"})
#: Types that one step of a chain may lead to before it counts as wide: each is a table with its own condition.
_NARROW = 4


def costly(kind: str, pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether understanding a search takes so long that nobody must wait for it; judged by its parameters' look."""
    values = 0
    for name, value in pairs:
        if "." in name and _wide(kind, name):
            return True
        values += value.count(",") + (_CHAIN if "." in name or name.startswith("_has:") else 1)
    return values > _LIGHT and sum(_weight(kind, name, value) for name, value in pairs) > _LIGHT


def _wide(kind: str, name: str) -> bool:
    """Whether a chain goes on, without naming a type, from what may be of many."""
    if "_has:" in name:
        return True
    for place, step in enumerate(name.split(".")[:-1]):
        found = parameters(kind).get(step) if place == 0 else None
        if ":" not in step and (found is None or not 0 < len(found.targets) <= _NARROW or "*" in found.targets):
            return True
    return False


def _weight(kind: str, name: str, value: str) -> int:
    code, _, modifier = name.partition(":")
    found = parameters(kind).get(code)
    if "." in name or code == "_has":
        return _CHAIN + value.count(",")
    listed = code == "_id" or (found is not None and (found.kind in _LISTED or modifier in {"exact", "missing"}))
    return 1 if listed else 1 + value.count(",")


def _require_few(given: list[tuple[str, str]], limits: Limits) -> None:
    """Refuse more values than one long list and one for each other parameter: each is a condition to be written."""
    said = sum(1 + value.count(",") for name, value in given if name.partition(":")[0] not in CONTROLS)
    if said > limits.search_values + limits.search_parameters:
        text = f"Trop de valeurs pour une recherche : {said}, {limits.told('search_values')} plus une par paramètre."
        raise InvalidContent("trop-de-parametres", text)


def _close(query: Query) -> None:
    """End the order by the id, in the direction of the last key, so that an index can be read backwards."""
    table = TABLES[query.type]
    if all(key.column is not table.c.id for key in query.keys):
        descending = bool(query.keys) and query.keys[-1].descending
        query.keys.append(Key(table.c.id, descending, nullable=False))


def _bare(control: Callable[[Query, str, str], None]) -> Callable[[Query, str, str], None]:
    """A control that takes no modifier."""

    def checked(query: Query, name: str, value: str) -> None:
        code, colon, modifier = name.partition(":")
        if colon:
            text = f"Modificateur « {printable(modifier)} » non offert pour le paramètre « {code} »."
            raise InvalidContent("parametre-modificateur", text)
        control(query, name, value)

    return checked


def _count(query: Query, name: str, value: str) -> None:
    if not (value.isascii() and value.isdecimal()) or len(value) > 9:
        raise bad_value(name)
    query.count_only = int(value) == 0
    query.count = max(1, min(query.limits.search_page, int(value)))


def _sort(query: Query, name: str, value: str) -> None:
    table = TABLES[query.type]
    for text in values_of(value):
        code, descending = text.removeprefix("-"), text.startswith("-")
        if code == "_id":
            key = Key(table.c.id, descending, nullable=False)
        elif code == "_lastUpdated":
            key = Key(table.c.updated_at, descending, nullable=False)
            query.horizon = True
        else:
            column = sort_key(query.type, code, descending=descending)
            if column is None:
                said = f"Tri non offert par « {printable(code)} »."
                raise InvalidContent("tri-non-offert", said, expression=name)
            key = Key(column, descending)
        query.keys.append(key)
    if len(query.keys) > query.limits.search_sort:
        said = f"Trop de clés de tri : {len(query.keys)}, {query.limits.told('search_sort')}."
        raise InvalidContent("trop-de-tris", said, expression=name)


def _include(query: Query, name: str, value: str) -> None:
    query.includes += includes(query.type, name, value)


def _total(query: Query, name: str, value: str) -> None:
    if value not in TOTALS:
        raise bad_value(name)
    query.total = value


def _nothing(query: Query, name: str, value: str) -> None:
    """Understood elsewhere: `gateway.fhir.summary`, `gateway.fhir.negotiation`."""


#: The parameters that say what the answer looks like, and what each does.
CONTROLS: Mapping[str, Callable[[Query, str, str], None]] = {
    "_count": _bare(_count),
    "_sort": _bare(_sort),
    "_include": _include,
    "_revinclude": _include,
    "_total": _bare(_total),
    "_summary": _bare(_nothing),
    "_elements": _bare(_nothing),
    "_format": _bare(_nothing),
    "_pretty": _bare(_nothing),
}
