"""The national service is asked about the physicians of the sessions to come, before they are written to.

Promises: nobody is waited for inside a transaction; each is asked about once a day, and again when one of his mailboxes
bounced for good; a service that does not answer ends the round and changes nothing: what is kept stays, with its date.
Not promised: that a physician whom the service does not know leaves our directory (only what it said itself is dated).

[spec mssante §4.1, spec annuaire §4]
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Row, exists, or_, select

from gateway.errors import Fault, GatewayError, Unavailable
from gateway.model.directory import Mailbox, Practitioner
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import RcpSession
from gateway.model.store import utcnow
from gateway.rcp.access import SYSTEM
from gateway.rcp.directory import EntryFacts, put_entry
from gateway.rcp.ports import Directory
from gateway.rcp.step import Step, Steps

__all__ = ["SOURCE", "refresh_due"]

SOURCE: Final = "annuaire-api"
_EVERY: Final = timedelta(hours=24)
#: Refusals that the next physician would meet too; any other is about one answer, and holds nobody else up.
_FOR_ALL: Final = frozenset({"annuaire-cle"})

log = structlog.get_logger(__name__)


def refresh_due(steps: Steps, directory: Directory, *, limit: int = 50) -> int:
    """Ask about who is due, some at a time; how many were asked about."""
    asked = 0
    for who in _due(steps, limit):
        try:
            found = directory.find(who.idnps)
        except Unavailable as refusal:
            log.warning("directory-not-asked", code=refusal.code, asked=asked)
            break
        except Fault as refusal:
            log.warning("directory-not-asked", code=refusal.code, asked=asked)
            if refusal.code in _FOR_ALL:
                break
            found = None
        try:
            steps.run(SYSTEM, partial(_keep, who.id, found))
        except GatewayError as refusal:
            # A code that our lists do not know: tomorrow again.
            log.warning("directory-entry-refused", code=refusal.code)
            steps.run(SYSTEM, partial(_keep, who.id, None))
        asked += 1
    return asked


def _due(steps: Steps, limit: int) -> Sequence[Row[uuid.UUID, str]]:
    meant = exists().where(
        Correspondent.practitioner_id == Practitioner.id,
        Dossier.id == Correspondent.dossier_id,
        RcpSession.id == Dossier.session_id,
        RcpSession.ends_at > steps.clock.now(),
    )
    bounced = exists().where(Mailbox.practitioner_id == Practitioner.id, Mailbox.unusable_since > Practitioner.asked_at)
    old = or_(Practitioner.asked_at.is_(None), Practitioner.asked_at < utcnow() - _EVERY, bounced)
    due = select(Practitioner.id, Practitioner.idnps).where(Practitioner.rpps.is_not(None), meant, old)
    with steps.store.session() as session:
        return session.execute(due.order_by(Practitioner.asked_at.nulls_first(), Practitioner.id).limit(limit)).all()


def _keep(key: uuid.UUID, found: EntryFacts | None, step: Step) -> None:
    (kept,) = step.lock(Practitioner, key)
    if found is not None:
        put_entry(step, found, source=SOURCE, as_of=utcnow().date())
        step.touch(kept)
    kept.asked_at = utcnow()
