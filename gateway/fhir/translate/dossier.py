"""A dossier and what happens to it, from canonical rows to FHIR.

[spec fhir-fr 1.11 to 1.13, 1.22, 2.1, 2.2; FHIR R4 task, servicerequest, encounter, communication]

`STATES` is the state table of the specification: what each resource says in each state. The ServiceRequest belongs to
its requester: of it the gateway changes only the status, the occurrence and the numbers that it lacked.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from gateway.fhir.document import instant
from gateway.fhir.translate.directory import (
    organization_reference,
    practitioner_reference,
    rcp_number,
)
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
from gateway.model.dossier import Contribution, Dossier
from gateway.model.message import Message, NotificationEntry
from gateway.model.person import PatientRecord
from gateway.rcp.dossier_states import LABELS
from gateway.rcp.notice_rules import REASONS
from gateway.rcp.patient_copy import TO_PATIENT

__all__ = [
    "NO_ADDRESS",
    "STATES",
    "contribution",
    "encounter",
    "message",
    "notification",
    "patient_reference",
    "service_request",
    "task",
    "untold",
]

Tree = dict[str, Any]


class _Said(NamedTuple):
    """What each resource says in one state; `None` where it does not exist."""

    request: str
    task: str
    encounter: str | None


STATES: dict[str, _Said] = {
    "inscrit": _Said("active", "received", None),
    "prefiche": _Said("active", "accepted", "planned"),
    "notifie": _Said("active", "accepted", "planned"),
    "discute": _Said("active", "in-progress", "finished"),
    "cr-brouillon": _Said("active", "in-progress", "finished"),
    "cr-valide": _Said("completed", "in-progress", "finished"),
    "envoye": _Said("completed", "completed", "finished"),
    "addendum": _Said("completed", "completed", "finished"),
    "correction": _Said("completed", "completed", "finished"),
    "reporte": _Said("active", "on-hold", "planned"),
    "refuse": _Said("active", "rejected", "cancelled"),
    "annule": _Said("revoked", "cancelled", "cancelled"),
    "non-discute": _Said("active", "on-hold", "cancelled"),
}

#: Codes of the register: nothing was sent, because there is no address to send to.
NO_ADDRESS = frozenset({"NON_MSS", "NON_ADRESSE", "NON_DEMAT"})
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_MAIL = concept(
    "https://mos.esante.gouv.fr/NOS/TRE_R200-CanalCommunication/FHIR/TRE-R200-CanalCommunication",
    "3",
    "courrier électronique",
)
# What became of a message → Communication.status; the register itself is `gateway.model.message`.
_SENT = {
    "en-attente": "preparation",
    "envoye": "in-progress",
    "accepte": "completed",
    "retarde": "in-progress",
    "relaye": "in-progress",
    "sans-nouvelle": "unknown",
    "supprime": "completed",
    "traite": "completed",
    "lu": "completed",
    "refuse": "not-done",
    "rejete": "not-done",
    "parque": "stopped",
    "annule": "entered-in-error",
}


def patient_reference(record: PatientRecord) -> Tree:
    """Reference to what one source says of a patient, by that source's own identifier."""
    return refer("Patient", record.id, {"system": record.system, "value": record.value})


def service_request(row: Dossier) -> Tree:
    """ServiceRequest: the inscription; whole when the portal made it, laid over the requester's own otherwise."""
    asked = row.reason_code or row.reason_text
    reason = without_empty(
        coding=[{"system": CISIS, "code": row.reason_code}] if row.reason_code else None, text=row.reason_text
    )
    return without_empty(
        resourceType="ServiceRequest",
        identifier=[
            said
            for said in (
                identifier("FILL", row.number),
                without_empty(system=row.placer_system, value=row.placer_value) if row.placer_system else None,
            )
            if said
        ],
        status=STATES[row.state].request,
        intent="order",
        category=[concept("http://snomed.info/sct", "720006006", "Cancer care review")],
        priority="urgent" if row.urgent else "routine",
        code=RCP_CARE,
        subject=patient_reference(row.record),
        occurrenceDateTime=wall(row.session.starts_at, row.session.zone),
        authoredOn=wall(row.requested_at or row.registered_at, row.session.zone),
        requester=practitioner_reference(row.requester) if row.requester else None,
        performer=[refer("HealthcareService", row.session.rcp_id, rcp_number(row.session.rcp))],
        reasonCode=[reason] if asked else None,
        note=[{"text": row.question}] if row.question else None,
    )


def task(row: Dossier, *, reports: list[str] | None = None) -> Tree:
    """Task: where the dossier stands, owned by the home gateway of the RCP."""
    rcp = row.session.rcp
    said = STATES[row.state]
    kinds = f"{CANONICAL}/CodeSystem"
    return without_empty(
        resourceType="Task",
        identifier=[{"system": f"{NAMESPACE}/dossier-rcp", "value": row.reference}],
        basedOn=[refer("ServiceRequest", row.id, {"system": "urn:ietf:rfc:3986", "value": row.number})],
        groupIdentifier={"system": "urn:ietf:rfc:3986", "value": row.number},
        status=said.task,
        businessStatus=concept(f"{kinds}/rcp-etat-dossier", row.state, LABELS[row.state]),
        intent="order",
        priority="urgent" if row.urgent else "routine",
        code=concept("http://hl7.org/fhir/CodeSystem/task-code", "fulfill", "Fulfill the focal request"),
        focus=refer("ServiceRequest", row.id, {"system": "urn:ietf:rfc:3986", "value": row.number}),
        for_=patient_reference(row.record),
        encounter=refer("Encounter", row.id) if said.encounter else None,
        authoredOn=wall(row.registered_at, row.session.zone),
        requester=organization_reference(row.organisation) if row.organisation else None,
        owner=organization_reference(rcp.organisation) if rcp.organisation else None,
        input=[
            {
                "type": concept(f"{kinds}/rcp-entree", "session"),
                "valueReference": refer(
                    "Appointment",
                    row.session_id,
                    {"system": f"{NAMESPACE}/session-rcp", "value": row.session.identifier},
                ),
            }
        ],
        output=[
            {"type": concept(f"{kinds}/rcp-sortie", "cr"), "valueReference": refer("DocumentReference", key)}
            for key in reports or ()
        ],
    )


def encounter(row: Dossier) -> Tree | None:
    """Encounter: the discussion of one patient, once it is planned; class VR as in the national document."""
    status = STATES[row.state].encounter
    if status is None:
        return None
    rcp = row.session.rcp
    return without_empty(
        resourceType="Encounter",
        meta={"profile": [f"{CORE}/StructureDefinition/fr-core-encounter"]},
        identifier=[
            {
                "type": concept(f"{CORE}/CodeSystem/fr-core-cs-identifier-type", "VN"),
                "system": f"{NAMESPACE}/discussion",
                "value": row.reference,
            }
        ],
        status=status,
        class_={"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "VR", "display": "virtual"},
        type=[RCP_CARE],
        subject=patient_reference(row.record),
        basedOn=[refer("ServiceRequest", row.id, {"system": "urn:ietf:rfc:3986", "value": row.number})],
        participant=[
            {
                "type": [concept(_PARTICIPATION, "REF", "referrer")],
                "individual": practitioner_reference(row.requester),
            }
        ]
        if row.requester
        else None,
        appointment=[
            refer(
                "Appointment",
                row.session_id,
                {"system": f"{NAMESPACE}/session-rcp", "value": row.session.identifier},
            )
        ],
        period={
            "start": wall(row.session.starts_at, row.session.zone),
            "end": wall(row.session.ends_at, row.session.zone),
        },
        serviceProvider=organization_reference(rcp.organisation) if rcp.organisation else None,
    )


def contribution(row: Contribution) -> Tree:
    """Communication: what the treating physician added; text, author's name and speciality are frozen with it."""
    dossier = row.dossier
    author = without_empty(
        **practitioner_reference(row.author),
        display=f"{row.author_name}, {row.author_speciality}" if row.author_speciality else row.author_name,
    )
    at = wall(row.at, dossier.session.zone)
    return without_empty(
        resourceType="Communication",
        identifier=[{"system": f"{NAMESPACE}/contribution", "value": str(row.id)}],
        basedOn=[refer("ServiceRequest", dossier.id, {"system": "urn:ietf:rfc:3986", "value": dossier.number})],
        partOf=[refer("Task", dossier.id)],
        status="completed",
        category=[concept(f"{CANONICAL}/CodeSystem/rcp-message", "contribution", "Contribution d’un médecin")],
        subject=patient_reference(dossier.record),
        sent=at,
        received=at,
        sender=author,
        payload=[{"contentString": row.text}] if row.text else None,
    )


def notification(row: NotificationEntry, dossier: Dossier, recipient: Tree) -> Tree:
    """CommunicationRequest: the order to tell one physician; what became of it is the Communication of its message."""
    rcp = dossier.session.rcp
    sender = organization_reference(rcp.organisation) if rcp.organisation else None
    done = row.message_id is not None or row.code in NO_ADDRESS
    return without_empty(
        resourceType="CommunicationRequest",
        identifier=[{"system": f"{NAMESPACE}/notification", "value": str(row.id)}],
        basedOn=[_inscribed(dossier)],
        status="completed" if done else "active" if row.code == "PREVUE" else "revoked",
        category=[
            concept("http://terminology.hl7.org/CodeSystem/communication-category", "notification", "Notification"),
            concept(f"{CANONICAL}/CodeSystem/rcp-message", row.kind.partition(".")[0].lower()),
        ],
        medium=[_MAIL],
        subject=patient_reference(dossier.record),
        about=[refer("Appointment", row.session_id)],
        authoredOn=wall(row.decided_at, dossier.session.zone),
        requester=sender,
        recipient=[recipient],
        sender=sender,
    )


def untold(row: NotificationEntry, dossier: Dossier, recipient: Tree) -> Tree:
    """Communication: what could not be sent, because its recipient has no address [spec fhir-fr 2.2]."""
    rcp = dossier.session.rcp
    return without_empty(
        resourceType="Communication",
        identifier=[{"system": f"{NAMESPACE}/notification", "value": str(row.id)}],
        basedOn=[_ordered(row.id), _inscribed(dossier)],
        partOf=[refer("Task", dossier.id)],
        status="not-done",
        statusReason=concept(f"{CANONICAL}/CodeSystem/rcp-notification", row.code, REASONS[row.code]),
        category=[concept(f"{CANONICAL}/CodeSystem/rcp-message", row.kind.lower())],
        medium=[_MAIL],
        subject=patient_reference(dossier.record),
        recipient=[recipient],
        sender=organization_reference(rcp.organisation) if rcp.organisation else None,
    )


def _ordered(key: object) -> Tree:
    return refer("CommunicationRequest", key, {"system": f"{NAMESPACE}/notification", "value": str(key)})


def _inscribed(dossier: Dossier) -> Tree:
    return refer("ServiceRequest", dossier.id, {"system": "urn:ietf:rfc:3986", "value": dossier.number})


def message(
    row: Message,
    dossier: Dossier,
    recipient: Tree | None,
    *,
    ordered: object | None = None,
    received: datetime | None = None,
) -> Tree:
    """Communication: one message of the register, without its text.

    Parameters
    ----------
    ordered
        Id of the line of the register that ordered it: its CommunicationRequest.
    received
        When a report first said that it arrived.
    """
    if recipient is None and row.kind in TO_PATIENT:
        recipient = patient_reference(dossier.record)
    return without_empty(
        resourceType="Communication",
        identifier=[
            said
            for said in (
                {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{row.id}"},
                {"system": f"{NAMESPACE}/message-id", "value": row.message_id} if row.message_id else None,
            )
            if said
        ],
        basedOn=[*([_ordered(ordered)] if ordered is not None else []), _inscribed(dossier)],
        partOf=[refer("Task", dossier.id)],
        status=_SENT.get(row.state, "unknown"),
        category=[concept(f"{CANONICAL}/CodeSystem/rcp-message", row.kind.lower())],
        medium=[_MAIL] if row.channel == "mssante" else None,
        subject=patient_reference(dossier.record),
        sent=instant(row.done_at) if row.done_at else None,
        received=instant(received) if received is not None else None,
        recipient=[recipient] if recipient else None,
        sender=organization_reference(dossier.session.rcp.organisation) if dossier.session.rcp.organisation else None,
    )
