"""Narratives between JSON, where they are a string, and XML, where they are elements [FHIR R4 narrative, xml].

Promises: a ``div`` that stands by itself keeps its very characters both ways: quotes, entities, comments, CDATA (but
XML has one line end); one that leans on names declared around it is written again with XHTML as its default namespace,
its meaning unchanged.
Not promised: that it is harmless (`gateway.fhir.narrative`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.parsers import expat

from gateway.fhir.narrative import entities_as_numbers

__all__ = ["XHTML", "XML_NAMES", "Foreign", "NarrativeReader", "as_text", "as_value", "as_xml"]

XHTML = "http://www.w3.org/1999/xhtml"
#: Namespace of ``xml:lang`` and ``xml:space``.
XML_NAMES = "http://www.w3.org/XML/1998/namespace"
# Elements that HTML has no end tag for.
_VOID = frozenset({"area", "br", "col", "hr", "img"})

_IN_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_IN_VALUE = str.maketrans({"&": "&amp;", "<": "&lt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"})
_TO_ESCAPE = re.compile('[&<"\t\n\r]')


class Foreign(Exception):
    """Something that is not XHTML stands in a narrative."""


def as_text(text: str) -> str:
    """Escape character data."""
    return text.translate(_IN_TEXT)


def as_value(text: str) -> str:
    """Escape an attribute's value so that white space survives its normalisation."""
    return text.translate(_IN_VALUE) if _TO_ESCAPE.search(text) else text


class NarrativeReader:
    """Takes the events of one ``div`` from expat, which splits names as « namespace local prefix ».

    Parameters
    ----------
    source, start
        The whole document in UTF-8, and where the ``div`` begins in it.
    declared
        Whether the ``div`` itself makes XHTML its default namespace, and nothing else.
    """

    def __init__(self, source: bytes, start: int, *, declared: bool) -> None:
        self._source = source
        self._start = start
        self._itself = declared
        self._parts: list[str] = []
        self._open: list[str] = []
        self._bare = False

    def start(self, name: str, attributes: Sequence[str]) -> None:
        """An element begins; ``attributes`` alternates names and values."""
        namespace, local, prefix = _split(name)
        if namespace not in {XHTML, ""}:
            raise Foreign
        if prefix:
            self._itself = False
        self._close_tag()
        said = ' xmlns="http://www.w3.org/1999/xhtml"' if not self._open else ""
        for key, value in zip(attributes[::2], attributes[1::2], strict=True):
            space, key_local, _ = _split(key)
            if space not in {"", XML_NAMES}:
                raise Foreign
            said += f' {"xml:" if space else ""}{key_local}="{as_value(value)}"'
        self._parts.append(f"<{local}{said}")
        self._open.append(local)
        self._bare = True

    def end(self, at: int) -> str | None:
        """An element ends at a place of the source; the text of the ``div`` when it is the last."""
        local = self._open.pop()
        # Expat tells an end tag by its beginning, the end of an empty tag by what follows it.
        empty = self._bare and self._source[at - 2 : at] == b"/>"
        if self._bare and local in _VOID:
            self._parts.append("/>")
            self._bare = False
        else:
            self._close_tag()
            self._parts.append(f"</{local}>")
        if self._open:
            return None
        if not self._itself:
            return "".join(self._parts)
        stop = at if empty else self._source.find(b">", at) + 1
        itself = self._source[self._start : stop].decode()
        # As XML reads line ends [XML 1.0 §2.11].
        return itself.replace("\r\n", "\n").replace("\r", "\n") if "\r" in itself else itself

    def data(self, text: str) -> None:
        """Take character data."""
        self._close_tag()
        self._parts.append(as_text(text))

    def comment(self, text: str) -> None:
        """Take a comment."""
        self._close_tag()
        self._parts.append(f"<!--{text}-->")

    def declares(self) -> None:
        """A namespace is declared inside: the source leans on it."""
        self._itself = False

    def _close_tag(self) -> None:
        if self._bare:
            self._parts.append(">")
            self._bare = False


def _split(name: str) -> tuple[str, str, str]:
    namespace, _, rest = name.partition(" ")
    if not rest:
        return "", namespace, ""
    local, _, prefix = rest.partition(" ")
    return namespace, local, prefix


def as_xml(div: str) -> str:
    """Write the string of a ``div`` as elements.

    What is no well-formed XHTML (kept before narratives were judged) becomes the text of a ``div``.
    """
    text = entities_as_numbers(div).strip()
    try:
        if _stands_by_itself(text):
            return text
    except (expat.ExpatError, Foreign, UnicodeEncodeError):
        pass
    return f'<div xmlns="{XHTML}">{as_text(div)}</div>'


def _stands_by_itself(text: str) -> bool:
    root: list[str] = []
    depth = 0

    def start(name: str, _attributes: object) -> None:
        nonlocal depth
        depth += 1
        root.append(name) if depth == 1 else None

    def end(_name: str) -> None:
        nonlocal depth
        depth -= 1

    def comment(_text: str) -> None:
        # Outside the element it would be lost on the way back.
        if not depth:
            raise Foreign

    def refuse(*_said: object) -> None:
        raise Foreign

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CommentHandler = comment
    parser.StartDoctypeDeclHandler = refuse
    parser.XmlDeclHandler = refuse
    parser.ProcessingInstructionHandler = refuse
    parser.Parse(text, True)  # noqa: FBT003 - expat names no argument
    return root == [f"{XHTML} div"]
