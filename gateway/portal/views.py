"""What each page shows, as frozen values: the only thing a template ever sees.

Promises: no ORM object, no session and no lazy loading reach a template; every instant is aware and already stands in
the zone of the meeting (or of the reader where no meeting is concerned); every text is plain, escaped by the templates.
Does not promise that the reader may see it: `gateway.rcp.access` decides before a view is filled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal

__all__ = [
    "Accessibility",
    "Action",
    "Answer",
    "Attendee",
    "Badge",
    "Browsers",
    "Choice",
    "Chrome",
    "Clinical",
    "Contribution",
    "ContributionForm",
    "Correspondent",
    "Document",
    "Dossier",
    "Error",
    "FormSection",
    "Help",
    "HistoryLine",
    "Home",
    "Image",
    "InteropLine",
    "MemberMemo",
    "News",
    "NotMyPatient",
    "Notice",
    "Page",
    "Patient",
    "Patients",
    "PhysicianMemo",
    "Professional",
    "Quorum",
    "Rcp",
    "RcpCard",
    "Rcps",
    "RegisterLine",
    "Report",
    "ReportForm",
    "ReportValidation",
    "ReportVersion",
    "SelfTest",
    "Sending",
    "Session",
    "SessionDossier",
    "SessionLine",
    "Sessions",
    "SignIn",
    "Slot",
    "Study",
    "TestCheck",
    "Tile",
    "Tumour",
    "User",
    "Webconference",
    "WorkItem",
    "Worklist",
]

Tone = Literal["neutral", "info", "success", "warning", "danger"]


@dataclass(frozen=True)
class Badge:
    """A short state: the label always says it, the tone only repeats it in colour."""

    label: str
    tone: Tone = "neutral"


@dataclass(frozen=True)
class Notice:
    """A message at the top of a page."""

    text: str
    tone: Tone = "info"


@dataclass(frozen=True)
class User:
    """Who is signed in."""

    name: str
    qualification: str = ""
    organises: bool = False


@dataclass(frozen=True)
class Chrome:
    """What surrounds every page."""

    service: str = "Passerelle RCP"
    network: str = ""
    contact: str = ""
    user: User | None = None
    csrf_token: str = ""
    current: str = ""
    notice: Notice | None = None
    old_browser: bool = False
    fictitious: bool = False
    return_to: str = ""


@dataclass(frozen=True)
class Page:
    """One screen. Subclasses name their template and their title."""

    template: ClassVar[str]
    title: ClassVar[str]

    def heading(self) -> str:
        """Return the title of the browser's tab; overridden where it depends on what is shown."""
        return self.title


# -- people, patients, meetings --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Professional:
    """A professional as printed."""

    name: str
    speciality: str = ""
    structure: str = ""


@dataclass(frozen=True)
class Patient:
    """The identity banner: strict traits, INS with its status, local numbers by domain."""

    family: str
    given: str
    sex: str
    birth_date: str
    ins_badge: Badge
    birth_family: str = ""
    sex_label: str = ""
    age_label: str = ""
    birth_place: str = ""
    ins: str = ""
    numbers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Slot:
    """When and where a session is held."""

    rcp: str
    start: datetime
    place: str = ""
    end: datetime | None = None
    zone_note: str = ""
    url: str = ""


@dataclass(frozen=True)
class RcpCard:
    """One recurring meeting in a public list."""

    title: str
    level: str
    url: str
    organ: str = ""
    organiser: str = ""
    place: str = ""
    next_start: datetime | None = None


# -- public pages ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Home(Page):
    """`/`: the public list of meetings, without any patient datum (E1)."""

    template = "home.html"
    title = "Réunions de concertation pluridisciplinaire"
    rcps: tuple[RcpCard, ...] = ()
    search: str = ""


@dataclass(frozen=True)
class Choice:
    """One value of a select, a radio group or a filter."""

    value: str
    label: str
    selected: bool = False


@dataclass(frozen=True)
class Rcps(Page):
    """`/rcp`: the directory of meetings (E11 reduced)."""

    template = "rcps.html"
    title = "Annuaire des RCP"
    rcps: tuple[RcpCard, ...] = ()
    search: str = ""
    levels: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class Rcp(Page):
    """`/rcp/{id}`: one meeting and its coming sessions; still without patient data."""

    template = "rcp.html"
    title = "RCP"
    card: RcpCard = field(kw_only=True)
    contact: str = ""
    quorum_rule: str = ""
    notification: str = ""
    sessions: tuple[Slot, ...] = ()

    def heading(self) -> str:
        """Return the meeting's own title."""
        return self.card.title


@dataclass(frozen=True)
class SignIn(Page):
    """`/connexion` (E2): Pro Santé Connect is the only way in."""

    template = "sign_in.html"
    title = "Connexion"
    psc_url: str = "/psc/connexion"
    problem: str = ""


@dataclass(frozen=True)
class Help(Page):
    """`/aide` (E32)."""

    template = "help.html"
    title = "Aide"


@dataclass(frozen=True)
class PhysicianMemo(Page):
    """`/aide/medecin-traitant`."""

    template = "help_physician.html"
    title = "Mémo du médecin traitant"


@dataclass(frozen=True)
class MemberMemo(Page):
    """`/aide/medecin-rcp`."""

    template = "help_member.html"
    title = "Mémo du médecin de RCP"


@dataclass(frozen=True)
class Accessibility(Page):
    """`/aide/accessibilite`."""

    template = "help_accessibility.html"
    title = "Déclaration d’accessibilité"


@dataclass(frozen=True)
class Browsers(Page):
    """`/aide/navigateurs`."""

    template = "help_browsers.html"
    title = "Navigateurs compatibles"
    minimum: tuple[tuple[str, str], ...] = ()
    yours: str = ""


@dataclass(frozen=True)
class TestCheck:
    """One line of the self-test."""

    label: str
    badge: Badge
    advice: str = ""


@dataclass(frozen=True)
class SelfTest(Page):
    """`/aide/test`: what the server can tell of the reader's workstation, without script."""

    template = "help_test.html"
    title = "Tester mon poste"
    checks: tuple[TestCheck, ...] = ()
    done: bool = False


@dataclass(frozen=True)
class Error(Page):
    """Any refusal, in words."""

    template = "error.html"
    title = "Erreur"
    status: int = 500
    headline: str = ""
    text: str = ""
    reference: str = ""

    def heading(self) -> str:
        """Return the headline."""
        return self.headline


# -- the physician's pages -------------------------------------------------------------------------------------------


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
    """One question of the form and what was answered."""

    label: str
    value: str


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


@dataclass(frozen=True)
class Document:
    """One attachment."""

    title: str
    kind: str
    size: str
    url: str
    at: datetime | None = None
    author: str = ""


@dataclass(frozen=True)
class Image:
    """One rendered image of a series."""

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
    """One thing that came from another system."""

    source: str
    text: str
    at: datetime | None = None


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
    documents: tuple[Document, ...] = ()
    studies: tuple[Study, ...] = ()
    contributions: tuple[Contribution, ...] = ()
    contribution_form: ContributionForm | None = None
    contribution_closed: str = ""
    correspondents: tuple[Correspondent, ...] = ()
    history: tuple[HistoryLine, ...] = ()
    interop: tuple[InteropLine, ...] = ()
    webconference: Webconference | None = None
    reports: tuple[ReportVersion, ...] = ()
    proposal: str = ""
    recommendations: tuple[str, ...] = ()
    preparatory: bool = True
    report_url: str = ""
    report_label: str = ""
    not_my_patient_url: str = ""

    def heading(self) -> str:
        """Return a title without the patient's name: tabs and histories of browsers are read by others."""
        return f"Fiche {self.reference}"


@dataclass(frozen=True)
class NotMyPatient(Page):
    """`/dossiers/{id}/pas-mon-patient`."""

    template = "not_my_patient.html"
    title = "Ce n’est pas mon patient"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    slot: Slot = field(kw_only=True)
    action: str = field(kw_only=True)
    reasons: tuple[Choice, ...] = ()
    comment: str = ""
    errors: dict[str, str] = field(default_factory=dict)
    recorded: datetime | None = None
    back_url: str = ""


# -- the organisers' pages -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SessionLine:
    """One session in a list."""

    slot: Slot
    state: Badge
    dossiers: int
    reports_pending: int = 0


@dataclass(frozen=True)
class Sessions(Page):
    """`/seances`."""

    template = "sessions.html"
    title = "Séances"
    coming: tuple[SessionLine, ...] = ()
    past: tuple[SessionLine, ...] = ()
    worklist_count: int = 0


@dataclass(frozen=True)
class SessionDossier:
    """One line of the list of fiches (E17)."""

    rank: int
    identity: str
    reference: str
    birth_date: str
    requester: str
    url: str
    state: Badge
    tumour: str = ""
    reason: str = ""
    missing: tuple[str, ...] = ()
    contribution: bool = False
    imaging: bool = False
    urgent: bool = False
    physician_awaited: bool = False
    report_url: str = ""
    report_label: str = ""


@dataclass(frozen=True)
class Attendee:
    """One member expected at the session."""

    key: str
    professional: Professional
    present: bool = False
    mode: str = ""
    mode_label: str = ""


@dataclass(frozen=True)
class Quorum:
    """The rule and where the session stands."""

    rule: str
    badge: Badge
    detail: str = ""


@dataclass(frozen=True)
class RegisterLine:
    """One line of the register of notifications: every dossier has a status and a reason (S2-052)."""

    reference: str
    identity: str
    physician: str
    information: tuple[str, ...]
    tone: Tone = "neutral"
    url: str = ""


@dataclass(frozen=True)
class Action:
    """A button that posts."""

    url: str
    label: str
    primary: bool = False
    advice: str = ""
    name: str = ""
    value: str = ""


@dataclass(frozen=True)
class Session(Page):
    """`/seances/{id}` (E16, E17)."""

    template = "session.html"
    title = "Séance"
    slot: Slot = field(kw_only=True)
    state: Badge = field(kw_only=True)
    dossiers: tuple[SessionDossier, ...] = ()
    register: tuple[RegisterLine, ...] = ()
    attendees: tuple[Attendee, ...] = ()
    quorum: Quorum | None = None
    attendance_url: str = ""
    presences: tuple[tuple[str, str], ...] = ()
    order_url: str = ""
    actions: tuple[Action, ...] = ()
    webconference: Webconference | None = None
    errors: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def heading(self) -> str:
        """Return the meeting's title; the day follows in the page."""
        return f"Séance : {self.slot.rcp}"


@dataclass(frozen=True)
class ReportForm:
    """The draft (E24)."""

    action: str
    proposal: str = ""
    alternatives: str = ""
    guideline: str = ""
    trial: str = ""
    reason: str = ""
    addendum: bool = False
    asks_reason: bool = False
    discard_url: str = ""
    limit: int = 20_000
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sending:
    """One sending of a version to one recipient, with its receipts."""

    recipient: str
    address: str
    version: int
    badge: Badge
    at: datetime | None = None
    receipts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report(Page):
    """`/dossiers/{id}/compte-rendu` (E24)."""

    template = "report.html"
    title = "Compte rendu"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    slot: Slot = field(kw_only=True)
    state: Badge = field(kw_only=True)
    dossier_url: str = field(kw_only=True)
    question: str = ""
    proposal: str = ""
    alternatives: str = ""
    guideline: str = ""
    contributions: tuple[Contribution, ...] = ()
    attendees: tuple[str, ...] = ()
    quorum: Quorum | None = None
    form: ReportForm | None = None
    closed: str = ""
    correct_url: str = ""
    versions: tuple[ReportVersion, ...] = ()
    sendings: tuple[Sending, ...] = ()

    def heading(self) -> str:
        """Return a title without the patient's name."""
        return f"Compte rendu {self.reference}"


@dataclass(frozen=True)
class ReportValidation(Page):
    """`/dossiers/{id}/compte-rendu/validation`: what becomes final, before it does."""

    template = "report_validation.html"
    title = "Valider le compte rendu"
    reference: str = field(kw_only=True)
    patient: Patient = field(kw_only=True)
    slot: Slot = field(kw_only=True)
    action: str = field(kw_only=True)
    back_url: str = field(kw_only=True)
    proposal: str = ""
    contributions: tuple[Contribution, ...] = ()
    quorum: Quorum | None = None
    recipients: tuple[str, ...] = ()
    version: str = ""
    replaces: int = 0
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkItem:
    """One thing that a person must decide."""

    kind: str
    text: str
    at: datetime
    tone: Tone = "warning"
    url: str = ""
    action: Action | None = None


@dataclass(frozen=True)
class Worklist(Page):
    """`/seances/a-traiter`: the work list and the quarantine of the organisers."""

    template = "worklist.html"
    title = "À traiter"
    items: tuple[WorkItem, ...] = ()
    quarantine: tuple[WorkItem, ...] = ()
