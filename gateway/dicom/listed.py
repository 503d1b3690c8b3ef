"""All objects of a study, a series or an instance as they stood at one instant, however many, read while they leave.

Promises: constant memory but for sixteen bytes an object; each object once, in the order of the study; one that arrives
meanwhile is in or out, never half of an answer. What is gone meanwhile, or may not be seen any more, breaks the answer
off: nobody is told that he has all of it. Few objects are at hand, and are asked for once.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from gateway.errors import Unavailable

__all__ = ["AT_HAND", "Listed"]

T = TypeVar("T")

#: So many objects are read at once; of more they are read by the page while they leave.
AT_HAND: Final = 1000
_PAGE: Final = 200
_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """Objects.

    Parameters
    ----------
    count
        How many.
    transfer_syntaxes
        What they are kept in.
    records
        The records that they name.
    names
        Together the name of all their bytes, in their order.
    at_hand
        All of them when they are few.
    """

    count: int
    transfer_syntaxes: frozenset[str]
    records: frozenset[uuid.UUID]
    names: tuple[str, ...]
    at_hand: Sequence[T] = ()
    _ids: bytes = b""
    _read: Callable[[list[uuid.UUID]], Awaitable[list[T]]] | None = None

    async def each(self) -> AsyncIterator[T]:
        """Give one after another.

        Raises
        ------
        Unavailable
            ``dicom-study-changed``, ``database``.
        """
        for one in self.at_hand:
            yield one
        if self._read is None:
            return
        for at in range(0, self.count, _PAGE):
            for one in await self._page(self._read, at):
                yield one

    async def middle(self) -> Sequence[T]:
        """Give all when they are few, else those about the middle; raises as `each`."""
        return self.at_hand if self._read is None else await self._page(self._read, (self.count - _PAGE) // 2)

    async def _page(self, read: Callable[[list[uuid.UUID]], Awaitable[list[T]]], first: int) -> list[T]:
        last = min(first + _PAGE, self.count)
        places = range(first * _ID_BYTES, last * _ID_BYTES, _ID_BYTES)
        found = await read([uuid.UUID(bytes=self._ids[at : at + _ID_BYTES]) for at in places])
        if len(found) < last - first:
            text = "L’étude a changé pendant qu’elle était lue : demander à nouveau."
            raise Unavailable("dicom-study-changed", text, retry_after_s=1)
        return found
