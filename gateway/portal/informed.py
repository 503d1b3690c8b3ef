"""Who was told what of a session before it changed, for its organisers: the list and the warning (S2-012).

Promises: whoever was notified stands there with his address and telephone, what he was told last, and whether that is
true still; an address of the red list is not shown. Sends nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

from gateway.model.meeting import Rcp, RcpSession
from gateway.portal import views as v
from gateway.portal import words
from gateway.rcp import mailboxes, notice_changes
from gateway.rcp.access import Caller
from gateway.rcp.french import hour, long_day, short_date
from gateway.rcp.notice_changes import Told
from gateway.rcp.step import Step

__all__ = ["informed", "notified_before"]

_CHANGES: Final = {
    "chg.date": "nouvelle date",
    "chg.lien": "nouveau lien",
    "chg.sans_lien": "plus de webconférence",
    "chg.annule": "séance annulée",
    "chg.retrait": "dossier retiré",
}
#: States of a session of which something may still change for who comes.
_AHEAD: Final = frozenset({"prevue", "reportee", "annulee"})


def informed(step: Step, caller: Caller, row: RcpSession) -> tuple[v.Informed | None, Sequence[uuid.UUID]]:
    """Return who was told of a session that the caller prepares, and the persons whom that names."""
    found = notice_changes.told_of(step.session, caller, row, step.now) if row.state in _AHEAD else ()
    if not found:
        return None, ()
    shown = mailboxes.shown(step.session, {one.address for one in found})
    view = v.Informed(
        since=short_date(words.local(min(one.at for one in found), row.zone)),
        automatic=notice_changes.renotifies(row.rcp),
        settings_url=f"/rcp/{row.rcp_id}/reglages",
        lines=tuple(_line(one, shown.get(one.address, ""), row) for one in found),
    )
    return view, [one.record.id for one in found]


def _line(one: Told, address: str, row: RcpSession) -> v.InformedLine:
    return v.InformedLine(
        physician=words.formal_name(one.physician),
        speciality=words.speciality(one.physician.speciality),
        contact=tuple(part for part in (address, one.phone) if part),
        identity=words.identity(one.record, with_birth=False),
        reference=one.reference,
        url=f"/dossiers/{one.dossier_id}",
        at=words.local(one.at, row.zone),
        said=_said(one, row),
        link=one.link,
        state=_state(one),
    )


def _said(one: Told, row: RcpSession) -> str:
    if one.starts_at is None:
        return "Le texte envoyé n’a pas été relevé"
    start = words.local(one.starts_at, row.zone)
    return f"{long_day(start.date())} à {hour(start)}"


def _state(one: Told) -> v.Badge:
    if one.lost:
        return v.Badge("Le changement ne lui est pas parvenu : à prévenir", "danger")
    if one.starts_at is None:
        return v.Badge("À vérifier", "warning")
    if not one.changes:
        return v.Badge("À jour", "success")
    news = ", ".join(_CHANGES[name] for name in sorted(one.changes))
    return (
        v.Badge(f"En cours d’annonce : {news}", "info") if one.by_itself else v.Badge(f"À prévenir : {news}", "danger")
    )


def notified_before(step: Step, rcp: Rcp) -> tuple[v.NotifiedSession, ...]:
    """Return the sessions to come of an RCP whose notifications have left: what is edited changes what they said."""
    return tuple(
        v.NotifiedSession(
            f"/seances/{one.session_id}#informes",
            words.local(one.starts_at, rcp.zone),
            short_date(words.local(one.at, rcp.zone)),
        )
        for one in notice_changes.notified_sessions(step.session, rcp.id, step.now)
    )
