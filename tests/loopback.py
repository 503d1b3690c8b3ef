"""What a test needs to meet a real server on this machine: a port, patience, and the raw mails of a mailbox."""

from __future__ import annotations

import contextlib
import imaplib
import itertools
import os
import random
import socket
import time
from collections.abc import Callable, Iterator

__all__ = ["PATIENCE_S", "free_port", "ipv6_offered", "raw_mails", "until", "wait_until"]

#: For what comes within a second when all is well; a busy machine may take a hundred times as long.
PATIENCE_S = 120.0


def _order() -> Iterator[int]:
    """The ports of this worker, round and round: a port comes again only after thousands of others."""
    workers, own = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")), os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    mine = list(range(20_000 + int(own.removeprefix("gw")), 32_000, workers))
    random.SystemRandom().shuffle(mine)  # another run on this machine has another order, whoever seeds `random`
    return itertools.cycle(mine)


_PORTS = _order()


def free_port() -> int:
    """A port that nobody listens on now, below those that the system gives away by itself: it stays free for later.

    No other worker is given it and this one not soon again: between here and the server that takes it nobody else does.
    """
    while True:
        port = next(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> bool:
    """Whether a condition came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Wait for a condition, or fail."""
    assert wait_until(condition, timeout_s), "waited in vain"


def raw_mails(imap: imaplib.IMAP4, user: str, password: str) -> list[bytes]:
    """The raw messages of an inbox, read by the standard library's own client; none is marked as read."""
    imap.login(user, password)
    imap.select("INBOX", readonly=True)
    _, (found,) = imap.search(None, "ALL")
    return [imap.fetch(number, "(BODY.PEEK[])")[1][0][1] for number in found.split()]


def ipv6_offered() -> bool:
    """Whether the machine has a loopback address of IPv6."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
