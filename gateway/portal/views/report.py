"""The report's pages: its draft, what becomes final, its versions and their sendings."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.portal.views.dossier import Contribution, ReportVersion
from gateway.portal.views.meeting import Quorum
from gateway.portal.views.shared import Badge, Choice, Page, Patient, Slot

__all__ = [
    "FieldGroup",
    "FieldLine",
    "Report",
    "ReportEnding",
    "ReportField",
    "ReportForm",
    "ReportValidation",
    "Sending",
]


@dataclass(frozen=True)
class ReportField:
    """One field: ``ligne``, ``texte`` (of ``rows`` lines), ``choix`` or ``case``; ``wide`` within a line of several."""

    name: str
    label: str
    kind: str
    value: str = ""
    choices: tuple[Choice, ...] = ()
    hint: str = ""
    required: bool = False
    rows: int = 3
    wide: bool = False


@dataclass(frozen=True)
class FieldLine:
    """Fields that say one thing together: a treatment, an examination."""

    legend: str
    fields: tuple[ReportField, ...]


@dataclass(frozen=True)
class FieldGroup:
    """A part of the form under a title."""

    title: str
    fields: tuple[ReportField, ...] = ()
    hint: str = ""
    lines: tuple[FieldLine, ...] = ()


@dataclass(frozen=True)
class ReportForm:
    """The draft (E24)."""

    action: str
    groups: tuple[FieldGroup, ...] = ()
    discard_url: str = ""
    #: What was read: saved and thrown away only if nobody wrote meanwhile.
    version: str = ""
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sending:
    """One sending of a version to one recipient, with its receipts."""

    recipient: str
    address: str
    version: int
    badge: Badge
    at: datetime | None = None
    receipts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report(Page):
    """`/dossiers/{id}/compte-rendu` (E24)."""

    template = "report.html"
    title = "Compte rendu"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    slot: Slot = field(kw_only=True)
    state: Badge = field(kw_only=True)
    dossier_url: str = field(kw_only=True)
    question: str = ""
    proposal: str = ""
    alternatives: str = ""
    guideline: str = ""
    contributions: tuple[Contribution, ...] = ()
    attendees: tuple[str, ...] = ()
    quorum: Quorum | None = None
    form: ReportForm | None = None
    closed: str = ""
    withdrawn: str = ""
    correct_url: str = ""
    cancel_url: str = ""
    show_url: str = ""
    plan_url: str = ""
    versions: tuple[ReportVersion, ...] = ()
    sendings: tuple[Sending, ...] = ()

    def heading(self) -> str:
        """Return a title without the patient's name."""
        return f"Compte rendu {self.reference}"


@dataclass(frozen=True)
class ReportValidation(Page):
    """`/dossiers/{id}/compte-rendu/validation`: what becomes final, before it does."""

    template = "report_validation.html"
    title = "Valider le compte rendu"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    slot: Slot = field(kw_only=True)
    action: str = field(kw_only=True)
    back_url: str = field(kw_only=True)
    said: tuple[tuple[str, str], ...] = ()
    contributions: tuple[Contribution, ...] = ()
    quorum: Quorum | None = None
    recipients: tuple[str, ...] = ()
    version: str = ""
    replaces: int = 0
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportEnding(Page):
    """`/dossiers/{id}/compte-rendu/annulation`, `/visibilite`: what becomes of the version in force, before it does."""

    template = "report_ending.html"
    title = "Compte rendu en vigueur"
    heading_text: str = field(kw_only=True)
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    slot: Slot = field(kw_only=True)
    version: int = field(kw_only=True)
    action: str = field(kw_only=True)
    back_url: str = field(kw_only=True)
    warning: str = field(kw_only=True)
    confirm: str = field(kw_only=True)
    button: str = field(kw_only=True)
    danger: bool = False
    recipients: tuple[str, ...] = ()
    reason: str = ""
    errors: dict[str, str] = field(default_factory=dict)

    def heading(self) -> str:
        """Return what is about to be done."""
        return self.heading_text
