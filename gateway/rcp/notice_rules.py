"""Who is told of a dossier before its meeting, when, and why not: the decision alone, on frozen facts.

Promises: a total and pure function; one code of spec features 4.3 for one physician of one dossier in one session; each
condition that is false alone gives its own code, and when several are, the first of `CONDITIONS` (from what concerns
the whole session down to the address); nothing is due at or after the start of the session.

[spec features 4.3, 5.4; S3-006 to S3-009]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.rcp.calendar import CatchUp, Notice, Verdict

__all__ = ["CONDITIONS", "LATE_AFTER", "REASONS", "Decision", "Facts", "decide"]

LATE_AFTER = timedelta(minutes=15)
"""A message that leaves this long after it was due is marked late (spec features 5.4.8)."""

REASONS: dict[str, str] = {
    "NON_SEANCE": "Séance annulée, reportée ou fictive",
    "NON_OPPOSITION": "Opposition du patient enregistrée",
    "NON_RCP": "Dispositif non activé pour cette RCP",
    "NON_MT": "Médecin traitant non renseigné",
    "NON_RPPS": "Médecin traitant sans numéro RPPS",
    "NON_DEMANDEUR": "Médecin traitant et demandeur sont la même personne",
    "NON_REFUS": "Le médecin a demandé à ne plus être informé",
    "NON_ADRESSE": "Aucune adresse cochée (personnelle ou secrétariat)",
    "NON_MSS": "Adresse MSSanté inconnue",
    "NON_DEMAT": "Documents non reçus par MSSanté : à envoyer sur papier",
    "NON_DELAI": "Dossier inscrit après la limite",
    "PREVUE": "Notification avant RCP prévue",
    "ENVOYEE": "Notification envoyée",
    "ECHEC": "Notification non envoyée avant la séance – à traiter",
}
"""Code of the register to its words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the decision about one physician rests on.

    Parameters
    ----------
    session_holds
        Neither cancelled nor postponed nor fictive.
    named, has_rpps, is_requester, wants_news
        The treating physician: named at all; with an RPPS number; the requester himself; has not declined.
    box_ticked, has_address
        Personal or secretariat box ticked; an MSSanté address found through it.
    registered_at
        First complete registration in this session; None while the form is not complete.
    ready_at
        When the last other condition came true, if after the registration.
    """

    notice: Notice
    session_holds: bool
    opposed: bool
    rcp_takes_part: bool
    named: bool
    has_rpps: bool
    is_requester: bool
    wants_news: bool
    box_ticked: bool
    has_address: bool
    registered_at: datetime | None
    ready_at: datetime | None = None
    catch_up: CatchUp | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the plan.

    Attributes
    ----------
    code
        Code of the register; ``ENVOYEE`` means: to be sent now. None while nothing can be said yet (form incomplete).
    due_at
        When the message is or was due; the limit for ``NON_DELAI``.
    late
        Leaves after a missed run.
    catch_up
        Leaves as M1b.
    """

    code: str | None
    due_at: datetime | None = None
    late: bool = False
    catch_up: bool = False


CONDITIONS: tuple[tuple[str, Callable[[Facts], bool]], ...] = (
    ("NON_SEANCE", lambda facts: facts.session_holds),
    ("NON_OPPOSITION", lambda facts: not facts.opposed),
    ("NON_RCP", lambda facts: facts.rcp_takes_part),
    ("NON_MT", lambda facts: facts.named),
    ("NON_RPPS", lambda facts: facts.has_rpps),
    ("NON_DEMANDEUR", lambda facts: not facts.is_requester),
    ("NON_REFUS", lambda facts: facts.wants_news),
    ("NON_ADRESSE", lambda facts: facts.box_ticked),
    ("NON_MSS", lambda facts: facts.has_address),
)
"""Every condition but time, with the code of the physician whom it excludes."""


def decide(facts: Facts, now: datetime) -> Decision:
    """Say what becomes of one physician's notification at an instant."""
    for code, holds in CONDITIONS:
        if not holds(facts):
            return Decision(code)
    notice = facts.notice
    if facts.registered_at is None:
        return Decision("NON_DELAI", notice.limit) if now > notice.limit else Decision(None)
    sending = notice.sending(facts.registered_at, completed_at=facts.ready_at, catch_up=facts.catch_up)
    if sending.at is None:
        return Decision("NON_DELAI", notice.limit)
    catch_up = sending.verdict is Verdict.CATCH_UP
    if notice.is_due(sending, now):
        return Decision("ENVOYEE", sending.at, now - sending.at > LATE_AFTER, catch_up)
    return Decision("PREVUE" if now < sending.at else "ECHEC", sending.at, catch_up=catch_up)
