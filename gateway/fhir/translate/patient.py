"""Patient (FR Core) to `PatientFacts`, and a record that another wire made to a Patient.

[FR Core patient and patient-INS, 2.0 to 2.3; spec fhir-fr 1.1]

The traps that this module exists for: ``VALI`` is the qualified identity in one list and only the checked one in the
other, so the system is read before the code; the billing NIR stands under the very OID of the INS, so the type is read
before the system; the official name holds the birth names, the usual one those in daily use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import InvalidContent
from gateway.fhir.translate.elements import (
    CORE,
    Resolve,
    codings,
    extension,
    identifier,
    identifiers,
    nowhere,
    professional,
    without_empty,
)
from gateway.identifiers import InsAuthority
from gateway.model.person import PatientRecord
from gateway.rcp.facts import IdentifierFact, IdentityFlag, IdentityStatus, NameFact, PatientFacts, Sex

__all__ = ["INS_SYSTEMS", "patient_facts", "patient_tree"]

Tree = Mapping[str, Any]

#: Systems under which a matricule INS may stand.
INS_SYSTEMS = frozenset(authority.system for authority in InsAuthority)

_SEX = {"male": Sex.MALE, "female": Sex.FEMALE}

# (end of the code system's URL, code) → status; the second list is that of FR Core 2.2 and later.
_STATUS: dict[tuple[str, str], IdentityStatus] = {
    ("fr-core-cs-v2-0445", "VALI"): IdentityStatus.QUALIFIEE,
    ("fr-core-cs-v2-0445", "PROV"): IdentityStatus.PROVISOIRE,
    ("fr-core-cs-fiabilite-identite", "VALI"): IdentityStatus.QUALIFIEE,
    ("fr-core-cs-fiabilite-identite", "PROV"): IdentityStatus.PROVISOIRE,
    ("fr-core-cs-identity-status", "PROV"): IdentityStatus.PROVISOIRE,
    ("fr-core-cs-identity-status", "RECUP"): IdentityStatus.RECUPEREE,
    ("fr-core-cs-identity-status", "VALI"): IdentityStatus.VALIDEE,
    ("fr-core-cs-identity-status", "QUAL"): IdentityStatus.QUALIFIEE,
}
_FLAGS = {"DOUT": IdentityFlag.DOUTEUSE, "FICT": IdentityFlag.FICTIVE, "HOMA": IdentityFlag.HOMONYME}
_RANK = list(IdentityStatus)


def patient_facts(tree: Tree, resolve: Resolve = nowhere) -> PatientFacts:
    """Read what one source says of one patient.

    Raises
    ------
    InvalidContent
        ``ins-non-qualifie`` (rule): an INS travels only with a qualified identity [FR Core fr-core-1].
    """
    status, flags = _reliability(tree)
    said = identifiers(tree.get("identifier"))
    ins = _ins(tree, said, status)
    birth = _name(tree, "official") or _name(tree, None)
    official: Tree = next((name for name in tree.get("name", ()) if name.get("use") == "official"), {})
    return PatientFacts(
        identifiers=tuple(fact for fact in said if fact.system not in INS_SYSTEMS),
        ins=ins,
        status=status,
        flags=flags,
        birth_name=birth or NameFact(),
        birth_given_names=next(
            (found.get("valueString") for found in extension(official, _core("fr-core-patient-birth-list-given-name"))),
            None,
        ),
        used_name=_name(tree, "usual"),
        sex=_SEX.get(tree.get("gender", ""), Sex.UNKNOWN),
        birth_date=tree.get("birthDate"),
        birth_place_insee=_birth_place(tree),
        treating_physician=next(
            (who for who in (professional(one, resolve) for one in tree.get("generalPractitioner", ())) if who), None
        ),
        active=tree.get("active", True),
    )


def _core(name: str) -> str:
    return f"{CORE}/StructureDefinition/{name}"


def _reliability(tree: Tree) -> tuple[IdentityStatus, frozenset[IdentityFlag]]:
    """Read the identity reliability extensions; doubtful or fictive forces provisional, as the lists require."""
    best = IdentityStatus.PROVISOIRE
    flags: set[IdentityFlag] = set()
    for reliability in extension(tree, _core("fr-core-identity-reliability")):
        for part in reliability.get("extension", ()):
            for coding in codings(part.get("valueCoding") or part.get("valueCodeableConcept")):
                code = coding.get("code", "")
                if part.get("url") in {"identityStatus", "comment"} and code in _FLAGS:
                    flags.add(_FLAGS[code])
                elif part.get("url") == "identityStatus":
                    status = _STATUS.get((str(coding.get("system", "")).rpartition("/")[2], code), best)
                    best = max(best, status, key=_RANK.index)
    if flags & {IdentityFlag.DOUTEUSE, IdentityFlag.FICTIVE}:
        best = IdentityStatus.PROVISOIRE
    return best, frozenset(flags)


def _ins(tree: Tree, said: tuple[IdentifierFact, ...], status: IdentityStatus) -> IdentifierFact | None:
    place = next(
        (
            index
            for index, node in enumerate(tree.get("identifier", ()))
            if node.get("system") in INS_SYSTEMS
            and node.get("value")
            and node.get("use") != "old"
            and not _billing(node)
        ),
        None,
    )
    if place is None:
        return None
    if status is not IdentityStatus.QUALIFIEE:
        raise InvalidContent(
            "ins-non-qualifie",
            "Le matricule INS ne peut pas être transmis : l’identité n’est pas qualifiée.",
            expression=f"Patient.identifier[{place}]",
            rule=True,
        )
    node = tree["identifier"][place]
    return next(fact for fact in said if (fact.system, fact.value) == (node["system"], node["value"]))


def _billing(node: Tree) -> bool:
    return any(coding.get("code") == "NH" for coding in codings(node.get("type")))


def _name(tree: Tree, use: str | None) -> NameFact | None:
    for name in tree.get("name", ()):
        if name.get("use") == use and (name.get("family") or name.get("given")):
            return NameFact(
                family=name.get("family"),
                given=tuple(given for given in name.get("given", ()) if given),
                prefix=next(iter(name.get("prefix", ())), None),
            )
    return None


def _birth_place(tree: Tree) -> str | None:
    """INSEE code of the commune or country of birth."""
    for place in extension(tree, "http://hl7.org/fhir/StructureDefinition/patient-birthPlace"):
        address = place.get("valueAddress", {})
        return next(
            (
                coding.get("code")
                for found in extension(address, _core("fr-core-address-insee-code"))
                for coding in codings(found.get("valueCoding"))
            ),
            None,
        )
    return None


_GENDER = {"M": "male", "F": "female", "U": "unknown"}
#: Status → code of fr-core-cs-v2-0445, the list of FR Core 2.1.0, which has no other two.
_CODES_OUT = {"qualifiee": "VALI"}


def patient_tree(record: PatientRecord) -> dict[str, Any]:
    """Write what a source said by a wire that is not FHIR; the INS only when its identity is qualified."""
    authority = InsAuthority.of(record.ins_system) if record.ins_system else None
    reliability = {
        "url": _core("fr-core-identity-reliability"),
        "extension": [
            {
                "url": "identityStatus",
                "valueCoding": {
                    "system": f"{CORE}/CodeSystem/fr-core-cs-v2-0445",
                    "code": _CODES_OUT.get(record.identity_status or "", "PROV"),
                },
            }
        ],
    }
    place = {
        "url": "http://hl7.org/fhir/StructureDefinition/patient-birthPlace",
        "valueAddress": {
            "extension": [
                {
                    "url": _core("fr-core-address-insee-code"),
                    "valueCoding": {
                        "system": "https://mos.esante.gouv.fr/NOS/TRE_R13-Commune/FHIR/TRE-R13-Commune",
                        "code": record.birth_place,
                    },
                }
            ]
        },
    }
    given_list = {
        "url": _core("fr-core-patient-birth-list-given-name"),
        "valueString": " ".join(record.given_names),
    }
    official = without_empty(
        extension=[given_list] if record.given_names else None,
        use="official",
        family=record.birth_family,
        given=[record.given] if record.given else None,
    )
    usual = without_empty(family=record.used_family, given=[record.used_given] if record.used_given else None)
    treating = identifier("IDNPS", record.treating_idnps)
    return without_empty(
        resourceType="Patient",
        extension=[reliability, *([place] if record.birth_place else [])],
        identifier=[
            said
            for said in (
                identifier(authority.identifier_type, record.ins_value)
                if authority is not None and record.ins_qualified
                else None,
                identifier("IPP", record.value, system=record.system),
            )
            if said
        ],
        active=record.active,
        name=[official, *([{"use": "usual", **usual}] if usual else [])],
        gender=_GENDER[record.sex],
        birthDate=record.birth_date,
        generalPractitioner=[without_empty(type="Practitioner", identifier=treating, display=record.treating_display)]
        if treating or record.treating_display
        else None,
    )
