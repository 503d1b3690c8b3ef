"""Whose turn it is while subscribers are told: what one partner's filters cost holds up nobody else for long.

Promises
--------
* Each partner is worked for a second, then the next one; what it is to be told is told in its order.
* One whose share of a turn is used up waits for the next turn with the rest, however many subscriptions it has and
  whatever they cost: everybody else is told in this one.

Not promised: processor time; what is measured is how long others wait.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

__all__ = ["FairShare"]

#: What one partner's subscriptions may take of one turn, and of it before the next partner's.
_SHARE_S: Final = 5.0
_SLICE_S: Final = 1.0

Work = TypeVar("Work")


class FairShare:
    """One turn."""

    def __init__(self) -> None:
        self._spent: defaultdict[uuid.UUID, float] = defaultdict(float)

    def of(self, waiting: Mapping[uuid.UUID, deque[Work]]) -> Iterator[Work]:
        """Give out what waits for each partner, while it has something of its share left; the rest stays there."""
        while begun := [partner for partner in waiting if self._may(waiting, partner)]:
            for partner in begun:
                until = self._spent[partner] + _SLICE_S
                while self._may(waiting, partner) and self._spent[partner] < until:
                    at = time.monotonic()
                    yield waiting[partner].popleft()
                    self._spent[partner] += time.monotonic() - at

    def _may(self, waiting: Mapping[uuid.UUID, deque[Work]], partner: uuid.UUID) -> bool:
        return bool(waiting[partner]) and self._spent[partner] < _SHARE_S
