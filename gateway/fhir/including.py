"""``_include`` and ``_revinclude``: what the matches refer to, and what refers to them [FHIR R4 search#include].

``:iterate`` asks the same again of what was included, until nothing new is found. One statement a type and round.

Promises: nothing is included twice, nor what is a match already, so circles end; what the caller or his token may not
see is not included; beyond ``RCP_LIMIT_SEARCH_INCLUDED``, or what is left of ``RCP_LIMIT_ANSWER_BYTES``, nothing more
is, and the answer says so.
A canonical leads to what carries its URL, in the version that it says (`gateway.fhir.search_canonicals`).
Not promised: that what is included is of the same moment as the matches of a later page: it is what is current.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Table, any_, cast, literal, not_, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from gateway.errors import InvalidContent
from gateway.fhir.reading import READABLE, Budget, Reading
from gateway.fhir.search_canonicals import leads_to, named_by
from gateway.fhir.search_canonicals import names as canonical_names
from gateway.fhir.search_columns import Parameter, parameters
from gateway.fhir.search_conditions import Visible, printable, references, refers
from gateway.fhir.search_kinds import points_to
from gateway.fhir.weighing import columns_under, share, weighed
from gateway.model.representation import TABLES

__all__ = ["Include", "Included", "included", "includes", "reference_columns"]


@dataclass(frozen=True, slots=True)
class Include:
    """One reference parameter that is followed, forwards or backwards.

    Attributes
    ----------
    parameter
        Its type is the one that refers.
    target
        The only type referred to that counts, if one was named.
    iterate
        Whether it is followed from what was included too.
    """

    parameter: Parameter
    target: str | None
    reverse: bool
    iterate: bool

    def reaches(self, kind: str) -> bool:
        """Whether a resource of this type can be what is referred to."""
        if self.target is not None:
            return kind == self.target
        return points_to(self.parameter, kind)


def includes(kind: str, name: str, value: str) -> list[Include]:
    """Understand one ``_include`` or ``_revinclude``: ``Type:parameter``, ``Type:parameter:Target``, ``Type:*``, ``*``.

    Raises
    ------
    InvalidContent
        ``inclusion-inconnue``, ``parametre-modificateur``.
    """
    code, _, modifier = name.partition(":")
    reverse, iterate = code == "_revinclude", modifier == "iterate"
    if modifier not in {"", "iterate"}:
        text = f"Modificateur « {printable(modifier)} » non offert pour le paramètre « {code} »."
        raise InvalidContent("parametre-modificateur", text)
    source, _, rest = value.partition(":")
    wanted, _, target = rest.partition(":")
    if value == "*":
        sources = READABLE if reverse or iterate else (kind,)
        wanted = "*"
    else:
        sources = (source,) if source in READABLE else ()
    found = [
        Include(parameter, target or None, reverse, iterate)
        for one in sources
        for parameter in parameters(one).values()
        if parameter.kind == "reference" and wanted in {parameter.code, "*"}
    ]
    known = not target or target in READABLE
    if not known or (not found and wanted != "*") or not sources:
        text = f"Inclusion inconnue dans « {code} » : un type et un de ses paramètres de référence sont attendus."
        raise InvalidContent("inclusion-inconnue", text)
    return found


def _label(parameter: Parameter) -> str:
    return "refers_" + parameter.code.replace("-", "_")


#: Label of what canonical references call a row.
_NAMES = "canonical_names"


def reference_columns(kind: str, asked: Iterable[Include], *, iterated: bool = False) -> list[ColumnElement[Any]]:
    """Columns that say what rows of a type refer to, or are referred to by, as far as that is followed."""
    counting = [include for include in asked if include.iterate or not iterated]
    followed = {
        include.parameter.code: include.parameter
        for include in counting
        if not include.reverse and include.parameter.type == kind
    }
    found: list[ColumnElement[Any]] = [
        references(kind, followed[code]).label(_label(followed[code])) for code in sorted(followed)
    ]
    if any(include.reverse and leads_to(include.parameter, kind) for include in counting):
        found.append(canonical_names(kind).label(_NAMES))
    return found


def _texts(texts: Iterable[str]) -> ColumnElement[Any]:
    return cast(literal(sorted(texts), ARRAY(Text())), ARRAY(Text()))


@dataclass(slots=True)
class Included:
    """What was included: type and row; the bytes that are left; the limit that cut it, if one did."""

    rows: list[tuple[str, Any]]
    room: int
    cut: str | None = None


async def included(
    reading: Reading,
    kind: str,
    page: Sequence[Any],
    asked: Sequence[Include],
    visible: Visible,
    budget: Budget,
    room: int,
) -> Included:
    """Find what a page's includes bring, in so many bytes."""
    shown: dict[str, set[str]] = {kind: {row["id"] for row in page}}
    fresh: list[tuple[str, Any]] = [(kind, row) for row in page]
    found = Included([], room)
    followed = list(asked)
    while fresh and followed and not found.cut:
        round_of = _Round(fresh, followed)
        fresh = []
        for target, condition in round_of.conditions():
            table = TABLES[target]
            known = shown.setdefault(target, set())
            free = reading.limits.search_included - len(found.rows)
            most = share(found.room, free + 1)
            rows = await reading.fetch(
                _statement(table, [*columns_under(table, most), *reference_columns(target, asked, iterated=True)])
                .where(condition, visible(target, table), not_(table.c.id == any_(_texts(known))))
                .order_by(table.c.id)
                .limit(free + 1),
                budget,
            )
            fitting = await weighed(reading, target, rows[:free], found.room, budget, least=0)
            found.room -= sum(len(row["body"]) for row in fitting)
            if len(rows) > len(fitting):
                found.cut = "answer_bytes" if len(fitting) < min(free, len(rows)) else "search_included"
            new = [(target, row) for row in fitting]
            known.update(row["id"] for _, row in new)
            fresh += new
            found.rows += new
            if found.cut:
                break
        followed = [include for include in asked if include.iterate]
    return found


def _statement(table: Table, wanted: Sequence[Any]) -> Any:
    return select(*wanted).where(table.c.current, not_(table.c.deleted))


class _Round:
    """What one round looks for, by type."""

    def __init__(self, fresh: Sequence[tuple[str, Any]], followed: Iterable[Include]) -> None:
        self._ids: dict[str, set[str]] = {}
        self._names: dict[str, set[str]] = {}
        self._backwards: dict[str, list[ColumnElement[bool]]] = {}
        names: dict[str, set[str]] = {}
        for kind, row in fresh:
            names.setdefault(kind, set()).add(f"{kind}/{row['id']}")
        for include in followed:
            if include.reverse:
                self._add_backwards(include, names, fresh)
            else:
                self._add_forwards(include, fresh)

    def _add_forwards(self, include: Include, fresh: Sequence[tuple[str, Any]]) -> None:
        label = _label(include.parameter)
        canonical = [one for one in READABLE if leads_to(include.parameter, one) and include.target in {None, one}]
        for kind, row in fresh:
            if kind != include.parameter.type:
                continue
            for reference in row[label] or ():
                target, slash, identity = reference.partition("/")
                if slash and target in READABLE and include.target in {None, target}:
                    self._ids.setdefault(target, set()).add(identity)
                elif "|" in reference:
                    for one in canonical:
                        self._names.setdefault(one, set()).add(reference)

    def _add_backwards(self, include: Include, names: dict[str, set[str]], fresh: Sequence[tuple[str, Any]]) -> None:
        texts = {text for kind, those in names.items() if include.reaches(kind) for text in those}
        for kind, row in fresh:
            if include.reaches(kind) and leads_to(include.parameter, kind):
                texts.update(name for name in row[_NAMES] if name is not None)
        if texts:
            self._backwards.setdefault(include.parameter.type, []).append(
                refers(include.parameter.type, include.parameter, sorted(texts))
            )

    def conditions(self) -> list[tuple[str, ColumnElement[bool]]]:
        """One condition a type."""
        found = []
        for kind in sorted({*self._ids, *self._names, *self._backwards}):
            ways = list(self._backwards.get(kind, ()))
            if kind in self._ids:
                ways.append(TABLES[kind].c.id == any_(_texts(self._ids[kind])))
            if kind in self._names:
                ways.append(named_by(kind, self._names[kind]))
            found.append((kind, or_(*ways)))
        return found
