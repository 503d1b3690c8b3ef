"""The page of an RCP's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.portal.views.dossier import FicheSection
from gateway.portal.views.shared import Page

__all__ = ["RcpSettings"]


@dataclass(frozen=True)
class RcpSettings(Page):
    """`/rcp/{id}/reglages`: what the organisers of one RCP decide (E13 and the form of E12)."""

    template = "rcp_settings.html"
    title = "Réglages de la RCP"
    rcp: str = field(kw_only=True)
    action: str = field(kw_only=True)
    back_url: str = field(kw_only=True)
    sections: tuple[FicheSection, ...] = ()
    version: str = ""
    agreed_by: str = ""
    agreed_at: datetime | None = None
    errors: dict[str, str] = field(default_factory=dict)

    def heading(self) -> str:
        """Return the title with the meeting's own."""
        return f"Réglages – {self.rcp}"
