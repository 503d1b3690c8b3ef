"""The register of a session as facts: who was told of each dossier or not, and what became of each mail.

Promises: every dossier of the session is there, and those that left it after somebody was told; each treating physician
has a line, decided or not yet; each mail of a report has one, and whoever cannot get it; a fixed number of flat queries
whatever the number of dossiers, and no mail's content is read. Instants are those of the domain's clock.
Not promised: words (`gateway.portal.register`), or that the reader may see the session (its page asks).

[spec features 4.3, S2-018, S2-052]
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, exists, or_, select
from sqlalchemy.orm import Session

from gateway.model.directory import Practitioner
from gateway.model.dossier import Contribution, Correspondent, Dossier
from gateway.model.message import Message, NotificationEntry, Receipt
from gateway.model.person import PatientRecord
from gateway.rcp import access, dossier_states, mailing
from gateway.rcp.access import Caller
from gateway.rcp.notice_cases import KIND, TREATING

__all__ = [
    "IDENTITY",
    "PERSON",
    "Identity",
    "Listed",
    "Mail",
    "Notice",
    "Person",
    "Sending",
    "listed",
    "notices",
    "sendings",
]

#: Mails of a report, as document, as link, to the patient; their withdrawals end with an r.
_REPORTS = ("M5", "M5r", "M6", "M6r", "M6p", "M6pr")
_TO_PATIENT = frozenset({"M6p", "M6pr"})
#: States of a mail that has not left.
_KEPT = frozenset({"en-attente", "parque", "refuse", "annule"})
_FAILED = frozenset({"rejetee", "refusee"})


@dataclass(frozen=True, slots=True)
class Person:
    """A professional as he is named."""

    id: uuid.UUID
    idnps: str
    title: str | None
    given: str
    family: str
    speciality: str | None


@dataclass(frozen=True, slots=True)
class Identity:
    """A patient as a list names him."""

    id: uuid.UUID
    sex: str
    birth_family: str | None
    used_family: str | None
    given: str | None
    used_given: str | None
    birth_date: str | None


@dataclass(frozen=True, slots=True)
class Listed:
    """One dossier of the register; ``here`` is false for one that left the session after somebody was told."""

    id: uuid.UUID
    reference: str
    state: str
    here: bool
    record: Identity


@dataclass(frozen=True, slots=True)
class Mail:
    """What became of one mail.

    Attributes
    ----------
    sent_at
        When it left; None while it has not. ``filed_at``: taken in by the reader's software.
    failure
        Code of what refused it (`gateway.portal.failures` has the words), if something did.
    """

    id: uuid.UUID
    state: str
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    filed_at: datetime | None
    failure: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One physician of one dossier, or that there is none.

    Attributes
    ----------
    person, display
        Who he is; the name alone when no number was given.
    code
        Of the register (`gateway.rcp.notice_rules.REASONS`); None while nothing was decided.
    changes
        Mails that told him of a change afterwards (M1c), oldest first.
    contributed
        When he contributed, oldest first.
    """

    named: bool
    person: Person | None = None
    display: str | None = None
    code: str | None = None
    decided_at: datetime | None = None
    due_at: datetime | None = None
    mail: Mail | None = None
    changes: tuple[Mail, ...] = ()
    declined_at: datetime | None = None
    connected_at: datetime | None = None
    contributed: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class Sending:
    """One version of a report, or its withdrawal, for one person; ``code`` says why there is no mail."""

    version: int | None
    withdrawal: bool
    to_patient: bool
    person: Person | None
    code: str
    decided_at: datetime
    mail: Mail | None


@dataclass(frozen=True, slots=True)
class _Entry:
    person: Person | None
    kind: str
    subject: str
    code: str
    decided_at: datetime
    due_at: datetime | None
    message_id: uuid.UUID | None


#: Columns of a `Person`.
PERSON = (
    Practitioner.id,
    Practitioner.idnps,
    Practitioner.title,
    Practitioner.given,
    Practitioner.family,
    Practitioner.speciality,
)
#: Columns of an `Identity`.
IDENTITY = (
    PatientRecord.id,
    PatientRecord.sex,
    PatientRecord.birth_family,
    PatientRecord.used_family,
    PatientRecord.given,
    PatientRecord.used_given,
    PatientRecord.birth_date,
)
_MAIL = (
    Message.id,
    Message.state,
    Message.reason,
    Message.domain_at,
    Message.created_at,
    Message.done_at,
)


def listed(session: Session, caller: Caller, session_id: uuid.UUID) -> Sequence[Listed]:
    """Return the dossiers of a session's register that the caller may see, in the order of the agenda."""
    told = exists().where(
        NotificationEntry.dossier_id == Dossier.id,
        NotificationEntry.session_id == session_id,
        NotificationEntry.kind.like(f"{KIND}%"),
    )
    waits = and_(Dossier.session_id == session_id, Dossier.state.not_in(sorted(dossier_states.FINAL)))
    rows = session.execute(
        select(
            Dossier.id,
            Dossier.reference,
            Dossier.state,
            Dossier.session_id,
            *IDENTITY,
        )
        .join(PatientRecord, PatientRecord.id == Dossier.record_id)
        .where(access.dossiers(caller), or_(waits, told))
        .order_by(Dossier.session_id != session_id, Dossier.rank.nulls_last(), Dossier.registered_at, Dossier.id)
    )
    return [Listed(key, ref, state, at == session_id, Identity(*who)) for key, ref, state, at, *who in rows]


def notices(
    session: Session, session_id: uuid.UUID, dossiers: Collection[uuid.UUID]
) -> Mapping[uuid.UUID, Sequence[Notice]]:
    """Return the physicians of some dossiers in a session; each dossier has at least one line."""
    entries = _entries(session, session_id, dossiers, f"{KIND}%")
    mails = _mails(session, {one.message_id for found in entries.values() for one in found if one.message_id})
    lines = _treating(session, dossiers)
    written: dict[tuple[uuid.UUID, uuid.UUID], list[datetime]] = {}
    statement = select(Contribution.dossier_id, Contribution.author_id, Contribution.at)
    about = statement.where(Contribution.dossier_id.in_(dossiers)).order_by(Contribution.at)
    for dossier_id, author_id, at in session.execute(about):
        written.setdefault((dossier_id, author_id), []).append(at)
    found: dict[uuid.UUID, Sequence[Notice]] = {}
    for one in dossiers:
        said = list(_decided(entries.get(one, ()), lines.get(one, ()), mails, one, written))
        found[one] = said or [Notice(named=False)]
    return found


@dataclass(frozen=True, slots=True)
class _Line:
    subject: str
    person: Person | None
    display: str | None
    declined_at: datetime | None
    connected_at: datetime | None


def _decided(
    entries: Sequence[_Entry],
    lines: Sequence[_Line],
    mails: Mapping[uuid.UUID, Mail],
    dossier_id: uuid.UUID,
    written: Mapping[tuple[uuid.UUID, uuid.UUID], Sequence[datetime]],
) -> Iterable[Notice]:
    left = list(lines)
    changes: dict[str, list[Mail]] = {}
    for one in entries:
        mail = mails.get(one.message_id) if one.message_id is not None else None
        if one.kind != KIND and mail is not None:
            changes.setdefault(one.subject, []).append(mail)

    def notice(line: _Line | None, entry: _Entry | None) -> Notice:
        person = entry.person if entry is not None and entry.person is not None else line.person if line else None
        return Notice(
            named=line is not None or person is not None,
            person=person,
            display=line.display if line else None,
            code=entry.code if entry else None,
            decided_at=entry.decided_at if entry else None,
            due_at=entry.due_at if entry else None,
            mail=mails.get(entry.message_id) if entry and entry.message_id else None,
            changes=tuple(changes.get(entry.subject if entry else line.subject if line else "", ())),
            declined_at=line.declined_at if line else None,
            connected_at=line.connected_at if line else None,
            contributed=tuple(written.get((dossier_id, person.id), ())) if person else (),
        )

    for entry in entries:
        if entry.kind == KIND:
            line = next((one for one in left if _about(entry, one)), None)
            if line is not None:
                left.remove(line)
            elif lines and entry.message_id is None:
                continue  # somebody who was never told, and whose place another one has
            yield notice(line, entry)
    for line in left:
        yield notice(line, None)


def _about(entry: _Entry, line: _Line) -> bool:
    if entry.person is not None:
        return line.person is not None and line.person.id == entry.person.id
    return entry.subject == line.subject


def sendings(
    session: Session, session_id: uuid.UUID, dossiers: Collection[uuid.UUID]
) -> Mapping[uuid.UUID, Sequence[Sending]]:
    """Return what was sent of the reports of some dossiers in a session, oldest first, and who could not get it."""
    mails = session.execute(
        select(Message.dossier_id, Message.kind, Message.details["version"].astext, *_MAIL, *PERSON)
        .join(Practitioner, Practitioner.id == Message.recipient_id, isouter=True)
        .where(
            Message.direction == "out",
            Message.channel == mailing.CHANNEL,
            Message.kind.in_(_REPORTS),
            Message.session_id == session_id,
            Message.dossier_id.in_(dossiers),
        )
        .order_by(Message.domain_at, Message.id)
    ).all()
    receipts = _receipts(session, {row[3] for row in mails})
    found: dict[uuid.UUID, list[Sending]] = {}
    for dossier_id, kind, version, *rest in mails:
        mail = _mail(rest[: len(_MAIL)], receipts)
        number = int(version) if version and version.isdecimal() else None
        who = Person(*rest[len(_MAIL) :]) if rest[len(_MAIL)] is not None else None
        one = _sending(kind, number, who, "ENVOYEE", rest[3], mail)
        found.setdefault(dossier_id, []).append(one)
    for dossier_id, entries in _entries(session, session_id, dossiers, "M5%", "M6%").items():
        for entry in entries:
            kind, _, written = entry.kind.partition(".")
            number = int(written) if written.isdecimal() else None
            one = _sending(kind, number, entry.person, entry.code, entry.decided_at, None)
            found.setdefault(dossier_id, []).append(one)
    return {key: sorted(rows, key=lambda row: row.decided_at) for key, rows in found.items()}


def _sending(
    kind: str, version: int | None, person: Person | None, code: str, at: datetime, mail: Mail | None
) -> Sending:
    return Sending(version, kind.endswith("r"), kind in _TO_PATIENT, person, code, at, mail)


def _entries(
    session: Session, session_id: uuid.UUID, dossiers: Collection[uuid.UUID], *kinds: str
) -> Mapping[uuid.UUID, Sequence[_Entry]]:
    rows = session.execute(
        select(
            NotificationEntry.dossier_id,
            NotificationEntry.kind,
            NotificationEntry.subject,
            NotificationEntry.code,
            NotificationEntry.decided_at,
            NotificationEntry.due_at,
            NotificationEntry.message_id,
            *PERSON,
        )
        .join(Practitioner, Practitioner.id == NotificationEntry.practitioner_id, isouter=True)
        .where(
            NotificationEntry.session_id == session_id,
            NotificationEntry.dossier_id.in_(dossiers),
            or_(*(NotificationEntry.kind.like(kind) for kind in kinds)),
        )
        .order_by(NotificationEntry.decided_at, NotificationEntry.id)
    )
    found: dict[uuid.UUID, list[_Entry]] = {}
    for dossier_id, *said in rows:
        who = Person(*said[6:]) if said[6] is not None else None
        found.setdefault(dossier_id, []).append(_Entry(who, *said[:6]))
    return found


def _treating(session: Session, dossiers: Collection[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[_Line]]:
    rows = session.execute(
        select(
            Correspondent.dossier_id,
            Correspondent.id,
            Correspondent.display,
            Correspondent.declined_at,
            Correspondent.connected_at,
            *PERSON,
        )
        .join(Practitioner, Practitioner.id == Correspondent.practitioner_id, isouter=True)
        .where(Correspondent.dossier_id.in_(dossiers), Correspondent.role == TREATING)
        .order_by(Correspondent.id)
    )
    found: dict[uuid.UUID, list[_Line]] = {}
    for dossier_id, key, display, declined, connected, *who in rows:
        person = Person(*who) if who[0] is not None else None
        subject = person.idnps if person is not None else f"{TREATING}:{key}"
        found.setdefault(dossier_id, []).append(_Line(subject, person, display, declined, connected))
    return found


def _mails(session: Session, ids: Collection[uuid.UUID]) -> Mapping[uuid.UUID, Mail]:
    rows = session.execute(select(*_MAIL).where(Message.id.in_(ids))).all() if ids else ()
    receipts = _receipts(session, ids)
    return {row[0]: _mail(row, receipts) for row in rows}


def _receipts(session: Session, ids: Collection[uuid.UUID]) -> Mapping[uuid.UUID, Mapping[str, tuple[datetime, str]]]:
    """Return the first receipt of each kind of some mails: when, and its code."""
    found: dict[uuid.UUID, dict[str, tuple[datetime, str]]] = {}
    if ids:
        statement = select(Receipt.message_id, Receipt.kind, Receipt.at, Receipt.code)
        for key, kind, at, code in session.execute(statement.where(Receipt.message_id.in_(ids)).order_by(Receipt.at)):
            found.setdefault(key, {}).setdefault(kind, (at, code or ""))
    return found


def _mail(row: Sequence[Any], receipts: Mapping[uuid.UUID, Mapping[str, tuple[datetime, str]]]) -> Mail:
    key, state, reason, domain_at, created_at, done_at = row
    mine = receipts.get(key, {})
    failed = next((mine[kind] for kind in sorted(_FAILED & mine.keys())), None)
    failure = failed[1] if failed is not None else reason or "" if state in {"refuse", "parque"} else None

    def at(kind: str) -> datetime | None:
        return mine[kind][0] if kind in mine else None

    # The wire's clock is not the domain's: what passed on the one is laid over the other (`gateway.rcp.waiting`).
    took = done_at - created_at if done_at is not None else timedelta()
    left = None if state in _KEPT else domain_at + took
    return Mail(key, state, left, at("remise"), at("lue"), at("traitee"), failure)
