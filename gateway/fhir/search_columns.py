"""What a resource can be found by: from a tree to the values of its table's search columns.

One column for all that is looked up as a whole, one for all that is looked up by its beginning, one range a date,
number or quantity parameter (docs/adr/0010):

===========  =============  ==========================================================================================
column       type           content; each entry begins with its parameter's code
===========  =============  ==========================================================================================
``terms``    ``text[]``     token: ``code␟system␟value``, and with a system ``code␞value`` (any system) and
                            ``code␟system␟`` (any code); identifiers with a type: ``code:of-type␟system␟type␟value``
                            reference: ``code␟Type/id`` (also with its version), ``code␟url``, and by identifier the
                            tokens of ``code:identifier``; canonical: ``code␟url``, with ``code␟url|version``, or
                            ``code␟url|`` where it says no version; uri and exact string: ``code␟text``
                            whether it is said at all: ``code`` or ``!code``; three letters of any string: ``~abc``
``words``    ``tsvector``   string: ``code␟folded text`` of each part of a name or an address; the texts of a token's
                            coding under ``code:text``
``nodes``    ``jsonb``      what must be compared value by value: several dates, quantities with their units,
                            composites by node; NULL when there is none
``p_<code>`` range          the hull of the parameter's values
===========  =============  ==========================================================================================

``␞`` and ``␟`` stand for U+001E and U+001F, which no FHIR string may hold [FHIR R4 datatypes#string].

Promises: pure functions of the tree; `extract` of a tree that was accepted never raises. An entry longer than
`ENTRY_MAX` stands there by its SHA-256. Not promised: FHIRPath beyond `gateway.fhir.search_paths`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

from gateway.fhir.search_parameters import RANGED, Component, Parameter, parameters, types
from gateway.fhir.search_paths import names_of
from gateway.fhir.search_values import Span, date_interval, fold, grams, hull, number

__all__ = [
    "ANY",
    "ENTRY_MAX",
    "IS",
    "RANGED",
    "Component",
    "Parameter",
    "any_system",
    "date_interval",
    "entry",
    "extract",
    "fold",
    "parameters",
    "said",
    "token",
    "token_entries",
    "types",
]

ANY = "\x1e"
IS = "\x1f"
#: Letters of an entry that stand there themselves: an index holds keys of less than a third of a page.
ENTRY_MAX = 250
#: Bytes of the texts of one resource that are found by their beginning: a ``tsvector`` ends at one megabyte.
_WORDS_BYTES = 900_000
_GRAMS_MAX = 2000


@dataclass(slots=True)
class _Found:
    """What was found so far in one resource."""

    terms: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    nodes: dict[str, list[Any]] = field(default_factory=dict)
    folded: set[str] = field(default_factory=set)


def extract(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the search columns of one resource.

    Returns
    -------
    dict
        ``terms`` and ``words`` sorted, ``nodes`` or `None`, and each range column's `Span` or `None`.
    """
    found = _Found()
    ranges: dict[str, Any] = {}
    names = names_of(tree)
    for parameter, first, there, absent in _asked(str(tree.get("resourceType"))):
        nodes = parameter.path(tree) if first is None or not first.isdisjoint(names) else []
        kind = parameter.kind
        if kind == "composite":
            if nodes and not parameter.whole:
                _compose(found, parameter, nodes)
        elif kind in RANGED:
            span = ranges[parameter.column] = _ranged(found, parameter, nodes) if nodes else None
            found.terms.add(absent if span is None else there)
        else:
            found.terms.add(there if nodes and _LISTED[kind](found, parameter, nodes) else absent)
    letters: set[str] = set()
    for text in found.folded:
        letters |= grams(text)
    few = letters if len(letters) <= _GRAMS_MAX else sorted(letters)[:_GRAMS_MAX]
    found.terms.update(["~" + gram for gram in few])
    return {
        "terms": _clean(found.terms),
        "words": _fitting(_clean(found.words)),
        "nodes": found.nodes or None,
        **ranges,
    }


@cache
def _asked(kind: str) -> tuple[tuple[Parameter, frozenset[str] | None, str, str], ...]:
    """Parameters of a type, what their paths begin with, what is written where something is said and where not."""
    return tuple(
        (one, one.path.first, said(code, there=True), said(code, there=False)) for code, one in parameters(kind).items()
    )


def _clean(texts: set[str]) -> list[str]:
    """In order, without what no text of PostgreSQL holds."""
    ordered = sorted(texts)
    return [text for text in ordered if "\x00" not in text] if "\x00" in "".join(ordered) else ordered


def _fitting(ordered: list[str]) -> list[str]:
    """As many as a ``tsvector`` holds."""
    if len(ordered) < _WORDS_BYTES // 2000:  # each is below 2 000 bytes: no need to count
        return ordered
    total, kept = 0, []
    for word in ordered:
        total += len(word.encode("utf-8", "surrogatepass")) + 1
        if total > _WORDS_BYTES:
            break
        kept.append(word)
    return kept


def said(code: str, *, there: bool) -> str:
    """Write whether a resource says anything that a parameter finds."""
    return code if there else "!" + code


def entry(code: str, text: str) -> str:
    """Write what a parameter finds as a whole."""
    return _short(f"{code}{IS}{text}")


def any_system(code: str, value: str) -> str:
    """Write the entry of a token whose system nobody asks for."""
    return _short(f"{code}{ANY}{value}")


def _short(text: str) -> str:
    if len(text) <= ENTRY_MAX:
        return text
    code, sign, _ = text.partition(IS if IS in text else ANY)
    return f"{code}{sign}#{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


# Tokens


def token(system: str | None, value: str) -> str:
    """Write the exact token of a coding, an identifier or a plain code."""
    return f"{system or ''}{IS}{value}"


def token_entries(code: str, system: str | None, value: str) -> tuple[str, ...]:
    """Write the entries by which a token is found: as it is, by its code alone, by its system alone."""
    if not system:
        return (_short(f"{code}{IS}{IS}{value}"),)
    whole, alone = _short(f"{code}{IS}{system}{IS}{value}"), _short(f"{code}{IS}{system}{IS}")
    return (whole, _short(f"{code}{ANY}{value}"), alone) if value else (whole, alone)


def _codings(node: Any, parameter: Parameter | None = None) -> Iterator[tuple[str | None, str]]:
    if isinstance(node, dict):
        codings = node.get("coding")
        for coding in codings if isinstance(codings, list) else ():
            if isinstance(coding, dict):
                yield from _coding(coding, folded=False)
        yield from _coding(node, folded=parameter is not None and parameter.folded)
    elif isinstance(node, bool):
        yield None, str(node).lower()
    elif isinstance(node, str):
        yield None, node
        if parameter is not None and parameter.system:
            yield parameter.system, node


def _coding(node: Mapping[str, Any], *, folded: bool) -> Iterator[tuple[str | None, str]]:
    value = node.get("code", node.get("value"))
    system = node.get("system")
    if isinstance(value, str):
        yield system if isinstance(system, str) else None, value.casefold() if folded else value
    elif isinstance(system, str) and "value" not in node:
        yield system, ""


def _tokens(found: _Found, parameter: Parameter, nodes: list[Any]) -> bool:
    there = False
    for node in nodes:
        for system, value in _codings(node, parameter):
            there = True
            found.terms.update(token_entries(parameter.code, system, value))
        if isinstance(node, dict):
            _of_type(found, parameter, node)
            for text in _labels(node):
                folded = fold(text)
                if folded:
                    there = True
                    found.words.add(f"{parameter.code}:text{IS}{folded}")
    return there


def _of_type(found: _Found, parameter: Parameter, node: Mapping[str, Any]) -> None:
    kind, value = node.get("type"), node.get("value")
    if isinstance(kind, dict) and isinstance(value, str):
        for system, code in _codings(kind):
            if system:
                found.terms.add(entry(f"{parameter.code}:of-type", f"{system}{IS}{code}{IS}{value}"))


def _labels(node: Mapping[str, Any]) -> Iterator[str]:
    """Texts that ``:text`` looks at: of the concept, of its codings, of the identifier's type."""
    kind = node.get("type")
    codings = node.get("coding")
    codings = codings if isinstance(codings, list) else ()
    texts = [node.get("text"), node.get("display"), kind.get("text") if isinstance(kind, dict) else None]
    texts += [coding.get("display") for coding in codings if isinstance(coding, dict)]
    yield from (text for text in texts if isinstance(text, str))


# References and URIs


def _references(found: _Found, parameter: Parameter, nodes: list[Any]) -> bool:
    there = False
    for node in nodes:
        if isinstance(node, str):
            url, versioned, _ = node.partition("|")
            texts = {node, url} if versioned else {node, f"{url}|"}
        elif isinstance(node, dict):
            there = _identified(found, parameter, node.get("identifier")) or there
            reference = node.get("reference")
            if not isinstance(reference, str) or reference.startswith("#"):
                continue
            texts = {reference, reference.partition("/_history/")[0]}
        else:
            continue
        there = True
        found.terms.update(entry(parameter.code, text) for text in texts)
    return there


def _identified(found: _Found, parameter: Parameter, identifier: Any) -> bool:
    if not isinstance(identifier, dict) or not isinstance(identifier.get("value"), str):
        return False
    system = identifier.get("system")
    found.terms.update(
        token_entries(f"{parameter.code}:identifier", system if isinstance(system, str) else None, identifier["value"])
    )
    return True


def _uris(found: _Found, parameter: Parameter, nodes: list[Any]) -> bool:
    texts = {text for node in nodes if isinstance(node, str) for text in (node, node.partition("|")[0])}
    found.terms.update(entry(parameter.code, text) for text in texts)
    return bool(texts)


# Strings

#: Parts of a name and of an address that are texts [FHIR R4 search#string].
_PARTS = frozenset({"text", "family", "given", "prefix", "suffix"}) | frozenset(
    {"line", "city", "district", "state", "postalCode", "country"}
)


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for part, value in node.items():
            if part in _PARTS:
                if isinstance(value, str):
                    yield value
                elif isinstance(value, list):
                    yield from (text for text in value if isinstance(text, str))


def _strings(found: _Found, parameter: Parameter, nodes: list[Any]) -> bool:
    there = False
    for node in nodes:
        for text in _texts(node):
            there = True
            found.terms.add(entry(parameter.code, text))
            folded = fold(text)
            if folded:
                found.words.add(f"{parameter.code}{IS}{folded}")
                found.folded.add(folded)
    return there


_LISTED: Mapping[str, Callable[[_Found, Parameter, list[Any]], bool]] = {
    "token": _tokens,
    "reference": _references,
    "uri": _uris,
    "string": _strings,
}

# Ranges


def _ranged(found: _Found, parameter: Parameter, nodes: list[Any]) -> Span | None:
    if parameter.kind == "quantity":
        pairs = [pair for node in nodes for pair in _quantities(node)]
        if pairs:
            found.nodes[parameter.code] = [[span.literal, units] for span, units in pairs]
        spans = [span for span, _ in pairs]
    else:
        spans = [span for node in nodes for span in _SPANS[parameter.kind](node)]
        if len(spans) > 1:
            found.nodes[parameter.code] = [span.literal for span in spans]
    return hull(spans) if spans else None


def _moments(node: Any) -> Iterator[Span]:
    if isinstance(node, str):
        with suppress(ValueError, OverflowError):
            yield Span(*date_interval(node))
    elif isinstance(node, dict):
        events = node.get("event")
        for event in events if isinstance(events, list) else ():
            yield from _moments(event)
        repeat = node.get("repeat")
        if isinstance(repeat, dict):
            yield from _moments(repeat.get("boundsPeriod"))
        low = next((span.low for span in _moments(node.get("start"))), None)
        high = next((span.high for span in _moments(node.get("end"))), None)
        # A period that ends before it starts would make an invalid range; it is then only its start.
        if low is not None and high is not None and low >= high:
            yield from _moments(node["start"])
        elif low is not None or high is not None:
            yield Span(low, high)


def _numbers(node: Any) -> Iterator[Span]:
    value = number(node)
    if value is not None:
        yield Span(value, value, "[]")


_COMPARED: Mapping[str, Callable[[Decimal], Span]] = {
    "<": lambda value: Span(None, value, "()"),
    "<=": lambda value: Span(None, value, "(]"),
    ">": lambda value: Span(value, None, "()"),
    ">=": lambda value: Span(value, None, "[)"),
}


def _quantities(node: Any) -> Iterator[tuple[Span, list[str]]]:
    """Values of a Quantity, a Range or the limits of a SampledData, with the units that each answers to."""
    if not isinstance(node, dict):
        return
    value = number(node.get("value"))
    if value is not None:
        compared = _COMPARED.get(str(node.get("comparator")))
        yield compared(value) if compared else Span(value, value, "[]"), _units(node)
        return
    low, high = node.get("low"), node.get("high")
    units = next((one for one in (low, high, node.get("origin")) if isinstance(one, dict)), {})
    ends = [number(one.get("value")) if isinstance(one, dict) else number(one) for one in (low, high)]
    if "origin" in node:
        ends = [number(node.get("lowerLimit")), number(node.get("upperLimit"))]
    low_end, high_end = ends
    backwards = low_end is not None and high_end is not None and low_end > high_end
    if ends != [None, None] and not backwards:
        yield Span(low_end, high_end, "[]"), _units(units)


def _units(node: Mapping[str, Any]) -> list[str]:
    system, code, unit = (text if isinstance(text, str) else None for text in map(node.get, ("system", "code", "unit")))
    found = {ANY + text for text in (code, unit) if text}
    if system:
        found |= {token(system, code or ""), token(system, "")}
    return sorted(found)


_SPANS: Mapping[str, Callable[[Any], Iterator[Span]]] = {"date": _moments, "number": _numbers}

# Composites


def _compose(found: _Found, parameter: Parameter, nodes: list[Any]) -> None:
    """Keep what each node says on every side; the index finds it by the parameters of its sides."""
    kept = []
    for node in nodes:
        if isinstance(node, dict):
            sides = [_side(one, one.path(node), parameters(parameter.type)[one.code]) for one in parameter.components]
            if all(sides):
                kept.append(sides)
    if kept:
        found.nodes[parameter.code] = kept


def _side(component: Component, values: list[Any], parameter: Parameter) -> list[Any]:
    if component.kind == "quantity":
        return [[span.literal, units] for value in values for span, units in _quantities(value)]
    if component.kind in _SPANS:
        return [span.literal for value in values for span in _SPANS[component.kind](value)]
    if component.kind == "string":
        return sorted({fold(text) for value in values for text in _texts(value)})
    aside = _Found()
    _LISTED[component.kind](aside, parameter, values)
    return sorted(aside.terms)
