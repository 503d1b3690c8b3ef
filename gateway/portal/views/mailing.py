"""The organisers' pages about mails: the error box and one situation of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.portal.views.shared import Choice, Page, Tone

__all__ = ["ErrorBox", "ErrorItem", "ErrorLine"]


@dataclass(frozen=True)
class ErrorLine:
    """One situation in the list."""

    kind: str
    text: str
    at: datetime
    url: str
    since: str
    who: str = ""
    reference: str = ""
    tone: Tone = "warning"


@dataclass(frozen=True)
class ErrorBox(Page):
    """`/erreurs`: what became wrong with mails, and waits for a person."""

    template = "error_box.html"
    title = "Erreurs de messagerie"
    lines: tuple[ErrorLine, ...] = ()
    groups: tuple[Choice, ...] = ()
    ages: tuple[Choice, ...] = ()
    total: int = 0
    cut: bool = False


@dataclass(frozen=True)
class ErrorItem(Page):
    """`/erreurs/{id}`: one situation, what is known of it, and what may be done."""

    template = "error_item.html"
    title = "Erreur de messagerie"
    line: ErrorLine = field(kw_only=True)
    facts: tuple[tuple[str, str], ...] = ()
    events: tuple[tuple[datetime, str], ...] = ()
    url: str = ""
    dossier_url: str = ""
    download_url: str = ""
    replay_label: str = ""
    addresses: tuple[Choice, ...] = ()
    forgettable: str = ""
    reusable: str = ""
    tieable: bool = False
    closed: str = ""
    reason_characters: int = 0
    given: str = ""
    errors: dict[str, str] = field(default_factory=dict)
