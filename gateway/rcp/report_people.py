"""The people and structures of a report, copied as they are at the moment of validation.

Promises: a speciality is said in words and, when the national list of CDA has it, as a code; who has no national number
has neither; a structure whose kind is not known is said to be so (SA43).
"""

from __future__ import annotations

from typing import Literal, cast

from gateway.errors import InvalidContent
from gateway.model import directory as rows
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import RcpSession
from gateway.rcp import inscription
from gateway.rcp.mailboxes import place_of
from gateway.rcp.report_content import Address, Attendance, CodedValue, Organisation, Person
from gateway.terminology import code_list, specialty_groups

__all__ = ["attendees", "coordinator", "correspondent", "correspondents", "custodian", "person_of", "place"]

_TITLES = frozenset({"DR", "MC", "MG", "PC", "PG", "PR"})


def person_of(row: rows.Practitioner, *, speciality: str | None = None) -> Person:
    """Copy a professional as he is now, or with the speciality of another moment (code or words)."""
    title = (row.title or "").upper()
    said = speciality or row.speciality
    coded = code_list("JDV_J01").get(f"G15_{row.profession or '10'}/{said}") if said else None
    here = place_of(row)
    structure = next((role.organisation for role in row.roles if here and role.organisation_id == here), None)
    return Person(
        family=row.family,
        given=row.given,
        idnps=row.idnps,
        title=cast("Literal['DR', 'MC', 'MG', 'PC', 'PG', 'PR']", title) if title in _TITLES else None,
        profession=CodedValue(coded.code, coded.oid or "", coded.label) if coded else None,
        speciality=_speciality_words(said),
        organisation=_structure(structure) if structure else None,
    )


def _speciality_words(said: str | None) -> str | None:
    if said is None:
        return None
    known = code_list("TRE_R38").get(said) or code_list("JDV_J107").get(said)
    return (known.label if known else said).removesuffix(" (SM)")


def _person_of_line(line: Correspondent) -> Person:
    if line.practitioner is not None:
        return person_of(line.practitioner)
    return Person(family=line.display or "Non renseigné")


def correspondent(dossier: Dossier, role: str) -> Person | None:
    """Copy the first person of that role who is still concerned, or nobody."""
    lines = [line for line in dossier.correspondents if line.role == role and line.declined_at is None]
    if lines:
        return _person_of_line(lines[0])
    if role == inscription.REQUESTER and dossier.requester is not None:
        return person_of(dossier.requester)
    return None


def correspondents(dossier: Dossier) -> tuple[Person, ...]:
    """Copy the other correspondents who are still concerned."""
    lines = (line for line in dossier.correspondents if line.role == "correspondant" and line.declined_at is None)
    return tuple(map(_person_of_line, lines))


def coordinator(session: RcpSession, validator: rows.Practitioner) -> Person:
    """Say who leads the RCP: the validator when he is one of its coordinators."""
    leading = [m.practitioner for m in session.rcp.members if m.role == "coordonnateur" and m.until is None]
    if any(one.id == validator.id for one in leading) or not leading:
        return person_of(validator)
    return person_of(min(leading, key=lambda one: one.idnps))


def _structure(row: rows.Organisation) -> Organisation:
    facility = code_list("JDV_J02").get(row.kind) or code_list("JDV_J02").require("SA43")
    lines = tuple(line for line in (row.address_line,) if line)
    address = Address(lines=lines, postal_code=row.postal_code, city=row.city) if lines or row.city else None
    return Organisation(
        name=row.name,
        idnst=row.idnst,
        facility=CodedValue(facility.code, facility.oid or "", facility.label),
        address=address,
        phone=row.phone,
    )


def place(session: RcpSession) -> Organisation:
    """Say where the session is held."""
    if session.rcp.organisation is not None:
        return _structure(session.rcp.organisation)
    unknown = code_list("JDV_J02").require("SA43")
    facility = CodedValue(unknown.code, unknown.oid or "", unknown.label)
    return Organisation(name=session.place or session.rcp.place, facility=facility)


def custodian(place: Organisation, otherwise: Organisation | None) -> Organisation:
    """Say who keeps the document.

    Raises
    ------
    InvalidContent
        ``cr-conservation``: no structure with a national number.
    """
    keeper = place if place.idnst else otherwise
    if keeper is None or not keeper.idnst:
        text = "Aucune structure identifiée (FINESS) ne conserve le compte rendu : complétez l’établissement de la RCP."
        raise InvalidContent("cr-conservation", text, rule=True)
    return keeper


def attendees(session: RcpSession) -> tuple[Attendance, ...]:
    """Copy who attended, with the speciality of that day; counted when it is one of a quorum group."""
    known = sorted(session.attendances, key=lambda one: (one.practitioner.family, one.practitioner.idnps))
    return tuple(
        Attendance(
            person=person_of(one.practitioner, speciality=one.speciality),
            in_quorum=bool(one.speciality and specialty_groups(one.speciality)),
            remote=one.mode != "presentiel",
        )
        for one in known
    )
