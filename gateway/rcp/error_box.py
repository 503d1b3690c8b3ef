"""The error box: what became wrong with a mail, and what a person does about it.

Promises: only who organises a meeting of the network sees an item, and anybody else gets the 404 of what does not
exist; each act is done once, however often its form is sent, and says in the item who closed it, when and how; a mail
that is tied to no dossier is named by its sender and its date, its content is shown to nobody; what a person reads of
it once it is tied is written down. Decides nothing by itself. [spec mssante 5.6, 5.7]
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from gateway.errors import Conflict, InvalidContent
from gateway.exchange.blobs import BlobStore
from gateway.exchange.replaying import read_again, send_again
from gateway.model.dossier import Dossier
from gateway.model.message import Message
from gateway.model.person import WorkItem
from gateway.model.store import utcnow
from gateway.rcp import access, mailboxes, resending
from gateway.rcp.access import Caller
from gateway.rcp.ports import Letters, ReportMails
from gateway.rcp.step import Step
from gateway.rcp.work_list import still_open

__all__ = [
    "ENDED",
    "GROUPS",
    "REASON_CHARACTERS",
    "close",
    "counts",
    "forget_address",
    "held",
    "items",
    "readable",
    "replay",
    "resend",
    "take_address_back",
    "tie",
]

REASON_CHARACTERS = 300

_MAIL = WorkItem.kind.in_(("message", "notification"))
_OUT = select(Message.id).where(Message.id == WorkItem.message_id, Message.direction == "out").exists()
_IN = select(Message.id).where(Message.id == WorkItem.message_id, Message.direction == "in").exists()
#: A document that a software brought in no mail.
_BROUGHT = (WorkItem.kind == "message") & WorkItem.message_id.is_(None)

GROUPS: Mapping[str, ColumnElement[bool]] = {
    "envois": _OUT,
    "recus": or_(_IN, _BROUGHT),
    "notifications": WorkItem.message_id.is_(None) & ~_BROUGHT,
}
"""What a list may be narrowed to: mails that we sent, what came, physicians who could not be told."""

#: States of an outgoing mail that may be sent again as it is.
ENDED = frozenset({"refuse", "rejete", "parque", "sans-nouvelle", "supprime"})


def items(
    session: Session,
    caller: Caller,
    *,
    group: str | None = None,
    opened_before: datetime | None = None,
    limit: int = 100,
) -> Sequence[WorkItem]:
    """Return the open items that the caller may work on, oldest first."""
    statement = select(WorkItem).where(_MAIL, WorkItem.closed_at.is_(None), access.work_items(caller))
    if group is not None:
        statement = statement.where(GROUPS[group])
    if opened_before is not None:
        statement = statement.where(WorkItem.opened_at < opened_before)
    return session.scalars(statement.order_by(WorkItem.opened_at, WorkItem.id).limit(limit)).all()


def counts(session: Session, caller: Caller) -> Mapping[str, int]:
    """Return how many open items each group has."""
    open_items = (_MAIL, WorkItem.closed_at.is_(None), access.work_items(caller))
    return {
        name: session.scalar(select(func.count()).select_from(WorkItem).where(*open_items, group)) or 0
        for name, group in GROUPS.items()
    }


def held(session: Session, caller: Caller, item_id: uuid.UUID) -> WorkItem:
    """Return an item, open or closed, that the caller may work on.

    Raises
    ------
    NotFound
        It does not exist, or not for him.
    """
    found = session.scalars(
        select(WorkItem).where(WorkItem.id == item_id, _MAIL, access.work_items(caller))
    ).one_or_none()
    if found is None:
        raise access.hidden(caller, "WorkItem", item_id)
    return found


def readable(session: Session, caller: Caller, item: WorkItem) -> tuple[Message, Dossier] | None:
    """Return the mail that came and the dossier that it is tied to, if the caller sees that dossier."""
    message = session.get(Message, item.message_id) if item.message_id is not None else None
    if message is None or message.direction != "in" or message.dossier_id is None:
        return None
    dossier = session.scalars(
        select(Dossier).where(Dossier.id == message.dossier_id, access.dossiers(caller))
    ).one_or_none()
    return (message, dossier) if dossier is not None else None


def close(step: Step, item_id: uuid.UUID, reason: str) -> None:
    """Close an item with what a person did about it.

    Raises
    ------
    InvalidContent
        ``motif-absent``, ``motif-trop-long``.
    Conflict
        ``deja-traite``: somebody else has closed it.
    """
    said = " ".join(reason.split())
    if not said:
        text = "Dites ce qui a été fait, ou pourquoi il n’y a rien à faire."
        raise InvalidContent("motif-absent", text, expression="motif", rule=True)
    if len(said) > REASON_CHARACTERS:
        text = f"Ce texte dépasse {REASON_CHARACTERS} caractères."
        raise InvalidContent("motif-trop-long", text, expression="motif", rule=True)
    item = _open(step, item_id)
    if item is not None:
        _closed(step, item, said)


def replay(step: Step, item_id: uuid.UUID) -> None:
    """Send the same bytes to the same address again, or read a mail that came again.

    Raises
    ------
    Conflict
        ``deja-traite``; ``renvoi-perime``; ``rejeu-impossible``: there is no message, or it is on its way.
    """
    item = _open(step, item_id)
    if item is None:
        return
    message = _message(step, item)
    if message is not None and message.direction == "out" and message.state in ENDED:
        resending.require_same(step, message)
        send_again(step.session, message.id)
    elif message is not None and message.direction == "in":
        read_again(step.session, message.id)
    else:
        raise Conflict(
            "rejeu-impossible", "Il n’y a rien à rejouer : ce message est déjà en chemin, ou il n’existe pas."
        )
    step.touch(message)
    _closed(step, item, "rejoue")


def resend(
    step: Step,
    item_id: uuid.UUID,
    mailbox: str,
    letters: Letters,
    mails: ReportMails | None,
    blobs: BlobStore,
    *,
    remember: bool = False,
) -> None:
    """Send the same letter to another address of the same person, and to it first from now on if wished.

    Raises
    ------
    Conflict
        ``deja-traite``, ``renvoi-perime``, ``rejeu-impossible``.
    InvalidContent, Unsupported
        As `gateway.rcp.resending.resend`.
    """
    item = _open(step, item_id)
    if item is None:
        return
    message = _message(step, item)
    if message is None or message.direction != "out" or message.state == "en-attente":
        raise Conflict("rejeu-impossible", "Il n’y a rien à renvoyer : ce message est en chemin, ou il n’existe pas.")
    new = resending.resend(step, message, mailbox, letters, mails, blobs, remember=remember)
    _closed(step, item, "renvoye", recipient=new.recipient)


def tie(step: Step, item_id: uuid.UUID, reference: str) -> None:
    """Tie a mail that came to a dossier; it stays as it came, beside the dossier.

    Raises
    ------
    NotFound
        The dossier does not exist for the caller.
    Conflict
        ``deja-traite``; ``rejeu-impossible``: no mail came.
    """
    item = _open(step, item_id)
    if item is None:
        return
    message = _message(step, item)
    if message is None or message.direction != "in":
        raise Conflict("rejeu-impossible", "Cette situation ne porte sur aucun courriel reçu.")
    dossier = step.session.scalars(
        select(Dossier).where(Dossier.reference == reference.strip().upper(), access.dossiers(step.caller))
    ).one_or_none()
    if dossier is None:
        text = "Aucun dossier qui vous soit accessible ne porte cette référence."
        raise access.hidden(step.caller, "Dossier", reference.strip()[:40], text=text)
    message.dossier_id, message.session_id, message.state = dossier.id, dossier.session_id, "traite"
    item.dossier_id, item.network_id = dossier.id, dossier.session.rcp.network_id
    _closed(step, item, "rattache", persons=(dossier.record_id,), dossier=dossier.id)


def forget_address(step: Step, item_id: uuid.UUID) -> None:
    """Use the address of a mail that failed no more; the item stays open.

    Raises
    ------
    Conflict
        ``deja-traite``, ``rejeu-impossible``.
    """
    _address(step, item_id, mailboxes.set_aside, "perdue", "adresse-inutilisable")


def take_address_back(step: Step, item_id: uuid.UUID) -> None:
    """Use again the address of a mail that failed: the fault is mended; the item stays open.

    Raises
    ------
    Conflict
        ``deja-traite``, ``rejeu-impossible``.
    """
    _address(step, item_id, mailboxes.take_back, "reprise", "adresse-reprise")


def _address(step: Step, item_id: uuid.UUID, act: Callable[[Session, str], None], said: str, reason: str) -> None:
    item = _open(step, item_id)
    if item is None:
        return
    message = _message(step, item)
    if message is None or message.direction != "out" or not message.recipient:
        raise Conflict("rejeu-impossible", "Cette situation ne porte sur aucune adresse.")
    act(step.session, message.recipient)
    item.details = {**item.details, "adresse": said}
    step.audit(
        "modification",
        action="U",
        object_type="Mailbox",
        object_id=str(message.id),
        recipient=message.recipient,
        reason=reason,
    )


def _open(step: Step, item_id: uuid.UUID) -> WorkItem | None:
    held(step.session, step.caller, item_id)
    return still_open(step, item_id)


def _message(step: Step, item: WorkItem) -> Message | None:
    if item.message_id is None:
        return None
    [message] = step.lock(Message, item.message_id)
    return message


def _closed(step: Step, item: WorkItem, decision: str, **said: object) -> None:
    item.closed_at, item.closed_by, item.decision = utcnow(), step.caller.identifier, decision
    step.session.flush()
    step.audit(
        "modification",
        action="U",
        **({"dossier": item.dossier_id} | said),
        object_type="WorkItem",
        object_id=str(item.id),
        reason=item.reason,
    )
