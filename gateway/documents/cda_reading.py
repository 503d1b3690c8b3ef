"""How our checks read a CDA document: paths compiled once, observations found by their code.

Promises: nothing is changed in the document; a path is in the CDA namespace under the prefix ``c``. Not promised: that
the document is a CDA at all; what is not there is not found.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import cast

from lxml import etree
from msgspec import Struct

from gateway.documents.cda_writing import NAMESPACE

__all__ = ["CODE", "VALUE", "XSI_TYPE", "Document", "Element", "Finding"]

Element = etree._Element  # noqa: SLF001 - lxml exports its element type under no public name
CODE = f"{{{NAMESPACE}}}code"
VALUE = f"{{{NAMESPACE}}}value"
_TEXT, _REFERENCE = f"{{{NAMESPACE}}}text", f"{{{NAMESPACE}}}reference"
XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"


class Finding(Struct, frozen=True):
    """One broken rule: its number, where in the document, and why."""

    rule: str
    location: str
    text: str


@cache
def _path(path: str) -> etree.XPath:
    return etree.XPath(path, namespaces={"c": NAMESPACE}, smart_strings=False)


class Document:
    """A ``ClinicalDocument`` under check.

    Parameters
    ----------
    root
        Its root element.
    """

    def __init__(self, root: Element) -> None:
        self.root = root
        self.observations: dict[str | None, list[Element]] = {}
        for observation in self.every("observation"):
            code = next(observation.iterchildren(CODE), None)
            self.observations.setdefault(None if code is None else code.get("code"), []).append(observation)
        self.anchors = self.all("descendant::*/@ID/..")
        self.anchored = {said.get("ID") or "": said for said in self.anchors}

    def every(self, *names: str) -> Iterator[Element]:
        """Elements of these names, wherever they stand, in the order of the document."""
        return self.root.iter(*(f"{{{NAMESPACE}}}{name}" for name in names))

    def all(self, path: str, start: Element | None = None) -> list[Element]:
        """Elements at a path, from the root or from an element."""
        return cast("list[Element]", _path(path)(self.root if start is None else start))

    def texts(self, path: str, start: Element | None = None) -> list[str]:
        """Attributes or texts at a path, from the root or from an element."""
        return cast("list[str]", _path(path)(self.root if start is None else start))

    def of(self, code: str) -> list[Element]:
        """Observations of that code, wherever they stand."""
        return self.observations.get(code, [])

    def values(self, code: str) -> list[Element]:
        """Values of the observations of that code."""
        return [value for observation in self.of(code) for value in observation.iterchildren(VALUE)]

    def said(self, element: Element) -> str | None:
        """Words of the narrative to which an entry points, or ``None``."""
        for text in element.iterchildren(_TEXT):
            for reference in text.iterchildren(_REFERENCE):
                target = reference.get("value") or ""
                anchored = self.anchored.get(target[1:]) if target.startswith("#") else None
                if anchored is not None:
                    whole = "".join([str(said) for said in anchored.itertext()]) if len(anchored) else anchored.text
                    return (whole or "").strip()
        return None
