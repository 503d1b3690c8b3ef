"""What came in and what goes out: the very bytes, their hash, and what became of them.

Two axes are kept apart: ``state`` (what became of the message) and ``told`` (what its sender was told). Bytes up to
64 KiB stand in the row, larger ones in the blob store under ``sha256``.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from gateway.model.store import Base, Keyed, utcnow

__all__ = ["INLINE_BYTES", "Attempt", "Message", "NotificationEntry", "Receipt"]

#: Above this, bytes go to the blob store.
INLINE_BYTES = 64 * 1024


class Message(Keyed, Base):
    """One message of one wire.

    Attributes
    ----------
    direction, channel
        ``out``/``in``; ``mssante``, ``fhir``, ``dicom``, ``mllp``.
    key
        Idempotency key, unique for (direction, channel): out ``type|dossier|session|recipient|version``; in the wire's
        own identity of the message (UIDVALIDITY.UID, control id …).
    kind
        ``M1``, ``M2``, ``M6`` … or what a reader made of an incoming one.
    message_id
        RFC 5322 Message-ID without brackets, or the wire's control id.
    state
        out: ``en-attente``, ``envoye``, ``retarde``, ``relaye``, ``sans-nouvelle``, ``accepte``, ``supprime``,
        ``rejete``, ``traite``, ``lu``, ``refuse``, ``parque``, ``annule``; in: ``garde``, ``traite``,
        ``quarantaine``, ``ignore``.
    uncertain_at
        Set when an attempt may have happened; the register says that a byte-identical copy may exist (DECISIONS 1).
    not_before
        Domain-independent instant before which no attempt is made (backoff).
    receipt_due_at
        Domain instant from which missing news of a mail that left is told to a person; None when none is waited for.
    """

    __tablename__ = "message"
    __table_args__ = (
        Index("uq_message_key", "direction", "channel", "key", unique=True),
        Index("ix_message_due", "not_before", postgresql_where=text("direction = 'out' AND state = 'en-attente'")),
        Index("ix_message_message_id", "message_id"),
        Index("ix_message_envelope", text("(details ->> 'envelope_id')"), postgresql_where=text("direction = 'out'")),
        Index("ix_message_sha256", "sha256", postgresql_where=text("direction = 'in'")),
        Index("ix_message_receipt_due", "receipt_due_at", postgresql_where=text("receipt_due_at IS NOT NULL")),
        CheckConstraint("direction IN ('in', 'out')", name="direction"),
        CheckConstraint("content IS NOT NULL OR size_bytes > 65536", name="kept"),
    )

    direction: Mapped[str]
    channel: Mapped[str]
    kind: Mapped[str]
    key: Mapped[str]
    message_id: Mapped[str | None]
    sender: Mapped[str | None]
    recipient: Mapped[str | None]
    recipient_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("practitioner.id"), index=True)
    dossier_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("dossier.id"), index=True)
    session_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("rcp_session.id"), index=True)
    report_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("report.id"), index=True)
    partner_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("partner.id"))
    content: Mapped[bytes | None] = mapped_column(LargeBinary)
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str]
    told: Mapped[str | None]
    reason: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime] = mapped_column(default=utcnow)
    uncertain_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    domain_at: Mapped[datetime]
    done_at: Mapped[datetime | None]
    receipt_due_at: Mapped[datetime | None]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)


class Attempt(Keyed, Base):
    """One try at delivering or processing a message; ``outcome``: delivered, refused, unavailable, uncertain."""

    __tablename__ = "attempt"

    message_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("message.id"), index=True)
    started_at: Mapped[datetime] = mapped_column(default=utcnow)
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    code: Mapped[str | None]
    reason: Mapped[str | None]


class Receipt(Keyed, Base):
    """A DSN or MDN tied to an outgoing message; ``kind``: see `gateway.rcp.receipt_rules.STATES`."""

    __tablename__ = "receipt"
    __table_args__ = (Index("uq_receipt_source", "source_id", "message_id", unique=True),)

    message_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("message.id"), index=True)
    source_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("message.id"))
    kind: Mapped[str]
    code: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(default=utcnow)


class NotificationEntry(Keyed, Base):
    """The register: for one dossier, session and physician, notified or not and why (spec features 4.3).

    ``code`` is one of the codes of that table; ``decided_at`` is domain time; ``late`` marks a catch-up after a missed
    run. ``message_id`` is the one logical message, when there is one. ``ready_at`` is when the last condition but time
    was first seen to hold after it had been seen not to (spec features 5.4.6).
    """

    __tablename__ = "notification_entry"
    __table_args__ = (Index("uq_notification_entry_key", "dossier_id", "session_id", "subject", "kind", unique=True),)

    dossier_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dossier.id"))
    session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("rcp_session.id"), index=True)
    subject: Mapped[str]
    practitioner_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("practitioner.id"), index=True)
    kind: Mapped[str] = mapped_column(default="M1")
    code: Mapped[str]
    due_at: Mapped[datetime | None]
    decided_at: Mapped[datetime]
    late: Mapped[bool] = mapped_column(default=False)
    ready_at: Mapped[datetime | None]
    message_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("message.id"))
