"""What leaves by C-STORE: the command, and the kept data set in fragments that fit the receiver's PDUs.

Promises: an object leaves byte for byte as it was received, read piece by piece; pure functions on bytes and files.
Does not: negotiate, wait or decide (`gateway.dicom.scu`, `gateway.dicom.retrieve`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from gateway.dicom.command import P_DATA_TF
from gateway.errors import Fault

__all__ = ["LARGEST_PDU_BYTES", "Originator", "Piece", "command_set", "fragments", "p_data", "store_command"]

#: Longer PDUs than this are not made, whatever a receiver takes.
LARGEST_PDU_BYTES: Final = 131_072
_SMALLEST_PDU_BYTES: Final = 256
_PDV_HEAD: Final = 6
_COMMAND, _LAST = 1, 2
_PREAMBLE: Final = 132
_WITH_DATA_SET: Final = b"\x00\x00"


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


def fragments(command: bytes, file: BinaryIO, max_pdu_bytes: int) -> Iterator[bytes]:
    """Yield message control headers with their fragments: the command set, then the rest of an open file."""
    limit = min(max_pdu_bytes or LARGEST_PDU_BYTES, LARGEST_PDU_BYTES)
    size = max(limit, _SMALLEST_PDU_BYTES) - _PDV_HEAD & ~1
    for start in range(0, len(command), size):
        last = start + size >= len(command)
        yield bytes([_COMMAND | (_LAST if last else 0)]) + command[start : start + size]
    piece = file.read(size)
    while True:
        following = file.read(size) if len(piece) == size else b""
        yield bytes([0 if following else _LAST]) + piece
        if not following:
            return
        piece = following


def p_data(context_id: int, fragment: bytes) -> bytes:
    """Wrap one fragment with its header into a P-DATA-TF `[PS3.8 9.3.5]`."""
    return struct.pack(">BBLLB", P_DATA_TF, 0, len(fragment) + 5, len(fragment) + 1, context_id) + fragment


def seek_data_set(file: BinaryIO) -> None:
    """Go to the data set of a kept Part 10 file, behind its File Meta Information `[PS3.10 7.1]`."""
    head = file.read(_PREAMBLE + 12)
    if len(head) != _PREAMBLE + 12 or head[_PREAMBLE - 4 : _PREAMBLE] != b"DICM":
        raise Fault("dicom-file", "Un objet conservé n’est plus un fichier DICOM.")
    file.seek(_PREAMBLE + 12 + int.from_bytes(head[-4:], "little"))
