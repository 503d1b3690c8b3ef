"""A physician answers the mail that told him of a meeting: his words become a contribution.

Promises: only the very address that was notified contributes, in an MSSanté domain, for the dossier that his mail
answers or cites, before the report is validated; what comes so is kept as « messagerie », never mixed with what he
wrote signed in; files that come with it wait for a person; he is told once what became of his mail (M7), or why nothing
did (M8), and an answer to such an answer goes to a person. Believes no name and no identity in a text.

[spec features 3.2 #7 (a) to (e), 4.2 M7, M8]
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from msgspec import Struct
from sqlalchemy import func, select

from gateway.errors import GatewayError
from gateway.identifiers import MssanteAddress, uuid7
from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.message import Message
from gateway.model.network import Network
from gateway.rcp import mail_events, mailing
from gateway.rcp.contribution import TEXT_LIMIT, contribute
from gateway.rcp.letters import answer_values, compose, full_name
from gateway.rcp.ports import Letter, Letters
from gateway.rcp.step import Step

__all__ = ["REASONS", "Reply", "take"]

REASONS: Mapping[str, str] = {
    "adresse-non-notifiee": "il vient d’une autre adresse que celle qui a été notifiée",
    "contribution-close": "le compte rendu est déjà validé, ou le dossier retiré",
    "reference-introuvable": "la référence du dossier est introuvable",
    "message-vide": "il ne contient aucun texte nouveau",
    "piece-jointe-seule": "il ne contient qu’une pièce jointe",
    "contribution-longue": f"il dépasse {TEXT_LIMIT} caractères",
    "role": "vous n’êtes pas, ou plus, le médecin traitant déclaré dans ce dossier",
    "inconnu": "la référence du dossier est introuvable",
}
"""Why a mail is not taken: what M8 says (``motif``)."""

ACCEPTED, REFUSED = "M7", "M8"
_NOTICES = frozenset({"M1", "M1b", "M1c"})
#: Refusals told to one address within a day; more is a machine that does not say so.
_REFUSALS_A_DAY = 5


class Reply(Struct, frozen=True, kw_only=True):
    """What a mail says, as its wire read it.

    Attributes
    ----------
    text
        What its sender wrote himself, without the quotation.
    author
        Its sender's address, if all that the mail says of it agrees.
    answers
        Message-IDs that it answers, nearest first.
    references
        References of dossiers that it cites.
    message_id
        Its own, if it fits into a header.
    attachments
        How many files came with it.
    """

    text: str
    author: str | None
    answers: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    message_id: str | None = None
    attachments: int = 0


def take(step: Step, message: Message, reply: Reply, letters: Letters) -> tuple[str, str | None]:
    """Take one mail of a person; return its state and the reason for a person.

    Parameters
    ----------
    message
        The kept mail; it is tied to its dossier.
    """
    about = mail_events.answered(step.session, reply.answers)
    dossier = _dossier(step, about, reply)
    notice = None
    if dossier is not None:
        message.dossier_id, message.session_id = dossier.id, dossier.session_id
        notice = _notice(step, dossier, reply.author) if reply.author is not None else None
    left = _left(about, reply, notice)
    if left is not None:
        mail_events.ask_person(step.session, message, left, about=about)
        return "quarantaine", left
    refused = _contribute(step, message, reply, dossier, notice, letters)
    if refused is not None:
        _refuse(step, message, reply, dossier, notice, refused, letters)
        return "quarantaine", refused
    _answer(step, message, reply, dossier, notice, ACCEPTED, None, letters)
    if reply.attachments:
        mail_events.ask_person(step.session, message, "pieces-jointes", about=message)
        return "traite", "pieces-jointes"
    return "traite", None


def _left(about: Message | None, reply: Reply, notice: Practitioner | None) -> str | None:
    """Why only a person may judge this mail, and nothing is answered."""
    if about is not None and about.kind in {ACCEPTED, REFUSED}:
        return "reponse-a-un-accuse"  # or two machines would answer each other for ever
    if reply.author is None or MssanteAddress.from_wire(reply.author).faults:
        return "expediteur-douteux"
    if about is not None and about.kind not in _NOTICES and notice is None:
        return "courriel-reply"  # answers another letter of ours
    return None


def _contribute(
    step: Step,
    message: Message,
    reply: Reply,
    dossier: Dossier | None,
    notice: Practitioner | None,
    letters: Letters,
) -> str | None:
    """Keep the contribution; return why not, when it is not to be."""
    if dossier is None:
        return "reference-introuvable"
    if notice is None:
        return "adresse-non-notifiee"
    if not reply.text:
        return "piece-jointe-seule" if reply.attachments else "message-vide"
    try:
        contribute(
            step,
            dossier.id,
            text=reply.text,
            interested=None,
            key=reply.message_id or message.sha256,
            letters=letters,
            channel="messagerie",
            author=notice,
            contribution_id=uuid7(),
        )
    except GatewayError as error:
        if error.code not in REASONS:
            raise
        return error.code
    return None


def _dossier(step: Step, about: Message | None, reply: Reply) -> Dossier | None:
    """The dossier that the mail answers, else the one that it cites, if it cites one alone."""
    if about is not None and about.dossier_id is not None:
        return step.session.get(Dossier, about.dossier_id)
    cited = step.session.scalars(select(Dossier).where(Dossier.reference.in_(reply.references))).unique().all()
    return cited[0] if len(cited) == 1 else None


def _notice(step: Step, dossier: Dossier, address: str) -> Practitioner | None:
    """The physician who was told of this dossier at this very address."""
    found = step.session.scalar(
        select(Message.recipient_id)
        .where(
            Message.direction == "out",
            Message.channel == mailing.CHANNEL,
            Message.kind.in_(sorted(_NOTICES)),
            Message.dossier_id == dossier.id,
            func.lower(Message.recipient) == address.lower(),
            Message.recipient_id.is_not(None),
        )
        .order_by(Message.id.desc())
        .limit(1)
    )
    return step.session.get(Practitioner, found) if found is not None else None


def _refuse(
    step: Step,
    message: Message,
    reply: Reply,
    dossier: Dossier | None,
    who: Practitioner | None,
    reason: str,
    letters: Letters,
) -> None:
    """Say why once, and ask a person to look: what a physician wrote is not lost."""
    mail_events.ask_person(step.session, message, reason, about=message if dossier is not None else None)
    told = select(func.count()).where(
        Message.direction == "out",
        Message.channel == mailing.CHANNEL,
        Message.kind == REFUSED,
        Message.recipient == reply.author,
        Message.domain_at > step.now - timedelta(days=1),
    )
    if (step.session.scalar(told) or 0) < _REFUSALS_A_DAY:
        _answer(step, message, reply, dossier, who, REFUSED, REASONS[reason], letters)


def _answer(
    step: Step,
    message: Message,
    reply: Reply,
    dossier: Dossier | None,
    who: Practitioner | None,
    kind: str,
    motive: str | None,
    letters: Letters,
) -> None:
    assert reply.author is not None  # noqa: S101 - `take` left the others to a person
    if dossier is not None:
        values = answer_values(dossier)
    else:
        places = step.session.scalars(select(Network.base_url).limit(2)).all()
        if len(places) != 1:
            return  # no page that one could name
        values = {"lien_fiche": places[0]}
    values |= {"motif": motive} if motive is not None else {}
    text = compose(step.session, kind, values, reply.author)
    key = f"{kind}|{message.id}"
    sealed = letters.seal(
        Letter(
            kind=kind,
            key=key,
            at=step.now,
            address=reply.author,
            name=full_name(who) if who is not None else "",
            subject=text.subject,
            body=text.body,
            in_reply_to=reply.message_id,
        )
    )
    mailing.post(
        step, dossier, sealed, kind=kind, key=key, recipient=who, address=reply.author, repond_a=str(message.id)
    )
