"""The encoding of an XML document, settled before a parser could guess it [XML 1.0 §4.3.3, appendix F].

Promises: what is read is UTF-8, or UTF-16 with its mark; anything else is refused. Not promised: that it is XML.
"""

from __future__ import annotations

from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_LE

from gateway.errors import InvalidContent

__all__ = ["refused", "utf8"]

_UTF16 = {BOM_UTF16_LE: "utf-16-le", BOM_UTF16_BE: "utf-16-be"}


def utf8(content: bytes) -> bytes:
    """Give the document in UTF-8 without its mark; UTF-16 is told by its mark alone.

    Raises
    ------
    InvalidContent
        ``xml-codage``.
    """
    coding = _UTF16.get(content[:2])
    if content.startswith(BOM_UTF8):
        content = content[len(BOM_UTF8) :]
    elif coding is not None and not content.startswith(BOM_UTF32_LE):
        try:
            content = content[2:].decode(coding).encode()
        except UnicodeError:
            raise refused() from None
    # Expat would guess another encoding from these, whatever it is told.
    if content[:2] in _UTF16 or content.startswith(BOM_UTF8) or b"\0" in content[:4]:
        raise refused()
    return content


def refused() -> InvalidContent:
    """The refusal of another encoding."""
    return InvalidContent("xml-codage", "XML illisible : seul le codage UTF-8, ou UTF-16 avec sa marque, est lu.")
