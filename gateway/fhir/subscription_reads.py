"""What a subscriber asks instead of waiting: where his subscription stands, and the events that he missed.

[HL7 subscriptions-backport 1.1: $status, $events; spec fhir-fr 3.8]

Promises: the events of one subscription in their order, none twice; of what the caller may not read (any more) he is
told that something happened and not what; numbers are given one after the other, each committed before the next is
given, so that no reader sees a later one first. Not promised: more than `EVENTS_MAX` at once; he asks again from the
last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Text, any_, literal, not_, select
from sqlalchemy.dialects.postgresql import ARRAY

from gateway.errors import InvalidContent
from gateway.fhir import notification
from gateway.fhir.auth_scopes import permits
from gateway.fhir.document import Tree, decode, encode
from gateway.fhir.notification import Told
from gateway.fhir.reading import Reading
from gateway.fhir.search_conditions import bad_value, printable
from gateway.fhir.topics import TOPICS
from gateway.model.representation import TABLES
from gateway.model.store import utcnow
from gateway.model.subscription import Subscription, SubscriptionEvent
from gateway.rcp import access
from gateway.rcp.access import Caller

__all__ = ["EVENTS_MAX", "events", "parameters", "status"]

EVENTS_MAX: Final = 100
_FORMS: Final = frozenset({"_format", "_pretty"})
_SINCE, _UNTIL, _CONTENT = "eventsSinceNumber", "eventsUntilNumber", "content"
_CONTENTS: Final = ("empty", "id-only", "full-resource")


def parameters(body: Tree | None) -> list[tuple[str, str]]:
    """Names and values of an operation that is asked by POST.

    Raises
    ------
    InvalidContent
        ``parametres-attendus``: the body is no Parameters of simple values.
    """
    if body is None:
        return []
    listed = body.get("parameter", [])
    found = []
    if body.get("resourceType") == "Parameters" and isinstance(listed, list):
        for one in listed:
            named = [value for name, value in one.items() if name.startswith("value")] if isinstance(one, dict) else []
            if len(named) == 1 and isinstance(one.get("name"), str) and type(named[0]) in {str, int}:
                found.append((one["name"], str(named[0])))
    if body.get("resourceType") != "Parameters" or not isinstance(listed, list) or len(found) != len(listed):
        text = "Une ressource Parameters de valeurs simples est attendue."
        raise InvalidContent("parametres-attendus", text, expression="Parameters.parameter")
    return found


async def status(into: Reading, row: Any, pairs: Sequence[tuple[str, str]]) -> bytes:
    """Answer ``$status`` of a Subscription that the caller may read.

    Raises
    ------
    InvalidContent
        ``parametre-inconnu``: it takes none.
    """
    _require_known(pairs, frozenset())
    said, standing = decode(row["body"]), await _standing(into, row["id"])
    topic = standing["topic"] if standing is not None else str(said["criteria"])
    count = standing["events"] if standing is not None else 0
    return encode(notification.status_bundle(into.base, row["id"], topic, said["status"], count, utcnow()))


async def events(into: Reading, caller: Caller, row: Any, pairs: Sequence[tuple[str, str]]) -> bytes:
    """Answer ``$events`` of a Subscription that the caller may read.

    Raises
    ------
    InvalidContent
        ``parametre-inconnu``, ``parametre-valeur``.
    """
    asked = _require_known(pairs, frozenset({_SINCE, _UNTIL, _CONTENT}))
    since, until = _number(asked, _SINCE), _number(asked, _UNTIL)
    said, standing = decode(row["body"]), await _standing(into, row["id"])
    if standing is None:
        topic, count, found, content = str(said["criteria"]), 0, [], "empty"
    else:
        topic, count, content = standing["topic"], standing["events"], asked.get(_CONTENT, standing["content"])
        if content not in _CONTENTS:
            raise bad_value(_CONTENT)
        of = SubscriptionEvent
        wanted = [of.subscription_id == standing["id"], of.number >= (since or 1)]
        if until is not None:
            wanted.append(of.number <= until)
        statement = select(of.number, of.at, of.focus_id).where(*wanted).order_by(of.number).limit(EVENTS_MAX)
        found = list(await into.source.fetch(statement))
    told = await _told(into, caller, topic, found, content) if found else []
    tree = notification.bundle(
        "query-event",
        base=into.base,
        subscription=row["id"],
        topic=topic,
        status=said["status"],
        events=count,
        at=utcnow(),
        told=told,
    )
    return encode(tree)


async def _standing(into: Reading, resource_id: str) -> Any | None:
    of = Subscription
    statement = select(of.id, of.topic, of.events, of.content).where(of.resource_id == resource_id)
    rows = await into.source.fetch(statement)
    return rows[0] if rows else None


async def _told(into: Reading, caller: Caller, topic: str, found: Sequence[Any], content: str) -> list[Told]:
    kind = TOPICS[topic].kind
    table = TABLES[kind]
    seen: Mapping[str, Any] = {}
    if content != "empty" and permits(caller, kind, "r"):
        ids = sorted({one["focus_id"] for one in found})
        statement = select(table.c.id, table.c.body, table.c.version, table.c.record_id, table.c.dossier_id).where(
            table.c.id == any_(literal(ids, ARRAY(Text()))),
            table.c.current,
            not_(table.c.deleted),
            access.representations(caller, table),
        )
        seen = {row["id"]: row for row in await into.source.fetch(statement)}
    shown = content == "full-resource"
    if shown and seen:
        await into.source.record(
            access.facts(
                caller,
                "consultation",
                persons=tuple(sorted({row["record_id"] for row in seen.values() if row["record_id"] is not None})),
                object_type=kind,
                detail={"service": "$events", "resources": sorted(seen)},
            )
        )
    return [
        Told(
            number=one["number"],
            at=one["at"],
            focus=f"{kind}/{one['focus_id']}" if one["focus_id"] in seen else None,
            body=bytes(seen[one["focus_id"]]["body"]) if shown and one["focus_id"] in seen else None,
        )
        for one in found
    ]


def _require_known(pairs: Sequence[tuple[str, str]], known: frozenset[str]) -> dict[str, str]:
    asked: dict[str, str] = {}
    for name, value in pairs:
        if name in _FORMS:
            continue
        if name not in known or name in asked:
            text = f"Paramètre inconnu, ou donné deux fois : « {printable(name)} »."
            raise InvalidContent("parametre-inconnu", text)
        asked[name] = value
    return asked


def _number(asked: Mapping[str, str], name: str) -> int | None:
    said = asked.get(name)
    if said is None:
        return None
    if not (said.isascii() and said.isdecimal()) or len(said) > 18:
        raise bad_value(name)
    return int(said)
