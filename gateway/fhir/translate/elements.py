"""Small pieces that several resources share: identifiers, codings, references, and the French systems.

[FR Core 2.1.0; spec fhir-fr 0.4 and 0.5]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from gateway import terminology
from gateway.errors import InvalidContent
from gateway.fhir.search_columns import date_interval
from gateway.identifiers import SYSTEMS, IdNatPs, system_named
from gateway.rcp.facts import CodedFact, IdentifierFact, ProfessionalFact

__all__ = [
    "CANONICAL",
    "CISIS",
    "CORE",
    "ICD_10",
    "ICD_O_3",
    "NAMESPACE",
    "RCP_CARE",
    "Resolve",
    "coded",
    "codings",
    "concept",
    "extension",
    "identifier",
    "identifier_of",
    "identifiers",
    "moment",
    "nowhere",
    "professional",
    "refer",
    "text_of",
    "wall",
    "without_empty",
]

Tree = Mapping[str, Any]
#: Finds the resource that a literal reference names (in the same Bundle, contained, or stored), or `None`.
Resolve = Callable[[str], Tree | None]

CORE = "https://hl7.fr/ig/fhir/core"
#: Root of our own code systems and identifier namespaces: names, not addresses; never the base URL of a deployment.
CANONICAL = "https://rcp.example.org/fhir"
NAMESPACE = "https://rcp.example.org/ns"
CISIS = "https://smt.esante.gouv.fr/fhir/CodeSystem/terminologie-cisis"
ICD_O_3 = frozenset({"http://terminology.hl7.org/CodeSystem/icd-o-3", "urn:oid:2.16.840.1.113883.6.43.1"})
ICD_10 = frozenset(
    {
        "https://smt.esante.gouv.fr/terminologie-cim-10",
        "http://hl7.org/fhir/sid/icd-10",
        "urn:oid:2.16.840.1.113883.6.3",
    }
)


def nowhere(_reference: str) -> None:
    """Resolve nothing: for a resource that stands alone."""


def extension(node: Tree, url: str) -> Iterator[Tree]:
    """Yield the extensions of one URL; nested ones have short names."""
    for found in node.get("extension", ()):
        if found.get("url") == url:
            yield found


def codings(concept: Any) -> Iterator[Tree]:
    """Yield the codings of a CodeableConcept or of a Coding."""
    if isinstance(concept, Mapping):
        if "coding" in concept:
            yield from concept["coding"]
        elif "code" in concept:
            yield concept


def coded(concept: Any, systems: frozenset[str] | None = None) -> CodedFact | None:
    """Read a concept: the first coding of the wanted systems, with the sender's own words."""
    if not isinstance(concept, Mapping):
        return None
    wanted = [coding for coding in codings(concept) if systems is None or coding.get("system") in systems]
    if not wanted and (systems is not None or not concept.get("text")):
        return None
    coding = wanted[0] if wanted else {}
    text = concept.get("text") or coding.get("display")
    return CodedFact(system=coding.get("system"), code=coding.get("code"), text=text)


def text_of(concept: Any) -> str | None:
    """Words of a concept: its text, else the first display."""
    if not isinstance(concept, Mapping):
        return None
    return concept.get("text") or next((c["display"] for c in codings(concept) if c.get("display")), None)


def identifier_of(node: Any) -> IdentifierFact | None:
    """Read one Identifier; without a system or a value it identifies nothing."""
    if not isinstance(node, Mapping) or not node.get("system") or not node.get("value"):
        return None
    kind = next((coding.get("code") for coding in codings(node.get("type"))), None)
    return IdentifierFact(system=node["system"], value=node["value"], kind=kind)


def identifiers(nodes: Any) -> tuple[IdentifierFact, ...]:
    """Read the identifiers that identify something, in order; a single one (R4 has both) is a list of one."""
    listed = [nodes] if isinstance(nodes, Mapping) else nodes or ()
    return tuple(fact for fact in map(identifier_of, listed) if fact is not None)


_PROFESSIONAL = frozenset({"RPPS", "IDNPS"})


def professional(reference: Any, resolve: Resolve) -> ProfessionalFact | None:
    """Read who a reference to a Practitioner or PractitionerRole names.

    By the identifier in the reference itself, else by the resource that it points to. An RPPS and an IdNatPS are both
    accepted under either system, because senders confuse them [spec fhir-fr 1.2].
    """
    if not isinstance(reference, Mapping):
        return None
    found = _number([reference.get("identifier")])
    if found is None and isinstance(reference.get("reference"), str):
        target = resolve(reference["reference"])
        if target is not None:
            found = _number(target.get("identifier", ())) if target.get("resourceType") == "Practitioner" else None
            if target.get("resourceType") == "PractitionerRole":
                return professional(target.get("practitioner"), resolve)
    display = reference.get("display")
    return ProfessionalFact(identifier=found, display=display) if found or display else None


def _number(nodes: Any) -> IdentifierFact | None:
    for fact in identifiers([node for node in nodes if node is not None]):
        if system_named(fact.system, fact.kind) in _PROFESSIONAL:
            number = IdNatPs.from_wire(fact.value)
            # A situation of practice stands under the RPPS system too: it has ten digits and names no person.
            if number.rpps is not None:
                return IdentifierFact(system=str(SYSTEMS["IDNPS"].system), value=number.value, kind="IDNPS")
    return None


def moment(text: Any) -> datetime | date | None:
    """Read a date or dateTime: an instant when it has a time, else the wall date; partial dates say neither.

    Raises
    ------
    InvalidContent
        ``valeur-invalide``: in the first or last year of the calendar, whose ends stand on no wall clock of some zone.
    """
    if not isinstance(text, str) or len(text) < len("2026-03-19"):
        return None
    if text[:4] in ("0001", "9999"):
        raise InvalidContent("valeur-invalide", "Date hors du calendrier : les années vont de 0002 à 9998.")
    return date_interval(text)[0] if "T" in text else date.fromisoformat(text)


# Outward: what we write ourselves.


def without_empty(**elements: Any) -> dict[str, Any]:
    """Make an object of what is there; FHIR has no empty value [FHIR R4 json]. A trailing underscore is dropped."""
    return {
        name.rstrip("_"): value
        for name, value in elements.items()
        if value is not None and value not in ("", [], {}, ())
    }


def concept(system: str, code: str, display: str | None = None) -> dict[str, Any]:
    """Write a CodeableConcept of one coding."""
    return {"coding": [without_empty(system=system, code=code, display=display)]}


def identifier(name: str, value: str | None, *, system: str | None = None) -> dict[str, Any] | None:
    """Write an identifier of a kind that `gateway.identifiers.SYSTEMS` names; `None` without a value."""
    if not value:
        return None
    kind = SYSTEMS[name]
    return without_empty(
        use=kind.use,
        type=concept(kind.type_system, kind.type_code),
        system=system or kind.system,
        value=value,
    )


def refer(kind: str, key: object, said: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write a reference by id, type and, when there is one, business identifier; never with a copied name."""
    named = without_empty(system=said.get("system"), value=said.get("value")) if said else None
    return without_empty(reference=f"{kind}/{key}", type=kind, identifier=named)


def wall(moment_: datetime, zone: str) -> str:
    """Write an instant in the wall time of a zone, with its offset; in UTC where that has seconds, as before 1911."""
    local = moment_.astimezone(ZoneInfo(zone))
    offset = local.utcoffset()
    if offset is not None and offset.seconds % 60:
        return moment_.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return local.isoformat(timespec="seconds")


def _care() -> dict[str, Any]:
    care = terminology.concept("TRE_R213", "39")
    return concept(str(care.system), care.code, care.label)


#: TRE_R213#39, « Réunion de Concertation Pluridisciplinaire (RCP) ».
RCP_CARE = _care()
