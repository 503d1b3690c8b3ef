"""How many associations this process holds with one application at once.

Promises: a place is given back once, however the association ended; who finds none waits a little and is told which
limit it was. Does not count what other processes hold.
"""

from __future__ import annotations

import threading
from typing import Final

from gateway.errors import Unavailable

__all__ = ["MAX_TO_ONE", "Place", "taken"]

#: Of one process to one host and port: a PACS that several C-MOVEs send to keeps places for others.
MAX_TO_ONE: Final = 8

_free = threading.Condition()
_held: dict[tuple[str, int], int] = {}


class Place:
    """One association's."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._given_back = False

    def give_back(self) -> None:
        """Let another one have it; a second time does nothing."""
        with _free:
            if self._given_back:
                return
            self._given_back = True
            left = _held[self._address] - 1
            if left:
                _held[self._address] = left
            else:
                del _held[self._address]
            _free.notify_all()


def taken(address: tuple[str, int], wait_s: float) -> Place:
    """Take a place.

    Raises
    ------
    Unavailable
        ``dicom-peer-places``.
    """
    with _free:
        if not _free.wait_for(lambda: _held.get(address, 0) < MAX_TO_ONE, wait_s):
            text = f"{MAX_TO_ONE} associations avec cette application sont déjà ouvertes."
            raise Unavailable("dicom-peer-places", text)
        _held[address] = _held.get(address, 0) + 1
    return Place(address)
