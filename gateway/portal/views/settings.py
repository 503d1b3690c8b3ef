"""The page of an RCP's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.portal.views.dossier import FicheSection
from gateway.portal.views.shared import Page

__all__ = ["NotifiedSession", "RcpSettings"]


@dataclass(frozen=True)
class NotifiedSession:
    """A session to come whose notifications have left."""

    url: str
    start: datetime
    since: str


@dataclass(frozen=True)
class RcpSettings(Page):
    """`/rcp/{id}/reglages`: what the organisers of one RCP decide (E13 and the form of E12)."""

    template = "rcp_settings.html"
    title = "Réglages de la RCP"
    rcp: str = field(kw_only=True)
    action: str = field(kw_only=True)
    back_url: str = field(kw_only=True)
    sections: tuple[FicheSection, ...] = ()
    notified: tuple[NotifiedSession, ...] = ()
    renotifies: bool = False
    version: str = ""
    agreed_by: str = ""
    agreed_at: datetime | None = None
    errors: dict[str, str] = field(default_factory=dict)

    def heading(self) -> str:
        """Return the title with the meeting's own."""
        return f"Réglages – {self.rcp}"
