"""What a person writes of a care plan: its fields, what a first draft starts from, and the facts that it makes.

Promises: fields are judged by the same rules as the fiche's, each code by its national set of the PPS; a first draft
says already what the report proposes, so that nothing is typed twice, and a further one what the former version said;
what the report says only in words stays words. Not promised: a life cycle (`gateway.rcp.pps`).

[spec cda-frcp 9]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final, cast

import msgspec

from gateway.errors import InvalidContent
from gateway.identifiers import Oid
from gateway.model.directory import Practitioner
from gateway.model.plan import CarePlan
from gateway.rcp import pps_content, report_people
from gateway.rcp.fiche_fields import Field, Section, check
from gateway.rcp.pps_content import Contact, PlannedCare, PpsContent
from gateway.rcp.report_content import (
    CodedValue,
    Identifier,
    Organisation,
    PastTreatment,
    Person,
    Replaced,
    ReportContent,
    Treatment,
)
from gateway.terminology import code_list, table

__all__ = ["CATEGORIES", "content_of", "fields", "judged", "renewed", "sections", "started"]

#: Group of fields → the national set of its kinds.
CATEGORIES: Final[Mapping[str, str]] = {
    "traitement": "PPS-TypeTraitement",
    "effets-secondaires": "PPS-EffetsSecondaires",
    "mesure": "PPS-MesuresAssociees",
    "suivi": "PPS-TypeSuivi",
    "soins-support": "PPS-SoinsSupport",
    "accompagnement": "PPS-AccompagnementSocial",
}
#: « Autre » of a set: what the report says in words only.
_OTHER: Final = {"traitement": "GEN-092.03.01", "suivi": "GEN-092.04.06", "soins-support": "GEN-092.04.07"}
_ADVISED: Final = {
    "oncogeriatrie": ("mesure", {"type": "ORG-001"}),
    "fertilite": ("soins-support", {"type": "MED-051"}),
    "oncogenetique": ("suivi", {"type": "11429006", "texte": "Consultation d’oncogénétique"}),
}
#: Said of one version only.
_OF_A_VERSION: Final = frozenset({"motif", "remis"})


@cache
def sections() -> tuple[Section, ...]:
    """Sections of what is written."""
    return msgspec.convert(table("PPS-programme")["sections"], tuple[Section, ...])


@cache
def fields() -> Mapping[str, Field]:
    """Fields by key, in order."""
    return {field.key: field for section in sections() for field in section.fields}


def judged(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is written as it is kept.

    Raises
    ------
    InvalidContent
        ``champ-inconnu``, ``champ-invalide``, ``champ-obligatoire``, ``code-inconnu``.
    """
    unknown = next((key for key in changes if key not in fields()), None)
    if unknown is not None:
        raise InvalidContent("champ-inconnu", "Le PPS n’a pas de champ de ce nom.", rule=True)
    return {key: check(fields()[key], value) for key, value in changes.items()}


# --- What a draft starts from ----------------------------------------------------------------------------------------


def started(report: ReportContent) -> dict[str, Any]:
    """Give the first draft after a report: its first proposal, what it advises, who the patient may turn to."""
    found: dict[str, list[dict[str, Any]]] = {}
    for category, line in _lines(report):
        found.setdefault(category, []).append({key: value for key, value in line.items() if value})
    said: dict[str, Any] = {**found, "contacts": list(_contacts(report)), "patient": report.patient_remark}
    return {key: value for key, value in judged(said).items() if value is not None}


def renewed(former: Mapping[str, Any]) -> dict[str, Any]:
    """Give the draft of a further version: what the former one said, but for what is said of one version only."""
    return {key: value for key, value in former.items() if key not in _OF_A_VERSION and key in fields()}


def _lines(report: ReportContent) -> Iterator[tuple[str, dict[str, Any]]]:
    first = min(report.proposals, key=lambda one: one.rank, default=None)
    treatments = first.treatments if first is not None else ()
    for index, one in enumerate(treatments):
        category, line = _treatment(one)
        # The proposal in words stands once, beside the first of its treatments.
        yield category, {**line, "commentaire": first.text if first is not None and index == 0 else None}
    if first is not None and first.text and not treatments:
        yield "traitement", {"type": _OTHER["traitement"], "texte": first.text, "etat": "prevu"}
    for past in report.past_treatments:
        if past.state == "en-cours":
            yield _treatment(past)
    for name in report.recommended:
        category, line = _ADVISED[name]
        yield category, {**line, "etat": "prevu"}
    for examination in report.examinations_asked:
        when = {"prevu_de": examination.earliest, "prevu_a": examination.latest}
        yield "suivi", {"type": _OTHER["suivi"], "texte": examination.text, "etat": "prevu", **when}
    if report.surveillance:
        yield "suivi", {"type": _OTHER["suivi"], "texte": report.surveillance, "etat": "prevu"}
    if report.supportive_care:
        yield "soins-support", {"type": _OTHER["soins-support"], "texte": report.supportive_care, "etat": "prevu"}


def _treatment(one: Treatment | PastTreatment) -> tuple[str, dict[str, Any]]:
    """Say a treatment of the report's set by that of the plan: by its code, else by its very label, else in words."""
    planned = code_list("PPS-TypeTraitement")
    known = planned.get(one.kind.code) or next(
        (each for each in planned if each.label.casefold() == one.kind.label.casefold()), None
    )
    started_on = isinstance(one, PastTreatment)
    when = {"debut" if started_on else "prevu_de": one.start, "fin" if started_on else "prevu_a": one.end}
    line = {"etat": "prevu", **when}
    if known is not None:
        return "traitement", {"type": known.code, "texte": one.text, **line}
    category = "soins-support" if one.kind.label.casefold() == "soins de support" else "traitement"
    words = " – ".join(part for part in (one.kind.label, one.text) if part)
    return category, {"type": _OTHER[category], "texte": words, **line}


def _contacts(report: ReportContent) -> Iterator[dict[str, Any]]:
    place = report.meeting.place
    yield {"role": "reference", "structure": place.name, "telephone": place.phone}
    yield {"role": "3c", "structure": report.meeting.manager}
    yield {"role": "reseau", "structure": report.meeting.network}


# --- The facts -------------------------------------------------------------------------------------------------------


def content_of(
    plan: CarePlan, report: ReportContent, *, author: Practitioner, replaced: CarePlan | None, at: datetime
) -> PpsContent:
    """Gather the facts of a version that is being validated."""
    said, number = plan.draft, Oid.of_uuid(plan.set_id).value
    former = pps_content.decode(replaced.content or b"") if replaced is not None else None
    return PpsContent(
        document_id=Identifier(f"{number}.{plan.version}"),
        set_id=Identifier(number),
        version=plan.version,
        replaces=Replaced(document_id=former.document_id, version=former.version, validated_at=former.written_at)
        if former is not None
        else None,
        written_at=at.replace(microsecond=0),
        report=report,
        author=report_people.person_of(author),
        contacts=tuple(_contact(one) for one in said.get("contacts", ())),
        care=tuple(_care(name, one) for name in CATEGORIES for one in said.get(name, ())),
        stopped=said.get("arret"),
        stopped_on=said.get("arret.date"),
        update_reason=_coded("PPS-MotifMiseAJour", said["motif"]) if said.get("motif") else None,
        given_on=said.get("remis"),
        patient_comment=said.get("patient"),
        paediatric_comment=said.get("pediatrie"),
        notice=said.get("notice"),
    )


def _coded(name: str, code: str) -> CodedValue:
    found = code_list(name).require(code, expression=name)
    return CodedValue(found.code, found.oid or "", found.label)


def _care(category: str, one: Mapping[str, Any]) -> PlannedCare:
    return PlannedCare(
        category=cast("Any", category),  # one of CATEGORIES, whose keys are its values
        kind=_coded(CATEGORIES[category], one["type"]),
        done=one.get("etat") == "fait",
        text=one.get("texte"),
        start=one.get("debut"),
        end=one.get("fin"),
        expected_from=one.get("prevu_de"),
        expected_to=one.get("prevu_a"),
        comment=one.get("commentaire"),
    )


def _contact(one: Mapping[str, Any]) -> Contact:
    structure, name = one.get("structure"), one.get("nom")
    place = Organisation(name=structure or "Non renseigné", phone=one.get("telephone"))
    return Contact(
        role=cast("Any", one["role"]),  # one of the options of its field, which are its values
        person=Person(family=name, given=one.get("prenom", ""), organisation=place if structure else None)
        if name
        else None,
        organisation=place if structure or not name else None,
    )
