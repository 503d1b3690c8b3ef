"""Parts of a resource: ``_summary`` and ``_elements`` [FHIR R4 search#summary, #elements].

What belongs to a summary is R4's own ``isSummary`` (`gateway.fhir.elements`).

Promises: what is kept is kept to the byte (values are cut out, never written again); what must be there stays, and so
does what may turn a meaning round (``modifierExtension``, ``implicitRules``); a part says that it is one
(``SUBSETTED``).
Not promised: a part that holds what its local references (``#…``) point to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

import msgspec

from gateway.errors import InvalidContent
from gateway.fhir.document import encode
from gateway.fhir.elements import Element, shapes

__all__ = ["SUMMARIES", "WHOLE", "Form", "form"]

#: What ``_summary`` takes [FHIR R4 valueset-summary].
SUMMARIES: tuple[str, ...] = ("true", "text", "data", "count", "false")

_ALWAYS = frozenset({"resourceType", "id", "meta"})
_TURNS = frozenset({"modifierExtension", "implicitRules"})
_TAG = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
#: Data types that no summary looks into.
_WHOLE = frozenset({"Extension", "Meta", "Narrative", "Resource"})
_BESIDE = frozenset({"id", "extension"})
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(slots=True)
class _Kept:
    """What is kept below one object: these names, or all but some; `None` below a name keeps its value whole."""

    names: dict[str, _Kept | None] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    others: bool = False

    def keeps(self, name: str) -> bool:
        """Whether a JSON name stays; what stands beside a primitive goes with it."""
        stem = name.removeprefix("_")
        return stem in self.names or (self.others and stem not in self.without)


@cache
def _required(kind: str) -> frozenset[str]:
    """First-level names that must be there, each name of a choice."""
    return frozenset(name for _, names in shapes()[kind].required for name in names)


@cache
def _summary(path: str) -> _Kept:
    """What a summary keeps of a resource, or of a part of one that has elements of its own."""
    kept = _Kept(dict.fromkeys(_ALWAYS) if shapes()[path].resource else {})
    for element in shapes()[path].elements:
        # A summary may not lose what says that nothing else counts, nor what the schema asks for.
        if element.summary or element.modifier or element.required:
            kept.names[element.name] = _below(element)
    return kept


def _below(element: Element) -> _Kept | None:
    if element.below is None or element.type in _WHOLE:
        return None
    if element.type == "BackboneElement":
        return _summary(element.below)
    return _data_type(element.below)


@cache
def _data_type(path: str) -> _Kept | None:
    """What a summary leaves out of a data type: few hold more than a summary does (the bytes of an Attachment)."""
    without = frozenset(
        element.name for element in shapes()[path].elements if not element.summary and element.name not in _BESIDE
    )
    return _Kept(without=without, others=True) if without else None


@dataclass(frozen=True, slots=True)
class Form:
    """How much of each resource is wanted.

    Attributes
    ----------
    summary
        One of `SUMMARIES`.
    elements
        First-level names by type; under ``""`` those asked for without a type, which cut what was searched, not what is
        included with it.
    """

    summary: str = "false"
    elements: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether resources leave as they are stored."""
        return self.summary in {"false", "count"} and not self.elements

    def cut(self, kind: str, body: bytes, *, included: bool = False) -> msgspec.Raw:
        """Keep of a resource what is wanted, and say so in it."""
        if self.whole or kind not in shapes():
            return msgspec.Raw(body)
        if self.elements:
            names = self.elements.get(kind, frozenset()) | (
                frozenset() if included else self.elements.get("", frozenset())
            )
            if not names:
                return msgspec.Raw(body)
            kept = _Kept(dict.fromkeys(_ALWAYS | _TURNS | names | _required(kind)))
        elif self.summary == "true":
            kept = _summary(kind)
        elif self.summary == "text":
            kept = _Kept(dict.fromkeys(_ALWAYS | {"text"} | _required(kind)))
        else:
            kept = _Kept(without=frozenset({"text"}), others=True)
        tree = _object(msgspec.Raw(body), kept)
        meta = _OBJECT.decode(tree.get("meta", b"{}"))
        tags = _LIST.decode(meta.get("tag", b"[]"))
        meta["tag"] = msgspec.Raw(encode([*tags, _TAG]))
        tree["meta"] = msgspec.Raw(encode(meta))
        return msgspec.Raw(encode(tree))


#: The form of who asks for nothing.
WHOLE = Form()


def _object(raw: msgspec.Raw, kept: _Kept) -> dict[str, msgspec.Raw]:
    tree = _OBJECT.decode(raw)
    return {name: _value(value, kept.names.get(name)) for name, value in tree.items() if kept.keeps(name)}


def _value(raw: msgspec.Raw, kept: _Kept | None) -> msgspec.Raw:
    if kept is None:
        return raw
    if bytes(memoryview(raw)[:1]) == b"[":
        return msgspec.Raw(encode([_value(item, kept) for item in _LIST.decode(raw)]))
    if bytes(memoryview(raw)[:1]) != b"{":
        return raw
    return msgspec.Raw(encode(_object(raw, kept)))


def form(pairs: Iterable[tuple[str, str]]) -> Form:
    """Read ``_summary`` and ``_elements`` among the parameters of a request; the last of each counts.

    Raises
    ------
    InvalidContent
        ``parametre-valeur``, ``parametres-incompatibles``.
    """
    summary, elements = "false", ""
    for name, value in pairs:
        if name == "_summary" and value:
            summary = value
        elif name == "_elements" and value:
            elements = value
    if summary not in SUMMARIES:
        text = f"Valeur invalide pour le paramètre « _summary » ; sont offerts : {', '.join(SUMMARIES)}."
        raise InvalidContent("parametre-valeur", text)
    asked: dict[str, set[str]] = {}
    for part in elements.split(","):
        first, dot, rest = part.strip().partition(".")
        typed = dot and first[:1].isupper()
        name = rest.partition(".")[0] if typed else first
        if name:
            asked.setdefault(first if typed else "", set()).add(name)
    if asked and summary not in {"false", "count"}:
        text = "« _summary » et « _elements » ne se demandent pas ensemble."
        raise InvalidContent("parametres-incompatibles", text)
    return Form(summary, {kind: frozenset(names) for kind, names in asked.items()})
