"""Section of the tumour in the national report: diagnosis, morphology, site, TNM.

Promises: at least one tumour, even if nothing is known of it; the TNM observation that the national rules demand under
each, with null values for the letters that nobody pronounced. `[CI-SIS FRCP 2022.01, FR-Diagnostic-du-cancer]`
"""

from __future__ import annotations

from gateway.documents import cda
from gateway.documents.cda import (
    LOINC,
    PROBLEM_TEMPLATES,
    SNOMED,
    TA,
    TNM,
    Code,
    Element,
    Elements,
    Entries,
    el,
    null,
    related,
)
from gateway.documents.rows import Part, clean
from gateway.rcp.report_content import CodedValue, ReportContent, Tnm, TumourContent

__all__ = ["tumours"]


def tumours(content: ReportContent, part: Part, entries: Entries) -> Elements:
    """Make one concern that holds one diagnosis a tumour.

    Notes
    -----
    The model also allows one concern a tumour, but its own rule on the section (S_cancerDiagnosis.sch) is a type error
    for XSLT 2 as soon as there are two; several diagnoses in one concern are allowed and judged.
    """
    known = content.tumours or (TumourContent(),)
    since = min((t.diagnosed_on for t in known if t.diagnosed_on), default=None)
    concern = el(
        "act",
        cda.templates(*_CONCERN),
        entries.id(),
        null("code", "NA"),
        el("statusCode", code="active"),
        _since(since),
        *related("SUBJ", *(_diagnosis(t, i, part, entries) for i, t in enumerate(known, 1)), inverted=False),
        classCode="ACT",
        moodCode="EVN",
    )
    return [concern]


def _since(day: str | None) -> Element:
    return cda.interval(cda.partial(day) if day else None)


def _diagnosis(tumour: TumourContent, rank: int, part: Part, entries: Entries) -> Element:
    return el(
        "observation",
        cda.templates(*_DIAGNOSIS),
        entries.id(),
        cda.code_element(Code("282291009", SNOMED, "interprétation diagnostique")),
        cda.reference(f"tumeur-{rank}"),
        cda.COMPLETED,
        _since(tumour.diagnosed_on),
        cda.cd(
            cda.in_list(tumour.morphology, "FRCP-Morphologie"),
            anchor=part.anchor(f"morphologie-{rank}") or f"tumeur-{rank}",
        ),
        _site(tumour, rank, part),
        *related("SUBJ", _tnm(tumour, rank, entries), inverted=False),
        *related("SUBJ", *_other_stages(tumour, rank, part, entries), inverted=False),
        *related("SUBJ", *_tumour_comment(rank, part, entries), inverted=True),
        classCode="OBS",
        moodCode="EVN",
        negationInd="false",
    )


_CONCERN = (
    "2.16.840.1.113883.10.20.1.27",
    "1.3.6.1.4.1.19376.1.5.3.1.4.5.1",
    "1.3.6.1.4.1.19376.1.5.3.1.4.5.2",
    "1.2.250.1.213.1.1.3.39",
    "1.2.250.1.213.1.1.3.39.1",
)
_DIAGNOSIS = (*PROBLEM_TEMPLATES, "1.3.6.1.4.1.19376.1.7.3.1.4.14.1", "1.2.250.1.213.1.1.3.113")


def _site(tumour: TumourContent, rank: int, part: Part) -> Element:
    anchor = part.anchor(f"topographie-{rank}") or f"tumeur-{rank}"
    words = cda.reference(anchor, "originalText")
    site, side = cda.in_list(tumour.topography, "FRCP-Tumeur"), cda.in_list(tumour.laterality, "FRCP-Lateralite")
    if site is None:
        return el("targetSiteCode", words, nullFlavor="OTH")
    qualifier = None
    if side is not None:
        qualifier = el(
            "qualifier",
            cda.code_element(Code("20228-3", LOINC, "Latéralité"), "name"),
            cda.code_element(side, "value", cda.reference(f"lateralite-{rank}", "originalText")),
        )
    return cda.code_element(site, "targetSiteCode", words, qualifier)


def _tnm(tumour: TumourContent, rank: int, entries: Entries) -> Element:
    tnm = tumour.tnm or Tnm()
    pronounced = (
        (Code("21905-5", LOINC, "TNM Clinique T"), tnm.t),
        (Code("21906-3", LOINC, "TNM Clinique N"), tnm.n),
        (Code("21907-1", LOINC, "TNM Clinique M"), tnm.m),
    )
    return el(
        "observation",
        el("templateId", root="1.3.6.1.4.1.19376.1.7.3.1.4.14.2"),
        entries.id(),
        cda.code_element(Code("75620-5", LOINC, "Stade TNM Clinique")),
        cda.reference(f"tnm-{rank}"),
        cda.COMPLETED,
        _since(tumour.diagnosed_on),
        _stage(tnm),
        *related(
            "COMP",
            *(entries.observation(code, f"tnm-{rank}", _tnm_value(value, tnm.edition)) for code, value in pronounced),
        ),
        classCode="OBS",
        moodCode="EVN",
        negationInd="false",
    )


def _stage(tnm: Tnm) -> Element:
    said = (
        (Code("21909-7", LOINC, "Stade clinique"), tnm.stage, tnm.stage),
        (Code("21917-0", LOINC, "Version TNM Classification"), tnm.edition, f"TNM_UICC {tnm.edition}ème édition"),
    )
    qualifiers = [
        el("qualifier", cda.code_element(name, "name"), cda.code_element(CodedValue(code, TNM, label or code), "value"))
        for name, code, label in said
        if code
    ]
    return el("value", *qualifiers, xsi="CD") if qualifiers else null("value", xsi="CD")


def _tnm_value(value: str | None, edition: str | None) -> Element:
    if value is None:
        return null("value", xsi="CD")
    said = clean(value)
    return el(
        "value",
        xsi="CD",
        code=said,
        codeSystem=TNM,
        codeSystemName=cda.SYSTEM_NAMES[TNM],
        displayName=said,
        codeSystemVersion=edition or None,
    )


def _other_stages(tumour: TumourContent, rank: int, part: Part, entries: Entries) -> Elements:
    """Make a stage in words alone, then one entry a classification with its name and version."""
    made = [_other_stage(entries, anchor) for anchor in (part.anchor(f"stade-{rank}"),) if anchor]
    for i, stage in enumerate(tumour.other_stages, 1):
        of = f"{rank}-{i}"
        named = [_in_words(entries, Code("GEN-101", TA, "Nom de la classification"), f"stade-nom-{of}")]
        if stage.version:
            version = Code("GEN-102", TA, "Version de la classification")
            named.append(_in_words(entries, version, f"stade-version-{of}"))
        made.append(_other_stage(entries, f"stade-{of}", *related("COMP", *named)))
    return made


def _other_stage(entries: Entries, anchor: str, *named: Element) -> Element:
    return _in_words(entries, Code("21918-8", LOINC, "Autre classification du stade"), anchor, *named)


def _in_words(entries: Entries, code: Code, anchor: str, *relations: Element) -> Element:
    """Make an observation whose value is a text of the narrative."""
    return entries.observation(code, anchor, cda.in_words(anchor), *relations)


def _tumour_comment(rank: int, part: Part, entries: Entries) -> Elements:
    anchor = part.anchor(f"tumeur-commentaire-{rank}")
    return [entries.comment(anchor)] if anchor else []
