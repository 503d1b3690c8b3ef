"""Sections of the proposal and of its frame in the national report.

Promises: treatments in the order of intentions, numbered through; the rank of the intention stands in the narrative
only, as the national model has it. `[CI-SIS FRCP 2022.01, FR-Plan-de-soins, FR-Cadre-de-la-proposition-therapeutique]`
"""

from __future__ import annotations

from gateway.documents import cda
from gateway.documents.cda import TA, Code, Element, Elements, Entries, el, null
from gateway.documents.wording import Part
from gateway.rcp.report_content import Examination, Proposal, ReportContent, Treatment

__all__ = ["frame", "plan"]

_PLANNED = "2.16.840.1.113883.10.20.1.25"


def plan(content: ReportContent, part: Part, entries: Entries) -> Elements:
    """Make recourse, examinations, surveillance, treatments and comment, in that order."""
    made: Elements = []
    if part.anchor("recours"):
        made.append(_encounter(Code("ORG-120", TA, "Passage en RCP recours"), "recours", entries))
    made += [_examination(asked, i, entries) for i, asked in enumerate(content.examinations_asked, 1)]
    if part.anchor("surveillance"):
        made.append(_encounter(Code("MED-226", TA, "Surveillance seule"), "surveillance", entries))
    sequence = 0
    for proposal in sorted(content.proposals, key=_rank):
        for i, treatment in enumerate(proposal.treatments, 1):
            sequence += 1
            made.append(_treatment(treatment, f"traitement-{proposal.rank}-{i}", sequence, entries))
    if part.anchor("proposition-commentaire"):
        made.append(entries.comment("proposition-commentaire"))
    return made


def _rank(proposal: Proposal) -> int:
    return proposal.rank


def _encounter(code: Code, anchor: str, entries: Entries) -> Element:
    return el(
        "encounter",
        *(el("templateId", root=t) for t in (_PLANNED, "1.3.6.1.4.1.19376.1.5.3.1.4.14", "1.2.250.1.213.1.1.3.58")),
        entries.id(),
        cda.code_element(code),
        cda.reference(anchor),
        cda.code_element(Code("CS", "2.16.840.1.113883.5.7", "recontacter pour fixer RDV"), "priorityCode"),
        classCode="ENC",
        moodCode="ARQ",
    )


def _examination(asked: Examination, rank: int, entries: Entries) -> Element:
    return el(
        "observation",
        *(el("templateId", root=t) for t in (_PLANNED, "1.3.6.1.4.1.19376.1.5.3.1.1.20.3.1", "1.2.250.1.213.1.1.3.27")),
        entries.id(),
        cda.code_element(Code("ORG-064", TA, "Demande d'examen ou de suivi")),
        cda.reference(f"examen-{rank}"),
        el("statusCode", code="active"),
        _period(asked.earliest, asked.latest),
        classCode="OBS",
        moodCode="PRP",
    )


def _treatment(treatment: Treatment, anchor: str, sequence: int, entries: Entries) -> Element:
    return el(
        "procedure",
        *(el("templateId", root=t) for t in (_PLANNED, "1.3.6.1.4.1.19376.1.5.3.1.4.19", "1.2.250.1.213.1.1.3.62")),
        entries.id(),
        cda.code_element(treatment.kind, "code", cda.reference(anchor, "originalText")),
        cda.reference(anchor),
        el("statusCode", code="active"),
        _period(treatment.start, treatment.end),
        el("priorityCode", el("originalText", text=str(sequence))),
        classCode="PROC",
        moodCode="INT",
        negationInd="false",
    )


def _period(start: str | None, end: str | None) -> Element:
    return cda.interval(cda.partial(start) if start else None, cda.partial(end) if end else None)


def frame(content: ReportContent, part: Part, entries: Entries) -> Elements:
    """Make guideline, trial and comment; each only when something was said."""
    made: Elements = []
    if content.guideline is not None:
        dated = content.guideline.dated
        made.append(
            entries.observation(
                Code("MED-249", TA, "Recommandation/référentiel de pratique clinique"),
                "referentiel",
                el("value", cda.reference("referentiel", "originalText"), xsi="CD"),
                when=el("effectiveTime", value=cda.partial(dated)) if dated else null("effectiveTime"),
            )
        )
    if content.trial is not None:
        code = Code("MED-250", TA, "Proposition d'inclusion dans un essai clinique")
        made.append(entries.observation(code, "essai", cda.yes_no(content.trial)))
    if part.anchor("cadre-commentaire"):
        made.append(entries.comment("cadre-commentaire"))
    return made
