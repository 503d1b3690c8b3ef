"""R4's elements: what may stand under each path, in the order of its StructureDefinition.

Read from ``mappings/fhir-r4-elements`` (every resource and data type of R4 4.0.1) by whoever walks a resource by its
types: the judge (`gateway.fhir.structure`), the XML reader and writer, FHIRPath Patch, ``_summary``.

Promises: `shapes` answers for every path of R4, compiled when first asked; JSON names of choices are spelled out
(``deceasedBoolean``); what stands beside a primitive is the shape `PRIMITIVE`. Not promised: anything about profiles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from gateway import terminology

__all__ = ["PRIMITIVE", "Element", "Shape", "resource_types", "shapes"]

#: Shape of what stands beside a primitive: its id and its extensions [FHIR R4 json#primitive].
PRIMITIVE = "Element"

_ROW = re.compile(
    r"(?P<min>[0-9]+)\.\.(?P<max>[0-9]+|\*)(?: #(?P<same>[^ ]+))?(?: (?P<types>[A-Za-z][^ ]*))?"
    r"(?: <(?P<codes>[^>]+)>)?(?P<attribute> @)?(?P<modifier> \?!)?(?P<summary> Σ)?"
)
_TYPE = re.compile(r"([A-Za-z0-9.]+)(?:\(([^)]*)\))?")


@dataclass(frozen=True, slots=True)
class Element:
    """One JSON name that an object may hold.

    Attributes
    ----------
    name, stem
        ``deceasedBoolean`` and, of a choice, what stands before the type: ``deceased``.
    type
        FHIR type: ``code``, ``Reference``, ``BackboneElement``, ``Resource``, ``System.String`` for ids.
    below
        Path of the shape of its value; ``Resource`` where any resource may stand; `None` of a primitive.
    codes, concepts
        Members of a required binding: codes of a ``code``, (system, code) of a Coding or a CodeableConcept.
    targets
        Types that a Reference may point to; `None` if any.
    attribute
        Whether XML writes it as an attribute.
    simple
        Whether a Quantity may have no comparator (``SimpleQuantity``).
    """

    name: str
    stem: str
    type: str
    below: str | None
    repeats: bool
    required: bool
    choice: bool = False
    codes: frozenset[str] | None = None
    concepts: frozenset[tuple[str, str]] | None = None
    code_list: str | None = None
    targets: frozenset[str] | None = None
    attribute: bool = False
    modifier: bool = False
    summary: bool = False
    simple: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """What may stand under one path.

    Attributes
    ----------
    elements
        In the order of the StructureDefinition, which is that of XML.
    names
        The same by JSON name.
    required, choices
        Elements that must be there, and those of which one value at most may be: (stem, JSON names).
    resource
        Whether this is a resource: it has a ``resourceType``.
    """

    path: str
    elements: tuple[Element, ...]
    names: Mapping[str, Element] = field(repr=False)
    required: tuple[tuple[str, tuple[str, ...]], ...]
    choices: tuple[tuple[str, tuple[str, ...]], ...]
    resource: bool


class _Shapes(Mapping[str, Shape]):
    """Shapes by path, each compiled when first asked."""

    def __init__(self) -> None:
        self._rows: Mapping[str, str] = terminology.table("fhir-r4-elements")["elements"]
        self._lists: Mapping[str, Mapping[str, list[str]]] = terminology.table("fhir-r4-required-codes")["lists"]
        self._children: dict[str, list[str]] = {}
        for path in self._rows:
            parent, dot, name = path.rpartition(".")
            if dot:
                self._children.setdefault(parent, []).append(name)
        self._made: dict[str, Shape] = {}

    def __getitem__(self, path: str) -> Shape:
        made = self._made.get(path)
        if made is None:
            made = self._made[path] = self._compile(path)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._children)

    def __len__(self) -> int:
        return len(self._children)

    def _compile(self, path: str) -> Shape:
        elements: list[Element] = []
        required: list[tuple[str, tuple[str, ...]]] = []
        choices: list[tuple[str, tuple[str, ...]]] = []
        for name in self._children[path]:
            alternatives = tuple(self._alternatives(path, name))
            elements.extend(alternatives)
            names = tuple(element.name for element in alternatives)
            if alternatives[0].required:
                required.append((alternatives[0].stem, names))
            if alternatives[0].choice:
                choices.append((alternatives[0].stem, names))
        by_name = {element.name: element for element in elements}
        resource = "." not in path and "meta" in by_name
        return Shape(path, tuple(elements), by_name, tuple(required), tuple(choices), resource)

    def _alternatives(self, parent: str, name: str) -> Iterator[Element]:
        path = f"{parent}.{name}"
        row = _ROW.fullmatch(self._rows[path])
        if row is None:
            raise ValueError(path)
        stem = name.removesuffix("[x]")
        listed = self._lists[row["codes"]] if row["codes"] else {}
        for said, aims in _TYPE.findall(row["types"]) if row["types"] else [("BackboneElement", "")]:
            kind = "Quantity" if said == "SimpleQuantity" else said
            yield Element(
                name=stem + kind[0].upper() + kind[1:] if stem != name else name,
                stem=stem,
                type=kind,
                below=row["same"] or self._below(path, kind),
                repeats=row["max"] not in {"0", "1"},
                required=row["min"] != "0",
                choice=stem != name,
                codes=frozenset(code for codes in listed.values() for code in codes)
                if listed and kind == "code"
                else None,
                concepts=frozenset((system, code) for system, codes in listed.items() for code in codes)
                if listed and kind in {"Coding", "CodeableConcept"}
                else None,
                code_list=row["codes"],
                targets=frozenset(aims.split(",")) if aims else None,
                attribute=row["attribute"] is not None,
                modifier=row["modifier"] is not None,
                summary=row["summary"] is not None,
                simple=said == "SimpleQuantity",
            )

    def _below(self, path: str, kind: str) -> str | None:
        if path in self._children:
            return path
        return kind if kind in self._children else None


@cache
def _shapes() -> _Shapes:
    return _Shapes()


def shapes() -> Mapping[str, Shape]:
    """What stands under each path of R4; `KeyError` for what has nothing below it or does not exist."""
    return _shapes()


@cache
def resource_types() -> frozenset[str]:
    """Every resource type of R4; abstract ones are none."""
    rows: Mapping[str, Any] = terminology.table("fhir-r4-elements")["elements"]
    return frozenset(
        path
        for path in rows
        if "." not in path and f"{path}.meta" in rows and path not in {"Resource", "DomainResource"}
    )
