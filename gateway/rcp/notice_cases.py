"""Which physicians of a dossier are to be decided, and which lines of the register are no longer waited for.

Promises: the same answer over the rows of the model (`gateway.rcp.notification.settle`) and over flat rows read by the
thousand (`gateway.rcp.notice_pages`): the one function that both use. Reads and writes nothing.

[spec features 4.3, 5.4]
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import RcpSession
from gateway.model.message import NotificationEntry
from gateway.rcp import dossier_states
from gateway.rcp.calendar import CatchUp, Notice
from gateway.rcp.notice_rules import REASONS, Decision, Facts, decide
from gateway.rcp.sessions import catch_up_of, notice_of

__all__ = [
    "AHEAD",
    "BEHIND",
    "KIND",
    "TREATING",
    "Case",
    "FlatDossier",
    "FlatEntry",
    "FlatLine",
    "FlatPhysician",
    "Meeting",
    "is_final",
    "judge",
    "meeting_of",
]

KIND = "M1"
TREATING = "medecin-traitant"
AHEAD = timedelta(days=120)
"""Longer than the longest notice that an RCP may ask for."""
BEHIND = timedelta(days=7)
"""Sessions that began: what was missed is told to the secretariat."""

_BLOCKED = frozenset(code for code in REASONS if code.startswith("NON_") and code != "NON_DELAI")


@dataclass(slots=True, eq=False)
class FlatPhysician:
    """What the decision asks of a professional."""

    id: uuid.UUID
    idnps: str
    rpps: str | None
    informed: bool


@dataclass(slots=True, eq=False)
class FlatLine:
    """What the decision asks of a treating physician's line among the correspondents."""

    id: uuid.UUID
    practitioner: FlatPhysician | None
    declined_at: datetime | None
    use_personal: bool
    use_secretariat: bool
    since: datetime
    role: str = TREATING


@dataclass(slots=True, eq=False)
class FlatEntry:
    """What the decision asks of a line of the register."""

    id: uuid.UUID
    session_id: uuid.UUID
    subject: str
    code: str
    due_at: datetime | None
    ready_at: datetime | None
    message_id: uuid.UUID | None


@dataclass(slots=True, eq=False)
class FlatDossier:
    """What the decision asks of a dossier."""

    id: uuid.UUID
    session_id: uuid.UUID
    state: str
    requester_id: uuid.UUID | None
    opposed_at: datetime | None
    prefiche_at: datetime | None
    registered_at: datetime


N = TypeVar("N", Correspondent, FlatLine)
E = TypeVar("E", NotificationEntry, FlatEntry)


@dataclass(frozen=True, slots=True)
class Meeting:
    """What the decision asks of a session: the same for all its dossiers."""

    notice: Notice
    holds: bool
    takes_part: bool
    catch_up: CatchUp | None


def meeting_of(session: RcpSession) -> Meeting:
    """Read a session's part in the decision.

    Raises
    ------
    InvalidContent
        ``reglage-invalide``.
    """
    return Meeting(
        notice=notice_of(session),
        holds=session.state not in {"annulee", "reportee"} and not session.rcp.fictive,
        takes_part=bool(session.rcp.notification.get("active", False)),
        catch_up=catch_up_of(session.rcp),
    )


@dataclass(frozen=True, slots=True)
class Case(Generic[N, E]):
    """One physician of one dossier, decided; ``entry`` is his line of the register, if there is one."""

    subject: str
    correspondent: N | None
    entry: E | None
    address: str | None
    decision: Decision
    ready_at: datetime | None

    @property
    def is_new(self) -> bool:
        """Whether the register does not say this yet, or a message is to leave."""
        if self.decision.code is None or is_final(self.entry):
            return False
        entry = self.entry
        if entry is None or self.decision.code == "ENVOYEE":
            return True
        said = (entry.subject, entry.code, entry.due_at, entry.ready_at)
        return said != (self.subject, self.decision.code, self.decision.due_at, self.ready_at)


def judge(
    dossier: Dossier | FlatDossier,
    correspondents: Iterable[N],
    entries: Sequence[E],
    now: datetime,
    meeting: Callable[[], Meeting],
    reach: Callable[[N], str | None],
) -> tuple[Sequence[Case[N, E]], Sequence[tuple[E, str]]]:
    """Decide each physician of a dossier; say also which lines of the register are no longer waited for, and why.

    Parameters
    ----------
    meeting
        Reads the session's part; not asked for a dossier that is over.
    reach
        Gives the address to use of a correspondent who has a number, if there is one.

    Raises
    ------
    InvalidContent
        As `meeting_of`.
    """
    here = [entry for entry in entries if entry.session_id == dossier.session_id]
    waiting = [entry for entry in entries if entry.code == "PREVUE" and entry.message_id is None]
    if dossier.state not in dossier_states.open_states():
        code = "NON_SEANCE" if dossier.state in dossier_states.FINAL else "ECHEC"
        return (), [(entry, code) for entry in waiting]
    closing = [(entry, "NON_SEANCE") for entry in waiting if entry not in here]  # moved to another session
    named = sorted((one for one in correspondents if one.role == TREATING), key=lambda one: one.id)
    live = {_subject(one): one for one in named if one.declined_at is None}
    by_subject = {entry.subject: entry for entry in here}
    free = [entry for entry in here if entry.subject not in live and not is_final(entry)]
    if not live and any(is_final(entry) for entry in here):
        return (), closing  # « ce n’est pas mon patient », after he was told: that he was told stays written
    cases = []
    physicians: Mapping[str, N | None] = {**live} if live else {TREATING: None}
    for subject, one in physicians.items():
        entry = by_subject.get(subject)
        if entry is None and free:
            entry = free.pop(0)  # the line that said that nobody, or somebody else, was the treating physician
        elif entry in free:
            free.remove(entry)
        cases.append(_case(dossier, subject, one, entry, now, meeting(), reach))
    declined = {_subject(one) for one in named if one.declined_at is not None}
    for entry in free:
        code = "NON_REFUS" if entry.subject in declined else "NON_MT"
        if entry.code != code:
            closing.append((entry, code))
    return cases, closing


def _subject(one: Correspondent | FlatLine) -> str:
    return one.practitioner.idnps if one.practitioner is not None else f"{TREATING}:{one.id}"


def _case(
    dossier: Dossier | FlatDossier,
    subject: str,
    one: N | None,
    entry: E | None,
    now: datetime,
    meeting: Meeting,
    reach: Callable[[N], str | None],
) -> Case[N, E]:
    who = one.practitioner if one is not None else None
    address = reach(one) if one is not None and who is not None else None
    facts = Facts(
        notice=meeting.notice,
        session_holds=meeting.holds,
        opposed=dossier.opposed_at is not None,
        rcp_takes_part=meeting.takes_part,
        named=one is not None,
        has_rpps=who is not None and who.rpps is not None,
        is_requester=who is not None and who.id == dossier.requester_id,
        wants_news=who is None or who.informed,
        box_ticked=one is not None and (one.use_personal or one.use_secretariat),
        has_address=address is not None,
        registered_at=dossier.prefiche_at,
        ready_at=_ready_at(dossier, one, entry),
        catch_up=meeting.catch_up,
    )
    decision, ready_at = decide(facts, now), entry.ready_at if entry is not None else None
    if decision.code in _BLOCKED:
        ready_at = None
    elif entry is not None and _came_true(entry, decision, now):
        # A condition that was seen to be false has come true, or the session has moved: the instant of it is now.
        ready_at = now
        decision = decide(replace(facts, ready_at=now), now)
    return Case(subject, one, entry, address, decision, ready_at)


def _ready_at(
    dossier: Dossier | FlatDossier, one: Correspondent | FlatLine | None, entry: NotificationEntry | FlatEntry | None
) -> datetime | None:
    known = [entry.ready_at] if entry is not None and entry.ready_at is not None else []
    if one is not None and one.since > dossier.registered_at:
        known.append(one.since)
    return max(known, default=None)


def _came_true(entry: NotificationEntry | FlatEntry, decision: Decision, now: datetime) -> bool:
    if decision.code not in {"ENVOYEE", "PREVUE"} or decision.due_at is None:
        return False
    if entry.code in _BLOCKED:
        return True
    return entry.code == "PREVUE" and entry.due_at != decision.due_at and decision.due_at <= now


def is_final(entry: NotificationEntry | FlatEntry | None) -> bool:
    """What was sent is never decided again."""
    return entry is not None and entry.message_id is not None
