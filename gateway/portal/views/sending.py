"""« Envoyer des images » of a dossier to another establishment."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.portal.views.shared import Badge, Choice, Page, Patient

__all__ = ["SendingLine", "SendingPage"]


@dataclass(frozen=True)
class SendingLine:
    """One sending; ``said`` is what was last heard when it failed, ``failed`` that a person has it on his work list.

    ``again_url`` is where it is asked for once more, when that may be done here.
    """

    study: str
    to: str
    state: Badge
    asked_at: datetime
    by: str = ""
    images: int = 0
    said: str = ""
    failed: bool = False
    again_url: str = ""


@dataclass(frozen=True)
class SendingPage(Page):
    """`/dossiers/{id}/envois`: what was sent, and the form that sends a study."""

    template = "imaging_sending.html"
    title = "Envoi d’images"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    lines: tuple[SendingLine, ...] = ()
    studies: tuple[Choice, ...] = ()
    destinations: tuple[Choice, ...] = ()
    back_url: str = ""
    action: str = ""
    errors: dict[str, str] = field(default_factory=dict)
