"""Versions of one resource, or of all of a type, newest first [FHIR R4 http#history].

Promises: what was deleted stands there as an entry without a resource; the versions of a type are read below the
transaction horizon, so that whoever asks ``_since`` again misses no late committer [DESIGN §3, Cursors]; pages follow
each other by the last version shown, hold nothing written after the first, and are shorter where versions are large
(`gateway.fhir.weighing`); one audit line an answer.
Not promised: the history of the whole system (DECISIONS 16); by which verb a first version was written: it reads POST.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Table, cast, exists, func, literal, not_, select

from gateway.errors import InvalidContent
from gateway.fhir.document import encode, instant
from gateway.fhir.paging import PAGE, Key, Mark, below, beyond, keys_of, of, order, snapshot_column
from gateway.fhir.reading import Budget, Reading
from gateway.fhir.search import COUNT_DEFAULT, IN_EVERY_ADDRESS
from gateway.fhir.search_columns import date_interval
from gateway.fhir.search_conditions import ID, bad_value, printable
from gateway.fhir.searchset import address, split_page
from gateway.fhir.summary import WHOLE, Form, form
from gateway.fhir.weighing import columns_under, share, weighed
from gateway.model.representation import TABLES
from gateway.rcp import access
from gateway.rcp.access import Caller
from gateway.settings import Limits

__all__ = ["PARAMETERS", "answer"]

#: What a history takes.
PARAMETERS: tuple[str, ...] = ("_count", "_since", "_at", "_sort", "_summary", "_elements", PAGE, *IN_EVERY_ADDRESS)
_ORDERS: Mapping[str, bool] = {"-_lastUpdated": True, "none": True, "_lastUpdated": False}


@dataclass(slots=True)
class _Asked:
    count: int = COUNT_DEFAULT
    since: datetime | None = None
    at: tuple[datetime, datetime] | None = None
    descending: bool = True
    count_only: bool = False
    form: Form = WHOLE


async def answer(
    reading: Reading,
    caller: Caller,
    kind: str,
    identity: str | None,
    pairs: Sequence[tuple[str, str]],
    *,
    strict: bool = False,
) -> bytes:
    """Return a history Bundle.

    Parameters
    ----------
    identity
        Of one resource; `None`: of the type.

    Raises
    ------
    NotFound
        ``inconnu``: the caller may see no version of it; ``page-perimee``.
    InvalidContent
        ``parametre-valeur``, ``parametre-inconnu`` (strict), ``page-alteree``, ``page-d-une-autre-recherche``.
    """
    # SMART 2.2: the history of an instance is a read, that of a type a search.
    await reading.require_scope(caller, kind, "s" if identity is None else "r")
    if identity is not None and not ID.fullmatch(identity):
        await reading.refuse(caller, kind, identity)
    path = f"{kind}/_history" if identity is None else f"{kind}/{identity}/_history"
    token, given, shared = split_page(pairs)
    mark = reading.pages.open(token, path, given, whose=of(caller)) if token is not None else None
    said = [pair for pair in (mark.pairs if mark is not None else given) if pair[1]]
    asked = _parse(said, reading.limits, strict=strict)
    table = TABLES[kind]
    wanted = _wanted(caller, table, identity, asked, mark)
    budget = reading.budget()
    rows: list[Any] = []
    if not asked.count_only:
        rows = await _rows(reading, table, identity, wanted, asked, mark, budget)
    page = await weighed(reading, kind, rows[: asked.count], reading.limits.answer_bytes, budget)
    bodies = await _bodies(reading, kind, page)
    page = page[: len(bodies)]
    more = len(rows) > len(page)
    if mark is not None:
        total = mark.total
    elif asked.count_only:
        total = await reading.count(table, wanted, budget)
    else:
        total = await reading.count_some(table, wanted, budget) if more else len(page)
    if identity is not None and not page and mark is None and not await _exists(reading, caller, table, identity):
        await reading.refuse(caller, kind, identity)
    await _tell(reading, caller, kind, identity, page)
    here = said + ([(PAGE, token)] if token is not None else [])
    links = [{"relation": "self", "url": address(reading, path, [*here, *shared])}]
    if more:
        snapshot, _, own = page[0]["snapshot"].partition("/") if mark is None else (mark.snapshot, "", mark.own)
        last = page[-1]
        place = Mark(
            path=path,
            pairs=tuple(said),
            snapshot=snapshot,
            own=own or None,
            row=(last["id"], last["version"]),
            total=total,
            whose=of(caller),
        )
        links.append({"relation": "first", "url": address(reading, path, [*said, *shared])})
        links.append({"relation": "next", "url": address(reading, path, [(PAGE, reading.pages.seal(place)), *shared])})
    head: dict[str, Any] = {"resourceType": "Bundle", "type": "history"}
    if total is not None:
        head["total"] = total
    head["link"] = links
    if page:
        head["entry"] = [_entry(reading, kind, row, body, asked.form) for row, body in zip(page, bodies, strict=True)]
    return encode(head)


def _parse(pairs: Sequence[tuple[str, str]], limits: Limits, *, strict: bool) -> _Asked:
    asked = _Asked(form=form(pairs))
    asked.count_only = asked.form.summary == "count"
    for name, value in pairs:
        if name == "_count":
            if not (value.isascii() and value.isdecimal()) or len(value) > 9:
                raise bad_value(name)
            asked.count_only = asked.count_only or int(value) == 0
            asked.count = max(1, min(limits.search_page, int(value)))
        elif name in {"_since", "_at"}:
            try:
                # A plus sign that was not escaped in a URL arrives as a space.
                moment = date_interval(value.replace(" ", "+"))
            except (ValueError, OverflowError):
                raise bad_value(name) from None
            if name == "_since":
                asked.since = moment[0]
            else:
                asked.at = moment
        elif name == "_sort":
            if value not in _ORDERS:
                text = "Un historique se trie par « _lastUpdated » ou « -_lastUpdated »."
                raise InvalidContent("tri-non-offert", text, expression=name)
            asked.descending = _ORDERS[value]
        elif name not in PARAMETERS and strict:
            text = f"Paramètre inconnu pour un historique : « {printable(name)} »."
            raise InvalidContent("parametre-inconnu", text)
    return asked


def _instant(value: datetime) -> ColumnElement[Any]:
    return cast(literal(value, DateTime(timezone=True)), DateTime(timezone=True))


def _wanted(
    caller: Caller, table: Table, identity: str | None, asked: _Asked, mark: Mark | None
) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = [access.representations(caller, table)]
    if identity is not None:
        # Versions of one resource are written one after the other: none commits late.
        wanted.append(table.c.id == identity)
    else:
        wanted.append(below(table, mark))
    if asked.since is not None:
        wanted.append(table.c.updated_at >= _instant(asked.since))
    if asked.at is not None:
        low, high = asked.at
        after = table.alias("after")
        replaced = (
            exists()
            .where(
                after.c.id == table.c.id, after.c.version == table.c.version + 1, after.c.updated_at <= _instant(low)
            )
            .correlate(table)
        )
        wanted += [table.c.updated_at < _instant(high), not_(replaced)]
    return wanted


def _keys(table: Table, identity: str | None, *, descending: bool) -> list[Key]:
    if identity is not None:
        return [Key(table.c.version, descending, nullable=False)]
    return [Key(column, descending, nullable=False) for column in (table.c.updated_at, table.c.id, table.c.version)]


async def _rows(
    reading: Reading,
    table: Table,
    identity: str | None,
    wanted: Sequence[ColumnElement[bool]],
    asked: _Asked,
    mark: Mark | None,
    budget: Budget,
) -> list[Any]:
    keys = _keys(table, identity, descending=asked.descending)
    most = share(reading.limits.answer_bytes, asked.count + 1)
    statement = select(*columns_under(table, most), snapshot_column()).where(*wanted)
    if mark is not None and mark.row is not None:
        place = await reading.fetch(keys_of(table, keys, mark.row), budget)
        statement = statement.where(beyond(keys, [place[0][f"k{number}"] for number in range(len(keys))]))
    return list(await reading.fetch(statement.order_by(*order(keys)).limit(asked.count + 1), budget))


async def _exists(reading: Reading, caller: Caller, table: Table, identity: str) -> bool:
    statement = select(func.count().label("n")).select_from(table)
    rows = await reading.source.fetch(statement.where(table.c.id == identity, access.representations(caller, table)))
    return bool(rows[0]["n"])


async def _tell(reading: Reading, caller: Caller, kind: str, identity: str | None, page: Sequence[Any]) -> None:
    persons = {row["record_id"] for row in page} - {None}
    if not persons:
        return
    dossiers = {row["dossier_id"] for row in page}
    await reading.source.record(
        access.facts(
            caller,
            "consultation",
            persons=tuple(sorted(persons)),
            dossier=dossiers.pop() if len(dossiers) == 1 else None,
            object_type=kind,
            object_id=identity,
            detail={"versions": len(page)},
        )
    )


async def _bodies(reading: Reading, kind: str, page: Sequence[Any]) -> list[bytes]:
    """Stored bytes, with the contents of Binaries as far as they fit; those of the first row whatever they weigh."""
    bodies: list[bytes] = []
    room = reading.limits.answer_bytes
    for row in page:
        body = b"" if row["deleted"] else await reading.filled(kind, bytes(row["body"]))
        room -= len(body)
        if room < 0 and bodies:
            break
        bodies.append(body)
    return bodies


def _entry(reading: Reading, kind: str, row: Any, body: bytes, wanted: Form) -> dict[str, Any]:
    where = f"{kind}/{row['id']}"
    method = "DELETE" if row["deleted"] else "POST" if row["version"] == 1 else "PUT"
    entry: dict[str, Any] = {"fullUrl": f"{reading.base}/{where}"}
    if not row["deleted"]:
        entry["resource"] = wanted.cut(kind, reading.out(kind, body))
    entry["request"] = {"method": method, "url": kind if method == "POST" else where}
    entry["response"] = {
        "status": {"POST": "201", "PUT": "200", "DELETE": "204"}[method],
        "etag": f'W/"{row["version"]}"',
        "lastModified": instant(row["updated_at"]),
    }
    return entry
