"""What the gateway knows of a meeting beside its sessions: its calendar, its openings, its usual members.

[FHIR R4 schedule, slot, careteam; spec fhir-fr 1.8, 1.9, 1.17, 2.1]
None of them carries a patient datum.
"""

from __future__ import annotations

from typing import Any

from gateway.fhir.translate.directory import organization_reference, practitioner_reference, rcp_number
from gateway.fhir.translate.elements import CANONICAL, CORE, NAMESPACE, RCP_CARE, concept, refer, wall, without_empty
from gateway.model.meeting import Rcp, RcpSession

__all__ = ["care_team", "schedule", "slot"]

Tree = dict[str, Any]

# State of a session → whether inscriptions are open.
_OPEN = {
    "prevue": "free",
    "ouverte": "free",
    "close": "busy",
    "reportee": "busy-unavailable",
    "annulee": "busy-unavailable",
}
_ROLES = {
    "membre": "Membre",
    "secretaire": "Secrétaire",
    "coordonnateur": "Coordonnateur",
    "administrateur": "Administrateur",
}


def schedule(row: Rcp) -> Tree:
    """Schedule: the calendar of an RCP; its service stands in the French extension (serviceType is forbidden)."""
    service = {
        "url": f"{CORE}/StructureDefinition/fr-core-service-type-duration",
        "extension": [{"url": "serviceType", "valueCodeableConcept": RCP_CARE}],
    }
    return {
        "resourceType": "Schedule",
        "extension": [service],
        "identifier": [{"use": "usual", "system": f"{NAMESPACE}/agenda", "value": row.national_number}],
        "active": True,
        "serviceCategory": [concept(f"{CANONICAL}/CodeSystem/rcp-categorie", "rcp", "Agenda de RCP")],
        "actor": [refer("HealthcareService", row.id, rcp_number(row))],
        "comment": f"Agenda de la RCP {row.title}",
    }


def slot(row: RcpSession) -> Tree:
    """Slot: the opening of a session for inscriptions."""
    return {
        "resourceType": "Slot",
        "identifier": [{"use": "usual", "system": f"{NAMESPACE}/creneau", "value": row.identifier}],
        "serviceType": [RCP_CARE],
        "schedule": refer("Schedule", row.rcp_id),
        "status": _OPEN[row.state],
        "start": wall(row.starts_at, row.zone),
        "end": wall(row.ends_at, row.zone),
    }


def care_team(row: Rcp) -> Tree:
    """CareTeam: the usual members of an RCP, without subject; who attended stands in each Encounter."""
    live = sorted((one for one in row.members if one.until is None), key=lambda one: (one.practitioner.idnps, one.role))
    return without_empty(
        resourceType="CareTeam",
        identifier=[{"system": f"{NAMESPACE}/equipe-rcp", "value": row.national_number}],
        status="active",
        category=[concept("http://loinc.org", "LA27978-8")],
        name=f"Composition habituelle de la RCP {row.title}",
        participant=[
            {
                "role": [concept(f"{CANONICAL}/CodeSystem/rcp-role", one.role, _ROLES[one.role])],
                "member": practitioner_reference(one.practitioner),
                "period": {"start": wall(one.since, row.zone)},
            }
            for one in live
        ],
        managingOrganization=[organization_reference(row.organisation)] if row.organisation else None,
    )
