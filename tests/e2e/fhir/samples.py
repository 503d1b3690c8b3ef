"""A hospital's messages, written by hand after the national examples [spec fhir-fr 3.6]; nobody here exists."""

from __future__ import annotations

import copy
import uuid
from typing import Any

from tests.world import DOMAIN

INS_TEST = "urn:oid:1.2.250.1.213.1.4.10"
INS = "279035121518989"
#: A name that no other text may hold: it must stay out of every log line and every refusal.
CANARY = "ZZCANARIQUE"
CORE = "https://hl7.fr/ig/fhir/core"
RCP_CARE = {
    "coding": [
        {
            "system": "https://mos.esante.gouv.fr/NOS/TRE_R213-ModePriseEnCharge/FHIR/TRE-R213-ModePriseEnCharge",
            "code": "39",
        }
    ]
}


def patient(
    ipp: str = "000003",
    *,
    domain: str = DOMAIN,
    ins: str | None = INS,
    status: str = "VALI",
    family: str = "PAT-TROIS",
    birth_date: str = "1979-03-28",
    treating: str | None = None,
) -> dict[str, Any]:
    identifiers: list[dict[str, Any]] = []
    if ins:
        identifiers.append(
            {
                "use": "official",
                "type": {"coding": [{"system": f"{CORE}/CodeSystem/fr-core-cs-v2-0203", "code": "INS-NIR-TEST"}]},
                "system": INS_TEST,
                "value": ins,
            }
        )
    identifiers.append(
        {
            "use": "usual",
            "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PI"}]},
            "system": domain,
            "value": ipp,
        }
    )
    tree: dict[str, Any] = {
        "resourceType": "Patient",
        "extension": [
            {
                "url": f"{CORE}/StructureDefinition/fr-core-identity-reliability",
                "extension": [
                    {
                        "url": "identityStatus",
                        "valueCoding": {"system": f"{CORE}/CodeSystem/fr-core-cs-v2-0445", "code": status},
                    }
                ],
            },
            {"url": "https://chu-x.example/fhir/poids-de-naissance", "valueDecimal": 3.10},
        ],
        "identifier": identifiers,
        "active": True,
        "name": [{"use": "official", "family": family, "given": ["DOMINIQUE"]}],
        "telecom": [{"system": "phone", "value": "0601020304"}],
        "gender": "female",
        "birthDate": birth_date,
    }
    if treating:
        tree["generalPractitioner"] = [
            {
                "type": "Practitioner",
                "identifier": {"system": "https://rpps.esante.gouv.fr", "value": treating},
            }
        ]
    return tree


def condition(subject: str, key: str = "T-1") -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "identifier": [{"system": "https://chu-x.example/ns/tumeur", "value": key}],
        "clinicalStatus": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]
        },
        "code": {
            "coding": [{"system": "https://smt.esante.gouv.fr/terminologie-cim-10", "code": "C50.4"}],
            "text": "Tumeur maligne du quadrant supéro-externe du sein",
        },
        "subject": {"reference": subject},
        "onsetDateTime": "2026-02-20",
    }


def request(subject: str, *, rcp: str, start: str, requester: str, tumour: str, number: str) -> dict[str, Any]:
    return {
        "resourceType": "ServiceRequest",
        "identifier": [
            {"system": "urn:ietf:rfc:3986", "value": number},
            {
                "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PLAC"}]},
                "system": "https://chu-x.example/ns/demande-rcp",
                "value": "DR-" + number[-6:],
            },
        ],
        "status": "active",
        "intent": "order",
        "code": copy.deepcopy(RCP_CARE),
        "subject": {"reference": subject},
        "occurrenceDateTime": start,
        "authoredOn": "2026-03-09T09:00:00+01:00",
        "requester": {
            "type": "Practitioner",
            "identifier": {"system": "urn:oid:1.2.250.1.71.4.2.1", "value": requester},
        },
        "performer": [
            {
                "type": "HealthcareService",
                "identifier": {"system": "urn:oid:1.2.250.1.161.1.20.3.1", "value": rcp},
            }
        ],
        "reasonReference": [{"reference": tumour}],
    }


def form(subject: str, based_on: str, *, question: str, key: str) -> dict[str, Any]:
    return {
        "resourceType": "QuestionnaireResponse",
        "identifier": {"system": "https://chu-x.example/ns/prefiche", "value": key},
        "basedOn": [{"reference": based_on}],
        "questionnaire": "https://rcp.example.org/fhir/Questionnaire/prefiche-rcp|1.0.0",
        "status": "completed",
        "subject": {"reference": subject},
        "authored": "2026-03-09T09:30:00+01:00",
        "item": [
            {"linkId": "motif", "item": [{"linkId": "motif.question", "answer": [{"valueString": question}]}]},
            {"linkId": "etat", "item": [{"linkId": "etat.oms", "answer": [{"valueInteger": 1}]}]},
        ],
    }


def task(subject: str, focus: str, key: str) -> dict[str, Any]:
    return {
        "resourceType": "Task",
        "identifier": [{"system": "https://chu-x.example/ns/tache", "value": key}],
        "basedOn": [{"reference": focus}],
        "status": "requested",
        "intent": "order",
        "focus": {"reference": focus},
        "for": {"reference": subject},
    }


def transaction(
    *,
    rcp: str,
    start: str,
    requester: str,
    treating: str | None,
    number: str | None = None,
    ipp: str = "000003",
    tumour: str = "T-1",
    **more: Any,
) -> dict[str, Any]:
    """The whole of act 1: patient, tumour, inscription, completed form and task."""
    number = number or f"urn:uuid:{uuid.uuid4()}"
    urls = [f"urn:uuid:3f2a0000-0000-4000-8000-00000000000{place}" for place in range(1, 6)]
    who, what, asked, filled, followed = urls
    key = number[-6:]

    def entry(
        url: str, resource: dict[str, Any], method: str, address: str, if_none_exist: str | None
    ) -> dict[str, Any]:
        request_: dict[str, Any] = {"method": method, "url": address}
        if if_none_exist:
            request_["ifNoneExist"] = if_none_exist
        return {"fullUrl": url, "resource": resource, "request": request_}

    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            entry(
                followed,
                task(who, asked, f"T-{key}"),
                "POST",
                "Task",
                f"identifier=https://chu-x.example/ns/tache|T-{key}",
            ),
            entry(who, patient(ipp, treating=treating, **more), "PUT", f"Patient?identifier={DOMAIN}%7C{ipp}", None),
            entry(
                what,
                condition(who, tumour),
                "POST",
                "Condition",
                f"identifier=https://chu-x.example/ns/tumeur|{tumour}",
            ),
            entry(
                filled,
                form(who, asked, question="Chimiothérapie néoadjuvante ou chirurgie première ?", key=f"F-{key}"),
                "POST",
                "QuestionnaireResponse",
                f"identifier=https://chu-x.example/ns/prefiche|F-{key}",
            ),
            entry(
                asked,
                request(who, rcp=rcp, start=start, requester=requester, tumour=what, number=number),
                "POST",
                "ServiceRequest",
                f"identifier=urn:ietf:rfc:3986|{number}",
            ),
        ],
    }
