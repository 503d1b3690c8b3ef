"""Where the pixels and the long values of an object stand in its file, found without reading what lies between.

The heads of elements are walked over, values are not read but for the few numbers that say how long a frame is: a
fraction of a millisecond, and some kibibytes whatever the object weighs and whatever its elements say of themselves.

Promises: what it names is what `gateway.dicom.frames` would give, byte for byte; of what is not as simple as that
(other syntaxes than Explicit and Implicit VR Little Endian for native frames, bits that begin in the middle of a byte,
shared chrominance, pixels as floating point, elements that contradict themselves) it says nothing, and whoever asked
reads the object where decoders run. Sources: `[PS3.5 7]` elements, `[PS3.5 A.4]` encapsulation, `[PS3.3 C.7.6.3]`.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from pydicom.datadict import dictionary_VR
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from gateway.dicom.frames import MAX_SAMPLES
from gateway.errors import InvalidContent, NotFound

__all__ = ["Layout", "Place", "compressed", "layout", "layout_at_hand", "value"]

_PREFIX: Final = 132
_WINDOW_BYTES: Final = 16 << 10
_UNDEFINED: Final = 0xFFFFFFFF
_HEAD: Final = struct.Struct("<HH2sH")
_FEW_BYTES: Final = 64
#: Elements that are walked over at most, those of sequences too, fragments of pixels, and levels of sequences.
_MAX_ELEMENTS: Final = 200_000
_MAX_FRAGMENTS: Final = 1 << 20
_MAX_DEPTH: Final = 16
_LONG: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT: Final = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"}
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)
#: Types whose bytes in a little endian file are what bulk data are `[PS3.18 8.7.3.3.2]`.
_OCTETS: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN"})
_PLAIN: Final = frozenset({str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)})
_ELSEWHERE: Final = frozenset({str(DeflatedExplicitVRLittleEndian), str(ExplicitVRBigEndian)})

_TRANSFER_SYNTAX: Final = 0x00020010
_SAMPLES, _INTERPRETATION, _FRAMES, _ROWS, _COLUMNS, _ALLOCATED = (
    0x00280002,
    0x00280004,
    0x00280008,
    0x00280010,
    0x00280011,
    0x00280100,
)
_READ: Final = frozenset({_SAMPLES, _INTERPRETATION, _FRAMES, _ROWS, _COLUMNS, _ALLOCATED, _TRANSFER_SYNTAX})
_OFFSETS, _PIXELS = 0x7FE00001, 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SHARED_CHROMINANCE: Final = ("422", "420")
#: MPEG-2, H.264 and H.265, of every profile `[PS3.6 A]`.
_VIDEO: Final = "1.2.840.10008.1.2.4.10"


class Place(NamedTuple):
    """Bytes of a file."""

    start: int
    length: int


class Layout(NamedTuple):
    """Where the frames of an object stand.

    Attributes
    ----------
    start
        Of the first frame, or of the first item of compressed ones.
    frame_bytes
        Of one native frame; 0 when they are compressed.
    frames
        How many there are; one of a video, whose pictures stand in one stream.
    size
        Of the file.
    decoded_bytes
        Of one frame as numbers.
    offsets
        The Extended Offset Table, if it has one.
    """

    start: int
    frame_bytes: int
    frames: int
    size: int
    decoded_bytes: int
    offsets: Place | None = None

    def native(self, frame: int) -> Place:
        """Where a native frame stands.

        Raises
        ------
        NotFound, InvalidContent
        """
        if not 1 <= frame <= self.frames:
            raise NotFound("inconnu", "Image inconnue dans cet objet.")
        place = Place(self.start + (frame - 1) * self.frame_bytes, self.frame_bytes)
        if place.start + place.length > self.size:
            raise _missing()
        return place


class _Odd(Exception):
    """Not as simple as it must be."""


class _Element(NamedTuple):
    tag: int
    vr: bytes
    start: int
    length: int


class _Source:
    """A file, of which a window is in memory."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self._from, self._held = 0, b""
        self._walked = 0

    def read(self, start: int, length: int) -> bytes:
        at = start - self._from
        if at < 0 or at + length > len(self._held):
            self._from, at = start, 0
            self._held = os.pread(self._descriptor, max(length, _WINDOW_BYTES), start)
        return self._held[at : at + length]

    def few(self, start: int, length: int) -> bytes:
        """Read what has nothing of interest around it."""
        return os.pread(self._descriptor, length, start)

    def element(self, start: int, *, implicit: bool) -> _Element:
        self._walked += 1
        if self._walked > _MAX_ELEMENTS:
            raise _Odd
        head = self.read(start, 12)
        if len(head) < 8:
            raise _Odd
        group, element = struct.unpack_from("<HH", head)
        tag, vr = group << 16 | element, head[4:6]
        if implicit or group == 0xFFFE:
            return _Element(tag, b"", start + 8, int.from_bytes(head[4:8], "little"))
        if vr in _SHORT:
            return _Element(tag, vr, start + 8, int.from_bytes(head[6:8], "little"))
        if vr not in _LONG or head[6:8] != b"\0\0" or len(head) < 12:
            raise _Odd
        return _Element(tag, vr, start + 12, int.from_bytes(head[8:12], "little"))

    def after(self, found: _Element, *, implicit: bool, depth: int = 0) -> int:
        """Where the element after one begins."""
        if found.length != _UNDEFINED:
            return found.start + found.length
        if depth >= _MAX_DEPTH or found.vr not in (b"SQ", b"UN", b""):
            raise _Odd
        implicit = implicit or found.vr == b"UN"  # [PS3.5 6.2.2]
        position = found.start
        while True:
            item = self.element(position, implicit=True)
            if item.tag == _SEQUENCE_END:
                return item.start
            if item.tag != _ITEM:
                raise _Odd
            position = item.start + item.length
            if item.length == _UNDEFINED:
                position = item.start
                while (inner := self.element(position, implicit=implicit)).tag != _ITEM_END:
                    position = self.after(inner, implicit=implicit, depth=depth + 1)
                position = inner.start

    def elements(self) -> Iterator[tuple[_Element, bytes]]:
        """Walk over the elements, with the values of those that say how long a frame is."""
        if self.read(128, 4) != b"DICM":
            raise _Odd
        position, before, implicit, syntax = _PREFIX, -1, False, ""
        while position < self.size:
            if not syntax or position == _PREFIX:
                implicit = False
            head = self.read(position, 2)
            if head != b"\x02\0":
                if not syntax or syntax in _ELSEWHERE:
                    raise _Odd
                implicit = syntax == ImplicitVRLittleEndian
            found = self.element(position, implicit=implicit)
            if found.tag <= before:
                raise _Odd
            before = found.tag
            said = b""
            if found.tag in _READ and found.length <= _FEW_BYTES:
                said = self.read(found.start, found.length)
            if found.tag == _TRANSFER_SYNTAX:
                syntax = said.rstrip(b"\0 ").decode("ascii", "replace")
            yield found, said
            if found.tag >= _PIXELS:
                return
            position = self.after(found, implicit=implicit)


def layout(path: Path) -> Layout | None:
    """Say where the frames of an object stand; None of what must be read otherwise."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _layout(_Source(descriptor))
    except (_Odd, ValueError):
        return None
    finally:
        os.close(descriptor)


def layout_at_hand(path: str) -> Layout | None:
    """Say the same of a simple object whose head the system has at hand; None when a disk would have to be waited for.

    Takes some tens of microseconds, whatever the object is.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        size = os.fstat(descriptor).st_size
        content = bytearray(min(size, _WINDOW_BYTES))
        if os.preadv(descriptor, [content], 0, os.RWF_NOWAIT) < len(content):
            return None
        return _in_one_window(bytes(content), size)
    except (OSError, ValueError):  # nothing at hand, or a file system that does not say
        return None
    finally:
        os.close(descriptor)


def _in_one_window(  # noqa: C901, PLR0911 - one loop: a call for each element costs more than the element
    content: bytes, size: int
) -> Layout | None:
    """Walk over elements that all say how long they are, up to the pixels."""
    if content[128:132] != b"DICM":
        return None
    said: dict[int, bytes] = {}
    offsets: Place | None = None
    position, before, end, implicit, inside = _PREFIX, -1, len(content) - 12, False, False
    while position <= end:
        group, element, vr, length = _HEAD.unpack_from(content, position)
        if group != 2 and not inside:
            inside = True
            syntax = said.get(_TRANSFER_SYNTAX, b"").rstrip(b"\0 ").decode("ascii", "replace")
            if not syntax or syntax in _ELSEWHERE:
                return None
            implicit = syntax == ImplicitVRLittleEndian
        start = position + 8
        if implicit:
            vr, length = b"", int.from_bytes(content[position + 4 : start], "little")
        elif vr not in _SHORT:
            if length or vr not in _LONG:
                return None
            start += 4
            length = int.from_bytes(content[position + 8 : start], "little")
        tag = group << 16 | element
        if tag <= before:
            return None
        before = tag
        if tag == _PIXELS:
            return _told(said, _Element(tag, vr, start, length), size, offsets)
        if length == _UNDEFINED:
            return None
        if tag in _READ and length <= _FEW_BYTES:
            said[tag] = content[start : start + length]
        elif tag == _OFFSETS:
            offsets = Place(start, length)
        position = start + length
    return None


def _layout(source: _Source) -> Layout | None:
    said: dict[int, bytes] = {}
    offsets = None
    for found, content in source.elements():
        if found.tag in _READ:
            said[found.tag] = content
        if found.tag == _OFFSETS:
            offsets = Place(found.start, found.length)
        if found.tag == _PIXELS:
            return _told(said, found, source.size, offsets)
    return None


def _told(said: dict[int, bytes], pixels: _Element, size: int, offsets: Place | None) -> Layout | None:
    """Make a layout of what the elements say."""
    rows, columns, samples, allocated = (
        int.from_bytes(said.get(tag, default)[:2], "little")
        for tag, default in ((_ROWS, b""), (_COLUMNS, b""), (_SAMPLES, b"\1"), (_ALLOCATED, b""))
    )
    frames = max(int(said.get(_FRAMES, b"1").strip(b"\0 ") or 1), 1)
    if not 0 < rows * columns * samples <= MAX_SAMPLES:
        return None
    frame_bytes = -(-rows * columns * samples * allocated // 8)
    syntax = said[_TRANSFER_SYNTAX].rstrip(b"\0 ").decode("ascii", "replace")
    plain = syntax in _PLAIN
    if pixels.length == _UNDEFINED:
        frames = 1 if syntax.startswith(_VIDEO) else frames
        return None if plain else Layout(pixels.start, 0, frames, size, frame_bytes, offsets)
    shared = said.get(_INTERPRETATION, b"").strip(b"\0 ").decode("ascii", "replace").endswith(_SHARED_CHROMINANCE)
    if not plain or shared or pixels.vr not in (b"OB", b"OW", b"") or allocated not in (8, 16, 32, 64):
        return None
    return Layout(pixels.start, frame_bytes, frames, min(size, pixels.start + pixels.length), frame_bytes)


def value(path: Path, tag: int) -> Place | None:
    """Say where the value of an attribute stands whose bytes are bulk data as they are; None of any other.

    What an object says of its length may be more than there is: what is there is named.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        source = _Source(descriptor)
        for found, _ in source.elements():
            if found.tag == tag:
                if found.length == _UNDEFINED or not _OCTETS & (frozenset({found.vr}) if found.vr else _types(tag)):
                    return None
                return Place(found.start, max(0, min(found.length, source.size - found.start)))
    except (_Odd, ValueError):
        return None
    finally:
        os.close(descriptor)
    return None


def _types(tag: int) -> frozenset[bytes]:
    """Types that an attribute may have whose file says none; what the standard does not know is of unknown type."""
    try:
        return frozenset(dictionary_VR(tag).encode("ascii").split(b" or "))
    except KeyError:
        return frozenset({b"UN"})


# ---- compressed frames


def compressed(path: Path, where: Layout, frames: Sequence[int]) -> list[list[Place]]:
    """Say where the fragments of some compressed frames stand.

    Raises
    ------
    NotFound, InvalidContent
    """
    if any(not 1 <= frame <= where.frames for frame in frames):
        raise NotFound("inconnu", "Image inconnue dans cet objet.")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        source = _Source(descriptor)
        table = source.element(where.start, implicit=True)
        if table.tag != _ITEM:
            raise _missing()
        first = table.start + table.length
        offsets = _offsets(source, where, table)
        if offsets is None:
            whole = _grouped(source, list(_fragments(source, first, source.size)), where.frames)
            return [whole[frame - 1] for frame in frames]
        ends = [*offsets[1:], source.size - first]
        return [list(_fragments(source, first + offsets[frame - 1], first + ends[frame - 1])) for frame in frames]
    except (_Odd, IndexError) as error:
        raise _missing() from error
    finally:
        os.close(descriptor)


def _offsets(source: _Source, where: Layout, table: _Element) -> Sequence[int] | None:
    """Read the table of where each frame begins, if there is one that can be so."""
    place, kind = Place(table.start, table.length), "I"
    if where.offsets is not None:
        place, kind = where.offsets, "Q"
    offsets = array(kind)
    if place.length != where.frames * offsets.itemsize or where.frames > _MAX_FRAGMENTS:
        return None
    offsets.frombytes(source.few(place.start, place.length))
    growing = all(one < other for one, other in pairwise(offsets))
    return offsets if len(offsets) == where.frames and offsets[0] == 0 and growing else None


def _fragments(source: _Source, position: int, end: int) -> Iterator[Place]:
    """Walk over items; heads alone are read."""
    for _ in range(_MAX_FRAGMENTS):
        if position >= end:
            return
        head = source.few(position, 8)
        tag = int.from_bytes(head[0:2], "little") << 16 | int.from_bytes(head[2:4], "little")
        length = int.from_bytes(head[4:8], "little")
        if tag == _SEQUENCE_END:
            return
        if tag != _ITEM or length == _UNDEFINED or position + 8 + length > source.size:
            raise _missing()
        yield Place(position + 8, length)
        position += 8 + length
    raise _missing()


def _grouped(source: _Source, fragments: list[Place], frames: int) -> list[list[Place]]:
    """Say which fragments are a frame's where no table does: all, one each, or up to the mark that ends a JPEG."""
    if frames == 1:
        return [fragments]
    if len(fragments) == frames:
        return [[one] for one in fragments]
    groups: list[list[Place]] = [[]]
    for one in fragments:
        groups[-1].append(one)
        tail = min(10, one.length)
        if b"\xff\xd9" in source.few(one.start + one.length - tail, tail):
            groups.append([])
    return groups if groups[-1] else groups[:-1]


def _missing() -> InvalidContent:
    return InvalidContent("dicom-pixels", "Pixels manquants.")
