"""Sections on the state of the patient and on the phase of the illness in the national report.

Promises: performance status and frailty stand in sub-sections of one section, which is there only when one of them was
measured; the sub-section on pain that the model demands beside them says nothing. Where a cancer progresses is said
site by site once it is said to progress.
`[CI-SIS FRCP 2022.01, FR-Evaluation-du-statut-fonctionnel, FR-Note-de-progression]`
"""

from __future__ import annotations

from gateway.documents import cda
from gateway.documents.cda import LOINC, TA, Code, Element, Elements, Entries, el, null, related
from gateway.documents.rows import UNKNOWN, Part, Row
from gateway.rcp.report_content import Geriatric, ReportContent
from gateway.terminology import code_list

__all__ = ["STATUS", "WHO_GRADES", "functional_status", "phase"]

STATUS = Code("47420-5", LOINC, "Évaluation du statut fonctionnel")
WHO_GRADES = (
    # Value of JDV_OMSEchPerf and, beside it, the answer of JDV_OMSInterpret, from grade 0 to grade 4.
    ("MED-240", "LA9622-7"),
    ("MED-264", "LA9623-5"),
    ("MED-265", "LA9624-3"),
    ("MED-266", "LA9625-0"),
    ("MED-267", "LA9626-8"),
)
_PAIN = Code("38208-5", LOINC, "Sévérité de la douleur")
_PAIN_ROW = Row("douleur", "Douleur", UNKNOWN, known=False)

_PCC = "1.3.6.1.4.1.19376.1.5.3.1"
_OWN = "1.2.250.1.213.1.1"
_SIMPLE = f"{_PCC}.4.13"
_SCORED = "2.16.840.1.113883.10.20.1.31"
_STATUS_TEMPLATES = ("2.16.840.1.113883.10.20.1.5", f"{_PCC}.3.17", f"{_PCC}.1.12.2.1", f"{_OWN}.2.111")


def functional_status(content: ReportContent, part: Part, entries: Entries) -> Element:
    """Make the section of sub-sections: pain as the model wants it, then what was measured."""
    section_id = entries.id()
    subs = [_pain(entries)]
    if content.who_status is not None:
        subs.append(_performance(content, part, entries))
    if content.geriatric is not None:
        subs.append(_frailty(content.geriatric, part, entries))
    return el(
        "section",
        cda.templates(*_STATUS_TEMPLATES),
        section_id,
        cda.code_element(STATUS),
        el("title", text=part.title),
        el("text", text=", ".join(row.label for row in part.rows)),
        *(el("component", made) for made in subs),
    )


def _pain(entries: Entries) -> Element:
    entry = _evaluation(
        entries,
        _PAIN,
        "douleur",
        (_SIMPLE, f"{_PCC}.1.12.3.1", f"{_OWN}.3.89"),
        null("effectiveTime"),
        null("value", xsi="CO"),
    )
    part = Part("douleur", "Évaluation de la douleur", (_PAIN_ROW,))
    return _sub_section(entries, part, _PAIN, (f"{_PCC}.1.12.2.2", f"{_OWN}.2.112"), entry)


def _performance(content: ReportContent, part: Part, entries: Entries) -> Element:
    value, answer = WHO_GRADES[content.who_status or 0]
    entry = _evaluation(
        entries,
        Code("MED-239", TA, "Echelle de performance OMS"),
        "oms",
        (_SCORED, _SIMPLE, f"{_PCC}.1.12.3.6", f"{_OWN}.3.25"),
        _when(content.who_status_on),
        cda.listed("FRCP-OMS", value),
        cda.code_element(Code(answer, LOINC, code_list("FRCP-OMS-Interpretation").label(answer)), "interpretationCode"),
    )
    code = Code("46006-3", LOINC, "Problèmes physiques fonctionnels et structurels")
    return _sub_section(entries, _only(part, "oms"), code, (f"{_PCC}.1.12.2.5", f"{_OWN}.2.115"), entry)


def _frailty(screening: Geriatric, part: Part, entries: Entries) -> Element:
    """Make the score; the model lends the template of a depression score to every screening of frailty."""
    entry = _evaluation(
        entries,
        Code("48544-1", LOINC, "Score de la dépression gériatrique"),
        "fragilite",
        (_SCORED, _SIMPLE, f"{_PCC}.1.12.3.4", f"{_OWN}.3.110"),
        _when(screening.on),
        el("value", xsi="INT", value=str(screening.score)),
    )
    code = Code("48542-5", LOINC, "Évaluation de la dépression gériatrique")
    return _sub_section(entries, _only(part, "fragilite"), code, (f"{_PCC}.1.12.2.4", f"{_OWN}.2.114"), entry)


def _only(part: Part, anchor: str) -> Part:
    rows = tuple(row for row in part.rows if row.anchor == anchor)
    return Part(part.key, rows[0].label, rows)


def _when(day: str | None) -> Element:
    return el("effectiveTime", value=cda.partial(day)) if day else null("effectiveTime")


def _sub_section(entries: Entries, part: Part, code: Code, templates: tuple[str, ...], entry: Element) -> Element:
    return el(
        "section",
        cda.templates(*templates),
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
        cda.templates(*templates),
        entries.id(),
        cda.code_element(code),
        cda.reference(anchor),
        cda.COMPLETED,
        when,
        *values,
        classCode="OBS",
        moodCode="EVN",
    )


def phase(content: ReportContent, part: Part, entries: Entries) -> Elements:
    """Make phase with its comment, and progression with its sites."""
    comment = [entries.comment("phase-commentaire")] if part.anchor("phase-commentaire") else []
    first = entries.observation(
        Code("MED-243", TA, "Phase du cancer"),
        "phase",
        cda.cd(cda.in_list(content.phase, "FRCP-PhaseCancer")),
        *related("SUBJ", *comment, inverted=True),
        when=_when(content.phase_on),
    )
    sites = (
        (Code("MED-246", TA, "Progression locale du cancer"), "progression-locale", content.progression_local),
        (Code("MED-247", TA, "Progression régionale du cancer"), "progression-regionale", content.progression_regional),
        (Code("MED-248", TA, "Progression à distance du cancer"), "progression-distance", content.progression_distant),
    )
    said = [
        entries.observation(code, anchor, cda.yes_no(value)) for code, anchor, value in sites if part.anchor(anchor)
    ]
    progression = entries.observation(
        Code("MED-245", TA, "Progression du cancer"),
        "progression",
        cda.yes_no(content.progression),
        *related("COMP", *said),
    )
    return [first, progression]
