"""The outbox: messages are stored with the step that causes them, and delivered after it.

The row is the truth, the job a nudge. Bytes are rendered once; every attempt sends those very bytes. An outcome is
`Delivered`, `Refused` (permanent), `Unavailable` (nothing happened: retry with backoff) or `Uncertain` (may have
happened: an idempotent channel sends the same bytes again and the register says so, else a person decides).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from gateway.exchange import jobs, pending
from gateway.exchange.blobs import BlobStore
from gateway.model.message import INLINE_BYTES, Message

__all__ = ["Channel", "Delivery", "Outbox", "Outcome", "Outgoing"]


class Outcome(StrEnum):
    """What became of one attempt."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class Delivery:
    """Outcome of one attempt; retry reads ``outcome``, never ``reason``.

    ``facts`` is what the channel learned besides, kept in the message's ``details``. ``untried``: the channel held the
    message back by itself (its pace): no attempt is counted, and it comes again exactly after ``retry_after_s``.
    """

    outcome: Outcome
    code: str | None = None
    reason: str | None = None
    retry_after_s: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    untried: bool = False


class Channel(Protocol):
    """One way out. ``idempotent`` channels may send the same bytes again after an uncertain attempt."""

    name: str
    idempotent: bool

    def deliver(self, message: Message, content: bytes) -> Delivery:
        """Send the bytes once and classify what happened; never raises for what the other side does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One logical message.

    Parameters
    ----------
    key
        Idempotency key within the channel.
    content
        The very bytes to send, rendered once.
    """

    channel: str
    kind: str
    key: str
    content: bytes
    message_id: str | None = None
    sender: str | None = None
    recipient: str | None = None
    recipient_id: uuid.UUID | None = None
    dossier_id: uuid.UUID | None = None
    session_id: uuid.UUID | None = None
    report_id: uuid.UUID | None = None
    partner_id: uuid.UUID | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Outbox:
    """Stores outgoing messages inside a step."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def post(self, session: Session, outgoing: Outgoing, now: datetime) -> Message:
        """Keep one message and nudge its delivery, in the caller's transaction.

        The same key again returns the message already there: a verb that runs twice sends once. Content larger than
        64 KiB is durable in the blob store before the row names it (`gateway.exchange.pending`).
        """
        digest = hashlib.sha256(outgoing.content).hexdigest()
        large = len(outgoing.content) > INLINE_BYTES
        if large:
            pending.keep(session, self._blobs, outgoing.content)
        statement = (
            insert(Message)
            .values(
                direction="out",
                channel=outgoing.channel,
                kind=outgoing.kind,
                key=outgoing.key,
                message_id=outgoing.message_id,
                sender=outgoing.sender,
                recipient=outgoing.recipient,
                recipient_id=outgoing.recipient_id,
                dossier_id=outgoing.dossier_id,
                session_id=outgoing.session_id,
                report_id=outgoing.report_id,
                partner_id=outgoing.partner_id,
                content=None if large else outgoing.content,
                sha256=digest,
                size_bytes=len(outgoing.content),
                state="en-attente",
                domain_at=now,
                details=outgoing.details,
            )
            .on_conflict_do_nothing(index_elements=["direction", "channel", "key"])
            .returning(Message.id)
        )
        inserted = session.execute(statement).scalar_one_or_none()
        message = session.scalars(
            select(Message).where(
                Message.direction == "out", Message.channel == outgoing.channel, Message.key == outgoing.key
            )
        ).one()
        if inserted is not None:
            jobs.nudge(session, message.id)
        return message
