"""The next object of a series: what it says otherwise than the one before, and nothing else, is read.

A slice differs from the slice before in a dozen attributes of sixty. Its head is cut into attributes, these are
compared byte by byte with those of an object of the series that was read whole, and only what differs is converted.

Promises: what it gives is what reading the object whole would give; whatever is not as simple as that (another set of
attributes, a difference in what a patient, a study or a series is known by, anything whose meaning hangs on another
attribute) is left to whoever reads it whole. Bounded memory; safe between threads.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import tzinfo
from typing import Final, NamedTuple

import msgspec

from gateway.dicom.command import is_uid
from gateway.rcp.imaging_facts import ObjectFacts

__all__ = ["HEAD_BYTES", "Succession"]

#: How much of an object is looked at: its pixels begin within, or it is read whole.
HEAD_BYTES: Final = 64 << 10

_PREFIX: Final = 132
_SHORT: Final = struct.Struct("<HH2sH")
_LONG: Final = struct.Struct("<L")
_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_SHORT_VRS: Final = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"}
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)
#: Types that mean the same whatever the character set, the pixels or anything else of the object is.
_PLAIN_VRS: Final = frozenset(
    {b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"SL", b"SS", b"TM", b"UI", b"UL", b"US"}
)
_PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_SOP_INSTANCE_UID: Final = 0x00080018
_INSTANCE_NUMBER: Final = 0x00200013
_SERIES_INSTANCE_UID: Final = 0x0020000E
_TRANSFER_SYNTAX_UID: Final = 0x00020010
_NUMBER: Final = re.compile(rb" *[+-]?[0-9]{1,9} *\Z")

_MOST_DIFFERENCES: Final = 32
_SERIES: Final = 256


class _Head(NamedTuple):
    """Attributes up to the pixels, in their order: tag and type, and the bytes of the value.

    Of the pixels themselves only whether there are any.
    """

    transfer_syntax: bytes
    names: list[tuple[int, bytes]]
    values: list[bytes]

    def value(self, tag: int) -> bytes | None:
        for (found, _), value in zip(self.names, self.values, strict=True):
            if found == tag:
                return value
        return None


class _Before(NamedTuple):
    """An object that was read whole."""

    names: list[tuple[int, bytes]]
    values: list[bytes]
    #: Attributes that many others, or what the series is known by, follow from.
    fixed: frozenset[int]
    facts: ObjectFacts
    #: Members of its JSON, and where an attribute's stands.
    pieces: list[bytes]
    places: Mapping[int, int]


def _cut(content: bytes, position: int, *, meta: bool) -> tuple[list[tuple[int, bytes]], list[bytes], int] | None:
    """Cut Explicit VR Little Endian into attributes, up to the beginning of the pixels, or to the end of the head."""
    names: list[tuple[int, bytes]] = []
    values: list[bytes] = []
    before, end = -1, len(content) - 8
    while position <= end:
        group, element, vr, length = _SHORT.unpack_from(content, position)
        tag = group << 16 | element
        if tag in _PIXELS or (meta and group != 2):
            if not meta:  # what they are, and whether there are any
                names.append((tag, vr))
                values.append(b"" if content[position + 8 : position + 12] == bytes(4) else b"\1")
            return names, values, position
        if tag <= before:
            return None
        before = tag
        position += 8
        if vr in _LONG_VRS:
            if length or position + 4 > len(content):
                return None
            [length] = _LONG.unpack_from(content, position)
            position += 4
        elif vr not in _SHORT_VRS:
            return None
        value = content[position : position + length]
        if len(value) < length:
            return None  # also what has no length of its own
        names.append((tag, vr))
        values.append(value)
        position += length
    return None


def _head(content: bytes) -> _Head | None:
    if content[128:_PREFIX] != b"DICM":
        return None
    meta = _cut(content, _PREFIX, meta=True)
    if meta is None:
        return None
    syntax = next((value for (tag, _), value in zip(meta[0], meta[1], strict=True) if tag == _TRANSFER_SYNTAX_UID), b"")
    # Those whose data set is not Explicit VR Little Endian as it stands [PS3.5 A].
    if syntax.rstrip(b"\0 ") in (b"", b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"):
        return None
    found = _cut(content, meta[2], meta=False)
    return _Head(syntax, found[0], found[1]) if found is not None else None


class Succession:
    """Remembers an object of each of the last series.

    Parameters
    ----------
    convert
        Gives the JSON of one attribute from its tag, its type and its bytes alone; may raise anything.
    """

    def __init__(self, convert: Callable[[int, str, bytes], bytes]) -> None:
        self._convert = convert
        self._before: dict[tuple[bytes | None, bytes, tzinfo], _Before] = {}

    def remember(
        self, content: bytes, zone: tzinfo, facts: ObjectFacts, fixed: Iterable[int], members: Mapping[int, bytes]
    ) -> None:
        """Take an object for the one before, which begins with these bytes and was read whole.

        Parameters
        ----------
        fixed
            Attributes that more than their own member of the JSON follows from.
        members
            Of the JSON, by tag.
        """
        head = _head(content)
        if head is None or "InstanceNumber" in facts.unreadable:
            return
        if len(self._before) >= _SERIES:
            self._before.clear()
        tags = sorted(members)
        self._before[head.value(_SERIES_INSTANCE_UID), head.transfer_syntax, zone] = _Before(
            head.names,
            head.values,
            frozenset(fixed) - {_SOP_INSTANCE_UID, _INSTANCE_NUMBER},
            facts,
            [_piece(tag, members[tag]) for tag in tags],
            {tag: place for place, tag in enumerate(tags)},
        )

    def following(self, content: bytes, zone: tzinfo) -> ObjectFacts | None:
        """Give what an object says that begins with these bytes; None when it must be read whole."""
        head = _head(content)
        before = self._before.get((head.value(_SERIES_INSTANCE_UID), head.transfer_syntax, zone)) if head else None
        if head is None or before is None or head.names != before.names:
            return None
        pairs = enumerate(zip(head.values, before.values, strict=True))
        differing = [place for place, (one, other) in pairs if one != other]
        if len(differing) > _MOST_DIFFERENCES:
            return None
        try:
            return self._changed(before, [(*head.names[place], head.values[place]) for place in differing])
        except Exception:  # noqa: BLE001 - whoever reads it whole says what is odd about it
            return None

    def _changed(self, before: _Before, differences: list[tuple[int, bytes, bytes]]) -> ObjectFacts:
        """Lay differences over the object before; raises anything at what is not as simple as that."""
        pieces, instance = before.pieces.copy(), before.facts.instance
        for tag, vr, value in differences:
            if not tag & 0xFFFF:
                continue  # the length of a group says nothing of the object
            if vr not in _PLAIN_VRS or tag in before.fixed or tag >> 16 & 1:
                raise ValueError(tag)
            pieces[before.places[tag]] = _piece(tag, self._convert(tag, vr.decode("ascii"), value))
            if tag == _SOP_INSTANCE_UID:
                instance = msgspec.structs.replace(instance, sop_instance_uid=_uid(value))
            elif tag == _INSTANCE_NUMBER:
                instance = msgspec.structs.replace(instance, number=_number(value))
        return msgspec.structs.replace(before.facts, instance=instance, dicom_json=b"{" + b",".join(pieces) + b"}")


def _uid(value: bytes) -> str:
    text = value.rstrip(b"\0").decode("ascii")
    if not is_uid(text):
        raise ValueError(text)
    return text


def _number(value: bytes) -> int:
    if not _NUMBER.match(value):
        raise ValueError(value)
    return int(value)


def _piece(tag: int, encoded: bytes) -> bytes:
    return b'"%08X":%s' % (tag, encoded)
