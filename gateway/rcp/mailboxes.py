"""Mailboxes: through which of them a physician is told, in which order.

Promises: one rule for every message, here. Not promised: that the mailbox exists still (a bounce says so).

[spec mssante §4.1, spec annuaire §5]
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.model.directory import Mailbox, Practitioner

__all__ = ["addresses"]


def addresses(
    session: Session, practitioner: Practitioner, *, personal: bool = True, secretariat: bool = False
) -> Sequence[Mailbox]:
    """Return the mailboxes through which a physician may be told, in the order to try them.

    Personal boxes first, the preferred one before the others; then, if his secretariat was ticked, those of the
    structures where he works. Applicative boxes are for software and never tried; one that bounced for good is left
    out.
    """
    kept: list[Mailbox] = []
    if personal:
        own = (box for box in practitioner.mailboxes if box.kind in {"PER", "CAB"})
        kept += sorted(own, key=lambda box: (not box.preferred, box.address))
    if secretariat:
        places = [role.organisation_id for role in practitioner.roles if role.organisation_id is not None]
        kept += session.scalars(
            select(Mailbox)
            .where(Mailbox.organisation_id.in_(places), Mailbox.kind == "ORG")
            .order_by(Mailbox.preferred.desc(), Mailbox.address)
        )
    return [box for box in kept if box.unusable_since is None]
