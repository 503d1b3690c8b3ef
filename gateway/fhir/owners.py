"""Whose each FHIR resource is: the one table of who may write what [spec fhir-fr 4.1].

Promises: `WRITABLE` names the types that a client may write, in the order in which a transaction carries them out: all
that have a table (the trail has none); `owner_of` says of one stored resource who alone writes it. Not promised: what
becomes of a write (`gateway.fhir.write`), or whether a verb takes it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

__all__ = ["DIRECTORY", "WRITABLE", "owner_of"]

#: Types that a client may write, in the order in which a transaction carries them out: who and where, the patient, the
#: meeting, the dossier, what is about it, and what is about all of these.
WRITABLE: tuple[str, ...] = (
    "Organization",
    "Practitioner",
    "PractitionerRole",
    "Location",
    "Endpoint",
    "HealthcareService",
    "Questionnaire",
    "Patient",
    "RelatedPerson",
    "CareTeam",
    "Schedule",
    "Slot",
    "Appointment",
    "Condition",
    "ServiceRequest",
    "QuestionnaireResponse",
    "Task",
    "Encounter",
    "Observation",
    "DiagnosticReport",
    "ImagingStudy",
    "CarePlan",
    "Composition",
    "Binary",
    "DocumentReference",
    "CommunicationRequest",
    "Communication",
    "Consent",
    "List",
    "Group",
    "Basic",
    "Subscription",
    "Provenance",
)

#: Roots that the national directory owns: a client's copy of what they stand behind is recognised and left aside.
DIRECTORY = frozenset({"Practitioner", "PracticeRole", "Organisation"})

_HOME = "la passerelle de la RCP"
# What stands behind a resource → who writes it.
_BEHIND: Mapping[str, str] = {
    "Practitioner": "l’annuaire national",
    "PracticeRole": "l’annuaire national",
    "Organisation": "l’annuaire national",
    "Rcp": _HOME,
    "RcpSession": _HOME,
    "Dossier": _HOME,
    "Contribution": "la passerelle qui envoie",
    "Message": "la passerelle qui envoie",
    "NotificationEntry": "la passerelle qui envoie",
    "Report": _HOME,
    "ReportForm": _HOME,
    "CarePlan": _HOME,
    "ReceivedDocument": _HOME,
    "Study": "la passerelle, à partir des images reçues",
}
# (type, what stands behind it) that its own organisation writes, through a verb.
_OWN = frozenset({("Patient", "PatientRecord"), ("ServiceRequest", "Dossier")})
# The same, where the verb itself says who may.
_BY_VERB = frozenset(
    {
        ("Task", "Dossier"),
        ("Appointment", "RcpSession"),
        ("Communication", "Contribution"),
        ("Composition", "Report"),
        ("DocumentReference", "ReceivedDocument"),
    }
)


def owner_of(kind: str, row: Any, partner_id: uuid.UUID) -> str | None:
    """Name who alone writes a stored resource, unless it is this organisation or the verb decides.

    Parameters
    ----------
    row
        Its current row (``root_kind``, ``partner_id``).
    """
    behind = (kind, row.root_kind)
    if behind in _BY_VERB:
        return None
    if row.root_kind is not None and behind not in _OWN:
        return _BEHIND.get(row.root_kind, "la passerelle")
    if row.partner_id is None:
        return "la passerelle"
    return None if row.partner_id == partner_id else "l’établissement qui l’a écrite"
