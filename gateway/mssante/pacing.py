"""How fast the gateway sends through one operator.

Promises: no more than the rate, but for a short burst after silence; a message that must wait is told when to come
again and then passes at once, so that each waits once however many there are; an operator that says « later » is given
half the rate, again and again, and comes back to the whole of it as he accepts. Waits for nobody itself and forgets all
with the process: the outbox keeps the messages.

What `Pace` does is the generic cell rate algorithm with places kept. [spec mssante 5.7]
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Pace"]

_SLOWING = frozenset({"smtp-421", "smtp-450", "smtp-451", "smtp-452"})
_SLOWEST = 16.0
_RECOVERY = 0.9
_FORGOTTEN_S = 300.0
_TICK_S = 1e-6
"""Sums of floats differ by less; nobody waits for it."""


class Pace:
    """The pace of one operator; threads share it.

    Parameters
    ----------
    per_minute
        Messages a minute, in the long run.
    burst
        How many may leave at once after silence.
    """

    def __init__(self, per_minute: int, *, burst: int = 10, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = 60.0 / per_minute
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._slowness = 1.0
        self._free_from = 0.0
        self._places: dict[str, float] = {}

    def wait_s(self, key: str) -> float:
        """Say how long a message must wait: 0 is its turn, which is then over; else its place is kept for then."""
        with self._lock:
            now = self._clock()
            place = self._places.get(key)
            if place is None:
                interval_s = self._interval_s * self._slowness
                self._free_from = max(self._free_from, now) + interval_s
                place = max(now, self._free_from - self._burst * interval_s)
            if place - now > _TICK_S:
                self._places[key] = place
                return place - now
            self._places.pop(key, None)
            self._forget(now)
            return 0.0

    def answered(self, code: str) -> None:
        """Hear what the operator said to the last message."""
        with self._lock:
            if code in _SLOWING:
                self._slowness = min(self._slowness * 2, _SLOWEST)
                # Places given at the former rate are void, and what was saved up is lost.
                self._places.clear()
                self._free_from = self._clock() + self._burst * self._interval_s * self._slowness
            elif code == "accepted":
                self._slowness = max(1.0, self._slowness * _RECOVERY)

    def _forget(self, now: float) -> None:
        """Drop the places of messages that were cancelled while they waited."""
        if self._places and min(self._places.values()) < now - _FORGOTTEN_S:
            self._places = {key: place for key, place in self._places.items() if place >= now - _FORGOTTEN_S}
