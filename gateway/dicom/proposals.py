"""What a proposal means is read once: a PACS opens each of its associations with the same bytes.

An A-ASSOCIATE-RQ of a hundred presentation contexts, as storescu and most senders have them, costs 5 ms of processor to
read and to answer with what is offered; four associations that open together wait for one another. What certain bytes
meant is kept under these bytes.

Promises: a proposal that differs in one bit is read as if none had come before; an association cannot change what
another's proposal means; only proposals of recognised callers are kept (`keep`), so many and so long at most.
What means nothing is refused here, where it ends in an A-ABORT: the library's own threads would die of it later. What
the standard lets a receiver skip is skipped.
"""

from __future__ import annotations

import copy
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

__all__ = ["Proposal", "Proposals", "readable"]

#: Read, a proposal takes some thirty times its bytes.
_MOST: Final = 32
_MOST_BYTES: Final = 16_384

_HEAD: Final = struct.Struct(">BxH")  # of an item: type, length
_FIXED_BYTES: Final = 74  # of an A-ASSOCIATE-RQ, or -AC, before its items [PS3.8 tables 9-11, 9-17]
_ANSWERED: Final = 0x21
_USER_INFORMATION: Final = 0x50
_MAXIMUM_LENGTH: Final = 0x51
_VERSION_NAME: Final = 0x55
_ITEMS: Final = frozenset({0x10, 0x20, _ANSWERED, _USER_INFORMATION})
_USER_ITEMS: Final = frozenset(range(_MAXIMUM_LENGTH, 0x58))
#: For who says none: what every application takes.
_MODEST_LENGTH: Final = 16_384


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Split items: type, and what is in it. A length that leads out of its place is refused."""
    position = 0  # what is left is not copied for each: there may be a quarter of a million
    while position < len(content):
        kind, length = _HEAD.unpack_from(content, position)
        position += _HEAD.size + length
        if position > len(content):
            raise ValueError("item longer than what it stands in")
        yield kind, content[position - length : position]


def _item(kind: int, content: bytes) -> bytes:
    return _HEAD.pack(kind, len(content)) + content


def _user_information(content: bytes) -> bytes:
    """Leave out what is unknown `[PS3.8 D.2]` or not used, as who the user says he is; add a length that is missing."""
    kept = [
        (kind, one)
        for kind, one in _items(content)
        if kind in _USER_ITEMS and (kind != _VERSION_NAME or (0 < len(one) <= 16 and one.isascii()))
    ]
    if _MAXIMUM_LENGTH not in dict(kept):
        kept.insert(0, (_MAXIMUM_LENGTH, struct.pack(">L", _MODEST_LENGTH)))
    return b"".join(_item(*one) for one in kept)


def _answered(content: bytes) -> bytes:
    """Of a context that is refused the transfer syntax says nothing, and may be none `[PS3.8 table 9-18]`."""
    return content if content[2:3] == b"\0" else content[:4] + _item(0x40, ImplicitVRLittleEndian.encode())


_READ: Final = {_USER_INFORMATION: _user_information, _ANSWERED: _answered}


def readable(pdu: bytes) -> bytes:
    """Give an A-ASSOCIATE-RQ or -AC as the library reads it; raises what is no sequence of items."""
    content = b"".join(
        _item(kind, _READ.get(kind, bytes)(one)) for kind, one in _items(pdu[_FIXED_BYTES:]) if kind in _ITEMS
    )
    content = pdu[6:_FIXED_BYTES] + content
    return struct.pack(">BBL", pdu[0], 0, len(content)) + content


class Proposal(A_ASSOCIATE_RQ):
    """An A-ASSOCIATE-RQ that may be asked more than once what it means.

    Parameters
    ----------
    pdu
        The whole PDU; raises what the library's decoder raises, and `ValueError` for contexts that cannot be answered.
    """

    def __init__(self, pdu: bytes) -> None:
        super().__init__()
        self.decode(readable(pdu))
        self.pdu = pdu
        self._primitive: A_ASSOCIATE = super().to_primitive()
        contexts = self._primitive.presentation_context_definition_list
        if len({one.context_id for one in contexts}) < len(contexts):
            raise ValueError("one identifier for two presentation contexts")
        if not all(one.abstract_syntax and one.transfer_syntax for one in contexts):
            raise ValueError("presentation context without a class or a transfer syntax")
        self._offered: Sequence[PresentationContext] | None = None

    def to_primitive(self) -> A_ASSOCIATE:
        """Give the indication; each association has one of its own, the items in it are read only."""
        return copy.copy(self._primitive)

    def offered(self, offer: Callable[[A_ASSOCIATE], Sequence[PresentationContext]]) -> list[PresentationContext]:
        """Answer with the contexts to negotiate from, which `offer` made of it the first time."""
        if self._offered is None:
            self._offered = offer(self.to_primitive())
        return list(self._offered)


class Proposals:
    """Those of one port that came before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Proposal] = OrderedDict()

    def read(self, pdu: bytes) -> Proposal:
        """Read a proposal, or remember it; raises what the library's decoder raises."""
        with self._lock:
            known = self._known.get(pdu)
            if known is not None:
                self._known.move_to_end(pdu)
        return known or Proposal(pdu)

    def keep(self, proposal: Proposal) -> None:
        """Remember what a recognised caller proposed; who has not proposed for longest is forgotten."""
        if len(proposal.pdu) > _MOST_BYTES:
            return
        with self._lock:
            self._known.setdefault(proposal.pdu, proposal)
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
