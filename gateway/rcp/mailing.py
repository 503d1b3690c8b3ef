"""How a sealed mail about a dossier is put into the outbox.

Promises: one logical mail a key; the message remembers dossier, session and addressee, so that receipts and pages find
it, and of a notification when and where it says that the meeting is, so that a change is known to whom it must be told;
its representation follows. Writes no text (`letters`, the mail wire) and delivers nothing (the outbox does).
"""

from __future__ import annotations

import uuid
from typing import Any

from gateway.exchange.outbox import Outgoing
from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.message import Message
from gateway.rcp.ports import SealedLetter
from gateway.rcp.step import Step

__all__ = ["CHANNEL", "announced", "post", "record"]

CHANNEL = "mssante"
#: Mails of which it is kept what they say of the meeting.
_ANNOUNCING = frozenset({"M1", "M1c"})


def announced(dossier: Dossier) -> dict[str, str]:
    """Return what a notification of this dossier says of its meeting: which, when, and by which link."""
    meeting, webconference = dossier.session, dossier.session.rcp.webconference
    return {
        "seance": str(meeting.id),
        "debut": meeting.starts_at.isoformat(),
        "lien": webconference.get("lien") or "",
        "complement": webconference.get("complement") or "",
    }


def post(
    step: Step,
    dossier: Dossier | None,
    sealed: SealedLetter,
    *,
    kind: str,
    key: str,
    recipient: Practitioner | None,
    address: str,
    report_id: uuid.UUID | None = None,
    **details: Any,
) -> Message:
    """Put one sealed mail into the outbox; the same key twice is the same message.

    Parameters
    ----------
    dossier, recipient
        `None` where an answer goes to who could not be told apart.
    """
    if dossier is not None and kind in _ANNOUNCING:
        details = {"annonce": announced(dossier), **details}
    message = step.post(
        Outgoing(
            channel=CHANNEL,
            kind=kind,
            key=key,
            content=sealed.content,
            message_id=sealed.message_id,
            sender=sealed.sender,
            recipient=address,
            recipient_id=recipient.id if recipient is not None else None,
            dossier_id=dossier.id if dossier is not None else None,
            session_id=dossier.session_id if dossier is not None else None,
            report_id=report_id,
            partner_id=dossier.partner_id if dossier is not None else None,
            details={"envelope_id": sealed.envelope_id, "mdn": _asks_for_reading(sealed.content), **details},
        )
    )
    step.touch(message)
    return message


def record(step: Step, dossier: Dossier, message: Message) -> None:
    """Leave the trail of a mail that was put there; that it left is told when it has (« envoi »)."""
    step.audit(
        "creation",
        action="C",
        persons=(dossier.record_id,),
        dossier=dossier.id,
        object_type="Message",
        object_id=str(message.id),
        object_sha256=message.sha256,
        recipient=message.recipient,
        detail={"type": message.kind},
    )


def _asks_for_reading(content: bytes) -> bool:
    """Whether the very bytes ask for a read receipt: only then is one waited for. [RFC 8098 §2.1]."""
    return b"\ndisposition-notification-to:" in content.partition(b"\r\n\r\n")[0].lower()
