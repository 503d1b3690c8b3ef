"""What the outbox is told of an attempt: a total table from `Fate`, with a French reason for people.

Retry reads the outcome; the reason is for the register and holds neither patient nor the server's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.exchange.outbox import Delivery, Outcome
from gateway.mssante.connection import Attempted, Fate

__all__ = ["delivery"]

_OUTCOMES: Mapping[Fate, Outcome] = {
    Fate.DELIVERED: Outcome.DELIVERED,
    Fate.REFUSED: Outcome.REFUSED,
    Fate.UNAVAILABLE: Outcome.UNAVAILABLE,
    Fate.UNCERTAIN: Outcome.UNCERTAIN,
}

_ALARM_PAUSE_S = 1800.0
"""A wrong certificate or password is not hammered: the account would be locked. [spec mssante 5.7]"""

_REASONS: Mapping[str, str] = {
    "accepted": "Accepté par l’opérateur.",
    "connect": "L’opérateur de messagerie ne répond pas.",
    "name-unknown": "Le nom de l’opérateur de messagerie est inconnu.",
    "cut": "La connexion à l’opérateur a été coupée.",
    "cut-in-data": "La connexion à l’opérateur a été coupée pendant l’envoi.",
    "cut-after-final-dot": "La connexion a été coupée avant la réponse : le message est peut-être parti.",
    "answer-unreadable": "La réponse de l’opérateur est illisible : le message est peut-être parti.",
    "tls": "La connexion chiffrée avec l’opérateur a échoué.",
    "tls-certificate": "Le certificat de l’opérateur n’est pas celui attendu.",
    "tls-revoked": "Le certificat de l’opérateur est révoqué.",
    "tls-crl-missing": "Aucune liste de révocation ne couvre le certificat de l’opérateur.",
    "tls-pin": "La clé de l’opérateur n’est pas celle attendue.",
    "starttls-not-offered": "L’opérateur n’offre pas de connexion chiffrée.",
    "auth-not-offered": "L’opérateur n’offre pas d’authentification utilisable.",
    "mail-token": "Aucun jeton n’a été délivré pour la messagerie.",
    "larger-than-operator-limit": "Le message dépasse la taille permise par l’opérateur.",
    "eight-bit-not-offered": "L’opérateur ne transporte pas ce message.",
    "answer-out-of-turn": "L’opérateur a répondu hors de propos ; rien n’est parti.",
    "line-ends": "Le message est mal formé.",
    "mail-address": "L’adresse n’est pas utilisable.",
    "smtp-550": "Boîte inconnue ou envoi refusé par l’opérateur.",
    "smtp-551": "Boîte inconnue de l’opérateur.",
    "smtp-552": "Boîte pleine ou message trop grand.",
    "smtp-553": "Adresse refusée par l’opérateur.",
    "smtp-554": "Envoi refusé par l’opérateur.",
}


def delivery(attempted: Attempted) -> Delivery:
    """Say an attempt in the outbox's words."""
    code = attempted.code if attempted.status is None else f"{attempted.code} {attempted.status}"
    usual = "Authentification refusée par l’opérateur." if attempted.code.startswith("auth-") else None
    reason = _REASONS.get(attempted.code) or usual or "Réponse inattendue de l’opérateur."
    pause_s = _ALARM_PAUSE_S if attempted.alarm else None
    facts: dict[str, Any] = {}
    if attempted.fate is Fate.REFUSED:
        facts = {"at_recipient": attempted.at_recipient}
    elif attempted.fate is Fate.DELIVERED:
        # The operator's own number is what its support asks for; without DSN success is never known. [mssante 5.2, 5.3]
        facts = {"dsn": attempted.dsn_requested, "queue_id": attempted.queue_id}
    return Delivery(_OUTCOMES[attempted.fate], code, reason, pause_s, facts)
