"""Where R4's own invariants are asked: ``mappings/fhir-r4-invariants`` says, `gateway.fhir.predicates` judges.

[FHIR R4 conformance-rules#constraints] A test holds the table against HL7's definitions.

Promises: a rule of severity error that R4 gives to the types offered, to what carries them or to a data type is
enforced, or stands in `UNDECIDED` with the reason; what cannot be known (two dates of different precision, quantities
of different units) is allowed. Not promised: rules of types that may only be contained (Medication, Device …).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from gateway import terminology
from gateway.fhir.elements import shapes
from gateway.fhir.narrative import reading
from gateway.fhir.predicates import HOLDS, Holds, exists

__all__ = ["READ_BY_VERBS", "UNDECIDED", "Rule", "enforced", "rules"]

#: Keys of which a part cannot be decided here, and why.
UNDECIDED: Mapping[str, str] = {
    "ctm-1": "member.resolve() needs the store: decided for contained members only, others are taken as unresolved",
    "txt-1": "htmlChecks() has no definition: R4's words are read as the elements and attributes of `narrative`",
    "txt-2": "htmlChecks() again: a narrative says something when it has a text or a picture",
    "per-1": "dates of different precision are not comparable in FHIRPath; they are compared as far as both go",
    "rng-2": "quantities compare only by the same system and code: other units would need UCUM",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One invariant at one path."""

    key: str
    severity: str
    text: str
    holds: Holds


#: Types that verbs read: what modifies them cannot be ignored, and the gateway understands no modifier. The others are
#: kept and given back as they are, which takes no understanding [FHIR R4 extensibility#modifierExtension].
READ_BY_VERBS = frozenset(
    {"Patient", "ServiceRequest", "QuestionnaireResponse", "Task", "Appointment", "Communication", "Condition"}
    | {"Binary", "Composition", "DocumentReference", "Subscription"}
)
_MODIFIER = Rule(
    "extension-modificatrice",
    "error",
    "Extension modificatrice inconnue : la ressource ne peut pas être comprise sans elle",
    lambda n, scope: "modifierExtension" not in n or scope.root.get("resourceType") not in READ_BY_VERBS,
)
_IMPLICIT = Rule(
    "regles-implicites",
    "error",
    "Règles implicites inconnues : la ressource ne peut pas être comprise sans elles",
    lambda n, _: not exists(n, "implicitRules"),
)


@cache
def _by_path() -> Mapping[str, tuple[Rule, ...]]:
    found: dict[str, list[Rule]] = {}
    for row in terminology.table("fhir-r4-invariants")["invariants"]:
        for path in row["paths"]:
            key = row["key"]
            # R4 uses one key twice, for two types.
            holds = HOLDS[key] if key in HOLDS else HOLDS[f"{key} {path.partition('.')[0]}"]
            found.setdefault(path, []).append(Rule(key, row["severity"], row["text"], holds))
    return {path: tuple(listed) for path, listed in found.items()}


@cache
def rules(path: str) -> tuple[Rule, ...]:
    """Every rule of what stands at a path: of an object, of an element, or of ``SimpleQuantity``."""
    by_path = _by_path()
    listed = list(by_path.get(path, ())) if path != "Element" else []
    shape = shapes().get(path)
    if shape is None:
        return tuple(listed)
    if "modifierExtension" in shape.names:
        listed.append(_MODIFIER)
    if shape.resource:
        listed.append(_IMPLICIT)
    if "contained" in shape.names:
        listed.extend(by_path["DomainResource"])
    elif not shape.resource and path != "Element":
        listed.extend(by_path["Element"])
    return tuple(listed)


#: A narrative is read once for both of its rules.
_TOGETHER: Mapping[str, Holds] = {"txt-1": lambda value, _: type(value) is str and all(reading(value))}


@cache
def enforced(path: str) -> tuple[Holds, ...]:
    """Predicates of the rules that refuse, for the quick walk."""
    return tuple(
        _TOGETHER.get(rule.key, rule.holds) for rule in rules(path) if rule.severity == "error" and rule.key != "txt-2"
    )
