"""The work list: what only a person may decide.

Promises: the same question is asked once while it is open, however often it comes up; an item names rows, never a
trait or an identifier of a patient; who closed it, when and how stands in it (`gateway.rcp.error_box` closes for
people).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from gateway.errors import Conflict
from gateway.model.dossier import Dossier
from gateway.model.person import WorkItem
from gateway.model.store import utcnow
from gateway.rcp.step import Step

__all__ = ["BY_ITSELF", "ask", "ask_secretariat", "settle_by_itself", "still_open"]

#: Who closed an item that news answered.
BY_ITSELF = "rcp-gateway"


def ask(session: Session, item: WorkItem) -> None:
    """Put a question on the work list, unless one with its key is open."""
    known = session.scalar(select(WorkItem.id).where(WorkItem.key == item.key, WorkItem.closed_at.is_(None)))
    if known is None:
        session.add(item)
        session.flush()


def ask_secretariat(session: Session, dossier: Dossier, key: str, reason: str) -> None:
    """Tell the secretariat of a dossier's RCP that somebody could not be told of it, or should not have been."""
    network_id = dossier.session.rcp.network_id
    ask(
        session,
        WorkItem(key=key, kind="notification", reason=reason, network_id=network_id, dossier_id=dossier.id),
    )


def still_open(step: Step, item_id: uuid.UUID) -> WorkItem | None:
    """Lock an item that waits; nothing when this very person has closed it already (the same form twice).

    Raises
    ------
    Conflict
        ``deja-traite``: somebody else has closed it.
    """
    [item] = step.lock(WorkItem, item_id)
    if item.closed_at is None:
        return item
    if item.closed_by == step.caller.identifier:
        return None
    raise Conflict("deja-traite", "Cette situation vient d’être traitée par une autre personne.")


def settle_by_itself(session: Session, message_id: uuid.UUID, reasons: Sequence[str]) -> None:
    """Close the questions about a message that news has answered."""
    if reasons:
        session.execute(
            update(WorkItem)
            .where(WorkItem.message_id == message_id, WorkItem.reason.in_(reasons), WorkItem.closed_at.is_(None))
            .values(closed_at=utcnow(), closed_by=BY_ITSELF, decision="nouvelle-recue")
        )
