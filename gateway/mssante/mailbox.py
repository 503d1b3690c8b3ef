r"""Reading the gateway's mailbox by IMAP, so that nothing is lost and nothing is read twice.

Promises: a message is handed over whole and byte for byte (``BODY.PEEK[]``); it is marked ``\Seen`` only after the
taker has committed it; the position (UIDVALIDITY, last UID) belongs to the taker, so that it commits with the message;
when UIDVALIDITY changes all is read again and the taker recognises what it has; a message above the limit is handed
over as its header, marked so. Deletes and moves nothing. IDLE shortens the wait between two looks where it is offered.

Sources: [RFC 9051], [RFC 3501 §2.3.1.1], [RFC 2177], spec mssante 5.8.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import structlog
from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientError, LoginError

from gateway.errors import Unavailable
from gateway.mssante.account import Account

__all__ = ["Fetched", "Mailbox", "Position", "Taker"]

_log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES = 30_000_000
"""Above this only the header is read; the rest stays on the server."""

_BATCH = 100
_HEADER_BYTES = 256 * 1024


@dataclass(frozen=True)
class Position:
    """How far a folder has been taken."""

    uid_validity: int
    last_uid: int


@dataclass(frozen=True)
class Fetched:
    """One message of the mailbox.

    Attributes
    ----------
    content
        The raw message; only its header when `whole` is false.
    size_bytes
        Size that the server states.
    """

    uid_validity: int
    uid: int
    content: bytes = field(repr=False)
    size_bytes: int
    whole: bool = True

    @property
    def key(self) -> str:
        """The wire's own identity of the message."""
        return f"{self.uid_validity}.{self.uid}"


class _Chosen(NamedTuple):
    """The folder as it stood when it was selected; two that are equal have no news between them."""

    uid_validity: int
    uid_next: int | None
    exists: int | None


class Taker(Protocol):
    """Keeps what is read."""

    def position(self) -> Position | None:
        """Return how far the folder has been taken, or None for never."""

    def keep(self, message: Fetched) -> None:
        r"""Commit the message and the position; when it returns the message may be marked ``\Seen``."""


class Mailbox:
    """One folder of the gateway's mailbox.

    Parameters
    ----------
    account
        Server, TLS, proof of identity.
    poll_s
        Seconds between two looks at most, at most 20 minutes: servers may end an IDLE after 29 minutes [RFC 2177].
    idle
        False never uses IDLE.
    """

    def __init__(
        self,
        account: Account,
        *,
        folder: str = "INBOX",
        max_bytes: int = MAX_MESSAGE_BYTES,
        timeout_s: float = 60.0,
        poll_s: float = 60.0,
        idle: bool = True,
    ) -> None:
        self._account = account
        self._folder = folder
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._poll_s = min(poll_s, 20 * 60.0)
        self._idle = idle

    def check(self) -> None:
        """Connect, authenticate, select, leave; for ``rcp-gateway check``.

        Raises
        ------
        Unavailable
            With the code of what went wrong.
        """
        with self._session():
            pass

    def read(self, taker: Taker) -> int:
        """Hand over everything that has not been taken yet; return how many messages.

        Raises
        ------
        Unavailable
            The server cannot be read now. What was handed over before stays kept.
        """
        with self._session() as (client, known):
            return self._drain(client, known.uid_validity, taker)

    def watch(self, taker: Taker, stop: threading.Event, *, first_pause_s: float = 1.0) -> None:
        """Read, then wait for news, until `stop` is set; reconnect with growing pauses after a failure.

        A failure of the taker is a failure of that round: the message stays unread and is handed over again.
        """
        pause_s = first_pause_s
        while not stop.is_set():
            try:
                with self._session() as (client, chosen):
                    known = chosen
                    while not stop.is_set():
                        taken = self._drain(client, known.uid_validity, taker)
                        pause_s = first_pause_s
                        if taken:
                            continue
                        # What came while a command ran was announced in its answer, and IDLE does not repeat it.
                        now = self._chosen(client)
                        if now == known:
                            self._wait(client, stop)
                        known = now
            except Unavailable as error:
                _log.warning("mailbox-unavailable", code=error.code)
            except Exception as error:  # noqa: BLE001 (the reader must outlive any one message; its type is enough)
                _log.error("mailbox-round-failed", error=type(error).__name__)  # no trace: it may hold content
            stop.wait(pause_s)
            pause_s = min(pause_s * 2, 300.0)

    def _drain(self, client: IMAPClient, uid_validity: int, taker: Taker) -> int:
        position = taker.position()
        last = position.last_uid if position is not None and position.uid_validity == uid_validity else 0
        # "n:*" always names the highest message, even below n. [RFC 3501 §6.4.8]
        uids = sorted(uid for uid in client.search(["UID", f"{last + 1}:*"]) if uid > last)
        taken = 0
        for start in range(0, len(uids), _BATCH):
            sizes = client.fetch(uids[start : start + _BATCH], ["RFC822.SIZE"])
            for uid in uids[start : start + _BATCH]:
                if uid in sizes:  # else expunged meanwhile
                    taken += self._take(client, uid_validity, uid, int(sizes[uid][b"RFC822.SIZE"]), taker)
        return taken

    def _take(self, client: IMAPClient, uid_validity: int, uid: int, size_bytes: int, taker: Taker) -> bool:
        whole = size_bytes <= self._max_bytes
        # Of a header alone its beginning is enough: it may be what makes the message too large.
        header = (f"BODY.PEEK[HEADER]<0.{_HEADER_BYTES}>", b"BODY[HEADER]<0>")
        item, answer = ("BODY.PEEK[]", b"BODY[]") if whole else header
        found: dict[bytes, Any] = client.fetch([uid], [item]).get(uid, {})
        content = found.get(answer)
        if content is None:
            return False  # expunged between the two commands
        taker.keep(Fetched(uid_validity, uid, bytes(content), size_bytes, whole))
        client.add_flags([uid], [b"\\Seen"], silent=True)
        return True

    def _wait(self, client: IMAPClient, stop: threading.Event) -> None:
        if not (self._idle and client.has_capability("IDLE")):
            stop.wait(self._poll_s)
            return
        until = time.monotonic() + self._poll_s
        client.idle()
        try:
            while not stop.is_set() and time.monotonic() < until:
                if any(event[1:2] in {(b"EXISTS",), (b"RECENT",)} for event in client.idle_check(timeout=0.5)):
                    return
        finally:
            client.idle_done()

    @contextmanager
    def _session(self) -> Iterator[tuple[IMAPClient, _Chosen]]:
        client: IMAPClient | None = None
        try:
            client = self._connect()
            yield client, self._chosen(client)
        except LoginError as error:
            raise Unavailable("mailbox-login", "La messagerie a refusé l’authentification.") from error
        except (IMAPClientError, OSError, KeyError) as error:
            raise Unavailable("mailbox", "La boîte de messagerie ne répond pas.") from error
        finally:
            if client is not None:
                _leave(client)

    def _chosen(self, client: IMAPClient) -> _Chosen:
        said = client.select_folder(self._folder)
        return _Chosen(int(said[b"UIDVALIDITY"]), said.get(b"UIDNEXT"), said.get(b"EXISTS"))

    def _connect(self) -> IMAPClient:
        server = self._account.server
        context = self._account.context()
        client = IMAPClient(
            server.host,
            server.port,
            ssl=server.security == "tls",
            ssl_context=context if server.security == "tls" else None,
            timeout=self._timeout_s,
        )
        try:
            if server.security == "starttls":
                client.starttls(context)  # refused by the library when the server does not offer it
            self._authenticate(client)
        except BaseException:
            _leave(client)
            raise
        return client

    def _authenticate(self, client: IMAPClient) -> None:
        server, account = self._account.server, self._account
        if account.token is not None:
            client.oauth2_login(server.user or "", account.token())
        elif server.user and server.password is not None:
            if client.has_capability("AUTH=PLAIN"):
                client.plain_login(server.user, server.password)  # LOGIN cannot carry a password beyond ASCII
            else:
                client.login(server.user, server.password)
        elif account.has_client_certificate and client.has_capability("AUTH=EXTERNAL"):
            client.sasl_login("EXTERNAL", lambda _challenge: b"")


def _leave(client: IMAPClient) -> None:
    try:
        client.logout()
    except (IMAPClientError, OSError):
        try:
            client.shutdown()
        except (IMAPClientError, OSError):
            return
