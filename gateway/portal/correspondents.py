"""The correspondents of a fiche: who is written to, through which boxes, and whether he is told (S2-017, S2-018).

Promises: what the register says of the treating physician, and while he was not told what the planner would decide now:
a change that was just saved shows at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from gateway.errors import InvalidContent
from gateway.model.dossier import Correspondent, Dossier
from gateway.portal import views as v
from gateway.portal import words
from gateway.portal.register import notice_labels
from gateway.rcp import notification, register
from gateway.rcp.notice_rules import Decision

__all__ = ["correspondents"]

#: Codes of the register that no later decision changes.
_DONE: Final = frozenset({"ENVOYEE", "ECHEC"})


def correspondents(session: Session, row: Dossier, now: datetime) -> Iterable[v.Correspondent]:
    """Return the correspondents of a dossier, the treating physician first."""
    notices = register.notices(session, row.session_id, [row.id])[row.id]
    try:
        foreseen = notification.foreseen(session, row, now)
    except InvalidContent:  # a setting that nobody can read: what the register says stands
        foreseen = {}
    order = list(words.ROLES)
    for one in sorted(row.correspondents, key=lambda each: order.index(each.role)):
        treating = one.role == "medecin-traitant"
        labels = _information(notices, one, foreseen.get(one.id), row.session.zone) if treating else ()
        yield v.Correspondent(
            kind=words.ROLES[one.role],
            professional=words.professional(one.practitioner, one.display),
            personal=one.use_personal,
            secretariat=one.use_secretariat,
            information=labels,
        )


def _information(
    notices: Sequence[register.Notice], one: Correspondent, decision: Decision | None, zone: str
) -> tuple[str, ...]:
    """Return what the register says of one treating physician, or will say: what was just saved counts (S2-018)."""
    mine = [
        said
        for said in notices
        if (said.person.id == one.practitioner_id if said.person is not None else one.practitioner_id is None)
    ]
    if decision is not None and decision.code is not None:
        code = "PREVUE" if decision.code == "ENVOYEE" else decision.code
        mine = [said if said.code in _DONE else replace(said, code=code, due_at=decision.due_at) for said in mine]
    return tuple(dict.fromkeys(label for said in mine for label in notice_labels(said, zone)))
