"""Mailboxes: through which of them a physician is told, in which order.

Promises: one rule for every message, here. Not promised: that the mailbox exists still (a bounce says so).

[spec mssante §4.1, spec annuaire §5]
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from gateway.identifiers import MssanteAddress
from gateway.model.directory import Mailbox, PracticeRole, Practitioner

__all__ = ["addresses", "is_mssante", "reachable"]


def addresses(
    session: Session, practitioner: Practitioner, *, personal: bool = True, secretariat: bool = False
) -> Sequence[Mailbox]:
    """Return the mailboxes through which a physician may be told, in the order to try them.

    Personal boxes first, the preferred one before the others; then, if his secretariat was ticked, those of the
    structures where he works still. Applicative boxes are for software and never tried; one that bounced for good or
    that the directory does not name any more is left out.
    """
    kept: list[Mailbox] = []
    if personal:
        own = (box for box in practitioner.mailboxes if box.kind in {"PER", "CAB"})
        kept += sorted(own, key=lambda box: (not box.preferred, box.address))
    if secretariat:
        places = [role.organisation_id for role in practitioner.roles if role.organisation_id and role.gone_on is None]
        kept += session.scalars(
            select(Mailbox)
            .where(Mailbox.organisation_id.in_(places), Mailbox.kind == "ORG")
            .order_by(Mailbox.preferred.desc(), Mailbox.address)
        )
    return [box for box in kept if box.unusable_since is None and box.gone_on is None]


def reachable(
    session: Session, practitioners: Iterable[uuid.UUID]
) -> Mapping[uuid.UUID, tuple[str | None, str | None]]:
    """Return one address of each physician's own, and one of his structures', that `addresses` would give.

    For many at once, of whom it is only asked whether they can be told: which address is tried first is not said.
    """
    wanted = list(practitioners)
    usable = and_(Mailbox.unusable_since.is_(None), Mailbox.gone_on.is_(None))
    own = (
        select(Mailbox.practitioner_id, func.min(Mailbox.address))
        .where(Mailbox.practitioner_id.in_(wanted), Mailbox.kind.in_(("PER", "CAB")), usable)
        .group_by(Mailbox.practitioner_id)
    )
    office = (
        select(PracticeRole.practitioner_id, func.min(Mailbox.address))
        .join(Mailbox, Mailbox.organisation_id == PracticeRole.organisation_id)
        .where(PracticeRole.practitioner_id.in_(wanted), PracticeRole.gone_on.is_(None), Mailbox.kind == "ORG", usable)
        .group_by(PracticeRole.practitioner_id)
    )
    personal: dict[uuid.UUID | None, str] = dict(session.execute(own).tuples().all())
    shared: dict[uuid.UUID, str] = dict(session.execute(office).tuples().all())
    return {one: (personal.get(one), shared.get(one)) for one in wanted}


def is_mssante(session: Session, address: str) -> bool:
    """Say whether an address is inside MSSanté: by its domain, or because the directory has it (spec mssante §1.2)."""
    if not MssanteAddress.from_wire(address).faults:
        return True
    found = select(Mailbox.id).where(func.lower(Mailbox.address) == address.strip().lower()).limit(1)
    return session.scalar(found) is not None
