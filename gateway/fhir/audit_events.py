"""The trail over FHIR, read-only: AuditEvents computed from audit lines, for the organisation whose patients they name.

[spec audit 1.3, 2, 5; TdE 2.0.0; IHE ITI-81; FHIR R4 auditevent; DECISIONS 10]

Promises: a client sees the lines that name a patient of its own organisation, and of the persons of such a line only
its own; a search has a bound in time (TdE), newest first; its pages follow the lines themselves, so that none is shown
twice or left out while others are written; who reads the trail stands in the trail, before the answer leaves.
Not promised: writing (405), versions, lines about no patient.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from sqlalchemy import (
    ColumnElement,
    DateTime,
    Text,
    Uuid,
    and_,
    any_,
    cast,
    exists,
    false,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from gateway.errors import Forbidden, InvalidContent
from gateway.fhir.auth_scopes import require_scope
from gateway.fhir.document import encode
from gateway.fhir.outcome import warning
from gateway.fhir.paging import PAGE, Mark, Pages, of
from gateway.fhir.reading import Budget
from gateway.fhir.search_columns import date_interval
from gateway.fhir.searchset import split_page
from gateway.fhir.source import Source
from gateway.fhir.translate.audit import audit_event, events_of
from gateway.model.audit import AuditFacts, AuditLine
from gateway.model.directory import Practitioner
from gateway.model.representation import TABLES
from gateway.rcp import access
from gateway.rcp.access import Caller, CallerKind
from gateway.settings import Limits

__all__ = ["PARAMETERS", "AuditReads"]

Pair = tuple[str, str]

#: Parameter → its kind: what is searched here.
PARAMETERS: Mapping[str, str] = {
    "date": "date",
    "period-start": "date",
    "patient": "reference",
    "entity": "reference",
    "agent": "reference",
    "agent-name": "string",
    "type": "token",
    "subtype": "token",
    "action": "token",
    "outcome": "token",
    "_id": "token",
    "_lastUpdated": "date",
}
#: TdE prints the name of its parameter where its code is meant: both are taken.
_ALSO = {"TDE_AuditEvent_period-start": "period-start"}
_BOUNDS = frozenset({"date", "_lastUpdated"})
_CONTROLS = frozenset({"_count", "_sort", "_total", "_summary", "_format", "_pretty"})
_COUNT = 50
_PREFIX = re.compile(r"(eq|ne|ge|le|gt|lt|sa|eb)?(.+)")

# A line's payload is exact bytes, which its MAC covers.
_payload = cast(func.convert_from(AuditLine.payload, "UTF8"), JSONB)


@dataclass(slots=True)
class _Asked:
    where: list[ColumnElement[bool]] = field(default_factory=list)
    applied: list[Pair] = field(default_factory=list)
    warnings: list[Mapping[str, Any]] = field(default_factory=list)
    count: int = _COUNT
    bounded: bool = False
    counted: bool = False
    patients: list[uuid.UUID] = field(default_factory=list)


class AuditReads:
    """Reads of the trail.

    Parameters
    ----------
    source
        Where rows come from, and where reading the trail is told.
    pages
        The tokens of pages: the number of a line would tell how many others were written since another.
    until
        When the Bundle that this reads for must be done.
    """

    def __init__(
        self, source: Source, base_url: str, limits: Limits, pages: Pages, *, until: float | None = None
    ) -> None:
        self._source = source
        self._pages = pages
        self._base = base_url
        self._limits = limits
        self._until = until
        self._site = urlsplit(base_url).netloc

    def over(self, source: Source, *, until: float | None = None) -> AuditReads:
        """Read the same way out of another session, and until then."""
        return AuditReads(source, self._base, self._limits, self._pages, until=until)

    async def read(self, caller: Caller, identity: str) -> bytes:
        """Return one line.

        Raises
        ------
        NotFound
            ``inconnu``: there is none, or it names no patient of the caller's organisation.
        """
        await self._require_scope(caller, "r")
        key = _uuid(identity)
        rows = await self._source.fetch(_lines(caller).where(AuditLine.id == key)) if key is not None else ()
        if not rows:
            refusal = access.hidden(caller, "AuditEvent", identity)
            if isinstance(refusal.trail, AuditFacts):
                await self._source.record(refusal.trail)
            raise refusal
        shown = await self._shown(caller, rows)
        await self._tell(caller, (), 1, object_id=identity)
        return encode(self._tree(rows[0], shown))

    async def search(self, caller: Caller, pairs: Sequence[Pair], *, strict: bool = False) -> bytes:
        """Return a searchset, newest line first.

        Raises
        ------
        InvalidContent
            ``date-obligatoire``: no bound in time; ``parametre-inconnu``, ``parametre-valeur``,
            ``recherche-trop-couteuse``; see `gateway.fhir.paging.Pages.open`.
        """
        await self._require_scope(caller, "s")
        token, given, shared = split_page(pairs)
        mark = self._pages.open(token, "AuditEvent", given, whose=of(caller)) if token is not None else None
        asked = self._parse([*mark.pairs, *shared] if mark is not None else pairs, strict=strict)
        if not asked.bounded:
            text = "Une recherche dans la trace porte au moins une borne de date (« date=ge… », « date=le… »)."
            raise InvalidContent("date-obligatoire", text, expression="date")
        wanted = _lines(caller).where(*asked.where)
        budget = Budget(self._limits, self._until)
        total = None
        if asked.counted:
            rows = await self._fetch(select(func.count().label("n")).select_from(wanted.subquery()), budget)
            total = int(rows[0]["n"])
        paged = wanted.order_by(AuditLine.seq.desc()).limit(asked.count + 1)
        if mark is not None and mark.row is not None:
            paged = paged.where(AuditLine.seq < mark.row[1])
        rows = list(await self._fetch(paged, budget)) if asked.count else []
        page = rows[: asked.count]
        shown = await self._shown(caller, page) if page else frozenset()
        await self._tell(caller, asked.patients, len(page))
        said = tuple(pair for pair in asked.applied if pair not in shared)
        links = [("self", [*asked.applied, *([(PAGE, token)] if token is not None else [])])]
        if len(rows) > asked.count:
            place = Mark(path="AuditEvent", pairs=said, snapshot="", row=("", page[-1]["seq"]), whose=of(caller))
            links.append(("next", [(PAGE, self._pages.seal(place)), *shared]))
        return self._bundle(asked, page, shown, total, links)

    async def _fetch(self, statement: Any, budget: Budget) -> Sequence[Any]:
        try:
            return await self._source.fetch(statement, seconds=budget.left())
        except TimeoutError:
            raise budget.exceeded() from None

    async def _require_scope(self, caller: Caller, letter: str) -> None:
        try:
            require_scope(caller, "AuditEvent", letter)
        except Forbidden as refusal:
            if isinstance(refusal.trail, AuditFacts):
                await self._source.record(refusal.trail)
            raise

    async def _shown(self, caller: Caller, rows: Sequence[Any]) -> frozenset[str]:
        """Which of the persons of these lines are the caller's own patients."""
        named = sorted({key for row in rows for key in row["persons"]})
        table = TABLES["Patient"]
        statement = select(table.c.record_id).where(
            table.c.current, table.c.record_id == any_(literal(named, ARRAY(Uuid()))), _own(caller)
        )
        return frozenset(str(row["record_id"]) for row in await self._source.fetch(statement))

    async def _tell(
        self, caller: Caller, persons: Sequence[uuid.UUID], lines: int, *, object_id: str | None = None
    ) -> None:
        await self._source.record(
            access.facts(
                caller,
                "audit",
                persons=tuple(persons),
                object_type="AuditEvent",
                object_id=object_id,
                detail={"lignes": lines},
            )
        )

    def _tree(self, row: Any, shown: frozenset[str]) -> dict[str, Any]:
        return audit_event(msgspec.json.decode(row["payload"]), shown=shown, site=self._site)

    # What is asked

    def _parse(self, pairs: Sequence[Pair], *, strict: bool) -> _Asked:
        asked = _Asked()
        if len(pairs) > self._limits.search_parameters:
            text = f"Trop de paramètres : {len(pairs)}, {self._limits.told('search_parameters')}."
            raise InvalidContent("trop-de-parametres", text)
        for said, value in pairs:
            name, _, modifier = _ALSO.get(said, said).partition(":")
            if name in _CONTROLS:
                self._control(asked, name, value)
            elif name not in PARAMETERS or modifier not in _MODIFIERS.get(name, {""}):
                text = f"Paramètre de recherche inconnu : {said[:64]}."
                if strict or name in PARAMETERS:
                    raise InvalidContent("parametre-inconnu", text, expression=said[:64])
                asked.warnings.append(warning("parametre-inconnu", text, said[:64]))
                continue
            elif not value or "\x00" in value or len(value) > 500:
                raise _bad(said)
            else:
                parts = value.split(",")
                if len(parts) > self._limits.search_values:
                    text = f"Trop de valeurs : {len(parts)}, {self._limits.told('search_values')}."
                    raise InvalidContent("trop-de-valeurs", text, expression=said[:64])
                asked.where.append(or_(*(_CONDITIONS[name](asked, said, part) for part in parts)))
                asked.bounded = asked.bounded or name in _BOUNDS
            asked.applied.append((said, value))
        return asked

    def _control(self, asked: _Asked, name: str, value: str) -> None:
        if name == "_count":
            if not value.isascii() or not value.isdecimal() or len(value) > 18:
                raise _bad(name)
            asked.count = min(int(value), self._limits.search_page)
        elif name == "_sort" and value != "-date":
            text = "La trace se lit de la ligne la plus récente à la plus ancienne (« _sort=-date »)."
            raise InvalidContent("parametre-valeur", text, expression="_sort")
        elif name == "_total":
            asked.counted = asked.counted or value in {"accurate", "estimate"}
        elif name == "_summary" and value == "count":
            asked.counted, asked.count = True, 0

    def _bundle(
        self,
        asked: _Asked,
        page: Sequence[Any],
        shown: frozenset[str],
        total: int | None,
        links: Sequence[tuple[str, Sequence[Pair]]],
    ) -> bytes:
        head: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
        if total is not None:
            head["total"] = total
        head["link"] = [
            {"relation": relation, "url": f"{self._base}/AuditEvent?{urlencode(said)}"} for relation, said in links
        ]
        entries: list[dict[str, Any]] = [
            {
                "fullUrl": f"{self._base}/AuditEvent/{row['id']}",
                "resource": self._tree(row, shown),
                "search": {"mode": "match"},
            }
            for row in page
        ]
        if asked.warnings:
            told = {"resourceType": "OperationOutcome", "language": "fr", "issue": asked.warnings}
            entries.append({"resource": told, "search": {"mode": "outcome"}})
        if entries:
            head["entry"] = entries
        return encode(head)


def _own(caller: Caller) -> ColumnElement[bool]:
    """Predicate over the Patients whose lines the caller may read: those of his own organisation."""
    if caller.kind is CallerKind.SYSTEM:
        return TABLES["Patient"].c.record_id.is_not(None)
    if caller.kind is not CallerKind.CLIENT or caller.partner_id is None:
        return false()
    return TABLES["Patient"].c.partner_id == caller.partner_id


def _lines(caller: Caller) -> Any:
    """Lines that name a patient of the caller's; one that was deleted since is still his."""
    table = TABLES["Patient"]
    own = exists().where(table.c.record_id == any_(AuditLine.persons), table.c.current, _own(caller))
    return select(AuditLine.seq, AuditLine.id, AuditLine.persons, AuditLine.payload).where(own.correlate(AuditLine))


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _bad(name: str) -> InvalidContent:
    text = f"Valeur invalide pour le paramètre « {name[:64]} »."
    return InvalidContent("parametre-valeur", text, expression=name[:64])


# One condition a parameter: what was asked so far, its name as said, one of its values.


def _date(column: Any) -> Callable[[_Asked, str, str], ColumnElement[bool]]:
    def condition(_asked: _Asked, name: str, value: str) -> ColumnElement[bool]:
        found = _PREFIX.fullmatch(value)
        if found is None:
            raise _bad(name)
        try:
            low, high = date_interval(found.group(2))
        except (ValueError, OverflowError, InvalidContent):
            raise _bad(name) from None
        match found.group(1) or "eq":
            case "eq":
                return and_(column >= low, column < high)
            case "ne":
                return or_(column < low, column >= high)
            case "ge":
                return column >= low  # type: ignore[no-any-return]  # a comparison of columns
            case "gt" | "sa":
                return column >= high  # type: ignore[no-any-return]  # a comparison of columns
            case "le":
                return column < high  # type: ignore[no-any-return]  # a comparison of columns
            case _:
                return column < low  # type: ignore[no-any-return]  # a comparison of columns

    return condition


def _person(asked: _Asked, name: str, value: str) -> ColumnElement[bool]:
    del name
    key = _uuid(value.removeprefix("Patient/"))
    if key is None:
        return false()
    asked.patients.append(key)
    return AuditLine.persons.contains(cast(literal([key], ARRAY(Uuid())), ARRAY(Uuid())))


def _entity(asked: _Asked, name: str, value: str) -> ColumnElement[bool]:
    kind, slash, key = value.partition("/")
    if not slash or kind not in TABLES:
        raise _bad(name)
    if kind == "Patient":
        return _person(asked, name, value)
    concerned = and_(_text("object_type") == kind, _text("object_id") == key.partition("/")[0])
    dossier = _uuid(key) if kind in {"ServiceRequest", "Task", "Encounter"} else None
    return or_(concerned, AuditLine.dossier == dossier) if dossier is not None else concerned


def _agent(_asked: _Asked, name: str, value: str) -> ColumnElement[bool]:
    if name.endswith(":identifier"):
        return AuditLine.actor_id == value.rpartition("|")[2]
    key = _uuid(value.removeprefix("Practitioner/"))
    if key is None:
        return false()
    number = select(Practitioner.idnps).where(Practitioner.id == key).scalar_subquery()
    return AuditLine.actor_id == number


def _text(name: str) -> ColumnElement[str]:
    return _payload.op("->>")(literal(name, Text()))


def _name(_asked: _Asked, _said: str, value: str) -> ColumnElement[bool]:
    return func.strpos(func.lower(_text("actor_name")), value.lower()) > 0


def _token(name: str) -> Callable[[_Asked, str, str], ColumnElement[bool]]:
    def condition(_asked: _Asked, _said: str, value: str) -> ColumnElement[bool]:
        return _text(name) == value.rpartition("|")[2]

    return condition


def _coded(element: str) -> Callable[[_Asked, str, str], ColumnElement[bool]]:
    def condition(_asked: _Asked, _said: str, value: str) -> ColumnElement[bool]:
        system, bar, code = value.rpartition("|")
        events = events_of(element, system if bar else None, code or None)
        named = AuditLine.event == any_(literal(events, ARRAY(Text())))
        if element == "type" or (bar and system != "http://hl7.org/fhir/restful-interaction"):
            return named
        letter = {"create": "C", "read": "R", "update": "U", "delete": "D", "operation": "E"}.get(code)
        unsaid = AuditLine.event == any_(literal(["modification", "systeme", "refus"], ARRAY(Text())))
        return or_(named, and_(unsaid, _text("action") == letter)) if letter else named

    return condition


def _outcome(_asked: _Asked, _said: str, value: str) -> ColumnElement[bool]:
    return AuditLine.outcome == value.rpartition("|")[2]


def _id(_asked: _Asked, _said: str, value: str) -> ColumnElement[bool]:
    key = _uuid(value)
    return AuditLine.id == key if key is not None else false()


_happened = func.coalesce(cast(_text("happened"), DateTime(timezone=True)), AuditLine.recorded)
_CONDITIONS: Mapping[str, Callable[[_Asked, str, str], ColumnElement[bool]]] = {
    "date": _date(AuditLine.recorded),
    "_lastUpdated": _date(AuditLine.recorded),
    "period-start": _date(_happened),
    "patient": _person,
    "entity": _entity,
    "agent": _agent,
    "agent-name": _name,
    "type": _coded("type"),
    "subtype": _coded("subtype"),
    "action": _token("action"),
    "outcome": _outcome,
    "_id": _id,
}
_MODIFIERS: Mapping[str, frozenset[str]] = {"agent": frozenset({"", "identifier"})}
