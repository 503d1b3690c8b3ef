"""The physician's pages: « Vos patients », the fiche, « ce n’est pas mon patient »."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.portal.views.attachments import Attachments
from gateway.portal.views.imaging import AwaitedImages
from gateway.portal.views.shared import Badge, Choice, Page, Patient, Professional, Slot
from gateway.portal.views.viewer import KeyImages

__all__ = [
    "Answer",
    "Clinical",
    "Contribution",
    "ContributionForm",
    "Correspondent",
    "Dossier",
    "FicheForm",
    "FicheInput",
    "FicheList",
    "FicheSection",
    "FormSection",
    "HistoryLine",
    "Image",
    "InteropLine",
    "News",
    "NotMyPatient",
    "Patients",
    "ReportVersion",
    "Study",
    "Tile",
    "Tumour",
    "Webconference",
]


@dataclass(frozen=True)
class Tile:
    """One dossier in « Vos patients » (S0-053)."""

    patient: Patient
    rcp: str
    start: datetime
    state: Badge
    url: str
    tumour: str = ""


@dataclass(frozen=True)
class News:
    """One line of « Actualité » (E8)."""

    at: datetime
    identity: str
    tumour: str
    information: str
    url: str


@dataclass(frozen=True)
class Patients(Page):
    """`/patients`: the landing page, « Vos patients » and « Actualité » (E7, E8)."""

    template = "patients.html"
    title = "Vos patients"
    total: int = 0
    tiles: tuple[Tile, ...] = ()
    news: tuple[News, ...] = ()
    news_total: int = 0
    shown: int = 0
    filters: tuple[Choice, ...] = ()
    page: int = 1
    page_size: int = 10
    sizes: tuple[int, ...] = (10, 20, 50, 100)
    query: str = ""

    @property
    def pages(self) -> int:
        """Return how many pages of news there are, at least one."""
        return max(1, -(-self.news_total // self.page_size))


@dataclass(frozen=True)
class Answer:
    """One question of the form and what was answered; who wrote it and when, when a person did here."""

    label: str
    value: str
    source: str = ""
    at: datetime | None = None


@dataclass(frozen=True)
class FormSection:
    """A group of answers under one heading."""

    title: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Tumour:
    """The tumour that the dossier is about."""

    label: str
    code: str = ""
    morphology: str = ""
    laterality: str = ""
    tnm: str = ""
    stage: str = ""


@dataclass(frozen=True)
class Clinical:
    """The parts of the form that every fiche has, in the order of its reading."""

    case_type: str = ""
    reason: str = ""
    performance_status: str = ""
    sections: tuple[FormSection, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """One image of a series: its thumbnail, and the page that shows it."""

    thumbnail_url: str
    full_url: str
    alt: str


@dataclass(frozen=True)
class Study:
    """One imaging study attached to the dossier."""

    description: str
    modality: str
    at: datetime | None
    series: int
    instances: int
    images: tuple[Image, ...] = ()
    url: str = ""
    keys: tuple[KeyImages, ...] = ()


@dataclass(frozen=True)
class Contribution:
    """One opinion of « Avis et commentaires »; `heading` names its author: « Commentaire du Docteur … »."""

    heading: str
    speciality: str
    at: datetime
    text: str
    interested: bool = False
    after_session: bool = False


@dataclass(frozen=True)
class ContributionForm:
    """The treating physician's own section (E20)."""

    action: str
    signature: str
    text: str = ""
    interested: bool = False
    limit: int = 10_000
    version: str = ""
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Correspondent:
    """One line of the five columns of the recap table (S2-017)."""

    kind: str
    professional: Professional
    personal: bool
    secretariat: bool
    information: tuple[str, ...] = ()


@dataclass(frozen=True)
class HistoryLine:
    """One move of the dossier."""

    at: datetime
    text: str
    by: str = ""


@dataclass(frozen=True)
class InteropLine:
    """One thing that came from another system; ``files`` are labels and addresses of what may be saved."""

    source: str
    text: str
    at: datetime | None = None
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Webconference:
    """The access given to the notified physicians."""

    url: str
    complement: str = ""


@dataclass(frozen=True)
class ReportVersion:
    """One validated (or cancelled) version of the report."""

    number: int
    badge: Badge
    at: datetime
    by: str
    pdf_url: str = ""
    cda_url: str = ""
    reason: str = ""
    since: str = ""


@dataclass(frozen=True)
class Dossier(Page):
    """`/dossiers/{id}`: the fiche (E19), read-only, with the contribution's section for the treating physician."""

    template = "dossier.html"
    title = "Fiche RCP"
    reference: str = field(kw_only=True)
    state: Badge = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    slot: Slot = field(kw_only=True)
    requester: Professional = field(kw_only=True)
    participation: str = ""
    problem: str = ""
    urgent: bool = False
    question: str = ""
    tumour: Tumour | None = None
    clinical: Clinical = Clinical()
    studies: tuple[Study, ...] = ()
    copies_url: str = ""
    sending_url: str = ""
    detaching_url: str = ""
    images: AwaitedImages | None = None
    attachments: Attachments = field(default_factory=Attachments)
    contributions: tuple[Contribution, ...] = ()
    contribution_form: ContributionForm | None = None
    contribution_closed: str = ""
    correspondents: tuple[Correspondent, ...] = ()
    history: tuple[HistoryLine, ...] = ()
    interop: tuple[InteropLine, ...] = ()
    webconference: Webconference | None = None
    reports: tuple[ReportVersion, ...] = ()
    proposal: str = ""
    preparatory: bool = True
    report_url: str = ""
    report_label: str = ""
    not_my_patient_url: str = ""
    edit_url: str = ""
    missing: tuple[str, ...] = ()

    def heading(self) -> str:
        """Return a title without the patient's name: tabs and histories of browsers are read by others."""
        return f"Fiche {self.reference}"


@dataclass(frozen=True)
class NotMyPatient(Page):
    """`/dossiers/{id}/pas-mon-patient`: once it is recorded the page names nobody any more."""

    template = "not_my_patient.html"
    title = "Ce n’est pas mon patient"
    patient: Patient | None = None
    slot: Slot | None = None
    action: str = ""
    reference: str = ""
    recorded: datetime | None = None
    back_url: str = ""


@dataclass(frozen=True)
class FicheInput:
    """One input of the fiche's form: ``ligne``, ``texte``, ``choix`` or ``cases``."""

    name: str
    label: str
    kind: str
    value: str = ""
    choices: tuple[Choice, ...] = ()
    datalist: str = ""
    hint: str = ""
    required: bool = False
    source: str = ""

    @property
    def note(self) -> str:
        """Return what stands under the label: how to write it, and who said it."""
        return ". ".join(one for one in (self.hint, self.source) if one)


@dataclass(frozen=True)
class FicheSection:
    """Inputs under one heading."""

    key: str
    title: str
    inputs: tuple[FicheInput, ...]


@dataclass(frozen=True)
class FicheList:
    """Codes with their labels, offered as one types."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class FicheForm(Page):
    """`/dossiers/{id}/fiche`: the fields of the fiche, for the requester and the organisers."""

    template = "fiche_form.html"
    title = "Modifier la fiche"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    action: str = field(kw_only=True)
    back_url: str = field(kw_only=True)
    sections: tuple[FicheSection, ...] = ()
    lists: tuple[FicheList, ...] = ()
    version: str = ""
    missing: tuple[str, ...] = ()
    declared: bool = False
    errors: dict[str, str] = field(default_factory=dict)

    def heading(self) -> str:
        """Return a title without the patient's name: tabs and histories of browsers are read by others."""
        return f"Modifier la fiche {self.reference}"
