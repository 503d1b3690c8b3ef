"""One session at a time: planned, moved to another date, cancelled; what becomes of its dossiers.

Promises: only who organises the RCP, in person or by his establishment, writes its sessions; a session is wall time in
the RCP's zone and keeps its own identifier when its date moves; its open dossiers follow it, with a line of history
each; whoever was told of the old date is told of the new one where the RCP wants that (`gateway.rcp.notice_changes`),
else the secretariat is asked to, because no mail can be taken back; the planner tells the others of the new one. Two
writers at once make one session.
Not promised: series (`gateway.rcp.sessions.plan_sessions`), or that a cancelled session's dossiers find another.

[spec features S1-008, 5.4; spec fhir-fr 1.10, 2.2, 4.4]
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from msgspec import Struct
from sqlalchemy import exists, select

from gateway.errors import Conflict, InvalidContent
from gateway.identifiers import Urn, uuid7
from gateway.model.dossier import Dossier
from gateway.model.meeting import Rcp, RcpSession
from gateway.model.message import Message, NotificationEntry
from gateway.rcp import access, dossier_states
from gateway.rcp.notice_cases import KIND
from gateway.rcp.notice_changes import renotifies
from gateway.rcp.step import Step
from gateway.rcp.work_list import ask_secretariat

__all__ = ["SessionFacts", "cancel_session", "hold", "move_session"]

_MOVED = "seance-deplacee"


class SessionFacts(Struct, frozen=True, kw_only=True):
    """When and where a session is held; aware instants."""

    starts_at: datetime
    ends_at: datetime
    place: str | None = None


def hold(step: Step, rcp: Rcp, facts: SessionFacts, *, key: uuid.UUID | None = None) -> RcpSession:
    """Plan one session.

    Parameters
    ----------
    key
        Id of the session, when the wire had to name it before it exists.

    Raises
    ------
    NotFound, Forbidden
        The caller does not organise the RCP.
    InvalidContent
        ``seance-horaire``, ``seance-passee`` (rules).
    Conflict
        ``seance-existante``: the RCP already has a session at that time.
    """
    access.require_organiser(step.session, step.caller, rcp.id)
    session = RcpSession(id=key or uuid7(), rcp_id=rcp.id, identifier=Urn.new().value, zone=rcp.zone, state="prevue")
    _put(step, rcp, session, facts)
    step.session.add(session)
    step.session.flush()
    step.session.refresh(session)
    step.touch(session)
    step.audit("creation", action="C", object_type="RcpSession", object_id=str(session.id))
    return session


def move_session(step: Step, session_id: uuid.UUID, facts: SessionFacts) -> RcpSession:
    """Move a planned session to another time or place; saying the same again changes nothing.

    Raises
    ------
    NotFound, Forbidden, InvalidContent, Conflict
        As `hold`; ``seance-etat``: it was held, closed or cancelled.
    """
    session = _held(step, session_id)
    if (session.starts_at, session.ends_at, session.place) == (facts.starts_at, facts.ends_at, facts.place):
        return session
    if session.state not in {"prevue", "reportee"}:
        raise _wrong_state(session, "déplacée")
    other_time = (session.starts_at, session.ends_at) != (facts.starts_at, facts.ends_at)
    _put(step, session.rcp, session, facts)
    session.state = "prevue"
    session.version += 1
    step.session.flush()
    step.touch(session)
    step.audit("modification", action="U", object_type="RcpSession", object_id=str(session.id))
    for dossier in _open_dossiers(step, session) if other_time else ():
        told = _misled(step, dossier)
        complete = dossier.prefiche_at is not None
        if dossier.state != "reporte":
            dossier_states.move(step, dossier, "reporte", _MOVED)
        if complete:
            dossier_states.move(step, dossier, "prefiche", _MOVED)
        if told:
            ask_secretariat(step.session, dossier, f"{_MOVED}|{dossier.id}|{session.version}", _MOVED)
    return session


def cancel_session(step: Step, session_id: uuid.UUID) -> RcpSession:
    """Cancel a planned session; its dossiers wait for another, and the secretariat is asked to find it.

    Raises
    ------
    NotFound, Forbidden
        As `hold`.
    Conflict
        ``seance-etat``: it is open or closed; cancelling twice is no error.
    """
    session = _held(step, session_id)
    if session.state == "annulee":
        return session
    if session.state not in {"prevue", "reportee"}:
        raise _wrong_state(session, "annulée")
    session.state = "annulee"
    session.version += 1
    step.session.flush()
    step.touch(session)
    step.audit(
        "modification", action="U", object_type="RcpSession", object_id=str(session.id), detail={"vers": "annulee"}
    )
    for dossier in _open_dossiers(step, session):
        ask_secretariat(step.session, dossier, f"seance-annulee|{dossier.id}|{session.id}", "seance-annulee")
        step.touch(dossier)
    return session


def _held(step: Step, session_id: uuid.UUID) -> RcpSession:
    [session] = step.lock(RcpSession, session_id)
    access.require_organiser(step.session, step.caller, session.rcp_id)
    return session


def _put(step: Step, rcp: Rcp, session: RcpSession, facts: SessionFacts) -> None:
    """Write when and where, in the wall time of the RCP."""
    zone = ZoneInfo(rcp.zone)
    starts, ends = facts.starts_at.astimezone(zone), facts.ends_at.astimezone(zone)
    if ends <= starts or ends.date() != starts.date():
        text = "Une séance commence et finit le même jour, et finit après avoir commencé."
        raise InvalidContent("seance-horaire", text, expression="Appointment.end", rule=True)
    if facts.ends_at <= step.now:
        text = "Une séance ne se planifie pas dans le passé."
        raise InvalidContent("seance-passee", text, expression="Appointment.start", rule=True)
    twin = select(
        exists().where(RcpSession.rcp_id == rcp.id, RcpSession.id != session.id, RcpSession.starts_at == starts)
    )
    if step.session.scalar(twin):
        text = "Cette RCP a déjà une séance à cette date et à cette heure."
        raise Conflict("seance-existante", text, expression="Appointment.start")
    session.on, session.start, session.end = starts.date(), starts.time(), ends.time()
    session.zone, session.place = rcp.zone, facts.place
    session.starts_at, session.ends_at = facts.starts_at, facts.ends_at


def _open_dossiers(step: Step, session: RcpSession) -> Iterator[Dossier]:
    """Lock the dossiers that still wait for this session, in key order."""
    waiting = select(Dossier.id).where(
        Dossier.session_id == session.id, Dossier.state.in_(sorted(dossier_states.open_states()))
    )
    keys = list(step.session.scalars(waiting.order_by(Dossier.id)))
    yield from step.lock(Dossier, *keys) if keys else ()


def _misled(step: Step, dossier: Dossier) -> bool:
    """Whether a physician was told of the old date, and no mail will tell him of the new one by itself."""
    told = step.session.scalars(
        select(Message.details)
        .join(NotificationEntry, NotificationEntry.message_id == Message.id)
        .where(
            NotificationEntry.dossier_id == dossier.id,
            NotificationEntry.session_id == dossier.session_id,
            NotificationEntry.kind.like(f"{KIND}%"),
        )
    ).all()
    return bool(told) and not (renotifies(dossier.session.rcp) and all("annonce" in one for one in told))


def _wrong_state(session: RcpSession, done: str) -> Conflict:
    text = f"Une séance à l’état « {session.state} » ne peut plus être {done}."
    return Conflict("seance-etat", text, expression="Appointment.status")
