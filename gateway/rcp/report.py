"""The report of one dossier: drafted, validated, replaced, shown to its patient, withdrawn.

Promises: only who coordinates the RCP drafts, validates, corrects or withdraws; what a version says is frozen at its
validation with the contributions, the quorum and the attendees of that moment, and never changes; a correction or an
addendum is a new version that replaces (DECISIONS 5); at validation, in the same step, the forms are kept under their
SHA-256 and one mail a recipient stands in the outbox, carrying the very bytes that are kept; validating twice is the
same validation; what the patient may not see yet stays hidden in every later version until that is lifted, by a version
of its own. [spec fhir-fr 2.2, 2.3; spec mssante 6.1, 6.2]

Not promised: who gets the mail (`gateway.rcp.report_sending`), how a report is read (`gateway.rcp.report_reading`), or
what its forms look like (`gateway.documents`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.errors import Conflict, InvalidContent, NotFound
from gateway.exchange import pending
from gateway.exchange.blobs import BlobStore
from gateway.identifiers import uuid7
from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.meeting import RcpSession
from gateway.model.report import Report, ReportForm
from gateway.rcp import access, dossier_states, report_draft, report_facts, report_sending
from gateway.rcp.ports import RenderedForm, ReportForms, ReportMails
from gateway.rcp.report_content import HIDDEN_FROM_PATIENT, Organisation, decode, encode
from gateway.rcp.report_draft import ReportDraft
from gateway.rcp.report_reading import draft_reading, latest, reading_of
from gateway.rcp.step import Step

__all__ = ["Press", "cancel", "discard", "draft", "draft_under_way", "is_hidden", "revise", "show_patient", "validate"]

_HELD = ("ouverte", "close")
_DISCUSSABLE = ("prefiche", "notifie", "reporte")


@dataclass(frozen=True, slots=True, kw_only=True)
class Press:
    """What a validation needs from above.

    Parameters
    ----------
    custodian
        This gateway's own organisation, which keeps the documents of an RCP without identified establishment.
    visibility
        Flags of JDV_J08 of a first sending; by default hidden from the patient until the announcement consultation.
    production
        Whether real patients are written to; else test identities alone.
    """

    forms: ReportForms
    mails: ReportMails
    blobs: BlobStore
    custodian: Organisation | None = None
    visibility: tuple[str, ...] = (HIDDEN_FROM_PATIENT,)
    production: bool = False


def draft(
    step: Step,
    dossier_id: uuid.UUID,
    said: ReportDraft,
    *,
    signatory: Practitioner | None = None,
    report_id: uuid.UUID | None = None,
    expected: str | None = None,
) -> Report:
    """Write the draft, creating it the first time; the dossier is then discussed and its report a draft.

    Parameters
    ----------
    signatory
        Who coordinates and wrote it, when the software of the RCP's own establishment brings it; else the caller.
    report_id
        Id of the report if it is made here, when the wire had to name it.
    expected
        What the coordinator had before him (`draft_reading`); who writes what stands there already changes nothing.

    Raises
    ------
    NotFound, Forbidden
        The dossier does not exist for the caller, or he does not coordinate its RCP.
    Conflict
        ``seance-non-tenue``: the session was not opened yet; ``cr-valide``: the report is validated (`revise` it);
        ``cr-brouillon-change``: somebody else wrote the draft since it was read.
    InvalidContent
        ``cr-brouillon-invalide``, ``passage-impossible``.
    """
    dossier, author = _held(step, dossier_id, signatory)
    report = draft_under_way(step.session, dossier.id)
    wanted = report_draft.kept(said)
    if report is None:
        if latest(step.session, dossier.id) is not None:
            text = "Le compte rendu est déjà validé : préparez une nouvelle version pour le corriger."
            raise Conflict("cr-valide", text)
        if dossier.session.state not in _HELD:
            raise Conflict("seance-non-tenue", "La séance n’a pas encore été ouverte.")
        _require_read(None, expected)
        if dossier.state in _DISCUSSABLE:
            dossier_states.move(step, dossier, "discute")
        dossier_states.move(step, dossier, "cr-brouillon")
        report = Report(
            id=report_id or uuid7(), dossier_id=dossier.id, set_id=uuid.uuid4(), version=1, author_id=author.id
        )
        step.session.add(report)
    elif report.draft == wanted:
        return report  # the same form twice
    else:
        _require_read(report, expected)
    # A new object, because changes inside a JSON value are not seen.
    report.draft = wanted
    _written(step, report, dossier, "modification", signatory=signatory)
    return report


def revise(
    step: Step,
    dossier_id: uuid.UUID,
    *,
    kind: Literal["correction", "addendum"] = "correction",
    reason: str | None = None,
    signatory: Practitioner | None = None,
    report_id: uuid.UUID | None = None,
) -> Report:
    """Prepare the version that will replace the validated one; starts from what that one said.

    Parameters
    ----------
    signatory, report_id
        As `draft`.

    Raises
    ------
    NotFound, Forbidden
        As `draft`.
    Conflict
        ``cr-absent``: there is no validated version to replace.
    """
    dossier, author = _held(step, dossier_id, signatory)
    already = draft_under_way(step.session, dossier.id)
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
        id=report_id or uuid7(),
        dossier_id=dossier.id,
        set_id=previous.set_id,
        version=previous.version + 1,
        author_id=author.id,
        replaces_id=previous.id,
        draft=report_draft.kept(report_draft.read(said)),
    )
    step.session.add(report)
    _written(step, report, dossier, "creation", signatory=signatory)
    return report


def discard(step: Step, dossier_id: uuid.UUID, *, expected: str | None = None) -> None:
    """Throw the draft away; a dossier whose only version it was is discussed again, without report.

    Parameters
    ----------
    expected
        As `draft`.

    Raises
    ------
    NotFound, Forbidden, Conflict
        As `draft`; ``cr-absent`` when there is no draft.
    """
    dossier, _author = _held(step, dossier_id)
    report = draft_under_way(step.session, dossier.id)
    if report is None:
        raise NotFound("cr-absent", "Aucun brouillon de compte rendu n’est en cours.")
    _require_read(report, expected)
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
    visibility: tuple[str, ...] | None = None,
) -> Report:
    """Validate the draft: freeze its facts, keep its forms, put its mails into the outbox.

    Parameters
    ----------
    signatory
        As `draft`; the trail names both him and the software that says so.
    expected
        What the coordinator read (`reading_of`): when the draft, the contributions or the attendance changed since,
        nothing is validated. What was validated meanwhile is returned as it is: a double click is one validation.
    visibility
        Flags of the sending; else those of the version that is replaced, and of a first one those of the press.

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
    report = draft_under_way(step.session, dossier.id)
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
        visibility=_visibility(press, previous) if visibility is None else visibility,
    )
    forms = press.forms.render(content, with_n1=previous is not None and _form(previous, "n1") is not None)
    report.content, report.state = encode(content), "valide"
    report.validated_at, report.validator_id = content.written_at, validator.id
    if previous is not None and previous.state == "valide":
        previous.state = "remplace"
        step.touch(previous)
    step.session.flush()
    _keep(step, report, forms, press.blobs)
    dossier_states.move(step, dossier, "cr-valide" if previous is None else said.kind)
    sent = report_sending.send(step, dossier, report, content, forms, press.mails, production=press.production)
    pdf = next(form for form in report.forms if form.form == "pdf").sha256
    _written(step, report, dossier, "validation", pdf=pdf, signatory=signatory)
    if not sent:
        report_sending.settle(step, dossier)
    return report


def show_patient(step: Step, dossier_id: uuid.UUID, reason: str, press: Press) -> Report:
    """Lift what hides the report from its patient: a version that says the same and replaces. [spec mssante 6.2].

    Raises
    ------
    NotFound, Forbidden
        As `draft`.
    Conflict
        ``cr-absent``: no validated version; ``cr-brouillon``: a new version is being written; ``cr-visible``: nothing
        hides it.
    InvalidContent
        ``cr-motif-absent``, ``cr-motif-trop-long``; as `validate`.
    """
    dossier, _author = _held(step, dossier_id)
    flags = decode(_current(step, dossier, reason).content or b"").visibility
    if HIDDEN_FROM_PATIENT not in flags:
        raise Conflict("cr-visible", "Rien ne cache ce compte rendu au patient.")
    revise(step, dossier_id, reason=reason.strip())
    return validate(step, dossier_id, press, visibility=tuple(flag for flag in flags if flag != HIDDEN_FROM_PATIENT))


def is_hidden(report: Report) -> bool:
    """Whether a validated version is flagged as not visible to its patient."""
    return report.content is not None and HIDDEN_FROM_PATIENT in decode(report.content).visibility


def cancel(
    step: Step, dossier_id: uuid.UUID, reason: str, press: Press, *, signatory: Practitioner | None = None
) -> Report:
    """Withdraw the validated report: it stays, marked as entered in error, and whoever got it is told to delete it.

    Parameters
    ----------
    signatory
        As `draft`.

    Raises
    ------
    NotFound, Forbidden
        As `draft`.
    Conflict
        ``cr-absent``: no validated version; ``cr-brouillon``: a new version is being written (`discard` it first).
    InvalidContent
        ``cr-motif-absent``, ``cr-motif-trop-long``.
    """
    dossier, _author = _held(step, dossier_id, signatory)
    report = _current(step, dossier, reason)
    report.state, report.withdrawn_at, report.withdrawn_because = "annule", step.now, reason.strip()
    content = decode(report.content or b"")
    cda = next(form for form in report.forms if form.form == "cda")
    page = _form(report, "n1")
    withdrawn = press.forms.withdrawal(
        content, press.blobs.read(cda.sha256), press.blobs.read(page.sha256) if page is not None else None
    )
    _keep(step, report, (withdrawn,), press.blobs)
    report_sending.withdraw(step, dossier, report, content, (withdrawn,), press.mails)
    _written(step, report, dossier, "modification", reason=reason, signatory=signatory)
    return report


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


def _require_read(report: Report | None, expected: str | None) -> None:
    if expected is not None and expected != draft_reading(report):
        text = "Quelqu’un d’autre a modifié ce brouillon depuis que vous l’avez ouvert : relisez-le."
        raise Conflict("cr-brouillon-change", text)


def draft_under_way(session: Session, dossier_id: uuid.UUID) -> Report | None:
    """Return the draft of a dossier, read anew; there is one at most."""
    return session.scalars(
        select(Report)
        .where(Report.dossier_id == dossier_id, Report.state == "brouillon")
        .execution_options(populate_existing=True)
    ).first()


def _current(step: Step, dossier: Dossier, reason: str) -> Report:
    """The version in force, of which something is to become for a reason, and beside which no other is written."""
    if not reason.strip():
        text = "Dites pourquoi le compte rendu est retiré, ou montré au patient."
        raise InvalidContent("cr-motif-absent", text, expression="motif", rule=True)
    if len(reason.strip()) > report_draft.LINE_MAX_CHARS:
        text = f"Le motif dépasse {report_draft.LINE_MAX_CHARS} caractères."
        raise InvalidContent("cr-motif-trop-long", text, expression="motif", rule=True)
    if draft_under_way(step.session, dossier.id) is not None:
        text = "Une nouvelle version est en cours : validez-la, ou abandonnez d’abord son brouillon."
        raise Conflict("cr-brouillon", text)
    report = latest(step.session, dossier.id)
    if report is None or report.content is None or report.state != "valide":
        raise Conflict("cr-absent", "Aucune version validée du compte rendu n’est en vigueur.")
    return report


def _visibility(press: Press, previous: Report | None) -> tuple[str, ...]:
    """Flags of a version: what was lifted once is not laid again by a correction."""
    if previous is None or previous.content is None:
        return press.visibility
    return decode(previous.content).visibility


def _require_enough(said: ReportDraft, report: Report) -> None:
    if not (said.proposal or said.treatments or said.recourse or said.examinations or said.follow_up):
        text = "Écrivez la proposition de la RCP avant de valider le compte rendu."
        raise InvalidContent("cr-proposition-absente", text, expression="proposition", rule=True)
    if report.replaces_id is not None and not said.reason:
        text = "Dites pourquoi cette version remplace la précédente."
        raise InvalidContent("cr-motif-absent", text, expression="motif", rule=True)


def _form(report: Report, name: str) -> ReportForm | None:
    return next((form for form in report.forms if form.form == name), None)


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
