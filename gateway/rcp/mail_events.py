"""What happens to a mail after it left: outcomes of its delivery, receipts, answers of people.

Promises: states follow the receipts and never go backwards, but a delivered mail may still bounce; the same report
twice is one receipt; a mailbox that does not exist is not used again; whatever needs a person stands on the work list,
once.
Knows no mail format (`gateway.mssante.receipts` reads them). [spec mssante 5.3, 5.7]
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from gateway.model.directory import Mailbox
from gateway.model.dossier import Dossier
from gateway.model.meeting import Rcp, RcpSession
from gateway.model.message import Message, NotificationEntry, Receipt
from gateway.model.person import WorkItem
from gateway.model.store import utcnow
from gateway.rcp import mailing
from gateway.rcp.step import Step
from gateway.rcp.work_list import ask

__all__ = ["after_delivery", "answered", "ask_person", "find_sent", "take_receipt"]


#: State of an outgoing message by what a receipt says of it.
_STATES: Mapping[str, str] = {
    "retardee": "retarde",
    "remise": "accepte",
    "lue": "lu",
    "rejetee": "rejete",
    "refusee": "rejete",
}
#: A state is left only for a higher one.
_RANK: Mapping[str, int] = {
    "en-attente": 0,
    "envoye": 0,
    "parque": 0,
    "retarde": 1,
    "accepte": 2,
    "rejete": 3,
    "lu": 4,
}
#: Failures that a person must look at.
_FAILED = frozenset({"refuse", "rejete", "parque"})


def find_sent(session: Session, *, message_id: str | None, envelope_id: str | None) -> Message | None:
    """Find the message of ours that a report speaks of, by ENVID, else by Message-ID."""
    for wanted in (
        Message.details["envelope_id"].astext == envelope_id if envelope_id else None,
        Message.message_id == message_id if message_id else None,
    ):
        if wanted is None:
            continue
        found = session.scalars(
            select(Message).where(Message.direction == "out", Message.channel == mailing.CHANNEL, wanted)
        ).first()
        if found is not None:
            return found
    return None


def take_receipt(
    step: Step, message: Message, source: Message, kind: str, *, code: str | None = None, status: str | None = None
) -> None:
    """Keep what a report says of one of our messages.

    Parameters
    ----------
    source
        The incoming mail that says so.
    kind
        ``remise``, ``relayee``, ``retardee``, ``rejetee``, ``lue``, ``supprimee`` or ``refusee``.
    code, status
        Three-digit code, and enhanced status (``5.1.1``), when the report has them.
    """
    [message] = step.lock(Message, message.id)
    inserted = step.session.execute(
        insert(Receipt)
        .values(message_id=message.id, source_id=source.id, kind=kind, code=status or code, at=step.now)
        .on_conflict_do_nothing(index_elements=["source_id", "message_id"])
        .returning(Receipt.id)
    ).scalar_one_or_none()
    if inserted is None:
        return
    source.dossier_id, source.session_id, source.report_id = message.dossier_id, message.session_id, message.report_id
    state = _STATES.get(kind)
    if state is not None and _RANK[state] > _RANK.get(message.state, 0):
        message.state = state
    step.session.flush()
    failed = _undelivered(step.session, message, status or code) if kind in {"rejetee", "refusee"} else ()
    step.touch(message, *failed)


def after_delivery(session: Session, message: Message) -> Sequence[NotificationEntry]:
    """Follow the outcome of a delivery into the register and the work list.

    For `gateway.exchange.delivery.Deliveries` (``settled``), inside the transaction that records the outcome. Returns
    the lines of the register that changed, so that their representations follow.
    """
    if message.channel == mailing.CHANNEL and message.direction == "out" and message.state in _FAILED:
        return _undelivered(session, message, (message.reason or "").partition(" ")[2] or None)
    return ()


def _undelivered(session: Session, message: Message, status: str | None) -> Sequence[NotificationEntry]:
    if message.recipient and status is not None and status.startswith("5.1."):
        session.execute(
            update(Mailbox)
            .where(func.lower(Mailbox.address) == message.recipient.lower(), Mailbox.unusable_since.is_(None))
            .values(unusable_since=utcnow())
        )
    entries = session.scalars(select(NotificationEntry).where(NotificationEntry.message_id == message.id)).all()
    for entry in entries:
        entry.code = "ECHEC"
    ask_person(session, message, f"envoi-{message.state}", about=message)
    return entries


def ask_person(session: Session, message: Message, reason: str, *, about: Message | None = None) -> None:
    """Put a message on the work list, once while it is open.

    Parameters
    ----------
    about
        The message of ours that it concerns, when known: its dossier's secretariat is asked.
    """
    dossier_id = about.dossier_id if about is not None else None
    ask(
        session,
        WorkItem(
            key=f"message|{message.id}",
            kind="message",
            reason=reason,
            message_id=message.id,
            dossier_id=dossier_id,
            network_id=_network(session, dossier_id),
            details={"type": about.kind} if about is not None else {},
        ),
    )


def _network(session: Session, dossier_id: uuid.UUID | None) -> uuid.UUID | None:
    return session.scalar(
        select(Rcp.network_id)
        .join(RcpSession, RcpSession.rcp_id == Rcp.id)
        .join(Dossier, Dossier.session_id == RcpSession.id)
        .where(Dossier.id == dossier_id)
    )


def answered(session: Session, message_ids: Sequence[str]) -> Message | None:
    """Find the message of ours that a mail answers; the first of the identifiers that is ours counts."""
    if not message_ids:
        return None
    rows = session.scalars(
        select(Message).where(
            Message.direction == "out", Message.channel == mailing.CHANNEL, Message.message_id.in_(message_ids)
        )
    ).all()
    by_id = {row.message_id: row for row in rows}
    return next((by_id[one] for one in message_ids if one in by_id), None)
