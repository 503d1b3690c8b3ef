r"""Read one HL7 v2 message tolerantly: its bytes are kept, nothing is dropped, PRT and Z segments are like any other.

Promises: MSH-18 is read before anything is decoded, and decoding is strict; segments may end by CR, LF or CRLF, the
last one by nothing; a line that begins no segment belongs to the one above it (base64 that a sender wrapped); what
stands in a field is decoded on request and never written back. Refuses, by name: no MSH, a second message in the same
bytes, a single segment, a character set that is not offered, bytes that are not in the one announced, and what exceeds
a limit. Knows no message type.

Sources: [HL7 2.5.1 §2.5], [HL7 2.5.1 §2.7] (escapes), [HL7 2.5.1 §2.15.9] (MSH), spec mssante 3.10, features B5 to B8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import InvalidContent

__all__ = ["Head", "Message", "Segment", "head", "parse"]

#: MSH-18 → codec. Absent or ASCII is read as UTF-8, which every ASCII text is (X28).
CHARSETS: Final[Mapping[str, str]] = {
    "": "utf-8",
    "ASCII": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UNICODE UTF8": "utf-8",
    "UTF-8": "utf-8",
    "8859/1": "iso8859_1",
    "8859/15": "iso8859_15",
}
#: A message has some dozens of segments; base64 wrapped at 76 characters has 14 000 lines a megabyte.
SEGMENTS_MAX: Final = 2000
LINES_MAX: Final = 500_000
#: What stands beyond is not cut any further: no segment has as many, and each costs memory.
FIELDS_MAX: Final = 200
PARTS_MAX: Final = 100
_HEAD_BYTES: Final = 16 * 1024
_FIELD_CHARACTERS: Final = 227
_BOM: Final = b"\xef\xbb\xbf"
_LINE: Final = re.compile(rb"[^\r\n]+")
_ESCAPES: Final[Mapping[str, str]] = {".br": "\n", ".sp": "\n", "H": "", "N": ""}
_NAME: Final = re.compile(rb"[A-Z][A-Z0-9]{2}")
_TYPE: Final = re.compile(r"[A-Z][A-Z0-9]{2}")
#: A tilde that a word processor made typographic, seen in official examples.
_TYPOGRAPHIC: Final = "˜"


@dataclass(frozen=True, slots=True)
class Separators:
    """MSH-1 and MSH-2."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What MSH says, as far as it can be read; enough to answer whatever the rest of the message is.

    Attributes
    ----------
    parties
        MSH-3 to MSH-6, each as its decoded components.
    control_id
        MSH-10.
    version, country, charset
        MSH-12, MSH-17, MSH-18 as they were sent.
    """

    parties: tuple[tuple[str, ...], ...] = ((), (), (), ())
    type: str = ""
    event: str = ""
    control_id: str = ""
    processing: str = ""
    version: str = ""
    country: str = ""
    charset: str = ""

    @property
    def kind(self) -> str:
        """``MDM^T02``, or ``illisible``."""
        if not _TYPE.fullmatch(self.type):
            return "illisible"
        return f"{self.type}^{self.event}" if _TYPE.fullmatch(self.event) else self.type

    @property
    def sender(self) -> str:
        """Who sent it, in its own words: application and facility."""
        return "|".join((one[0] if one else "")[:80] for one in self.parties[:2])


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment.

    Attributes
    ----------
    position
        Which of its name in the message, from 1, as ERR-2 counts.
    """

    name: str
    position: int
    fields: Sequence[str] = field(repr=False)
    separators: Separators = field(repr=False)
    codec: str = field(repr=False)

    def raw(self, number: int) -> str:
        """Return a field as it was sent."""
        # MSH-1 is the separator itself: what stands first after the name is MSH-2.
        index = number - 1 if self.name == "MSH" else number
        return self.fields[index] if 0 < index < len(self.fields) else ""

    def repetitions(self, number: int) -> list[list[str]]:
        """Return the repetitions of a field that say something, each as its components, still escaped."""
        said, own = self.raw(number), self.separators
        repeated = said.split(own.repetition, PARTS_MAX) if said else []
        return [one.split(own.component, PARTS_MAX) for one in repeated]

    def component(self, number: int, component: int = 1, subcomponent: int | None = None) -> str:
        """Return one component of the first repetition, decoded and without spaces around it."""
        found = self.repetitions(number)
        return self.of(found[0], component, subcomponent) if found else ""

    def of(self, components: Sequence[str], component: int, subcomponent: int | None = None) -> str:
        """Return one component of a repetition, decoded; the first subcomponent, or the one that is asked for."""
        if component > len(components):
            return ""
        parts = components[component - 1].split(self.separators.subcomponent, PARTS_MAX)
        wanted = (subcomponent or 1) - 1
        return self.text(parts[wanted]).strip() if wanted < len(parts) else ""

    def text(self, said: str) -> str:
        """Undo the escapes of a text; what is no escape stays as it is."""
        mark = self.separators.escape
        if mark not in said:
            return said
        pattern = re.compile(f"{re.escape(mark)}([^{re.escape(mark)}]{{1,200}}){re.escape(mark)}")
        return pattern.sub(lambda found: self._escaped(found[1], found[0]), said)

    def _escaped(self, name: str, whole: str) -> str:
        own = self.separators
        letters = {"F": own.field, "S": own.component, "T": own.subcomponent, "R": own.repetition, "E": own.escape}
        if name[0] == "X":
            try:
                return bytes.fromhex(name[1:]).decode(self.codec)
            except (ValueError, UnicodeDecodeError):
                return whole
        return letters.get(name, _ESCAPES.get(name, whole))


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its segments in their order."""

    head: Head
    segments: Sequence[Segment] = field(repr=False)
    notes: tuple[str, ...] = ()

    def all(self, name: str) -> list[Segment]:
        """Return the segments of a name."""
        return [one for one in self.segments if one.name == name]

    def first(self, name: str) -> Segment | None:
        """Return the first segment of a name."""
        return next((one for one in self.segments if one.name == name), None)


def head(content: bytes) -> Head:
    """Read MSH as far as it can be read; never refuses."""
    content = content.removeprefix(_BOM)
    start = next((found.group() for found in _LINE.finditer(content[:_HEAD_BYTES])), b"")
    if not start.startswith(b"MSH") or len(start) < 8:
        return Head()
    codec = CHARSETS.get(_charset(start), "utf-8")
    text = start.decode(codec, "replace")
    try:
        separators, _ = _separators(text)
    except InvalidContent:
        return Head()
    said = Segment("MSH", 1, text.split(separators.field, FIELDS_MAX), separators, codec)

    def cut(number: int, component: int = 1) -> str:
        return "".join(one for one in said.component(number, component) if one >= " ")[:_FIELD_CHARACTERS]

    return Head(
        parties=tuple(tuple(cut(number, part) for part in (1, 2, 3)) for number in (3, 4, 5, 6)),
        type=cut(9),
        event=cut(9, 2),
        control_id=cut(10),
        processing=cut(11),
        version=cut(12),
        country=cut(17),
        charset=_charset(start)[:_FIELD_CHARACTERS],
    )


def parse(content: bytes) -> Message:
    """Read a message.

    Raises
    ------
    InvalidContent
        ``hl7-sans-msh``, ``hl7-separateurs``, ``hl7-jeu-de-caracteres``, ``hl7-octets``, ``hl7-plusieurs-messages``,
        ``hl7-un-seul-segment``, ``hl7-trop-de-segments``.
    """
    content = content.removeprefix(_BOM)
    if content.count(b"\r") + content.count(b"\n") > LINES_MAX:
        raise _too_many(f"{LINES_MAX} lignes")
    lines = list(_lines(content))
    if not lines or not lines[0].startswith(b"MSH") or len(lines[0]) < 8:
        raise InvalidContent("hl7-sans-msh", "Le message ne commence pas par un segment MSH.", expression="MSH^1")
    if len(lines) > SEGMENTS_MAX:
        raise _too_many(f"{SEGMENTS_MAX} segments")
    if any(line.startswith(lines[0][:4]) for line in lines[1:]):
        text = "Une trame ne porte qu’un message ; celle-ci en porte plusieurs."
        raise InvalidContent("hl7-plusieurs-messages", text, expression="MSH^2")
    charset = _charset(lines[0])
    codec = CHARSETS.get(charset)
    if codec is None:
        text = "Jeu de caractères (MSH-18) non pris en charge : UNICODE UTF-8, 8859/15 ou 8859/1."
        raise InvalidContent("hl7-jeu-de-caracteres", text, expression="MSH^1^18")
    try:
        texts = [line.decode(codec) for line in lines]
    except UnicodeDecodeError:
        text = "Les octets du message ne sont pas dans le jeu de caractères annoncé (MSH-18, UTF-8 par défaut)."
        raise InvalidContent("hl7-octets", text, expression="MSH^1^18") from None
    separators, typographic = _separators(texts[0])
    if typographic:
        texts = [text.replace(_TYPOGRAPHIC, "~") for text in texts]
    if len(texts) == 1:
        raise InvalidContent("hl7-un-seul-segment", "Le message n’a qu’un segment.", expression="MSH^1")
    notes = [note for note, holds in (("msh-18-absent", not charset), ("msh-2-typographique", typographic)) if holds]
    return Message(head(content), tuple(_segments(texts, separators, codec)), tuple(notes))


def _lines(content: bytes) -> Iterator[bytes]:
    """Segments, with the lines that begin none of them."""
    mark = content[3:4]
    held: list[bytes] = []
    for found in _LINE.finditer(content):
        line = found.group()
        begins = _NAME.match(line) is not None and line[3:4] in {mark, b""}
        if held and begins:
            yield b"\n".join(held)
            held = []
        held.append(line)
    if held:
        yield b"\n".join(held)


def _segments(texts: Sequence[str], separators: Separators, codec: str) -> Iterator[Segment]:
    seen: dict[str, int] = {}
    for text in texts:
        fields = text.split(separators.field, FIELDS_MAX)
        name = fields[0][:3]
        seen[name] = seen.get(name, 0) + 1
        yield Segment(name, seen[name], fields, separators, codec)


def _charset(line: bytes) -> str:
    fields = line.split(line[3:4], FIELDS_MAX) if line[3:4] else []
    said = fields[17] if len(fields) > 17 else b""
    return said.partition(b"~")[0].decode("ascii", "replace").strip().upper()


def _separators(text: str) -> tuple[Separators, bool]:
    mark = text[3]
    encoding = text[4:].partition(mark)[0]
    typographic = encoding[1:2] == _TYPOGRAPHIC
    encoding = encoding.replace(_TYPOGRAPHIC, "~")
    said = mark + encoding[:4]
    if len(said) != 5 or len(set(said)) != 5 or any(one.isalnum() or not " " < one < "\x7f" for one in said):
        text = "Les séparateurs (MSH-1, MSH-2) ne sont pas ceux d’un message HL7 v2."
        raise InvalidContent("hl7-separateurs", text, expression="MSH^1^2")
    return Separators(*said), typographic


def _too_many(limit: str) -> InvalidContent:
    return InvalidContent("hl7-trop-de-segments", f"Le message dépasse {limit}.", expression="MSH^1")
