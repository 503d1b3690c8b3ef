"""The parts of a mail, however deep: forwarded mails, attachments, texts; within limits.

Promises: any bytes are parsed or refused with a short reason; how many parts, how deep and how long a header may be is
bounded before anything is done with them. What a part is called or says that it is decides nothing about what it holds:
an archive is known by its name and its first bytes. Opens no attachment.

Sources: [RFC 2045], [RFC 2046], spec mssante 5.8, 7.4 (X17, X18, X24).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import policy
from email.message import Message
from email.parser import BytesParser

__all__ = [
    "MAX_DEPTH",
    "MAX_HEADER_BYTES",
    "MAX_PARTS",
    "PARSER_FAULTS",
    "Part",
    "children",
    "file_name",
    "is_xdm",
    "parse",
    "walk",
]

MAX_PARTS = 200
MAX_DEPTH = 20
MAX_HEADER_BYTES = 256 * 1024

#: The parser of the standard library lets some malformed mails through as such exceptions.
PARSER_FAULTS = (RecursionError, ValueError, LookupError, TypeError, AttributeError, AssertionError)
_XDM = re.compile(r"\s*ihe[_-]xdm", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """One part that holds no other.

    Attributes
    ----------
    depth
        1 for the mail itself; a part of a forwarded mail is deeper.
    attached
        Whether it is a file, by its name or its disposition; else it is text to read.
    forwarded
        Whether it stands in a mail within the mail.
    """

    name: str | None
    media_type: str
    charset: str | None
    content: bytes = field(repr=False)
    depth: int
    attached: bool
    forwarded: bool


def parse(content: bytes) -> tuple[Message | None, str | None]:
    """Parse a mail; return it, or why it was not: ``header-too-large``, ``too-deep``, ``too-many-parts``."""
    head = content.partition(b"\r\n\r\n")[0] if b"\r\n\r\n" in content else content.partition(b"\n\n")[0]
    if len(head) > MAX_HEADER_BYTES:
        return None, "header-too-large"
    try:
        message = BytesParser(policy=policy.compat32).parsebytes(content)
        excess = _excess(message)
    except PARSER_FAULTS:
        return None, "unreadable"
    return (None, excess) if excess else (message, None)


def _excess(message: Message) -> str | None:
    waiting, parts = [(message, 1)], 0
    while waiting:
        part, depth = waiting.pop()
        parts += 1
        if depth > MAX_DEPTH:
            return "too-deep"
        if parts > MAX_PARTS:
            return "too-many-parts"
        waiting.extend((inner, depth + 1) for inner in children(part))
    return None


def children(part: Message) -> list[Message]:
    """Return the direct parts of a part."""
    payload = part.get_payload() if part.is_multipart() else []
    return [inner for inner in payload if isinstance(inner, Message)] if isinstance(payload, list) else []


def file_name(part: Message) -> str | None:
    """Return what a part is called, if that can be read."""
    try:
        return part.get_filename()
    except (ValueError, LookupError, TypeError):
        return None


def walk(message: Message) -> Iterator[Part]:
    """Give the parts that hold no other, in the order of the mail."""
    waiting = [(message, 1, False)]
    while waiting:
        part, depth, forwarded = waiting.pop()
        inner = children(part)
        if inner:
            inside = forwarded or part.get_content_maintype() == "message"
            waiting.extend((one, depth + 1, inside) for one in reversed(inner))
            continue
        name = file_name(part)
        yield Part(
            name=name,
            media_type=part.get_content_type(),
            charset=_charset(part),
            content=_content(part),
            depth=depth,
            attached=name is not None or (part.get_content_disposition() or "") == "attachment",
            forwarded=forwarded,
        )


def is_xdm(name: str | None) -> bool:
    """Whether an attachment is called as an XDM archive is: any case, hyphen or not, numbered by a mail program."""
    return bool(name and _XDM.match(name))


def _charset(part: Message) -> str | None:
    try:
        return part.get_content_charset()
    except PARSER_FAULTS:
        return None


def _content(part: Message) -> bytes:
    try:
        found = part.get_payload(decode=True)
    except PARSER_FAULTS:
        return b""
    return found if isinstance(found, bytes) else b""
