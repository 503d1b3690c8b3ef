"""The organisers' pages about images that a person must decide on."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.portal.views.shared import Badge, Choice, Page, Patient, Tone

__all__ = [
    "AwaitedImages",
    "AwaitedLine",
    "AwaitedPage",
    "ImagingCandidate",
    "ImagingCase",
    "ImagingCaseLine",
    "ImagingCases",
    "ImagingTrait",
]


@dataclass(frozen=True)
class AwaitedLine:
    """One exam that a dossier awaits."""

    label: str
    modality: str
    planned: str
    by: str
    received: bool
    remove_url: str = ""


@dataclass(frozen=True)
class AwaitedImages:
    """« Images attendues / reçues » of one dossier; ``edit_url`` is empty for who reads only."""

    received: int
    state: Badge
    lines: tuple[AwaitedLine, ...] = ()
    edit_url: str = ""


@dataclass(frozen=True)
class AwaitedPage(Page):
    """`/dossiers/{id}/images-attendues`: what the dossier awaits, and the form that declares more."""

    template = "imaging_awaited.html"
    title = "Images attendues"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    images: AwaitedImages = field(kw_only=True)
    back_url: str = ""
    action: str = ""
    key: str = ""
    label_characters: int = 0
    modalities: tuple[Choice, ...] = ()
    given: str = ""
    planned: str = ""
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImagingCaseLine:
    """One case in a list: never a trait."""

    text: str
    at: datetime
    url: str
    since: str
    who: str = ""
    reference: str = ""
    tone: Tone = "warning"
    kind: str = ""
    reason: str = ""


@dataclass(frozen=True)
class ImagingCases(Page):
    """`/imagerie`: the cases that wait, and those that were left where they are."""

    template = "imaging_cases.html"
    title = "Images à rattacher"
    waiting: tuple[ImagingCaseLine, ...] = ()
    left: tuple[ImagingCaseLine, ...] = ()
    cut: bool = False


@dataclass(frozen=True)
class ImagingTrait:
    """One line of the comparison: what the images say, and what each record says with whether it differs."""

    label: str
    said: str
    known: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class ImagingCandidate:
    """A record that the images may be given to."""

    value: str
    label: str
    against: tuple[str, ...] = ()
    selected: bool = False


@dataclass(frozen=True)
class ImagingCase(Page):
    """`/imagerie/{id}`: both sides, and what may be done."""

    template = "imaging_case.html"
    title = "Images à rattacher"
    line: ImagingCaseLine = field(kw_only=True)
    facts: tuple[tuple[str, str], ...] = ()
    traits: tuple[ImagingTrait, ...] = ()
    candidates: tuple[ImagingCandidate, ...] = ()
    url: str = ""
    seen: str = ""
    reference: str = ""
    open: bool = False
    study: bool = False
    against: bool = False
    judgeable: str = ""
    retakable: bool = False
    closed: str = ""
    reason_characters: int = 0
    given: str = ""
    errors: dict[str, str] = field(default_factory=dict)
