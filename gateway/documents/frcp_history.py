"""Sections on what was done before the meeting in the national report: treatments, and the reports that the board read.

Promises: one procedure a treatment, whose status says whether it was done, is under way or was not done; one entry a
quoted report with its conclusion in words, who did the act, who took the sample and who concluded, as far as known. The
section's author is who answers for the report of the RCP, since the conclusion was typed into it; a remark stands in
the sub-section that the model has for it.
`[CI-SIS FRCP 2022.01, FR-Actes-et-interventions, FR-Conclusion-de-CRO, FR-Conclusion-du-CR-ACP, FR-Conclusion-CR-GM]`
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.documents import cda
from gateway.documents.cda import LOINC, Code, Element, Elements, Entries, el, null
from gateway.documents.rows import Part, clean
from gateway.documents.wording_clinical import quoted_of
from gateway.rcp.report_content import PastTreatment, Person, QuotedReport, ReportContent

__all__ = ["QUOTED", "past_treatments", "quoted_section"]

QUOTED = {
    "cro": Code("10218-6", LOINC, "Note postopératoire"),
    "acp": Code("30954-2", LOINC, "Résultats d’examens"),
    "gm": Code("50397-9", LOINC, "Génétique moléculaire - Interprétation"),
}
_CONCLUSION = Code("22637-3", LOINC, "Conclusion - Diagnostic")
_CONCLUSIONS = {"cro": QUOTED["cro"], "acp": _CONCLUSION, "gm": _CONCLUSION}
_TEMPLATES = {
    "cro": "1.2.250.1.213.1.1.2.26",
    "acp": "1.2.250.1.213.1.1.2.34",
    "gm": "1.2.250.1.213.1.1.2.67",
}
_REMARK_TEMPLATES = ("2.16.840.1.113883.10.12.201", "1.3.6.1.4.1.19376.1.4.1.2.16", "1.2.250.1.213.1.1.2.73")
_DONE_TEMPLATES = ("1.3.6.1.4.1.19376.1.5.3.1.4.19", "2.16.840.1.113883.10.20.1.29", "1.2.250.1.213.1.1.3.62")
_STATES = {"fait": "completed", "en-cours": "active", "non-fait": "cancelled"}


def past_treatments(content: ReportContent, _part: Part, entries: Entries) -> Elements:
    """Make one procedure a treatment."""
    return [_past(past, f"passe-{i}", entries) for i, past in enumerate(content.past_treatments, 1)]


def _past(past: PastTreatment, anchor: str, entries: Entries) -> Element:
    return el(
        "procedure",
        cda.templates(*_DONE_TEMPLATES),
        entries.id(),
        cda.treatment_code(past.kind, anchor),
        cda.reference(anchor),
        el("statusCode", code=_STATES[past.state]),
        _period(past.start, past.end),
        classCode="PROC",
        moodCode="EVN",
        negationInd="false",
    )


def _period(start: str | None, end: str | None) -> Element:
    if not start and not end:
        return null("effectiveTime")
    return cda.interval(cda.partial(start) if start else None, cda.partial(end) if end else None)


def quoted_section(kind: str) -> Callable[[ReportContent, Part, Entries], Element]:
    """Give the maker of the section of one kind of quoted reports."""

    def make(content: ReportContent, part: Part, entries: Entries) -> Element:
        remarks = tuple(row for row in part.rows if row.anchor.endswith("-remarque"))
        said = Part(part.key, part.title, tuple(row for row in part.rows if row not in remarks))
        return el(
            "section",
            el("templateId", root=_TEMPLATES[kind]),
            entries.id(),
            cda.code_element(QUOTED[kind]),
            el("title", text=part.title),
            cda.narrative(said),
            _author(content),
            *(
                el("entry", _conclusion(report, f"{kind}-{i}", entries))
                for i, report in enumerate(quoted_of(content, kind), 1)
            ),
            el("component", _remarks(Part("remarque", "Remarques", remarks), entries)) if remarks else None,
        )

    return make


def _author(content: ReportContent) -> Element:
    return el(
        "author",
        el("time", value=cda.instant(content.written_at, content.tzinfo())),
        cda.assigned_entity(content.coordinator, tag="assignedAuthor", otherwise=content.meeting.place),
    )


def _remarks(part: Part, entries: Entries) -> Element:
    return el(
        "section",
        cda.templates(*_REMARK_TEMPLATES),
        entries.id(),
        cda.code_element(Code("55112-7", LOINC, "Commentaire")),
        el("title", text=part.title),
        cda.narrative(part),
    )


def _conclusion(report: QuotedReport, anchor: str, entries: Entries) -> Element:
    sampled = None
    performers = [el("performer", cda.assigned_entity(report.performer))] if report.performer else []
    if report.sampler is not None and report.kind == "acp":
        sampled = _sampler(report.sampler, report.sampled_on)
    elif report.sampler is not None:
        performers.append(el("performer", _time(report.sampled_on), cda.assigned_entity(report.sampler)))
    concluded = report.author or report.performer
    author = (
        el(
            "author",
            _time(report.done_to or report.done_from),
            cda.assigned_entity(concluded, tag="assignedAuthor"),
        )
        if concluded
        else None
    )
    return entries.observation(
        _CONCLUSIONS[report.kind],
        anchor,
        cda.in_words(anchor),
        when=_period(report.done_from, report.done_to),
        after=(*performers, author, sampled),
    )


def _time(day: str | None) -> Element:
    return el("time", value=cda.partial(day)) if day else null("time")


def _sampler(person: Person, day: str | None) -> Element:
    """Make who took a sample: the participant that the model of pathology has for it."""
    structure = person.organisation
    return el(
        "participant",
        _time(day),
        el(
            "participantRole",
            el("id", root=cda.IDNPS_ROOT, extension=person.idnps) if person.idnps else None,
            cda.code_element(person.profession) if person.profession and person.idnps else None,
            cda.address(structure.address if structure else None),
            el("playingEntity", cda.name(person)),
            el(
                "scopingEntity",
                el("id", root=cda.IDNST_ROOT, extension=structure.idnst) if structure.idnst else None,
                el("desc", text=clean(structure.name)),
            )
            if structure
            else None,
        ),
        typeCode="PRF",
    )
