"""The delivery of what the outbox keeps: one attempt at a time, its outcome by a table, its trace before and after.

An attempt is written down *before* the channel is called and closed after it. Both are short transactions that take
the message's row ``FOR UPDATE``; between them only a session lock is held, because a row lock during a slow answer
would hold the transaction horizon, and with it every cursor (DESIGN §3). An attempt found open with nobody at work is
one whose worker was killed: it may have happened.

Promises [DECISIONS 1]
    * Every attempt of a message sends the very bytes that were posted, or none: their SHA-256 is compared first.
    * A worker killed before the channel was called, or after the outcome was recorded, adds no copy. Killed in between,
      an idempotent channel sends the same bytes once more and ``uncertain_at`` says so; another waits for a person.
    * Two workers never try one message at once.

Retry reads the outcome, never its text.
"""

from __future__ import annotations

import hashlib
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, joinedload, lazyload

from gateway.errors import Fault, GatewayError, Unavailable
from gateway.exchange import jobs
from gateway.exchange.blobs import BlobStore
from gateway.exchange.outbox import Channel, Delivery, Outcome
from gateway.identifiers import MssanteAddress
from gateway.model.audit import AuditFacts, AuditTrail
from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.meeting import Rcp, RcpSession
from gateway.model.message import Attempt, Message
from gateway.model.store import Store, utcnow

__all__ = ["MAIL", "PEER", "Backoff", "Deliveries"]

log = structlog.get_logger(__name__)

_SWEPT_AT_ONCE = 1000
_UNCERTAIN_LIMIT = 5
_RECORD_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after each attempt that did nothing, and when to stop.

    ``pauses_s`` in turn, its last one again and again, each ± ``jitter``; the message is parked when ``give_up_s`` have
    gone by since it was posted or replayed, or after so many ``attempts`` in all, whichever comes first.
    """

    pauses_s: tuple[float, ...]
    give_up_s: float
    jitter: float = 0.2
    attempts: int | None = None

    def pause_s(self, attempts: int, retry_after_s: float | None) -> float:
        """Give the pause after the n-th attempt; a peer that says when to come back is believed, up to the longest."""
        pause = self.pauses_s[min(max(attempts, 1), len(self.pauses_s)) - 1]
        pause *= random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 - jitter, not a secret
        return max(pause, min(retry_after_s or 0, max(self.pauses_s)))


MAIL = Backoff((60, 300, 900, 1800, 3600), 24 * 3600)
"""Mail: 1, 5, 15, 30, 60 min, then each hour, for a day (spec mssante §5.7)."""
PEER = Backoff((60, 300, 900, 3600), 7 * 24 * 3600)
"""Peers over FHIR: 1, 5, 15, 60 min, then each hour, for a week (fhir-fr.md, federation)."""


@dataclass(frozen=True, slots=True)
class _Claim:
    message: Message
    content: bytes
    attempt_id: uuid.UUID


class Deliveries:
    """Tries to deliver outgoing messages.

    Parameters
    ----------
    channels
        The ways out that this process has; a message of another channel is left for another process.
    settled
        Called inside the transaction that records an outcome, with the message as it is now: the register, the
        dossier's state and the representations follow there. It may run again after a clash.
    backoff
        By channel name; `MAIL` for the others.
    """

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        trail: AuditTrail,
        channels: Iterable[Channel],
        *,
        settled: Callable[[Session, Message], None] | None = None,
        backoff: Mapping[str, Backoff] | None = None,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._trail = trail
        self._channels = {channel.name: channel for channel in channels}
        self._settled = settled
        self._backoff = {"fhir": PEER, **(backoff or {})}

    def attempt(self, message_id: uuid.UUID) -> Outcome | None:
        """Try one message once, when it is due and nobody else is trying it.

        Returns
        -------
        Outcome or None
            What became of the attempt; `None` when there was nothing to do now.
        """
        # The last 62 bits of a UUID are random: a clash of two messages delays one of them, no more.
        with jobs.alone(self._store, message_id.int & ((1 << 62) - 1)) as mine:
            if not mine:
                return None
            claim = self._claim(message_id)
            if not isinstance(claim, _Claim):
                return claim
            delivery = self._send(claim)
            self._record(claim, delivery)
            return delivery.outcome

    def sweep(self) -> int:
        """Nudge what is due and has no job: what a SIGKILL, a lost job or a clock left; gives how many."""
        with self._store.session() as session:
            due = session.scalars(
                select(Message.id)
                .where(Message.direction == "out", Message.state == "en-attente", Message.not_before <= utcnow())
                .order_by(Message.not_before)
                .limit(_SWEPT_AT_ONCE)
            ).all()
            nudged = jobs.nudge_missing(session, due) if due else 0
            session.commit()
        if nudged:
            log.info("outbox-swept", messages=nudged)
        return nudged

    def _claim(self, message_id: uuid.UUID) -> _Claim | Outcome | None:
        """Write down that an attempt begins; closes one that a killed worker left open."""
        with self._store.session() as session:
            found = session.get(Message, message_id)
            if found is None or found.direction != "out" or found.state != "en-attente":
                return None
            channel = self._channels.get(found.channel)
            if channel is None:
                return None
            fault, content = self._content(found)
        with self._store.session() as session:
            now = utcnow()
            message = session.scalars(
                select(Message)
                .where(Message.id == message_id, Message.state == "en-attente", Message.not_before <= now)
                .with_for_update(skip_locked=True)
            ).one_or_none()
            if message is None:
                return None
            left_open = session.scalars(
                select(Attempt).where(Attempt.message_id == message_id, Attempt.ended_at.is_(None))
            ).all()
            for attempt in left_open:
                attempt.ended_at, attempt.outcome, attempt.code = now, Outcome.UNCERTAIN.value, "interrupted"
            ended = fault
            if left_open:
                self._mark_uncertain(message, now)
                if not channel.idempotent:
                    ended = Delivery(Outcome.UNCERTAIN, "interrupted", "Une tentative a été interrompue.")
            if ended is not None:
                self._conclude(session, message, channel, ended, now)
                session.commit()
                return ended.outcome
            message.attempts += 1
            attempt = Attempt(message_id=message_id, started_at=now)
            session.add(attempt)
            session.commit()
            return _Claim(message, content, attempt.id)

    def _content(self, message: Message) -> tuple[Delivery | None, bytes]:
        """Read the bytes, or say why they cannot be sent; other bytes than those posted are never sent."""
        try:
            content = message.content if message.content is not None else self._blobs.read(message.sha256)
        except Unavailable as error:
            return Delivery(Outcome.UNAVAILABLE, error.code, error.text, error.retry_after_s), b""
        except Fault as error:
            return Delivery(Outcome.REFUSED, error.code, error.text), b""
        if hashlib.sha256(content).hexdigest() != message.sha256:
            return Delivery(Outcome.REFUSED, "content-altered", "Le contenu conservé n’est plus celui du message."), b""
        return None, content

    def _send(self, claim: _Claim) -> Delivery:
        channel = self._channels[claim.message.channel]
        try:
            return channel.deliver(claim.message, claim.content)
        except Unavailable as error:
            return Delivery(Outcome.UNAVAILABLE, error.code, error.text, error.retry_after_s)
        except Exception as error:  # noqa: BLE001 - a channel's defect: what happened is not known
            code = error.code if isinstance(error, GatewayError) else "channel-fault"
            log.error("channel-fault", channel=channel.name, error=type(error).__name__)  # noqa: TRY400 - a trace may quote
            return Delivery(Outcome.UNCERTAIN, code, "La voie d’envoi a échoué de façon imprévue.")

    def _record(self, claim: _Claim, delivery: Delivery) -> None:
        """Write down what became of the attempt, waiting for the database if need be.

        Should it stay away, the attempt stays open and the next one knows that this one may have happened.
        """
        deadline = time.monotonic() + _RECORD_LIMIT_S
        pause_s = 0.05
        while True:
            try:
                self._record_once(claim, delivery)
            except (DBAPIError, PoolTimeout):
                if time.monotonic() > deadline:
                    raise
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, 5.0)
            else:
                return

    def _record_once(self, claim: _Claim, delivery: Delivery) -> None:
        with self._store.session() as session:
            now = utcnow()
            message = session.scalars(select(Message).where(Message.id == claim.message.id).with_for_update()).one()
            attempt = session.get_one(Attempt, claim.attempt_id)
            if delivery.untried:
                session.delete(attempt)
                self._hold(session, message, delivery, now)
            else:
                attempt.ended_at, attempt.outcome = now, delivery.outcome.value
                attempt.code, attempt.reason = delivery.code, delivery.reason
                self._conclude(session, message, self._channels[message.channel], delivery, now)
            session.commit()

    def _hold(self, session: Session, message: Message, delivery: Delivery, now: datetime) -> None:
        """Let a message wait that its channel did not try: no failure, so neither pauses grow nor patience ends."""
        message.attempts -= 1
        if delivery.facts:
            message.details = {**message.details, **delivery.facts}
        if message.state != "en-attente":
            return  # cancelled meanwhile
        message.reason = delivery.code
        message.not_before = now + timedelta(seconds=delivery.retry_after_s or 0)
        session.flush()
        jobs.nudge(session, message.id, at=message.not_before)

    def _conclude(
        self, session: Session, message: Message, channel: Channel, delivery: Delivery, now: datetime
    ) -> None:
        """Lay the outcome over the message's state [DESIGN §5], and tell the trail and whoever asked."""
        if delivery.outcome is Outcome.UNCERTAIN:
            self._mark_uncertain(message, now)
        state = self._next_state(message, channel, delivery, now)
        if message.state == "en-attente" or (message.state == "annule" and delivery.outcome is Outcome.DELIVERED):
            # A receipt may have been quicker than our record: what it says is later news, and stays.
            message.state = state
        message.reason = delivery.code
        if delivery.facts:
            message.details = {**message.details, **delivery.facts}
        if message.state == "en-attente":
            pause_s = self._policy(channel).pause_s(message.attempts, delivery.retry_after_s)
            message.not_before = now + timedelta(seconds=pause_s)
            session.flush()
            jobs.nudge(session, message.id, at=message.not_before)
        else:
            message.done_at = now
            session.flush()
        about, _recipient = _beside(session, message)  # both are held until whoever is told has looked
        if delivery.outcome is not Outcome.UNAVAILABLE or message.state != "en-attente":
            self._trail.write(session, _said(message, about, delivery, now))
        if self._settled is not None:
            self._settled(session, message)

    def _next_state(self, message: Message, channel: Channel, delivery: Delivery, now: datetime) -> str:
        match delivery.outcome:
            case Outcome.DELIVERED:
                return "envoye"
            case Outcome.REFUSED:
                return "refuse"
            case Outcome.UNCERTAIN if not channel.idempotent or message.details.get("uncertain", 0) >= _UNCERTAIN_LIMIT:
                return "parque"
            case _:
                since = message.details.get("since")
                began = message.created_at if since is None else datetime.fromisoformat(since)
                policy = self._policy(channel)
                tried = policy.attempts is not None and message.attempts >= policy.attempts
                too_long = tried or (now - began).total_seconds() > policy.give_up_s
                return "parque" if too_long else "en-attente"

    def _mark_uncertain(self, message: Message, now: datetime) -> None:
        message.uncertain_at = message.uncertain_at or now
        message.details = {**message.details, "uncertain": message.details.get("uncertain", 0) + 1}

    def _policy(self, channel: Channel) -> Backoff:
        return self._backoff.get(channel.name, MAIL)


def _beside(session: Session, message: Message) -> tuple[Dossier | None, Practitioner | None]:
    """Read the dossier and the recipient of a message, which whoever is told of an outcome looks at.

    Without what usually comes with them: ten questions to the database that no mail needs.
    """
    dossier, recipient = None, None
    if message.dossier_id is not None:
        dossier = session.get(Dossier, message.dossier_id, options=_OF_A_DOSSIER)
    if message.recipient_id is not None:
        recipient = session.get(Practitioner, message.recipient_id, options=[lazyload("*")])
    return dossier, recipient


_OF_A_DOSSIER = (
    lazyload("*"),
    joinedload(Dossier.record),
    joinedload(Dossier.session).joinedload(RcpSession.rcp).joinedload(Rcp.organisation),
)


def _said(message: Message, about: Dossier | None, delivery: Delivery, now: datetime) -> AuditFacts:
    """What the trail keeps of an outcome: where the bytes went, which bytes, for whom [spec audit §2, row 7]."""
    return AuditFacts(
        event="envoi",
        action="C",
        outcome="0" if delivery.outcome is Outcome.DELIVERED else "4",
        reason=delivery.code,
        actor_id="rcp-gateway",
        wire=message.channel,
        persons=(about.record_id,) if about is not None else (),
        dossier=message.dossier_id,
        object_type="Message",
        object_id=str(message.id),
        object_sha256=message.sha256,
        recipient=MssanteAddress.shown(message.recipient) if message.recipient else None,
        happened=now,
        detail={"kind": message.kind, "state": message.state, "attempts": message.attempts},
    )
