"""FHIR XML to the tree that JSON says, in one pass, nothing lost [FHIR R4 xml, json; spec fhir-fr 0.3].

Read with expat, event by event: no tree of XML is built, no depth is recursed into, and there is no bound on the length
of an attribute but the body's own (a Binary's ``data`` is one). What an element means is asked of the R4 element table:
lists, choices, primitives, attributes.

Promises: the tree has the names, values and decimals that the document has, ``_name`` with nulls in the place of what
has no extension; any prefix of the FHIR namespace is read alike; comments and processing instructions are dropped, but
for comments within a narrative; whatever stands at no place of R4 is refused with its FHIRPath, up to `MAX_ISSUES` at
once. A document type is refused before it is read: no entity, no external file, no expansion. Nothing is ever fetched.
Memory is bounded by the body's limit, depth by ``json_depth``, elements and attributes by ``json_nodes``.
Not promised: cardinalities and formats (`gateway.fhir.validate` judges the tree as any other); the order of elements
is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.parsers import expat

from gateway.errors import InvalidContent
from gateway.fhir import document, xml_coding
from gateway.fhir.document import Tree
from gateway.fhir.elements import PRIMITIVE, Element, Shape, resource_types, shapes
from gateway.fhir.outcome import InvalidResource, Issue
from gateway.fhir.xml_narrative import XHTML, Foreign, NarrativeReader
from gateway.settings import Limits

__all__ = ["FHIR", "MAX_ISSUES", "parse"]

FHIR = "http://hl7.org/fhir"
#: Faults reported for one document.
MAX_ISSUES = 20

# Hints for validators, which are never followed [FHIR R4 xml#schema].
_HINTS = "http://www.w3.org/2001/XMLSchema-instance "
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,19})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "false": False}
_INTEGERS = frozenset({"integer", "unsignedInt", "positiveInt"})


class _TooMany(Exception):
    """Faults enough were found."""


class _Open:
    """One element that has begun.

    Attributes
    ----------
    element
        What it is in its parent; none for a resource, which its wrapper holds.
    shape
        What may stand below it; none below a wrapper and where faults were found.
    node
        The object it becomes; of a primitive, what stands beside its value.
    wraps
        Whether it holds a resource instead of elements.
    """

    __slots__ = ("element", "faulty", "node", "path", "primitive", "shape", "value", "wraps")

    def __init__(self, path: str, shape: Shape | None, element: Element | None = None) -> None:
        self.path = path
        self.shape = shape
        self.element = element
        self.node: Tree = {}
        self.value: str | None = None
        self.primitive = False
        self.wraps = False
        self.faulty = False


def parse(content: bytes, limits: Limits | None = None) -> Tree:
    """Read one resource.

    Raises
    ------
    InvalidContent
        ``corps-trop-grand``, ``trop-d-elements``, ``xml-codage``, ``xml-doctype``, ``xml-illisible``,
        ``xml-trop-profond``, ``xml-espace-de-noms``, ``json-trop-profond``.
    InvalidResource
        ``element-inconnu``, ``valeur-invalide``: everything that stands at no place of R4.
    """
    limits = limits or Limits()
    if len(content) > limits.http_body_bytes:
        text = f"Corps trop grand : {len(content)} octets, {limits.told('http_body_bytes')}."
        raise InvalidContent("corps-trop-grand", text)
    reading = _Reading(xml_coding.utf8(content), limits)
    tree = reading.run()
    # A list is a level of its own in JSON: what is kept must be readable again under the same limit.
    document.check(tree, limits)
    return tree


def _unreadable() -> InvalidContent:
    return InvalidContent("xml-illisible", "Ressource illisible : ce n’est pas du XML bien formé en UTF-8.")


class _Reading:
    """One document on its way through expat."""

    def __init__(self, source: bytes, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._open: list[_Open] = []
        self._depth = 0
        self._elements_left = self._attributes_left = limits.json_nodes
        self._skipped = 0
        self._declared: list[tuple[str | None, str]] = []
        self._narrative: NarrativeReader | None = None
        self._issues: list[Issue] = []
        self._tree: Tree | None = None
        # The encoding that is given here wins over the declared one, which is judged by `_declaration`.
        self._parser = parser = expat.ParserCreate("UTF-8", " ")
        parser.namespace_prefixes = True
        parser.ordered_attributes = True
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartNamespaceDeclHandler = self._namespace
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data
        parser.CommentHandler = self._comment

    def run(self) -> Tree:
        """Read it whole."""
        try:
            self._parser.Parse(self._source, True)  # noqa: FBT003 - expat names no argument
        except expat.ExpatError:
            raise _unreadable() from None
        except _TooMany:
            pass
        if self._issues:
            raise InvalidResource(self._issues)
        if self._tree is None:
            raise _unreadable()
        return self._tree

    # Events

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in {"utf-8", "us-ascii", "utf-16"}:
            raise xml_coding.refused()

    def _doctype(self, *_said: object) -> None:
        text = "XML refusé : une déclaration de type de document (DOCTYPE) n’est jamais lue, ni aucune entité."
        raise InvalidContent("xml-doctype", text)

    def _namespace(self, prefix: str | None, uri: str | None) -> None:
        self._declared.append((prefix, uri or ""))

    def _start(self, name: str, attributes: Sequence[str]) -> None:
        self._depth += 1
        if self._depth > self._limits.json_depth:
            text = f"Ressource illisible : trop de niveaux imbriqués, {self._limits.told('json_depth')}."
            raise InvalidContent("xml-trop-profond", text)
        self._elements_left -= 1
        self._attributes_left -= len(attributes) // 2
        if self._elements_left < 0 or self._attributes_left < 0:
            raise document.too_many(self._limits)
        declared, self._declared = self._declared, []
        if self._skipped:
            self._skipped += 1
        elif self._narrative is not None:
            if declared:
                self._narrative.declares()
            self._tell(self._narrative, name, attributes)
        else:
            namespace, _, rest = name.partition(" ")
            local = rest.partition(" ")[0] if rest else ""
            self._begin(namespace, local, name, attributes, declared)

    def _end(self, _name: str) -> None:
        self._depth -= 1
        if self._skipped:
            self._skipped -= 1
            return
        if self._narrative is not None:
            said = self._narrative.end(self._parser.CurrentByteIndex)
            if said is None:
                return
            self._narrative = None
            self._open[-1].value = said
        closed = self._open.pop()
        if not closed.faulty:
            self._close(closed)

    def _data(self, text: str) -> None:
        if self._skipped:
            return
        if self._narrative is not None:
            self._narrative.data(text)
        elif not text.isspace() and self._open and not self._open[-1].faulty:
            self._open[-1].faulty = True
            self._fault("valeur-invalide", "Du texte se trouve hors d’un attribut « value ».", self._open[-1].path)

    def _comment(self, text: str) -> None:
        if self._narrative is not None and not self._skipped:
            self._narrative.comment(text)

    # What begins

    def _begin(
        self,
        namespace: str,
        local: str,
        name: str,
        attributes: Sequence[str],
        declared: list[tuple[str | None, str]],
    ) -> None:
        above = self._open[-1] if self._open else None
        if above is None or above.wraps:
            self._resource(above, namespace, local, attributes)
            return
        shape = above.shape
        element = shape.names.get(local) if shape is not None else None
        wanted = XHTML if element is not None and element.type == "xhtml" else FHIR
        if element is None or element.attribute or namespace != wanted:
            self._unknown(f"{above.path}.{local}"[:256])
            return
        path = f"{above.path}.{local}"
        if element.repeats:
            path += f"[{len(above.node.get(local, ()))}]"
        opened = _Open(path, None, element)
        self._open.append(opened)
        if element.type == "xhtml":
            only = declared == [(None, XHTML)]
            self._narrative = NarrativeReader(self._source, self._parser.CurrentByteIndex, declared=only)
            opened.primitive = True
            self._tell(self._narrative, name, attributes)
            return
        if element.below is None:
            opened.primitive = True
            opened.shape = shapes()[PRIMITIVE]
        else:
            below = shapes()[element.below]
            opened.wraps = below.resource
            opened.shape = None if below.resource else below
        self._attributes(opened, attributes)

    def _resource(self, above: _Open | None, namespace: str, local: str, attributes: Sequence[str]) -> None:
        if above is None and namespace != FHIR:
            text = f"Ressource illisible : l’élément racine n’est pas dans l’espace de noms {FHIR}."
            raise InvalidContent("xml-espace-de-noms", text)
        allowed = above.element.type if above is not None and above.element is not None else "Resource"
        if namespace != FHIR or local not in resource_types() or allowed not in {"Resource", local}:
            where = above.path if above is not None else "Resource"
            text = "Type de ressource inconnu ou non offert par la passerelle."
            self._fault("element-inconnu", text, f"{where}.resourceType")
            if above is not None:
                above.faulty = True
            self._skip()
            return
        if above is not None and above.value is not None:
            self._fault("valeur-invalide", "Une seule ressource est permise ici.", above.path)
            self._skip()
            return
        opened = _Open(above.path if above is not None else local, shapes()[local])
        opened.node["resourceType"] = local
        if above is not None:
            above.value = local
        self._open.append(opened)
        self._attributes(opened, attributes)

    def _attributes(self, opened: _Open, attributes: Sequence[str]) -> None:
        for name, value in zip(attributes[::2], attributes[1::2], strict=True):
            if name.startswith(_HINTS):
                continue
            element = opened.shape.names.get(name) if opened.shape is not None else None
            if opened.primitive and name == "value":
                opened.value = value
            elif element is not None and element.attribute:
                opened.node[name] = value
            else:
                # A name with a namespace holds a space.
                self._fault("element-inconnu", "Attribut inconnu à cet endroit.", f"{opened.path}.{name}"[:256])

    def _tell(self, narrative: NarrativeReader, name: str, attributes: Sequence[str]) -> None:
        try:
            narrative.start(name, attributes)
        except Foreign:
            self._narrative = None
            self._fault("valeur-invalide", "Le texte contient autre chose que du XHTML.", self._open[-1].path)
            raise _TooMany from None

    # What ends

    def _close(self, closed: _Open) -> None:
        element = closed.element
        _even(closed.node)
        if element is None:
            self._put_resource(closed)
        elif closed.wraps:
            if closed.value is None:
                self._fault("valeur-invalide", "Une ressource est attendue.", closed.path)
        elif closed.primitive:
            self._put_primitive(closed, element)
        else:
            self._put(closed, element, closed.node, self._open[-1].node)

    def _put_resource(self, closed: _Open) -> None:
        if not self._open:
            self._tree = closed.node
            return
        wrapper = self._open[-1]
        if wrapper.element is not None:
            self._put(wrapper, wrapper.element, closed.node, self._open[-2].node)

    def _put(self, closed: _Open, element: Element, value: Tree, node: Tree) -> None:
        if element.repeats:
            node.setdefault(element.name, []).append(value)
        elif element.name in node:
            self._fault("valeur-invalide", "Une seule valeur est permise.", closed.path)
        else:
            node[element.name] = value

    def _put_primitive(self, closed: _Open, element: Element) -> None:
        beside = closed.node or None
        if closed.value is None and beside is None:
            self._fault("valeur-invalide", "Élément vide.", closed.path)
            return
        try:
            value = None if closed.value is None else _value(element.type, closed.value)
        except ValueError:
            self._fault("valeur-invalide", f"Valeur invalide pour le type {element.type}.", closed.path)
            return
        node, name = self._open[-1].node, element.name
        if element.repeats:
            values = node.setdefault(name, [])
            values.append(value)
            if beside is not None:
                all_beside = node.setdefault(f"_{name}", [])
                all_beside.extend([None] * (len(values) - 1 - len(all_beside)))
                all_beside.append(beside)
            return
        if name in node or f"_{name}" in node:
            self._fault("valeur-invalide", "Une seule valeur est permise.", closed.path)
            return
        if value is not None:
            node[name] = value
        if beside is not None:
            node[f"_{name}"] = beside

    # Faults

    def _unknown(self, path: str) -> None:
        self._fault("element-inconnu", "Élément inconnu à cet endroit.", path)
        self._skip()

    def _skip(self) -> None:
        self._skipped = 1

    def _fault(self, code: str, text: str, path: str) -> None:
        self._issues.append(Issue(code=code, text=text, expression=path))
        if len(self._issues) == MAX_ISSUES:
            raise _TooMany


def _even(node: Tree) -> None:
    """Give the lists of extensions beside primitives the length of their values, and drop values that are all null."""
    for name in [name for name, value in node.items() if name.startswith("_") and isinstance(value, list)]:
        values = node[name[1:]]
        node[name].extend([None] * (len(values) - len(node[name])))
        if all(value is None for value in values):
            del node[name[1:]]


def _value(kind: str, text: str) -> Any:
    if kind == "boolean":
        if text in _BOOLEANS:
            return _BOOLEANS[text]
    elif kind in _INTEGERS:
        if _INTEGER.fullmatch(text):
            return int(text)
    elif kind == "decimal":
        if _DECIMAL.fullmatch(text) and len(text) <= 1000:
            return int(text) if text.lstrip("-").isdigit() and text != "-0" else document.decimal(text)
    else:
        return text
    raise ValueError(kind)
