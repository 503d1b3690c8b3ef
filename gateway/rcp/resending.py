"""The same letter once more, by a person's wish: the same bytes to the same address, or a new mail to another address.

Promises: another address is one that the directory knows for the same person, chosen by somebody, never by us; a mail
to it is a logical message of its own, once however often it is asked for; what is no longer true is not sent (a report
that was replaced or withdrawn, a notification of a meeting that has begun). [spec mssante 5.7; DECISIONS 1]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sqlalchemy import select

from gateway.errors import Conflict, InvalidContent, Unsupported
from gateway.exchange.blobs import BlobStore
from gateway.model.directory import Mailbox, Practitioner
from gateway.model.dossier import Dossier
from gateway.model.message import Message, NotificationEntry
from gateway.model.report import Report
from gateway.rcp import mailboxes, mailing, notice_changes, report_letters
from gateway.rcp.letters import compose, full_name, preliminary_values
from gateway.rcp.ports import Letter, Letters, RenderedForm, ReportKind, ReportMails, SealedLetter
from gateway.rcp.report_content import decode
from gateway.rcp.step import Step

__all__ = ["other_addresses", "require_same", "require_true", "resend"]

_NOTICE = "M1"
#: Letters that invite to a meeting: with its beginning, or the patient's opposition, there is nothing to tell.
_BEFORE = frozenset({_NOTICE, "M3", "M4"})
#: Letters that say when and where the meeting is: their very words may be true no more.
_SAYING = frozenset({_NOTICE, notice_changes.CHANGE})


def other_addresses(step: Step, message: Message) -> Sequence[Mailbox]:
    """Return the other mailboxes of the person whom a mail was for, those to try first first, software's last."""
    person = step.session.get(Practitioner, message.recipient_id) if message.recipient_id is not None else None
    if person is None or (message.kind != _NOTICE and report_letters.state_told(message.kind) is None):
        return ()
    used = (message.recipient or "").lower()
    found = mailboxes.candidates(step.session, person, documents=message.kind != _NOTICE)
    return [box for box in found if box.address.lower() != used]


def require_true(step: Step, message: Message) -> None:
    """Refuse to send what is no longer true.

    Raises
    ------
    Conflict
        ``renvoi-perime``.
    """
    dossier = step.session.get(Dossier, message.dossier_id) if message.dossier_id is not None else None
    if message.kind in _BEFORE and dossier is not None:
        meeting = dossier.session
        gone = meeting.id != message.session_id or meeting.state in {"annulee", "reportee"}
        if gone or dossier.opposed_at is not None or meeting.starts_at <= step.now:
            text = "Cette notification n’a plus d’objet : la séance a commencé, a changé ou n’aura pas lieu."
            raise Conflict("renvoi-perime", text)
    report = step.session.get(Report, message.report_id) if message.report_id is not None else None
    if report is not None and report.state != (report_letters.state_told(message.kind) or report.state):
        raise Conflict("renvoi-perime", "Ce compte rendu a été remplacé ou retiré depuis : il n’est pas renvoyé.")


def require_same(step: Step, message: Message) -> None:
    """Refuse to send the very bytes of a letter again that say what is no longer so.

    Raises
    ------
    Conflict
        ``renvoi-perime``.
    """
    require_true(step, message)
    if message.kind in _SAYING and not notice_changes.holds_still(step.session, message, step.now):
        text = "Ce courriel ne dit plus ce qui est : la réunion a changé depuis, a commencé, ou un autre l’a suivi."
        raise Conflict("renvoi-perime", text)


def resend(
    step: Step,
    message: Message,
    mailbox: str,
    letters: Letters,
    mails: ReportMails | None,
    blobs: BlobStore,
    *,
    remember: bool = False,
) -> Message:
    """Put the same letter for the same person into the outbox, to another of his addresses.

    Parameters
    ----------
    message
        Locked by the caller.
    mailbox
        Key of one of `other_addresses`: an address of the red list is in no form.
    remember
        Use this mailbox first from now on (`gateway.rcp.mailboxes.choose`).

    Raises
    ------
    InvalidContent
        ``adresse-inconnue``: not an address that the directory knows for this person.
    Conflict
        As `require_true`.
    Unsupported
        ``renvoi``: a kind of mail that is not made again.
    """
    box = next((one for one in other_addresses(step, message) if str(one.id) == mailbox), None)
    person = step.session.get(Practitioner, message.recipient_id) if message.recipient_id is not None else None
    if box is None or person is None or message.dossier_id is None:
        text = "Choisissez une adresse que l’annuaire connaît pour ce destinataire."
        raise InvalidContent("adresse-inconnue", text, expression="adresse", rule=True)
    require_true(step, message)
    [dossier] = step.lock(Dossier, message.dossier_id)
    if remember:
        mailboxes.choose(step, person, box, dossier=dossier)
    key = f"{message.key}|repli|{box.address.lower()}"
    if message.kind == _NOTICE:
        sealed = _notice(step, dossier, person, message, box.address, key, letters)
    else:
        sealed = _report(step, dossier, person, message, box.address, key, mails, blobs)
    kept = {name: message.details[name] for name in ("rattrapage", "version") if name in message.details}
    new = mailing.post(
        step,
        dossier,
        sealed,
        kind=message.kind,
        key=key,
        recipient=person,
        address=box.address,
        report_id=message.report_id,
        repli=str(message.id),
        **kept,
    )
    lines = step.session.scalars(select(NotificationEntry).where(NotificationEntry.message_id == message.id)).all()
    for line in lines:
        line.message_id, line.code, line.decided_at = new.id, "ENVOYEE", step.now
    step.session.flush()
    step.touch(new, *lines)
    return new


def _notice(
    step: Step, dossier: Dossier, person: Practitioner, message: Message, address: str, key: str, letters: Letters
) -> SealedLetter:
    values = preliminary_values(dossier, person, answers_read=letters.answers_read)
    text = compose(step.session, "M1b" if message.details.get("rattrapage") else _NOTICE, values, address)
    return letters.seal(
        Letter(
            kind=_NOTICE,
            key=key,
            at=step.now,
            address=address,
            name=full_name(person),
            subject=text.subject,
            body=text.body,
        )
    )


def _report(
    step: Step,
    dossier: Dossier,
    person: Practitioner,
    message: Message,
    address: str,
    key: str,
    mails: ReportMails | None,
    blobs: BlobStore,
) -> SealedLetter:
    report = step.session.get(Report, message.report_id) if message.report_id is not None else None
    if mails is None or report is None or report.content is None:
        raise Unsupported("renvoi", "Ce courriel ne peut pas être composé à nouveau ici.")
    withdrawn = message.kind in report_letters.WITHDRAWALS.values()
    forms = tuple(
        RenderedForm(form.form, form.content_type, blobs.read(form.sha256))
        for form in report.forms
        if (form.form == "xdm-retrait") == withdrawn
    )
    earlier = step.session.scalars(
        select(Message.message_id)
        .where(
            Message.direction == "out",
            Message.channel == mailing.CHANNEL,
            Message.dossier_id == dossier.id,
            Message.kind.in_(report_letters.VERSIONS),
            Message.recipient_id == person.id,
            Message.state != "annule",
            Message.id < message.id,
        )
        .order_by(Message.created_at, Message.id)
    )
    return mails.seal(
        report_letters.letter(
            step,
            dossier,
            decode(report.content),
            kind=cast("ReportKind", message.kind),
            key=key,
            address=address,
            recipient=person,
            forms=forms,
            previous=[one for one in earlier if one],
        )
    )
