"""The few bytes of DICOM that the receiving path reads and writes itself: command sets, PDVs, the Part 10 head.

Promises: pure functions on bytes, refusal of anything malformed by `ProtocolError`, no copy of pixel data.
Does not: negotiate, hold a connection, or know any command but C-STORE-RQ and its response.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = [
    "A_ABORT",
    "A_ASSOCIATE_RQ",
    "IMPLEMENTATION_CLASS_UID",
    "IMPLEMENTATION_VERSION_NAME",
    "PDU_TYPES",
    "P_DATA_TF",
    "Answer",
    "ProtocolError",
    "StoreRequest",
    "announces_data_set",
    "expect_one_message",
    "is_uid",
    "iterate_pdvs",
    "parse_command",
    "part10_head",
    "store_request",
    "store_response",
]

P_DATA_TF: Final = 0x04
A_ASSOCIATE_RQ: Final = 0x01
A_ABORT: Final = 0x07
PDU_TYPES: Final = frozenset(range(0x01, 0x08))

# A UID of our own (PS3.5 B.2, UUID-derived), fixed for ever: it stands in the head of each kept file, and the same
# object sent twice must give the same bytes whatever the version of the library or of the gateway.
IMPLEMENTATION_CLASS_UID: Final = "2.25.214861377204159127836245701936042158733"
IMPLEMENTATION_VERSION_NAME: Final = "RCPGATEWAY"

_C_STORE_RQ: Final = b"\x01\x00"
_NO_DATA_SET: Final = b"\x01\x01"
_ELEMENT: Final = struct.Struct("<HHL")
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*\Z", re.ASCII)


class ProtocolError(Exception):
    """The peer sent bytes that no DICOM conversation may contain at this point: the association is aborted."""


def is_uid(text: str) -> bool:
    """Whether `text` is a UID: digits and dots, 64 characters at most `[PS3.5 9.1]`.

    Leading zeros of a component are let through: old modalities write them, and a UID is compared, never computed.
    """
    return 0 < len(text) <= 64 and _UID.match(text) is not None


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A C-STORE-RQ on an accepted presentation context `[PS3.7 9.3.1.1]`, or one part of a STOW-RS request.

    Parameters
    ----------
    study_instance_uid
        The study that the address names, when one does: STOW-RS only.
    """

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a C-STORE-RSP says: a status and, unless it is a success, a comment of 64 ASCII characters at most."""

    status: int = 0x0000
    comment: str = ""


def parse_command(encoded: bytes | bytearray) -> dict[int, bytes]:
    """Split a command set into element number → value `[PS3.7 6.3.1]` (Implicit VR Little Endian, group 0000)."""
    elements: dict[int, bytes] = {}
    position = 0
    while position < len(encoded):
        if len(encoded) - position < _ELEMENT.size:
            raise ProtocolError("command set: truncated element")
        group, element, length = _ELEMENT.unpack_from(encoded, position)
        position += _ELEMENT.size
        if group != 0 or length > len(encoded) - position:
            raise ProtocolError("command set: not of group 0000, or longer than itself")
        elements[element] = bytes(encoded[position : position + length])
        position += length
    return elements


def announces_data_set(command: dict[int, bytes]) -> bool:
    """Whether a data set follows a command `[PS3.7 6.3.1]`."""
    return command.get(0x0800) not in (None, _NO_DATA_SET)


def store_request(context_id: int, command: dict[int, bytes], transfer_syntax_uid: str) -> StoreRequest | None:
    """Read a C-STORE-RQ that announces a data set; None for every other command."""
    if command.get(0x0100) != _C_STORE_RQ or not announces_data_set(command):
        return None
    if not {0x0002, 0x0110, 0x1000} <= command.keys() or len(command[0x0110]) != 2:
        return None
    return StoreRequest(
        context_id=context_id,
        message_id=struct.unpack("<H", command[0x0110])[0],
        sop_class_uid=command[0x0002].rstrip(b"\0 ").decode("ascii", "replace"),
        sop_instance_uid=command[0x1000].rstrip(b"\0 ").decode("ascii", "replace"),
        transfer_syntax_uid=transfer_syntax_uid,
    )


def iterate_pdvs(pdu: bytearray) -> Iterator[tuple[int, int, memoryview]]:
    """Yield (context id, message control header, fragment) of a whole P-DATA-TF PDU `[PS3.8 9.3.5]`."""
    view = memoryview(pdu)
    position = 6
    while position < len(pdu):
        if len(pdu) - position < 6:
            raise ProtocolError("PDV: truncated head")
        length, context_id, header = struct.unpack_from(">LBB", pdu, position)
        if length < 2 or length > len(pdu) - position - 4:
            raise ProtocolError("PDV: length outside its PDU")
        yield context_id, header, view[position + 6 : position + 4 + length]
        position += 4 + length


def expect_one_message(fragments: Iterator[tuple[int, int, memoryview]], *, data_set: bool) -> None:
    """Refuse a PDU that goes on behind the message in it, of which `data_set` may follow: the rest would be lost."""
    for _, header, _ in fragments:
        if not data_set or header & 1:
            raise ProtocolError("P-DATA-TF: fragment of another message")
        data_set = not header & 2


def _even(value: bytes, pad: bytes = b"\0") -> bytes:
    return value + pad if len(value) % 2 else value


def _command_element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0x0000, element, len(value)) + value


def store_response(request: StoreRequest, answer: Answer) -> bytes:
    """Build the whole P-DATA-TF PDU of a C-STORE-RSP `[PS3.7 9.3.1.2]`, with Error Comment (0000,0902) if any."""
    body = (
        _command_element(0x0002, _even(request.sop_class_uid.encode("ascii", "replace")))
        + _command_element(0x0100, b"\x01\x80")
        + _command_element(0x0120, struct.pack("<H", request.message_id))
        + _command_element(0x0800, _NO_DATA_SET)
        + _command_element(0x0900, struct.pack("<H", answer.status))
    )
    if answer.comment:
        body += _command_element(0x0902, _even(answer.comment.encode("ascii", "replace")[:64], b" "))
    body += _command_element(0x1000, _even(request.sop_instance_uid.encode("ascii", "replace")))
    body = _command_element(0x0000, struct.pack("<L", len(body))) + body
    # 0x03: a command, and its last fragment.
    return struct.pack(">BBLLBB", P_DATA_TF, 0, len(body) + 6, len(body) + 2, request.context_id, 0x03) + body


def part10_head(request: StoreRequest) -> bytes:
    """Preamble, prefix and File Meta Information of the kept file `[PS3.10 7.1]`.

    Holds only what follows from the object itself: no source AE title, no date. The same data set in the same transfer
    syntax gives the same file, so that a re-sent instance is recognised by its hash.
    """

    def element(number: int, vr: bytes, value: bytes) -> bytes:
        if vr == b"OB":
            return struct.pack("<HH2sHL", 0x0002, number, vr, 0, len(value)) + value
        return struct.pack("<HH2sH", 0x0002, number, vr, len(value)) + value

    meta = (
        element(0x0001, b"OB", b"\x00\x01")
        + element(0x0002, b"UI", _even(request.sop_class_uid.encode("ascii")))
        + element(0x0003, b"UI", _even(request.sop_instance_uid.encode("ascii")))
        + element(0x0010, b"UI", _even(request.transfer_syntax_uid.encode("ascii")))
        + element(0x0012, b"UI", _even(IMPLEMENTATION_CLASS_UID.encode("ascii")))
        + element(0x0013, b"SH", _even(IMPLEMENTATION_VERSION_NAME.encode("ascii"), b" "))
    )
    return b"\0" * 128 + b"DICM" + element(0x0000, b"UL", struct.pack("<L", len(meta))) + meta
