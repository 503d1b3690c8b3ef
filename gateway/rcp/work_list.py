"""The work list: what only a person may decide.

Promises: the same question is asked once while it is open, however often it comes up; an item names rows, never a
trait or an identifier of a patient. Does not close items: no page offers it yet.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.model.dossier import Dossier
from gateway.model.person import WorkItem

__all__ = ["ask", "ask_secretariat"]


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
