"""What happens to a mail after it left: outcomes of its delivery, receipts, answers of people.

Promises: receipts in any order and any number give one state (`gateway.rcp.receipt_rules`); the same report twice is
one receipt; a mailbox that does not exist is not used again; whatever needs a person stands on the work list, once,
and goes from it by itself when better news comes.
Knows no mail format (`gateway.mssante.receipts` reads them). [spec mssante 5.3, 5.7]
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, String, literal_column, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from gateway.model.dossier import Dossier
from gateway.model.meeting import Rcp, RcpSession
from gateway.model.message import Message, NotificationEntry, Receipt
from gateway.model.person import WorkItem
from gateway.rcp import mailboxes, mailing
from gateway.rcp.receipt_rules import OPEN, address_is_lost, state_after
from gateway.rcp.step import Step
from gateway.rcp.waiting import receipt_due
from gateway.rcp.work_list import ask, settle_by_itself

__all__ = ["after_delivery", "answered", "ask_person", "find_sent", "sent_by", "take_receipt"]


#: Failures that a person must look at.
_FAILED = frozenset({"refuse", "parque"})
#: Receipts that a person must look at, and under which question.
_QUESTIONS: Mapping[str, str] = {
    "rejetee": "envoi-rejete",
    "refusee": "envoi-non-integre",
    "supprimee": "envoi-supprime",
}
#: Questions that better news answers by itself, by the kind of receipt that brings it.
_ANSWERS: Mapping[str, tuple[str, ...]] = {
    "remise": ("sans-nouvelle",),
    "rejetee": ("sans-nouvelle", "envoi-supprime"),
    "refusee": ("sans-nouvelle", "sans-lecture", "envoi-supprime"),
    "supprimee": ("sans-nouvelle", "sans-lecture"),
    "traitee": ("sans-nouvelle", "sans-lecture", "envoi-supprime"),
    "lue": ("sans-nouvelle", "sans-lecture", "envoi-supprime"),
}
# Written out, not bound: a plan for any value uses an index whose condition and expression it can see.
_OUTGOING: ColumnElement[str] = literal_column("'out'")
_ENVELOPE: ColumnElement[str] = literal_column("message.details ->> 'envelope_id'", String)


def find_sent(session: Session, *, message_id: str | None, envelope_id: str | None) -> Message | None:
    """Find the message of ours that a report speaks of, by ENVID, else by Message-ID."""
    for statement in sent_by(message_id=message_id, envelope_id=envelope_id):
        found = session.scalars(statement).first()
        if found is not None:
            return found
    return None


def sent_by(*, message_id: str | None, envelope_id: str | None) -> Sequence[Select[Message]]:
    """Return the questions that `find_sent` asks, in turn."""
    names = (
        _ENVELOPE.bool_op("=")(envelope_id) if envelope_id else None,
        Message.message_id == message_id if message_id else None,
    )
    ours = select(Message).where(Message.direction == _OUTGOING, Message.channel == mailing.CHANNEL)
    return [ours.where(name) for name in names if name is not None]


def take_receipt(
    step: Step, message: Message, source: Message, kind: str, *, code: str | None = None, status: str | None = None
) -> None:
    """Keep what a report says of one of our messages.

    Parameters
    ----------
    source
        The incoming mail that says so.
    kind
        One of `gateway.rcp.receipt_rules.STATES`.
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
    message.state = state_after(message.state, kind)
    step.session.flush()
    settle_by_itself(step.session, message.id, _ANSWERS.get(kind, ()))
    changed: Sequence[NotificationEntry] = ()
    if kind in {"rejetee", "refusee"}:
        lost = kind == "rejetee" and address_is_lost(status=status, code=code)
        changed = _undelivered(step.session, message, _QUESTIONS[kind], lost=lost)
    elif kind == "supprimee" and message.state == "supprime":  # else another receipt says more
        ask_person(step.session, message, _QUESTIONS[kind], about=message)
    step.touch(message, *changed)


def after_delivery(session: Session, message: Message) -> Sequence[NotificationEntry]:
    """Follow the outcome of a delivery into the register and the work list.

    For `gateway.exchange.delivery.Deliveries` (``settled``), inside the transaction that records the outcome. Returns
    the lines of the register that changed, so that their representations follow.
    """
    if message.channel != mailing.CHANNEL or message.direction != "out":
        return ()
    message.receipt_due_at = receipt_due(session, message) if message.state in OPEN | {"accepte"} else None
    session.flush()
    if message.state not in _FAILED:
        return ()
    code, _, status = (message.reason or "").partition(" ")
    said = code.removeprefix("smtp-") if message.details.get("at_recipient") else None
    lost = message.state == "refuse" and address_is_lost(status=status or None, code=said)
    return _undelivered(session, message, f"envoi-{message.state}", lost=lost)


def _undelivered(session: Session, message: Message, reason: str, *, lost: bool) -> Sequence[NotificationEntry]:
    if message.recipient and lost:
        mailboxes.set_aside(session, message.recipient)
    entries = session.scalars(select(NotificationEntry).where(NotificationEntry.message_id == message.id)).all()
    for entry in entries:
        entry.code = "ECHEC"
    ask_person(session, message, reason, about=message, **({"adresse": "perdue"} if lost else {}))
    return entries


def ask_person(
    session: Session, message: Message, reason: str, *, about: Message | None = None, **details: Any
) -> None:
    """Put a message on the work list, once for a reason while it is open.

    Parameters
    ----------
    about
        The message of ours that it concerns, when known: its dossier's secretariat is asked.
    """
    dossier_id = about.dossier_id if about is not None else None
    ask(
        session,
        WorkItem(
            key=f"message|{message.id}|{reason}",
            kind="message",
            reason=reason,
            message_id=message.id,
            dossier_id=dossier_id,
            network_id=_network(session, dossier_id),
            details=({"type": about.kind} if about is not None else {}) | details,
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
