"""Whether a narrative is the harmless XHTML that R4 allows: txt-1 and txt-2.

[FHIR R4 narrative#xhtml, #security] No script, no event attribute, no form, no frame, no external style; addresses only
of schemes that do nothing by themselves.

Promises: `reading` never raises, loads nothing and takes time linear in the text. Not promised: that what is allowed
is pleasant to read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.entities import name2codepoint
from xml.parsers import expat

__all__ = ["entities_as_numbers", "reading"]

_XHTML = "http://www.w3.org/1999/xhtml"
# HTML 4.0 chapters 7 to 11 (but 9.4) and 15, links and images [FHIR R4 narrative#xhtml].
_COMMON = frozenset({"id", "class", "style", "title", "lang", "xml:lang", "dir", "accesskey", "tabindex", "xml:space"})
_CELLS = frozenset({"span", "width", "align", "valign", "char", "charoff"})
_CELL = _CELLS | {"abbr", "axis", "headers", "scope", "rowspan", "colspan", "nowrap", "bgcolor", "height"}
_PLAIN = (
    ("abbr", "acronym", "address", "b", "bdo", "big", "br", "caption", "center", "cite", "code", "dd", "dfn", "dl"),
    ("dt", "em", "i", "kbd", "p", "pre", "s", "samp", "small", "strike", "strong", "sub", "sup", "tt", "u", "var"),
    ("h1", "h2", "h3", "h4", "h5", "h6", "div", "span"),
)
_ELEMENTS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys((name for names in _PLAIN for name in names), frozenset({"align", "clear"})),
    "a": frozenset({"href", "name", "charset", "type", "hreflang", "rel", "rev", "shape", "coords", "target"}),
    "img": frozenset({"src", "alt", "longdesc", "height", "width", "usemap", "ismap"})
    | {"border", "align", "hspace", "vspace"},
    "map": frozenset({"name"}),
    "area": frozenset({"shape", "coords", "href", "nohref", "alt"}),
    "blockquote": frozenset({"cite"}),
    "q": frozenset({"cite"}),
    "del": frozenset({"cite", "datetime"}),
    "ins": frozenset({"cite", "datetime"}),
    "hr": frozenset({"align", "noshade", "size", "width"}),
    "ul": frozenset({"type", "compact"}),
    "ol": frozenset({"type", "compact", "start"}),
    "li": frozenset({"type", "value"}),
    "table": frozenset({"summary", "width", "border", "frame", "rules", "cellspacing", "cellpadding"})
    | {"align", "bgcolor"},
    **dict.fromkeys(("col", "colgroup", "thead", "tbody", "tfoot", "tr"), _CELLS | {"bgcolor"}),
    "td": _CELL,
    "th": _CELL,
}
_ADDRESSES = frozenset({"href", "src", "cite", "longdesc", "usemap"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_SCHEMES = frozenset({"http", "https", "mailto", "tel", "ftp", "urn", "cid"})
_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp|bmp)[;,]", re.IGNORECASE)
# What a browser drops from an address before it reads the scheme [WHATWG URL].
_DROPPED = re.compile(r"[\x00-\x20\x7f-\xa0]+")
_STYLE = re.compile(
    r"expression\s*\(|javascript:|behaviou?r\s*:|-moz-binding|@import|\\|url\s*\(\s*(?!['\"]?(?:#|data:image/))",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]*);")
# Parsers of XML give up at 256 elements, whose carriers are counted too: who asks for XML must be able to read it.
_DEEPEST = 200
_XML_ENTITIES = frozenset({"amp", "lt", "gt", "quot", "apos"})


class _Harmful(Exception):
    """The narrative holds what R4 does not allow."""


def entities_as_numbers(text: str) -> str:
    """Write HTML's named entities (``&nbsp;``), which XML does not know, as numeric references."""
    if "&" not in text:
        return text

    def number(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"&#{name2codepoint[name]};" if name in name2codepoint and name not in _XML_ENTITIES else match.group(0)

    return _ENTITY.sub(number, text)


def _address_is_harmless(element: str, name: str, value: str) -> bool:
    bare = _DROPPED.sub("", value)
    scheme = _SCHEME.match(bare)
    if scheme is None or scheme.group(1).lower() in _SCHEMES:
        return True
    return element == "img" and name == "src" and _PICTURE.match(bare) is not None


class _Reading:
    """One narrative on its way through expat."""

    def __init__(self) -> None:
        self.depth = 0
        self.says = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        if namespace != _XHTML or (self.depth == 0 and local != "div"):
            raise _Harmful
        allowed = _ELEMENTS.get(local)
        if allowed is None:
            raise _Harmful
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _Harmful
        self.says = self.says or local == "img"
        for raw, value in attributes.items():
            attribute = raw.replace("http://www.w3.org/XML/1998/namespace ", "xml:")
            if attribute not in allowed and attribute not in _COMMON:
                raise _Harmful
            if attribute in _ADDRESSES and not _address_is_harmless(local, attribute, value):
                raise _Harmful
            if attribute == "style" and _STYLE.search(value):
                raise _Harmful

    def end(self, _name: str) -> None:
        self.depth -= 1

    def comment(self, _text: str) -> None:
        # Beside the element there is no place for it in XML.
        if self.depth == 0:
            raise _Harmful

    def data(self, text: str) -> None:
        self.says = self.says or not text.isspace()


def _refuse(*_said: object) -> None:
    raise _Harmful


def reading(div: str) -> tuple[bool, bool]:
    """Whether a ``Narrative.div`` holds only what is allowed (txt-1), and whether it says something (txt-2)."""
    found = _Reading()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = found.start
    parser.EndElementHandler = found.end
    parser.CharacterDataHandler = found.data
    parser.CommentHandler = found.comment
    parser.XmlDeclHandler = _refuse
    parser.StartDoctypeDeclHandler = _refuse
    parser.ProcessingInstructionHandler = _refuse
    try:
        parser.Parse(entities_as_numbers(div), True)  # noqa: FBT003 - expat names no argument
    except (expat.ExpatError, _Harmful, UnicodeEncodeError):
        return False, True
    return True, found.says
