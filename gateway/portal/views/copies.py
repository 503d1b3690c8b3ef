"""« Copies sans identité » of a dossier's images."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.portal.views.shared import Badge, Choice, Page, Patient

__all__ = ["CopiesPage", "StudyCopyLine"]


@dataclass(frozen=True)
class StudyCopyLine:
    """One copy; ``download_url`` is empty until it is made, ``to_look_at`` counts pictures that may show who it is."""

    pseudonym: str
    study: str
    state: Badge
    asked_at: datetime
    kept: tuple[str, ...] = ()
    images: int = 0
    size: str = ""
    to_look_at: int = 0
    left_out: tuple[str, ...] = ()
    download_url: str = ""


@dataclass(frozen=True)
class CopiesPage(Page):
    """`/dossiers/{id}/copies`: the copies that there are, and the form that asks for one."""

    template = "copies.html"
    title = "Copies sans identité"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    copies: tuple[StudyCopyLine, ...] = ()
    studies: tuple[Choice, ...] = ()
    options: tuple[Choice, ...] = ()
    back_url: str = ""
    images_url: str = ""
    action: str = ""
    errors: dict[str, str] = field(default_factory=dict)
