"""Pictures and PDFs beside a dossier."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.portal.views.shared import Page, Patient

__all__ = ["AttachedFile", "Attachments", "AttachmentsPage", "SentFile"]


@dataclass(frozen=True)
class AttachedFile:
    """One file; ``picture``: it is shown in the page itself."""

    name: str
    kind: str
    size: str
    by: str
    at: datetime
    url: str
    picture: bool = False
    remove_url: str = ""


@dataclass(frozen=True)
class SentFile:
    """What became of one file of a form; ``refusal`` says why it was not kept, and is empty when it was."""

    number: int
    name: str
    refusal: str = ""


@dataclass(frozen=True)
class Attachments:
    """The files of one dossier; ``edit_url`` is empty for who reads only."""

    files: tuple[AttachedFile, ...] = ()
    edit_url: str = ""


@dataclass(frozen=True)
class AttachmentsPage(Page):
    """`/dossiers/{id}/pieces`: the files, and the form that adds some."""

    template = "attachments.html"
    title = "Documents du dossier"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    attachments: Attachments = field(kw_only=True)
    back_url: str = ""
    action: str = ""
    accepted: str = ""
    limit: str = ""
    most: int = 0
    sent: tuple[SentFile, ...] = ()
    errors: dict[str, str] = field(default_factory=dict)
