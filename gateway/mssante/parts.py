"""The parts of a mail, however deep: forwarded mails, attachments, texts; within limits.

Promises: any bytes are parsed or refused with a short reason; how many lines and parts, how deep and how long a header
may be is bounded while they are parsed, not after, so that no mail holds the reader of the mailbox for long. What a
part is called or says that it is decides nothing about what it holds: an archive is known by its name and its first
bytes. Opens no attachment.

Sources: [RFC 2045], [RFC 2046], spec mssante 5.8, 7.4 (X17, X18, X24).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.errors import MessageError
from email.message import Message
from email.parser import BytesParser
from email.policy import Compat32

__all__ = [
    "MAX_DEPTH",
    "MAX_FIELD_BYTES",
    "MAX_HEADER_BYTES",
    "MAX_LINES",
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
MAX_LINES = 1_000_000
"""The parser keeps each line by itself, and asks of each whether it ends one of the parts around it."""
MAX_HEADER_BYTES = 512 * 1024
"""All headers of all parts."""
MAX_FIELD_BYTES = 4096
"""A field that is read by its words, for which the standard library takes time by the square of its length."""

#: The parser of the standard library lets some malformed mails through as such exceptions.
PARSER_FAULTS = (RecursionError, ValueError, LookupError, TypeError, AttributeError, AssertionError, MessageError)
_BY_WORDS = frozenset(
    (
        "action",
        "content-disposition",
        "content-type",
        "disposition",
        "error",
        "final-recipient",
        "from",
        "original-envelope-id",
        "original-recipient",
        "return-path",
        "sender",
        "status",
        "subject",
    )
)
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


class _Excess(Exception):
    """A mail is larger in some way than is read; the message is the reason."""


@dataclass(slots=True)
class _Tally:
    """What was read of one mail so far."""

    parts: int = 1
    header_bytes: int = 0


class _Bounds(Compat32):
    """Counts headers as they are read."""

    tally = _Tally()  # of the class, for the parser's own check of its arguments; each mail has its own

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        """Take one field, if it and those before it are not too long."""
        size = sum(map(len, sourcelines))
        self.tally.header_bytes += size
        name, value = super().header_source_parse(sourcelines)
        if self.tally.header_bytes > MAX_HEADER_BYTES or (size > MAX_FIELD_BYTES and name.lower() in _BY_WORDS):
            raise _Excess("header-too-large")
        return name, value


class _BoundedMessage(Message):
    """Counts parts as they are attached."""

    def __init__(self, policy: _Bounds) -> None:
        super().__init__(policy)
        self._tally, self._depth = policy.tally, 1

    def attach(self, payload: Message) -> None:  # type: ignore[override] # the parser attaches nothing else
        """Take one part, if it is neither too deep nor one too many."""
        assert isinstance(payload, _BoundedMessage)  # noqa: S101 - made by the same parser
        payload._depth = self._depth + 1  # noqa: SLF001 - its own class
        self._tally.parts += 1
        if payload._depth > MAX_DEPTH:  # noqa: SLF001 - as above
            raise _Excess("too-deep")
        if self._tally.parts > MAX_PARTS:
            raise _Excess("too-many-parts")
        super().attach(payload)


def parse(content: bytes) -> tuple[Message | None, str | None]:
    """Parse a mail; return it, or why it was not.

    ``header-too-large``, ``too-deep``, ``too-many-parts``, ``too-many-lines``; ``unreadable`` by the parser.
    """
    if content.count(b"\n") + content.count(b"\r") - content.count(b"\r\n") > MAX_LINES:
        return None, "too-many-lines"
    bounds = _Bounds(tally=_Tally())  # type: ignore[call-arg] # any attribute of the class may be given
    try:
        return BytesParser(_BoundedMessage, policy=bounds).parsebytes(content), None  # type: ignore[arg-type] # and is
    except _Excess as excess:
        return None, str(excess)
    except PARSER_FAULTS:
        return None, "unreadable"


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
