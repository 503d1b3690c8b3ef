"""Who listens, what he may hear, and what becomes of his Subscription.

[FHIR R4 subscription; HL7 subscriptions-backport 1.1; spec fhir-fr 1.26, 3.8]

Promises
--------
* A subscriber is the client that asked, with what its partner is registered for today: a revoked client or partner
  hears nothing, and of a resource only who could read it at that moment hears.
* The resource says what its subscription is: ``requested``, ``active``, ``error`` with its reason, ``off``.
* One that ends in error stands on the work list until it is active again.

Holds the row of a subscription before its resource's.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, false, not_, select, update
from sqlalchemy.orm import Session

from gateway.exchange.outbox import Outgoing
from gateway.fhir import document, notification
from gateway.fhir.auth_scopes import held, permits
from gateway.fhir.conditions import pairs_of
from gateway.fhir.keeping import Owner, current, keep
from gateway.fhir.reachable import Endpoints
from gateway.fhir.search import parse
from gateway.model.message import Message
from gateway.model.partner import Partner, PartnerCredential
from gateway.model.person import WorkItem
from gateway.model.representation import TABLES
from gateway.model.store import utcnow
from gateway.model.subscription import Subscription
from gateway.rcp import access, happenings, work_list
from gateway.rcp.access import Caller, CallerKind
from gateway.rcp.step import Step
from gateway.settings import Limits
from gateway.web.sealed import Seal

__all__ = [
    "CHANNEL",
    "IN_ERROR",
    "Subscribing",
    "ask",
    "become",
    "begin",
    "caller_of",
    "heard",
    "is_over",
    "locked",
    "post",
    "said",
    "standing",
]

#: The outbox's channel, and what its messages are.
CHANNEL = KIND = happenings.CHANNEL
#: The question on the work list.
IN_ERROR: Final = "abonnement-en-erreur"


@dataclass(frozen=True, slots=True)
class Subscribing:
    """What delivery needs to know.

    Parameters
    ----------
    seal
        What headers are sealed with.
    base_url
        Our FHIR base.
    trial
        Name of the partner under which everybody comes in with ``RCP_FHIR_AUTH=off``.
    looked
        What has happened → subscriptions that it was looked at for, while others still wait for it.
    """

    seal: Seal
    endpoints: Endpoints
    base_url: str
    limits: Limits
    trial: str | None = None
    looked: dict[uuid.UUID, set[uuid.UUID]] = field(default_factory=dict, compare=False)


# Who hears


def caller_of(session: Session, subscription: Subscription, trial: str | None) -> Caller | None:
    """The subscriber as he would come in now; `None` when he is not registered any more."""
    partner = session.get(Partner, subscription.partner_id, populate_existing=True)
    if partner is None or partner.revoked_at is not None:
        return None
    live = select(PartnerCredential.id).where(
        PartnerCredential.partner_id == partner.id,
        PartnerCredential.kind == "fhir",
        PartnerCredential.value == subscription.client,
        PartnerCredential.revoked_at.is_(None),
    )
    if session.scalar(live) is None and (trial is None or partner.name != trial or subscription.client != trial):
        return None
    return Caller(
        kind=CallerKind.CLIENT,
        partner_id=partner.id,
        identifier=subscription.client,
        name=partner.name,
        rcps=access.run_by(session, partner.id),
        scopes=held(frozenset(subscription.scopes), tuple(partner.fhir_scopes)),
        wire="fhir",
    )


def heard(
    session: Session,
    caller: Caller,
    kind: str,
    wanted: ColumnElement[bool],
    filters: Sequence[str] = (),
    limits: Limits | None = None,
    base: str = "",
) -> Any | None:
    """Current row of a resource (its ``id``, ``body``, ``record_id``, ``dossier_id``) if a subscriber may read it.

    Parameters
    ----------
    wanted
        Which one.
    filters
        Searches that it must answer.

    Raises
    ------
    InvalidContent, Unsupported
        A filter is not offered any more.
    """
    if not permits(caller, kind, "r"):
        return None

    def visible(of: str, table: Any) -> Any:
        return access.representations(caller, table) if permits(caller, of, "s") else false()

    table = TABLES[kind]
    searches = [
        parse(kind, pairs_of(one.partition("?")[2]), visible=visible, strict=True, limits=limits, base=base).where
        for one in filters
    ]
    return session.execute(
        select(table.c.id, table.c.body, table.c.record_id, table.c.dossier_id).where(
            wanted, table.c.current, not_(table.c.deleted), access.representations(caller, table), *searches
        )
    ).one_or_none()


# What becomes of it


def locked(session: Session, key: uuid.UUID) -> Subscription | None:
    """One subscription, held until the transaction ends."""
    return session.scalars(_holding().where(Subscription.id == key)).one_or_none()


def standing(session: Session, resource_id: str) -> Subscription | None:
    """The subscription behind a resource, held until the transaction ends."""
    return session.scalars(_holding().where(Subscription.resource_id == resource_id)).one_or_none()


def _holding() -> Any:
    return select(Subscription).with_for_update().execution_options(populate_existing=True)


def begin(step: Step, subscription: Subscription, base: str) -> None:
    """Ask its endpoint whether it listens; its answer makes the subscription active."""
    subscription.state, subscription.handshakes = "requested", subscription.handshakes + 1
    step.session.flush()
    post(step, subscription, base, "handshake", str(subscription.handshakes), handshake=subscription.handshakes)


def post(
    step: Step,
    subscription: Subscription,
    base: str,
    kind: str,
    key: str,
    told: Sequence[notification.Told] = (),
    **details: Any,
) -> Message:
    """Put a notification into the outbox, rendered once; ``key`` tells it from others of its kind."""
    now = utcnow()
    subscription.posted_at = now
    tree = notification.bundle(
        kind,
        base=base,
        subscription=subscription.resource_id,
        topic=subscription.topic,
        status=subscription.state,
        events=subscription.events,
        at=now,
        told=told,
    )
    return step.post(
        Outgoing(
            channel=CHANNEL,
            kind=KIND,
            key=f"{subscription.id}|{kind}|{key}",
            content=notification.written(tree, subscription.media),
            # Where it goes stands in the subscription: what follows the host may be a secret.
            recipient=_origin(subscription.endpoint),
            partner_id=subscription.partner_id,
            details={"subscription": str(subscription.id), "type": kind, **details},
        )
    )


def _origin(endpoint: str) -> str:
    return "/".join(endpoint.split("/", 3)[:3])


def become(session: Session, subscription: Subscription, state: str, error: str | None = None) -> None:
    """Take a state, and let the resource say so; a resource that was deleted says nothing more."""
    subscription.state = state
    if state == "active":
        subscription.active_at = subscription.active_at or utcnow()
        _answer(session, subscription)
    if state == "off":
        subscription.active_at = None
        _answer(session, subscription)
    session.flush()
    row = current(session, "Subscription", subscription.resource_id, lock=True)
    if row is None or row.deleted:
        return
    tree = said(document.strip_server_meta(document.decode(row.body)), state, error)
    owner = Owner(**{name: getattr(row, name) for name in Owner.__slots__})
    keep(session, "Subscription", subscription.resource_id, tree, owner)


def said(tree: Mapping[str, Any], state: str, error: str | None = None) -> dict[str, Any]:
    """A Subscription that says its state, and nothing of an error that it has not; everything stays in its place."""
    found = {**tree, "status": state, "error": error}
    return found if error is not None else {name: value for name, value in found.items() if name != "error"}


def ask(session: Session, subscription: Subscription, message_id: uuid.UUID | None = None) -> None:
    """Put a subscription in error on the work list."""
    partner = session.get_one(Partner, subscription.partner_id)
    work_list.ask(
        session,
        WorkItem(
            key=_key(subscription),
            kind="message",
            reason=IN_ERROR,
            message_id=message_id,
            partner_id=partner.id,
            network_id=partner.network_id,
            details={"abonnement": subscription.resource_id},
        ),
    )


def _answer(session: Session, subscription: Subscription) -> None:
    session.execute(
        update(WorkItem)
        .where(WorkItem.key == _key(subscription), WorkItem.closed_at.is_(None))
        .values(closed_at=utcnow(), closed_by=work_list.BY_ITSELF, decision="nouvelle-recue")
    )


def _key(subscription: Subscription) -> str:
    return f"abonnement|{subscription.id}"


def is_over(subscription: Subscription, now: datetime) -> bool:
    """Whether its end has passed."""
    return subscription.ends_at is not None and subscription.ends_at <= now
