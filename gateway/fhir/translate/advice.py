"""What a validated report says in resources of its own: whether the quorum was reached, and the advice.

[FHIR R4 observation, careplan; CI-SIS FRCP 2022.01; spec fhir-fr 1.16, 1.21, 2.1]

Promises: nothing but the frozen facts of the version is said, as `gateway.fhir.translate.report` does; a draft says
nothing.
"""

from __future__ import annotations

from typing import Any

from gateway.fhir.translate.directory import practitioner_reference
from gateway.fhir.translate.dossier import patient_reference
from gateway.fhir.translate.elements import CANONICAL, CISIS, NAMESPACE, concept, refer, wall, without_empty
from gateway.model.report import Report
from gateway.rcp.report_content import Treatment, decode
from gateway.terminology import system_of_oid

__all__ = ["care_plan", "quorum"]

Tree = dict[str, Any]

_QUORUM = {"atteint": "ORG-126", "non-atteint": "ORG-133", "inconnu": "GEN-010"}
_OBSERVED = {"valide": "final", "remplace": "final", "annule": "entered-in-error"}
_PLANNED = {"valide": "active", "remplace": "revoked", "annule": "entered-in-error"}


def quorum(report: Report) -> Tree | None:
    """Observation: whether the quorum was reached at the discussion; `None` for a draft."""
    if report.content is None or report.state not in _OBSERVED:
        return None
    content = decode(report.content)
    return without_empty(
        resourceType="Observation",
        identifier=[{"system": f"{NAMESPACE}/quorum", "value": f"{report.set_id}/{report.version}"}],
        status=_OBSERVED[report.state],
        category=[concept("http://terminology.hl7.org/CodeSystem/observation-category", "procedure", "Procedure")],
        code=concept(CISIS, "ORG-125"),
        subject=patient_reference(report.dossier.record),
        encounter=refer("Encounter", report.dossier_id),
        effectiveDateTime=wall(content.meeting.start, content.zone),
        performer=[practitioner_reference(report.validator)] if report.validator else None,
        valueCodeableConcept=concept(CISIS, _QUORUM[content.quorum]),
    )


def care_plan(report: Report) -> Tree | None:
    """CarePlan: the advice of the RCP, a proposal; `None` for a draft, or when nothing is proposed."""
    if report.content is None or report.state not in _PLANNED:
        return None
    content = decode(report.content)
    if not content.proposals:
        return None
    on = content.meeting.start.astimezone(content.tzinfo())
    texts = [one.text for one in sorted(content.proposals, key=lambda one: one.rank) if one.text]
    return without_empty(
        resourceType="CarePlan",
        identifier=[{"system": f"{NAMESPACE}/avis", "value": f"{report.set_id}/{report.version}"}],
        replaces=[refer("CarePlan", report.replaces_id)] if report.replaces_id is not None else None,
        status=_PLANNED[report.state],
        intent="proposal",
        category=[concept(f"{CANONICAL}/CodeSystem/rcp-plan", "avis-rcp", "Avis de RCP")],
        title=f"Avis de la RCP {content.meeting.rcp} du {on:%d/%m/%Y}",
        description="\n".join(texts),
        subject=patient_reference(report.dossier.record),
        encounter=refer("Encounter", report.dossier_id),
        created=wall(content.written_at, content.zone),
        author=practitioner_reference(report.validator) if report.validator else None,
        careTeam=[refer("CareTeam", report.dossier.session.rcp_id)],
        activity=[_activity(one) for proposal in content.proposals for one in proposal.treatments],
    )


def _activity(said: Treatment) -> Tree:
    period = without_empty(start=said.start, end=said.end)
    return {
        "detail": without_empty(
            kind="ServiceRequest",
            code=concept(system_of_oid(said.kind.system), said.kind.code, said.kind.label),
            status="not-started",
            doNotPerform=False,
            scheduledPeriod=period or None,
            description=said.text,
        )
    }
