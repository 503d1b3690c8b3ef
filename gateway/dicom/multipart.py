"""Bodies of ``multipart/related``, read piece by piece as they come `[RFC 2046 5.1, RFC 2387]`.

Promises: holds one piece and less than a delimiter, whatever the parts weigh; the bytes of a part are those between its
delimiters, unchanged; whatever is not such a body is refused by name and nothing is guessed. Reads no socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import InvalidContent

__all__ = ["Ended", "Head", "Piece", "Reader", "media_type"]

_MAX_PREAMBLE_BYTES: Final = 64 << 10
_MAX_HEAD_BYTES: Final = 16 << 10
#: Parts of one body.
MAX_PARTS: Final = 20_000
# Longer than the standard's 70 characters: Orthanc's has 73.
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,199}[0-9A-Za-z'()+_,./:=?-]", re.ASCII)
_PARAMETER: Final = re.compile(r';\s*([!#$%&\'*+.^_`|~\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;"]*)', re.ASCII)


def media_type(text: str) -> tuple[str, dict[str, str]]:
    """Read a media type: its name and its parameters, names in lower case `[RFC 9110 8.3.1]`."""
    name, _, _ = text.partition(";")
    parameters: dict[str, str] = {}
    for found in _PARAMETER.finditer(text[:4096]):
        value = found[2]
        if value[:1] == '"':
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        parameters.setdefault(found[1].lower(), value)
    return name.strip().lower(), parameters


@dataclass(frozen=True, slots=True)
class Head:
    """A part begins: its fields, names in lower case."""

    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the part."""

    content: memoryview


@dataclass(frozen=True, slots=True)
class Ended:
    """The part is whole."""


Event = Head | Piece | Ended


@dataclass(slots=True)
class Reader:
    """One body.

    Parameters
    ----------
    boundary
        As the media type says it.
    """

    boundary: str
    finished: bool = False
    _held: bytes = b"\r\n"  # the first delimiter may stand at the very beginning
    _state: str = "preamble"
    _parts: int = 0
    _skipped: int = 0
    _delimiter: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Refuse what is no boundary."""
        if not _BOUNDARY.fullmatch(self.boundary):
            raise _refusal("délimiteur (boundary) absent ou invalide")
        self._delimiter = b"\r\n--" + self.boundary.encode("ascii")

    def feed(self, data: bytes | bytearray, position: int = 0, end: int | None = None) -> Iterator[Event]:
        """Take the next bytes.

        Parameters
        ----------
        data
            What stands before the next bytes may be written over, if it can be: what was held back goes there.
        position, end
            Where the next bytes begin and end.

        Raises
        ------
        InvalidContent
            ``multipart``.
        """
        end = len(data) if end is None else end
        held, self._held = self._held, b""
        if held and isinstance(data, bytearray) and len(held) <= position:
            data[position - len(held) : position] = held
            position -= len(held)
        elif held:
            data = held + data[position:end]
            position, end = 0, len(data)
        steps = {
            "preamble": self._through,
            "body": self._through,
            "delimiter": self._after_delimiter,
            "head": self._head,
        }
        while self._state in steps:
            before = (position, self._state)
            events, position = steps[self._state](data, position, end)
            yield from events
            if (position, self._state) == before:
                self._held = bytes(memoryview(data)[position:end])
                return

    def _through(self, data: bytes | bytearray, position: int, end: int) -> tuple[list[Event], int]:
        found = data.find(self._delimiter, position, end)
        # What may be the beginning of a delimiter waits for what follows.
        until = found if found >= 0 else max(position, end - len(self._delimiter) + 1)
        events: list[Event] = self._passed(memoryview(data)[position:until]) if until > position else []
        if found < 0:
            return events, until
        if self._state == "body":
            events.append(Ended())
        self._state = "delimiter"
        return events, found + len(self._delimiter)

    def _head(self, data: bytes | bytearray, position: int, end: int) -> tuple[list[Event], int]:
        found = data.find(b"\r\n\r\n", position, end)
        if (found if found >= 0 else end) - position > _MAX_HEAD_BYTES:
            raise _refusal(f"en-tête de partie de plus de {_MAX_HEAD_BYTES} octets")
        if found < 0:
            return [], position
        self._state = "body"
        return [Head(_fields(data[position:found]))], found + 4

    def _passed(self, content: memoryview) -> list[Event]:
        if self._state == "body":
            return [Piece(content)]
        self._skipped += len(content)
        if self._skipped > _MAX_PREAMBLE_BYTES:
            raise _refusal("aucune partie au début du contenu")
        return []

    def _after_delimiter(self, data: bytes | bytearray, position: int, end: int) -> tuple[list[Event], int]:
        if end - position < 2:
            return [], position
        if data.startswith(b"--", position, end):
            self._state, self.finished = "epilogue", True
            return [], end
        found = data.find(b"\r\n", position, end)
        blank = data[position : found if found >= 0 else end]
        if blank.strip(b" \t\r") or len(blank) > 256:
            raise _refusal("ligne de délimiteur")
        if found < 0:
            return [], position
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _refusal(f"plus de {MAX_PARTS} parties")
        self._state = "head"
        return [], found  # the head begins with the end of this line, so that one without fields has an end too


def _fields(text: bytes | bytearray) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in re.sub(rb"\r\n[ \t]+", b" ", text).split(b"\r\n"):
        if not line:
            continue
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name.strip():
            raise _refusal("en-tête de partie illisible")
        fields.setdefault(name.strip().lower(), value.strip())
    return fields


def _refusal(what: str) -> InvalidContent:
    return InvalidContent("multipart", f"Contenu « multipart/related » illisible : {what}.")
