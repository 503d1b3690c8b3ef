"""What a subscriber is sent: a Bundle of type history whose first entry says what it is.

[HL7 subscriptions-backport 1.1 notifications, R4; spec fhir-fr 1.26, example Bundle-notification-r4]

Promises: pure; ``empty`` names nothing, ``id-only`` the address of what an event is about, ``full-resource`` its
content too. Not promised: that the reader may see it (`gateway.fhir.subscribers`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gateway.fhir import document, xml_write
from gateway.fhir.document import Tree

__all__ = ["FULL_BYTES", "XML", "Told", "bundle", "status_bundle", "written"]

#: A resource above this goes by its address only, also where the content was asked for.
FULL_BYTES: Final = 1 << 20
XML: Final = "application/fhir+xml"
_PROFILE = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One event.

    Parameters
    ----------
    focus
        ``Type/id`` of what it is about; `None` where the reader may not know.
    body
        Stored bytes of its resource, where they are sent too.
    """

    number: int
    at: datetime
    focus: str | None = None
    body: bytes | None = None


def bundle(
    kind: str,
    *,
    base: str,
    subscription: str,
    topic: str,
    status: str,
    events: int,
    at: datetime,
    told: Sequence[Told] = (),
) -> Tree:
    """Make a notification, or the answer to ``$events``.

    Parameters
    ----------
    kind
        ``handshake``, ``heartbeat``, ``event-notification``, ``query-event``.
    base
        Our FHIR base.
    subscription
        Logical id.
    events
        How many events the subscription has had.
    """
    said = _status(kind, base, subscription, topic, status, events, told)
    first = {
        "fullUrl": f"urn:uuid:{said['id']}",
        "resource": said,
        "request": {"method": "GET", "url": f"{base}/Subscription/{subscription}/$status"},
        "response": {"status": "200"},
    }
    entries = {one.focus: one for one in told if one.focus is not None}
    return {
        "resourceType": "Bundle",
        "id": str(uuid.uuid4()),
        "meta": {"profile": [f"{_PROFILE}/backport-subscription-notification-r4"]},
        "type": "history",
        "timestamp": document.instant(at),
        "entry": [first, *(_entry(base, focus, one.body) for focus, one in entries.items())],
    }


def status_bundle(base: str, subscription: str, topic: str, status: str, events: int, at: datetime) -> Tree:
    """Make the answer to ``$status``."""
    said = _status("query-status", base, subscription, topic, status, events, ())
    return {
        "resourceType": "Bundle",
        "id": str(uuid.uuid4()),
        "type": "searchset",
        "timestamp": document.instant(at),
        "total": 1,
        "entry": [{"fullUrl": f"urn:uuid:{said['id']}", "resource": said, "search": {"mode": "match"}}],
    }


def written(tree: Tree, media: str) -> bytes:
    """Write a notification in the form that its subscriber takes."""
    return xml_write.encode(tree) if media == XML else document.encode(tree)


def _status(
    kind: str, base: str, subscription: str, topic: str, status: str, events: int, told: Sequence[Told]
) -> Tree:
    parameters: list[dict[str, Any]] = [
        {"name": "subscription", "valueReference": {"reference": f"{base}/Subscription/{subscription}"}},
        {"name": "topic", "valueCanonical": topic},
        {"name": "status", "valueCode": status},
        {"name": "type", "valueCode": kind},
        {"name": "events-since-subscription-start", "valueString": str(events)},
    ]
    for one in told:
        part: list[dict[str, Any]] = [
            {"name": "event-number", "valueString": str(one.number)},
            {"name": "timestamp", "valueInstant": document.instant(one.at)},
        ]
        if one.focus is not None:
            part.append({"name": "focus", "valueReference": {"reference": f"{base}/{one.focus}"}})
        parameters.append({"name": "notification-event", "part": part})
    return {
        "resourceType": "Parameters",
        "id": str(uuid.uuid4()),
        "meta": {"profile": [f"{_PROFILE}/backport-subscription-status-r4"]},
        "parameter": parameters,
    }


def _entry(base: str, focus: str, body: bytes | None) -> Tree:
    entry: Tree = {"fullUrl": f"{base}/{focus}"}
    if body is not None and len(body) <= FULL_BYTES:
        entry["resource"] = document.decode(body)
    return {**entry, "request": {"method": "PUT", "url": focus}, "response": {"status": "200"}}
