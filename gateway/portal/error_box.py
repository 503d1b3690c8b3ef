"""The error box read from the model: the list, and one situation with what may be done about it.

Promises: a situation names its dossier by the reference and only to who sees that dossier; a mail that came is named by
its sender; no content of a mail stands in a page, nor any address of the red list.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.model.audit import AuditFacts
from gateway.model.directory import Mailbox, Practitioner
from gateway.model.dossier import Dossier
from gateway.model.message import Attempt, Message, Receipt
from gateway.model.partner import Partner
from gateway.model.person import WorkItem
from gateway.model.store import utcnow
from gateway.portal import views as v
from gateway.portal import words
from gateway.portal.failures import failure_words
from gateway.rcp import access, error_box, happenings, imaging_sending, mailboxes, resending
from gateway.rcp.access import Caller
from gateway.rcp.step import Step
from gateway.rcp.work_list import BY_ITSELF

__all__ = ["box_page", "item_page"]

_ZONE: Final = "Europe/Paris"
_LISTED: Final = 100
_GROUPS: Final[Mapping[str, str]] = {
    "envois": "Courriels envoyés",
    "recus": "Courriels reçus",
    "notifications": "Médecins non informés",
}
_AGES: Final[Mapping[str, tuple[str, timedelta]]] = {
    "1j": ("Plus d’un jour", timedelta(days=1)),
    "7j": ("Plus d’une semaine", timedelta(days=7)),
}
_MESSAGES: Final[Mapping[str, str]] = {
    "M1": "Notification avant RCP",
    "M1c": "Changement annoncé au médecin traitant",
    "M2": "Contribution du médecin traitant",
    "M5": "Lien vers le compte rendu",
    "M5r": "Retrait du compte rendu",
    "M6": "Compte rendu",
    "M6r": "Retrait du compte rendu",
    "M6p": "Compte rendu au patient",
    "M6pr": "Retrait du compte rendu au patient",
    imaging_sending.KIND: "Images envoyées",
    imaging_sending.CONFIRMATION: "Confirmation de conservation",
    happenings.CHANNEL: "Notification à un logiciel",
}
_DECISIONS: Final[Mapping[str, str]] = {
    "rejoue": "Message rejoué",
    "renvoye": "Renvoyé à une autre adresse",
    "rattache": "Rattaché à un dossier",
    "nouvelle-recue": "Une nouvelle est arrivée depuis",
}


def box_page(session: Session, caller: Caller, group: str, age: str) -> tuple[v.ErrorBox, list[AuditFacts]]:
    """Return the open situations, oldest first, narrowed as asked; an unknown filter narrows nothing."""
    now = utcnow()
    chosen = group if group in _GROUPS else ""
    older = _AGES[age][1] if age in _AGES else None
    rows = error_box.items(
        session,
        caller,
        group=chosen or None,
        opened_before=now - older if older else None,
        limit=_LISTED + 1,
    )
    counts = error_box.counts(session, caller)
    shown = rows[:_LISTED]
    page = v.ErrorBox(
        lines=tuple(_lines(session, caller, shown, now)),
        groups=(
            v.Choice("", f"Tout ({sum(counts.values())})", not chosen),
            *(v.Choice(name, f"{label} ({counts[name]})", name == chosen) for name, label in _GROUPS.items()),
        ),
        ages=(
            v.Choice("", "Quel que soit l’âge", age not in _AGES),
            *(v.Choice(name, label, name == age) for name, (label, _) in _AGES.items()),
        ),
        total=sum(counts.values()),
        cut=len(rows) > _LISTED,
    )
    line = access.facts(caller, "consultation", object_type="WorkItem")
    return page, [line] if shown else []


def _lines(session: Session, caller: Caller, rows: Iterable[WorkItem], now: datetime) -> Iterable[v.ErrorLine]:
    rows = list(rows)
    references = _references(session, caller, [row.dossier_id for row in rows if row.dossier_id])
    messages = {
        one.id: one
        for one in session.scalars(
            select(Message).where(Message.id.in_([row.message_id for row in rows if row.message_id]))
        )
    }
    for row in rows:
        message = messages.get(row.message_id) if row.message_id else None
        yield _line(session, row, message, references.get(row.dossier_id, "") if row.dossier_id else "", now)


def _references(session: Session, caller: Caller, ids: list[uuid.UUID]) -> dict[uuid.UUID | None, str]:
    found = session.execute(select(Dossier.id, Dossier.reference).where(Dossier.id.in_(ids), access.dossiers(caller)))
    return dict(found.tuples().all())


def _line(session: Session, row: WorkItem, message: Message | None, reference: str, now: datetime) -> v.ErrorLine:
    return v.ErrorLine(
        kind=_kind(row, message),
        text=words.WORK_REASONS.get(row.reason, row.reason),
        at=words.local(row.opened_at, _ZONE),
        url=f"/erreurs/{row.id}",
        since=words.since(now - row.opened_at),
        who=_who(session, row, message),
        reference=reference,
        tone="danger" if row.reason in words.URGENT_REASONS else "warning",
    )


def _kind(row: WorkItem, message: Message | None) -> str:
    if message is None:
        return words.WORK_KINDS.get(row.kind, row.kind)
    return _MESSAGES.get(message.kind, "Courriel envoyé") if message.direction == "out" else "Courriel reçu"


def _who(session: Session, row: WorkItem, message: Message | None) -> str:
    """Whom a mail was for, or who sent it, or whose software brought a document or listens: never a patient."""
    if message is None or _told(message):
        partner = session.get(Partner, row.partner_id) if row.partner_id is not None else None
        return partner.name if partner is not None else ""
    if message.direction == "in":
        return mailboxes.displayed(session, message.sender) or "Expéditeur inconnu"
    person = session.get(Practitioner, message.recipient_id) if message.recipient_id else None
    return words.formal_name(person) if person is not None else mailboxes.displayed(session, message.recipient)


def item_page(
    step: Step, caller: Caller, item_id: uuid.UUID, *, given: str = "", errors: dict[str, str] | None = None
) -> tuple[v.ErrorItem, list[AuditFacts]]:
    """Return one situation."""
    session = step.session
    row = error_box.held(session, caller, item_id)
    message = session.get(Message, row.message_id) if row.message_id else None
    reference = _references(session, caller, [row.dossier_id] if row.dossier_id else []).get(row.dossier_id, "")
    is_open = row.closed_at is None
    out = message if message is not None and message.direction == "out" else None
    may_resend = out is not None and out.state != "en-attente"
    readable = error_box.readable(session, caller, row)
    address = mailboxes.displayed(session, out.recipient) if out is not None else ""
    aside = bool(out is not None and out.recipient and mailboxes.is_set_aside(session, out.recipient))
    page = v.ErrorItem(
        line=_line(session, row, message, reference, utcnow()),
        facts=tuple(_facts(session, row, message, aside=aside)),
        events=tuple(_events(session, message)),
        url=f"/erreurs/{row.id}",
        dossier_url=f"/dossiers/{row.dossier_id}" if reference else "",
        download_url=f"/erreurs/{row.id}/courriel" if readable is not None else "",
        replay_label=_replay_label(message) if is_open else "",
        addresses=tuple(
            _choice(session, box)
            for box in (resending.other_addresses(step, out) if out is not None and is_open and may_resend else ())
        ),
        forgettable=address if is_open and not aside and not _images(out) and not _told(out) else "",
        reusable=address if is_open and aside else "",
        tieable=is_open and message is not None and message.direction == "in",
        closed=_closing(row),
        reason_characters=error_box.REASON_CHARACTERS,
        given=given,
        errors=errors or {},
    )
    dossier = row.dossier_id if reference else None
    return page, [access.facts(caller, "consultation", dossier=dossier, object_type="WorkItem", object_id=str(row.id))]


def _replay_label(message: Message | None) -> str:
    if message is None or _told(message):  # who subscribed asks again himself, and for what he missed
        return ""
    if message.direction == "in":
        return "Relire ce courriel"
    label = "Envoyer à nouveau" if _images(message) else "Renvoyer à la même adresse"
    return label if message.state in error_box.ENDED else ""


def _images(message: Message | None) -> bool:
    return message is not None and message.channel in (imaging_sending.CHANNEL, imaging_sending.WEB_CHANNEL)


def _told(message: Message | None) -> bool:
    return message is not None and message.channel == happenings.CHANNEL


def _choice(session: Session, box: Mailbox) -> v.Choice:
    kind = words.MAILBOXES.get(box.kind, box.kind)
    return v.Choice(str(box.id), f"{mailboxes.displayed(session, box.address)} ({kind})")


def _facts(session: Session, row: WorkItem, message: Message | None, *, aside: bool) -> Iterable[tuple[str, str]]:
    if row.details.get("motif"):
        yield "Motif", str(row.details["motif"])
    if message is None:
        return
    if _told(message):
        yield from _told_facts(message)
        return
    if _images(message):
        yield from _images_facts(session, message)
    elif message.direction == "out":
        yield "Adresse", mailboxes.displayed(session, message.recipient) or "–"
        yield "État", words.message_badge(message.state).label
        if message.reason and message.state in {"refuse", "parque", "en-attente"}:
            yield "Réponse de l’opérateur", failure_words(message.reason)
        if message.details.get("queue_id"):
            yield "Numéro chez l’opérateur", str(message.details["queue_id"])
        if aside:
            yield "Adresse écartée", "Elle n’est plus proposée ni utilisée."
    else:
        yield "Expéditeur", mailboxes.displayed(session, message.sender) or "inconnu"
        yield "Taille", f"{message.size_bytes // 1024 + 1} Kio"
    if message.message_id:
        yield "Message-ID", message.message_id


def _images_facts(session: Session, message: Message) -> Iterable[tuple[str, str]]:
    yield "Application DICOM", message.recipient or "–"
    yield "État", words.message_badge(message.state).label
    told = select(Attempt.reason).where(Attempt.message_id == message.id, Attempt.reason.is_not(None))
    last = session.scalar(told.order_by(Attempt.started_at.desc()).limit(1))
    if last and message.state in {"refuse", "parque", "en-attente"}:
        yield "Ce qu’il en est", last


def _told_facts(message: Message) -> Iterable[tuple[str, str]]:
    yield "Adresse", message.recipient or "–"
    yield "État", words.message_badge(message.state).label
    if message.reason:
        yield "Ce qu’il en est", message.reason


def _events(session: Session, message: Message | None) -> Iterable[tuple[datetime, str]]:
    """What happened to a mail, oldest first."""
    if message is None:
        return ()
    first = "Mis en file d’envoi" if message.direction == "out" else "Reçu et conservé"
    found = [(message.created_at, first)]
    for attempt in session.scalars(select(Attempt).where(Attempt.message_id == message.id)):
        ended = attempt.ended_at or attempt.started_at
        found.append((ended, words.ATTEMPTS.get(attempt.outcome or "", "Tentative en cours")))
    if message.direction == "out":
        for receipt in session.scalars(select(Receipt).where(Receipt.message_id == message.id)):
            said = words.RECEIPTS.get(receipt.kind, receipt.kind)
            failed = receipt.kind in {"rejetee", "refusee"} and receipt.code
            found.append((receipt.at, f"{said} : {failure_words(receipt.code or '')}" if failed else said))
    return [(words.local(at, _ZONE), text) for at, text in sorted(found, key=lambda one: one[0])]


def _closing(row: WorkItem) -> str:
    if row.closed_at is None:
        return ""
    said = _DECISIONS.get(row.decision or "", row.decision or "")
    by = "par la passerelle" if row.closed_by == BY_ITSELF else f"par {row.closed_by}"
    return f"{said} – {words.instant(words.local(row.closed_at, _ZONE))}, {by}"
