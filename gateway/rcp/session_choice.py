"""Which session a requester means, and whether it still takes inscriptions.

Promises: a session is named by its own identifier, or by the RCP's national number and its start; what is unknown or
closed is refused with the next session that is open, so that the sender may correct himself. Changes nothing.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.errors import InvalidContent
from gateway.model.meeting import Rcp, RcpSession
from gateway.rcp.facts import SessionFact

__all__ = ["find_session", "next_open_session", "require_open"]

_OPEN = ("prevue", "ouverte")


def find_session(session: Session, wanted: SessionFact, now: datetime) -> RcpSession:
    """Find the session that a requester names by RCP number and start, or by its own identifier.

    Raises
    ------
    InvalidContent
        ``rcp-inconnue`` or ``seance-inconnue`` (rules).
    """
    if wanted.identifier is not None:
        found = session.scalar(select(RcpSession).where(RcpSession.identifier == wanted.identifier.value))
        if found is not None:
            return found
    rcp = session.scalar(select(Rcp).where(Rcp.national_number == wanted.rcp_number)) if wanted.rcp_number else None
    if rcp is None:
        raise InvalidContent(
            "rcp-inconnue",
            "RCP inconnue : le numéro national de RCP est absent ou ne désigne aucune RCP de cette passerelle.",
            expression="ServiceRequest.performer",
            rule=True,
        )
    statement = select(RcpSession).where(RcpSession.rcp_id == rcp.id).order_by(RcpSession.starts_at)
    if isinstance(wanted.start, datetime):
        statement = statement.where(RcpSession.starts_at == wanted.start)
    elif wanted.start is not None:
        statement = statement.where(RcpSession.on == wanted.start)
    else:
        statement = statement.where(RcpSession.id.is_(None))
    found = session.scalars(statement).first()
    if found is None:
        text = "Aucune séance de cette RCP ne commence à la date et à l’heure demandées."
        raise InvalidContent(
            "seance-inconnue",
            f"{text} {_next_words(session, rcp.id, now)}",
            expression="ServiceRequest.occurrence",
            rule=True,
        )
    return found


def next_open_session(session: Session, rcp_id: uuid.UUID, now: datetime) -> RcpSession | None:
    """First session to come that takes inscriptions."""
    return session.scalars(
        select(RcpSession)
        .where(RcpSession.rcp_id == rcp_id, RcpSession.state == "prevue", RcpSession.starts_at > now)
        .order_by(RcpSession.starts_at)
    ).first()


def _next_words(session: Session, rcp_id: uuid.UUID, now: datetime) -> str:
    following = next_open_session(session, rcp_id, now)
    if following is None:
        return "Aucune séance n’est ouverte aux inscriptions pour le moment."
    return f"Prochaine séance ouverte : {following.on:%d/%m/%Y} à {following.start:%H h %M} ({following.identifier})."


def require_open(session: Session, wanted: RcpSession, now: datetime) -> None:
    """Refuse a session that takes no inscription any more.

    Raises
    ------
    InvalidContent
        ``seance-close`` (rule).
    """
    if wanted.state in _OPEN and wanted.ends_at > now:
        return
    text = f"La séance demandée ne prend plus d’inscription. {_next_words(session, wanted.rcp_id, now)}"
    raise InvalidContent("seance-close", text, expression="ServiceRequest.occurrence", rule=True)
