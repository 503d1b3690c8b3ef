"""What a test needs to meet a real server on this machine: a port, patience, and the raw mails of a mailbox."""

from __future__ import annotations

import contextlib
import imaplib
import random
import socket
import time
from collections.abc import Callable

__all__ = ["free_port", "raw_mails", "until", "wait_until"]


def free_port() -> int:
    """A port that nobody listens on now, below those that the system gives away by itself: it stays free for later."""
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311 - a port, not a secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], object], timeout_s: float = 30) -> bool:
    """Whether a condition came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Wait for a condition, or fail."""
    assert wait_until(condition, timeout_s), "waited in vain"


def raw_mails(imap: imaplib.IMAP4, user: str, password: str) -> list[bytes]:
    """The raw messages of an inbox, read by the standard library's own client; none is marked as read."""
    imap.login(user, password)
    imap.select("INBOX", readonly=True)
    _, (found,) = imap.search(None, "ALL")
    return [imap.fetch(number, "(BODY.PEEK[])")[1][0][1] for number in found.split()]
