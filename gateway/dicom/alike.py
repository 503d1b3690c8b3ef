"""Objects that say the same of their pixels: what is made of one's header serves the others.

A slice differs from the slice before in its number, its place and its pixels; how it is drawn is the same for a whole
series. Its head is cut into attributes, those that pictures are made with are taken out as bytes, and who said the
same bytes before was read then.

Promises: what it gives draws as an object that was read whole, and has its own pixels; holds no attribute that a
picture is not made with, so that nothing of one object can stand for another's; whatever is not Explicit VR Little
Endian in plain order within the first bytes is read whole. Bounded memory.
"""

from __future__ import annotations

import io
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Final

from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from gateway.dicom.frames import Frames

__all__ = ["Alike"]

#: How much of an object is looked at: its pixels begin within, or it is read whole.
_HEAD_BYTES: Final = 64 << 10
_KEPT: Final = 64
_PREFIX: Final = 132
_SHORT: Final = struct.Struct("<HH2sH")
_LONG: Final = struct.Struct("<L")
_ITEM: Final = struct.Struct("<HHL")
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM_BEGINS, _ITEM_ENDS, _SEQUENCE_ENDS = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DEPTH: Final = 8
_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_SHORT_VRS: Final = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"}
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)
_PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_TRANSFER_SYNTAX_UID: Final = 0x00020010
#: Whose data set is not Explicit VR Little Endian as it stands `[PS3.5 A]`.
_OTHERWISE: Final = frozenset(
    {b"", b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99", b"1.2.840.113619.5.2"}
)
#: What pictures are made with: image pixels and their tables, functional groups, overlays, places of frames; spacings
#: and optical paths.
_GROUPS: Final = frozenset({0x0028, 0x5200, 0x7FE0, *range(0x6000, 0x6020, 2)})
_ALONE: Final = frozenset({0x00181164, 0x00182010, 0x00480105})
#: Of those groups, what each slice says of itself and no picture is made with: smallest and largest values.
_OWN: Final = range(0x00280104, 0x00280112)


class Alike:
    """Headers of the last objects that said something new of their pixels."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[bytes, bytes], Frames] = OrderedDict()

    def frames(self, path: Path) -> Frames:
        """Open an object.

        Raises
        ------
        InvalidContent
            As `Frames`.
        """
        with path.open("rb", buffering=0) as file:
            content = file.read(_HEAD_BYTES) or b""
        found = _glance(content)
        if found is None:
            return Frames(path)
        syntax, said, place = found
        known = self._known.pop((syntax, said), None)
        if known is None:
            try:
                known = _first(path, syntax, said)
            except Exception:  # noqa: BLE001 - whoever reads it whole says what is odd about it
                return Frames(path)
        self._known[syntax, said] = known
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return known.at(path, place, content[place : place + 12])


def _first(path: Path, syntax: bytes, said: bytes) -> Frames:
    header = read_dataset(io.BytesIO(said), is_implicit_VR=False, is_little_endian=True)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = UID(syntax.decode("latin-1"))
    return Frames(path, header)


def _glance(content: bytes) -> tuple[bytes, bytes, int] | None:
    """Give the transfer syntax, what is said of the pixels, and where they begin; None when it must be read whole."""
    if content[128:_PREFIX] != b"DICM":
        return None
    syntax, said, before, position, end = b"", list[bytes](), 0, _PREFIX, len(content) - 12
    while position <= end:
        group, element, vr, length = _SHORT.unpack_from(content, position)
        tag = group << 16 | element
        if tag in _PIXELS:
            return (syntax, b"".join(said), position) if syntax not in _OTHERWISE else None
        after = _after(content, position + 8, vr, length)
        if tag <= before or after is None or after > end:
            return None
        if tag == _TRANSFER_SYNTAX_UID:
            syntax = content[position + 8 : after].rstrip(b"\0 ")
        elif (group in _GROUPS and tag not in _OWN) or tag in _ALONE:
            said.append(content[position:after])
        before, position = tag, after
    return None


def _after(content: bytes, position: int, vr: bytes, length: int, depth: int = 0) -> int | None:
    """Find what follows an attribute; None when that is not plain to see."""
    if vr in _SHORT_VRS:
        return position + length
    if vr not in _LONG_VRS:
        return None
    [length] = _LONG.unpack_from(content, position)
    position += 4
    if length != _UNDEFINED:
        return position + length
    return _after_items(content, position, depth) if vr == b"SQ" and depth < _DEPTH else None


def _after_items(content: bytes, position: int, depth: int) -> int | None:
    """Find what follows a sequence without a length `[PS3.5 7.5.2]`."""
    end = len(content) - 12
    inside = False  # an item without a length of its own
    while position <= end:
        group, element, length = _ITEM.unpack_from(content, position)
        tag = group << 16 | element
        if inside and tag != _ITEM_ENDS:
            vr, short = content[position + 4 : position + 6], length >> 16
            after = _after(content, position + 8, vr, short, depth + 1)
            if after is None:
                return None
            position = after
            continue
        position += 8
        if inside:
            inside = False
        elif tag == _SEQUENCE_ENDS:
            return position
        elif tag != _ITEM_BEGINS:
            return None
        elif length == _UNDEFINED:
            inside = True
        else:
            position += length
    return None
