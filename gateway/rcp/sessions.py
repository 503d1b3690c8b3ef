"""RCPs, their planned sessions, who attends them, and when its physicians are told.

Promises: a session is wall time; planning twice adds nothing; a session's own identifier is stable when its date moves;
states follow one table; attendance freezes the speciality of that day and the quorum counts groups of specialities of
different people, by the RCP's own rule; how an RCP notifies is read here once (`notice_of`), from its settings.
Not promised: that a report exists (`gateway.rcp.report`), or that who opens a session is really there.

[spec features 1 S1-005 S1-008, 5.4, A.1]
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from types import MappingProxyType
from typing import Any

from msgspec import Struct
from sqlalchemy import select

from gateway.errors import Conflict, InvalidContent
from gateway.identifiers import Urn, uuid7
from gateway.model.directory import Organisation, Practitioner
from gateway.model.meeting import Attendance, Rcp, RcpMember, RcpSession
from gateway.model.network import Network
from gateway.rcp import access, directory
from gateway.rcp.access import Role
from gateway.rcp.calendar import (
    CatchUp,
    CountMode,
    HolidaySet,
    LimitRule,
    Notice,
    NoticeRule,
    Occurrence,
    WallTime,
    expand,
    occurrences,
    plan_notice,
)
from gateway.rcp.calendar import Recurrence as Series
from gateway.rcp.fiche import rules_of
from gateway.rcp.step import Step
from gateway.terminology import specialty_groups

__all__ = [
    "Quorum",
    "RcpFacts",
    "attend",
    "catch_up_of",
    "close_session",
    "create_rcp",
    "holidays_of",
    "join_rcp",
    "leave",
    "notice_of",
    "open_session",
    "plan_sessions",
    "quorum_of",
    "require_readable",
]

#: State → what may follow.
MOVES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "prevue": frozenset({"ouverte", "reportee", "annulee"}),
        "reportee": frozenset({"ouverte", "reportee", "annulee"}),
        "ouverte": frozenset({"close"}),
        "close": frozenset(),
        "annulee": frozenset(),
    }
)
# INCa: at least three doctors of different specialities [spec features A.1]; an RCP may ask for more.
_USUAL_MINIMUM = 3


class RcpFacts(Struct, frozen=True, kw_only=True):
    """One recurring meeting, as its organisers describe it."""

    national_number: str
    title: str
    place: str
    contact: str
    signature: str
    kind: str = "rcp"
    level: str = "regionale"
    nature: str = "ORG-117"
    organ: str | None = None
    finess: str | None = None
    manager_identifier: str | None = None
    manager_name: str | None = None
    zone: str | None = None
    holidays: str | None = None
    quorum: dict[str, Any] = {}
    notification: dict[str, Any] = {}
    webconference: dict[str, Any] = {}
    form: str | None = None
    fiche: dict[str, Any] = {}
    fictive: bool = False


@dataclass(frozen=True, slots=True)
class Quorum:
    """Whether enough different specialities sit, by the RCP's rule.

    Parameters
    ----------
    counted
        Group of specialities → how many people are counted for it.
    missing
        Groups that the rule wants and that nobody present holds.
    """

    reached: bool
    counted: Mapping[str, int]
    missing: tuple[str, ...]
    minimum: int


def create_rcp(step: Step, network: Network, facts: RcpFacts) -> Rcp:
    """Create an RCP in a network; its zone and holidays are the network's unless it says otherwise.

    Raises
    ------
    InvalidContent
        ``fuseau-inconnu``, ``zone-inconnue``, ``delai-invalide``, ``reglage-invalide`` (notification, fiche).
    Conflict
        ``rcp-existante``: its national number is taken.
    """
    taken = select(Rcp.id).where(Rcp.national_number == facts.national_number)
    if step.session.scalar(taken) is not None:
        raise Conflict("rcp-existante", "Une RCP porte déjà ce numéro national.", expression="national_number")
    place: Organisation | None = None
    if facts.finess is not None:
        place = directory.organisation_of(step.session, facts.finess)
        if place is None:
            text = "L’établissement de la RCP n’est pas dans l’annuaire."
            raise InvalidContent("structure-inconnue", text, expression="finess", rule=True)
    rcp = Rcp(
        id=uuid7(),
        network_id=network.id,
        organisation_id=place.id if place else None,
        national_number=facts.national_number,
        manager_identifier=facts.manager_identifier,
        manager_name=facts.manager_name,
        title=facts.title,
        kind=facts.kind,
        level=facts.level,
        nature=facts.nature,
        organ=facts.organ,
        place=facts.place,
        zone=facts.zone or network.zone,
        holidays=facts.holidays or network.holidays,
        contact=facts.contact,
        signature=facts.signature,
        quorum=facts.quorum,
        notification=facts.notification,
        webconference=facts.webconference,
        form=facts.form,
        fiche=facts.fiche,
        fictive=facts.fictive,
    )
    require_readable(rcp)
    step.session.add(rcp)
    step.session.flush()
    step.session.refresh(rcp)
    step.touch(rcp)
    step.audit("creation", action="C", object_type="Rcp", object_id=str(rcp.id))
    return rcp


def require_readable(rcp: Rcp) -> None:
    """Refuse settings that cannot be read now, not on the morning of the sending.

    Raises
    ------
    InvalidContent
        ``zone-inconnue``, ``delai-invalide``, ``reglage-invalide``.
    """
    _rule(rcp)
    catch_up_of(rcp)
    rules_of(rcp)


def join_rcp(step: Step, rcp: Rcp, practitioner: Practitioner, role: Role) -> RcpMember:
    """Give a professional a part in an RCP, or give it back."""
    found = step.session.scalar(
        select(RcpMember).where(
            RcpMember.rcp_id == rcp.id, RcpMember.practitioner_id == practitioner.id, RcpMember.role == role.value
        )
    )
    if found is None:
        found = RcpMember(rcp_id=rcp.id, practitioner_id=practitioner.id, role=role.value)
        step.session.add(found)
    elif found.until is None:
        return found
    found.until = None
    step.session.flush()
    step.session.refresh(rcp)
    step.touch(rcp)
    step.audit("droits", action="C", object_type="Rcp", object_id=str(rcp.id), detail={"role": role.value})
    return found


def plan_sessions(
    step: Step,
    rcp: Rcp,
    series: Series,
    starts: time,
    ends: time,
    *,
    until: date | None = None,
    count: int | None = None,
    on_holidays: bool = False,
) -> Sequence[RcpSession]:
    """Plan the sessions of a series; those that exist already are left as they are.

    Parameters
    ----------
    on_holidays
        Whether a session that falls on a holiday of the RCP is held all the same.

    Raises
    ------
    InvalidContent
        ``recurrence-…``, ``heure-inexistante``.
    """
    access.require_organiser(step.session, step.caller, rcp.id)
    found = occurrences(expand(series, until=until, count=count), starts, ends, rcp.zone, holidays_of(rcp))
    wanted = [occurrence for occurrence in found if on_holidays or occurrence.holiday is None]
    known = set(
        step.session.scalars(select(RcpSession.starts_at).where(RcpSession.rcp_id == rcp.id)),
    )
    planned = [_session(rcp, occurrence) for occurrence in wanted if occurrence.starts_at not in known]
    step.session.add_all(planned)
    step.session.flush()
    for session in planned:
        step.session.refresh(session)
    step.touch(*planned)
    if planned:
        step.audit("creation", action="C", object_type="Rcp", object_id=str(rcp.id), detail={"seances": len(planned)})
    return planned


def open_session(step: Step, session_id: uuid.UUID) -> RcpSession:
    """Open a session: the meeting begins.

    Raises
    ------
    Conflict
        ``seance-etat``: it is cancelled or already closed; opening twice is no error.
    """
    return _move(step, session_id, "ouverte")


def close_session(step: Step, session_id: uuid.UUID) -> RcpSession:
    """Close a session: attendance is settled, reports follow.

    Raises
    ------
    Conflict
        ``seance-etat``: it was never opened; closing twice is no error.
    """
    return _move(step, session_id, "close")


def attend(step: Step, session_id: uuid.UUID, practitioner: Practitioner, *, mode: str = "presentiel") -> Attendance:
    """Record that a professional attends, with his speciality as of now; again only changes how.

    Raises
    ------
    Conflict
        ``seance-etat``: only an open session has attendees.
    """
    session = _held(step, session_id)
    if session.state != "ouverte":
        raise Conflict("seance-etat", "La séance n’est pas ouverte.", expression="session")
    found = next((one for one in session.attendances if one.practitioner_id == practitioner.id), None)
    if found is None:
        found = Attendance(
            session_id=session.id, practitioner_id=practitioner.id, mode=mode, speciality=practitioner.speciality
        )
        step.session.add(found)
    found.mode = mode
    _changed(step, session)
    return found


def leave(step: Step, session_id: uuid.UUID, practitioner_id: uuid.UUID) -> None:
    """Take back an attendance recorded by mistake, while the session is open."""
    session = _held(step, session_id)
    if session.state != "ouverte":
        raise Conflict("seance-etat", "La séance n’est pas ouverte.", expression="session")
    for attendance in session.attendances:
        if attendance.practitioner_id == practitioner_id:
            step.session.delete(attendance)
    _changed(step, session)


def quorum_of(session: RcpSession) -> Quorum:
    """Count the specialities that sit.

    Different people are asked for: one person counts for one group, the group that the rule misses most; several people
    of one group count once towards the minimum.
    """
    rule: dict[str, Any] = session.rcp.quorum
    wanted: Mapping[str, int] = rule.get("groups", {})
    minimum = int(rule.get("minimum", _USUAL_MINIMUM))
    people = [specialty_groups(one.speciality) for one in session.attendances if one.speciality]
    seats = [group for group, least in wanted.items() for _ in range(least)]
    seated = _seat([groups for groups in people if groups], seats)
    counted: dict[str, int] = {}
    for group in seated:
        counted[group] = counted.get(group, 0) + 1
    missing = tuple(group for group, least in wanted.items() if counted.get(group, 0) < least)
    return Quorum(not missing and len(counted) >= minimum, MappingProxyType(counted), missing, minimum)


def holidays_of(rcp: Rcp) -> HolidaySet:
    """The days on which an RCP's organisers do not work."""
    said = rcp.notification
    try:
        closures = frozenset(date.fromisoformat(day) for day in said.get("fermetures", ()))
    except (TypeError, ValueError) as error:
        raise _setting("fermetures") from error
    return HolidaySet(
        zone=rcp.holidays,
        solidarity_day_worked=bool(said.get("pentecote_travaillee", False)),
        local_customs=bool(said.get("usages_locaux", False)),
        closures=closures,
    )


def notice_of(session: RcpSession) -> Notice:
    """When the physicians of a session's dossiers are told."""
    return plan_notice(WallTime(session.on, session.start, session.zone), _rule(session.rcp))


def catch_up_of(rcp: Rcp) -> CatchUp | None:
    """The option « rattrapage » of an RCP, if it has it."""
    if not rcp.notification.get("rattrapage", False):
        return None
    try:
        return CatchUp(minimum_hours=float(rcp.notification.get("rattrapage_min_heures", CatchUp().minimum_hours)))
    except (TypeError, ValueError) as error:
        raise _setting("rattrapage_min_heures") from error


def _rule(rcp: Rcp) -> NoticeRule:
    said, usual = rcp.notification, NoticeRule()
    read: dict[str, Any] = {}
    for name, field, take in (
        ("jours", "days", int),
        ("calendrier", "mode", CountMode),
        ("heure_envoi", "send_at", time.fromisoformat),
        ("limite", "limit", LimitRule),
    ):
        try:
            read[field] = take(said[name]) if name in said else getattr(usual, field)
        except (TypeError, ValueError) as error:
            raise _setting(name) from error
    return NoticeRule(holidays=holidays_of(rcp), **read)


def _setting(name: str) -> InvalidContent:
    text = f"Le réglage de notification « {name} » n’est pas lisible."
    return InvalidContent("reglage-invalide", text, expression=f"notification.{name}", rule=True)


def _session(rcp: Rcp, occurrence: Occurrence) -> RcpSession:
    return RcpSession(
        id=uuid7(),
        rcp_id=rcp.id,
        identifier=Urn.new().value,
        on=occurrence.day,
        start=occurrence.starts,
        end=occurrence.ends,
        zone=occurrence.zone,
        starts_at=occurrence.starts_at,
        ends_at=occurrence.ends_at,
    )


def _held(step: Step, session_id: uuid.UUID) -> RcpSession:
    """Lock a session that the caller organises."""
    [session] = step.lock(RcpSession, session_id)
    access.require_organiser(step.session, step.caller, session.rcp_id)
    return session


def _move(step: Step, session_id: uuid.UUID, to_state: str) -> RcpSession:
    session = _held(step, session_id)
    if session.state == to_state:
        return session
    if to_state not in MOVES[session.state]:
        text = f"Une séance à l’état « {session.state} » ne peut pas passer à « {to_state} »."
        raise Conflict("seance-etat", text, expression="session")
    session.state = to_state
    if to_state == "ouverte":
        session.opened_at = step.now
    elif to_state == "close":
        session.closed_at = step.now
    _changed(step, session)
    step.audit(
        "modification", action="U", object_type="RcpSession", object_id=str(session.id), detail={"vers": to_state}
    )
    return session


def _changed(step: Step, session: RcpSession) -> None:
    session.version += 1
    step.session.flush()
    step.session.refresh(session, ["attendances"])
    step.touch(session)


def _seat(people: list[frozenset[str]], seats: list[str]) -> list[str]:
    """Give each person one group, filling the seats that the rule asks for first (augmenting paths)."""
    taken: dict[int, int] = {}

    def place(person: int, tried: set[int]) -> bool:
        for seat, group in enumerate(seats):
            if group in people[person] and seat not in tried:
                tried.add(seat)
                if seat not in taken or place(taken[seat], tried):
                    taken[seat] = person
                    return True
        return False

    for person in range(len(people)):
        place(person, set())
    seated = {person: seats[seat] for seat, person in taken.items()}
    for person, groups in enumerate(people):
        if person not in seated:
            fresh = sorted(groups - set(seated.values())) or sorted(groups)
            seated[person] = fresh[0]
    return list(seated.values())
