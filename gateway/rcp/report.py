"""The report of one dossier: drafted, validated, replaced, withdrawn, downloaded.

Promises: only who coordinates the RCP drafts, validates, corrects or withdraws; what a version says is frozen at its
validation with the contributions, the quorum and the attendees of that moment, and never changes; a correction or an
addendum is a new version that replaces (DECISIONS 5); at validation, in the same step, the forms are kept under their
SHA-256 and one mail a recipient stands in the outbox, carrying the very bytes that are kept; validating twice is the
same validation. [spec fhir-fr 2.2, 2.3; spec mssante 6.1]

Not promised: who gets the mail (`gateway.rcp.report_sending`), or what the forms look like (`gateway.documents`).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.errors import Conflict, InvalidContent, NotFound
from gateway.exchange import pending
from gateway.exchange.blobs import BlobStore
from gateway.identifiers import uuid7
from gateway.model.audit import AuditFacts
from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.meeting import RcpSession
from gateway.model.report import Report, ReportForm
from gateway.rcp import access, dossier_states, report_draft, report_facts, report_sending
from gateway.rcp.ports import RenderedForm, ReportForms, ReportMails
from gateway.rcp.report_content import Organisation, decode, encode
from gateway.rcp.report_draft import ReportDraft
from gateway.rcp.step import Step

__all__ = ["Press", "cancel", "discard", "draft", "kept_form", "latest", "reading_of", "revise", "validate"]

_HELD = ("ouverte", "close")
_DISCUSSABLE = ("prefiche", "notifie", "reporte")
_PUBLISHED = ("valide", "remplace", "annule")


@dataclass(frozen=True, slots=True, kw_only=True)
class Press:
    """What a validation needs from above.

    Parameters
    ----------
    custodian
        This gateway's own organisation, which keeps the documents of an RCP without identified establishment.
    visibility
        Flags of JDV_J08 of a first sending; by default hidden from the patient until the announcement consultation.
    """

    forms: ReportForms
    mails: ReportMails
    blobs: BlobStore
    custodian: Organisation | None = None
    visibility: tuple[str, ...] = ("INVISIBLE_PATIENT",)


def draft(
    step: Step,
    dossier_id: uuid.UUID,
    said: ReportDraft,
    *,
    signatory: Practitioner | None = None,
    report_id: uuid.UUID | None = None,
) -> Report:
    """Write the draft, creating it the first time; the dossier is then discussed and its report a draft.

    Parameters
    ----------
    signatory
        Who coordinates and wrote it, when the software of the RCP's own establishment brings it; else the caller.
    report_id
        Id of the report if it is made here, when the wire had to name it.

    Raises
    ------
    NotFound, Forbidden
        The dossier does not exist for the caller, or he does not coordinate its RCP.
    Conflict
        ``seance-non-tenue``: the session was not opened yet; ``cr-valide``: the report is validated (`revise` it).
    InvalidContent
        ``cr-brouillon-invalide``, ``passage-impossible``.
    """
    dossier, author = _held(step, dossier_id, signatory)
    report = _open_draft(step.session, dossier.id)
    if report is None:
        if latest(step.session, dossier.id) is not None:
            text = "Le compte rendu est déjà validé : préparez une nouvelle version pour le corriger."
            raise Conflict("cr-valide", text)
        if dossier.session.state not in _HELD:
            raise Conflict("seance-non-tenue", "La séance n’a pas encore été ouverte.")
        if dossier.state in _DISCUSSABLE:
            dossier_states.move(step, dossier, "discute")
        dossier_states.move(step, dossier, "cr-brouillon")
        report = Report(
            id=report_id or uuid7(), dossier_id=dossier.id, set_id=uuid.uuid4(), version=1, author_id=author.id
        )
        step.session.add(report)
    # A new object, because changes inside a JSON value are not seen.
    report.draft = report_draft.kept(said)
    _written(step, report, dossier, "modification", signatory=signatory)
    return report


def revise(
    step: Step,
    dossier_id: uuid.UUID,
    *,
    kind: Literal["correction", "addendum"] = "correction",
    reason: str | None = None,
) -> Report:
    """Prepare the version that will replace the validated one; starts from what that one said.

    Raises
    ------
    NotFound, Forbidden
        As `draft`.
    Conflict
        ``cr-absent``: there is no validated version to replace.
    """
    dossier, author = _held(step, dossier_id)
    already = _open_draft(step.session, dossier.id)
    if already is not None:
        return already
    previous = latest(step.session, dossier.id)
    if previous is None:
        raise Conflict("cr-absent", "Aucune version validée du compte rendu n’est à remplacer.")
    said = {**previous.draft, "nature": kind}
    said.pop("motif", None)
    if reason:
        said["motif"] = reason
    report = Report(
        id=uuid7(),
        dossier_id=dossier.id,
        set_id=previous.set_id,
        version=previous.version + 1,
        author_id=author.id,
        replaces_id=previous.id,
        draft=report_draft.kept(report_draft.read(said)),
    )
    step.session.add(report)
    _written(step, report, dossier, "creation")
    return report


def discard(step: Step, dossier_id: uuid.UUID) -> None:
    """Throw the draft away; a dossier whose only version it was is discussed again, without report.

    Raises
    ------
    NotFound, Forbidden
        As `draft`; ``cr-absent`` when there is no draft.
    """
    dossier, _author = _held(step, dossier_id)
    report = _open_draft(step.session, dossier.id)
    if report is None:
        raise NotFound("cr-absent", "Aucun brouillon de compte rendu n’est en cours.")
    if report.version == 1:
        dossier_states.move(step, dossier, "discute", "brouillon abandonné")
    step.session.delete(report)
    step.touch(report)
    step.audit(
        "modification",
        action="D",
        persons=(dossier.record_id,),
        dossier=dossier.id,
        object_type="Report",
        object_id=str(report.id),
        object_version=str(report.version),
    )


def validate(
    step: Step,
    dossier_id: uuid.UUID,
    press: Press,
    *,
    expected: uuid.UUID | None = None,
    signatory: Practitioner | None = None,
) -> Report:
    """Validate the draft: freeze its facts, keep its forms, put its mails into the outbox.

    Parameters
    ----------
    signatory
        As `draft`; the trail names both him and the software that says so.
    expected
        What the coordinator read (`reading_of`): when the draft, the contributions or the attendance changed since,
        nothing is validated. What was validated meanwhile is returned as it is: a double click is one validation.

    Raises
    ------
    NotFound, Forbidden
        As `draft`.
    Conflict
        ``cr-absent``: nothing to validate; ``cr-change``: the draft is not the one that was read.
    InvalidContent
        ``cr-proposition-absente``, ``cr-motif-absent``, ``cr-identite``, ``cr-conservation``, ``report-frcp``.
    """
    dossier, validator = _held(step, dossier_id, signatory)
    report = _open_draft(step.session, dossier.id)
    if report is None:
        done = latest(step.session, dossier.id)
        if done is not None and done.state == "valide" and expected == reading_of(done):
            return done
        raise Conflict("cr-absent", "Aucun brouillon de compte rendu n’est à valider.")
    if expected is not None and expected != reading_of(report):
        text = "Le brouillon, une contribution ou les présences ont changé depuis que vous l’avez relu : relisez-le."
        raise Conflict("cr-change", text)
    said = report_draft.read(report.draft)
    _require_enough(said, report)
    # Attendance stops moving while the facts are copied.
    step.lock(RcpSession, dossier.session_id)
    previous = step.lock(Report, report.replaces_id)[0] if report.replaces_id is not None else None
    content = report_facts.freeze(
        report,
        dossier,
        said,
        validator=validator,
        replaced=previous,
        custodian=press.custodian,
        at=step.now,
        visibility=press.visibility,
    )
    forms = press.forms.render(content)
    report.content, report.state = encode(content), "valide"
    report.validated_at, report.validator_id = content.written_at, validator.id
    if previous is not None and previous.state == "valide":
        previous.state = "remplace"
        step.touch(previous)
    step.session.flush()
    _keep(step, report, forms, press.blobs)
    dossier_states.move(step, dossier, "cr-valide" if previous is None else said.kind)
    sent = report_sending.send(step, dossier, report, content, forms, press.mails)
    pdf = next(form for form in report.forms if form.form == "pdf").sha256
    _written(step, report, dossier, "validation", pdf=pdf, signatory=signatory)
    if not sent:
        report_sending.settle(step, dossier)
    return report


def cancel(step: Step, dossier_id: uuid.UUID, reason: str, press: Press) -> Report:
    """Withdraw the validated report: it stays, marked as entered in error, and whoever got it is told to delete it.

    Raises
    ------
    NotFound, Forbidden
        As `draft`.
    Conflict
        ``cr-absent``: no validated version; ``cr-brouillon``: a new version is being written (`discard` it first).
    InvalidContent
        ``cr-motif-absent``: no reason given.
    """
    dossier, _author = _held(step, dossier_id)
    if not reason.strip():
        raise InvalidContent("cr-motif-absent", "Dites pourquoi le compte rendu est retiré.", rule=True)
    if _open_draft(step.session, dossier.id) is not None:
        text = "Une nouvelle version est en cours : abandonnez son brouillon avant de retirer le compte rendu."
        raise Conflict("cr-brouillon", text)
    report = latest(step.session, dossier.id)
    if report is None or report.content is None or report.state != "valide":
        raise Conflict("cr-absent", "Aucune version validée du compte rendu n’est à retirer.")
    report.state = "annule"
    content = decode(report.content)
    cda = next(form for form in report.forms if form.form == "cda")
    withdrawn = press.forms.withdrawal(content, press.blobs.read(cda.sha256))
    _keep(step, report, (withdrawn,), press.blobs)
    report_sending.withdraw(step, dossier, report, content, (withdrawn,), press.mails)
    _written(step, report, dossier, "modification", reason=reason)
    return report


def reading_of(report: Report) -> uuid.UUID:
    """Name what somebody who reads a draft now reads: the draft, the contributions, the attendance.

    Two readings have the same name exactly when a validation would freeze the same words of people.
    """
    dossier = report.dossier
    until = report.validated_at
    contributions = sorted(
        (one.key, one.at.isoformat(), one.text) for one in dossier.contributions if until is None or one.at <= until
    )
    attendees = sorted((str(one.practitioner_id), one.mode) for one in dossier.session.attendances)
    said = msgspec.json.encode([report.draft, contributions, attendees], order="sorted")
    return uuid.uuid5(report.id, hashlib.sha256(said).hexdigest())


def latest(session: Session, dossier_id: uuid.UUID) -> Report | None:
    """Return the last version that was ever validated, even if it was withdrawn since."""
    return session.scalars(
        select(Report)
        .where(Report.dossier_id == dossier_id, Report.state.in_(_PUBLISHED))
        .order_by(Report.version.desc())
        .limit(1)
    ).first()


def kept_form(
    session: Session, caller: access.Caller, dossier_id: uuid.UUID, version: int, form: str
) -> tuple[ReportForm, Sequence[AuditFacts]]:
    """Find one form of one version for a reader, with the audit lines that its release writes (`Steps.read`).

    Raises
    ------
    NotFound
        No such version or form, or not for this caller.
    """
    found = session.scalar(
        select(ReportForm)
        .join(Report, Report.id == ReportForm.report_id)
        .join(Dossier, Dossier.id == Report.dossier_id)
        .where(
            Dossier.id == dossier_id,
            Report.version == version,
            Report.state.in_(_PUBLISHED),
            ReportForm.form == form,
            access.dossiers(caller),
        )
    )
    if found is None:
        raise access.hidden(caller, "Report", dossier_id)
    report = found.report
    line = access.facts(
        caller,
        "consultation",
        persons=(report.dossier.record_id,),
        dossier=dossier_id,
        object_type="ReportForm",
        object_id=str(found.id),
        object_version=str(version),
        object_sha256=found.sha256,
    )
    return found, (line,)


def _held(step: Step, dossier_id: uuid.UUID, signatory: Practitioner | None = None) -> tuple[Dossier, Practitioner]:
    """Lock a dossier that the caller coordinates, and say who he is.

    The software of the establishment that runs the RCP may name the coordinator whose words it brings; nobody else may.
    """
    visible = select(Dossier.id).where(Dossier.id == dossier_id, access.dossiers(step.caller))
    if step.session.scalar(visible) is None:
        raise access.hidden(step.caller, "Dossier", dossier_id)
    [dossier] = step.lock(Dossier, dossier_id)
    if step.caller.kind is access.CallerKind.CLIENT and signatory is not None:
        access.require_organiser(step.session, step.caller, dossier.session.rcp_id)
        if not access.parts_of(step.session, signatory.id, dossier.session.rcp_id) & access.VALIDATORS:
            text = "Le signataire nommé ne coordonne pas cette RCP : il ne rédige ni ne valide ses comptes rendus."
            raise InvalidContent("cr-signataire", text, expression="Composition.attester", rule=True)
        return dossier, signatory
    access.require_role(step.session, step.caller, dossier.session.rcp_id, access.VALIDATORS)
    who = step.session.get(Practitioner, step.caller.practitioner_id) if step.caller.practitioner_id else None
    if who is None:
        raise access.hidden(step.caller, "Dossier", dossier_id)
    return dossier, who


def _open_draft(session: Session, dossier_id: uuid.UUID) -> Report | None:
    return session.scalars(
        select(Report)
        .where(Report.dossier_id == dossier_id, Report.state == "brouillon")
        .execution_options(populate_existing=True)
    ).first()


def _require_enough(said: ReportDraft, report: Report) -> None:
    if not (said.proposal or said.treatments or said.recourse or said.examinations or said.follow_up):
        text = "Écrivez la proposition de la RCP avant de valider le compte rendu."
        raise InvalidContent("cr-proposition-absente", text, expression="proposition", rule=True)
    if report.replaces_id is not None and not said.reason:
        text = "Dites pourquoi cette version remplace la précédente."
        raise InvalidContent("cr-motif-absent", text, expression="motif", rule=True)


def _keep(step: Step, report: Report, forms: Sequence[RenderedForm], blobs: BlobStore) -> None:
    """Keep the bytes first, then the rows that name them; their resource says their SHA-1."""
    for form in forms:
        blob = pending.keep(step.session, blobs, form.content, read_again=True)
        step.session.add(
            ReportForm(
                report_id=report.id,
                form=form.form,
                content_type=form.content_type,
                sha256=blob.sha256,
                size_bytes=blob.size_bytes,
            )
        )
    step.session.flush()
    step.session.refresh(report)


def _written(
    step: Step,
    report: Report,
    dossier: Dossier,
    event: str,
    *,
    pdf: str | None = None,
    reason: str | None = None,
    signatory: Practitioner | None = None,
) -> None:
    step.session.flush()
    step.session.refresh(report)
    step.touch(report, dossier)
    step.audit(
        event,
        action="C" if event == "creation" else "U",
        persons=(dossier.record_id,),
        dossier=dossier.id,
        object_type="Report",
        object_id=str(report.id),
        object_version=str(report.version),
        object_sha256=pdf,
        reason="retrait" if reason else None,
        detail={"signataire": signatory.idnps} if signatory is not None else None,
    )
