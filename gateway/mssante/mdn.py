"""The notification that goes back for a document that came: integrated, or why not.

Promises: only who asks for it gets one, at the very address that sent the document (From, Sender, Return-Path and
Disposition-Notification-To name it alone), and never for what a machine answers or a list spreads; it asks for nothing,
is told undelivered to nobody (empty envelope sender) and is of a kind that is never answered: no loop can begin. The
same request and outcome give the same bytes. The mail itself goes back with it when it is plain 7-bit text of a fair
size, else its header alone. Decides nothing of the document.

Sources: [RFC 8098], [RFC 6522], [RFC 3834], spec mssante 5.5, 5.8 (S05, S06), 3.6 (codes 900 to 906).
"""

from __future__ import annotations

import re
import unicodedata
from base64 import encodebytes
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email import policy
from email.message import EmailMessage, Message
from email.utils import getaddresses

from gateway.errors import InvalidContent
from gateway.mssante import envelope, parts, receipts
from gateway.rcp.ports import SealedLetter
from gateway.rcp.received_codes import LABELS, error_code

__all__ = ["Answering", "Request", "request"]

_POLICY = policy.SMTP.clone(cte_type="7bit")
_SUBJECT_CHARACTERS = 200
#: A longer identifier would make a line that no server takes.
_ID_CHARACTERS = 900
_ORIGINAL_BYTES = 5_000_000
_HEAD_BYTES = 32 * 1024
_LINE = re.compile(rb"[^\r\n]{0,998}(?:\r\n|\Z)")
#: What may be sent back by itself: a person's mail, or what an application sends of its own accord.
_ASKABLE = frozenset({"no", "auto-generated"})
_MACHINE_HEADERS = ("Precedence", "List-Id", "X-Autoreply", "X-Autorespond")
_ASCII_LABELS: Mapping[str, str] = {
    # The field of the report is ASCII [RFC 8098 §3.1]; the text for people (`received_codes.LABELS`) is not.
    "900": "Version de document incorrecte",
    "901": "Auteur non autorise",
    "902": "Identifiant patient inconnu",
    "903": "INS absent du document",
    "904": "INS ou traits differents",
    "905": "Traits INS incomplets",
    "906": "Autre erreur",
}


@dataclass(frozen=True)
class Request:
    """Who asks to be told what becomes of his mail, and which mail."""

    address: str
    message_id: str | None
    subject: str
    content: bytes = field(repr=False)


def request(content: bytes, found: receipts.Incoming, *, own: str) -> Request | None:
    """Read who asks for a notification; none when nobody does, or it may not be answered by itself.

    Parameters
    ----------
    found
        What the mail is (`receipts.read`).
    own
        The gateway's mailbox, which is answered by nobody.
    """
    message, _ = parts.parse(content)
    if message is None or found.kind is not receipts.Kind.DOCUMENT or found.author is None:
        return None
    asked = _asked(message)
    path = [str(one).strip().strip("<>").lower() for one in message.get_all("Return-Path", [])]
    if asked is None or path != [asked] or found.author != asked or asked == own.lower() or not _may_answer(message):
        return None
    try:
        envelope.check_address(asked)
    except InvalidContent:
        return None
    identifier = found.message_id if len(found.message_id or "") <= _ID_CHARACTERS else None
    plain = "".join(c for c in found.subject or "" if unicodedata.category(c) not in {"Cc", "Cs", "Zl", "Zp"})
    return Request(asked, identifier, plain[:_SUBJECT_CHARACTERS].strip(), content)


def _asked(message: Message) -> str | None:
    said = [str(one) for one in message.get_all("Disposition-Notification-To", [])]
    found = [address.lower() for _, address in getaddresses(said)]
    options = str(message.get("Disposition-Notification-Options", "")).lower()
    # What must be understood and is not forbids an answer. [RFC 8098 §2.2]
    return found[0] if len(said) == len(found) == 1 and "required" not in options else None


def _may_answer(message: Message) -> bool:
    said = str(message.get("Auto-Submitted", "no")).partition(";")[0].strip().lower()
    return said in _ASKABLE and all(message.get(name) is None for name in _MACHINE_HEADERS)


@dataclass(frozen=True)
class Answering:
    """The mailbox that answers.

    Parameters
    ----------
    address, name, nil
        As of every mail of the gateway.
    """

    address: str
    nil: str
    name: str = ""

    def seal(self, asked: Request, reason: str | None, *, key: str, at: datetime) -> SealedLetter:
        """Give the bytes of one notification.

        Parameters
        ----------
        reason
            Why the document waits for a person; `None` when it was taken.
        """
        code = error_code(reason)
        identifier = envelope.message_id(key, self.address)
        boundary = "=_" + envelope.envelope_id(key)
        parted = [
            _text(code),
            _part("message/disposition-notification", self._fields(asked, code).encode("ascii")),
            _original(asked.content),
        ]
        head = self._head(asked, code, identifier, at) + (
            f'Content-Type: multipart/report; report-type=disposition-notification;\r\n boundary="{boundary}"\r\n'
        ).encode("ascii")
        opening, closing = (f"--{boundary}{end}\r\n".encode("ascii") for end in ("", "--"))
        content = head + b"".join(b"\r\n" + opening + part for part in parted) + b"\r\n" + closing
        return SealedLetter(content=content, message_id=identifier, envelope_id="", sender=self.address)

    def _head(self, asked: Request, code: str | None, identifier: str, at: datetime) -> bytes:
        made = EmailMessage(policy=_POLICY)
        made["MIME-Version"] = "1.0"
        made["Date"] = at.replace(microsecond=0)
        made["From"] = envelope.mailbox(self.name, self.address)
        made["To"] = envelope.mailbox("", asked.address)
        subject = asked.subject or "Document reçu"
        made["Subject"] = subject if code is None else f"[KO Intégration système !][{code}] {subject}"
        made["Auto-Submitted"] = "auto-replied"
        if self.nil:
            made["X-MSS-NIL"] = self.nil
        named = [f"Message-ID: <{identifier}>"]
        if asked.message_id is not None and asked.message_id.isascii():
            named += [f"{name}: <{asked.message_id}>" for name in ("In-Reply-To", "References")]
        return "".join(f"{one}\r\n" for one in named).encode("ascii") + made.as_bytes().rstrip(b"\r\n") + b"\r\n"

    def _fields(self, asked: Request, code: str | None) -> str:
        host = self.address.rpartition("@")[2]
        said = [
            f"Reporting-UA: {host}; rcp-gateway",
            f"Original-Recipient: rfc822;{self.address}",
            f"Final-Recipient: rfc822;{self.address}",
        ]
        if asked.message_id is not None and asked.message_id.isascii():
            said.append(f"Original-Message-ID: <{asked.message_id}>")
        mode = "automatic-action/MDN-sent-automatically"
        said.append(f"Disposition: {mode}; processed{'/error' if code is not None else ''}")
        if code is not None:
            said.append(f"Error: {code}^{_ASCII_LABELS[code]}^applicationErrorCondition")
        return "".join(f"{line}\r\n" for line in said)


def _text(code: str | None) -> bytes:
    said = "Document intégré." if code is None else f"Document non intégré\u00a0: {code} {LABELS[code]}."
    made = EmailMessage(policy=_POLICY)
    made.set_content(said + "\n", charset="utf-8", cte="quoted-printable")
    del made["MIME-Version"]
    return made.as_bytes()


def _part(media_type: str, content: bytes, encoding: str = "7bit") -> bytes:
    head = f"Content-Type: {media_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode("ascii") + content


def _original(content: bytes) -> bytes:
    """The mail that came, where it can be carried as it is [RFC 2046 §5.2.1]; else its header."""
    if len(content) <= _ORIGINAL_BYTES and content.isascii() and b"\x00" not in content and _is_plain(content):
        return _part("message/rfc822", content)
    head = content.partition(b"\r\n\r\n")[0][:_HEAD_BYTES]
    return _part("text/rfc822-headers", encodebytes(head + b"\r\n").replace(b"\n", b"\r\n"), "base64")


def _is_plain(content: bytes) -> bool:
    at = 0
    while at < len(content):
        found = _LINE.match(content, at)
        if found is None or found.end() == at:
            return False
        at = found.end()
    return True
