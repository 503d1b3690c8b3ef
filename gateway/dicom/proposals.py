"""What a proposal means is read once: a PACS opens each of its associations with the same bytes.

An A-ASSOCIATE-RQ of a hundred presentation contexts, as storescu and most senders have them, costs 5 ms of processor to
read and to answer with what is offered; four associations that open together wait for one another. What certain bytes
meant is kept under these bytes.

Promises: a proposal that differs in one bit is read as if none had come before; an association cannot change what
another's proposal means; only proposals of recognised callers are kept (`keep`), so many and so long at most.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

__all__ = ["Proposal", "Proposals"]

#: Read, a proposal takes some thirty times its bytes.
_MOST: Final = 32
_MOST_BYTES: Final = 16_384


class Proposal(A_ASSOCIATE_RQ):
    """An A-ASSOCIATE-RQ that may be asked more than once what it means.

    Parameters
    ----------
    pdu
        The whole PDU; raises what the library's decoder raises.
    """

    def __init__(self, pdu: bytes) -> None:
        super().__init__()
        self.decode(pdu)
        self.pdu = pdu
        self._primitive: A_ASSOCIATE | None = None
        self._offered: Sequence[PresentationContext] | None = None

    def to_primitive(self) -> A_ASSOCIATE:
        """Give the indication; each association has one of its own, the items in it are read only."""
        if self._primitive is None:
            self._primitive = super().to_primitive()
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
