"""XML that somebody else wrote, read without following it anywhere.

Promises: a document type is refused before it is read, so that no entity is expanded and no file or address is ever
fetched; what would include another document is refused; depth and length of a text are bounded by the parser's own
limits (256 levels, ten million bytes). UTF-8 and UTF-16, with or without a byte order mark; bytes that are not what the
document declares are refused. Not promised: validity of any kind.
"""

from __future__ import annotations

from xml.parsers import expat

from lxml import etree

from gateway.errors import InvalidContent

__all__ = ["Element", "parse"]

Element = etree._Element  # noqa: SLF001 - lxml exports its element type under no public name

_INCLUDE = "{http://www.w3.org/2001/XInclude}*"


class _Doctype(Exception):
    """A document type is declared."""


def parse(content: bytes) -> Element:
    """Read a document.

    Raises
    ------
    InvalidContent
        ``xml-entites`` (a document type, or an inclusion), ``xml-malforme``.
    """
    _refuse_doctype(content)
    # One parser a document: a parser keeps the names that it met. The expat pass has refused what would name entities.
    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False)
    try:
        root = etree.fromstring(content, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise _unreadable() from None
    if root.getroottree().docinfo.internalDTD is not None or next(root.iter(_INCLUDE), None) is not None:
        raise _followed()
    return root


def _refuse_doctype(content: bytes) -> None:
    def declared(*_: object) -> None:
        raise _Doctype

    reader = expat.ParserCreate()
    reader.StartDoctypeDeclHandler = declared
    try:
        reader.Parse(content, True)  # noqa: FBT003 - expat names no argument
    except _Doctype:
        raise _followed() from None
    except (expat.ExpatError, LookupError, ValueError):
        raise _unreadable() from None


def _followed() -> InvalidContent:
    text = "XML refusé : ni type de document (DOCTYPE), ni entité, ni inclusion n’est lu."
    return InvalidContent("xml-entites", text)


def _unreadable() -> InvalidContent:
    return InvalidContent("xml-malforme", "Ce document n’est pas du XML bien formé dans le codage qu’il déclare.")
