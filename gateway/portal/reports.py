"""The report's pages read from the model: draft, versions, sendings, and what validating would make final.

Promises: a draft is shown to who may write it only; anybody else who sees the dossier reads validated versions; whoever
does not see the dossier gets its 404; each answer comes with the audit line that names its person.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.errors import Conflict
from gateway.model.audit import AuditFacts
from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.message import Message, Receipt
from gateway.model.report import Report
from gateway.portal import dossiers, fiche, meetings, report_form, words
from gateway.portal import views as v
from gateway.portal.register import label
from gateway.rcp import access, mailboxes, report, report_reading, report_sending
from gateway.rcp.access import Caller
from gateway.rcp.report_draft import ReportDraft
from gateway.rcp.report_draft import read as read_draft
from gateway.rcp.step import Step

__all__ = [
    "current",
    "download_name",
    "draft_of",
    "read_line",
    "recipient_lines",
    "report_page",
    "validation_page",
]

_DRAFTABLE = frozenset({"prefiche", "notifie", "reporte", "discute", "cr-brouillon"})
#: State of a version that is not in force → what the name of its file ends with.
_NO_LONGER = {"remplace": "-remplace", "annule": "-annule"}
_HELD = frozenset({"ouverte", "close"})


def draft_of(session: Session, dossier: Dossier) -> Report | None:
    """Return the draft under way, if any."""
    return session.scalars(
        select(Report).where(Report.dossier_id == dossier.id, Report.state == "brouillon")
    ).one_or_none()


def current(session: Session, dossier: Dossier) -> Report | None:
    """Return the version in force, if any."""
    return session.scalars(
        select(Report).where(Report.dossier_id == dossier.id, Report.state == "valide").order_by(Report.version.desc())
    ).first()


def report_page(
    session: Session, caller: Caller, now: datetime, dossier_id: uuid.UUID, form: v.ReportForm | None = None
) -> tuple[v.Report, list[AuditFacts]]:
    """Return the page of the report.

    Parameters
    ----------
    form
        The draft's form as it came back, when it was refused.
    """
    row = dossiers.visible_dossier(session, caller, dossier_id)
    writes = access.coordinates(session, caller, row.session.rcp_id)
    draft, in_force = draft_of(session, row), current(session, row)
    if form is None and writes:
        form = _form(row, draft, in_force)
    said = read_draft(draft.draft) if draft is not None and writes else _said(in_force)
    versions = fiche.report_versions(session, row)
    base = f"/dossiers/{row.id}/compte-rendu"
    ends = writes and in_force is not None and draft is None
    withdrawn = report_reading.latest(session, row.id) if in_force is None else None
    page = v.Report(
        reference=row.reference,
        patient=words.patient_view(row.record, now.date(), row.partner.name if row.partner else ""),
        slot=words.slot(row.session),
        state=words.report_badge("brouillon")
        if draft is not None and writes
        else words.report_badge(in_force.state)
        if in_force is not None
        else words.report_badge(withdrawn.state)
        if withdrawn is not None
        else v.Badge("À rédiger"),
        dossier_url=f"/dossiers/{row.id}",
        question=row.question or "",
        proposal=said.proposal or "",
        alternatives="\n".join(said.alternatives),
        guideline=said.guideline or "",
        contributions=fiche.contributions(
            row, caller, organises=bool(access.roles_in(session, caller, row.session.rcp_id))
        ),
        attendees=tuple(meetings.attendee_line(one) for one in row.session.attendances),
        quorum=meetings.quorum_view(row.session),
        form=form if writes else None,
        closed=_closed(row) if writes else "Le compte rendu n’est pas encore validé.",
        withdrawn=_withdrawn(withdrawn) if withdrawn is not None else "",
        correct_url=f"{base}/correction" if ends else "",
        cancel_url=f"{base}/annulation" if ends else "",
        show_url=f"{base}/visibilite" if ends and in_force is not None and report.is_hidden(in_force) else "",
        plan_url=f"/dossiers/{row.id}/pps" if in_force is not None else "",
        versions=versions,
        sendings=tuple(_sendings(session, row)) if writes or _told(row, caller) else (),
    )
    return page, [read_line(caller, row, "Report")]


def _withdrawn(report: Report) -> str:
    """Say that the last version was withdrawn, when and why."""
    said = "Ce compte rendu a été retiré"
    if report.withdrawn_at is not None:
        said += f" le {words.instant(words.local(report.withdrawn_at, report.dossier.session.zone))}"
    return f"{said}. Motif : {report.withdrawn_because}" if report.withdrawn_because else f"{said}."


def _told(row: Dossier, caller: Caller) -> bool:
    return caller.practitioner_id is not None and row.requester_id == caller.practitioner_id


def read_line(caller: Caller, row: Dossier, kind: str) -> AuditFacts:
    """Say who read what of a dossier."""
    return access.facts(
        caller,
        "consultation",
        persons=(row.record_id,),
        dossier=row.id,
        object_type=kind,
        object_id=str(row.id),
    )


def _said(report: Report | None) -> ReportDraft:
    """Return what a validated version says, by what its author typed: it never changes after."""
    return read_draft(report.draft) if report is not None else ReportDraft()


def _form(row: Dossier, draft: Report | None, in_force: Report | None) -> v.ReportForm | None:
    if draft is None and (in_force is not None or row.state not in _DRAFTABLE or row.session.state not in _HELD):
        return None
    return report_form.form_of(
        read_draft(draft.draft) if draft is not None else ReportDraft(),
        version=report_reading.draft_reading(draft),
        action=f"/dossiers/{row.id}/compte-rendu",
        asks_reason=draft is not None and draft.version > 1,
        discard_url=f"/dossiers/{row.id}/compte-rendu/abandon" if draft is not None else "",
        faults={},
    )


def _closed(row: Dossier) -> str:
    if row.session.state not in _HELD:
        return "Le compte rendu se rédige à partir de l’ouverture de la séance."
    return "Ce dossier n’est pas dans un état qui permette de rédiger son compte rendu."


def _sendings(session: Session, row: Dossier) -> Iterable[v.Sending]:
    zone = row.session.zone
    found = session.execute(
        select(Message, Report.version)
        .join(Report, Report.id == Message.report_id)
        .where(Message.dossier_id == row.id, Message.direction == "out", Message.channel == "mssante")
        .order_by(Report.version.desc(), Message.created_at)
    ).all()
    for message, version in found:
        person = session.get(Practitioner, message.recipient_id) if message.recipient_id else None
        roles = [
            words.ROLES[one.role].lower()
            for one in row.correspondents
            if one.practitioner_id is not None and one.practitioner_id == message.recipient_id
        ]
        name = words.formal_name(person) if person is not None else "Mon espace santé du patient"
        receipts = session.scalars(select(Receipt).where(Receipt.message_id == message.id).order_by(Receipt.at))
        yield v.Sending(
            recipient=", ".join([name, *roles]),
            address=mailboxes.displayed(session, message.recipient),
            version=version,
            badge=words.message_badge(message.state),
            at=words.local(message.domain_at, zone),
            receipts=tuple(
                f"{words.RECEIPTS.get(one.kind, one.kind)} le {words.instant(words.local(one.at, zone))}"
                for one in receipts
            ),
        )


def validation_page(
    step: Step, caller: Caller, dossier_id: uuid.UUID, errors: dict[str, str] | None = None
) -> tuple[v.ReportValidation, list[AuditFacts]]:
    """Return what becomes final, before it does.

    Raises
    ------
    Conflict
        ``cr-sans-brouillon``: nothing is being drafted.
    """
    session = step.session
    row = dossiers.visible_dossier(session, caller, dossier_id)
    access.require_role(session, caller, row.session.rcp_id, access.VALIDATORS)
    draft = draft_of(session, row)
    if draft is None:
        raise Conflict("cr-sans-brouillon", "Aucun brouillon de compte rendu n’est à valider pour ce dossier.")
    previous = current(session, row)
    page = v.ReportValidation(
        reference=row.reference,
        patient=words.patient_view(row.record, step.now.date(), row.partner.name if row.partner else ""),
        slot=words.slot(row.session),
        action=f"/dossiers/{row.id}/compte-rendu/validation",
        back_url=f"/dossiers/{row.id}/compte-rendu",
        said=report_form.lines_of(read_draft(draft.draft)),
        contributions=fiche.contributions(
            row, caller, organises=bool(access.roles_in(session, caller, row.session.rcp_id))
        ),
        quorum=meetings.quorum_view(row.session),
        recipients=tuple(recipient_lines(step, row)),
        version=str(report_reading.reading_of(draft)),
        replaces=previous.version if previous is not None else 0,
        errors=errors or {},
    )
    return page, [read_line(caller, row, "Report")]


def recipient_lines(step: Step, row: Dossier) -> Iterable[str]:
    """Say who will get the next version, and who cannot be reached and why."""
    roles = {one.practitioner_id: words.ROLES[one.role].lower() for one in reversed(row.correspondents)}
    for one in report_sending.recipients(step, row):
        person = one.practitioner
        name = words.formal_name(person) if person is not None else "Correspondant sans numéro RPPS"
        role = roles.get(person.id) if person is not None else None
        said = f"{name} ({role})" if role else name
        if one.address is None:
            said += f" – ne le recevra pas : {label(one.code or '')}"
        yield said


def download_name(reference: str, version: int, state: str) -> str:
    """Return the name to save a document under: never the patient's (S0-091).

    Kept bytes never change: that a version is no longer in force is said around them, here and beside the link.
    """
    return f"compte-rendu-{reference}-v{version}{_NO_LONGER.get(state, '')}"
