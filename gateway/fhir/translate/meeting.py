"""An Appointment that a client wrote to the facts of a session of an RCP [spec fhir-fr 1.10].

A session's Appointment names the RCP among its participants (HealthcareService) and no patient at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from gateway.fhir.translate.elements import Resolve, codings, identifiers, moment, professional
from gateway.identifiers import SYSTEMS
from gateway.rcp.facts import ProfessionalFact

__all__ = ["STATES", "attendees", "hours", "names_patient", "place", "rcp_numbers"]

Tree = Mapping[str, Any]

#: Appointment.status → state of the session; what is not here says nothing about a session.
STATES: Mapping[str, str] = {
    "proposed": "prevue",
    "pending": "prevue",
    "booked": "prevue",
    "arrived": "ouverte",
    "checked-in": "ouverte",
    "fulfilled": "close",
    "cancelled": "annulee",
    "noshow": "annulee",
    "entered-in-error": "annulee",
}
#: Parts that sit at the meeting: who leads it, who belongs to its quorum, who attends.
_SITTING = frozenset({"PPRF", "SPRF", "ATND", "PART"})


def _actors(tree: Tree) -> Iterator[tuple[Tree, Tree]]:
    for participant in tree.get("participant", ()):
        actor = participant.get("actor")
        if isinstance(actor, Mapping):
            yield participant, actor


def rcp_numbers(tree: Tree, resolve: Resolve) -> list[str]:
    """National numbers of the RCPs that participate."""
    found: list[str] = []
    for _, actor in _actors(tree):
        said = list(identifiers(actor.get("identifier")))
        reference = actor.get("reference")
        target = resolve(reference) if isinstance(reference, str) and "HealthcareService/" in reference else None
        said.extend(identifiers(target.get("identifier")) if target is not None else ())
        found.extend(fact.value for fact in said if fact.system == SYSTEMS["RCP"].system)
    return list(dict.fromkeys(found))


def names_patient(tree: Tree) -> bool:
    """Whether a patient participates: reading a session would then show him to everybody."""
    return any(
        str(actor.get("reference", "")).startswith("Patient/") or actor.get("type") == "Patient"
        for _, actor in _actors(tree)
    )


def hours(tree: Tree) -> tuple[datetime, datetime] | None:
    """Start and end as instants; `None` unless both are said."""
    said = [moment(tree.get(name)) for name in ("start", "end")]
    start, end = said
    return (start, end) if isinstance(start, datetime) and isinstance(end, datetime) else None


def place(tree: Tree, resolve: Resolve) -> str | None:
    """Name of the Location that participates."""
    for _, actor in _actors(tree):
        reference = str(actor.get("reference", ""))
        if "Location/" in reference or actor.get("type") == "Location":
            target = resolve(reference) if reference else None
            name = target.get("name") if target is not None else actor.get("display")
            return str(name) if name else None
    return None


def attendees(tree: Tree, resolve: Resolve) -> Iterator[ProfessionalFact]:
    """Yield who sits at the meeting, once each part that was accepted."""
    for participant, actor in _actors(tree):
        parts = {coding.get("code") for kind in participant.get("type", ()) for coding in codings(kind)}
        if participant.get("status") == "accepted" and parts & _SITTING:
            found = professional(actor, resolve)
            if found is not None and found.identifier is not None:
                yield found
