"""The answer of a search: a page of stored bytes, what it includes, how many there are, where the next page is.

[FHIR R4 search, http#search, bundle#searchset; spec fhir-fr 3.2]

Promises: pages follow each other without loss or repetition while others write (`gateway.fhir.paging`), shorter ones
where resources are large (`gateway.fhir.weighing`); ``_include``
and ``_revinclude`` show, and chained parameters betray, only what the caller and his token may see; ``self`` says what
was understood; what was ignored or cut is said in an entry of mode ``outcome``.
Not promised: totals that still hold on the next page. Without ``_total`` one is given when it is cheap: the page holds
everything, or there are at most a thousand and the planner expects few.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import msgspec
from sqlalchemy import ColumnElement, Select, Table, not_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement, Executable
from sqlalchemy.sql.visitors import InternalTraversal

from gateway.errors import Unsupported
from gateway.fhir.document import encode
from gateway.fhir.including import Included, included, reference_columns
from gateway.fhir.outcome import warning
from gateway.fhir.paging import PAGE, Mark, below, first_of_few, first_page, found_first, kept, keys_of, later_page, of
from gateway.fhir.reading import COUNTED, UNSEARCHED, Budget, Reading
from gateway.fhir.search import IN_EVERY_ADDRESS, Query, costly, parse
from gateway.fhir.weighing import columns_under, share, weighed
from gateway.model.representation import TABLES
from gateway.rcp import access
from gateway.rcp.access import Caller

__all__ = ["address", "answer", "split_page"]


@dataclass(slots=True)
class _Page:
    """Rows of one page in order, and what lies around it."""

    rows: list[Any]
    snapshot: str
    own: str | None
    before: bool
    after: bool
    cut: bool = False


async def answer(
    reading: Reading,
    caller: Caller,
    kind: str,
    pairs: Sequence[tuple[str, str]],
    *,
    strict: bool = False,
    posted: bool = False,
) -> bytes:
    """Return a searchset.

    Parameters
    ----------
    posted
        Whether the parameters came in a body: what follows then repeats them in no address.

    Raises
    ------
    InvalidContent, NotFound, Unsupported
        See `gateway.fhir.search.parse` and `gateway.fhir.paging.Pages.open`; ``recherche-trop-couteuse``.
    """
    if kind in UNSEARCHED:
        raise Unsupported("recherche-non-offerte", f"Le type {kind} n’a pas de recherche.")
    await reading.require_scope(caller, kind, "s")
    token, given, shared = split_page(pairs)
    mark = reading.pages.open(token, kind, given, whose=of(caller)) if token is not None else None
    by = reading.seen(caller, kind)
    budget = reading.budget()
    asked = [*mark.pairs, *shared] if mark is not None else pairs

    def understood() -> Query:
        return parse(kind, asked, visible=by("s"), strict=strict, limits=reading.limits, base=reading.base)

    query = await reading.apart(understood, budget) if costly(kind, asked) else understood()
    table = TABLES[kind]
    visible = access.representations(caller, table)
    page = _Page([], "", None, before=False, after=False)
    if not query.count_only:
        rights = access.rights(caller)
        page = (
            await _first(reading, query, table, visible, rights, budget)
            if mark is None
            else await _later(reading, query, table, visible, mark, budget)
        )
    total = mark.total if mark is not None else await _total(reading, query, table, visible, page, budget)
    rest = 0 if page.cut else mark.rest if mark is not None else _rest(query, total)
    found = Included([], 0)
    if page.rows and query.includes:
        room = reading.limits.answer_bytes - sum(len(row["body"]) for row in page.rows)
        found = await included(reading, kind, page.rows, query.includes, by("r"), budget, room)
    persons = {row["record_id"] for row in page.rows} | {row["record_id"] for _, row in found.rows}
    await reading.source.record(
        access.facts(
            caller,
            "recherche",
            persons=tuple(sorted(person for person in persons if person is not None)),
            object_type=kind,
            detail={"resultats": len(page.rows), **({"total": total} if total is not None else {})},
        )
    )
    posted = mark.posted if mark is not None else posted
    links = _Links(reading, query, page, total, rest, token, posted=posted, whose=of(caller))
    bodies = await _filled(reading, found)
    return _searchset(reading, query, page, found, bodies, total, links.written())


async def _filled(reading: Reading, found: Included) -> list[tuple[str, str, bytes]]:
    """What was included with its bytes; contents of Binaries as far as they fit."""
    filled: list[tuple[str, str, bytes]] = []
    for kind, row in found.rows:
        stored = bytes(row["body"])
        body = await reading.filled(kind, stored)
        found.room -= len(body) - len(stored)
        if found.room < 0:
            found.cut = "answer_bytes"
            break
        filled.append((kind, row["id"], body))
    return filled


#: Matches that the planner may expect where up to a thousand are counted: it is often wrong by as much.
_COUNTABLE = 10 * COUNTED
_Pairs = list[tuple[str, str]]


def split_page(pairs: Sequence[tuple[str, str]]) -> tuple[str | None, _Pairs, _Pairs]:
    """Take from the parameters the token of a page, those of the search, and those that stand in every address."""
    tokens = [value for name, value in pairs if name == PAGE]
    shared = [pair for pair in pairs if pair[0] in IN_EVERY_ADDRESS]
    given = [pair for pair in pairs if pair[0] != PAGE and pair[0] not in IN_EVERY_ADDRESS]
    return tokens[-1] if tokens else None, given, shared


def _wanted(
    query: Query, table: Table, visible: ColumnElement[bool], where: ColumnElement[bool], mark: Mark | None
) -> list[ColumnElement[bool]]:
    """What a row must be to be found."""
    return [visible, where, *([below(table, mark)] if query.horizon else [])]


async def _first(
    reading: Reading, query: Query, table: Table, visible: ColumnElement[bool], rights: Hashable, budget: Budget
) -> _Page:
    limit = query.count + 1
    asked = query.looked_up
    few = not budget.apart and reading.rare(asked)

    def make(where: ColumnElement[bool]) -> Select[Any]:
        wanted = _wanted(query, table, visible, where, None)
        if query.narrowed:
            wanted.append(found_first(table))
        read = first_of_few if few else first_page
        return read(table, _selected(query, table), wanted, query.keys, limit)

    # Whether it is narrowed shows in the shape of its condition.
    sort = tuple(value for name, value in query.applied if name == "_sort")
    followed = tuple(
        (include.parameter.type, include.parameter.code, include.reverse)
        for include in query.includes
        if not include.reverse or include.parameter.canonical
    )
    room = reading.limits.answer_bytes
    if budget.apart:
        found = await reading.fetch(make(query.where), budget)
    else:
        of_it = (query.type, rights, sort, followed, query.horizon, limit, room, few)
        statement, values = kept(of_it, lambda: query.where, make, asked)
        found = await reading.fetch(statement, budget, values, one_plan=few)
    rows = await weighed(reading, query.type, found[: query.count], room, budget)
    snapshot, _, own = rows[0]["snapshot"].partition("/") if rows else ("", "", "")
    cut = len(rows) < min(query.count, len(found))
    return _Page(rows, snapshot, own or None, before=False, after=len(found) > len(rows), cut=cut)


def _selected(query: Query, table: Table) -> list[Any]:
    most = share(query.limits.answer_bytes, query.count + 1)
    return [*columns_under(table, most), *reference_columns(query.type, query.includes)]


async def _later(
    reading: Reading,
    query: Query,
    table: Table,
    visible: ColumnElement[bool],
    mark: Mark,
    budget: Budget,
) -> _Page:
    values: list[Any] | None = None
    if mark.row is not None:
        place = await reading.fetch(keys_of(table, query.keys, mark.row), budget)
        values = [place[0][f"k{number}"] for number in range(len(query.keys))]
    selected = _selected(query, table)
    count = mark.rest if mark.back and mark.row is None and mark.rest else query.count
    wanted = _wanted(query, table, visible, query.where, mark)
    if query.narrowed:
        wanted.append(found_first(table))
    statement = later_page(table, selected, wanted, visible, query.keys, mark, values, count + 1)
    found = await reading.fetch(statement, budget)
    rows = await weighed(reading, query.type, found[:count], reading.limits.answer_bytes, budget)
    more, cut = len(found) > len(rows), len(rows) < min(count, len(found))
    if mark.back:
        rows.reverse()
        return _Page(rows, mark.snapshot, mark.own, before=more, after=mark.row is not None, cut=cut)
    return _Page(rows, mark.snapshot, mark.own, before=mark.row is not None, after=more, cut=cut)


# How many


class _Explain(Executable, ClauseElement):
    """``EXPLAIN`` of a statement: what the planner expects."""

    inherit_cache = True
    _traverse_internals = [("statement", InternalTraversal.dp_clauseelement)]  # noqa: RUF012 - SQLAlchemy's class attribute

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(_Explain)
def _explain(element: _Explain, compiler: SQLCompiler, **more: Any) -> str:
    return "EXPLAIN (FORMAT JSON) " + compiler.process(element.statement, **more)


async def _total(
    reading: Reading,
    query: Query,
    table: Table,
    visible: ColumnElement[bool],
    page: _Page,
    budget: Budget,
) -> int | None:
    if not query.count_only:
        if query.total == "none":
            return None
        if not page.after:
            return len(page.rows)
    current = [table.c.current, not_(table.c.deleted), *_wanted(query, table, visible, query.where, None)]
    if query.count_only:
        return await reading.count(table, current, budget)
    if query.total == "accurate":
        return await reading.count(table, current, budget)
    rows = await reading.fetch(_Explain(select(table.c.id).where(*current)), budget)
    planned = _planned(rows[0]["QUERY PLAN"])
    # An index of many matches is read to its end before the first is counted.
    found = await reading.count_some(table, current, budget) if planned <= _COUNTABLE else None
    if found is None and query.total == "estimate":
        return max(COUNTED + 1, planned)
    return found


def _rest(query: Query, total: int | None) -> int:
    """Rows of the page that following the links ends with; none when the total is not known, or only estimated."""
    known = total is not None and (query.total != "estimate" or total <= COUNTED)
    return (total - 1) % query.count + 1 if known and total else 0


def _planned(plan: Any) -> int:
    """Rows that the planner expects; one driver gives the plan as text, the other as a tree."""
    tree = msgspec.json.decode(plan) if isinstance(plan, str | bytes) else plan
    return int(tree[0]["Plan"]["Plan Rows"])


# The Bundle


def address(reading: Reading, path: str, pairs: Sequence[tuple[str, str]]) -> str:
    """Write an absolute address."""
    asked = urlencode(pairs, safe="|:,/")
    return f"{reading.base}/{path}" + (f"?{asked}" if asked else "")


def _searchset(
    reading: Reading,
    query: Query,
    page: _Page,
    found: Included,
    bodies: Sequence[tuple[str, str, bytes]],
    total: int | None,
    links: list[dict[str, str]],
) -> bytes:
    head: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
    if total is not None:
        head["total"] = total
    head["link"] = links
    entries = [_entry(reading, query, query.type, row["id"], bytes(row["body"]), "match") for row in page.rows]
    entries += [_entry(reading, query, kind, key, body, "include") for kind, key, body in bodies]
    issues = list(query.warnings)
    if found.cut:
        text = (
            f"Inclusions incomplètes : {reading.limits.told(found.cut)} par page. "
            "Demandez des pages plus courtes (_count) ou les ressources une à une."
        )
        issues.append(warning("inclusions-incompletes", text, issue_code="too-costly"))
    if issues:
        outcome = {"resourceType": "OperationOutcome", "language": "fr", "issue": issues}
        entries.append({"resource": outcome, "search": {"mode": "outcome"}})
    if entries:
        head["entry"] = entries
    return encode(head)


def _entry(reading: Reading, query: Query, kind: str, key: str, stored: bytes, mode: str) -> dict[str, Any]:
    body = reading.out(kind, stored)
    resource = msgspec.Raw(body) if query.form.whole else query.form.cut(kind, body, included=mode == "include")
    return {"fullUrl": f"{reading.base}/{kind}/{key}", "resource": resource, "search": {"mode": mode}}


class _Links:
    """The links of one page; those to other pages hold nothing but a token."""

    def __init__(
        self,
        reading: Reading,
        query: Query,
        page: _Page,
        total: int | None,
        rest: int,
        token: str | None,
        *,
        posted: bool,
        whose: str,
    ) -> None:
        self._reading = reading
        self._query = query
        self._page = page
        self._total = total
        self._rest = rest
        self._token = token
        self._posted = posted
        self._whose = whose
        self._shared = [pair for pair in query.applied if pair[0] in IN_EVERY_ADDRESS]
        self._pairs = tuple(pair for pair in query.applied if pair[0] not in IN_EVERY_ADDRESS)

    def written(self) -> list[dict[str, str]]:
        """Write them."""
        page, plain = self._page, self._address(*self._pairs)
        if self._token is None:
            links = [{"relation": "self", "url": plain}]
            if not page.after:
                return links
        else:
            links = [{"relation": "self", "url": self._address(*self._pairs, (PAGE, self._token))}]
        links.append({"relation": "first", "url": self._to(None, back=False) if self._posted else plain})
        if page.before:
            links.append({"relation": "previous", "url": self._to(page.rows[0] if page.rows else None, back=True)})
        if page.after:
            links.append({"relation": "next", "url": self._to(page.rows[-1] if page.rows else None, back=False)})
        if self._rest:
            links.append({"relation": "last", "url": self._to(None, back=True)})
        return links

    def _address(self, *pairs: tuple[str, str]) -> str:
        return address(self._reading, self._query.type, [*pairs, *self._shared])

    def _to(self, row: Any | None, *, back: bool) -> str:
        mark = Mark(
            path=self._query.type,
            pairs=self._pairs,
            snapshot=self._page.snapshot,
            own=self._page.own,
            row=None if row is None else (row["id"], row["version"]),
            back=back,
            total=self._total,
            rest=self._rest,
            posted=self._posted,
            whose=self._whose,
        )
        return self._address((PAGE, self._reading.pages.seal(mark)))
