"""What a notified physician was told of a meeting and is true no more: who must be told.

Promises: what counts is the last notification that was made for him and what it says (`gateway.rcp.mailing.announced`),
so that a change taken back before the next run tells nobody. Writes nothing (`gateway.rcp.notice_sending` tells). Not
promised: changes of notifications that were made before it was kept what they say.

[spec features 4.2 M1c, S2-012]
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from gateway.model.directory import Organisation, PracticeRole, Practitioner
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import Rcp, RcpSession
from gateway.model.message import Message, NotificationEntry
from gateway.model.person import PatientRecord
from gateway.rcp import access, dossier_states, mailing
from gateway.rcp.caller import Caller
from gateway.rcp.notice_cases import KIND, TREATING
from gateway.rcp.register import IDENTITY, PERSON, Identity, Person

__all__ = [
    "BY_ITSELF",
    "CHANGE",
    "Notified",
    "Told",
    "holds_still",
    "notified_sessions",
    "renotifies",
    "told",
    "told_of",
]

CHANGE: Final = "M1c"
#: States of a mail that told nobody anything.
_LOST: Final = frozenset({"parque", "refuse", "rejete", "annule"})


def renotifies(rcp: Rcp) -> bool:
    """Whether the RCP wants notified physicians told of changes by themselves."""
    return bool(rcp.notification.get("active")) and bool(rcp.notification.get("renotification_auto"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One physician of one dossier, what he was told last, and how it stands now.

    Attributes
    ----------
    session_id, starts_at, link, extra
        The meeting of which he was told, when and by which link; ``starts_at`` is None when it was not kept.
    by_itself
        A change reaches him without anybody: the RCP wants it, and nothing about him or the patient forbids it.
    lost
        This very mail did not arrive.
    changes
        What of it is true no more, by the names of the text's blocks; empty when all is.
    """

    dossier_id: uuid.UUID
    reference: str
    record: Identity
    physician: Person
    address: str
    phone: str | None = None
    at: datetime
    session_id: uuid.UUID | None
    starts_at: datetime | None
    link: str
    extra: str
    by_itself: bool
    lost: bool
    changes: frozenset[str]


def _changes(
    details: Mapping[str, Any],
    dossier_state: str,
    session_state: str,
    starts_at: datetime,
    web: Mapping[str, Any],
    now: datetime,
) -> frozenset[str]:
    """Compare what a mail says of a meeting with how it stands."""
    said = details.get("annonce")
    if not said or "fin" in details:
        return frozenset()
    for_when = datetime.fromisoformat(said["debut"])
    if dossier_state in dossier_states.FINAL:
        return frozenset({"chg.retrait"} if for_when > now else ())
    if session_state in {"annulee", "reportee"}:
        return frozenset({"chg.annule"} if for_when > now else ())
    if starts_at <= now:
        return frozenset()
    found = {"chg.date"} if for_when != starts_at else set()
    link, extra = web.get("lien") or "", web.get("complement") or ""
    if (said["lien"], said["complement"]) != (link, extra):
        found.add("chg.lien" if link else "chg.sans_lien")
    # What was said beside a link that never was is no news.
    return frozenset(found - ({"chg.sans_lien"} if not said["lien"] else set()))


_COLUMNS = (
    Message.dossier_id,
    Message.kind,
    Message.recipient,
    Message.domain_at,
    Message.state,
    Message.details,
    Dossier.reference,
    Dossier.state,
    RcpSession.state,
    RcpSession.starts_at,
    Rcp.webconference,
    *PERSON,
    *IDENTITY,
)


#: Mails that left, may have, or are to; what was held back told nothing.
_HAD: Final = or_(Message.state != "annule", Message.uncertain_at.is_not(None))
_TREATED = exists().where(
    Correspondent.dossier_id == Dossier.id,
    Correspondent.practitioner_id == Message.recipient_id,
    Correspondent.role == TREATING,
)
#: Whom a mail reaches, of those who were told.
BY_ITSELF: ColumnElement[bool] = and_(
    Rcp.notification["renotification_auto"].astext == "true",
    Rcp.notification["active"].astext == "true",
    Rcp.fictive.is_(False),
    Dossier.opposed_at.is_(None),
    Practitioner.informed.is_(True),
    _TREATED.where(Correspondent.declined_at.is_(None)).correlate(Dossier, Message),
)


def told(session: Session, now: datetime, *wanted: ColumnElement[bool]) -> Iterable[Told]:
    """Read the last notification of each physician of some dossiers, flat."""
    rows = session.execute(
        select(BY_ITSELF, *_COLUMNS)
        .join(Dossier, Dossier.id == Message.dossier_id)
        .join(RcpSession, RcpSession.id == Dossier.session_id)
        .join(Rcp, Rcp.id == RcpSession.rcp_id)
        .join(PatientRecord, PatientRecord.id == Dossier.record_id)
        .join(Practitioner, Practitioner.id == Message.recipient_id)
        .where(
            Message.direction == "out",
            Message.channel == mailing.CHANNEL,
            _HAD,
            # A first notification that did not arrive told nothing; a change that did not is not sent again by itself.
            or_(Message.kind == CHANGE, (Message.kind == KIND) & Message.state.not_in(sorted(_LOST))),
            *wanted,
        )
        .distinct(Message.dossier_id, Message.recipient_id)
        .order_by(Message.dossier_id, Message.recipient_id, Message.created_at.desc(), Message.id.desc())
    )
    for by_itself, about, kind, address, at, state, details, reference, stands, held, starts_at, web, *named in rows:
        said = details.get("annonce") or {}
        yield Told(
            dossier_id=about,
            reference=reference,
            record=Identity(*named[len(PERSON) :]),
            physician=Person(*named[: len(PERSON)]),
            address=address or "",
            at=at,
            session_id=uuid.UUID(said["seance"]) if said else None,
            starts_at=datetime.fromisoformat(said["debut"]) if said else None,
            link=said.get("lien", ""),
            extra=said.get("complement", ""),
            by_itself=by_itself,
            lost=kind == CHANGE and state in _LOST,
            changes=_changes(details, stands, held, starts_at, web, now),
        )


def told_of(session: Session, caller: Caller, meeting: RcpSession, now: datetime) -> Sequence[Told]:
    """Return the physicians who were told of a session, whatever became of it, that the caller may see; in order.

    A dossier that was moved elsewhere stays as long as its physician believes it here; who said that it is not his
    patient is not disturbed again.
    """
    declined = _TREATED.where(Correspondent.declined_at.is_not(None)).correlate(Dossier, Message)
    here = or_(
        Dossier.session_id == meeting.id,
        Dossier.id.in_(
            select(NotificationEntry.dossier_id).where(
                NotificationEntry.session_id == meeting.id, NotificationEntry.kind.like(f"{KIND}%")
            )
        ),
    )
    found = told(session, now, here, ~declined, access.dossiers(caller))
    mine = [one for one in found if one.session_id in {None, meeting.id} or one.changes]
    phones = _phones(session, {one.physician.id for one in mine})
    known = (replace(one, phone=phones.get(one.physician.id)) for one in mine)
    return sorted(known, key=lambda one: (one.physician.family, one.physician.given, one.reference))


def _phones(session: Session, physicians: set[uuid.UUID]) -> Mapping[uuid.UUID, str]:
    """Return a number of the structure where each works still, when the directory has one."""
    rows = session.execute(
        select(PracticeRole.practitioner_id, func.min(Organisation.phone))
        .join(Organisation, Organisation.id == PracticeRole.organisation_id)
        .where(
            PracticeRole.practitioner_id.in_(physicians),
            PracticeRole.gone_on.is_(None),
            Organisation.phone.is_not(None),
        )
        .group_by(PracticeRole.practitioner_id)
    )
    return {key: phone for key, phone in rows if phone}


@dataclass(frozen=True, slots=True)
class Notified:
    """A session to come whose notifications have left, the first of them at ``at``."""

    session_id: uuid.UUID
    starts_at: datetime
    at: datetime


def notified_sessions(session: Session, rcp_id: uuid.UUID, now: datetime) -> Sequence[Notified]:
    """Return the sessions to come of an RCP of which a physician was told already, the next first."""
    rows = session.execute(
        select(RcpSession.id, RcpSession.starts_at, func.min(Message.domain_at))
        .join(Message, Message.session_id == RcpSession.id)
        .where(
            RcpSession.rcp_id == rcp_id,
            RcpSession.starts_at > now,
            Message.direction == "out",
            Message.kind == KIND,
            Message.state.not_in(sorted(_LOST)),
        )
        .group_by(RcpSession.id, RcpSession.starts_at)
        .order_by(RcpSession.starts_at)
    )
    return [Notified(*row) for row in rows]


def holds_still(session: Session, message: Message, now: datetime) -> bool:
    """Whether all that a notification says, or a mail that told of a change, is still so, and the last word of it.

    A meeting that has begun, or a patient who opposed, leaves nothing to say. Of a notification that kept nothing of
    what it says it is not known: it holds.
    """
    dossier = session.get(Dossier, message.dossier_id) if message.dossier_id is not None else None
    said = message.details.get("annonce")
    if dossier is None or not said:
        return True
    later = select(Message.id).where(
        Message.direction == "out",
        Message.channel == mailing.CHANNEL,
        Message.kind.in_((KIND, CHANGE)),
        Message.dossier_id == message.dossier_id,
        Message.recipient_id == message.recipient_id,
        Message.created_at > message.created_at,
        _HAD,
    )
    if dossier.opposed_at is not None or session.scalar(later.limit(1)) is not None:
        return False
    meeting = dossier.session
    if "fin" in message.details:
        over = dossier.state in dossier_states.FINAL or meeting.state in {"annulee", "reportee"}
        return over and datetime.fromisoformat(said["debut"]) > now
    changes = _changes(message.details, dossier.state, meeting.state, meeting.starts_at, meeting.rcp.webconference, now)
    return not changes and meeting.starts_at > now
