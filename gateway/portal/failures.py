"""Why a mail was not delivered, in French words that an organiser can act on.

Promises: total over the codes of RFC 3463, the answers of SMTP and the errors of integration; a code that says nothing
known is shown as it is; the server's own words are never shown. [RFC 3463, spec mssante appendix B]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["failure_words"]

_WORDS: Final[Mapping[str, str]] = {
    "5.1.1": "adresse inconnue",
    "5.1.2": "domaine inconnu",
    "5.1.3": "adresse mal écrite",
    "5.1.6": "boîte déménagée sans nouvelle adresse",
    "5.1.10": "domaine qui n’accepte pas de courriel",
    "5.1": "adresse refusée",
    "5.2.1": "boîte désactivée",
    "5.2.2": "boîte pleine",
    "5.2.3": "message trop grand pour la boîte",
    "5.2": "boîte indisponible",
    "5.3.4": "message trop grand",
    "5.3": "serveur du destinataire en défaut",
    "5.4": "serveur du destinataire injoignable",
    "5.5": "échange refusé par le serveur",
    "5.6": "format refusé par le serveur",
    "5.7": "refusé par une règle de sécurité",
    "4.2.2": "boîte pleine",
    "4.4": "serveur du destinataire injoignable",
    "550": "boîte inconnue ou envoi refusé",
    "551": "boîte inconnue de ce serveur",
    "552": "boîte pleine ou message trop grand",
    "553": "adresse refusée",
    "554": "envoi refusé",
    "900": "pas la dernière version du document",
    "901": "auteur non autorisé à remplacer ou à supprimer",
    "902": "patient inconnu du logiciel du destinataire",
    "903": "INS absente du document",
    "904": "INS ou traits différents de ceux du destinataire",
    "905": "traits de l’INS incomplets",
    "906": "autre erreur d’intégration",
    "connect": "opérateur injoignable",
    "name-unknown": "opérateur introuvable",
    "tls-certificate": "certificat de l’opérateur inattendu",
    "larger-than-operator-limit": "message trop grand pour l’opérateur",
    "mail-address": "adresse inutilisable",
    "interrupted": "envoi interrompu, peut-être parti",
    "cut-after-final-dot": "connexion coupée, peut-être parti",
}


def failure_words(code: str) -> str:
    """Return the reason of a failure, from « smtp-550 5.1.1 », « 5.7.1 », « 902 » and their like."""
    answer, _, status = code.partition(" ")
    for wanted in (status, status.rpartition(".")[0], answer, answer.rpartition(".")[0], answer.removeprefix("smtp-")):
        if wanted in _WORDS:
            return f"{_WORDS[wanted]} ({code.removeprefix('smtp-')})"
    return code or "raison inconnue"
