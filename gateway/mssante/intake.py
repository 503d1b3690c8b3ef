r"""What comes into the gateway's mailbox: kept first, then read, then marked ``\Seen``.

Promises: no mail is lost (it is kept before it is marked) nor taken twice (the position is what was kept, and the same
bytes under another number are recognised); a receipt is tied to the message that it speaks of, or waits for a person
with the reason; what a physician answers to a notification goes to `gateway.rcp.reply`; whatever else comes is kept in
quarantine with its reason, beside its dossier where it answers a letter of ours. Who asked to be told what becomes of a
document is told once (`gateway.mssante.mdn`). An automatic answer changes nothing and gets no answer.

`MailIntake` is the `Taker` of `gateway.mssante.mailbox` and the `Reader` of `gateway.exchange.inbox`.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.errors import InvalidContent
from gateway.exchange.blobs import BlobStore
from gateway.exchange.inbox import Inbox, Incoming, once
from gateway.identifiers import DossierReference
from gateway.model.message import Message
from gateway.mssante import mdn, parts, receipts, reply_text, xdm_reader
from gateway.mssante.mailbox import Fetched, Position
from gateway.mssante.receipts import Kind
from gateway.mssante.translate import receipt_kind
from gateway.rcp import access, contribution, mail_events, mailboxes, mailing, received, reply
from gateway.rcp.ports import Letters
from gateway.rcp.step import Step, Steps

__all__ = ["MailIntake"]

CHANNEL = "mssante"
#: Why a mail is a person's: others could not be read.
_READABLE = frozenset({"reply", "unexpected"})
_REFERENCES = 20
_HEADER_LENGTH = 200


class MailIntake:
    """Takes what `Mailbox` reads.

    Parameters
    ----------
    address
        The mailbox that is read.
    letters
        Composes the answers to replies; without it a person reads them all.
    blobs
        Where documents are kept; without it a person takes them all.
    answering
        Tells senders what becomes of their documents; without it nobody is told.
    """

    channel = CHANNEL

    def __init__(
        self,
        steps: Steps,
        *,
        address: str,
        letters: Letters | None = None,
        blobs: BlobStore | None = None,
        answering: mdn.Answering | None = None,
    ) -> None:
        self._steps = steps
        self._address = address
        self._letters = letters
        self._blobs = blobs
        self._answering = answering
        self._position: Position | None = None
        self._inbox: Inbox | None = None

    def attach(self, inbox: Inbox) -> MailIntake:
        """Name the inbox that keeps the mail; it knows this reader in turn."""
        self._inbox = inbox
        return self

    def position(self) -> Position | None:
        """Return how far the mailbox has been kept."""
        if self._position is None:
            with self._steps.store.session() as session:
                latest = session.scalars(
                    select(Message.key)
                    .where(Message.direction == "in", Message.channel == CHANNEL)
                    .order_by(Message.id.desc())
                    .limit(1)
                ).first()
            if latest is not None:
                uid_validity, uid = latest.split(".")[:2]
                self._position = Position(int(uid_validity), int(uid))
        return self._position

    def keep(self, message: Fetched) -> None:
        """Keep one mail, then do its step; a step that fails leaves the mail kept for the sweep."""
        assert self._inbox is not None  # noqa: S101 - composed by `attach`
        found = receipts.read(message.content) if message.whole else receipts.Incoming(Kind.HUMAN, reason="too-large")
        incoming = Incoming(
            channel=CHANNEL,
            kind=found.kind.value,
            key=message.key,
            content=message.content,
            message_id=found.message_id,
            sender=found.sender,
            recipient=self._address,
            details={} if message.whole else {"size_bytes": message.size_bytes},
        )
        now = self._steps.clock.now()
        kept = self._inbox.keep(incoming, now)
        if not kept.same_bytes:  # a server that gave one number to two mails: both are kept
            digest = hashlib.sha256(message.content).hexdigest()
            kept = self._inbox.keep(replace(incoming, key=f"{message.key}.{digest}"), now)
        self._position = Position(message.uid_validity, message.uid)
        if kept.state == "garde":
            self._inbox.process(kept.id)

    def reprocess(self, message_id: uuid.UUID, content: bytes) -> None:
        """Do the step of one kept mail."""
        found = receipts.read(content)
        answer = _reply(content, found) if self._letters is not None else None
        archives, refused = _archives(content) if found.kind is Kind.DOCUMENT else ((), None)
        asked = mdn.request(content, found, own=self._address)

        def verb(step: Step) -> None:
            said: list[tuple[str, str | None]] = []

            def work(message: Message) -> None:
                if found.kind is Kind.DOCUMENT and self._blobs is not None and _is_new(step, message):
                    said.append(_take_documents(step, message, found, archives, refused, self._blobs))
                    self._tell(step, message, asked, said[0][1])
                else:
                    said.append(self._work(step, message, found, answer))

            once(step.session, message_id, work)
            if said:
                message = step.session.get_one(Message, message_id)
                message.state, message.reason = said[0]

        self._steps.run(access.SYSTEM, verb)

    def _tell(self, step: Step, message: Message, asked: mdn.Request | None, reason: str | None) -> None:
        """Tell the sender of documents what became of them, once, however often the mail is read again."""
        if asked is None or self._answering is None or not mailboxes.is_mssante(step.session, asked.address):
            return
        key = f"MDN|{message.id}"
        sealed = self._answering.seal(asked, reason, key=key, at=step.now)
        mailing.post(
            step,
            None,
            sealed,
            kind="MDN",
            key=key,
            recipient=None,
            address=asked.address,
            repond_a=str(message.id),
            sans_retour=True,
        )

    def refused(self, session: Session, message: Message) -> None:
        """Ask a person: what could not be taken may be a physician's words."""
        mail_events.ask_person(session, message, f"courriel-{message.kind}")

    def _work(
        self, step: Step, message: Message, found: receipts.Incoming, answer: reply.Reply | None
    ) -> tuple[str, str | None]:
        """Do what one mail asks for; return its state and the reason for a person."""
        if "size_bytes" in message.details:
            mail_events.ask_person(step.session, message, "courriel-trop-grand")
            return "quarantaine", "too-large"
        twin = _twin(step.session, message)
        if twin is not None:
            return _take_twin(step, message, found, twin)
        if found.receipts:
            return _take_receipts(step, message, found)
        if found.kind is Kind.AUTOMATIC:
            return "ignore", found.reason
        if answer is not None and self._letters is not None:
            return reply.take(step, message, answer, self._letters)
        return _leave(step, message, found)


def _take_twin(step: Step, message: Message, found: receipts.Incoming, twin: Message) -> tuple[str, str | None]:
    if twin.sha256 == message.sha256:
        return "ignore", "duplicate"
    if not found.automatic:  # of two mails of a person, either may be the true one
        _leave(step, message, found)
    return "quarantaine", "same-id-other-bytes"


def _leave(step: Step, message: Message, found: receipts.Incoming) -> tuple[str, str | None]:
    about = mail_events.answered(step.session, found.answers)
    if about is not None:
        message.dossier_id, message.session_id = about.dossier_id, about.session_id
    mail_events.ask_person(step.session, message, f"courriel-{found.kind.value}", about=about)
    return "quarantaine", found.reason


def _is_new(step: Step, message: Message) -> bool:
    return "size_bytes" not in message.details and _twin(step.session, message) is None


def _archives(content: bytes) -> tuple[Sequence[xdm_reader.Archive], str | None]:
    """Open every archive of a mail, however deep; all or none, with the reason."""
    message, excess = parts.parse(content)
    if message is None:
        return (), excess
    try:
        return [xdm_reader.read(one.content) for one in parts.walk(message) if parts.is_xdm(one.name)], None
    except InvalidContent as error:
        return (), error.code


def _take_documents(
    step: Step,
    message: Message,
    found: receipts.Incoming,
    archives: Sequence[xdm_reader.Archive],
    refused: str | None,
    blobs: BlobStore,
) -> tuple[str, str | None]:
    """Take the documents of a mail; one that a person must look at keeps the mail on the work list."""
    about = mail_events.answered(step.session, found.answers)
    if found.author is None:
        refused = refused or "expediteur-douteux"
    if refused is not None:
        mail_events.ask_person(step.session, message, refused, about=about)
        return "quarantaine", refused
    reasons = []
    for entry in (entry for archive in archives for entry in archive.entries):
        incoming = received.Incoming(
            channel="mssante",
            sender=found.author,
            message_id=message.id,
            withdraws=entry.action == "D",
            hint=about.dossier_id if about is not None else None,
        )
        row, reason = received.take_document(step, entry.header, entry.content, incoming, blobs)
        reasons += [reason] if reason is not None else []
        if row is not None and row.dossier_id is not None:
            message.dossier_id = row.dossier_id
    notes = sorted({note for archive in archives for note in archive.notes})
    if notes:
        message.details = {**message.details, "notes": notes}
    if reasons:
        mail_events.ask_person(step.session, message, reasons[0], about=about)
        return "quarantaine", reasons[0]
    return "traite", None


def _reply(content: bytes, found: receipts.Incoming) -> reply.Reply | None:
    """Read a mail of a person who answers, or who cites a dossier (S09); none of any other mail."""
    if found.kind not in {Kind.REPLY, Kind.HUMAN} or found.automatic or found.reason not in _READABLE:
        return None
    message, _ = parts.parse(content)
    if message is None:
        return None
    held = list(parts.walk(message))
    shown = f"{found.subject or ''}\n{reply_text.whole_text(held)}"
    references = tuple(one.value for one in DossierReference.found_in(shown))
    if not found.answers and not references:
        return None
    return reply.Reply(
        text=contribution.clean(reply_text.new_text(held)),
        author=found.author,
        answers=found.answers,
        references=references[:_REFERENCES],
        message_id=found.message_id if found.message_id and len(found.message_id) <= _HEADER_LENGTH else None,
        attachments=sum(one.attached or one.forwarded for one in held),
    )


def _twin(session: Session, message: Message) -> Message | None:
    """Return an earlier mail with the same Message-ID or bytes: a mailbox that was renumbered, or a forgery."""
    same = Message.sha256 == message.sha256
    if message.message_id:
        same = same | (Message.message_id == message.message_id)
    rows = session.scalars(
        select(Message)
        .where(Message.direction == "in", Message.channel == CHANNEL, Message.id < message.id, same)
        .order_by(Message.id)
    ).all()
    return next((row for row in rows if row.sha256 == message.sha256), rows[0] if rows else None)


def _take_receipts(step: Step, message: Message, found: receipts.Incoming) -> tuple[str, str | None]:
    strays = []
    for one in found.receipts:
        sent = mail_events.find_sent(step.session, message_id=one.message_id, envelope_id=one.envelope_id)
        if sent is None:
            strays.append("receipt-of-nothing-sent")
            continue
        elsewhere = bool(one.recipient and sent.recipient and one.recipient != sent.recipient.lower())
        if elsewhere and not (one.last_known and len(found.receipts) == 1):
            strays.append("receipt-of-another-recipient")
            continue
        # Where a mailbox forwards to may not exist though the mailbox does: its code says nothing of our address.
        said = {} if elsewhere else {"code": one.code, "status": one.status}
        mail_events.take_receipt(step, sent, message, receipt_kind(one), **said)
    if strays:
        mail_events.ask_person(step.session, message, f"courriel-{found.kind.value}")
        return "quarantaine", strays[0]
    return "traite", None
