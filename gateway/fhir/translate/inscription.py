"""ServiceRequest, Condition and QuestionnaireResponse to the facts of an inscription.

[spec fhir-fr 1.12, 1.14, 1.15; DECISIONS 17]
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from gateway.fhir.translate.elements import (
    ICD_10,
    ICD_O_3,
    Resolve,
    coded,
    codings,
    extension,
    identifier_of,
    identifiers,
    moment,
    nowhere,
    professional,
    text_of,
)
from gateway.identifiers import SYSTEMS
from gateway.rcp.facts import (
    AnswerFacts,
    CodedFact,
    FormFacts,
    IdentifierFact,
    InscriptionFacts,
    Participation,
    SessionFact,
    TumourFacts,
)
from gateway.terminology import code_list

__all__ = ["INSCRIPTION_CODE", "form_facts", "inscription_facts", "is_inscription", "tumour_facts"]

Tree = Mapping[str, Any]

#: TRE_R213, code 39: « Réunion de Concertation Pluridisciplinaire (RCP) ».
INSCRIPTION_CODE = (
    "https://mos.esante.gouv.fr/NOS/TRE_R213-ModePriseEnCharge/FHIR/TRE-R213-ModePriseEnCharge",
    "39",
)
_RFC_3986 = "urn:ietf:rfc:3986"
_MORPHOLOGY = "http://hl7.org/fhir/us/mcode/StructureDefinition/mcode-histology-morphology-behavior"
_URGENT = frozenset({"urgent", "asap", "stat"})
_QUESTION = re.compile(r"\s*question\s*(?:posée)?\s*:\s*", re.IGNORECASE)
# Questions of the pré-fiche whose answers are facts of the inscription [Questionnaire/prefiche-rcp].
_ASKED = "motif.question"
_PARTICIPATION = "motif.participation"
# Sides are of a national list of SNOMED CT qualifiers; other codes of a body site keep their words only.
_SIDES = "FRCP-Lateralite"


def is_inscription(tree: Tree) -> bool:
    """Whether a ServiceRequest asks for an RCP; any other is kept as sent."""
    return any((coding.get("system"), coding.get("code")) == INSCRIPTION_CODE for coding in codings(tree.get("code")))


def inscription_facts(
    tree: Tree, *, tumour: Tree | None = None, form: Tree | None = None, resolve: Resolve = nowhere
) -> InscriptionFacts:
    """Read one ServiceRequest with the Condition and the form that came with it."""
    filled = form_facts(form, resolve) if form is not None else None
    said = identifiers(tree.get("identifier"))
    reasons = tuple(fact for fact in map(coded, tree.get("reasonCode", ())) if fact)
    numbers = [fact for fact in said if fact.system == _RFC_3986 and fact.value.startswith("urn:uuid:")]
    return InscriptionFacts(
        number=numbers[0].value.lower() if numbers else None,
        placer=next((fact for fact in said if fact.kind == "PLAC"), None)
        or next((fact for fact in said if fact not in numbers), None),
        session=_session(tree, resolve),
        requester=professional(tree.get("requester"), resolve),
        participation=_participation(filled),
        reason=next(iter(reasons), None),
        reasons=reasons,
        question=(filled.text(_ASKED) if filled else None) or _question(tree),
        urgent=tree.get("priority") in _URGENT,
        requested_on=moment(tree.get("authoredOn")),
        tumour=tumour_facts(tumour) if tumour is not None else None,
        form=filled,
    )


def _session(tree: Tree, resolve: Resolve) -> SessionFact:
    number = None
    for performer in tree.get("performer", ()):
        said = [identifier_of(performer.get("identifier"))]
        target = resolve(performer["reference"]) if isinstance(performer.get("reference"), str) else None
        if target is not None and target.get("resourceType") == "HealthcareService":
            said.extend(identifiers(target.get("identifier")))
        number = next((fact.value for fact in said if fact and fact.system == SYSTEMS["RCP"].system), number)
    start = tree.get("occurrenceDateTime") or tree.get("occurrencePeriod", {}).get("start")
    return SessionFact(rcp_number=number, start=moment(start))


def _participation(form: FormFacts | None) -> Participation | None:
    said = form.text(_PARTICIPATION) if form else None
    return Participation(said) if said in set(Participation) else None


def _question(tree: Tree) -> str | None:
    texts = [note["text"] for note in tree.get("note", ()) if note.get("text")]
    asked = [text for text in texts if _QUESTION.match(text)] or texts
    return _QUESTION.sub("", asked[0], count=1) if asked else None


def tumour_facts(tree: Tree) -> TumourFacts:
    """Read the Condition that an inscription is about."""
    sites = tree.get("bodySite", ())
    topography = coded(tree.get("code"), ICD_10) or next(
        (fact for fact in (coded(s, ICD_O_3) for s in sites) if fact), None
    )
    onset = tree.get("onsetDateTime") or tree.get("recordedDate")
    return TumourFacts(
        identifiers=identifiers(tree.get("identifier")),
        label=text_of(tree.get("code")),
        topography=topography,
        morphology=next((coded(found.get("valueCodeableConcept")) for found in extension(tree, _MORPHOLOGY)), None),
        laterality=_side(sites),
        stage=next((text for text in (text_of(stage.get("summary")) for stage in tree.get("stage", ())) if text), None),
        discovered_on=onset,
    )


def _side(sites: Any) -> CodedFact | None:
    for site in sites:
        for coding in codings(site):
            if coding.get("code") in code_list(_SIDES):
                return CodedFact(system=coding.get("system"), code=coding["code"], text=coding.get("display"))
    return None


def form_facts(tree: Tree, resolve: Resolve = nowhere) -> FormFacts:
    """Read a QuestionnaireResponse; groups are opened, each question keeps its linkId."""
    authored = moment(tree.get("authored"))
    return FormFacts(
        form=tree.get("questionnaire"),
        completed=tree.get("status") in {"completed", "amended"},
        authored=authored if isinstance(authored, datetime) else None,
        author=professional(tree.get("author"), resolve),
        identifiers=identifiers(tree.get("identifier")),
        answers=tuple(_answers(tree.get("item", ()))),
    )


def _answers(items: Any, occurrence: int = 0) -> Iterator[AnswerFacts]:
    seen: Counter[str] = Counter()
    for item in items:
        answers = item.get("answer", ())
        values = tuple(value for value in map(_value, answers) if value is not None)
        if values:
            asked = item.get("text")
            yield AnswerFacts(link_id=item["linkId"], values=values, occurrence=occurrence, question=asked)
        yield from _answers(item.get("item", ()), seen[item["linkId"]])
        for answer in answers:
            yield from _answers(answer.get("item", ()), occurrence)
        seen[item["linkId"]] += 1


def _value(answer: Tree) -> str | int | bool | Decimal | CodedFact | None:
    for name, value in answer.items():
        if not name.startswith("value"):
            continue
        if isinstance(value, str | int | bool | Decimal):
            return value
        if name == "valueCoding":
            return coded(value)
        if name == "valueReference":
            said: IdentifierFact | None = identifier_of(value.get("identifier"))
            return value.get("reference") or (said.value if said else value.get("display"))
        if name == "valueQuantity":
            number, unit = value.get("value"), value.get("unit", "")
            return f"{number} {unit}".strip() if number is not None else None
    return None
