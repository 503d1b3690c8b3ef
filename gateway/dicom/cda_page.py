"""The text of a clinical document → HTML: what its author wrote for a person to read `[CDA R2 4.3.5]`.

Promises: narrative blocks only (title, paragraphs, lists, tables, line breaks, emphasis), every character escaped, no
address followed; entries, which are for machines, are not shown.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from html import escape
from typing import Final

from gateway.documents.safe_xml import Element

__all__ = ["body"]

_HL7: Final = "{urn:hl7-org:v3}"
_MAX_DEPTH: Final = 100
#: Narrative element → HTML's; others give only what they contain.
_BLOCKS: Final = {
    "paragraph": "p",
    "item": "li",
    "table": "table",
    "thead": "thead",
    "tbody": "tbody",
    "tfoot": "tfoot",
    "tr": "tr",
    "td": "td",
    "th": "th",
    "caption": "strong",
    "sub": "sub",
    "sup": "sup",
}
_STYLES: Final = {"Bold": "strong", "Italics": "em", "Emphasis": "em", "Underline": "u"}


def body(root: Element) -> tuple[str, list[str], bytes | None]:
    """Read a document: its title, its sections as HTML, and the PDF that it is when it has no text of its own."""
    title = _words(root.find(f"{_HL7}title"))
    unstructured = root.find(f"{_HL7}component/{_HL7}nonXMLBody/{_HL7}text")
    if unstructured is not None:
        return title, *_unstructured(unstructured)
    sections = root.iterfind(f"{_HL7}component/{_HL7}structuredBody/{_HL7}component/{_HL7}section")
    parts = [part for section in sections for part in _section(section, 2)]
    return title, parts or ["<p><em>Ce document n’a pas de texte.</em></p>"], None


def _words(element: Element | None) -> str:
    return "" if element is None else " ".join("".join(str(text) for text in element.itertext()).split())


def _unstructured(text: Element) -> tuple[list[str], bytes | None]:
    written = "".join(str(piece) for piece in text.itertext())
    if text.get("representation") != "B64":
        return [f"<p>{escape(written)}</p>"], None
    try:
        content = base64.b64decode("".join(written.split()), validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if b"%PDF-" in content[:1024]:
        return ["<p>Ce document est un PDF.</p>"], content
    return ["<p><em>Ce document n’a pas de texte lisible.</em></p>"], None


def _section(section: Element, level: int) -> Iterator[str]:
    yield "<section>"
    heading = _words(section.find(f"{_HL7}title"))
    yield f"<h{min(level, 6)}>{escape(heading)}</h{min(level, 6)}>" if heading else ""
    text = section.find(f"{_HL7}text")
    if text is not None:
        yield from _inside(text, 0)
    if level < _MAX_DEPTH:
        for under in section.iterfind(f"{_HL7}component/{_HL7}section"):
            yield from _section(under, level + 1)
    yield "</section>"


def _inside(element: Element, depth: int) -> Iterator[str]:
    yield escape(element.text or "")
    for child in element:
        if depth < _MAX_DEPTH and not callable(child.tag):  # what a comment or an instruction has instead
            yield from _element(child, depth + 1)
        yield escape(child.tail or "")


def _element(element: Element, depth: int) -> Iterator[str]:
    name = str(element.tag).removeprefix(_HL7)
    if name == "br":
        yield "<br>"
        return
    made = _BLOCKS.get(name, "")
    if name == "list":
        made = "ol" if element.get("listType") == "ordered" else "ul"
    elif name == "content":
        made = next((_STYLES[code] for code in str(element.get("styleCode", "")).split() if code in _STYLES), "")
    yield f"<{made}>" if made else ""
    yield from _inside(element, depth)
    yield f"</{made}>" if made else ""
