"""How the threads of an association wait: asleep while nothing happens, awake at the first byte.

The stock threads poll once a millisecond, so that 20 idle associations burn a core. Here the quieter an association is,
the longer each turn lasts, up to `Pace.LONGEST_S`; bytes from the peer end the wait at once.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from pynetdicom.transport import AssociationSocket

__all__ = ["Pace", "WaitingSocket", "poll"]


class Pace(threading.Event):
    """The reactor's checkpoint, made to sleep while nothing happens.

    The stock reactor turns once a millisecond: 20 idle associations burn a core. It passes here at each turn; the
    quieter the association, the longer it stays, at most `LONGEST_S`, and a PDU given to the stock path wakes it.
    """

    LONGEST_S: Final = 0.1

    def __init__(self) -> None:
        super().__init__()
        self._bell = threading.Event()
        self._heard_at = time.monotonic()
        self.set()

    def ring(self) -> None:
        """Say that something happened."""
        self._heard_at = time.monotonic()
        self._bell.set()

    def pause_s(self) -> float:
        """Give the length of the next turn."""
        return min((time.monotonic() - self._heard_at) / 10, self.LONGEST_S)

    def wait(self, timeout: float | None = None) -> bool:
        """Keep the stock meaning (blocked while cleared), then rest for one turn."""
        passed = super().wait(timeout)
        self._bell.wait(self.pause_s())
        self._bell.clear()
        return passed


def poll(sock: socket.socket, timeout_s: float) -> bool:
    """Whether bytes can be read within `timeout_s`; `poll`, because `select` fails from descriptor 1024 on."""
    pending = getattr(sock, "pending", None)
    if pending is not None and pending():
        return True
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))


class WaitingSocket(AssociationSocket):
    """A transport whose « is there something to read » waits a little instead of turning in circles."""

    patience_s: Callable[[], float]
    sending_s: float

    @property
    def ready(self) -> bool:
        """Whether the peer's bytes can be read."""
        if self.socket is None or not self._is_connected:
            return False
        try:
            return poll(self.socket, self.patience_s())
        except (OSError, ValueError):  # closed under our feet
            self.event_queue.put("Evt17")
            return False

    def send(self, bytestream: bytes) -> None:
        """Send one PDU; a peer that does not take it within `sending_s` is gone (stock: within the reads' slice)."""
        try:
            if self.socket is None:
                return
            self.socket.settimeout(self.sending_s)
            self.socket.sendall(bytestream)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
