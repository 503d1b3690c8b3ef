"""The planner's dossiers a thousand at a time: read flat, decided, and written together where nothing leaves.

Promises: what is decided is what `gateway.rcp.notification.settle` decides (the same function over the same facts); a
line is written under the lock of its dossier, from what was read under that lock; one page is in memory, and no
transaction outlives it. A dossier of which a mail leaves, a line closes or a person is asked is only named: it has a
step of its own. What is complete and has no line yet is sure to get one: it is decided once, under its lock.

[spec features 4.3, 5.4]
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ARRAY, Uuid, any_, bindparam, exists, select, tuple_, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from gateway.errors import GatewayError
from gateway.identifiers import uuid7
from gateway.model.directory import Practitioner
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import Rcp, RcpSession
from gateway.model.message import NotificationEntry
from gateway.model.prepared import Prepared
from gateway.model.store import Base
from gateway.model.writes import adopt, ask, laid, later
from gateway.rcp import dossier_states, mailboxes
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
_TABLE: Final = Base.metadata.tables[NotificationEntry.__tablename__]
#: New lines that are shown to others at once: nobody can be told, for want of an address.
_SHOWN: Final = frozenset({"NON_MSS", "NON_ADRESSE"})


_Cases = Sequence[Case[FlatLine, FlatEntry]]
_Meetings = Mapping[uuid.UUID, Callable[[], Meeting]]
_COLUMNS = (
    Dossier.id,
    Dossier.session_id,
    Dossier.state,
    Dossier.requester_id,
    Dossier.opposed_at,
    Dossier.prefiche_at,
    Dossier.registered_at,
)
_LAST: Final = uuid.UUID(int=2**128 - 1)


def _these() -> Any:
    return any_(bindparam("ids", type_=ARRAY(Uuid())))


# Asked for each page: made once, their plans are kept.
_PAGE = Prepared(
    lambda: (
        select(
            RcpSession.starts_at,
            exists()
            .where(
                NotificationEntry.dossier_id == Dossier.id,
                NotificationEntry.session_id == Dossier.session_id,
                NotificationEntry.kind == KIND,
            )
            .label("known"),
            *_COLUMNS,
        )
        .join(RcpSession, RcpSession.id == Dossier.session_id)
        .where(
            RcpSession.starts_at >= bindparam("start"),  # the index is entered where the last page ended
            RcpSession.starts_at < bindparam("until"),
            tuple_(RcpSession.starts_at, Dossier.id) > tuple_(bindparam("start"), bindparam("last")),
        )
        .order_by(RcpSession.starts_at, Dossier.id)
        .limit(bindparam("page"))
    )
)
_LOCKED = Prepared(lambda: select(*_COLUMNS).where(Dossier.id == _these()).order_by(Dossier.id).with_for_update())
_MEETINGS = Prepared(lambda: select(RcpSession.__table__).where(RcpSession.id == _these()))
_RCPS = Prepared(lambda: select(Rcp.__table__).where(Rcp.id == _these()))
_LINES = Prepared(
    lambda: (
        select(
            Correspondent.dossier_id,
            Correspondent.id,
            Correspondent.declined_at,
            Correspondent.use_personal,
            Correspondent.use_secretariat,
            Correspondent.since,
            Practitioner.id.label("who"),
            Practitioner.idnps,
            Practitioner.rpps,
            Practitioner.informed,
        )
        .join(Practitioner, Practitioner.id == Correspondent.practitioner_id, isouter=True)
        .where(Correspondent.dossier_id == _these(), Correspondent.role == TREATING)
    )
)
_ENTRIES = Prepared(
    lambda: (
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
        .where(NotificationEntry.dossier_id == _these(), NotificationEntry.kind == KIND)
        .order_by(NotificationEntry.id)
    )
)


def sorted_out(steps: Steps, page: int) -> Iterator[tuple[int, Sequence[uuid.UUID], Sequence[uuid.UUID]]]:
    """Give, page by page in the order of sessions, how many dossiers were seen, and which of them have news.

    Returns
    -------
    count, plain, single
        ``plain`` for `write`; ``single`` for a step each.
    """
    now = steps.clock.now()
    start, last, until = now - BEHIND, _LAST, now + AHEAD
    meetings: _Meetings = {}
    while True:
        with steps.store.session() as session:  # closed before the page is worked on: it holds nothing open
            found = ask(session, _PAGE, start=start, last=last, until=until, page=page)
            fresh: list[uuid.UUID] = []
            rows: list[FlatDossier] = []
            for _, known, *one in found:
                row = FlatDossier(*one)
                if known or row.prefiche_at is None or row.state not in dossier_states.open_states():
                    rows.append(row)
                else:
                    fresh.append(row.id)
            # A session goes on over the edge of a page; under the lock it is read as it then is.
            meetings = _meetings(session, {row.session_id for row in rows}, meetings)
            plain, single = _split(session, rows, now, meetings)
        if found:
            yield len(found), [*fresh, *plain], single
            start, last = found[-1].starts_at, found[-1].id
        if len(found) < page:
            return


def write(step: Step, dossiers: Sequence[uuid.UUID]) -> Sequence[uuid.UUID]:
    """Write the lines of the register of some dossiers at the step's instant.

    Returns
    -------
    Sequence
        Those which changed meanwhile and need a step of their own; nothing is written of them.
    """
    rows = [FlatDossier(*one) for one in ask(step.session, _LOCKED, ids=list(dossiers))]
    shown: list[NotificationEntry] = []
    changed: list[dict[str, Any]] = []
    left = []
    meetings = _meetings(step.session, {row.session_id for row in rows}, {})
    for row, cases in _judged(step.session, rows, step.now, meetings):
        if cases is None or _needs_own(cases):
            left.append(row.id)
            continue
        for case in cases:
            if not case.is_new:
                continue
            said = _said(row, case, step.now)
            if case.entry is not None:
                changed.append(said)
            elif said["code"] in _SHOWN:
                entry = NotificationEntry(**said)
                adopt(step.session, entry)
                shown.append(entry)
            else:
                later(step.session, _TABLE, said, unread=True)
    if changed:
        step.session.execute(update(NotificationEntry), changed)
        ids = [one["id"] for one in changed]
        shown += step.session.scalars(select(NotificationEntry).where(NotificationEntry.id.in_(ids)))
    if shown:
        about = select(Dossier).where(Dossier.id.in_({one.dossier_id for one in shown}))
        # What their representations look at is read at once, and held until they are made.
        step.session.info["planned"] = step.session.scalars(about).unique().all()
        step.touch(*shown)
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


def _split(
    session: Session, rows: Sequence[FlatDossier], now: datetime, meetings: _Meetings
) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
    plain: list[uuid.UUID] = []
    single: list[uuid.UUID] = []
    for row, cases in _judged(session, rows, now, meetings):
        if cases is None or _needs_own(cases):
            single.append(row.id)
        elif any(case.is_new for case in cases):
            plain.append(row.id)
    return plain, single


def _needs_own(cases: _Cases) -> bool:
    return any(case.is_new and case.decision.code in _OWN_STEP for case in cases)


def _judged(
    session: Session, rows: Sequence[FlatDossier], now: datetime, meetings: _Meetings
) -> Iterator[tuple[FlatDossier, _Cases | None]]:
    """Decide each dossier; None for one whose lines close, or whose meeting has a setting that cannot be read."""
    if not rows:
        return
    ids = [row.id for row in rows]
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


def _meetings(session: Session, ids: set[uuid.UUID], known: _Meetings) -> _Meetings:
    """Read the part of each session in the decision; their roots are nobody's to write, no session holds them."""
    missing = ids - known.keys()
    if not missing:
        return known
    found = [laid(RcpSession, row._asdict()) for row in ask(session, _MEETINGS, ids=list(missing))]
    rcps = {row.id: laid(Rcp, row._asdict()) for row in ask(session, _RCPS, ids=list({one.rcp_id for one in found}))}
    for one in found:
        set_committed_value(one, "rcp", rcps[one.rcp_id])
    return {**{key: known[key] for key in ids & known.keys()}, **{one.id: _once(one) for one in found}}


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
    found: dict[uuid.UUID, list[FlatLine]] = {}
    for about, key, declined, personal, office, since, *who in ask(session, _LINES, ids=ids):
        physician = FlatPhysician(*who) if who[0] is not None else None
        found.setdefault(about, []).append(FlatLine(key, physician, declined, personal, office, since))
    return found


def _entries(session: Session, ids: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, list[FlatEntry]]:
    found: dict[uuid.UUID, list[FlatEntry]] = {}
    for about, *said in ask(session, _ENTRIES, ids=ids):
        found.setdefault(about, []).append(FlatEntry(*said))
    return found
