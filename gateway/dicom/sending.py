"""What leaves by C-STORE: the command, and the kept data set in PDUs that fit the receiver.

Promises: an object leaves byte for byte as it was received, read piece by piece; pure functions on bytes and files.
Does not: negotiate, wait or decide (`gateway.dicom.scu`, `gateway.dicom.retrieve`).
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final, cast

from gateway.dicom.command import P_DATA_TF
from gateway.errors import Fault

__all__ = [
    "LARGEST_PDU_BYTES",
    "Originator",
    "Piece",
    "command_set",
    "event_command",
    "message",
    "p_data",
    "progress_command",
    "seek_data_set",
    "store_command",
]

#: Longer PDUs than this are not made, whatever a receiver takes.
LARGEST_PDU_BYTES: Final = 131_072
_SMALLEST_PDU_BYTES: Final = 256
_PDV_HEAD: Final = 6
_HEADS: Final = struct.Struct(">BBLLBB")  # of a P-DATA-TF with one fragment
_BLOCK_BYTES: Final = 1 << 18  # what is read and sent at once
_COMMAND, _LAST = 1, 2
_PREAMBLE: Final = 132
_WITH_DATA_SET: Final = b"\x00\x00"
_NO_DATA_SET: Final = b"\x01\x01"
_PENDING: Final = 0xFF00


@dataclass(frozen=True, slots=True)
class Piece:
    """One kept object: what it is, and where its bytes are."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Originator:
    """Who asked for a C-MOVE, and with which message `[PS3.7 9.3.1.1]`."""

    ae_title: str
    message_id: int


def command_set(elements: Mapping[int, bytes]) -> bytes:
    """Encode elements of group 0000 in their order, with the group length `[PS3.7 6.3.1]`."""
    body = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in sorted(elements.items()))
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _uid(uid: str) -> bytes:
    encoded = uid.encode("ascii")
    return encoded + b"\0" * (len(encoded) % 2)


def _number(number: int) -> bytes:
    return struct.pack("<H", number)


def store_command(piece: Piece, message_id: int, originator: Originator | None = None) -> bytes:
    """Encode a C-STORE-RQ `[PS3.7 9.3.1.1]`."""
    elements = {
        0x0002: _uid(piece.sop_class_uid),
        0x0100: _number(0x0001),
        0x0110: _number(message_id),
        0x0700: _number(0),
        0x0800: _WITH_DATA_SET,
        0x1000: _uid(piece.sop_instance_uid),
    }
    if originator is not None:
        title = originator.ae_title.encode("ascii", "replace")
        elements[0x1030] = title + b" " * (len(title) % 2)
        elements[0x1031] = _number(originator.message_id)
    return command_set(elements)


def event_command(sop_class_uid: str, sop_instance_uid: str, message_id: int, event_type: int) -> bytes:
    """Encode an N-EVENT-REPORT-RQ `[PS3.7 10.3.1]`."""
    return command_set(
        {
            0x0002: _uid(sop_class_uid),
            0x0100: _number(0x0100),
            0x0110: _number(message_id),
            0x0800: _WITH_DATA_SET,
            0x1000: _uid(sop_instance_uid),
            0x1002: _number(event_type),
        }
    )


def progress_command(sop_class_uid: str, command_field: int, message_id: int, counts: tuple[int, ...]) -> bytes:
    """Encode a pending C-MOVE-RSP or C-GET-RSP `[PS3.7 9.3.3.2, 9.3.4.2]`; remaining, completed, failed, warned."""
    elements = {
        0x0002: _uid(sop_class_uid),
        0x0100: _number(command_field),
        0x0120: _number(message_id),
        0x0800: _NO_DATA_SET,
        0x0900: _number(_PENDING),
    }
    return command_set(elements | {0x1020 + place: _number(count) for place, count in enumerate(counts)})


def message(context_id: int, command: bytes, file: BinaryIO, max_pdu_bytes: int) -> Iterator[bytearray]:
    """Yield one message as P-DATA-TF PDUs, in blocks of many: the command set, then the rest of an open file.

    A block is read from the file straight to its place between the heads `[PS3.8 9.3.5]`.

    Raises
    ------
    Fault
        ``dicom-file``: the file ends before its end, or the disk does not give it back.
    """
    limit = min(max_pdu_bytes or LARGEST_PDU_BYTES, LARGEST_PDU_BYTES)
    size = max(limit, _SMALLEST_PDU_BYTES) - _PDV_HEAD & ~1
    with _from_disk():
        position = file.tell()
        left = file.seek(0, io.SEEK_END) - position
        file.seek(position)
    block = bytearray()
    for start in range(0, len(command), size):
        piece = command[start : start + size]
        last = start + size >= len(command)
        block += p_data(context_id, bytes([_COMMAND | (_LAST if last else 0)]) + piece)
    while True:
        count = min(-(-left // size) or 1, max(_BLOCK_BYTES // size, 1))
        taken, place = min(left, count * size), len(block)
        left -= taken
        block += bytes(taken + count * _HEADS.size)
        with memoryview(block) as view:
            for _ in range(count):
                length = min(size, taken)
                taken -= length
                header = 0 if left or taken else _LAST
                _HEADS.pack_into(block, place, P_DATA_TF, 0, length + _PDV_HEAD, length + 2, context_id, header)
                place += _HEADS.size
                _fill(view[place : place + length], file)
                place += length
        yield block
        if not left:
            return
        block = bytearray()


def _fill(view: memoryview, file: BinaryIO) -> None:
    filled = 0
    while filled < len(view):
        try:
            count = cast("io.BufferedIOBase", file).readinto(view[filled:])
        except OSError as error:
            raise _unread() from error
        if not count:
            raise Fault("dicom-file", "Un objet conservé est plus court que lui-même.")
        filled += count


@contextlib.contextmanager
def _from_disk() -> Iterator[None]:
    """Tell a failing disk from a peer that is gone, whose socket raises the same."""
    try:
        yield
    except OSError as error:
        raise _unread() from error


def _unread() -> Fault:
    return Fault("dicom-file", "Un objet conservé ne peut être relu.")


def p_data(context_id: int, fragment: bytes) -> bytes:
    """Wrap one fragment with its header into a P-DATA-TF `[PS3.8 9.3.5]`."""
    return struct.pack(">BBLLB", P_DATA_TF, 0, len(fragment) + 5, len(fragment) + 1, context_id) + fragment


def seek_data_set(file: BinaryIO) -> None:
    """Go to the data set of a kept Part 10 file, behind its File Meta Information `[PS3.10 7.1]`."""
    with _from_disk():
        head = file.read(_PREAMBLE + 12)
        if len(head) != _PREAMBLE + 12 or head[_PREAMBLE - 4 : _PREAMBLE] != b"DICM":
            raise Fault("dicom-file", "Un objet conservé n’est plus un fichier DICOM.")
        file.seek(_PREAMBLE + 12 + int.from_bytes(head[-4:], "little"))
