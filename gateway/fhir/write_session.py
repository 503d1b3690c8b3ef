"""A session of an RCP that the software of its establishment writes as an Appointment.

[spec fhir-fr 1.10, 2.2, 4.1]

Promises: what the software may do is what its people may do in the portal, by the same verbs: plan, move, cancel, open,
close, say who attends; no patient stands in a session; an Appointment that concerns no RCP of ours is kept as sent.
"""

from __future__ import annotations

from sqlalchemy import select

from gateway.errors import Conflict, InvalidContent
from gateway.fhir.translate import meeting
from gateway.fhir.write_kept import keep_as_sent, root_key
from gateway.fhir.writing import Operation, Writing
from gateway.identifiers import IdNatPs
from gateway.model.directory import Practitioner
from gateway.model.meeting import Rcp, RcpSession
from gateway.rcp import session_plan, sessions
from gateway.rcp.session_plan import SessionFacts

__all__ = ["write_session"]


def write_session(writing: Writing, operation: Operation) -> None:
    """Plan a session, or bring one to what is said.

    Raises
    ------
    Forbidden
        ``proprietaire``: another establishment runs this RCP.
    InvalidContent
        ``seance-sans-patient``, ``seance-horaire``, ``seance-passee`` (rules).
    Conflict
        ``cle-modifiee``, ``seance-existante``, ``seance-etat``.
    """
    tree, before = operation.tree, operation.before
    rcp = _rcp(writing, operation)
    held = before is not None and before.root_kind == "RcpSession"
    if before is not None and held != (rcp is not None):
        text = "Une séance de RCP ne devient pas un autre rendez-vous, ni l’inverse."
        raise Conflict("cle-modifiee", text, expression="Appointment.participant")
    if rcp is None:
        keep_as_sent(writing, operation)
        return
    if meeting.names_patient(tree):
        text = "Une séance de RCP ne nomme aucun patient : il y est inscrit par un ServiceRequest."
        raise InvalidContent("seance-sans-patient", text, expression="Appointment.participant", rule=True)
    wanted = meeting.STATES.get(tree["status"])
    if wanted is None:
        text = "Ce statut de rendez-vous ne dit rien d’une séance de RCP."
        raise InvalidContent("seance-etat", text, expression="Appointment.status", rule=True)
    session = writing.step.session.get(RcpSession, before.root_id) if before is not None else None
    if session is not None and session.rcp_id != rcp.id:
        raise Conflict("cle-modifiee", "Une séance ne change pas de RCP.", expression="Appointment.participant")
    facts = _facts(writing, operation, session, wanted)
    if session is None:
        session = session_plan.hold(writing.step, rcp, facts, key=root_key(operation))
    elif wanted != "annulee":
        session = session_plan.move_session(writing.step, session.id, facts)
    _bring(writing, operation, session, wanted)
    operation.identity = str(session.id)
    writing.step.touch(session)
    writing.sent["Appointment", operation.identity] = tree


def _rcp(writing: Writing, operation: Operation) -> Rcp | None:
    numbers = meeting.rcp_numbers(operation.tree, writing.resolve())
    found = writing.step.session.scalars(select(Rcp).where(Rcp.national_number.in_(numbers))).unique().all()
    if len(found) > 1:
        text = "Une séance est celle d’une seule RCP."
        raise InvalidContent("seance-rcp", text, expression="Appointment.participant", rule=True)
    return found[0] if found else None


def _facts(writing: Writing, operation: Operation, session: RcpSession | None, wanted: str) -> SessionFacts:
    said = meeting.hours(operation.tree)
    if said is None and (session is None or wanted != "annulee"):
        text = "Une séance a un début et une fin, avec leur heure."
        raise InvalidContent("seance-horaire", text, expression="Appointment.start", rule=True)
    where = meeting.place(operation.tree, writing.resolve()) or (session.place if session is not None else None)
    if said is None:
        assert session is not None  # noqa: S101 - refused above
        return SessionFacts(starts_at=session.starts_at, ends_at=session.ends_at, place=session.place)
    return SessionFacts(starts_at=said[0], ends_at=said[1], place=where)


def _bring(writing: Writing, operation: Operation, session: RcpSession, wanted: str) -> None:
    """Bring a session to a state, by the moves that the portal makes."""
    step = writing.step
    if wanted == "annulee":
        session_plan.cancel_session(step, session.id)
    elif wanted == "prevue" and session.state not in {"prevue", "reportee"}:
        text = f"Une séance à l’état « {session.state} » ne redevient pas prévue."
        raise Conflict("seance-etat", text, expression="Appointment.status")
    elif wanted in {"ouverte", "close"}:
        if session.state != "close":
            sessions.open_session(step, session.id)
            _attend(writing, operation, session)
        if wanted == "close":
            sessions.close_session(step, session.id)
        elif session.state == "close":
            raise Conflict("seance-etat", "Une séance close ne se rouvre pas.", expression="Appointment.status")


def _attend(writing: Writing, operation: Operation, session: RcpSession) -> None:
    for one in meeting.attendees(operation.tree, writing.resolve()):
        assert one.identifier is not None  # noqa: S101 - only such are yielded
        number = IdNatPs.from_wire(one.identifier.value).value
        who = writing.step.session.scalar(select(Practitioner).where(Practitioner.idnps == number))
        if who is None:
            text = "Un participant n’est pas connu de l’annuaire de cette passerelle."
            raise InvalidContent("professionnel-inconnu", text, expression="Appointment.participant", rule=True)
        sessions.attend(writing.step, session.id, who)
