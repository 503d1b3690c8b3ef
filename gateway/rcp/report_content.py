"""The frozen facts of one version of a report (CR de RCP): what its PDF, its CDA and its FHIR form all say.

The verbs of `gateway.rcp.report` gather these facts from the canonical model once, at the moment of validation, and
keep them as JSON beside the version. Every form is rendered from them and from nothing else, so that a form can be
made again years later, byte for byte, whatever became of the patient's record, of a doctor's speciality or of the RCP.

Promises: values are immutable and compare by value; `encode` gives the same bytes for the same facts and `decode`
gives them back; instants are aware, and the zone in which they are read is named once (`ReportContent.zone`).
Not promised: that codes belong to their national sets (`gateway.documents` checks that before it renders), nor that a
fact is known: what was not said is ``None`` or empty, and the forms say so in their own way.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct

from gateway.errors import Fault, InvalidContent

__all__ = [
    "HIDDEN_FROM_PATIENT",
    "Address",
    "Attendance",
    "CodedValue",
    "Contribution",
    "Examination",
    "Geriatric",
    "Guideline",
    "Identifier",
    "MeetingContent",
    "Motives",
    "Organisation",
    "OtherStage",
    "PartialDate",
    "PastTreatment",
    "PatientContent",
    "Person",
    "Proposal",
    "QuotedReport",
    "Replaced",
    "ReportContent",
    "Tnm",
    "Treatment",
    "TumourContent",
    "decode",
    "encode",
]

HIDDEN_FROM_PATIENT = "INVISIBLE_PATIENT"
"""The flag of a sending (JDV_J08) that hides a report from its patient until the announcement consultation."""

PartialDate = Annotated[str, Meta(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$")]
"""ISO 8601 date that may stop at the month or the year, never completed."""

_Positive = Annotated[int, Meta(ge=1)]


class Identifier(Struct, frozen=True):
    """An OID (or UUID) and, under it, a value; the OID alone when it names one thing."""

    root: str
    extension: str | None = None


class CodedValue(Struct, frozen=True):
    """A code, the OID of its system and the label as it was when the facts were frozen."""

    code: str
    system: str
    label: str


class Address(Struct, frozen=True, kw_only=True):
    """A postal address; every part may be missing."""

    lines: tuple[str, ...] = ()
    postal_code: str | None = None
    city: str | None = None


class Organisation(Struct, frozen=True, kw_only=True):
    """A structure: hospital, 3C, practice.

    Parameters
    ----------
    name
        As written in the documents.
    idnst
        National structure number with its prefix (``1`` + FINESS), or ``None``.
    setting
        Practice setting (JDV_J04); ``None`` reads as a hospital, the setting of a RCP.
    facility
        Kind of facility (JDV_J02), needed of the place of the meeting only.
    """

    name: str
    idnst: str | None = None
    setting: CodedValue | None = None
    facility: CodedValue | None = None
    address: Address | None = None
    phone: str | None = None


class Person(Struct, frozen=True, kw_only=True):
    """A professional as he or she was named when the facts were frozen.

    Parameters
    ----------
    idnps
        National number with its prefix (``8`` + RPPS), or ``None`` for someone unknown to the RPPS.
    civility
        ``M`` or ``MME`` (JDV_J245).
    title
        ``DR``, ``PR`` … (JDV_J246).
    profession
        Profession and speciality of JDV_J01, such as ``G15_10/SM36``.
    speciality
        The words to show for the speciality, such as « Oncologie médicale »; else the label of `profession`.
    """

    family: str
    given: str = ""
    idnps: str | None = None
    civility: Literal["M", "MME"] | None = None
    title: Literal["DR", "MC", "MG", "PC", "PG", "PR"] | None = None
    profession: CodedValue | None = None
    speciality: str | None = None
    organisation: Organisation | None = None


class PatientContent(Struct, frozen=True, kw_only=True):
    """The patient, by the traits of the record that the dossier came with.

    Parameters
    ----------
    birth_given_names
        All given names of birth in one string; the first alone when only it is known.
    sex
        ``F``, ``M`` or ``UN`` (JDV_J143).
    birth_place_code, birth_place
        INSEE code of the commune or country of birth, and its name.
    ins, ins_qualified
        The INS under the OID of its authority. A form prints it as INS only when it is qualified.
    ipps
        Local numbers under the OID of each establishment; a patient without a qualified INS needs one at least.
    """

    birth_family: str
    birth_given: str
    birth_given_names: str | None = None
    used_family: str | None = None
    used_given: str | None = None
    sex: Literal["F", "M", "UN"] = "UN"
    birth_date: PartialDate
    birth_place_code: str | None = None
    birth_place: str | None = None
    ins: Identifier | None = None
    ins_qualified: bool = False
    ipps: tuple[Identifier, ...] = ()


class MeetingContent(Struct, frozen=True, kw_only=True):
    """The session and the RCP, network and 3C that it belongs to.

    Parameters
    ----------
    network_id, manager_id, rcp_id
        The three identifiers that the national document asks for: regional network, managing 3C, RCP. National ones
        where they exist (roots ``1.2.250.1.161.1.20.1.1``, ``.2.1``, ``.3.1``), else the gateway's own.
    contact
        How to reach the secretariat, as shown to readers.
    place
        Where the meeting is held: name, address, facility type.
    """

    network: str
    network_id: Identifier
    manager: str
    manager_id: Identifier
    rcp: str
    rcp_id: Identifier
    session_id: Identifier | None = None
    local_ids: tuple[Identifier, ...] = ()
    start: datetime
    end: datetime | None = None
    place: Organisation
    contact: str | None = None


class Tnm(Struct, frozen=True, kw_only=True):
    """Clinical TNM as pronounced; each part may be missing."""

    t: str | None = None
    n: str | None = None
    m: str | None = None
    stage: str | None = None
    edition: str | None = None


class OtherStage(Struct, frozen=True, kw_only=True):
    """A stage in another classification than the TNM: its name (« FIGO »), its version, and what it says."""

    name: str
    version: str | None = None
    value: str


class TumourContent(Struct, frozen=True, kw_only=True):
    """One tumour.

    Parameters
    ----------
    label
        The words of the requester, « Tumeur du pancréas »; shown when no code says it.
    topography, morphology, laterality
        CIM-10, CIM-O-3, and the national set of laterality (SNOMED CT).
    other_stage, other_stages
        The stage in words where no classification is named; else one entry a classification.
    """

    label: str | None = None
    topography: CodedValue | None = None
    morphology: CodedValue | None = None
    laterality: CodedValue | None = None
    diagnosed_on: PartialDate | None = None
    tnm: Tnm | None = None
    other_stage: str | None = None
    other_stages: tuple[OtherStage, ...] = ()
    comment: str | None = None


class Geriatric(Struct, frozen=True, kw_only=True):
    """The screening of frailty: score, tool (« G8 » when not said) and date."""

    score: Annotated[int, Meta(ge=0, le=100)]
    tool: str | None = None
    on: PartialDate | None = None


class PastTreatment(Struct, frozen=True, kw_only=True):
    """A treatment before the meeting: its type (JDV_TypeTraitement_FRCP), whether it was done, and precisions."""

    kind: CodedValue
    state: Literal["fait", "en-cours", "non-fait"] = "fait"
    text: str | None = None
    start: PartialDate | None = None
    end: PartialDate | None = None


class QuotedReport(Struct, frozen=True, kw_only=True):
    """The conclusion of another report that the board read.

    Parameters
    ----------
    kind
        ``cro`` operative, ``acp`` pathology, ``gm`` molecular genetics.
    done_from, done_to
        When the act was done.
    performer, author
        Surgeon, pathologist or biologist; who wrote the conclusion, when it is somebody else.
    sampler, sampled_on
        Who took the sample, and when; of pathology and molecular genetics only.
    """

    kind: Literal["cro", "acp", "gm"]
    conclusion: str
    done_from: PartialDate | None = None
    done_to: PartialDate | None = None
    performer: Person | None = None
    author: Person | None = None
    sampler: Person | None = None
    sampled_on: PartialDate | None = None
    remark: str | None = None


class Motives(Struct, frozen=True, kw_only=True):
    """Why the case is put to the board; ``None`` where nobody said."""

    diagnostic_opinion: bool | None = None
    treatment_proposal: bool | None = None
    recourse: bool | None = None
    paediatrics: bool | None = None
    comment: str | None = None


class Contribution(Struct, frozen=True, kw_only=True):
    """What the treating physician wrote before the meeting, frozen as it stood.

    Parameters
    ----------
    author
        With the speciality and structure of that moment.
    channel
        ``portail`` (signed in by Pro Santé Connect), ``mssante`` (reply to the notification) or ``fhir``.
    wishes_to_attend
        Whether the physician asked to take part in the discussion.
    """

    author: Person
    at: datetime
    channel: Literal["portail", "mssante", "fhir"]
    text: str
    wishes_to_attend: bool | None = None


class Attendance(Struct, frozen=True, kw_only=True):
    """One person at the session; ``in_quorum`` if counted in the quorum."""

    person: Person
    in_quorum: bool = False
    remote: bool = False


class Treatment(Struct, frozen=True, kw_only=True):
    """One treatment of a proposal: its type (JDV_TypeTraitement_FRCP) and its precisions."""

    kind: CodedValue
    text: str | None = None
    start: PartialDate | None = None
    end: PartialDate | None = None


class Proposal(Struct, frozen=True, kw_only=True):
    """One intention: ``rank`` 1 is the first, the following are alternatives in order."""

    rank: _Positive = 1
    text: str | None = None
    treatments: tuple[Treatment, ...] = ()


class Examination(Struct, frozen=True, kw_only=True):
    """A complementary examination or expertise that the board asks for."""

    text: str
    earliest: PartialDate | None = None
    latest: PartialDate | None = None


class Guideline(Struct, frozen=True, kw_only=True):
    """The guideline that the proposal follows: name with version, and its date."""

    name: str
    dated: PartialDate | None = None


class Replaced(Struct, frozen=True, kw_only=True):
    """The version that this one replaces, and why."""

    document_id: Identifier
    version: _Positive
    validated_at: datetime
    kind: Literal["correction", "addendum"] = "correction"
    reason: str | None = None


class ReportContent(Struct, frozen=True, kw_only=True):
    """Everything that one version of a report says.

    Parameters
    ----------
    document_id, set_id, version
        Identity of this version, identity common to all versions, rank from 1.
    status
        ``en-cours`` for a draft (never sent), ``approuve`` once validated. [CI-SIS FRCP 2022.01, GEN-065]
    zone
        IANA name of the zone of the RCP: every date and hour of the report is read in it.
    written_at
        When this version was made; for a validated one, when it was validated.
    visibility
        Extra confidentiality of the sending (JDV_J08); the CDA itself stays « Normal ».
    custodian
        The structure that keeps the document.
    validator
        The legal authenticator; the coordinator unless another right-holder validated.
    case_status
        ``enregistre`` (only recorded, a guideline answers) or ``discute``.
    quorum
        ``atteint``, ``non-atteint`` or ``inconnu``; `quorum_rule` says the rule in words.
    board_kind, system, organs, care, subject
        Kind of board (JDV_NatureDiscussion) and what it is about; ``subject`` says it in words where no code does.
    labels
        The words under which the RCP files its cases.
    recommended
        What the board advises beside the treatment: oncogeriatrics, fertility preservation, oncogenetics.
    """

    document_id: Identifier
    set_id: Identifier
    version: _Positive
    replaces: Replaced | None = None
    status: Literal["en-cours", "approuve"] = "approuve"
    zone: str
    written_at: datetime
    visibility: tuple[str, ...] = ()
    inscription: Identifier
    inscribed_comment: str | None = None

    meeting: MeetingContent
    custodian: Organisation
    patient: PatientContent

    coordinator: Person
    requester: Person
    presenter: Person | None = None
    treating_physician: Person | None = None
    correspondents: tuple[Person, ...] = ()
    attendees: tuple[Attendance, ...] = ()
    validator: Person

    board_kind: CodedValue | None = None
    system: CodedValue | None = None
    organs: tuple[CodedValue, ...] = ()
    care: CodedValue | None = None
    subject: str | None = None
    recourse_board: bool | None = None
    paediatric_board: bool | None = None
    board_comment: str | None = None
    labels: tuple[str, ...] = ()
    motives: Motives = Motives()
    case_status: Literal["enregistre", "discute"] = "discute"
    screening: bool | None = None

    tumours: tuple[TumourContent, ...] = ()
    phase: CodedValue | None = None
    phase_on: PartialDate | None = None
    phase_comment: str | None = None
    progression: bool | None = None
    progression_local: bool | None = None
    progression_regional: bool | None = None
    progression_distant: bool | None = None
    medical_history: str | None = None
    comorbidities: str | None = None
    who_status: Annotated[int, Meta(ge=0, le=4)] | None = None
    who_status_on: PartialDate | None = None
    geriatric: Geriatric | None = None
    examinations: str | None = None
    past_treatments: tuple[PastTreatment, ...] = ()
    quoted: tuple[QuotedReport, ...] = ()
    summary: str | None = None
    question: str | None = None
    contributions: tuple[Contribution, ...] = ()

    complete: bool | None = None
    quorum: Literal["atteint", "non-atteint", "inconnu"] = "inconnu"
    quorum_rule: str | None = None
    file_comment: str | None = None

    proposals: tuple[Proposal, ...] = ()
    recourse_asked: str | None = None
    examinations_asked: tuple[Examination, ...] = ()
    surveillance: str | None = None
    supportive_care: str | None = None
    recommended: tuple[Literal["oncogeriatrie", "fertilite", "oncogenetique"], ...] = ()
    proposal_comment: str | None = None
    guideline: Guideline | None = None
    trial: bool | None = None
    trial_name: str | None = None
    frame_comment: str | None = None
    patient_remark: str | None = None
    document_comment: str | None = None

    def instants(self) -> tuple[datetime, ...]:
        """Every instant that the report mentions."""
        found = [self.written_at, self.meeting.start, *(c.at for c in self.contributions)]
        if self.meeting.end is not None:
            found.append(self.meeting.end)
        if self.replaces is not None:
            found.append(self.replaces.validated_at)
        return tuple(found)

    def tzinfo(self) -> ZoneInfo:
        """Give the zone of the RCP.

        Raises
        ------
        InvalidContent
            ``report-zone`` if the name is not that of an IANA zone.
        """
        try:
            return ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise InvalidContent(
                "report-zone", "Le fuseau horaire de la RCP est inconnu.", expression="zone", rule=True
            ) from error


_DECODER = msgspec.json.Decoder(ReportContent)


def encode(content: ReportContent) -> bytes:
    """Give the JSON bytes under which a version's facts are kept.

    Raises
    ------
    InvalidContent
        ``report-instant`` if an instant has no zone: it would be read back as another moment.
    """
    for instant in content.instants():
        if instant.utcoffset() is None:
            raise InvalidContent(
                "report-instant", "Une date et heure du compte rendu est sans fuseau horaire.", rule=True
            )
    return msgspec.json.encode(content)


def decode(data: bytes) -> ReportContent:
    """Give back the facts kept by `encode`.

    Raises
    ------
    Fault
        ``report-content`` if the bytes are not such facts.
    """
    try:
        return _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        raise Fault("report-content", "Le contenu conservé du compte rendu est illisible.") from error
