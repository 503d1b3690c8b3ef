"""What a dossier keeps of its tumour and its form, and which fields of the fiche they state.

Promises: what was kept is given back as the facts that the wire brought; a code counts for a field only when the
field's national list holds it under the same system. `form_values` refuses (``strict``) or leaves out what no field
can hold.

[spec fhir-fr 1.12, 1.14; CI-SIS FRCP 2022.01]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from gateway.model.dossier import Dossier
from gateway.rcp.facts import AnswerFacts, CodedFact, FormFacts, IdentifierFact, ProfessionalFact, TumourFacts
from gateway.rcp.fiche_fields import Field, check, concept_of, fields, taken
from gateway.terminology import code_list, oid_of_system

__all__ = ["coded_value", "form_of", "form_values", "require_tumour", "tumour_of", "tumour_values"]

_CODED = frozenset({"code", "codes"})
_MANY = frozenset({"codes", "etiquettes"})
_MAIN = "tumeur."


def tumour_of(dossier: Dossier) -> TumourFacts | None:
    """The tumour as the requester described it."""
    kept = dossier.clinical.get("tumour")
    return msgspec.convert(kept, TumourFacts) if kept is not None else None


def form_of(dossier: Dossier) -> FormFacts | None:
    """The form as last filled in; a decimal answer comes back as text, to its last digit."""
    kept: dict[str, Any] | None = dossier.clinical.get("form")
    if kept is None:
        return None
    # By hand: msgspec converts no union of several types that JSON writes as text (an answer is text or decimal).
    answers = tuple(
        AnswerFacts(
            link_id=one["link_id"],
            values=tuple(map(_kept_value, one.get("values", ()))),
            occurrence=one.get("occurrence", 0),
            question=one.get("question"),
        )
        for one in kept.get("answers", ())
    )
    return FormFacts(
        form=kept.get("form"),
        completed=kept.get("completed", False),
        authored=msgspec.convert(kept.get("authored"), datetime | None),
        author=msgspec.convert(kept.get("author"), ProfessionalFact | None),
        identifiers=msgspec.convert(kept.get("identifiers", ()), tuple[IdentifierFact, ...]),
        answers=answers,
    )


def _kept_value(kept: Any) -> str | int | bool | CodedFact:
    if isinstance(kept, dict):
        return msgspec.convert(kept, CodedFact)
    return kept if isinstance(kept, (int, bool)) else str(kept)


def tumour_values(tumour: TumourFacts | None) -> dict[str, Any]:
    """Fields that the described tumour states; a code of no national list says nothing beside its words."""
    if tumour is None:
        return {}
    said = {
        "tumeur.code": tumour.topography,
        "tumeur.morphologie": tumour.morphology,
        "tumeur.lateralite": tumour.laterality,
        "tumeur.date": tumour.discovered_on,
        "tumeur.tnm": tumour.stage,
    }
    found = {key: taken(fields()[key], _raw(fields()[key], value)) for key, value in said.items() if value}
    return {key: value for key, value in found.items() if value is not None}


def require_tumour(tumour: TumourFacts | None) -> None:
    """Refuse a code that is said to be of the national list's own system and that the list does not hold.

    Words stay words, and so does a code of another system. CIM-10 has a name of HL7's too, which no OID goes with.

    Raises
    ------
    InvalidContent
        ``code-inconnu``.
    """
    if tumour is None:
        return
    for key, fact, where in (
        ("tumeur.code", tumour.topography, "Condition.code"),
        ("tumeur.morphologie", tumour.morphology, _MORPHOLOGY),
    ):
        field = fields()[key]
        if fact is None or not fact.code or not fact.system or field.list_name is None:
            continue
        system = oid_of_system(fact.system) or fact.system
        if system in {_HL7_ICD_10, *(one.oid for one in code_list(field.list_name))}:
            check(field, fact.code, expression=where)


_HL7_ICD_10 = "http://hl7.org/fhir/sid/icd-10"
#: Where a Condition says its morphology.
_MORPHOLOGY = (
    "Condition.extension('http://hl7.org/fhir/us/mcode/StructureDefinition/mcode-histology-morphology-behavior').value"
)


def form_values(form: FormFacts | None, *, strict: bool = False) -> dict[str, Any]:
    """Fields that a form's answers state, by the stable keys of its questions.

    Raises
    ------
    InvalidContent
        ``code-inconnu``, ``champ-invalide``, ``champ-obligatoire`` (in a repeated group); only when ``strict``.
    """
    if form is None:
        return {}
    found = {}
    for field in fields().values():
        said = _group(field, form) if field.kind == "groupe" else _flat(field, form)
        where = f"QuestionnaireResponse.descendants().where(linkId='{field.key}')"
        value = check(field, said, expression=where) if strict else taken(field, said)
        if value is not None:
            found[field.key] = value
    return found


def _flat(field: Field, form: FormFacts) -> Any:
    values = [
        _raw(field, value)
        for answer in form.answers
        if answer.link_id == field.key and (answer.occurrence == 0 or not field.key.startswith(_MAIN))
        for value in answer.values
    ]
    return values if field.kind in _MANY else next(iter(values), None)


def _group(field: Field, form: FormFacts) -> list[dict[str, Any]]:
    """Gather what repeats: the n-th occurrence of the group of questions is one object."""
    prefix = f"{field.like or field.key}."
    parts = {part.key: part for part in field.fields}
    found: dict[int, dict[str, Any]] = {}
    for answer in form.answers:
        part = parts.get(answer.link_id.removeprefix(prefix)) if answer.link_id.startswith(prefix) else None
        if part is not None and answer.values and not (field.like and answer.occurrence == 0):
            found.setdefault(answer.occurrence, {}).setdefault(part.key, _raw(part, answer.values[0]))
    return [found[index] for index in sorted(found)]


def _raw(field: Field, value: Any) -> Any:
    if isinstance(value, CodedFact):
        return coded_value(field, (value,))
    if isinstance(value, Decimal):
        return str(value)
    if field.kind in _CODED and isinstance(value, str):
        return next((one.code for one in _allowed(field) if one.label.casefold() == value.strip().casefold()), value)
    return value


def _allowed(field: Field) -> Iterator[Any]:
    yield from code_list(field.list_name) if field.list_name is not None else field.options


def coded_value(field: Field, said: Sequence[CodedFact]) -> Any:
    """Return what a field keeps of coded facts: the first code of its list, under the right system; else the words."""
    if field.kind == "entier":
        return next((_GRADES[fact.code] for fact in said if fact.code in _GRADES), None)
    if field.kind not in _CODED:
        return next((fact.text or fact.code for fact in said), None)
    for fact in said:
        found = concept_of(field, fact.code or "")
        oid = oid_of_system(fact.system) if fact.system else None
        if found is not None and (found.oid is None or oid in {None, found.oid}):
            return found.code
    # No code of this list: what `check` refuses, whatever it is.
    return next((f"{fact.system or ''}|{fact.code or fact.text or ''}" for fact in said), None)


#: Grades of the performance status, as CDA and LOINC code them.
_GRADES: Mapping[str | None, int] = {
    code: grade
    for grade, codes in enumerate(
        (
            ("MED-240", "LA9622-7"),
            ("MED-264", "LA9623-5"),
            ("MED-265", "LA9624-3"),
            ("MED-266", "LA9625-0"),
            ("MED-267", "LA9626-8"),
        )
    )
    for code in codes
}
