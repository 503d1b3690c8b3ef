"""Organisations, professionals, their situations of practice and their MSSanté mailboxes, kept by national number.

Promises: RPPS and FINESS are the keys, never another server's technical ids nor a name (S2-040); each fact names its
source and its date, and an older statement never overwrites a newer one; a mailbox outside MSSanté is never kept, one
that bounced is usable again when a source names it with a later date than the bounce; a search by name finds whatever
the case and the accents, by number exactly one.
Not promised: that an entry becomes a FHIR resource (it does when a dossier, an RCP or a session refers to it); which
mailbox is tried first (`gateway.rcp.mailboxes`).

[spec annuaire §2, §5, §7]
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import date

from msgspec import Struct
from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from gateway.errors import InvalidContent, NotFound
from gateway.identifiers import Finess, IdNatPs, MssanteAddress, Rpps
from gateway.model.directory import Mailbox, Organisation, PracticeRole, Practitioner, folded
from gateway.model.store import utcnow
from gateway.rcp.step import Step
from gateway.terminology import code_list

__all__ = [
    "EntryFacts",
    "MailboxFacts",
    "OrganisationFacts",
    "PracticeFacts",
    "ProfessionalFacts",
    "find",
    "organisation_of",
    "practitioner_of",
    "put_entry",
    "put_organisation",
    "put_professional",
]


class OrganisationFacts(Struct, frozen=True, kw_only=True):
    """One structure."""

    finess: str
    name: str
    kind: str = "etablissement"
    city: str | None = None
    postal_code: str | None = None
    address_line: str | None = None
    phone: str | None = None
    mailboxes: tuple[MailboxFacts, ...] = ()


class MailboxFacts(Struct, frozen=True, kw_only=True):
    """One MSSanté mailbox: ``PER``, ``ORG``, ``APP`` or ``CAB`` (TRE_R257).

    ``finess``: where a person uses it; ``confidential``: of the red list, `None` where the source does
    not speak of it; ``paperless`` is false where documents are wanted on paper.
    """

    address: str
    finess: str | None = None
    kind: str = "PER"
    preferred: bool = False
    confidential: bool | None = None
    paperless: bool | None = None


class PracticeFacts(Struct, frozen=True, kw_only=True):
    """One situation of practice: where, as what."""

    finess: str | None = None
    speciality: str | None = None
    profession: str | None = None


class ProfessionalFacts(Struct, frozen=True, kw_only=True):
    """One professional; ``rpps`` is strict: whoever writes the directory knows it."""

    rpps: str
    family: str
    given: str
    title: str | None = None
    profession: str = "10"
    speciality: str | None = None
    practices: tuple[PracticeFacts, ...] = ()
    mailboxes: tuple[MailboxFacts, ...] = ()


class EntryFacts(Struct, frozen=True, kw_only=True):
    """All that the national service says of one professional today; ``active`` is false when he left the register."""

    professional: ProfessionalFacts
    places: tuple[OrganisationFacts, ...] = ()
    active: bool = True


def put_organisation(step: Step, facts: OrganisationFacts, *, source: str, as_of: date) -> Organisation:
    """Keep what a source says of a structure.

    Raises
    ------
    InvalidContent
        ``finess-forme``, ``finess-cle``, ``mssante-forme``, ``code-inconnu``.
    """
    finess = Finess.parse(facts.finess, expression="finess")
    found = step.session.scalar(select(Organisation).where(Organisation.finess == finess.value))
    if found is None:
        found = Organisation(finess=finess.value, idnst=finess.idnst, name=facts.name, source=source, as_of=as_of)
        step.session.add(found)
    if found.as_of <= as_of:
        found.name, found.kind = facts.name, facts.kind
        found.city, found.postal_code, found.address_line = facts.city, facts.postal_code, facts.address_line
        found.phone, found.source, found.as_of, found.gone_on = facts.phone, source, as_of, None
    step.session.flush()
    for box in facts.mailboxes:
        _put_mailbox(step.session, box, source=source, as_of=as_of, organisation_id=found.id)
    return found


def put_professional(step: Step, facts: ProfessionalFacts, *, source: str, as_of: date) -> Practitioner:
    """Keep what a source says of a professional, of his situations and of his mailboxes.

    Raises
    ------
    InvalidContent
        ``rpps-forme``, ``rpps-cle``, ``mssante-forme``, ``code-inconnu`` (profession, speciality, kind of mailbox).
    NotFound
        ``structure-inconnue``: a situation in a structure that is not kept yet.
    """
    rpps = Rpps.parse(facts.rpps, expression="rpps")
    code_list("TRE_G15").require(facts.profession, expression="profession")
    if facts.speciality is not None:
        _require_speciality(facts.speciality)
    found = step.session.scalar(select(Practitioner).where(Practitioner.idnps == rpps.idnps))
    if found is None:
        found = Practitioner(
            rpps=rpps.value, idnps=rpps.idnps, family=facts.family, given=facts.given, source=source, as_of=as_of
        )
        step.session.add(found)
    if found.as_of <= as_of:
        found.rpps, found.family, found.given, found.title = rpps.value, facts.family, facts.given, facts.title
        found.profession, found.speciality = facts.profession, facts.speciality
        found.source, found.as_of, found.updated_at, found.gone_on = source, as_of, utcnow(), None
    step.session.flush()
    for practice in facts.practices:
        _put_practice(step.session, found.id, facts, practice, source=source, as_of=as_of)
    for box in facts.mailboxes:
        _put_mailbox(step.session, box, source=source, as_of=as_of, practitioner_id=found.id)
    step.session.flush()
    step.session.refresh(found)
    return found


def put_entry(step: Step, facts: EntryFacts, *, source: str, as_of: date) -> Practitioner:
    """Keep the whole of what a source says of one professional: what it said before and says no more is gone.

    Raises
    ------
    InvalidContent, NotFound
        As `put_organisation` and `put_professional`.
    """
    for place in facts.places:
        put_organisation(step, place, source=source, as_of=as_of)
    found = put_professional(step, facts.professional, source=source, as_of=as_of)
    if found.source == source and found.as_of <= as_of:
        found.gone_on = None if facts.active else as_of
    said = {box.address.lower() for box in facts.professional.mailboxes} if facts.active else set()
    for box in found.mailboxes:
        if box.source == source and box.as_of <= as_of and box.address not in said:
            box.gone_on = box.gone_on or as_of
    where = {practice.finess for practice in facts.professional.practices} if facts.active else set()
    for role in found.roles:
        there = role.organisation.finess if role.organisation else None
        if role.source == source and role.as_of <= as_of and there not in where:
            role.gone_on = role.gone_on or as_of
    step.session.flush()
    return found


def find(session: Session, words: str, *, limit: int = 20) -> Sequence[Practitioner]:
    """Find professionals by number, or by the beginning of a family name, a given name or both in any order.

    Those who left the register are not found. Two letters at least: less finds nobody.
    """
    if any(sign.isdigit() for sign in words):
        known = practitioner_of(session, words)
        return [known] if known is not None and known.gone_on is None else []
    parts = folded(words).replace("|", " ").split()
    if len("".join(parts)) < 2:
        return []
    plain = [part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") for part in parts]
    halves = [(" ".join(plain[:cut]), " ".join(plain[cut:])) for cut in range(1, len(plain))]
    patterns = [" ".join(plain) + "%", *(f"{one}%|{other}%" for a, b in halves for one, other in ((a, b), (b, a)))]
    there = select(Practitioner).where(Practitioner.gone_on.is_(None)).order_by(Practitioner.folded, Practitioner.idnps)
    # By the index of names first; only what is not found so is looked for in all given names.
    found = list(session.scalars(there.where(or_(*map(Practitioner.folded.like, patterns))).limit(limit)))
    if not found:
        found = list(session.scalars(there.where(Practitioner.folded.like(f"%|{' '.join(plain)}%")).limit(limit)))
    return found


def practitioner_of(session: Session, number: str) -> Practitioner | None:
    """Find a professional by RPPS or national identifier; a name never finds anybody."""
    return session.scalar(select(Practitioner).where(Practitioner.idnps == IdNatPs.from_wire(number).value))


def organisation_of(session: Session, finess: str) -> Organisation | None:
    """Find a structure by its FINESS."""
    return session.scalar(select(Organisation).where(Organisation.finess == Finess.from_wire(finess).value))


def _put_practice(
    session: Session,
    practitioner_id: uuid.UUID,
    facts: ProfessionalFacts,
    practice: PracticeFacts,
    *,
    source: str,
    as_of: date,
) -> None:
    place = organisation_of(session, practice.finess) if practice.finess else None
    if practice.finess and place is None:
        raise NotFound("structure-inconnue", "La structure d’exercice n’est pas dans l’annuaire.", expression="finess")
    speciality = practice.speciality or facts.speciality
    if speciality is not None:
        _require_speciality(speciality)
    place_id = place.id if place else None
    found = session.scalar(
        select(PracticeRole).where(
            PracticeRole.practitioner_id == practitioner_id,
            PracticeRole.organisation_id.is_not_distinct_from(place_id),
            PracticeRole.speciality.is_not_distinct_from(speciality),
        )
    )
    if found is None:
        found = PracticeRole(
            practitioner_id=practitioner_id,
            organisation_id=place_id,
            speciality=speciality,
            source=source,
            as_of=as_of,
        )
        session.add(found)
    if found.as_of <= as_of:
        found.profession = practice.profession or facts.profession
        found.source, found.as_of, found.gone_on = source, as_of, None


def _put_mailbox(
    session: Session,
    facts: MailboxFacts,
    *,
    source: str,
    as_of: date,
    practitioner_id: uuid.UUID | None = None,
    organisation_id: uuid.UUID | None = None,
) -> None:
    address = MssanteAddress.parse(facts.address, expression="mailbox").value
    code_list("TRE_R257").require(facts.kind, expression="mailbox")
    if practitioner_id is not None:
        # One box a person, wherever he uses it.
        owned = Mailbox.practitioner_id == practitioner_id
        place = organisation_of(session, facts.finess) if facts.finess else None
        organisation_id = place.id if place else None
    else:
        owned = and_(Mailbox.practitioner_id.is_(None), Mailbox.organisation_id == organisation_id)
    found = session.scalar(select(Mailbox).where(Mailbox.address == address, owned))
    if found is None:
        found = Mailbox(
            address=address,
            practitioner_id=practitioner_id,
            organisation_id=organisation_id,
            source=source,
            as_of=as_of,
        )
        session.add(found)
    if found.as_of <= as_of:
        found.kind, found.preferred, found.paperless = facts.kind, facts.preferred, facts.paperless
        # Who does not speak of the red list takes nobody off it.
        found.confidential = facts.confidential if facts.confidential is not None else bool(found.confidential)
        if found.unusable_since is not None and as_of > found.unusable_since.date():
            found.unusable_since = None
        found.source, found.as_of, found.gone_on = source, as_of, None
        found.organisation_id = organisation_id or found.organisation_id


def _require_speciality(code: str) -> None:
    lists: Iterable[str] = ("TRE_R38", "JDV_J107")
    if not any(code in code_list(name) for name in lists):
        text = "Cette spécialité n’est dans aucune liste de savoir-faire connue."
        raise InvalidContent("code-inconnu", text, expression="speciality", rule=True)
