"""The pages that anyone may read: meetings and their dates, never a patient.

Promises: no query here touches a table that holds a patient or a dossier (S0-074).
"""

from __future__ import annotations

import unicodedata
import uuid
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway.errors import NotFound
from gateway.model.meeting import Rcp, RcpSession
from gateway.portal import views as v
from gateway.portal import words
from gateway.rcp import access
from gateway.rcp.access import Caller

__all__ = ["directory", "home", "meeting"]

_COMING = 10
_ON_HOME = 12


def home(session: Session, now: datetime) -> v.Home:
    """Return the public home page."""
    return v.Home(_cards(session, now, list(_published(session)))[:_ON_HOME])


def directory(session: Session, now: datetime, search: str, level: str) -> v.Rcps:
    """Return the meetings found by words of title, organ or organiser, and by level (S0-001, S0-056)."""
    wanted = _fold(search).split()
    found = [
        rcp
        for rcp in _published(session)
        if (not level or rcp.level == level) and all(word in _haystack(rcp) for word in wanted)
    ]
    levels = (
        v.Choice("", "Tous les niveaux", selected=not level),
        *(v.Choice(code, label, selected=code == level) for code, label in words.LEVELS.items()),
    )
    return v.Rcps(_cards(session, now, found), search, levels)


def meeting(session: Session, now: datetime, caller: Caller | None, rcp_id: uuid.UUID) -> v.Rcp:
    """Return one meeting and its coming sessions; an organiser's dates lead to their sessions.

    Raises
    ------
    NotFound
        No such meeting.
    """
    rcp = session.get(Rcp, rcp_id)
    if rcp is None:
        raise NotFound("inconnu", "Cette réunion n’existe pas.")
    organises = caller is not None and bool(access.roles_in(session, caller, rcp.id) & access.ORGANISERS)
    coming = session.scalars(
        select(RcpSession)
        .where(RcpSession.rcp_id == rcp.id, RcpSession.ends_at > now, RcpSession.state.in_(("prevue", "ouverte")))
        .order_by(RcpSession.starts_at)
        .limit(_COMING)
    ).all()
    active = bool(rcp.notification.get("active"))
    return v.Rcp(
        card=_card(rcp, coming[0] if coming else None),
        contact=rcp.contact,
        notification="Le médecin traitant est informé avant la réunion." if active else "",
        sessions=tuple(words.slot(one, f"/seances/{one.id}" if organises else "") for one in coming),
        settings_url=f"/rcp/{rcp.id}/reglages" if organises else "",
    )


def _published(session: Session) -> list[Rcp]:
    return list(session.scalars(select(Rcp).order_by(Rcp.title)).unique())


def _cards(session: Session, now: datetime, rcps: list[Rcp]) -> tuple[v.RcpCard, ...]:
    first = (
        select(RcpSession.rcp_id, func.min(RcpSession.starts_at).label("at"))
        .where(RcpSession.ends_at > now, RcpSession.state.in_(("prevue", "ouverte")))
        .group_by(RcpSession.rcp_id)
        .subquery()
    )
    nearest = session.scalars(
        select(RcpSession).join(first, (RcpSession.rcp_id == first.c.rcp_id) & (RcpSession.starts_at == first.c.at))
    ).unique()
    following = {one.rcp_id: one for one in nearest}
    return tuple(_card(rcp, following.get(rcp.id)) for rcp in rcps)


def _card(rcp: Rcp, following: RcpSession | None) -> v.RcpCard:
    return v.RcpCard(
        title=rcp.title,
        level=words.LEVELS.get(rcp.level, rcp.level),
        url=f"/rcp/{rcp.id}",
        organ=rcp.organ or "",
        organiser=rcp.organisation.name if rcp.organisation is not None else rcp.network.name,
        place=rcp.place,
        next_start=words.local(following.starts_at, following.zone) if following is not None else None,
    )


def _fold(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in plain if not unicodedata.combining(character))


def _haystack(rcp: Rcp) -> str:
    organiser = rcp.organisation.name if rcp.organisation is not None else ""
    return _fold(" ".join((rcp.title, rcp.organ or "", organiser, rcp.network.name)))
