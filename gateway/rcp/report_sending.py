"""Who gets a validated report by MSSanté, and when its dossier counts as sent.

Promises: one logical message a recipient and version, rendered once from the very forms that are kept; the treating
physician, the requester and the other correspondents, each person once, and for a new version also whoever got an
earlier one; the patient where that may be (`gateway.rcp.patient_copy`); who cannot be reached stands in the register
with the reason; a mail that cannot be made (too large, an address that is none) undoes neither the validation nor the
mails of the others: it stands in the register as failed and on the work list with what refused it; a dossier is
`envoye` once every recipient is terminal, or there is none (DECISIONS 3). The trail's line « envoi » is the outbox's,
when a mail leaves.
[S2-019; spec mssante 2.11, 6.1; spec features 4.3]
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import exists, or_, select
from sqlalchemy.dialects.postgresql import insert

from gateway.errors import InvalidContent
from gateway.model.directory import Practitioner
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.message import Attempt, Message, NotificationEntry
from gateway.model.person import WorkItem
from gateway.model.report import Report
from gateway.model.store import utcnow
from gateway.rcp import access, dossier_states, mailboxes, mailing, patient_copy, report_letters, work_list
from gateway.rcp.ports import RenderedForm, ReportKind, ReportMails
from gateway.rcp.report_content import ReportContent
from gateway.rcp.step import Step, Steps

__all__ = ["Recipient", "recipients", "send", "settle", "settle_due", "told", "withdraw"]

_SETTLING = ("cr-valide", "correction", "addendum")
#: States of a message after which its sending is still open; a parked one waits for a person.
_PENDING = ("en-attente", "parque")
_ROLES = ("medecin-traitant", "demandeur", "correspondant")
#: Whom a line of the register is about when it is no professional.
_PATIENT = "patient"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One person who should get the report: the address to use, or the code of the register that says why none.

    Attributes
    ----------
    earlier
        The letters that brought this person earlier versions, oldest first.
    """

    subject: str
    practitioner: Practitioner | None
    address: str | None
    code: str | None = None
    earlier: tuple[Message, ...] = ()


def recipients(step: Step, dossier: Dossier) -> Sequence[Recipient]:
    """Say who should get the report of a dossier, each person once, by role then number."""
    lines = sorted(
        (line for line in dossier.correspondents if line.role in _ROLES and line.declined_at is None),
        key=lambda line: (_ROLES.index(line.role), line.practitioner.idnps if line.practitioner else ""),
    )
    found: dict[str, Recipient] = {}
    for line in lines:
        one = _recipient(step, dossier, line)
        found.setdefault(one.subject, one)
    had = _had(step, dossier.id)
    for key, letters in had.items():
        person = step.session.get_one(Practitioner, key)
        if person.idnps not in found:
            found[person.idnps] = Recipient(person.idnps, person, letters[-1].recipient)
    known = {one.practitioner.id: one.subject for one in found.values() if one.practitioner is not None}
    for key, letters in had.items():
        found[known[key]] = replace(found[known[key]], earlier=letters)
    return tuple(found.values())


def _recipient(step: Step, dossier: Dossier, line: Correspondent) -> Recipient:
    person = line.practitioner
    subject = person.idnps if person is not None else f"{line.role}:{line.id}"
    if dossier.opposed_at is not None:
        return Recipient(subject, person, None, "NON_OPPOSITION")
    if dossier.session.rcp.fictive:
        return Recipient(subject, person, None, "NON_SEANCE")
    if person is None:
        return Recipient(subject, None, None, "NON_RPPS")
    if not (line.use_personal or line.use_secretariat):
        return Recipient(subject, person, None, "NON_ADRESSE")
    boxes = mailboxes.addresses(
        step.session, person, personal=line.use_personal, secretariat=line.use_secretariat, dossier=dossier
    )
    taking = [box for box in boxes if box.paperless is not False]
    if not taking:
        return Recipient(subject, person, None, "NON_DEMAT" if boxes else "NON_MSS")
    return Recipient(subject, person, taking[0].address)


def send(
    step: Step,
    dossier: Dossier,
    report: Report,
    content: ReportContent,
    forms: tuple[RenderedForm, ...],
    mails: ReportMails,
    *,
    production: bool,
) -> Sequence[Message]:
    """Put one message a recipient into the outbox; write down who cannot be reached.

    Mails of earlier versions that did not leave yet are cancelled: nobody gets a version after its replacement.

    Parameters
    ----------
    production
        Whether real patients are written to.
    """
    _hold_back(step, dossier)
    sent = []
    for one in recipients(step, dossier):
        kind = report_letters.kind_for(dossier, {message.kind for message in one.earlier})
        if one.address is None or one.practitioner is None:
            _register(step, dossier, report, one, kind)
            continue
        sent.append(_post(step, dossier, report, content, forms, mails, one, kind))
    held = patient_copy.copies(_letters(step, dossier.id, (patient_copy.COPY, patient_copy.NOTICE)))
    own = patient_copy.address_for(dossier, content, held, production=production)
    if own is not None:
        one = Recipient(_PATIENT, None, own, earlier=held.get(own, ()))
        sent.append(_post(step, dossier, report, content, forms, mails, one, patient_copy.COPY))
    sent += _say_not_valid(step, dossier, report, content, mails, _holders(held, but=own))
    return [message for message in sent if message is not None]


def withdraw(
    step: Step,
    dossier: Dossier,
    report: Report,
    content: ReportContent,
    forms: tuple[RenderedForm, ...],
    mails: ReportMails,
) -> Sequence[Message]:
    """Tell whoever got any version that the report is withdrawn; what was not sent yet is not sent any more."""
    _hold_back(step, dossier)
    sent = []
    for one in told(step, dossier.id):
        kind = report_letters.withdrawal_of({message.kind for message in one.earlier})
        sent.append(_post(step, dossier, report, content, forms, mails, one, kind))
    held = patient_copy.copies(_letters(step, dossier.id, (patient_copy.COPY, patient_copy.NOTICE)))
    sent += _say_not_valid(step, dossier, report, content, mails, _holders(held))
    return [message for message in sent if message is not None]


def _holders(held: Mapping[str, tuple[Message, ...]], *, but: str | None = None) -> Iterator[Recipient]:
    """Give whoever holds a copy that is no longer valid, but for one address."""
    return (Recipient(_PATIENT, None, address, earlier=got) for address, got in held.items() if address != but)


def _say_not_valid(
    step: Step,
    dossier: Dossier,
    report: Report,
    content: ReportContent,
    mails: ReportMails,
    holders: Iterable[Recipient],
) -> Sequence[Message | None]:
    return [_post(step, dossier, report, content, (), mails, one, patient_copy.NOTICE) for one in holders]


def told(step: Step, dossier_id: uuid.UUID) -> Sequence[Recipient]:
    """Say who was sent a version of the report, each person once, at the address used last."""
    people = ((step.session.get_one(Practitioner, key), letters) for key, letters in _had(step, dossier_id).items())
    return tuple(Recipient(who.idnps, who, letters[-1].recipient, earlier=letters) for who, letters in people)


def _had(step: Step, dossier_id: uuid.UUID) -> dict[uuid.UUID, tuple[Message, ...]]:
    """Which letters brought each professional a version, oldest first."""
    found: dict[uuid.UUID, tuple[Message, ...]] = {}
    for message in _letters(step, dossier_id, report_letters.VERSIONS):
        if message.recipient_id is not None:
            found[message.recipient_id] = (*found.get(message.recipient_id, ()), message)
    return found


def _hold_back(step: Step, dossier: Dossier) -> None:
    """Cancel the report mails that wait; those of which an attempt may have left stay marked, and count as sent."""
    waiting = step.session.scalars(
        select(Message)
        .where(
            Message.direction == "out",
            Message.channel == mailing.CHANNEL,
            Message.dossier_id == dossier.id,
            Message.kind.in_(report_letters.VERSIONS),
            Message.state.in_(_PENDING),
        )
        .order_by(Message.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    # Asked once the rows are locked: an attempt begins under the lock of its message.
    under_way = select(Attempt.message_id).where(
        Attempt.message_id.in_([message.id for message in waiting]), Attempt.ended_at.is_(None)
    )
    leaving = set(step.session.scalars(under_way))
    for message in waiting:
        message.state = "annule"
        message.reason = "version remplacée ou retirée avant l’envoi"
        if message.id in leaving:
            message.uncertain_at = message.uncertain_at or utcnow()
    step.session.flush()


def _letters(step: Step, dossier_id: uuid.UUID, kinds: Collection[str]) -> Iterator[Message]:
    """Every mail of those kinds about the report of a dossier that left or may have left, oldest first."""
    return iter(
        step.session.scalars(
            select(Message)
            .where(
                Message.direction == "out",
                Message.channel == mailing.CHANNEL,
                Message.dossier_id == dossier_id,
                Message.kind.in_(kinds),
                or_(Message.state != "annule", Message.uncertain_at.is_not(None)),
            )
            .order_by(Message.created_at, Message.id)
        )
    )


def _post(
    step: Step,
    dossier: Dossier,
    report: Report,
    content: ReportContent,
    forms: tuple[RenderedForm, ...],
    mails: ReportMails,
    one: Recipient,
    kind: ReportKind,
) -> Message | None:
    """Put one mail into the outbox; `None` when it cannot be made, which a person is told."""
    person, address = one.practitioner, one.address
    assert address is not None  # noqa: S101 - the callers chose those who have an address
    whom = person.id if person is not None else one.earlier[-1].id if one.earlier else dossier.record_id
    key = "|".join((kind, str(dossier.id), str(dossier.session_id), str(whom), str(report.version)))
    letter = report_letters.letter(
        step,
        dossier,
        content,
        kind=kind,
        key=key,
        address=address,
        recipient=person,
        forms=forms,
        previous=[message.message_id for message in one.earlier if message.message_id],
    )
    try:
        sealed = mails.seal(letter)
    except InvalidContent as refusal:
        _register(step, dossier, report, replace(one, code="ECHEC"), kind)
        _ask(step, dossier, key, refusal)
        return None
    return mailing.post(
        step,
        dossier,
        sealed,
        kind=kind,
        key=key,
        recipient=person,
        address=address,
        report_id=report.id,
        version=report.version,
    )


def _ask(step: Step, dossier: Dossier, key: str, refusal: InvalidContent) -> None:
    """Put a mail that cannot be made on the work list: only a person finds another way."""
    work_list.ask(
        step.session,
        WorkItem(
            key=f"cr-non-envoye|{key}",
            kind="notification",
            reason="cr-non-envoye",
            network_id=dossier.session.rcp.network_id,
            dossier_id=dossier.id,
            details={"code": refusal.code, "motif": refusal.text},
        ),
    )


def _register(step: Step, dossier: Dossier, report: Report, one: Recipient, kind: str) -> None:
    """Write down why somebody does not get this version, or its withdrawal; the same line once."""
    step.session.execute(
        insert(NotificationEntry)
        .values(
            dossier_id=dossier.id,
            session_id=dossier.session_id,
            subject=one.subject,
            practitioner_id=one.practitioner.id if one.practitioner else None,
            kind=f"{kind}.{report.version}",
            code=one.code,
            decided_at=step.now,
        )
        .on_conflict_do_nothing(index_elements=["dossier_id", "session_id", "subject", "kind"])
    )


def settle(step: Step, dossier: Dossier) -> bool:
    """Move a dossier to `envoye` when each mail of its report found its end; say whether it did.

    Parameters
    ----------
    dossier
        Locked by the caller.
    """
    if dossier.state not in _SETTLING:
        return False
    waiting = select(Message.id).where(
        Message.direction == "out",
        Message.dossier_id == dossier.id,
        Message.kind.in_(report_letters.VERSIONS),
        Message.state.in_(_PENDING),
    )
    if step.session.scalar(waiting.limit(1)) is not None:
        return False
    dossier_states.move(step, dossier, "envoye")
    return True


def settle_due(steps: Steps, *, limit: int = 200) -> int:
    """Settle every dossier whose report mails have all ended; each in a step of its own; say how many moved.

    Run by the worker each minute and after a delivery: it may run at any time, twice, or after a crash.
    """
    pending = exists().where(
        Message.dossier_id == Dossier.id,
        Message.direction == "out",
        Message.kind.in_(report_letters.VERSIONS),
        Message.state.in_(_PENDING),
    )
    with steps.store.session() as session:
        due = session.scalars(
            select(Dossier.id).where(Dossier.state.in_(_SETTLING), ~pending).order_by(Dossier.id).limit(limit)
        ).all()
    moved = 0
    for dossier_id in due:

        def verb(step: Step, wanted: uuid.UUID = dossier_id) -> bool:
            [dossier] = step.lock(Dossier, wanted)
            return settle(step, dossier)

        moved += steps.run(access.SYSTEM, verb)
    return moved
