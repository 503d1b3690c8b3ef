"""The planner of the preliminary notification: who is told of a meeting, when, why not, and exactly once.

Promises: run once, twice or by two processes at once, one physician gets one M1 for one dossier in one session (the key
of the message and the line of the register are unique, the dossier is locked while it is decided); conditions count as
they are at sending time; a run that comes late sends what is still due and marks it, never after the session has begun;
who is not told stands in the register with the reason; what was sent is never taken back nor sent again. Pages of
dossiers are read, never all of them; one dossier that cannot be settled does not hold the others.

Does not deliver (the outbox does) and has no clock of its own. [spec features 4.3, 5.4; DECISIONS 3, 8]
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from gateway.errors import GatewayError, Unavailable
from gateway.identifiers import uuid7
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import RcpSession
from gateway.model.message import NotificationEntry
from gateway.rcp import access, dossier_states, mailboxes, mailing, notice_pages
from gateway.rcp.french import hour, short_date
from gateway.rcp.letters import compose, full_name, preliminary_values
from gateway.rcp.notice_cases import AHEAD, BEHIND, KIND, Case, is_final, judge, meeting_of
from gateway.rcp.notice_rules import REASONS, Decision
from gateway.rcp.ports import Letter, Letters
from gateway.rcp.step import Step, Steps
from gateway.rcp.work_list import ask_secretariat

__all__ = ["KIND", "PlanLine", "Run", "decided", "foreseen", "plan_due", "preview", "settle"]

_PAGE = 1000
_SHOWN_AT_ONCE = 100

log = structlog.get_logger(__name__)

_Case = Case[Correspondent, NotificationEntry]


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One line of the plan: no patient in it.

    Attributes
    ----------
    code
        Code of the register; ``ENVOYEE``: leaves at this run. ``due_at`` is the instant due, or the limit missed.
    """

    reference: str
    rcp: str
    starts_at: datetime
    zone: str
    physician: str
    address: str | None
    code: str
    due_at: datetime | None
    late: bool
    catch_up: bool

    def text(self) -> str:
        """One French sentence for the terminal."""
        start = self.starts_at.astimezone(ZoneInfo(self.zone))
        due = self.due_at.astimezone(ZoneInfo(self.zone)) if self.due_at else None
        when = f" ({short_date(due)} à {hour(due)})" if due else ""
        marks = " – en retard" * self.late + " – rattrapage" * self.catch_up
        head = f"{self.reference}  {self.rcp}, séance du {short_date(start)} à {hour(start)}  {self.physician}"
        return f"{head} : {REASONS[self.code]}{when}{marks}"


@dataclass(frozen=True, slots=True)
class Run:
    """What one run did."""

    seen: int
    settled: int
    sent: int
    failed: int


def plan_due(steps: Steps, letters: Letters, *, page: int = _PAGE) -> Run:
    """Settle every dossier whose register or mail is due.

    Lines of the register that nothing leaves for are written a page at a time; a dossier of which something leaves, or
    that needs a person, has a step of its own.

    Raises
    ------
    Unavailable
        The database does not answer; what was settled before stays.
    """
    seen = settled = sent = failed = 0
    for count, plain, single in notice_pages.sorted_out(steps, page):
        seen += count
        written, left = _write_page(steps, plain)
        settled += written
        for dossier_id in [*single, *left]:

            def verb(step: Step, wanted: uuid.UUID = dossier_id) -> int:
                return settle(step, wanted, letters)

            try:
                sent += steps.run(access.SYSTEM, verb)
                settled += 1
            except Unavailable:
                raise
            except GatewayError as error:
                failed += 1
                log.warning("notification-not-settled", dossier=str(dossier_id), code=error.code)
    if settled or failed:
        log.info("notification-run", seen=seen, settled=settled, sent=sent, failed=failed)
    return Run(seen, settled, sent, failed)


def _write_page(steps: Steps, dossiers: Sequence[uuid.UUID]) -> tuple[int, Sequence[uuid.UUID]]:
    """Write the plain lines of some dossiers in one step; which of them need a step of their own after all."""
    if not dossiers:
        return 0, ()
    try:
        left = steps.run(access.SYSTEM, lambda step: notice_pages.write(step, dossiers))
    except Unavailable:
        raise
    except GatewayError:
        return 0, dossiers  # one of them stops the others: each by itself, and it is told
    return len(dossiers) - len(left), left


def preview(session: Session, now: datetime, *, page: int = _SHOWN_AT_ONCE) -> Iterator[PlanLine]:
    """Say what a run at an instant would decide, without deciding it; what was sent already is left out.

    Raises
    ------
    InvalidContent
        ``reglage-invalide``: a notification setting of an RCP cannot be read.
    """
    for dossiers, entries in _dossier_pages(session, now, page):
        for dossier in dossiers:
            if dossier.state in dossier_states.open_states():
                cases, _ = _judged(session, dossier, entries[dossier.id], now)
                yield from (_line(dossier, case) for case in cases if case.decision.code and not is_final(case.entry))
        session.expunge_all()


def decided(session: Session, dossier: Dossier, now: datetime) -> Sequence[tuple[str | None, datetime | None]]:
    """Return the code of the register, and its instant, that each treating physician has or would have at an instant.

    Raises
    ------
    InvalidContent
        As `preview`.
    """
    cases, _ = _judged(session, dossier, _entries(session, [dossier.id])[dossier.id], now)
    found: list[tuple[str | None, datetime | None]] = []
    for case in cases:
        entry, decision = case.entry, case.decision
        if entry is not None and is_final(entry):
            found.append((entry.code, entry.decided_at))
        elif decision.code == "ENVOYEE":  # not yet: the next run puts it into the outbox
            found.append(("PREVUE", now))
        else:
            found.append((decision.code, decision.due_at))
    return found


def settle(step: Step, dossier_id: uuid.UUID, letters: Letters) -> int:
    """Decide one dossier at the step's instant: write the register, put what is due into the outbox.

    Returns
    -------
    int
        How many messages were put into the outbox.
    """
    [dossier] = step.lock(Dossier, dossier_id)
    cases, closing = _judged(step.session, dossier, _entries(step.session, [dossier_id])[dossier_id], step.now)
    for entry, code in closing:
        entry.code, entry.decided_at = code, step.now
        step.touch(entry)
    return sum([_settle_case(step, dossier, case, letters) for case in cases if case.is_new])


def foreseen(session: Session, dossier: Dossier, now: datetime) -> Mapping[uuid.UUID, Decision]:
    """Return what a run at an instant would decide of each treating physician who was not told, by his line's id.

    Raises
    ------
    InvalidContent
        As `preview`.
    """
    cases, _ = _judged(session, dossier, _entries(session, [dossier.id])[dossier.id], now)
    return {one.correspondent.id: one.decision for one in cases if one.correspondent and not is_final(one.entry)}


def _settle_case(step: Step, dossier: Dossier, case: _Case, letters: Letters) -> bool:
    decision, entry = case.decision, case.entry
    assert decision.code is not None  # noqa: S101 - only such cases are new
    if entry is None:
        entry = NotificationEntry(
            id=uuid7(), dossier_id=dossier.id, session_id=dossier.session_id, kind=KIND, late=False
        )
        step.session.add(entry)
    entry.subject = case.subject
    entry.practitioner_id = case.correspondent.practitioner_id if case.correspondent else None
    entry.code, entry.due_at, entry.ready_at, entry.decided_at = decision.code, decision.due_at, case.ready_at, step.now
    if decision.code == "ECHEC":
        key = f"notification|{dossier.id}|{dossier.session_id}|{case.subject}"
        ask_secretariat(step.session, dossier, key, "non-envoyee-avant-la-seance")
    sent = decision.code == "ENVOYEE"
    if sent:
        _send(step, dossier, case, entry, letters)
    step.session.flush()
    step.touch(entry)
    return sent


def _send(step: Step, dossier: Dossier, case: _Case, entry: NotificationEntry, letters: Letters) -> None:
    physician = case.correspondent.practitioner if case.correspondent else None
    assert physician is not None  # noqa: S101 - NON_RPPS otherwise
    assert case.address is not None  # noqa: S101 - NON_MSS otherwise
    values = preliminary_values(dossier, physician, answers_read=letters.answers_read)
    text = compose(step.session, "M1b" if case.decision.catch_up else KIND, values, case.address)
    key = "|".join((KIND, str(dossier.id), str(dossier.session_id), physician.idnps))
    sealed = letters.seal(
        Letter(
            kind=KIND,
            key=key,
            at=step.now,
            address=case.address,
            name=full_name(physician),
            subject=text.subject,
            body=text.body,
        )
    )
    message = mailing.post(
        step,
        dossier,
        sealed,
        kind=KIND,
        key=key,
        recipient=physician,
        address=case.address,
        rattrapage=case.decision.catch_up,
    )
    entry.message_id, entry.late = message.id, case.decision.late
    mailing.record(step, dossier, message)
    step.touch(message)
    if "notifie" in dossier_states.MOVES.get(dossier.state, {}):
        dossier_states.move(step, dossier, "notifie")


def _dossier_pages(
    session: Session, now: datetime, page: int
) -> Iterator[tuple[Sequence[Dossier], Mapping[uuid.UUID, Sequence[NotificationEntry]]]]:
    """Read the dossiers of the sessions in view, by start of session, with their lines of the register."""
    position: tuple[datetime, uuid.UUID] | None = None
    while True:
        statement = (
            select(Dossier)
            .join(RcpSession, RcpSession.id == Dossier.session_id)
            .where(RcpSession.starts_at > now - BEHIND, RcpSession.starts_at < now + AHEAD)
            .order_by(RcpSession.starts_at, Dossier.id)
            .limit(page)
        )
        if position is not None:
            statement = statement.where(tuple_(RcpSession.starts_at, Dossier.id) > position)
        rows = session.scalars(statement).unique().all()
        if not rows:
            return
        position = (rows[-1].session.starts_at, rows[-1].id)
        yield rows, _entries(session, [row.id for row in rows])
        if len(rows) < page:
            return


def _entries(session: Session, dossiers: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[NotificationEntry]]:
    found: dict[uuid.UUID, list[NotificationEntry]] = {one: [] for one in dossiers}
    statement = select(NotificationEntry).where(
        NotificationEntry.dossier_id.in_(dossiers), NotificationEntry.kind == KIND
    )
    for row in session.scalars(statement.order_by(NotificationEntry.id)):
        found[row.dossier_id].append(row)
    return found


def _judged(
    session: Session, dossier: Dossier, entries: Sequence[NotificationEntry], now: datetime
) -> tuple[Sequence[_Case], Sequence[tuple[NotificationEntry, str]]]:
    """Decide each physician of a dossier by its rows."""

    def reach(one: Correspondent) -> str | None:
        assert one.practitioner is not None  # noqa: S101 - `judge` asks for those who have a number
        found = mailboxes.addresses(
            session, one.practitioner, personal=one.use_personal, secretariat=one.use_secretariat, dossier=dossier
        )
        return found[0].address if found else None

    return judge(dossier, dossier.correspondents, entries, now, lambda: meeting_of(dossier.session), reach)


def _line(dossier: Dossier, case: _Case) -> PlanLine:
    who = case.correspondent.practitioner if case.correspondent else None
    said = case.correspondent.display if case.correspondent else None
    assert case.decision.code is not None  # noqa: S101 - filtered by the caller
    return PlanLine(
        reference=dossier.reference,
        rcp=dossier.session.rcp.title,
        starts_at=dossier.session.starts_at,
        zone=dossier.session.zone,
        physician=full_name(who) if who is not None else said or "médecin traitant non renseigné",
        address=case.address,
        code=case.decision.code,
        due_at=case.decision.due_at,
        late=case.decision.late,
        catch_up=case.decision.catch_up,
    )
