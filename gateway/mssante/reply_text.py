"""What a person wrote in a reply, without what his mail program put around it.

Promises: the quoted original, its introduction and the signature are left out, whether the mail is plain text or HTML;
what is written between the lines of a quotation is kept; markup is never kept; no more than `TEXT_BYTES` are read of a
mail, in time by their number, whatever comes. Not promised: that a signature without the usual mark is recognised; when
in doubt a line is kept, since the physician may correct it in the fiche.

Sources: [RFC 3676 §4.3] for the mark of a signature; the programs' own habits for the rest.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lxml import etree

from gateway.mssante.parts import Part

__all__ = ["TEXT_BYTES", "new_text", "whole_text"]

TEXT_BYTES = 200_000
"""Bytes of one mail that are read: far more than a contribution may hold."""

_LINE = 1000
_INTRODUCES = re.compile(r"(?:Le|On|Am|El)\s.{4,400}(?:a écrit|wrote|schrieb|escribió)\s*:", re.IGNORECASE)
_OPENS = re.compile(r"(?:Le|On|Am|El)\s.{4,}", re.IGNORECASE)
_ORIGINAL = re.compile(
    r"[-_–—\s]{2,}(?:message (?:d['’]origine|original|initial|transféré|réexpédié)|original message|"
    r"forwarded message|courriel original)[-_–—\s]{2,}|"
    r"(?:Début du message (?:réexpédié|transféré)|Begin forwarded message)\s*:",
    re.IGNORECASE,
)
_HEAD = re.compile(r"[*\s]*(?:De|From|Expéditeur)\s*[*\s]*:\s*\S", re.IGNORECASE)
_HEADS = re.compile(r"[*\s]*(?:Envoyé(?: le)?|Sent|Date|À|A|To|Pour|Cc|Objet|Subject|Sujet)\s*[*\s]*:", re.IGNORECASE)
_SIGNATURE = re.compile(r"-- ?|_{2,}")
_DEVICE = re.compile(
    r"(?:Envoyé (?:de|depuis|à partir de) mon |Envoyé depuis |Sent from |Télécharger Outlook|Get Outlook for ).{0,80}",
    re.IGNORECASE,
)
_BLOCKS = frozenset({"p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "ul", "ol", "table", "pre", "hr"})
_UNREAD = frozenset({"script", "style", "head", "title", "template", "blockquote"})
_QUOTE_CLASS = re.compile(
    r"gmail_quote|moz-cite-prefix|moz-signature|gmail_signature|yahoo_quoted|OutlookMessageHeader"
)
#: Codecs of the language and of domain names; no mail is written in them, and two take time by the square of it.
_NO_CHARSET = frozenset({"idna", "punycode", "raw-unicode-escape", "unicode-escape"})
#: From here on everything is the original, though no element holds it.
_QUOTE_ID = re.compile(r"divRplyFwdMsg|appendonsend|mail-editor-reference-message-container|Signature", re.IGNORECASE)


def new_text(parts: Iterable[Part]) -> str:
    """Return what the sender wrote himself; empty when there is nothing."""
    return _without_quotation(_lines(parts))


def whole_text(parts: Iterable[Part]) -> str:
    """Return all that the mail shows, quotation included: where a reference may be cited."""
    return "\n".join(_lines(parts))


def _lines(parts: Iterable[Part]) -> list[str]:
    shown = [part for part in parts if not part.attached and not part.forwarded]
    for media_type in ("text/plain", "text/html"):
        texts, left = [], TEXT_BYTES
        for part in (one for one in shown if one.media_type == media_type):
            texts.append(_decoded(part.content[:left], part.charset, cut=len(part.content) > left))
            left -= min(left, len(part.content))
        if any(text.strip() for text in texts):
            joined = "\n".join(_plain(text) if media_type == "text/html" else text for text in texts)
            return [line.rstrip() if line != "-- " else line for line in re.split(r"\r\n?|\n", joined)]
    return []


def _decoded(content: bytes, said: str | None, *, cut: bool) -> str:
    for charset in (said or "utf-8", "utf-8"):
        try:
            "".encode(charset)  # which refuses what is no charset at all, such as « zlib »
            if codecs.lookup(charset).name in _NO_CHARSET:
                continue
            text = codecs.getincrementaldecoder(charset)().decode(content, final=not cut)
        except (LookupError, UnicodeDecodeError, ValueError):
            continue
        return text.encode("utf-8", "replace").decode()  # UTF-7 makes halves of characters, which nothing can keep
    return content.decode("cp1252", "replace")


def _without_quotation(lines: Sequence[str]) -> str:
    kept: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at][:_LINE].strip()
        if _SIGNATURE.fullmatch(lines[at][:_LINE]) or _ORIGINAL.match(line) or _heads(lines, at):
            break
        introduced = _introduction(lines, at)
        if introduced:
            following = next((one for one in lines[at + introduced :] if one.strip()), "")
            if not following.lstrip().startswith(">"):
                break  # the original follows unmarked
            at += introduced
            continue
        if not line.startswith(">") and not _DEVICE.fullmatch(line):
            kept.append(lines[at])
        at += 1
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def _introduction(lines: Sequence[str], at: int) -> int:
    """Return how many lines, up to three, introduce a quotation from here on."""
    if not _OPENS.match(lines[at][:_LINE].strip()):
        return 0
    for count in (1, 2, 3):
        said = " ".join(line[:_LINE].strip() for line in lines[at : at + count])
        if _INTRODUCES.fullmatch(said):
            return count
    return 0


def _heads(lines: Sequence[str], at: int) -> bool:
    """Whether the head of the original stands here, as Outlook writes it."""
    if not _HEAD.match(lines[at][:_LINE]):
        return False
    following = [line[:_LINE] for line in lines[at + 1 : at + 7] if line.strip()]
    return sum(bool(_HEADS.match(line)) for line in following) >= 2


def _plain(html: str) -> str:
    shown = _Shown()
    target: Any = shown  # the stubs of lxml ask for bytes too, which a parser of text never gives
    parser = etree.HTMLParser(target=target, no_network=True, huge_tree=False)
    with contextlib.suppress(etree.XMLSyntaxError):  # what was read until then counts
        parser.feed(html)
        parser.close()
    return "".join(shown.said)


class _Shown:
    """Collects the text that a reader sees, but for quotations."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._depth = 0
        self._unread_from: int | None = None
        self._over = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Enter an element."""
        self._depth += 1
        self._over = self._over or bool(_QUOTE_ID.search(attributes.get("id", "")))
        if tag in _BLOCKS:
            self.said.append("\n")
        unread = tag in _UNREAD or _QUOTE_CLASS.search(attributes.get("class", ""))
        if unread and self._unread_from is None:
            self._unread_from = self._depth

    def end(self, tag: str) -> None:
        """Leave an element."""
        if self._unread_from == self._depth:
            self._unread_from = None
        self._depth -= 1
        if tag in _BLOCKS:
            self.said.append("\n")

    def data(self, data: str) -> None:
        """Take a text."""
        if self._unread_from is None and not self._over:
            self.said.append(re.sub(r"\s+", " ", data))

    def close(self) -> None:
        """End; the parser asks for it."""
