"""The planner's dossiers a thousand at a time: read flat, decided, and written together where nothing leaves.

Promises: what is decided is what `gateway.rcp.notification.settle` decides (the same function over the same facts); a
line is written under the lock of its dossier, from what was read under that lock; one page is in memory, and no
transaction outlives it. A dossier of which a mail leaves, a line closes or a person is asked is only named: it has a
step of its own.

[spec features 4.3, 5.4]
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import insert, select, tuple_, update
from sqlalchemy.orm import Session, joinedload, lazyload

from gateway.errors import GatewayError
from gateway.identifiers import uuid7
from gateway.model.directory import Practitioner
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import RcpSession
from gateway.model.message import NotificationEntry
from gateway.rcp import mailboxes
from gateway.rcp.notice_cases import (
    AHEAD,
    BEHIND,
    KIND,
    TREATING,
    Case,
    FlatDossier,
    FlatEntry,
    FlatLine,
    FlatPhysician,
    Meeting,
    judge,
    meeting_of,
)
from gateway.rcp.step import Step, Steps

__all__ = ["sorted_out", "write"]

#: Codes of which something leaves, or that ask a person.
_OWN_STEP: Final = frozenset({"ENVOYEE", "ECHEC"})
#: New lines that are shown to others at once: nobody can be told, for want of an address.
_SHOWN: Final = frozenset({"NON_MSS", "NON_ADRESSE"})


_Cases = Sequence[Case[FlatLine, FlatEntry]]
_COLUMNS = (
    Dossier.id,
    Dossier.session_id,
    Dossier.state,
    Dossier.requester_id,
    Dossier.opposed_at,
    Dossier.prefiche_at,
    Dossier.registered_at,
)


def sorted_out(steps: Steps, page: int) -> Iterator[tuple[int, Sequence[uuid.UUID], Sequence[uuid.UUID]]]:
    """Give, page by page in the order of sessions, how many dossiers were seen, and which of them have news.

    Returns
    -------
    count, plain, single
        ``plain`` for `write`; ``single`` for a step each.
    """
    now, position = steps.clock.now(), None
    while True:
        statement = (
            select(RcpSession.starts_at, *_COLUMNS)
            .join(RcpSession, RcpSession.id == Dossier.session_id)
            .where(RcpSession.starts_at > now - BEHIND, RcpSession.starts_at < now + AHEAD)
            .order_by(RcpSession.starts_at, Dossier.id)
            .limit(page)
        )
        if position is not None:
            statement = statement.where(tuple_(RcpSession.starts_at, Dossier.id) > position)
        with steps.store.session() as session:  # closed before the page is worked on: it holds nothing open
            found = session.execute(statement).all()
            rows = [FlatDossier(*one[1:]) for one in found]
            plain, single = _split(session, rows, now)
        if found:
            yield len(rows), plain, single
            position = (found[-1][0], found[-1][1])
        if len(found) < page:
            return


def write(step: Step, dossiers: Sequence[uuid.UUID]) -> Sequence[uuid.UUID]:
    """Write the lines of the register of some dossiers at the step's instant.

    Returns
    -------
    Sequence
        Those which changed meanwhile and need a step of their own; nothing is written of them.
    """
    locked = select(Dossier.id).where(Dossier.id.in_(dossiers)).order_by(Dossier.id).with_for_update()
    step.session.execute(locked).all()
    rows = [FlatDossier(*one) for one in step.session.execute(select(*_COLUMNS).where(Dossier.id.in_(dossiers)))]
    new: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    left = []
    for row, cases in _judged(step.session, rows, step.now):
        if cases is None or _needs_own(cases):
            left.append(row.id)
            continue
        for case in cases:
            if case.is_new:
                (new if case.entry is None else changed).append(_said(row, case, step.now))
    if new:
        step.session.execute(insert(NotificationEntry), new)
    if changed:
        step.session.execute(update(NotificationEntry), changed)
    shown = [one["id"] for one in changed] + [one["id"] for one in new if one["code"] in _SHOWN]
    if shown:
        entries = step.session.scalars(select(NotificationEntry).where(NotificationEntry.id.in_(shown))).all()
        about = select(Dossier).where(Dossier.id.in_({one.dossier_id for one in entries}))
        # What their representations look at is read at once, and held until they are made.
        step.session.info["planned"] = step.session.scalars(about).unique().all()
        step.touch(*entries)
    return left


def _said(row: FlatDossier, case: Case[FlatLine, FlatEntry], now: datetime) -> dict[str, Any]:
    """Return a line of the register as it is to be."""
    who = case.correspondent.practitioner if case.correspondent is not None else None
    said = {
        "subject": case.subject,
        "practitioner_id": who.id if who is not None else None,
        "code": case.decision.code,
        "due_at": case.decision.due_at,
        "ready_at": case.ready_at,
        "decided_at": now,
    }
    if case.entry is not None:
        return {"id": case.entry.id, **said}
    return {"id": uuid7(), "dossier_id": row.id, "session_id": row.session_id, "kind": KIND, "late": False, **said}


def _split(session: Session, rows: Sequence[FlatDossier], now: datetime) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
    plain: list[uuid.UUID] = []
    single: list[uuid.UUID] = []
    for row, cases in _judged(session, rows, now):
        if cases is None or _needs_own(cases):
            single.append(row.id)
        elif any(case.is_new for case in cases):
            plain.append(row.id)
    return plain, single


def _needs_own(cases: _Cases) -> bool:
    return any(case.is_new and case.decision.code in _OWN_STEP for case in cases)


def _judged(
    session: Session, rows: Sequence[FlatDossier], now: datetime
) -> Iterator[tuple[FlatDossier, _Cases | None]]:
    """Decide each dossier; None for one whose lines close, or whose meeting has a setting that cannot be read."""
    ids = [row.id for row in rows]
    meetings = _meetings(session, {row.session_id for row in rows})
    lines, entries = _lines(session, ids), _entries(session, ids)
    who = {one.practitioner.id for found in lines.values() for one in found if one.practitioner is not None}
    reached = mailboxes.reachable(session, who)

    def reach(one: FlatLine) -> str | None:
        assert one.practitioner is not None  # noqa: S101 - `judge` asks for those who have a number
        own, office = reached.get(one.practitioner.id, (None, None))
        return (own if one.use_personal else None) or (office if one.use_secretariat else None)

    for row in rows:
        try:
            cases, closing = judge(
                row, lines.get(row.id, ()), entries.get(row.id, ()), now, meetings[row.session_id], reach
            )
        except GatewayError:
            yield row, None  # its step fails the same way, and is counted and told
        else:
            yield row, None if closing else cases


def _meetings(session: Session, ids: set[uuid.UUID]) -> Mapping[uuid.UUID, Callable[[], Meeting]]:
    found = session.scalars(
        select(RcpSession)
        .where(RcpSession.id.in_(ids))
        .options(joinedload(RcpSession.rcp).lazyload("*"), lazyload(RcpSession.attendances))
    ).unique()
    return {one.id: _once(one) for one in found}


def _once(session: RcpSession) -> Callable[[], Meeting]:
    """Read a session when it is first asked for; what cannot be read is told to each that asks."""
    try:
        meeting = meeting_of(session)
    except GatewayError as error:
        said = error

        def refuse() -> Meeting:
            raise said

        return refuse
    return lambda: meeting


def _lines(session: Session, ids: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, list[FlatLine]]:
    statement = (
        select(
            Correspondent.dossier_id,
            Correspondent.id,
            Correspondent.declined_at,
            Correspondent.use_personal,
            Correspondent.use_secretariat,
            Correspondent.since,
            Practitioner.id,
            Practitioner.idnps,
            Practitioner.rpps,
            Practitioner.informed,
        )
        .join(Practitioner, Practitioner.id == Correspondent.practitioner_id, isouter=True)
        .where(Correspondent.dossier_id.in_(ids), Correspondent.role == TREATING)
    )
    found: dict[uuid.UUID, list[FlatLine]] = {}
    for about, key, declined, personal, office, since, *who in session.execute(statement):
        physician = FlatPhysician(*who) if who[0] is not None else None
        found.setdefault(about, []).append(FlatLine(key, physician, declined, personal, office, since))
    return found


def _entries(session: Session, ids: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, list[FlatEntry]]:
    statement = (
        select(
            NotificationEntry.dossier_id,
            NotificationEntry.id,
            NotificationEntry.session_id,
            NotificationEntry.subject,
            NotificationEntry.code,
            NotificationEntry.due_at,
            NotificationEntry.ready_at,
            NotificationEntry.message_id,
        )
        .where(NotificationEntry.dossier_id.in_(ids), NotificationEntry.kind == KIND)
        .order_by(NotificationEntry.id)
    )
    found: dict[uuid.UUID, list[FlatEntry]] = {}
    for about, key, meeting, subject, code, due, ready, message in session.execute(statement):
        found.setdefault(about, []).append(FlatEntry(key, meeting, subject, code, due, ready, message))
    return found
