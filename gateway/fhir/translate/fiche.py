"""What one clinical resource says of a fiche: an Observation of the national report's codes, or a DiagnosticReport.

Promises: one table of codes; a resource that was entered in error or cancelled says nothing; a code of none of the
field's national list is left out (the resource itself is kept as sent), but for a letter of the TNM in the
classification's own codes, which a writer is refused (`require_codes`).

[CI-SIS FRCP 2022.01 4.1 to 4.7; spec fhir-fr 1.16, 1.17]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gateway.errors import InvalidContent
from gateway.fhir.translate.elements import Resolve, codings, nowhere, professional, text_of
from gateway.rcp.clinical import coded_value
from gateway.rcp.facts import CodedFact
from gateway.rcp.fiche_fields import field_named, taken

__all__ = ["CLINICAL", "members", "require_codes", "values_of"]

Tree = Mapping[str, Any]

#: Types that say something of a fiche beside the inscription's own.
CLINICAL = frozenset({"Observation", "DiagnosticReport"})
_TNM = "urn:oid:2.16.840.1.113883.15.6"
_VOID = frozenset({"entered-in-error", "cancelled"})
_EDITION = re.compile(r"\b([1-9])(?:\s*(?:e|è?me|th)\b|$)")

#: Code of an Observation → field of its value, and field of its date.
_VALUES: Mapping[str, tuple[str, str | None]] = {
    "MED-239": ("etat.oms", "etat.oms_date"),
    "89247-1": ("etat.oms", "etat.oms_date"),
    "48544-1": ("etat.g8", "etat.g8_date"),
    "63921-1": ("decouverte.depistage", None),
    "GEN-098": ("motif.type", None),
    "ORG-118": ("motif.appareil", None),
    "ORG-119": ("motif.organes", None),
    "ORG-138": ("motif.soins", None),
    "ORG-184": ("motif.recours", None),
    "ORG-185": ("motif.pediatrique", None),
    "ORG-127": ("motif.statut", None),
    "MED-243": ("phase.code", "phase.date"),
    "MED-245": ("phase.progression", None),
    "MED-246": ("phase.locale", None),
    "MED-247": ("phase.regionale", None),
    "MED-248": ("phase.distance", None),
    "21905-5": ("tumeur.t", None),
    "21906-3": ("tumeur.n", None),
    "21907-1": ("tumeur.m", None),
    "75620-5": ("tumeur.stade", None),
    "21908-9": ("tumeur.stade", None),
}
_PLAIN = ("valueBoolean", "valueInteger", "valueString")
#: Motives are questions of their own in the national report, and one list here.
_MOTIVES = frozenset({"MED-235", "ORG-114", "ORG-115", "ORG-116"})
#: Code of a DiagnosticReport, or of its category → list of quoted reports.
_REPORTS: Mapping[str, str] = {
    "10218-6": "cro",
    "22637-3": "acp",
    "60568-3": "acp",
    "SP": "acp",
    "PAT": "acp",
    "50397-9": "gm",
    "51969-4": "gm",
    "GE": "gm",
}


def members(tree: Tree) -> Iterator[str]:
    """References to the resources of which this one is made, and to those that stage the tumour."""
    for name in ("hasMember", "result"):
        for one in tree.get(name, ()):
            if isinstance(one.get("reference"), str):
                yield one["reference"]
    for stage in tree.get("stage", ()):
        for one in stage.get("assessment", ()):
            if isinstance(one.get("reference"), str):
                yield one["reference"]


def values_of(tree: Tree, resolve: Resolve = nowhere) -> dict[str, Any]:
    """Read the fields that one resource states, as `gateway.rcp.fiche.take` takes them."""
    read = _READERS.get(str(tree.get("resourceType")))
    # What a modifier says is not understood here: the resource is kept as sent, and nothing is read of it.
    if read is None or tree.get("status") in _VOID or "modifierExtension" in tree:
        return {}
    found = {key: taken(field_named(key), value) for key, value in read(tree, resolve) if value is not None}
    return {key: value for key, value in found.items() if value is not None}


def require_codes(tree: Tree) -> None:
    """Refuse a letter of the TNM that is said in the classification's own codes and that it does not have.

    Raises
    ------
    InvalidContent
        ``code-inconnu``; a text, or a code of another system, is never refused.
    """
    if tree.get("resourceType") != "Observation" or tree.get("status") in _VOID or "modifierExtension" in tree:
        return
    codes = (str(coding.get("code")) for coding in codings(tree.get("code")))
    key = next((_VALUES[code][0] for code in codes if code in _VALUES), "")
    if not key.startswith("tumeur."):
        return
    said = [one for one in codings(tree.get("valueCodeableConcept")) if one.get("system") == _TNM]
    field = field_named(key)
    if said and all(taken(field, one.get("code")) is None for one in said):
        text = f"Ce code n’est pas de la classification TNM : champ « {field.label} »."
        raise InvalidContent("code-inconnu", text, expression="Observation.value", rule=True)


def _observation(tree: Tree, _resolve: Resolve) -> Iterator[tuple[str, Any]]:
    codes = [str(coding.get("code")) for coding in codings(tree.get("code"))]
    if any(code in _MOTIVES for code in codes) and tree.get("valueBoolean") is True:
        yield "motif.motifs", [code for code in codes if code in _MOTIVES]
        return
    known = next((_VALUES[code] for code in codes if code in _VALUES), None)
    if known is None:
        return
    key, dated = known
    yield key, _value(key, tree)
    if dated is not None:
        yield dated, _day(tree.get("effectiveDateTime") or tree.get("effectivePeriod", {}).get("start"))
    if key == "etat.g8":
        yield "etat.g8_outil", text_of(tree.get("method"))
    if key.startswith("tumeur."):
        yield "tumeur.edition", _edition(tree)


def _value(key: str, tree: Tree) -> Any:
    plain = next((tree[name] for name in _PLAIN if name in tree), None)
    if plain is not None:
        return plain
    if "valueQuantity" in tree:
        said = tree["valueQuantity"].get("value")
        return str(said).removesuffix(".0") if said is not None else None
    concept = tree.get("valueCodeableConcept")
    facts = [
        CodedFact(system=one.get("system"), code=one.get("code"), text=one.get("display")) for one in codings(concept)
    ]
    field = field_named(key)
    if field.kind == "codes":
        return [found for fact in facts if (found := taken(field, [coded_value(field, (fact,))]))]
    if field.kind == "ligne":
        return next((fact.code for fact in facts if taken(field, fact.code) is not None), text_of(concept))
    return coded_value(field, facts)


def _edition(tree: Tree) -> str | None:
    said = [one.get("version") for one in codings(tree.get("valueCodeableConcept"))]
    said += [one.get("version") for one in codings(tree.get("method"))]
    words = text_of(tree.get("method")) or ""
    found = _EDITION.search(words)
    return next((str(one) for one in said if one), found.group(1) if found else None)


def _report(tree: Tree, resolve: Resolve) -> Iterator[tuple[str, Any]]:
    concepts = [tree.get("code"), *tree.get("category", ())]
    codes = [str(coding.get("code")) for concept in concepts for coding in codings(concept)]
    kind = next((_REPORTS[code] for code in codes if code in _REPORTS), None)
    if kind is None or not tree.get("conclusion"):
        return
    period = tree.get("effectivePeriod", {})
    one = {
        "conclusion": tree["conclusion"],
        "debut": _day(tree.get("effectiveDateTime") or period.get("start")),
        "fin": _day(period.get("end")),
        "realisateur": _person(tree.get("performer", ()), resolve),
        "auteur": _person(tree.get("resultsInterpreter", ()), resolve),
        "de": f"DiagnosticReport/{tree.get('id')}",
    }
    yield kind, [one]


def _day(said: Any) -> str | None:
    return said.partition("T")[0] if isinstance(said, str) else None


def _person(references: Any, resolve: Resolve) -> str | None:
    """Name somebody by his national number, else by the words."""
    for reference in references:
        found = professional(reference, resolve)
        if found is not None:
            return found.identifier.value if found.identifier is not None else found.display
    return None


_READERS: Mapping[str, Callable[[Tree, Resolve], Iterator[tuple[str, Any]]]] = {
    "Observation": _observation,
    "DiagnosticReport": _report,
}
