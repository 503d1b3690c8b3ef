"""The coded entries of a Composition's proposal and of its frame, as parts of a report's draft.

[CI-SIS FRCP 2022.01 4.6, 4.9; spec fhir-fr 1.14]

A CarePlan is one intention, in the order of the entries: its description in words, its activities the treatments. The
gateway writes its own advice in the same shape (`gateway.fhir.translate.advice`). An entry may be contained, which
shows it to nobody before the validation, or a resource of its own.

Promises: a treatment of no national list is refused; what no entry speaks of is not in the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.fhir.translate.elements import Resolve, codings, text_of
from gateway.rcp.report_draft import DraftExamination, DraftTreatment
from gateway.terminology import code_list

__all__ = ["coded_draft"]

Tree = Mapping[str, Any]

_LOINC = "http://loinc.org"
_PLAN, _FRAME = "18776-5", "35510-7"
_RECOURSE, _EXAMINATION, _SURVEILLANCE = "ORG-120", "ORG-064", "MED-226"
_GUIDELINE, _TRIAL = "MED-249", "MED-250"
_SUPPORT = "C15747"


def coded_draft(tree: Tree, resolve: Resolve) -> dict[str, Any]:
    """Read the fields of a draft that the coded entries state.

    Raises
    ------
    InvalidContent
        ``code-inconnu``: a treatment is none of the national list.
    """
    said: dict[str, Any] = {}
    plans = list(_entries(tree, _PLAN, resolve))
    if plans:
        said |= _plan(plans)
    for one in _entries(tree, _FRAME, resolve):
        said |= _frame(one)
    return said


def _entries(tree: Tree, code: str, resolve: Resolve) -> Iterator[Tree]:
    held = {f"#{one['id']}": one for one in tree.get("contained", ()) if one.get("id")}
    for section in tree.get("section", ()):
        if (_LOINC, code) not in {(one.get("system"), one.get("code")) for one in codings(section.get("code"))}:
            continue
        for entry in section.get("entry", ()):
            reference = entry.get("reference")
            found = held.get(reference) or (resolve(reference) if isinstance(reference, str) else None)
            if found is not None:
                yield found


def _plan(entries: list[Tree]) -> dict[str, Any]:
    alternatives: list[str] = []
    treatments: list[DraftTreatment] = []
    examinations: list[DraftExamination] = []
    said: dict[str, Any] = {}
    rank = 0
    for entry in entries:
        if entry.get("resourceType") == "CarePlan":
            rank += 1
            if rank > 1 and entry.get("description"):
                alternatives.append(entry["description"])
        for asked in _asked(entry):
            code, words, start, end = asked
            if code == _RECOURSE:
                said["recourse"] = words or "Passage en RCP de recours"
            elif code == _SURVEILLANCE:
                said["follow_up"] = words or "Surveillance"
            elif code == _EXAMINATION:
                examinations.append(DraftExamination(text=words or "Examen complémentaire", earliest=start, latest=end))
            else:
                code_list("FRCP-TypeTraitement").require(code, expression="Composition.section.entry")
                treatments.append(DraftTreatment(code=code, rank=max(rank, 1), text=words, start=start, end=end))
                if code == _SUPPORT and words:
                    said["supportive_care"] = words
    return said | {
        "alternatives": tuple(alternatives),
        "treatments": tuple(treatments),
        "examinations": tuple(examinations),
    }


def _asked(entry: Tree) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    """Each thing asked for: its code, its words, from when and until when."""
    details = [one["detail"] for one in entry.get("activity", ()) if "detail" in one]
    if entry.get("resourceType") == "ServiceRequest":
        details = [entry]
    for one in details:
        code = next((str(coding["code"]) for coding in codings(one.get("code")) if coding.get("code")), None)
        if code is None:
            continue
        period = one.get("scheduledPeriod") or one.get("occurrencePeriod") or {}
        start = period.get("start") or one.get("occurrenceDateTime")
        notes = (note.get("text") for note in one.get("note", ()))
        words = one.get("description") or next(notes, None) or (one.get("code") or {}).get("text")
        yield code, words, _day(start), _day(period.get("end"))


def _day(said: Any) -> str | None:
    return said.partition("T")[0] if isinstance(said, str) else None


def _frame(one: Tree) -> dict[str, Any]:
    codes = {coding.get("code") for coding in codings(one.get("code"))}
    words = one.get("valueString") or text_of(one.get("valueCodeableConcept"))
    if _GUIDELINE in codes and words:
        return {"guideline": words, "guideline_dated": _day(one.get("effectiveDateTime"))}
    if _TRIAL in codes and isinstance(one.get("valueBoolean"), bool):
        named = next((note.get("text") for note in one.get("note", ()) if note.get("text")), "Essai clinique proposé")
        return {"trial": named if one["valueBoolean"] else ""}
    return {}
