"""A message once more, by a person's wish: sent again, or read again.

Promises: the very bytes that were kept, in the caller's transaction; how often stands in the message. Asks nobody
whether it should be (`gateway.rcp.error_box`, ``rcp-gateway replay``).
"""

from __future__ import annotations

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.errors import NotFound
from gateway.exchange import jobs
from gateway.model.message import Message
from gateway.model.store import utcnow

__all__ = ["read_again", "send_again"]


def send_again(session: Session, message_id: uuid.UUID) -> Message:
    """Put a message that left, or failed to, back into the outbox, whatever became of it.

    Raises
    ------
    NotFound
        ``message`` when no outgoing message has this id.
    """
    message = _held(session, message_id, "out", "Aucun message sortant ne porte cet identifiant.")
    now = utcnow()
    message.details = {**message.details, "since": now.isoformat(), "uncertain": 0}
    message.state, message.not_before, message.reason = "en-attente", now, None
    session.flush()
    jobs.nudge(session, message.id)
    return message


def read_again(session: Session, message_id: uuid.UUID) -> Message:
    """Let a message that came be processed as if it had just been kept; the inbox's sweep does it, or `Inbox.process`.

    Raises
    ------
    NotFound
        ``message`` when no such message is kept.
    """
    message = _held(session, message_id, "in", "Aucun message reçu ne porte cet identifiant.")
    message.state, message.attempts = "garde", 0
    session.flush()
    return message


def _held(session: Session, message_id: uuid.UUID, direction: str, text: str) -> Message:
    message = session.scalars(
        select(Message)
        .where(Message.id == message_id, Message.direction == direction)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if message is None:
        raise NotFound("message", text)
    message.details = {**message.details, "replays": message.details.get("replays", 0) + 1}
    return message
