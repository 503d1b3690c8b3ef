"""Sections of the national report CANCER-FRCP 2022.01, with their coded entries.

Promises: the nine sections that the national rules require, always; an optional one only when it says something; in
each, the narrative is the `Part` of that name and every entry points at the row that says the same in words. What
nobody said is a null flavour, never a guess. `[CI-SIS FRCP 2022.01]`

Operative and pathology reports stand in one section each, molecular ones too, with one entry a report: the model has at
most one section of the first two kinds, and the same reading serves the third.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from gateway.documents import cda
from gateway.documents.cda import (
    LOINC,
    PROBLEM_TEMPLATES,
    SNOMED,
    TA,
    Code,
    Element,
    Elements,
    Entries,
    el,
    null,
    related,
)
from gateway.documents.frcp_history import QUOTED, past_treatments, quoted_section
from gateway.documents.frcp_plan import frame, plan
from gateway.documents.frcp_state import STATUS, functional_status, phase
from gateway.documents.frcp_tumour import tumours
from gateway.documents.rows import Part
from gateway.rcp.report_content import CodedValue, ReportContent

__all__ = ["body", "problem", "section"]

_Maker = Callable[[ReportContent, Part, Entries], Elements]
_Whole = Callable[[ReportContent, Part, Entries], Element]


class _Section(Struct, frozen=True):
    """One line of the table of sections: what the model fixes, and what makes its entries, or the ``whole`` section."""

    key: str
    code: Code
    templates: tuple[str, ...]
    make: _Maker
    required: bool = False
    whole: _Whole | None = None


def body(content: ReportContent, parts: Mapping[str, Part], entries: Entries) -> Element:
    """Make the structured body."""
    made = (_section(spec, content, parts[spec.key], entries) for spec in _SECTIONS)
    return el("component", el("structuredBody", *(el("component", s) for s in made if s is not None)))


def section(key: str, content: ReportContent, part: Part, entries: Entries) -> Element | None:
    """Make one section by the key of its part; ``None`` when it is optional and says nothing."""
    return _section(next(spec for spec in _SECTIONS if spec.key == key), content, part, entries)


def _section(spec: _Section, content: ReportContent, part: Part, entries: Entries) -> Element | None:
    if not part.rows and not spec.required:
        return None
    if spec.whole is not None:
        return spec.whole(content, part, entries)
    return el(
        "section",
        cda.templates(*spec.templates),
        entries.id(),
        cda.code_element(spec.code),
        el("title", text=part.title),
        cda.narrative(part),
        *(el("entry", made) for made in spec.make(content, part, entries)),
    )


def _none(_content: ReportContent, _part: Part, _entries: Entries) -> Elements:
    return []


# --- 1. Kind and motive of the board -------------------------------------------------------------------------------


def _reason(content: ReportContent, part: Part, entries: Entries) -> Elements:
    root = entries.observation(
        Code("GEN-098", TA, "Nature de la discussion"),
        "nature",
        cda.cd(cda.in_list(content.board_kind, "FRCP-NatureDiscussion")),
        *related("SUBJ", *_subject(content, part, entries)),
        *related("SUBJ", _motive(content, part, entries)),
    )
    return [root, problem("motif", entries)]


def problem(anchor: str, entries: Entries) -> Element:
    """Make the problem that the section of the reason must hold, and that says nothing more than its words."""
    return el(
        "observation",
        cda.templates(*PROBLEM_TEMPLATES),
        entries.id(),
        cda.code_element(Code("55607006", SNOMED, "problème")),
        cda.reference(anchor),
        cda.COMPLETED,
        cda.interval(None),
        el("value", cda.reference(anchor, "originalText"), xsi="CD", nullFlavor="NA"),
        classCode="OBS",
        moodCode="EVN",
        negationInd="false",
    )


def _subject(content: ReportContent, part: Part, entries: Entries) -> Iterator[Element]:
    """Say what the board is about: apparatus and organs, or kind of care; only its comment when nobody said."""
    comment = [entries.comment("rcp-commentaire")] if part.anchor("rcp-commentaire") else []
    flags = (
        (Code("ORG-184", TA, "RCP de recours"), "rcp-recours", content.recourse_board),
        (Code("ORG-185", TA, "RCP pédiatrique"), "rcp-pediatrique", content.paediatric_board),
    )
    kind = content.board_kind.code if content.board_kind else None
    if kind == "ORG-132":
        code, anchor, value = (
            Code("ORG-138", TA, "Traitement / Soins"),
            "soins",
            cda.cd(cda.in_list(content.care, "FRCP-TraitementSoins"), anchor="soins"),
        )
        organs: Elements = []
    elif kind == "ORG-117":
        code, anchor, value = (
            Code("ORG-118", TA, "Appareil concerné"),
            "appareil",
            cda.cd(cda.in_list(content.system, "FRCP-Appareil")),
        )
        organs = [
            entries.observation(
                Code("ORG-119", TA, "Organe"),
                f"organe-{i}",
                cda.cd(cda.in_list(organ, "FRCP-Organe"), anchor=f"organe-{i}"),
            )
            for i, organ in enumerate(content.organs or (None,), 1)
        ]
    else:
        yield from comment
        return
    answers = [entries.observation(c, a, cda.yes_no(v)) for c, a, v in flags]
    yield entries.observation(code, anchor, value, *related("REFR", *organs, *answers), *related("SUBJ", *comment))


def _motive(content: ReportContent, part: Part, entries: Entries) -> Element:
    motives = content.motives
    asked = (
        (Code("MED-235", TA, "Avis diagnostique"), "motif-avis", motives.diagnostic_opinion),
        (
            Code("ORG-114", TA, "Proposition de traitement (dont ajustement et surveillance)"),
            "motif-traitement",
            motives.treatment_proposal,
        ),
        (Code("ORG-115", TA, "Recours"), "motif-recours", motives.recourse),
        (Code("ORG-116", TA, "Pédiatrie"), "motif-pediatrie", motives.paediatrics),
    )
    answers = [entries.observation(code, anchor, cda.yes_no(value)) for code, anchor, value in asked]
    case = entries.observation(
        Code("ORG-127", TA, "Statut du cas présenté"),
        "statut-cas",
        cda.listed("FRCP-StatutCasPresente", _CASE[content.case_status]),
    )
    comment = [entries.comment("motif-commentaire")] if part.anchor("motif-commentaire") else []
    return entries.observation(
        Code("ORG-186", TA, "Motif de la RCP"),
        "motif",
        null("value", "NA", xsi="CD"),
        *related("REFR", *answers, case),
        *related("SUBJ", *comment),
    )


_CASE = {"enregistre": "ORG-128", "discute": "ORG-134"}


# --- 2. Discovery --------------------------------------------------------------------------------------------------


def _discovery(content: ReportContent, _part: Part, entries: Entries) -> Elements:
    code = Code("63921-1", LOINC, "Dépistage du cancer")
    return [entries.observation(code, "depistage", cda.yes_no(content.screening))]


# --- 14. Status of the file ----------------------------------------------------------------------------------------


def _file(content: ReportContent, part: Part, entries: Entries) -> Elements:
    complete = entries.observation(
        Code("GEN-100", TA, "Dossier complet"), "dossier-complet", cda.yes_no(content.complete)
    )
    quorum = entries.observation(
        Code("ORG-125", TA, "Quorum RCP"), "quorum", cda.listed("FRCP-StatutQuorum", _QUORUM[content.quorum])
    )
    comment = entries.comment("dossier-commentaire") if part.anchor("dossier-commentaire") else None
    organizer = el(
        "organizer",
        el("templateId", root="1.2.250.1.213.1.1.3.7"),
        cda.code_element(Code("GEN-099", TA, "Information RCP")),
        cda.COMPLETED,
        *(el("component", made) for made in (complete, quorum, comment) if made is not None),
        classCode="CLUSTER",
        moodCode="EVN",
    )
    return [organizer]


_QUORUM = {"atteint": "ORG-126", "non-atteint": "ORG-133", "inconnu": "GEN-010"}


# --- 18. Status of the document -------------------------------------------------------------------------------------

_STATUS = {
    "en-cours": Code("385651009", SNOMED, "en cours d'exécution"),
    "approuve": Code("9571008", SNOMED, "approuvé"),
}


def _document(content: ReportContent, part: Part, entries: Entries) -> Elements:
    status = _STATUS[content.status]
    comment = [entries.comment("document-commentaire")] if part.anchor("document-commentaire") else []
    return [
        entries.observation(
            Code("GEN-065", TA, "Statut du document"),
            "statut-document",
            cda.cd(CodedValue(status.code, status.system, status.label)),
            *related("SUBJ", *comment),
            when=el("effectiveTime", value=cda.instant(content.written_at, content.tzinfo())),
            models=("1.2.250.1.213.1.1.3.48.16",),
        )
    ]


_PCC = "1.3.6.1.4.1.19376.1.5.3.1"
_OWN = "1.2.250.1.213.1.1.2"

_SECTIONS = (
    _Section(
        "raison",
        Code("42349-1", LOINC, "Raison de la recommandation"),
        (f"{_PCC}.3.1", f"{_PCC}.3.2", f"{_OWN}.128"),
        _reason,
        required=True,
    ),
    _Section(
        "decouverte",
        Code("42545-4", LOINC, "Evènements observés"),
        (f"{_PCC}.1.21.2.9", "1.3.6.1.4.1.19376.1.7.3.1.1.13.7", f"{_OWN}.163"),
        _discovery,
        required=True,
    ),
    _Section(
        "tumeur",
        Code("72135-7", LOINC, "Diagnostic du cancer"),
        ("2.16.840.1.113883.10.20.1.11", f"{_PCC}.3.6", "1.3.6.1.4.1.19376.1.7.3.1.3.14.1", f"{_OWN}.27"),
        tumours,
        required=True,
    ),
    _Section("antecedents", Code("11348-0", LOINC, "Antécédents médicaux"), (f"{_OWN}.2",), _none),
    _Section("comorbidites", Code("11450-4", LOINC, "Liste des problèmes actifs"), (f"{_OWN}.176",), _none),
    _Section("etat", STATUS, (), _none, whole=functional_status),
    _Section("examens", Code("30954-2", LOINC, "Résultats d'examens"), (f"{_PCC}.3.27", f"{_OWN}.150"), _none),
    _Section(
        "phase",
        Code("18733-6", LOINC, "Note de progression"),
        (f"{_PCC}.1.13.2.7", f"{_OWN}.25"),
        phase,
        required=True,
    ),
    _Section("traitements", Code("29554-3", LOINC, "Actes"), (f"{_PCC}.1.13.2.11", f"{_OWN}.118"), past_treatments),
    *(_Section(kind, code, (), _none, whole=quoted_section(kind)) for kind, code in QUOTED.items()),
    _Section(
        "histoire",
        Code("10164-2", LOINC, "Histoire de la maladie"),
        (f"{_PCC}.3.4", f"{_OWN}.130"),
        _none,
        required=True,
    ),
    _Section(
        "dossier", Code("21874-3", LOINC, "Statut du dossier présenté en RCP"), (f"{_OWN}.33",), _file, required=True
    ),
    _Section(
        "proposition",
        Code("18776-5", LOINC, "Plan de soins"),
        ("2.16.840.1.113883.10.20.1.10", f"{_PCC}.3.36", f"{_OWN}.158"),
        plan,
        required=True,
    ),
    _Section(
        "cadre",
        Code("35510-7", LOINC, "Essais cliniques - Informations générales"),
        (f"{_OWN}.175",),
        frame,
        required=True,
    ),
    _Section(
        "remarque",
        Code("55112-7", LOINC, "Commentaire"),
        ("2.16.840.1.113883.10.12.201", "1.3.6.1.4.1.19376.1.4.1.2.16", f"{_OWN}.73"),
        _none,
    ),
    _Section("statut", Code("33557-0", LOINC, "Etat d'achèvement"), (f"{_OWN}.35",), _document, required=True),
)
