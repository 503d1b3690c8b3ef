"""Professionals, structures, the RCP and its sessions, from canonical rows to FHIR.

[FR Core practitioner, practitioner-role, organization, healthcare-service, appointment; spec fhir-fr 1.2 to 1.10]
They carry no patient datum: any authenticated client may read them, and a session never names its patients.
"""

from __future__ import annotations

from typing import Any

from gateway import terminology
from gateway.fhir.translate.elements import (
    CANONICAL,
    CISIS,
    CORE,
    NAMESPACE,
    RCP_CARE,
    concept,
    identifier,
    refer,
    wall,
    without_empty,
)
from gateway.identifiers import SYSTEMS
from gateway.model.directory import Organisation, PracticeRole, Practitioner
from gateway.model.meeting import Rcp, RcpSession

__all__ = [
    "appointment",
    "healthcare_service",
    "organization",
    "practitioner",
    "practitioner_reference",
    "practitioner_role",
    "rcp_number",
    "session_agenda",
]

Tree = dict[str, Any]

_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_STATES = {
    "prevue": "booked",
    "ouverte": "arrived",
    "close": "fulfilled",
    "reportee": "cancelled",
    "annulee": "cancelled",
}


def _profile(name: str) -> dict[str, Any]:
    return {"profile": [f"{CORE}/StructureDefinition/{name}"]}


def _speciality(code: str | None) -> list[Tree] | None:
    if code is None:
        return None
    known = terminology.code_list("TRE_R38").get(code)
    return [concept(str(known.system), code, known.label)] if known else None


def practitioner(row: Practitioner) -> Tree:
    """Practitioner, named as the directory names him."""
    title = {"suffix": [row.title.upper()]} if row.title else {}
    given = {"given": [row.given]} if row.given else {}
    return without_empty(
        resourceType="Practitioner",
        meta=_profile("fr-core-practitioner"),
        identifier=[said for said in (identifier("IDNPS", row.idnps), identifier("RPPS", row.rpps)) if said],
        active=row.gone_on is None,
        name=[{"use": "official", "family": row.family, **given, **title}],
        qualification=[{"code": held[0]} for held in (_speciality(row.speciality),) if held],
    )


def practitioner_reference(row: Practitioner) -> Tree:
    """Reference to a professional by id and IdNatPS."""
    return refer("Practitioner", row.id, {"system": SYSTEMS["IDNPS"].system, "value": row.idnps})


def practitioner_role(row: PracticeRole) -> Tree:
    """PractitionerRole: one situation of practice."""
    return without_empty(
        resourceType="PractitionerRole",
        meta=_profile("fr-core-practitioner-role"),
        active=row.gone_on is None,
        practitioner=practitioner_reference(row.practitioner),
        organization=organization_reference(row.organisation) if row.organisation else None,
        specialty=_speciality(row.speciality),
    )


def organization(row: Organisation) -> Tree:
    """Organization by FINESS and national structure number."""
    address = without_empty(
        line=[row.address_line] if row.address_line else None, postalCode=row.postal_code, city=row.city
    )
    return without_empty(
        resourceType="Organization",
        meta=_profile("fr-core-organization"),
        identifier=[said for said in (identifier("IDNST", row.idnst), identifier("FINEG", row.finess)) if said],
        active=row.gone_on is None,
        name=row.name,
        telecom=[{"system": "phone", "value": row.phone}] if row.phone else None,
        address=[address] if address else None,
    )


def organization_reference(row: Organisation) -> Tree:
    """Reference to a structure by id and national number."""
    name, value = ("IDNST", row.idnst) if row.idnst else ("FINEG", row.finess)
    return refer("Organization", row.id, {"system": SYSTEMS[name].system, "value": value} if value else None)


def rcp_number(row: Rcp) -> Tree:
    """Identify an RCP by its national number."""
    return {"use": "official", "system": str(SYSTEMS["RCP"].system), "value": row.national_number}


def healthcare_service(row: Rcp) -> Tree:
    """HealthcareService: the RCP as a service that one may be inscribed to."""
    return without_empty(
        resourceType="HealthcareService",
        meta=_profile("fr-core-healthcare-service"),
        identifier=[rcp_number(row)],
        active=True,
        providedBy=organization_reference(row.organisation) if row.organisation else None,
        category=[concept(f"{CANONICAL}/CodeSystem/rcp-categorie", f"{row.kind}-{row.level}")],
        type=[RCP_CARE, concept("http://snomed.info/sct", "720006006", "Cancer care review")],
        name=row.title,
        characteristic=[concept(CISIS, row.nature)],
        telecom=[{"system": "other", "value": row.contact}] if row.contact else None,
        appointmentRequired=True,
    )


def session_agenda(row: RcpSession) -> Tree:
    """Identify the agenda of a session: by the number of the session, which is stable when the date moves."""
    return {"system": f"{NAMESPACE}/ordre-du-jour", "value": row.identifier}


def appointment(row: RcpSession) -> Tree:
    """Appointment: the session, without any patient [spec fhir-fr 1.10]."""
    participants = [
        without_empty(
            actor=refer("HealthcareService", row.rcp_id, rcp_number(row.rcp)), required="required", status="accepted"
        )
    ]
    participants.extend(
        {
            "type": [concept(_PARTICIPATION, "PPRF", "primary performer")],
            "actor": practitioner_reference(member.practitioner),
            "required": "required",
            "status": "accepted",
        }
        for member in sorted(row.rcp.members, key=lambda one: one.practitioner.idnps)
        if member.role == "coordonnateur" and member.until is None
    )
    return without_empty(
        resourceType="Appointment",
        identifier=[{"use": "usual", "system": f"{NAMESPACE}/session-rcp", "value": row.identifier}],
        status=_STATES[row.state],
        serviceType=[RCP_CARE],
        description=f"{row.rcp.title}, session du {row.on:%d/%m/%Y}",
        start=wall(row.starts_at, row.zone),
        end=wall(row.ends_at, row.zone),
        minutesDuration=int((row.ends_at - row.starts_at).total_seconds() // 60),
        supportingInformation=[refer("List", row.id, session_agenda(row))],
        participant=participants,
    )
