"""What every page shares: the frame around it, and how people, patients and sessions are printed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

__all__ = ["Action", "Badge", "Choice", "Chrome", "Notice", "Page", "Patient", "Professional", "Slot", "Tone", "User"]

Tone = Literal["neutral", "info", "success", "warning", "danger"]


@dataclass(frozen=True)
class Badge:
    """A short state: the label always says it, the tone only repeats it in colour."""

    label: str
    tone: Tone = "neutral"


@dataclass(frozen=True)
class Notice:
    """A message at the top of a page."""

    text: str
    tone: Tone = "info"


@dataclass(frozen=True)
class User:
    """Who is signed in."""

    name: str
    qualification: str = ""
    organises: bool = False


@dataclass(frozen=True)
class Chrome:
    """What surrounds every page."""

    service: str = "Passerelle RCP"
    network: str = ""
    contact: str = ""
    user: User | None = None
    csrf_token: str = ""
    current: str = ""
    notice: Notice | None = None
    old_browser: bool = False
    fictitious: bool = False
    return_to: str = ""


@dataclass(frozen=True)
class Page:
    """One screen. Subclasses name their template and their title."""

    template: ClassVar[str]
    title: ClassVar[str]

    def heading(self) -> str:
        """Return the title of the browser's tab; overridden where it depends on what is shown."""
        return self.title


@dataclass(frozen=True)
class Professional:
    """A professional as printed."""

    name: str
    speciality: str = ""
    structure: str = ""


@dataclass(frozen=True)
class Patient:
    """The identity banner: strict traits, INS with its status, local numbers by domain."""

    family: str
    given: str
    sex: str
    birth_date: str
    ins_badge: Badge
    birth_family: str = ""
    sex_label: str = ""
    born: str = "né(e)"
    age_label: str = ""
    birth_place: str = ""
    ins: str = ""
    numbers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Slot:
    """When and where a session is held."""

    rcp: str
    start: datetime
    place: str = ""
    end: datetime | None = None
    zone_note: str = ""
    url: str = ""


@dataclass(frozen=True)
class Choice:
    """One value of a select, a radio group or a filter."""

    value: str
    label: str
    selected: bool = False


@dataclass(frozen=True)
class Action:
    """A button that posts."""

    url: str
    label: str
    name: str
    value: str
    primary: bool = False
