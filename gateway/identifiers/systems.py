"""What FHIR, HL7 v2 and CDA call each identifier: one table [FR Core; IG annuaire; spec fhir-fr 0.4, annuaire §3]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gateway.identifiers.ins import InsAuthority

__all__ = ["FR_CORE_TYPES", "SYSTEMS", "V2_TYPES", "IdentifierSystem", "system_named"]

FR_CORE_TYPES = "https://hl7.fr/ig/fhir/core/CodeSystem/fr-core-cs-v2-0203"
"""FHIR code system of the French ``identifier.type`` codes."""

V2_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"
"""FHIR code system of HL7's own ``identifier.type`` codes."""


@dataclass(frozen=True, slots=True)
class IdentifierSystem:
    """How one kind of identifier is written.

    Parameters
    ----------
    system
        FHIR ``identifier.system`` that we write; None when the sender's configuration gives it (IPP, accession).
    oid
        OID for HL7 v2, CDA and XDS; None when no OID is published.
    type_system, type_code
        FHIR ``identifier.type.coding``.
    use
        FHIR ``identifier.use``; None when none is prescribed.
    also_read
        Other systems seen for the same thing, accepted when read.
    hl7v2_type
        CX-5 or XCN-13.
    """

    system: str | None
    oid: str | None
    type_system: str
    type_code: str
    use: str | None
    also_read: tuple[str, ...] = ()
    hl7v2_type: str | None = None


_IDNPS_OID = "1.2.250.1.71.4.2.1"
_IDNST_OID = "1.2.250.1.71.4.2.2"
_SIRENE = "https://sirene.fr"
_RFC_3986 = "urn:ietf:rfc:3986"


def _ins(authority: InsAuthority) -> IdentifierSystem:
    return IdentifierSystem(
        authority.system, authority.oid, FR_CORE_TYPES, authority.identifier_type, authority.use, hl7v2_type="INS"
    )


SYSTEMS: Mapping[str, IdentifierSystem] = MappingProxyType(
    {
        "INS-NIR": _ins(InsAuthority.NIR),
        "INS-NIA": _ins(InsAuthority.NIA),
        "INS-NIR-TEST": _ins(InsAuthority.TEST),
        "INS-NIR-DEMO": _ins(InsAuthority.DEMONSTRATION),
        "INS-C": _ins(InsAuthority.CALCULATED),
        "IPP": IdentifierSystem(None, None, V2_TYPES, "PI", "usual", hl7v2_type="PI"),
        "RRI": IdentifierSystem(None, None, V2_TYPES, "RRI", "secondary", hl7v2_type="RRI"),
        "RPPS": IdentifierSystem(
            "https://rpps.esante.gouv.fr",
            None,
            FR_CORE_TYPES,
            "RPPS",
            "official",
            also_read=("http://rpps.fr", "https://rpps.fr"),
            hl7v2_type="RPPS",
        ),
        "IDNPS": IdentifierSystem(
            f"urn:oid:{_IDNPS_OID}", _IDNPS_OID, FR_CORE_TYPES, "IDNPS", "official", hl7v2_type="IDNPS"
        ),
        "IDNST": IdentifierSystem(
            f"urn:oid:{_IDNST_OID}", _IDNST_OID, FR_CORE_TYPES, "IDNST", "official", hl7v2_type="IDNST"
        ),
        "FINEJ": IdentifierSystem(
            "https://finess.esante.gouv.fr",
            None,
            FR_CORE_TYPES,
            "FINEJ",
            None,
            also_read=("http://finess.sante.gouv.fr",),
        ),
        "FINEG": IdentifierSystem(
            "https://finess.esante.gouv.fr",
            None,
            FR_CORE_TYPES,
            "FINEG",
            None,
            also_read=("http://finess.sante.gouv.fr",),
        ),
        "SIREN": IdentifierSystem(_SIRENE, None, FR_CORE_TYPES, "SIREN", None),
        "SIRET": IdentifierSystem(_SIRENE, None, FR_CORE_TYPES, "SIRET", None),
        "FILL": IdentifierSystem(_RFC_3986, None, V2_TYPES, "FILL", "official"),
        "ACSN": IdentifierSystem(None, None, V2_TYPES, "ACSN", "usual", hl7v2_type="ACSN"),
        "RRC": IdentifierSystem("urn:oid:1.2.250.1.161.1.20.1.1", "1.2.250.1.161.1.20.1.1", V2_TYPES, "XX", None),
        "RCP-MANAGER": IdentifierSystem(
            "urn:oid:1.2.250.1.161.1.20.2.1", "1.2.250.1.161.1.20.2.1", V2_TYPES, "XX", None
        ),
        "RCP": IdentifierSystem("urn:oid:1.2.250.1.161.1.20.3.1", "1.2.250.1.161.1.20.3.1", V2_TYPES, "XX", None),
    }
)
"""By the name this project uses; for national identifiers it is the FR Core type code."""


def system_named(system: str, type_code: str | None = None) -> str | None:
    """Return the name in `SYSTEMS` of what a FHIR ``identifier`` is, or None.

    Several kinds share one system (FINESS of a legal or a geographic entity, SIREN and SIRET, the billing NIR and the
    INS): ``type_code`` decides. The billing NIR, type ``NH``, is never taken for an INS. [FR Core patient NSS]
    """
    if type_code == "NH":
        return None
    wanted = system.strip().rstrip("/")
    names = [name for name, facts in SYSTEMS.items() if wanted == facts.system or wanted in facts.also_read]
    typed = [name for name in names if SYSTEMS[name].type_code == type_code]
    return next(iter(typed or names), None)
