"""How our documents are written: elements as text, escaped once, put into one another as they are made.

A tree of a hundred kilobytes costs a library's element and its move from tree to tree for each of two thousand names;
as text it costs a concatenation. What is written is then read back by the checks, so a document that is not well formed
never leaves.

Promises: every text and attribute is escaped; `Xml` is made here alone, and the type checker refuses a plain text in
its place. Not promised: that the order of children is that of the schema; the callers know it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NewType

__all__ = ["NAMESPACE", "Child", "Xml", "document", "el", "table"]

NAMESPACE = "urn:hl7-org:v3"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"

Xml = NewType("Xml", str)
"""One element, written."""

Child = Xml | None

_FEED, _BREAK = "\n", "<br/>"
_IN_TEXT = re.compile("[&<>\r]").search
_IN_ATTRIBUTE = re.compile('[&<>"\r\n\t]').search
_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}
)
_TEXT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})


def el(tag: str, *children: Child, text: str | None = None, xsi: str | None = None, **attributes: str | None) -> Xml:
    """Write one element of the CDA namespace; ``None`` children and attributes are left out.

    ``xsi`` is the ``xsi:type``; ``text`` stands before the children.
    """
    opening = f'<{tag} xsi:type="{xsi}"' if xsi is not None else f"<{tag}"
    for name, value in attributes.items():
        if value is not None:
            opening += f' {name}="{value.translate(_ESCAPES) if _IN_ATTRIBUTE(value) else value}"'
    inner = "".join([child for child in children if child is not None]) if children else ""
    if text:
        inner = _text(text) + inner
    return Xml(f"{opening}>{inner}</{tag}>" if inner else f"{opening}/>")


def table(rows: Iterable[tuple[str, str, str]]) -> Xml:
    """Write a narrative table of two columns: label, and a text with its anchor; line feeds become breaks."""
    said = [
        f'<tr><td>{_text(label)}</td><td><content ID="{_attribute(anchor)}">'
        f"{_text(text).replace(_FEED, _BREAK)}</content></td></tr>"
        for label, anchor, text in rows
    ]
    return Xml(f'<table border="0"><tbody>{"".join(said)}</tbody></table>')


def document(*children: Child) -> bytes:
    """Write a ``ClinicalDocument`` with its declaration, in UTF-8."""
    inner = "".join([child for child in children if child is not None])
    opening = f'<ClinicalDocument xmlns="{NAMESPACE}" xmlns:xsi="{_XSI}">'
    return f"<?xml version='1.0' encoding='UTF-8'?>\n{opening}{inner}</ClinicalDocument>".encode()


def _text(text: str) -> str:
    return text.translate(_TEXT_ESCAPES) if _IN_TEXT(text) else text


def _attribute(value: str) -> str:
    return value.translate(_ESCAPES) if _IN_ATTRIBUTE(value) else value
