"""The tree that JSON says to FHIR XML: elements in the order of the standard [FHIR R4 xml, json].

Promises: everything that the tree says is written, primitive extensions, contained resources and decimals as they are;
narratives as the XHTML that they are; well-formed UTF-8 whatever the strings hold.
Not promised: to write what stands at no place of R4; it was refused when it came (here: a fault of ours).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from itertools import zip_longest
from typing import Any

from gateway.errors import Fault
from gateway.fhir import document
from gateway.fhir.elements import PRIMITIVE, Element, Shape, shapes
from gateway.fhir.xml_narrative import as_value, as_xml
from gateway.fhir.xml_read import FHIR

__all__ = ["encode"]

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
_INDENT = "  "


def encode(tree: Mapping[str, Any], *, pretty: bool = False) -> bytes:
    """Write a resource as an XML document."""
    parts = [_HEAD]
    _Writing(parts, pretty=pretty).resource(tree, 0, f' xmlns="{FHIR}"')
    if pretty:
        parts.append("\n")
    return "".join(parts).encode()


@cache
def _ranks(path: str) -> Mapping[str, int]:
    return {element.name: rank for rank, element in enumerate(shapes()[path].elements)}


def _ordered(node: Mapping[str, Any], shape: Shape) -> Iterator[tuple[Element, Any, Any]]:
    """Elements of an object in their order: what each is, its value, what stands beside it."""
    ranks = _ranks(shape.path)
    names = {name.removeprefix("_") for name in node}
    if shape.resource:
        names.discard("resourceType")
    try:
        for name in sorted(names, key=ranks.__getitem__):
            yield shape.names[name], node.get(name), node.get(f"_{name}")
    except KeyError:
        raise Fault("xml-sans-place", "Cette ressource ne peut pas être écrite en XML.") from None


class _Writing:
    def __init__(self, parts: list[str], *, pretty: bool) -> None:
        self._parts = parts
        self._pretty = pretty

    def resource(self, tree: Mapping[str, Any], level: int, declared: str = "") -> None:
        kind = str(tree.get("resourceType"))
        try:
            shape = shapes()[kind]
        except KeyError:
            raise Fault("xml-sans-place", "Cette ressource ne peut pas être écrite en XML.") from None
        self._object(kind, tree, shape, level, declared)

    def _line(self, level: int) -> None:
        if self._pretty:
            self._parts.append("\n" + _INDENT * level)

    def _object(self, tag: str, node: Mapping[str, Any], shape: Shape, level: int, attributes: str = "") -> None:
        children = []
        for element, value, beside in _ordered(node, shape):
            if element.attribute:
                attributes += f' {element.name}="{as_value(str(value))}"'
            else:
                children.append((element, value, beside))
        self._line(level)
        if not children:
            self._parts.append(f"<{tag}{attributes}/>")
            return
        self._parts.append(f"<{tag}{attributes}>")
        for element, value, beside in children:
            if element.repeats:
                for one, one_beside in zip_longest(_list(value), _list(beside)):
                    self._element(element, one, one_beside, level + 1)
            else:
                self._element(element, value, beside, level + 1)
        self._line(level)
        self._parts.append(f"</{tag}>")

    def _element(self, element: Element, value: Any, beside: Any, level: int) -> None:
        if element.below is None:
            self._primitive(element, value, beside, level)
            return
        shape = shapes()[element.below]
        if not shape.resource:
            self._object(element.name, value, shape, level)
            return
        self._line(level)
        self._parts.append(f"<{element.name}>")
        self.resource(value, level + 1)
        self._line(level)
        self._parts.append(f"</{element.name}>")

    def _primitive(self, element: Element, value: Any, beside: Any, level: int) -> None:
        if element.type == "xhtml":
            self._line(level)
            self._parts.append(as_xml(str(value)))
            return
        attribute = "" if value is None else f' value="{_text(value)}"'
        if beside:
            self._object(element.name, beside, shapes()[PRIMITIVE], level, attribute)
        elif attribute:
            self._line(level)
            self._parts.append(f"<{element.name}{attribute}/>")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return document.written(value)
    return as_value(str(value))
