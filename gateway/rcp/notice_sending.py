"""The mail that tells a notified physician what changed of his meeting (M1c), and what stops one that waits.

Promises: the same change is told once whatever runs twice, at once, or is killed (the dossier is locked while it is
decided; the key of the mail is its number for this physician). Nothing leaves unless the RCP wants it
(``renotification_auto``), after the patient's opposition, to who is no longer the treating physician, or once the
meeting has begun; a mail that failed is a person's, never sent anew by itself; one that waits still and is true no more
is held back, and told nobody anything. What is a change: `gateway.rcp.notice_changes`.

[spec features 4.2 M1c, S2-012]
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from gateway.identifiers import uuid7
from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.meeting import RcpSession
from gateway.model.message import Attempt, Message, NotificationEntry
from gateway.model.store import utcnow
from gateway.rcp import access, mailboxes, mailing
from gateway.rcp.letters import change_values, compose, full_name
from gateway.rcp.notice_changes import BY_ITSELF, CHANGE, Told, holds_still, renotifies, told
from gateway.rcp.ports import Letter, Letters
from gateway.rcp.step import Step, Steps
from gateway.rcp.work_list import ask_secretariat

__all__ = ["announce_changes", "announce_changes_due"]

#: After which there is nothing to come.
_ENDS: Final = frozenset({"chg.annule", "chg.retrait"})


def announce_changes_due(steps: Steps, letters: Letters) -> int:
    """Tell every physician whose meeting changed after he was notified; each dossier in a step of its own.

    Run by the worker every few seconds: it may run at any time, twice, or after a crash. Says how many mails leave.
    """
    now = steps.clock.now()
    with steps.store.session() as session:
        stale = [one.dossier_id for one in session.scalars(_waiting()) if not holds_still(session, one, now)]
        changed = (one for one in told(session, now, BY_ITSELF, RcpSession.starts_at > now) if one.changes)
        due = list(dict.fromkeys(key for key in (*stale, *(one.dossier_id for one in changed)) if key is not None))
    return steps.each(due, lambda key, step: announce_changes(step, key, letters), refused="change-not-announced")


def announce_changes(step: Step, dossier_id: uuid.UUID, letters: Letters) -> int:
    """Tell the physicians of one dossier what changed since they were told; say how many mails leave."""
    [dossier] = step.lock(Dossier, dossier_id)
    _hold_back(step, dossier)
    rcp = dossier.session.rcp
    if dossier.opposed_at is not None or rcp.fictive or not renotifies(rcp):
        return 0
    found = list(told(step.session, step.now, Dossier.id == dossier.id))
    return sum(_tell(step, dossier, one, letters) for one in found if one.changes)


def _hold_back(step: Step, dossier: Dossier) -> None:
    """Cancel the mails of changes that wait and say what is true no more.

    Of those under way nobody knows whether they arrive: they count as told.
    """
    waiting = step.session.scalars(
        _waiting(Message.dossier_id == dossier.id)
        .order_by(Message.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    stale = [message for message in waiting if not holds_still(step.session, message, step.now)]
    # Asked once the rows are locked: an attempt begins under the lock of its message.
    under_way = select(Attempt.message_id).where(
        Attempt.message_id.in_([message.id for message in stale]), Attempt.ended_at.is_(None)
    )
    leaving = set(step.session.scalars(under_way)) if stale else set()
    for message in stale:
        message.state, message.reason = "annule", "changement qui n’est plus vrai, retenu avant l’envoi"
        if message.id in leaving:
            message.uncertain_at = message.uncertain_at or utcnow()
        step.touch(message)
    step.session.flush()


def _waiting(*wanted: ColumnElement[bool]) -> Select[Message]:
    return select(Message).where(
        Message.direction == "out",
        Message.channel == mailing.CHANNEL,
        Message.kind == CHANGE,
        Message.state == "en-attente",
        *wanted,
    )


def _tell(step: Step, dossier: Dossier, one: Told, letters: Letters) -> bool:
    line = access.treating(dossier, one.physician.id)
    who = line.practitioner if line is not None else None
    if line is None or who is None or not who.informed or one.starts_at is None:
        return False
    boxes = mailboxes.addresses(
        step.session, who, personal=line.use_personal, secretariat=line.use_secretariat, dossier=dossier
    )
    number = _number(step.session, dossier, who)
    kind = f"{CHANGE}.{number}"
    entry = step.session.scalars(
        select(NotificationEntry).where(
            NotificationEntry.dossier_id == dossier.id,
            NotificationEntry.session_id == dossier.session_id,
            NotificationEntry.subject == who.idnps,
            NotificationEntry.kind == kind,
        )
    ).one_or_none()
    if not boxes and entry is not None:
        return False  # it is said already
    if entry is None:
        entry = NotificationEntry(
            id=uuid7(),
            dossier_id=dossier.id,
            session_id=dossier.session_id,
            subject=who.idnps,
            practitioner_id=who.id,
            kind=kind,
            code="NON_MSS",
        )
        step.session.add(entry)
    entry.decided_at = step.now
    if not boxes:
        key = f"changement|{dossier.id}|{who.idnps}|{number}"
        ask_secretariat(step.session, dossier, key, "changement-non-annonce")
    if boxes:
        message = _post(step, dossier, who, one, boxes[0].address, number, letters)
        entry.code, entry.message_id = "ENVOYEE", message.id
    step.session.flush()
    step.touch(entry)
    return bool(boxes)


def _number(session: Session, dossier: Dossier, who: Practitioner) -> int:
    """Return which change this is for this physician: those made before are counted under the dossier's lock."""
    made = (
        select(func.count())
        .select_from(Message)
        .where(
            Message.direction == "out",
            Message.channel == mailing.CHANNEL,
            Message.kind == CHANGE,
            Message.dossier_id == dossier.id,
            Message.recipient_id == who.id,
        )
    )
    return (session.scalar(made) or 0) + 1


def _post(
    step: Step, dossier: Dossier, who: Practitioner, one: Told, address: str, number: int, letters: Letters
) -> Message:
    assert one.starts_at is not None  # noqa: S101 - the caller chose those of whom it was kept
    values = change_values(dossier, who, told_at=one.at, told_start=one.starts_at)
    values |= dict.fromkeys(one.changes, True)
    values["ancien.lien"] = bool(one.link) and one.link != values["lien_webconf"]
    text = compose(step.session, CHANGE, values, address)
    key = "|".join((CHANGE, str(dossier.id), str(dossier.session_id), who.idnps, str(number)))
    sealed = letters.seal(
        Letter(
            kind=CHANGE,
            key=key,
            at=step.now,
            address=address,
            name=full_name(who),
            subject=text.subject,
            body=text.body,
        )
    )
    ends: dict[str, Any] = dict.fromkeys(("fin",) * bool(one.changes & _ENDS), True)
    message = mailing.post(step, dossier, sealed, kind=CHANGE, key=key, recipient=who, address=address, **ends)
    mailing.record(step, dossier, message)
    return message
