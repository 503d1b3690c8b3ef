"""What the treating physician adds before the meeting: a comment, the wish to take part, and who is told of it.

Promises: only the treating physician of the dossier writes, and only until the report is validated; the same form sent
twice is one contribution; name and speciality are frozen as they are at that moment; what the participants have read at
the session is not rewritten after it (a later text is another contribution, marked); the requester is told by M2, which
never holds the text, at most once in half an hour (S2-039), or the secretariat is told that he cannot be reached.

[spec features S2-035 to S2-040, M2]
"""

from __future__ import annotations

import re
import unicodedata
import uuid
from datetime import timedelta

from sqlalchemy import exists, func, select

from gateway.errors import Conflict, Forbidden, InvalidContent
from gateway.identifiers import uuid7
from gateway.model.directory import Practitioner
from gateway.model.dossier import Contribution, Correspondent, Dossier
from gateway.model.message import Message, NotificationEntry
from gateway.model.report import Report
from gateway.rcp import access, dossier_states, mailboxes, mailing
from gateway.rcp.letters import compose, contribution_values, full_name
from gateway.rcp.ports import Letter, Letters
from gateway.rcp.step import Step
from gateway.rcp.work_list import ask_secretariat
from gateway.terminology import code_list

__all__ = ["KIND", "TEXT_LIMIT", "clean", "contribute", "decline"]

KIND = "M2"
TEXT_LIMIT = 10_000
"""Characters of one contribution."""

_TOGETHER = timedelta(minutes=30)
#: Callers that bring the words of a professional; the gateway itself those of a mail that it recognised.
_SOFTWARE = frozenset({access.CallerKind.CLIENT, access.CallerKind.PEER, access.CallerKind.SYSTEM})
_CLOSED = frozenset({"cr-valide", "envoye", "addendum", "correction"}) | dossier_states.FINAL
# What pasted text may hide: control characters but line feed and tab, and marks that reorder what is read.
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def contribute(
    step: Step,
    dossier_id: uuid.UUID,
    *,
    text: str,
    interested: bool | None,
    key: str,
    letters: Letters,
    channel: str = "portail",
    author: Practitioner | None = None,
    contribution_id: uuid.UUID | None = None,
) -> Contribution:
    """Keep the contribution of the step's caller, and tell the requester.

    Parameters
    ----------
    interested
        The wish to take part; `None` where the wire cannot say it: what was said before stands.
    key
        Made with the form: the same form sent twice is one contribution.
    channel
        ``portail``, ``messagerie`` for a reply by mail, or ``fhir``.
    author
        Whose words the software of an establishment, or a mail, brings; else they are the caller's own.
    contribution_id
        Id of the contribution if it is made here, when the wire had to name it.

    Raises
    ------
    NotFound
        The dossier does not exist for this caller.
    Forbidden
        ``role``: he (or the author named) is not its treating physician (S2-035).
    InvalidContent
        ``contribution-vide`` (neither text nor wish), ``contribution-longue`` (names the limit); both are rules.
    Conflict
        ``contribution-close``: the report is validated, or the dossier is withdrawn.
    """
    dossier, own = _own_dossier(step, dossier_id, author)
    body = clean(text)
    if not body and not interested:
        reason = "Écrivez un commentaire, ou indiquez que la discussion vous intéresse."
        raise InvalidContent("contribution-vide", reason, expression="commentaire", rule=True)
    if len(body) > TEXT_LIMIT:
        reason = f"Le commentaire dépasse {TEXT_LIMIT} caractères."
        raise InvalidContent("contribution-longue", reason, expression="commentaire", rule=True)
    author = own.practitioner
    assert author is not None  # noqa: S101 - `_own_dossier` compares its key
    unique = f"{dossier.id}|{author.id}|{key}"
    known = step.session.scalar(select(Contribution).where(Contribution.key == unique))
    if known is not None:
        return known
    _require_open(step, dossier)
    contribution = _write(step, dossier, author, body, unique, channel, contribution_id)
    if interested is not None:
        own.wishes_to_attend = interested
    step.session.flush()
    step.session.refresh(dossier, ["contributions"])
    step.touch(contribution, dossier)
    step.audit(
        "modification",
        action="C",
        persons=(dossier.record_id,),
        dossier=dossier.id,
        object_type="Contribution",
        object_id=str(contribution.id),
        detail={"voie": channel},
    )
    if dossier.requester_id != author.id:
        _tell_requester(step, dossier, author, interested=own.wishes_to_attend, letters=letters)
    return contribution


def decline(step: Step, dossier_id: uuid.UUID) -> None:
    """Take « ce n’est pas mon patient »: the caller sees the dossier no more, and the secretariat is asked to look.

    Raises
    ------
    NotFound
        The dossier does not exist for this caller, or no longer.
    Forbidden
        ``role``: he may read the dossier, but is not its treating physician.
    """
    dossier, own = _own_dossier(step, dossier_id)
    own.declined_at = step.now
    ask_secretariat(step.session, dossier, f"pas-mon-patient|{dossier.id}|{own.id}", "pas-mon-patient")
    step.session.flush()
    step.touch(dossier)
    step.audit(
        "droits",
        action="U",
        persons=(dossier.record_id,),
        dossier=dossier.id,
        object_type="Correspondent",
        object_id=str(own.id),
        detail={"motif": "pas-mon-patient"},
    )


def _own_dossier(
    step: Step, dossier_id: uuid.UUID, author: Practitioner | None = None
) -> tuple[Dossier, Correspondent]:
    """Lock a dossier that the caller may see, with the line of its treating physician: the caller, or who is named."""
    visible = step.session.scalar(select(Dossier.id).where(Dossier.id == dossier_id, access.dossiers(step.caller)))
    if visible is None:
        raise access.hidden(step.caller, "Dossier", dossier_id)
    [dossier] = step.lock(Dossier, dossier_id)
    if author is not None and step.caller.kind not in _SOFTWARE:
        author = None  # a person speaks for himself
    own = access.treats(step.caller, dossier) if author is None else access.treating(dossier, author.id)
    if own is None:
        error = Forbidden("role", "Seul le médecin traitant déclaré peut contribuer à cette fiche.")
        error.trail = access.facts(
            step.caller, "refus", outcome="4", reason="role", object_type="Dossier", object_id=str(dossier_id)
        )
        raise error
    return dossier, own


def clean(text: str) -> str:
    """Give a text as it is kept: composed, without the marks that hide or reorder what is read."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", _HIDDEN.sub("", plain)).strip()


def _require_open(step: Step, dossier: Dossier) -> None:
    validated = step.session.scalar(
        select(exists().where(Report.dossier_id == dossier.id, Report.state.in_(("valide", "remplace"))))
    )
    if validated or dossier.state in _CLOSED:
        text = "Le compte rendu est validé ou le dossier retiré : la fiche ne reçoit plus de contribution."
        raise Conflict("contribution-close", text)


def _write(
    step: Step,
    dossier: Dossier,
    author: Practitioner,
    body: str,
    key: str,
    channel: str,
    contribution_id: uuid.UUID | None,
) -> Contribution:
    after = step.now >= dossier.session.starts_at
    mine = [one for one in dossier.contributions if one.author_id == author.id and one.after_session == after]
    if contribution_id is not None:
        found = next((one for one in mine if one.id == contribution_id), None)
    else:  # what a software or a mail brought is not rewritten here
        found = next((one for one in reversed(mine) if one.channel == "portail"), None)
    if found is None:
        found = Contribution(
            id=contribution_id or uuid7(), dossier_id=dossier.id, author_id=author.id, after_session=after
        )
        step.session.add(found)
    found.text, found.key, found.channel, found.at = body, key, channel, step.now
    found.author_name, found.author_speciality = full_name(author), _speciality(author.speciality)
    return found


def _speciality(code: str | None) -> str | None:
    concept = code_list("TRE_R38").get(code) if code else None
    return re.sub(r" \([A-Z]{2,3}\)$", "", concept.label) if concept else code


def _tell_requester(step: Step, dossier: Dossier, author: Practitioner, *, interested: bool, letters: Letters) -> None:
    count, last = step.session.execute(
        select(func.count(), func.max(Message.domain_at)).where(
            Message.direction == "out",
            Message.channel == mailing.CHANNEL,
            Message.kind == KIND,
            Message.dossier_id == dossier.id,
            Message.details["auteur"].astext == author.idnps,
        )
    ).one()
    if count and step.now - last < _TOGETHER:
        return  # he was just told, and reads the fiche as it is now
    requester = dossier.requester
    boxes = (
        mailboxes.addresses(step.session, requester, secretariat=True, dossier=dossier) if requester is not None else ()
    )
    if requester is None or not boxes:
        _register(step, dossier, requester, "NON_MSS" if requester is not None else "NON_RPPS", None)
        ask_secretariat(step.session, dossier, f"demandeur-injoignable|{dossier.id}", "demandeur-sans-adresse")
        return
    text = compose(step.session, KIND, contribution_values(dossier, author, interested=interested), boxes[0].address)
    key = "|".join((KIND, str(dossier.id), str(dossier.session_id), requester.idnps, author.idnps, str(count + 1)))
    sealed = letters.seal(
        Letter(
            kind=KIND,
            key=key,
            at=step.now,
            address=boxes[0].address,
            name=full_name(requester),
            subject=text.subject,
            body=text.body,
        )
    )
    message = mailing.post(
        step,
        dossier,
        sealed,
        kind=KIND,
        key=key,
        recipient=requester,
        address=boxes[0].address,
        auteur=author.idnps,
    )
    _register(step, dossier, requester, "ENVOYEE", message)


def _register(step: Step, dossier: Dossier, requester: Practitioner | None, code: str, message: Message | None) -> None:
    subject = requester.idnps if requester is not None else "demandeur"
    entry = step.session.scalar(
        select(NotificationEntry).where(
            NotificationEntry.dossier_id == dossier.id,
            NotificationEntry.session_id == dossier.session_id,
            NotificationEntry.subject == subject,
            NotificationEntry.kind == KIND,
        )
    )
    if entry is None:
        entry = NotificationEntry(
            id=uuid7(), dossier_id=dossier.id, session_id=dossier.session_id, subject=subject, kind=KIND
        )
        step.session.add(entry)
    entry.practitioner_id = requester.id if requester is not None else None
    entry.code, entry.decided_at, entry.message_id = code, step.now, message.id if message is not None else None
    step.session.flush()
    step.touch(entry)
