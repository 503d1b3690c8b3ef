"""Sections of the national report CANCER-FRCP 2022.01, with their coded entries.

Promises: the nine sections that the national rules require, always; an optional one only when it says something; in
each, the narrative is the `Part` of that name and every entry points at the row that says the same in words. What
nobody said is a null flavour, never a guess. `[CI-SIS FRCP 2022.01]`

Not in it yet: quoted reports (operative, pathology, molecular), coded past treatments, G8.
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
from gateway.documents.frcp_plan import frame, plan
from gateway.documents.frcp_tumour import tumours
from gateway.documents.wording import UNKNOWN, Part, Row
from gateway.rcp.report_content import CodedValue, ReportContent
from gateway.terminology import concept

__all__ = ["body"]

_Maker = Callable[[ReportContent, Part, Entries], Elements]


class _Section(Struct, frozen=True):
    """One line of the table of sections: what the model fixes, and what makes its entries."""

    key: str
    code: Code
    templates: tuple[str, ...]
    make: _Maker
    required: bool = False


def body(content: ReportContent, parts: Mapping[str, Part], entries: Entries) -> Element:
    """Make the structured body."""
    made = (_section(spec, content, parts[spec.key], entries) for spec in _SECTIONS)
    return el("component", el("structuredBody", *(el("component", s) for s in made if s is not None)))


def _section(spec: _Section, content: ReportContent, part: Part, entries: Entries) -> Element | None:
    if not part.rows and not spec.required:
        return None
    if spec.key == "etat":
        return _functional_status(content, part, entries)
    return el(
        "section",
        *(el("templateId", root=root) for root in spec.templates),
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
        cda.cd(content.board_kind),
        *related("SUBJ", *_subject(content, entries)),
        *related("SUBJ", _motive(content, part, entries)),
    )
    problem = el(
        "observation",
        *(el("templateId", root=t) for t in PROBLEM_TEMPLATES),
        entries.id(),
        cda.code_element(Code("55607006", SNOMED, "problème")),
        cda.reference("motif"),
        el("statusCode", code="completed"),
        cda.interval(None),
        el("value", cda.reference("motif", "originalText"), xsi="CD", nullFlavor="NA"),
        classCode="OBS",
        moodCode="EVN",
        negationInd="false",
    )
    return [root, problem]


def _subject(content: ReportContent, entries: Entries) -> Iterator[Element]:
    """Say what the board is about: apparatus and organs, or kind of care; nothing when nobody said."""
    flags = (
        (Code("ORG-184", TA, "RCP de recours"), "rcp-recours", content.recourse_board),
        (Code("ORG-185", TA, "RCP pédiatrique"), "rcp-pediatrique", content.paediatric_board),
    )
    kind = content.board_kind.code if content.board_kind else None
    if kind == "ORG-132":
        code, anchor, value = Code("ORG-138", TA, "Traitement / Soins"), "soins", cda.cd(content.care, anchor="soins")
        organs: Elements = []
    elif kind == "ORG-117":
        code, anchor, value = Code("ORG-118", TA, "Appareil concerné"), "appareil", cda.cd(content.system)
        organs = [
            entries.observation(Code("ORG-119", TA, "Organe"), f"organe-{i}", cda.cd(organ, anchor=f"organe-{i}"))
            for i, organ in enumerate(content.organs or (None,), 1)
        ]
    else:
        return
    answers = [entries.observation(c, a, cda.yes_no(v)) for c, a, v in flags]
    yield entries.observation(code, anchor, value, *related("REFR", *organs, *answers))


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
        _listed("FRCP-StatutCasPresente", _CASE[content.case_status]),
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


def _listed(list_name: str, code: str) -> Element:
    found = concept(list_name, code)
    return cda.cd(CodedValue(found.code, found.oid or TA, found.label))


# --- 2. Discovery --------------------------------------------------------------------------------------------------


def _discovery(content: ReportContent, _part: Part, entries: Entries) -> Elements:
    code = Code("63921-1", LOINC, "Dépistage du cancer")
    return [entries.observation(code, "depistage", cda.yes_no(content.screening))]


# --- 6. State of the patient ---------------------------------------------------------------------------------------

_WHO = (
    # Value of JDV_OMSEchPerf and, beside it, the answer of JDV_OMSInterpret.
    ("MED-240", "LA9622-7", "Capable d'une activité identique à celle précédant la maladie sans aucune restriction."),
    ("MED-264", "LA9623-5", "Activité physique diminuée mais ambulatoire et capable de mener un travail"),
    (
        "MED-265",
        "LA9624-3",
        "Ambulatoire et capable de prendre soin de soi-même, incapable de travailler. Alité moins de 50 % de son temps",
    ),
    ("MED-266", "LA9625-0", "Capable seulement de quelques soins. Alité ou en chaise plus de 50 % du temps"),
    ("MED-267", "LA9626-8", "Incapable de prendre soins de soi-même. Alité ou en chaise en permanence"),
)


def _functional_status(content: ReportContent, part: Part, entries: Entries) -> Element | None:
    """Make the section of sub-sections; the one on pain is required by the model and says nothing in a FRCP."""
    if content.who_status is None:
        return None
    value, answer, words = _WHO[content.who_status]
    on = content.who_status_on
    pain = _evaluation(
        entries,
        Code("38208-5", LOINC, "Sévérité de la douleur"),
        "douleur",
        (_SIMPLE, "1.3.6.1.4.1.19376.1.5.3.1.1.12.3.1", "1.2.250.1.213.1.1.3.89"),
        null("effectiveTime"),
        null("value", xsi="CO"),
    )
    grade = _evaluation(
        entries,
        Code("MED-239", TA, "Echelle de performance OMS"),
        "oms",
        ("2.16.840.1.113883.10.20.1.31", _SIMPLE, "1.3.6.1.4.1.19376.1.5.3.1.1.12.3.6", "1.2.250.1.213.1.1.3.25"),
        el("effectiveTime", value=cda.partial(on)) if on else null("effectiveTime"),
        cda.cd(CodedValue(value, TA, f"Echelle de performance OMS Stade {content.who_status}")),
        cda.code_element(Code(answer, LOINC, words), "interpretationCode"),
    )
    unsaid = Part("douleur", "Évaluation de la douleur", (_PAIN,))
    return el(
        "section",
        *(el("templateId", root=root) for root in _STATUS_TEMPLATES),
        entries.id(),
        cda.code_element(Code("47420-5", LOINC, "Évaluation du statut fonctionnel")),
        el("title", text=part.title),
        el("text", text="Échelle de performance de l’OMS"),
        el(
            "component",
            _sub_section(entries, unsaid, Code("38208-5", LOINC, "Sévérité de la douleur"), _PAIN_IDS, pain),
        ),
        el(
            "component",
            _sub_section(
                entries,
                part,
                Code("46006-3", LOINC, "Problèmes physiques fonctionnels et structurels"),
                ("1.3.6.1.4.1.19376.1.5.3.1.1.12.2.5", "1.2.250.1.213.1.1.2.115"),
                grade,
            ),
        ),
    )


_SIMPLE = "1.3.6.1.4.1.19376.1.5.3.1.4.13"
_PAIN = Row("douleur", "Douleur", UNKNOWN, known=False)
_PAIN_IDS = ("1.3.6.1.4.1.19376.1.5.3.1.1.12.2.2", "1.2.250.1.213.1.1.2.112")
_STATUS_TEMPLATES = (
    "2.16.840.1.113883.10.20.1.5",
    "1.3.6.1.4.1.19376.1.5.3.1.3.17",
    "1.3.6.1.4.1.19376.1.5.3.1.1.12.2.1",
    "1.2.250.1.213.1.1.2.111",
)


def _sub_section(entries: Entries, part: Part, code: Code, templates: tuple[str, ...], entry: Element) -> Element:
    return el(
        "section",
        *(el("templateId", root=root) for root in templates),
        entries.id(),
        cda.code_element(code),
        el("title", text=part.title),
        cda.narrative(part),
        el("entry", entry),
    )


def _evaluation(
    entries: Entries,
    code: Code,
    anchor: str,
    templates: tuple[str, ...],
    when: Element,
    *values: Element,
) -> Element:
    return el(
        "observation",
        *(el("templateId", root=root) for root in templates),
        entries.id(),
        cda.code_element(code),
        cda.reference(anchor),
        el("statusCode", code="completed"),
        when,
        *values,
        classCode="OBS",
        moodCode="EVN",
    )


# --- 8. Phase ------------------------------------------------------------------------------------------------------


def _phase(content: ReportContent, _part: Part, entries: Entries) -> Elements:
    on = content.phase_on
    when = el("effectiveTime", value=cda.partial(on)) if on else null("effectiveTime")
    phase = entries.observation(Code("MED-243", TA, "Phase du cancer"), "phase", cda.cd(content.phase), when=when)
    progression = entries.observation(
        Code("MED-245", TA, "Progression du cancer"), "progression", cda.yes_no(content.progression)
    )
    return [phase, progression]


# --- 14. Status of the file ----------------------------------------------------------------------------------------


def _file(content: ReportContent, part: Part, entries: Entries) -> Elements:
    complete = entries.observation(
        Code("GEN-100", TA, "Dossier complet"), "dossier-complet", cda.yes_no(content.complete)
    )
    quorum = entries.observation(
        Code("ORG-125", TA, "Quorum RCP"), "quorum", _listed("FRCP-StatutQuorum", _QUORUM[content.quorum])
    )
    comment = entries.comment("dossier-commentaire") if part.anchor("dossier-commentaire") else None
    organizer = el(
        "organizer",
        el("templateId", root="1.2.250.1.213.1.1.3.7"),
        cda.code_element(Code("GEN-099", TA, "Information RCP")),
        el("statusCode", code="completed"),
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
            templates=("1.2.250.1.213.1.1.3.48.16",),
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
    _Section("comorbidites", Code("11450-4", LOINC, "Problèmes actifs"), (f"{_OWN}.176",), _none),
    _Section("etat", Code("47420-5", LOINC, "Évaluation du statut fonctionnel"), (), _none),
    _Section("examens", Code("30954-2", LOINC, "Résultats d'examens"), (f"{_PCC}.3.27", f"{_OWN}.150"), _none),
    _Section(
        "phase",
        Code("18733-6", LOINC, "Note de progression"),
        (f"{_PCC}.1.13.2.7", f"{_OWN}.25"),
        _phase,
        required=True,
    ),
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
