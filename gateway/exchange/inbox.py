"""The inbox: what came by a wire whose answer cannot carry a full refusal is kept before it is acknowledged.

The order is always: `Inbox.keep` (its own commit), then the step with `once` in it, then the answer on the wire.

Promises
    * After `keep` returned, the raw bytes are durable, whatever happens to the step or to the process.
    * The same message twice does the step once and gets the same answer; the same key over other bytes is told apart
      (`Kept.same_bytes`) and never takes the first one's place.
    * What became of the message (``state``) and what its sender was told (``told``) are kept apart.
    * A message kept by a process that was killed before its step is processed by the sweep.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from gateway.errors import Fault, GatewayError, NotFound, Unavailable
from gateway.exchange.blobs import BlobStore
from gateway.exchange.replaying import read_again
from gateway.model.message import INLINE_BYTES, Attempt, Message
from gateway.model.store import Store, utcnow

__all__ = ["Inbox", "Incoming", "Kept", "Reader", "once"]

log = structlog.get_logger(__name__)

_LEFT_AFTER_S = 60.0
_SWEPT_AT_ONCE = 200
_ATTEMPTS_LIMIT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One message as the wire received it.

    Parameters
    ----------
    key
        The wire's own identity of the message: sender and control id, UIDVALIDITY.UID, SOP Instance UID.
    message_id
        Control id or Message-ID, as people look for it.
    """

    channel: str
    kind: str
    key: str
    content: bytes = field(repr=False)
    message_id: str | None = None
    sender: str | None = None
    recipient: str | None = None
    partner_id: uuid.UUID | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kept:
    """A message that is kept.

    Attributes
    ----------
    again
        It was there before.
    same_bytes
        What was there is what came now; False means that the sender used one key for two contents.
    state, told
        As they are now; ``told`` is the answer to give again when ``state`` is no more ``garde``.
    """

    id: uuid.UUID
    again: bool
    same_bytes: bool
    state: str
    told: str | None


class Reader(Protocol):
    """Processes kept messages of one channel; the wire uses the same code for what has just come in."""

    channel: str

    def reprocess(self, message_id: uuid.UUID, content: bytes) -> None:
        """Do the step of one kept message, using `once` in it.

        Raises
        ------
        GatewayError
            Permanent: the message goes to quarantine. `Unavailable`: it stays kept and is tried again.
        """

    def refused(self, session: Session, message: Message) -> None:
        """Tell whom it concerns of a message that `reprocess` could not take, in the transaction that sets it aside."""


def once(
    session: Session, message_id: uuid.UUID, work: Callable[[Message], str | None], *, state: str = "traite"
) -> str | None:
    """Do a message's work inside the wire's step, unless it was done before.

    Parameters
    ----------
    work
        Runs the verbs and returns what the sender is told, in the wire's own code (``AA``, ``0000`` …). It may set
        ``state``, ``kind`` and the links (``dossier_id`` …) of the message that it receives.

    Returns
    -------
    str or None
        What the sender is told, now or the first time.

    Raises
    ------
    NotFound
        ``message`` when no such message is kept.
    """
    message = session.scalars(
        select(Message).where(Message.id == message_id, Message.direction == "in").with_for_update()
    ).one_or_none()
    if message is None:
        raise NotFound("message", "Aucun message reçu ne porte cet identifiant.")
    if message.state != "garde":
        return message.told
    told = work(message)
    if message.state == "garde":
        message.state = state
    message.told, message.done_at, message.reason = told, utcnow(), None
    session.flush()
    return told


class Inbox:
    """Keeps incoming messages, and processes again those that were left."""

    def __init__(self, store: Store, blobs: BlobStore, readers: Iterable[Reader] = ()) -> None:
        self._store = store
        self._blobs = blobs
        self._readers = {reader.channel: reader for reader in readers}

    def keep(self, incoming: Incoming, now: datetime) -> Kept:
        """Keep a message durably, in a transaction of its own; ``now`` is domain time.

        Raises
        ------
        Unavailable
            Nothing was kept: the wire must not acknowledge.
        """
        digest = hashlib.sha256(incoming.content).hexdigest()
        large = len(incoming.content) > INLINE_BYTES
        if large:
            self._blobs.put(incoming.content)
        try:
            with self._store.session() as session:
                inserted = session.execute(
                    insert(Message)
                    .values(
                        direction="in",
                        channel=incoming.channel,
                        kind=incoming.kind,
                        key=incoming.key,
                        message_id=incoming.message_id,
                        sender=incoming.sender,
                        recipient=incoming.recipient,
                        partner_id=incoming.partner_id,
                        content=None if large else incoming.content,
                        sha256=digest,
                        size_bytes=len(incoming.content),
                        state="garde",
                        domain_at=now,
                        details=incoming.details,
                    )
                    .on_conflict_do_nothing(index_elements=["direction", "channel", "key"])
                    .returning(Message.id)
                ).scalar_one_or_none()
                session.commit()
                message = session.scalars(
                    select(Message).where(
                        Message.direction == "in", Message.channel == incoming.channel, Message.key == incoming.key
                    )
                ).one()
        except PoolTimeout as error:
            raise Unavailable("database-busy", "Le service est saturé.", retry_after_s=2) from error
        except OperationalError as error:
            raise Unavailable("database", "La base de données ne répond pas.", retry_after_s=5) from error
        return Kept(
            id=message.id,
            again=inserted is None,
            same_bytes=message.sha256 == digest,
            state=message.state,
            told=message.told,
        )

    def refuse(
        self, message_id: uuid.UUID, error: GatewayError, *, told: str | None, state: str = "quarantaine"
    ) -> None:
        """Write down that a step was refused, after its rollback; ``reason`` is the stable code, not a text."""
        with self._store.session() as session:
            message = session.scalars(
                select(Message).where(Message.id == message_id, Message.direction == "in").with_for_update()
            ).one()
            if message.state == "garde":
                message.state, message.told, message.reason, message.done_at = state, told, error.code, utcnow()
                session.flush()
                reader = self._readers.get(message.channel)
                if reader is not None:
                    reader.refused(session, message)
            session.commit()

    def content(self, message_id: uuid.UUID) -> bytes:
        """Read the raw bytes of a kept message.

        Raises
        ------
        NotFound
            ``message`` when no such message is kept.
        Fault
            ``content-altered`` when the bytes are no more those that came.
        """
        with self._store.session() as session:
            message = session.get(Message, message_id)
        if message is None or message.direction != "in":
            raise NotFound("message", "Aucun message reçu ne porte cet identifiant.")
        content = message.content if message.content is not None else self._blobs.read(message.sha256)
        if hashlib.sha256(content).hexdigest() != message.sha256:
            raise Fault("content-altered", "Le contenu conservé n’est plus celui du message.")
        return content

    def process(self, message_id: uuid.UUID) -> bool:
        """Do the step of one kept message through its channel's reader.

        Returns
        -------
        bool
            Whether the message is settled; False when it was left for later or no reader is here.
        """
        with self._store.session() as session:
            message = session.get(Message, message_id)
            if message is None or message.direction != "in" or message.state != "garde":
                return message is not None and message.direction == "in"
            reader = self._readers.get(message.channel)
            if reader is None:
                return False
            attempt = Attempt(message_id=message_id, started_at=utcnow())
            session.add(attempt)
            message.attempts += 1
            session.commit()
        try:
            reader.reprocess(message_id, self.content(message_id))
        except Unavailable as error:
            self._close(attempt.id, "unavailable", error.code)
            return False
        except GatewayError as error:
            self.refuse(message_id, error, told=None)
            self._close(attempt.id, "refused", error.code)
        except Exception as error:  # noqa: BLE001 - a defect met once more at each sweep must not block the others
            log.error("reader-fault", channel=reader.channel, error=type(error).__name__)  # noqa: TRY400 - a trace may quote
            self._close(attempt.id, "uncertain", "reader-fault")
            if message.attempts >= _ATTEMPTS_LIMIT:
                self.refuse(message_id, Fault("reader-fault", "Le traitement a échoué."), told=None)
            return False
        else:
            self._close(attempt.id, "delivered", None)
        return True

    def sweep(self) -> int:
        """Process what was kept and then left: its process was killed, or something was unavailable; gives how many."""
        with self._store.session() as session:
            left = session.scalars(
                select(Message.id)
                .where(
                    Message.direction == "in",
                    Message.state == "garde",
                    Message.channel.in_(sorted(self._readers)),
                    Message.created_at < utcnow() - timedelta(seconds=_LEFT_AFTER_S),
                )
                .order_by(Message.created_at)
                .limit(_SWEPT_AT_ONCE)
            ).all()
        return sum(self.process(message_id) for message_id in left)

    def replay(self, message_id: uuid.UUID) -> bool:
        """Process a message again, whatever became of it, by a person's wish; gives whether it is settled.

        Raises
        ------
        NotFound
            ``message`` when no such message is kept.
        """
        with self._store.session() as session:
            read_again(session, message_id)
            session.commit()
        return self.process(message_id)

    def _close(self, attempt_id: uuid.UUID, outcome: str, code: str | None) -> None:
        try:
            with self._store.session() as session:
                attempt = session.get_one(Attempt, attempt_id)
                attempt.ended_at, attempt.outcome, attempt.code = utcnow(), outcome, code
                session.commit()
        except DBAPIError:
            log.warning("attempt-left-open", code=code)  # the message's own state is what counts
