"""The least that R4 lets each type say [FHIR R4 resourcelist], written by hand from the element tables; nobody exists.

A reference names what `Known` holds: a type that only the gateway writes, or that needs another first, is referred to
by the id that the test was given.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from tests.e2e.fhir import samples

Tree = dict[str, Any]
#: type → ``Type/id`` of one that exists.
Known = Mapping[str, str]

KEYS = "https://chu-x.example/ns/essai"
CODE = {"coding": [{"system": "https://chu-x.example/ns/codes", "code": "essai"}], "text": "Essai"}
INSTANT = "2026-03-09T09:00:00.000+01:00"


def _to(known: Known, kind: str) -> Tree:
    return {"reference": known.get(kind, f"{kind}/{uuid.UUID(int=0)}")}


_BODIES: Mapping[str, Callable[[Known], Tree]] = {
    "RelatedPerson": lambda known: {"patient": _to(known, "Patient")},
    "Practitioner": lambda _: {"active": True, "name": [{"family": "ESSAI"}]},
    "PractitionerRole": lambda known: {"practitioner": _to(known, "Practitioner")},
    "Organization": lambda _: {"name": "Organisation d’essai"},
    "Location": lambda _: {"name": "Salle d’essai"},
    "Endpoint": lambda _: {
        "status": "active",
        "connectionType": {
            "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type",
            "code": "dicom-wado-rs",
        },
        "payloadType": [CODE],
        "address": "https://pacs.chu-x.example/wado",
    },
    "HealthcareService": lambda _: {"name": "Consultation d’essai"},
    "Schedule": lambda known: {"actor": [_to(known, "HealthcareService")]},
    "Slot": lambda known: {
        "schedule": _to(known, "Schedule"),
        "status": "free",
        "start": INSTANT,
        "end": "2026-03-09T10:00:00.000+01:00",
    },
    "Appointment": lambda known: {
        "status": "proposed",
        "participant": [{"actor": _to(known, "HealthcareService"), "status": "needs-action"}],
    },
    "Encounter": lambda known: {
        "status": "planned",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
        "subject": _to(known, "Patient"),
    },
    "CareTeam": lambda known: {"status": "active", "subject": _to(known, "Patient")},
    "CarePlan": lambda known: {"status": "active", "intent": "plan", "subject": _to(known, "Patient")},
    "Questionnaire": lambda _: {
        "url": f"https://chu-x.example/Questionnaire/{uuid.uuid4()}",
        "status": "draft",
        "item": [{"linkId": "1", "text": "Question", "type": "string"}],
    },
    "QuestionnaireResponse": lambda known: {"status": "in-progress", "subject": _to(known, "Patient")},
    "Condition": lambda known: {"subject": _to(known, "Patient"), "code": CODE},
    "Observation": lambda known: {"status": "final", "code": CODE, "subject": _to(known, "Patient")},
    "DiagnosticReport": lambda known: {"status": "final", "code": CODE, "subject": _to(known, "Patient")},
    "Communication": lambda known: {"status": "completed", "subject": _to(known, "Patient")},
    "CommunicationRequest": lambda known: {"status": "active", "subject": _to(known, "Patient")},
    "ImagingStudy": lambda known: {"status": "available", "subject": _to(known, "Patient")},
    "DocumentReference": lambda known: {
        "status": "current",
        "subject": _to(known, "Patient"),
        "content": [{"attachment": {"contentType": "text/plain", "data": "RXNzYWk="}}],
    },
    "Composition": lambda known: {
        "status": "preliminary",
        "type": CODE,
        "subject": _to(known, "Patient"),
        "date": "2026-03-09",
        "author": [_to(known, "Practitioner")],
        "title": "Essai",
    },
    "List": lambda known: {"status": "current", "mode": "working", "subject": _to(known, "Patient")},
    "Group": lambda _: {"type": "person", "actual": True},
    "Consent": lambda known: {
        "status": "active",
        "scope": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]
        },
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": _to(known, "Patient"),
        "policyRule": {"text": "Information du patient"},
    },
    "Provenance": lambda known: {
        "target": [_to(known, "Patient")],
        "recorded": INSTANT,
        "agent": [{"who": _to(known, "Practitioner")}],
    },
    "Basic": lambda known: {"code": CODE, "subject": _to(known, "Patient")},
    "Subscription": lambda _: {
        "status": "off",
        "reason": "Suivi d’essai",
        "criteria": "Task?status=completed",
        "channel": {"type": "rest-hook", "endpoint": "https://dpi.chu-x.example/fhir-hook"},
    },
    "Binary": lambda _: {"contentType": "text/plain", "data": "RXNzYWk="},
    "AuditEvent": lambda known: {
        "type": {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"},
        "recorded": INSTANT,
        "agent": [{"requestor": True, "who": _to(known, "Practitioner")}],
        "source": {"observer": _to(known, "Organization")},
    },
    "ServiceRequest": lambda known: samples.request(
        known["Patient"],
        rcp=known["rcp"],
        start="2026-03-19T14:00:00+01:00",
        requester=known["requester"],
        tumour=known["Condition"],
        number=f"urn:uuid:{uuid.uuid4()}",
    ),
    "Task": lambda known: samples.task(known["Patient"], known["ServiceRequest"], uuid.uuid4().hex),
}
#: Types whose R4 definition has one identifier, none, or is handled above.
_ONE_IDENTIFIER = frozenset({"QuestionnaireResponse", "Composition"})
_NO_IDENTIFIER = frozenset({"Provenance", "Binary", "AuditEvent", "Subscription"})

#: Every type that this table can make.
KINDS: tuple[str, ...] = ("Patient", *_BODIES)


def fill(ehr: httpx.Client, rcp: str, requester: str) -> dict[str, str]:
    """Create one of each type that a client may create; return where they are, with what an inscription needs."""
    known = {"rcp": rcp, "requester": requester}
    first = ["Patient", "Condition", "ServiceRequest"]
    for kind in [*first, *(one for one in KINDS if one not in {*first, "Task"})]:
        made = ehr.post(kind, json=resource(kind, known))
        if made.status_code == 201:
            known[kind] = f"{kind}/{made.json()['id']}"
        else:
            assert made.status_code in {403, 404, 405}, (kind, made.text)
    # The dossier of an inscription has its task from the start, under the same id.
    return known | {"Task": known["ServiceRequest"].replace("ServiceRequest", "Task")}


def resource(kind: str, known: Known, key: str | None = None) -> Tree:
    """Make one; ``key`` is the value of its identifier in `KEYS` (of a Patient: its IPP)."""
    key = key or uuid.uuid4().hex
    if kind == "Patient":
        return samples.patient(key, ins=None, family="ESSAI")
    tree = {"resourceType": kind, **_BODIES[kind](known)}
    if kind in {"ServiceRequest", "Task"} or kind in _NO_IDENTIFIER:
        return tree
    identifier = {"system": KEYS, "value": key}
    return tree | {"identifier": identifier if kind in _ONE_IDENTIFIER else [identifier]}
