"""What happened that somebody asked to be told of, who asked, and what each was told.

A `Happening` is written by the step that makes it happen and goes once everybody who listens has his event: what a
crash undoes was never told, and what is committed is told however often a worker dies. Numbers of events have no gap:
they are given under the lock of their subscription, in the transaction that keeps the event.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.orm import Mapped, mapped_column

from gateway.model.store import Base, Keyed, utcnow

__all__ = ["Happening", "Subscription", "SubscriptionEvent"]


class Happening(Keyed, Base):
    """Something that happened to a root and that nobody has been told of yet; ``kind`` as its verb says it."""

    __tablename__ = "happening"

    kind: Mapped[str]
    root_id: Mapped[uuid.UUID]
    at: Mapped[datetime] = mapped_column(default=utcnow)


class Subscription(Keyed, Base):
    """How one client is told: the part of a FHIR Subscription that delivery needs.

    Attributes
    ----------
    resource_id
        Logical id of the resource, which holds everything else that the client said.
    client, scopes
        Who asked, and what his token allowed: what he may hear is bound by both (`gateway.fhir.subscribers`).
    topic
        Canonical of the topic, without version.
    filters
        Searches that the subject of an event must answer, all of them.
    headers
        Lines for the request, sealed: they are secrets.
    state
        ``requested`` (until its endpoint has answered), ``active``, ``error`` (events are numbered, not sent), ``off``.
    handshakes, events
        How many were begun, and how many events there were.
    posted_at
        When something was last put into the outbox for it.
    """

    __tablename__ = "subscription"
    __table_args__ = (
        Index("ix_subscription_live", "topic", postgresql_where=text("state <> 'off'")),
        CheckConstraint("state IN ('requested', 'active', 'error', 'off')", name="state"),
        CheckConstraint("content IN ('empty', 'id-only', 'full-resource')", name="content"),
    )

    resource_id: Mapped[str] = mapped_column(unique=True)
    partner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("partner.id"))
    client: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(TEXT))
    topic: Mapped[str]
    filters: Mapped[list[str]] = mapped_column(ARRAY(TEXT))
    endpoint: Mapped[str]
    headers: Mapped[str | None]
    media: Mapped[str]
    content: Mapped[str]
    heartbeat_s: Mapped[int | None]
    timeout_s: Mapped[int]
    ends_at: Mapped[datetime | None]
    state: Mapped[str]
    handshakes: Mapped[int] = mapped_column(default=0)
    events: Mapped[int] = mapped_column(BigInteger, default=0)
    active_at: Mapped[datetime | None]
    posted_at: Mapped[datetime | None]


class SubscriptionEvent(Base):
    """One event of one subscription; ``focus_id`` is the logical id of what it is about."""

    __tablename__ = "subscription_event"
    __table_args__ = (UniqueConstraint("subscription_id", "happening_id"),)

    subscription_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("subscription.id"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    happening_id: Mapped[uuid.UUID]
    at: Mapped[datetime]
    focus_id: Mapped[str]
    message_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("message.id"))
