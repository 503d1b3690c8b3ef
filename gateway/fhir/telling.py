"""Tells subscribers what happened: one event each, once, numbered; and keeps their subscriptions up.

[HL7 subscriptions-backport 1.1; spec fhir-fr 3.8; DESIGN §5, outbox]

Promises
--------
* Each happening is one event of each subscription that listened when it happened, whose subscriber may read it and
  whose filters it answers: the number, the event and the outgoing bytes are one transaction; a second look finds them.
* A subscription in error goes on numbering: what it missed is asked for with ``$events``.
* A filter that costs too much stops its own subscription, and nobody else's; so does a defect that it meets each time,
  after an hour. Filters that together cost more than their partner's share of a turn (`gateway.fhir.fair_share`) wait,
  and nobody else does; when they are an hour behind, the costliest of them is stopped.
* One whose end has passed, whose subscriber is gone or whose resource was deleted goes off; one that has been silent
  for its period is sent a heartbeat.

Periodic, in one process at a time; two at once would still tell everybody once.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

import structlog
from sqlalchemy import ColumnElement, delete, literal, select, true, tuple_
from sqlalchemy.orm import Session

from gateway.errors import GatewayError, InvalidContent, Unavailable, Unsupported
from gateway.exchange import jobs
from gateway.exchange.outbox import Delivery, Outcome
from gateway.fhir import subscribers
from gateway.fhir.fair_share import FairShare
from gateway.fhir.keeping import current
from gateway.fhir.notification import Told
from gateway.fhir.subscribers import CHANNEL, Subscribing
from gateway.fhir.timed import stopped_after
from gateway.fhir.topics import TOLD, TOPICS
from gateway.model.message import Message
from gateway.model.representation import TABLES
from gateway.model.store import utcnow
from gateway.model.subscription import Happening, Subscription, SubscriptionEvent
from gateway.rcp.access import SYSTEM
from gateway.rcp.step import Step, Steps

__all__ = ["after_delivery", "departure", "keep_up", "tell_due"]

log = structlog.get_logger(__name__)

#: What one filter may cost the database; and what may not be looked at for an hour because of it.
_FILTER_S: Final = 2.0
_COSTLY_S: Final = 0.25
_AT_ONCE: Final = 200
#: How long one that cannot be told is tried again.
_TRIED: Final = timedelta(hours=1)
#: Happenings of which is known whom they were looked at for.
_LOOKED_AT: Final = 1000
#: How long a notification waits at least for the one before it.
_TURN_S: Final = 5.0
#: States in which events are numbered.
_NUMBERED: Final = ("requested", "active", "error")

#: Refusals that say nothing of the endpoint.
_ENDED = ("abonnement-termine", "L’abonnement n’attend plus cette notification.")
_UNSEEN = ("abonnement-acces", "L’abonné ne peut plus lire ce que cette notification annonce.")
_QUIET = frozenset({_ENDED[0], _UNSEEN[0]})

_TOO_COSTLY = "Filtre trop coûteux : l’abonnement est arrêté."
_NOT_OFFERED = "Un filtre de l’abonnement n’est plus offert."
_UNTOLD = "La passerelle n’a pas pu notifier cet abonnement, malgré plusieurs tentatives."
_GONE = "Le client de cet abonnement n’est plus enregistré."
_FAILED = "L’adresse de l’abonnement n’a pas pris les notifications, malgré plusieurs tentatives ({code})."


# What happened → events


def tell_due(steps: Steps, into: Subscribing, *, limit: int = _AT_ONCE) -> int:
    """Tell what has happened since; returns how many events that made."""
    told, share, costs = 0, FairShare(), dict[uuid.UUID, float]()
    left: ColumnElement[bool] = true()
    place = tuple_(Happening.at, Happening.id)
    while True:
        with steps.store.session() as session:
            page = select(Happening).where(left).order_by(Happening.at, Happening.id).limit(limit)
            happened = session.scalars(page).all()
        waiting = _listening(steps, into, happened)
        open_ = Counter(one.id for queue in waiting.values() for one, _ in queue)
        for one in happened:
            if not open_[one.id]:
                _done(steps, into, one)
        for one, key in share.of(waiting):
            began = time.monotonic()
            made = _told(steps, into, one, key)
            costs[key] = max(costs.get(key, 0.0), time.monotonic() - began)
            if made is None:
                continue
            told += made
            open_[one.id] -= 1
            into.looked.setdefault(one.id, set()).add(key)
            if not open_[one.id]:
                _done(steps, into, one)
        _stop_costliest(steps, waiting, costs)
        if not any(open_.values()) or len(happened) < limit:
            return told
        # What cannot be told stays in front: what came after it is looked at all the same.
        left = place > tuple_(literal(happened[-1].at), literal(happened[-1].id))


def _listening(
    steps: Steps, into: Subscribing, happened: Sequence[Happening]
) -> dict[uuid.UUID, deque[tuple[Happening, uuid.UUID]]]:
    """What each partner's subscriptions are to be told, but for what they were looked at for before."""
    kinds = {topic.url: topic.happening for topic in TOLD}
    with steps.store.session() as session:
        listening = session.execute(
            select(Subscription.id, Subscription.partner_id, Subscription.topic, Subscription.active_at)
            .where(
                Subscription.topic.in_(kinds), Subscription.state.in_(_NUMBERED), Subscription.active_at.is_not(None)
            )
            .order_by(Subscription.id)
        ).all()
    waiting = defaultdict[uuid.UUID, deque[tuple[Happening, uuid.UUID]]](deque)
    for happening in happened:
        looked = into.looked.get(happening.id, ())
        for key, partner, topic, since in listening:
            if kinds[topic] == happening.kind and since and since <= happening.at and key not in looked:
                waiting[partner].append((happening, key))
    return waiting


def _stop_costliest(
    steps: Steps,
    waiting: Mapping[uuid.UUID, deque[tuple[Happening, uuid.UUID]]],
    costs: Mapping[uuid.UUID, float],
) -> None:
    """Of each partner whose share does not suffice for an hour already, stop the filter that took longest."""
    for rest in waiting.values():
        if rest and rest[0][0].at <= utcnow() - _TRIED:
            took, costliest = max((costs.get(key, 0.0), key) for _, key in rest)
            if took >= _COSTLY_S:  # cheap ones that are many, as after a long pause of ours, are told by and by
                steps.run(SYSTEM, partial(_stop, key=costliest, error=_TOO_COSTLY))


def _told(steps: Steps, into: Subscribing, happening: Happening, key: uuid.UUID) -> int | None:
    """Tell one subscription; `None` when that must be tried again, which holds up nobody else."""
    try:
        return steps.run(SYSTEM, partial(_tell, into=into, happening=happening, key=key))
    except TimeoutError:
        steps.run(SYSTEM, partial(_stop, key=key, error=_TOO_COSTLY))
    except (InvalidContent, Unsupported):
        steps.run(SYSTEM, partial(_stop, key=key, error=_NOT_OFFERED))
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the others are told
        code = error.code if isinstance(error, GatewayError) else type(error).__name__
        log.error("subscriber-not-told", subscription=str(key), code=code)  # noqa: TRY400 - a trace may quote a row
        if happening.at > utcnow() - _TRIED:
            return None
        steps.run(SYSTEM, partial(_stop, key=key, error=_UNTOLD))
    return 0


def _tell(step: Step, *, into: Subscribing, happening: Happening, key: uuid.UUID) -> int:
    session = step.session
    listening = subscribers.locked(session, key)
    if listening is None or listening.state not in _NUMBERED or subscribers.is_over(listening, utcnow()):
        return 0
    told = select(SubscriptionEvent.number).where(
        SubscriptionEvent.subscription_id == key, SubscriptionEvent.happening_id == happening.id
    )
    caller = subscribers.caller_of(session, listening, into.trial)
    if caller is None or session.scalar(told) is not None:
        return 0
    kind = TOPICS[listening.topic].kind
    wanted = TABLES[kind].c.root_id == happening.root_id
    with stopped_after(session, _FILTER_S):
        found = subscribers.heard(session, caller, kind, wanted, listening.filters, into.limits, into.base_url)
    if found is None:
        return 0
    listening.events += 1
    event = SubscriptionEvent(
        subscription_id=key,
        number=listening.events,
        happening_id=happening.id,
        at=happening.at,
        focus_id=found.id,
    )
    if listening.state == "active":
        named = listening.content != "empty"
        shown = listening.content == "full-resource"
        said = Told(
            number=event.number,
            at=event.at,
            focus=f"{kind}/{found.id}" if named else None,
            body=bytes(found.body) if shown else None,
        )
        message = subscribers.post(
            step,
            listening,
            into.base_url,
            "event-notification",
            str(event.number),
            [said],
            number=event.number,
            record=str(found.record_id),
        )
        event.message_id = message.id
        if named:
            step.audit(
                "envoi",
                action="C",
                persons=(found.record_id,) if found.record_id is not None else (),
                dossier=found.dossier_id,
                object_type=kind,
                object_id=found.id,
                recipient=message.recipient,
                detail={"service": "Subscription", "content": listening.content, "message": str(message.id)},
            )
    session.add(event)
    return 1


def _stop(step: Step, *, key: uuid.UUID, error: str) -> None:
    listening = subscribers.locked(step.session, key)
    if listening is not None and listening.state in _NUMBERED:
        subscribers.become(step.session, listening, "error", error)
        subscribers.ask(step.session, listening)


def _done(steps: Steps, into: Subscribing, happening: Happening) -> None:
    steps.run(SYSTEM, lambda step: step.session.execute(delete(Happening).where(Happening.id == happening.id)))
    into.looked.pop(happening.id, None)
    if len(into.looked) > _LOOKED_AT:
        into.looked.clear()  # others tell as well; what is looked at anew costs time only


# Ends and heartbeats


def keep_up(steps: Steps, into: Subscribing) -> int:
    """End what is over, and tell the silent that we are here; returns how many subscriptions changed or were told."""
    with steps.store.session() as session:
        live = session.scalars(
            select(Subscription.id).where(Subscription.state.in_(_NUMBERED)).order_by(Subscription.id)
        ).all()
    return steps.each(live, partial(_kept_up, into), refused="subscription-not-kept-up")


def _kept_up(into: Subscribing, key: uuid.UUID, step: Step) -> int:
    session, now = step.session, utcnow()
    listening = subscribers.locked(session, key)
    if listening is None or listening.state not in _NUMBERED:
        return 0
    row = current(session, "Subscription", listening.resource_id)
    if row is None or row.deleted or subscribers.is_over(listening, now):
        subscribers.become(session, listening, "off")
        return 1
    if subscribers.caller_of(session, listening, into.trial) is None:
        subscribers.become(session, listening, "off", _GONE)
        return 1
    if listening.state != "active" or listening.heartbeat_s is None or listening.posted_at is None:
        return 0
    if now < listening.posted_at + timedelta(seconds=listening.heartbeat_s) or _waiting(session, listening):
        return 0
    subscribers.post(step, listening, into.base_url, "heartbeat", now.isoformat(timespec="seconds"))
    return 1


def _waiting(session: Session, listening: Subscription) -> bool:
    """Whether something is still to be sent: then it is not silent, its endpoint is."""
    pending = select(Message.id).where(
        Message.direction == "out",
        Message.state == "en-attente",
        Message.channel == CHANNEL,
        Message.details["subscription"].astext == str(listening.id),
    )
    return session.scalar(pending.limit(1)) is not None


# One delivery


def departure(session: Session, message: Message, into: Subscribing) -> Subscription | Delivery:
    """Say to whom a notification goes now, or why it does not."""
    listening = session.get(Subscription, uuid.UUID(str(message.details["subscription"])), populate_existing=True)
    if listening is None or not _awaited(listening, message):
        return Delivery(Outcome.REFUSED, *_ENDED)
    row = current(session, "Subscription", listening.resource_id)
    caller = subscribers.caller_of(session, listening, into.trial)
    if row is None or row.deleted or caller is None or subscribers.is_over(listening, utcnow()):
        return Delivery(Outcome.REFUSED, *_ENDED)
    number = message.details.get("number")
    if number is None:
        return listening
    event = session.get_one(SubscriptionEvent, (listening.id, number))
    kind = TOPICS[listening.topic].kind
    found = subscribers.heard(session, caller, kind, TABLES[kind].c.id == event.focus_id)
    # What has become somebody else's since is another event: this one's words are of the first.
    if found is None or str(found.record_id) != message.details["record"]:
        return Delivery(Outcome.REFUSED, *_UNSEEN)
    return _after_the_last(session, listening.id, number) or listening


def _awaited(listening: Subscription, message: Message) -> bool:
    if message.details["type"] == "handshake":
        return listening.state == "requested" and message.details["handshake"] == listening.handshakes
    return listening.state == "active"


def _after_the_last(session: Session, key: uuid.UUID, number: int) -> Delivery | None:
    """Hold an event back while the one before it is to be sent: a subscriber hears them in their order."""
    due = session.scalar(
        select(Message.not_before)
        .join(SubscriptionEvent, SubscriptionEvent.message_id == Message.id)
        .where(
            SubscriptionEvent.subscription_id == key,
            SubscriptionEvent.number == number - 1,
            Message.state == "en-attente",
        )
    )
    if due is None:
        return None
    pause_s = max(_TURN_S, (due - utcnow()).total_seconds())
    return Delivery(Outcome.UNAVAILABLE, "abonnement-a-son-tour", untried=True, retry_after_s=pause_s)


def after_delivery(session: Session, message: Message) -> None:
    """Let a subscription follow what became of a message; for `gateway.exchange.delivery.Deliveries` (``settled``)."""
    if message.channel != CHANNEL or message.state == "en-attente":
        return
    listening = subscribers.locked(session, uuid.UUID(str(message.details["subscription"])))
    if listening is None:
        return
    if message.state == "envoye":
        if message.details["type"] == "handshake" and _awaited(listening, message):
            subscribers.become(session, listening, "active")
    elif message.reason not in _QUIET and _awaited(listening, message):
        subscribers.become(session, listening, "error", _FAILED.format(code=message.reason))
        subscribers.ask(session, listening, message.id)
    number = message.details.get("number")
    if number is not None:
        _next(session, listening.id, number + 1)


def _next(session: Session, key: uuid.UUID, number: int) -> None:
    """Let the next event go at once; one that somebody is at is on its way, or waits for its turn by itself."""
    waiting = session.scalars(
        select(Message)
        .join(SubscriptionEvent, SubscriptionEvent.message_id == Message.id)
        .where(
            SubscriptionEvent.subscription_id == key,
            SubscriptionEvent.number == number,
            Message.state == "en-attente",
        )
        .with_for_update(of=Message, skip_locked=True)
    ).one_or_none()
    if waiting is not None and waiting.attempts == 0:
        waiting.not_before = utcnow()
        session.flush()
        jobs.nudge(session, waiting.id)
