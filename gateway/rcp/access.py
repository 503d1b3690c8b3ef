"""Who comes in, and what he may see: one predicate that every wire puts into its query.

Whoever comes in is a `Caller` (`gateway.rcp.caller`); wires authenticate, this module decides. A right that cannot be
computed is denied; what one may not see does not exist for him (404 on every wire, audited: DECISIONS 11).

The predicates are SQLAlchemy Core expressions over the model's tables, so that the synchronous session and the
asynchronous read path compile the same text. They never load a row.
"""

from __future__ import annotations

import uuid
from collections.abc import Hashable
from enum import StrEnum
from functools import lru_cache

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Select,
    Table,
    Uuid,
    and_,
    any_,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from gateway.errors import Forbidden, NotFound
from gateway.model.directory import Organisation
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.imaging import Study, StudyDossier
from gateway.model.meeting import Rcp, RcpMember, RcpSession
from gateway.model.partner import Partner
from gateway.model.person import PatientRecord, WorkItem
from gateway.model.representation import TABLES
from gateway.rcp import inscribed
from gateway.rcp.caller import SYSTEM, Caller, CallerKind, facts

__all__ = [
    "SYSTEM",
    "Caller",
    "CallerKind",
    "Role",
    "coordinates",
    "dossiers",
    "facts",
    "hidden",
    "organises",
    "parts_of",
    "rcps",
    "records",
    "representations",
    "require_organiser",
    "require_role",
    "rights",
    "roles_in",
    "run_by",
    "sessions",
    "studies",
    "treating",
    "treats",
    "work_items",
]


class Role(StrEnum):
    """Parts in an RCP, by growing power."""

    MEMBER = "membre"
    SECRETARY = "secretaire"
    COORDINATOR = "coordonnateur"
    ADMINISTRATOR = "administrateur"


#: Who prepares sessions and reads their register; who drafts and validates reports.
ORGANISERS = frozenset({Role.SECRETARY, Role.COORDINATOR, Role.ADMINISTRATOR})
VALIDATORS = frozenset({Role.COORDINATOR, Role.ADMINISTRATOR})


def _membership(caller: Caller, roles: frozenset[Role] | None = None) -> Select[uuid.UUID]:
    """Ids of the RCPs in which the professional has a live part (any, or one of ``roles``)."""
    statement = select(RcpMember.rcp_id).where(
        RcpMember.practitioner_id == caller.practitioner_id, RcpMember.until.is_(None)
    )
    return statement.where(RcpMember.role.in_(sorted(roles))) if roles else statement


def dossiers(caller: Caller) -> ColumnElement[bool]:
    """Predicate over `Dossier`: the dossiers that exist for this caller.

    A professional sees those that he requests, those of which he is a correspondent (until he says that it is not his
    patient) and those of the RCPs in which he has a part; a client or PACS those of its own organisation and of the
    RCPs that it runs; a peer those that it sent.
    """
    match caller.kind:
        case CallerKind.SYSTEM:
            return true()
        case CallerKind.PROFESSIONAL if caller.practitioner_id is not None:
            return or_(
                Dossier.requester_id == caller.practitioner_id,
                # Correlated by hand: whoever uses the predicate may join the same tables for reasons of his own.
                exists()
                .where(
                    Correspondent.dossier_id == Dossier.id,
                    Correspondent.practitioner_id == caller.practitioner_id,
                    Correspondent.declined_at.is_(None),
                )
                .correlate(Dossier),
                exists()
                .where(RcpSession.id == Dossier.session_id, RcpSession.rcp_id.in_(_membership(caller)))
                .correlate(Dossier),
            )
        case CallerKind.CLIENT | CallerKind.PACS | CallerKind.PEER if caller.partner_id is not None:
            own = Dossier.partner_id == caller.partner_id
            return or_(own, _inscribed_at(caller)) if caller.rcps else own
        case _:
            return false()


def _inscribed_at(caller: Caller) -> ColumnElement[bool]:
    """Predicate over `Dossier`: those of the RCPs that the caller's establishment runs."""
    run = RcpSession.rcp_id == any_(literal(sorted(caller.rcps), ARRAY(Uuid())))
    return exists().where(RcpSession.id == Dossier.session_id, run).correlate(Dossier)


def _visible_dossiers(caller: Caller) -> Select[uuid.UUID]:
    return select(Dossier.id).where(dossiers(caller))


def records(caller: Caller) -> ColumnElement[bool]:
    """Predicate over `PatientRecord`: the caller's own organisation's, and those of the dossiers that he may see."""
    if caller.kind is CallerKind.SYSTEM:
        return true()
    own = (
        PatientRecord.partner_id == caller.partner_id
        if caller.partner_id is not None and caller.kind is not CallerKind.PROFESSIONAL
        else false()
    )
    named = exists().where(Dossier.record_id == PatientRecord.id, dossiers(caller)).correlate(PatientRecord)
    return or_(own, named)


def studies(caller: Caller) -> ColumnElement[bool]:
    """Predicate over `Study`: one's own organisation's, or attached to a dossier that one may see.

    A study in quarantine exists for nobody but the organisation that sent it: never in a dossier.
    """
    if caller.kind is CallerKind.SYSTEM:
        return true()
    attached = and_(
        Study.state == "rattache",
        exists()
        .where(StudyDossier.study_id == Study.id, StudyDossier.dossier_id.in_(_visible_dossiers(caller)))
        .correlate(Study),
    )
    if caller.partner_id is not None and caller.kind is not CallerKind.PROFESSIONAL:
        return or_(Study.partner_id == caller.partner_id, attached)
    return attached


def rcps(caller: Caller) -> ColumnElement[bool]:
    """Predicate over `Rcp`: meetings carry no patient datum; any known caller may see them."""
    del caller
    return true()


def sessions(caller: Caller, *, organised: bool = False) -> ColumnElement[bool]:
    """Predicate over `RcpSession`; ``organised`` keeps those that the caller prepares."""
    if not organised or caller.kind is CallerKind.SYSTEM:
        return true()
    if caller.kind is not CallerKind.PROFESSIONAL or caller.practitioner_id is None:
        return false()
    return RcpSession.rcp_id.in_(_membership(caller, ORGANISERS))


def work_items(caller: Caller) -> ColumnElement[bool]:
    """Predicate over `WorkItem`: organisers see those of their networks' dossiers and studies.

    Images whose sender belongs to no network and that no dossier claims would be nobody's, like a mail that answers
    nothing of ours: any organiser sees them.
    """
    if caller.kind is CallerKind.SYSTEM:
        return true()
    if caller.kind is not CallerKind.PROFESSIONAL or caller.practitioner_id is None:
        return false()
    networks = select(Rcp.network_id).where(Rcp.id.in_(_membership(caller, ORGANISERS)))
    return or_(
        WorkItem.network_id.in_(networks),
        WorkItem.dossier_id.in_(
            select(Dossier.id)
            .join(RcpSession, RcpSession.id == Dossier.session_id)
            .where(RcpSession.rcp_id.in_(_membership(caller, ORGANISERS)))
        ),
        and_(
            WorkItem.kind == "imagerie",
            WorkItem.network_id.is_(None),
            WorkItem.dossier_id.is_(None),
            WorkItem.partner_id.in_(select(Partner.id).where(Partner.network_id.is_(None))),
            _membership(caller, ORGANISERS).exists(),
        ),
        and_(
            WorkItem.kind == "message",
            WorkItem.network_id.is_(None),
            WorkItem.dossier_id.is_(None),
            _membership(caller, ORGANISERS).exists(),
        ),
    )


def organises(session: Session, caller: Caller) -> bool:
    """Whether the caller prepares the sessions of any RCP."""
    if caller.kind is not CallerKind.PROFESSIONAL or caller.practitioner_id is None:
        return False
    return bool(session.scalar(select(_membership(caller, ORGANISERS).exists())))


def _agendas(caller: Caller, table: Table) -> ColumnElement[bool]:
    """Predicate over Lists: agendas of the RCPs in which the caller has a part, or that his establishment runs.

    An agenda says who else is discussed: who only inscribes to the session does not see it.
    """
    part = RcpSession.rcp_id == any_(literal(sorted(caller.rcps), ARRAY(Uuid())))
    if caller.kind is CallerKind.PROFESSIONAL:
        part = RcpSession.rcp_id.in_(_membership(caller))
    return and_(
        table.c.root_kind == "RcpSession", exists().where(RcpSession.id == table.c.root_id, part).correlate(table)
    )


def rights(caller: Caller) -> Hashable:
    """All that the predicates look at: whoever has the same rights sees the same, whatever he is called."""
    return caller.kind, caller.partner_id, caller.practitioner_id, caller.rcps


def representations(caller: Caller, table: Table) -> ColumnElement[bool]:
    """Predicate over one representation table (`gateway.model.representation`); made once for the same rights.

    Each alternative looks at this row alone, the cheapest first: an uncorrelated ``IN`` below an ``OR`` would collect
    all dossiers and records of the caller before it looked at the first row.

    Of the record of a dossier that it sees for running the RCP, an establishment's software sees what the dossier
    brings (`gateway.rcp.inscribed`); whoever else sees a record sees what stands in no dossier.
    """
    return _representations(caller.kind, caller.partner_id, caller.practitioner_id, caller.rcps, table)


@lru_cache(maxsize=4096)
def _representations(
    kind: CallerKind,
    partner_id: uuid.UUID | None,
    practitioner_id: uuid.UUID | None,
    rcps: frozenset[uuid.UUID],
    table: Table,
) -> ColumnElement[bool]:
    # Made of the rights alone, so that nothing else of a caller can stand in what another one is given.
    caller = Caller(kind=kind, partner_id=partner_id, practitioner_id=practitioner_id, rcps=rcps)
    if caller.kind is CallerKind.SYSTEM:
        return true()
    if caller.kind is CallerKind.PROFESSIONAL:
        if caller.practitioner_id is None:
            return false()
        if table is TABLES["ImagingStudy"]:
            # Attached to several dossiers it stands under the record alone, and old versions under an old dossier;
            # those of a patient from whom it was taken are nobody's.
            mine = select(Study.id, Study.record_id).where(studies(caller))
            return tuple_(table.c.root_id, table.c.record_id).in_(mine)
        visible = [
            table.c.public,
            exists().where(Dossier.id == table.c.dossier_id, dossiers(caller)).correlate(table),
            and_(
                table.c.dossier_id.is_(None),
                exists().where(PatientRecord.id == table.c.record_id, records(caller)).correlate(table),
            ),
        ]
    elif caller.partner_id is not None:
        # Its own dossiers and records by a function of the database: planned with each search, they double its price.
        own = func.rcp_of_partner(caller.partner_id, table.c.dossier_id, table.c.record_id, type_=Boolean())
        visible = [table.c.partner_id == caller.partner_id, table.c.public, own]
    else:
        return false()
    if caller.rcps:
        run = _inscribed_at(caller)
        visible += [
            exists().where(Dossier.id == table.c.dossier_id, run).correlate(table),
            and_(table.c.dossier_id.is_(None), inscribed.brought(table, run)),
        ]
    if table is TABLES["List"]:
        visible.append(_agendas(caller, table))
    return or_(*visible)


def hidden(caller: Caller, object_type: str, object_id: object, *, text: str = "Ressource inconnue.") -> NotFound:
    """The refusal of what one may not see: the same words whether it exists or not; the trail knows who asked."""
    error = NotFound("inconnu", text)
    error.trail = facts(
        caller, "refus", outcome="4", reason="inconnu", object_type=object_type, object_id=str(object_id)
    )
    return error


def roles_in(session: Session, caller: Caller, rcp_id: uuid.UUID) -> frozenset[Role]:
    """Live parts of a professional in one RCP; empty for anybody else."""
    if caller.kind is not CallerKind.PROFESSIONAL or caller.practitioner_id is None:
        return frozenset()
    return parts_of(session, caller.practitioner_id, rcp_id)


def parts_of(session: Session, practitioner_id: uuid.UUID, rcp_id: uuid.UUID) -> frozenset[Role]:
    """Live parts in one RCP of a professional whom somebody else names."""
    rows = session.scalars(
        select(RcpMember.role).where(
            RcpMember.rcp_id == rcp_id,
            RcpMember.practitioner_id == practitioner_id,
            RcpMember.until.is_(None),
        )
    )
    return frozenset(Role(row) for row in rows)


def run_by(session: Session, partner_id: uuid.UUID) -> frozenset[uuid.UUID]:
    """Ids of the RCPs that a partner's own establishment runs: the FINESS of both is the same.

    A partner of the same network is not enough: any hospital of it would hold the meetings of all others.
    """
    held = or_(Organisation.finess == Partner.finess, Organisation.idnst == "1" + Partner.finess)
    statement = select(Rcp.id).join(Organisation, Organisation.id == Rcp.organisation_id).join(Partner, held)
    return frozenset(session.scalars(statement.where(Partner.id == partner_id)))


def coordinates(session: Session, caller: Caller, rcp_id: uuid.UUID) -> bool:
    """Whether the caller drafts and validates reports of this RCP."""
    return bool(roles_in(session, caller, rcp_id) & VALIDATORS)


def treats(caller: Caller, dossier: Dossier) -> Correspondent | None:
    """The caller's own line as treating physician of this dossier, if he is."""
    return treating(dossier, caller.practitioner_id) if caller.practitioner_id is not None else None


def treating(dossier: Dossier, practitioner_id: uuid.UUID) -> Correspondent | None:
    """Line of a professional as treating physician of a dossier, unless he said that it is not his patient."""
    for correspondent in dossier.correspondents:
        if (
            correspondent.role == "medecin-traitant"
            and correspondent.practitioner_id == practitioner_id
            and correspondent.declined_at is None
        ):
            return correspondent
    return None


def require_organiser(session: Session, caller: Caller, rcp_id: uuid.UUID) -> None:
    """Refuse the preparation of an RCP's sessions to who does not organise it, in person or by his establishment.

    Raises
    ------
    NotFound, Forbidden
        As `require_role`; ``proprietaire`` for the software of another establishment.
    """
    if caller.kind is not CallerKind.CLIENT:
        require_role(session, caller, rcp_id, ORGANISERS)
    elif caller.partner_id is None or rcp_id not in run_by(session, caller.partner_id):
        error = Forbidden("proprietaire", "Seul l’établissement qui organise cette RCP en écrit les séances.")
        error.trail = facts(
            caller, "refus", outcome="4", reason="proprietaire", object_type="Rcp", object_id=str(rcp_id)
        )
        raise error


def require_role(session: Session, caller: Caller, rcp_id: uuid.UUID, allowed: frozenset[Role]) -> None:
    """Refuse a verb to who has none of ``allowed`` in this RCP.

    Raises
    ------
    NotFound
        No part in the RCP at all: it does not exist for him.
    Forbidden
        A part that does not suffice.
    """
    if caller.kind is CallerKind.SYSTEM:
        return
    found = roles_in(session, caller, rcp_id)
    if found & allowed:
        return
    if not found:
        raise hidden(caller, "Rcp", rcp_id)
    error = Forbidden("role", "Votre rôle dans cette RCP ne permet pas cette action.")
    error.trail = facts(caller, "refus", outcome="4", reason="role", object_type="Rcp", object_id=str(rcp_id))
    raise error
