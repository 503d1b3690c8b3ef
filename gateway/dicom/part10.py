"""Which object a Part 10 file holds, by its first bytes: its head, and the UIDs that it begins with `[PS3.10 7.1]`.

Promises: reads the beginning of a file as it comes and says when it needs more; refuses by name what is no such file.
The data set decides: whoever gave an object another UID often left the old one in the head. What else the data set says
is `gateway.dicom.translate`'s.
"""

from __future__ import annotations

import io
import struct
from typing import Final

from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from gateway.dicom.command import StoreRequest, is_uid
from gateway.errors import InvalidContent

__all__ = ["MAX_HEAD_BYTES", "announced"]

#: Preamble and File Meta Information; private information of the sender may stand there.
MAX_HEAD_BYTES: Final = 1 << 20
_PREFIX_END: Final = 132
#: Of the data set: its UIDs are among its first elements.
_BEGINNING_BYTES: Final = 16 << 10
_SOP_INSTANCE_UID: Final = 0x00080018
_LONG: Final = frozenset({b"OB", b"OW", b"UN", b"SQ", b"UT", b"OF", b"OD", b"OL", b"UC", b"UR", b"OV", b"SV", b"UV"})
_SHORT: Final = frozenset({b"CS", b"DA", b"DT", b"LO", b"SH", b"TM", b"UI", b"UL"})
_UIDS: Final = {0x00080016: 0x0002, _SOP_INSTANCE_UID: 0x0003}
_WANTED: Final = {0x0002: "MediaStorageSOPClassUID", 0x0003: "MediaStorageSOPInstanceUID", 0x0010: "TransferSyntaxUID"}


def announced(head: bytes, *, whole: bool = False) -> tuple[StoreRequest, int] | None:
    """Read which object a file holds and where its data set begins; None while more bytes are needed.

    Parameters
    ----------
    whole
        Whether nothing follows.

    Raises
    ------
    InvalidContent
        ``dicom-unreadable``: no Part 10 file. ``dicom-missing-uid``: it does not say what it holds.
    """
    if len(head) >= _PREFIX_END and head[128:132] != b"DICM":
        raise _unreadable()
    said: dict[int, str] = {}
    position = _PREFIX_END
    while True:
        if len(head) - position >= 2 and head[position : position + 2] != b"\x02\x00":
            break
        read = _element(head, position)
        if read is None:
            if whole or len(head) > MAX_HEAD_BYTES:
                raise _unreadable()
            return None
        number, value, position = read
        if number in _WANTED:
            said[number] = value.rstrip(b"\0 ").decode("ascii", "replace")
    if len(head) - position < _BEGINNING_BYTES and not whole:
        return None
    said |= _own(head[position : position + _BEGINNING_BYTES], said.get(0x0010, ""))
    for number, keyword in _WANTED.items():
        if not is_uid(said.get(number, "")):
            text = f"Objet DICOM sans {keyword} valide."
            raise InvalidContent("dicom-missing-uid", text, expression=keyword, rule=True)
    return StoreRequest(1, 1, said[0x0002], said[0x0003], said[0x0010]), position


def _own(beginning: bytes, transfer_syntax: str) -> dict[int, str]:
    """Read what the data set itself says to be; nothing when that cannot be read here."""
    if transfer_syntax == DeflatedExplicitVRLittleEndian:
        return {}
    cut = _cut(beginning) if transfer_syntax not in (ImplicitVRLittleEndian, ExplicitVRBigEndian) else None
    if cut is not None:
        return cut
    implicit, little = transfer_syntax == ImplicitVRLittleEndian, transfer_syntax != ExplicitVRBigEndian
    try:
        ds = read_dataset(
            io.BytesIO(beginning), implicit, little, stop_when=lambda tag, _vr, _length: tag > _SOP_INSTANCE_UID
        )
        own = {0x0002: str(ds.get("SOPClassUID") or ""), 0x0003: str(ds.get("SOPInstanceUID") or "")}
    except Exception:  # noqa: BLE001 - what the library raises depends on what the bytes led it to
        return {}
    return {number: uid for number, uid in own.items() if is_uid(uid)}


def _cut(beginning: bytes) -> dict[int, str] | None:
    """Read both UIDs of a data set in Explicit VR Little Endian as nearly all begin; None leaves it to the library.

    The library takes six times as long, for each object of a request.
    """
    said: dict[int, str] = {}
    before, position = -1, 0
    while position + 8 <= len(beginning):
        group, element, vr, length = struct.unpack_from("<HH2sH", beginning, position)
        tag = group << 16 | element
        if tag > _SOP_INSTANCE_UID:
            break
        position += 8 + length
        if tag <= before or vr not in _SHORT:
            return None
        before = tag
        if tag in _UIDS:
            uid = beginning[position - length : position].rstrip(b"\0").decode("ascii", "replace")
            if vr != b"UI" or not is_uid(uid):
                return None
            said[_UIDS[tag]] = uid
    return said if len(said) == len(_UIDS) and position <= len(beginning) else None


def _element(head: bytes, position: int) -> tuple[int, bytes, int] | None:
    """Read one element, Explicit VR Little Endian: its number, its value, the next one's place; None beyond the end."""
    try:
        _, number, vr, length = struct.unpack_from("<HH2sH", head, position)
        start = position + 8
        if vr in _LONG:
            [length] = struct.unpack_from("<L", head, start)
            start += 4
    except struct.error:
        return None
    if length > MAX_HEAD_BYTES:
        raise _unreadable()
    return (number, head[start : start + length], start + length) if start + length <= len(head) else None


def _unreadable() -> InvalidContent:
    return InvalidContent("dicom-unreadable", "Objet DICOM illisible.")
