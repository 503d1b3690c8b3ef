"""The predicates of R4's invariants, by key [FHIR R4 conformance-rules#constraints].

Each says of one object, whose structure is sound, whether a rule holds; `gateway.fhir.invariants` says where each is
asked. A contract test holds every one against the FHIRPath expression that R4 gives it, read by HL7's own engine.

Promises: none raises on sound structure; what cannot be known (two dates of different precision, quantities of
different units) holds. Not promised: anything about objects that `gateway.fhir.structure` refuses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from gateway.fhir.narrative import reading
from gateway.fhir.structure import Scope

__all__ = ["HOLDS", "Holds", "exists"]

Node = Mapping[str, Any]
Holds = Callable[[Any, Scope], bool]


def exists(node: Node, *names: str) -> bool:
    """Whether one of the elements exists; a primitive may exist by its extensions alone."""
    return any(name in node or f"_{name}" in node for name in names)


def _choice(node: Node, stem: str) -> bool:
    """Whether a choice has a value: ``value[x]``."""
    starts = (stem, f"_{stem}")
    for key in node:  # noqa: SIM110 - a generator would cost twice the loop
        if key.startswith(starts) and key[len(stem) + (key[0] == "_") :][:1].isupper():
            return True
    return False


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every object below a node, and itself."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if type(one) is dict:
            yield one
            waiting.extend(one.values())
        elif type(one) is list:
            waiting.extend(one)


def _distinct(values: list[Any]) -> bool:
    return len(values) == len(set(values))


def _says(concept: Any, system: str, *codes: str) -> bool:
    """Whether a CodeableConcept has a coding of one of these codes."""
    return any(
        coding.get("system") == system and coding.get("code") in codes for coding in (concept or {}).get("coding", ())
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


# Dates


def _not_after(one: Any, other: Any) -> bool:
    """Whether the first moment may be at or before the second; text order as far as both are precise."""
    if not isinstance(one, str) or not isinstance(other, str) or one == other:
        return True
    if "T" in one and "T" in other:
        try:
            # Fractions beyond the microsecond are cut by the reader: what differs there is taken as the same.
            return datetime.fromisoformat(one) <= datetime.fromisoformat(other)
        except ValueError:  # a leap second
            return True
    shared = min(len(one), len(other), 10)
    return one[:shared] <= other[:shared]


# DomainResource


def _uncontained(node: Node, name: str) -> bool:
    return not any(exists(one, name) for one in node.get("contained", ()))


def _contained_bare(node: Node, *names: str) -> bool:
    return not any(exists(one.get("meta", {}), *names) for one in node.get("contained", ()))


def _contained_used(node: Node, _: Scope) -> bool:
    inside = node.get("contained")
    if inside is None:
        return True
    named = {
        value
        for one in _nodes(node)
        for name, values in one.items()
        if name not in {"div", "contained"}
        for value in (values if type(values) is list else (values,))
        if type(value) is str and value.startswith("#")
    }
    return all("id" not in one or f"#{one['id']}" in named or _refers_to_container(one) for one in inside)


def _refers_to_container(node: Node) -> bool:
    return any(value == "#" for one in _nodes(node) for value in one.values() if type(value) is str)


# Quantities and other data types

_UCUM = "http://unitsofmeasure.org"


def _ucum(node: Node) -> bool:
    """Part that Age, Count and Distance share: a value has a code, the system is UCUM."""
    return ("code" in node or not exists(node, "value")) and node.get("system", _UCUM) == _UCUM


def _whole(value: Any) -> bool:
    return not isinstance(value, Decimal) or "." not in str(value)


def _in_order(low: Any, high: Any) -> bool:
    """Whether low may be at most high; only the same units compare."""
    if low is None or high is None:
        return True
    one, other = low.get("value"), high.get("value")
    if not _number(one) or not _number(other):
        return True
    same = "code" in low and all(low.get(name) == high.get(name) for name in ("system", "code"))
    return not same or bool(one <= other)


def _internal(node: Node, scope: Scope) -> bool:
    reference = node.get("reference")
    return type(reference) is not str or reference[:1] != "#" or reference[1:] in scope.contained or len(reference) == 1


_MEALS = frozenset({"C", "CM", "CD", "CV"})


def _offset(node: Node) -> bool:
    return not exists(node, "offset") or (exists(node, "when") and not _MEALS.intersection(node.get("when", ())))


def _trigger(node: Node) -> bool:
    kind = node.get("type", "")
    return (
        (kind != "named-event" or exists(node, "name"))
        and (kind != "periodic" or _choice(node, "timing"))
        and (not kind.startswith("data-") or "data" in node)
    )


def _ratio(node: Node) -> bool:
    return ("numerator" in node) == ("denominator" in node) and ("numerator" in node or "extension" in node)


# Resources


def _link_ids(node: Node) -> bool:
    return _distinct([one["linkId"] for one in _nodes(node) if type(one.get("linkId")) is str])


_WITH_OPTIONS = frozenset(
    {"choice", "open-choice", "decimal", "integer", "date", "dateTime", "time", "string", "quantity"}
)
_WITH_LENGTH = frozenset({"boolean", "decimal", "integer", "string", "text", "url", "open-choice"})


def _children_fit(node: Node) -> bool:
    kind, held = node.get("type"), "item" in node
    return (kind != "group" or held) and (kind != "display" or not held)


_CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"


def _components_differ(node: Node) -> bool:
    if not _choice(node, "value"):
        return True
    own = node.get("code", {}).get("coding", ())
    return not any(
        coding in own for part in node.get("component", ()) for coding in part.get("code", {}).get("coding", ())
    )


def _delegate(node: Node, scope: Scope) -> bool:
    if "onBehalfOf" not in node:
        return True
    reference = node.get("member", {}).get("reference", "")
    kind = scope.contained.get(reference[1:]) if reference.startswith("#") else None
    return kind in {None, "Practitioner"}


def _privacy(code: str) -> Holds:
    return lambda node, _: "patient" in node or not _says(node.get("scope"), "something", code)


def _entries(node: Node) -> list[Any]:
    listed: list[Any] = node.get("entry", [])
    return listed


def _entries_have(node: Node, name: str, kinds: frozenset[str]) -> bool:
    due = node.get("type") in kinds
    return all((name in entry) == due for entry in _entries(node))


def _urls_differ(node: Node) -> bool:
    return node.get("type") == "history" or _distinct(
        [
            f"{entry['fullUrl']}{entry.get('resource', {}).get('meta', {}).get('versionId', '')}"
            for entry in _entries(node)
            if "fullUrl" in entry
        ]
    )


def _first_is(node: Node, kind: str) -> bool:
    entries = _entries(node)
    return bool(entries) and entries[0].get("resource", {}).get("resourceType") == kind


def _unless(kind: str, holds: Callable[[Node], bool]) -> Holds:
    """``type = kind implies …`` of a Bundle."""
    return lambda node, _: node.get("type") != kind or holds(node)


def _name_for_programs(node: Node, _: Scope) -> bool:
    name = node.get("name")
    return name is None or re.fullmatch(r"[A-Z]([A-Za-z0-9_]){0,254}", name) is not None


_REQUESTS = frozenset({"batch", "transaction", "history"})
_RESPONSES = frozenset({"batch-response", "transaction-response", "history"})

#: key (with the type where R4 uses a key twice) → predicate
HOLDS: Mapping[str, Holds] = {
    "dom-2": lambda n, _: "contained" not in n or _uncontained(n, "contained"),
    "dom-3": _contained_used,
    "dom-4": lambda n, _: "contained" not in n or _contained_bare(n, "versionId", "lastUpdated"),
    "dom-5": lambda n, _: "contained" not in n or _contained_bare(n, "security"),
    "dom-6": lambda n, _: "text" in n,
    "ele-1": lambda n, _: len(n) > 1 or "id" not in n,
    "ext-1": lambda n, _: ("extension" in n) != _choice(n, "value"),
    "sqty-1": lambda n, _: not exists(n, "comparator"),
    "pat-1": lambda n, _: exists(n, "name", "telecom", "address", "organization"),
    "org-1": lambda n, _: exists(n, "identifier", "name"),
    "org-2": lambda n, _: n.get("use") != "home",
    "org-3": lambda n, _: n.get("use") != "home",
    "app-1": lambda n, _: "type" in n or "actor" in n,
    "app-2": lambda n, _: exists(n, "start") == exists(n, "end"),
    "app-3": lambda n, _: (
        (exists(n, "start") and exists(n, "end")) or n.get("status") in {"proposed", "cancelled", "waitlist"}
    ),
    "app-4": lambda n, _: "cancelationReason" not in n or n.get("status") in {"noshow", "cancelled"},
    "prr-1": lambda n, _: "orderDetail" not in n or "code" in n,
    "inv-1 Task": lambda n, _: _not_after(n.get("authoredOn"), n.get("lastModified")),
    "que-0": _name_for_programs,
    "que-1": lambda n, _: _children_fit(n),
    "que-2": lambda n, _: _link_ids(n),
    "que-3": lambda n, _: n.get("type") != "display" or "code" not in n,
    "que-4": lambda n, _: "answerOption" not in n or not exists(n, "answerValueSet"),
    "que-5": lambda n, _: n.get("type") in _WITH_OPTIONS or not ("answerOption" in n or exists(n, "answerValueSet")),
    "que-6": lambda n, _: n.get("type") != "display" or not exists(n, "required", "repeats"),
    "que-7": lambda n, _: n.get("operator") != "exists" or "answerBoolean" in n,
    "que-8": lambda n, _: n.get("type") not in {"group", "display"} or "initial" not in n,
    "que-9": lambda n, _: n.get("type") != "display" or not exists(n, "readOnly"),
    "que-10": lambda n, _: n.get("type") in _WITH_LENGTH or not exists(n, "maxLength"),
    "que-11": lambda n, _: "answerOption" not in n or "initial" not in n,
    "que-12": lambda n, _: len(n.get("enableWhen", ())) <= 2 or exists(n, "enableBehavior"),
    "que-13": lambda n, _: n.get("repeats") is True or len(n.get("initial", ())) <= 1,
    "qrs-1": lambda n, _: not ("answer" in n and "item" in n),
    "cmp-1": lambda n, _: "text" in n or "entry" in n or "section" in n,
    "cmp-2": lambda n, _: "emptyReason" not in n or "entry" not in n,
    "con-1": lambda n, _: "summary" in n or "assessment" in n,
    "con-2": lambda n, _: "code" in n or "detail" in n,
    "con-3": lambda n, _: (
        "clinicalStatus" in n
        or _says(n.get("verificationStatus"), _VERIFICATION, "entered-in-error")
        or "category" not in n
    ),
    "con-4": lambda n, _: (
        not _choice(n, "abatement") or _says(n.get("clinicalStatus"), _CLINICAL, "resolved", "remission", "inactive")
    ),
    "con-5": lambda n, _: (
        not _says(n.get("verificationStatus"), _VERIFICATION, "entered-in-error") or "clinicalStatus" not in n
    ),
    "obs-3": lambda n, _: "low" in n or "high" in n or exists(n, "text"),
    "obs-6": lambda n, _: "dataAbsentReason" not in n or not _choice(n, "value"),
    "obs-7": lambda n, _: "component" not in n or _components_differ(n),
    "ctm-1": _delegate,
    "ppc-1": lambda n, _: "policy" in n or "policyRule" in n,
    "ppc-2": _privacy("patient-privacy"),
    "ppc-3": _privacy("research"),
    "ppc-4": _privacy("adr"),
    "ppc-5": _privacy("treatment"),
    "cpl-3": lambda n, _: "detail" not in n or "reference" not in n,
    "sev-1": lambda n, _: not exists(n, "name") or not exists(n, "query"),
    "lst-1": lambda n, _: "emptyReason" not in n or "entry" not in n,
    "lst-2": lambda n, _: n.get("mode") == "changes" or not any(exists(one, "deleted") for one in _entries(n)),
    "lst-3": lambda n, _: n.get("mode") == "working" or not any(exists(one, "date") for one in _entries(n)),
    "grp-1": lambda n, _: "member" not in n or n.get("actual") is True,
    "bdl-1": lambda n, _: not exists(n, "total") or n.get("type") in {"searchset", "history"},
    "bdl-2": lambda n, _: n.get("type") == "searchset" or not any("search" in one for one in _entries(n)),
    "bdl-3": lambda n, _: _entries_have(n, "request", _REQUESTS),
    "bdl-4": lambda n, _: _entries_have(n, "response", _RESPONSES),
    "bdl-5": lambda n, _: "resource" in n or "request" in n or "response" in n,
    "bdl-7": lambda n, _: _urls_differ(n),
    "bdl-8": lambda n, _: "/_history/" not in n.get("fullUrl", ""),
    "bdl-9": _unless("document", lambda n: all(exists(n.get("identifier", {}), one) for one in ("system", "value"))),
    "bdl-10": _unless("document", lambda n: "timestamp" in n),
    "bdl-11": _unless("document", lambda n: _first_is(n, "Composition")),
    "bdl-12": _unless("message", lambda n: _first_is(n, "MessageHeader")),
    "cpb-0": _name_for_programs,
    "cpb-1": lambda n, _: "rest" in n or "messaging" in n or "document" in n,
    "cpb-2": lambda n, _: exists(n, "description") or "software" in n or "implementation" in n,
    "cpb-3": lambda n, _: n.get("kind") == "instance" or not any("endpoint" in one for one in n.get("messaging", ())),
    "cpb-7": lambda n, _: _distinct([(one.get("profile"), one.get("mode")) for one in n.get("document", ())]),
    "cpb-9": lambda n, _: _distinct([one.get("type") for one in n.get("resource", ())]),
    "cpb-12": lambda n, _: _distinct([one.get("name") for one in n.get("searchParam", ())]),
    "cpb-14": lambda n, _: n.get("kind") != "instance" or "implementation" in n,
    "cpb-15": lambda n, _: n.get("kind") != "capability" or ("implementation" not in n and "software" in n),
    "cpb-16": lambda n, _: n.get("kind") != "requirements" or not ("implementation" in n or "software" in n),
    "inv-1 Parameters": lambda n, _: ("part" in n) + _choice(n, "value") + ("resource" in n) == 1,
    "age-1": lambda n, _: _ucum(n) and not (_number(n.get("value")) and n["value"] <= 0),
    "att-1": lambda n, _: not exists(n, "data") or exists(n, "contentType"),
    "cnt-3": lambda n, _: _ucum(n) and n.get("code", "1") == "1" and _whole(n.get("value")),
    "cpt-2": lambda n, _: not exists(n, "value") or exists(n, "system"),
    "dis-1": lambda n, _: _ucum(n),
    "drq-1": lambda n, _: exists(n, "path") != exists(n, "searchParam"),
    "drq-2": lambda n, _: exists(n, "path") != exists(n, "searchParam"),
    "drt-1": lambda n, _: not exists(n, "code") or (n.get("system") == _UCUM and exists(n, "value")),
    "exp-1": lambda n, _: exists(n, "expression", "reference"),
    "per-1": lambda n, _: _not_after(n.get("start"), n.get("end")),
    "qty-3": lambda n, _: "code" not in n or exists(n, "system"),
    "rat-1": lambda n, _: _ratio(n),
    "ref-1": _internal,
    "rng-2": lambda n, _: _in_order(n.get("low"), n.get("high")),
    "tim-1": lambda n, _: not exists(n, "duration") or exists(n, "durationUnit"),
    "tim-2": lambda n, _: not exists(n, "period") or exists(n, "periodUnit"),
    "tim-4": lambda n, _: not _number(n.get("duration")) or n["duration"] >= 0,
    "tim-5": lambda n, _: not _number(n.get("period")) or n["period"] >= 0,
    "tim-6": lambda n, _: not exists(n, "periodMax") or exists(n, "period"),
    "tim-7": lambda n, _: not exists(n, "durationMax") or exists(n, "duration"),
    "tim-8": lambda n, _: not exists(n, "countMax") or exists(n, "count"),
    "tim-9": lambda n, _: _offset(n),
    "tim-10": lambda n, _: not exists(n, "timeOfDay") or not exists(n, "when"),
    "trd-1": lambda n, _: "data" not in n or not _choice(n, "timing"),
    "trd-2": lambda n, _: "condition" not in n or "data" in n,
    "trd-3": lambda n, _: _trigger(n),
    "txt-1": lambda value, _: type(value) is not str or reading(value)[0],
    "txt-2": lambda value, _: type(value) is not str or reading(value)[1],
}
