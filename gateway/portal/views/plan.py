"""The pages of a care plan (PPS)."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.portal.views.dossier import FicheSection, ReportVersion
from gateway.portal.views.shared import Badge, Page, Patient

__all__ = ["Plan", "PlanPart", "PlanValidation"]


@dataclass(frozen=True)
class PlanPart:
    """What a plan says under one heading, row by row."""

    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Plan(Page):
    """`/dossiers/{id}/pps` (E25): the versions, the one in force in words, and the form for who writes it."""

    template = "plan.html"
    title = "Programme personnalisé de soins"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    state: Badge = field(kw_only=True)
    back_url: str = field(kw_only=True)
    action: str = ""
    sections: tuple[FicheSection, ...] = ()
    version: str = ""
    started: bool = False
    discard_url: str = ""
    renew_url: str = ""
    parts: tuple[PlanPart, ...] = ()
    versions: tuple[ReportVersion, ...] = ()
    closed: str = ""
    errors: dict[str, str] = field(default_factory=dict)

    def heading(self) -> str:
        """Return a title without the patient's name."""
        return f"PPS {self.reference}"


@dataclass(frozen=True)
class PlanValidation(Page):
    """`/dossiers/{id}/pps/validation`: what becomes final."""

    template = "plan_validation.html"
    title = "Valider le PPS"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    action: str = field(kw_only=True)
    back_url: str = field(kw_only=True)
    parts: tuple[PlanPart, ...] = ()
    version: str = ""
    replaces: int = 0
    errors: dict[str, str] = field(default_factory=dict)

    def heading(self) -> str:
        """Return a title without the patient's name."""
        return f"Valider le PPS {self.reference}"
