"""The register of a session: who was told of each dossier, and what became of each mail."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.portal.views.shared import Badge, Page, Slot

__all__ = ["Moment", "Register", "RegisterNotice", "RegisterReport", "RegisterWho"]


@dataclass(frozen=True)
class Moment:
    """When something happened; with words when it needs some, or words alone when it did not happen."""

    at: datetime | None = None
    text: str = ""


@dataclass(frozen=True)
class RegisterWho:
    """The dossier of a line; ``note`` says that it is no longer examined in this session."""

    reference: str
    identity: str
    birth_date: str
    url: str
    note: Badge | None = None


@dataclass(frozen=True)
class RegisterNotice:
    """One treating physician: why he is notified or not, and what became of it."""

    who: RegisterWho
    physician: str
    speciality: str
    code: str
    information: Badge
    due: Moment = Moment()
    sent: Moment = Moment()
    delivered: Moment = Moment()
    read: Moment = Moment()
    opened: Moment = Moment()
    contributed: Moment = Moment()
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegisterReport:
    """One mail of a report, or why somebody cannot get it."""

    who: RegisterWho
    recipient: str
    mail: str
    code: str
    information: Badge
    sent: Moment = Moment()
    delivered: Moment = Moment()
    read: Moment = Moment()


@dataclass(frozen=True)
class Register(Page):
    """`/seances/{id}/registre`."""

    template = "register.html"
    title = "Registre de la séance"
    slot: Slot = field(kw_only=True)
    state: Badge = field(kw_only=True)
    back_url: str = ""
    csv_url: str = ""
    counts: tuple[Badge, ...] = ()
    notices: tuple[RegisterNotice, ...] = ()
    reports: tuple[RegisterReport, ...] = ()

    def heading(self) -> str:
        """Return the meeting's title: a tab names no patient."""
        return f"Registre : {self.slot.rcp}"
