"""The pages of a care plan read from the model: its versions, the one in force in words, its draft as a form.

Promises: a draft is shown to who writes the plan only; whoever else sees the dossier reads the validated versions; each
answer comes with the line that names its person; what is read is the words of the document itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import msgspec
from sqlalchemy.orm import Session

from gateway.documents import pps_words
from gateway.model.audit import AuditFacts
from gateway.model.dossier import Dossier
from gateway.model.plan import CarePlan
from gateway.portal import dossiers, fiche_form, reports, words
from gateway.portal import views as v
from gateway.portal.forms import Faults
from gateway.rcp import pps, pps_draft
from gateway.rcp.access import Caller
from gateway.rcp.fiche import FicheRules, Statement, in_words
from gateway.rcp.fiche_fields import Section
from gateway.rcp.pps_content import PpsContent, decode
from gateway.rcp.step import Step

__all__ = ["changes_of", "differing", "download_name", "plan_page", "validation_page"]

_NO_RULES = FicheRules()


def changes_of(given: Mapping[str, str]) -> tuple[dict[str, object], Faults]:
    """Read the fields that a form held."""
    return fiche_form.changes_of(given, _NO_RULES, among=pps_draft.fields().values())


def plan_page(
    step: Step,
    caller: Caller,
    dossier_id: uuid.UUID,
    *,
    renews: bool = False,
    given: Mapping[str, str] | None = None,
    faults: Faults | None = None,
) -> tuple[v.Plan, list[AuditFacts]]:
    """Return the page.

    Parameters
    ----------
    renews
        Whether a further version is to be written.
    given, faults
        The form as it came back, when it was refused.
    """
    session = step.session
    row = dossiers.visible_dossier(session, caller, dossier_id)
    found, base = pps.versions(session, row.id), f"/dossiers/{row.id}/pps"
    writes, report = pps.entitled(session, caller, row), pps.followed(session, row.id)
    draft = pps.under_way(session, row.id) if writes else None
    current = found[0] if found else None
    shows = writes and report is not None and (draft is not None or current is None or renews or given is not None)
    sections: tuple[v.FicheSection, ...] = ()
    if shows and report is not None:
        source = "portail" if draft is not None or current is not None else "compte-rendu"
        said = pps.said(session, row.id, report)
        known = {key: Statement(value=value, source=source) for key, value in said.items()}
        sections = fiche_form.inputs(known, _NO_RULES, (), given, among=_asked(current))
    state = draft.state if draft is not None else current.state if current is not None else ""
    page = v.Plan(
        reference=row.reference,
        patient=words.patient_view(row.record, step.now.date(), row.partner.name if row.partner else ""),
        state=words.report_badge(state) if state else v.Badge("À rédiger"),
        back_url=f"/dossiers/{row.id}",
        action=base,
        sections=sections,
        version=pps.reading_of(session, row.id, report) if shows and report is not None else "",
        started=draft is not None,
        discard_url=f"{base}/abandon" if draft is not None else "",
        renew_url=f"{base}?nouvelle=1" if writes and report is not None and current is not None and not shows else "",
        parts=_parts(current.content) if current is not None and current.content is not None else (),
        versions=tuple(_version(row, one) for one in found),
        closed="" if shows or current is not None else _closed(writes=writes, reported=report is not None),
        errors=dict(faults or {}),
    )
    return page, [reports.read_line(caller, row, "CarePlan")]


def _asked(current: CarePlan | None) -> tuple[Section, ...]:
    """Sections of the form: a first version has no reason of update."""
    if current is not None:
        return pps_draft.sections()
    return tuple(
        msgspec.structs.replace(one, fields=tuple(field for field in one.fields if field.key != "motif"))
        for one in pps_draft.sections()
    )


def _closed(*, writes: bool, reported: bool) -> str:
    if not reported:
        return "Le PPS se rédige à partir du compte rendu validé."
    return "" if writes else "Le PPS n’est pas encore validé."


def _version(row: Dossier, one: CarePlan) -> v.ReportVersion:
    motif = one.draft.get("motif")
    return v.ReportVersion(
        number=one.version,
        badge=words.report_badge(one.state),
        at=words.local(one.validated_at or one.created_at, row.session.zone),
        by=words.formal_name(one.author),
        cda_url=f"/dossiers/{row.id}/pps/{one.version}.cda.xml",
        reason=in_words(pps_draft.fields()["motif"], motif) if motif else "",
    )


def _parts(content: bytes) -> tuple[v.PlanPart, ...]:
    return _said(decode(content))


def _said(content: PpsContent) -> tuple[v.PlanPart, ...]:
    made = pps_words.parts(content).values()
    read = (v.PlanPart(part.title, tuple((one.label, one.text) for one in part.read)) for part in made)
    return tuple(part for part in read if part.rows)


def validation_page(
    step: Step, caller: Caller, dossier_id: uuid.UUID, errors: Faults | None = None
) -> tuple[v.PlanValidation, list[AuditFacts]]:
    """Return what becomes final, before it does; the verbs say who may."""
    content = pps.content_to_be(step, dossier_id)
    session: Session = step.session
    row = dossiers.visible_dossier(session, caller, dossier_id)
    report, former = pps.followed(session, row.id), pps.in_force(session, row.id)
    page = v.PlanValidation(
        reference=row.reference,
        patient=words.patient_view(row.record, step.now.date(), row.partner.name if row.partner else ""),
        action=f"/dossiers/{row.id}/pps/validation",
        back_url=f"/dossiers/{row.id}/pps",
        parts=_said(content),
        version=pps.reading_of(session, row.id, report) if report is not None else "",
        replaces=former.version if former is not None else 0,
        errors=dict(errors or {}),
    )
    return page, [reports.read_line(caller, row, "CarePlan")]


def differing(known: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, str]:
    """Say, field by field, what the draft says now and the refused form did not."""
    found = {}
    for key, value in changes.items():
        if known.get(key) != value:
            field = pps_draft.fields()[key]
            said = in_words(field, known[key]) if key in known else "rien"
            found[key if field.kind != "groupe" else f"section-{_section(key)}"] = (
                f"{field.label} : le PPS dit maintenant « {said} »."
            )
    return found


def _section(key: str) -> str:
    return next(one.key for one in pps_draft.sections() if any(field.key == key for field in one.fields))


def download_name(reference: str, version: int, state: str) -> str:
    """Return the name to save a document under: never the patient's."""
    return f"pps-{reference}-v{version}{'-remplace' if state == 'remplace' else ''}"
