"""The life of a dossier: which state follows which, and who may make it so.

One table [spec fhir-fr 2.3], with what DECISIONS settles: `notifie` is a fact of the register and no gate (3), so a
dossier may be discussed without it; an addendum and a correction are versions of the report that replace (5).

Promises: `move` is the only writer of `Dossier.state`; every move leaves a row of history and an audit line; a move
that the table does not hold is refused with the two states named.
Not promised: rights (the verbs ask `gateway.rcp.access`); `actors` says for whom a move is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from gateway.errors import InvalidContent
from gateway.model.dossier import Dossier, DossierMove
from gateway.rcp.step import Step

__all__ = ["FINAL", "LABELS", "MOVES", "Actor", "actors", "move", "open_states"]


class Actor(StrEnum):
    """For whom a move is meant."""

    REQUESTER = "demandeur"
    SECRETARY = "secretariat"
    COORDINATOR = "coordonnateur"
    GATEWAY = "passerelle"


_REQUESTER = frozenset({Actor.REQUESTER})
_SECRETARY = frozenset({Actor.SECRETARY, Actor.COORDINATOR})
_COORDINATOR = frozenset({Actor.COORDINATOR})
_GATEWAY = frozenset({Actor.GATEWAY})
_ANY = _REQUESTER | _SECRETARY

#: State → state → for whom. ``""`` is the state of what does not exist yet.
MOVES: Mapping[str, Mapping[str, frozenset[Actor]]] = MappingProxyType(
    {
        "": {"inscrit": _ANY},
        "inscrit": {"prefiche": _ANY, "refuse": _SECRETARY, "annule": _ANY, "reporte": _SECRETARY},
        "prefiche": {
            "inscrit": _SECRETARY,
            "notifie": _GATEWAY | _SECRETARY,
            "discute": _COORDINATOR,
            "non-discute": _COORDINATOR,
            "refuse": _SECRETARY,
            "annule": _ANY,
            "reporte": _SECRETARY,
        },
        "notifie": {
            "discute": _COORDINATOR,
            "non-discute": _COORDINATOR,
            "reporte": _SECRETARY,
            "annule": _ANY,
        },
        "discute": {"cr-brouillon": _COORDINATOR},
        "cr-brouillon": {"cr-valide": _COORDINATOR, "discute": _COORDINATOR},
        "cr-valide": {"envoye": _GATEWAY, "addendum": _COORDINATOR, "correction": _COORDINATOR},
        "envoye": {"addendum": _COORDINATOR, "correction": _COORDINATOR},
        "addendum": {"envoye": _GATEWAY, "addendum": _COORDINATOR, "correction": _COORDINATOR},
        "correction": {"envoye": _GATEWAY, "addendum": _COORDINATOR, "correction": _COORDINATOR},
        "reporte": {
            "prefiche": _SECRETARY,
            "notifie": _GATEWAY | _SECRETARY,
            "discute": _COORDINATOR,
            "annule": _SECRETARY,
        },
        "non-discute": {"reporte": _SECRETARY, "notifie": _GATEWAY | _SECRETARY, "annule": _SECRETARY},
        "refuse": {},
        "annule": {},
    }
)

#: What people read; `CodeSystem/rcp-etat-dossier` has the same codes.
LABELS: Mapping[str, str] = MappingProxyType(
    {
        "inscrit": "Inscrit",
        "prefiche": "Pré-fiche complète",
        "notifie": "Convoqué / notifié",
        "discute": "Discuté",
        "cr-brouillon": "Compte rendu en brouillon",
        "cr-valide": "Compte rendu validé",
        "envoye": "Compte rendu envoyé",
        "addendum": "Addendum",
        "correction": "Correction",
        "reporte": "Reporté",
        "non-discute": "Non discuté",
        "refuse": "Refusé",
        "annule": "Annulé",
    }
)

FINAL = frozenset(state for state, following in MOVES.items() if not following)


def open_states() -> frozenset[str]:
    """States in which the dossier still waits to be discussed: its form and its correspondents may change."""
    return frozenset({"inscrit", "prefiche", "notifie", "reporte", "non-discute"})


def actors(current: str, following: str) -> frozenset[Actor]:
    """For whom a move is meant; empty when the table does not hold it."""
    return MOVES.get(current, {}).get(following, frozenset())


def move(step: Step, dossier: Dossier, to_state: str, reason: str | None = None) -> None:
    """Move a dossier, keep the move, tell the trail.

    Parameters
    ----------
    dossier
        Locked by the caller (`Step.lock`), or just made in this step.
    reason
        Free text for people; kept with the move, never in the trail.

    Raises
    ------
    InvalidContent
        ``passage-impossible`` (rule): the table does not hold this move.
    """
    from_state = dossier.state or ""
    if not actors(from_state, to_state):
        text = f"Passage de l’état « {from_state} » à l’état « {to_state} » impossible."
        raise InvalidContent("passage-impossible", text, expression="Task.businessStatus", rule=True)
    dossier.state = to_state
    dossier.version = (dossier.version or 0) + 1
    step.session.add(
        DossierMove(
            dossier_id=dossier.id,
            from_state=from_state or None,
            to_state=to_state,
            session_id=dossier.session_id,
            reason=reason,
            actor=step.caller.identifier or step.caller.kind.value,
            at=step.now,
        )
    )
    step.touch(dossier)
    step.audit(
        "creation" if not from_state else "modification",
        action="U" if from_state else "C",
        persons=(dossier.record_id,),
        dossier=dossier.id,
        object_type="Dossier",
        object_id=str(dossier.id),
        detail={"de": from_state, "vers": to_state},
    )
