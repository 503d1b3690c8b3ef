"""What an administrator is told of an added dossier (M3): who added it, its labels, what it still needs, its papers.

Promises: each value says something, also where nothing is known, so that the letter has no hole; what is to become of
the treating physician's notification is what the planner would decide at that instant, in the words of the register.
Writes nothing.

[spec features 4.2 M3, 4.3]
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway.errors import InvalidContent
from gateway.model.dossier import Dossier
from gateway.model.imaging import StudyDossier
from gateway.model.received import ReceivedDocument
from gateway.rcp import fiche, notification, report_people
from gateway.rcp.french import hour, short_date
from gateway.rcp.letters import requester_words
from gateway.rcp.notice_rules import REASONS

__all__ = ["DATED", "added_values"]

_LABELS: Final = "etiquettes"
_UNDECIDED: Final = "Notification non encore planifiée"
_UNREADABLE: Final = "les réglages de la fiche de cette RCP sont illisibles"
#: The labels of the register that say an instant. [spec features 4.3]
DATED: Final = {
    "PREVUE": "Notification avant RCP prévue le {date}",
    "ENVOYEE": "Notification envoyée le {date} à {heure}",
    "NON_DELAI": "Dossier inscrit après la limite du {date} à {heure}",
}
#: Those that are not in a session any more.
_LEFT: Final = ("annule", "refuse")


def added_values(session: Session, dossier: Dossier, now: datetime) -> dict[str, str | bool]:
    """Return the values of M3 that are found or counted."""
    share, missing, labels = _filled(session, dossier)
    title, name = requester_words(dossier)
    who = report_people.person_of(dossier.requester) if dossier.requester is not None else None
    house = dossier.organisation.name if dossier.organisation is not None else None
    if house is None and who is not None and who.organisation is not None:
        house = who.organisation.name
    papers = select(func.count()).where(ReceivedDocument.dossier_id == dossier.id, ReceivedDocument.state == "attache")
    studies = select(func.count()).where(StudyDossier.dossier_id == dossier.id)
    together = select(func.count()).where(Dossier.session_id == dossier.session_id, Dossier.state.not_in(_LEFT))
    return {
        "auteur.titre": title,
        "auteur.nom": name,
        "auteur.specialite": (who.speciality if who is not None else None) or "spécialité non renseignée",
        "auteur.structure": house or "structure non renseignée",
        "etiquettes": labels,
        "completude": str(share),
        "manquants": ", ".join(missing),
        "nb_documents": str(session.scalar(papers)),
        "nb_examens": str(session.scalar(studies)),
        "nb_dossiers": str(session.scalar(together)),
        "info_notification": " ; ".join(dict.fromkeys(_notified(session, dossier, now))),
    }


def _filled(session: Session, dossier: Dossier) -> tuple[int, tuple[str, ...], str]:
    """Say which share of the fiche is there, what it lacks, and its labels; settings in disorder stop no news of it."""
    try:
        said = fiche.statements(dossier).get(_LABELS)
        return *fiche.completeness(session, dossier), ", ".join(map(_label, said.value)) if said else "aucune"
    except InvalidContent:
        return 0, (_UNREADABLE,), "inconnues"


def _label(said: str) -> str:
    return said.capitalize() if said == fiche.URGENT else said


def _notified(session: Session, dossier: Dossier, now: datetime) -> Iterator[str]:
    zone = ZoneInfo(dossier.session.zone)
    spaced = dossier.session.rcp.notification.get("format_heure") == "18 h 30"
    try:
        decided = notification.decided(session, dossier, now)
    except InvalidContent:
        decided = ()
    for code, at in decided or ((None, None),):
        if code is None:
            yield _UNDECIDED
        elif at is None or code not in DATED:
            yield REASONS[code]
        else:
            wall = at.astimezone(zone)
            yield DATED[code].format(date=short_date(wall.date()), heure=hour(wall, spaced=spaced))
