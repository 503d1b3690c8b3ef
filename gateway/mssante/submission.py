"""SMTP submission: one message, one recipient, one honest outcome, over connections that are kept between messages.

Promises: what is sent is exactly the bytes given, dot-stuffed; the outcome says whether the operator has the message
(`Fate.DELIVERED`), will never take it (`REFUSED`), certainly has not (`UNAVAILABLE`), or may have (`UNCERTAIN`: the
connection was lost between the final dot and the answer). A connection that the operator left while it was idle is
replaced once, before any of the message was taken; nothing else is tried again: the outbox does that. Threads may
send at once, each through a connection of its own; none is kept across a fork.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass

from gateway.mssante.account import Account
from gateway.mssante.connection import Attempted, Connection, Fate, Lapsed, Stop, Timeouts
from gateway.mssante.envelope import check_address

__all__ = ["Keeping", "Submission"]

_LINE_MAX_BYTES = 998


@dataclass(frozen=True)
class Keeping:
    """How long a connection serves: seconds without a message, messages, and seconds since certificates were looked at.

    Operators close idle connections after minutes; long before, it is left by us.
    """

    idle_s: float = 30.0
    messages: int = 100
    age_s: float = 600.0


class Submission:
    """The operator's submission service, for the gateway's mailbox.

    Parameters
    ----------
    account
        Server, TLS, proof of identity.
    keeping
        How long a connection is kept for the next message.
    helo
        Name given in EHLO; an address literal by default, so that this machine's name stays here.
    """

    def __init__(
        self,
        account: Account,
        *,
        timeouts: Timeouts | None = None,
        keeping: Keeping | None = None,
        helo: str = "[127.0.0.1]",
    ) -> None:
        self._account = account
        self._timeouts = timeouts or Timeouts()
        self._keeping = keeping or Keeping()
        self._helo = helo
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._tidying = False

    def send(self, content: bytes, *, sender: str, recipient: str, envelope_id: str | None = None) -> Attempted:
        """Submit one message.

        Parameters
        ----------
        content
            The whole message, CRLF line ends.
        sender, recipient
            Envelope addresses; reports come back to `sender`, to nobody when it is empty.
        envelope_id
            ENVID for the delivery reports.

        Raises
        ------
        InvalidContent
            ``mail-address``: an address that SMTP cannot carry; nothing was tried.
        """
        if sender:
            check_address(sender)
        check_address(recipient)
        if not _lines_are_whole(content):
            # Bare line ends let one message smuggle another; our own envelope never makes them. [RFC 5321 §2.3.8]
            return Attempted(Fate.REFUSED, "line-ends")
        kept = self._take()
        try:
            if kept is not None:
                try:
                    return self._through(kept, content, sender, recipient, envelope_id)
                except Lapsed:
                    pass
            return self._through(self._fresh(), content, sender, recipient, envelope_id)
        except Stop as stop:
            return stop.attempted

    def check(self) -> Attempted:
        """Connect, secure, authenticate, leave; for ``rcp-gateway check``."""
        try:
            connection = self._fresh()
        except Stop as stop:
            return stop.attempted
        connection.leave()
        return Attempted(Fate.DELIVERED, "accepted")

    def close(self) -> None:
        """Leave every connection that is kept; the next message opens one again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.leave()

    def _fresh(self) -> Connection:
        return Connection(self._account, self._timeouts, self._helo)

    def _through(
        self, connection: Connection, content: bytes, sender: str, recipient: str, envelope_id: str | None
    ) -> Attempted:
        try:
            return connection.send(content, sender=sender, recipient=recipient, envelope_id=envelope_id)
        finally:
            connection.used_at = time.monotonic()
            self._put(connection)

    def _take(self) -> Connection | None:
        """Give the connection that served last, if it can serve again; leave those that cannot."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                found = self._idle.pop()
            if self._serves(found) and found.silent:
                return found
            found.leave()

    def _put(self, connection: Connection) -> None:
        if not self._serves(connection):
            connection.leave()
            return
        with self._lock:
            self._idle.append(connection)
            tidying, self._tidying = self._tidying, True
        if not tidying:
            self._tidy_later()

    def _serves(self, connection: Connection) -> bool:
        now, keeping = time.monotonic(), self._keeping
        return (
            not connection.broken
            and connection.process == os.getpid()
            and connection.messages < keeping.messages
            and now - connection.used_at < keeping.idle_s
            and now - connection.opened_at < keeping.age_s
        )

    def _tidy_later(self) -> None:
        timer = threading.Timer(self._keeping.idle_s, self._tidy)
        timer.daemon = True
        timer.start()

    def _tidy(self) -> None:
        """Leave what nobody used for long, so that the operator's places are free while there is nothing to send."""
        with self._lock:
            stale = [one for one in self._idle if not self._serves(one)]
            self._idle = [one for one in self._idle if one not in stale]
            self._tidying = bool(self._idle)
            again = self._tidying
        for connection in stale:
            connection.leave()
        if again:
            self._tidy_later()


def _lines_are_whole(content: bytes) -> bool:
    """Whether lines end with CRLF alone and none is too long [RFC 5321 §2.3.8, §4.5.3.1.6]; counted, for speed."""
    ends = content.count(b"\r\n")
    if content.count(b"\r") != ends or content.count(b"\n") != ends:
        return False
    return all(len(line) <= _LINE_MAX_BYTES for line in content.split(b"\r\n"))
