"""« Ces images ne sont pas celles de ce patient »."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.portal.views.imaging import ImagingTrait
from gateway.portal.views.shared import Page, Patient

__all__ = ["DetachingList", "DetachingPage"]


@dataclass(frozen=True)
class DetachingList(Page):
    """`/dossiers/{id}/detacher`: the studies of a dossier, to choose the wrong one (name, sender, address)."""

    template = "imaging_detaching_list.html"
    title = "Retirer des images"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    studies: tuple[tuple[str, str, str], ...] = ()
    back_url: str = ""


@dataclass(frozen=True)
class DetachingPage(Page):
    """`/dossiers/{id}/detacher/{étude}`: what the images say beside the patients, and the form.

    ``other`` is the reference of the other dossier that is compared.
    """

    template = "imaging_detaching.html"
    title = "Retirer des images"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    study: str = ""
    labels: tuple[str, ...] = ()
    traits: tuple[ImagingTrait, ...] = ()
    against: tuple[str, ...] = ()
    other: str = ""
    seen: str = ""
    given: str = ""
    reason_characters: int = 0
    back_url: str = ""
    url: str = ""
    errors: dict[str, str] = field(default_factory=dict)
