"""What surrounds a page: who is signed in, the token of its forms, the browser that asks.

Promises: an old browser gets every page, with a banner that says so (S0-007). Does not promise to recognise every
browser: what is not recognised is not called old.
"""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.requests import Request

from gateway.model.directory import Practitioner
from gateway.model.meeting import RcpMember
from gateway.model.network import Network
from gateway.portal.views import Chrome, Notice, User
from gateway.portal.words import formal_name
from gateway.rcp.access import ORGANISERS, Caller
from gateway.web.csrf import Csrf

__all__ = ["MINIMUM", "NOTICES", "browser", "chrome", "is_old"]

#: Oldest versions that the presentation is made for (S0-007).
MINIMUM: Final = {"Edge": (80,), "Chrome": (53, 0, 2785), "Safari": (10, 0), "Firefox": (76,)}
# Order matters: Edge says Chrome and Safari too, Chrome says Safari too.
_PATTERNS: Final = (
    ("Edge", re.compile(r"\bEdge?/([\d.]+)")),
    ("Firefox", re.compile(r"\bFirefox/([\d.]+)")),
    ("Chrome", re.compile(r"\b(?:Chrome|CriOS)/([\d.]+)")),
    ("Safari", re.compile(r"\bVersion/([\d.]+).* Safari/")),
)
_OLDER: Final = re.compile(r"\bMSIE |\bTrident/")

#: What a page says after a form, by the word that the redirect carries; a word of nobody else says nothing.
NOTICES: Final = {
    "fiche": Notice("La fiche est enregistrée.", "success"),
    "reglages": Notice("Les réglages sont enregistrés.", "success"),
    "contribution": Notice("Votre contribution est enregistrée.", "success"),
    "presents": Notice("Les présents sont enregistrés.", "success"),
    "ouverte": Notice("La séance est ouverte.", "success"),
    "rejoue": Notice("Le message est remis en chemin.", "success"),
    "renvoye": Notice("Un nouveau courriel part à cette adresse.", "success"),
    "adresse": Notice("Cette adresse n’est plus utilisée.", "success"),
    "reprise": Notice("Cette adresse est de nouveau utilisée.", "success"),
    "rattache": Notice("Le courriel est rattaché au dossier.", "success"),
    "pieces": Notice("Les documents sont joints au dossier.", "success"),
    "images-en-attente": Notice("Les images sont reçues. Une personne doit confirmer à qui elles sont.", "info"),
    "piece-retiree": Notice("Le document est retiré du dossier.", "info"),
    "images-attendues": Notice("Les images attendues sont enregistrées.", "success"),
    "images-rattachees": Notice("Ces images sont rattachées au patient.", "success"),
    "images-laissees": Notice("Ces images restent hors de tout dossier.", "info"),
    "copie": Notice("La copie est demandée ; elle est prête dans un instant.", "success"),
    "images-envoyees": Notice("L’envoi est demandé ; son état est ci-dessous.", "success"),
    "images-deja-envoyees": Notice("Ces mêmes images ont déjà été envoyées là : elles ne repartent pas.", "info"),
    "images-reprises": Notice("L’envoi est repris : ces images repartent.", "success"),
    "images-detachees": Notice("Ces images sont retirées du dossier ; elles attendent une décision.", "success"),
    "images-donnees": Notice("Ces images sont retirées du dossier et données à l’autre patient.", "success"),
    "images-admises": Notice("Ces images sont admises.", "success"),
    "images-inchangees": Notice("Rien n’a changé : la contradiction demeure.", "info"),
    "clos": Notice("La situation est close.", "success"),
    "close": Notice("La séance est close.", "success"),
    "brouillon": Notice("Le brouillon est enregistré.", "success"),
    "valide": Notice("Le compte rendu est validé. Son envoi est en cours.", "success"),
    "pps": Notice("Le programme personnalisé de soins est validé.", "success"),
    "correction": Notice("Une nouvelle version est en préparation ; la précédente reste en vigueur.", "info"),
    "abandon": Notice("Le brouillon est abandonné.", "info"),
    "annulation": Notice("Le compte rendu est retiré. Ses destinataires en sont prévenus.", "info"),
    "visibilite": Notice("La restriction est levée. La nouvelle version est en cours d’envoi.", "success"),
}


def browser(request: Request) -> tuple[str, tuple[int, ...]] | None:
    """Return the browser and its version as it names itself, or ``None``."""
    agent = request.headers.get("user-agent", "")
    if _OLDER.search(agent):
        return ("Internet Explorer", (11,))
    for name, pattern in _PATTERNS:
        found = pattern.search(agent)
        if found:
            return name, tuple(int(part) for part in found.group(1).split(".")[:3] if part)
    return None


def is_old(request: Request) -> bool:
    """Whether the browser is older than the presentation was made for."""
    found = browser(request)
    if found is None:
        return False
    name, version = found
    return name == "Internet Explorer" or version < MINIMUM[name]


def chrome(
    request: Request,
    session: Session,
    caller: Caller | None,
    csrf: Csrf,
    *,
    current: str = "",
    fictitious: bool = False,
) -> Chrome:
    """Return what surrounds a page for this caller."""
    networks = session.scalars(select(Network).order_by(Network.name)).all()
    contacts = dict.fromkeys(network.contact for network in networks)
    return Chrome(
        network=networks[0].name if len(networks) == 1 else "",
        contact=" ; ".join(contacts),
        user=_user(session, caller),
        csrf_token=csrf.token(caller.session) if caller is not None and caller.session else "",
        current=current,
        notice=NOTICES.get(request.query_params.get("fait", "")),
        old_browser=is_old(request),
        fictitious=fictitious,
    )


def _user(session: Session, caller: Caller | None) -> User | None:
    if caller is None or caller.practitioner_id is None:
        return None
    person = session.get(Practitioner, caller.practitioner_id)
    organises = session.scalar(
        select(RcpMember.id)
        .where(
            RcpMember.practitioner_id == caller.practitioner_id,
            RcpMember.until.is_(None),
            RcpMember.role.in_(sorted(ORGANISERS)),
        )
        .limit(1)
    )
    name = formal_name(person) if person is not None else caller.name or ""
    # The lists' own suffixes (« (SM) ») say nothing to people.
    situation = re.sub(r" \([A-Z]{2,3}\)", "", caller.situation or "")
    return User(name, situation, organises is not None)
