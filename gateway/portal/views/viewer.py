"""The page of a dossier's images."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.portal.views.shared import Page, Patient

__all__ = ["KeyImages", "Viewer", "ViewerSeries", "ViewerStill", "ViewerStudy"]


@dataclass(frozen=True)
class ViewerSeries:
    """One series to choose; ``thumbnail_url`` is empty when it holds no picture.

    ``videos`` are what a browser plays or saves: each its UID, « = », its transfer syntax.
    """

    study_uid: str
    series_uid: str
    label: str
    modality: str
    images: int
    documents: int
    url: str
    thumbnail_url: str = ""
    selected: bool = False
    videos: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeyImages:
    """Images of a study that a document selects; ``label`` counts them, ``title`` is the document's own."""

    label: str
    title: str
    study_uid: str
    series_uid: str
    instance_uid: str
    url: str


@dataclass(frozen=True)
class ViewerStudy:
    """One study, what documents select of it, and its series."""

    description: str
    at: datetime | None
    series: tuple[ViewerSeries, ...]
    keys: tuple[KeyImages, ...] = ()


@dataclass(frozen=True)
class ViewerStill:
    """The object to begin with, which a browser without JavaScript sees one after the other."""

    instance_uid: str
    url: str
    alt: str
    number: int
    count: int
    pictured: bool
    previous_url: str = ""
    next_url: str = ""
    video: bool = False


@dataclass(frozen=True)
class Viewer(Page):
    """`/dossiers/{id}/images`: the images of a dossier, looked at in the browser.

    ``owner`` names the session for what the browser keeps of it, and for nothing else. ``keyed``: the object to begin
    with is a selection, and what it names is shown.
    """

    template = "viewer.html"
    title = "Images"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    back_url: str = field(kw_only=True)
    studies: tuple[ViewerStudy, ...] = ()
    still: ViewerStill | None = None
    chosen: str = ""
    owner: str = ""
    keyed: bool = False

    def heading(self) -> str:
        """Return a title without the patient's name: tabs and histories of browsers are read by others."""
        return f"Images {self.reference}"
