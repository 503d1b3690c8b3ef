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
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from gateway.errors import GatewayError, Unavailable
from gateway.identifiers import uuid7
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import RcpSession
from gateway.model.message import NotificationEntry
from gateway.rcp import access, dossier_states, mailboxes, mailing
from gateway.rcp.french import hour, short_date
from gateway.rcp.letters import full_name, preliminary_values
from gateway.rcp.notice_rules import REASONS, Decision, Facts, decide
from gateway.rcp.ports import Letter, Letters
from gateway.rcp.sessions import catch_up_of, notice_of
from gateway.rcp.step import Step, Steps
from gateway.rcp.templates import template
from gateway.rcp.work_list import ask_secretariat

__all__ = ["KIND", "PlanLine", "Run", "plan_due", "preview", "settle"]

KIND = "M1"
TREATING = "medecin-traitant"

_AHEAD = timedelta(days=120)  # longer than the longest notice that an RCP may ask for
_BEHIND = timedelta(days=7)  # sessions that began: what was missed is told to the secretariat
_PAGE = 100

log = structlog.get_logger(__name__)


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


@dataclass(frozen=True, slots=True)
class _Case:
    """One physician of one dossier, decided; ``entry`` is his line of the register, if there is one."""

    subject: str
    correspondent: Correspondent | None
    entry: NotificationEntry | None
    address: str | None
    decision: Decision
    ready_at: datetime | None

    @property
    def is_new(self) -> bool:
        """Whether the register does not say this yet, or a message is to leave."""
        if self.decision.code is None or _is_final(self.entry):
            return False
        entry = self.entry
        if entry is None or self.decision.code == "ENVOYEE":
            return True
        said = (entry.subject, entry.code, entry.due_at, entry.ready_at)
        return said != (self.subject, self.decision.code, self.decision.due_at, self.ready_at)


def plan_due(steps: Steps, letters: Letters, *, page: int = _PAGE) -> Run:
    """Settle every dossier whose register or mail is due; each in a step of its own.

    Raises
    ------
    Unavailable
        The database does not answer; what was settled before stays.
    """
    seen = settled = sent = failed = 0
    for found in _pages(steps, page):
        for dossier_id, needs_step in found:
            seen += 1
            if not needs_step:
                continue

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


def preview(session: Session, now: datetime, *, page: int = _PAGE) -> Iterator[PlanLine]:
    """Say what a run at an instant would decide, without deciding it; what was sent already is left out.

    Raises
    ------
    InvalidContent
        ``reglage-invalide``: a notification setting of an RCP cannot be read.
    """
    for dossiers, entries in _dossier_pages(session, now, page):
        for dossier in dossiers:
            if dossier.state in dossier_states.open_states():
                cases, _ = _judge(session, dossier, entries[dossier.id], now)
                yield from (_line(dossier, case) for case in cases if case.decision.code and not _is_final(case.entry))
        session.expunge_all()


def settle(step: Step, dossier_id: uuid.UUID, letters: Letters) -> int:
    """Decide one dossier at the step's instant: write the register, put what is due into the outbox.

    Returns
    -------
    int
        How many messages were put into the outbox.
    """
    [dossier] = step.lock(Dossier, dossier_id)
    cases, closing = _judge(step.session, dossier, _entries(step.session, [dossier_id])[dossier_id], step.now)
    for entry, code in closing:
        entry.code, entry.decided_at = code, step.now
        step.touch(entry)
    return sum([_settle_case(step, dossier, case, letters) for case in cases if case.is_new])


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
    text = template("M1b" if case.decision.catch_up else KIND).render(values)
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
    step.audit(
        "envoi",
        action="E",
        persons=(dossier.record_id,),
        dossier=dossier.id,
        object_type="Message",
        object_id=str(message.id),
        object_sha256=message.sha256,
        recipient=case.address,
        detail={"type": KIND},
    )
    step.touch(message)
    if "notifie" in dossier_states.MOVES.get(dossier.state, {}):
        dossier_states.move(step, dossier, "notifie")


def _pages(steps: Steps, page: int) -> Iterator[Sequence[tuple[uuid.UUID, bool]]]:
    """Give each dossier in view, and whether a step is needed for it."""
    now = steps.clock.now()
    with steps.store.session() as session:
        for dossiers, entries in _dossier_pages(session, now, page):
            found = [(dossier.id, _needs_step(session, dossier, entries[dossier.id], now)) for dossier in dossiers]
            session.expunge_all()
            session.commit()  # a page is one short transaction: the steps in between do not hold it open
            yield found


def _needs_step(session: Session, dossier: Dossier, entries: Sequence[NotificationEntry], now: datetime) -> bool:
    try:
        cases, closing = _judge(session, dossier, entries, now)
    except GatewayError:
        return True  # the step fails the same way, and is counted and told
    return bool(closing) or any(case.is_new for case in cases)


def _dossier_pages(
    session: Session, now: datetime, page: int
) -> Iterator[tuple[Sequence[Dossier], Mapping[uuid.UUID, Sequence[NotificationEntry]]]]:
    """Read the dossiers of the sessions in view, by start of session, with their lines of the register."""
    position: tuple[datetime, uuid.UUID] | None = None
    while True:
        statement = (
            select(Dossier)
            .join(RcpSession, RcpSession.id == Dossier.session_id)
            .where(RcpSession.starts_at > now - _BEHIND, RcpSession.starts_at < now + _AHEAD)
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


def _judge(
    session: Session, dossier: Dossier, entries: Sequence[NotificationEntry], now: datetime
) -> tuple[Sequence[_Case], Sequence[tuple[NotificationEntry, str]]]:
    """Decide each physician of a dossier; say also which lines of the register are no longer waited for, and why."""
    here = [entry for entry in entries if entry.session_id == dossier.session_id]
    waiting = [entry for entry in entries if entry.code == "PREVUE" and entry.message_id is None]
    if dossier.state not in dossier_states.open_states():
        code = "NON_SEANCE" if dossier.state in dossier_states.FINAL else "ECHEC"
        return (), [(entry, code) for entry in waiting]
    closing = [(entry, "NON_SEANCE") for entry in waiting if entry not in here]  # moved to another session
    named = sorted((one for one in dossier.correspondents if one.role == TREATING), key=lambda one: one.id)
    live = {_subject(one): one for one in named if one.declined_at is None}
    by_subject = {entry.subject: entry for entry in here}
    free = [entry for entry in here if entry.subject not in live and not _is_final(entry)]
    if not live and any(_is_final(entry) for entry in here):
        return (), closing  # « ce n’est pas mon patient », after he was told: that he was told stays written
    cases = []
    physicians: Mapping[str, Correspondent | None] = {**live} if live else {TREATING: None}
    for subject, one in physicians.items():
        entry = by_subject.get(subject)
        if entry is None and free:
            entry = free.pop(0)  # the line that said that nobody, or somebody else, was the treating physician
        elif entry in free:
            free.remove(entry)
        cases.append(_case(session, dossier, subject, one, entry, now))
    declined = {_subject(one) for one in named if one.declined_at is not None}
    for entry in free:
        code = "NON_REFUS" if entry.subject in declined else "NON_MT"
        if entry.code != code:
            closing.append((entry, code))
    return cases, closing


def _subject(one: Correspondent) -> str:
    return one.practitioner.idnps if one.practitioner is not None else f"{TREATING}:{one.id}"


def _case(
    session: Session,
    dossier: Dossier,
    subject: str,
    one: Correspondent | None,
    entry: NotificationEntry | None,
    now: datetime,
) -> _Case:
    who = one.practitioner if one is not None else None
    boxes = (
        mailboxes.addresses(session, who, personal=one.use_personal, secretariat=one.use_secretariat)
        if one is not None and who is not None
        else ()
    )
    meeting = dossier.session
    facts = Facts(
        notice=notice_of(meeting),
        session_holds=meeting.state not in {"annulee", "reportee"} and not meeting.rcp.fictive,
        opposed=dossier.opposed_at is not None,
        rcp_takes_part=bool(meeting.rcp.notification.get("active", False)),
        named=one is not None,
        has_rpps=who is not None and who.rpps is not None,
        is_requester=who is not None and who.id == dossier.requester_id,
        wants_news=who is None or who.informed,
        box_ticked=one is not None and (one.use_personal or one.use_secretariat),
        has_address=bool(boxes),
        registered_at=dossier.prefiche_at,
        ready_at=_ready_at(dossier, one, entry),
        catch_up=catch_up_of(meeting.rcp),
    )
    decision, ready_at = decide(facts, now), entry.ready_at if entry is not None else None
    if decision.code in _BLOCKED:
        ready_at = None
    elif entry is not None and _came_true(entry, decision, now):
        # A condition that was seen to be false has come true, or the session has moved: the instant of it is now.
        ready_at = now
        decision = decide(replace(facts, ready_at=now), now)
    return _Case(subject, one, entry, boxes[0].address if boxes else None, decision, ready_at)


_BLOCKED = frozenset(code for code in REASONS if code.startswith("NON_") and code != "NON_DELAI")


def _ready_at(dossier: Dossier, one: Correspondent | None, entry: NotificationEntry | None) -> datetime | None:
    known = [entry.ready_at] if entry is not None and entry.ready_at is not None else []
    if one is not None and one.since > dossier.registered_at:
        known.append(one.since)
    return max(known, default=None)


def _came_true(entry: NotificationEntry, decision: Decision, now: datetime) -> bool:
    if decision.code not in {"ENVOYEE", "PREVUE"} or decision.due_at is None:
        return False
    if entry.code in _BLOCKED:
        return True
    return entry.code == "PREVUE" and entry.due_at != decision.due_at and decision.due_at <= now


def _is_final(entry: NotificationEntry | None) -> bool:
    """What was sent is never decided again."""
    return entry is not None and entry.message_id is not None


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
