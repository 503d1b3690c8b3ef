"""Mailboxes: through which of them a physician is told, in which order, and what of them may be seen.

Promises: one rule for every message, here; what a person chose for a physician at a structure comes first until it is
unusable; an address of the red list is used and never shown. Not promised: that the mailbox exists still (a bounce says
so); the trail in the database has the address that was written to, each reading of it hides what is hidden.

[spec mssante §4.1, spec annuaire §5]
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    CompoundSelect,
    Select,
    Uuid,
    and_,
    any_,
    bindparam,
    func,
    literal,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from gateway.identifiers import MssanteAddress, uuid7
from gateway.model.directory import Mailbox, MailboxChoice, PracticeRole, Practitioner
from gateway.model.dossier import Dossier
from gateway.model.prepared import Prepared
from gateway.model.store import utcnow
from gateway.model.writes import ask
from gateway.rcp.step import Step

__all__ = [
    "HIDDEN",
    "addresses",
    "candidates",
    "choose",
    "displayed",
    "hidden_among",
    "is_mssante",
    "is_set_aside",
    "place_of",
    "reachable",
    "set_aside",
    "shown",
    "take_back",
]


#: Whom a sender sees in place of an address of the red list.
HIDDEN: Final = "adresse en liste rouge"
_OWN: Final = ("PER", "CAB")
_SHARED: Final = ("ORG",)
_BY_HAND: Final = "APP"


def place_of(practitioner: Practitioner, dossier: Dossier | None = None) -> uuid.UUID | None:
    """Return the structure for which a physician is written to: where the dossier comes from if he works there.

    Otherwise the first of those where he works, the one that the report names.
    """
    places = [
        role.organisation_id
        for role in sorted(practitioner.roles, key=lambda one: one.id)
        if role.organisation_id is not None and role.gone_on is None
    ]
    if dossier is not None and dossier.organisation_id in places:
        return dossier.organisation_id
    return places[0] if places else None


def addresses(
    session: Session,
    practitioner: Practitioner,
    *,
    personal: bool = True,
    secretariat: bool = False,
    dossier: Dossier | None = None,
) -> Sequence[Mailbox]:
    """Return the mailboxes through which a physician may be told, in the order to try them.

    First the one that a person chose for him at the structure of the dossier (`choose`). Then his own boxes: that of
    this structure, the preferred one, personal before practice; then, if his secretariat was ticked, those of the
    structures where he works still, this one first. Applicative boxes are for software and never tried unless chosen;
    one that bounced for good or that the directory does not name any more is left out.

    Parameters
    ----------
    dossier
        What he is told of: `place_of`.
    """
    place = place_of(practitioner, dossier)
    kept: list[Mailbox] = []
    if personal:
        kept += sorted(
            (box for box in practitioner.mailboxes if box.kind in _OWN),
            key=lambda box: (
                *(place is None or box.organisation_id != place, not box.preferred),
                *(_OWN.index(box.kind), box.address),
            ),
        )
    shared = _shared(session, practitioner)
    if secretariat:
        kept += sorted(
            (box for box in shared if box.kind in _SHARED),
            key=lambda box: (box.organisation_id != place, not box.preferred, box.address),
        )
    chosen = _chosen(session, practitioner, place)
    if chosen in kept:
        kept.remove(chosen)
        kept.insert(0, chosen)
    elif chosen is not None and chosen.kind == _BY_HAND and chosen in shared and (personal or secretariat):
        kept.insert(0, chosen)
    return [box for box in kept if _usable(box)]


def candidates(session: Session, practitioner: Practitioner, *, documents: bool = False) -> Sequence[Mailbox]:
    """Return all that a person may choose from for a physician, those of software last."""
    own = addresses(session, practitioner, secretariat=True)
    software = [box for box in _shared(session, practitioner) if box.kind == _BY_HAND and _usable(box)]
    found = dict.fromkeys([*own, *sorted(software, key=lambda box: box.address)])
    return [box for box in found if not (documents and box.paperless is False)]


def choose(step: Step, practitioner: Practitioner, box: Mailbox, *, dossier: Dossier | None = None) -> None:
    """Remember that a person wants this mailbox used for a physician at the structure of the dossier.

    The caller has found the box among `candidates`.
    """
    place = place_of(practitioner, dossier)
    said = {"mailbox_id": box.id, "chosen_by": step.caller.identifier or "inconnu", "chosen_at": utcnow()}
    put = insert(MailboxChoice).values(id=uuid7(), practitioner_id=practitioner.id, organisation_id=place, **said)
    step.session.execute(
        put.on_conflict_do_update(constraint="uq_mailbox_choice_practitioner_id_organisation_id", set_=said)
    )
    step.audit(
        "modification",
        action="U",
        object_type="Mailbox",
        object_id=str(box.id),
        recipient=box.address,
        reason="adresse-choisie",
    )


def displayed(session: Session, address: str | None) -> str:
    """Return an address as anybody may see it: one of the red list is written to, and never shown [spec annuaire §5].

    For every page, resource, file and line of a log that would print an address of somebody else than us.
    """
    return shown(session, [address] if address else ()).get(address or "", "")


def shown(session: Session, addresses: Iterable[str]) -> Mapping[str, str]:
    """Return each address as `displayed` does, many at once; a patient's is his INS, and is shown as little."""
    wanted = {one: one.strip().lower() for one in addresses}
    hidden = set(session.scalars(hidden_among(set(wanted.values()))).all()) if wanted else set()
    return {one: HIDDEN if lowered in hidden else MssanteAddress.shown(one) for one, lowered in wanted.items()}


def hidden_among(lowered: Collection[str]) -> Select[str]:
    """Return the question which of these addresses, in lower case, are of the red list."""
    low = func.lower(Mailbox.address).label("address")
    return select(low).where(low.in_(lowered), Mailbox.confidential).distinct()


def set_aside(session: Session, address: str) -> None:
    """Use an address no more, whosever it is, until the directory names it anew or a person takes it back."""
    session.execute(
        update(Mailbox)
        .where(func.lower(Mailbox.address) == address.strip().lower(), Mailbox.unusable_since.is_(None))
        .values(unusable_since=utcnow())
    )


def take_back(session: Session, address: str) -> None:
    """Use an address again that was set aside."""
    session.execute(
        update(Mailbox).where(func.lower(Mailbox.address) == address.strip().lower()).values(unusable_since=None)
    )


def is_set_aside(session: Session, address: str) -> bool:
    """Say whether an address that the directory has is used no more."""
    low = func.lower(Mailbox.address) == address.strip().lower()
    return session.scalar(select(Mailbox.id).where(low, Mailbox.unusable_since.is_not(None)).limit(1)) is not None


def reachable(
    session: Session, practitioners: Iterable[uuid.UUID]
) -> Mapping[uuid.UUID, tuple[str | None, str | None]]:
    """Return one address of each physician's own, and one of his structures', that `addresses` would give.

    For many at once, of whom it is only asked whether they can be told: which address is tried first is not said.
    """
    wanted = list(practitioners)
    found: tuple[dict[uuid.UUID, str], ...] = ({}, {}, {})
    if wanted:
        for way, who, address in ask(session, _REACHED, ids=wanted):
            found[way][who] = address
    personal, shared, by_hand = found
    return {one: (personal.get(one, by_hand.get(one)), shared.get(one, by_hand.get(one))) for one in wanted}


def _reached() -> CompoundSelect[int, uuid.UUID | None, str]:
    """Make the question of `reachable`: his own boxes, his structures', those of software that were chosen for him."""
    these = any_(bindparam("ids", type_=ARRAY(Uuid())))
    usable = and_(Mailbox.unusable_since.is_(None), Mailbox.gone_on.is_(None))
    address = func.min(Mailbox.address).label("address")

    def kind(*kinds: str) -> ColumnElement[bool]:
        return or_(*(Mailbox.kind == one for one in kinds))

    own = (
        select(literal(0).label("way"), Mailbox.practitioner_id.label("who"), address)
        .where(Mailbox.practitioner_id == these, kind(*_OWN), usable)
        .group_by(Mailbox.practitioner_id)
    )
    office = (
        select(literal(1), PracticeRole.practitioner_id, address)
        .join(Mailbox, Mailbox.organisation_id == PracticeRole.organisation_id)
        .where(PracticeRole.practitioner_id == these, PracticeRole.gone_on.is_(None), kind(*_SHARED), usable)
        .group_by(PracticeRole.practitioner_id)
    )
    chosen = (
        select(literal(2), MailboxChoice.practitioner_id, address)
        .join(Mailbox, Mailbox.id == MailboxChoice.mailbox_id)
        .where(MailboxChoice.practitioner_id == these, kind(_BY_HAND), usable)
        .group_by(MailboxChoice.practitioner_id)
    )
    return union_all(own, office, chosen)


_REACHED: Final = Prepared(_reached)


def _shared(session: Session, practitioner: Practitioner) -> Sequence[Mailbox]:
    """All boxes of the structures where he works still, usable or not."""
    places = [role.organisation_id for role in practitioner.roles if role.organisation_id and role.gone_on is None]
    wanted = (Mailbox.organisation_id.in_(places), Mailbox.kind.in_((*_SHARED, _BY_HAND)))
    return session.scalars(select(Mailbox).where(*wanted)).all() if places else ()


def _chosen(session: Session, practitioner: Practitioner, place: uuid.UUID | None) -> Mailbox | None:
    return session.scalar(
        select(Mailbox)
        .join(MailboxChoice, MailboxChoice.mailbox_id == Mailbox.id)
        .where(
            MailboxChoice.practitioner_id == practitioner.id,
            MailboxChoice.organisation_id.is_not_distinct_from(place),
        )
    )


def _usable(box: Mailbox) -> bool:
    return box.unusable_since is None and box.gone_on is None


def is_mssante(session: Session, address: str) -> bool:
    """Say whether an address is inside MSSanté: by its domain, or because the directory has it (spec mssante §1.2)."""
    if not MssanteAddress.from_wire(address).faults:
        return True
    found = select(Mailbox.id).where(func.lower(Mailbox.address) == address.strip().lower()).limit(1)
    return session.scalar(found) is not None
