"""What an incoming mail is, and what a receipt says of which of our messages.

Promises: any bytes get an answer (`read` raises nothing); a receipt counts only at the top of a mail, never inside a
forwarded one; old and new spellings of the integration errors are understood; whatever is not understood is named
`Kind.HUMAN` with the reason, for the work list. Believes no identity found in a subject. Stores nothing, ties nothing
to a patient.

Sources: [RFC 3464], [RFC 3461], [RFC 6522], [RFC 8098], [RFC 3834], spec mssante 5.4, 5.5, 5.8.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import policy
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesParser
from email.utils import getaddresses

from gateway.mssante import parts
from gateway.mssante.parts import children

__all__ = ["Incoming", "Kind", "Receipt", "read"]

_INTEGRATION_ERROR = re.compile(r"\b(90[0-6])\b")
_ERROR_SUBJECT = re.compile(r"^\s*\[(?:KO Intégration système|Erreur d.intégration)\s*!?\s*\]", re.IGNORECASE)
_MESSAGE_ID = re.compile(r"<([^<>\s@]+@[^<>\s@]+)>")
_STATUS = re.compile(r"\b([245]\.\d{1,3}\.\d{1,3})\b")
_SMTP_CODE = re.compile(r"^\s*smtp\s*;\s*(\d{3})\b", re.IGNORECASE)
#: Message-IDs that are looked for; a longer thread is known by its latest.
MAX_ANSWERS = 50
_MACHINE_PRECEDENCE = frozenset({"bulk", "junk", "list", "auto_reply"})
_MACHINE_HEADERS = ("X-Autoreply", "X-Autorespond", "X-Auto-Response-Suppress", "List-Id")
_BOUNCE_SENDERS = ("mailer-daemon@", "postmaster@")
# They mean nothing in a header, and no text of the database holds NUL or half a character (some charsets make such):
# one such mail would stop all that follow.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
#: A longer identifier is nobody's [RFC 5322 §2.1.1], nor fits into an index of the database; nor is a longer address
#: [RFC 5321 §4.5.3.1.3].
_ID_BYTES, _ADDRESS_BYTES = 998, 254


class Kind(enum.Enum):
    """What an incoming mail is, in the order in which it is looked for (spec mssante 5.8)."""

    DELIVERY_REPORT = "dsn"
    READ_RECEIPT = "mdn"
    BOUNCE = "bounce"
    INTEGRATION_ERROR = "integration-error"
    DOCUMENT = "document"
    AUTOMATIC = "automatic"
    REPLY = "reply"
    HUMAN = "human"


@dataclass(frozen=True)
class Receipt:
    """What one report says of one recipient of one message.

    Attributes
    ----------
    state
        ``delivered``, ``delayed``, ``failed``, ``relayed``, ``expanded`` (DSN); ``displayed``, ``processed``,
        ``dispatched``, ``deleted``, ``error`` (MDN).
    message_id
        Message-ID of ours, without angle brackets, if the report names it.
    envelope_id
        ENVID of ours, if the report names it.
    recipient
        Address the report speaks of, lower case.
    last_known
        Whether that is only where the message went at last (Final-Recipient of a DSN): a forward differs from the
        address that was written to.
    status
        Enhanced status code (DSN).
    code
        Three-digit SMTP code (DSN) or integration error 900 to 906 (MDN).
    """

    state: str
    message_id: str | None = None
    envelope_id: str | None = None
    recipient: str | None = None
    status: str | None = None
    code: str | None = None
    last_known: bool = False


@dataclass(frozen=True)
class Incoming:
    """One incoming mail, classified.

    Attributes
    ----------
    answers
        Message-IDs that it answers (In-Reply-To first, then References from the latest).
    author
        Its sender's address, when every header that names one (From, Sender, Return-Path) names the same.
    automatic
        Whether a machine sent it [RFC 3834]; it never gets an answer.
    reason
        Why it goes to a person, when it does.
    """

    kind: Kind
    message_id: str | None = None
    sender: str | None = None
    author: str | None = None
    subject: str | None = None
    receipts: tuple[Receipt, ...] = ()
    answers: tuple[str, ...] = ()
    automatic: bool = False
    reason: str | None = None


def read(content: bytes) -> Incoming:
    """Classify one mail."""
    message, excess = parts.parse(content)
    if message is None:
        return Incoming(Kind.HUMAN, reason=excess)
    try:
        return _classify(message)
    except Exception:  # noqa: BLE001 - whatever the parser of the standard library raises must not stop the mails behind
        return Incoming(Kind.HUMAN, reason="unreadable")


def _classify(message: Message) -> Incoming:
    known = {
        "message_id": next(iter(_message_ids(message, "Message-ID")), None),
        "sender": _address(_text(message, "From")),
    }
    author = _author(message)
    answers = tuple(dict.fromkeys([*_message_ids(message, "In-Reply-To"), *_message_ids(message, "References")[::-1]]))
    answers = answers[:MAX_ANSWERS]
    automatic = _automatic(message, known["sender"])
    report = (message.get_param("report-type") or "") if message.get_content_type() == "multipart/report" else ""
    report = str(report).lower()
    if report == "delivery-status":
        receipts = tuple(_delivery(message))
        reason = None if receipts else "report-unreadable"
        kind = Kind.DELIVERY_REPORT if receipts else Kind.HUMAN
    elif report == "disposition-notification" or _part(message, "message/disposition-notification") is not None:
        receipts = tuple(_disposition(message, answers))
        reason = None if receipts else "report-unreadable"
        kind = Kind.READ_RECEIPT if receipts else Kind.HUMAN
    else:
        receipts = ()
        kind, reason = _plain_kind(message, known["sender"], answers, automatic=automatic)
    return Incoming(
        kind,
        known["message_id"],
        known["sender"],
        author,
        _text(message, "Subject"),
        receipts,
        answers,
        automatic=automatic,
        reason=reason,
    )


def _plain_kind(
    message: Message, sender: str | None, answers: tuple[str, ...], *, automatic: bool
) -> tuple[Kind, str | None]:
    if _from_machine(message, sender) and (sender or "").startswith(_BOUNCE_SENDERS):
        return Kind.BOUNCE, "bounce-without-report"
    if _ERROR_SUBJECT.match(_text(message, "Subject") or ""):
        return Kind.INTEGRATION_ERROR, "integration-error"
    if any(parts.is_xdm(parts.file_name(part)) for part in message.walk()):
        return Kind.DOCUMENT, "document-received"
    if automatic:
        return Kind.AUTOMATIC, "automatic-answer"
    if answers:
        return Kind.REPLY, "reply"
    return Kind.HUMAN, "unexpected"


def _automatic(message: Message, sender: str | None) -> bool:
    """Whether a machine wrote it: it says so, as the standard asks or as programs did before; or it is a report."""
    said = (_text(message, "Auto-Submitted") or "no").partition(";")[0].strip().lower()
    older = (_text(message, "Precedence") or "").strip().lower() in _MACHINE_PRECEDENCE
    older = older or any(_raw(message, name) is not None for name in _MACHINE_HEADERS)
    reports = message.get_content_type() == "multipart/report"
    return said != "no" or older or reports or _from_machine(message, sender)


def _author(message: Message) -> str | None:
    """The one address that all headers agree on."""
    written = [text for name in ("From", "Sender") for text in message.get_all(name, [])]
    found = {address.lower() for _, address in getaddresses([str(text) for text in written])}
    path = (_text(message, "Return-Path") or "").strip().strip("<>").lower()
    found |= {path} if path else set()
    return (
        next(iter(found)) if len(found) == 1 and len(message.get_all("From", [])) == 1 and "@" in min(found) else None
    )


def _from_machine(message: Message, sender: str | None) -> bool:
    # A null reverse-path marks a report or another automatic answer. [RFC 5321 §4.5.5]
    return (_text(message, "Return-Path") or "").strip() == "<>" or (sender or "").startswith(_BOUNCE_SENDERS)


def _part(message: Message, media_type: str) -> Message | None:
    """Return the first direct part of that type: a report inside a forwarded mail is no report (X22)."""
    return next((part for part in children(message) if part.get_content_type() == media_type), None)


def _delivery(message: Message) -> Iterator[Receipt]:
    status = _part(message, "message/delivery-status")
    if status is None:
        return
    blocks = children(status)
    per_message, recipients = (blocks[0], blocks[1:]) if blocks else (None, [])
    envelope_id = _text(per_message, "Original-Envelope-Id") if per_message is not None else None
    identifier = _returned_message_id(message)
    for block in recipients:
        action = (_text(block, "Action") or "").strip().lower()
        if action not in {"failed", "delayed", "delivered", "relayed", "expanded"}:
            continue
        found = _STATUS.search(_text(block, "Status") or "")
        smtp = _SMTP_CODE.match(_text(block, "Diagnostic-Code") or "")
        original, last = (_typed(_text(block, name)) for name in ("Original-Recipient", "Final-Recipient"))
        yield Receipt(
            action,
            identifier,
            _from_xtext(envelope_id.strip()) if envelope_id else None,
            original or last,
            found[1] if found else None,
            smtp[1] if smtp else None,
            last_known=original is None and last is not None,
        )


def _returned_message_id(message: Message) -> str | None:
    for part in children(message):
        if part.get_content_type() == "message/rfc822":
            for inner in children(part):
                return next(iter(_message_ids(inner, "Message-ID")), None)
        if part.get_content_type() == "text/rfc822-headers":
            raw = part.get_payload(decode=True)
            if isinstance(raw, bytes):
                return next(iter(_message_ids(BytesParser(policy=policy.compat32).parsebytes(raw), "Message-ID")), None)
    return None


def _disposition(message: Message, answers: tuple[str, ...]) -> Iterator[Receipt]:
    part = _part(message, "message/disposition-notification")
    if part is None:
        return
    fields = _fields(part)
    disposition = _text(fields, "Disposition") or ""
    kind, _, modifier = disposition.rpartition(";")[2].strip().lower().partition("/")
    error = _text(fields, "Error")
    if kind not in {"displayed", "processed", "dispatched", "deleted"}:
        return
    failed = modifier.startswith("error") or error is not None
    code = None
    if failed:
        places = (disposition, error or "", _text(message, "Subject") or "", _first_text(message))
        code = next((found[1] for place in places if (found := _INTEGRATION_ERROR.search(place))), None)
    identifiers = _message_ids(fields, "Original-Message-ID") or list(answers)
    yield Receipt(
        "error" if failed else kind,
        next(iter(identifiers), None),
        None,
        _typed(_text(fields, "Original-Recipient")) or _typed(_text(fields, "Final-Recipient")),
        None,
        code,
    )


def _fields(part: Message) -> Message:
    inner = children(part)
    if inner:  # the parser treats every message/* as a container
        return inner[0]
    raw = part.get_payload(decode=True)
    return BytesParser(policy=policy.compat32).parsebytes(raw if isinstance(raw, bytes) else b"")


def _first_text(message: Message) -> str:
    part = _part(message, "text/plain")
    raw = part.get_payload(decode=True) if part is not None else None
    return raw.decode("utf-8", "replace")[:2000] if isinstance(raw, bytes) else ""


def _raw(message: Message, name: str) -> str | None:
    """Return a header as it came; bytes beyond ASCII are UTF-8, as many senders write them without saying so."""
    for known, value in message.raw_items():
        if known.lower() == name.lower():
            return _CONTROL.sub("", str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    return None


def _text(message: Message, name: str) -> str | None:
    value = _raw(message, name)
    if value is None:
        return None
    try:
        decoded = str(make_header(decode_header(value)))
    except (ValueError, LookupError, HeaderParseError):
        return value
    return _CONTROL.sub("", decoded)


def _message_ids(message: Message, name: str) -> list[str]:
    return [one for one in _MESSAGE_ID.findall(_raw(message, name) or "") if len(one.encode()) <= _ID_BYTES]


def _address(text: str | None) -> str | None:
    found = re.search(r"([^\s<>,;\"]+@[^\s<>,;\"]+)", (text or "").rpartition("<")[2] or "")
    return found[1].lower() if found and len(found[1].encode()) <= _ADDRESS_BYTES else None


def _typed(text: str | None) -> str | None:
    return text.partition(";")[2].strip().strip("<>").lower() or None if text else None


def _from_xtext(text: str) -> str:
    return _CONTROL.sub("", re.sub(r"\+([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), text))
