"""The organisers' pages: sessions and work list."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.portal.views.dossier import Webconference
from gateway.portal.views.shared import Action, Badge, Page, Professional, Slot, Tone

__all__ = [
    "Attendee",
    "Informed",
    "InformedLine",
    "Quorum",
    "RegisterLine",
    "Session",
    "SessionDossier",
    "SessionLine",
    "Sessions",
    "WorkItem",
    "Worklist",
]


@dataclass(frozen=True)
class SessionLine:
    """One session in a list."""

    slot: Slot
    state: Badge
    dossiers: int
    reports_pending: int = 0


@dataclass(frozen=True)
class Sessions(Page):
    """`/seances`."""

    template = "sessions.html"
    title = "Séances"
    coming: tuple[SessionLine, ...] = ()
    past: tuple[SessionLine, ...] = ()
    worklist_count: int = 0


@dataclass(frozen=True)
class SessionDossier:
    """One line of the list of fiches (E17)."""

    rank: int
    identity: str
    reference: str
    birth_date: str
    requester: str
    url: str
    state: Badge
    tumour: str = ""
    reason: str = ""
    missing: tuple[str, ...] = ()
    contribution: bool = False
    imaging: bool = False
    urgent: bool = False
    physician_awaited: bool = False
    report_url: str = ""
    report_label: str = ""


@dataclass(frozen=True)
class Attendee:
    """One member expected at the session."""

    key: str
    professional: Professional
    present: bool = False
    mode: str = ""
    mode_label: str = ""


@dataclass(frozen=True)
class Quorum:
    """The rule and where the session stands."""

    rule: str
    badge: Badge
    detail: str = ""


@dataclass(frozen=True)
class RegisterLine:
    """One line of the register of notifications: every dossier has a status and a reason (S2-052)."""

    reference: str
    identity: str
    physician: str
    information: tuple[str, ...]
    tone: Tone = "neutral"
    url: str = ""


@dataclass(frozen=True)
class InformedLine:
    """One physician who was told of the session: how to reach him, what he was told, whether it is true still."""

    physician: str
    speciality: str
    contact: tuple[str, ...]
    identity: str
    reference: str
    url: str
    at: datetime
    said: str
    link: str
    state: Badge


@dataclass(frozen=True)
class Informed:
    """Who was told already; ``automatic``: changes are announced to them by mail."""

    since: str
    automatic: bool
    settings_url: str
    lines: tuple[InformedLine, ...]


@dataclass(frozen=True)
class Session(Page):
    """`/seances/{id}` (E16, E17)."""

    template = "session.html"
    title = "Séance"
    slot: Slot = field(kw_only=True)
    state: Badge = field(kw_only=True)
    dossiers: tuple[SessionDossier, ...] = ()
    register: tuple[RegisterLine, ...] = ()
    register_url: str = ""
    informed: Informed | None = None
    attendees: tuple[Attendee, ...] = ()
    quorum: Quorum | None = None
    attendance_url: str = ""
    presences: tuple[tuple[str, str], ...] = ()
    actions: tuple[Action, ...] = ()
    webconference: Webconference | None = None

    def heading(self) -> str:
        """Return the meeting's title; the day follows in the page."""
        return f"Séance : {self.slot.rcp}"


@dataclass(frozen=True)
class WorkItem:
    """One thing that a person must decide."""

    kind: str
    text: str
    at: datetime
    tone: Tone = "warning"
    url: str = ""
    case_url: str = ""


@dataclass(frozen=True)
class Worklist(Page):
    """`/seances/a-traiter`: the work list and the quarantine of the organisers."""

    template = "worklist.html"
    title = "À traiter"
    items: tuple[WorkItem, ...] = ()
    quarantine: tuple[WorkItem, ...] = ()
