"""A validated care plan (PPS), from its frozen facts and its kept document to CarePlan, DocumentReference, Binary.

[FHIR R4 careplan, documentreference; IHE MHD; PDSm 3.1.1; spec cda-frcp 9; spec fhir-fr 1.19, 1.21]

Promises: nothing but the frozen facts and the kept bytes is said, as `gateway.fhir.translate.report` does; a draft is
never published; a version that was replaced says so and keeps its own bytes. Not promised in codes: whom the patient
may turn to, and why an update was made, which the document says.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from gateway.documents import pps
from gateway.fhir.document import instant
from gateway.fhir.translate import published
from gateway.fhir.translate.directory import practitioner_reference
from gateway.fhir.translate.dossier import patient_reference
from gateway.fhir.translate.elements import NAMESPACE, concept, refer, wall, without_empty
from gateway.model.plan import CarePlan
from gateway.rcp import french
from gateway.rcp.pps_content import PlannedCare, PpsContent, decode
from gateway.terminology import system_of_oid

__all__ = ["binary", "care_plan", "document_reference"]

Tree = dict[str, Any]

_TYPE: Final = concept("http://loinc.org", "18776-5", "Plan personnalisé de soins")
_CLASS: Final = concept(published.CLASS, "44", "Plan de soins, protocole de soins")
_FORMAT: Final = {
    "system": published.FORMAT,
    "code": "urn:asip:ci-sis:pps-cancer:2017",
    "display": "Programme personnalisé de soins cancer",
}
_STATUS: Final = {"valide": "current", "remplace": "superseded"}
_PLANNED: Final = {"valide": "active", "remplace": "revoked"}


def care_plan(plan: CarePlan, report_id: uuid.UUID | None) -> Tree | None:
    """CarePlan of one version, which follows the advice of the RCP; `None` for a draft.

    Parameters
    ----------
    report_id
        The version of the report that it follows.
    """
    if plan.content is None or plan.state not in _PLANNED:
        return None
    content = decode(plan.content)
    written = wall(content.written_at, content.report.zone)
    advised = report_id is not None and content.report.proposals
    return without_empty(
        resourceType="CarePlan",
        identifier=[{"system": f"{NAMESPACE}/pps", "value": f"{plan.set_id}/{plan.version}"}],
        basedOn=[refer("CarePlan", report_id)] if advised else None,
        replaces=[refer("CarePlan", plan.replaces_id)] if plan.replaces_id is not None else None,
        status=_PLANNED[plan.state],
        intent="plan",
        category=[_TYPE],
        title="Programme personnalisé de soins",
        subject=patient_reference(plan.dossier.record),
        period={"start": written},
        created=written,
        author=practitioner_reference(plan.author),
        supportingInfo=[refer("DocumentReference", plan.id)],
        activity=[_activity(one) for one in content.care],
        note=[{"text": _stopped(content)}] if content.stopped else None,
    )


def _activity(said: PlannedCare) -> Tree:
    period = without_empty(start=said.start or said.expected_from, end=said.end or said.expected_to)
    return {
        "detail": without_empty(
            kind="ServiceRequest",
            code=concept(system_of_oid(said.kind.system), said.kind.code, said.kind.label),
            status="completed" if said.done else "scheduled" if period else "not-started",
            doNotPerform=False,
            scheduledPeriod=period,
            description="\n".join(part for part in (said.text, said.comment) if part),
        )
    }


def _stopped(content: PpsContent) -> str:
    on = f" le {french.partial_date(content.stopped_on)}" if content.stopped_on else ""
    return f"Tous les traitements actifs ont été arrêtés{on}."


def document_reference(plan: CarePlan, sha1_base64: str, report_id: uuid.UUID | None) -> Tree | None:
    """DocumentReference of one version; `None` for a draft.

    Parameters
    ----------
    sha1_base64
        Of the kept document; XDS metadata ask for it.
    report_id
        The version of the report that it follows.
    """
    if plan.content is None or plan.state not in _STATUS:
        return None
    content = decode(plan.content)
    report, number = content.report, published.urn(content.document_id)
    written = wall(content.written_at, report.zone)
    followed = published.urn(report.document_id)
    return without_empty(
        resourceType="DocumentReference",
        masterIdentifier=number,
        identifier=[{"use": "official", **number}],
        status=_STATUS[plan.state],
        type=_TYPE,
        category=[_CLASS],
        subject=patient_reference(plan.dossier.record),
        date=instant(content.written_at),
        author=[practitioner_reference(plan.author)],
        description=f"PPS du {content.written_at.astimezone(report.tzinfo()):%d/%m/%Y}",
        securityLabel=published.labels(report.visibility),
        relatesTo=_replaces(plan, content),
        content=[
            {
                "attachment": without_empty(
                    contentType=pps.MIME_TYPE,
                    language="fr-FR",
                    url=f"Binary/{plan.id}",
                    size=plan.size_bytes,
                    hash=sha1_base64,
                    title="Programme personnalisé de soins",
                    creation=written,
                ),
                "format": _FORMAT,
            }
        ],
        context=without_empty(
            encounter=[refer("Encounter", plan.dossier_id)],
            # The act that it documents is its own making, as the header of the document says. [spec cda-frcp 9]
            period={"start": written},
            facilityType=published.frozen(report.meeting.place.facility),
            practiceSetting=published.SETTING,
            related=[
                published.order(plan.dossier.number),
                *([refer("DocumentReference", report_id, followed)] if report_id is not None else ()),
            ],
        ),
    )


def _replaces(plan: CarePlan, content: PpsContent) -> list[Tree] | None:
    if content.replaces is None or plan.replaces_id is None:
        return None
    former = published.urn(content.replaces.document_id)
    return [{"code": "replaces", "target": refer("DocumentReference", plan.replaces_id, former)}]


def binary(plan: CarePlan) -> Tree:
    """Binary of its document, without its data: the bytes stand in the blob store and are put in at the answer."""
    return {
        "resourceType": "Binary",
        "contentType": pps.MIME_TYPE,
        "securityContext": refer("DocumentReference", plan.id),
    }
