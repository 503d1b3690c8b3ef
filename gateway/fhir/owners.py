"""Whose each FHIR type is: the one table of who may write what [spec fhir-fr 4.1].

Promises: `WRITABLE` names the types that a client may write, in the order in which a transaction carries them out;
`OWNERS` says of the others whose they are. Not promised: what becomes of a write (`gateway.fhir.write`).
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["OWNERS", "WRITABLE"]

#: Types that a client may write, in the order in which a transaction carries them out.
WRITABLE: tuple[str, ...] = (
    "Patient",
    "Condition",
    "Observation",
    "DiagnosticReport",
    "Consent",
    "Provenance",
    "ServiceRequest",
    "QuestionnaireResponse",
    "Task",
)

#: Whose the other types are; the text of the refusal.
OWNERS: Mapping[str, str] = {
    "RelatedPerson": "la passerelle",
    "HealthcareService": "la passerelle de la RCP",
    "Schedule": "la passerelle de la RCP",
    "Slot": "la passerelle de la RCP",
    "Appointment": "la passerelle de la RCP",
    "Encounter": "la passerelle de la RCP",
    "CareTeam": "la passerelle de la RCP",
    "CarePlan": "la passerelle de la RCP",
    "Questionnaire": "la passerelle de la RCP",
    "List": "la passerelle de la RCP",
    "Group": "la passerelle de la RCP",
    "Basic": "la passerelle de la RCP",
    "Composition": "la passerelle de la RCP",
    "DocumentReference": "la passerelle de la RCP",
    "Binary": "la passerelle de la RCP",
    "Communication": "la passerelle qui envoie",
    "CommunicationRequest": "la passerelle qui envoie",
    "ImagingStudy": "la passerelle, à partir des images reçues",
    "Endpoint": "la passerelle",
    "Location": "la passerelle de la RCP",
    "Practitioner": "l’annuaire national",
    "PractitionerRole": "l’annuaire national",
    "Organization": "l’annuaire national",
    "AuditEvent": "la passerelle, en lecture seule",
}
