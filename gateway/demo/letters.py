"""A physician's MSSanté mailbox, read as a mail program does: IMAP, then the parts of the message [RFC 3501, 5322]."""

from __future__ import annotations

import contextlib
import email
import email.policy
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

from imapclient import IMAPClient

from gateway.demo.narration import NotSeen

__all__ = ["Letter", "MailServer", "read_letters", "wait_for"]

_POLL_S = 0.3


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mailboxes are read, who signed its certificate, and the one password of the demonstration's mailboxes."""

    host: str
    port: int
    authorities: Path
    password: str


@dataclass(frozen=True, slots=True)
class Letter:
    """One message as it lies in the mailbox."""

    raw: bytes

    @property
    def message(self) -> EmailMessage:
        """The parsed message."""
        return email.message_from_bytes(self.raw, _class=EmailMessage, policy=email.policy.default)

    @property
    def as_sent(self) -> bytes:
        """The message from its first own field on: an operator writes its trace above it [RFC 5321 4.4]."""
        return self.raw[max(self.raw.find(b"Message-ID:"), 0) :]

    @property
    def subject(self) -> str:
        """The decoded subject."""
        return str(self.message["Subject"])

    @property
    def text(self) -> str:
        """The plain text."""
        body = self.message.get_body(("plain",))
        return str(body.get_content()) if body else ""

    @property
    def attachments(self) -> dict[str, bytes]:
        """File name → bytes."""
        found: dict[str, bytes] = {}
        for part in self.message.iter_attachments():
            content = part.get_payload(decode=True)
            found[part.get_filename() or "sans-nom"] = content if isinstance(content, bytes) else b""
        return found


@contextlib.contextmanager
def _opened(server: MailServer, address: str) -> Iterator[IMAPClient]:
    client = IMAPClient(server.host, port=server.port, ssl=False, timeout=20)
    try:
        client.starttls(ssl.create_default_context(cafile=str(server.authorities)))
        client.login(address, server.password)
        client.select_folder("INBOX", readonly=True)
        yield client
    finally:
        with contextlib.suppress(Exception):
            client.logout()


def read_letters(server: MailServer, address: str) -> list[Letter]:
    """Return what lies in a mailbox, oldest first."""
    with _opened(server, address) as client:
        numbers = client.search("ALL")
        fetched = client.fetch(numbers, ["BODY.PEEK[]"]) if numbers else {}
        return [Letter(bytes(fetched[number][b"BODY[]"])) for number in sorted(fetched)]


def wait_for(server: MailServer, address: str, subject: str, *, within_s: float = 180.0) -> Letter:
    """Wait for the one message whose subject is, or begins with, ``subject``.

    A mailbox may hold a second copy of it when the sender was killed between the operator's answer and its record of
    it: the same bytes under the same Message-ID, which a mail program shows once (DECISIONS 1).

    Raises
    ------
    NotSeen
        None came in time, or more than one did, or one came with two contents.
    """
    deadline = time.monotonic() + within_s
    found: set[bytes] = set()
    letters: list[Letter] = []
    while time.monotonic() < deadline:
        letters = [letter for letter in read_letters(server, address) if letter.subject.startswith(subject)]
        found = {letter.as_sent for letter in letters}
        if found:
            break
        time.sleep(_POLL_S)
    if len(found) != 1:
        raise NotSeen(f"Mail « {subject} »", f"{len(found)} message(s) dans la boîte {address} après {within_s:.0f} s")
    return letters[0]
