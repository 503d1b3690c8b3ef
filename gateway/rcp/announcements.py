"""What is told at once of an inscription: to the RCP's administrators (M3), to a requester who comes by video (M4).

What notified physicians are told of a change (M1c) leaves with it: `gateway.rcp.notice_sending`.

Promises: one M3 for each administrator and one M4 for the requester, for one dossier in one session, whatever runs
twice or at once (the dossier is locked while it is decided, each has a line of the register); nothing leaves of a trial
RCP, after the patient's opposition, or once the session has begun; who has no mailbox stands in the register; a dossier
that cannot be told of holds no other. An administrator is told of what was inscribed in the last day, not of what was
there before him.

[spec features S0-068, S1-028, S1-029]
"""

from __future__ import annotations

import uuid
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, exists, or_, select, tuple_

from gateway.identifiers import uuid7
from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.meeting import Rcp, RcpMember, RcpSession
from gateway.model.message import NotificationEntry
from gateway.rcp import access, dossier_states, mailboxes, mailing
from gateway.rcp.added_values import added_values
from gateway.rcp.letters import agenda_entry, announcement_values, compose, full_name, video_values
from gateway.rcp.notice_sending import announce_changes_due
from gateway.rcp.ports import Letter, Letters
from gateway.rcp.step import Step, Steps
from gateway.rcp.templates import Values

__all__ = ["ADDED", "VIDEO", "announce", "announce_due"]

ADDED, VIDEO = "M3", "M4"
_RECENT = timedelta(days=1)
_PAGE = 200


def announce_due(steps: Steps, letters: Letters) -> int:
    """Announce what nobody was told of, inscriptions and changes; each in a step of its own; say how many mails leave.

    Run by the worker every few seconds: it may run at any time, twice, or after a crash.
    """
    now = steps.clock.now()
    told = exists().where(
        NotificationEntry.dossier_id == Dossier.id, NotificationEntry.session_id == Dossier.session_id
    )
    administered = exists().where(
        RcpMember.rcp_id == Rcp.id, RcpMember.role == access.Role.ADMINISTRATOR, RcpMember.until.is_(None)
    )
    due: ColumnElement[bool] = or_(
        and_(Dossier.registered_at > now - _RECENT, administered, ~told.where(NotificationEntry.kind == ADDED)),
        and_(
            Dossier.participation == "webconference",
            Dossier.requester_id.is_not(None),  # else nobody is told, and the dossier held the others' places for ever
            Rcp.webconference["lien"].astext != "",
            ~told.where(NotificationEntry.kind == VIDEO),
        ),
    )
    wanted = (
        select(Dossier.registered_at, Dossier.id)
        .join(RcpSession, RcpSession.id == Dossier.session_id)
        .join(Rcp, Rcp.id == RcpSession.rcp_id)
        .where(
            RcpSession.starts_at > now,
            RcpSession.state.not_in(("annulee", "reportee")),
            Rcp.fictive.is_(False),
            Dossier.opposed_at.is_(None),
            Dossier.state.in_(dossier_states.open_states()),
            due,
        )
        .order_by(Dossier.registered_at, Dossier.id)
        .limit(_PAGE)
    )
    sent, page = 0, wanted
    while True:
        with steps.store.session() as session:
            found = session.execute(page).tuples().all()
        keys = [key for _, key in found]
        sent += steps.each(keys, lambda key, step: announce(step, key, letters), refused="inscription-not-announced")
        if len(found) < _PAGE:
            break
        # One that fails each time keeps its place: the next page begins behind it, not with it.
        page = wanted.where(tuple_(Dossier.registered_at, Dossier.id) > found[-1])
    return sent + announce_changes_due(steps, letters)


def announce(step: Step, dossier_id: uuid.UUID, letters: Letters) -> int:
    """Tell of one inscription whom nobody told yet; say how many mails leave."""
    [dossier] = step.lock(Dossier, dossier_id)
    meeting = dossier.session
    if (
        dossier.opposed_at is not None
        or meeting.rcp.fictive
        or meeting.starts_at <= step.now
        or meeting.state in {"annulee", "reportee"}
        or dossier.state not in dossier_states.open_states()
    ):
        return 0
    sent = 0
    if dossier.registered_at > step.now - _RECENT:
        values = added_values(step.session, dossier, step.now)
        for member in meeting.rcp.members:
            if member.role == access.Role.ADMINISTRATOR and member.until is None:
                who = member.practitioner
                sent += _tell(step, dossier, who, ADDED, announcement_values(dossier, who) | values, letters)
    if dossier.participation == "webconference" and dossier.requester and meeting.rcp.webconference.get("lien"):
        who = dossier.requester
        sent += _tell(step, dossier, who, VIDEO, video_values(dossier, who), letters)
    return sent


def _tell(step: Step, dossier: Dossier, who: Practitioner, kind: str, values: Values, letters: Letters) -> bool:
    """Put one mail into the outbox, unless this person was told or has no mailbox; the register says which."""
    known = select(NotificationEntry.id).where(
        NotificationEntry.dossier_id == dossier.id,
        NotificationEntry.session_id == dossier.session_id,
        NotificationEntry.subject == who.idnps,
        NotificationEntry.kind == kind,
    )
    if step.session.scalar(known) is not None:
        return False
    entry = NotificationEntry(
        id=uuid7(),
        dossier_id=dossier.id,
        session_id=dossier.session_id,
        subject=who.idnps,
        practitioner_id=who.id,
        kind=kind,
        code="NON_MSS",
        decided_at=step.now,
    )
    step.session.add(entry)
    boxes = mailboxes.addresses(step.session, who, secretariat=True, dossier=dossier)
    if boxes:
        address = boxes[0].address
        key = "|".join((kind, str(dossier.id), str(dossier.session_id), who.idnps))
        text = compose(step.session, kind, values, address)
        sealed = letters.seal(
            Letter(
                kind=kind,
                key=key,
                at=step.now,
                address=address,
                name=full_name(who),
                subject=text.subject,
                body=text.body,
                agenda=agenda_entry(dossier.session)
                if kind == VIDEO and dossier.session.rcp.webconference.get("agenda")
                else None,
            )
        )
        message = mailing.post(step, dossier, sealed, kind=kind, key=key, recipient=who, address=address)
        entry.code, entry.message_id = "ENVOYEE", message.id
        mailing.record(step, dossier, message)
    step.session.flush()
    step.touch(entry)
    return bool(boxes)
