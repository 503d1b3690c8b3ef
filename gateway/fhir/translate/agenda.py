"""What the gateway knows of a meeting beside its sessions: its calendar, openings and usual members, each agenda.

[FHIR R4 schedule, slot, careteam, list; spec fhir-fr 1.8, 1.9, 1.17, 1.27, 2.1, 2.2]
None of them carries a patient datum; an agenda says which inscriptions a session has, and is not for everybody.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from gateway.fhir.translate.directory import organization_reference, practitioner_reference, rcp_number, session_agenda
from gateway.fhir.translate.elements import CANONICAL, CORE, NAMESPACE, RCP_CARE, concept, refer, wall, without_empty
from gateway.model.meeting import Rcp, RcpSession
from gateway.rcp.dossier_states import LABELS

__all__ = ["Line", "care_team", "order_of_the_day", "schedule", "slot"]

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


class Line(NamedTuple):
    """One inscription of an agenda."""

    dossier_id: uuid.UUID
    number: str
    state: str
    registered_at: datetime


#: State of a dossier → flag of its line; what is withdrawn has none, what became of the discussion is no agenda's.
_FLAGS = {
    **{state: state for state in ("inscrit", "prefiche", "notifie", "reporte", "discute", "non-discute")},
    **dict.fromkeys(("cr-brouillon", "cr-valide", "envoye", "addendum", "correction"), "discute"),
}


def order_of_the_day(row: RcpSession, lines: Iterable[Line], changed: datetime | None) -> Tree:
    """List: the agenda of a session, its inscriptions in their order [spec fhir-fr 1.27].

    Parameters
    ----------
    lines
        In order; the withdrawn ones are left out here.
    changed
        When an inscription last came, moved or changed its state.
    """
    leads = [one.practitioner for one in row.rcp.members if one.role == "coordonnateur" and one.until is None]
    states = f"{CANONICAL}/CodeSystem/rcp-etat-dossier"
    return without_empty(
        resourceType="List",
        identifier=[session_agenda(row)],
        status="retired" if row.state == "annulee" else "current",
        mode="working",
        title=f"Ordre du jour de la RCP {row.rcp.title} du {row.on:%d/%m/%Y}",
        code=concept(f"{CANONICAL}/CodeSystem/rcp-liste", "ordre-du-jour", "Ordre du jour"),
        date=wall(changed, row.zone) if changed is not None else None,
        source=practitioner_reference(min(leads, key=lambda one: one.idnps)) if leads else None,
        orderedBy=concept("http://terminology.hl7.org/CodeSystem/list-order", "user", "Sorted by User"),
        entry=[
            {
                "flag": concept(states, _FLAGS[line.state], LABELS[_FLAGS[line.state]]),
                "date": wall(line.registered_at, row.zone),
                "item": refer("ServiceRequest", line.dossier_id, {"system": "urn:ietf:rfc:3986", "value": line.number}),
            }
            for line in lines
            if line.state in _FLAGS
        ],
    )
