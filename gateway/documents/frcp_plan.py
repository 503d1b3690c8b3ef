"""Sections of the proposal and of its frame in the national report.

Promises: treatments in the order of intentions, numbered through; the rank of the intention stands in the narrative
only, as the national model has it. `[CI-SIS FRCP 2022.01, FR-Plan-de-soins, FR-Cadre-de-la-proposition-therapeutique]`
"""

from __future__ import annotations

from gateway.documents import cda
from gateway.documents.cda import TA, Code, Element, Elements, Entries, el, null, related
from gateway.documents.rows import Part
from gateway.rcp.report_content import CodedValue, Proposal, ReportContent, Treatment

__all__ = ["frame", "plan"]

_ADVISED = {"oncogeriatrie": "ORG-130", "fertilite": "C71326", "oncogenetique": "ORG-129"}
"""What the board advises beside the treatment, by the codes that the national list of care has for it."""

_PLANNED = "2.16.840.1.113883.10.20.1.25"


def plan(content: ReportContent, part: Part, entries: Entries) -> Elements:
    """Make recourse, examinations and consultations advised, surveillance, treatments and comment, in that order."""
    made: Elements = []
    if part.anchor("recours"):
        made.append(_encounter(Code("ORG-120", TA, "Passage en RCP recours"), "recours", entries))
    made += [
        _request(f"examen-{i}", _period(asked.earliest, asked.latest), entries)
        for i, asked in enumerate(content.examinations_asked, 1)
    ]
    made += [
        _request(
            f"recommandation-{what}", _period(None, None), entries, cda.of_list("FRCP-TraitementSoins", _ADVISED[what])
        )
        for what in content.recommended
    ]
    if part.anchor("surveillance"):
        made.append(_encounter(Code("MED-226", TA, "Surveillance seule"), "surveillance", entries))
    sequence = 0
    for proposal in sorted(content.proposals, key=_rank):
        for i, treatment in enumerate(proposal.treatments, 1):
            sequence += 1
            made.append(_treatment(treatment, f"traitement-{proposal.rank}-{i}", sequence, entries))
    if content.supportive_care and part.anchor("soins-support"):
        support = Treatment(kind=cda.of_list("FRCP-TypeTraitement", "C15747"))
        made.append(_treatment(support, "soins-support", sequence + 1, entries))
    if part.anchor("proposition-commentaire"):
        made.append(entries.comment("proposition-commentaire"))
    return made


def _rank(proposal: Proposal) -> int:
    return proposal.rank


def _encounter(code: Code, anchor: str, entries: Entries) -> Element:
    return el(
        "encounter",
        cda.templates(_PLANNED, "1.3.6.1.4.1.19376.1.5.3.1.4.14", "1.2.250.1.213.1.1.3.58"),
        entries.id(),
        cda.code_element(code),
        cda.reference(anchor),
        cda.code_element(Code("CS", "2.16.840.1.113883.5.7", "recontacter pour fixer RDV"), "priorityCode"),
        classCode="ENC",
        moodCode="ARQ",
    )


def _request(anchor: str, when: Element, entries: Entries, meaning: CodedValue | None = None) -> Element:
    """Make a request of an examination or of an expertise; a translation says what is asked where a code does."""
    return el(
        "observation",
        cda.templates(_PLANNED, "1.3.6.1.4.1.19376.1.5.3.1.1.20.3.1", "1.2.250.1.213.1.1.3.27"),
        entries.id(),
        cda.code_element(
            Code("ORG-064", TA, "Demande d'examen ou de suivi"),
            "code",
            cda.code_element(meaning, "translation") if meaning else None,
        ),
        cda.reference(anchor),
        el("statusCode", code="active"),
        when,
        classCode="OBS",
        moodCode="PRP",
    )


def _treatment(treatment: Treatment, anchor: str, sequence: int, entries: Entries) -> Element:
    return el(
        "procedure",
        cda.templates(_PLANNED, "1.3.6.1.4.1.19376.1.5.3.1.4.19", "1.2.250.1.213.1.1.3.62"),
        entries.id(),
        cda.treatment_code(treatment.kind, anchor),
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
                cda.in_words("referentiel"),
                when=el("effectiveTime", value=cda.partial(dated)) if dated else null("effectiveTime"),
            )
        )
    if content.trial is not None:
        code = Code("MED-250", TA, "Proposition d'inclusion dans un essai clinique")
        named = [entries.comment("essai-nom")] if part.anchor("essai-nom") else []
        made.append(
            entries.observation(code, "essai", cda.yes_no(content.trial), *related("SUBJ", *named, inverted=True))
        )
    if part.anchor("cadre-commentaire"):
        made.append(entries.comment("cadre-commentaire"))
    return made
